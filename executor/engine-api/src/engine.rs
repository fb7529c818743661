//! A loaded model.

use contracts::HashBytes;
use contracts::model::Unit;
use contracts::receipt::Dtype;
use contracts::work::GenerateParams;

use crate::answer::AnswerStream;
use crate::error::EngineError;
use crate::request::{
    EmbedRequest, Embedded, GenerateRequest, Prompt, Segment, TranscribeRequest, Transcription,
};

/// One loaded model, shared by all who ask it. A kind of work that it does not do is [`EngineError::Unsupported`].
///
/// Methods block for as long as they say. Only those that return at once may be called from async code directly; the others
/// belong on a thread for blocking work.
pub trait Engine: Send + Sync + 'static {
    /// What is loaded. Returns at once.
    fn info(&self) -> &EngineInfo;

    /// What it is busy with. Returns at once.
    fn load(&self) -> EngineLoad {
        EngineLoad::default()
    }

    /// Whether a request for text of this size and with these parameters can be answered at all, whatever else runs: to be
    /// asked before work is claimed or promised. May take a second to understand a JSON schema, else returns at once.
    ///
    /// # Errors
    /// [`EngineError::TooLong`], [`EngineError::TooLarge`], [`EngineError::Parameter`], [`EngineError::Unsupported`].
    fn admit(&self, _prompt_tokens: u32, _params: &GenerateParams) -> Result<(), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// The token ids of a prompt; a conversation's up to the opening of the model's turn. Blocks, milliseconds as a rule.
    ///
    /// # Errors
    /// [`EngineError::Malformed`], [`EngineError::TooLong`], [`EngineError::Unsupported`], [`EngineError::Failed`].
    fn tokenize(&self, _prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        Err(EngineError::Unsupported)
    }

    /// The text of one token, as a list of likely tokens shows it: what is no whole character is replaced. Returns at once.
    fn token_text(&self, _id: u32) -> String {
        String::new()
    }

    /// Queues a request and returns the answer to come. Returns at once, but for a JSON schema, which may take a second to
    /// be understood.
    ///
    /// # Errors
    /// At once, for a request that is not taken: [`EngineError::Busy`], and what is wrong with it. Whatever comes later ends
    /// the stream.
    fn generate(&self, _request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        Err(EngineError::Unsupported)
    }

    /// The token ids of each text, as [`Engine::embed`] takes them. Blocks, milliseconds as a rule.
    ///
    /// # Errors
    /// [`EngineError::TooLong`] for a text longer than the model takes, [`EngineError::Unsupported`],
    /// [`EngineError::Failed`].
    fn tokenize_texts(&self, _texts: &[String]) -> Result<Vec<Vec<u32>>, EngineError> {
        Err(EngineError::Unsupported)
    }

    /// The vector of each text. Blocks.
    ///
    /// # Errors
    /// [`EngineError::TooLong`], [`EngineError::Busy`], [`EngineError::Deadline`], [`EngineError::Unsupported`],
    /// [`EngineError::Failed`].
    fn embed(&self, _request: &EmbedRequest) -> Result<Embedded, EngineError> {
        Err(EngineError::Unsupported)
    }

    /// How long a recording is, in whole seconds, the last one begun counted: what it costs. Blocks, milliseconds as a rule.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] for what is no recording this engine reads, [`EngineError::TooLong`],
    /// [`EngineError::Unsupported`].
    fn audio_seconds(&self, _audio: &[u8]) -> Result<u32, EngineError> {
        Err(EngineError::Unsupported)
    }

    /// The text of a recording. `on_segment` sees each piece as it is there; a `false` from it breaks off with
    /// [`EngineError::Cancelled`]. Blocks, for a fraction of the recording's length.
    ///
    /// # Errors
    /// As [`Engine::audio_seconds`], [`EngineError::Parameter`], [`EngineError::Busy`], [`EngineError::Deadline`],
    /// [`EngineError::Cancelled`].
    fn transcribe(
        &self,
        _request: &TranscribeRequest,
        _on_segment: &mut dyn FnMut(&Segment) -> bool,
    ) -> Result<Transcription, EngineError> {
        Err(EngineError::Unsupported)
    }
}

/// What an engine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Hash of the weights manifest.
    pub model_id: HashBytes,
    /// As the model's files call it; for people.
    pub name: String,
    /// Kernel revision.
    pub engine: u32,
    /// Number format of most of the weights.
    pub dtype: Dtype,
    /// What it does.
    pub work: Work,
    /// Text: tokens of prompt and answer together. Embeddings: tokens of one text. Transcription: 0.
    pub context_tokens: u32,
    /// Token ids are below this.
    pub vocabulary: u32,
}

/// The kind of work a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Answers conversations and continues texts.
    Text,
    /// Turns texts into vectors.
    Embeddings {
        /// Numbers of a vector.
        dimensions: u32,
    },
    /// Writes down speech.
    Transcription {
        /// The longest recording, in seconds.
        max_audio_s: u32,
    },
}

impl Work {
    /// What it is sold by.
    pub fn unit(self) -> Unit {
        match self {
            Self::Text | Self::Embeddings { .. } => Unit::Token,
            Self::Transcription { .. } => Unit::AudioSecond,
        }
    }
}

/// What an engine is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineLoad {
    /// Requests being computed.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
}
