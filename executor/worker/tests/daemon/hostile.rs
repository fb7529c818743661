//! Clients that lie, change their mind, or only make noise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chain::Transfer;
use contracts::job::{CancelJob, JobNoticed, JobStatus};
use contracts::work::GenerateParams;
use contracts::{HashBytes, Message, Nanoton};
use engine_api::{AnswerStream, GenerateRequest, Piece, Prompt, answer_channel};
use worker::machine::Effect;
use worker::{Engine, EngineError, EngineInfo, Step};

use crate::market::{Echo, Market, Posted, Record, start_worker};

async fn cancel(market: &Market, job: &Posted) {
    let body = CancelJob { query_id: 0 }.to_cell().unwrap();
    market.client.send(&[Transfer::new(job.address.clone(), 50_000_000, body)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_on_terms_that_the_worker_never_offered_and_notices_of_no_job_are_left_alone() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
    let running = tokio::spawn(daemon.run(std::future::pending()));
    let key = market.wait_ready().await.attestation.unwrap().encryption_key;

    let noise = JobNoticed { query_id: 7 }.to_cell().unwrap();
    let values_nanoton = [0, 1, 20_000_000].repeat(10);
    let noise: Vec<Transfer> = values_nanoton
        .into_iter()
        .map(|value_nanoton| Transfer::new(market.worker.clone(), value_nanoton, noise.clone()))
        .collect();
    market.client.send(&noise).await.unwrap();

    let mut lies = Vec::new();
    for large in [false, true] {
        lies.push(market.post_with("one two", &key, large, |seller| seller.share_bps += 1).await);
        lies.push(market.post_with("one two", &key, large, |seller| seller.share_bps -= 1).await);
        lies.push(
            market.post_with("one two", &key, large, |seller| seller.receipt_key = HashBytes([7; 32])).await,
        );
        lies.push(market.post_with("one two", &key, large, |seller| seller.model = HashBytes([7; 32])).await);
        lies.push(market.post_with("one two", &key, large, |seller| seller.settle_within_s = 30).await);
        let cheaper = |seller: &mut contracts::job::Seller| {
            seller.prices.output = Nanoton::new(5_999_999);
        };
        lies.push(market.post_with("one two", &key, large, cheaper).await);
    }
    let honest = [market.post_of("one two", &key, false).await, market.post_of("one two", &key, true).await];
    for job in &honest {
        assert_eq!(market.wait_end(&job.address).await.status, JobStatus::Settled);
    }
    for job in &lies {
        assert_eq!(market.job(&job.address).await.unwrap().status, JobStatus::Open);
        cancel(&market, job).await;
        assert_eq!(market.wait_end(&job.address).await.status, JobStatus::Cancelled);
    }
    running.abort();
    assert_eq!(market.record().await, Record { claims: 1, settled: 2, bonds_back: 0 });
}

const PATIENCE: usize = 3_000;

/// Says nothing for its first prompt until it is stopped, and answers the others.
#[derive(Default)]
struct Lost {
    was_asked: AtomicBool,
    was_stopped: Arc<AtomicBool>,
}

impl Engine for Lost {
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
        if self.was_asked.swap(true, Ordering::SeqCst) {
            return Echo.generate(request);
        }
        let was_stopped = self.was_stopped.clone();
        let (sink, stream) = answer_channel(move || was_stopped.store(true, Ordering::SeqCst));
        std::thread::spawn(move || {
            let nothing = || Piece { id: None, text: String::new(), logprobs: None };
            // Bounded, so that a test that fails ends.
            for _ in 0..PATIENCE {
                if !sink.piece(nothing()) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(stream)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_client_takes_the_job_back_meanwhile_is_dropped() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let begun = Arc::new(tokio::sync::Notify::new());
    let tell = begun.clone();
    let on_step: worker::OnStep = Arc::new(move |step| {
        if let Step::Begun { effect: Effect::Infer { .. } } = step {
            tell.notify_one();
        }
    });
    let mut daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), Some(on_step));
    let engine = Arc::new(Lost::default());
    daemon.engine = engine.clone();
    let running = tokio::spawn(daemon.run(std::future::pending()));
    let key = market.wait_ready().await.attestation.unwrap().encryption_key;
    let job = market.post("one two three", &key).await;
    begun.notified().await;
    cancel(&market, &job).await;
    assert_eq!(market.wait_end(&job.address).await.status, JobStatus::Cancelled);
    let next = market.post("four five", &key).await;
    assert_eq!(market.wait_end(&next.address).await.status, JobStatus::Settled);
    assert!(engine.was_stopped.load(Ordering::SeqCst));
    running.abort();
    assert_eq!(market.record().await, Record { claims: 0, settled: 1, bonds_back: 0 });
}

/// Has memory for nothing.
struct Full;

impl Engine for Full {
    fn info(&self) -> &EngineInfo {
        Echo.info()
    }

    fn admit(&self, _: u32, _: &GenerateParams) -> Result<(), EngineError> {
        Err(EngineError::TooLarge { needed_bytes: 2, budget_bytes: 1 })
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        Echo.tokenize(prompt)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_larger_than_memory_is_given_back_before_it_is_claimed() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
    daemon.engine = Arc::new(Full);
    let running = tokio::spawn(daemon.run(std::future::pending()));
    let key = market.wait_ready().await.attestation.unwrap().encryption_key;
    for large in [true, false] {
        let job = market.post_of("one two three", &key, large).await;
        assert_eq!(market.wait_end(&job.address).await.status, JobStatus::Rejected);
    }
    running.abort();
    assert_eq!(market.record().await, Record { claims: 0, settled: 0, bonds_back: 0 });
}
