//! Text to tokens and back: the tokenizer and the chat template, as the model's files carry them.

use std::collections::HashSet;

use ahash::AHashMap;
use minijinja::Environment;
use serde::Serialize;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{GenerateError, LoadError};
use crate::files::ModelFiles;
use crate::gguf::{Gguf, Value};

/// ggml's mark of a control token.
const CONTROL_TOKEN: u64 = 3;
const TEMPLATE: &str = "chat";

/// One message of a conversation. Its `Debug` shows no text.
#[derive(Clone, Serialize)]
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

/// A model's way with text.
pub(crate) struct Text {
    pub(crate) tokenizer: Tokenizer,
    template: Environment<'static>,
    begin: String,
    end: String,
    pub(crate) stop_ids: HashSet<u32>,
}

impl Text {
    pub(crate) fn load(files: &ModelFiles) -> Result<Self, LoadError> {
        match files.gguf() {
            Some(file) => Self::from_gguf(files, &file.bytes),
            None => Self::from_hugging_face(files),
        }
    }

    /// The conversation as the model was trained to see it, with the opening of its own turn.
    pub(crate) fn prompt(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, GenerateError> {
        let template = self.template.get_template(TEMPLATE).map_err(|_| GenerateError::Template)?;
        let context = minijinja::context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => self.begin.as_str(),
            eos_token => self.end.as_str(),
        };
        let text = template.render(context).map_err(|_| GenerateError::Template)?;
        self.encode(&text)
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|_| GenerateError::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    fn new(
        tokenizer: Tokenizer,
        template: String,
        begin: String,
        end: String,
        mut stop_ids: HashSet<u32>,
    ) -> Result<Self, String> {
        for name in [end.as_str(), "<|im_end|>", "<|eot_id|>"] {
            stop_ids.extend(tokenizer.token_to_id(name));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(1_000_000));
        environment
            .add_template_owned(TEMPLATE, template)
            .map_err(|error| format!("its chat template does not parse: {error}"))?;
        Ok(Self { tokenizer, template: environment, begin, end, stop_ids })
    }

    fn from_gguf(files: &ModelFiles, bytes: &[u8]) -> Result<Self, LoadError> {
        let corrupt = |detail: String| files.corrupt("model.gguf", detail);
        let head = Gguf::parse(bytes).map_err(corrupt)?;
        let kind = (head.text("tokenizer.ggml.model"), head.text("tokenizer.ggml.pre"));
        if kind != (Some("gpt2"), Some("smollm")) {
            let what =
                format!("the GGUF tokenizer {kind:?} (a Hugging Face directory with tokenizer.json works)");
            return Err(LoadError::Unsupported { what });
        }
        let texts = |key: &str| -> Result<Vec<String>, LoadError> {
            head.array(key)
                .unwrap_or_default()
                .iter()
                .map(|value| match value {
                    Value::Text(text) => Ok(text.clone()),
                    _ => Err(corrupt(format!("{key} holds something else than text"))),
                })
                .collect()
        };
        let tokens = texts("tokenizer.ggml.tokens")?;
        let merges = texts("tokenizer.ggml.merges")?
            .iter()
            .map(|pair| pair.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| corrupt("a merge is not a pair".into()))?;
        let vocabulary: Vec<(String, u32)> = tokens.iter().cloned().zip(0u32..).collect();
        let model = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<AHashMap<_, _>>(), merges)
            .build()
            .map_err(|error| corrupt(format!("its vocabulary and merges do not fit: {error}")))?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Digits(Digits::new(true)),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ])));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        let controls: Vec<AddedToken> = tokens
            .iter()
            .zip(head.array("tokenizer.ggml.token_type").unwrap_or_default())
            .filter(|(_, kind)| matches!(kind, Value::Signed(3) | Value::Unsigned(CONTROL_TOKEN)))
            .map(|(token, _)| AddedToken::from(token.clone(), true))
            .collect();
        tokenizer.add_special_tokens(&controls);
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
        Self::new(tokenizer, template.to_owned(), begin, end, HashSet::new()).map_err(corrupt)
    }

    fn from_hugging_face(files: &ModelFiles) -> Result<Self, LoadError> {
        let json = |name: &str| -> Result<serde_json::Value, LoadError> {
            match files.find(name) {
                Some(file) => serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(name, error)),
                None => Ok(serde_json::Value::Null),
            }
        };
        let file =
            files.find("tokenizer.json").ok_or_else(|| files.corrupt("tokenizer.json", "it is missing"))?;
        let tokenizer =
            Tokenizer::from_bytes(&*file.bytes).map_err(|error| files.corrupt("tokenizer.json", error))?;
        let config = json("tokenizer_config.json")?;
        let token = |key: &str| {
            let value = &config[key];
            value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_owned()
        };
        let template = config["chat_template"]
            .as_str()
            .ok_or_else(|| LoadError::Unsupported { what: "a model without a chat template".into() })?;
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
