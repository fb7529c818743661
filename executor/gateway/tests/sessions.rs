//! The market over loopback: honest workers, crashes of either side, and the user's money.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use contracts::job::JobStatus;
use contracts::money::Amount;
use gateway::store::{Stage, Store};
use gateway::{Market as _, SessionMarket};
use rand::{RngExt as _, SeedableRng as _};
use world::*;

const RESERVE: u64 = ACTION_FEES + MESSAGE_FEE;
/// Of opening a session, beside its deposit: fees, and what asking for its end may cost.
const OPENING: u64 = OPENING_FEES + MESSAGE_FEE + RESERVE;

struct Place {
    ledger: Arc<Ledger>,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { ledger: Ledger::new(), folder: tempfile::tempdir().unwrap() }
    }

    async fn store(&self) -> Arc<Store> {
        store_at(&self.folder.path().join("gateway.redb")).await
    }

    async fn market(&self, max_spend: u64, deposit: u64) -> SessionMarket {
        market(&self.ledger, self.store().await, spending(max_spend, deposit), limits()).await
    }

    fn session(&self) -> session::SessionFacts {
        self.ledger.books.lock().unwrap().sessions.values().next().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_streamed_paid_cumulatively_and_the_session_closed() {
    let place = Place::new();
    let worker = Worker::start(1, "answer-").await;
    place.ledger.sell(&worker, 1_000);
    let market = place.market(10_000_000, 1_000_000).await;
    for _ in 0..3 {
        let (text, done) = ask(&market, chat("four words are here", 20)).await;
        assert_eq!(text, answer("answer-", 20));
        let done = done.unwrap();
        assert_eq!((done.usage.prompt_tokens, done.usage.completion_tokens), (4, 20));
        assert_eq!(done.paid.amount.get(), 24);
    }
    assert_eq!(market.committed().unwrap().get(), 1_000_000 + OPENING);
    market.close().await;
    place.ledger.settle().await;
    let session = place.session();
    assert_eq!((session.status, session.paid), (JobStatus::Settled, Amount::new(3 * 24)));
    drop(market);
    // The next run counts what it cost, and no more.
    let market = place.market(10_000_000, 1_000_000).await;
    assert_eq!(market.committed().unwrap().get(), 3 * 24 + OPENING_FEES + MESSAGE_FEE);
    assert_eq!(place.ledger.books.lock().unwrap().openings, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_streams_at_once_share_one_session() {
    let place = Place::new();
    let worker = Worker::start(1, "answer-").await;
    place.ledger.sell(&worker, 1_000);
    let market = place.market(100_000_000, 50_000_000).await;
    let asked: Vec<_> = (0..64_u32)
        .map(|number| {
            let market = market.clone();
            tokio::spawn(async move { (number, ask(&market, chat("some words", 10 + number % 7)).await) })
        })
        .collect();
    let mut paid = 0;
    for task in asked {
        let (number, (text, done)) = task.await.unwrap();
        assert_eq!(text, answer("answer-", 10 + number % 7));
        paid += done.unwrap().paid.amount.get();
    }
    assert_eq!(worker.engine.begun.load(Ordering::SeqCst), 64);
    assert_eq!(place.ledger.books.lock().unwrap().openings, 1);
    market.close().await;
    place.ledger.settle().await;
    assert_eq!(u128::from(place.session().paid.get()), paid);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_goes_on_where_one_is_killed_and_tells_nothing_twice() {
    let place = Place::new();
    let (first, second) = (Worker::start(1, "answer-").await, Worker::start(2, "answer-").await);
    place.ledger.sell(&first, 1_000);
    place.ledger.sell(&second, 2_000);
    let market = place.market(10_000_000, 1_000_000).await;
    let asked = {
        let market = market.clone();
        tokio::spawn(async move { ask(&market, chat("slow please", 100)).await })
    };
    tokio::time::sleep(Duration::from_millis(250)).await;
    first.kill();
    let (text, done) = asked.await.unwrap();
    assert_eq!(text, answer("answer-", 100));
    assert_eq!(done.unwrap().paid.worker, worker_address(2).to_string());
    assert_eq!(
        (first.engine.begun.load(Ordering::SeqCst), second.engine.begun.load(Ordering::SeqCst)),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_answer_of_the_second_worker_is_an_error_and_no_mixture() {
    let place = Place::new();
    let (first, second) = (Worker::start(1, "answer-").await, Worker::start(2, "other-").await);
    place.ledger.sell(&first, 1_000);
    place.ledger.sell(&second, 2_000);
    let market = place.market(10_000_000, 1_000_000).await;
    let asked = {
        let market = market.clone();
        tokio::spawn(async move { ask(&market, chat("slow please", 100)).await })
    };
    tokio::time::sleep(Duration::from_millis(250)).await;
    first.kill();
    let (text, done) = asked.await.unwrap();
    assert!(!text.is_empty() && answer("answer-", 100).starts_with(&text), "{}", text.len());
    assert!(done.unwrap_err().message.contains("another answer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_that_comes_back_serves_the_same_request_once() {
    let place = Place::new();
    let worker = Worker::start(1, "answer-").await;
    place.ledger.sell(&worker, 1_000);
    let market = place.market(10_000_000, 1_000_000).await;
    let asked = {
        let market = market.clone();
        tokio::spawn(async move { ask(&market, chat("slow please", 60)).await })
    };
    tokio::time::sleep(Duration::from_millis(150)).await;
    place.ledger.gone(&worker);
    let worker = worker.restart().await;
    place.ledger.moved(&worker);
    let (text, done) = asked.await.unwrap();
    assert_eq!(text, answer("answer-", 60));
    let paid = done.unwrap().paid.amount.get();
    market.close().await;
    place.ledger.settle().await;
    assert_eq!(u128::from(place.session().paid.get()), paid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_that_runs_out_is_topped_up_and_the_budget_is_kept_to_the_nanoton() {
    let place = Place::new();
    let worker = Worker::start(1, "answer-").await;
    place.ledger.sell(&worker, 1_000_000);
    // 4 words and 100 tokens: the bound is of bytes and a template, 256 + 35 and 100.
    let (deposit, top_up) = (500_000, 500_000 + RESERVE);
    let max_spend = deposit + OPENING + top_up;
    let market = place.market(max_spend, deposit).await;
    let mut answered = 0;
    let refused = loop {
        match ask(&market, chat("four words are here", 100)).await.1 {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
        let books = place.ledger.books.lock().unwrap();
        assert!(books.out <= max_spend && market.committed().unwrap().get() <= max_spend);
    };
    assert_eq!(refused.code, Some("insufficient_quota"));
    assert_eq!(place.ledger.books.lock().unwrap().top_ups, 1);
    assert!(answered >= 5, "{answered}");
    // One nanoTON less, and there is no top-up of a whole step; what is missing will do.
    let place = Place::new();
    let worker = Worker::start(1, "answer-").await;
    place.ledger.sell(&worker, 1_000_000);
    let market = place.market(max_spend - 1, deposit).await;
    while ask(&market, chat("four words are here", 100)).await.1.is_ok() {}
    let out = place.ledger.books.lock().unwrap().out;
    assert!(out < max_spend - RESERVE, "{out}");
    assert!(market.committed().unwrap().get() < max_spend);
    // Too small for a session at all: nothing leaves.
    let place = Place::new();
    place.ledger.sell(&worker, 1_000_000);
    let market = place.market(OPENING + 100_000, deposit).await;
    assert_eq!(
        ask(&market, chat("four words are here", 100)).await.1.unwrap_err().code,
        Some("insufficient_quota")
    );
    assert_eq!(place.ledger.books.lock().unwrap().out, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_gives_its_money_back_to_the_budget_without_a_restart() {
    let place = Place::new();
    let worker = Worker::start(1, "answer-").await;
    place.ledger.sell(&worker, 1_000);
    let market = place.market(2 * (1_000_000 + OPENING) - 1, 1_000_000).await;
    ask(&market, chat("hello", 5)).await.1.unwrap();
    // The worker asks another price: another session is opened, which the budget has once the first is over.
    place.ledger.books.lock().unwrap().sellers[0].prices.output = contracts::Nanoton::new(1_500);
    market.close().await;
    place.ledger.settle().await;
    ask(&market, chat("hello", 5)).await.1.unwrap();
    assert_eq!(place.ledger.books.lock().unwrap().openings, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_worker_has_a_new_key_is_ended_on_chain_once() {
    let place = Place::new();
    let old = Worker::start(1, "answer-").await;
    place.ledger.sell(&old, 1_000);
    let market = place.market(10_000_000, 1_000_000).await;
    ask(&market, chat("hello", 5)).await.1.unwrap();
    let first = place.session().id;
    drop(market);
    place.ledger.gone(&old);
    old.kill();
    // The same Worker contract; its machine has made another key.
    {
        let mut books = place.ledger.books.lock().unwrap();
        books.sellers[0].expected.receipt_key = public(&worker_key(2));
    }
    let market = place.market(10_000_000, 1_000_000).await;
    assert_eq!(place.ledger.books.lock().unwrap().closing, vec![first.job.clone()]);
    // Started again, it does not ask twice.
    drop(market);
    place.market(10_000_000, 1_000_000).await;
    assert_eq!(place.ledger.books.lock().unwrap().closing, vec![first.job]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_reading_has_paid_for_what_was_made_and_nothing_stays_reserved() {
    let place = Place::new();
    let worker = Worker::start(1, "answer-").await;
    place.ledger.sell(&worker, 1_000);
    let market = place.market(10_000_000, 1_000_000).await;
    let mut answer = market.generate("double", chat("slow please", 1_000)).await.unwrap();
    answer.events.recv().await.unwrap();
    drop(answer);
    while worker.endpoint.open_requests() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The next voucher covers what was charged and this, and not the thousand tokens.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ask(&market, chat("hello", 5)).await.1.unwrap();
    let stored = market.sessions().await.unwrap();
    let Stage::Open(record) = &stored[0].stored.stage else { panic!("not open") };
    assert_eq!(record.open.len(), 1, "{record:?}");
    assert!(record.receipt.unwrap().units.output < 1_000);
}

/// Every way the gateway can stop between two of its steps: its runtime is ended at a random instant and its store opened
/// again.
#[test]
fn a_gateway_killed_at_random_points_of_two_hundred_sessions_loses_no_money() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let worker = runtime.block_on(Worker::start(1, "answer-"));
    for seed in 0..200_u64 {
        one_killed_session(&runtime, &worker, seed);
    }
}

fn one_killed_session(chain: &tokio::runtime::Runtime, worker: &Worker, seed: u64) {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let place =
        Place { ledger: Ledger::with(Duration::from_millis(2)), folder: tempfile::tempdir().unwrap() };
    place.ledger.sell(worker, 1_000_000);
    let (deposit, max_spend) = (800_000, 4_000_000);
    let path = place.folder.path().join("gateway.redb");
    let mut told = 0;
    for _ in 0..2 {
        let life =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (ledger, path) = (place.ledger.clone(), path.clone());
        let (sender, receiver) = std::sync::mpsc::channel();
        life.spawn(async move {
            let store = store_at(&path).await;
            let market = market(&ledger, store, spending(max_spend, deposit), limits()).await;
            loop {
                let asked = (0..3).map(|_| {
                    let market = market.clone();
                    tokio::spawn(async move { ask(&market, chat("some words", 40)).await })
                });
                for task in asked.collect::<Vec<_>>() {
                    if let Ok((text, Ok(done))) = task.await {
                        assert_eq!(text, answer("answer-", 40));
                        let _ = sender.send(done.paid.amount.get());
                    }
                }
            }
        });
        std::thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
        life.shutdown_background();
        told += receiver.try_iter().sum::<u128>();
        let books = place.ledger.books.lock().unwrap();
        assert!(books.out <= max_spend, "seed {seed}: {} left the wallet", books.out);
    }
    chain.block_on(async {
        let store = store_at(&path).await;
        let market = market(&place.ledger, store.clone(), spending(max_spend, deposit), limits()).await;
        assert!(market.committed().unwrap().get() <= max_spend, "seed {seed}");
        assert!(market.committed().unwrap().get() >= place.ledger.books.lock().unwrap().out, "seed {seed}");
        // What is under way at the worker for nobody ends.
        while worker.endpoint.open_requests() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ledgers: Vec<_> = market.sessions().await.unwrap();
        for session in &ledgers {
            if let Stage::Open(record) = &session.stored.stage {
                let facts = session.facts.as_ref().unwrap();
                assert!(record.promised <= facts.deposit, "seed {seed}");
            }
        }
        market.close().await;
        // Its workers redeem, and end what was closed; a second session with one worker is ended beside.
        let mut held = u64::MAX;
        for _ in 0..500 {
            place.ledger.settle().await;
            held = place.ledger.held();
            if held == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let books = place.ledger.books.lock().unwrap();
        assert_eq!(
            books.out,
            books.back + books.paid + books.fees + held,
            "seed {seed}: money is not conserved"
        );
        assert_eq!(held, 0, "seed {seed}: a deposit has no way back");
        // What was told is paid; what is paid beyond it is of answers that were cut off.
        assert!(u128::from(books.paid) >= told, "seed {seed}: {} paid, {told} told", books.paid);
        let begun = worker.engine.begun.swap(0, Ordering::SeqCst) as u64;
        assert!(books.paid <= begun * 42 * 1_000, "seed {seed}: a request was paid twice");
        drop(books);
        drop(market);
    });
}
