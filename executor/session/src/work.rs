//! What is asked for, with every parameter in one form. No `Debug` here shows text, and all of it is wiped on drop.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contracts::HashBytes;
use contracts::work::{GenerateParams, Sampling, embeddings_digest, transcription_digest};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// One request's work.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The next turn of a conversation.
    Chat(Chat),
    /// The continuation of a text.
    Completion(Completion),
    /// Texts to vectors.
    Embeddings(Embeddings),
    /// Speech to text.
    Transcription(Transcription),
}

/// Kinds of [`Work`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// [`Work::Chat`].
    Chat,
    /// [`Work::Completion`].
    Completion,
    /// [`Work::Embeddings`].
    Embeddings,
    /// [`Work::Transcription`].
    Transcription,
}

impl Work {
    /// Which.
    pub fn kind(&self) -> WorkKind {
        match self {
            Self::Chat(_) => WorkKind::Chat,
            Self::Completion(_) => WorkKind::Completion,
            Self::Embeddings(_) => WorkKind::Embeddings,
            Self::Transcription(_) => WorkKind::Transcription,
        }
    }

    /// What a transcript commits to of how it was asked. `limit` is that of the answer's `done`; `tokens_of_texts` are
    /// those of embeddings.
    pub fn params_digest(&self, limit: u32, tokens_of_texts: &[u32]) -> HashBytes {
        match self {
            Self::Chat(Chat { params, .. }) | Self::Completion(Completion { params, .. }) => {
                params.generate(limit).digest()
            }
            Self::Embeddings(_) => embeddings_digest(tokens_of_texts),
            Self::Transcription(work) => {
                transcription_digest(&work.audio, work.language.as_deref(), work.translate)
            }
        }
    }
}

/// A conversation and how to answer it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// In order; the last is the one to answer.
    pub messages: Vec<ChatMessage>,
    /// Tools that the model may call, as the template of the model takes them (OpenAI's `tools`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Json>,
    /// How.
    pub params: Params,
}

impl Chat {
    /// The turns as a model's template takes them.
    pub fn turns(&self) -> Vec<contracts::sealing::ChatMessage> {
        let turn = |message: &ChatMessage| {
            let mut turn = contracts::sealing::ChatMessage::new(&message.role, &message.content);
            turn.name = message.name.clone();
            turn.tool_call_id = message.tool_call_id.clone();
            turn.tool_calls = match message.tool_calls.is_empty() {
                true => None,
                false => {
                    let calls = message.tool_calls.iter().map(ToolCall::to_json).collect();
                    Some(Json(Value::Array(calls)).text())
                }
            };
            turn
        };
        self.messages.iter().map(turn).collect()
    }

    /// JSON text of the list of tools.
    pub fn tools_text(&self) -> Option<String> {
        if self.tools.is_empty() {
            return None;
        }
        let tools = self.tools.iter().map(|tool| tool.0.clone()).collect();
        Some(Json(Value::Array(tools)).text())
    }
}

impl ToolCall {
    /// As OpenAI has it, with the arguments as JSON where they are.
    fn to_json(&self) -> Value {
        let arguments = serde_json::from_str(&self.arguments);
        let arguments = arguments.unwrap_or_else(|_| Value::String(self.arguments.clone()));
        json!({
            "id": self.id,
            "type": "function",
            "function": { "name": self.name, "arguments": arguments },
        })
    }
}

/// One turn of a conversation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What was said; empty where only tools were called.
    #[serde(default)]
    pub content: String,
    /// Who said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of an assistant's turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's turn: which call it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// A call of a function.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Its name in the conversation.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

/// A text to continue.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// The text.
    pub prompt: String,
    /// How.
    pub params: Params,
}

/// How tokens are chosen. What is absent is the engine's default: greedy, no limit but the bound.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The most tokens of the answer; never more than the request's bound.
    pub max_output_tokens: u32,
    /// 0 to 100; 0: the most likely token.
    #[serde(default)]
    pub temperature: f32,
    /// 0: all.
    #[serde(default)]
    pub top_k: u32,
    /// Above 0, at most 1.
    #[serde(default = "one")]
    pub top_p: f32,
    /// 0 to 1.
    #[serde(default)]
    pub min_p: f32,
    /// 0.01 to 100.
    #[serde(default = "one")]
    pub repetition_penalty: f32,
    /// -10 to 10.
    #[serde(default)]
    pub presence_penalty: f32,
    /// -10 to 10.
    #[serde(default)]
    pub frequency_penalty: f32,
    /// Names the noise.
    #[serde(default)]
    pub seed: u64,
    /// Texts that end the answer; at most 16 of 1 to 256 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// With the log-probability of each token and of so many alternatives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u8>,
    /// What the answer's JSON must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<Json>,
    /// Who else may find this prompt computed: see `docs/inference.md`.
    #[serde(default)]
    #[zeroize(skip)]
    pub reuse: Reuse,
}

impl Params {
    /// The most likely token each time.
    pub fn greedy(max_output_tokens: u32) -> Self {
        Self {
            max_output_tokens,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            stop: Vec::new(),
            top_logprobs: None,
            json_schema: None,
            reuse: Reuse::Session,
        }
    }

    /// As an engine takes them and a transcript commits to them, with a limit of output tokens.
    pub fn generate(&self, limit: u32) -> GenerateParams {
        let mut params = GenerateParams::greedy(limit);
        params.sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
        };
        params.stop = self.stop.clone();
        params.json_schema = self.json_schema.as_ref().map(Json::text);
        params.top_logprobs = self.top_logprobs.map(u32::from);
        params
    }
}

/// Who may find what was computed of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Nobody.
    Nobody,
    /// Requests of the same session key.
    #[default]
    Session,
    /// Everybody whose request says so too; only for texts that are no secret.
    Everyone,
}

/// Texts for vectors.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Embeddings {
    /// One vector for each.
    pub texts: Vec<String>,
}

/// A recording.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Transcription {
    /// A WAV file; base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub audio: Vec<u8>,
    /// Two or three letters; found out where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Into English.
    #[serde(default)]
    pub translate: bool,
}

/// Any JSON; wiped on drop.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub Value);

impl Json {
    /// As text, without white space.
    pub fn text(&self) -> String {
        self.0.to_string()
    }
}

impl Zeroize for Json {
    fn zeroize(&mut self) {
        wipe(&mut self.0);
        self.0 = Value::Null;
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        self.zeroize();
    }
}

macro_rules! no_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

no_text!(Work, Chat, ChatMessage, ToolCall, Completion, Params, Embeddings, Transcription, Json);

/// The names of an object's fields stay: they are borrowed by its order.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn one() -> f32 {
    1.0
}

mod base64_bytes {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(bytes)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_str(Base64)
    }

    /// Decodes where the text lies, so that no copy of it stays.
    struct Base64;

    impl Visitor<'_> for Base64 {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            STANDARD.decode(text).map_err(|_| E::custom("the audio is not base64"))
        }
    }
}
