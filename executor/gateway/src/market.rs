//! What the HTTP side asks of the market: models on sale, and work done for pay. One trait, so that handlers know
//! nothing of chains, sessions or TLS.

use async_trait::async_trait;
use contracts::{HashBytes, Nanoton, Prices};
use session::message::FinishReason;
use session::work::{Chat, Completion, Transcription};
use tokio::sync::mpsc;

use crate::openai::ApiError;

/// Sellers of inference.
#[async_trait]
pub trait Market: Send + Sync + 'static {
    /// Models with at least one worker that the user's policy accepts.
    ///
    /// # Errors
    /// [`ApiError`] where the chain cannot be read.
    async fn models(&self) -> Result<Vec<ModelOnSale>, ApiError>;

    /// Has a text made. Returns once a worker has accepted; pieces follow. Dropping the answer cancels it.
    ///
    /// # Errors
    /// [`ApiError`]; nothing was paid.
    async fn generate(&self, model: &str, work: TextWork) -> Result<Answer, ApiError>;

    /// Has texts turned into vectors.
    ///
    /// # Errors
    /// [`ApiError`]; nothing was paid.
    async fn embed(&self, model: &str, texts: Vec<String>) -> Result<Embedded, ApiError>;

    /// Has a recording written down.
    ///
    /// # Errors
    /// [`ApiError`]; nothing was paid.
    async fn transcribe(&self, model: &str, recording: Transcription) -> Result<Transcribed, ApiError>;
}

/// A model that can be had now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOnSale {
    /// What a request may call it; no two are equal.
    pub name: String,
    /// Hash of its weights manifest.
    pub model_id: HashBytes,
    /// As its publisher says; empty where unknown.
    pub licence: String,
    /// Tokens of prompt and answer together; 0 for other work than text.
    pub context_tokens: u32,
    /// When it was registered, Unix seconds.
    pub registered_at_s: u64,
    /// Its publisher's address.
    pub publisher: String,
    /// How many acceptable workers sell it.
    pub workers: u32,
    /// The cheapest of them, nanoTON per 1 000 units.
    pub prices: Prices,
}

/// A text to be made.
pub enum TextWork {
    /// The next turn of a conversation.
    Chat(Chat),
    /// The continuation of a text.
    Completion(Completion),
}

/// An answer as it comes.
pub struct Answer {
    /// Pieces, then one [`AnswerEvent::Done`] or [`AnswerEvent::Failed`].
    pub events: mpsc::Receiver<AnswerEvent>,
}

/// A step of an answer. Without `Debug`.
pub enum AnswerEvent {
    /// More text.
    Piece(TextPiece),
    /// The end, verified and paid.
    Done(Done),
    /// The end, with what was wrong. What was made until then may have been paid.
    Failed(ApiError),
}

/// Some text of an answer.
pub struct TextPiece {
    /// May be empty.
    pub text: String,
    /// Of the tokens that were chosen since the piece before, where asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// How likely a token was.
#[derive(Clone)]
pub struct TokenLogprob {
    /// Its bytes, which need not be whole characters.
    pub token: Vec<u8>,
    /// Natural logarithm.
    pub logprob: f32,
    /// The most likely tokens, the most likely first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// What an answer took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens, as the receipt states them.
    pub usage: Usage,
    /// What it cost.
    pub paid: Paid,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the prompt, those found in a cache included.
    pub prompt_tokens: u64,
    /// Those found.
    pub cached_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
}

/// To whom how much went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// The worker's address.
    pub worker: String,
    /// The session's.
    pub session: String,
    /// What this request added to the session's receipt.
    pub amount: Nanoton,
}

/// Vectors.
pub struct Embedded {
    /// One for each text.
    pub vectors: Vec<Vec<f32>>,
    /// Of all texts.
    pub prompt_tokens: u64,
    /// What it cost.
    pub paid: Paid,
}

/// A written-down recording. Without `Debug`.
pub struct Transcribed {
    /// All of it.
    pub text: String,
    /// What was spoken.
    pub language: String,
    /// Begin and end in seconds, and text, of each part.
    pub segments: Vec<(f64, f64, String)>,
    /// Billed length.
    pub audio_s: u32,
    /// What it cost.
    pub paid: Paid,
}
