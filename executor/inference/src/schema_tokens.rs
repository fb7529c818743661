//! A schema as the tokens that may come next: the tokenizer's vocabulary as bytes, and a grammar walked along the
//! answer. What may come next depends on the schema and the answer so far alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::schema::{JsonSchema, SchemaError};
use crate::tokenizer_file::guarded;

/// Bytes of a token, and nodes of the tree of all tokens, that the tree's packed form can hold.
const MAX_TOKEN_BYTES: usize = 1_000;
const MAX_TREE_NODES: usize = 4_000_000;
/// States of the lexer; each takes up to 2 kB.
const MAX_LEXER_STATES: usize = 20_000;

/// A vocabulary that answers to schemas can be made of. Made on first use.
#[derive(Default)]
pub(crate) struct SchemaTokens {
    factory: OnceLock<Option<ParserFactory>>,
}

/// One answer's way through a schema.
pub(crate) struct Constraint {
    matcher: Matcher,
    stop_ids: HashSet<u32>,
    next: Next,
}

/// What may come next.
enum Next {
    Tokens {
        allowed: SimpleVob,
        may_end: bool,
    },
    /// The answer is whole.
    End,
    /// Another token came than could: what follows cannot be judged by the schema.
    Anything,
    Failed,
}

impl SchemaTokens {
    /// The beginning of an answer to `schema`.
    ///
    /// # Errors
    /// [`SchemaError::Tokenizer`], [`SchemaError::TooComplex`].
    pub(crate) fn constraint(
        &self,
        tokenizer: &Tokenizer,
        stop_ids: &HashSet<u32>,
        schema: &JsonSchema,
    ) -> Result<Constraint, SchemaError> {
        // Without one, an answer could not end.
        let end = *stop_ids.iter().min().ok_or(SchemaError::Tokenizer)?;
        let factory = self
            .factory
            .get_or_init(|| guarded(|| factory(tokenizer, stop_ids, end).ok_or(())))
            .as_ref()
            .ok_or(SchemaError::Tokenizer)?;
        let grammar = TopLevelGrammar::from_json_schema(schema.compiled().clone());
        let parser = guarded(|| factory.create_parser(grammar)).ok_or(SchemaError::TooComplex)?;
        let matcher = Matcher::new(Ok(parser));
        let mut constraint = Constraint { matcher, stop_ids: stop_ids.clone(), next: Next::Failed };
        constraint.next = constraint.look();
        match constraint.next {
            Next::Failed => Err(SchemaError::TooComplex),
            _ => Ok(constraint),
        }
    }
}

impl Constraint {
    /// Makes those of `values` that must not come next NaN.
    pub(crate) fn forbid(&self, values: &mut [f32]) {
        for (id, value) in (0u32..).zip(values) {
            if !self.allows(id) {
                *value = f32::NAN;
            }
        }
    }

    /// Goes on by a token of the answer.
    pub(crate) fn accept(&mut self, id: u32) {
        self.next = match &self.next {
            Next::Anything => Next::Anything,
            Next::Failed => Next::Failed,
            _ if self.stop_ids.contains(&id) || !self.allows(id) => Next::Anything,
            _ => match self.matcher.consume_token(id) {
                Ok(()) => self.look(),
                Err(_) => Next::Failed,
            },
        };
    }

    /// Whether following the schema took too much work.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.next, Next::Failed)
    }

    fn allows(&self, id: u32) -> bool {
        match &self.next {
            Next::Tokens { may_end, .. } if self.stop_ids.contains(&id) => *may_end,
            Next::Tokens { allowed, .. } => (id as usize) < allowed.len() && allowed.is_allowed(id),
            Next::End => self.stop_ids.contains(&id),
            Next::Anything => true,
            Next::Failed => false,
        }
    }

    fn look(&mut self) -> Next {
        if self.matcher.is_stopped() {
            return match self.matcher.stop_reason() {
                StopReason::NoExtension | StopReason::EndOfSentence | StopReason::NoExtensionBias => {
                    Next::End
                }
                _ => Next::Failed,
            };
        }
        match (self.matcher.is_accepting(), self.matcher.compute_mask()) {
            (Ok(may_end), Ok(allowed)) => Next::Tokens { allowed, may_end },
            _ => Next::Failed,
        }
    }
}

/// `None` where the tokenizer's way from tokens to text is not one of those known here.
fn factory(tokenizer: &Tokenizer, stop_ids: &HashSet<u32>, end: u32) -> Option<ParserFactory> {
    let spelling = Spelling::of(tokenizer)?;
    let added = tokenizer.get_added_tokens_decoder();
    let tokens = tokenizer.get_vocab(true);
    // Ids were held against the model's vocabulary when it was loaded.
    let highest = tokens.values().copied().max()?.max(end);
    let mut words = vec![Vec::new(); highest as usize + 1];
    let mut nodes = 0usize;
    for (token, id) in tokens {
        // Control tokens are left out of an answer's text.
        let is_control = stop_ids.contains(&id) || added.get(&id).is_some_and(|token| token.special);
        let bytes = spelling.bytes(&token);
        if is_control || bytes.len() > MAX_TOKEN_BYTES {
            continue;
        }
        nodes += bytes.len();
        *words.get_mut(id as usize)? = bytes;
    }
    if nodes > MAX_TREE_NODES {
        return None;
    }
    let trie = TokTrie::from(&TokRxInfo::new(highest.checked_add(1)?, end), &words);
    let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices).ok()?;
    // It would write parts of answers to stderr.
    factory.quiet();
    let limits = factory.limits_mut();
    limits.max_lexer_states = MAX_LEXER_STATES;
    limits.verbose_errors = false;
    Some(factory)
}

/// How a tokenizer writes bytes in its tokens.
enum Spelling {
    /// A letter for each byte.
    ByteLevel(HashMap<char, u8>),
    /// UTF-8 with `<0xNN>` for other bytes, and this for a space.
    SentencePiece(String),
}

impl Spelling {
    fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let decoder = serde_json::to_value(tokenizer.get_decoder()?).ok()?;
        let one = std::slice::from_ref(&decoder);
        let steps = decoder["decoders"].as_array().map_or(one, Vec::as_slice);
        let kinds: Vec<&str> = steps.iter().filter_map(|step| step["type"].as_str()).collect();
        match kinds[..] {
            ["ByteLevel"] => Some(Self::ByteLevel(byte_letters())),
            ["Replace", "ByteFallback", "Fuse"] | ["Replace", "ByteFallback", "Fuse", "Strip"] => {
                let replace = &steps[0];
                let is_space = replace["content"] == " ";
                let letter = replace["pattern"]["String"].as_str().filter(|_| is_space && strips_left(steps));
                letter.map(|letter| Self::SentencePiece(letter.to_owned()))
            }
            _ => None,
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            // As the decoder does: a token with one other letter stands for itself.
            Self::ByteLevel(letters) => token
                .chars()
                .map(|letter| letters.get(&letter).copied())
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| token.as_bytes().to_vec()),
            Self::SentencePiece(space) => {
                let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                let is_byte =
                    |hex: &&str| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
                match hex.filter(is_byte).map(|hex| u8::from_str_radix(hex, 16)) {
                    Some(Ok(byte)) => vec![byte],
                    _ => token.replace(space, " ").into_bytes(),
                }
            }
        }
    }
}

/// Whether a step that strips takes no more than a space before the whole text, which no JSON begins with.
fn strips_left(steps: &[Value]) -> bool {
    steps
        .iter()
        .filter(|step| step["type"] == "Strip")
        .all(|step| step["stop"] == 0 && step["content"] == " ")
}

/// GPT-2's letters for bytes: those that print stand for themselves, the others follow from 256 up.
fn byte_letters() -> HashMap<char, u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 256u32;
    let mut letters = HashMap::new();
    for byte in 0..=255u8 {
        let letter = if prints(byte) {
            u32::from(byte)
        } else {
            next += 1;
            next - 1
        };
        letters.extend(char::from_u32(letter).map(|letter| (letter, byte)));
    }
    letters
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn every_byte_has_the_letter_that_tokenizers_give_it() {
        let letters = byte_letters();
        assert_eq!(letters.len(), 256);
        assert_eq!(
            letters.keys().copied().collect::<HashSet<_>>(),
            ByteLevel::alphabet().into_iter().collect()
        );
        assert_eq!([letters[&'a'], letters[&'\u{120}'], letters[&'\u{10a}']], [b'a', b' ', b'\n']);
        let letters = Spelling::ByteLevel(letters);
        assert_eq!(letters.bytes("\u{120}é"), [b' ', 0xe9]);
        assert_eq!(letters.bytes("a b"), b"a b", "one that no byte has");
    }

    #[test]
    fn pieces_of_sentences_spell_bytes() {
        let pieces = Spelling::SentencePiece("\u{2581}".into());
        assert_eq!(pieces.bytes("<0xF0>"), [0xf0]);
        assert_eq!(pieces.bytes("\u{2581}é<0xF0>"), " é<0xF0>".as_bytes());
        assert_eq!(pieces.bytes("<0x+1>"), b"<0x+1>");
    }
}
