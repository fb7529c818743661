//! What an Attestor trusts from its first day: a root, and the names its authorities have.

use contracts::attestor::{AttestorStorage, RoleNames, Trust};
use contracts::{Ref, WireError};
use tycho_types::cell::HashBytes;

use crate::certificate::{Certificate, CertificateError, Kind, sha256};

/// DER Names of what a root certifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub platform_ca: Vec<u8>,
    pub processor_ca: Vec<u8>,
    pub tcb_signer: Vec<u8>,
    /// Of every PCK certificate.
    pub pck: Vec<u8>,
}

/// An Attestor cannot be set up with this root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    #[error("the root: {0}")]
    Certificate(#[from] CertificateError),
    #[error(
        "the certificate named as the root is no authority's, or not issued by itself; configure another"
    )]
    NotARoot,
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Names {
    /// As Intel issues certificates (Intel, *SGX PCK Certificate and CRL Profile Specification*).
    #[must_use]
    pub fn intel() -> Self {
        let name = |common| name([common, "Intel Corporation", "Santa Clara", "CA", "US"]);
        Self {
            platform_ca: name("Intel SGX PCK Platform CA"),
            processor_ca: name("Intel SGX PCK Processor CA"),
            tcb_signer: name("Intel SGX TCB Signing"),
            pck: name("Intel SGX PCK Certificate"),
        }
    }
}

/// The initial data of an Attestor under this root (DER).
///
/// # Errors
/// [`TrustError`]
pub fn attestor_storage(root_der: &[u8], names: &Names) -> Result<AttestorStorage, TrustError> {
    let root = Certificate::from_der(root_der)?;
    let signed_by_itself = crate::p256::witness(&root.signed.digest(), &root.signature, &root.key).is_ok();
    if root.kind != Kind::Authority || root.subject != root.issuer || !signed_by_itself {
        return Err(TrustError::NotARoot);
    }
    let (x, y) = root.key.split_at(32);
    let roles = RoleNames {
        platform_ca: sha256(&names.platform_ca),
        processor_ca: sha256(&names.processor_ca),
        tcb_signer: sha256(&names.tcb_signer),
    };
    let trust = Trust {
        root_x: HashBytes::from_slice(x),
        root_y: HashBytes::from_slice(y),
        root_subject: sha256(&root.subject),
        root_serial: root.serial,
        roles: Ref::new(roles)?,
    };
    Ok(AttestorStorage::initial(sha256(&names.pck), trust)?)
}

/// DER Name of common name, organisation, locality, state and country, in that order; each below 100 bytes.
fn name(values: [&str; 5]) -> Vec<u8> {
    const ATTRIBUTES: [(u8, u8); 5] = [(3, 0x0c), (10, 0x0c), (7, 0x0c), (8, 0x0c), (6, 0x13)];
    let mut content = Vec::new();
    for (value, (attribute, tag)) in values.into_iter().zip(ATTRIBUTES) {
        let length = value.len() as u8;
        content.extend([0x31, length + 9, 0x30, length + 7, 0x06, 0x03, 0x55, 0x04, attribute, tag, length]);
        content.extend(value.as_bytes());
    }
    [&[0x30, content.len() as u8], content.as_slice()].concat()
}
