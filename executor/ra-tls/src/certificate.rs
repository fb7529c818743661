//! The certificates of both sides: self-signed X.509 (RFC 5280) of one form, under an Ed25519 key (RFC 8410).
//!
//! A certificate says nothing that its evidence does not say; X.509 is the envelope that TLS knows. So the form is narrow:
//! version 3, no unique identifiers, issuer and subject equal, signed by its own key, times as [`Validity`] writes them.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::der::{self, Element, Reader};

/// A certificate larger than this is refused unread.
pub const MAX_CERTIFICATE_BYTES: usize = 4 * 1_024;

/// Extensions beyond these are refused.
pub const MAX_EXTENSIONS: usize = 16;

/// Bytes of an Ed25519 SubjectPublicKeyInfo.
pub const SPKI_BYTES: usize = 44;

/// A certificate is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Too long.
    #[error(
        "peer: the certificate has {bytes} bytes, more than {MAX_CERTIFICATE_BYTES}; it must send a smaller one"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// More or fewer than one certificate.
    #[error("peer: it sent a chain of {certificates} certificates; it must send its own alone")]
    NotAlone {
        /// How many.
        certificates: usize,
    },
    /// Not DER of the form.
    #[error(
        "peer: the certificate's {part} is malformed; it must send a self-signed X.509 certificate of this protocol"
    )]
    Malformed {
        /// Where the reader stopped.
        part: &'static str,
    },
    /// Signed, or made for, a key of another kind.
    #[error("peer: the certificate's key is not a sound Ed25519 key; it must make one")]
    WrongKeyType,
    /// The certificate's own signature.
    #[error(
        "peer: the certificate is not signed by its own key; it was altered, or cut together from others"
    )]
    NotSelfSigned,
    /// Evidence twice.
    #[error("peer: the certificate carries evidence twice; it must carry it once")]
    DuplicateEvidence,
    /// An extension that asks to be understood, and is not.
    #[error(
        "peer: the certificate has a critical extension that this program does not know; update, or refuse the peer"
    )]
    UnknownCriticalExtension,
    /// Outside its validity.
    #[error(
        "peer: the certificate is valid from {not_before_s} to {not_after_s}, and now is {now_s}; renew it, or set the clock"
    )]
    NotInForce {
        /// Unix seconds.
        not_before_s: u64,
        /// Unix seconds.
        not_after_s: u64,
        /// Unix seconds.
        now_s: u64,
    },
    /// The X.509 validity is not what it has to be.
    #[error(
        "peer: the certificate's validity is not the one that its form or its evidence fixes; it must make another"
    )]
    ValidityMismatch,
    /// A client's certificate with a worker's evidence.
    #[error("peer: a client's certificate carries evidence; a client shows its session key alone")]
    UnexpectedEvidence,
}

/// From when to when, both included, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before_s: u64,
    /// Last second; at most that of the year 9999.
    pub not_after_s: u64,
}

impl Validity {
    /// "No well-defined expiration" (RFC 5280, 4.1.2.5): a session's key ends with its session, which the chain knows.
    pub const UNLIMITED: Self = Self { not_before_s: 0, not_after_s: 253_402_300_799 };

    /// Whether `now_s` lies inside.
    ///
    /// # Errors
    /// [`CertificateError::NotInForce`].
    pub fn check(self, now_s: u64) -> Result<(), CertificateError> {
        let Self { not_before_s, not_after_s } = self;
        if (not_before_s..=not_after_s).contains(&now_s) {
            Ok(())
        } else {
            Err(CertificateError::NotInForce { not_before_s, not_after_s, now_s })
        }
    }

    /// The contents of the X.509 field. `None` for times that X.509 cannot write.
    fn to_der(self) -> Option<Vec<u8>> {
        let (from, to) = (der::time(self.not_before_s)?, der::time(self.not_after_s)?);
        Some(der::element(der::SEQUENCE, &[&from, &to]))
    }
}

/// A certificate that was read and is signed by its own key. Whose key that is remains to be asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The Ed25519 public key.
    pub key: [u8; 32],
    /// The contents of the evidence extension, where there is one.
    pub evidence: Option<Vec<u8>>,
    validity_der: Vec<u8>,
}

impl Certificate {
    /// Reads untrusted bytes.
    ///
    /// # Errors
    /// [`CertificateError`], the first fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        let parts = Parts::read(bytes)?;
        let key = VerifyingKey::from_bytes(&parts.key).map_err(|_| CertificateError::WrongKeyType)?;
        if key.is_weak() {
            return Err(CertificateError::WrongKeyType);
        }
        key.verify_strict(parts.signed, &Signature::from_bytes(&parts.signature))
            .map_err(|_| CertificateError::NotSelfSigned)?;
        Ok(Self {
            key: parts.key,
            evidence: parts.evidence.map(<[u8]>::to_vec),
            validity_der: parts.validity.to_vec(),
        })
    }

    /// Whether the certificate's own validity is written exactly so.
    ///
    /// # Errors
    /// [`CertificateError::ValidityMismatch`].
    pub fn check_validity(&self, expected: Validity) -> Result<(), CertificateError> {
        match expected.to_der() {
            Some(validity) if validity == self.validity_der => Ok(()),
            _ => Err(CertificateError::ValidityMismatch),
        }
    }

    /// The SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> [u8; SPKI_BYTES] {
        spki(&self.key)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The Ed25519 SubjectPublicKeyInfo (RFC 8410, 4), DER.
pub fn spki(key: &[u8; 32]) -> [u8; SPKI_BYTES] {
    let mut out = [0; SPKI_BYTES];
    out[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
    out[SPKI_PREFIX.len()..].copy_from_slice(key);
    out
}

/// Makes a certificate for `key`, with these contents of the evidence extension. `None` where X.509 cannot write the
/// validity, or the evidence is too long.
pub fn build(key: &SigningKey, validity: Validity, evidence: Option<&[u8]>) -> Option<Vec<u8>> {
    let extension = |evidence: &[u8]| {
        let value = der::element(der::OCTET_STRING, &[evidence]);
        der::element(der::SEQUENCE, &[&der::element(der::OID, &[&EVIDENCE_OID]), &value])
    };
    if evidence.is_some_and(|evidence| evidence.len() > MAX_EVIDENCE_BYTES) {
        return None;
    }
    build_with_extensions(key, validity, &evidence.map(extension).into_iter().collect::<Vec<_>>())
}

/// The object identifier of the evidence extension, 2.23.133.5.4.9: `tcg-dice-conceptual-message-wrapper` (TCG, *DICE
/// Attestation Architecture*). Contents of the DER element.
pub const EVIDENCE_OID: [u8; 6] = [0x67, 0x81, 0x05, 0x05, 0x04, 0x09];

const MAX_EVIDENCE_BYTES: usize = 1_024;

/// AlgorithmIdentifier of Ed25519, 1.3.101.112 without parameters.
const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// `[0] { INTEGER 2 }`: version 3.
const VERSION_3: [u8; 5] = [0xa0, 0x03, 0x02, 0x01, 0x02];
/// CN=chrysalis.
const NAME: [u8; 22] = *b"\x30\x14\x31\x12\x30\x10\x06\x03\x55\x04\x03\x0c\x09chrysalis";
/// The longest serial number that RFC 5280, 4.1.2.2 allows.
const MAX_SERIAL_BYTES: usize = 20;

/// `extensions` are whole elements.
fn build_with_extensions(key: &SigningKey, validity: Validity, extensions: &[Vec<u8>]) -> Option<Vec<u8>> {
    let spki = spki(&key.verifying_key().to_bytes());
    let mut serial = [0; 16];
    serial.copy_from_slice(Sha256::digest(spki).get(..16)?);
    // Positive, and without leading zeros.
    serial[0] = serial[0] & 0x7f | 0x40;
    let extensions = if extensions.is_empty() {
        Vec::new()
    } else {
        der::element(der::EXTENSIONS, &[&der::element(der::SEQUENCE, &[&extensions.concat()])])
    };
    let signed = der::element(
        der::SEQUENCE,
        &[
            &VERSION_3,
            &der::element(der::INTEGER, &[&serial]),
            &ED25519,
            &NAME,
            &validity.to_der()?,
            &NAME,
            &spki,
            &extensions,
        ],
    );
    let signature = der::element(der::BIT_STRING, &[&[0], &key.sign(&signed).to_bytes()]);
    Some(der::element(der::SEQUENCE, &[&signed, &ED25519, &signature]))
}

struct Parts<'a> {
    signed: &'a [u8],
    key: [u8; 32],
    validity: &'a [u8],
    evidence: Option<&'a [u8]>,
    signature: [u8; 64],
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge { bytes: bytes.len() });
        }
        let mut outer = Reader(bytes);
        let certificate = outer.element(der::SEQUENCE).ok_or(malformed("outer sequence"))?;
        outer.end().ok_or(malformed("end"))?;
        let mut fields = Reader(certificate.contents);
        let signed = fields.element(der::SEQUENCE).ok_or(malformed("signed part"))?;
        let algorithm = fields.element(der::SEQUENCE).ok_or(malformed("signature algorithm"))?;
        let signature = fields.element(der::BIT_STRING).ok_or(malformed("signature"))?;
        fields.end().ok_or(malformed("end"))?;
        if algorithm.whole != ED25519 {
            return Err(CertificateError::WrongKeyType);
        }
        let signature = signature.contents.strip_prefix(&[0]).and_then(|bytes| bytes.try_into().ok());
        let signature = signature.ok_or(malformed("signature"))?;

        let mut fields = Reader(signed.contents);
        let version = fields.element(der::VERSION).ok_or(malformed("version"))?;
        if version.whole != VERSION_3 {
            return Err(malformed("version"));
        }
        let serial = fields.element(der::INTEGER).ok_or(malformed("serial number"))?.contents;
        if serial.len() > MAX_SERIAL_BYTES || serial.first().is_none_or(|first| *first > 0x7f) {
            return Err(malformed("serial number"));
        }
        if fields.element(der::SEQUENCE).ok_or(malformed("signature algorithm"))?.whole != ED25519 {
            return Err(CertificateError::WrongKeyType);
        }
        let issuer = fields.element(der::SEQUENCE).ok_or(malformed("issuer"))?;
        let validity = fields.element(der::SEQUENCE).ok_or(malformed("validity"))?.whole;
        let subject = fields.element(der::SEQUENCE).ok_or(malformed("subject"))?;
        if issuer.whole != subject.whole {
            return Err(malformed("subject"));
        }
        let spki = fields.element(der::SEQUENCE).ok_or(malformed("public key"))?.whole;
        let key = spki.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
        let key = key.ok_or(CertificateError::WrongKeyType)?;
        let extensions = fields.optional(der::EXTENSIONS).ok_or(malformed("extensions"))?;
        fields.end().ok_or(malformed("extensions"))?;
        let evidence = extensions.map(read_extensions).transpose()?.flatten();
        Ok(Self { signed: signed.whole, key, validity, evidence, signature })
    }
}

/// The contents of the one evidence extension.
fn read_extensions(explicit: Element<'_>) -> Result<Option<&[u8]>, CertificateError> {
    let part = malformed("extensions");
    let mut explicit = Reader(explicit.contents);
    let mut list = Reader(explicit.element(der::SEQUENCE).ok_or(part)?.contents);
    explicit.end().ok_or(part)?;
    let mut evidence = None;
    for _ in 0..MAX_EXTENSIONS {
        if list.is_empty() {
            return Ok(evidence);
        }
        let mut extension = Reader(list.element(der::SEQUENCE).ok_or(part)?.contents);
        let oid = extension.element(der::OID).ok_or(part)?.contents;
        let critical = extension.optional(der::BOOLEAN).ok_or(part)?;
        let value = extension.element(der::OCTET_STRING).ok_or(part)?.contents;
        extension.end().ok_or(part)?;
        // FALSE is the default, which DER leaves out.
        let critical = match critical.map(|critical| critical.contents) {
            None => false,
            Some([0xff]) => true,
            Some(_) => return Err(part),
        };
        if oid == EVIDENCE_OID {
            if evidence.replace(value).is_some() {
                return Err(CertificateError::DuplicateEvidence);
            }
        } else if critical {
            return Err(CertificateError::UnknownCriticalExtension);
        }
    }
    if list.is_empty() { Ok(evidence) } else { Err(part) }
}

fn malformed(part: &'static str) -> CertificateError {
    CertificateError::Malformed { part }
}
