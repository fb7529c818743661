//! A loaded model that answers.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use burn_flex::{Flex, FlexDevice};
use burn_tensor::backend::Backend;

use crate::error::{GenerateError, LoadError};
use crate::files::ModelFiles;
use crate::gguf::{Gguf, TensorKind};
use crate::llama::{Llama, Multiply};
use crate::text::{ChatMessage, Text};
use crate::weights;

/// Names the arithmetic: kernels, order of sums, prefill chunk. A receipt carries it.
pub const ENGINE_REVISION: u32 = 1;

/// The default backend: burn's portable CPU backend.
pub type Cpu = Flex;

/// A model ready to answer on backend `B`. One sequence at a time per call; calls may run side by side.
pub struct Engine<B: Backend = Cpu> {
    model: Llama<B>,
    text: Text,
    dtype: u8,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `llama`.
    pub architecture: String,
    /// As its files call it.
    pub name: String,
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// 0 f32, 1 bf16, 2 f16, 3 q8_0, 4 q4_0, 5 q4_1: the type of the layers' matrices.
    pub dtype: u8,
}

/// What a request asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerateParams {
    /// The most tokens of the answer.
    pub max_output_tokens: usize,
}

/// One token of an answer as it is made. Its `Debug` shows no text.
#[derive(Clone, Copy)]
pub struct TokenEvent<'a> {
    /// The token.
    pub id: u32,
    /// The text that became whole with it; may be empty.
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
    /// The model ended it.
    Stop,
    /// The limit of the request or of the context.
    Length,
    /// The caller's callback broke off.
    Cancelled,
}

/// An answer. Its `Debug` shows no text.
pub struct Generation {
    /// Its tokens, without the one that ended it.
    pub output_ids: Vec<u32>,
    /// Its text: the tokens decoded, a character cut off at the end replaced.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
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

impl Engine<Cpu> {
    /// Loads a model on the CPU with the stored-weight kernels.
    ///
    /// # Errors
    /// [`LoadError`]: corrupt files or an unsupported model.
    pub fn load(files: &ModelFiles) -> Result<Self, LoadError> {
        Self::load_on(files, Multiply::Stored, FlexDevice)
    }
}

impl<B: Backend> Engine<B> {
    /// Loads a model on a device of backend `B`.
    ///
    /// # Errors
    /// [`LoadError`]: corrupt files or an unsupported model.
    pub fn load_on(files: &ModelFiles, multiply: Multiply, device: B::Device) -> Result<Self, LoadError> {
        let (shape, weights, text) = match files.gguf() {
            Some(file) => {
                let head = Gguf::parse(&file.bytes).map_err(|detail| files.corrupt("model.gguf", detail))?;
                let (shape, weights) = weights::from_gguf(files, file, &head)?;
                (shape, weights, Text::from_gguf(files, &head)?)
            }
            None => {
                let (shape, weights) = weights::from_safetensors(files)?;
                (shape, weights, Text::from_hugging_face(files)?)
            }
        };
        if text.tokenizer.get_vocab_size(true) > shape.vocabulary {
            return Err(files.corrupt("tokenizer.json", "it has more tokens than the model"));
        }
        let kind = weights.layers.first().map_or(TensorKind::F32, |layer| layer.down.kind());
        let dtype = match kind {
            TensorKind::F32 | TensorKind::Other(_) => 0,
            TensorKind::Bf16 => 1,
            TensorKind::F16 => 2,
            TensorKind::Q8_0 => 3,
            TensorKind::Q4_0 => 4,
            TensorKind::Q4_1 => 5,
        };
        Ok(Self { model: Llama::new(shape, weights, multiply, device), text, dtype })
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
        }
    }

    /// The token ids of a conversation, up to the opening of the model's turn.
    ///
    /// # Errors
    /// [`GenerateError::Template`], [`GenerateError::Tokenizer`].
    pub fn tokenize_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, GenerateError> {
        self.text.prompt(messages)
    }

    /// The token ids of a text as it stands. The names of control tokens in it become those tokens.
    ///
    /// # Errors
    /// [`GenerateError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        self.text.encode(text)
    }

    /// Answers greedily: the most likely token each time, the lowest id among equals. `on_token` sees each token as
    /// it is made and may break off.
    ///
    /// # Errors
    /// [`GenerateError`]; nothing was generated where the prompt is at fault.
    pub fn generate(
        &self,
        prompt_ids: &[u32],
        params: GenerateParams,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, GenerateError> {
        let context_tokens = self.model.shape().context;
        if prompt_ids.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt_ids.len() >= context_tokens {
            return Err(GenerateError::PromptTooLong { prompt_tokens: prompt_ids.len(), context_tokens });
        }
        let most = params.max_output_tokens.min(context_tokens - prompt_ids.len());
        let began = Instant::now();
        let mut cache = self.model.empty_cache();
        let mut logits = self.model.step(prompt_ids, &mut cache)?;
        let prefill_ms = elapsed_ms(began);
        let began = Instant::now();
        let mut stream = self.text.stream();
        let mut output_ids = Vec::new();
        let mut text = String::new();
        let mut finish_reason = FinishReason::Length;
        while output_ids.len() < most {
            let id = most_likely(&logits).ok_or(GenerateError::Backend)?;
            if self.text.stop_ids.contains(&id) {
                finish_reason = FinishReason::Stop;
                break;
            }
            output_ids.push(id);
            let mut piece = stream.push(id)?;
            if output_ids.len() == most {
                piece.push_str(&stream.finish()?);
            }
            text.push_str(&piece);
            if on_token(TokenEvent { id, text_piece: &piece }).is_break() {
                finish_reason = FinishReason::Cancelled;
                break;
            }
            if output_ids.len() < most && cache.tokens() < context_tokens {
                logits = self.model.step(&[id], &mut cache)?;
            }
        }
        text.push_str(&stream.finish()?);
        Ok(Generation { output_ids, text, finish_reason, prefill_ms, decode_ms: elapsed_ms(began) })
    }

    /// The logits after every token of `ids`, `[ids][vocabulary]`.
    ///
    /// # Errors
    /// [`GenerateError::UnknownToken`], [`GenerateError::Backend`].
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, GenerateError> {
        self.model.all_logits(ids)
    }
}

fn most_likely(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (id, logit) in logits.iter().enumerate() {
        if !logit.is_nan() && best.is_none_or(|(_, most)| *logit > most) {
            best = Some((id, *logit));
        }
    }
    best.and_then(|(id, _)| u32::try_from(id).ok())
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
