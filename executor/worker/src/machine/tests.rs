#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use contracts::money::Amount;
use contracts::{Nanoton, Prices, StdAddr, Units};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const MODEL: HashBytes = HashBytes([1; 32]);
const MODEL_ACCOUNT: HashBytes = HashBytes([11; 32]);
const RECEIPT_KEY: HashBytes = HashBytes([2; 32]);
const ENCRYPTION_KEY: HashBytes = HashBytes([3; 32]);
const MEASUREMENT: HashBytes = HashBytes([4; 32]);
const START_S: u32 = 1_800_000_000;

fn address(byte: u8) -> StdAddr {
    StdAddr::new(0, HashBytes([byte; 32]))
}

fn policy() -> Policy {
    Policy {
        worker: address(9),
        receipt_key: RECEIPT_KEY,
        encryption_key: ENCRYPTION_KEY,
        models: vec![ServedModel { model_id: MODEL, account: MODEL_ACCOUNT }],
        min_stake: Nanoton::new(1_000),
        min_bond: Nanoton::new(100),
        bond_bps: 1_000,
        fee_bps: 100,
        max_jobs: 2,
        max_waiting: 8,
        claim_above: Nanoton::new(1_000),
        claim_margin_s: 20,
        min_settle_s: 60,
        order_valid_s: 60,
        grace_s: 30,
        resend_every_s: 15,
        min_deposit: Nanoton::new(10),
        min_float: Nanoton::new(50),
    }
}

fn prices() -> Prices {
    Prices { input: Nanoton::new(1_000), cached_input: Nanoton::new(1_000), output: Nanoton::new(2_000) }
}

/// A job that is worth a claim.
fn posted(byte: u8) -> PostedJob {
    PostedJob {
        key: JobKey { job: address(byte), posted_lt: u64::from(byte) },
        client: address(7),
        nonce: u64::from(byte),
        until: START_S + 600,
        deposit: Amount::new(1_000),
        max_units: Units { input: 100, cached_input: 0, output: 100 },
        least_bond: Amount::new(100),
        worker: address(9).address,
        receipt_key: RECEIPT_KEY,
        model: MODEL_ACCOUNT,
        settle_within_s: 600,
        share_bps: 600,
        prices: prices(),
    }
}

/// A job that is answered as it is.
fn small(byte: u8) -> PostedJob {
    PostedJob { deposit: Amount::new(999), ..posted(byte) }
}

fn worker(as_of_s: u32, claim_seqno: u32) -> WorkerFacts {
    WorkerFacts {
        as_of_s,
        stake: Nanoton::new(10_000),
        float: Nanoton::new(1_000),
        paused: false,
        claim_seqno,
        registration_seqno: 1,
        attestation: Some(AttestedKeys {
            receipt_key: RECEIPT_KEY,
            encryption_key: ENCRYPTION_KEY,
            measurement: MEASUREMENT,
            registered_at: START_S,
            expires_at: START_S + 86_400,
        }),
        offers: vec![offer()],
        endpoint: None,
    }
}

fn offer() -> OfferFacts {
    OfferFacts { model_id: MODEL, prices: prices(), royalty_bps: 500, min_deposit: Nanoton::new(20) }
}

fn open() -> JobFacts {
    JobFacts { status: JobStatus::Open, until: START_S + 600 }
}

fn claimed() -> JobFacts {
    JobFacts { status: JobStatus::Claimed, until: START_S + 900 }
}

fn due() -> Due {
    Due { claimed: true, by_s: START_S + 900 }
}

fn ready() -> State {
    let mut state = State::default();
    step(&policy(), &mut state, Event::Tick { now_s: START_S });
    step(&policy(), &mut state, Event::WorkerRead(worker(START_S, 0)));
    state
}

/// [`super::step`], where every input that is weighed can be answered.
fn step(policy: &Policy, state: &mut State, event: Event) -> Vec<Effect> {
    let mut effects = super::step(policy, state, event);
    let weighing = |state: &State| {
        state.jobs.iter().find(|(_, job)| job.phase == Phase::Weighing).map(|(key, _)| key.clone())
    };
    while let Some(key) = weighing(state) {
        effects.retain(|effect| *effect != Effect::OpenInput { key: key.clone() });
        effects.extend(super::step(policy, state, Event::InputOpened { key }));
    }
    effects
}

fn see(state: &mut State, job: PostedJob) -> Vec<Effect> {
    step(&policy(), state, Event::Posted { posted: Box::new(job), facts: open(), before_us: false })
}

#[test]
fn a_job_goes_from_notice_to_payment() {
    let policy = policy();
    let mut state = ready();
    let key = posted(20).key;
    let effects = see(&mut state, posted(20));
    assert!(
        matches!(&effects[..], [Effect::SubmitClaim { order, .. }] if order.seqno == 0 && order.bond == Nanoton::new(100))
    );
    let order = Event::OrderTaken { seqno: 0, client: address(7), nonce: 20 };
    assert!(step(&policy, &mut state, order).is_empty());
    let effects = step(&policy, &mut state, Event::JobRead { key: key.clone(), facts: claimed() });
    assert_eq!(effects, [Effect::OpenInput { key: key.clone() }]);
    let effects = step(&policy, &mut state, Event::InputOpened { key: key.clone() });
    assert_eq!(effects, [Effect::Infer { key: key.clone() }]);
    let receipt = SignedReceipt(vec![1]);
    let answered = Event::Answered { key: key.clone(), receipt: receipt.clone() };
    assert_eq!(
        step(&policy, &mut state, answered),
        [Effect::PostReceipt { key: key.clone(), receipt: receipt.clone() }]
    );
    let other = Event::Answered { key: key.clone(), receipt: SignedReceipt(vec![2]) };
    assert!(step(&policy, &mut state, other).is_empty(), "a second answer is not posted");
    let effects = step(&policy, &mut state, Event::Tick { now_s: START_S + 15 });
    assert_eq!(effects, [Effect::PostReceipt { key: key.clone(), receipt }], "posted again, the same");
    let settled = JobFacts { status: JobStatus::Settled, until: START_S + 9_000 };
    let effects = step(&policy, &mut state, Event::JobRead { key: key.clone(), facts: settled });
    assert_eq!(effects, [Effect::Forget { key: key.clone(), end: End::Settled }]);
    assert!(see(&mut state, posted(20)).is_empty(), "a repeated notice finds the closed job");
    step(&policy, &mut state, Event::Tick { now_s: START_S + 2_000 });
    assert!(state.jobs.is_empty());
}

#[test]
fn a_small_job_is_answered_without_a_claim_and_dropped_where_the_client_takes_it_back() {
    let policy = policy();
    let mut state = ready();
    let (key, other) = (small(20).key, small(21).key);
    assert_eq!(see(&mut state, small(20)), [Effect::OpenInput { key: key.clone() }]);
    assert_eq!(
        see(&mut state, small(21)),
        [Effect::OpenInput { key: other.clone() }],
        "none waits for another"
    );
    assert!(step(&policy, &mut state, Event::JobRead { key: key.clone(), facts: open() }).is_empty());
    step(&policy, &mut state, Event::InputOpened { key: key.clone() });
    step(&policy, &mut state, Event::InputOpened { key: other.clone() });
    let receipt = SignedReceipt(vec![1]);
    let answered = Event::Answered { key: key.clone(), receipt: receipt.clone() };
    assert_eq!(step(&policy, &mut state, answered), [Effect::PostReceipt { key: key.clone(), receipt }]);
    let cancelled = JobFacts { status: JobStatus::Cancelled, until: START_S + 9_000 };
    for key in [key, other] {
        let read = Event::JobRead { key: key.clone(), facts: cancelled.clone() };
        assert_eq!(
            step(&policy, &mut state, read),
            [Effect::Forget { key: key.clone(), end: End::Cancelled }]
        );
        let answered = Event::Answered { key: key.clone(), receipt: SignedReceipt(vec![2]) };
        assert!(step(&policy, &mut state, answered).is_empty(), "an answer too late is dropped");
        assert!(step(&policy, &mut state, Event::Tick { now_s: START_S + 30 }).is_empty());
    }
}

#[test]
fn what_cannot_be_answered_is_given_back_before_it_is_claimed() {
    let policy = policy();
    let mut state = ready();
    let key = posted(20).key;
    let seen = |byte| Event::Posted { posted: Box::new(posted(byte)), facts: open(), before_us: false };
    assert_eq!(super::step(&policy, &mut state, seen(20)), [Effect::OpenInput { key: key.clone() }]);
    assert_eq!(state.jobs[&key].phase, Phase::Weighing);
    // Another is weighed beside it, and no further one: two at once.
    let other = posted(21).key;
    assert_eq!(super::step(&policy, &mut state, seen(21)), [Effect::OpenInput { key: other.clone() }]);
    assert!(super::step(&policy, &mut state, seen(22)).is_empty());
    let reason = RejectionReason::PromptOverContext;
    let effects = super::step(&policy, &mut state, Event::Unservable { key: key.clone(), reason });
    assert_eq!(effects, [Effect::PostRejection { key: key.clone(), reason }]);
    assert_eq!(state.jobs[&key].phase.due(), Some(Due { claimed: false, by_s: START_S + 600 }));
    let effects = super::step(&policy, &mut state, Event::InputOpened { key: other.clone() });
    assert!(
        matches!(&effects[..], [Effect::SubmitClaim { key, .. }, Effect::OpenInput { .. }] if *key == other)
            || matches!(&effects[..], [Effect::SubmitClaim { key, .. }] if *key == other),
        "{effects:?}"
    );
    let rejected = JobFacts { status: JobStatus::Rejected, until: START_S + 9_000 };
    let effects = super::step(&policy, &mut state, Event::JobRead { key: key.clone(), facts: rejected });
    assert!(effects.contains(&Effect::Forget { key, end: End::Rejected }));
}

#[test]
fn what_was_weighed_before_a_restart_is_weighed_again_and_what_is_overdue_dropped() {
    let policy = policy();
    for is_weighed in [false, true] {
        let mut state = ready();
        state.worker.as_mut().unwrap().float = Nanoton::new(10_000);
        let key = posted(20).key;
        let seen = Event::Posted { posted: Box::new(posted(20)), facts: open(), before_us: false };
        super::step(&policy, &mut state, seen);
        if is_weighed {
            // Nobody to claim it just now.
            state.worker.as_mut().unwrap().float = Nanoton::new(0);
            super::step(&policy, &mut state, Event::InputOpened { key: key.clone() });
            assert_eq!(state.jobs[&key].phase, Phase::Weighed);
        }
        let mut again = State::restored(state.jobs.clone());
        assert!(super::step(&policy, &mut again, Event::Restarted).is_empty());
        assert_eq!(again.jobs[&key].phase, Phase::Waiting);
        let dropped = super::step(&policy, &mut state, Event::Tick { now_s: START_S + 601 });
        assert_eq!(dropped, [Effect::Decline { key: key.clone(), reason: Declined::TooLate }]);
        assert!(super::step(&policy, &mut state, Event::InputOpened { key }).is_empty());
        assert!(state.jobs.is_empty());
    }
}

#[test]
fn small_jobs_go_on_while_a_claim_is_under_way() {
    let mut state = ready();
    assert!(matches!(&see(&mut state, posted(20))[..], [Effect::SubmitClaim { .. }]));
    assert_eq!(see(&mut state, small(21)), [Effect::OpenInput { key: small(21).key }]);
    assert!(see(&mut state, small(22)).is_empty(), "two at once");
}

#[test]
fn only_worthwhile_jobs_are_served_and_only_those_at_stake_are_claimed() {
    let policy = policy();
    let at = |job: &PostedJob, worker: Option<&WorkerFacts>| decide(&policy, worker, job, START_S);
    let facts = worker(START_S, 0);
    let good = posted(20);
    assert_eq!(at(&good, Some(&facts)), Decision::Claim { bond: Nanoton::new(100) });
    let large = PostedJob { deposit: Amount::new(5_001), ..good.clone() };
    assert_eq!(at(&large, Some(&facts)), Decision::Claim { bond: Nanoton::new(501) });
    assert_eq!(at(&small(20), Some(&facts)), Decision::Answer);
    let dear = Prices { input: Nanoton::new(1_001), ..prices() };
    assert_eq!(at(&PostedJob { prices: dear, ..small(20) }, Some(&facts)), Decision::Answer);

    let low = Prices { output: Nanoton::new(1_999), ..prices() };
    let zero = HashBytes::ZERO;
    for (job, reason) in [
        (PostedJob { worker: address(8).address, ..good.clone() }, Declined::OtherWorker),
        (PostedJob { receipt_key: HashBytes([8; 32]), ..good.clone() }, Declined::OtherKey),
        (PostedJob { model: MODEL, ..good.clone() }, Declined::OtherModel),
        (PostedJob { model: zero, ..good.clone() }, Declined::OtherModel),
        (PostedJob { prices: low, ..good.clone() }, Declined::PriceBelowOffer),
        (PostedJob { share_bps: 601, ..good.clone() }, Declined::OtherShare),
        (PostedJob { share_bps: 599, ..good.clone() }, Declined::OtherShare),
        (PostedJob { least_bond: Amount::new(101), ..good.clone() }, Declined::BondTooHigh),
        (PostedJob { until: START_S + 20, ..good.clone() }, Declined::TooLate),
        (PostedJob { until: START_S + 60, ..small(20) }, Declined::TooLate),
        (PostedJob { settle_within_s: 59, ..good.clone() }, Declined::SettleTooShort),
        (PostedJob { deposit: Amount::new(19), ..good.clone() }, Declined::DepositTooLow),
        (PostedJob { max_units: Units::default(), ..good.clone() }, Declined::DepositTooLow),
    ] {
        assert_eq!(at(&job, Some(&facts)), Decision::Decline(reason));
    }
    let keys = facts.attestation.clone().unwrap();
    let lapsed = AttestedKeys { expires_at: START_S + 60, ..keys.clone() };
    let others = AttestedKeys { receipt_key: HashBytes([8; 32]), ..keys };
    for (facts, reason) in [
        (None, Delay::WorkerUnknown),
        (Some(WorkerFacts { paused: true, ..facts.clone() }), Delay::Paused),
        (Some(WorkerFacts { attestation: None, ..facts.clone() }), Delay::NotAttested),
        (Some(WorkerFacts { attestation: Some(lapsed), ..facts.clone() }), Delay::NotAttested),
        (Some(WorkerFacts { attestation: Some(others), ..facts.clone() }), Delay::NotAttested),
        (Some(WorkerFacts { offers: vec![], ..facts.clone() }), Delay::NotOffered),
    ] {
        assert_eq!(at(&good, facts.as_ref()), Decision::Wait(reason));
        assert_eq!(at(&small(20), facts.as_ref()), Decision::Wait(reason));
    }
    for (facts, reason) in [
        (WorkerFacts { stake: Nanoton::new(999), ..facts.clone() }, Delay::UnderStaked),
        (WorkerFacts { float: Nanoton::new(149), ..facts.clone() }, Delay::FundsTooLow),
    ] {
        assert_eq!(at(&good, Some(&facts)), Decision::Wait(reason));
        assert_eq!(at(&small(20), Some(&facts)), Decision::Answer, "no bond, no funds");
    }
}

#[test]
fn jobs_at_once_and_in_the_queue_are_bounded() {
    let policy = policy();
    let mut state = ready();
    for byte in 20..32 {
        see(&mut state, posted(byte));
    }
    assert_eq!(state.jobs.len(), 9, "one ordered, eight waiting");
    for (seqno, byte) in [(0, 20), (1, 21)] {
        let key = posted(byte).key;
        step(&policy, &mut state, Event::OrderTaken { seqno, client: address(7), nonce: u64::from(byte) });
        step(&policy, &mut state, Event::JobRead { key, facts: claimed() });
    }
    assert_eq!(state.active(), 2);
}

#[test]
fn an_order_is_renewed_only_when_the_old_one_is_dead() {
    let policy = policy();
    let mut state = ready();
    see(&mut state, posted(20));
    let valid_until_s = START_S + 60;
    step(&policy, &mut state, Event::Tick { now_s: valid_until_s + 1_0 });
    assert!(step(&policy, &mut state, Event::WorkerRead(worker(valid_until_s + 30, 0))).is_empty());
    let effects = step(&policy, &mut state, Event::WorkerRead(worker(valid_until_s + 31, 0)));
    assert!(matches!(&effects[..], [Effect::SubmitClaim { order, .. }] if order.seqno == 0));
    // The number went to an order nobody here signed for this job.
    let taken = Event::OrderTaken { seqno: 0, client: address(7), nonce: 99 };
    let effects = step(&policy, &mut state, taken);
    assert!(matches!(&effects[..], [Effect::SubmitClaim { order, .. }] if order.seqno == 1));
    let effects = step(&policy, &mut state, Event::ClaimRefused { seqno: 1 });
    assert!(matches!(&effects[..], [Effect::Forget { end: End::ClaimRefused, .. }]));
}

#[test]
fn a_lost_journal_gives_back_what_may_have_been_signed() {
    let seen = |facts: JobFacts, before_us: bool, job: PostedJob| {
        step(&policy(), &mut ready(), Event::Posted { posted: Box::new(job), facts, before_us })
    };
    for (facts, before_us) in [(claimed(), true), (claimed(), false), (open(), true)] {
        for job in [posted(20), small(20)] {
            let effects = seen(facts.clone(), before_us, job);
            let given_back = matches!(
                &effects[..],
                [Effect::PostRejection { reason: RejectionReason::EngineFailure, .. }]
            );
            assert!(given_back, "{facts:?}, {before_us}: {effects:?}");
        }
    }
    // What another key was to sign is not ours to give back.
    let others = PostedJob { receipt_key: HashBytes([8; 32]), ..small(20) };
    assert!(seen(open(), true, others.clone()).is_empty());
    assert!(seen(claimed(), false, others).is_empty());
    assert!(matches!(&seen(open(), false, small(20))[..], [Effect::OpenInput { .. }]));
}

#[test]
fn a_job_under_a_key_of_before_is_given_up_and_a_receipt_signed_with_it_posted() {
    let before = PostedJob { receipt_key: HashBytes([0x77; 32]), ..posted(20) };
    let reason = RejectionReason::EngineFailure;
    let restart = |posted: PostedJob, phase: Phase| {
        let key = posted.key.clone();
        let job = Job { posted, phase, sent_at_s: None };
        let mut state = State::restored(BTreeMap::from([(key.clone(), job)]));
        (key, step(&policy(), &mut state, Event::Restarted))
    };
    for phase in [
        Phase::Opening { due: due() },
        Phase::Inferring { due: due() },
        Phase::Rejecting { due: due(), reason },
    ] {
        let (key, effects) = restart(before.clone(), phase);
        assert_eq!(effects, [Effect::Forget { key, end: End::OtherKey }]);
    }
    let receipt = SignedReceipt(vec![1]);
    let (key, effects) = restart(before, Phase::Posting { due: due(), receipt: receipt.clone() });
    assert_eq!(effects, [Effect::PostReceipt { key, receipt }]);
    let (key, effects) = restart(posted(20), Phase::Inferring { due: due() });
    assert_eq!(effects, [Effect::OpenInput { key }]);
}

/// A chain, a pool of messages on their way, and a worker that dies.
struct World {
    rng: StdRng,
    now_s: u32,
    seqno: u32,
    jobs: BTreeMap<JobKey, (PostedJob, JobFacts)>,
    pool: Vec<Effect>,
    news: Vec<Event>,
    history: Vec<Event>,
    receipts: BTreeMap<JobKey, BTreeSet<Vec<u8>>>,
    executed: BTreeMap<JobKey, u32>,
    /// What the journal holds.
    disk: BTreeMap<JobKey, Job>,
    state: State,
    todo: Vec<Effect>,
    next_answer: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            now_s: START_S,
            seqno: 0,
            jobs: BTreeMap::new(),
            pool: Vec::new(),
            news: Vec::new(),
            history: Vec::new(),
            receipts: BTreeMap::new(),
            executed: BTreeMap::new(),
            disk: BTreeMap::new(),
            state: State::default(),
            todo: Vec::new(),
            next_answer: 0,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// The worker hears an event; its journal is written, unless it dies just then.
    fn hear(&mut self, event: Event, may_die: bool) {
        let effects = step(&policy(), &mut self.state, event);
        if may_die && self.chance(2) {
            return self.die();
        }
        for key in self.state.take_dirty() {
            match self.state.jobs.get(&key) {
                Some(job) => {
                    // As it is after a round through the journal.
                    let stored = serde_json::to_vec(job).unwrap();
                    self.disk.insert(key, serde_json::from_slice(&stored).unwrap());
                }
                None => drop(self.disk.remove(&key)),
            }
        }
        self.todo.extend(effects);
        if may_die && self.chance(2) {
            self.die();
        }
    }

    fn die(&mut self) {
        self.todo.clear();
        self.state = State::restored(self.disk.clone());
        self.hear(Event::Restarted, false);
    }

    fn run_effect(&mut self, may_die: bool) {
        if self.todo.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.todo.len());
        match self.todo.remove(index) {
            effect @ (Effect::SubmitClaim { .. }
            | Effect::PostReceipt { .. }
            | Effect::PostRejection { .. }) => {
                if let Effect::PostReceipt { key, receipt } = &effect {
                    self.receipts.entry(key.clone()).or_default().insert(receipt.0.clone());
                }
                if self.chance(80) {
                    self.pool.push(effect.clone());
                }
                if self.chance(20) {
                    self.pool.push(effect);
                }
                if may_die && self.chance(10) {
                    self.die();
                }
            }
            Effect::OpenInput { key } => {
                let event = if self.chance(90) {
                    Event::InputOpened { key }
                } else {
                    Event::Unservable { key, reason: RejectionReason::CannotDecrypt }
                };
                self.hear(event, may_die);
            }
            Effect::Infer { key } => {
                // No two runs seal to the same bytes.
                self.next_answer += 1;
                let receipt = SignedReceipt(self.next_answer.to_be_bytes().to_vec());
                self.hear(Event::Answered { key, receipt }, may_die);
            }
            Effect::Forget { .. } | Effect::Decline { .. } => {}
        }
    }

    /// The chain takes a message, or refuses it.
    fn deliver(&mut self) {
        if self.pool.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.pool.len());
        match self.pool.remove(index) {
            Effect::SubmitClaim { key, order } => {
                if order.seqno != self.seqno || order.valid_until_s < self.now_s {
                    return;
                }
                self.seqno += 1;
                *self.executed.entry(key.clone()).or_default() += 1;
                let taken = Event::OrderTaken {
                    seqno: order.seqno,
                    client: order.client.clone(),
                    nonce: order.nonce,
                };
                self.news.push(taken);
                let now_s = self.now_s;
                let (posted, facts) = self.jobs.get_mut(&key).unwrap();
                if facts.status == JobStatus::Open && now_s <= facts.until {
                    let until = now_s + posted.settle_within_s;
                    *facts = JobFacts { status: JobStatus::Claimed, until };
                } else {
                    self.news.push(Event::ClaimRefused { seqno: order.seqno });
                }
            }
            Effect::PostReceipt { key, .. } => self.end(&key, JobStatus::Settled),
            Effect::PostRejection { key, .. } => self.end(&key, JobStatus::Rejected),
            _ => {}
        }
    }

    fn end(&mut self, key: &JobKey, status: JobStatus) {
        let now_s = self.now_s;
        let (_, facts) = self.jobs.get_mut(key).unwrap();
        if matches!(facts.status, JobStatus::Open | JobStatus::Claimed) && now_s <= facts.until {
            *facts = JobFacts { status, until: now_s + 604_800 };
        }
    }

    fn read_chain(&mut self, may_die: bool) {
        let news: Vec<Event> = self.news.drain(..).collect();
        for event in news {
            self.history.push(event.clone());
            self.hear(event, false);
        }
        self.hear(Event::WorkerRead(worker(self.now_s, self.seqno)), may_die);
        let reads: Vec<Event> = self
            .jobs
            .iter()
            .map(|(key, (_, facts))| Event::JobRead { key: key.clone(), facts: facts.clone() })
            .collect();
        for event in reads {
            self.history.push(event.clone());
            self.hear(event, may_die);
        }
        self.hear(Event::Tick { now_s: self.now_s }, may_die);
    }

    fn arrive(&mut self, job: PostedJob) {
        let facts = JobFacts { until: job.until, ..open() };
        self.jobs.insert(job.key.clone(), (job.clone(), facts.clone()));
        let event = Event::Posted { posted: Box::new(job), facts, before_us: false };
        self.history.push(event.clone());
        self.hear(event, false);
    }

    fn turn(&mut self) {
        match self.rng.random_range(0..100) {
            0..8 if self.jobs.len() < 12 => {
                let byte = 20 + self.jobs.len() as u8;
                let mut job = if self.chance(50) { posted(byte) } else { small(byte) };
                job.until = self.now_s + self.rng.random_range(60..900);
                job.settle_within_s = self.rng.random_range(60..900);
                self.arrive(job);
            }
            8..10 => {
                let open: Vec<JobKey> = self
                    .jobs
                    .iter()
                    .filter(|(_, (_, facts))| facts.status == JobStatus::Open)
                    .map(|(key, _)| key.clone())
                    .collect();
                if let Some(key) = open.first() {
                    self.jobs.get_mut(key).unwrap().1.status = JobStatus::Cancelled;
                }
            }
            10..14 if !self.history.is_empty() => {
                // Something seen before is seen again, late.
                let index = self.rng.random_range(0..self.history.len());
                let event = self.history[index].clone();
                self.hear(event, true);
            }
            14..40 => self.run_effect(true),
            40..60 => self.deliver(),
            60..80 => self.read_chain(true),
            _ => self.now_s += self.rng.random_range(1..20),
        }
        self.check();
    }

    fn check(&self) {
        for (key, receipts) in &self.receipts {
            assert!(receipts.len() <= 1, "two receipts for {key}");
        }
        for (key, times) in &self.executed {
            assert!(*times <= 1, "{times} claims of {key}");
        }
        assert!(self.state.active() <= policy().max_jobs);
    }

    /// Faults end; what is claimed has to come to its end.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.read_chain(false);
            while !self.todo.is_empty() {
                self.run_effect(false);
            }
            while !self.pool.is_empty() {
                self.deliver();
            }
            self.now_s += 5;
            self.check();
        }
        for (key, (_, facts)) in &self.jobs {
            if facts.status == JobStatus::Claimed {
                assert!(self.now_s > facts.until, "claimed job {key} was left without an end");
            }
        }
    }
}

#[test]
fn no_fault_makes_a_second_claim_or_receipt() {
    let mut ended = 0;
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.turn();
        }
        world.settle();
        ended += world
            .jobs
            .values()
            .filter(|(_, facts)| matches!(facts.status, JobStatus::Settled | JobStatus::Rejected))
            .count();
    }
    assert!(ended > 1_000, "the worker did little: {ended} jobs");
}

/// As above, with no fault but crashes, and time enough: every job is answered.
#[test]
fn crashes_alone_lose_no_job() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        for byte in 20..26 {
            let mut job = if byte % 2 == 0 { posted(byte) } else { small(byte) };
            job.until = START_S + 50_000;
            job.settle_within_s = 50_000;
            world.arrive(job);
        }
        for _ in 0..300 {
            world.run_effect(true);
            world.deliver();
            world.read_chain(true);
            world.now_s += 2;
            world.check();
        }
        world.settle();
        for (key, (_, facts)) in &world.jobs {
            assert!(
                matches!(facts.status, JobStatus::Settled | JobStatus::Rejected),
                "seed {seed}: {key} is {:?}",
                facts.status
            );
        }
    }
}
