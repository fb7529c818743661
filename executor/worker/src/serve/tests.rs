#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use contracts::receipt::Dtype;
use contracts::sealing::{ChatMessage, DecryptionKey, Input, open_result, seal_input};
use contracts::{Nanoton, Prices, StdAddr};

use engine_api::{AnswerStream, Embedded, Piece, Segment, answer_channel};

use super::*;
use crate::machine::JobKey;

const MODEL: HashBytes = HashBytes([1; 32]);
const MODEL_ACCOUNT: HashBytes = HashBytes([11; 32]);

/// A token a word; answers with as many tokens as it may.
struct Words;

fn info(context_tokens: u32, work: Work) -> EngineInfo {
    EngineInfo {
        model_id: MODEL,
        name: "words".into(),
        engine: 3,
        dtype: Dtype::Q4_1,
        work,
        context_tokens,
        vocabulary: 100,
    }
}

fn answered(text: String, output_ids: Vec<u32>, cached_prompt_tokens: u32) -> AnswerStream {
    let (sink, stream) = answer_channel(|| {});
    sink.piece(Piece { id: Some(1), text: text.clone(), logprobs: None });
    let usage = Usage { cached_prompt_tokens, ..Usage::default() };
    let finish_reason = engine_api::FinishReason::Length;
    sink.end(Ok(Generated { text, output_ids, logprobs: Vec::new(), finish_reason, usage }));
    stream
}

impl Engine for Words {
    fn info(&self) -> &EngineInfo {
        static INFO: LazyLock<EngineInfo> = LazyLock::new(|| info(100, Work::Text));
        &INFO
    }

    fn admit(&self, prompt_tokens: u32, params: &GenerateParams) -> Result<(), EngineError> {
        if params.sampling.temperature < 0.0 {
            return Err(EngineError::Parameter("temperature"));
        }
        match prompt_tokens {
            90.. => Err(EngineError::TooLarge { needed_bytes: 2, budget_bytes: 1 }),
            _ => Ok(()),
        }
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let Prompt::Chat { messages, .. } = prompt else { return Ok(vec![8; 3]) };
        Ok(messages.iter().flat_map(|message| message.content.split_whitespace()).map(|_| 7).collect())
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        assert_eq!(request.client, ClientKey([6; 32]), "prompts are found by the same wallet's jobs alone");
        Ok(answered("words".into(), vec![9; request.params.max_output_tokens as usize], 3))
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
    seal_work(keys, Request::chat(messages, GenerateParams::greedy(asked)), reply)
}

fn seal_work(keys: &Keys, work: Request, reply: &DecryptionKey) -> Vec<u8> {
    let context =
        InputContext { network_id: -3, job: posted().key.job, model_id: MODEL, until: posted().until };
    let input = Input::new(reply.public(), work);
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
    assert_eq!(opened.input_units(), 4);
    let body = answer(signer, &Words, &posted, &opened, None, &mut |_| true, &mut rand::rng()).unwrap();
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
    assert_eq!(output.output_tokens.len(), 20, "as the terms allow");
    assert!(output.answers(&Request::chat(say(4), GenerateParams::greedy(90))));
    assert_eq!(post.content.transcript, output.transcript(&MODEL, 3, Dtype::Q4_1));
    let stopped = answer(signer, &Words, &posted, &opened, None, &mut |_| false, &mut rand::rng());
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
        [(vec![], 5), (say(4), 0), (vec![ChatMessage::new("stranger", "word")], 5), (say(0), 5)]
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
    fn info(&self) -> &EngineInfo {
        static INFO: LazyLock<EngineInfo> = LazyLock::new(|| info(10_000, Work::Text));
        &INFO
    }

    fn admit(&self, _: u32, _: &GenerateParams) -> Result<(), EngineError> {
        Ok(())
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        Words.tokenize(prompt)
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        let most = request.params.max_output_tokens as usize;
        Ok(answered("x".repeat(self.bytes_per_token * most), vec![4_000_000_000; most], 0))
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
        let body = answer(signer, &engine, &posted, &opened, None, &mut show, &mut rand::rng()).unwrap();
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
    let nothing = answer(signer, &engine, &posted, &opened, None, &mut |_| true, &mut rand::rng());
    assert_eq!(nothing.err(), Some(RejectionReason::PromptOverPrice));
}

#[test]
fn what_cannot_fit_or_be_sampled_is_refused_before_anything_is_promised() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let units = Units { input: 100, cached_input: 0, output: 20 };
    let posted = PostedJob { max_units: units, deposit: Amount::new(1_000), ..posted() };
    let refusal = |work: Request| {
        let input = seal_work(&keys, work, &reply);
        open(signer(&keys), &Words, &posted, &input, None).err()
    };
    assert_eq!(refusal(Request::chat(say(89), GenerateParams::greedy(5))), None);
    let large = Request::chat(say(90), GenerateParams::greedy(5));
    assert_eq!(refusal(large), Some(RejectionReason::PromptOverContext));
    let mut params = GenerateParams::greedy(5);
    params.sampling.temperature = -1.0;
    assert_eq!(refusal(Request::chat(say(4), params)), Some(RejectionReason::MalformedInput));
    let completion =
        |prompt: &str| Request::Completion { prompt: prompt.into(), params: GenerateParams::greedy(5) };
    assert_eq!(refusal(completion("a text")), None);
    assert_eq!(refusal(completion("")), Some(RejectionReason::MalformedInput));
    let texts = vec!["a".to_owned()];
    assert_eq!(refusal(Request::Embeddings { texts }), Some(RejectionReason::ModelNotServed));
    let audio =
        |audio: &str| Request::Transcription { audio: audio.into(), language: None, translate: false };
    assert_eq!(refusal(audio("AAAA")), Some(RejectionReason::ModelNotServed));
    assert_eq!(refusal(audio("no base64")), Some(RejectionReason::MalformedInput));
}

#[test]
fn what_was_computed_before_is_billed_as_such_where_the_terms_know_it() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let billed = |cached_units: u32, cached_price: u64| {
        let mut posted = posted();
        posted.max_units.cached_input = cached_units;
        posted.prices.cached_input = Nanoton::new(cached_price);
        let input = sealed(&keys, say(4), 5, &reply);
        let opened = open(signer(&keys), &Words, &posted, &input, None).unwrap();
        let rng = &mut rand::rng();
        let body = answer(signer(&keys), &Words, &posted, &opened, None, &mut |_| true, rng).unwrap();
        let post = PostReceipt::from_cell(&Boc::decode(&body.0).unwrap()).unwrap();
        assert_eq!(post.receipt.amount.nanoton(), posted.prices.cost(&post.receipt.units));
        (post.receipt.units.input, post.receipt.units.cached_input)
    };
    // The engine found 3 of 4 tokens.
    assert_eq!(billed(50, 500), (1, 3));
    assert_eq!(billed(2, 500), (2, 2));
    assert_eq!(billed(0, 500), (4, 0));
    assert_eq!(billed(50, 1_001), (4, 0), "never more than without");
}

/// Busy for its first calls.
struct Crowded {
    calls: std::sync::atomic::AtomicU32,
}

impl Engine for Crowded {
    fn info(&self) -> &EngineInfo {
        Words.info()
    }

    fn admit(&self, _: u32, _: &GenerateParams) -> Result<(), EngineError> {
        Ok(())
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        Words.tokenize(prompt)
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        match self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0..2 => Err(EngineError::Busy),
            _ => Words.generate(request),
        }
    }
}

#[test]
fn a_busy_engine_is_asked_again_while_there_is_time() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let input = sealed(&keys, say(4), 5, &reply);
    let crowded = || Crowded { calls: 0.into() };
    let opened = open(signer(&keys), &crowded(), &posted(), &input, None).unwrap();
    let ask = |deadline, goes_on: bool| {
        let rng = &mut rand::rng();
        answer(signer(&keys), &crowded(), &posted(), &opened, deadline, &mut |_| goes_on, rng).err()
    };
    assert_eq!(ask(None, true), None);
    assert_eq!(ask(None, false), Some(RejectionReason::EngineFailure));
    assert_eq!(ask(Some(Instant::now()), true), Some(RejectionReason::EngineFailure));
}

/// Each text is a token a word; its vector is its count, twice.
struct Counts;

impl Engine for Counts {
    fn info(&self) -> &EngineInfo {
        static INFO: LazyLock<EngineInfo> = LazyLock::new(|| info(100, Work::Embeddings { dimensions: 2 }));
        &INFO
    }

    fn tokenize_texts(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EngineError> {
        Ok(texts.iter().map(|text| text.split_whitespace().map(|_| 7).collect()).collect())
    }

    fn embed(&self, request: &EmbedRequest) -> Result<Embedded, EngineError> {
        let vectors = request.ids.iter().map(|ids| vec![ids.len() as f32; 2]).collect();
        let input_tokens = request.ids.iter().map(Vec::len).sum::<usize>() as u32;
        Ok(Embedded { vectors, input_tokens })
    }
}

#[test]
fn embeddings_are_sold_by_the_token() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let signer = signer(&keys);
    let posted = posted();
    let work = Request::Embeddings { texts: vec!["one two".into(), "three".into()] };
    let opened = open(signer, &Counts, &posted, &seal_work(&keys, work.clone(), &reply), None).unwrap();
    let body = answer(signer, &Counts, &posted, &opened, None, &mut |_| true, &mut rand::rng()).unwrap();
    let post = PostReceipt::from_cell(&Boc::decode(&body.0).unwrap()).unwrap();
    assert_eq!(post.receipt.units, Units { input: 3, cached_input: 0, output: 0 });
    assert_eq!(post.receipt.amount, Amount::new(3));
    let context = ResultContext { network_id: -3, job: posted.key.job.clone(), posted_lt: 77 };
    let output = open_result(&post.sealed_result().unwrap(), &reply, &context).unwrap();
    assert_eq!(output.vectors().unwrap(), [[2.0, 2.0], [1.0, 1.0]]);
    assert!(output.answers(&work));
    assert_eq!(post.content.transcript, output.transcript(&MODEL, 3, Dtype::Q4_1));

    let refusal = |posted: &PostedJob, texts: Vec<String>| {
        let input = seal_work(&keys, Request::Embeddings { texts }, &reply);
        open(signer, &Counts, posted, &input, None).err()
    };
    assert_eq!(refusal(&posted, vec![]), Some(RejectionReason::MalformedInput));
    let long = vec!["word ".repeat(51)];
    assert_eq!(refusal(&posted, long), Some(RejectionReason::PromptOverPrice), "more than the terms allow");
    let poor = PostedJob { deposit: Amount::new(2), ..posted.clone() };
    assert_eq!(refusal(&poor, vec!["one two three".into()]), Some(RejectionReason::PromptOverPrice));
    let many = vec!["word".to_owned(); 50];
    assert_eq!(
        refusal(&posted, many),
        Some(RejectionReason::PromptOverPrice),
        "the result's import is not paid for"
    );
}

/// Hears as many seconds as there are bytes.
struct Ears;

impl Engine for Ears {
    fn info(&self) -> &EngineInfo {
        static INFO: LazyLock<EngineInfo> =
            LazyLock::new(|| info(0, Work::Transcription { max_audio_s: 100 }));
        &INFO
    }

    fn audio_seconds(&self, audio: &[u8]) -> Result<u32, EngineError> {
        if audio == b"noise" { Err(EngineError::Malformed) } else { Ok(audio.len() as u32) }
    }

    fn transcribe(
        &self,
        request: &TranscribeRequest,
        on_segment: &mut dyn FnMut(&Segment) -> bool,
    ) -> Result<Transcription, EngineError> {
        let segment = Segment { start_s: 0.0, end_s: 1.0, output_ids: vec![4, 5], text: " hi".into() };
        if !on_segment(&segment) {
            return Err(EngineError::Cancelled);
        }
        let language = request.language.clone().unwrap_or("en".into());
        Ok(Transcription { text: "hi".into(), segments: vec![segment], language, audio_s: 9 })
    }
}

#[test]
fn recordings_are_sold_by_the_second() {
    let (keys, reply) = (Keys::generate(&mut rand::rng()), DecryptionKey::generate(&mut rand::rng()));
    let signer = signer(&keys);
    let posted = posted();
    let work = |audio: &[u8]| Request::Transcription {
        audio: STANDARD.encode(audio),
        language: Some("de".into()),
        translate: true,
    };
    let input = seal_work(&keys, work(b"nine byte"), &reply);
    let opened = open(signer, &Ears, &posted, &input, None).unwrap();
    let mut shown = String::new();
    let mut show = |piece: &str| {
        shown.push_str(piece);
        true
    };
    let body = answer(signer, &Ears, &posted, &opened, None, &mut show, &mut rand::rng()).unwrap();
    assert_eq!(shown, " hi");
    let post = PostReceipt::from_cell(&Boc::decode(&body.0).unwrap()).unwrap();
    assert_eq!(post.receipt.units, Units { input: 9, cached_input: 0, output: 0 });
    let context = ResultContext { network_id: -3, job: posted.key.job.clone(), posted_lt: 77 };
    let output = open_result(&post.sealed_result().unwrap(), &reply, &context).unwrap();
    assert_eq!((output.text.as_str(), output.language.as_deref()), ("hi", Some("de")));
    assert!(output.answers(&work(b"nine byte")) && !output.answers(&work(b"nine-byte")));
    assert_eq!(post.content.transcript, output.transcript(&MODEL, 3, Dtype::Q4_1));
    let stopped = answer(signer, &Ears, &posted, &opened, None, &mut |_| false, &mut rand::rng());
    assert_eq!(stopped.err(), Some(RejectionReason::EngineFailure));
    let refusal = |audio: &[u8]| {
        let input = seal_work(&keys, work(audio), &reply);
        open(signer, &Ears, &posted, &input, None).err()
    };
    assert_eq!(refusal(b"noise"), Some(RejectionReason::MalformedInput));
    assert_eq!(refusal(&[0; 51]), Some(RejectionReason::PromptOverPrice));
}
