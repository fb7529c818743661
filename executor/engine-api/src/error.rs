//! Why an engine does not answer.

use contracts::errors::RejectionReason;
use thiserror::Error;

/// The engine did not answer. Carries no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The conversation cannot be put to this model, or the recording cannot be read.
    #[error("client: the input is not one that this model takes")]
    Malformed,
    /// A parameter is out of range.
    #[error("client: the parameter {0} is out of range")]
    Parameter(&'static str),
    /// The input leaves no room for an answer, or is longer than the model takes.
    #[error("client: the input of {given} tokens or seconds is longer than the model's {most}; shorten it")]
    TooLong {
        /// Tokens of the prompt or text, or seconds of the recording.
        given: u32,
        /// What the model takes.
        most: u32,
    },
    /// Not even alone would it fit into the engine's memory.
    #[error(
        "client: prompt and answer need {needed_bytes} bytes of memory, and this engine has {budget_bytes}; ask for fewer tokens or use another worker"
    )]
    TooLarge {
        /// For keys and values.
        needed_bytes: u64,
        /// What there is.
        budget_bytes: u64,
    },
    /// This model does other work.
    #[error("client: the model does not do this kind of work; use another model")]
    Unsupported,
    /// Too many wait already.
    #[error("worker: too many requests wait already; try again later or use another worker")]
    Busy,
    /// The answer was not whole in time.
    #[error("client: the request's deadline passed before its answer was whole; allow more time")]
    Deadline,
    /// The caller broke off.
    #[error("client: the request was cancelled before its answer was whole")]
    Cancelled,
    /// The engine's own fault.
    #[error("worker: the engine failed; see its own log")]
    Failed,
}

impl EngineError {
    /// What the client of a job is told.
    pub fn reason(self) -> RejectionReason {
        match self {
            Self::Malformed | Self::Parameter(_) => RejectionReason::MalformedInput,
            Self::TooLong { .. } | Self::TooLarge { .. } => RejectionReason::PromptOverContext,
            Self::Unsupported => RejectionReason::ModelNotServed,
            Self::Busy | Self::Deadline | Self::Cancelled | Self::Failed => RejectionReason::EngineFailure,
        }
    }

    /// Whether the same request may be answered later.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Busy | Self::Failed)
    }
}
