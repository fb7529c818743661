//! What an Attestor trusts from its first day: a root, and the names its authorities have.

use contracts::attestor::{AttestorStorage, Pieces, PiecesError, RoleNames, Trust};
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

/// What the PCK certificates of one authority have in common besides its name and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usual {
    /// DER Name.
    pub subject: Vec<u8>,
    /// The extension with the CRL distribution points, in DER.
    pub points: Vec<u8>,
}

impl Usual {
    /// Of certificates by the authority of this DER Name: as Intel issues them where it is Intel's, else as the simulator
    /// does.
    #[must_use]
    pub fn of(issuer: &[u8]) -> Self {
        let intel = Names::intel();
        for (name, ca) in [(&intel.platform_ca, "platform"), (&intel.processor_ca, "processor")] {
            if issuer == name.as_slice() {
                let url = format!(
                    "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"
                );
                return Self { subject: intel.pck, points: points(&url) };
            }
        }
        let common = "SIMULATED NOT INTEL PCK Certificate";
        Self {
            subject: name([common, "Chrysalis TDX simulator", "Nowhere", "XX", "XX"]),
            points: points("https://simulated-not-intel.invalid/crl/pck.crl"),
        }
    }
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
    #[error("the name of PCK certificates: {0}; give one of at most 127 bytes")]
    Name(#[from] PiecesError),
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
        pck_subject: piece(names.pck.clone())?,
        platform_points: piece(Usual::of(&names.platform_ca).points)?,
        processor_points: piece(Usual::of(&names.processor_ca).points)?,
    };
    let trust = Trust {
        root_x: HashBytes::from_slice(x),
        root_y: HashBytes::from_slice(y),
        root_subject: sha256(&root.subject),
        root_serial: root.serial,
        roles: Ref::new(roles)?,
    };
    Ok(AttestorStorage::initial(trust)?)
}

fn piece(bytes: Vec<u8>) -> Result<Ref<Pieces>, TrustError> {
    Ok(Ref::new(Pieces::new(vec![bytes])?)?)
}

/// CRL distribution points (RFC 5280, 4.2.1.13) of one URL below 100 bytes.
fn points(url: &str) -> Vec<u8> {
    let url = url.as_bytes();
    let mut der = vec![0x86, url.len() as u8];
    der.extend(url);
    for tag in [0xa0, 0xa0, 0x30, 0x30, 0x04] {
        der.splice(..0, [tag, der.len() as u8]);
    }
    der.splice(..0, [0x06, 0x03, 0x55, 0x1d, 0x1f]);
    der.splice(..0, [0x30, der.len() as u8]);
    der
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
