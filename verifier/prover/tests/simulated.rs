//! The simulator's texts are cut and proven like Intel's, in every shape they come in; and no bytes make the prover
//! panic.
#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use contracts::Ref;
use contracts::attestor::{AttestorStorage, Bytes, MAX_PIECE_BYTES, PckStatement, Pieces};
use dcap_qvl::QuoteCollateralV3;
use proptest::prelude::*;
use prover::certificate::{Certificate, Kind};
use prover::collateral::postings;
use prover::crl::RevocationList;
use prover::qe_identity::QeIdentityDocument;
use prover::quote::{PckChain, Quote, QuoteError, prove};
use prover::statement::{StatementError, pck_text, qe_text, td_text};
use prover::tcb_info::TcbInfoDocument;
use prover::text::SignedText;
use prover::trust::{Names, TrustError, Usual, attestor_storage};
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
            let read = Quote::parse(&raw).unwrap();
            assert_eq!((td_text(&proof.td), qe_text(&proof)), (read.signed, read.qe_report));
            assert_eq!(
                proof.td.extension.is_some(),
                matches!(format, QuoteFormat::V5Td15 | QuoteFormat::V5Td15Ex)
            );
            assert_eq!(proof.pck.platform.instance.is_some(), issuer == PckIssuer::Platform);
            assert!(proof.pck.points.is_none(), "the usual distribution points");
            assert_eq!(postings(platform.collateral(), &trust(&platform), 1).unwrap().len(), 6);
        }
    }
}

#[test]
fn a_pck_certificate_is_its_statement_whatever_it_says() {
    let stated = |change: fn(&mut Profile)| {
        let platform = platform(change);
        let raw = quote(&platform);
        let chain = PckChain::from_pem(Quote::parse(&raw).unwrap().pck_chain.as_deref().unwrap()).unwrap();
        let proof = prove(&raw, None).unwrap();
        assert_eq!(pck_text(&proof.pck, &chain.issuer), chain.pck.signed.bytes);
        let Kind::Pck(claims) = chain.pck.kind else { panic!("a PCK certificate") };
        assert_eq!((proof.pck.platform.svns, proof.pck.platform.pce_svn), (claims.svns, claims.pce_svn));
        claims
    };
    let claims = stated(|_| ());
    assert_eq!((claims.pce_svn, claims.fmspc), (13, Bytes(tdx_simulator::FMSPC)));
    stated(|profile| profile.issuer = PckIssuer::Processor);
    assert_eq!(stated(|profile| profile.component_svns = [0x80; 16]).svns, Bytes([0x80; 16]));
    assert_eq!(stated(|profile| profile.pce_svn = 0x7fff).pce_svn, 0x7fff);
    for machine in 0..40 {
        let platform = platform(|profile| profile.machine = machine);
        prove(&quote(&platform), None).unwrap();
    }
}

/// What the contract puts in as zero or as Intel's must be that.
#[test]
fn what_the_contract_cannot_put_together_is_not_proven() {
    let platform = platform(|profile| profile.format = QuoteFormat::V5Td15);
    let sound = platform.quote_parts(&[9; 64], &TdIdentity::of_image("worker"));
    let form = |what: &'static str| move |error: &QuoteError| matches!(error, QuoteError::Statement(StatementError::Form { what: found, .. }) if *found == what);
    // MRSIGNERSEAM, MRSERVICETD, the QE's vendor.
    for at in [54 + 64, 54 + 111, 54 + 584 + 16, 54 + 584 + 63, 12, 27] {
        let mut parts = sound.clone();
        parts.signed[at] ^= 1;
        parts.signature = platform.sign_as(Signer::AttestationKey, &parts.signed);
        let error = prove(&parts.encode(), None).unwrap_err();
        assert!(form("the quote")(&error), "{at}: {error}");
    }
    for at in [20, 47, 96, 127, 160, 255, 260, 319, 352, 383] {
        let mut parts = sound.clone();
        parts.qe_report[at] ^= 1;
        parts.qe_report_signature = platform.sign_as(Signer::Pck, &parts.qe_report);
        let error = prove(&parts.encode(), None).unwrap_err();
        assert!(form("the QE report")(&error), "{at}: {error}");
    }
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
    statement: PckStatement,
    issuer: Certificate,
    quote: Vec<u8>,
    collateral: QuoteCollateralV3,
    held: AttestorStorage,
    pck: Vec<u8>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let platform = platform(|profile| profile.revocations.pck = true);
        let quote = quote(&platform);
        Made {
            statement: (*prove(&quote, None).unwrap().pck).clone(),
            issuer: Certificate::from_der(&platform.certificates().pck_issuer).unwrap(),
            quote,
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
            prop_assert_eq!(td_text(&proof.td), Quote::parse(&made().quote).unwrap().signed);
        }
    }

    /// What a text says does not depend on who put it together.
    #[test]
    fn statements_that_differ_make_texts_that_differ(
        which in 0usize..10, at in any::<prop::sample::Index>(), flip in 1u8.., number in any::<u16>(),
    ) {
        let (statement, issuer) = (&made().statement, &made().issuer);
        let mut changed = statement.clone();
        let mut platform = (*changed.platform).clone();
        let bytes = |bytes: &mut [u8]| bytes[at.index(bytes.len())] ^= flip;
        match which {
            0 => bytes(&mut changed.x.0),
            1 => bytes(&mut changed.serial.0),
            2 => bytes(&mut platform.svns.0),
            3 => platform.pce_svn = number % 0x8000,
            4 => platform.pce_id = number,
            5 => bytes(&mut platform.ppid.0),
            6 => bytes(&mut platform.fmspc.0),
            7 => platform.instance = None,
            8 => bytes(&mut changed.validity.0),
            _ => {
                let mut points = Usual::of(&issuer.subject).points;
                bytes(&mut points);
                changed.points = Some(Ref::new(Pieces::new(vec![points]).unwrap()).unwrap());
            }
        }
        changed.platform = Ref::new(platform).unwrap();
        let is_same = changed == *statement;
        prop_assert_eq!(pck_text(&changed, issuer) == pck_text(statement, issuer), is_same);
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
