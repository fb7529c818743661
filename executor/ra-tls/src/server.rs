//! The worker's side.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use crate::admission::{Admission, Limits, Peer, Refusal};
use crate::certificate::CertificateError;
use crate::connection::Connection;
use crate::evidence::session_key;
use crate::identity::Identity;
use crate::tls::{ALPN, Clock, ConfigError, alone, carried, provider, refused, verify_signature};

/// Whether clients show a session key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may.
    Optional,
    /// They must.
    Required,
}

/// What strangers meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// From the transport's opening to the handshake's end.
    pub handshake_timeout: Duration,
    /// Who may begin one.
    pub admission: Limits,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(5), admission: Limits::default() }
    }
}

/// No connection with this client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Turned away before any cryptography.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Too slow.
    #[error("client: no handshake within {} ms; it is slow, or holds the connection on purpose", .0.as_millis())]
    Timeout(Duration),
    /// Another application protocol, or none.
    #[error("client: it does not name this protocol; it is no gateway of this network")]
    WrongProtocol,
    /// Closed, or not TLS 1.3.
    #[error("client: the TLS handshake failed: {0}; it must speak TLS 1.3 as this protocol has it")]
    Handshake(#[source] io::Error),
}

/// Shakes hands with whoever connects, within limits. Clones share certificate and limits.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    current: Arc<CurrentKey>,
    gate: Arc<Gate>,
    handshake_timeout: Duration,
}

impl Acceptor {
    /// With this certificate.
    ///
    /// # Errors
    /// [`ConfigError`]; none is known to happen.
    pub fn new(
        identity: &Identity,
        client_auth: ClientAuth,
        limits: ServerLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let builder =
            ServerConfig::builder_with_details(provider, clock).with_protocol_versions(&[&TLS13])?;
        let builder = match client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional | ClientAuth::Required => {
                let mandatory = client_auth == ClientAuth::Required;
                builder.with_client_cert_verifier(Arc::new(SessionVerifier { algorithms, mandatory }))
            }
        };
        let current = Arc::new(CurrentKey(RwLock::new(identity.certified())));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<CurrentKey>::clone(&current);
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        let gate = Gate { admission: Mutex::new(Admission::new(limits.admission)), start: Instant::now() };
        Ok(Self {
            tls: TlsAcceptor::from(Arc::new(config)),
            current,
            gate: Arc::new(gate),
            handshake_timeout: limits.handshake_timeout,
        })
    }

    /// Shows another certificate from the next handshake on: before the old one's end, and after a registration.
    pub fn rotate(&self, identity: &Identity) {
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = identity.certified();
    }

    /// Shakes hands over a transport that `address` opened. The connection counts against the limits until it is dropped.
    ///
    /// # Errors
    /// [`AcceptError`]; the transport is dropped.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        address: IpAddr,
    ) -> Result<Connection<S>, AcceptError> {
        let mut admitted = self.gate.enter(Peer::of(address))?;
        let stream = timeout(self.handshake_timeout, self.tls.accept(io))
            .await
            .map_err(|_| AcceptError::Timeout(self.handshake_timeout))?
            .map_err(|error| match carried::<CertificateError>(&error) {
                Some(certificate) => AcceptError::Certificate(certificate),
                None => AcceptError::Handshake(error),
            })?;
        let state = stream.get_ref().1;
        if state.alpn_protocol() != Some(ALPN) {
            return Err(AcceptError::WrongProtocol);
        }
        let session = state.peer_certificates().and_then(<[_]>::first);
        let session = session.map(|certificate| session_key(certificate)).transpose()?;
        admitted.shaken();
        Ok(Connection::new(stream.into(), session, Some(admitted)))
    }

    /// Connections that are open or shaking hands.
    pub fn connections(&self) -> usize {
        self.gate.admission().connections()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// The clock and the lock around [`Admission`].
struct Gate {
    admission: Mutex<Admission>,
    start: Instant,
}

impl Gate {
    fn enter(self: &Arc<Self>, peer: Peer) -> Result<Admitted, Refusal> {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.admission().enter(peer, now_ms)?;
        Ok(Admitted { gate: Arc::clone(self), peer, shaking: true })
    }

    fn admission(&self) -> std::sync::MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections, given back on drop.
pub(crate) struct Admitted {
    gate: Arc<Gate>,
    peer: Peer,
    shaking: bool,
}

impl Admitted {
    fn shaken(&mut self) {
        if std::mem::replace(&mut self.shaking, false) {
            self.gate.admission().shaken(self.peer);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shaken();
        self.gate.admission().leave(self.peer);
    }
}

#[derive(Debug)]
struct CurrentKey(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[derive(Debug)]
struct SessionVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl ClientCertVerifier for SessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        alone(intermediates).map_err(refused)?;
        session_key(end_entity).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
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
