//! Gas of every operation at its worst, against the committed snapshot (`UPDATE_SNAPSHOTS=1` writes it anew), and the
//! bounds that `fees.tolk` states.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use contracts::attestor::{Bytes, CertificateRevoked};
use contracts::comment::Word;
use contracts::job::{CloseSession, DeliverInput, EQUIVOCATED, ExpireJob, JobStatus, TakeJob};
use contracts::job_log::JobClosed;
use contracts::model::{AcceptModel, DeprecateModel, SharePaid, TransferModel, WithdrawShares};
use contracts::receipt::Receipt;
use contracts::registry::{
    AcceptOwnership, AllowAdvisories, AllowMeasurement, ApplyProposal, EnforceRevocation, RetireGeneration,
    RevokeAdvisories, RevokeMeasurement, SetAcceptedNeeds, TransferOwnership, WithdrawProposal,
};
use contracts::worker::{
    FundGas, LeavePlatform, MAX_RECEIPT_KEYS, OfferModel, PauseWorker, RequestUnbond, SetEndpoint,
    SetOperator, WithdrawEarnings, WithdrawOffer, WithdrawUnbonded,
};
use contracts::{Message, Nanoton, Prices, Ref, StdAddr, Units, opcodes};
use tests::market::{FEES, PRICES, TIMELOCK_S, TON, assert_all_succeeded, cell, hash};
use tests::{Market, Terms, Tx, Worker};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots/gas.json");
const FEES_TOLK: &str = include_str!("../../../contracts/fees.tolk");
const VALUE: Nanoton = Nanoton::new(FEES);
const UNITS: Units = Units { input: 100, cached_input: 10, output: 300 };
/// Of one Worker beside the market's own.
const MANY_OFFERS: usize = 2_000;

/// Highest gas of each operation.
fn measure() -> BTreeMap<String, u64> {
    let mut gas = BTreeMap::new();
    for log in [jobs(), sessions(), open_jobs(), accounts(), registry(), words(), a_worker_with_a_history()] {
        for (operation, used) in log {
            let entry = gas.entry(operation).or_insert(0);
            *entry = used.max(*entry);
        }
    }
    gas
}

/// Every operation but those of [`a_worker_with_a_history`].
pub(crate) fn every_operation() {
    jobs();
    sessions();
    open_jobs();
    accounts();
    registry();
    words();
}

fn used(market: &Market) -> Vec<(String, u64)> {
    let named = |tx: &Tx| {
        let name = market.names.get(&tx.account)?;
        let ends = tx.operation() == "redeem_receipt" && tx.logged::<JobClosed>().is_some();
        let bids = !tx.bounced && TakeJob::from_cell(&tx.body).is_ok_and(|take| take.bid.is_some());
        let kind = if ends {
            " (final)"
        } else if bids {
            " (bid)"
        } else {
            ""
        };
        Some((format!("{name} {}{kind}", tx.operation()), tx.gas_used))
    };
    market.chain.log.iter().filter(|tx| tx.succeeded()).filter_map(named).collect()
}

fn setup() -> (Market, Worker, StdAddr) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    (market, worker, client)
}

fn jobs() -> Vec<(String, u64)> {
    let (mut market, worker, client) = setup();
    // So dear that the share is worth sending.
    let dear = Prices { output: Nanoton::new(100_000_000), ..PRICES };
    let terms = Terms { prices: dear, ..Terms::default() };
    let claimed = market.claimed(&client, &worker, &terms);
    let open = market.post(&client, &worker, &terms);
    for job in [&claimed, &open] {
        let receipt = market.receipt(job, UNITS);
        market.settle(&worker, job, receipt).unwrap();
    }
    let (one, other) = {
        let one = market.receipt(&claimed, UNITS);
        (one.clone(), Receipt { content_hash: hash("another answer"), ..one })
    };
    let evidence = market.equivocation(&worker, one, other);
    assert_all_succeeded(&market.report(&client, &claimed, &evidence));
    assert_eq!(market.job_state(&claimed).unwrap().sequence, EQUIVOCATED + 1);
    // A report that the Worker refuses.
    let second = market.post(&client, &worker, &terms);
    let one = market.receipt(&second, UNITS);
    let other = Receipt { content_hash: hash("another answer"), ..one.clone() };
    let evidence = market.equivocation(&worker, one, other);
    let wrong = contracts::job::ReportEquivocation { registration_seqno: 9, ..evidence };
    market.report(&client, &second, &wrong);
    let rejected = market.claimed(&client, &worker, &terms);
    let rejection = market.rejection(&rejected, 1);
    market.reject(&worker, &rejected, rejection).unwrap();
    let cancelled = market.post(&client, &worker, &terms);
    market.cancel(&client, &cancelled);
    market.claim(&worker, &cancelled).unwrap();
    let late = market.claimed(&client, &worker, &terms);
    let forgotten = market.post(&client, &worker, &terms);
    market.tell(&client, &forgotten.address, VALUE, &FundGas { query_id: 1 });
    market.chain.wait(601);
    market.expire(&client, &late);
    market.expire(&client, &forgotten);
    market.chain.wait(contracts::job::AUDIT_WINDOW_S + 1);
    let jobs = [claimed, open, rejected, cancelled, late, forgotten];
    let closed = |job| market.status(job).is_some_and(JobStatus::is_closed);
    assert!(jobs.iter().all(closed));
    for job in &jobs {
        market.sweep(&client, job);
    }
    // A payment that nobody takes.
    let terms = Terms { prices: Prices { output: Nanoton::new(TON), ..PRICES }, ..terms };
    let job = market.post(&client, &worker, &terms);
    let receipt = market.receipt(&job, UNITS);
    market.chain.delete(&worker.address);
    market.settle(&worker, &job, receipt).unwrap();
    used(&market)
}

fn sessions() -> Vec<(String, u64)> {
    let (mut market, worker, client) = setup();
    let terms = Terms { wait_s: 86_400, ..Terms::default() };
    let job = market.session(&client, &worker, &terms);
    let receipt = market.session_receipt(&job, 1, TON / 3, false);
    market.redeem(&worker, &job, receipt, TON).unwrap();
    assert_all_succeeded(&market.top_up(&client, &job, TON, VALUE));
    let receipt = market.session_receipt(&job, 2, TON / 2, false);
    market.redeem(&worker, &job, receipt, TON).unwrap();
    assert_all_succeeded(&market.close(&client, &job));
    let receipt = market.session_receipt(&job, 3, TON, true);
    market.redeem(&worker, &job, receipt, u64::MAX).unwrap();
    let job = market.session(&client, &worker, &terms);
    let receipt = market.session_receipt(&job, 1, TON / 3, false);
    market.redeem(&worker, &job, receipt, TON).unwrap();
    market.chain.wait(86_401);
    assert_all_succeeded(&market.expire(&client, &job));
    let job = market.session(&client, &worker, &terms);
    let rejection = market.rejection(&job, 1);
    market.reject(&worker, &job, rejection).unwrap();
    used(&market)
}

fn open_jobs() -> Vec<(String, u64)> {
    let (mut market, worker, client) = setup();
    let other = market.worker("other");
    let terms = Terms { bid_for_s: 60, measurement: Some(market.measurement), ..Terms::default() };
    market.offer(&other, Prices { output: Nanoton::new(5_000_000), ..PRICES });
    for end in 0..4 {
        let job = market.open_job(&client, &worker, &terms);
        market.claim_well(&worker, &job);
        market.claim_well(&other, &job);
        let receipt = market.receipt(&job, UNITS);
        if end == 3 {
            let differs = Receipt { content_hash: hash("another answer"), ..receipt.clone() };
            let evidence = market.equivocation(&other, receipt.clone(), differs);
            assert_all_succeeded(&market.report(&client, &job, &evidence));
        }
        if end == 0 {
            market.chain.wait(361);
            assert_all_succeeded(&market.expire(&client, &job));
            continue;
        }
        market.chain.wait(61);
        if end == 3 {
            assert_all_succeeded(&market.post_input(&job).unwrap());
        } else {
            assert_all_succeeded(&market.deliver(&client, &job));
        }
        if end == 1 {
            market.chain.wait(601);
            assert_all_succeeded(&market.expire(&client, &job));
        } else if end == 2 {
            let rejection = market.rejection(&job, 1);
            assert_all_succeeded(&market.reject(&other, &job, rejection).unwrap());
        } else {
            assert_all_succeeded(&market.settle(&other, &job, receipt).unwrap());
        }
    }
    let job = market.open_job(&client, &worker, &terms);
    assert_all_succeeded(&market.cancel(&client, &job));
    used(&market)
}

fn accounts() -> Vec<(String, u64)> {
    let (mut market, worker, client) = setup();
    let heir = market.person("heir");
    let (publisher, model) = (market.publisher.clone(), market.model.clone());
    let (owner, address) = (worker.owner.clone(), worker.address.clone());
    let job = market.post(&client, &worker, &Terms::default());
    let receipt = market.receipt(&job, UNITS);
    market.settle(&worker, &job, receipt).unwrap();
    market.tell(&client, &model, VALUE, &FundGas { query_id: 1 });
    market.tell(&client, &model, VALUE, &WithdrawShares { query_id: 1 });
    let cells = contracts::fees::METADATA_CELLS as usize;
    let (other_model, body, init) = crate::model::registration(&market, "wordy model", cells);
    market.names.insert(other_model.clone(), "model");
    let body = cell(&body);
    let txs = market.chain.send(&publisher, &other_model, Nanoton::new(5 * TON), body, Some(init));
    assert_all_succeeded(&txs);
    let amount = Nanoton::new(1_000_000);
    market.tell(&owner, &address, VALUE, &WithdrawEarnings { query_id: 1, amount });
    market.tell(&owner, &address, VALUE, &WithdrawEarnings { query_id: 1, amount: Nanoton::ZERO });
    market.tell(&owner, &address, VALUE, &RequestUnbond { query_id: 1, amount: Nanoton::new(TON) });
    let operator = SetOperator { query_id: 1, account: Some(Ref::new(heir.clone()).unwrap()) };
    market.tell(&owner, &address, VALUE, &operator);
    let endpoint = Some(Ref::new(contracts::Snake::new(vec![b'a'; 127]).unwrap()).unwrap());
    market.tell(&heir, &address, VALUE, &SetEndpoint { query_id: 1, endpoint });
    market.tell(&heir, &address, VALUE, &PauseWorker { query_id: 1, paused: true });
    market.tell(&heir, &address, VALUE, &PauseWorker { query_id: 1, paused: false });
    let model_id = market.model_id;
    market.tell(&heir, &address, VALUE, &WithdrawOffer { query_id: 1, model_id });
    market.offer(&worker, PRICES);
    market.chain.wait(contracts::worker::MAX_JOB_LIFE_S);
    market.tell(&owner, &address, VALUE, &WithdrawUnbonded { query_id: 1 });
    let transfer = TransferModel { query_id: 1, new_publisher: Some(heir.clone()) };
    market.tell(&publisher, &model, VALUE, &transfer);
    market.tell(&heir, &model, VALUE, &AcceptModel { query_id: 1 });
    market.tell(&heir, &model, VALUE, &DeprecateModel { query_id: 1 });
    market.attest(&worker);
    let attestor = market.attestor.clone();
    let serial = Bytes([7; 20]);
    let revoked = CertificateRevoked { query_id: 1, authority: hash("authority"), serial };
    market.tell(&attestor, &address, VALUE, &revoked);
    market.attest(&worker);
    let leave = LeavePlatform { query_id: 1, ppid: market.ppid(&worker) };
    market.tell(&owner, &address, VALUE, &leave);
    used(&market)
}

fn registry() -> Vec<(String, u64)> {
    let (mut market, worker, client) = setup();
    let heir = market.person("heir");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    market.tell(&client, &registry, VALUE, &FundGas { query_id: 1 });
    let allow = AllowMeasurement { query_id: 1, measurement: hash("new image") };
    market.tell(&owner, &registry, VALUE, &allow);
    let measurement = market.measurement;
    market.attest_as(&worker, hash("unlisted"));
    market.tell(&owner, &registry, VALUE, &SetAcceptedNeeds { query_id: 1, needs: 1 });
    let advisories = hash("advisories");
    market.tell(&owner, &registry, VALUE, &AllowAdvisories { query_id: 1, advisories });
    market.tell(&owner, &registry, VALUE, &RevokeAdvisories { query_id: 1, advisories });
    let revoke = RevokeMeasurement { query_id: 1, measurement };
    market.tell(&owner, &registry, VALUE, &revoke);
    market.attest(&worker);
    let enforce =
        EnforceRevocation { query_id: 1, measurement, worker_owner: worker.owner.clone(), generation: None };
    market.tell(&client, &registry, VALUE, &enforce);
    let offer = TransferOwnership { query_id: 1, new_owner: Some(heir.clone()) };
    market.tell(&owner, &registry, VALUE, &offer);
    market.tell(&heir, &registry, VALUE, &AcceptOwnership { query_id: 1 });
    let proposal = crate::registry::proposal(&market, 7);
    assert_all_succeeded(&market.tell(&heir, &registry, VALUE, &proposal));
    assert_all_succeeded(&market.tell(&heir, &registry, VALUE, &WithdrawProposal { query_id: 1 }));
    assert_all_succeeded(&market.tell(&heir, &registry, VALUE, &proposal));
    market.chain.wait(TIMELOCK_S);
    let generation = Ref::new(market.network.generation.clone()).unwrap();
    assert_all_succeeded(&market.tell(&client, &registry, VALUE, &ApplyProposal { query_id: 1 }));
    // A worker of the generation before.
    let measurement = hash("new image");
    assert_all_succeeded(&market.attest_of(&worker, measurement, Some(generation.clone())));
    let enforce = EnforceRevocation {
        query_id: 1,
        measurement: hash("unlisted"),
        worker_owner: worker.owner.clone(),
        generation: Some(generation.clone()),
    };
    assert_all_succeeded(&market.tell(&client, &registry, VALUE, &enforce));
    let retire = RetireGeneration { query_id: 1, generation: generation.hash() };
    assert_all_succeeded(&market.tell(&heir, &registry, VALUE, &retire));
    used(&market)
}

/// Every word that a wallet may send, to whom understands it.
fn words() -> Vec<(String, u64)> {
    let (mut market, worker, client) = setup();
    let (owner, address, model) = (worker.owner.clone(), worker.address.clone(), market.model.clone());
    let terms = Terms::default();
    market.fund_gas(&worker, Nanoton::new(TON));
    let unborn = market.unborn_worker("unborn");
    for (worker, value) in [(&unborn, 11 * TON), (&worker, TON)] {
        let init = market
            .network
            .worker_state_init(
                &contracts::artifacts::code(contracts::artifacts::Contract::Worker),
                &worker.owner,
            )
            .unwrap();
        let stake = cell(&Word::Stake.comment());
        let txs = market.chain.send(&worker.owner, &worker.address, Nanoton::new(value), stake, Some(init));
        assert_all_succeeded(&txs);
    }
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Pause));
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Resume));
    let cancelled = market.post(&client, &worker, &terms);
    assert_all_succeeded(&market.write(&client, &cancelled.address, VALUE, Word::Cancel));
    let late = market.claimed(&client, &worker, &terms);
    let session = market.session(&client, &worker, &terms);
    let receipt = market.session_receipt(&session, 1, TON / 3, false);
    market.redeem(&worker, &session, receipt, TON).unwrap();
    assert_all_succeeded(&market.write(&client, &session.address, VALUE, Word::Close));
    market.chain.wait(601);
    for job in [&late, &session] {
        assert_all_succeeded(&market.write(&client, &job.address, VALUE, Word::Expire));
    }
    market.tell(&client, &model, VALUE, &SharePaid { query_id: 1 });
    assert_all_succeeded(&market.write(&client, &model, VALUE, Word::Withdraw));
    market.chain.wait(contracts::job::AUDIT_WINDOW_S + 1);
    assert_all_succeeded(&market.write(&client, &late.address, VALUE, Word::Sweep));
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Withdraw));
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Unbond));
    market.chain.wait(contracts::worker::MAX_JOB_LIFE_S);
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Withdraw));
    used(&market)
}

/// A Worker with thousands of offers and as many keys as it may have.
fn a_worker_with_a_history() -> Vec<(String, u64)> {
    let (mut market, worker, client) = setup();
    let (publisher, owner, address) =
        (market.publisher.clone(), worker.owner.clone(), worker.address.clone());
    for _ in 2..MAX_RECEIPT_KEYS {
        market.attest(&worker);
    }
    assert_all_succeeded(&market.attest(&worker));
    market.chain.person("publisher", Nanoton::new(2_000 * TON));
    let models: Vec<_> = (0..MANY_OFFERS).map(|model| format!("model {model}")).collect();
    for batch in models.chunks(50) {
        for id in batch {
            let (address, body, init) = crate::model::registration(&market, id, 1);
            let body = cell(&body);
            market.chain.submit(&publisher, &address, FEES.into(), body, Some(init), true);
        }
        market.chain.settle();
        for id in batch {
            let prices = Ref::new(PRICES).unwrap();
            let body = OfferModel { query_id: 1, model_id: hash(id), min_deposit: Nanoton::ZERO, prices };
            market.chain.submit(&owner, &address, FEES.into(), cell(&body), None, true);
        }
        market.chain.settle();
    }
    let offers = market.worker_state(&worker).unwrap().offers.iter().count();
    assert_eq!(offers, MANY_OFFERS + 1);
    market.fund_gas(&worker, Nanoton::new(5 * TON));
    let terms = Terms::default();
    let job = market.claimed(&client, &worker, &terms);
    let open = market.open_job(&client, &worker, &terms);
    market.claim_well(&worker, &open);
    let one = market.receipt(&job, UNITS);
    let other = Receipt { content_hash: hash("another answer"), ..one.clone() };
    let mut evidence = market.equivocation(&worker, one, other);
    for registration_seqno in [0, 63, MAX_RECEIPT_KEYS - 1] {
        evidence.registration_seqno = registration_seqno;
        market.report(&client, &job, &evidence);
    }
    // What storage ate of the float.
    market.fund_gas(&worker, Nanoton::new(100 * TON));
    market.chain.wait(31 * 86_400);
    market.attest(&worker);
    market.offer(&worker, PRICES);
    market.tell(&owner, &address, VALUE, &WithdrawOffer { query_id: 1, model_id: hash("model 7") });
    let amount = Nanoton::new(1_000_000);
    market.tell(&owner, &address, VALUE, &WithdrawEarnings { query_id: 1, amount });
    used(&market)
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

/// What storage costs is reckoned from bounds that hold for code and data together.
#[test]
fn accounts_are_within_the_size_that_their_rent_is_reckoned_from() {
    let (mut market, worker, _) = setup();
    let publisher = market.publisher.clone();
    let cells = contracts::fees::METADATA_CELLS as usize;
    let (model, body, init) = crate::model::registration(&market, "wordy model", cells);
    let txs = market.chain.send(&publisher, &model, Nanoton::new(5 * TON), cell(&body), Some(init));
    assert_all_succeeded(&txs);
    let limits = [
        (&model, contracts::fees::MODEL_CELLS, contracts::fees::MODEL_BITS),
        (&worker.address, contracts::fees::WORKER_CELLS, contracts::fees::WORKER_BITS),
    ];
    for (account, most_cells, most_bits) in limits {
        let account = market.chain.account(account).unwrap().load_account().unwrap().unwrap();
        let used = account.storage_stat.used;
        let (cells, bits) = (u64::from(used.cells), u64::from(used.bits));
        println!("{cells} cells of {most_cells}, {bits} bits of {most_bits}");
        assert!(cells <= most_cells && bits <= most_bits, "{cells} cells, {bits} bits");
        assert!(10 * most_bits <= 11 * bits, "{most_bits} bits are needlessly many for {bits}");
    }
}

/// The snapshot is of every message, and each constant of `fees.tolk` is what the worst case needs and no more than a
/// tenth above it.
#[test]
fn stated_gas_is_close_above_the_gas_of_the_snapshot() {
    let committed = std::fs::read_to_string(SNAPSHOT).unwrap();
    let measured: BTreeMap<String, u64> = serde_json::from_str(&committed).unwrap();
    let taken: BTreeSet<&str> = measured.keys().filter_map(|operation| operation.split(' ').nth(1)).collect();
    // The Attestor's own are measured on genuine quotes, in tests/attestor.
    let ends_elsewhere = ["job_refund", "payout", "excesses", "registration_refused", "job_noticed"];
    let attestors = 0x4348_0501..=0x4348_0507;
    let is_log = |opcode: u32| (0x80..=0x9f).contains(&(opcode & 0xff));
    for (_, name) in opcodes::ALL.iter().filter(|(opcode, _)| !attestors.contains(opcode) && !is_log(*opcode))
    {
        assert!(taken.contains(name) || ends_elsewhere.contains(name), "{name} is in no measurement");
    }

    let stated: BTreeMap<&str, u64> = FEES_TOLK
        .lines()
        .filter_map(|line| line.strip_prefix("const GAS_")?.split_once(" = "))
        .map(|(name, gas)| (name, gas.trim().parse().unwrap()))
        .collect();
    let covers: [(&str, &[&str]); 24] = [
        ("JOB_POST", &["job post_job", "job open_session", "job post_open_job"]),
        ("JOB_TAKE", &["job take_job"]),
        ("JOB_BID", &["job take_job (bid)"]),
        ("JOB_DELIVER", &["job deliver_input", "job post_input"]),
        ("JOB_RECEIPT", &["job post_receipt", "job post_rejection", "job redeem_receipt (final)"]),
        ("JOB_REDEEM", &["job redeem_receipt"]),
        ("JOB_TOP_UP", &["job top_up_job"]),
        ("JOB_CLOSE", &["job close_session", "job text_comment (close)"]),
        ("JOB_EQUIVOCATION", &["job report_equivocation"]),
        ("JOB_EXPIRE", &["job expire_job", "job text_comment (expire)"]),
        ("WORKER_PAID", &["worker job_paid"]),
        ("WORKER_SLASH", &["worker job_equivocated"]),
        ("WORKER_CLAIM", &["worker claim_job"]),
        ("WORKER_ASK", &["worker offer_model"]),
        ("WORKER_ATTEST", &["worker attestation_registered"]),
        (
            "WORKER_SIMPLE",
            &[
                "worker top_up_stake",
                "worker certificate_revoked",
                "worker measurement_revoked",
                "worker withdraw_unbonded",
                "worker withdraw_earnings",
                "worker leave_platform",
                "worker text_comment (stake)",
            ],
        ),
        ("WORKER_OFFER", &["worker royalty_quoted"]),
        ("REGISTRY_QUOTE", &["registry quote_verified"]),
        ("PLATFORM_SERVE", &["platform serve_worker", "platform leave_worker"]),
        ("REGISTRY_ENFORCE", &["registry enforce_revocation"]),
        ("MODEL_SHARE", &["model share_paid"]),
        ("MODEL_QUOTE", &["model ask_royalty"]),
        ("MODEL_WITHDRAW", &["model withdraw_shares", "model text_comment (withdraw)"]),
        ("MODEL_SIMPLE", &["model register_model"]),
    ];
    // Compared with genuine quotes, in tests/attestor.
    let named: BTreeSet<&str> = covers.iter().map(|(name, _)| *name).chain(["ATTESTOR_VERIFY"]).collect();
    assert_eq!(named, stated.keys().copied().collect(), "a constant of fees.tolk is compared with nothing");
    for (name, operations) in covers {
        let limit = stated[name];
        let worst = operations.iter().map(|operation| measured[*operation]).max().unwrap();
        assert!(worst <= limit, "{operations:?} use {worst}, GAS_{name} is {limit}");
        assert!(10 * limit <= 11 * worst, "{operations:?} use {worst}, GAS_{name} is needlessly {limit}");
    }
}

/// Where a message must bring a least value, the dearest operation it may start, sent with exactly that.
#[test]
fn what_a_message_must_bring_is_at_most_three_tenths_above_what_it_needs() {
    let (mut market, worker, client) = setup();
    let other = market.worker("other");
    let stranger = market.person("stranger");
    let prices = market.prices();
    let needed = |txs: &[&Tx], carried: u64| {
        let messages: usize = txs.iter().map(|tx| tx.out.len() + tx.logs.len()).sum();
        let gas: u64 = txs.iter().map(|tx| tx.gas_used).sum();
        prices.gas(gas + carried).get() + messages as u128 * prices.forward(0, 0).get()
    };
    let mut rows = Vec::new();
    let paid = contracts::fees::GAS_WORKER_PAID;
    let at = |txs: &[Tx], account: &StdAddr| txs.iter().find(|tx| tx.account == *account).unwrap().clone();

    let job = market.post(&client, &worker, &Terms::default());
    let txs = market.claim(&worker, &job).unwrap();
    rows.push(("take_job", prices.claim_value(), needed(&[&at(&txs, &job.address)], 0)));

    let terms = Terms { bid_for_s: 60, measurement: Some(market.measurement), ..Terms::default() };
    let open = market.open_job(&client, &worker, &terms);
    market.claim_well(&worker, &open);
    market.offer(&other, Prices { output: Nanoton::new(5_000_000), ..PRICES });
    let txs = market.claim(&other, &open).unwrap();
    rows.push(("take_job with a bid", prices.bid_value(), needed(&[&at(&txs, &open.address)], paid)));
    market.chain.wait(61);
    let body = DeliverInput::new(1, &open.input).unwrap();
    let txs = market.tell(&client, &open.address, prices.delivery(), &body);
    rows.push(("deliver_input", prices.delivery(), needed(&[&txs[0]], 0)));

    let waiting = market.open_job(&client, &worker, &Terms::default());
    market.claim_well(&worker, &waiting);
    market.chain.wait(301);
    let expire = ExpireJob { query_id: 1 };
    let txs = market.tell(&stranger, &waiting.address, prices.expiry(), &expire);
    rows.push(("expire_job", prices.expiry(), needed(&[&at(&txs, &waiting.address)], paid)));

    let session = market.session(&client, &worker, &Terms { wait_s: 86_400, ..Terms::default() });
    let least = prices.session_top_up();
    let txs = market.top_up(&client, &session, TON, least);
    rows.push(("top_up_job", least, needed(&[&at(&txs, &session.address)], 0)));
    let least = prices.session_close();
    let txs = market.tell(&client, &session.address, least, &CloseSession { query_id: 1 });
    rows.push(("close_session", least, needed(&[&at(&txs, &session.address)], 0)));

    let one = market.session_receipt(&session, 1, TON / 2, false);
    let evidence = market.equivocation(&worker, one.clone(), Receipt { content_hash: hash("other"), ..one });
    let txs = market.tell(&stranger, &session.address, prices.equivocation(), &evidence);
    let both = [&at(&txs, &session.address), &at(&txs, &worker.address)];
    rows.push(("report_equivocation", prices.equivocation(), needed(&both, 0)));

    for (message, least, needed) in rows {
        let least = least.get();
        println!("{message}: {least} for {needed}");
        assert!(needed <= least, "{message} brings {least}, needs {needed}");
        assert!(10 * least <= 13 * needed, "{message} brings {least}, needs {needed}");
    }
}
