//! What both sides' configurations share.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{CertificateError as TlsCertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

pub use rustls::time_provider::{DefaultTimeProvider as SystemClock, TimeProvider as Clock};

use crate::certificate::{Certificate, CertificateError};

/// The application protocol that both sides have to name (RFC 7301).
pub const ALPN: &[u8] = b"chrysalis/1";

/// The TLS library refused this crate's own settings.
#[derive(Debug, Clone, thiserror::Error)]
#[error("program: the TLS configuration is not possible: {0}; report this")]
pub struct ConfigError(#[from] pub(crate) rustls::Error);

/// TLS 1.3's suites and two groups, the hybrid with ML-KEM first (draft-ietf-tls-ecdhe-mlkem).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

/// Checks a signature over the handshake's transcript under the key of a certificate (RFC 8446, 4.4.3).
pub(crate) fn verify_signature(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(refused(CertificateError::WrongKeyType));
    }
    let spki = Certificate::parse(certificate).map_err(refused)?.spki();
    verify_tls13_signature_with_raw_key(
        message,
        &SubjectPublicKeyInfoDer::from(&spki[..]),
        signed,
        algorithms,
    )
}

/// One certificate, no chain.
pub(crate) fn alone(intermediates: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    if intermediates.is_empty() {
        Ok(())
    } else {
        Err(CertificateError::NotAlone { certificates: intermediates.len().saturating_add(1) })
    }
}

/// Carries one of this crate's errors through the TLS library.
pub(crate) fn refused(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    TlsCertificateError::Other(OtherError(Arc::new(error))).into()
}

/// The error that [`refused`] carried.
pub(crate) fn carried<E: std::error::Error + Clone + 'static>(error: &std::io::Error) -> Option<E> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(TlsCertificateError::Other(other)) => {
            other.0.downcast_ref::<E>().cloned()
        }
        _ => None,
    }
}
