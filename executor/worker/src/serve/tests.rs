#![allow(clippy::unwrap_used)]

use contracts::receipt::Dtype;
use contracts::sealing::{ChatMessage, DecryptionKey, FinishReason, open_result, seal_input};
use contracts::{Nanoton, Prices, StdAddr};

use super::*;
use crate::engine::{EngineError, Generated};
use crate::machine::JobKey;

const MODEL: HashBytes = HashBytes([1; 32]);
const MODEL_ACCOUNT: HashBytes = HashBytes([11; 32]);

/// A token a word; answers with as many tokens as it may.
struct Words;

impl Engine for Words {
    fn info(&self) -> EngineInfo {
        EngineInfo { model_id: MODEL, engine: 3, dtype: Dtype::Q4_1, context_tokens: 100 }
    }

    fn tokenize(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, EngineError> {
        Ok(messages.iter().flat_map(|message| message.content.split_whitespace()).map(|_| 7).collect())
    }

    fn generate(
        &self,
        _: &[u32],
        max_output_tokens: u32,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        if !on_text("words") {
            return Err(EngineError::Cancelled);
        }
        let output_ids = vec![9; max_output_tokens as usize];
        Ok(Generated { text: "words".into(), output_ids, finish_reason: FinishReason::Length })
    }
}

fn prices() -> Prices {
    Prices { input: Nanoton::new(1_000), cached_input: Nanoton::ZERO, output: Nanoton::new(3_000) }
}

fn posted() -> PostedJob {
    PostedJob {
        key: JobKey { job: StdAddr::new(0, HashBytes([5; 32])), posted_lt: 77 },
        client: StdAddr::new(0, HashBytes([6; 32])),
        nonce: 1,
        until: 1_000,
        deposit: Amount::new(64),
        max_units: Units { input: 50, cached_input: 0, output: 20 },
        least_bond: Amount::new(1),
        worker: HashBytes([7; 32]),
        receipt_key: HashBytes::ZERO,
        model: MODEL_ACCOUNT,
        settle_within_s: 600,
        share_bps: 600,
        prices: prices(),
    }
}

fn signer(keys: &Keys) -> Signer<'_> {
    Signer { keys, network_id: -3, model: MODEL_ACCOUNT }
}

fn sealed(keys: &Keys, messages: Vec<ChatMessage>, asked: u32, reply: &DecryptionKey) -> Vec<u8> {
    let context =
        InputContext { network_id: -3, job: posted().key.job, model_id: MODEL, until: posted().until };
    let input = Input::new(reply.public(), messages, asked);
    let sealed = seal_input(&input, &keys.encryption_public(), &context, &mut rand::rng()).unwrap();
    Boc::encode(to_cell(&sealed).unwrap())
}

fn say(words: usize) -> Vec<ChatMessage> {
    vec![ChatMessage::new("user", "word ".repeat(words))]
}

#[test]
fn a_receipt_says_what_was_served_and_the_client_can_read_the_answer() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let signer = signer(&keys);
    let posted = posted();
    let input = sealed(&keys, say(4), 90, &reply);
    let opened = open(signer, &Words, &posted, &input, None).unwrap();
    assert_eq!((opened.prompt_tokens(), opened.max_output_tokens), (4, 20), "as the terms allow");
    let body = answer(signer, &Words, &posted, &opened, &mut |_| true, &mut rand::rng()).unwrap();
    let post = PostReceipt::from_cell(&Boc::decode(&body.0).unwrap()).unwrap();
    post.verify(&keys.receipt_public()).unwrap();
    let receipt = &post.receipt;
    assert!(post.is_complete());
    assert_eq!((receipt.posted_lt, receipt.sequence, receipt.is_final), (77, 1, true));
    assert_eq!(receipt.units, Units { input: 4, cached_input: 0, output: 20 });
    assert_eq!(receipt.amount, Amount::new(64));
    assert_eq!((post.content.engine, post.content.dtype), (3, Dtype::Q4_1 as u8));
    let context = ResultContext { network_id: -3, job: posted.key.job.clone(), posted_lt: 77 };
    let output = open_result(&post.sealed_result().unwrap(), &reply, &context).unwrap();
    assert_eq!(output.text, "words");
    let expected =
        transcript(&output.salt, &MODEL, 3, Dtype::Q4_1, &output.input_tokens, &output.output_tokens);
    assert_eq!(post.content.transcript, expected);
    let stopped = answer(signer, &Words, &posted, &opened, &mut |_| false, &mut rand::rng());
    assert_eq!(stopped.err(), Some(RejectionReason::EngineFailure));
}

#[test]
fn an_answer_is_cut_to_what_is_paid_and_fits() {
    let limit = |posted: &PostedJob, input, asked, context| output_limit(posted, input, asked, context);
    let job = posted();
    assert_eq!(limit(&job, 4, 5, 100), Ok(5), "as asked");
    assert_eq!(limit(&job, 4, 90, 100), Ok(20), "as the terms allow");
    assert_eq!(limit(&job, 4, 90, 10), Ok(6), "as the context allows");
    let poor = PostedJob { deposit: Amount::new(25), ..job.clone() };
    assert_eq!(limit(&poor, 4, 90, 100), Ok(7), "as the deposit pays: 4 + 3 * 7 = 25");
    assert_eq!(limit(&poor, 23, 90, 100), Err(RejectionReason::PromptOverPrice));
    assert_eq!(limit(&poor, 22, 90, 100), Ok(1));
    assert_eq!(limit(&job, 51, 90, 100), Err(RejectionReason::PromptOverPrice));
    assert_eq!(limit(&job, 100, 90, 100), Err(RejectionReason::PromptOverContext));
    assert_eq!(limit(&job, 0, 90, 100), Err(RejectionReason::MalformedInput));
    let rich = PostedJob {
        deposit: Amount::new(u64::MAX),
        max_units: Units { input: u32::MAX, cached_input: 0, output: u32::MAX },
        ..job
    };
    let most = limit(&rich, 10, u32::MAX, u32::MAX).unwrap();
    assert!((2_000..4_000).contains(&most), "a result has to fit a message: {most}");
    assert_eq!(limit(&rich, 10_000, 1, u32::MAX), Err(RejectionReason::PromptOverContext));
}

#[test]
fn what_cannot_be_served_is_refused_by_its_reason() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let other = Keys::generate(&mut rand::rng());
    let signer = signer(&keys);
    let refusal = |posted: &PostedJob, input: &[u8]| open(signer, &Words, posted, input, None).err();
    let good = sealed(&keys, say(4), 5, &reply);
    assert_eq!(refusal(&posted(), &good), None);
    let moved = PostedJob { until: 1_001, ..posted() };
    assert_eq!(refusal(&moved, &good), Some(RejectionReason::CannotDecrypt));
    assert_eq!(refusal(&posted(), &sealed(&other, say(4), 5, &reply)), Some(RejectionReason::CannotDecrypt));
    assert_eq!(refusal(&posted(), b"no cells"), Some(RejectionReason::CannotDecrypt));
    let elsewhere = PostedJob { model: HashBytes([2; 32]), ..posted() };
    assert_eq!(refusal(&elsewhere, &good), Some(RejectionReason::ModelNotServed));
    for (messages, asked) in
        [(vec![], 5), (say(4), 0), (vec![ChatMessage::new("tool", "word")], 5), (say(0), 5)]
    {
        let input = sealed(&keys, messages, asked, &reply);
        assert_eq!(refusal(&posted(), &input), Some(RejectionReason::MalformedInput));
    }
    let limited = open(signer, &Words, &posted(), &good, Some(4)).err();
    assert_eq!(limited, Some(RejectionReason::PromptOverContext));
}

#[test]
fn a_rejection_is_the_same_bytes_each_time() {
    let keys = Keys::generate(&mut rand::rng());
    let signer = signer(&keys);
    let first = rejection(signer, &posted(), RejectionReason::EngineFailure).unwrap();
    assert_eq!(first, rejection(signer, &posted(), RejectionReason::EngineFailure).unwrap());
    PostRejection::from_cell(&first).unwrap().verify(&keys.receipt_public()).unwrap();
}

/// Answers with tokens of many bytes each, as white space and control characters are in JSON.
struct Verbose {
    bytes_per_token: usize,
}

impl Engine for Verbose {
    fn info(&self) -> EngineInfo {
        EngineInfo { context_tokens: 10_000, ..Words.info() }
    }

    fn tokenize(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, EngineError> {
        Words.tokenize(messages)
    }

    fn generate(
        &self,
        _: &[u32],
        max_output_tokens: u32,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        let text = "x".repeat(self.bytes_per_token * max_output_tokens as usize);
        on_text(&text);
        let output_ids = vec![4_000_000_000; max_output_tokens as usize];
        Ok(Generated { text, output_ids, finish_reason: FinishReason::Length })
    }
}

#[test]
fn a_result_never_exceeds_what_the_job_pays_the_import_of() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let signer = signer(&keys);
    let units = Units { input: 50, cached_input: 0, output: 2_000 };
    let posted = PostedJob { max_units: units, deposit: Amount::new(100_000), ..posted() };
    let reserved = reserved_bytes(&units);
    let input = sealed(&keys, say(4), 2_000, &reply);
    for bytes_per_token in [1, 16, 60, 4_000] {
        let engine = Verbose { bytes_per_token };
        let opened = open(signer, &engine, &posted, &input, None).unwrap();
        let mut shown = 0;
        let mut show = |piece: &str| {
            shown += usize::from(!piece.is_empty());
            true
        };
        let body = answer(signer, &engine, &posted, &opened, &mut show, &mut rand::rng()).unwrap();
        assert_eq!(shown, 1, "what is made again is not shown again");
        let post = PostReceipt::from_cell(&Boc::decode(&body.0).unwrap()).unwrap();
        let size = post.sealed_result().unwrap().as_bytes().len();
        assert!(size <= reserved, "{size} bytes, {reserved} are paid for");
        let tokens = post.receipt.units.output as usize;
        let per_token = 11 + bytes_per_token;
        assert!(
            (tokens + tokens / 4 + 1) * per_token + 1_000 > reserved.min(2_000 * per_token),
            "{tokens} tokens"
        );
        assert_eq!(post.receipt.amount.nanoton(), prices().cost(&post.receipt.units));
    }
    let engine = Verbose { bytes_per_token: 70_000 };
    let opened = open(signer, &engine, &posted, &input, None).unwrap();
    let nothing = answer(signer, &engine, &posted, &opened, &mut |_| true, &mut rand::rng());
    assert_eq!(nothing.err(), Some(RejectionReason::PromptOverPrice));
}
