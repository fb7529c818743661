//! The inference crate as the worker's engine: one model of any kind, served to many at once.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use contracts::HashBytes;
use contracts::model_manifest::{ModelFile, model_id};
use contracts::receipt::Dtype;
use contracts::work::GenerateParams;
use engine_api::{
    AnswerSink, AnswerStream, EmbedRequest, Embedded, EngineError, EngineInfo, EngineLoad, FinishReason,
    GenerateRequest, Generated, Piece, Prompt, Segment, TokenLogprobs, TranscribeRequest, Transcription,
    Usage, Work, answer_channel,
};
use inference::{
    Audio, AudioError, ENGINE_REVISION, Embedder, Engine, Event, GenerateError, JsonSchema, MAX_AUDIO_S,
    ModelFiles, ModelKind, Scope, ServeError, ServeLimits, ServeRequest, Served, Server, TranscribeParams,
    Transcriber, Turn,
};

use crate::memory;

/// A model loaded on burn.
pub(crate) struct BurnEngine {
    model: Model,
    info: EngineInfo,
    /// For work that does not share its steps with others.
    turns: Turns,
}

enum Model {
    Text(Server),
    Embeddings(Box<Embedder>),
    Speech(Box<Transcriber>),
}

/// How much a model may take beside its weights.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EngineLimits {
    /// For keys and values; none: half of the memory that is free once the weights are loaded, as far as requests that run
    /// together can fill it.
    pub(crate) kv_bytes: Option<u64>,
}

impl BurnEngine {
    /// Reads, hashes and loads the model at `path`.
    pub(crate) fn load(path: &Path, limits: EngineLimits) -> anyhow::Result<Self> {
        let files = ModelFiles::open(path)?;
        let id = id_of(&files)?;
        let (model, name, dtype, work, context, vocabulary) = match files.kind() {
            ModelKind::Text => {
                let engine = Engine::load(&files)?;
                drop(files);
                let info = engine.info();
                let server = serve(engine, limits)?;
                let (context, vocabulary) = (info.context_length, info.vocabulary);
                let model = Model::Text(server);
                (model, info.name, info.dtype, Work::Text, context, vocabulary)
            }
            ModelKind::Embeddings => {
                let embedder = Embedder::load(&files)?;
                let info = embedder.info().clone();
                let work = Work::Embeddings { dimensions: count(info.dimensions) };
                let model = Model::Embeddings(Box::new(embedder));
                (model, info.name, info.dtype, work, info.max_tokens, info.vocabulary)
            }
            ModelKind::Speech => {
                let transcriber = Transcriber::load(&files)?;
                let info = transcriber.info();
                let work = Work::Transcription { max_audio_s: count(MAX_AUDIO_S) };
                let model = Model::Speech(Box::new(transcriber));
                (model, info.name, info.dtype, work, 0, info.vocabulary)
            }
        };
        let info = EngineInfo {
            model_id: id,
            name,
            engine: ENGINE_REVISION,
            dtype: Dtype::from_wire(dtype).context("the weights have a number format without a code")?,
            work,
            context_tokens: count(context),
            vocabulary: count(vocabulary),
        };
        Ok(Self { model, info, turns: Turns::new(MAX_WAITING) })
    }

    /// Bytes of keys and values that requests may take together.
    pub(crate) fn kv_bytes(&self) -> Option<usize> {
        match &self.model {
            Model::Text(server) => Some(server.limits().kv_bytes),
            _ => None,
        }
    }

    fn server(&self) -> Result<&Server, EngineError> {
        match &self.model {
            Model::Text(server) => Ok(server),
            _ => Err(EngineError::Unsupported),
        }
    }

    fn embedder(&self) -> Result<&Embedder, EngineError> {
        match &self.model {
            Model::Embeddings(embedder) => Ok(embedder),
            _ => Err(EngineError::Unsupported),
        }
    }

    fn transcriber(&self) -> Result<&Transcriber, EngineError> {
        match &self.model {
            Model::Speech(transcriber) => Ok(transcriber),
            _ => Err(EngineError::Unsupported),
        }
    }
}

/// The files as the manifest names them.
pub(crate) fn manifest(files: &ModelFiles) -> Vec<ModelFile> {
    let files = files.files().iter();
    files
        .map(|file| ModelFile {
            name: file.name.clone(),
            size_bytes: file.size_bytes,
            sha256: HashBytes(file.sha256),
        })
        .collect()
}

pub(crate) fn id_of(files: &ModelFiles) -> anyhow::Result<HashBytes> {
    Ok(model_id(&manifest(files))?)
}

impl engine_api::Engine for BurnEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn load(&self) -> EngineLoad {
        match &self.model {
            Model::Text(server) => {
                let load = server.load();
                EngineLoad { running: count(load.running), waiting: count(load.waiting) }
            }
            _ => self.turns.load(),
        }
    }

    fn admit(&self, prompt_tokens: u32, params: &GenerateParams) -> Result<(), EngineError> {
        let server = self.server()?;
        let params = params_of(params)?;
        server.admit_with(size(prompt_tokens), &params).map_err(|error| serve_fault(&error))
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let engine = self.server()?.engine();
        let (messages, tools) = match prompt {
            Prompt::Text(text) => return engine.tokenize(text).map_err(|error| fault(&error)),
            Prompt::Chat { messages, tools } => (messages, tools),
        };
        let list = |text: &Option<String>| match text {
            Some(text) => match serde_json::from_str::<serde_json::Value>(text) {
                Ok(list @ serde_json::Value::Array(_)) => Ok(Some(list)),
                _ => Err(EngineError::Malformed),
            },
            None => Ok(None),
        };
        let calls =
            messages.iter().map(|message| list(&message.tool_calls)).collect::<Result<Vec<_>, _>>()?;
        let turns: Vec<Turn<'_>> = messages
            .iter()
            .zip(&calls)
            .map(|(message, calls)| Turn {
                tool_calls: calls.as_ref(),
                tool_call_id: message.tool_call_id.as_deref(),
                name: message.name.as_deref(),
                ..Turn::new(&message.role, &message.content)
            })
            .collect();
        engine.tokenize_turns(&turns, list(tools)?.as_ref()).map_err(|error| fault(&error))
    }

    fn token_text(&self, id: u32) -> String {
        self.server().map(|server| server.engine().token_text(id)).unwrap_or_default()
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        let server = self.server()?;
        let prompt_tokens = count(request.prompt_ids.len());
        let mut serve =
            ServeRequest::new(request.prompt_ids.clone(), params_of(&request.params)?, request.client.0);
        serve.reuse_prefix = if request.reuse_prefix { Scope::Client } else { Scope::Nobody };
        serve.deadline = request.deadline;
        let ticket: Arc<Mutex<Option<inference::Ticket>>> = Arc::default();
        let cancelled = Arc::clone(&ticket);
        let (sink, stream) = answer_channel(move || {
            if let Some(ticket) = lock(&cancelled).as_ref() {
                ticket.cancel();
            }
        });
        let mut sink = Some(sink);
        let events = Box::new(move |event| forward(&mut sink, event, prompt_tokens));
        let taken = server.submit_to(serve, events).map_err(|error| serve_fault(&error))?;
        *lock(&ticket) = Some(taken);
        Ok(stream)
    }

    fn tokenize_texts(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EngineError> {
        let embedder = self.embedder()?;
        texts.iter().map(|text| embedder.tokenize(text).map_err(|error| fault(&error))).collect()
    }

    fn embed(&self, request: &EmbedRequest) -> Result<Embedded, EngineError> {
        let embedder = self.embedder()?;
        let _turn = self.turns.take(request.deadline)?;
        let ids: Vec<&[u32]> = request.ids.iter().map(Vec::as_slice).collect();
        let embeddings = embedder
            .embed_ids(&ids, &mut || while_before(request.deadline))
            .map_err(|error| fault(&error))?;
        if embeddings.len() < ids.len() {
            return Err(EngineError::Deadline);
        }
        let input_tokens = count(embeddings.iter().map(|embedding| embedding.tokens).sum());
        let vectors = embeddings.into_iter().map(|embedding| embedding.vector).collect();
        Ok(Embedded { vectors, input_tokens })
    }

    fn audio_seconds(&self, audio: &[u8]) -> Result<u32, EngineError> {
        self.transcriber()?;
        Ok(seconds(&heard(audio)?))
    }

    fn transcribe(
        &self,
        request: &TranscribeRequest,
        on_segment: &mut dyn FnMut(&Segment) -> bool,
    ) -> Result<Transcription, EngineError> {
        let transcriber = self.transcriber()?;
        let audio = heard(&request.audio)?;
        let _turn = self.turns.take(request.deadline)?;
        let params = TranscribeParams { language: request.language.clone(), translate: request.translate };
        let (mut is_late, mut is_cancelled) = (false, false);
        let transcript = transcriber
            .transcribe(&audio, &params, &mut |segment| {
                is_cancelled = !on_segment(&segment_of(segment));
                is_late = while_before(request.deadline).is_break();
                if is_cancelled || is_late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .map_err(|error| fault(&error))?;
        if is_cancelled {
            return Err(EngineError::Cancelled);
        }
        if !transcript.is_whole {
            return Err(EngineError::Deadline);
        }
        Ok(Transcription {
            segments: transcript.segments.iter().map(segment_of).collect(),
            language: transcript.language,
            audio_s: seconds(&audio),
            text: transcript.text,
        })
    }
}

/// A server with as much memory for keys and values as `limits` say.
fn serve(engine: Engine, limits: EngineLimits) -> anyhow::Result<Server> {
    let engine = Arc::new(engine);
    let defaults = ServeLimits::new(0);
    let kv_bytes = match limits.kv_bytes {
        Some(bytes) => {
            usize::try_from(bytes).context("the limit of keys and values is beyond this machine")?
        }
        None => {
            let most = engine.kv_bytes(defaults.running);
            let free = memory::available_bytes().unwrap_or(FREE_IF_UNKNOWN) / 2;
            most.min(usize::try_from(free).unwrap_or(usize::MAX))
        }
    };
    tracing::info!(kv_bytes, "memory for keys and values");
    Ok(Server::start(engine, ServeLimits { kv_bytes, ..defaults })?)
}

/// Hands an event of the server on. Whether anybody is still there.
fn forward(sink: &mut Option<AnswerSink>, event: Event, prompt_tokens: u32) -> bool {
    match event {
        Event::Piece(mut piece) => sink.as_ref().is_some_and(|sink| {
            sink.piece(Piece {
                id: piece.id,
                text: std::mem::take(&mut piece.text),
                logprobs: piece.logprobs.take().map(logprobs_of),
            })
        }),
        Event::End(outcome) => {
            if let Some(sink) = sink.take() {
                let outcome = match *outcome {
                    Ok(served) => Ok(generated_of(served, prompt_tokens)),
                    Err(error) => Err(serve_fault(&error)),
                };
                sink.end(outcome);
            }
            false
        }
    }
}

fn generated_of(served: Served, prompt_tokens: u32) -> Generated {
    let Served { generation, cached_input_tokens, waited_ms } = served;
    let usage = Usage {
        prompt_tokens,
        cached_prompt_tokens: count(cached_input_tokens),
        output_tokens: count(generation.output_ids.len()),
        waited_ms,
        prefill_ms: generation.prefill_ms,
        decode_ms: generation.decode_ms,
    };
    Generated {
        text: generation.text,
        output_ids: generation.output_ids,
        logprobs: generation.logprobs.into_iter().map(logprobs_of).collect(),
        finish_reason: match generation.finish_reason {
            inference::FinishReason::Stop => FinishReason::Stop,
            inference::FinishReason::Length => FinishReason::Length,
            inference::FinishReason::Cancelled => FinishReason::Cancelled,
        },
        usage,
    }
}

fn logprobs_of(logprobs: inference::TokenLogprobs) -> TokenLogprobs {
    TokenLogprobs { logprob: logprobs.logprob, top: logprobs.top }
}

fn segment_of(segment: &inference::Segment) -> Segment {
    Segment {
        start_s: segment.start_s,
        end_s: segment.end_s,
        output_ids: segment.output_ids.clone(),
        text: segment.text.clone(),
    }
}

fn params_of(params: &GenerateParams) -> Result<inference::GenerateParams, EngineError> {
    let sampling = params.sampling;
    let json_schema = match &params.json_schema {
        Some(text) => Some(JsonSchema::parse(text).map_err(|_| EngineError::Parameter("json_schema"))?),
        None => None,
    };
    Ok(inference::GenerateParams {
        max_output_tokens: size(params.max_output_tokens),
        sampling: inference::Sampling {
            temperature: sampling.temperature,
            top_k: size(sampling.top_k),
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            seed: sampling.seed,
        },
        stop: params.stop.clone(),
        top_logprobs: params.top_logprobs.map(size),
        json_schema,
    })
}

fn heard(audio: &[u8]) -> Result<Audio, EngineError> {
    Audio::from_wav(audio).map_err(|error| match error {
        AudioError::TooLong => {
            EngineError::TooLong { given: count(MAX_AUDIO_S).saturating_add(1), most: count(MAX_AUDIO_S) }
        }
        _ => EngineError::Malformed,
    })
}

/// The last second begun counted.
fn seconds(audio: &Audio) -> u32 {
    // Positive and at most MAX_AUDIO_S.
    audio.seconds().ceil() as u32
}

fn while_before(deadline: Option<Instant>) -> ControlFlow<()> {
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn fault(error: &GenerateError) -> EngineError {
    match error {
        GenerateError::EmptyPrompt | GenerateError::Template => EngineError::Malformed,
        GenerateError::Parameter("messages" | "prompt" | "input") => EngineError::Malformed,
        GenerateError::Parameter(name) => EngineError::Parameter(name),
        GenerateError::Schema(_) => EngineError::Parameter("json_schema"),
        GenerateError::PromptTooLong { prompt_tokens, context_tokens } => {
            EngineError::TooLong { given: count(*prompt_tokens), most: count(*context_tokens) }
        }
        _ => EngineError::Failed,
    }
}

fn serve_fault(error: &ServeError) -> EngineError {
    match error {
        ServeError::Generate(error) => fault(error),
        ServeError::TooLarge { needed_bytes, budget_bytes, .. } => {
            EngineError::TooLarge { needed_bytes: *needed_bytes as u64, budget_bytes: *budget_bytes as u64 }
        }
        ServeError::Busy { .. } => EngineError::Busy,
        ServeError::Deadline => EngineError::Deadline,
        _ => EngineError::Failed,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half done under it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One at a time, in the order in which they came; so many wait at most.
struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct TurnState {
    /// Of the next who comes.
    next: u64,
    /// Who wait or work, by number; the first works.
    queue: std::collections::BTreeSet<u64>,
}

/// Somebody's turn, until it is dropped.
struct TurnTaken<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Turns {
    fn new(most: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), most }
    }

    fn load(&self) -> EngineLoad {
        let waiting = lock(&self.state).queue.len();
        EngineLoad { running: u32::from(waiting > 0), waiting: count(waiting.saturating_sub(1)) }
    }

    /// Waits for a turn.
    fn take(&self, deadline: Option<Instant>) -> Result<TurnTaken<'_>, EngineError> {
        let mut state = lock(&self.state);
        if state.queue.len() > self.most {
            return Err(EngineError::Busy);
        }
        let number = state.next;
        state.next += 1;
        state.queue.insert(number);
        let turn = TurnTaken { turns: self, number };
        while state.queue.first() != Some(&number) {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        drop(state);
                        drop(turn);
                        return Err(EngineError::Deadline);
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(turn)
    }
}

impl Drop for TurnTaken<'_> {
    fn drop(&mut self) {
        lock(&self.turns.state).queue.remove(&self.number);
        self.turns.changed.notify_all();
    }
}

/// Beside the one that works.
const MAX_WAITING: usize = 64;
/// Memory assumed free where the system does not say.
const FREE_IF_UNKNOWN: u64 = 2 << 30;

#[cfg(test)]
mod tests;
