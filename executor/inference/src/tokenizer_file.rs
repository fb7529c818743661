//! A `tokenizer.json` from an untrusted directory: parsed, and refused where it could blow up a prompt or an answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::LoadError;
use crate::files::ModelFiles;

const FILE: &str = "tokenizer.json";
/// Bytes of a token. An answer of a thousand tokens stays small.
const MAX_TOKEN_BYTES: usize = 2_048;
/// How many times its own length a text may become on its way to tokens, by the worst its steps can do together.
/// SentencePiece's spaces come to 16, a full Unicode normalisation to 18.
const MAX_GROWTH: u64 = 1_024;

/// The tokenizer of a Hugging Face directory.
///
/// # Errors
/// [`LoadError::Corrupt`], [`LoadError::Unsupported`].
pub(crate) fn load(files: &ModelFiles) -> Result<Tokenizer, LoadError> {
    let file = files.find(FILE).ok_or_else(|| files.corrupt(FILE, "it is missing"))?;
    let steps: Steps = serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(FILE, error))?;
    let before = growth(&steps.normalizer).saturating_mul(growth(&steps.pre_tokenizer));
    for (what, growth) in [("normalizer and pre_tokenizer", before), ("decoder", growth(&steps.decoder))] {
        if growth > MAX_GROWTH {
            let what = format!("{FILE} whose {what} may lengthen a text more than {MAX_GROWTH} times");
            return Err(LoadError::Unsupported { what });
        }
    }
    // The parser of some parts panics on what it does not expect.
    let tokenizer = catch_unwind(|| Tokenizer::from_bytes(&*file.bytes))
        .map_err(|_| files.corrupt(FILE, "it is not what a tokenizer can be made of"))?
        .map_err(|error| files.corrupt(FILE, error))?;
    let longest = tokenizer.get_vocab(true).keys().map(String::len).max().unwrap_or(0);
    if longest > MAX_TOKEN_BYTES {
        return Err(files.corrupt(FILE, format!("vocab has a token of {longest} bytes")));
    }
    Ok(tokenizer)
}

/// What a text goes through on its way to tokens and back. Looked at before any of it is built.
#[derive(Deserialize)]
struct Steps {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// Calls into the tokenizer or the template engine, which a file may have been made to let panic.
pub(crate) fn guarded<T, E>(call: impl FnOnce() -> Result<T, E>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()?.ok()
}

/// How many times longer a step may make a text.
fn growth(step: &Value) -> u64 {
    let length = |key: &str| step[key].as_str().map_or(0, |text| text.len() as u64);
    let parts = ["normalizers", "pretokenizers", "decoders"].iter().find_map(|key| step[key].as_array());
    if let Some(parts) = parts {
        return parts.iter().map(growth).fold(1, u64::saturating_mul);
    }
    match step["type"].as_str().unwrap_or_default() {
        // Before every byte, if the pattern matches nothing or the text is one byte.
        "Replace" => 1 + length("content"),
        "Prepend" => 1 + length("prepend"),
        "Metaspace" => 1 + length("replacement"),
        "WordPiece" | "CTC" | "BPEDecoder" => {
            1 + length("prefix") + length("suffix") + length("word_delimiter_token")
        }
        "ByteLevel" => 2,
        "NFC" | "NFD" | "Lowercase" | "BertNormalizer" => 3,
        "NFKC" | "NFKD" => 18,
        // Its table allocates whatever size it claims. No family here has one.
        "Precompiled" => u64::MAX,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn growth_multiplies() {
        let replace = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
        assert_eq!(growth(&replace), 3);
        let both = json!({ "type": "Sequence", "normalizers": [replace.clone(), replace] });
        assert_eq!(growth(&both), 9);
        let many = json!({ "type": "Sequence", "pretokenizers": vec![json!({ "type": "ByteLevel" }); 80] });
        assert_eq!(growth(&many), u64::MAX);
    }
}
