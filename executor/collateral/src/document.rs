//! One document of a PCS, and what has to hold before it is used.

use std::fmt;

use dcap_qvl::QuoteCollateralV3;
use hyper::header::HeaderMap;
use prover::certificate::{Certificate, CertificateError, Kind as CertificateKind};
use prover::crl::{CrlError, RevocationList};
use prover::p256::{WitnessError, witness};
use prover::pem::{PemError, certificates};
use prover::qe_identity::QeIdentityDocument;
use prover::tcb_info::TcbInfoDocument;
use prover::text::TextError;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::platform::{Ca, Platform};

/// What a PCS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PCK certificates that their authority revoked.
    PckCrl,
    /// Authorities' certificates that the root revoked.
    RootCrl,
    /// TCB levels of a family of platforms.
    TcbInfo,
    /// Of the TD quoting enclave.
    QeIdentity,
}

/// A document in the form in which [`QuoteCollateralV3`] has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// PEM, the signer's certificate first; empty for the root's list.
    pub issuer_chain: String,
    /// A list's DER, or the JSON text that is signed.
    pub body: Vec<u8>,
    /// Of a JSON text: r ‖ s. Empty for a list, which carries its own.
    pub signature: Vec<u8>,
}

/// A document is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The header with the signer's chain is missing, twice there, or not what is asked for.
    #[error("the header {header} with its signer's certificates {reason}")]
    Header {
        /// Which.
        header: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// Not the JSON object that a PCS answers with.
    #[error("it is no JSON object of {member} and signature")]
    Envelope {
        /// Name of the signed member.
        member: &'static str,
    },
    /// Not a list.
    #[error(transparent)]
    List(#[from] CrlError),
    /// Not a text of Intel's form.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The chain is no PEM.
    #[error("its signer's certificates: {0}")]
    Pem(#[from] PemError),
    /// The signer's certificate is none.
    #[error("its signer's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Signed by somebody whose place it is not.
    #[error("its signer's certificate is not {expected}'s")]
    Role {
        /// Whose it should be.
        expected: &'static str,
    },
    /// The chain leads elsewhere.
    #[error("its signer was not certified by the root that this network trusts")]
    AnotherRoot,
    /// The signature is another document's.
    #[error("its signature: {0}")]
    Signature(#[from] WitnessError),
    /// About other platforms.
    #[error("it is about other platforms, FMSPC {found}")]
    OtherPlatform {
        /// About which.
        found: String,
    },
    /// Its time is over.
    #[error("it or its signer's certificate ended at {ended_s} (Unix time)")]
    Ended {
        /// Unix time.
        ended_s: u32,
    },
}

/// Whom all documents have to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    /// x ‖ y, big-endian.
    key: [u8; 64],
    /// DER Name.
    name: Vec<u8>,
}

impl Kind {
    /// All that a quote's verification needs. Last what another server may have to be asked for.
    pub const ALL: [Self; 4] = [Self::PckCrl, Self::TcbInfo, Self::QeIdentity, Self::RootCrl];

    /// The headers that may carry the signer's certificates (Intel, *PCS API v4*), the usual one first.
    fn chain_headers(self) -> &'static [&'static str] {
        match self {
            Self::PckCrl => &["SGX-PCK-CRL-Issuer-Chain"],
            Self::RootCrl => &[],
            Self::TcbInfo => &["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"],
            Self::QeIdentity => &["SGX-Enclave-Identity-Issuer-Chain"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PckCrl => "PCK CRL",
            Self::RootCrl => "root CRL",
            Self::TcbInfo => "TCB info",
            Self::QeIdentity => "QE identity",
        })
    }
}

impl Document {
    /// Takes a PCS's answer apart. Nothing in it is believed yet.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub(crate) fn of_answer(kind: Kind, headers: &HeaderMap, body: &[u8]) -> Result<Self, DocumentError> {
        let issuer_chain = issuer_chain(kind, headers)?;
        match kind {
            Kind::PckCrl | Kind::RootCrl => {
                Ok(Self { issuer_chain, body: der_of_list(body), signature: Vec::new() })
            }
            Kind::TcbInfo => {
                let wrong = |_| DocumentError::Envelope { member: "tcbInfo" };
                let answer: TcbInfoAnswer<'_> = serde_json::from_slice(body).map_err(wrong)?;
                Self::signed_text(issuer_chain, answer.tcb_info, answer.signature, "tcbInfo")
            }
            Kind::QeIdentity => {
                let wrong = |_| DocumentError::Envelope { member: "enclaveIdentity" };
                let answer: QeIdentityAnswer<'_> = serde_json::from_slice(body).map_err(wrong)?;
                Self::signed_text(issuer_chain, answer.enclave_identity, answer.signature, "enclaveIdentity")
            }
        }
    }

    fn signed_text(
        issuer_chain: String,
        text: &RawValue,
        signature: &str,
        member: &'static str,
    ) -> Result<Self, DocumentError> {
        let signature = hex::decode(signature).map_err(|_| DocumentError::Envelope { member })?;
        Ok(Self { issuer_chain, body: text.get().as_bytes().to_vec(), signature })
    }

    /// Everything that can be said without the quote: form, signatures up to the root, whom it is about, and that it has
    /// not ended at `now_s`. When it ends, Unix time.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub(crate) fn check(
        &self,
        kind: Kind,
        root: &Root,
        platform: &Platform,
        now_s: u64,
    ) -> Result<u32, DocumentError> {
        let ends_s = match kind {
            Kind::RootCrl => {
                let list = RevocationList::from_der(&self.body)?;
                witness(&list.signed.digest(), &list.signature, &root.key)?;
                list.next_update
            }
            Kind::PckCrl => {
                let signer = self.signer(&CertificateKind::Authority, platform.ca.holder(), root)?;
                if Ca::named_in(&signer.subject) != Some(platform.ca) {
                    return Err(DocumentError::Role { expected: platform.ca.holder() });
                }
                let list = RevocationList::from_der(&self.body)?;
                witness(&list.signed.digest(), &list.signature, &signer.key)?;
                list.next_update.min(signer.not_after)
            }
            Kind::TcbInfo => {
                let signer = self.signer(&CertificateKind::Signer, DOCUMENT_SIGNER, root)?;
                let document = TcbInfoDocument::parse(self.text()?)?;
                witness(&document.signed.digest(), &self.raw_signature()?, &signer.key)?;
                if document.fmspc != platform.fmspc {
                    return Err(DocumentError::OtherPlatform { found: hex::encode_upper(document.fmspc.0) });
                }
                document.issue.next_update.min(signer.not_after)
            }
            Kind::QeIdentity => {
                let signer = self.signer(&CertificateKind::Signer, DOCUMENT_SIGNER, root)?;
                let document = QeIdentityDocument::parse(self.text()?)?;
                witness(&document.signed.digest(), &self.raw_signature()?, &signer.key)?;
                document.issue.next_update.min(signer.not_after)
            }
        };
        if u64::from(ends_s) > now_s { Ok(ends_s) } else { Err(DocumentError::Ended { ended_s: ends_s }) }
    }

    /// Whether the other one was issued later, where both are sound documents of this kind.
    pub(crate) fn is_older_than(&self, other: &Self, kind: Kind) -> bool {
        let issued = |document: &Self| -> Option<(u32, u32)> {
            match kind {
                Kind::PckCrl | Kind::RootCrl => {
                    let list = RevocationList::from_der(&document.body).ok()?;
                    Some((u32::from(list.number), list.this_update))
                }
                Kind::TcbInfo => {
                    let issue = TcbInfoDocument::parse(document.text().ok()?).ok()?.issue;
                    Some((issue.evaluation_number, issue.issue_date))
                }
                Kind::QeIdentity => {
                    let issue = QeIdentityDocument::parse(document.text().ok()?).ok()?.issue;
                    Some((issue.evaluation_number, issue.issue_date))
                }
            }
        };
        issued(self) < issued(other)
    }

    /// Puts it in its place.
    pub(crate) fn put(self, kind: Kind, into: &mut QuoteCollateralV3) {
        // A text that was checked is ASCII.
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap_or_default();
        match kind {
            Kind::PckCrl => (into.pck_crl, into.pck_crl_issuer_chain) = (self.body, self.issuer_chain),
            Kind::RootCrl => into.root_ca_crl = self.body,
            Kind::TcbInfo => {
                into.tcb_info = text(self.body);
                (into.tcb_info_signature, into.tcb_info_issuer_chain) = (self.signature, self.issuer_chain);
            }
            Kind::QeIdentity => {
                into.qe_identity = text(self.body);
                (into.qe_identity_signature, into.qe_identity_issuer_chain) =
                    (self.signature, self.issuer_chain);
            }
        }
    }

    /// The first certificate of the chain, certified by the root itself.
    fn signer(
        &self,
        kind: &CertificateKind,
        expected: &'static str,
        root: &Root,
    ) -> Result<Certificate, DocumentError> {
        let chain = certificates(&self.issuer_chain)?;
        let signer = Certificate::from_der(chain.first().map(Vec::as_slice).unwrap_or_default())?;
        if signer.kind != *kind {
            return Err(DocumentError::Role { expected });
        }
        let certified = witness(&signer.signed.digest(), &signer.signature, &root.key);
        if signer.issuer != root.name || certified.is_err() {
            return Err(DocumentError::AnotherRoot);
        }
        Ok(signer)
    }

    fn text(&self) -> Result<&str, DocumentError> {
        str::from_utf8(&self.body).map_err(|_| DocumentError::Envelope { member: "text" })
    }

    fn raw_signature(&self) -> Result<[u8; 64], WitnessError> {
        self.signature.as_slice().try_into().map_err(|_| WitnessError::MalformedSignature)
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.body.len())
    }
}

impl Ca {
    fn holder(self) -> &'static str {
        match self {
            Self::Platform => "the PCK Platform CA",
            Self::Processor => "the PCK Processor CA",
        }
    }
}

impl Root {
    /// Of a root's certificate (DER), which the caller trusts.
    pub(crate) fn of_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Certificate::from_der(der)?;
        Ok(Self { key: certificate.key, name: certificate.subject })
    }
}

const DOCUMENT_SIGNER: &str = "the TCB signer";
/// Of a chain, decoded.
const MAX_CHAIN_BYTES: usize = 16 << 10;

/// Members in any order, each once; others are passed over. The signed text keeps its bytes.
#[derive(Deserialize)]
struct TcbInfoAnswer<'a> {
    #[serde(rename = "tcbInfo", borrow)]
    tcb_info: &'a RawValue,
    signature: &'a str,
}

#[derive(Deserialize)]
struct QeIdentityAnswer<'a> {
    #[serde(rename = "enclaveIdentity", borrow)]
    enclave_identity: &'a RawValue,
    signature: &'a str,
}

fn issuer_chain(kind: Kind, headers: &HeaderMap) -> Result<String, DocumentError> {
    let Some(&usual) = kind.chain_headers().first() else { return Ok(String::new()) };
    for &header in kind.chain_headers() {
        let wrong = |reason| DocumentError::Header { header, reason };
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(wrong("is there twice"));
        }
        return percent_decoded(value.as_bytes()).map_err(wrong);
    }
    Err(DocumentError::Header { header: usual, reason: "is missing" })
}

/// RFC 3986, section 2.1, of ASCII alone.
fn percent_decoded(text: &[u8]) -> Result<String, &'static str> {
    const GARBAGE: &str = "is not percent-encoded ASCII";
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if decoded.len() == MAX_CHAIN_BYTES {
            return Err("is too long");
        }
        let (byte, after) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte).map_err(|_| GARBAGE)?;
                (byte[0], after)
            }
            (b'%', _) => return Err(GARBAGE),
            (byte, after) => (byte, after),
        };
        if !(byte == b'\n' || byte == b'\r' || byte == b'\t' || (b' '..=b'~').contains(&byte)) {
            return Err(GARBAGE);
        }
        decoded.push(char::from(byte));
        rest = after;
    }
    Ok(decoded)
}

/// A PCS gives lists in DER, a PCCS the root's in hexadecimal, which for a SEQUENCE begins with the digit 3.
fn der_of_list(body: &[u8]) -> Vec<u8> {
    let text = body.trim_ascii();
    let decoded = text.starts_with(b"3").then(|| hex::decode(text).ok()).flatten();
    decoded.unwrap_or_else(|| body.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    #[test]
    fn a_chain_is_decoded_strictly() {
        assert_eq!(percent_decoded(b"a%20b%0A%2b+").unwrap(), "a b\n++");
        for garbage in ["%", "%4", "%zz", "%00", "%80", "\u{e9}", "%C3%A9", "%+4"] {
            assert!(percent_decoded(garbage.as_bytes()).is_err(), "{garbage}");
        }
        assert!(percent_decoded(&[b'a'; MAX_CHAIN_BYTES]).is_ok());
        assert!(percent_decoded(&[b'a'; MAX_CHAIN_BYTES + 1]).is_err());
    }

    #[test]
    fn a_list_is_der_or_hexadecimal() {
        let der = [0x30, 0x82, 0x01];
        for body in [&der[..], b"308201", b"308201\n"] {
            assert_eq!(der_of_list(body), der);
        }
        assert_eq!(der_of_list(b"3"), b"3");
        assert_eq!(der_of_list(b""), b"");
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in "[ -~\n]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(percent_decoded(encoded(&text).as_bytes()).unwrap(), text);
            if let Ok(decoded) = percent_decoded(&bytes) {
                prop_assert!(decoded.is_ascii() && decoded.len() <= bytes.len());
            }
        }
    }
}
