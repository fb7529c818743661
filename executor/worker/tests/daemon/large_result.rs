//! An answer that takes more bytes than the job's reserve foresaw is cut to what the job can pay for, and paid.

use std::sync::Arc;

use contracts::Message;
use contracts::job::{JobStatus, PostReceipt};
use contracts::work::GenerateParams;
use engine_api::{AnswerStream, FinishReason, GenerateRequest, Prompt};
use worker::{Engine, EngineError, EngineInfo};

use crate::market::{Echo, Market, answered, start_worker};

/// Answers as long as it may, with far more bytes a token than the contract counts.
struct Verbose;

const BYTES_PER_TOKEN: usize = 200;

impl Engine for Verbose {
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
        let most = request.params.max_output_tokens as usize;
        Ok(answered("x".repeat(BYTES_PER_TOKEN * most), vec![9; most], FinishReason::Length))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_larger_than_the_reserve_is_cut_and_paid() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
    daemon.engine = Arc::new(Verbose);
    let running = tokio::spawn(daemon.run(std::future::pending()));
    let key = market.wait_ready().await.attestation.unwrap().encryption_key;
    let job = market.post("one two three", &key).await;
    let state = market.wait_end(&job.address).await;
    running.abort();
    assert_eq!(state.status, JobStatus::Settled);
    let transactions = market.transactions(&job.address).await;
    let receipt = transactions
        .iter()
        .find_map(|tx| PostReceipt::from_cell(&tx.in_message().unwrap()?.body).ok())
        .unwrap();
    let answer = market.open_answer(&job, &state, &receipt.sealed_result().unwrap());
    let tokens = answer.output_tokens.len();
    assert!((1..30).contains(&tokens), "{tokens} tokens");
    assert_eq!(answer.text.len(), tokens * BYTES_PER_TOKEN);
    assert_eq!(receipt.receipt.units.output as usize, tokens);
}
