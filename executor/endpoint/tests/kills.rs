//! The worker is killed at every write of its ledger, before it and after it, under requests side by side. And a marked
//! prompt is looked for wherever it must not be.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use common::*;
use contracts::Units;
use contracts::money::Amount;
use endpoint::{RedbStore, StoreError};
use http_body_util::BodyExt;
use hyper::StatusCode;
use session::message::{Frame, SessionReport};
use session::{
    BuyerLedger, Counted, Entry, Reason, RequestId, SessionId, SessionJournal, SessionReceipt, UnitBound,
};

/// Dies at a write: before it is done, or after.
struct Mortal {
    store: RedbStore,
    left: AtomicI64,
    after: bool,
}

impl SessionJournal for Mortal {
    type Error = StoreError;

    fn commit(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let dead = || StoreError::Io { place: "(killed)".into(), detail: "killed".into() };
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left < 1 || (left == 1 && !self.after) {
            return Err(dead());
        }
        self.store.commit(entries)?;
        if left == 1 { Err(dead()) } else { Ok(()) }
    }

    fn forget(&self, session: &SessionId) -> Result<(), StoreError> {
        self.store.forget(session)
    }
}

const REQUESTS: u8 = 6;
const BOUND: UnitBound = UnitBound { input: 20, output: 20 };

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_it_charges_each_request_once_and_signs_no_sequence_twice() {
    for after in [false, true] {
        for kill_at in 1..=i64::from(REQUESTS) + 1 {
            let directory = Arc::new(tempfile::tempdir().unwrap());
            let mut signed = BTreeMap::new();
            let mut buyer = BuyerLedger::new(facts(&session_key(), 1_000_000), Amount::new(1_000_000));
            let mut vouchers = BTreeMap::new();
            for number in 1..=REQUESTS {
                vouchers.insert(request(number), buyer.promise(request(number), BOUND).unwrap());
            }
            let mut answered: BTreeMap<RequestId, u32> = BTreeMap::new();
            // The first life ends at a write, the second never.
            for left in [kill_at, i64::MAX] {
                let setup = Setup { directory: directory.clone(), ..Setup::default() };
                let (store, stored) = store_at(&setup.file());
                let known = !stored.is_empty();
                let mortal = Mortal { store, left: AtomicI64::new(left), after };
                let worker = setup.run_on(Arc::new(mortal), stored, 10).await;
                let facts = facts(&session_key(), 1_000_000);
                let opened = worker.endpoint.observe(&offered(&facts), facts.clone()).await;
                let client = worker.client(&session_key(), facts);
                if opened.is_ok() {
                    if known {
                        let report = report(&client).await;
                        note(&mut signed, report.receipt);
                        buyer.report(&report, &vouchers.keys().copied().collect()).unwrap();
                    }
                    let open: Vec<_> =
                        vouchers.keys().copied().filter(|request| !answered.contains_key(request)).collect();
                    let mut asked = Vec::new();
                    for request in open {
                        let mut ask = client.ask(request, vouchers[&request].get(), chat("some words", 10));
                        ask.bound = BOUND;
                        ask.seen_sequence = buyer.seen_sequence();
                        let mut wire = client.connect().await;
                        asked.push(tokio::spawn(async move { (request, wire.ask(&ask).await) }));
                    }
                    for asked in asked {
                        let (request, (_, frames)) = asked.await.unwrap();
                        match frames.last().unwrap() {
                            Frame::Done(done) => {
                                note(&mut signed, Some(done.receipt));
                                let counted = Counted { input: Some(2), output: 10 };
                                buyer.done(done, &counted).unwrap();
                                assert_eq!(tokens_of(&frames).len(), 10, "every answer is whole");
                                *answered.entry(request).or_default() += 1;
                            }
                            Frame::Refused(refused) => {
                                assert_eq!(refused.reason, Reason::JournalFailed, "{left} {after}");
                                buyer.refused(request, refused);
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
                if left == i64::MAX {
                    let report = report(&client).await;
                    note(&mut signed, report.receipt);
                    buyer.report(&report, &Default::default()).unwrap();
                    assert_eq!(report.answered.len(), usize::from(REQUESTS));
                    let receipt = report.receipt.unwrap();
                    assert_eq!(receipt.sequence, u32::from(REQUESTS));
                    assert_eq!(receipt.units, Units { input: 6, cached_input: 6, output: 60 });
                }
                worker.end().await;
            }
            assert_eq!(
                answered.len(),
                usize::from(REQUESTS),
                "every request is answered, killed at {kill_at}"
            );
            assert_eq!(buyer.units(), Units { input: 6, cached_input: 6, output: 60 });
            assert_eq!(buyer.open_requests().count(), 0);
            assert_eq!(buyer.fault(), None);
        }
    }
}

fn note(signed: &mut BTreeMap<u32, SessionReceipt>, receipt: Option<SessionReceipt>) {
    if let Some(receipt) = receipt {
        let before = signed.insert(receipt.sequence, receipt);
        assert!(before.is_none_or(|before| before == receipt), "two of sequence {}", receipt.sequence);
    }
}

async fn report(client: &Client) -> SessionReport {
    let response = client.connect().await.get(&client.session_path()).await;
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// Everything that any part of the process logs.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marked_prompt_and_its_answer_are_in_no_log_and_no_file() {
    const MARK: &str = "zq-canary-7f3a";
    let logged = Logged::default();
    let writer = logged.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .init();
    tracing::trace!("the log is on");
    let worker = Running::new().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut wire = client.connect().await;
    let text = format!("{MARK} and slow words");
    let (_, answer) = wire.ask(&client.ask(request(1), 10_000, chat(&text, 12))).await;
    assert_eq!(tokens_of(&answer).len(), 12);
    for (number, text) in [(2, "fails"), (3, "vanishes"), (4, "panics")] {
        let text = format!("{MARK} {text}");
        let (_, answer) = wire.ask(&client.ask(request(number), 10_000, chat(&text, 12))).await;
        assert_eq!(refusal_of(&answer), Reason::EngineFailed);
        wire = client.connect().await;
    }
    // A body that is no request, with a text in it that a parser's error might quote.
    let body = serde_json::to_vec(&client.ask(request(5), 10_000, chat(MARK, 12))).unwrap();
    let body = String::from_utf8(body).unwrap().replace("\"user\"", &format!("[\"{MARK}\"]"));
    let broken = wire.send(hyper::Method::POST, "/v1/requests", body.into_bytes()).await.unwrap();
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    let said = broken.into_body().collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&said).contains(MARK));
    let directory = worker.end().await;
    let (store, stored) = store_at(&directory.path().join("sessions.redb"));
    assert_eq!(stored[0].1.len(), 1, "one request was charged");
    drop(store);
    let log = String::from_utf8_lossy(&logged.0.lock().unwrap()).into_owned();
    assert!(log.contains("the log is on"));
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!contains(&bytes, MARK.as_bytes()) && !contains(&bytes, b"answer-1"));
    }
    assert!(!log.contains(MARK), "the prompt is in the log");
    assert!(!log.contains("answer-1"), "the answer is in the log");
    assert!(!log.contains(&hex::encode(MARK)));
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
