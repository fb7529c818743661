//! Everything Intel signed in the fixtures: cut, proven, and read for what it says.
#![allow(clippy::unwrap_used)]

use contracts::attestor::{Authority, Bytes, Pieces, QuoteProof, Role, needs};
use contracts::{HashBytes, Message, Ref, wire};
use dcap_qvl::QuoteCollateralV3;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{Signature, VerifyingKey};
use prover::certificate::{Certificate, Kind};
use prover::collateral::{Posting, postings};
use prover::crl::RevocationList;
use prover::pem::certificates;
use prover::pieces::Bite;
use prover::qe_identity::QeIdentityDocument;
use prover::quote::{Body, PckChain, Quote};
use prover::signature::proven;
use prover::statement::{pck_statement, pck_text, qe_text, td_text};
use prover::tcb_info::TcbInfoDocument;
use prover::text::SignedText;
use prover::trust::{Names, attestor_storage};
use sha2::{Digest, Sha256};

const QUOTES: [(&str, &[u8], u16, Body); 3] = [
    ("tdx_quote", include_bytes!("../../fixtures/tdx_quote"), 4, Body::Td10),
    ("tdx_quote_outdated", include_bytes!("../../fixtures/tdx_quote_outdated"), 5, Body::Td15),
    ("tdx_quote_td15ex", include_bytes!("../../fixtures/tdx_quote_td15ex"), 5, Body::Td15Ex),
];
const HEX_QUOTES: [&str; 2] =
    [include_str!("../../fixtures/quote-from-tappd.hex"), include_str!("../../fixtures/tdx-quote.hex")];

fn collaterals() -> [QuoteCollateralV3; 3] {
    [
        include_str!("../../fixtures/tdx_quote_collateral.json"),
        include_str!("../../fixtures/tdx_quote_outdated_collateral.json"),
        include_str!("../../fixtures/tdx_quote_td15ex_collateral.json"),
    ]
    .map(|json| serde_json::from_str(json).unwrap())
}

fn quotes() -> Vec<Quote> {
    let hex = HEX_QUOTES.map(|text| hex::decode(text.trim().trim_start_matches("0x")).unwrap());
    let raw = QUOTES.iter().map(|(_, raw, ..)| raw.to_vec()).chain(hex);
    raw.map(|raw| Quote::parse(&raw).unwrap()).collect()
}

fn signs(key: &[u8; 64], digest: &[u8], signature: &[u8; 64]) {
    let key = VerifyingKey::from_sec1_bytes(&[&[4], &key[..]].concat()).unwrap();
    key.verify_prehash(digest, &Signature::from_slice(signature).unwrap()).unwrap();
}

/// The pieces are the text, no bite is cut, and a contract could carry and read them.
fn is_well_cut(text: &SignedText) {
    assert_eq!(text.pieces.concat(), text.bytes);
    let cell = wire::to_cell(&text.pieces).unwrap();
    assert_eq!(wire::from_cell::<Pieces>(&cell).unwrap(), text.pieces);
    let mut ends = Vec::new();
    let mut at = 0;
    for piece in text.pieces.as_slice() {
        at += piece.len();
        ends.push(at);
    }
    at = 0;
    for bite in &text.bites {
        let (length, must_end) = match *bite {
            Bite::Whole(length) => (length, false),
            Bite::ToTheEnd(length) => (length, true),
        };
        assert!(!ends.iter().any(|end| at < *end && *end < at + length), "a bite is cut at {at}");
        at += length;
        assert!(!must_end || ends.contains(&at), "the piece goes on at {at}");
    }
    assert_eq!(at, text.bytes.len());
}

#[test]
fn every_quote_is_proven() {
    let mut cells = Vec::new();
    for (quote, (name, _, version, body)) in quotes().iter().zip(QUOTES) {
        assert_eq!((quote.version, quote.body), (version, body), "{name}");
    }
    for quote in quotes() {
        let proof = quote.prove(None).unwrap();
        let key = [proof.key_x.0, proof.key_y.0].concat().try_into().unwrap();
        assert_eq!(td_text(&proof.td), quote.signed);
        signs(&key, &Sha256::digest(&quote.signed), &quote.signature);
        assert_eq!(qe_text(&proof), quote.qe_report);
        let chain = PckChain::from_pem(quote.pck_chain.as_deref().unwrap()).unwrap();
        signs(&chain.pck.key, &Sha256::digest(&quote.qe_report), &quote.qe_report_signature);
        assert_eq!(pck_text(&proof.pck, &chain.issuer), chain.pck.signed.bytes);
        signs(&chain.issuer.key, &Sha256::digest(&chain.pck.signed.bytes), &chain.pck.signature);
        assert_eq!(proof.pck.platform.issuer, chain.issuer.key_hash());
        assert!(proof.pck.points.is_none(), "the usual distribution points");
        let cell = wire::to_cell(&proof).unwrap();
        assert_eq!(wire::from_cell::<QuoteProof>(&cell).unwrap(), proof);
        cells.push(count(&cell));
    }
    assert_eq!(cells, [14, 15, 17, 14, 14]);
}

/// Cells of a tree, no two of which are the same here.
fn count(cell: &contracts::Cell) -> usize {
    1 + cell.references().cloned().map(|child| count(&child)).sum::<usize>()
}

#[test]
fn the_chain_of_the_collateral_serves_a_quote_without_one() {
    let mut quote = quotes().remove(2);
    let with_its_own = quote.prove(None).unwrap();
    quote.pck_chain = None;
    assert!(quote.prove(None).is_err());
    let collateral = collaterals()[2].clone();
    assert_eq!(quote.prove(collateral.pck_certificate_chain.as_deref()).unwrap(), with_its_own);
}

#[test]
fn every_certificate_says_what_it_is() {
    let mut seen = 0;
    for collateral in collaterals() {
        for chain in [
            &collateral.pck_crl_issuer_chain,
            &collateral.tcb_info_issuer_chain,
            &collateral.qe_identity_issuer_chain,
        ] {
            let chain: Vec<Certificate> =
                certificates(chain).unwrap().iter().map(|der| Certificate::from_der(der).unwrap()).collect();
            let [first, root] = &chain[..] else { panic!("a chain of two") };
            assert_eq!(first.issuer, root.subject);
            signs(&root.key, &first.signed.digest(), &first.signature);
            signs(&root.key, &root.signed.digest(), &root.signature);
            is_well_cut(&first.signed);
            is_well_cut(&root.signed);
            let names = Names::intel();
            assert!([&names.platform_ca, &names.processor_ca, &names.tcb_signer].contains(&&first.subject));
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
    for quote in quotes() {
        let chain = PckChain::from_pem(quote.pck_chain.as_deref().unwrap()).unwrap();
        is_well_cut(&chain.pck.signed);
        assert_eq!(chain.pck.subject, Names::intel().pck);
        let Kind::Pck(claims) = &chain.pck.kind else { panic!("a PCK certificate") };
        assert_eq!(claims.pce_id, 0);
        assert_eq!(claims.fmspc.0[2..], [0x6f, 0, 0, 0]);
    }
}

/// No TDX sample has one; an SGX quote does.
#[test]
fn a_certificate_of_the_processor_ca_is_its_statement() {
    let text = String::from_utf8_lossy(include_bytes!("../../fixtures/sgx_quote")).into_owned();
    let chain = PckChain::from_pem(&text[text.find("-----BEGIN").unwrap()..]).unwrap();
    assert_eq!(chain.issuer.subject, Names::intel().processor_ca);
    let signature = proven(&chain.pck.signed.digest(), &chain.pck.signature, &chain.issuer.key).unwrap();
    let statement = pck_statement(&chain.pck, &chain.issuer, signature).unwrap();
    assert_eq!(pck_text(&statement, &chain.issuer), chain.pck.signed.bytes);
    assert!(statement.points.is_none() && statement.platform.instance.is_none());
}

#[test]
fn every_list_and_document_is_signed_and_read() {
    for collateral in collaterals() {
        let first = |chain: &str| Certificate::from_der(&certificates(chain).unwrap()[0]).unwrap();
        let root =
            Certificate::from_der(&certificates(&collateral.pck_crl_issuer_chain).unwrap()[1]).unwrap();
        let ca = first(&collateral.pck_crl_issuer_chain);
        for (der, issuer) in [(&collateral.root_ca_crl, &root), (&collateral.pck_crl, &ca)] {
            let list = RevocationList::from_der(der).unwrap();
            signs(&issuer.key, &list.signed.digest(), &list.signature);
            assert_eq!(list.issuer, issuer.subject);
            assert!(list.this_update < list.next_update);
            is_well_cut(&list.signed);
        }
        let signer = first(&collateral.tcb_info_issuer_chain);
        let info = TcbInfoDocument::parse(&collateral.tcb_info).unwrap();
        signs(&signer.key, &info.signed.digest(), collateral.tcb_info_signature[..].try_into().unwrap());
        is_well_cut(&info.signed);
        let json: serde_json::Value = serde_json::from_str(&collateral.tcb_info).unwrap();
        assert_eq!(json["tcbLevels"].as_array().unwrap().len(), info.levels.len());
        for (level, read) in json["tcbLevels"].as_array().unwrap().iter().zip(&info.levels) {
            assert_eq!(level["tcb"]["pcesvn"], read.pce_svn);
            for (name, svns) in [("sgxtcbcomponents", read.sgx), ("tdxtcbcomponents", read.tdx)] {
                let expected: Vec<u64> = level["tcb"][name]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|component| component["svn"].as_u64().unwrap())
                    .collect();
                assert_eq!(expected, svns.0.map(u64::from));
            }
            assert_eq!(level["tcbStatus"] == "UpToDate", read.needs == 0);
            assert_eq!(level["advisoryIDs"].is_null(), read.advisories == HashBytes::ZERO);
        }
        assert_eq!(info.modules.iter().map(|(version, _)| *version).collect::<Vec<_>>(), [0, 3, 1]);
        let stored = info.to_storage(signer.serial, signer.not_after).unwrap();
        assert!(stored.modules.get(1).unwrap().unwrap().levels.is_some());
        assert!(stored.modules.get(0).unwrap().unwrap().levels.is_none());

        let identity = QeIdentityDocument::parse(&collateral.qe_identity).unwrap();
        let signer = first(&collateral.qe_identity_issuer_chain);
        signs(
            &signer.key,
            &identity.signed.digest(),
            collateral.qe_identity_signature[..].try_into().unwrap(),
        );
        is_well_cut(&identity.signed);
        assert_eq!((identity.isv_prod_id, identity.levels.len()), (2, 1));
        identity.to_storage(signer.serial, signer.not_after).unwrap();
    }
}

#[test]
fn collateral_becomes_messages_in_order_and_only_what_is_new() {
    let [early, late, latest] = collaterals();
    let root = certificates(&early.pck_crl_issuer_chain).unwrap().remove(1);
    let mut held = attestor_storage(&root, &Names::intel()).unwrap();
    let all = postings(&early, &held, 7).unwrap();
    let names: Vec<&str> = all.iter().map(Posting::what).collect();
    assert_eq!(names, ["authority", "authority", "root CRL", "PCK CRL", "TCB info", "QE identity"]);
    for posting in &all {
        let cell = posting.to_cell().unwrap();
        assert!(count(&cell) < 260);
        if let Posting::Crl(message) = posting {
            assert_eq!(contracts::attestor::PostCrl::from_cell(&cell).unwrap(), *message);
        }
    }

    // As the contract would hold it after those.
    for (chain, role) in
        [(&early.pck_crl_issuer_chain, Role::PckIssuer), (&early.tcb_info_issuer_chain, Role::TcbSigner)]
    {
        let certificate = Certificate::from_der(&certificates(chain).unwrap()[0]).unwrap();
        let (x, y) = certificate.key.split_at(32);
        let authority = Authority {
            role,
            x: HashBytes::from_slice(x),
            y: HashBytes::from_slice(y),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            serial: certificate.serial,
            key_id: certificate.key_id,
            crl: None,
            name: Ref::new(Pieces::new(vec![certificate.subject.clone()]).unwrap()).unwrap(),
            pck_subject: None,
            points: None,
        };
        held.authorities.set(certificate.key_hash(), Ref::new(authority).unwrap()).unwrap();
    }
    let info = TcbInfoDocument::parse(&late.tcb_info).unwrap();
    let mut collateral = held.collateral.clone().into_value();
    collateral
        .tcb_infos
        .set(info.fmspc, Ref::new(info.to_storage(Bytes([0; 20]), 0).unwrap()).unwrap())
        .unwrap();
    let identity = QeIdentityDocument::parse(&late.qe_identity).unwrap();
    collateral.qe_identity = Some(Ref::new(identity.to_storage(Bytes([0; 20]), 0).unwrap()).unwrap());
    held.collateral = Ref::new(collateral).unwrap();

    let names = |collateral| -> Vec<&str> {
        postings(collateral, &held, 7).unwrap().iter().map(Posting::what).collect()
    };
    assert_eq!(names(&late), ["root CRL", "PCK CRL"]);
    // Another FMSPC's TCB info; the QE identity is older than what is held.
    assert_eq!(names(&early), ["root CRL", "PCK CRL", "TCB info"]);
    assert!(names(&latest).ends_with(&["root CRL", "PCK CRL", "TCB info", "QE identity"]));
}

#[test]
fn collateral_of_another_root_is_refused() {
    let platform = tdx_simulator::SimulatedPlatform::new(&[1; 32], 1_800_000_000).unwrap();
    let [early, ..] = collaterals();
    let root = certificates(&early.pck_crl_issuer_chain).unwrap().remove(1);
    let held = attestor_storage(&root, &Names::intel()).unwrap();
    assert!(postings(platform.collateral(), &held, 0).is_err());
}

#[test]
fn statuses_ask_for_what_their_names_say() {
    let info = TcbInfoDocument::parse(&collaterals()[0].tcb_info).unwrap();
    let all: Vec<u8> = info.levels.iter().map(|level| level.needs).collect();
    assert_eq!(all.first(), Some(&0));
    assert!(all[1..].iter().all(|needs| needs & needs::OUT_OF_DATE != 0 || *needs == 0));
}
