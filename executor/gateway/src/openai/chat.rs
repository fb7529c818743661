//! `POST /v1/chat/completions`: the request.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::sampling::{MAX_TOP_LOGPROBS, Sampling, SamplingWire, StopWire, choices};
use super::strict;
use super::tools::{self, Tool, ToolCall, ToolChoice};

/// Most messages of a conversation.
pub(super) const MAX_MESSAGES: usize = 4096;

/// A request that makes sense by itself. Without `Debug`: it holds the prompt.
pub struct ChatRequest {
    /// As the caller names it.
    pub model: String,
    /// At least one.
    pub turns: Vec<Turn>,
    /// The most tokens of each answer; `None`: as many as the context and the budget have room for.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Where an answer ends.
    pub stop: Vec<String>,
    /// How many answers.
    pub choices: u32,
    /// With log-probabilities of the tokens and of this many alternatives.
    pub logprobs: Option<u8>,
    /// What the answer has to be.
    pub format: Format,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it has to.
    pub tool_choice: ToolChoice,
    /// Whether it may call several at once.
    pub parallel_tool_calls: bool,
    /// As server-sent events.
    pub stream: bool,
    /// With the usage in a last event of its own.
    pub include_usage: bool,
}

/// A message of the conversation.
pub struct Turn {
    /// `system`, `user`, `assistant` or `tool`; `developer` is `system` by another name.
    pub role: Role,
    /// Its text; empty where it is nothing but calls.
    pub text: String,
    /// What an assistant called.
    pub calls: Vec<ToolCall>,
    /// Which call a tool answers.
    pub answers: Option<String>,
    /// Who speaks, where several do.
    pub name: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// What an answer has to be.
pub enum Format {
    /// Anything.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema(Value),
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ApiError`] with the first parameter that is wrong, unknown or not supported.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let wire: ChatWire = strict::parse(body)?;
        wire.refuse_unsupported()?;
        if wire.max_tokens.is_some() && wire.max_completion_tokens.is_some() {
            return Err(ApiError::invalid(
                "max_tokens",
                "client: max_tokens and max_completion_tokens are two names of one limit; give one",
            ));
        }
        let max_tokens = wire.max_completion_tokens.or(wire.max_tokens);
        if max_tokens == Some(0) {
            return Err(ApiError::invalid("max_tokens", "client: an answer needs at least one token"));
        }
        if wire.messages.is_empty() || wire.messages.len() > MAX_MESSAGES {
            return Err(ApiError::invalid(
                "messages",
                format!("client: a conversation has 1 to {MAX_MESSAGES} messages"),
            ));
        }
        let turns: Vec<Turn> = wire
            .messages
            .into_iter()
            .enumerate()
            .map(|(at, message)| message.turn(at))
            .collect::<Result<_, _>>()?;
        let logprobs = match (wire.logprobs.unwrap_or(false), wire.top_logprobs) {
            (false, None) => None,
            (false, Some(_)) => {
                return Err(ApiError::invalid("top_logprobs", "client: top_logprobs needs logprobs: true"));
            }
            (true, top) if top.unwrap_or(0) <= MAX_TOP_LOGPROBS => Some(top.unwrap_or(0)),
            (true, _) => {
                return Err(ApiError::invalid(
                    "top_logprobs",
                    format!("client: top_logprobs has to be from 0 to {MAX_TOP_LOGPROBS}"),
                ));
            }
        };
        let stream = wire.stream.unwrap_or(false);
        if wire.stream_options.is_some() && !stream {
            return Err(ApiError::invalid("stream_options", "client: stream_options needs stream: true"));
        }
        let tools = tools::check_tools(wire.tools.unwrap_or_default())?;
        let tool_choice = tools::check_choice(wire.tool_choice, &tools)?;
        let format = format(wire.response_format)?;
        if tool_choice.is_forced() && !matches!(format, Format::Text) {
            return Err(ApiError::invalid(
                "response_format",
                "client: an answer cannot be a forced tool call and of a format at once",
            ));
        }
        Ok(Self {
            model: wire.model,
            turns,
            max_tokens,
            sampling: SamplingWire {
                temperature: wire.temperature,
                top_p: wire.top_p,
                top_k: wire.top_k,
                min_p: wire.min_p,
                repetition_penalty: wire.repetition_penalty,
                presence_penalty: wire.presence_penalty,
                frequency_penalty: wire.frequency_penalty,
                seed: wire.seed,
            }
            .check()?,
            stop: wire.stop.unwrap_or_default().check()?,
            choices: choices(wire.n)?,
            logprobs,
            format,
            parallel_tool_calls: wire.parallel_tool_calls.unwrap_or(true),
            tools,
            tool_choice,
            stream,
            include_usage: wire.stream_options.is_some_and(|options| options.include_usage.unwrap_or(false)),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatWire {
    model: String,
    messages: Vec<MessageWire>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<StopWire>,
    n: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<u8>,
    logit_bias: Option<Map<String, Value>>,
    response_format: Option<FormatWire>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptionsWire>,
    /// These three name the caller's own users and change no answer. They stay on this machine.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<String>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,
    store: Option<bool>,
    modalities: Option<Vec<String>>,
    service_tier: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl ChatWire {
    /// Values that ask for what is the case anyway pass; others of what is not done here are refused.
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let asks = [
            ("logit_bias", self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
            ("store", self.store == Some(true)),
            (
                "modalities",
                self.modalities.as_ref().is_some_and(|wanted| wanted.iter().any(|one| one != "text")),
            ),
            (
                "service_tier",
                self.service_tier.as_ref().is_some_and(|tier| tier != "auto" && tier != "default"),
            ),
            ("metadata", self.metadata.as_ref().is_some_and(|metadata| !metadata.is_empty())),
        ];
        match asks.iter().find(|(_, asked)| *asked) {
            Some((name, _)) => Err(ApiError::unsupported(*name)),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptionsWire {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageWire {
    role: String,
    content: Option<ContentWire>,
    name: Option<String>,
    tool_calls: Option<Vec<Value>>,
    tool_call_id: Option<String>,
    refusal: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum ContentWire {
    Text(String),
    Parts(Vec<Value>),
}

impl ContentWire {
    /// The text; parts are joined as they come. `param` names the place in an error.
    pub(crate) fn text(self, param: &str) -> Result<String, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        let mut joined = String::new();
        for part in &parts {
            match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
                (Some("text" | "input_text" | "output_text"), Some(text)) => joined.push_str(text),
                _ => return Err(ApiError::unsupported(format!("{param}.type"))),
            }
        }
        Ok(joined)
    }
}

impl MessageWire {
    fn turn(self, at: usize) -> Result<Turn, ApiError> {
        let param = |name: &str| format!("messages[{at}].{name}");
        let role = match self.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            _ => {
                return Err(ApiError::invalid(
                    param("role"),
                    "client: a role is system, developer, user, assistant or tool",
                ));
            }
        };
        if self.refusal.is_some_and(|refusal| !refusal.is_null()) {
            return Err(ApiError::unsupported(param("refusal")));
        }
        let calls = self.tool_calls.unwrap_or_default();
        if !calls.is_empty() && role != Role::Assistant {
            return Err(ApiError::invalid(param("tool_calls"), "client: only an assistant calls tools"));
        }
        if (role == Role::Tool) != self.tool_call_id.is_some() {
            return Err(ApiError::invalid(
                param("tool_call_id"),
                "client: a tool's message, and no other, names the call that it answers",
            ));
        }
        let text = match self.content {
            Some(content) => content.text(&param("content"))?,
            None if role == Role::Assistant && !calls.is_empty() => String::new(),
            None => return Err(ApiError::invalid(param("content"), "client: the message has no content")),
        };
        let calls = calls
            .iter()
            .map(|call| tools::read_call(call, &param("tool_calls")))
            .collect::<Result<_, _>>()?;
        Ok(Turn { role, text, calls, answers: self.tool_call_id, name: self.name })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatWire {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<SchemaWire>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaWire {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    schema: Option<Value>,
    /// Every schema is kept to strictly.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

fn format(wire: Option<FormatWire>) -> Result<Format, ApiError> {
    let Some(wire) = wire else { return Ok(Format::Text) };
    match (wire.kind.as_str(), wire.json_schema) {
        ("text", None) => Ok(Format::Text),
        ("json_object", None) => Ok(Format::JsonObject),
        ("json_schema", Some(SchemaWire { schema: Some(schema), .. })) => Ok(Format::JsonSchema(schema)),
        _ => Err(ApiError::invalid(
            "response_format",
            "client: response_format is text, json_object, or json_schema with its schema",
        )),
    }
}
