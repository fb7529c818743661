//! A TLS key, which never leaves memory, and its certificate.

use std::fmt;
use std::sync::Arc;

use contracts::receipt::generate_signing_key;
use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::CryptoRng;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::certificate::{self, Validity, spki};
use crate::evidence::{self, Binding, MAX_VALIDITY_S};

/// No certificate can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A validity that no client accepts.
    #[error(
        "caller: the validity is empty, longer than {MAX_VALIDITY_S} s, or beyond the year 9999; start it now"
    )]
    Validity,
}

/// One side's key and certificate. The key is wiped on drop, and shown by nothing.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    key: [u8; 32],
}

impl Identity {
    /// A fresh TLS key for a worker, signed by its attested receipt key.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn worker(
        binding: &Binding,
        receipt: &SigningKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, IdentityError> {
        let Validity { not_before_s, not_after_s } = binding.validity;
        if not_after_s.checked_sub(not_before_s).is_none_or(|length_s| length_s > MAX_VALIDITY_S) {
            return Err(IdentityError::Validity);
        }
        let key = generate_signing_key(rng);
        let evidence = evidence::build(binding, &key.verifying_key().to_bytes(), receipt);
        Self::new(key, binding.validity, Some(&evidence))
    }

    /// A client's session key, shown in a certificate of its own.
    ///
    /// # Errors
    /// [`IdentityError`]; none is known to happen.
    pub fn session(key: SigningKey) -> Result<Self, IdentityError> {
        Self::new(key, Validity::UNLIMITED, None)
    }

    /// The Ed25519 public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        self.certified.cert.first().map_or(&[], |certificate| certificate.as_ref())
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    fn new(key: SigningKey, validity: Validity, evidence: Option<&[u8]>) -> Result<Self, IdentityError> {
        let certificate = certificate::build(&key, validity, evidence).ok_or(IdentityError::Validity)?;
        let public = key.verifying_key().to_bytes();
        let certified =
            CertifiedKey::new(vec![CertificateDer::from(certificate)], Arc::new(TlsKey(Arc::new(key))));
        Ok(Self { certified: Arc::new(certified), key: public })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("key", &self.key).finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub(crate) struct TlsKey(pub(crate) Arc<SigningKey>);

impl TlsSigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.0.verifying_key().to_bytes()).to_vec().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsKey")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_tls_library_holds_shows_no_key() {
        let secret = [0xc9; 32];
        let identity = Identity::session(SigningKey::from_bytes(&secret)).unwrap();
        let signer = identity.certified().key.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
        let shown = format!("{:?} {signer:?}", identity.certified().key).to_lowercase();
        assert!(shown.contains("tlskey"));
        assert!(!shown.contains("201, 201, 201") && !shown.contains("c9c9c9"), "{shown}");
    }
}
