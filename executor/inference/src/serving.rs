//! Many requests on one model: their tokens go through it together, and every answer, to the bits of its logits, is the
//! one the request would have got alone.
//!
//! On the processor that holds because no sum in the model runs over more than one token's numbers in an order that
//! depends on the batch: not on the other requests, not on how a prompt is cut, not on where keys and values lie, whether
//! they were found or computed, now or again, nor on the number of threads. On a GPU the vendor's matrix products give
//! no such promise; there answers agree within the tolerance of an audit.
//!
//! # What one client can learn of another
//! Nothing from answers, as said. From time, two things. How busy the engine is: anybody who waits longer knows that
//! others are served. And, where prompts may be found computed, whether a prompt that begins with the same blocks of
//! tokens was computed before, since its first token comes sooner and its receipt counts tokens as found. [`Scope`] says who may find whose:
//! by default a client finds only what it sent itself. [`Scope::Everyone`] is for texts that are no secret, such as a
//! published system prompt: whoever guesses the text can find out that it was used. What is found are whole blocks of
//! 32 tokens from the start of a prompt on, keyed by a hash over all of them, the model and the scope.

mod blocks;
mod scheduler;
mod server;

use std::time::Instant;

use thiserror::Error;

use crate::engine::{GenerateParams, Generation, TokenLogprobs};
use crate::error::GenerateError;

pub use server::{Event, EventSink, Server, Stream, Ticket};

/// Bounds of a [`Server`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// For keys and values. A request that needs more is refused; several that together need more wait for each other.
    pub kv_bytes: usize,
    /// Tokens that go through the model at once, of prompts and answers together; raised to `running`. More is faster
    /// for prompts, fewer keeps the answers beside them coming.
    pub step_tokens: usize,
    /// Requests that are computed at once.
    pub running: usize,
    /// Requests that wait beside them; a further one is refused.
    pub waiting: usize,
    /// Threads of its own. None: those of the process.
    pub threads: Option<usize>,
}

impl ServeLimits {
    /// For a processor, with `kv_bytes` of keys and values.
    pub fn new(kv_bytes: usize) -> Self {
        Self { kv_bytes, step_tokens: 128, running: 32, waiting: 256, threads: None }
    }
}

/// Who may find what a request computed of its prompt and its answer, and whose work it may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Nobody.
    Nobody,
    /// Requests of the same [`ServeRequest::client`].
    #[default]
    Client,
    /// All requests that say so too. Others can find out that this prompt was used, if they know it.
    Everyone,
}

/// A request. Its `Debug` shows no text.
#[derive(Debug, Clone)]
pub struct ServeRequest {
    /// The tokens to answer to.
    pub prompt_ids: PromptIds,
    /// How.
    pub params: GenerateParams,
    /// Who asks. Clients take turns, and keep what they computed to themselves.
    pub client: [u8; 32],
    /// Who else may profit from what was computed.
    pub reuse_prefix: Scope,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

/// A prompt's tokens. Its `Debug` shows none; dropped, it is overwritten.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct PromptIds(Vec<u32>);

impl PromptIds {
    /// The tokens.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl From<Vec<u32>> for PromptIds {
    fn from(ids: Vec<u32>) -> Self {
        Self(ids)
    }
}

impl std::fmt::Debug for PromptIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromptIds").finish_non_exhaustive()
    }
}

impl ServeRequest {
    /// A request without a deadline whose prompt only its own client's later ones may find.
    pub fn new(prompt_ids: Vec<u32>, params: GenerateParams, client: [u8; 32]) -> Self {
        let prompt_ids = prompt_ids.into();
        Self { prompt_ids, params, client, reuse_prefix: Scope::Client, deadline: None }
    }
}

/// An answer and what it took. Its `Debug` shows no text.
#[derive(Debug)]
pub struct Served {
    /// The answer. Its times begin when the request left the queue.
    pub generation: Generation,
    /// Tokens of the prompt that had been computed before: the receipt's `cached_input`.
    pub cached_input_tokens: usize,
    /// Time in the queue.
    pub waited_ms: u64,
}

/// A piece of an answer. Its `Debug` shows no text.
pub struct Piece {
    /// The token; absent with text that had waited when the answer ended.
    pub id: Option<u32>,
    /// The text that became certain; may be empty.
    pub text: String,
    /// Of the token, where asked for.
    pub logprobs: Option<TokenLogprobs>,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").finish_non_exhaustive()
    }
}

/// What a [`Server`] is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServeLoad {
    /// Requests being computed.
    pub running: usize,
    /// Requests in the queue.
    pub waiting: usize,
    /// Bytes of keys and values that running requests hold.
    pub kv_bytes_in_use: usize,
    /// Bytes of keys and values in memory: those, and what may be found again.
    pub kv_bytes_held: usize,
    /// How often a request had to give up its blocks and start again, since the server started.
    pub preemptions: u64,
}

/// A request that is not served, or not to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The request is at fault, or the model failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Not even alone would it fit.
    #[error(
        "client: {tokens} tokens of prompt and answer need {needed_bytes} bytes for keys and values, and this engine has {budget_bytes}; ask for fewer tokens or use another worker"
    )]
    TooLarge {
        /// Of the prompt, and the most of the answer.
        tokens: usize,
        /// For their keys and values.
        needed_bytes: usize,
        /// What there is.
        budget_bytes: usize,
    },
    /// Too many wait already.
    #[error("worker: {waiting} requests wait already; try again later or use another worker")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The answer was not whole in time.
    #[error("client: the request's deadline passed before its answer was whole; allow more time")]
    Deadline,
    /// The server was shut down.
    #[error("worker: the engine was stopped; start it again")]
    Stopped,
    /// The budget holds nothing.
    #[error(
        "operator: {budget_bytes} bytes for keys and values do not hold one block of this model, {block_bytes} bytes; allow more"
    )]
    NoRoom {
        /// What was given.
        budget_bytes: usize,
        /// What a block takes.
        block_bytes: usize,
    },
    /// The system gives no threads.
    #[error("operator: the engine's threads cannot be started: {0}")]
    Threads(String),
}
