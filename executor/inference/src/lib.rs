//! Models on burn. Text generation: GGUF and safetensors loading, tokenizers, chat templates, decoders of the Llama, Qwen
//! and Gemma families, sampling, answers held to a JSON schema, and the audit of an answer. Sentence embeddings by BERT,
//! speech to text by Whisper.
//!
//! [`ModelFiles`] reads and hashes; [`Engine`] answers, [`Embedder`] embeds, [`Transcriber`] transcribes. Nothing
//! here logs; no error, no `Debug` carries a prompt or an answer.

mod aligned;
mod answer;
mod attention;
mod audio;
mod audio_mel;
mod audit;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod ctranslate2;
mod decoder;
mod elements;
mod embedding;
mod embedding_model;
mod engine;
mod error;
mod family;
mod files;
mod gguf;
mod gguf_model;
mod host;
mod hugging_face;
mod layers;
mod matrix;
mod model;
mod philox;
mod sampling;
mod schema;
mod schema_tokens;
mod serving;
mod shape;
mod stop;
mod team;
mod template;
mod tensor_cache;
mod text;
mod tokenizer_file;
mod vocabulary;
mod weights;
mod whisper;
mod whisper_files;
mod whisper_model;
#[cfg(target_arch = "x86_64")]
mod wide;

pub use audio::{Audio, AudioError, MAX_AUDIO_S, SAMPLES_PER_S};
pub use audit::{AuditVerdict, Departure, Ending};
pub use backend::Device;
pub use decoder::Multiply;
pub use embedding::{Embedder, EmbedderInfo, Embedding};
pub use engine::{
    ENGINE_REVISION, Engine, FinishReason, GenerateParams, Generation, MAX_TOP_LOGPROBS, ModelInfo,
    TokenEvent, TokenLogprobs,
};
pub use error::{GenerateError, LoadError};
pub use files::{ModelFile, ModelFiles, ModelKind};
pub use sampling::Sampling;
pub use schema::{JsonSchema, SchemaError};
pub use serving::{
    Event, EventSink, Piece, PromptIds, Scope, ServeError, ServeLimits, ServeLoad, ServeRequest, Served,
    Server, Stream, Ticket,
};
pub use template::{isolate_templates, render_in_child};
pub use text::{ChatMessage, Turn};
pub use whisper::{Segment, TranscribeParams, Transcriber, TranscriberInfo, Transcript};
