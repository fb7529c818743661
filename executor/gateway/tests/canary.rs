//! A marked prompt and a marked answer are in no log line, no file and no error.
#![allow(clippy::unwrap_used)]

mod world;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::Market as _;
use gateway::market::AnswerEvent;
use tracing_subscriber::fmt::MakeWriter;
use world::*;

const PROMPT: &str = "canaryprompt7f3a";
const ANSWER: &str = "canaryanswer9c1d-";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_and_answered_is_nowhere_but_in_the_answer() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let ledger = Ledger::new();
    let (first, second) = (Worker::start(1, ANSWER).await, Worker::start(2, "other-").await);
    ledger.sell(&first, 1_000);
    ledger.sell(&second, 2_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.redb");
    let market = market(&ledger, store_at(&path).await, spending(100_000_000, 1_000_000), limits()).await;
    let prompt = format!("slow {PROMPT}");
    // Answered; left by its reader; broken off, and answered otherwise.
    let (text, done) = ask(&market, chat(&prompt, 10)).await;
    assert!(text.contains(ANSWER));
    let mut shown = vec![format!("{:?}", done.unwrap())];
    let mut left = market.generate("double", chat(&prompt, 500)).await.unwrap();
    assert!(matches!(left.events.recv().await, Some(AnswerEvent::Piece(_))));
    drop(left);
    let asked = {
        let (market, prompt) = (market.clone(), prompt.clone());
        tokio::spawn(async move { ask(&market, chat(&prompt, 200)).await })
    };
    tokio::time::sleep(Duration::from_millis(250)).await;
    first.kill();
    let error = asked.await.unwrap().1.unwrap_err();
    shown.push(format!("{error} {error:?} {}", error.body()));
    let refused = market.embed("double", vec![prompt.clone()]).await.err().unwrap();
    shown.push(format!("{refused} {refused:?}"));
    for session in market.sessions().await.unwrap() {
        shown.push(format!("{session:?}"));
    }
    market.close().await;
    let log = log.0.lock().unwrap().clone();
    assert!(String::from_utf8_lossy(&log).contains("opening a session"), "nothing was logged");
    let mut places = vec![("log", log), ("store", std::fs::read(&path).unwrap())];
    places.push(("worker's journal", std::fs::read(first.journal()).unwrap()));
    places.push(("debug and errors", shown.concat().into_bytes()));
    for (place, bytes) in places {
        for canary in [PROMPT, ANSWER] {
            let is_there = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!is_there, "{canary} is in the {place}");
        }
    }
}
