//! Gas of every operation, against the committed snapshot. `UPDATE_SNAPSHOTS=1` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use contracts::attestor::{Bytes, CertificateRevoked};
use contracts::job::JobStatus;
use contracts::model::{DeprecateModel, TransferModel, WithdrawShares};
use contracts::registry::{
    AcceptOwnership, AllowAdvisories, AllowMeasurement, EnforceRevocation, RevokeAdvisories,
    RevokeMeasurement, SetAcceptedNeeds, TransferOwnership,
};
use contracts::worker::{
    FundGas, LeavePlatform, RequestUnbond, WithdrawEarnings, WithdrawOffer, WithdrawUnbonded,
};
use contracts::{Nanoton, Units, opcodes};
use tests::chain::gas_by_operation;
use tests::market::{FEES, hash};
use tests::{Market, Terms};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots/gas.json");
const FEES_TOLK: &str = include_str!("../../../contracts/fees.tolk");
const VALUE: Nanoton = Nanoton::new(FEES);
const UNITS: Units = Units { input: 100, cached_input: 10, output: 300 };

/// Every operation at least once.
fn measure() -> BTreeMap<String, u64> {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let heir = market.person("heir");
    let terms = Terms::default();

    let settled = market.claimed(&client, &worker, &terms);
    let receipt = market.receipt(&settled, UNITS);
    market.settle(&worker, &settled, receipt).unwrap();
    let rejected = market.claimed(&client, &worker, &terms);
    let rejection = market.rejection(&rejected, 1);
    market.reject(&worker, &rejected, rejection).unwrap();
    let cancelled = market.post(&client, &worker, &terms);
    market.cancel(&client, &cancelled);
    let refused = market.post(&client, &worker, &terms);
    market.cancel(&client, &refused);
    market.claim(&worker, &refused).unwrap();
    let late = market.claimed(&client, &worker, &terms);
    let open = market.post(&client, &worker, &terms);
    market.tell(&client, &open.address, VALUE, &FundGas { query_id: 1 });
    market.chain.wait(601);
    market.expire(&client, &late);
    market.expire(&client, &open);
    let jobs = [settled, rejected, cancelled, late, open];
    let statuses: BTreeSet<&str> = jobs.iter().map(|job| market.status(job).unwrap().name()).collect();
    assert_eq!(statuses.len(), 4);
    assert_eq!(market.status(&refused), Some(JobStatus::Cancelled));

    let (owner, registry, publisher, model) =
        (market.owner.clone(), market.registry.clone(), market.publisher.clone(), market.model.clone());
    let (worker_owner, address) = (worker.owner.clone(), worker.address.clone());
    market.tell(&client, &model, VALUE, &WithdrawShares { query_id: 1 });
    market.tell(&worker_owner, &address, VALUE, &WithdrawEarnings { query_id: 1 });
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(1_000_000_000) };
    market.tell(&worker_owner, &address, VALUE, &unbond);
    market.chain.wait(market.network.params.unbonding_s);
    market.tell(&worker_owner, &address, VALUE, &WithdrawUnbonded { query_id: 1 });
    market.chain.wait(market.network.params.audit_window_s);
    for job in &jobs {
        market.sweep(&client, job);
    }
    let model_id = market.model_id;
    let withdraw_offer = WithdrawOffer { query_id: 1, model_id };
    market.tell(&worker_owner, &address, VALUE, &withdraw_offer);
    let transfer = TransferModel { query_id: 1, new_publisher: heir.clone() };
    market.tell(&publisher, &model, VALUE, &transfer);
    market.tell(&heir, &model, VALUE, &DeprecateModel { query_id: 1 });
    market.offer(&worker, tests::market::PRICES);

    let allow = AllowMeasurement { query_id: 1, measurement: hash("new image") };
    market.tell(&owner, &registry, VALUE, &allow);
    let measurement = market.measurement;
    market.attest(&worker);
    market.attest_as(&worker, hash("unlisted"));
    let policy = SetAcceptedNeeds { query_id: 1, needs: 1 };
    market.tell(&owner, &registry, VALUE, &policy);
    let advisories = hash("advisories");
    market.tell(&owner, &registry, VALUE, &AllowAdvisories { query_id: 1, advisories });
    market.tell(&owner, &registry, VALUE, &RevokeAdvisories { query_id: 1, advisories });
    let attestor = market.attestor.clone();
    let serial = Bytes([7; 20]);
    let revoked = CertificateRevoked { query_id: 1, authority: hash("authority"), serial };
    market.tell(&attestor, &address, VALUE, &revoked);
    market.attest(&worker);
    let leave = LeavePlatform { query_id: 1, ppid: market.ppid(&worker) };
    market.tell(&worker_owner, &address, VALUE, &leave);
    market.attest(&worker);
    let revoke = RevokeMeasurement { query_id: 1, measurement };
    market.tell(&owner, &registry, VALUE, &revoke);
    market.attest(&worker);
    let enforce = EnforceRevocation { query_id: 1, measurement, worker_owner };
    market.tell(&client, &registry, VALUE, &enforce);
    let offer = TransferOwnership { query_id: 1, new_owner: Some(heir.clone()) };
    market.tell(&owner, &registry, VALUE, &offer);
    market.tell(&heir, &registry, VALUE, &AcceptOwnership { query_id: 1 });
    gas_by_operation(&market.chain.log, &market.names)
}

#[test]
fn gas_is_that_of_the_snapshot() {
    let measured = measure();
    let text = serde_json::to_string_pretty(&measured).unwrap() + "\n";
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(Path::new(SNAPSHOT).parent().unwrap()).unwrap();
        std::fs::write(SNAPSHOT, &text).unwrap();
    }
    let committed = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    assert_eq!(
        text, committed,
        "gas changed: look whether it should have, then run with UPDATE_SNAPSHOTS=1 and commit"
    );
}

#[test]
fn every_message_that_a_contract_takes_is_measured() {
    let measured = measure();
    let taken: BTreeSet<&str> = measured.keys().filter_map(|operation| operation.split(' ').nth(1)).collect();
    // The Attestor's own are measured on genuine quotes, in tests/attestor.rs.
    let ends_elsewhere = ["job_refund", "payout", "excesses", "registration_refused"];
    let attestors = 0x4348_0501..=0x4348_0507;
    for (_, name) in opcodes::ALL.iter().filter(|(opcode, _)| !attestors.contains(opcode)) {
        assert!(taken.contains(name) || ends_elsewhere.contains(name), "{name} is in no measurement");
    }
}

/// The contracts ask for the gas that `fees.tolk` states: it has to cover what is measured.
#[test]
fn stated_gas_covers_measured_gas() {
    let stated: BTreeMap<&str, u64> = FEES_TOLK
        .lines()
        .filter_map(|line| line.strip_prefix("const GAS_")?.split_once(" = "))
        .map(|(name, gas)| (name, gas.trim().parse().unwrap()))
        .collect();
    let covers = [
        ("JOB_POST", "job post_job"),
        ("JOB_TAKE", "job take_job"),
        ("JOB_RECEIPT", "job post_receipt"),
        ("JOB_RECEIPT", "job post_rejection"),
        ("JOB_EXPIRE", "job expire_job"),
        ("WORKER_NOTICE", "worker job_posted"),
        ("WORKER_RELEASE", "worker job_paid"),
        ("WORKER_RELEASE", "worker job_returned"),
        ("WORKER_RELEASE", "worker job_forfeited"),
        ("WORKER_CLAIM", "worker claim_job"),
        ("WORKER_ASK", "worker offer_model"),
        ("WORKER_ATTEST", "worker attestation_registered"),
        ("WORKER_SIMPLE", "worker certificate_revoked"),
        ("WORKER_ATTEST", "worker leave_platform"),
        ("WORKER_OFFER", "worker royalty_quoted"),
        ("WORKER_SIMPLE", "worker measurement_revoked"),
        ("WORKER_SIMPLE", "worker top_up_stake"),
        ("WORKER_SIMPLE", "worker withdraw_unbonded"),
        ("WORKER_SIMPLE", "worker withdraw_earnings"),
        ("REGISTRY_QUOTE", "registry quote_verified"),
        ("PLATFORM_SERVE", "platform serve_worker"),
        ("PLATFORM_SERVE", "platform leave_worker"),
        ("REGISTRY_ENFORCE", "registry enforce_revocation"),
        ("MODEL_SHARE", "model share_paid"),
        ("MODEL_QUOTE", "model ask_royalty"),
        ("MODEL_WITHDRAW", "model withdraw_shares"),
        ("MODEL_SIMPLE", "model register_model"),
    ];
    let measured = measure();
    let named: BTreeSet<&str> = covers.iter().map(|(name, _)| *name).chain(["ATTESTOR_VERIFY"]).collect();
    assert_eq!(named, stated.keys().copied().collect(), "a constant of fees.tolk is compared with nothing");
    for (name, operation) in covers {
        let (limit, used) = (stated[name], measured[operation]);
        assert!(used <= limit, "{operation} uses {used}, GAS_{name} is {limit}");
    }
}
