//! Sentence embeddings: a text becomes one vector, as sentence-transformers computes it.
//!
//! The directory is that of a sentence-transformers model: `modules.json` names a transformer, a pooling and perhaps a
//! normalisation, and `1_Pooling/config.json` says how tokens become one vector.

use std::fmt;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;
use zeroize::Zeroizing;

use crate::backend::{Device, build};
use crate::decoder::Multiply;
use crate::embedding_model::{Bert, Encoder};
use crate::error::{GenerateError, LoadError};
use crate::files::{ModelFiles, POOLING_FILE};
use crate::tokenizer_file::{self, guarded};

const MODULES_FILE: &str = "modules.json";
/// Bytes of one text, before it is cut into tokens.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Tokens that go through the layers together; a text is never cut. Part of no result.
const TOKENS_PER_STEP: usize = 4_096;

/// A model that turns texts into vectors.
pub struct Embedder {
    encoder: Box<dyn Encoder>,
    tokenizer: Tokenizer,
    info: EmbedderInfo,
    pooling: Pooling,
    normalised: bool,
}

/// What an embedder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedderInfo {
    /// `bert`.
    pub architecture: String,
    /// As its files call it.
    pub name: String,
    /// Tokens of one text, the model's own marks counted.
    pub max_tokens: usize,
    /// Numbers of a vector.
    pub dimensions: usize,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// The type of its matrices, coded as [`crate::ModelInfo::dtype`].
    pub dtype: u8,
    /// Where it runs.
    pub device: Device,
}

/// The vector of a text. Its `Debug` shows no number.
#[derive(Clone, PartialEq)]
pub struct Embedding {
    /// [`EmbedderInfo::dimensions`] numbers, of length 1 where the model normalises.
    pub vector: Vec<f32>,
    /// Tokens of the text, the model's own marks counted.
    pub tokens: usize,
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedding").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Embedder {
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
        let bert = Bert::load(files, multiply)?;
        let (pooling, normalised) = pooling(files, bert.shape.hidden)?;
        let mut tokenizer = tokenizer_file::load(files)?;
        tokenizer.with_truncation(None).map_err(|error| files.corrupt("tokenizer.json", error))?;
        tokenizer.with_padding(None);
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if highest as usize >= bert.shape.vocabulary {
            let detail =
                format!("its token {highest} is beyond the model's {} tokens", bert.shape.vocabulary);
            return Err(files.corrupt("tokenizer.json", detail));
        }
        let name = files.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
        let info = EmbedderInfo {
            architecture: "bert".into(),
            name,
            max_tokens: max_tokens(files, bert.shape.positions)?,
            dimensions: bert.shape.hidden,
            vocabulary: bert.shape.vocabulary,
            dtype: bert.dtype(),
            device,
        };
        Ok(Self { encoder: build(bert, device)?, tokenizer, info, pooling, normalised })
    }

    /// What was loaded.
    pub fn info(&self) -> &EmbedderInfo {
        &self.info
    }

    /// The token ids of a text, between the model's own marks. The names of control tokens in it become those tokens.
    ///
    /// # Errors
    /// [`GenerateError::Parameter`] for a text of more than 1 MiB; [`GenerateError::PromptTooLong`];
    /// [`GenerateError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(GenerateError::Parameter("input"));
        }
        let encoding = guarded(|| self.tokenizer.encode(text, true)).ok_or(GenerateError::Tokenizer)?;
        let ids = encoding.get_ids().to_vec();
        let context_tokens = self.info.max_tokens;
        if ids.len() > context_tokens {
            return Err(GenerateError::PromptTooLong { prompt_tokens: ids.len(), context_tokens });
        }
        Ok(ids)
    }

    /// The vectors of `texts`, in their order. Each is the same whatever the others are.
    ///
    /// # Errors
    /// As [`Embedder::tokenize`] for the first text at fault, before any is computed; [`GenerateError::Backend`].
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, GenerateError> {
        let ids: Vec<Zeroizing<Vec<u32>>> =
            texts.iter().map(|text| self.tokenize(text).map(Zeroizing::new)).collect::<Result<_, _>>()?;
        let ids: Vec<&[u32]> = ids.iter().map(|ids| ids.as_slice()).collect();
        self.embed_ids(&ids, &mut || ControlFlow::Continue(()))
    }

    /// The vectors of texts whose tokens are known, in their order. `on_step` is asked before each part of the work and may
    /// break off: the vectors are then fewer than the texts.
    ///
    /// # Errors
    /// [`GenerateError::EmptyPrompt`], [`GenerateError::PromptTooLong`], [`GenerateError::UnknownToken`] for the first text
    /// at fault, before any is computed; [`GenerateError::Backend`].
    pub fn embed_ids(
        &self,
        ids: &[&[u32]],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, GenerateError> {
        for text in ids {
            let (prompt_tokens, context_tokens) = (text.len(), self.info.max_tokens);
            if text.is_empty() {
                return Err(GenerateError::EmptyPrompt);
            }
            if prompt_tokens > context_tokens {
                return Err(GenerateError::PromptTooLong { prompt_tokens, context_tokens });
            }
            if let Some(unknown) = text.iter().find(|id| **id as usize >= self.info.vocabulary) {
                return Err(GenerateError::UnknownToken(*unknown));
            }
        }
        let mut embeddings = Vec::with_capacity(ids.len());
        let mut rest = ids;
        while !rest.is_empty() && on_step().is_continue() {
            let mut tokens = 0;
            let fits = rest.iter().take_while(|text| {
                tokens += text.len();
                tokens <= TOKENS_PER_STEP
            });
            let (step, after) = rest.split_at(fits.count().max(1));
            // Once into the thread pool, instead of once for every matrix.
            let rows = rayon::scope(|_| self.encoder.encode(step))?;
            for (text, rows) in step.iter().zip(rows) {
                let vector = self.pooled(&Zeroizing::new(rows)).ok_or(GenerateError::Backend)?;
                embeddings.push(Embedding { vector, tokens: text.len() });
            }
            rest = after;
        }
        Ok(embeddings)
    }

    /// One vector of a text's `[tokens, dimensions]`. `None` without a token.
    fn pooled(&self, rows: &[f32]) -> Option<Vec<f32>> {
        let dimensions = self.info.dimensions;
        let pooled: Vec<f64> = match self.pooling {
            Pooling::First => rows.get(..dimensions)?.iter().copied().map(f64::from).collect(),
            Pooling::Mean => {
                let mut sums = vec![0.0f64; dimensions];
                for row in rows.chunks_exact(dimensions) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                let tokens = (rows.len() / dimensions) as f64;
                (tokens > 0.0).then(|| sums.iter().map(|sum| sum / tokens).collect())?
            }
        };
        let length = if self.normalised {
            pooled.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12)
        } else {
            1.0
        };
        Some(pooled.into_iter().map(|value| (value / length) as f32).collect())
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    /// That of the first token, `[CLS]`.
    First,
    Mean,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

/// The pooling, and whether vectors are made of length 1.
fn pooling(files: &ModelFiles, hidden: usize) -> Result<(Pooling, bool), LoadError> {
    let unsupported = |what: &str| LoadError::Unsupported { what: what.into() };
    let file = files
        .find(MODULES_FILE)
        .ok_or_else(|| unsupported("a BERT without modules.json, which says how its vectors are pooled"))?;
    let modules: Vec<Module> =
        serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(MODULES_FILE, error))?;
    let kinds: Vec<&str> =
        modules.iter().map(|module| module.r#type.rsplit('.').next().unwrap_or_default()).collect();
    let normalised = match kinds[..] {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => {
            return Err(unsupported("modules other than Transformer, Pooling and Normalize in modules.json"));
        }
    };
    if format!("{}/config.json", modules[1].path) != POOLING_FILE {
        return Err(unsupported("a pooling whose path is not 1_Pooling"));
    }
    let file = files.find(POOLING_FILE).ok_or_else(|| files.corrupt(POOLING_FILE, "it is missing"))?;
    let config: Value =
        serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(POOLING_FILE, error))?;
    if config["word_embedding_dimension"].as_u64() != Some(hidden as u64) {
        return Err(files.corrupt(POOLING_FILE, "word_embedding_dimension is not the hidden size"));
    }
    let modes = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with("pooling_mode_") && value.as_bool() == Some(true));
    let modes: Vec<&str> = modes.map(|(key, _)| key.as_str()).collect();
    match modes[..] {
        ["pooling_mode_mean_tokens"] => Ok((Pooling::Mean, normalised)),
        ["pooling_mode_cls_token"] => Ok((Pooling::First, normalised)),
        _ => Err(unsupported("a pooling other than the mean or the first token's vector")),
    }
}

/// Tokens of one text: what the model was tuned for, where the files say so.
fn max_tokens(files: &ModelFiles, positions: usize) -> Result<usize, LoadError> {
    const FILE: &str = "sentence_bert_config.json";
    let Some(file) = files.find(FILE) else { return Ok(positions) };
    let config: Value = serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(FILE, error))?;
    match &config["max_seq_length"] {
        Value::Null => Ok(positions),
        value => match value.as_u64().and_then(|most| usize::try_from(most).ok()) {
            Some(most @ 1..) => Ok(most.min(positions)),
            _ => Err(files.corrupt(FILE, "max_seq_length is out of range")),
        },
    }
}
