//! Histories of jobs, before the verifier.

use std::sync::LazyLock;

use contracts::network::{AttestationParams, CodeRef, Codes};
use contracts::{HashBytes, Nanoton, Network, Params, Ref, StdAddr};
use tycho_types::boc::de::BocHeader;
use tycho_types::cell::{Cell, CellFamily};
use tycho_types::models::Transaction;
use verifier::{AttestorTrust, Collateral, JobHistory, QuotePolicy};

/// Any bytes as the bag of cells of a job's transactions: nothing accepted.
pub fn audit(bytes: &[u8]) {
    let Ok(boc) = BocHeader::decode(bytes, &Default::default()) else { return };
    let Ok(cells) = boc.finalize(Cell::empty_context()) else { return };
    let transactions: Vec<_> = boc.roots().iter().filter_map(|&root| cells.get(root)).collect();
    let Some(newest) = transactions.last() else { return };
    // The account the bytes name, so that more than the first comparison is reached.
    let Ok(transaction) = newest.parse::<Transaction>() else { return };
    let history = JobHistory {
        network: NETWORK.clone(),
        registry_code: HashBytes::ZERO,
        registry: None,
        attestor_trust: AttestorTrust { code: HashBytes::ZERO, root_der: Vec::new() },
        attestor: None,
        job: StdAddr::new(0, transaction.account),
        transactions,
        balance_nanoton: 0,
        state: None,
        registration: None,
    };
    let policy = QuotePolicy::production(Vec::new());
    assert!(!verifier::audit(&history, &COLLATERAL, &policy, 1_750_500_000).verdict.all_passed());
}

static COLLATERAL: LazyLock<Collateral> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../fixtures/tdx_quote_collateral.json"))
        .expect("the fixture is sound")
});
static NETWORK: LazyLock<Network> = LazyLock::new(network);

fn network() -> Network {
    let code = |byte| CodeRef { hash: HashBytes([byte; 32]), depth: 3 };
    let codes = Codes { worker: code(1), model: code(2), job: code(3) };
    let params = Params {
        network_id: -3,
        treasury: StdAddr::new(0, HashBytes([4; 32])),
        fee_bps: 250,
        royalty_cap_bps: 1_000,
        min_stake: Nanoton::new(1),
        min_bond: Nanoton::new(1),
        bond_bps: 1_000,
        unbonding_s: 1,
        audit_window_s: 1,
        codes: Ref::new(codes).expect("codes fit"),
        attestation: Ref::new(AttestationParams {
            attestor: StdAddr::new(0, HashBytes([6; 32])),
            ttl_s: 86_400,
            platform: code(4),
        })
        .expect("they fit"),
    };
    Network { registry: StdAddr::new(0, HashBytes([5; 32])), params: Ref::new(params).expect("params fit") }
}
