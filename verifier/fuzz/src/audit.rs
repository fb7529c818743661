//! Histories of jobs, before the verifier.

use std::sync::LazyLock;

use contracts::librarian::library_cell_of;
use contracts::network::{CodeRef, Codes, Generation};
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
        model: None,
        offer: None,
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
    let codes = Codes { worker: code(1), model: code(2), platform: HashBytes([4; 32]) };
    let params = Params {
        treasury: StdAddr::new(0, HashBytes([4; 32])),
        royalty_cap_bps: 1_000,
        min_stake: Nanoton::new(1),
        unbonding_s: 1,
        attestor: StdAddr::new(0, HashBytes([6; 32])),
        attestation_ttl_s: 86_400,
    };
    let generation = Generation {
        network_id: -3,
        fee_bps: 250,
        bond_bps: 1_000,
        min_bond: Nanoton::new(1),
        job_code: library_cell_of(&HashBytes([3; 32])),
        codes: Ref::new(codes).expect("codes fit"),
        params: Ref::new(params).expect("params fit"),
    };
    Network { registry: StdAddr::new(0, HashBytes([5; 32])), generation }
}
