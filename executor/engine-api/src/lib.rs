//! What a worker asks of inference: one trait for all the work that the network sells.
//!
//! [`Engine`] is one loaded model. It says what it sells ([`EngineInfo`]), what a request takes before anything is done for
//! it ([`Engine::tokenize`], [`Engine::admit`], [`Engine::audio_seconds`]), and does it. Answers come piece by piece through
//! an [`AnswerStream`], which async code awaits and which needs no thread while it waits. Nothing here carries a prompt or
//! an answer in an error or in its `Debug`.

mod answer;
mod engine;
mod error;
mod request;

pub use answer::{
    AnswerSink, AnswerStream, FinishReason, Generated, Piece, TokenLogprobs, Usage, answer_channel,
};
pub use engine::{Engine, EngineInfo, EngineLoad, Work};
pub use error::EngineError;
pub use request::{
    ClientKey, EmbedRequest, Embedded, GenerateRequest, Prompt, Segment, TranscribeRequest, Transcription,
};
