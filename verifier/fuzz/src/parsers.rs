//! The prover's readers of what a vendor signs.

use std::sync::LazyLock;

use contracts::Ref;
use contracts::attestor::{AttestorStorage, Bytes, P256Signature};
use prover::certificate::{Certificate, Kind};
use prover::crl::RevocationList;
use prover::pem::certificates;
use prover::qe_identity::QeIdentityDocument;
use prover::quote::PckChain;
use prover::signature::proven;
use prover::statement::{pck_statement, pck_text};
use prover::tcb_info::TcbInfoDocument;
use prover::trust::{Names, attestor_storage};
use verifier::Collateral;

use crate::seeds;

/// Any bytes as a certificate: what is read of it is in it, and a PCK certificate that can be put together on chain is put
/// together to the byte, under either authority.
pub fn certificate(bytes: &[u8]) {
    let Ok(certificate) = Certificate::from_der(bytes) else { return };
    let signed = &certificate.signed.bytes;
    assert!(contains(bytes, signed) && contains(signed, &certificate.key));
    assert!(contains(signed, &certificate.issuer) && contains(signed, &certificate.subject));
    if !matches!(certificate.kind, Kind::Pck(_)) {
        return;
    }
    for issuer in ISSUERS.iter() {
        if let Ok(statement) = pck_statement(&certificate, issuer, SIGNATURE.clone()) {
            assert_eq!(pck_text(&statement, issuer), *signed);
        }
    }
}

/// Any bytes as a list: as many serials as it names, each once in the set.
pub fn crl(bytes: &[u8]) {
    let Ok(list) = RevocationList::from_der(bytes) else { return };
    assert!(contains(bytes, &list.signed.bytes));
    assert_eq!(list.signed.pieces.concat(), list.signed.bytes);
    let set = list.revoked_set().unwrap_or_default();
    for serial in &list.revoked {
        assert!(set.contains_key(serial).unwrap_or_default());
    }
    assert!(set.iter().count() <= list.revoked.len());
}

/// Any text as TCB info: read whole or not at all, and what is read fits what the contract keeps.
pub fn tcb_info(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(document) = TcbInfoDocument::parse(text) else { return };
    assert_eq!(document.signed.bytes, bytes);
    assert_eq!(document.signed.pieces.concat(), bytes);
    assert!(!document.levels.is_empty());
    assert!(document.to_storage(Bytes([1; 20]), 0).is_ok());
}

/// Any text as QE identity, likewise.
pub fn qe_identity(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(document) = QeIdentityDocument::parse(text) else { return };
    assert_eq!(document.signed.bytes, bytes);
    assert_eq!(document.signed.pieces.concat(), bytes);
    assert!(document.to_storage(Bytes([1; 20]), 0).is_ok());
}

/// Any text as a chain of certificates.
pub fn pem(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(chain) = certificates(text) {
        assert!(!chain.is_empty() && chain.iter().map(Vec::len).sum::<usize>() < bytes.len());
    }
    if let Ok(chain) = PckChain::from_pem(text) {
        assert!(matches!(chain.pck.kind, Kind::Pck(_)) && chain.pck.issuer == chain.issuer.subject);
    }
}

/// Genuine collateral with one part replaced, as its first byte says: nothing but what Intel signed gets as far as a
/// message.
pub fn postings(bytes: &[u8]) {
    let Some((which, part)) = bytes.split_first() else { return };
    let mut collateral = COLLATERAL.clone();
    let text = String::from_utf8_lossy(part).into_owned();
    match which % 9 {
        0 => collateral.pck_crl_issuer_chain = text,
        1 => collateral.root_ca_crl = part.to_vec(),
        2 => collateral.pck_crl = part.to_vec(),
        3 => collateral.tcb_info_issuer_chain = text,
        4 => collateral.tcb_info = text,
        5 => collateral.tcb_info_signature = part.to_vec(),
        6 => collateral.qe_identity_issuer_chain = text,
        7 => collateral.qe_identity = text,
        _ => collateral.qe_identity_signature = part.to_vec(),
    }
    let Ok(postings) = prover::collateral::postings(&collateral, &HELD, 0) else { return };
    assert!(postings.len() <= 6 && postings.iter().all(|posting| posting.to_cell().is_ok()));
    assert_eq!(collateral.tcb_info, COLLATERAL.tcb_info);
    assert_eq!(collateral.qe_identity, COLLATERAL.qe_identity);
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len().max(1)).any(|window| window == part)
}

static COLLATERAL: LazyLock<Collateral> =
    LazyLock::new(|| seeds::genuine_collaterals().into_iter().next().expect("the fixture is sound"));

/// An Attestor that was just set up under Intel's root.
static HELD: LazyLock<AttestorStorage> = LazyLock::new(|| {
    attestor_storage(include_bytes!("../../fixtures/intel_root.der"), &Names::intel())
        .expect("the root is sound")
});

/// Every authority that the seeds know.
static ISSUERS: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let read = seeds::certificates();
    let all = read.iter().filter_map(|der| Certificate::from_der(der).ok());
    all.filter(|certificate| certificate.kind == Kind::Authority).collect()
});

/// Some signature with its witness; which does not matter where texts are put together.
static SIGNATURE: LazyLock<P256Signature> = LazyLock::new(|| {
    let root =
        Certificate::from_der(include_bytes!("../../fixtures/intel_root.der")).expect("the root is sound");
    let signature = proven(&root.signed.digest(), &root.signature, &root.key).expect("it signs itself");
    Ref::new(signature).map(Ref::into_value).expect("it fits a cell")
});
