//! Text generation on burn: GGUF and safetensors loading, tokenizer, chat template, Llama family.
//!
//! [`ModelFiles`] reads and hashes, [`Engine`] loads and answers. Nothing here logs; no error, no `Debug` carries a
//! prompt or an answer.

mod engine;
mod error;
mod files;
mod gguf;
mod llama;
mod matrix;
mod text;
mod weights;
#[cfg(target_arch = "x86_64")]
mod wide;

pub use engine::{
    Cpu, ENGINE_REVISION, Engine, FinishReason, GenerateParams, Generation, ModelInfo, TokenEvent,
};
pub use error::{GenerateError, LoadError};
pub use files::{ModelFile, ModelFiles};
pub use llama::Multiply;
pub use text::ChatMessage;
