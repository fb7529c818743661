//! The simulator's texts are cut and proven like Intel's, in every shape they come in; and no bytes make the prover
//! panic.
#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use contracts::attestor::{AttestorStorage, Bytes, MAX_PIECE_BYTES};
use dcap_qvl::QuoteCollateralV3;
use proptest::prelude::*;
use prover::certificate::{Certificate, Kind};
use prover::collateral::postings;
use prover::crl::RevocationList;
use prover::qe_identity::QeIdentityDocument;
use prover::quote::{PckChain, Quote, QuoteError, prove};
use prover::tcb_info::TcbInfoDocument;
use prover::text::SignedText;
use prover::trust::{Names, TrustError, attestor_storage};
use tdx_simulator::{PckIssuer, Profile, QuoteFormat, Signer, SimulatedPlatform, TdIdentity};

const NOW_S: u64 = 1_800_000_000;

fn platform(change: impl FnOnce(&mut Profile)) -> SimulatedPlatform {
    let mut profile = Profile::default();
    change(&mut profile);
    SimulatedPlatform::with_profile(&[3; 32], NOW_S, profile).unwrap()
}

fn quote(platform: &SimulatedPlatform) -> Vec<u8> {
    platform.quote(&[9; 64], &TdIdentity::of_image("worker"))
}

fn names() -> Names {
    let tdx_simulator::Names { platform_ca, processor_ca, tcb_signer, pck, .. } =
        tdx_simulator::Names::simulated();
    Names { platform_ca, processor_ca, tcb_signer, pck }
}

fn trust(platform: &SimulatedPlatform) -> AttestorStorage {
    attestor_storage(platform.root_der(), &names()).unwrap()
}

fn lengths(text: &SignedText) -> Vec<usize> {
    assert_eq!(text.pieces.concat(), text.bytes);
    text.pieces.as_slice().iter().map(Vec::len).collect()
}

#[test]
fn every_shape_is_proven() {
    for format in [QuoteFormat::V4, QuoteFormat::V5Td10, QuoteFormat::V5Td15, QuoteFormat::V5Td15Ex] {
        for issuer in [PckIssuer::Platform, PckIssuer::Processor] {
            let platform = platform(|profile| (profile.format, profile.issuer) = (format, issuer));
            let raw = quote(&platform);
            let proof = prove(&raw, None).unwrap();
            let signed = proof.signed.as_slice();
            assert_eq!(signed[0].len(), if format == QuoteFormat::V4 { 112 } else { 118 });
            assert_eq!(
                signed.iter().skip(1).take(5).map(Vec::len).collect::<Vec<_>>(),
                [120, 96, 96, 96, 112]
            );
            let more: &[usize] = match format {
                QuoteFormat::V4 | QuoteFormat::V5Td10 => &[],
                QuoteFormat::V5Td15 => &[64],
                QuoteFormat::V5Td15Ex => &[64, 120, 117],
            };
            assert_eq!(signed.iter().skip(6).map(Vec::len).collect::<Vec<_>>(), more);
            assert_eq!(postings(platform.collateral(), &trust(&platform), 1).unwrap().len(), 6);
        }
    }
}

#[test]
fn a_pck_certificate_is_cut_where_the_contract_reads_it() {
    let cut = |change: fn(&mut Profile)| {
        let platform = platform(change);
        let chain =
            PckChain::from_pem(Quote::parse(&quote(&platform)).unwrap().pck_chain.as_deref().unwrap())
                .unwrap();
        let lengths = lengths(&chain.pck.signed);
        let Kind::Pck(claims) = chain.pck.kind else { panic!("a PCK certificate") };
        (lengths[7..].to_vec(), claims)
    };
    let (lengths, claims) = cut(|_| ());
    assert_eq!(lengths, [116, 110, 126, 123, 89, 70]);
    assert_eq!((claims.pce_svn, claims.fmspc), (13, Bytes(tdx_simulator::FMSPC)));
    let (lengths, _) = cut(|profile| profile.issuer = PckIssuer::Processor);
    assert_eq!(lengths, [116, 110, 126, 123, 57]);
    let (lengths, claims) = cut(|profile| profile.component_svns = [0x80; 16]);
    assert_eq!(lengths, [116, 115, 114, 95, 51, 89, 70]);
    assert_eq!(claims.svns, Bytes([0x80; 16]));
    let (lengths, claims) = cut(|profile| profile.pce_svn = 0x7fff);
    assert_eq!(lengths, [116, 110, 108, 90, 52, 89, 70]);
    assert_eq!(claims.pce_svn, 0x7fff);
}

#[test]
fn a_list_and_documents_are_cut_where_the_contract_reads_them() {
    let serials: Vec<[u8; 20]> = (1..=60).map(|byte| [byte * 4; 20]).collect();
    let platform = platform(|profile| profile.revocations.more_by_issuer = serials.clone());
    let list = RevocationList::from_der(&platform.collateral().pck_crl).unwrap();
    assert_eq!(list.revoked, serials.iter().map(|serial| Bytes(*serial)).collect::<Vec<_>>());
    let cut = lengths(&list.signed);
    assert_eq!((cut[0], cut[1], cut.last()), (19, list.issuer.len(), Some(&49)));
    assert_eq!(list.revoked_set().unwrap().iter().count(), 60);

    let info = TcbInfoDocument::parse(&platform.collateral().tcb_info).unwrap();
    assert!(lengths(&info.signed).iter().all(|length| *length <= MAX_PIECE_BYTES));
    let profile = platform.profile();
    assert_eq!(
        info.levels.iter().map(|level| level.sgx.0).collect::<Vec<_>>(),
        profile.tcb_info.levels.iter().map(|level| level.sgx).collect::<Vec<_>>()
    );
    let identity = QeIdentityDocument::parse(&platform.collateral().qe_identity).unwrap();
    assert_eq!(identity.levels.len(), 2);
    lengths(&identity.signed);
}

#[test]
fn texts_in_another_form_are_refused() {
    let platform = platform(|_| ());
    let info = &platform.collateral().tcb_info;
    for changed in [
        info.replace(":1,", ": 1,"),
        info.replace("\"tcbType\":0", "\"tcbType\":00"),
        info.replace("\"version\":3", "\"version\":4"),
        info.replace("\"fmspc\":\"53", "\"fmspc\":\"5a"),
        info.replace("\"pceId\":\"0000\"", "\"pceId\":\"0000\",\"pceId\":\"0000\""),
        info.replace("TDX_03", "TDX_01"),
        info.replace("UpToDate", "Fine"),
        info.replace("{\"svn\":7,", "{\"svn\":256,"),
        info.replace("{\"svn\":7,", "{\"svn\":1,"),
        info.replace("\"type\":\"TXT SINIT\"", "\"type\":\"{\""),
        format!("{info} "),
        format!(" {info}"),
    ] {
        assert_ne!(changed, *info);
        assert!(TcbInfoDocument::parse(&changed).is_err(), "{changed}");
    }
    // A certificate is no list, a list no certificate.
    assert!(RevocationList::from_der(&platform.certificates().pck).is_err());
    assert!(Certificate::from_der(&platform.collateral().pck_crl).is_err());
}

#[test]
fn a_root_must_be_one() {
    let platform = platform(|_| ());
    for der in [&platform.certificates().pck_issuer, &platform.certificates().tcb_signer] {
        assert_eq!(attestor_storage(der, &names()), Err(TrustError::NotARoot));
    }
    assert!(attestor_storage(&[], &names()).is_err());
}

#[test]
fn what_is_not_signed_is_not_proven() {
    let platform = platform(|_| ());
    let sound = platform.quote_parts(&[9; 64], &TdIdentity::of_image("worker"));
    let mut parts = sound.clone();
    parts.signed[200] ^= 1;
    assert!(matches!(prove(&parts.encode(), None), Err(QuoteError::Signature { of: "the TD report", .. })));
    parts = sound.clone();
    parts.attestation_key = platform.public_key(Signer::Pck);
    assert!(matches!(prove(&parts.encode(), None), Err(QuoteError::KeyNotBound)));
    parts = sound.clone();
    parts.qe_report[130] ^= 1;
    assert!(matches!(prove(&parts.encode(), None), Err(QuoteError::Signature { of: "the QE report", .. })));
    parts = sound.clone();
    parts.pck_chain_pem =
        SimulatedPlatform::new(&[4; 32], NOW_S).unwrap().collateral().pck_crl_issuer_chain.clone();
    assert!(matches!(prove(&parts.encode(), None), Err(QuoteError::NotPck)));
    parts = sound;
    let other =
        SimulatedPlatform::with_profile(&[3; 32], NOW_S, Profile { issuer_key: 1, ..Profile::default() })
            .unwrap();
    let pck = tdx_simulator::pem(&platform.certificates().pck);
    parts.pck_chain_pem = format!("{pck}{}", other.collateral().pck_crl_issuer_chain);
    assert!(matches!(
        prove(&parts.encode(), None),
        Err(QuoteError::Signature { of: "the PCK certificate", .. })
    ));
}

struct Made {
    quote: Vec<u8>,
    collateral: QuoteCollateralV3,
    held: AttestorStorage,
    pck: Vec<u8>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let platform = platform(|profile| profile.revocations.pck = true);
        Made {
            quote: quote(&platform),
            collateral: platform.collateral().clone(),
            held: trust(&platform),
            pck: platform.certificates().pck.clone(),
        }
    })
}

/// A changed, cut or lengthened text.
fn mutated(text: &[u8], edits: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) -> Vec<u8> {
    let mut text = text.to_vec();
    for (at, value) in edits {
        let at = at.index(text.len());
        text[at] = *value;
    }
    if let Some(cut) = cut {
        let cut = cut.index(text.len());
        text.truncate(cut);
    }
    text
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_quote_makes_it_panic(edits in edits(), cut in any::<Option<prop::sample::Index>>()) {
        let changed = mutated(&made().quote, &edits, cut);
        if let Ok(proof) = prove(&changed, None) {
            prop_assert_eq!(proof.signed.concat(), Quote::parse(&made().quote).unwrap().signed);
        }
    }

    #[test]
    fn no_der_makes_it_panic(edits in edits(), cut in any::<Option<prop::sample::Index>>()) {
        let _ = Certificate::from_der(&mutated(&made().pck, &edits, cut));
        let _ = RevocationList::from_der(&mutated(&made().collateral.pck_crl, &edits, cut));
    }

    #[test]
    fn no_text_makes_it_panic(edits in edits(), cut in any::<Option<prop::sample::Index>>()) {
        let ascii = |text: &str| {
            let bytes = mutated(text.as_bytes(), &edits, cut).into_iter().map(|byte| byte & 0x7f).collect();
            String::from_utf8(bytes).unwrap()
        };
        let _ = TcbInfoDocument::parse(&ascii(&made().collateral.tcb_info));
        let _ = QeIdentityDocument::parse(&ascii(&made().collateral.qe_identity));
        let mut collateral = made().collateral.clone();
        collateral.pck_crl_issuer_chain = ascii(&collateral.pck_crl_issuer_chain);
        let _ = postings(&collateral, &made().held, 0);
        let mut collateral = made().collateral.clone();
        collateral.tcb_info = ascii(&collateral.tcb_info);
        prop_assert!(collateral.tcb_info == made().collateral.tcb_info || postings(&collateral, &made().held, 0).is_err());
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        prop_assert!(prove(&bytes, None).is_err());
        prop_assert!(Certificate::from_der(&bytes).is_err());
        prop_assert!(RevocationList::from_der(&bytes).is_err());
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(TcbInfoDocument::parse(&text).is_err());
        prop_assert!(PckChain::from_pem(&text).is_err());
    }
}
