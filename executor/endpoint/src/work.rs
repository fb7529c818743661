//! One request, from what was asked to what was used. Whatever it holds of prompt and answer is wiped on drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contracts::receipt::Dtype;
use contracts::transcript::Transcript;
use contracts::{HashBytes, Units};
use engine_api::{
    AnswerStream, ClientKey, EmbedRequest, Engine, EngineError, EngineInfo, GenerateRequest, Prompt,
    TranscribeRequest,
};
use session::message::{FinishReason, Frame, Piece, Segment, TokenLogprobs};
use session::work::{Chat, Completion, Params, Reuse, Work, WorkKind};
use session::{Content, Reason, UnitBound};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use zeroize::{Zeroize, Zeroizing};

use crate::held::Answer;

/// Who asks, and what for.
pub(crate) struct Order {
    pub(crate) work: Work,
    pub(crate) bound: UnitBound,
    pub(crate) client: ClientKey,
}

/// What was used, and what the receipt says of it.
pub(crate) struct Outcome {
    pub(crate) used: Units,
    pub(crate) content: Content,
    pub(crate) finish_reason: FinishReason,
    pub(crate) limit: u32,
    pub(crate) salt: [u8; 32],
    pub(crate) input_tokens: Zeroizing<Vec<u32>>,
}

/// The kinds of work that a model does.
pub(crate) fn kinds(work: engine_api::Work) -> Vec<WorkKind> {
    match work {
        engine_api::Work::Text => vec![WorkKind::Chat, WorkKind::Completion],
        engine_api::Work::Embeddings { .. } => vec![WorkKind::Embeddings],
        engine_api::Work::Transcription { .. } => vec![WorkKind::Transcription],
    }
}

/// Does the work. Frames go to `answer`; `accept` is called once, before the first of them, when the engine has taken it.
///
/// # Errors
/// Why it was not done, or not to its end: nothing is to be charged.
pub(crate) async fn perform(
    engine: Arc<dyn Engine>,
    order: Order,
    answer: &Answer,
    until: Instant,
    answer_bytes: usize,
    accept: impl FnOnce(),
) -> Result<Outcome, Reason> {
    if !kinds(engine.info().work).contains(&order.work.kind()) {
        return Err(Reason::Unsupported);
    }
    check_shape(&order.work)?;
    let run = Run { answer, until, answer_bytes };
    match order.work {
        Work::Chat(_) | Work::Completion(_) => run.text(engine, order, accept).await,
        Work::Embeddings(_) => run.embeddings(engine, order, accept).await,
        Work::Transcription(_) => run.transcription(engine, order, accept).await,
    }
}

struct Run<'a> {
    answer: &'a Answer,
    until: Instant,
    answer_bytes: usize,
}

impl Run<'_> {
    async fn text(
        &self,
        engine: Arc<dyn Engine>,
        order: Order,
        accept: impl FnOnce(),
    ) -> Result<Outcome, Reason> {
        let asked = engine.clone();
        let started = blocking(move || start_text(asked.as_ref(), order)).await??;
        accept();
        let Started { mut stream, prompt_ids, mut params } = started;
        let mut asked_to_stop = false;
        loop {
            tokio::select! {
                piece = stream.next() => {
                    let Some(piece) = piece else { break };
                    let bytes = self.answer.push(&Frame::Piece(piece_of(engine.as_ref(), &piece)));
                    if bytes > self.answer_bytes && !asked_to_stop {
                        stream.cancel();
                        asked_to_stop = true;
                    }
                }
                () = self.stopped(), if !asked_to_stop => {
                    stream.cancel();
                    asked_to_stop = true;
                }
            }
        }
        let mut made = stream.finish().await.map_err(reason_of)?;
        let prompt = count(prompt_ids.len())?;
        let output = count(made.output_ids.len())?;
        let cached = made.usage.cached_prompt_tokens.min(prompt);
        let finish_reason = match made.finish_reason {
            engine_api::FinishReason::Stop => FinishReason::Stop,
            engine_api::FinishReason::Length => FinishReason::Length,
            engine_api::FinishReason::Cancelled => FinishReason::Cancelled,
        };
        if finish_reason == FinishReason::Cancelled {
            params.max_output_tokens = output;
        }
        let limit = params.max_output_tokens;
        let digest = params.digest();
        let outcome = Outcome::new(
            engine.info(),
            Units { input: prompt - cached, cached_input: cached, output },
            finish_reason,
            limit,
            &digest,
            prompt_ids,
            &made.output_ids,
        );
        made.zeroize();
        Ok(outcome)
    }

    async fn embeddings(
        &self,
        engine: Arc<dyn Engine>,
        order: Order,
        accept: impl FnOnce(),
    ) -> Result<Outcome, Reason> {
        let Work::Embeddings(work) = &order.work else { return Err(Reason::Unsupported) };
        let mut texts = Zeroizing::new(work.texts.clone());
        let asked = engine.clone();
        let ids = blocking(move || {
            let texts: Zeroizing<Vec<String>> = Zeroizing::new(std::mem::take(&mut *texts));
            asked.tokenize_texts(&texts).map(Zeroizing::new).map_err(reason_of)
        });
        let ids = ids.await??;
        let parts = ids.iter().map(|ids| count(ids.len())).collect::<Result<Vec<_>, _>>()?;
        let asked_input = parts.iter().try_fold(0_u32, |sum, part| sum.checked_add(*part));
        if asked_input.ok_or(Reason::TooLarge)? > order.bound.input {
            return Err(Reason::BoundTooLow);
        }
        accept();
        let request = EmbedRequest { ids: ids.to_vec(), deadline: Some(self.until.into_std()) };
        let asked = engine.clone();
        let embedded = blocking(move || asked.embed(&request).map_err(reason_of)).await??;
        if self.answer.is_cancelled() {
            return Err(Reason::Cancelled);
        }
        let mut numbers = Zeroizing::new(Vec::new());
        for vector in &embedded.vectors {
            numbers.extend(vector.iter().map(|number| number.to_bits()));
            self.answer.push(&Frame::Vector(vector.clone()));
        }
        let outcome = Outcome::new(
            engine.info(),
            Units { input: embedded.input_tokens, cached_input: 0, output: 0 },
            FinishReason::Stop,
            0,
            &order.work.params_digest(0, &parts),
            Zeroizing::new(ids.concat()),
            &numbers,
        );
        Ok(outcome)
    }

    async fn transcription(
        &self,
        engine: Arc<dyn Engine>,
        order: Order,
        accept: impl FnOnce(),
    ) -> Result<Outcome, Reason> {
        let Work::Transcription(work) = &order.work else { return Err(Reason::Unsupported) };
        let digest = order.work.params_digest(0, &[]);
        let request = TranscribeRequest {
            audio: work.audio.clone(),
            language: work.language.clone(),
            translate: work.translate,
            deadline: Some(self.until.into_std()),
        };
        let asked = engine.clone();
        let (seconds, request) = blocking(move || {
            let seconds = asked.audio_seconds(&request.audio).map_err(reason_of)?;
            Ok::<_, Reason>((seconds, request))
        })
        .await??;
        if seconds > order.bound.input {
            return Err(Reason::BoundTooLow);
        }
        accept();
        let (sender, mut segments) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, stopped) = (engine.clone(), stop.clone());
        let mut done = std::pin::pin!(blocking(move || {
            let heard = asked.transcribe(&request, &mut |segment| {
                sender.send(segment.clone()).is_ok() && !stopped.load(Ordering::Relaxed)
            });
            heard.map_err(reason_of)
        }));
        let mut output = Zeroizing::new(Vec::new());
        let mut push = |segment: engine_api::Segment| {
            output.extend_from_slice(&segment.output_ids);
            self.answer.push(&Frame::Segment(Segment {
                start_s: segment.start_s,
                end_s: segment.end_s,
                text: segment.text.clone(),
                tokens: segment.output_ids.clone(),
            }));
        };
        let heard = loop {
            tokio::select! {
                biased;
                Some(segment) = segments.recv() => push(segment),
                heard = &mut done => break heard??,
                () = self.stopped(), if !stop.load(Ordering::Relaxed) => stop.store(true, Ordering::Relaxed),
            }
        };
        while let Some(segment) = segments.recv().await {
            push(segment);
        }
        Ok(Outcome::new(
            engine.info(),
            Units { input: heard.audio_s.min(seconds), cached_input: 0, output: 0 },
            FinishReason::Stop,
            0,
            &digest,
            Zeroizing::new(Vec::new()),
            &output,
        ))
    }

    /// Returns when no more is wanted.
    async fn stopped(&self) {
        tokio::select! {
            () = self.answer.cancelled() => {}
            () = sleep_until(self.until) => {}
        }
    }
}

impl Outcome {
    fn new(
        info: &EngineInfo,
        used: Units,
        finish_reason: FinishReason,
        limit: u32,
        params: &HashBytes,
        input_tokens: Zeroizing<Vec<u32>>,
        output_tokens: &[u32],
    ) -> Self {
        let salt: [u8; 32] = rand::random();
        let dtype: Dtype = info.dtype;
        let transcript = Transcript {
            salt: &salt,
            model_id: &info.model_id,
            engine: info.engine,
            dtype,
            params,
            finish_reason: finish_reason.in_transcript(),
            input_tokens: &input_tokens,
            output_tokens,
        };
        let content = Content { transcript: transcript.hash().0, engine: info.engine, dtype: dtype as u8 };
        Self { used, content, finish_reason, limit, salt, input_tokens }
    }
}

struct Started {
    stream: AnswerStream,
    prompt_ids: Zeroizing<Vec<u32>>,
    /// With the limit that holds.
    params: contracts::work::GenerateParams,
}

fn start_text(engine: &dyn Engine, order: Order) -> Result<Started, Reason> {
    let (prompt, params) = match &order.work {
        Work::Chat(chat) => (Prompt::Chat { messages: chat.turns(), tools: chat.tools_text() }, &chat.params),
        Work::Completion(work) => (Prompt::Text(work.prompt.clone()), &work.params),
        Work::Embeddings(_) | Work::Transcription(_) => return Err(Reason::Unsupported),
    };
    let prompt_ids = Zeroizing::new(engine.tokenize(&prompt).map_err(reason_of)?);
    let given = count(prompt_ids.len())?;
    if given == 0 {
        return Err(Reason::Malformed);
    }
    if given > order.bound.input {
        return Err(Reason::BoundTooLow);
    }
    let room = engine.info().context_tokens.saturating_sub(given);
    let limit = params.max_output_tokens.min(order.bound.output).min(room);
    match limit {
        0 if room == 0 => return Err(Reason::OverContext),
        0 => return Err(Reason::BoundTooLow),
        _ => {}
    }
    let reuse = params.reuse;
    let params = params.generate(limit);
    engine.admit(given, &params).map_err(reason_of)?;
    let mut request = GenerateRequest::new(prompt_ids.to_vec(), params.clone(), order.client);
    request.reuse_prefix = reuse != Reuse::Nobody;
    let stream = engine.generate(request).map_err(reason_of)?;
    Ok(Started { stream, prompt_ids, params })
}

/// What no engine has to see.
fn check_shape(work: &Work) -> Result<(), Reason> {
    let is_sound = match work {
        Work::Chat(Chat { messages, tools, params }) => {
            let known = |role: &str| matches!(role, "system" | "user" | "assistant" | "tool");
            !messages.is_empty()
                && messages.len() <= MAX_MESSAGES
                && tools.len() <= MAX_TOOLS
                && messages.iter().all(|message| known(&message.role))
                && is_sound(params)
        }
        Work::Completion(Completion { params, .. }) => is_sound(params),
        Work::Embeddings(work) => !work.texts.is_empty() && work.texts.len() <= MAX_TEXTS,
        Work::Transcription(work) => !work.audio.is_empty(),
    };
    if is_sound { Ok(()) } else { Err(Reason::Malformed) }
}

fn is_sound(params: &Params) -> bool {
    params.max_output_tokens > 0 && params.stop.len() <= MAX_STOPS
}

fn piece_of(engine: &dyn Engine, piece: &engine_api::Piece) -> Piece {
    let logprobs = piece.logprobs.as_ref().zip(piece.id).map(|(logprobs, id)| {
        let ids = std::iter::once(id).chain(logprobs.top.iter().map(|(id, _)| *id));
        TokenLogprobs {
            logprob: logprobs.logprob,
            top: logprobs.top.clone(),
            bytes: ids.map(|id| hex::encode(engine.token_text(id))).collect(),
        }
    });
    Piece {
        text: piece.text.clone(),
        tokens: piece.id.into_iter().collect(),
        logprobs: logprobs.into_iter().collect(),
    }
}

/// The engine's panic is its failure, and not ours.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Reason> {
    spawn_blocking(work).await.map_err(|_| Reason::EngineFailed)
}

fn reason_of(error: EngineError) -> Reason {
    match error {
        EngineError::Malformed => Reason::Malformed,
        EngineError::Parameter(_) | EngineError::Unsupported => Reason::Unsupported,
        EngineError::TooLong { .. } => Reason::OverContext,
        EngineError::TooLarge { .. } => Reason::TooLarge,
        EngineError::Busy => Reason::Busy,
        EngineError::Deadline | EngineError::Cancelled => Reason::Cancelled,
        _ => Reason::EngineFailed,
    }
}

fn count(length: usize) -> Result<u32, Reason> {
    u32::try_from(length).map_err(|_| Reason::TooLarge)
}

const MAX_MESSAGES: usize = 4_096;
const MAX_TOOLS: usize = 128;
const MAX_TEXTS: usize = 2_048;
const MAX_STOPS: usize = 16;
