//! What is asked, and the answers that come whole.

use std::fmt;
use std::time::Instant;

use contracts::sealing::ChatMessage;
use contracts::work::GenerateParams;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Who asks. Clients take turns, and only requests of one client profit from each other's computed prompts: on chain it is
/// the account of the client's wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(pub [u8; 32]);

/// What a text model is given. Its `Debug` shows no text.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub enum Prompt {
    /// A conversation, put as the model was trained to see it.
    Chat {
        /// Its turns, oldest first.
        messages: Vec<ChatMessage>,
        /// JSON text of the list of tools that the model may call, where its template takes them.
        tools: Option<String>,
    },
    /// A text to continue as it stands. The names of control tokens in it become those tokens.
    Text(String),
}

/// A request to a text model. Its `Debug` shows no text.
#[derive(Clone)]
pub struct GenerateRequest {
    /// The tokens to answer to, from [`crate::Engine::tokenize`].
    pub prompt_ids: Vec<u32>,
    /// How.
    pub params: GenerateParams,
    /// Who asks.
    pub client: ClientKey,
    /// Whether what is computed of the prompt may be found by later requests of the same client, and may be found already.
    pub reuse_prefix: bool,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

/// Texts to turn into vectors. Its `Debug` shows no text.
#[derive(Clone)]
pub struct EmbedRequest {
    /// Token ids of each text, from [`crate::Engine::tokenize_texts`].
    pub ids: Vec<Vec<u32>>,
    /// When the vectors are of no use any more.
    pub deadline: Option<Instant>,
}

/// The vectors. Its `Debug` shows no number.
#[derive(Clone, PartialEq)]
pub struct Embedded {
    /// `[texts][dimensions]`.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts, the model's own marks counted: what is billed as input.
    pub input_tokens: u32,
}

/// A recording to write down. Its `Debug` shows none of it.
#[derive(Clone)]
pub struct TranscribeRequest {
    /// A WAV file.
    pub audio: Vec<u8>,
    /// The language's code; found out where absent.
    pub language: Option<String>,
    /// Into English instead of the language that is spoken.
    pub translate: bool,
    /// When the text is of no use any more.
    pub deadline: Option<Instant>,
}

/// The text of a part of a recording. Its `Debug` shows no text.
#[derive(Clone, PartialEq)]
pub struct Segment {
    /// Where it begins, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
    /// Its tokens.
    pub output_ids: Vec<u32>,
    /// Its text.
    pub text: String,
}

/// The text of a recording. Its `Debug` shows no text.
#[derive(Clone, PartialEq)]
pub struct Transcription {
    /// All of it, without white space around it.
    pub text: String,
    /// Its parts.
    pub segments: Vec<Segment>,
    /// What was spoken.
    pub language: String,
    /// The recording's length in whole seconds, the last one begun counted: what is billed as input.
    pub audio_s: u32,
}

impl GenerateRequest {
    /// A request without a deadline, whose prompt later requests of the same client may find computed.
    pub fn new(prompt_ids: Vec<u32>, params: GenerateParams, client: ClientKey) -> Self {
        Self { prompt_ids, params, client, reuse_prefix: true, deadline: None }
    }
}

impl Prompt {
    /// A conversation without tools.
    pub fn chat(messages: Vec<ChatMessage>) -> Self {
        Self::Chat { messages, tools: None }
    }
}

impl Drop for GenerateRequest {
    fn drop(&mut self) {
        self.prompt_ids.zeroize();
    }
}

impl Drop for EmbedRequest {
    fn drop(&mut self) {
        self.ids.zeroize();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.vectors.zeroize();
    }
}

impl Drop for TranscribeRequest {
    fn drop(&mut self) {
        self.audio.zeroize();
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.output_ids.zeroize();
        self.text.zeroize();
    }
}

impl Drop for Transcription {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chat { .. } => "Chat(redacted)",
            Self::Text(_) => "Text(redacted)",
        })
    }
}

impl fmt::Debug for GenerateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateRequest")
            .field("prompt_tokens", &self.prompt_ids.len())
            .field("params", &self.params)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EmbedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedRequest").field("texts", &self.ids.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("input_tokens", &self.input_tokens).finish_non_exhaustive()
    }
}

impl fmt::Debug for TranscribeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TranscribeRequest").field("audio_bytes", &self.audio.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("start_s", &self.start_s).finish_non_exhaustive()
    }
}

impl fmt::Debug for Transcription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcription").field("audio_s", &self.audio_s).finish_non_exhaustive()
    }
}
