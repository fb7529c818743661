//! `POST /v1/completions`: the request.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::sampling::{Sampling, SamplingWire, StopWire, choices};
use super::strict;

/// Most prompts of one request.
pub(super) const MAX_PROMPTS: usize = 16;
/// The API's own.
const DEFAULT_MAX_TOKENS: u32 = 16;
const MAX_LOGPROBS: u8 = 5;

/// A request that makes sense by itself. Without `Debug`: it holds prompts.
pub struct CompletionRequest {
    /// As the caller names it.
    pub model: String,
    /// At least one; each is continued `choices` times.
    pub prompts: Vec<String>,
    /// The most tokens of each answer.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Where an answer ends.
    pub stop: Vec<String>,
    /// How many answers a prompt.
    pub choices: u32,
    /// With log-probabilities of the tokens and of this many alternatives.
    pub logprobs: Option<u8>,
    /// As server-sent events.
    pub stream: bool,
    /// With the usage in a last event of its own.
    pub include_usage: bool,
}

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ApiError`] with the first parameter that is wrong, unknown or not supported.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let wire: CompletionWire = strict::parse(body)?;
        let asks = [
            ("echo", wire.echo == Some(true)),
            ("suffix", wire.suffix.is_some()),
            ("logit_bias", wire.logit_bias.is_some_and(|bias| !bias.is_empty())),
            ("best_of", wire.best_of.is_some_and(|best_of| best_of != wire.n.unwrap_or(1))),
        ];
        if let Some((name, _)) = asks.iter().find(|(_, asked)| *asked) {
            return Err(ApiError::unsupported(*name));
        }
        let prompts = match wire.prompt {
            Value::String(prompt) => vec![prompt],
            Value::Array(prompts) => prompts
                .into_iter()
                .map(|prompt| match prompt {
                    Value::String(prompt) => Ok(prompt),
                    _ => Err(ApiError::unsupported("prompt")),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(ApiError::invalid("prompt", "client: prompt is a text or several")),
        };
        if prompts.is_empty() || prompts.len() > MAX_PROMPTS {
            return Err(ApiError::invalid("prompt", format!("client: 1 to {MAX_PROMPTS} prompts")));
        }
        if wire.logprobs.is_some_and(|logprobs| logprobs > MAX_LOGPROBS) {
            return Err(ApiError::invalid(
                "logprobs",
                format!("client: logprobs has to be from 0 to {MAX_LOGPROBS}"),
            ));
        }
        let max_tokens = wire.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        if max_tokens == 0 {
            return Err(ApiError::invalid("max_tokens", "client: an answer needs at least one token"));
        }
        let stream = wire.stream.unwrap_or(false);
        Ok(Self {
            model: wire.model,
            prompts,
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
            logprobs: wire.logprobs,
            include_usage: stream
                && wire.stream_options.is_some_and(|options| options.include_usage.unwrap_or(false)),
            stream,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompletionWire {
    model: String,
    prompt: Value,
    max_tokens: Option<u32>,
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
    best_of: Option<u32>,
    logprobs: Option<u8>,
    logit_bias: Option<Map<String, Value>>,
    echo: Option<bool>,
    suffix: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptionsWire>,
    /// Names the caller's own user and changes no answer. It stays on this machine.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptionsWire {
    include_usage: Option<bool>,
}
