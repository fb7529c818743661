//! The gateway's side.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certificate::CertificateError;
use crate::connection::Connection;
use crate::evidence::{self, EvidenceError, ExpectedWorker};
use crate::identity::Identity;
use crate::tls::{ALPN, Clock, ConfigError, alone, carried, provider, refused, verify_signature};

/// No connection to the worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Whoever answers is not the expected worker.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Too slow.
    #[error("worker: no handshake within {} ms; try again, or another worker", .0.as_millis())]
    Timeout(Duration),
    /// Another application protocol, or none.
    #[error("worker: it does not speak this protocol at this endpoint; choose another worker")]
    WrongProtocol,
    /// Refused, closed, or not TLS 1.3.
    #[error("worker: the TLS handshake failed: {0}; check the endpoint, or choose another worker")]
    Handshake(#[source] io::Error),
}

/// Connects to one worker, and to nobody else. Cheap to make anew when the worker's record changes.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    handshake_timeout: Duration,
}

impl Connector {
    /// To the worker of this record, showing this session key where there is one.
    ///
    /// # Errors
    /// [`ConfigError`]; none is known to happen.
    pub fn new(
        expected: ExpectedWorker,
        session: Option<&Identity>,
        handshake_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(WorkerVerifier { expected, algorithms });
        let config = ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match session {
            Some(session) => config.with_client_cert_resolver(Arc::new(OneKey(session.certified()))),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // The evidence names the worker; a host name would only tell observers more.
        config.enable_sni = false;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), handshake_timeout })
    }

    /// Shakes hands over an open transport. When this returns, the worker has proven to hold the TLS key that its evidence
    /// binds; whether it accepts the session key shows in its first answer.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
    ) -> Result<Connection<S>, ConnectError> {
        let name = ServerName::try_from("worker.invalid")
            .map_err(|error| ConnectError::Handshake(io::Error::other(error)))?;
        let stream = timeout(self.handshake_timeout, self.tls.connect(name, io))
            .await
            .map_err(|_| ConnectError::Timeout(self.handshake_timeout))?
            .map_err(|error| match carried::<EvidenceError>(&error) {
                Some(evidence) => ConnectError::Evidence(evidence),
                None => match carried::<CertificateError>(&error) {
                    Some(certificate) => ConnectError::Evidence(certificate.into()),
                    None => ConnectError::Handshake(error),
                },
            })?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(ConnectError::WrongProtocol);
        }
        Ok(Connection::new(stream.into(), None, None))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

#[derive(Debug)]
struct WorkerVerifier {
    expected: ExpectedWorker,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for WorkerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        alone(intermediates).map_err(refused)?;
        evidence::verify(end_entity, &self.expected, now.as_secs()).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(&self.algorithms, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[derive(Debug)]
struct OneKey(Arc<CertifiedKey>);

impl ResolvesClientCert for OneKey {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes.contains(&SignatureScheme::ED25519).then(|| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
