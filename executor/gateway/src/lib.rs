//! An OpenAI-compatible gateway on the user's own machine. The API's requests are read in [`openai`], handed to a
//! [`Market`], and answered by [`http`].

pub mod http;
pub mod market;
mod metrics;
pub mod openai;
mod openapi;
mod prompt;

pub use market::Market;
