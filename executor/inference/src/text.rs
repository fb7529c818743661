//! Text to tokens and back: the tokenizer and the chat template, as the model's files carry them.

use std::collections::HashSet;

use serde::Serialize;
use tokenizers::Tokenizer;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::engine::Engine;
use crate::error::{GenerateError, LoadError};
use crate::files::ModelFiles;
use crate::gguf::Gguf;
use crate::schema::{JsonSchema, SchemaError};
use crate::schema_tokens::{Constraint, SchemaTokens};
use crate::template::Template;
use crate::tokenizer_file::{self, guarded};
use crate::vocabulary;

/// Bytes of a prompt, before it is cut into tokens, and of a conversation before its template: several times the longest
/// context.
const MAX_PROMPT_BYTES: usize = 16 << 20;
/// Bytes that a template may add to a conversation, beside repeating it a few times.
const MAX_TEMPLATE_TEXT: usize = 1 << 20;

/// Tokens that may wait for the rest of a character before they are shown as they are.
const MAX_WAITING_TOKENS: usize = 16;

/// One message of a conversation. Its `Debug` shows no text; dropped, it is overwritten.
#[derive(Clone, Serialize, Zeroize, ZeroizeOnDrop)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl std::fmt::Debug for ChatMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatMessage").finish_non_exhaustive()
    }
}

/// A turn of a conversation as a template sees it. Its `Debug` shows no text.
#[derive(Clone, Serialize)]
pub struct Turn<'a> {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: &'a str,
    /// What was said.
    pub content: &'a str,
    /// Calls of tools that the assistant made: a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<&'a serde_json::Value>,
    /// Which call a tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<&'a str>,
    /// Whose turn it is, where several have one role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
}

impl<'a> Turn<'a> {
    /// A turn with words alone.
    pub fn new(role: &'a str, content: &'a str) -> Self {
        Self { role, content, tool_calls: None, tool_call_id: None, name: None }
    }
}

impl std::fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

impl Engine {
    /// The token ids of a conversation, up to the opening of the model's turn. `tools` is a list of tools that the model may
    /// call; a template that knows nothing of tools leaves it out.
    ///
    /// # Errors
    /// As [`Engine::tokenize_chat`].
    pub fn tokenize_turns(
        &self,
        turns: &[Turn<'_>],
        tools: Option<&serde_json::Value>,
    ) -> Result<Vec<u32>, GenerateError> {
        self.text.prompt_of(turns, tools)
    }

    /// The text of one token; what is no whole character is replaced, an unknown token is empty.
    pub fn token_text(&self, id: u32) -> String {
        guarded(|| self.text.tokenizer.decode(&[id], false)).unwrap_or_default()
    }
}

/// A model's way with text.
pub(crate) struct Text {
    pub(crate) tokenizer: Tokenizer,
    template: Template,
    begin: String,
    end: String,
    pub(crate) stop_ids: HashSet<u32>,
    schemas: SchemaTokens,
}

impl Text {
    /// The conversation as the model was trained to see it, with the opening of its own turn.
    pub(crate) fn prompt(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, GenerateError> {
        let turns: Vec<Turn<'_>> =
            messages.iter().map(|message| Turn::new(&message.role, &message.content)).collect();
        self.prompt_of(&turns, None)
    }

    /// As [`Text::prompt`], with tools.
    pub(crate) fn prompt_of(
        &self,
        turns: &[Turn<'_>],
        tools: Option<&serde_json::Value>,
    ) -> Result<Vec<u32>, GenerateError> {
        let given: usize = turns.iter().map(|turn| turn.role.len() + turn.content.len()).sum();
        if given > MAX_PROMPT_BYTES {
            return Err(GenerateError::Parameter("messages"));
        }
        let mut context = serde_json::json!({
            "messages": turns,
            "add_generation_prompt": true,
            "bos_token": self.begin,
            "eos_token": self.end,
        });
        if let Some(tools) = tools {
            context["tools"] = tools.clone();
        }
        let rendered = self.template.render(&context, given.saturating_mul(4) + MAX_TEMPLATE_TEXT);
        wipe(&mut context);
        let text = rendered.ok_or(GenerateError::Template)?;
        self.encode(std::str::from_utf8(&text).map_err(|_| GenerateError::Template)?)
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        if text.len() > MAX_PROMPT_BYTES {
            return Err(GenerateError::Parameter("prompt"));
        }
        let encoding = guarded(|| self.tokenizer.encode(text, false)).ok_or(GenerateError::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The beginning of an answer to `schema`.
    ///
    /// # Errors
    /// [`SchemaError::Tokenizer`], [`SchemaError::TooComplex`].
    pub(crate) fn constraint(&self, schema: &JsonSchema) -> Result<Constraint, SchemaError> {
        self.schemas.constraint(&self.tokenizer, &self.stop_ids, schema)
    }

    /// The text of an answer that is made token by token.
    pub(crate) fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: &self.tokenizer, ids: Vec::new(), shown: 0 }
    }

    fn new(
        mut tokenizer: Tokenizer,
        template: String,
        begin: String,
        end: String,
        mut stop_ids: HashSet<u32>,
    ) -> Result<Self, String> {
        for name in [end.as_str(), "<|im_end|>", "<|eot_id|>", "<end_of_turn>"] {
            stop_ids.extend(tokenizer.token_to_id(name));
        }
        // A tokenizer.json may ask for either; a prompt is neither cut nor filled up here.
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        let template = Template::new(template)?;
        Ok(Self { tokenizer, template, begin, end, stop_ids, schemas: SchemaTokens::default() })
    }

    /// The tokenizer and the template in the head of a GGUF file.
    pub(crate) fn from_gguf(files: &ModelFiles, head: &Gguf) -> Result<Self, LoadError> {
        let (tokenizer, tokens) = vocabulary::load(files, head)?;
        let named = |key: &str| {
            head.unsigned(key)
                .and_then(|id| usize::try_from(id).ok())
                .and_then(|id| tokens.get(id).cloned())
                .unwrap_or_default()
        };
        let template = head
            .text("tokenizer.chat_template")
            .ok_or_else(|| LoadError::Unsupported { what: "a model without a chat template".into() })?;
        let (begin, end) = (named("tokenizer.ggml.bos_token_id"), named("tokenizer.ggml.eos_token_id"));
        let stop_ids = ["eos_token_id", "eot_token_id", "eom_token_id"]
            .iter()
            .filter_map(|key| head.unsigned(&format!("tokenizer.ggml.{key}")))
            .filter_map(|id| u32::try_from(id).ok())
            .collect();
        Self::new(tokenizer, template.to_owned(), begin, end, stop_ids)
            .map_err(|detail| files.corrupt("model.gguf", detail))
    }

    /// The tokenizer and the template of a Hugging Face directory.
    pub(crate) fn from_hugging_face(files: &ModelFiles) -> Result<Self, LoadError> {
        let json = |name: &str| -> Result<serde_json::Value, LoadError> {
            match files.find(name) {
                Some(file) => serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(name, error)),
                None => Ok(serde_json::Value::Null),
            }
        };
        let tokenizer = tokenizer_file::load(files)?;
        let config = json("tokenizer_config.json")?;
        let token = |key: &str| {
            let value = &config[key];
            value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_owned()
        };
        let template = match files.find("chat_template.jinja") {
            Some(file) => std::str::from_utf8(&file.bytes)
                .map_err(|error| files.corrupt("chat_template.jinja", error))?,
            None => template_of(&config)
                .ok_or_else(|| LoadError::Unsupported { what: "a model without a chat template".into() })?,
        };
        let mut stop_ids = HashSet::new();
        for source in [json("generation_config.json")?, json("config.json")?] {
            let eos = &source["eos_token_id"];
            let ids = eos.as_array().cloned().unwrap_or_else(|| vec![eos.clone()]);
            stop_ids.extend(
                ids.iter().filter_map(serde_json::Value::as_u64).filter_map(|id| u32::try_from(id).ok()),
            );
        }
        Self::new(tokenizer, template.to_owned(), token("bos_token"), token("eos_token"), stop_ids)
            .map_err(|detail| files.corrupt("tokenizer_config.json", detail))
    }
}

/// Overwrites the texts of a value.
fn wipe(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => text.zeroize(),
        serde_json::Value::Array(values) => values.iter_mut().for_each(wipe),
        serde_json::Value::Object(values) => values.values_mut().for_each(wipe),
        _ => {}
    }
}

/// The one template, or the one called `default` of several.
fn template_of(config: &serde_json::Value) -> Option<&str> {
    let template = &config["chat_template"];
    template
        .as_str()
        .or_else(|| template.as_array()?.iter().find(|one| one["name"] == "default")?["template"].as_str())
}

/// Decodes token by token, holding a character back until all its bytes are there.
pub(crate) struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The last tokens that were shown, as context, and those that wait.
    ids: Vec<u32>,
    shown: usize,
}

impl TextStream<'_> {
    /// The text that became whole with `id`.
    pub(crate) fn push(&mut self, id: u32) -> Result<String, GenerateError> {
        self.ids.push(id);
        self.advance(self.ids.len() - self.shown > MAX_WAITING_TOKENS)
    }

    /// What still waited, with a replacement character for a character that never became whole.
    pub(crate) fn finish(&mut self) -> Result<String, GenerateError> {
        self.advance(true)
    }

    fn advance(&mut self, all: bool) -> Result<String, GenerateError> {
        let decode =
            |ids: &[u32]| guarded(|| self.tokenizer.decode(ids, true)).ok_or(GenerateError::Tokenizer);
        let before = Zeroizing::new(decode(&self.ids[..self.shown])?);
        let now = Zeroizing::new(decode(&self.ids)?);
        if now.ends_with(char::REPLACEMENT_CHARACTER) && !all {
            return Ok(String::new());
        }
        let piece = now.get(before.len()..).unwrap_or_default().to_owned();
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ahash::AHashMap;
    use tokenizers::models::bpe::BPE;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    fn bytes_only() -> Tokenizer {
        let mut letters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        letters.sort();
        let tokens: AHashMap<String, u32> = letters.into_iter().map(String::from).zip(0..).collect();
        let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(tokens, vec![]).build().unwrap());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        tokenizer
    }

    fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> (Vec<String>, String) {
        let mut stream = TextStream { tokenizer, ids: Vec::new(), shown: 0 };
        let pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        let rest = stream.finish().unwrap();
        let whole = pieces.concat() + &rest;
        (pieces, whole)
    }

    #[test]
    fn a_character_comes_whole_or_not_yet() {
        let tokenizer = bytes_only();
        let text = "aé你 👩\u{200d}🚀 \u{fffd}z";
        let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        let (pieces, whole) = streamed(&tokenizer, &ids);
        assert_eq!(whole, text);
        // A replacement character that is meant looks like half a character until the next one comes.
        assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).count(), text.chars().count() - 1);
    }

    #[test]
    fn broken_bytes_neither_fail_nor_wait_for_ever() {
        let tokenizer = bytes_only();
        let lead = tokenizer.encode("é", false).unwrap().get_ids()[0];
        let (pieces, whole) = streamed(&tokenizer, &[lead; 40]);
        assert!(pieces.iter().any(|piece| !piece.is_empty()));
        assert!(whole.chars().all(|c| c == char::REPLACEMENT_CHARACTER));
        let cut = tokenizer.encode("ab👋", false).unwrap().get_ids()[..4].to_vec();
        assert_eq!(streamed(&tokenizer, &cut).1, tokenizer.decode(&cut, true).unwrap());
    }
}
