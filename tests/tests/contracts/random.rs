//! Random sequences of honest and hostile messages, delivered late and out of order: no nanoTON is lost or made, every
//! contract holds what it owes, a job pays once, and in the end every job closes by exits that anyone may take.
//!
//! Each step draws from its own seed, so that a run without some of its steps is a run too: one that fails is made
//! shorter and printed. `CHRYSALIS_SEED=n` repeats a run; `CHRYSALIS_STEPS=n cargo test --release -p tests --test
//! contracts -- --ignored --nocapture a_long_random_run` makes one of any length and prints its rate.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use contracts::comment::Word;
use contracts::job::{
    AUDIT_WINDOW_S, CancelJob, CloseSession, DeliverInput, EQUIVOCATED, ExpireJob, JobEquivocated, JobPaid,
    JobRefund, JobState, JobStatus, Outcome, Parties, PostRejection, SweepJob, TakeJob, TopUpJob,
};
use contracts::model::{RoyaltyQuoted, SharePaid, WithdrawShares};
use contracts::receipt::Receipt;
use contracts::registry::{
    AllowMeasurement, ApplyProposal, EnforceRevocation, MeasurementRevoked, RevokeMeasurement,
    WithdrawProposal,
};
use contracts::worker::{
    AttestationRegistered, ClaimJob, FundGas, MAX_JOB_LIFE_S, OfferModel, PauseWorker, RequestUnbond,
    TopUpStake, WithdrawEarnings, WithdrawUnbonded,
};
use contracts::{Amount, Cell, Message, Nanoton, Prices, Ref, StdAddr, Units, fees};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tests::market::{FEES, PRICES, SHARE_BPS, TON, cell, hash};
use tests::{Job, Kind, Market, Terms, Tx, Worker};
use tycho_types::cell::CellBuilder;

const STEPS: u64 = 5_000;
const SEEDS: [u64; 4] = [1, 2, 3, 4];
/// So often everything is delivered, ended and swept.
const ROUND: u64 = 2_500;
/// Steps of a part of a long run.
const WORLD: u64 = 20_000;

#[test]
fn random_sequences_lose_nothing_and_leave_no_job_without_an_exit() {
    let seeds = match std::env::var("CHRYSALIS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => SEEDS.to_vec(),
    };
    let mut reached = BTreeMap::new();
    for seed in seeds {
        for (operation, count) in run_or_shrink(seed, STEPS) {
            *reached.entry(operation).or_insert(0) += count;
        }
    }
    println!("{reached:#?}");
    for operation in [
        "job post_job",
        "job open_session",
        "job post_open_job",
        "job take_job",
        "job deliver_input",
        "job post_input",
        "job cancel_job",
        "job close_session",
        "job top_up_job",
        "job expire_job",
        "job sweep_job",
        "job post_receipt",
        "job redeem_receipt",
        "job post_rejection",
        "job report_equivocation",
        "job bounced job_equivocated",
        "model share_paid",
        "model withdraw_shares",
        "model text_comment (withdraw)",
        "job text_comment (cancel)",
        "job text_comment (close)",
        "job text_comment (expire)",
        "registry propose_generation",
        "registry apply_proposal",
        "worker text_comment (stake)",
        "worker text_comment (withdraw)",
        "worker claim_job",
        "worker job_paid",
        "worker job_equivocated",
        "worker bounced take_job",
        "worker pause_worker",
        "worker request_unbond",
        "worker withdraw_earnings",
        "worker withdraw_unbonded",
    ] {
        assert!(reached.contains_key(operation), "no run reached {operation}");
    }
}

#[test]
#[ignore = "as long as CHRYSALIS_STEPS says"]
fn a_long_random_run() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, steps) = (number("CHRYSALIS_SEED", 1), number("CHRYSALIS_STEPS", 1_000_000));
    let start = Instant::now();
    let mut done = 0;
    // Each in a world of its own: 32 bits of time end in 2106.
    for seed in seed.. {
        let some = WORLD.min(steps - done);
        run_or_shrink(seed, some);
        done += some;
        if done == steps {
            break;
        }
    }
    println!(
        "from seed {seed} on: {steps} steps, {:.0} steps a second",
        steps as f64 / start.elapsed().as_secs_f64()
    );
}

/// A run of so many steps, whatever becomes of it.
pub(crate) fn run(seed: u64, steps: u64) {
    run_or_shrink(seed, steps);
}

/// What succeeded how often. A run that fails is shortened first.
fn run_or_shrink(seed: u64, steps: u64) -> BTreeMap<String, u64> {
    let all: Vec<u64> = (0..steps).collect();
    match attempt(seed, &all) {
        Ok(reached) => reached,
        // A mutant of the contracts has failed as it should: nobody asks how.
        Err(reason) if cfg!(feature = "mutants") => panic!("seed {seed} fails: {reason}"),
        Err(reason) => {
            let short = shrink(seed, all);
            println!("seed {seed} fails ({reason}); so do these steps of it alone: {short:?}");
            Run::new(seed, true).all(&short);
            panic!("seed {seed} fails, its shortened run does not: {reason}");
        }
    }
}

fn attempt(seed: u64, steps: &[u64]) -> Result<BTreeMap<String, u64>, String> {
    catch_unwind(AssertUnwindSafe(|| Run::new(seed, false).all(steps))).map_err(|reason| {
        let text = reason.downcast_ref::<String>().cloned();
        text.or_else(|| reason.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Leaves steps away, in halves first, as long as what is left fails.
fn shrink(seed: u64, mut steps: Vec<u64>) -> Vec<u64> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut chunk = steps.len().div_ceil(2);
    for _ in 0..400 {
        let mut shorter = None;
        for start in (0..steps.len()).step_by(chunk) {
            let rest: Vec<u64> = steps
                .iter()
                .enumerate()
                .filter(|(at, _)| *at < start || *at >= start + chunk)
                .map(|(_, s)| *s)
                .collect();
            if attempt(seed, &rest).is_err() {
                shorter = Some(rest);
                break;
            }
        }
        match shorter {
            Some(rest) => {
                steps = rest;
                chunk = chunk.min(steps.len().max(1));
            }
            None if chunk == 1 => break,
            None => chunk = chunk.div_ceil(2),
        }
    }
    std::panic::set_hook(hook);
    steps
}

struct Run {
    market: Market,
    seed: u64,
    rng: StdRng,
    verbose: bool,
    started: u32,
    workers: Vec<Worker>,
    clients: Vec<StdAddr>,
    jobs: Vec<Job>,
    /// External messages seen so far, to be replayed.
    externals: Vec<(StdAddr, Cell)>,
    /// Internal bodies seen so far, to be sent again by strangers.
    bodies: Vec<Cell>,
    books: BTreeMap<StdAddr, Book>,
    succeeded: BTreeMap<String, u64>,
    read: usize,
}

/// What one posting of a job has taken and let go of.
#[derive(Default)]
struct Book {
    posted_at: u32,
    deposit: u128,
    bonds: u128,
    refunds: u32,
    shares: u32,
    answers: u32,
    returns: u32,
    to_worker: u128,
    to_model: u128,
}

impl Run {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut market = Market::open();
        let workers: Vec<Worker> = (0..3).map(|i| market.worker(&format!("worker {i}"))).collect();
        let other_model = hash("another model");
        let publisher = market.publisher.clone();
        market.register_model(&publisher, other_model, 1_234);
        for worker in &workers {
            market.offer_of(worker, other_model, PRICES);
            market.fund_gas(worker, Nanoton::new(20 * TON));
        }
        let clients: Vec<StdAddr> = (0..4).map(|i| market.person(&format!("client {i}"))).collect();
        for (i, _) in clients.iter().enumerate() {
            market.chain.person(&format!("client {i}"), Nanoton::new(1_000_000 * TON));
        }
        for worker in 0..3 {
            market.chain.person(&format!("worker {worker}"), Nanoton::new(1_000_000 * TON));
        }
        market.chain.person("attestor", Nanoton::new(1_000_000 * TON));
        market.chain.person("registry owner", Nanoton::new(1_000_000 * TON));
        market.chain.clear_history();
        Self {
            started: market.chain.now,
            market,
            seed,
            rng: StdRng::seed_from_u64(seed),
            verbose,
            workers,
            clients,
            jobs: Vec::new(),
            externals: Vec::new(),
            bodies: Vec::new(),
            books: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            read: 0,
        }
    }

    fn all(mut self, steps: &[u64]) -> BTreeMap<String, u64> {
        let mut round = 0;
        for step in steps {
            if step / ROUND != round {
                round = step / ROUND;
                self.end_every_job();
            }
            self.rng = StdRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step);
            self.step();
            if step % 50 == 0 {
                self.market.chain.assert_conserved();
                self.solvent();
            }
        }
        self.finish();
        self.succeeded
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..14 => self.post(),
            14..26 => self.claim(),
            26..36 => self.settle(),
            36..44 => self.redeem(),
            44..48 => self.reject(),
            48..50 => self.report(),
            50..52 => self.tell_client_order(),
            52..56 => self.deliver(),
            56..58 => self.tell_job(&ExpireJob { query_id: 1 }),
            58..60 => self.tell_job(&SweepJob { query_id: 1 }),
            60..69 => self.owner_message(),
            69..75 => self.forgery(),
            75..80 => self.replay(),
            80..84 => self.noise(),
            84..85 => self.registry_message(),
            85..92 => self.wait(),
            92..97 => self.comment(),
            _ => {}
        }
        for _ in 0..self.rng.random_range(0..5) {
            let choice = self.rng.random_range(0..64);
            self.market.chain.deliver(|_| choice);
        }
        self.observe();
    }

    /// Books what the new transactions took and released.
    fn observe(&mut self) {
        while let Some(tx) = self.market.chain.log.get(self.read) {
            self.read += 1;
            if self.bodies.len() < 400 {
                self.bodies.push(tx.body.clone());
            }
            if self.verbose {
                let name = self.market.names.get(&tx.account).copied().unwrap_or("?");
                println!("{name} {}: exit {:?}, {} nanoTON", tx.operation(), tx.exit_code, tx.value);
            }
            if !tx.succeeded() {
                continue;
            }
            let name = self.market.names.get(&tx.account).copied();
            if let Some(name) = name {
                *self.succeeded.entry(format!("{name} {}", tx.operation())).or_insert(0) += 1;
            }
            if name == Some("job") {
                crate::transitions::assert_drawn(tx);
                book(&mut self.books, tx, self.market.chain.now, &self.market);
            }
        }
        if self.read > 2_000 {
            self.market.chain.clear_history();
            self.read = 0;
        }
    }

    fn post(&mut self) {
        let client = self.one_client();
        let worker = self.one_worker();
        let mut prices = PRICES;
        if self.chance(20) {
            prices.output = Nanoton::new(self.rng.random_range(0..TON));
        }
        let wait_s = self.rng.random_range(0..2_000);
        let terms = Terms {
            deposit: Amount::new(match self.rng.random_range(0..20) {
                0 => 0,
                1..10 => self.rng.random_range(0..TON / 100),
                _ => self.rng.random_range(0..3 * TON),
            }),
            least_bond: Amount::new(self.rng.random_range(0..TON)),
            wait_s,
            settle_within_s: self.rng.random_range(20..2_000),
            fees: Nanoton::new(match self.rng.random_range(0..10) {
                0..3 => self.rng.random_range(0..TON / 10),
                _ => FEES,
            }),
            max_units: Units {
                input: self.rng.random_range(0..2_000),
                cached_input: self.rng.random_range(0..10),
                output: self.rng.random_range(0..2_000),
            },
            measurement: match self.rng.random_range(0..10) {
                0 => Some(hash("another image")),
                1 | 2 => Some(self.market.measurement),
                _ => None,
            },
            prices,
            share_bps: if self.chance(20) { self.rng.random_range(0..=10_001) } else { SHARE_BPS },
            model_id: match self.rng.random_range(0..20) {
                0 => Some(hash("unknown model")),
                1..6 => Some(hash("another model")),
                _ => None,
            },
            bid_for_s: self.rng.random_range(0..=wait_s),
            deliver_within_s: self.rng.random_range(20..2_000),
            compensation: Amount::new(self.rng.random_range(0..TON / 50)),
        };
        let mut job = match self.rng.random_range(0..10) {
            0..4 => self.market.draft(&client, &worker, &terms),
            4..7 => self.market.draft_session(&client, &worker, &terms),
            _ => self.market.draft_open(&client, &worker, &terms),
        };
        if self.chance(10)
            && let Some(old) = self.one_job()
        {
            // Where a job was swept, or still is.
            (job.client, job.nonce, job.address) = (old.client, old.nonce, old.address);
        }
        let client = job.client.clone();
        let from = if self.chance(5) { self.one_client() } else { client };
        let (body, init) = self.market.opening(&job);
        let value = self.market.value_of(&job).get();
        self.market.chain.submit(&from, &job.address, value, body, Some(init), true);
        self.jobs.push(job);
    }

    fn claim(&mut self) {
        let Some(job) = self.one_job_in(&[JobStatus::Open, JobStatus::Awaiting]) else {
            return;
        };
        let open = matches!(job.kind, Kind::Market(_));
        let worker = if open || self.chance(10) { self.one_worker() } else { self.worker_of(&job) };
        let mut order = self.market.order(&worker, &job);
        match self.rng.random_range(0..20) {
            0 => order.bond = Amount::new(self.rng.random_range(0..12 * TON)),
            1 => order.model_id = hash("another model"),
            2 => order.is_bid = !order.is_bid,
            3 => order.names_measurement = !order.names_measurement,
            4 => order.seqno = order.seqno.wrapping_add(1),
            5 => order.job_nonce = self.rng.random_range(0..10_000),
            _ => {}
        }
        let message = ClaimJob::signed(order, &worker.key).unwrap();
        self.external(worker.address, cell(&message));
    }

    /// A receipt for the job, mostly an honest one.
    fn receipt(&mut self, job: &Job, worker: &Worker) -> (Receipt, Worker) {
        let worker = if self.chance(10) { self.one_worker() } else { worker.clone() };
        let most = job.limits.max_units;
        let over = u32::from(self.chance(5));
        let units = Units {
            input: self.rng.random_range(0..=most.input) + over,
            cached_input: self.rng.random_range(0..=most.cached_input),
            output: self.rng.random_range(0..=most.output),
        };
        let mut receipt = self.market.receipt(job, units);
        match self.rng.random_range(0..20) {
            0 => receipt.amount = Amount::new(u64::MAX),
            1 => receipt.amount = Amount::new(self.rng.random_range(0..TON)),
            2 => receipt.sequence = 2,
            3 => receipt.posted_lt = receipt.posted_lt.wrapping_sub(1),
            4 => receipt.content_hash = hash("another content"),
            5 => {
                if let Some(other) = self.one_job() {
                    receipt.job = other.address;
                }
            }
            _ => {}
        }
        (receipt, worker)
    }

    fn settle(&mut self) {
        let Some(job) = self.one_job_in(&[JobStatus::Open, JobStatus::Claimed]) else {
            return;
        };
        let seller = self.worker_of(&job);
        let (receipt, worker) = self.receipt(&job, &seller);
        let mut message = self.market.answer(&worker, receipt);
        if self.chance(5) {
            let bit = self.rng.random_range(0..512);
            message.signature.0[bit / 8] ^= 1 << (bit % 8);
        }
        self.external(job.address, cell(&message));
    }

    fn redeem(&mut self) {
        let Some(job) = self.one_job_in(&[JobStatus::Session, JobStatus::Closing]) else {
            return;
        };
        if !matches!(job.kind, Kind::Session(_)) {
            return;
        }
        let seller = self.worker_of(&job);
        let (mut receipt, worker) = self.receipt(&job, &seller);
        let before = self.market.job_state(&job).map_or((0, 0), |state| (state.sequence, state.paid.get()));
        let sequence = (before.0 & (EQUIVOCATED - 1)) + self.rng.random_range(0..3);
        receipt.sequence = if self.chance(2) { EQUIVOCATED } else { sequence };
        receipt.is_final = self.chance(25);
        let most = (job.deposit.get() + 1).saturating_add(before.1);
        receipt.amount = Amount::new(self.rng.random_range(0..=most));
        let voucher = if self.chance(60) { u64::MAX } else { self.rng.random_range(0..=most) };
        let message = self.market.redemption(&worker, &job, receipt, voucher);
        self.external(job.address, cell(&message));
    }

    fn reject(&mut self) {
        let Some(job) = self.one_job_in(&[JobStatus::Claimed, JobStatus::Session, JobStatus::Open]) else {
            return;
        };
        let worker = self.worker_of(&job);
        let rejection = self.market.rejection(&job, self.rng.random_range(0..10));
        let message = PostRejection::signed(rejection, &worker.key).unwrap();
        self.external(job.address, cell(&message));
    }

    fn report(&mut self) {
        let Some(job) = self.one_job() else { return };
        let worker = self.worker_of(&job);
        let (one, _) = self.receipt(&job, &worker);
        let mut other = one.clone();
        if self.chance(90) {
            other.content_hash = hash("another answer");
        }
        if self.chance(10) {
            other.sequence += 1;
        }
        let mut report = self.market.equivocation(&worker, one, other);
        if self.chance(20) {
            report.registration_seqno = self.rng.random_range(0..10);
        }
        let from = self.one_client();
        let value = *[TON / 1_000, TON / 50, FEES].choose(&mut self.rng).unwrap();
        self.send(&from, &job.address, value.into(), &report);
        let owner = worker.owner;
        let amount = Nanoton::new(3 * TON);
        let body = TopUpStake { query_id: 1, amount };
        self.send(&owner, &worker.address, u128::from(3 * TON + FEES), &body);
    }

    fn tell_client_order(&mut self) {
        let amount = Amount::new(self.rng.random_range(0..TON));
        match self.rng.random_range(0..4) {
            0 => self.tell_job(&CancelJob { query_id: 1 }),
            1 => self.tell_job(&FundGas { query_id: 1 }),
            choice => {
                let Some(job) = self.one_job_in(&[JobStatus::Session]) else { return };
                let from = if self.chance(90) { job.client.clone() } else { self.one_client() };
                let value = self.rng.random_range(0..2 * TON);
                if choice == 2 {
                    self.send(&from, &job.address, value.into(), &CloseSession { query_id: 1 });
                } else {
                    self.send(&from, &job.address, value.into(), &TopUpJob { query_id: 1, amount });
                }
            }
        }
    }

    /// What wallets write, mostly to whom it may concern.
    fn comment(&mut self) {
        let word = *Word::ALL.choose(&mut self.rng).unwrap();
        let value = *[TON / 1_000, TON / 50, FEES].choose(&mut self.rng).unwrap();
        let (from, to) = match word {
            Word::Cancel | Word::Close | Word::Expire | Word::Sweep => {
                let wanted = if word == Word::Close { JobStatus::Session } else { JobStatus::Open };
                let Some(job) = self.one_job_in(&[wanted]) else { return };
                (job.client, job.address)
            }
            Word::Withdraw if self.chance(40) => (self.one_client(), self.market.model.clone()),
            Word::Unbond if self.chance(80) => return,
            _ => {
                let worker = self.one_worker();
                (worker.owner, worker.address)
            }
        };
        let from = if self.chance(15) { self.one_client() } else { from };
        let to = if self.chance(10) { self.one_contract() } else { to };
        self.send(&from, &to, value.into(), &word.comment());
    }

    fn deliver(&mut self) {
        let Some(job) = self.one_job_in(&[JobStatus::Awaiting]) else { return };
        let from = if self.chance(90) { job.client.clone() } else { self.one_client() };
        let body = DeliverInput::new(1, &job.input).unwrap();
        if self.chance(50) {
            self.market.chain.wait(200);
        }
        if self.chance(50) {
            if self.market.job_state(&job).is_none_or(|state| state.posting.seller.is_none()) {
                return;
            }
            let mut message = self.market.signed_input(&job);
            if self.chance(10) {
                message.signature.0[self.rng.random_range(0..64)] ^= 1;
            }
            self.external(job.address, cell(&message));
            return;
        }
        self.say(&from, &job.address, &body);
    }

    fn tell_job<M: Message>(&mut self, body: &M) {
        let Some(job) = self.one_job() else { return };
        let from = if self.chance(70) { job.client.clone() } else { self.one_client() };
        let value = *[TON / 1_000, TON / 50, FEES].choose(&mut self.rng).unwrap();
        self.send(&from, &job.address, value.into(), body);
    }

    fn owner_message(&mut self) {
        let worker = self.one_worker();
        let from = if self.chance(10) { self.one_client() } else { worker.owner.clone() };
        let to = worker.address.clone();
        match self.rng.random_range(0..11) {
            0 => {
                let amount = Nanoton::new(self.rng.random_range(0..5 * TON));
                let value = amount.get() + u128::from(self.rng.random_range(0..TON / 10));
                self.send(&from, &to, value, &TopUpStake { query_id: 1, amount });
            }
            1 => {
                let amount = Nanoton::new(self.rng.random_range(0..5 * TON));
                self.say(&from, &to, &RequestUnbond { query_id: 1, amount });
            }
            2 => self.say(&from, &to, &WithdrawUnbonded { query_id: 1 }),
            3 => {
                let free = u64::try_from(self.market.free(&worker)).unwrap();
                let amount = match self.rng.random_range(0..4) {
                    0 => 0,
                    1 => free,
                    _ => self.rng.random_range(0..=free / 4),
                };
                let body = WithdrawEarnings { query_id: 1, amount: Nanoton::new(amount) };
                self.say(&from, &to, &body);
            }
            4 => self.send(&from, &to, u128::from(3 * TON), &FundGas { query_id: 1 }),
            5 | 6 => {
                let body = self.market.quote_verified(&worker, self.market.measurement);
                let from = if self.chance(10) { from } else { self.market.attestor.clone() };
                let registry = self.market.registry.clone();
                self.say(&from, &registry, &body);
            }
            7 => {
                let model = self.market.model.clone();
                self.say(&from, &model, &WithdrawShares { query_id: 1 });
            }
            8 => {
                let paused = self.chance(20);
                self.say(&from, &to, &PauseWorker { query_id: 1, paused });
            }
            _ => {
                let output = Nanoton::new(self.rng.random_range(4_000_000..6_000_000));
                let body = OfferModel {
                    query_id: 1,
                    model_id: self.market.model_id,
                    min_deposit: Nanoton::ZERO,
                    prices: Ref::new(Prices { output, ..PRICES }).unwrap(),
                };
                self.say(&from, &to, &body);
            }
        }
    }

    /// The Registry's owner, or anyone, about the image that all workers run.
    fn registry_message(&mut self) {
        let registry = self.market.registry.clone();
        let measurement = self.market.measurement;
        let from = if self.chance(20) { self.one_client() } else { self.market.owner.clone() };
        match self.rng.random_range(0..15) {
            0 => self.say(&from, &registry, &RevokeMeasurement { query_id: 1, measurement }),
            1 => {
                let worker_owner = self.one_worker().owner;
                let generation = self.market.earlier_generation();
                let body = EnforceRevocation { query_id: 1, measurement, worker_owner, generation };
                self.say(&from, &registry, &body);
            }
            2 | 3 => {
                let timelock_s = self.rng.random_range(0..4_000);
                let body = crate::registry::proposal(&self.market, timelock_s);
                self.say(&from, &registry, &body);
            }
            4 => self.say(&from, &registry, &ApplyProposal { query_id: 1 }),
            5 => self.say(&from, &registry, &WithdrawProposal { query_id: 1 }),
            _ => self.say(&from, &registry, &AllowMeasurement { query_id: 1, measurement }),
        }
    }

    /// A stranger speaks as a contract would.
    fn forgery(&mut self) {
        let Some(job) = self.one_job() else { return };
        let from = self.one_client();
        let worker = self.worker_of(&job);
        let amount = self.rng.random_range(0..TON);
        let ppid = self.market.ppid(&worker);
        let registration_seqno =
            self.market.worker_state(&worker).map_or(0, |state| state.registration_seqno);
        let attestation = self.market.attestation(&worker, hash("unlisted"));
        let model = self.market.model.clone();
        let measurement = self.market.measurement;
        match self.rng.random_range(0..9) {
            0 => self.say(&from, &worker.address, &JobPaid { query_id: 1, outcome: 1 }),
            1 => {
                let parties = Ref::new(Parties { client: from.clone(), reporter: from.clone() }).unwrap();
                let body = JobEquivocated {
                    query_id: 1,
                    receipt_key: job.seller.receipt_key,
                    registration_seqno: 0,
                    penalty: Amount::new(TON),
                    nonce: job.nonce,
                    parties,
                };
                self.say(&from, &worker.address, &body);
            }
            2 => self.send(&from, &model, u128::from(amount), &SharePaid { query_id: 1 }),
            3 => {
                let body = RoyaltyQuoted {
                    query_id: 1,
                    model_id: self.market.model_id,
                    royalty_bps: 0,
                    min_deposit: Nanoton::ZERO,
                    prices: Ref::new(PRICES).unwrap(),
                };
                self.say(&from, &worker.address, &body);
            }
            4 => {
                let body = AttestationRegistered { query_id: 1, ppid, registration_seqno, attestation };
                self.say(&from, &worker.address, &body);
            }
            5 => self.say(&from, &worker.address, &MeasurementRevoked { query_id: 1, measurement }),
            6 => {
                let registry = self.market.registry.clone();
                let body = self.market.quote_verified(&worker, measurement);
                self.say(&from, &registry, &body);
            }
            _ => {
                let bond = Amount::new(amount);
                let bid = contracts::job::Bid {
                    worker_owner: worker.owner.clone(),
                    receipt_key: job.seller.receipt_key,
                    model: job.seller.model,
                    share_bps: job.seller.share_bps,
                    prices: job.seller.prices,
                    measurement: None,
                };
                let bid = self.chance(50).then(|| Ref::new(bid).unwrap());
                let body = TakeJob { query_id: 1, bond, stake: bond, bid };
                self.send(&from, &job.address, 2 * u128::from(TON), &body);
            }
        }
    }

    /// Something said before, again; by a stranger where it was internal.
    fn replay(&mut self) {
        if self.chance(50) {
            if let Some((to, body)) = self.externals.choose(&mut self.rng).cloned() {
                let _ = self.market.chain.submit_external(&to, body);
            }
            return;
        }
        let Some(body) = self.bodies.choose(&mut self.rng).cloned() else {
            return;
        };
        let from = self.one_client();
        let to = self.one_contract();
        let value = self.rng.random_range(0..2 * TON);
        let bounce = self.chance(80);
        self.market.chain.submit(&from, &to, value.into(), body, None, bounce);
    }

    fn noise(&mut self) {
        let bytes: Vec<u8> = (0..self.rng.random_range(0..80)).map(|_| self.rng.random()).collect();
        let mut builder = CellBuilder::new();
        builder.store_raw(&bytes, (bytes.len() * 8) as u16).unwrap();
        let body = builder.build().unwrap();
        let to = self.one_contract();
        if self.chance(30) {
            let _ = self.market.chain.submit_external(&to, body);
        } else {
            let from = self.one_client();
            let value = self.rng.random_range(0..TON / 10);
            let bounce = self.chance(80);
            self.market.chain.submit(&from, &to, value.into(), body, None, bounce);
        }
    }

    fn wait(&mut self) {
        let seconds = match self.rng.random_range(0..200) {
            0 => 365 * 86_400,
            1 => AUDIT_WINDOW_S,
            2 => MAX_JOB_LIFE_S,
            3..6 => self.market.network.generation.params.attestation_ttl_s,
            6..30 => self.rng.random_range(0..1_000),
            _ => self.rng.random_range(0..30),
        };
        self.market.chain.wait(seconds);
        if seconds > 10_000 {
            self.attest_all();
        }
    }

    fn attest_all(&mut self) {
        for worker in self.workers.clone() {
            let body = self.market.quote_verified(&worker, self.market.measurement);
            let (attestor, registry) = (self.market.attestor.clone(), self.market.registry.clone());
            self.say(&attestor, &registry, &body);
            self.send(&worker.owner, &worker.address, u128::from(TON), &FundGas { query_id: 1 });
        }
    }

    /// Strangers close and delete everything.
    fn end_every_job(&mut self) {
        while self.market.chain.deliver(|_| 0) {}
        self.observe();
        self.solvent();
        self.market.chain.wait(31 * 86_400);
        let stranger = self.clients[0].clone();
        for job in self.jobs.clone() {
            if self.market.status(&job).is_some_and(|status| !status.is_closed()) {
                // What years of storage took has to be brought by somebody.
                self.send(&stranger, &job.address, u128::from(TON), &FundGas { query_id: 1 });
                while self.market.chain.deliver(|_| 0) {}
                self.market.expire(&stranger, &job);
            }
            let status = self.market.status(&job);
            assert!(status.is_none_or(JobStatus::is_closed), "{} is {status:?} for ever", job.address);
        }
        self.observe();
        self.market.chain.wait(AUDIT_WINDOW_S + 1);
        for job in std::mem::take(&mut self.jobs) {
            if self.market.job_state(&job).is_some() {
                self.market.sweep(&stranger, &job);
            }
            assert_eq!(self.market.status(&job), None, "a closed job cannot be swept");
        }
        self.observe();
        self.attest_all();
        while self.market.chain.deliver(|_| 0) {}
        self.observe();
        self.books.clear();
        self.externals.clear();
        for worker in &self.workers {
            let (cells, bits) = size(&self.market.chain.data(&worker.address).unwrap());
            // The state itself; history and two offers are bounded, the keys by their number.
            assert!(cells < 400 && bits < 150_000, "a worker has grown to {cells} cells");
        }
    }

    /// Then nothing is left but what the books say.
    fn finish(&mut self) {
        self.end_every_job();
        for worker in self.workers.clone() {
            let state = self.market.worker_state(&worker).unwrap();
            let (owner, address, value) = (&worker.owner, &worker.address, Nanoton::new(FEES));
            if !state.stake.is_zero() {
                let amount = state.stake;
                self.market.tell(owner, address, value, &RequestUnbond { query_id: 1, amount });
            }
            self.market.fund_gas(&worker, Nanoton::new(5 * TON));
        }
        self.market.chain.wait(MAX_JOB_LIFE_S);
        for worker in self.workers.clone() {
            let (owner, address, value) = (&worker.owner, &worker.address, Nanoton::new(FEES));
            self.market.tell(owner, address, value, &WithdrawUnbonded { query_id: 1 });
            let state = self.market.worker_state(&worker).unwrap();
            let left = (state.stake, state.unbonding);
            assert_eq!(left, (Nanoton::ZERO, Nanoton::ZERO), "a worker cannot get its money out");
        }
        self.market.chain.assert_conserved();
    }

    /// Every contract can pay what it owes, but for the rent of the time since.
    fn solvent(&self) {
        let prices = self.market.prices();
        let age = |since: u32| u64::from(self.market.chain.now - since);
        for worker in &self.workers {
            let state = self.market.worker_state(worker).unwrap();
            let owed = state.stake.get() + state.unbonding.get();
            let held = self.market.chain.balance(&worker.address);
            let rent = prices.storage(age(self.started), 150_000, 400).get();
            assert!(held + rent >= owed, "a worker owes {owed} and holds {held}");
        }
        let recent = self.jobs.len().saturating_sub(200);
        for job in &self.jobs[recent..] {
            let Some(state) = self.market.job_state(job) else {
                continue;
            };
            let owed = owed(&state);
            let held = self.market.chain.balance(&job.address);
            let rent = match self.books.get(&job.address) {
                Some(book) if age(book.posted_at) > fees::RENT_JOB_S => {
                    prices.storage(age(book.posted_at), fees::JOB_BITS, fees::JOB_CELLS).get()
                }
                _ => 0,
            };
            assert!(
                held + rent >= owed,
                "a job that is {} owes {owed} and holds {held}",
                state.status.name()
            );
            let (cells, bits) = size(&self.market.chain.data(&job.address).unwrap());
            assert!(
                cells <= fees::JOB_CELLS && bits <= fees::JOB_BITS,
                "a job of {cells} cells, {bits} bits"
            );
        }
    }

    fn external(&mut self, to: StdAddr, body: Cell) {
        let _ = self.market.chain.submit_external(&to, body.clone());
        if self.externals.len() >= 200 {
            let index = self.rng.random_range(0..200);
            self.externals.swap_remove(index);
        }
        self.externals.push((to, body));
    }

    fn say<M: Message>(&mut self, from: &StdAddr, to: &StdAddr, body: &M) {
        self.send(from, to, FEES.into(), body);
    }

    fn send<M: Message>(&mut self, from: &StdAddr, to: &StdAddr, value: u128, body: &M) {
        self.market.chain.submit(from, to, value, cell(body), None, true);
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn one_client(&mut self) -> StdAddr {
        self.clients.choose(&mut self.rng).unwrap().clone()
    }

    fn one_worker(&mut self) -> Worker {
        self.workers.choose(&mut self.rng).unwrap().clone()
    }

    fn one_job(&mut self) -> Option<Job> {
        let recent = self.jobs.len().saturating_sub(12);
        let from = if self.chance(80) { recent } else { 0 };
        self.jobs[from..].choose(&mut self.rng).cloned()
    }

    /// Mostly a job that is in one of these states.
    fn one_job_in(&mut self, statuses: &[JobStatus]) -> Option<Job> {
        if self.chance(15) {
            return self.one_job();
        }
        let recent = self.jobs.len().saturating_sub(40);
        let fits = |job: &&Job| self.market.status(job).is_some_and(|status| statuses.contains(&status));
        let fitting: Vec<&Job> = self.jobs[recent..].iter().filter(fits).collect();
        fitting.choose(&mut self.rng).copied().cloned()
    }

    fn one_contract(&mut self) -> StdAddr {
        match self.rng.random_range(0..4) {
            0 => self.market.model.clone(),
            1 => self.market.registry.clone(),
            2 => self.one_worker().address,
            _ => match self.one_job() {
                Some(job) => job.address,
                None => self.market.registry.clone(),
            },
        }
    }

    /// Who holds the job, or whom its client had in mind.
    fn worker_of(&self, job: &Job) -> Worker {
        let seller = self.market.job_state(job).and_then(|state| state.posting.seller.map(|s| s.worker));
        let named = seller.unwrap_or(job.seller.worker);
        let found = self.workers.iter().find(|worker| worker.address.address == named);
        found.unwrap_or(&self.workers[0]).clone()
    }
}

/// What a job that is not closed has to hold.
fn owed(state: &JobState) -> u128 {
    let (deposit, bond, paid) = (state.deposit.get(), state.bond.get(), state.paid.get());
    let share_bps = state.posting.seller.as_ref().map_or(0, |seller| seller.share_bps);
    let share = Amount::new(paid).share_bps(share_bps).get();
    match state.status {
        JobStatus::Open => deposit.into(),
        JobStatus::Awaiting | JobStatus::Claimed => u128::from(deposit) + u128::from(bond),
        JobStatus::Session | JobStatus::Closing => u128::from(deposit - paid) + u128::from(share),
        _ => 0,
    }
}

fn book(books: &mut BTreeMap<StdAddr, Book>, tx: &Tx, now: u32, market: &Market) {
    let opens = matches!(tx.operation().as_str(), "post_job" | "open_session" | "post_open_job");
    if opens {
        books.insert(tx.account.clone(), Book { posted_at: now, ..Book::default() });
    }
    let book = books.entry(tx.account.clone()).or_default();
    let gas = market.prices().gas(fees::GAS_WORKER_PAID).get();
    if tx.operation() == "take_job" {
        book.bonds += tx.value;
    }
    if opens || tx.operation() == "top_up_job" {
        book.deposit += tx.value;
    }
    for sent in &tx.out {
        if let Some(paid) = sent.read::<JobPaid>() {
            book.to_worker += sent.value - gas;
            if tx.operation() == "post_receipt" {
                book.answers += 1;
            }
            if paid.outcome == Outcome::Rejected as u8 || paid.outcome == Outcome::Undelivered as u8 {
                book.returns += 1;
            }
        }
        if sent.read::<SharePaid>().is_some() {
            book.shares += 1;
            book.to_model += sent.value;
        }
        if sent.read::<JobRefund>().is_some() {
            book.refunds += 1;
        }
    }
    assert!(book.refunds <= 1, "a job refunded its client twice");
    assert!(book.shares <= 1, "a job paid its model twice");
    assert!(book.answers + book.returns <= 1, "a job paid its worker twice");
    assert!(book.to_worker + book.to_model <= book.deposit + book.bonds, "a job paid more than it took");
    if tx.destroyed {
        books.remove(&tx.account);
    }
}

/// Cells and bits of a tree, each distinct cell once.
fn size(root: &Cell) -> (u64, u64) {
    let mut seen = std::collections::HashSet::new();
    let mut queue = vec![root.clone()];
    let mut bits = 0;
    while let Some(cell) = queue.pop() {
        if seen.insert(*cell.repr_hash()) {
            bits += u64::from(cell.bit_len());
            queue.extend((0..cell.reference_count()).filter_map(|at| cell.reference_cloned(at)));
        }
    }
    (seen.len() as u64, bits)
}
