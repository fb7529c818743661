//! From a raw TDX quote to what `verify_quote` carries (Intel, *TDX DCAP Quoting Library API*, appendix A.3 and A.4).

use contracts::attestor::{QuoteProof, TdFormat};
use contracts::{Ref, WireError};
use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;

use crate::certificate::{Certificate, CertificateError, Kind};
use crate::p256::WitnessError;
use crate::pem::{PemError, certificates};
use crate::signature::proven;
use crate::statement::{StatementError, holds, pck_statement, qe_statement, qe_text, td_statement};

const HEADER_BYTES: usize = 48;
const QE_REPORT_BYTES: usize = 384;
const TEE_TDX: u32 = 0x81;
const ECDSA_P256: u16 = 2;
const PCK_CHAIN: u16 = 5;
const QE_REPORT_CERTIFICATION_DATA: u16 = 6;
const AUTHENTICATION_DATA_BYTES: usize = 32;
/// What the quote is a report of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Td10,
    Td15,
    Td15Ex,
}

impl Body {
    fn bytes(self) -> usize {
        match self {
            Self::Td10 => 584,
            Self::Td15 => 648,
            Self::Td15Ex => 885,
        }
    }
}

/// A TDX quote, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// 4 or 5.
    pub version: u16,
    pub body: Body,
    /// Header and report, which the attestation key signs.
    pub signed: Vec<u8>,
    /// r ‖ s, big-endian.
    pub signature: [u8; 64],
    /// The attestation key x ‖ y, big-endian.
    pub key: [u8; 64],
    pub qe_report: Vec<u8>,
    /// By the PCK key: r ‖ s, big-endian.
    pub qe_report_signature: [u8; 64],
    pub authentication_data: [u8; AUTHENTICATION_DATA_BYTES],
    /// PEM, where the quote carries it.
    pub pck_chain: Option<String>,
}

/// A quote cannot be proven to the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    #[error("the quote ends within its {part}; whoever supplied it is at fault")]
    CutOff { part: &'static str },
    #[error(
        "this is no TDX quote of format 4 or 5 with an ECDSA P-256 key: {found}; the worker must produce another"
    )]
    Unsupported { found: &'static str },
    #[error(
        "the quote carries no PCK certificate chain and the collateral has none; fetch collateral with a chain"
    )]
    NoChain,
    #[error("the PCK certificate chain: {0}")]
    Pem(#[from] PemError),
    #[error("the PCK certificate chain: {0}")]
    Certificate(#[from] CertificateError),
    #[error(
        "the first certificate of the chain is no PCK certificate; whoever supplied the chain is at fault"
    )]
    NotPck,
    #[error(
        "no certificate of the chain is of the PCK certificate's issuer; whoever supplied the chain is at fault"
    )]
    NoIssuer,
    #[error("the quoting enclave's report does not bind the attestation key; the quote was altered")]
    KeyNotBound,
    #[error("signature of {of}: {source}")]
    Signature { of: &'static str, source: WitnessError },
    #[error(transparent)]
    Statement(#[from] StatementError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Quote {
    /// Takes a raw quote apart. Bytes after it are passed over, as verifiers do.
    ///
    /// # Errors
    /// [`QuoteError`]
    pub fn parse(raw: &[u8]) -> Result<Self, QuoteError> {
        let mut rest = Rest(raw);
        let header: [u8; HEADER_BYTES] = rest.array("header")?;
        let version = u16::from_le_bytes([header[0], header[1]]);
        if u16::from_le_bytes([header[2], header[3]]) != ECDSA_P256 {
            return Err(QuoteError::Unsupported { found: "another kind of attestation key" });
        }
        if u32::from_le_bytes([header[4], header[5], header[6], header[7]]) != TEE_TDX {
            return Err(QuoteError::Unsupported { found: "another kind of TEE" });
        }
        let (body, body_header_bytes) = match version {
            4 => (Body::Td10, 0),
            5 => (body_of(rest.array("body header")?)?, 6),
            _ => return Err(QuoteError::Unsupported { found: "another format" }),
        };
        rest.take(body.bytes(), "report")?;
        let signed = raw
            .get(..HEADER_BYTES + body_header_bytes + body.bytes())
            .ok_or(QuoteError::CutOff { part: "report" })?
            .to_vec();

        let length = u32::from_le_bytes(rest.array("authentication data")?) as usize;
        let mut rest = Rest(rest.take(length, "authentication data")?);
        let signature = rest.array("signature")?;
        let key = rest.array("attestation key")?;
        if u16::from_le_bytes(rest.array("certification data")?) != QE_REPORT_CERTIFICATION_DATA {
            return Err(QuoteError::Unsupported { found: "certification data without a QE report" });
        }
        let length = u32::from_le_bytes(rest.array("certification data")?) as usize;
        let mut rest = Rest(rest.take(length, "certification data")?);
        let qe_report = rest.take(QE_REPORT_BYTES, "QE report")?.to_vec();
        let qe_report_signature = rest.array("QE report's signature")?;
        let length = usize::from(u16::from_le_bytes(rest.array("QE authentication data")?));
        let authentication_data = rest.take(length, "QE authentication data")?.try_into().map_err(|_| {
            QuoteError::Unsupported { found: "QE authentication data that is not 32 bytes long" }
        })?;
        let chain_kind = u16::from_le_bytes(rest.array("PCK certificate chain")?);
        let length = u32::from_le_bytes(rest.array("PCK certificate chain")?) as usize;
        let chain = rest.take(length, "PCK certificate chain")?;
        let pck_chain = (chain_kind == PCK_CHAIN).then(|| String::from_utf8_lossy(chain).into_owned());
        Ok(Self {
            version,
            body,
            signed,
            signature,
            key,
            qe_report,
            qe_report_signature,
            authentication_data,
            pck_chain,
        })
    }

    /// What the contract is sent. Checks the three signatures and the binding of the attestation key on the way; dates,
    /// revocation, TCB and the authority's own certificate are the contract's to judge.
    ///
    /// `chain`: PEM, used where the quote carries none.
    ///
    /// # Errors
    /// [`QuoteError`]
    pub fn prove(&self, chain: Option<&str>) -> Result<QuoteProof, QuoteError> {
        let chain = PckChain::from_pem(self.pck_chain.as_deref().or(chain).ok_or(QuoteError::NoChain)?)?;
        self.prove_with(&chain)
    }

    /// [`Self::prove`] with a chain already read.
    ///
    /// # Errors
    /// [`QuoteError`]
    pub fn prove_with(&self, chain: &PckChain) -> Result<QuoteProof, QuoteError> {
        let bound: [u8; 32] = Sha256::digest([&self.key[..], &self.authentication_data].concat()).into();
        if self.qe_report.get(320..352) != Some(&bound) {
            return Err(QuoteError::KeyNotBound);
        }
        let signature = |of: &'static str, bytes: &[u8], signature: &[u8; 64], key: &[u8; 64]| {
            proven(&Sha256::digest(bytes).into(), signature, key)
                .map_err(|source| QuoteError::Signature { of, source })
        };
        let td = signature("the TD report", &self.signed, &self.signature, &self.key)?;
        let qe = signature("the QE report", &self.qe_report, &self.qe_report_signature, &chain.pck.key)?;
        let pck = signature(
            "the PCK certificate",
            &chain.pck.signed.bytes,
            &chain.pck.signature,
            &chain.issuer.key,
        )?;
        let (x, y) = self.key.split_at(32);
        let proof = QuoteProof {
            key_x: HashBytes::from_slice(x),
            key_y: HashBytes::from_slice(y),
            authentication_data: HashBytes(self.authentication_data),
            td: Ref::new(td_statement(self.format(), &self.signed, td)?)?,
            qe: Ref::new(qe_statement(&self.qe_report, qe)?)?,
            pck: Ref::new(pck_statement(&chain.pck, &chain.issuer, pck)?)?,
        };
        holds("the QE report", &self.qe_report, &qe_text(&proof))?;
        Ok(proof)
    }

    /// Format and report together.
    #[must_use]
    pub fn format(&self) -> TdFormat {
        match (self.version, self.body) {
            (5, Body::Td10) => TdFormat::V5Td10,
            (_, Body::Td10) => TdFormat::V4,
            (_, Body::Td15) => TdFormat::V5Td15,
            (_, Body::Td15Ex) => TdFormat::V5Td15Ex,
        }
    }
}

/// The certificates between a quote and the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PckChain {
    pub pck: Certificate,
    pub issuer: Certificate,
}

impl PckChain {
    /// Reads a chain that begins with the PCK certificate and has its issuer's.
    ///
    /// # Errors
    /// [`QuoteError`]
    pub fn from_pem(pem: &str) -> Result<Self, QuoteError> {
        let chain = certificates(pem)?;
        let mut chain = chain.iter().map(|der| Certificate::from_der(der));
        let pck = chain.next().ok_or(QuoteError::NotPck)??;
        if !matches!(pck.kind, Kind::Pck(_)) {
            return Err(QuoteError::NotPck);
        }
        for certificate in chain {
            let certificate = certificate?;
            if certificate.subject == pck.issuer && certificate.kind == Kind::Authority {
                return Ok(Self { pck, issuer: certificate });
            }
        }
        Err(QuoteError::NoIssuer)
    }
}

/// A raw quote to what the contract is sent. `chain` is PEM, used where the quote carries none.
///
/// # Errors
/// [`QuoteError`]
pub fn prove(raw: &[u8], chain: Option<&str>) -> Result<QuoteProof, QuoteError> {
    Quote::parse(raw)?.prove(chain)
}

fn body_of(header: [u8; 6]) -> Result<Body, QuoteError> {
    let [kind_low, kind_high, size @ ..] = header;
    let body = match u16::from_le_bytes([kind_low, kind_high]) {
        2 => Body::Td10,
        3 => Body::Td15,
        4 => Body::Td15Ex,
        _ => return Err(QuoteError::Unsupported { found: "another kind of body" }),
    };
    if u32::from_le_bytes(size) as usize == body.bytes() {
        Ok(body)
    } else {
        Err(QuoteError::Unsupported { found: "a body whose size is not its kind's" })
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], QuoteError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(QuoteError::CutOff { part })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], QuoteError> {
        self.take(N, part)?.try_into().map_err(|_| QuoteError::CutOff { part })
    }
}
