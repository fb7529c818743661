//! A loaded model that answers.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::answer::{Answer, Next};
use crate::backend::{Device, place};
use crate::decoder::Multiply;
use crate::error::{GenerateError, LoadError};
use crate::files::ModelFiles;
use crate::gguf::{Gguf, TensorKind};
use crate::model::Model;
use crate::sampling::Sampling;
use crate::schema::JsonSchema;
use crate::text::{ChatMessage, Text};
use crate::weights::{FeedForwardWeights, GatedWeights, Weights};
use crate::{gguf_model, hugging_face};

/// Names the arithmetic: kernels, order of sums, prefill chunk, sampling. A receipt carries it.
pub const ENGINE_REVISION: u32 = 3;

/// Alternatives a request may ask to see for each token.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// A model ready to answer. One sequence at a time per call; calls may run side by side.
pub struct Engine {
    pub(crate) model: Box<dyn Model>,
    pub(crate) text: Text,
    device: Device,
    dtype: u8,
    /// A hash of its files and of how it runs: what was computed by another model is of no use here.
    pub(crate) fingerprint: [u8; 32],
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `llama`, `qwen3`, …
    pub architecture: String,
    /// As its files call it.
    pub name: String,
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// 0 f32, 1 bf16, 2 f16, 3 q8_0, 4 q4_0, 5 q4_1, 6 q5_0, 7 q5_1, 8 q4_k, 9 q5_k, 10 q6_k: the type of most
    /// numbers of the layers' matrices.
    pub dtype: u8,
    /// Where it runs.
    pub device: Device,
}

/// What a request asks. Its `Debug` shows no text.
#[derive(Clone, Default)]
pub struct GenerateParams {
    /// The most tokens of the answer.
    pub max_output_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer where they appear, and are not part of it. At most 16 of 1 to 256 bytes each.
    pub stop: Vec<String>,
    /// With the log-probability of each token and of this many alternatives, at most [`MAX_TOP_LOGPROBS`].
    pub top_logprobs: Option<usize>,
    /// What the answer's JSON must be. An answer that a limit or a stop string cuts short is only its beginning.
    pub json_schema: Option<JsonSchema>,
}

impl GenerateParams {
    /// The most likely token each time, at most `max_output_tokens` of them.
    pub fn greedy(max_output_tokens: usize) -> Self {
        Self { max_output_tokens, ..Self::default() }
    }
}

impl fmt::Debug for GenerateParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateParams")
            .field("max_output_tokens", &self.max_output_tokens)
            .field("sampling", &self.sampling)
            .field("stop_strings", &self.stop.len())
            .field("top_logprobs", &self.top_logprobs)
            .field("json_schema", &self.json_schema.is_some())
            .finish()
    }
}

/// A piece of an answer as it is made. Its `Debug` shows no text.
#[derive(Clone, Copy)]
pub struct TokenEvent<'a> {
    /// The token; absent with text that had waited when the answer ended.
    pub id: Option<u32>,
    /// The text that became certain; may be empty. All pieces together are the answer's text.
    pub text_piece: &'a str,
}

impl fmt::Debug for TokenEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEvent").finish_non_exhaustive()
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string.
    Stop,
    /// The limit of the request or of the context.
    Length,
    /// The caller's callback broke off.
    Cancelled,
}

/// How likely a token was to the model, before penalties and temperature. Its `Debug` shows no token.
#[derive(Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens and theirs, the most likely first.
    pub top: Vec<(u32, f32)>,
}

impl fmt::Debug for TokenLogprobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLogprobs").finish_non_exhaustive()
    }
}

/// An answer. Its `Debug` shows no text.
pub struct Generation {
    /// Its tokens: without the model's own end, with those of a stop string.
    pub output_ids: Vec<u32>,
    /// Its text: the tokens decoded, a character cut off at the end replaced, up to a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// One for each of `output_ids` where asked for, else none.
    pub logprobs: Vec<TokenLogprobs>,
    /// Time for the prompt.
    pub prefill_ms: u64,
    /// Time for the answer.
    pub decode_ms: u64,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("output_tokens", &self.output_ids.len())
            .field("finish_reason", &self.finish_reason)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Loads a model on the processor.
    ///
    /// # Errors
    /// [`LoadError`]: corrupt files or an unsupported model.
    pub fn load(files: &ModelFiles) -> Result<Self, LoadError> {
        Self::load_on(files, Device::Cpu, Device::Cpu.multiply())
    }

    /// Loads a model on `device`, multiplying weights as `multiply` says; [`Device::multiply`] says what suits it.
    ///
    /// # Errors
    /// [`LoadError`]: corrupt files, an unsupported model, or a device that is not there.
    pub fn load_on(files: &ModelFiles, device: Device, multiply: Multiply) -> Result<Self, LoadError> {
        let (shape, weights, text) = match files.gguf() {
            Some(file) => {
                let head = Gguf::parse(&file.bytes).map_err(|detail| files.corrupt("model.gguf", detail))?;
                let (shape, weights) = gguf_model::load(files, file, &head)?;
                (shape, weights, Text::from_gguf(files, &head)?)
            }
            None => {
                let (shape, weights) = hugging_face::load(files)?;
                (shape, weights, Text::from_hugging_face(files)?)
            }
        };
        let highest = text.tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if highest as usize >= shape.vocabulary {
            let detail = format!("its token {highest} is beyond the model's {} tokens", shape.vocabulary);
            return Err(files.corrupt("tokenizer.json", detail));
        }
        let dtype = dtype_of(&weights);
        let mut fingerprint = Sha256::new_with_prefix(b"chrysalis model 1");
        for file in files.files() {
            fingerprint.update(file.sha256);
        }
        fingerprint.update(format!("{ENGINE_REVISION} {device} {multiply:?}"));
        let fingerprint = fingerprint.finalize().into();
        Ok(Self { model: place(shape, weights, device, multiply)?, text, device, dtype, fingerprint })
    }

    /// What was loaded.
    pub fn info(&self) -> ModelInfo {
        let shape = self.model.shape();
        ModelInfo {
            architecture: shape.architecture.clone(),
            name: shape.name.clone(),
            context_length: shape.context,
            vocabulary: shape.vocabulary,
            dtype: self.dtype,
            device: self.device,
        }
    }

    /// The token ids of a conversation, up to the opening of the model's turn.
    ///
    /// # Errors
    /// [`GenerateError::Template`], [`GenerateError::Tokenizer`], [`GenerateError::Parameter`] beyond 16 MiB.
    pub fn tokenize_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, GenerateError> {
        self.text.prompt(messages)
    }

    /// The token ids of a text as it stands. The names of control tokens in it become those tokens.
    ///
    /// # Errors
    /// [`GenerateError::Tokenizer`], [`GenerateError::Parameter`] beyond 16 MiB.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        self.text.encode(text)
    }

    /// Answers. `on_token` sees each token as it is made and may break off.
    ///
    /// # Errors
    /// [`GenerateError`]; nothing was generated where the prompt or the parameters are at fault.
    pub fn generate(
        &self,
        prompt_ids: &[u32],
        params: &GenerateParams,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, GenerateError> {
        let most = self.most_output_tokens(prompt_ids, params)?;
        let constraint = Answer::constraint(&self.text, params)?;
        let mut answer = Answer::new(&self.text, prompt_ids, params, constraint, most)?;
        let began = Instant::now();
        let mut sequence = self.model.sequence();
        let mut logits = sequence.step(prompt_ids)?;
        let prefill_ms = elapsed_ms(began);
        let began = Instant::now();
        let mut finished = (most == 0).then_some(FinishReason::Length);
        while finished.is_none() {
            match answer.choose(&logits)? {
                Next::End => finished = Some(FinishReason::Stop),
                Next::Token { id, piece, finished: ended } => {
                    finished = ended;
                    if on_token(TokenEvent { id: Some(id), text_piece: &piece }).is_break() {
                        finished = Some(FinishReason::Cancelled);
                    }
                    if finished.is_none() {
                        logits = sequence.step(&[id])?;
                    }
                }
            }
        }
        let (mut generation, rest) = answer.finish(finished.unwrap_or(FinishReason::Length))?;
        // Nothing can be broken off any more.
        if !rest.is_empty() && generation.finish_reason != FinishReason::Cancelled {
            let _ = on_token(TokenEvent { id: None, text_piece: &rest });
        }
        (generation.prefill_ms, generation.decode_ms) = (prefill_ms, elapsed_ms(began));
        Ok(generation)
    }

    /// The logits after every token of `ids`, `[ids][vocabulary]`.
    ///
    /// # Errors
    /// [`GenerateError::UnknownToken`], [`GenerateError::Backend`].
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, GenerateError> {
        let mut rows = Vec::new();
        self.model.sequence().append(ids, 0, &mut |_, logits| {
            rows.push(logits.to_vec());
            Ok(())
        })?;
        Ok(rows)
    }

    /// Checks a request and returns how many tokens its answer may have.
    pub(crate) fn most_output_tokens(
        &self,
        prompt_ids: &[u32],
        params: &GenerateParams,
    ) -> Result<usize, GenerateError> {
        let context_tokens = self.model.shape().context;
        if prompt_ids.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt_ids.len() >= context_tokens {
            return Err(GenerateError::PromptTooLong { prompt_tokens: prompt_ids.len(), context_tokens });
        }
        params.sampling.check()?;
        if params.top_logprobs.is_some_and(|alternatives| alternatives > MAX_TOP_LOGPROBS) {
            return Err(GenerateError::Parameter("top_logprobs"));
        }
        Ok(params.max_output_tokens.min(context_tokens - prompt_ids.len()))
    }
}

/// The type of most numbers of the layers' matrices, as [`ModelInfo::dtype`] codes it.
fn dtype_of(weights: &Weights) -> u8 {
    let mut numbers = [0usize; 11];
    let mut count = |matrix: &crate::matrix::Matrix| {
        let code = match matrix.kind() {
            TensorKind::F32 | TensorKind::Other(_) => 0,
            TensorKind::Bf16 => 1,
            TensorKind::F16 => 2,
            TensorKind::Q8_0 => 3,
            TensorKind::Q4_0 => 4,
            TensorKind::Q4_1 => 5,
            TensorKind::Q5_0 => 6,
            TensorKind::Q5_1 => 7,
            TensorKind::Q4K => 8,
            TensorKind::Q5K => 9,
            TensorKind::Q6K => 10,
        };
        numbers[code] += matrix.rows() * matrix.columns();
    };
    for layer in &weights.layers {
        for projection in [&layer.q, &layer.k, &layer.v, &layer.o] {
            count(&projection.matrix);
        }
        let gated = match &layer.feed_forward {
            FeedForwardWeights::Dense(gated) => std::slice::from_ref(gated),
            FeedForwardWeights::Sparse { experts, .. } => experts,
        };
        for GatedWeights { gate, up, down } in gated {
            [gate, up, down].into_iter().for_each(&mut count);
        }
    }
    let most = (0u8..).zip(numbers).max_by_key(|(code, count)| (*count, std::cmp::Reverse(*code)));
    most.map_or(0, |(code, _)| code)
}

impl TokenLogprobs {
    /// Those of `id`, and the `alternatives` most likely.
    pub(crate) fn of(logits: &[f32], id: u32, alternatives: usize) -> Self {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let whole = logits
            .iter()
            .filter(|logit| !logit.is_nan())
            .map(|logit| f64::from(logit - most).exp())
            .sum::<f64>();
        let logprob = |logit: f32| (f64::from(logit - most) - whole.ln()) as f32;
        let mut order: Vec<(u32, f32)> =
            (0u32..).zip(logits.iter().copied()).filter(|(_, logit)| !logit.is_nan()).collect();
        let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if alternatives > 0 && alternatives < order.len() {
            order.select_nth_unstable_by(alternatives - 1, descending);
        }
        order.truncate(alternatives);
        order.sort_unstable_by(descending);
        Self {
            logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| logprob(*logit)),
            top: order.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
        }
    }
}

pub(crate) fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
