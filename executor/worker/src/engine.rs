//! What the daemon asks of inference.

use contracts::HashBytes;
use contracts::errors::RejectionReason;
use contracts::receipt::Dtype;
use contracts::sealing::{ChatMessage, FinishReason};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// One loaded model. Calls block, and several may run at once on different threads.
pub trait Engine: Send + Sync + 'static {
    /// What is loaded.
    fn info(&self) -> EngineInfo;

    /// The token ids of a conversation, up to the opening of the model's turn.
    ///
    /// # Errors
    /// [`EngineError`]; it carries no text of the conversation.
    fn tokenize(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, EngineError>;

    /// Answers greedily with at most `max_output_tokens`. `on_text` gets each piece of text as it is made; a `false`
    /// from it breaks off with [`EngineError::Cancelled`].
    ///
    /// # Errors
    /// [`EngineError`]; it carries no text.
    fn generate(
        &self,
        prompt_ids: &[u32],
        max_output_tokens: u32,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError>;
}

/// What an engine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineInfo {
    /// Hash of the weights manifest.
    pub model_id: HashBytes,
    /// Kernel revision.
    pub engine: u32,
    /// Number format of the weights.
    pub dtype: Dtype,
    /// Tokens of prompt and answer together.
    pub context_tokens: u32,
}

/// An answer; wiped on drop, and without `Debug`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Generated {
    /// Its text.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub output_ids: Vec<u32>,
    /// Why it ended.
    #[zeroize(skip)]
    pub finish_reason: FinishReason,
}

/// The engine could not answer. Carries no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The messages cannot be put to this model.
    #[error("client: the conversation is not one that this model's template takes")]
    Malformed,
    /// The prompt leaves no room for an answer.
    #[error("client: the prompt is longer than the context")]
    TooLong,
    /// The caller broke off.
    #[error("worker: the job ended before its answer")]
    Cancelled,
    /// The engine's own fault.
    #[error("worker: the engine failed; see its own log")]
    Failed,
}

impl EngineError {
    /// What the client is told.
    pub fn reason(self) -> RejectionReason {
        match self {
            Self::Malformed => RejectionReason::MalformedInput,
            Self::TooLong => RejectionReason::PromptOverContext,
            Self::Cancelled | Self::Failed => RejectionReason::EngineFailure,
        }
    }
}
