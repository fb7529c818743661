//! What can go wrong with a model's files and with a request. No error carries a prompt or an answer.

use std::path::PathBuf;

use thiserror::Error;

use crate::schema::SchemaError;

/// The files are at fault, or what they ask for is not built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("model files: cannot read {path}: {source}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Neither a GGUF file nor a directory with a `config.json`.
    #[error("model files: {0} is neither a .gguf file nor a directory with config.json and *.safetensors")]
    NotAModel(PathBuf),
    /// A file is truncated or not what it says it is.
    #[error("model files: {path} is corrupt: {detail}; fetch it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A correct file of a kind this engine does not run.
    #[error(
        "model files: {what} is not supported; this engine runs Llama, Mistral, Qwen2, Qwen3, Qwen3-MoE and Gemma 1 to 3 in F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K, and BERT and Whisper in F32, F16 and BF16"
    )]
    Unsupported {
        /// What is not.
        what: String,
    },
    /// No device goes by this name.
    #[error("operator: {name:?} names no device; use cpu, cuda, cuda:NUMBER or wgpu")]
    UnknownDevice {
        /// What was given.
        name: String,
    },
    /// The device cannot be used.
    #[error("operator: the device {device} cannot be used: {reason}")]
    Device {
        /// Which.
        device: String,
        /// Why not.
        reason: String,
    },
}

/// A request cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The prompt has no token.
    #[error("client: the prompt is empty")]
    EmptyPrompt,
    /// Prompt and answer do not fit into the context.
    #[error("client: {prompt_tokens} prompt tokens do not fit into a context of {context_tokens}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// The model's context.
        context_tokens: usize,
    },
    /// A parameter out of range, by its name.
    #[error("client: the parameter {0} is out of range")]
    Parameter(&'static str),
    /// An answer cannot be held to the JSON schema.
    #[error("client: the JSON schema cannot be followed: {0}")]
    Schema(#[from] SchemaError),
    /// A token id outside the vocabulary.
    #[error("caller: token {0} is outside the vocabulary")]
    UnknownToken(u32),
    /// The chat template refused the messages.
    #[error("client: the model's chat template refuses these messages")]
    Template,
    /// The tokenizer failed.
    #[error("engine: the tokenizer failed")]
    Tokenizer,
    /// A tensor came back in another shape or type than it went in.
    #[error("engine: the backend returned an unusable tensor")]
    Backend,
}
