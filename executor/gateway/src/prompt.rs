//! Requests of the API as work of the protocol.

use serde_json::json;
use session::work::{Chat, ChatMessage, Completion, Json, Params, Reuse, ToolCall};

use crate::openai::{ChatRequest, CompletionRequest, Format, Role, Sampling, ToolChoice, Turn, seed_of};

/// What is asked of a worker for the `choice`-th answer to `request`. `seed` is used where the request has none,
/// `max_output_tokens` likewise.
pub(crate) fn chat(request: &ChatRequest, choice: u32, seed: u64, max_output_tokens: u32) -> Chat {
    let schema = request.tool_choice.schema(&request.tools).or_else(|| match &request.format {
        Format::Text => None,
        Format::JsonObject => Some(json!({"type": "object"})),
        Format::JsonSchema(schema) => Some(schema.clone()),
    });
    let tools = match request.tool_choice {
        ToolChoice::None => Vec::new(),
        _ => request.tools.iter().map(|tool| Json(tool.to_json())).collect(),
    };
    let limit = request.max_tokens.unwrap_or(max_output_tokens);
    Chat {
        messages: request.turns.iter().map(message).collect(),
        tools,
        params: params(
            &request.sampling,
            limit,
            choice,
            seed,
            &request.stop,
            request.logprobs,
            schema.map(Json),
        ),
    }
}

/// As [`chat`], for one prompt.
pub(crate) fn completion(request: &CompletionRequest, prompt: &str, choice: u32, seed: u64) -> Completion {
    Completion {
        prompt: prompt.to_owned(),
        params: params(
            &request.sampling,
            request.max_tokens,
            choice,
            seed,
            &request.stop,
            request.logprobs,
            None,
        ),
    }
}

fn params(
    sampling: &Sampling,
    max_output_tokens: u32,
    choice: u32,
    seed: u64,
    stop: &[String],
    top_logprobs: Option<u8>,
    json_schema: Option<Json>,
) -> Params {
    Params {
        max_output_tokens,
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: seed_of(sampling.seed.unwrap_or(seed), choice),
        stop: stop.to_vec(),
        top_logprobs,
        json_schema,
        reuse: Reuse::Session,
    }
}

fn message(turn: &Turn) -> ChatMessage {
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    ChatMessage {
        role: role.into(),
        content: turn.text.clone(),
        name: turn.name.clone(),
        tool_calls: turn
            .calls
            .iter()
            .map(|call| ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            })
            .collect(),
        tool_call_id: turn.answers.clone(),
    }
}
