//! Jobs through the running daemon.

use std::io;
use std::sync::{Arc, Mutex};

use contracts::errors::RejectionReason;
use contracts::job::{JobStatus, PostReceipt, PostRejection};
use contracts::sealing::DecryptionKey;
use contracts::{HashBytes, Message};
use tokio::sync::oneshot;
use tracing_subscriber::fmt::MakeWriter;

use crate::market::{ANSWER_CANARY, Market, Record, TON, start_worker};

const PROMPT_CANARY: &str = "prompt-canary-93c7";

/// Keeps what is logged.
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
async fn jobs_are_answered_or_given_back_and_no_text_is_left_anywhere() {
    let log = Log::default();
    let filter = tracing_subscriber::EnvFilter::new("worker=trace,chain=debug,info");
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).with_ansi(false);
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();

    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    let on_step: worker::OnStep = Arc::new(move |step| seen.lock().unwrap().push(format!("{step:?}")));
    let daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), Some(on_step));
    let running = tokio::spawn(daemon.run(async move { drop(stopped.await) }));

    let ready = market.wait_ready().await;
    assert!(ready.stake.get() >= 10 * TON);
    let key = ready.attestation.unwrap().encryption_key;
    let prompt = format!("say {PROMPT_CANARY} back to me");
    let good = market.post(&prompt, &key).await;
    let state = market.wait_end(&good.address).await;
    assert_eq!(state.status, JobStatus::Settled);
    let receipt = market
        .transactions(&good.address)
        .await
        .iter()
        .find_map(|tx| PostReceipt::from_cell(&tx.in_message().unwrap()?.body).ok())
        .unwrap();
    let seller = state.posting.seller.as_ref().unwrap();
    receipt.verify(&seller.receipt_key).unwrap();
    assert!(receipt.is_complete());
    assert_eq!((receipt.receipt.units.input, receipt.receipt.units.output), (5, 5));
    assert_eq!(receipt.receipt.amount.get(), 5 * 2_000 + 5 * 6_000);
    assert_eq!(state.paid, receipt.receipt.amount);
    let output = market.open_answer(&good, &state, &receipt.sealed_result().unwrap());
    assert!(output.text.contains(ANSWER_CANARY));

    let large = market.post_of(&prompt, &key, true).await;
    let state = market.wait_end(&large.address).await;
    assert_eq!((state.status, state.bond.get(), state.paid.get()), (JobStatus::Settled, 0, 40_000));

    let other_key = DecryptionKey::generate(&mut rand::rng()).public();
    let long = "word ".repeat(50);
    for (job, reason) in [
        (market.post(&prompt, &other_key).await, RejectionReason::CannotDecrypt),
        (market.post_of("", &key, true).await, RejectionReason::MalformedInput),
        (market.post(&long, &key).await, RejectionReason::PromptOverPrice),
        (market.post(&long.repeat(2), &key).await, RejectionReason::PromptOverContext),
    ] {
        let state = market.wait_end(&job.address).await;
        assert_eq!(state.status, JobStatus::Rejected);
        let found = market
            .transactions(&job.address)
            .await
            .iter()
            .find_map(|tx| PostRejection::from_cell(&tx.in_message().unwrap()?.body).ok());
        assert_eq!(found.unwrap().rejection.reason, reason.code());
    }
    assert_ne!(other_key, HashBytes::ZERO);

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    // What cannot be answered was never claimed.
    assert_eq!(market.record().await, Record { claims: 1, settled: 2, bonds_back: 0 });

    let mut places = vec![("log".to_owned(), log.0.lock().unwrap().clone())];
    places.push(("steps".to_owned(), steps.lock().unwrap().join("\n").into_bytes()));
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    assert!(places.len() >= 4 && places.iter().all(|(_, bytes)| !bytes.is_empty()));
    for (place, bytes) in places {
        for canary in [PROMPT_CANARY, ANSWER_CANARY] {
            for form in [canary.to_owned(), hex::encode(canary), format!("{:?}", canary.as_bytes())] {
                let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
                assert!(!found, "{canary} is in {place}");
            }
        }
    }
}
