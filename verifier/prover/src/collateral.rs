//! From the collateral that Intel's service gives to the messages that bring it on chain.

use contracts::attestor::{
    AttestorStorage, DocumentLife, PostAuthority, PostCrl, PostQeIdentity, PostTcbInfo,
};
use contracts::{Message, Ref, WireError};
use dcap_qvl::QuoteCollateralV3;
use tycho_types::cell::{Cell, HashBytes};

use crate::certificate::{Certificate, CertificateError, Kind, sha256};
use crate::crl::{CrlError, RevocationList};
use crate::json::Issue;
use crate::p256::WitnessError;
use crate::pem::{PemError, certificates};
use crate::qe_identity::QeIdentityDocument;
use crate::signature::proven;
use crate::tcb_info::TcbInfoDocument;
use crate::text::{SignedText, TextError};

/// A message to the Attestor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posting {
    Authority(PostAuthority),
    Crl(PostCrl),
    TcbInfo(PostTcbInfo),
    QeIdentity(PostQeIdentity),
}

impl Posting {
    /// The message's body.
    ///
    /// # Errors
    /// [`WireError`]
    pub fn to_cell(&self) -> Result<Cell, WireError> {
        match self {
            Self::Authority(message) => message.to_cell(),
            Self::Crl(message) => message.to_cell(),
            Self::TcbInfo(message) => message.to_cell(),
            Self::QeIdentity(message) => message.to_cell(),
        }
    }

    /// What it brings, for logs.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::Authority(_) => "authority",
            Self::Crl(message) if message.issuer == HashBytes::ZERO => "root CRL",
            Self::Crl(_) => "PCK CRL",
            Self::TcbInfo(_) => "TCB info",
            Self::QeIdentity(_) => "QE identity",
        }
    }
}

/// Collateral cannot be brought on chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollateralError {
    #[error("collateral, {part}: {source}")]
    Pem { part: &'static str, source: PemError },
    #[error("collateral, {part}: {source}")]
    Certificate { part: &'static str, source: CertificateError },
    #[error("collateral, {part}: {source}")]
    Crl { part: &'static str, source: CrlError },
    #[error("collateral, {part}: {source}")]
    Text { part: &'static str, source: TextError },
    #[error("collateral, signature of {part}: {source}")]
    Signature { part: &'static str, source: WitnessError },
    #[error(
        "collateral, {part}: issued under another root than the Attestor's; fetch collateral from its root's service"
    )]
    AnotherRoot { part: &'static str },
    #[error("collateral, {part}: the first certificate is no {expected}; whoever supplied it is at fault")]
    Role { part: &'static str, expected: &'static str },
    #[error("the Attestor's storage: {0}")]
    Storage(#[from] tycho_types::error::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The messages that bring an Attestor which holds `held` to this collateral, in the order they must arrive. What it
/// holds as new or newer is left out. Every signature is checked against the Attestor's root on the way; whether dates
/// have passed is the contract's to judge.
///
/// # Errors
/// [`CollateralError`]
pub fn postings(
    collateral: &QuoteCollateralV3,
    held: &AttestorStorage,
    query_id: u64,
) -> Result<Vec<Posting>, CollateralError> {
    let root = RootKey::of(held);
    let ca = issuer("PCK CRL issuer chain", &collateral.pck_crl_issuer_chain, &Role::PCK_ISSUER)?;
    let tcb_signer = issuer("TCB info issuer chain", &collateral.tcb_info_issuer_chain, &Role::TCB_SIGNER)?;
    let qe_signer =
        issuer("QE identity issuer chain", &collateral.qe_identity_issuer_chain, &Role::TCB_SIGNER)?;

    let mut postings = Vec::new();
    let mut known: Vec<HashBytes> = Vec::new();
    for (part, certificate) in [
        ("PCK CRL issuer chain", &ca),
        ("TCB info issuer chain", &tcb_signer),
        ("QE identity issuer chain", &qe_signer),
    ] {
        let key_hash = certificate.key_hash();
        let is_held =
            held.authorities.get(key_hash)?.is_some_and(|held| held.not_after >= certificate.not_after);
        if !is_held && !known.contains(&key_hash) {
            if sha256(&certificate.issuer) != root.subject {
                return Err(CollateralError::AnotherRoot { part });
            }
            let (certificate, signature) =
                signed(part, &certificate.signed, &certificate.signature, &root.key)?;
            postings.push(Posting::Authority(PostAuthority { query_id, certificate, signature }));
        }
        known.push(key_hash);
    }

    let held_ca_crl = held.authorities.get(ca.key_hash())?.and_then(|authority| authority.crl.clone());
    for (part, der, held, issuer, key) in [
        ("root CRL", &collateral.root_ca_crl, held.root_crl.clone(), HashBytes::ZERO, &root.key),
        ("PCK CRL", &collateral.pck_crl, held_ca_crl, ca.key_hash(), &ca.key),
    ] {
        let list = RevocationList::from_der(der).map_err(|source| CollateralError::Crl { part, source })?;
        let moves_on = held
            .is_none_or(|held| held.this_update < list.this_update && held.number <= u64::from(list.number));
        if moves_on {
            let revoked = list.revoked_set()?;
            let (list, signature) = signed(part, &list.signed, &list.signature, key)?;
            postings.push(Posting::Crl(PostCrl { query_id, issuer, list, signature, revoked }));
        }
    }

    let part = "TCB info";
    let document = TcbInfoDocument::parse(&collateral.tcb_info)
        .map_err(|source| CollateralError::Text { part, source })?;
    let life = held.collateral.tcb_infos.get(document.fmspc)?.map(|held| held.life);
    if moves_on(life, &document.issue) {
        let signature = raw_signature(part, &collateral.tcb_info_signature)?;
        let (document, signature) = signed(part, &document.signed, &signature, &tcb_signer.key)?;
        postings.push(Posting::TcbInfo(PostTcbInfo {
            query_id,
            signer: tcb_signer.key_hash(),
            document,
            signature,
        }));
    }

    let part = "QE identity";
    let document = QeIdentityDocument::parse(&collateral.qe_identity)
        .map_err(|source| CollateralError::Text { part, source })?;
    let life = held.collateral.qe_identity.as_ref().map(|held| held.life);
    if moves_on(life, &document.issue) {
        let signature = raw_signature(part, &collateral.qe_identity_signature)?;
        let (document, signature) = signed(part, &document.signed, &signature, &qe_signer.key)?;
        postings.push(Posting::QeIdentity(PostQeIdentity {
            query_id,
            signer: qe_signer.key_hash(),
            document,
            signature,
        }));
    }
    Ok(postings)
}

struct RootKey {
    key: [u8; 64],
    subject: HashBytes,
}

impl RootKey {
    fn of(held: &AttestorStorage) -> Self {
        let mut key = [0; 64];
        let (x, y) = key.split_at_mut(32);
        x.copy_from_slice(&held.trust.root_x.0);
        y.copy_from_slice(&held.trust.root_y.0);
        Self { key, subject: held.trust.root_subject }
    }
}

struct Role {
    kind: Kind,
    name: &'static str,
}

impl Role {
    const PCK_ISSUER: Self = Self { kind: Kind::Authority, name: "certificate authority's" };
    const TCB_SIGNER: Self = Self { kind: Kind::Signer, name: "document signer's" };
}

fn issuer(part: &'static str, pem: &str, role: &Role) -> Result<Certificate, CollateralError> {
    let chain = certificates(pem).map_err(|source| CollateralError::Pem { part, source })?;
    let der = chain.first().map(Vec::as_slice).unwrap_or_default();
    let certificate =
        Certificate::from_der(der).map_err(|source| CollateralError::Certificate { part, source })?;
    if certificate.kind == role.kind {
        Ok(certificate)
    } else {
        Err(CollateralError::Role { part, expected: role.name })
    }
}

/// Whether a document may replace what is held: neither number nor date may decrease, and one must grow.
fn moves_on(held: Option<DocumentLife>, issue: &Issue) -> bool {
    held.is_none_or(|held| {
        let (held, new) =
            ((held.evaluation_number, held.issue_date), (issue.evaluation_number, issue.issue_date));
        new.0 >= held.0 && new.1 >= held.1 && new != held
    })
}

fn raw_signature(part: &'static str, signature: &[u8]) -> Result<[u8; 64], CollateralError> {
    let source = WitnessError::MalformedSignature;
    signature.try_into().map_err(|_| CollateralError::Signature { part, source })
}

type SignedPieces = (Ref<contracts::attestor::Pieces>, Ref<contracts::attestor::P256Signature>);

fn signed(
    part: &'static str,
    text: &SignedText,
    signature: &[u8; 64],
    key: &[u8; 64],
) -> Result<SignedPieces, CollateralError> {
    let signature = proven(&text.digest(), signature, key)
        .map_err(|source| CollateralError::Signature { part, source })?;
    Ok((Ref::new(text.pieces.clone())?, Ref::new(signature)?))
}
