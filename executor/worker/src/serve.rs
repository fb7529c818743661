//! From a sealed input to a signed receipt. Pure but for the engine; randomness is an argument.
//!
//! Plaintext lives in [`Opened`] and in locals here, is wiped on drop, and goes nowhere but into the engine and into the
//! sealed result.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contracts::errors::RejectionReason;
use contracts::job::{PostReceipt, PostRejection};
use contracts::money::Amount;
use contracts::receipt::{Receipt, ReceiptContent, Rejection, Tag};
use contracts::sealing::{
    FinishReason, InputContext, MAX_JSON_BYTES, Output, ResultContext, SealError, Sealed, open_input,
    seal_result,
};
use contracts::wire::{from_cell, to_cell};
use contracts::work::{GenerateParams, Request, transcription_digest};
use contracts::{HashBytes, Message, Units, WireError};
use engine_api::{
    ClientKey, EmbedRequest, Engine, EngineError, EngineInfo, GenerateRequest, Generated, Prompt,
    TranscribeRequest, Transcription, Usage, Work,
};
use rand_core::CryptoRng;
use tycho_types::boc::Boc;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::fees::{RESULT_BASE_BYTES, RESULT_BYTES_PER_INPUT, RESULT_BYTES_PER_OUTPUT, reserved_bytes};
use crate::keys::Keys;
use crate::machine::{PostedJob, SignedReceipt};

/// A decrypted input that can be served. Without `Debug`, wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Opened {
    reply_key: [u8; 32],
    task: Task,
}

#[derive(Zeroize, ZeroizeOnDrop)]
enum Task {
    /// The limit among the parameters is the one that holds.
    Text {
        prompt_ids: Vec<u32>,
        params: GenerateParams,
    },
    Embeddings {
        ids: Vec<Vec<u32>>,
    },
    Transcription {
        audio: Vec<u8>,
        language: Option<String>,
        translate: bool,
        audio_s: u32,
    },
}

impl Opened {
    /// Units of the input: tokens, or seconds.
    pub fn input_units(&self) -> usize {
        match &self.task {
            Task::Text { prompt_ids, .. } => prompt_ids.len(),
            Task::Embeddings { ids } => ids.iter().map(Vec::len).sum(),
            Task::Transcription { audio_s, .. } => usize::try_from(*audio_s).unwrap_or(usize::MAX),
        }
    }
}

/// What the worker signs with and for.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// The attested keys.
    pub keys: &'a Keys,
    /// The network.
    pub network_id: i32,
    /// Account of the Model that the engine serves.
    pub model: HashBytes,
}

/// Decrypts the input (a bag of cells) and checks that it can be answered within the terms and the engine's memory. To be
/// asked before a job is claimed: it promises nothing.
///
/// # Errors
/// The reason to reject the job with.
pub fn open(
    signer: Signer<'_>,
    engine: &dyn Engine,
    posted: &PostedJob,
    input: &[u8],
    context_limit: Option<u32>,
) -> Result<Opened, RejectionReason> {
    let info = engine.info();
    if signer.model != posted.model {
        return Err(RejectionReason::ModelNotServed);
    }
    let sealed: Sealed = Boc::decode(input)
        .ok()
        .and_then(|cell| from_cell(&cell).ok())
        .ok_or(RejectionReason::CannotDecrypt)?;
    let context = InputContext {
        network_id: signer.network_id,
        job: posted.key.job.clone(),
        model_id: info.model_id,
        until: posted.until,
    };
    let mut input = open_input(&sealed, signer.keys.encryption(), &context).map_err(|error| match error {
        SealError::MalformedPlaintext { .. } => RejectionReason::MalformedInput,
        _ => RejectionReason::CannotDecrypt,
    })?;
    check_shape(&input.work)?;
    if input.reply_key == [0; 32] {
        return Err(RejectionReason::MalformedInput);
    }
    let reason = |error: EngineError| error.reason();
    let task = match &mut input.work {
        Request::Chat { messages, tools, params } => {
            let prompt = Prompt::Chat { messages: std::mem::take(messages), tools: tools.take() };
            text_task(engine, posted, &prompt, params, context_limit)?
        }
        Request::Completion { prompt, params } => {
            let prompt = Prompt::Text(std::mem::take(prompt));
            text_task(engine, posted, &prompt, params, context_limit)?
        }
        Request::Embeddings { texts } => {
            let mut ids = Zeroizing::new(engine.tokenize_texts(texts).map_err(reason)?);
            let Work::Embeddings { dimensions } = info.work else {
                return Err(RejectionReason::ModelNotServed);
            };
            check_embeddings(posted, &ids, dimensions)?;
            Task::Embeddings { ids: std::mem::take(&mut ids) }
        }
        Request::Transcription { audio, language, translate } => {
            let mut bytes =
                Zeroizing::new(STANDARD.decode(&*audio).map_err(|_| RejectionReason::MalformedInput)?);
            let audio_s = engine.audio_seconds(&bytes).map_err(reason)?;
            check_paid(posted, &Units { input: audio_s, cached_input: 0, output: 0 })?;
            let (audio, language) = (std::mem::take(&mut *bytes), language.take());
            Task::Transcription { audio, language, translate: *translate, audio_s }
        }
    };
    Ok(Opened { reply_key: input.reply_key, task })
}

/// Answers, seals and signs, by `deadline` where there is one. A second run makes another receipt: the caller keeps the
/// first.
///
/// An answer whose result is larger than the job's reserve pays for is made again, shorter, until it fits: the contract
/// would refuse its receipt. `on_text` gets each piece of text as it is made, then empty pieces; a `false` from it breaks off.
///
/// # Errors
/// The reason to reject the job with.
pub fn answer(
    signer: Signer<'_>,
    engine: &dyn Engine,
    posted: &PostedJob,
    opened: &Opened,
    deadline: Option<Instant>,
    on_text: &mut dyn FnMut(&str) -> bool,
    rng: &mut impl CryptoRng,
) -> Result<SignedReceipt, RejectionReason> {
    let reserved = reserved_bytes(&posted.max_units);
    let seal = |output: &Output, units: Units, rng: &mut _| {
        seal(signer, engine.info(), posted, opened, output, units, rng)
    };
    let (prompt_ids, asked) = match &opened.task {
        Task::Text { prompt_ids, params } => (prompt_ids, params),
        Task::Embeddings { ids } => {
            let request = EmbedRequest { ids: ids.clone(), deadline };
            let embedded = patiently(deadline, &mut || on_text(""), || engine.embed(&request))?;
            let units = Units { input: embedded.input_tokens, cached_input: 0, output: 0 };
            let output = Output::embeddings(salt(rng), ids, &embedded.vectors);
            return finish(signer, posted, seal(&output, units, rng), reserved);
        }
        Task::Transcription { audio, language, translate, audio_s } => {
            let request = TranscribeRequest {
                audio: audio.clone(),
                language: language.clone(),
                translate: *translate,
                deadline,
            };
            let heard = transcribe(engine, &request, on_text)?;
            let units = Units { input: *audio_s, cached_input: 0, output: 0 };
            let digest = transcription_digest(audio, language.as_deref(), *translate);
            let ids = heard.segments.iter().flat_map(|segment| segment.output_ids.iter().copied()).collect();
            let (text, language) = (heard.text.clone(), heard.language.clone());
            let output = Output::transcription(text, salt(rng), digest, ids, language);
            return finish(signer, posted, seal(&output, units, rng), reserved);
        }
    };
    let mut params = asked.clone();
    // A later attempt finds what an earlier one computed; that is no merit of the client's.
    let mut cached_tokens = None;
    for attempt in 0..MAX_ATTEMPTS {
        let limit = params.max_output_tokens;
        let mut request = GenerateRequest::new(prompt_ids.clone(), params.clone(), scope_of(posted));
        request.deadline = deadline;
        let mut unseen = |_: &str| on_text("");
        let generated = if attempt == 0 {
            generate(engine, request, on_text)
        } else {
            generate(engine, request, &mut unseen)
        };
        let mut generated = generated?;
        let made = u32::try_from(generated.output_ids.len()).map_err(|_| RejectionReason::EngineFailure)?;
        if made > limit {
            return Err(RejectionReason::EngineFailure);
        }
        let finish_reason = match generated.finish_reason {
            engine_api::FinishReason::Stop => FinishReason::Stop,
            engine_api::FinishReason::Length => FinishReason::Length,
            engine_api::FinishReason::Cancelled => return Err(RejectionReason::EngineFailure),
        };
        let cached = *cached_tokens.get_or_insert_with(|| billed_as_cached(posted, &generated.usage));
        let units = units_of(prompt_ids, cached, made)?;
        let output = Output::text(
            std::mem::take(&mut generated.text),
            finish_reason,
            salt(rng),
            &params,
            prompt_ids.clone(),
            std::mem::take(&mut generated.output_ids),
        );
        let size = match seal(&output, units, rng) {
            Ok(result) if result.size() <= reserved => return finish(signer, posted, Ok(result), reserved),
            Ok(result) => result.size(),
            Err(SealError::TooLong { bytes }) => bytes,
            Err(error) => return finish(signer, posted, Err(error), reserved),
        };
        tracing::info!(
            size,
            reserved,
            tokens = made,
            "the result is larger than the job pays for; made shorter"
        );
        match shorter(made, size, reserved) {
            Some(fewer) => params.max_output_tokens = fewer,
            None => break,
        }
    }
    Err(RejectionReason::PromptOverPrice)
}

/// The body of the `post_rejection` message. The same arguments make the same bytes.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn rejection(
    signer: Signer<'_>,
    posted: &PostedJob,
    reason: RejectionReason,
) -> Result<contracts::Cell, WireError> {
    let rejection = Rejection {
        tag: Tag,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
        reason: reason.code(),
    };
    PostRejection::signed(rejection, signer.keys.receipt())?.to_cell()
}

/// A sealed result and what the receipt says of it.
struct Sealing {
    sealed: Sealed,
    units: Units,
    transcript: HashBytes,
    engine: u32,
    dtype: u8,
}

impl Sealing {
    /// Bytes of the sealed result.
    fn size(&self) -> usize {
        self.sealed.as_bytes().len()
    }
}

fn seal(
    signer: Signer<'_>,
    info: &EngineInfo,
    posted: &PostedJob,
    opened: &Opened,
    output: &Output,
    units: Units,
    rng: &mut impl CryptoRng,
) -> Result<Sealing, SealError> {
    let context = ResultContext {
        network_id: signer.network_id,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
    };
    let sealed = seal_result(output, &HashBytes(opened.reply_key), &context, rng)?;
    let transcript = output.transcript(&info.model_id, info.engine, info.dtype);
    Ok(Sealing { sealed, units, transcript, engine: info.engine, dtype: info.dtype as u8 })
}

/// The receipt of a sealed result that fits what the job reserved.
fn finish(
    signer: Signer<'_>,
    posted: &PostedJob,
    sealed: Result<Sealing, SealError>,
    reserved: usize,
) -> Result<SignedReceipt, RejectionReason> {
    match sealed {
        Ok(result) if result.size() <= reserved => {
            sign(signer, posted, &result).map_err(|_| RejectionReason::EngineFailure)
        }
        Ok(_) | Err(SealError::TooLong { .. }) => Err(RejectionReason::PromptOverPrice),
        Err(SealError::BadRecipient) => Err(RejectionReason::MalformedInput),
        Err(_) => Err(RejectionReason::EngineFailure),
    }
}

fn salt(rng: &mut impl CryptoRng) -> [u8; 32] {
    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    salt
}

/// The whole answer. What is shown is shown while it is made.
fn generate(
    engine: &dyn Engine,
    request: GenerateRequest,
    on_text: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated, RejectionReason> {
    let mut stream = patiently(request.deadline, &mut || on_text(""), || engine.generate(request.clone()))?;
    while let Some(piece) = stream.next_blocking() {
        if !on_text(&piece.text) {
            return Err(RejectionReason::EngineFailure);
        }
    }
    stream.finish_blocking().map_err(|error| error.reason())
}

fn transcribe(
    engine: &dyn Engine,
    request: &TranscribeRequest,
    on_text: &mut dyn FnMut(&str) -> bool,
) -> Result<Transcription, RejectionReason> {
    let mut delay = FIRST_DELAY;
    loop {
        match engine.transcribe(request, &mut |segment| on_text(&segment.text)) {
            Err(EngineError::Busy) => wait(request.deadline, &mut delay, &mut || on_text(""))?,
            other => return other.map_err(|error| error.reason()),
        }
    }
}

/// Asks an engine that is busy again, as long as there is time and `goes_on` says so: a claimed job is not given back
/// because others came first.
fn patiently<T>(
    deadline: Option<Instant>,
    goes_on: &mut dyn FnMut() -> bool,
    mut ask: impl FnMut() -> Result<T, EngineError>,
) -> Result<T, RejectionReason> {
    let mut delay = FIRST_DELAY;
    loop {
        match ask() {
            Err(EngineError::Busy) => wait(deadline, &mut delay, goes_on)?,
            other => return other.map_err(|error| error.reason()),
        }
    }
}

fn wait(
    deadline: Option<Instant>,
    delay: &mut Duration,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<(), RejectionReason> {
    if !goes_on() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Err(RejectionReason::EngineFailure);
    }
    std::thread::sleep(*delay);
    *delay = (*delay * 2).min(LONGEST_DELAY);
    Ok(())
}

/// Whose computed prompts the job may profit from: those of the wallet that posted it.
fn scope_of(posted: &PostedJob) -> ClientKey {
    ClientKey(posted.client.address.0)
}

/// How many of the prompt's tokens are billed at the price of cached ones: never so that the client pays more for it.
fn billed_as_cached(posted: &PostedJob, usage: &Usage) -> u32 {
    if posted.prices.cached_input > posted.prices.input {
        return 0;
    }
    usage.cached_prompt_tokens.min(posted.max_units.cached_input)
}

fn units_of(prompt_ids: &[u32], cached: u32, output: u32) -> Result<Units, RejectionReason> {
    let prompt = u32::try_from(prompt_ids.len()).map_err(|_| RejectionReason::EngineFailure)?;
    let input = prompt.checked_sub(cached).ok_or(RejectionReason::EngineFailure)?;
    Ok(Units { input, cached_input: cached, output })
}

/// The tokens of a prompt and the parameters that hold, or why it is not answered.
fn text_task(
    engine: &dyn Engine,
    posted: &PostedJob,
    prompt: &Prompt,
    params: &GenerateParams,
    context_limit: Option<u32>,
) -> Result<Task, RejectionReason> {
    let info = engine.info();
    let mut prompt_ids = Zeroizing::new(engine.tokenize(prompt).map_err(|error| error.reason())?);
    let context_tokens = context_limit.map_or(info.context_tokens, |limit| limit.min(info.context_tokens));
    let mut params = params.clone();
    params.max_output_tokens =
        output_limit(posted, prompt_ids.len(), params.max_output_tokens, context_tokens)?;
    // A result has no room for them.
    params.top_logprobs = None;
    let prompt_tokens = u32::try_from(prompt_ids.len()).map_err(|_| RejectionReason::PromptOverContext)?;
    engine.admit(prompt_tokens, &params).map_err(|error| error.reason())?;
    Ok(Task::Text { prompt_ids: std::mem::take(&mut prompt_ids), params })
}

fn check_embeddings(posted: &PostedJob, ids: &[Vec<u32>], dimensions: u32) -> Result<(), RejectionReason> {
    let tokens: usize = ids.iter().map(Vec::len).sum();
    let input = u32::try_from(tokens).map_err(|_| RejectionReason::PromptOverContext)?;
    check_paid(posted, &Units { input, cached_input: 0, output: 0 })?;
    let dimensions = usize::try_from(dimensions).unwrap_or(usize::MAX);
    let numbers = ids.len().saturating_mul(dimensions).saturating_add(tokens).saturating_add(ids.len());
    let bytes = numbers.saturating_mul(BYTES_PER_NUMBER).saturating_add(RESULT_BASE_BYTES);
    if bytes > reserved_bytes(&posted.max_units).saturating_add(RESULT_BASE_BYTES) || bytes > MAX_JSON_BYTES {
        return Err(RejectionReason::PromptOverPrice);
    }
    Ok(())
}

/// Whether terms and deposit cover these units.
fn check_paid(posted: &PostedJob, units: &Units) -> Result<(), RejectionReason> {
    let is_within = units.input <= posted.max_units.input && units.output <= posted.max_units.output;
    if units.input > 0 && is_within && posted.prices.cost(units) <= posted.deposit.nanoton() {
        Ok(())
    } else if units.input == 0 {
        Err(RejectionReason::MalformedInput)
    } else {
        Err(RejectionReason::PromptOverPrice)
    }
}

/// How many tokens are likely to fit where `made` gave `size` bytes; fewer than `made`, none where not even one does.
fn shorter(made: u32, size: usize, reserved: usize) -> Option<u32> {
    let share = u64::from(made).saturating_mul(reserved as u64) / (size as u64).max(1);
    let fewer = u32::try_from(share).unwrap_or(u32::MAX).min(made.saturating_sub(1));
    // What does not shrink with the tokens would make the share too large each time.
    let fewer = fewer.min(made.saturating_sub(made / 8)).max(1);
    (fewer < made).then_some(fewer)
}

fn sign(signer: Signer<'_>, posted: &PostedJob, result: &Sealing) -> Result<SignedReceipt, WireError> {
    let content = ReceiptContent {
        result_hash: *to_cell(&result.sealed)?.repr_hash(),
        transcript: result.transcript,
        engine: result.engine,
        dtype: result.dtype,
    };
    let receipt = Receipt {
        tag: Tag,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
        sequence: 1,
        is_final: true,
        units: result.units,
        amount: Amount::try_from(posted.prices.cost(&result.units))
            .map_or(posted.deposit, |cost| cost.min(posted.deposit)),
        content_hash: content.hash()?,
    };
    let message = PostReceipt::signed(receipt, content, &result.sealed, signer.keys.receipt())?.to_cell()?;
    Ok(SignedReceipt(Boc::encode(&message)))
}

fn check_shape(work: &Request) -> Result<(), RejectionReason> {
    let known = |role: &str| matches!(role, "system" | "user" | "assistant" | "tool");
    let is_sound = match work {
        Request::Chat { messages, .. } => {
            !messages.is_empty()
                && messages.len() <= MAX_MESSAGES
                && messages.iter().all(|message| known(&message.role))
        }
        Request::Completion { prompt, .. } => !prompt.is_empty(),
        Request::Embeddings { texts } => !texts.is_empty() && texts.len() <= MAX_MESSAGES,
        Request::Transcription { audio, .. } => !audio.is_empty(),
    };
    let asks_for_text = work.params().is_none_or(|params| params.max_output_tokens > 0);
    if is_sound && asks_for_text { Ok(()) } else { Err(RejectionReason::MalformedInput) }
}

/// The most output tokens that request, terms, deposit, context and the size of a result allow.
fn output_limit(
    posted: &PostedJob,
    prompt_tokens: usize,
    asked: u32,
    context_tokens: u32,
) -> Result<u32, RejectionReason> {
    let input = u32::try_from(prompt_tokens).map_err(|_| RejectionReason::PromptOverContext)?;
    let room = context_tokens.saturating_sub(input);
    let bytes_left = (MAX_JSON_BYTES - RESULT_BASE_BYTES).checked_sub(RESULT_BYTES_PER_INPUT * prompt_tokens);
    let sized = bytes_left.map_or(0, |bytes| bytes / RESULT_BYTES_PER_OUTPUT);
    let sized = u32::try_from(sized).unwrap_or(u32::MAX);
    if input == 0 {
        return Err(RejectionReason::MalformedInput);
    }
    if room == 0 || sized == 0 {
        return Err(RejectionReason::PromptOverContext);
    }
    let deposit = posted.deposit.nanoton();
    let pays = |output: u32| posted.prices.cost(&Units { input, cached_input: 0, output }) <= deposit;
    if input > posted.max_units.input || !pays(1) {
        return Err(RejectionReason::PromptOverPrice);
    }
    let most = asked.min(posted.max_units.output).min(room).min(sized);
    // The largest number of tokens that the deposit pays for, by bisection: cost rises with it.
    let (mut paid, mut unpaid) = (1, most.saturating_add(1));
    while unpaid - paid > 1 {
        let middle = paid + (unpaid - paid) / 2;
        if pays(middle) {
            paid = middle;
        } else {
            unpaid = middle;
        }
    }
    Ok(paid.min(most))
}

const MAX_MESSAGES: usize = 1_024;
/// Each is shorter than the one before by an eighth at least.
const MAX_ATTEMPTS: usize = 24;
/// Of a u32 in a list, in JSON.
const BYTES_PER_NUMBER: usize = 11;
/// How long an engine that is busy is left alone.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
