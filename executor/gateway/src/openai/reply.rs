//! The bodies and events that answer requests for text, in the API's forms.

use serde_json::{Value, json};
use session::message::FinishReason;

use super::answer::{Choice, Ended};
use super::tools::{Tool, ToolChoice};
use crate::market::{Done, Paid, TokenLogprob, Usage};

/// What all parts of one answer share.
#[derive(Clone)]
pub struct Head {
    /// Of the answer: `chatcmpl-…`.
    pub id: String,
    /// Unix seconds.
    pub created_s: u64,
    /// As the request named it.
    pub model: String,
}

/// One choice of a chat completion, told event by event.
pub struct ChatChoice {
    index: u32,
    choice: Choice,
    calls_id: String,
    logprobs: Option<Vec<Value>>,
}

/// One choice that has ended, as the whole answer shows it.
pub struct ChatEnded {
    message: Value,
    finish: &'static str,
    logprobs: Option<Vec<Value>>,
    index: u32,
}

impl ChatChoice {
    /// The `index`-th choice. `calls_id` begins the names of its tool calls.
    pub fn new(
        index: u32,
        tools: &[Tool],
        tool_choice: &ToolChoice,
        parallel: bool,
        logprobs: bool,
        calls_id: String,
    ) -> Self {
        let choice = Choice::new(tools, tool_choice, parallel);
        Self { index, choice, calls_id, logprobs: logprobs.then(Vec::new) }
    }

    /// The event that begins it.
    pub fn opening(&self, head: &Head) -> Value {
        self.chunk(head, json!({"role": "assistant", "content": "", "refusal": null}), None, None)
    }

    /// Takes a piece; the event that tells it, if there is anything to tell.
    pub fn piece(&mut self, head: &Head, text: &str, logprobs: &[TokenLogprob]) -> Option<Value> {
        let told = self.choice.push(text).to_owned();
        let entries: Vec<Value> = logprobs.iter().map(logprob_json).collect();
        if let Some(all) = &mut self.logprobs {
            all.extend_from_slice(&entries);
        }
        let logprobs = (!entries.is_empty()).then(|| json!({"content": entries, "refusal": null}));
        match told.is_empty() && logprobs.is_none() {
            true => None,
            false => Some(self.chunk(head, json!({"content": told}), None, logprobs)),
        }
    }

    /// The events that end it, and the choice as a whole.
    pub fn end(self, head: &Head, reason: FinishReason) -> (Vec<Value>, ChatEnded) {
        let Self { index, choice, calls_id, logprobs } = self;
        let Ended { text, rest, calls } = choice.end(reason == FinishReason::Stop);
        let finish = match (reason, calls.is_empty()) {
            (FinishReason::Stop, false) => "tool_calls",
            (FinishReason::Stop, true) => "stop",
            (FinishReason::Length | FinishReason::Cancelled, _) => "length",
        };
        let calls: Vec<Value> = calls
            .into_iter()
            .enumerate()
            .map(|(at, (name, arguments))| {
                json!({
                    "id": format!("call_{calls_id}{index}{at}"), "type": "function",
                    "function": {"name": name, "arguments": arguments},
                })
            })
            .collect();
        let chunk = |delta: Value, finish: Option<&str>| chunk_of(head, index, delta, finish, None);
        let mut events = Vec::new();
        if !rest.is_empty() {
            events.push(chunk(json!({"content": rest}), None));
        }
        for (at, call) in calls.iter().enumerate() {
            let mut call = call.clone();
            call["index"] = json!(at);
            events.push(chunk(json!({"tool_calls": [call]}), None));
        }
        events.push(chunk(json!({}), Some(finish)));
        let content = match text.is_empty() && !calls.is_empty() {
            true => Value::Null,
            false => json!(text),
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        (events, ChatEnded { message, finish, logprobs, index })
    }

    fn chunk(&self, head: &Head, delta: Value, finish: Option<&str>, logprobs: Option<Value>) -> Value {
        chunk_of(head, self.index, delta, finish, logprobs)
    }
}

/// A whole chat completion.
pub fn chat_completion(head: &Head, choices: Vec<ChatEnded>, done: &[Done]) -> Value {
    let choices: Vec<Value> = choices
        .into_iter()
        .map(|ended| {
            json!({
                "index": ended.index, "message": ended.message, "finish_reason": ended.finish,
                "logprobs": ended.logprobs.map(|content| json!({"content": content, "refusal": null})),
            })
        })
        .collect();
    json!({
        "id": head.id, "object": "chat.completion", "created": head.created_s, "model": head.model,
        "choices": choices, "usage": usage(done), "chrysalis": paid(done),
    })
}

/// The last event of a stream that tells its usage.
pub fn chat_usage(head: &Head, done: &[Done]) -> Value {
    json!({
        "id": head.id, "object": "chat.completion.chunk", "created": head.created_s, "model": head.model,
        "choices": [], "usage": usage(done), "chrysalis": paid(done),
    })
}

/// One choice of a `/v1/completions` event, or of the whole answer.
pub fn completion(head: &Head, choices: Vec<Value>, done: Option<&[Done]>) -> Value {
    let mut body = json!({
        "id": head.id, "object": "text_completion", "created": head.created_s, "model": head.model,
        "choices": choices,
    });
    if let Some(done) = done {
        body["usage"] = usage(done);
        body["chrysalis"] = paid(done);
    }
    body
}

/// A choice of `/v1/completions`. `from` is how many bytes of text came before.
pub fn completion_choice(
    index: u32,
    text: &str,
    logprobs: Option<&[(usize, TokenLogprob)]>,
    finish: Option<FinishReason>,
) -> Value {
    let logprobs = logprobs.map(|entries| {
        json!({
            "tokens": entries.iter().map(|(_, entry)| lossy(&entry.token)).collect::<Vec<_>>(),
            "token_logprobs": entries.iter().map(|(_, entry)| entry.logprob).collect::<Vec<_>>(),
            "top_logprobs": entries.iter().map(|(_, entry)| {
                entry.top.iter().map(|(token, logprob)| (lossy(token), json!(logprob)))
                    .collect::<serde_json::Map<_, _>>()
            }).collect::<Vec<_>>(),
            "text_offset": entries.iter().map(|(offset, _)| offset).collect::<Vec<_>>(),
        })
    });
    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish.map(finish_word)})
}

/// `stop` or `length`.
pub(super) fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Cancelled => "length",
    }
}

/// Usage of all choices together, the prompt of each counted, since each was computed and paid.
pub fn usage(done: &[Done]) -> Value {
    let sum = |count: fn(&Usage) -> u64| done.iter().map(|one| count(&one.usage)).sum::<u64>();
    let (prompt, cached) = (sum(|usage| usage.prompt_tokens), sum(|usage| usage.cached_tokens));
    let completion = sum(|usage| usage.completion_tokens);
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}

/// To whom how much went: beside what the API knows.
pub(super) fn paid(done: &[Done]) -> Value {
    paid_json(done.iter().map(|one| &one.paid))
}

/// As [`paid`].
pub fn paid_json<'a>(paid: impl Iterator<Item = &'a Paid>) -> Value {
    Value::Array(
        paid.map(|paid| {
            json!({
                "worker": paid.worker, "session": paid.session,
                "amount_nanoton": paid.amount.get().to_string(),
            })
        })
        .collect(),
    )
}

fn chunk_of(head: &Head, index: u32, delta: Value, finish: Option<&str>, logprobs: Option<Value>) -> Value {
    json!({
        "id": head.id, "object": "chat.completion.chunk", "created": head.created_s, "model": head.model,
        "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
    })
}

fn logprob_json(logprob: &TokenLogprob) -> Value {
    let entry = |token: &[u8], value: f32| json!({"token": lossy(token), "logprob": value, "bytes": token});
    let mut whole = entry(&logprob.token, logprob.logprob);
    whole["top_logprobs"] =
        logprob.top.iter().map(|(token, value)| entry(token, *value)).collect::<Vec<_>>().into();
    whole
}

fn lossy(token: &[u8]) -> String {
    String::from_utf8_lossy(token).into_owned()
}
