//! The OpenAI API's requests and answers, as pure functions. A parameter is honoured, or refused with its name; none is
//! dropped silently.

mod answer;
mod chat;
mod completions;
mod embeddings;
mod error;
mod reply;
pub mod responses;
mod sampling;
mod strict;
mod tools;

pub use chat::{ChatRequest, Format, Role, Turn};
pub use completions::CompletionRequest;
pub use embeddings::{EmbeddingsRequest, Encoding};
pub use error::{ApiError, ErrorKind};
pub use reply::{
    ChatChoice, ChatEnded, Head, chat_completion, chat_usage, completion, completion_choice, paid_json, usage,
};
pub use sampling::{Sampling, seed_of};
pub use tools::{Tool, ToolCall, ToolChoice};

pub(crate) use error::printable;
