//! Text comments: what a wallet app sends when its user writes a word beside the amount (`docs/wallet.md`).

use std::fmt;
use std::str::FromStr;

use tycho_types::cell::{CellBuilder, CellContext, CellSlice, Load, Store};
use tycho_types::error::Error as CellError;

use crate::wire::messages;

/// Longest comment in one cell, behind its 32 zero bits.
pub const MAX_COMMENT_BYTES: usize = 123;

/// What the contracts understand. Letters count, not their case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// Worker, owner: all that the message brings above its fees is stake.
    Stake,
    /// Worker, owner: the whole stake.
    Unbond,
    /// Worker, owner: unbonded stake and what is not stake. Model, anyone: shares to publisher and treasury.
    Withdraw,
    /// Worker, owner or operator.
    Pause,
    /// Worker, owner or operator.
    Resume,
    /// Job, client.
    Cancel,
    /// Session, client.
    Close,
    /// Job, anyone.
    Expire,
    /// Job, anyone.
    Sweep,
}

/// The text is none of the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a word that the contracts know: write one of docs/wallet.md")]
pub struct UnknownWord;

impl Word {
    pub const ALL: &[Self] = &[
        Self::Stake,
        Self::Unbond,
        Self::Withdraw,
        Self::Pause,
        Self::Resume,
        Self::Cancel,
        Self::Close,
        Self::Expire,
        Self::Sweep,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::Stake => "stake",
            Self::Unbond => "unbond",
            Self::Withdraw => "withdraw",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Close => "close",
            Self::Expire => "expire",
            Self::Sweep => "sweep",
        }
    }

    /// The message body.
    pub fn comment(self) -> TextComment {
        TextComment { text: Text(self.text().as_bytes().to_vec()) }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Word {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.iter().copied().find(|word| word.text().eq_ignore_ascii_case(text)).ok_or(UnknownWord)
    }
}

/// Bytes of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// `None` above [`MAX_COMMENT_BYTES`].
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= MAX_COMMENT_BYTES).then(|| Self(text.as_bytes().to_vec()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the contracts understand by it.
    pub fn word(&self) -> Result<Word, UnknownWord> {
        std::str::from_utf8(&self.0).map_err(|_| UnknownWord)?.parse()
    }
}

impl Store for Text {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_raw(&self.0, (self.0.len() * 8) as u16)
    }
}

impl<'a> Load<'a> for Text {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let bits = slice.size_bits();
        if !bits.is_multiple_of(8) {
            return Err(CellError::InvalidData);
        }
        let mut buffer = [0; 128];
        Ok(Self(slice.load_raw(&mut buffer, bits)?.to_vec()))
    }
}

messages! {
    /// A transfer with a comment.
    "text_comment" "#00000000" TextComment { text: Text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{MAX_COMMENT_BYTES, Text, TextComment, Word};
    use crate::wire::Message;

    #[test]
    fn every_word_is_read_back_whatever_its_case() {
        for word in Word::ALL {
            let body = word.comment().to_cell().unwrap();
            assert_eq!(body.bit_len() as usize, 32 + 8 * word.text().len());
            assert_eq!(TextComment::from_cell(&body).unwrap().text.word().as_ref(), Ok(word));
            assert_eq!(word.text().to_uppercase().parse().as_ref(), Ok(word));
        }
        assert!("steak".parse::<Word>().is_err());
        assert!(Text::new("stake ").unwrap().word().is_err());
        assert!(Text::new(&"x".repeat(MAX_COMMENT_BYTES + 1)).is_none());
    }
}
