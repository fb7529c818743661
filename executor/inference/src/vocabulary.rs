//! The tokenizer in the head of a GGUF file, made into one of Hugging Face's.

use ahash::AHashMap;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::{NormalizerWrapper, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::error::LoadError;
use crate::files::ModelFiles;
use crate::gguf::{Gguf, Value};

const FILE: &str = "model.gguf";
/// Bytes of a token: real ones are a run of some hundred spaces at most.
const MAX_TOKEN_BYTES: usize = 2_048;
/// Bytes of all merges that SentencePiece's tokens stand for: 262 144 real ones have some 5 MB.
const MAX_MERGE_BYTES: usize = 64 << 20;
/// SentencePiece writes a space so.
const SPACE: &str = "\u{2581}";

/// How Llama 3 cuts text into words.
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen 2 and 3 do.
const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What ggml calls the kinds of tokens.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The tokenizer of a GGUF file and the texts of its tokens.
///
/// # Errors
/// [`LoadError`]: corrupt, or a kind of tokenizer that is not known here.
pub(crate) fn load(files: &ModelFiles, head: &Gguf) -> Result<(Tokenizer, Vec<String>), LoadError> {
    let vocabulary = Vocabulary::read(files, head)?;
    let kind = (head.text("tokenizer.ggml.model"), head.text("tokenizer.ggml.pre"));
    let mut tokenizer = match kind {
        (
            Some("gpt2"),
            Some(words @ ("smollm" | "gpt-2" | "qwen2" | "llama-bpe" | "llama3" | "llama-v3")),
        ) => byte_level(files, head, &vocabulary, words)?,
        (Some("llama"), _) => sentence_piece(files, head, &vocabulary)?,
        _ => {
            let what =
                format!("the GGUF tokenizer {kind:?} (a Hugging Face directory with tokenizer.json works)");
            return Err(LoadError::Unsupported { what });
        }
    };
    let of_kind = |wanted: i64, special: bool| -> Vec<AddedToken> {
        let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds);
        tokens
            .filter(|(token, kind)| **kind == wanted && !token.is_empty())
            .map(|(token, _)| AddedToken::from(token.clone(), special).normalized(false))
            .collect()
    };
    tokenizer.add_special_tokens(&of_kind(CONTROL, true));
    tokenizer.add_tokens(&of_kind(USER_DEFINED, false));
    Ok((tokenizer, vocabulary.tokens))
}

struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i64>,
}

impl Vocabulary {
    fn read(files: &ModelFiles, head: &Gguf) -> Result<Self, LoadError> {
        let tokens = texts(files, head, "tokenizer.ggml.tokens")?;
        if let Some(longest) =
            tokens.iter().map(String::len).max().filter(|longest| *longest > MAX_TOKEN_BYTES)
        {
            let detail = format!("tokenizer.ggml.tokens has a token of {longest} bytes");
            return Err(files.corrupt(FILE, detail));
        }
        let kinds: Vec<i64> = head
            .array("tokenizer.ggml.token_type")
            .unwrap_or_default()
            .iter()
            .map(|kind| match kind {
                Value::Signed(kind) => *kind,
                Value::Unsigned(kind) => i64::try_from(*kind).unwrap_or_default(),
                _ => 0,
            })
            .collect();
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            return Err(files.corrupt(FILE, "tokenizer.ggml.token_type has another length than the tokens"));
        }
        Ok(Self { tokens, kinds })
    }

    fn by_text(&self, files: &ModelFiles) -> Result<AHashMap<String, u32>, LoadError> {
        let map: AHashMap<String, u32> = self.tokens.iter().cloned().zip(0u32..).collect();
        if map.len() == self.tokens.len() {
            Ok(map)
        } else {
            Err(files.corrupt(FILE, "tokenizer.ggml.tokens has the same token twice"))
        }
    }
}

fn texts(files: &ModelFiles, head: &Gguf, key: &str) -> Result<Vec<String>, LoadError> {
    head.array(key)
        .unwrap_or_default()
        .iter()
        .map(|value| match value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(files.corrupt(FILE, format!("{key} holds something else than text"))),
        })
        .collect()
}

/// Byte-level BPE, as GPT-2 began it. `words` names how text is cut before.
fn byte_level(
    files: &ModelFiles,
    head: &Gguf,
    vocabulary: &Vocabulary,
    words: &str,
) -> Result<Tokenizer, LoadError> {
    let key = "tokenizer.ggml.merges";
    let merges = texts(files, head, key)?
        .iter()
        // A token may begin with a space in no such vocabulary, so the first one divides.
        .map(|pair| pair.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| files.corrupt(FILE, format!("{key} has one that is no pair")))?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.by_text(files)?, merges)
        .ignore_merges(words.starts_with("llama"))
        .build()
        .map_err(|error| files.corrupt(FILE, format!("{key} does not fit the tokens: {error}")))?;
    let mut tokenizer = Tokenizer::new(model);
    let split = |pattern: &str| -> Result<PreTokenizerWrapper, LoadError> {
        Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map(PreTokenizerWrapper::Split)
            .map_err(|_| LoadError::Unsupported { what: format!("the word pattern of {words}") })
    };
    let bytes = |by_gpt2: bool| PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, by_gpt2));
    let steps = match words {
        "smollm" => vec![PreTokenizerWrapper::Digits(Digits::new(true)), bytes(true)],
        "gpt-2" => vec![bytes(true)],
        "qwen2" => vec![split(QWEN2_WORDS)?, bytes(false)],
        _ => vec![split(LLAMA3_WORDS)?, bytes(false)],
    };
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
    if words == "qwen2" {
        tokenizer.with_normalizer(Some(NFC));
    }
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    Ok(tokenizer)
}

/// SentencePiece's BPE, where a score takes the place of a list of merges.
fn sentence_piece(files: &ModelFiles, head: &Gguf, vocabulary: &Vocabulary) -> Result<Tokenizer, LoadError> {
    let key = "tokenizer.ggml.scores";
    let scores: Vec<f64> = head
        .array(key)
        .unwrap_or_default()
        .iter()
        .map(|score| match score {
            Value::Float(score) => *score,
            _ => f64::NAN,
        })
        .collect();
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(files.corrupt(FILE, format!("{key} are not a number for each token")));
    }
    let by_text = vocabulary.by_text(files)?;
    let merges = merges(vocabulary, &scores, &by_text)
        .ok_or_else(|| files.corrupt(FILE, "tokenizer.ggml.tokens can be put together in too many ways"))?;
    let mut model = BPE::builder().vocab_and_merges(by_text, merges).byte_fallback(true).fuse_unk(true);
    let unknown = vocabulary.tokens.iter().zip(&vocabulary.kinds).find(|(_, kind)| **kind == UNKNOWN);
    if let Some((unknown, _)) = unknown {
        model = model.unk_token(unknown.clone());
    }
    let model = model
        .build()
        .map_err(|error| files.corrupt(FILE, format!("its vocabulary makes no tokenizer: {error}")))?;
    let mut tokenizer = Tokenizer::new(model);
    let replace = |from: &str, to: &str| {
        Replace::new(from, to).map_err(|_| LoadError::Unsupported { what: "SentencePiece's spaces".into() })
    };
    let with_prefix =
        !matches!(head.metadata.get("tokenizer.ggml.add_space_prefix"), Some(Value::Bool(false)));
    let mut normalizers = vec![NormalizerWrapper::Replace(replace(" ", SPACE)?)];
    let mut decoders = vec![
        DecoderWrapper::Replace(replace(SPACE, " ")?),
        DecoderWrapper::ByteFallback(ByteFallback::default()),
        DecoderWrapper::Fuse(Fuse::default()),
    ];
    if with_prefix {
        normalizers.insert(0, NormalizerWrapper::Prepend(Prepend::new(SPACE.to_owned())));
        decoders.push(DecoderWrapper::Strip(Strip::new(' ', 1, 0)));
    }
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));
    tokenizer.with_decoder(Some(tokenizers::decoders::sequence::Sequence::new(decoders)));
    Ok(tokenizer)
}

/// Every way to put a token together from two others, the best token's first, as transformers orders them. `None`
/// where there would be too many to look at.
fn merges(
    vocabulary: &Vocabulary,
    scores: &[f64],
    by_text: &AHashMap<String, u32>,
) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut bytes = 0usize;
    for (token, score) in vocabulary.tokens.iter().zip(scores) {
        let begin = found.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(left_id), Some(right_id)) = (by_text.get(left), by_text.get(right)) {
                bytes += token.len();
                if bytes > MAX_MERGE_BYTES {
                    return None;
                }
                found.push((*score, (left, right), (*left_id, *right_id)));
            }
        }
        found[begin..].sort_by_key(|(_, _, ids)| *ids);
    }
    let length = |text: &str| text.chars().count();
    found.sort_by(|(score_a, (left_a, right_a), _), (score_b, (left_b, right_b), _)| {
        score_b
            .total_cmp(score_a)
            .then_with(|| length(left_b).cmp(&length(left_a)))
            .then_with(|| length(right_b).cmp(&length(right_a)))
    });
    Some(found.into_iter().map(|(_, (left, right), _)| (left.to_owned(), right.to_owned())).collect())
}
