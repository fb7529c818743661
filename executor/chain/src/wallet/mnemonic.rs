//! TON's 24-word mnemonics (as the reference wallets derive keys from them, without a password).

use hmac::{Hmac, Mac};
use pbkdf2::pbkdf2_hmac;
use sha2::Sha512;
use thiserror::Error;
use zeroize::Zeroizing;

/// Why words are not a mnemonic. Says nothing of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MnemonicError {
    /// Not 24 words.
    #[error("caller: a mnemonic has 24 words, this one {0}")]
    WordCount(usize),
    /// The words' check does not hold.
    #[error("caller: the words are not a mnemonic without password; check their spelling and order")]
    Checksum,
}

/// The Ed25519 seed of a mnemonic.
///
/// # Errors
/// [`MnemonicError`] for a wrong count or check.
pub fn seed_from_mnemonic(words: &str) -> Result<Zeroizing<[u8; 32]>, MnemonicError> {
    let lower = Zeroizing::new(words.to_lowercase());
    let count = lower.split_whitespace().count();
    if count != WORDS {
        return Err(MnemonicError::WordCount(count));
    }
    let mut phrase = Zeroizing::new(String::with_capacity(lower.len()));
    for word in lower.split_whitespace() {
        if !phrase.is_empty() {
            phrase.push(' ');
        }
        phrase.push_str(word);
    }
    let mac =
        <Hmac<Sha512> as Mac>::new_from_slice(phrase.as_bytes()).map_err(|_| MnemonicError::Checksum)?;
    let entropy = Zeroizing::new(<[u8; 64]>::from(mac.finalize().into_bytes()));
    if stretch(&entropy, b"TON seed version", CHECK_ITERATIONS)[0] != 0 {
        return Err(MnemonicError::Checksum);
    }
    let stretched = stretch(&entropy, b"TON default seed", ITERATIONS);
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&stretched[..32]);
    Ok(seed)
}

const WORDS: usize = 24;
const ITERATIONS: u32 = 100_000;
const CHECK_ITERATIONS: u32 = ITERATIONS / 256;

fn stretch(entropy: &[u8; 64], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 64]> {
    let mut out = Zeroizing::new([0; 64]);
    pbkdf2_hmac::<Sha512>(entropy, salt, iterations, out.as_mut());
    out
}
