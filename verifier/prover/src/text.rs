//! Reading a signed text as the contract does, and noting the bites.

use contracts::attestor::{MAX_PIECE_BYTES, Pieces, PiecesError};
use sha2::{Digest, Sha256};

use crate::pieces::{Bite, pack};

/// A document is not one that the contract can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Another form than Intel's.
    #[error(
        "{what} differs from the form Intel issues, at byte {at}: expected {expected}. It was altered, or its issuer changed its form and the contract cannot read it"
    )]
    Form { what: &'static str, at: usize, expected: &'static str },
    #[error("{what} cannot be carried in one message: {source}")]
    Pieces { what: &'static str, source: PiecesError },
}

/// A signed text and how the contract reads it.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedText {
    /// What the signature is over.
    pub bytes: Vec<u8>,
    /// In the contract's order.
    pub bites: Vec<Bite>,
    pub pieces: Pieces,
}

impl SignedText {
    /// SHA-256, what ECDSA signs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }
}

impl std::fmt::Debug for SignedText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pieces.fmt(f)
    }
}

/// A cursor that notes its bites.
pub(crate) struct Text<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
    bites: Vec<Bite>,
}

impl<'a> Text<'a> {
    /// `what` names the document in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0, bites: Vec::new() }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn error(&self, expected: &'static str) -> TextError {
        TextError::Form { what: self.what, at: self.at, expected }
    }

    /// One bite.
    pub(crate) fn take(&mut self, length: usize, expected: &'static str) -> Result<&'a [u8], TextError> {
        if length > MAX_PIECE_BYTES {
            return Err(self.error(expected));
        }
        let bite = self.advance(length, expected)?;
        self.bites.push(Bite::Whole(length));
        Ok(bite)
    }

    /// One bite of a length known beforehand.
    pub(crate) fn take_array<const N: usize>(
        &mut self,
        expected: &'static str,
    ) -> Result<[u8; N], TextError> {
        let at_fault = self.error(expected);
        self.take(N, expected)?.try_into().map_err(|_| at_fault)
    }

    /// The piece ends with the last bite.
    pub(crate) fn end_piece(&mut self) {
        if let Some(bite) = self.bites.last_mut()
            && let Bite::Whole(length) = *bite
        {
            *bite = Bite::ToTheEnd(length);
        }
    }

    /// A bite that is this text.
    pub(crate) fn expect(&mut self, literal: &'static str) -> Result<(), TextError> {
        if self.try_expect(literal) { Ok(()) } else { Err(self.error(literal)) }
    }

    /// Takes a bite that is this text, where it is there.
    pub(crate) fn try_expect(&mut self, literal: &'static str) -> bool {
        let is_there = self.rest().starts_with(literal.as_bytes()) && literal.len() <= MAX_PIECE_BYTES;
        if is_there {
            self.at += literal.len();
            self.bites.push(Bite::Whole(literal.len()));
        }
        is_there
    }

    /// The text with its bites, where it has been read to the end.
    pub(crate) fn finish(self) -> Result<SignedText, TextError> {
        if self.at != self.bytes.len() {
            return Err(self.error("the end"));
        }
        let pieces =
            pack(self.bytes, &self.bites).map_err(|source| TextError::Pieces { what: self.what, source })?;
        Ok(SignedText { bytes: self.bytes.to_vec(), bites: self.bites, pieces })
    }

    fn advance(&mut self, length: usize, expected: &'static str) -> Result<&'a [u8], TextError> {
        let bytes = self.rest().get(..length).ok_or_else(|| self.error(expected))?;
        self.at += length;
        Ok(bytes)
    }
}
