//! Seeds: what Intel signed in the fixtures, and what the simulator signs.

use contracts::{HashBytes, StdAddr};
use prover::pem::certificates as from_pem;
use tdx_simulator::{PckIssuer, Profile, QuoteFormat, Revocations, SimulatedPlatform, TdIdentity};
use tycho_types::boc::Boc;
use tycho_types::cell::{CellBuilder, Lazy};
use tycho_types::models::{
    AccountStatus, CurrencyCollection, HashUpdate, OrdinaryTxInfo, Transaction, TxInfo,
};
use verifier::Collateral;

/// When the simulator's documents are in force.
pub(crate) const NOW_S: u64 = 1_800_000_000;

pub(crate) fn simulated() -> Vec<SimulatedPlatform> {
    let profiles = [
        Profile::default(),
        Profile { issuer: PckIssuer::Processor, format: QuoteFormat::V5Td10, ..Profile::default() },
        Profile {
            component_svns: [200; 16],
            pce_svn: 40_000,
            format: QuoteFormat::V5Td15,
            ..Profile::default()
        },
        Profile {
            format: QuoteFormat::V5Td15Ex,
            revocations: Revocations {
                pck: true,
                more_by_issuer: vec![[0x7f; 20], [1; 20]],
                ..Revocations::default()
            },
            ..Profile::default()
        },
    ];
    profiles
        .into_iter()
        .filter_map(|profile| SimulatedPlatform::with_profile(&[3; 32], NOW_S, profile).ok())
        .collect()
}

pub(crate) fn genuine_collaterals() -> Vec<Collateral> {
    [
        include_str!("../../fixtures/tdx_quote_collateral.json"),
        include_str!("../../fixtures/tdx_quote_outdated_collateral.json"),
        include_str!("../../fixtures/tdx_quote_td15ex_collateral.json"),
    ]
    .into_iter()
    .filter_map(|json| serde_json::from_str(json).ok())
    .collect()
}

pub(crate) fn genuine_quotes() -> Vec<Vec<u8>> {
    let raw: [&[u8]; 3] = [
        include_bytes!("../../fixtures/tdx_quote"),
        include_bytes!("../../fixtures/tdx_quote_outdated"),
        include_bytes!("../../fixtures/tdx_quote_td15ex"),
    ];
    let hex =
        [include_str!("../../fixtures/quote-from-tappd.hex"), include_str!("../../fixtures/tdx-quote.hex")];
    let decoded = hex.iter().filter_map(|text| hex::decode(text.trim().trim_start_matches("0x")).ok());
    raw.into_iter().map(<[u8]>::to_vec).chain(decoded).collect()
}

pub(crate) fn quotes() -> Vec<Vec<u8>> {
    let simulated = simulated();
    let ours = simulated.iter().map(|platform| platform.quote(&[7; 64], &TdIdentity::of_image("seed")));
    genuine_quotes().into_iter().chain(ours).collect()
}

fn collaterals() -> Vec<Collateral> {
    let ours = simulated();
    genuine_collaterals()
        .into_iter()
        .chain(ours.iter().map(|platform| platform.collateral().clone()))
        .collect()
}

pub(crate) fn chains() -> Vec<Vec<u8>> {
    let collaterals = collaterals();
    let chains =
        collaterals.iter().flat_map(|from| [&from.pck_crl_issuer_chain, &from.tcb_info_issuer_chain]);
    let of_quotes = quotes();
    let carried = of_quotes.iter().filter_map(|raw| prover::quote::Quote::parse(raw).ok()?.pck_chain);
    let mut all: Vec<Vec<u8>> = chains.cloned().chain(carried).map(String::into_bytes).collect();
    all.sort();
    all.dedup();
    all
}

pub(crate) fn certificates() -> Vec<Vec<u8>> {
    let chains = chains();
    let texts = chains.iter().filter_map(|chain| str::from_utf8(chain).ok());
    let mut all: Vec<Vec<u8>> = texts.filter_map(|text| from_pem(text).ok()).flatten().collect();
    all.sort();
    all.dedup();
    all
}

pub(crate) fn lists() -> Vec<Vec<u8>> {
    collaterals().into_iter().flat_map(|from| [from.pck_crl, from.root_ca_crl]).collect()
}

pub(crate) fn tcb_infos() -> Vec<Vec<u8>> {
    collaterals().into_iter().map(|from| from.tcb_info.into_bytes()).collect()
}

pub(crate) fn qe_identities() -> Vec<Vec<u8>> {
    collaterals().into_iter().map(|from| from.qe_identity.into_bytes()).collect()
}

/// A part's number, then the part.
pub(crate) fn postings() -> Vec<Vec<u8>> {
    let all = genuine_collaterals();
    let Some(first) = all.into_iter().next() else { return Vec::new() };
    let parts = [
        first.pck_crl_issuer_chain.into_bytes(),
        first.root_ca_crl,
        first.pck_crl,
        first.tcb_info_issuer_chain.into_bytes(),
        first.tcb_info.into_bytes(),
        first.tcb_info_signature,
        first.qe_identity_issuer_chain.into_bytes(),
        first.qe_identity.into_bytes(),
        first.qe_identity_signature,
    ];
    (0..).zip(parts).map(|(number, part)| [&[number], &part[..]].concat()).collect()
}

/// A bag with a transaction that did nothing.
pub(crate) fn transactions() -> Vec<Vec<u8>> {
    let info = TxInfo::Ordinary(OrdinaryTxInfo {
        credit_first: true,
        storage_phase: None,
        credit_phase: None,
        compute_phase: tycho_types::models::ComputePhase::Skipped(tycho_types::models::SkippedComputePhase {
            reason: tycho_types::models::ComputePhaseSkipReason::NoState,
        }),
        action_phase: None,
        aborted: true,
        bounce_phase: None,
        destroyed: false,
    });
    let update = HashUpdate { old: HashBytes::ZERO, new: HashBytes::ZERO };
    let account = StdAddr::new(0, HashBytes([9; 32])).address;
    let transaction = || -> Result<Vec<u8>, tycho_types::error::Error> {
        let transaction = Transaction {
            account,
            lt: 1,
            prev_trans_hash: HashBytes::ZERO,
            prev_trans_lt: 0,
            now: 1,
            out_msg_count: Default::default(),
            orig_status: AccountStatus::NotExists,
            end_status: AccountStatus::NotExists,
            in_msg: None,
            out_msgs: Default::default(),
            total_fees: CurrencyCollection::ZERO,
            state_update: Lazy::new(&update)?,
            info: Lazy::new(&info)?,
        };
        Ok(Boc::encode(CellBuilder::build_from(&transaction)?))
    };
    transaction().into_iter().collect()
}
