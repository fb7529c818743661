//! TON's 24-word mnemonics without a password, as the `ton` crate reads them.

use rand_core::CryptoRng;
use thiserror::Error;
use ton::errors::TonError;
use ton::ton_wallet::{Mnemonic, WORDLIST_EN_SET};
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

/// A new mnemonic: words drawn until they pass the check, which one draw in 256 does.
pub fn new_mnemonic(rng: &mut impl CryptoRng) -> Zeroizing<String> {
    let mut list: Vec<&str> = WORDLIST_EN_SET.iter().copied().collect();
    list.sort_unstable();
    loop {
        // 2048 words: eleven bits each, without a bias.
        let words: Vec<&str> =
            (0..WORDS).filter_map(|_| list.get(rng.next_u32() as usize % list.len())).copied().collect();
        let words = Zeroizing::new(words.join(" "));
        if seed_from_mnemonic(&words).is_ok() {
            return words;
        }
    }
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

const WORDS: usize = 24;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Deterministic, for a test alone.
    struct Counting(u64);

    impl rand_core::TryRng for Counting {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Ok((self.0 >> 33) as u32)
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(u64::from(self.try_next_u32()?) << 32 | u64::from(self.try_next_u32()?))
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            for byte in bytes {
                *byte = self.try_next_u32()? as u8;
            }
            Ok(())
        }
    }

    impl rand_core::TryCryptoRng for Counting {}

    #[test]
    fn a_new_mnemonic_is_one_and_another_each_time() {
        let mut rng = Counting(1);
        let (first, second) = (new_mnemonic(&mut rng), new_mnemonic(&mut rng));
        assert_ne!(*first, *second);
        for words in [first, second] {
            assert_eq!(words.split(' ').count(), WORDS);
            seed_from_mnemonic(&words).unwrap();
        }
    }
}
