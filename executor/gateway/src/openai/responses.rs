//! `POST /v1/responses`, for text and function calls: the request, which becomes that of a chat, and its answer.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Choice, Ended};
use super::chat::{ChatRequest, ContentWire, Format, MAX_MESSAGES, Role, Turn};
use super::error::ApiError;
use super::reply::Head;
use super::sampling::SamplingWire;
use super::strict;
use super::tools::{self, ToolCall};
use crate::market::Done;
use session::message::FinishReason;

/// Reads a body.
///
/// # Errors
/// [`ApiError`] with the first parameter that is wrong, unknown or not supported. Nothing is stored here, so
/// `previous_response_id` and `store: true` are refused.
pub fn parse(body: &[u8]) -> Result<ChatRequest, ApiError> {
    let wire: ResponsesWire = strict::parse(body)?;
    wire.refuse_unsupported()?;
    if wire.max_output_tokens == Some(0) {
        return Err(ApiError::invalid("max_output_tokens", "client: an answer needs at least one token"));
    }
    let mut turns = Vec::new();
    if let Some(instructions) = wire.instructions {
        turns.push(turn(Role::System, instructions));
    }
    match wire.input {
        Value::String(text) => turns.push(turn(Role::User, text)),
        Value::Array(items) => {
            for (at, item) in items.into_iter().enumerate() {
                turns.push(read_item(item, at)?);
            }
        }
        _ => return Err(ApiError::invalid("input", "client: input is a text or a list of items")),
    }
    if turns.is_empty() || turns.len() > MAX_MESSAGES {
        return Err(ApiError::invalid(
            "input",
            format!("client: a conversation has 1 to {MAX_MESSAGES} items"),
        ));
    }
    let tools = tools::check_tools(wire.tools.unwrap_or_default())?;
    let tool_choice = tools::check_choice(wire.tool_choice, &tools)?;
    let format = format(wire.text)?;
    if tool_choice.is_forced() && !matches!(format, Format::Text) {
        return Err(ApiError::invalid(
            "text",
            "client: an answer cannot be a forced tool call and of a format at once",
        ));
    }
    Ok(ChatRequest {
        model: wire.model,
        turns,
        max_tokens: wire.max_output_tokens,
        sampling: SamplingWire {
            temperature: wire.temperature,
            top_p: wire.top_p,
            ..SamplingWire::default()
        }
        .check()?,
        stop: Vec::new(),
        choices: 1,
        logprobs: None,
        format,
        tools,
        tool_choice,
        parallel_tool_calls: wire.parallel_tool_calls.unwrap_or(true),
        stream: wire.stream.unwrap_or(false),
        include_usage: true,
    })
}

/// A response, told event by event. Every event is named and numbered.
pub struct ResponseStream {
    head: Head,
    choice: Choice,
    item_id: String,
    sequence: u64,
    /// The message item has begun.
    has_begun: bool,
    told: String,
}

/// The name of an event and its data.
pub type Event = (&'static str, Value);

impl ResponseStream {
    /// `item_id` names what the response consists of.
    pub fn new(head: Head, request: &ChatRequest, item_id: String) -> Self {
        let choice = Choice::new(&request.tools, &request.tool_choice, request.parallel_tool_calls);
        Self { head, choice, item_id, sequence: 0, has_begun: false, told: String::new() }
    }

    /// The events that begin it.
    pub fn opening(&mut self) -> Vec<Event> {
        let begun = response(&self.head, "in_progress", Vec::new(), None, None);
        vec![
            self.event("response.created", json!({"response": begun})),
            self.event("response.in_progress", json!({"response": begun})),
        ]
    }

    /// Takes a piece.
    pub fn piece(&mut self, text: &str) -> Vec<Event> {
        let told = self.choice.push(text).to_owned();
        self.tell(&told)
    }

    /// The events that end it, and the response as a whole.
    pub fn end(mut self, done: &Done) -> (Vec<Event>, Value) {
        let choice = std::mem::replace(&mut self.choice, Choice::plain());
        let Ended { text, rest, calls } = choice.end(done.finish == FinishReason::Stop);
        let mut events = self.tell(&rest);
        let mut output = Vec::new();
        if self.has_begun || calls.is_empty() {
            if !self.has_begun {
                events.extend(self.begin());
            }
            let place = json!({"item_id": self.message_id(), "output_index": 0, "content_index": 0});
            let with = |extra: Value| merged(&place, extra);
            let part = text_part(&text);
            let item = message(&self.message_id(), "completed", vec![part.clone()]);
            events.push(self.event("response.output_text.done", with(json!({"text": text, "logprobs": []}))));
            events.push(self.event("response.content_part.done", with(json!({"part": part}))));
            events.push(self.event("response.output_item.done", json!({"output_index": 0, "item": item})));
            output.push(item);
        }
        for (name, arguments) in calls {
            let at = output.len();
            let id = format!("fc_{}{at}", self.item_id);
            let call = |status: &str, arguments: &str| {
                json!({
                    "id": id, "type": "function_call", "status": status, "name": name,
                    "call_id": format!("call_{}{at}", self.item_id), "arguments": arguments,
                })
            };
            let (begun, whole) = (call("in_progress", ""), call("completed", &arguments));
            let place = json!({"item_id": id, "output_index": at});
            for (event, data) in [
                ("response.output_item.added", json!({"output_index": at, "item": begun})),
                ("response.function_call_arguments.delta", merged(&place, json!({"delta": arguments}))),
                (
                    "response.function_call_arguments.done",
                    merged(&place, json!({"arguments": arguments, "name": name})),
                ),
                ("response.output_item.done", json!({"output_index": at, "item": whole})),
            ] {
                events.push(self.event(event, data));
            }
            output.push(whole);
        }
        let (status, why) = match done.finish {
            FinishReason::Stop => ("completed", None),
            FinishReason::Length | FinishReason::Cancelled => ("incomplete", Some("max_output_tokens")),
        };
        let whole = response(&self.head, status, output, Some(done), why);
        let name = if why.is_some() { "response.incomplete" } else { "response.completed" };
        events.push(self.event(name, json!({"response": whole})));
        (events, whole)
    }

    /// The event that ends it where it failed.
    pub fn failed(&mut self, error: &ApiError) -> Event {
        let mut failed = response(&self.head, "failed", Vec::new(), None, None);
        failed["error"] = json!({"code": "server_error", "message": error.message});
        self.event("response.failed", json!({"response": failed}))
    }

    fn tell(&mut self, text: &str) -> Vec<Event> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut events = if self.has_begun { Vec::new() } else { self.begin() };
        self.told.push_str(text);
        let id = self.message_id();
        events.push(self.event(
            "response.output_text.delta",
            json!({"item_id": id, "output_index": 0, "content_index": 0, "delta": text, "logprobs": []}),
        ));
        events
    }

    fn begin(&mut self) -> Vec<Event> {
        self.has_begun = true;
        let id = self.message_id();
        let item = message(&id, "in_progress", Vec::new());
        vec![
            self.event("response.output_item.added", json!({"output_index": 0, "item": item})),
            self.event(
                "response.content_part.added",
                json!({"item_id": id, "output_index": 0, "content_index": 0, "part": text_part("")}),
            ),
        ]
    }

    fn message_id(&self) -> String {
        format!("msg_{}", self.item_id)
    }

    fn event(&mut self, name: &'static str, mut data: Value) -> Event {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        (name, data)
    }
}

fn response(
    head: &Head,
    status: &str,
    output: Vec<Value>,
    done: Option<&Done>,
    incomplete: Option<&str>,
) -> Value {
    let usage = done.map(|done| {
        let usage = done.usage;
        json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        })
    });
    let mut body = json!({
        "id": head.id, "object": "response", "created_at": head.created_s, "model": head.model,
        "status": status, "output": output, "usage": usage, "error": null, "store": false,
        "incomplete_details": incomplete.map(|reason| json!({"reason": reason})),
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "instructions": null, "metadata": {},
    });
    if let Some(done) = done {
        body["chrysalis"] = super::reply::paid(std::slice::from_ref(done));
    }
    body
}

fn message(id: &str, status: &str, content: Vec<Value>) -> Value {
    json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn merged(place: &Value, extra: Value) -> Value {
    let mut whole = place.clone();
    if let (Value::Object(whole), Value::Object(extra)) = (&mut whole, extra) {
        whole.extend(extra);
    }
    whole
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponsesWire {
    model: String,
    input: Value,
    instructions: Option<String>,
    max_output_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    text: Option<TextWire>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    stream: Option<bool>,
    /// These three name the caller's own users and change no answer. They stay on this machine.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<String>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,
    store: Option<bool>,
    background: Option<bool>,
    previous_response_id: Option<String>,
    include: Option<Vec<String>>,
    metadata: Option<Map<String, Value>>,
    reasoning: Option<Map<String, Value>>,
    truncation: Option<String>,
    service_tier: Option<String>,
}

impl ResponsesWire {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let asks = [
            ("store", self.store == Some(true)),
            ("background", self.background == Some(true)),
            ("previous_response_id", self.previous_response_id.is_some()),
            ("include", self.include.as_ref().is_some_and(|include| !include.is_empty())),
            ("metadata", self.metadata.as_ref().is_some_and(|metadata| !metadata.is_empty())),
            ("reasoning", self.reasoning.as_ref().is_some_and(|reasoning| !reasoning.is_empty())),
            ("truncation", self.truncation.as_ref().is_some_and(|truncation| truncation != "disabled")),
            (
                "service_tier",
                self.service_tier.as_ref().is_some_and(|tier| tier != "auto" && tier != "default"),
            ),
        ];
        match asks.iter().find(|(_, asked)| *asked) {
            Some((name, _)) => Err(ApiError::unsupported(*name)),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextWire {
    format: Option<FormatWire>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatWire {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "description")]
    _description: Option<String>,
    schema: Option<Value>,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

fn format(wire: Option<TextWire>) -> Result<Format, ApiError> {
    let Some(format) = wire.and_then(|text| text.format) else { return Ok(Format::Text) };
    match (format.kind.as_str(), format.schema) {
        ("text", None) => Ok(Format::Text),
        ("json_object", None) => Ok(Format::JsonObject),
        ("json_schema", Some(schema)) => Ok(Format::JsonSchema(schema)),
        _ => Err(ApiError::invalid(
            "text.format",
            "client: a format is text, json_object, or json_schema with its schema",
        )),
    }
}

fn turn(role: Role, text: String) -> Turn {
    Turn { role, text, calls: Vec::new(), answers: None, name: None }
}

fn read_item(item: Value, at: usize) -> Result<Turn, ApiError> {
    let param = |name: &str| format!("input[{at}].{name}");
    let Value::Object(mut item) = item else {
        return Err(ApiError::invalid(format!("input[{at}]"), "client: an item is an object"));
    };
    let mut text = |name: &str| match item.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(ApiError::invalid(param(name), format!("client: the item has no text '{name}'"))),
    };
    let kind = text("type").unwrap_or_else(|_| "message".into());
    match kind.as_str() {
        "message" => {
            let role = match text("role")?.as_str() {
                "system" | "developer" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                _ => {
                    return Err(ApiError::invalid(
                        param("role"),
                        "client: a role is system, developer, user or assistant",
                    ));
                }
            };
            let content = match item.remove("content") {
                Some(Value::String(text)) => ContentWire::Text(text),
                Some(Value::Array(parts)) => ContentWire::Parts(parts),
                _ => return Err(ApiError::invalid(param("content"), "client: the message has no content")),
            };
            Ok(turn(role, content.text(&param("content"))?))
        }
        "function_call" => {
            let call = ToolCall { id: text("call_id")?, name: text("name")?, arguments: text("arguments")? };
            Ok(Turn { calls: vec![call], ..turn(Role::Assistant, String::new()) })
        }
        "function_call_output" => {
            let answers = text("call_id")?;
            Ok(Turn { answers: Some(answers), ..turn(Role::Tool, text("output")?) })
        }
        _ => Err(ApiError::unsupported(param("type"))),
    }
}
