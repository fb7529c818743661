//! Lives that the contracts led in the official emulator (`fixtures/README.md`), audited as far as they go: their worker
//! was registered by nobody, so what it takes to trust it is missing, and nothing else may be.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contracts::job::{JobStatus, JobStorage};
use contracts::wire::from_cell;
use contracts::{Cell, HashBytes, Network, StdAddr};
use serde::Deserialize;
use tycho_types::boc::Boc;
use verifier::{AttestorTrust, Audit, Collateral, JobHistory, QuotePolicy, audit};

#[derive(Deserialize)]
struct Fixture {
    network: String,
    model: String,
    lives: Vec<Life>,
}

#[derive(Deserialize)]
struct Life {
    name: String,
    job: String,
    balance_nanoton: String,
    data: Option<String>,
    transactions: Vec<String>,
}

fn cell(base64: &str) -> Cell {
    Boc::decode(STANDARD.decode(base64).unwrap()).unwrap()
}

fn histories() -> Vec<(String, JobHistory)> {
    let fixture: Fixture = serde_json::from_str(include_str!("../fixtures/lives.json")).unwrap();
    let network: Network = from_cell(&cell(&fixture.network)).unwrap();
    let history = |life: &Life| {
        let storage = life.data.as_ref().map(|data| from_cell::<JobStorage>(&cell(data)).unwrap());
        JobHistory {
            network: network.clone(),
            registry_code: HashBytes::ZERO,
            registry: None,
            attestor_trust: AttestorTrust { code: HashBytes::ZERO, root_der: Vec::new() },
            attestor: None,
            job: StdAddr::new(0, life.job.parse().unwrap()),
            transactions: life.transactions.iter().map(|transaction| cell(transaction)).collect(),
            balance_nanoton: life.balance_nanoton.parse().unwrap(),
            state: storage.map(|storage| storage.state.unwrap()),
            registration: None,
            model: Some(cell(&fixture.model)),
            offer: None,
        }
    };
    fixture.lives.iter().map(|life| (life.name.clone(), history(life))).collect()
}

fn judge(history: &JobHistory) -> Audit {
    let collateral: Collateral =
        serde_json::from_str(include_str!("../fixtures/tdx_quote_collateral.json")).unwrap();
    audit(history, &collateral, &QuotePolicy::production(Vec::new()), 1_900_000_000)
}

/// What needs accounts beside the job's.
const OF_OTHER_ACCOUNTS: [&str; 5] =
    ["registry_code", "registry_generation", "attestor_code", "attestor_root", "registration"];

#[test]
fn what_the_contracts_do_passes_every_check_on_the_job_itself() {
    let expected = BTreeMap::from([
        ("settled", JobStatus::Settled),
        ("settled after a claim", JobStatus::Settled),
        ("settled on the market", JobStatus::Settled),
        ("session", JobStatus::Settled),
        ("cancelled", JobStatus::Cancelled),
        ("expired", JobStatus::Expired),
        ("expired after a claim", JobStatus::Expired),
        ("rejected", JobStatus::Rejected),
        ("session expired", JobStatus::Settled),
        ("session swept", JobStatus::Settled),
        ("equivocated", JobStatus::Settled),
    ]);
    let histories = histories();
    assert_eq!(histories.len(), expected.len());
    for (name, history) in histories {
        let found = judge(&history);
        let failed = found.verdict.checks.iter().filter(|check| !check.passed);
        let failed: Vec<_> = failed.filter(|check| !OF_OTHER_ACCOUNTS.contains(&check.name)).collect();
        assert!(failed.is_empty(), "{name}: {failed:?}");
        let reported = found.verdict.checks.iter().any(|check| check.name == "equivocation");
        assert_eq!(reported, name == "equivocated");
        assert_eq!(found.status, Some(expected[name.as_str()]), "{name}");
        let ledger = found.ledger.unwrap();
        assert_eq!((ledger.unaccounted_nanoton(), ledger.left_nanoton), (0, 0), "{name}: {ledger:?}");
    }
}

#[test]
fn one_nanoton_more_or_less_in_the_account_does_not_pass() {
    for (name, mut history) in histories() {
        history.balance_nanoton += 1;
        let failures = judge(&history).verdict.failures();
        assert!(failures.iter().any(|failure| failure.starts_with("conservation")), "{name}: {failures:?}");
    }
}
