//! An attestation is renewed while a job is under way: the job is answered and paid, and so is the next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use contracts::Message;
use contracts::job::{JobStatus, PostReceipt};
use contracts::work::GenerateParams;
use engine_api::{AnswerStream, GenerateRequest, Prompt};
use worker::{Engine, EngineError, EngineInfo};

use crate::market::{ANSWER_CANARY, Echo, Market, Posted, start_worker};

/// Half of the network's longest attestation: renewal is due from then on.
const HALF_LIFE_S: u32 = 43_200;

/// Answers when it may.
#[derive(Clone, Default)]
struct Gated(Arc<Gate>);

#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    is_working: AtomicBool,
}

impl Gated {
    fn open(&self) {
        *self.0.is_open.lock().unwrap() = true;
        self.0.opened.notify_all();
    }
}

impl Engine for Gated {
    fn info(&self) -> &EngineInfo {
        Echo.info()
    }

    fn admit(&self, _: u32, _: &GenerateParams) -> Result<(), EngineError> {
        Ok(())
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        Echo.tokenize(prompt)
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        self.0.is_working.store(true, Ordering::SeqCst);
        let shut = self.0.is_open.lock().unwrap();
        drop(self.0.opened.wait_while(shut, |is_open| !*is_open).unwrap());
        Echo.generate(request)
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..1_200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

async fn is_answered(market: &Market, job: &Posted) {
    let state = market.wait_end(&job.address).await;
    assert_eq!(state.status, JobStatus::Settled);
    let transactions = market.transactions(&job.address).await;
    let receipt = transactions
        .iter()
        .find_map(|tx| PostReceipt::from_cell(&tx.in_message().unwrap()?.body).ok())
        .unwrap();
    receipt.verify(&state.posting.seller.as_ref().unwrap().receipt_key).unwrap();
    let answer = market.open_answer(job, &state, &receipt.sealed_result().unwrap());
    assert!(answer.text.contains(ANSWER_CANARY));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestation_is_renewed_under_a_job() {
    let market = Market::open_in_still_time().await;
    let dir = tempfile::tempdir().unwrap();
    let gated = Gated::default();
    let mut daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
    daemon.engine = Arc::new(gated.clone());
    daemon.config.renew_before_s = 2 * HALF_LIFE_S;
    let running = tokio::spawn(daemon.run(std::future::pending()));
    let first = market.wait_ready().await;
    let attested = first.attestation.unwrap();

    // Shortly before renewal is due, a job.
    market.skip_time(HALF_LIFE_S - 60).await;
    let before = market.worker_state().await.unwrap();
    assert_eq!(before.registration_seqno, first.registration_seqno);
    let job = market.post_of("one two three", &attested.encryption_key, true).await;
    until("the claim", async || gated.0.is_working.load(Ordering::SeqCst)).await;
    let under_way = market.worker_state().await.unwrap();
    assert_eq!(
        under_way.registration_seqno, first.registration_seqno,
        "it was renewed too early to test anything"
    );
    assert_eq!(market.job(&job.address).await.unwrap().status, JobStatus::Claimed);

    market.skip_time(120).await;
    until("the renewal", async || {
        market.worker_state().await.unwrap().registration_seqno == first.registration_seqno + 1
    })
    .await;
    let renewed = market.worker_state().await.unwrap();
    let again = renewed.attestation.unwrap();
    assert!(again.expires_at >= attested.expires_at + HALF_LIFE_S);
    assert_eq!((again.receipt_key, again.encryption_key), (attested.receipt_key, attested.encryption_key));
    assert_eq!(market.job(&job.address).await.unwrap().status, JobStatus::Claimed);

    gated.open();
    is_answered(&market, &job).await;
    let next = market.post("four five", &again.encryption_key).await;
    is_answered(&market, &next).await;
    running.abort();
    let record = market.record().await;
    assert_eq!((record.claims, record.settled, record.bonds_back), (1, 2, 0));
}
