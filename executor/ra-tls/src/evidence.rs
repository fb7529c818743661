//! What binds a TLS key to a registered worker: a signature of the attested receipt key.
//!
//! The contents of the certificate's evidence extension: an OCTET STRING with a CBOR record `[type, value]` (RATS
//! *Conceptual Messages Wrapper*) of type [`MEDIA_TYPE`], whose value is 122 bytes, integers big-endian: version (u8, 1) ‖
//! network id (i32) ‖ worker (workchain i8 ‖ 32 bytes) ‖ registration seqno (u32) ‖ not before (u64) ‖ not after (u64) ‖
//! signature (64).
//!
//! The signature is Ed25519 by the receipt key over `"chrysalis/ra-tls/v1" ‖ network id ‖ worker ‖ registration seqno ‖
//! not before ‖ not after ‖ SHA-256(SubjectPublicKeyInfo)`. Everything else that key signs is a cell's hash of 32 bytes, so
//! no signature can be taken for one of another kind.

use contracts::worker::WorkerState;
use contracts::{HashBytes, StdAddr};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::certificate::{self, Certificate, CertificateError, Validity};
use crate::der::{self, Reader};

/// The type of the record.
pub const MEDIA_TYPE: &str = "application/vnd.chrysalis.ra-tls";

/// Longest validity: a TLS key that leaked serves whoever has it no longer than this.
pub const MAX_VALIDITY_S: u64 = 86_400;

/// How far behind the worker's clock a client's may be.
pub const CLOCK_SKEW_S: u64 = 300;

/// The evidence does not bind this key to the worker that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The certificate itself.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No evidence.
    #[error("worker: its certificate carries no evidence; this is no worker of the network")]
    Missing,
    /// Not the form above.
    #[error("worker: the evidence in its certificate is malformed; it must run this protocol's version")]
    Malformed,
    /// For another network.
    #[error("worker: its evidence is for network {found}, expected {expected}; it serves another network")]
    WrongNetwork {
        /// What it says.
        found: i32,
        /// The record's.
        expected: i32,
    },
    /// Of another worker.
    #[error(
        "worker: its evidence is of {found}, expected {expected}; another worker answers at this endpoint"
    )]
    WrongWorker {
        /// What it says.
        found: StdAddr,
        /// The record's.
        expected: StdAddr,
    },
    /// Made under another registration.
    #[error(
        "worker: its evidence is from registration {found}, the chain has {expected}; read the worker's record again, or \
         the worker must renew its certificate"
    )]
    WrongRegistration {
        /// What it says.
        found: u32,
        /// The record's.
        expected: u32,
    },
    /// Not signed by the attested key.
    #[error(
        "worker: the attested receipt key did not sign this TLS key; whoever answers is not the registered worker"
    )]
    BadSignature,
    /// The key in the record.
    #[error("worker: the receipt key it registered is not a sound Ed25519 key; choose another worker")]
    BadReceiptKey,
    /// Valid for longer than allowed.
    #[error(
        "worker: its certificate is valid for more than {MAX_VALIDITY_S} s; it must make a shorter-lived one"
    )]
    ValidTooLong,
    /// The attestation is over.
    #[error("worker: its attestation ended at {expired_at_s}, and now is {now_s}; it must register again")]
    AttestationExpired {
        /// Unix seconds.
        expired_at_s: u64,
        /// Unix seconds.
        now_s: u64,
    },
}

/// What a TLS key is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The chain's `global_id`.
    pub network_id: i32,
    /// The `Worker` contract.
    pub worker: StdAddr,
    /// That of the attestation in force: the one its quote names, one below `WorkerState::registration_seqno`.
    pub registration_seqno: u32,
    /// When the TLS key may be used.
    pub validity: Validity,
}

/// What the chain says of a worker, as the caller has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedWorker {
    /// The chain's `global_id`.
    pub network_id: i32,
    /// The `Worker` contract.
    pub worker: StdAddr,
    /// See [`Binding::registration_seqno`].
    pub registration_seqno: u32,
    /// The attested Ed25519 key.
    pub receipt_key: HashBytes,
    /// When the attestation ends, Unix seconds.
    pub attested_until_s: u64,
}

impl ExpectedWorker {
    /// From the state of the Worker's account. `None` where it has no attestation.
    pub fn of_state(network_id: i32, worker: StdAddr, state: &WorkerState) -> Option<Self> {
        let attestation = state.attestation.as_ref()?;
        Some(Self {
            network_id,
            worker,
            registration_seqno: state.registration_seqno.checked_sub(1)?,
            receipt_key: attestation.receipt_key,
            attested_until_s: attestation.expires_at.into(),
        })
    }
}

impl Validity {
    /// The longest that is accepted, begun [`CLOCK_SKEW_S`] before `now_s`.
    pub fn starting(now_s: u64) -> Self {
        let not_before_s = now_s.saturating_sub(CLOCK_SKEW_S);
        Self { not_before_s, not_after_s: not_before_s.saturating_add(MAX_VALIDITY_S) }
    }
}

/// Signs `tls_key` (Ed25519 public key): the contents of the evidence extension.
pub fn build(binding: &Binding, tls_key: &[u8; 32], receipt: &SigningKey) -> Vec<u8> {
    let signature = receipt.sign(&binding.message(tls_key)).to_bytes();
    let record = [RECORD_PREFIX, &[VERSION], &binding.to_bytes(), &signature].concat();
    der::element(der::OCTET_STRING, &[&record])
}

/// Whether `certificate` (DER, untrusted) belongs to the expected worker at `now_s` (Unix seconds). Answers with the
/// certificate, whose key has still to be proven in the handshake.
///
/// # Errors
/// [`EvidenceError`], the first fault.
pub fn verify(
    certificate: &[u8],
    expected: &ExpectedWorker,
    now_s: u64,
) -> Result<Certificate, EvidenceError> {
    let certificate = Certificate::parse(certificate)?;
    let evidence = certificate.evidence.as_deref().ok_or(EvidenceError::Missing)?;
    let (found, signature) = parse(evidence).ok_or(EvidenceError::Malformed)?;
    if found.network_id != expected.network_id {
        return Err(EvidenceError::WrongNetwork { found: found.network_id, expected: expected.network_id });
    }
    if found.worker != expected.worker {
        return Err(EvidenceError::WrongWorker { found: found.worker, expected: expected.worker.clone() });
    }
    if found.registration_seqno != expected.registration_seqno {
        return Err(EvidenceError::WrongRegistration {
            found: found.registration_seqno,
            expected: expected.registration_seqno,
        });
    }
    let receipt_key = VerifyingKey::from_bytes(expected.receipt_key.as_array())
        .ok()
        .filter(|key| !key.is_weak())
        .ok_or(EvidenceError::BadReceiptKey)?;
    receipt_key
        .verify_strict(&found.message(&certificate.key), &signature)
        .map_err(|_| EvidenceError::BadSignature)?;
    certificate.check_validity(found.validity)?;
    if found.validity.not_after_s.saturating_sub(found.validity.not_before_s) > MAX_VALIDITY_S {
        return Err(EvidenceError::ValidTooLong);
    }
    found.validity.check(now_s)?;
    if now_s >= expected.attested_until_s {
        return Err(EvidenceError::AttestationExpired { expired_at_s: expected.attested_until_s, now_s });
    }
    Ok(certificate)
}

/// The Ed25519 key of a client's certificate (DER, untrusted), which has still to be proven in the handshake.
///
/// # Errors
/// [`CertificateError`], the first fault.
pub fn session_key(certificate: &[u8]) -> Result<[u8; 32], CertificateError> {
    let certificate = Certificate::parse(certificate)?;
    if certificate.evidence.is_some() {
        return Err(CertificateError::UnexpectedEvidence);
    }
    certificate.check_validity(Validity::UNLIMITED)?;
    Ok(certificate.key)
}

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"chrysalis/ra-tls/v1";
const BINDING_BYTES: usize = 4 + 33 + 4 + 8 + 8;
/// CBOR: an array of two, a text of 32 bytes, bytes of 122.
const RECORD_PREFIX: &[u8] = b"\x82\x78\x20application/vnd.chrysalis.ra-tls\x58\x7a";

impl Binding {
    fn to_bytes(&self) -> [u8; BINDING_BYTES] {
        let mut out = [0; BINDING_BYTES];
        out[..4].copy_from_slice(&self.network_id.to_be_bytes());
        out[4..5].copy_from_slice(&self.worker.workchain.to_be_bytes());
        out[5..37].copy_from_slice(&self.worker.address.0);
        out[37..41].copy_from_slice(&self.registration_seqno.to_be_bytes());
        out[41..49].copy_from_slice(&self.validity.not_before_s.to_be_bytes());
        out[49..].copy_from_slice(&self.validity.not_after_s.to_be_bytes());
        out
    }

    fn message(&self, tls_key: &[u8; 32]) -> Vec<u8> {
        let spki = Sha256::digest(certificate::spki(tls_key));
        [DOMAIN, &self.to_bytes(), spki.as_slice()].concat()
    }
}

fn parse(evidence: &[u8]) -> Option<(Binding, Signature)> {
    let mut reader = Reader(evidence);
    let record = reader.element(der::OCTET_STRING)?.contents;
    reader.end()?;
    let value = record.strip_prefix(RECORD_PREFIX)?.strip_prefix(&[VERSION])?;
    let (network_id, rest) = value.split_first_chunk()?;
    let ([workchain], rest) = rest.split_first_chunk::<1>()?;
    let (address, rest) = rest.split_first_chunk()?;
    let (registration_seqno, rest) = rest.split_first_chunk()?;
    let (not_before, rest) = rest.split_first_chunk()?;
    let (not_after, rest) = rest.split_first_chunk()?;
    let binding = Binding {
        network_id: i32::from_be_bytes(*network_id),
        worker: StdAddr::new(i8::from_be_bytes([*workchain]), HashBytes(*address)),
        registration_seqno: u32::from_be_bytes(*registration_seqno),
        validity: Validity {
            not_before_s: u64::from_be_bytes(*not_before),
            not_after_s: u64::from_be_bytes(*not_after),
        },
    };
    Some((binding, Signature::from_bytes(rest.try_into().ok()?)))
}
