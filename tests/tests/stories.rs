//! Lives of jobs that random parties lead on the local VM, told twice: by the job's logs alone and by its transactions
//! alone. `CHRYSALIS_SEED=n` repeats one world.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use contracts::job::{AUDIT_WINDOW_S, JobStatus, JobStorage};
use contracts::receipt::Receipt;
use contracts::wire::from_cell;
use contracts::{Amount, Cell, HashBytes, Nanoton, Prices, StdAddr, Units};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tests::market::{FEES, PRICES, TON};
use tests::{Job, Kind, Market, Terms, Worker};
use tycho_types::models::{MsgInfo, OwnedMessage, Transaction};
use verifier::{AttestorTrust, Collateral, JobHistory, QuotePolicy, Replay, Story, StoryError, Told, audit};

const WORLDS: u64 = 12;
const JOBS: usize = 24;
const STEPS: usize = 900;

struct World {
    market: Market,
    rng: StdRng,
    workers: Vec<Worker>,
    clients: Vec<StdAddr>,
    jobs: Vec<Job>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut market = Market::open();
        let workers: Vec<Worker> = (0..3).map(|at| market.worker(&format!("worker {at}"))).collect();
        for (at, worker) in workers.iter().enumerate() {
            let output = Nanoton::new(6_000_000 - 500_000 * at as u64);
            market.offer(worker, Prices { output, ..PRICES });
            market.fund_gas(worker, Nanoton::new(50 * TON));
        }
        let clients = (0..3).map(|at| format!("client {at}")).collect::<Vec<_>>();
        let clients = clients.iter().map(|name| market.chain.person(name, Nanoton::new(1_000_000 * TON)));
        let clients = clients.collect();
        market.chain.clear_history();
        let rng = StdRng::seed_from_u64(seed);
        Self { market, rng, workers, clients, jobs: Vec::new() }
    }

    fn post(&mut self) {
        let client = self.clients.choose(&mut self.rng).unwrap().clone();
        let worker = self.workers.choose(&mut self.rng).unwrap().clone();
        let terms = Terms { wait_s: 400, bid_for_s: self.rng.random_range(0..90), ..Terms::default() };
        let job = match self.rng.random_range(0..3) {
            0 => self.market.post(&client, &worker, &terms),
            1 => self.market.session(&client, &worker, &terms),
            _ => self.market.open_job(&client, &worker, &terms),
        };
        self.jobs.push(job);
    }

    /// Something that somebody does to a job; much of it is refused.
    fn step(&mut self) {
        let recent = self.jobs.len().saturating_sub(4);
        let job = self.jobs[recent..].choose(&mut self.rng).unwrap().clone();
        let market = &mut self.market;
        let rng = &mut self.rng;
        let stranger = self.clients.choose(rng).unwrap().clone();
        let held_by =
            market.job_state(&job).and_then(|state| state.posting.seller.map(|seller| seller.worker));
        let own = self.workers.iter().find(|worker| Some(worker.address.address) == held_by);
        let worker = own.unwrap_or(self.workers.choose(rng).unwrap()).clone();
        let client = if rng.random_range(0..6) == 0 { stranger.clone() } else { job.client.clone() };
        let is_session = matches!(job.kind, Kind::Session(_));
        match rng.random_range(0..15) {
            0 | 1 => {
                let bidder = self.workers.choose(rng).unwrap().clone();
                let mut order = market.order(&bidder, &job);
                order.is_bid = matches!(job.kind, Kind::Market(_));
                let _ = market.claim_with(&bidder, order);
            }
            2 | 3 => drop(market.deliver(&client, &job)),
            4 => {
                let units = Units { input: rng.random_range(0..900), cached_input: 3, output: 700 };
                let receipt = market.receipt(&job, units);
                let _ = market.settle(&worker, &job, receipt);
            }
            5 | 6 if is_session => {
                let sequence = rng.random_range(1..12);
                let amount = rng.random_range(0..2 * TON);
                let receipt = market.session_receipt(&job, sequence, amount, rng.random_range(0..5) == 0);
                let _ = market.redeem(&worker, &job, receipt, amount - amount / 9);
            }
            7 => {
                let more = rng.random_range(0..TON / 3);
                market.top_up(&client, &job, more, Nanoton::new(FEES));
            }
            8 => drop(market.close(&client, &job)),
            9 if rng.random_range(0..3) == 0 => drop(market.cancel(&client, &job)),
            10 if rng.random_range(0..4) == 0 => {
                let rejection = market.rejection(&job, rng.random_range(1..7));
                let _ = market.reject(&worker, &job, rejection);
            }
            11 => drop(market.expire(&stranger, &job)),
            12 => {
                let one = market.receipt(&job, Units { input: 1, cached_input: 0, output: 0 });
                let other = Receipt { units: Units::default(), ..one.clone() };
                let mut report = market.equivocation(&worker, one, other);
                // Then the Worker does not slash, and the mark goes away again.
                report.registration_seqno += u32::from(rng.random_range(0..2) == 0);
                market.report(&stranger, &job, &report);
            }
            13 => drop(market.sweep(&stranger, &job)),
            _ => market.chain.wait(rng.random_range(0..60)),
        }
    }

    /// The account's transactions, oldest first.
    fn transactions(&self, job: &Job) -> Vec<Cell> {
        let own = self.market.chain.log.iter().filter(|tx| tx.account == job.address);
        own.map(|tx| tx.cell.clone()).collect()
    }

    fn history(&self, job: &Job) -> JobHistory {
        let data = self.market.chain.data(&job.address);
        JobHistory {
            network: self.market.network.clone(),
            registry_code: HashBytes::ZERO,
            registry: None,
            attestor_trust: AttestorTrust { code: HashBytes::ZERO, root_der: Vec::new() },
            attestor: None,
            job: job.address.clone(),
            transactions: self.transactions(job),
            balance_nanoton: self.market.chain.balance(&job.address),
            state: data.and_then(|data| from_cell::<JobStorage>(&data).unwrap().state),
            registration: None,
            model: self.market.chain.data(&self.market.model),
            offer: None,
        }
    }
}

/// The messages to nobody, by other means than the verifier's.
fn logs_in(transactions: &[Cell]) -> Vec<Cell> {
    let mut logs = Vec::new();
    for cell in transactions {
        for message in cell.parse::<Transaction>().unwrap().out_msgs.values() {
            let message = message.unwrap();
            if matches!(message.parse::<OwnedMessage>().unwrap().info, MsgInfo::ExtOut(_)) {
                logs.push(message);
            }
        }
    }
    logs
}

/// Needs accounts beside the job's.
const OF_OTHER_ACCOUNTS: [&str; 5] =
    ["registry_code", "registry_generation", "attestor_code", "attestor_root", "registration"];

#[test]
fn every_life_that_jobs_lead_is_told_alike_by_logs_and_by_transactions() {
    let seeds = match std::env::var("CHRYSALIS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=WORLDS).collect(),
    };
    let collateral: Collateral =
        serde_json::from_str(include_str!("../../verifier/fixtures/tdx_quote_collateral.json")).unwrap();
    let (mut ends, mut happened) = (BTreeMap::new(), BTreeSet::new());
    for seed in seeds {
        let mut world = World::new(seed);
        for at in 0..STEPS {
            if at % (STEPS / JOBS) == 0 {
                world.post();
            }
            world.step();
        }
        for sweep in [false, true] {
            if sweep {
                world.market.chain.wait(31 * 86_400);
                for job in world.jobs.clone() {
                    let stranger = world.clients[0].clone();
                    if world.market.status(&job).is_some_and(|status| !status.is_closed()) {
                        world.market.expire(&stranger, &job);
                    }
                }
                world.market.chain.wait(AUDIT_WINDOW_S + 1);
                for job in world.jobs.clone() {
                    let stranger = world.clients[0].clone();
                    world.market.sweep(&stranger, &job);
                    assert_eq!(world.market.status(&job), None);
                }
            }
            for job in &world.jobs {
                let history = world.history(job);
                let logs = logs_in(&history.transactions);
                let told = Story::of_logs(&job.address, &logs)
                    .unwrap_or_else(|error| panic!("seed {seed}, {}: {error}", job.address));
                let played = Story::of_transactions(&job.address, &history.transactions).unwrap();
                assert_eq!(told, played, "seed {seed}, {}", job.address);
                let policy = QuotePolicy::production(Vec::new());
                let found = audit(&history, &collateral, &policy, u64::from(world.market.chain.now));
                let wrong =
                    found.verdict.checks.iter().filter(|check| !check.passed && check.name != "ended");
                let wrong: Vec<_> = wrong.filter(|check| !OF_OTHER_ACCOUNTS.contains(&check.name)).collect();
                assert!(wrong.is_empty(), "seed {seed}, {}: {wrong:?}", job.address);
                assert_eq!(found.story.as_ref(), Some(&told));
                let replay = Replay::of_transactions(job.address.clone(), &history.transactions).unwrap();
                let life = replay.life().unwrap().unwrap();
                assert_eq!((life.client(), life.nonce()), (&job.client, job.nonce));
                match &history.state {
                    Some(state) => assert_eq!(life.state(), state, "seed {seed}, {}", job.address),
                    None => assert!(life.is_swept()),
                }
                *ends.entry((told.kind as u8, told.status.name())).or_insert(0) += 1;
                happened.extend(life.acts().iter().map(|act| act.name()));
                happened.extend((told.claims() > 1).then_some("outbid"));
                let last = told.chapters.last().map(|chapter| &chapter.told);
                happened.extend(matches!(last, Some(Told::EquivocationShown { .. })).then_some("shown late"));
                hostile(job, &history.transactions, &logs, &told);
            }
        }
    }
    println!("{ends:#?} {happened:?}");
    for name in [
        "claimed",
        "outbid",
        "delivered",
        "close_asked",
        "topped_up",
        "redeemed",
        "settled",
        "rejected",
        "cancelled",
        "expired",
        "equivocation_shown",
        "equivocation_refused",
        "shown late",
    ] {
        assert!(happened.contains(name), "no job came to be {name}");
    }
    // Directed, session, market.
    for end in [
        (0, "settled"),
        (0, "rejected"),
        (0, "cancelled"),
        (0, "expired"),
        (1, "settled"),
        (1, "rejected"),
        (2, "settled"),
        (2, "expired"),
        (2, "cancelled"),
    ] {
        assert!(ends.contains_key(&end), "no job of kind {} was {}", end.0, end.1);
    }
}

/// Whatever is left out, doubled or put elsewhere: it tells no story, or another.
fn hostile(job: &Job, transactions: &[Cell], logs: &[Cell], told: &Story) {
    for at in 0..transactions.len() {
        let mut fewer = transactions.to_vec();
        fewer.remove(at);
        let error = Story::of_transactions(&job.address, &fewer).err();
        let is_last = fewer.len() == at;
        assert!(is_last || matches!(error, Some(StoryError::Unlinked { .. })), "{error:?}");
        let mut twice = transactions.to_vec();
        twice.insert(at, transactions[at].clone());
        let error = Story::of_transactions(&job.address, &twice).err();
        assert!(matches!(error, Some(StoryError::Unlinked { .. })), "{error:?}");
    }
    for at in 0..logs.len() {
        let mut fewer = logs.to_vec();
        fewer.remove(at);
        assert_ne!(Story::of_logs(&job.address, &fewer).ok().as_ref(), Some(told));
        let mut twice = logs.to_vec();
        twice.insert(at, logs[at].clone());
        let error = Story::of_logs(&job.address, &twice).unwrap_err();
        assert!(matches!(error, StoryError::ImpossibleLog { .. }), "{error}");
    }
    let stranger = StdAddr::new(0, HashBytes([1; 32]));
    assert!(matches!(Story::of_logs(&stranger, logs), Err(StoryError::StrangeLog { index: 0 })));
    assert!(told.paid_nanoton().is_none_or(|paid| paid <= told.deposit_nanoton));
    assert!(told.status != JobStatus::Cancelled || told.paid_nanoton() == Some(Amount::ZERO));
}
