//! Random sequences of honest and hostile messages: no nanoTON is lost or made, nothing is released twice, and in the
//! end every job closes by exits that anyone may take. `CHRYSALIS_SEED=n` repeats a run.

use std::collections::BTreeMap;

use contracts::job::{
    CancelJob, Claim, ExpireJob, JobForfeited, JobPaid, JobRefund, JobReturned, JobStatus, JobStorage,
    PostReceipt, SweepJob, TakeJob,
};
use contracts::model::{RoyaltyQuoted, SharePaid, WithdrawShares};
use contracts::receipt::{ClaimOrderBody, ReceiptBody};
use contracts::registry::{AllowMeasurement, EnforceRevocation, MeasurementRevoked, RevokeMeasurement};
use contracts::wire::from_cell;
use contracts::worker::{
    AttestationRegistered, ClaimJob, FundGas, RequestUnbond, TopUpStake, WithdrawEarnings, WithdrawUnbonded,
};
use contracts::{Cell, HashBytes, Message, Nanoton, Ref, StdAddr, Units};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tests::market::{FEES, PRICES, ROYALTY_BPS, TON, cell, hash, result};
use tests::{Job, Market, Terms, Tx, Worker};
use tycho_types::cell::CellBuilder;

const OTHER_ROYALTY_BPS: u16 = 1_234;
const STEPS: usize = 5_000;
const SEEDS: [u64; 4] = [1, 2, 3, 4];

#[test]
fn random_sequences_lose_nothing_and_leave_no_job_without_an_exit() {
    let seeds = match std::env::var("CHRYSALIS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => SEEDS.to_vec(),
    };
    let mut reached = BTreeMap::new();
    for seed in seeds {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for step in 0..STEPS {
            run.step();
            if step % 64 == 0 {
                run.market.chain.assert_conserved();
            }
            if step % 500 == 0 {
                while run.market.chain.deliver(|_| 0) {}
                run.observe();
                run.solvent();
            }
        }
        run.finish();
        for (operation, count) in run.succeeded {
            *reached.entry(operation).or_insert(0) += count;
        }
    }
    println!("{reached:#?}");
    for operation in [
        "job post_job",
        "job take_job",
        "job cancel_job",
        "job expire_job",
        "job sweep_job",
        "job post_receipt",
        "job post_rejection",
        "model share_paid",
        "model withdraw_shares",
        "worker claim_job",
        "worker job_forfeited",
        "worker job_paid",
        "worker job_returned",
        "worker bounced take_job",
        "worker request_unbond",
        "worker withdraw_earnings",
        "worker withdraw_unbonded",
    ] {
        assert!(reached.contains_key(operation), "no run reached {operation}");
    }
}

struct Run {
    market: Market,
    rng: StdRng,
    workers: Vec<Worker>,
    clients: Vec<StdAddr>,
    jobs: Vec<Job>,
    /// External messages seen so far, to be replayed.
    externals: Vec<(StdAddr, Cell)>,
    /// Internal bodies seen so far, to be sent again by strangers.
    bodies: Vec<Cell>,
    releases: BTreeMap<StdAddr, Releases>,
    succeeded: BTreeMap<String, u64>,
    read: usize,
}

/// What one posting of a job has let go of.
#[derive(Default)]
struct Releases {
    refunds: u32,
    to_worker: u32,
    shares: u32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut market = Market::open();
        let workers: Vec<Worker> = (0..3).map(|i| market.worker(&format!("worker {i}"))).collect();
        let other_model = hash("another model");
        let publisher = market.publisher.clone();
        market.register_model(&publisher, other_model, OTHER_ROYALTY_BPS);
        for worker in &workers {
            market.offer_of(worker, other_model, PRICES);
        }
        let clients = (0..4).map(|i| market.person(&format!("client {i}"))).collect();
        market.chain.clear_history();
        Self {
            market,
            rng: StdRng::seed_from_u64(seed),
            workers,
            clients,
            jobs: Vec::new(),
            externals: Vec::new(),
            bodies: Vec::new(),
            releases: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            read: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..14 => self.post(),
            14..30 => self.claim(),
            30..42 => self.settle(),
            42..47 => self.reject(),
            47 => self.registry_message(),
            48 => self.tell_job(&CancelJob { query_id: 1 }),
            49..53 => self.tell_job(&ExpireJob { query_id: 1 }),
            53..57 => self.tell_job(&SweepJob { query_id: 1 }),
            57..65 => self.owner_message(),
            65..72 => self.forgery(),
            72..77 => self.replay(),
            77..82 => self.noise(),
            82..90 => self.wait(),
            _ => {}
        }
        for _ in 0..self.rng.random_range(0..5) {
            let choice = self.rng.random_range(0..64);
            self.market.chain.deliver(|_| choice);
        }
        self.observe();
    }

    /// Counts what the new transactions released.
    fn observe(&mut self) {
        while let Some(tx) = self.market.chain.log.get(self.read) {
            self.read += 1;
            if self.bodies.len() < 400 {
                self.bodies.push(tx.body.clone());
            }
            if !tx.succeeded() {
                continue;
            }
            let name = self.market.names.get(&tx.account).copied();
            if let Some(name) = name {
                *self.succeeded.entry(format!("{name} {}", tx.operation())).or_insert(0) += 1;
            }
            if name == Some("job") {
                releases(&mut self.releases, tx);
                right_royalty(&self.market, tx);
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
        let terms = Terms {
            deposit: Nanoton::new(match self.rng.random_range(0..20) {
                0 => 0,
                1..10 => self.rng.random_range(0..TON / 100),
                _ => self.rng.random_range(0..3 * TON),
            }),
            claim_within_s: self.rng.random_range(0..1_000),
            settle_within_s: self.rng.random_range(20..2_000),
            fees: Nanoton::new(match self.rng.random_range(0..10) {
                0 => self.rng.random_range(0..TON / 10),
                _ => FEES,
            }),
            max_units: Units {
                input: self.rng.random_range(0..2_000),
                cached_input: self.rng.random_range(0..10),
                output: self.rng.random_range(0..2_000),
            },
            measurement: if self.chance(10) { hash("another image") } else { HashBytes::ZERO },
            max_prices: if self.chance(10) { contracts::Prices::default() } else { PRICES },
            model_id: match self.rng.random_range(0..20) {
                0 => Some(hash("unknown model")),
                1..6 => Some(hash("another model")),
                _ => None,
            },
        };
        let mut job = self.market.draft(&client, &worker, &terms);
        if self.chance(10)
            && let Some(mut old) = self.one_job()
        {
            // Where a job was swept, or still is.
            old.terms = job.terms.clone();
            job = old;
        }
        let client = job.client.clone();
        let value = terms.deposit.get() + terms.fees.get();
        let from = if self.chance(5) { self.one_client() } else { client };
        let (body, init) = self.market.posting(&job);
        self.market.chain.submit(&from, &job.address, value, cell(&body), Some(init), true);
        self.jobs.push(job);
    }

    fn claim(&mut self) {
        let Some(job) = self.one_job_in(JobStatus::Open) else {
            return;
        };
        let worker = if self.chance(10) { self.one_worker() } else { self.worker_of(&job) };
        let mut order = self.market.order(&worker, &job);
        if self.chance(15) {
            let body = ClaimOrderBody {
                model_id: order.body.model_id,
                bond: Nanoton::new(self.rng.random_range(0..12 * TON)),
            };
            order.body = Ref::new(body).unwrap();
        }
        if self.chance(5) {
            let body = ClaimOrderBody { model_id: hash("another model"), bond: order.body.bond };
            order.body = Ref::new(body).unwrap();
        }
        if self.chance(5) {
            order.seqno = order.seqno.wrapping_add(1);
        }
        if self.chance(5) {
            order.job_nonce = self.rng.random_range(0..10_000);
        }
        let message = ClaimJob::signed(order, &worker.key).unwrap();
        self.external(worker.address, cell(&message));
    }

    fn settle(&mut self) {
        let Some(job) = self.one_job_in(JobStatus::Claimed) else {
            return;
        };
        let worker = if self.chance(10) { self.one_worker() } else { self.worker_of(&job) };
        let most = job.terms.limits.max_units;
        let over = u32::from(self.chance(5));
        let units = Units {
            input: self.rng.random_range(0..=most.input) + over,
            cached_input: self.rng.random_range(0..=most.cached_input),
            output: self.rng.random_range(0..=most.output),
        };
        let mut receipt = self.market.receipt(&job, units);
        match self.rng.random_range(0..20) {
            0 => receipt.amount = Nanoton::MAX,
            1 => receipt.amount = Nanoton::new(self.rng.random_range(0..TON)),
            2 => receipt.sequence = 2,
            3 => receipt.posted_lt = receipt.posted_lt.wrapping_sub(1),
            4 => receipt.network_id = -239,
            5 => {
                if let Some(other) = self.one_job() {
                    receipt.job = other.address;
                }
            }
            6 => {
                let body = ReceiptBody { result_hash: hash("another result"), ..(*receipt.body).clone() };
                receipt.body = Ref::new(body).unwrap();
            }
            _ => {}
        }
        let mut message = PostReceipt::signed(receipt, &result(), &worker.key).unwrap();
        if self.chance(5) {
            let bit = self.rng.random_range(0..512);
            message.signature.0[bit / 8] ^= 1 << (bit % 8);
        }
        self.external(job.address, cell(&message));
    }

    fn reject(&mut self) {
        let Some(job) = self.one_job_in(JobStatus::Claimed) else {
            return;
        };
        let worker = self.worker_of(&job);
        let rejection = self.market.rejection(&job, self.rng.random_range(0..10));
        let message = contracts::job::PostRejection::signed(rejection, &worker.key).unwrap();
        self.external(job.address, cell(&message));
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
        match self.rng.random_range(0..9) {
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
            3 => self.say(&from, &to, &WithdrawEarnings { query_id: 1 }),
            4 => self.say(&from, &to, &FundGas { query_id: 1 }),
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
            _ => {
                let body = contracts::worker::OfferModel {
                    query_id: 1,
                    model_id: self.market.model_id,
                    prices: Ref::new(PRICES).unwrap(),
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
        match self.rng.random_range(0..6) {
            0 => self.say(&from, &registry, &RevokeMeasurement { query_id: 1, measurement }),
            1 => {
                let worker_owner = self.one_worker().owner;
                let body = EnforceRevocation { query_id: 1, measurement, worker_owner };
                self.say(&from, &registry, &body);
            }
            _ => self.say(&from, &registry, &AllowMeasurement { query_id: 1, measurement }),
        }
    }

    /// A stranger speaks as a contract would.
    fn forgery(&mut self) {
        let Some(job) = self.one_job() else { return };
        let from = self.one_client();
        let worker = self.worker_of(&job);
        let (client, nonce) = (job.client.clone(), job.nonce);
        let bond = Nanoton::new(self.rng.random_range(0..TON));
        let ppid = self.market.ppid(&worker);
        let registration_seqno =
            self.market.worker_state(&worker).map_or(0, |state| state.registration_seqno);
        let attestation = self.market.attestation(&worker, hash("unlisted"));
        let model = self.market.model.clone();
        match self.rng.random_range(0..9) {
            0 => {
                let paid = bond;
                let body = JobPaid { query_id: 1, bond, paid, client, nonce };
                self.say(&from, &worker.address, &body);
            }
            1 => {
                let body = JobReturned { query_id: 1, bond, client, nonce };
                self.say(&from, &worker.address, &body);
            }
            2 => {
                let body = JobForfeited { query_id: 1, bond, client, nonce };
                self.say(&from, &worker.address, &body);
            }
            3 => {
                let (royalty, fee) = (bond, bond);
                let body = SharePaid { query_id: 1, royalty, fee, client, nonce };
                self.send(&from, &model, 3 * u128::from(TON), &body);
            }
            4 => {
                let body = RoyaltyQuoted {
                    query_id: 1,
                    model_id: self.market.model_id,
                    royalty_bps: 0,
                    prices: Ref::new(PRICES).unwrap(),
                };
                self.say(&from, &worker.address, &body);
            }
            5 => {
                let body = AttestationRegistered { query_id: 1, ppid, registration_seqno, attestation };
                self.say(&from, &worker.address, &body);
            }
            6 => {
                let measurement = self.market.measurement;
                let body = MeasurementRevoked { query_id: 1, measurement };
                self.say(&from, &worker.address, &body);
            }
            7 => {
                let registry = self.market.registry.clone();
                let body = self.market.quote_verified(&worker, self.market.measurement);
                self.say(&from, &registry, &body);
            }
            _ => {
                let claim = Claim {
                    receipt_key: HashBytes([1; 32]),
                    measurement: self.market.measurement,
                    royalty_bps: 10_000,
                    bond,
                    settle_by: u32::MAX,
                    worker_owner: worker.owner.clone(),
                    prices: Ref::new(PRICES).unwrap(),
                };
                let claim = Ref::new(claim).unwrap();
                let body = TakeJob { query_id: 1, bond, model_id: self.market.model_id, claim };
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
        let seconds = match self.rng.random_range(0..40) {
            0 if self.chance(25) => self.market.network.params.audit_window_s,
            0 => self.market.network.params.unbonding_s,
            1 => self.market.network.params.attestation.ttl_s,
            2..5 => self.rng.random_range(0..1_000),
            _ => self.rng.random_range(0..30),
        };
        self.market.chain.wait(seconds);
        if seconds > 10_000 {
            for worker in self.workers.clone() {
                let body = self.market.quote_verified(&worker, self.market.measurement);
                let (attestor, registry) = (self.market.attestor.clone(), self.market.registry.clone());
                self.say(&attestor, &registry, &body);
            }
        }
    }

    /// Strangers close everything; then nothing is left but what the books say.
    fn finish(&mut self) {
        while self.market.chain.deliver(|_| 0) {}
        self.observe();
        self.solvent();
        let stranger = self.market.person("a stranger at the end");
        self.market.chain.wait(31 * 86_400);
        for job in self.jobs.clone() {
            if self.market.status(&job).is_some_and(|s| !s.is_closed()) {
                self.market.expire(&stranger, &job);
            }
            let status = self.market.status(&job);
            assert!(status.is_none_or(JobStatus::is_closed), "{} is {status:?} for ever", job.address);
        }
        self.observe();
        for worker in &self.workers {
            let state = self.market.worker_state(worker).unwrap();
            assert_eq!(state.locked, Nanoton::ZERO, "a bond never came back");
        }
        self.market.chain.wait(self.market.network.params.audit_window_s + 1);
        for job in self.jobs.clone() {
            if self.market.job_state(&job).is_some() {
                self.market.sweep(&stranger, &job);
            }
            assert_eq!(self.market.status(&job), None, "a closed job cannot be swept");
        }
        self.observe();
        for worker in self.workers.clone() {
            let state = self.market.worker_state(&worker).unwrap();
            if !state.stake.is_zero() {
                let amount = state.stake;
                self.market.tell(
                    &worker.owner,
                    &worker.address,
                    Nanoton::new(FEES),
                    &RequestUnbond { query_id: 1, amount },
                );
            }
        }
        self.market.chain.wait(self.market.network.params.unbonding_s);
        for worker in self.workers.clone() {
            let value = Nanoton::new(FEES);
            let (owner, address) = (&worker.owner, &worker.address);
            self.market.tell(owner, address, value, &WithdrawEarnings { query_id: 1 });
            self.market.tell(owner, address, value, &WithdrawUnbonded { query_id: 1 });
            let state = self.market.worker_state(&worker).unwrap();
            assert_eq!(
                (state.stake, state.earnings, state.unbonding),
                (Nanoton::ZERO, Nanoton::ZERO, Nanoton::ZERO),
                "a worker cannot get its money out"
            );
        }
        self.market.chain.assert_conserved();
        for (job, releases) in &self.releases {
            assert!(releases.refunds <= 1, "{job} refunded its client twice");
            assert!(releases.to_worker <= 1, "{job} told its worker twice");
            assert!(releases.shares <= 1, "{job} paid its model twice");
        }
    }

    /// Every contract can pay what its books say it owes.
    fn solvent(&self) {
        for worker in &self.workers {
            let state = self.market.worker_state(worker).unwrap();
            let owed = state.stake.get() + state.earnings.get() + state.unbonding.get();
            let held = self.market.chain.balance(&worker.address);
            assert!(held >= owed, "a worker owes {owed} and holds {held}");
        }
        let state = self.market.model_state().unwrap();
        let owed = state.royalty.get() + state.fee.get();
        let held = self.market.chain.balance(&self.market.model);
        assert!(held >= owed, "the model owes {owed} and holds {held}");
        for job in &self.jobs {
            let Some(state) = self.market.job_state(job) else {
                continue;
            };
            let owed = match state.status {
                JobStatus::Open => state.terms.limits.deposit.get(),
                JobStatus::Claimed => state.terms.limits.deposit.get() + state.claim.unwrap().bond.get(),
                _ => 0,
            };
            let held = self.market.chain.balance(&job.address);
            assert!(held >= owed, "a job owes {owed} and holds {held}");
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

    /// Mostly a job that is in this state.
    fn one_job_in(&mut self, status: JobStatus) -> Option<Job> {
        if self.chance(15) {
            return self.one_job();
        }
        let recent = self.jobs.len().saturating_sub(40);
        let fitting: Vec<&Job> =
            self.jobs[recent..].iter().filter(|job| self.market.status(job) == Some(status)).collect();
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

    fn worker_of(&self, job: &Job) -> Worker {
        self.workers.iter().find(|worker| worker.address == job.terms.worker).unwrap().clone()
    }
}

/// The share that a job pays is the one its own model asks.
fn right_royalty(market: &Market, tx: &Tx) {
    let (Some(share), Some(data)) = (tx.sent::<SharePaid>(), market.chain.data(&tx.account)) else {
        return;
    };
    let storage: JobStorage = from_cell(&data).unwrap();
    let Some(state) = storage.state else { return };
    let Some(settlement) = &state.settlement else { return };
    let royalty_bps = if state.terms.model_id == market.model_id { ROYALTY_BPS } else { OTHER_ROYALTY_BPS };
    assert_eq!(share.royalty, settlement.paid.share_bps(royalty_bps), "a publisher was cheated");
}

fn releases(all: &mut BTreeMap<StdAddr, Releases>, tx: &Tx) {
    let entry = all.entry(tx.account.clone()).or_default();
    for sent in &tx.out {
        if sent.read::<JobRefund>().is_some() {
            entry.refunds += 1;
        }
        if sent.read::<JobPaid>().is_some()
            || sent.read::<JobReturned>().is_some()
            || sent.read::<JobForfeited>().is_some()
        {
            entry.to_worker += 1;
        }
        if sent.read::<SharePaid>().is_some() {
            entry.shares += 1;
        }
    }
    if tx.destroyed {
        // The client may post again at this address: another job.
        assert!(entry.refunds <= 1 && entry.to_worker <= 1 && entry.shares <= 1);
        all.remove(&tx.account);
    }
}
