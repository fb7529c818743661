//! What a request asks of a model, as it travels in a sealed input and as a receipt's transcript commits to it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::HashBytes;
use crate::sealing::ChatMessage;

/// What a client asks of a model. Its `Debug` shows no text; wiped on drop.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The next turn of a conversation.
    Chat {
        /// Its turns, oldest first.
        messages: Vec<ChatMessage>,
        /// JSON text of the list of tools that the model may call, where its template takes them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tools: Option<String>,
        /// How to answer.
        params: GenerateParams,
    },
    /// The continuation of a text as it stands.
    Completion {
        /// The text.
        prompt: String,
        /// How to go on.
        params: GenerateParams,
    },
    /// The vector of each text.
    Embeddings {
        /// The texts.
        texts: Vec<String>,
    },
    /// The text of a recording.
    Transcription {
        /// A WAV file, in base64.
        audio: String,
        /// The language's code; found out where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Into English instead of the language that is spoken.
        #[serde(default)]
        translate: bool,
    },
}

impl Request {
    /// A conversation without tools.
    pub fn chat(messages: Vec<ChatMessage>, params: GenerateParams) -> Self {
        Self::Chat { messages, tools: None, params }
    }

    /// How an answer is made, where text is asked for.
    pub fn params(&self) -> Option<&GenerateParams> {
        match self {
            Self::Chat { params, .. } | Self::Completion { params, .. } => Some(params),
            Self::Embeddings { .. } | Self::Transcription { .. } => None,
        }
    }
}

/// How the tokens of an answer are chosen; the default is greedy. Its meaning and ranges are those of the engine that the
/// receipt names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Logits are divided by it; 0: the most likely token, whatever the seed.
    #[serde(skip_serializing_if = "is_zero")]
    pub temperature: f32,
    /// Only this many of the most likely tokens stay; 0: all.
    #[serde(skip_serializing_if = "is_none")]
    pub top_k: u32,
    /// Only the most likely tokens that together reach this probability stay; 1: all.
    #[serde(skip_serializing_if = "is_one")]
    pub top_p: f32,
    /// Only tokens at least this many times as likely as the most likely stay; 0: all.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_p: f32,
    /// Logits of tokens in the prompt or the answer are divided by it where positive, else multiplied; 1: not.
    #[serde(skip_serializing_if = "is_one")]
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens in the answer; 0: nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub presence_penalty: f32,
    /// Taken off the logits of tokens in the answer, for each time they are there; 0: nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency_penalty: f32,
    /// Names the noise.
    #[serde(skip_serializing_if = "is_unseeded")]
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

/// What an answer may be. Its `Debug` shows no text; wiped on drop.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct GenerateParams {
    /// The most tokens of the answer.
    pub max_output_tokens: u32,
    /// How tokens are chosen.
    #[serde(default, skip_serializing_if = "is_greedy")]
    #[zeroize(skip)]
    pub sampling: Sampling,
    /// Texts that end the answer where they appear, and are not part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// JSON text of a schema that the answer is held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<String>,
    /// With the log-probability of each token and of this many alternatives. Changes no token, so that
    /// [`GenerateParams::digest`] leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
}

impl GenerateParams {
    /// The most likely token each time, at most `max_output_tokens` of them.
    pub fn greedy(max_output_tokens: u32) -> Self {
        Self {
            max_output_tokens,
            sampling: Sampling::default(),
            stop: Vec::new(),
            json_schema: None,
            top_logprobs: None,
        }
    }

    /// What the transcript commits to, with the limit that held in the end: `SHA-256("chrysalis/generate/v1" ‖
    /// max_output_tokens ‖ temperature ‖ top_k ‖ top_p ‖ min_p ‖ repetition_penalty ‖ presence_penalty ‖
    /// frequency_penalty ‖ seed (u64) ‖ n_stop ‖ each string's length and bytes ‖ 0 | 1 (u8) and the schema's length and
    /// bytes)`. Integers are u32 unless said, big-endian; fractions are the bits of an f32, big-endian.
    pub fn digest(&self) -> HashBytes {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            seed,
        } = self.sampling;
        let mut hasher = Sha256::new_with_prefix(b"chrysalis/generate/v1");
        hasher.update(self.max_output_tokens.to_be_bytes());
        hasher.update(temperature.to_be_bytes());
        hasher.update(top_k.to_be_bytes());
        for fraction in [top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty] {
            hasher.update(fraction.to_be_bytes());
        }
        hasher.update(seed.to_be_bytes());
        hasher.update((self.stop.len() as u32).to_be_bytes());
        for text in &self.stop {
            update_text(&mut hasher, text);
        }
        match &self.json_schema {
            Some(schema) => {
                hasher.update([1]);
                update_text(&mut hasher, schema);
            }
            None => hasher.update([0]),
        }
        HashBytes(hasher.finalize().into())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chat { .. } => "Chat(redacted)",
            Self::Completion { .. } => "Completion(redacted)",
            Self::Embeddings { .. } => "Embeddings(redacted)",
            Self::Transcription { .. } => "Transcription(redacted)",
        })
    }
}

impl fmt::Debug for GenerateParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateParams")
            .field("max_output_tokens", &self.max_output_tokens)
            .field("sampling", &self.sampling)
            .field("stop_strings", &self.stop.len())
            .field("json_schema", &self.json_schema.is_some())
            .field("top_logprobs", &self.top_logprobs)
            .finish()
    }
}

/// What the transcript of embeddings commits to beside the tokens: `SHA-256("chrysalis/embeddings/v1" ‖ n ‖ each text's
/// count of tokens)`, u32 big-endian. The texts' tokens follow each other in the transcript's input, the vectors' numbers,
/// as the bits of an f32, in its output.
pub fn embeddings_digest(tokens_of_texts: &[u32]) -> HashBytes {
    let mut hasher = Sha256::new_with_prefix(b"chrysalis/embeddings/v1");
    hasher.update((tokens_of_texts.len() as u32).to_be_bytes());
    for tokens in tokens_of_texts {
        hasher.update(tokens.to_be_bytes());
    }
    HashBytes(hasher.finalize().into())
}

/// What the transcript of a transcription commits to beside the tokens of its text: `SHA-256("chrysalis/transcription/v1" ‖
/// SHA-256 of the recording ‖ 0 | 1 (u8) for translation ‖ length (u32 big-endian) and bytes of the language's code)`, the
/// code empty where it was to be found out.
pub fn transcription_digest(audio: &[u8], language: Option<&str>, translate: bool) -> HashBytes {
    let mut hasher = Sha256::new_with_prefix(b"chrysalis/transcription/v1");
    hasher.update(Sha256::digest(audio));
    hasher.update([u8::from(translate)]);
    update_text(&mut hasher, language.unwrap_or_default());
    HashBytes(hasher.finalize().into())
}

fn update_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u32).to_be_bytes());
    hasher.update(text);
}

fn is_zero(value: &f32) -> bool {
    value.to_bits() == 0
}

fn is_one(value: &f32) -> bool {
    *value == 1.0
}

fn is_none(value: &u32) -> bool {
    *value == 0
}

fn is_unseeded(value: &u64) -> bool {
    *value == 0
}

fn is_greedy(sampling: &Sampling) -> bool {
    *sampling == Sampling::default() && sampling.temperature.to_bits() == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn full() -> GenerateParams {
        let mut params = GenerateParams::greedy(7);
        params.sampling = Sampling {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 1.1,
            presence_penalty: 0.5,
            frequency_penalty: -0.25,
            seed: u64::MAX,
        };
        params.stop = vec!["END".into(), "\n".into()];
        params.json_schema = Some("{}".into());
        params.top_logprobs = Some(3);
        params
    }

    #[test]
    fn json_brings_back_the_same_and_leaves_out_what_is_usual() {
        for params in [full(), GenerateParams::greedy(9)] {
            let json = serde_json::to_string(&params).unwrap();
            let back: GenerateParams = serde_json::from_str(&json).unwrap();
            assert_eq!(back, params);
            assert_eq!(back.digest(), params.digest());
        }
        assert_eq!(serde_json::to_string(&GenerateParams::greedy(9)).unwrap(), r#"{"max_output_tokens":9}"#);
        assert!(serde_json::from_str::<GenerateParams>(r#"{"max_output_tokens":9,"n":2}"#).is_err());
    }

    #[test]
    fn every_parameter_that_can_change_a_token_changes_the_digest() {
        type Change = fn(&mut GenerateParams);
        let changes: [Change; 15] = [
            |p| p.max_output_tokens = 8,
            |p| p.sampling.temperature = 0.71,
            |p| p.sampling.top_k = 41,
            |p| p.sampling.top_p = 0.05,
            |p| p.sampling.min_p = 0.9,
            |p| p.sampling.repetition_penalty = 1.0,
            |p| p.sampling.presence_penalty = -0.25,
            |p| p.sampling.frequency_penalty = 0.5,
            |p| p.sampling.seed = 0,
            |p| p.stop = vec!["END\n".into()],
            |p| p.stop = vec!["EN".into(), "D\n".into()],
            |p| p.stop.clear(),
            |p| p.json_schema = None,
            |p| p.json_schema = Some("{ }".into()),
            |p| p.json_schema = Some(String::new()),
        ];
        let mut digests = vec![full().digest()];
        for change in changes {
            let mut params = full();
            change(&mut params);
            assert!(!digests.contains(&params.digest()));
            digests.push(params.digest());
        }
        let mut seen = full();
        seen.top_logprobs = None;
        assert_eq!(seen.digest(), full().digest());
    }

    #[test]
    fn other_work_is_committed_to_as_well() {
        assert_ne!(embeddings_digest(&[1, 2]), embeddings_digest(&[2, 1]));
        assert_ne!(embeddings_digest(&[]), embeddings_digest(&[0]));
        let heard = transcription_digest(b"a", None, false);
        for other in [
            transcription_digest(b"b", None, false),
            transcription_digest(b"a", Some("de"), false),
            transcription_digest(b"a", None, true),
        ] {
            assert_ne!(heard, other);
        }
    }
}
