//! Tools: what a request offers, and the calls in what a model writes.
//!
//! Models are told of tools by their own chat template, and those trained for it write a call as JSON
//! `{"name", "arguments"}` between `<tool_call>` and `</tool_call>` (the form of Hermes and Qwen). A call that the
//! request forces is constrained to the schema of [`ToolChoice::schema`] and comes without these marks.

use serde_json::{Value, json};

use super::error::ApiError;

/// Most tools of a request.
pub(super) const MAX_TOOLS: usize = 128;
const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A function that the model may call.
#[derive(Clone)]
pub struct Tool {
    /// 1 to 64 of `a-zA-Z0-9_-`.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// Whether a tool has to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model is not told of tools.
    None,
    /// As the model sees fit.
    Auto,
    /// One of them, whichever.
    Required,
    /// This one.
    Named(String),
}

/// A call. Without `Debug`: its arguments are part of a conversation.
#[derive(Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Names the call.
    pub id: String,
    /// Of the function.
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

/// What a model wrote, taken apart.
pub(super) struct Written {
    /// What is not a call, trimmed where calls were cut out.
    pub text: String,
    /// The calls, in order.
    pub calls: Vec<(String, String)>,
}

impl Tool {
    /// As chat templates take it.
    pub fn to_json(&self) -> Value {
        json!({"type": "function", "function": {
            "name": self.name, "description": self.description, "parameters": self.parameters,
        }})
    }
}

impl ToolChoice {
    /// The answer is a call and nothing else.
    pub fn is_forced(&self) -> bool {
        matches!(self, Self::Required | Self::Named(_))
    }

    /// What a forced answer has to be.
    pub fn schema(&self, tools: &[Tool]) -> Option<Value> {
        let call = |tool: &Tool| {
            json!({
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": tool.parameters},
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        };
        match self {
            Self::None | Self::Auto => None,
            Self::Named(name) => tools.iter().find(|tool| tool.name == *name).map(call),
            Self::Required => Some(json!({"anyOf": tools.iter().map(call).collect::<Vec<_>>()})),
        }
    }
}

/// Takes the calls out of an answer whose tools were optional. What looks like a call and is not one of `tools` stays
/// text.
pub(super) fn take_apart(answer: &str, tools: &[Tool]) -> Written {
    let (mut text, mut calls, mut rest) = (String::new(), Vec::new(), answer);
    while let Some(begin) = rest.find(OPEN) {
        let inside = &rest[begin + OPEN.len()..];
        // A model that ends with its call may leave the closing mark out.
        let (body, after) = match inside.find(CLOSE) {
            Some(end) => (&inside[..end], &inside[end + CLOSE.len()..]),
            None => (inside, ""),
        };
        match call_of(body).filter(|(name, _)| tools.iter().any(|tool| tool.name == *name)) {
            Some(call) => {
                text.push_str(&rest[..begin]);
                calls.push(call);
            }
            None => text.push_str(&rest[..rest.len() - after.len()]),
        }
        rest = after;
    }
    text.push_str(rest);
    if !calls.is_empty() {
        text = text.trim().to_owned();
    }
    Written { text, calls }
}

/// How much of an answer so far is surely text: nothing from the first `<tool_call>` on, nor the beginning of one.
pub(super) fn certain_text(answer: &str) -> usize {
    match answer.find(OPEN) {
        Some(begin) => begin,
        None => (1..OPEN.len())
            .rev()
            .find(|length| answer.ends_with(&OPEN[..*length]))
            .map_or(answer.len(), |length| answer.len() - length),
    }
}

/// The name and the arguments' JSON text of a call.
pub(super) fn call_of(body: &str) -> Option<(String, String)> {
    let call: Value = serde_json::from_str(body.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        Some(arguments) => arguments.to_string(),
        None => "{}".to_owned(),
    };
    Some((name, arguments))
}

pub(crate) fn check_tools(tools: Vec<Value>) -> Result<Vec<Tool>, ApiError> {
    if tools.len() > MAX_TOOLS {
        return Err(ApiError::invalid("tools", format!("client: at most {MAX_TOOLS} tools")));
    }
    let tools: Vec<Tool> =
        tools.into_iter().enumerate().map(|(at, tool)| read_tool(tool, at)).collect::<Result<_, _>>()?;
    let mut names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(ApiError::invalid("tools", "client: two tools have one name")),
        false => Ok(tools),
    }
}

pub(crate) fn check_choice(choice: Option<Value>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let wrong = |message: &str| ApiError::invalid("tool_choice", format!("client: {message}"));
    let choice = match choice {
        None | Some(Value::Null) if tools.is_empty() => ToolChoice::None,
        None | Some(Value::Null) => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => return Err(wrong("tool_choice is none, auto, required, or names a function")),
        },
        Some(choice) => {
            let function = choice.get("function").unwrap_or(&choice);
            let is_function = choice.get("type").and_then(Value::as_str) == Some("function");
            match (is_function, function.get("name").and_then(Value::as_str)) {
                (true, Some(name)) => ToolChoice::Named(name.to_owned()),
                _ => return Err(wrong("tool_choice is none, auto, required, or names a function")),
            }
        }
    };
    match &choice {
        ToolChoice::Auto | ToolChoice::Required if tools.is_empty() => {
            Err(wrong("there are no tools to choose"))
        }
        ToolChoice::Named(name) if tools.iter().all(|tool| tool.name != *name) => {
            Err(wrong("tool_choice names a function that is not among the tools"))
        }
        _ => Ok(choice),
    }
}

/// A call of an earlier turn.
pub(crate) fn read_call(call: &Value, param: &str) -> Result<ToolCall, ApiError> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let function = call.get("function");
    match (
        call.get("type").and_then(Value::as_str),
        text(call.get("id")),
        text(function.and_then(|function| function.get("name"))),
        text(function.and_then(|function| function.get("arguments"))),
    ) {
        (Some("function"), Some(id), Some(name), Some(arguments)) => Ok(ToolCall { id, name, arguments }),
        _ => Err(ApiError::invalid(
            param,
            "client: a call has an id, the type function, and a function with name and arguments",
        )),
    }
}

fn read_tool(tool: Value, at: usize) -> Result<Tool, ApiError> {
    let param = format!("tools[{at}]");
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        return Err(ApiError::unsupported(format!("{param}.type")));
    }
    // `/v1/responses` has the function's fields beside its type.
    let function = tool.get("function").unwrap_or(&tool);
    let known = ["name", "description", "parameters", "strict", "type"];
    if let Some(unknown) =
        function.as_object().and_then(|fields| fields.keys().find(|key| !known.contains(&key.as_str())))
    {
        return Err(ApiError::unsupported(format!("{param}.{}", super::error::printable(unknown))));
    }
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if !is_name {
        return Err(ApiError::invalid(
            format!("{param}.name"),
            "client: a function's name is 1 to 64 letters, digits, _ and -",
        ));
    }
    let parameters = match function.get("parameters") {
        Some(Value::Object(schema)) => Value::Object(schema.clone()),
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(_) => {
            return Err(ApiError::invalid(
                format!("{param}.parameters"),
                "client: parameters is a JSON schema",
            ));
        }
    };
    Ok(Tool {
        name: name.to_owned(),
        description: function.get("description").and_then(Value::as_str).map(str::to_owned),
        parameters,
    })
}
