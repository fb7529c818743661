//! TON's 24-word mnemonics without a password, as the `ton` crate reads them.

use thiserror::Error;
use ton::errors::TonError;
use ton::ton_wallet::Mnemonic;
use zeroize::Zeroizing;

/// Why words are not a mnemonic. Says nothing of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MnemonicError {
    /// Not 24 words.
    #[error("caller: a mnemonic has 24 words, this one {0}")]
    WordCount(usize),
    /// A word that mnemonics do not have.
    #[error("caller: a word is none of the 2048 that mnemonics are made of; check their spelling")]
    UnknownWord,
    /// The words' check does not hold.
    #[error("caller: the words are not a mnemonic without password; check their spelling and order")]
    Checksum,
}

/// The Ed25519 seed of a mnemonic.
///
/// # Errors
/// [`MnemonicError`] for a wrong count, word or check.
pub fn seed_from_mnemonic(words: &str) -> Result<Zeroizing<[u8; 32]>, MnemonicError> {
    // The crate's error repeats a word it does not know.
    let key_pair = Mnemonic::new(words.split_whitespace().collect(), None)
        .and_then(|mnemonic| mnemonic.to_key_pair())
        .map_err(|error| match error {
            TonError::MnemonicWordsCount(count) => MnemonicError::WordCount(count),
            TonError::MnemonicWord(_) => MnemonicError::UnknownWord,
            _ => MnemonicError::Checksum,
        })?;
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&key_pair.secret_key[..32]);
    Ok(seed)
}
