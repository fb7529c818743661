//! The ordinary V5R1 wallet of the `ton` crate: its address, and the external messages it signs.

mod mnemonic;
mod sender;

use std::fmt;

use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use ton::errors::TonError;
use ton::ton_core::cell::TonCell;
use ton::ton_core::traits::tlb::TLB;
use ton::ton_wallet::{KeyPair, TonWallet, WalletVersion};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::error::Error as CellError;
use tycho_types::models::{StateInit, StdAddr};
use zeroize::Zeroizing;

pub use mnemonic::{MnemonicError, new_mnemonic, seed_from_mnemonic};
pub use sender::{Confirmed, SenderTiming, WalletSender};

use crate::error::ChainError;
use crate::message::{Transfer, normalized_hash_of};

/// A V5R1 wallet (subwallet 0 of the basechain) and its key, which is wiped when dropped.
#[derive(Clone)]
pub struct Wallet {
    inner: TonWallet,
    address: StdAddr,
}

/// An external message that the wallet has signed, and what it is recognised by.
#[derive(Debug, Clone)]
pub struct SignedExternal {
    /// The message's root cell.
    pub message: Cell,
    /// See [`crate::normalized_hash`].
    pub normalized_hash: HashBytes,
    /// The wallet's seqno it uses up.
    pub seqno: u32,
    /// The wallet refuses it after this time, Unix seconds.
    pub valid_until_s: u32,
    /// How many internal messages it makes the wallet send.
    pub transfers: usize,
}

/// What can go wrong with a wallet.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalletError {
    /// The chain could not be read or the message not sent.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A message does not fit into cells.
    #[error("caller: a message does not fit into cells: {0}")]
    Cell(#[from] CellError),
    /// The `ton` crate cannot build a message.
    #[error("caller: the wallet's message cannot be built: {0}")]
    Message(String),
    /// More messages than a V5 wallet sends at once.
    #[error("caller: {0} messages in one wallet transaction; 255 is the most")]
    TooManyMessages(usize),
    /// The wallet cannot pay.
    #[error("sender: wallet {address} has {balance_nanoton} nanoTON and needs {needed_nanoton}; top it up")]
    InsufficientFunds {
        /// The wallet.
        address: StdAddr,
        /// What it has.
        balance_nanoton: u128,
        /// What the messages and an allowance for fees come to.
        needed_nanoton: u128,
    },
    /// Some other code or data lives at the wallet's address.
    #[error("caller: the account {0} does not hold the data of a V5R1 wallet of this key")]
    NotThisWallet(StdAddr),
    /// The message can no longer be included; nothing was done, and another may be built.
    #[error("sender: the wallet's message expired at {valid_until_s} without being included; send again")]
    Expired {
        /// Its deadline.
        valid_until_s: u32,
    },
    /// Another message used the same seqno.
    #[error(
        "sender: another message used seqno {seqno} of the wallet; is the key in use elsewhere? read the chain \
         before sending again"
    )]
    SeqnoTaken {
        /// The seqno.
        seqno: u32,
    },
    /// The wallet's transaction happened, but not every message left it.
    #[error(
        "sender: transaction {transaction_lt} of the wallet sent {sent} of {wanted} messages; the usual cause is a \
         balance that ran out"
    )]
    MessagesSkipped {
        /// Messages that left.
        sent: usize,
        /// Messages asked for.
        wanted: usize,
        /// Logical time of the wallet's transaction.
        transaction_lt: u64,
    },
    /// The chain could not be read long enough to know.
    #[error(
        "liteserver: the fate of the wallet's message with seqno {seqno} is unknown ({cause}); confirm it later"
    )]
    Unconfirmed {
        /// The seqno it used.
        seqno: u32,
        /// The last error of the chain.
        cause: String,
    },
}

impl Wallet {
    /// The wallet of an Ed25519 seed on the network `network_id` (−239 the mainnet, −3 the testnet).
    ///
    /// # Errors
    /// [`WalletError::Message`] if the `ton` crate lacks the wallet's code; a test excludes it.
    pub fn from_seed(seed: &[u8; 32], network_id: i32) -> Result<Self, WalletError> {
        let key = SigningKey::from_bytes(seed);
        let key_pair =
            KeyPair { public_key: key.verifying_key().to_bytes(), secret_key: key.to_keypair_bytes() };
        let wallet_id = wallet_id(network_id).cast_signed();
        let inner = TonWallet::new_with_params(WalletVersion::V5R1, key_pair, BASECHAIN, wallet_id)
            .map_err(message)?;
        let address = StdAddr::new(0, HashBytes(*inner.address.hash.as_slice_sized()));
        Ok(Self { inner, address })
    }

    /// The wallet of a 24-word mnemonic without password.
    ///
    /// # Errors
    /// [`MnemonicError`] as a [`ChainError::Caller`]; the message says nothing of the words.
    pub fn from_mnemonic(words: &str, network_id: i32) -> Result<Self, WalletError> {
        let seed: Zeroizing<[u8; 32]> =
            seed_from_mnemonic(words).map_err(|error| ChainError::Caller(error.to_string()))?;
        Self::from_seed(&seed, network_id)
    }

    /// Where the wallet lives.
    pub fn address(&self) -> &StdAddr {
        &self.address
    }

    /// Its Ed25519 public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.inner.key_pair.public_key
    }

    /// Its code and first data.
    ///
    /// # Errors
    /// [`WalletError::Message`]; none is known to occur.
    pub fn state_init(&self) -> Result<StateInit, WalletError> {
        let TonWallet { version, key_pair, wallet_id, .. } = &self.inner;
        let code = WalletVersion::get_code(*version).map_err(message)?;
        let data = WalletVersion::get_default_data(*version, key_pair, *wallet_id).map_err(message)?;
        Ok(StateInit { code: Some(from_ton(code)?), data: Some(from_ton(&data)?), ..StateInit::default() })
    }

    /// A 32-byte secret for `purpose`, which only this wallet's key can derive: HKDF-SHA256 (RFC 5869) of the
    /// seed.
    pub fn derive_secret(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let seed = &self.inner.key_pair.secret_key[..32];
        let mut secret = Zeroizing::new([0; 32]);
        let hkdf = Hkdf::<Sha256>::new(Some(DERIVE_TAG), seed);
        // 32 bytes are far below HKDF's limit of 8 160, its only error.
        let expanded = hkdf.expand(purpose, secret.as_mut());
        debug_assert!(expanded.is_ok());
        secret
    }

    /// Signs `transfers`. `deploy` adds the state init, for the wallet's first message.
    ///
    /// # Errors
    /// [`WalletError::TooManyMessages`] above 255; a cell error for messages that do not fit.
    pub fn sign(
        &self,
        transfers: &[Transfer],
        seqno: u32,
        valid_until_s: u32,
        deploy: bool,
    ) -> Result<SignedExternal, WalletError> {
        if transfers.len() > MAX_MESSAGES {
            return Err(WalletError::TooManyMessages(transfers.len()));
        }
        let transfers_as_cells = transfers
            .iter()
            .map(|transfer| TonCell::from_boc(Boc::encode(transfer.to_cell()?)).map_err(message))
            .collect::<Result<Vec<_>, WalletError>>()?;
        let signed = self
            .inner
            .create_ext_in_msg(transfers_as_cells, seqno, valid_until_s, deploy)
            .map_err(message)?;
        let message = from_ton(&signed)?;
        let normalized_hash = normalized_hash_of(&message)?.ok_or(CellError::InvalidData)?;
        Ok(SignedExternal { message, normalized_hash, seqno, valid_until_s, transfers: transfers.len() })
    }

    /// The seqno in the wallet's data cell.
    ///
    /// # Errors
    /// [`WalletError::NotThisWallet`] where the data is not of a wallet with this key.
    pub fn seqno_in(&self, data: &Cell) -> Result<u32, WalletError> {
        let read = || -> Result<(u32, u32, HashBytes), CellError> {
            let mut slice = data.as_slice()?;
            slice.load_bit()?;
            Ok((slice.load_u32()?, slice.load_u32()?, slice.load_u256()?))
        };
        match read() {
            Ok((seqno, id, key))
                if id == self.inner.wallet_id.cast_unsigned() && key.0 == self.public_key() =>
            {
                Ok(seqno)
            }
            _ => Err(WalletError::NotThisWallet(self.address.clone())),
        }
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("address", &self.address).finish_non_exhaustive()
    }
}

const BASECHAIN: i32 = 0;
const MAX_MESSAGES: usize = 255;
const DERIVE_TAG: &[u8] = b"chrysalis/wallet-secret/v1";

/// `wallet_id = network_id XOR context`; the context of subwallet 0 of version 0 in workchain 0 is its top bit.
fn wallet_id(network_id: i32) -> u32 {
    network_id.cast_unsigned() ^ 0x8000_0000
}

fn from_ton(cell: &TonCell) -> Result<Cell, WalletError> {
    Boc::decode(cell.to_boc().map_err(message)?).map_err(|error| WalletError::Message(error.to_string()))
}

fn message(error: impl Into<TonError>) -> WalletError {
    WalletError::Message(error.into().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::str::FromStr;

    use tycho_types::cell::{CellBuilder, CellFamily};
    use tycho_types::models::{Message, RelaxedMessage, RelaxedMsgInfo, StdAddrFormat};

    use super::*;

    // Mnemonic, addresses, data and body of the V5R1 tests of the crate `ton` 0.4.12, which took them from
    // the mainnet.
    const WORDS: &str = "section garden tomato dinner season dice renew length useful spin trade intact use \
                         universe what post spike keen mandate behind concert egg doll rug";

    const ON_MAINNET: &str = "b5ee9c7201020a0100014a0001a17369676e7fffff1168f168d80000010db3172ba8e30d093aa36ec6e9e1f1f874cf38fb4a7914c66a0afcbd562ec6b54537629c135ce86700ae64b87dfc85545b34d561a3f7b429512c8cc02edbedc0c2a001020a0ec3c86d030203020a0ec3c86d03040500644200658250f64e6b787bcaa22ed0e90f9a348a637e5f1e9f2c997923bd441a3dd24911389800000000000000000000000000020a0ec3c86d03060700644200658250f64e6b787bcaa22ed0e90f9a348a637e5f1e9f2c997923bd441a3dd24911389000000000000000000000000000020a0ec3c86d03080900644200658250f64e6b787bcaa22ed0e90f9a348a637e5f1e9f2c997923bd441a3dd24911388800000000000000000000000000000000644200658250f64e6b787bcaa22ed0e90f9a348a637e5f1e9f2c997923bd441a3dd24911388000000000000000000000000000";

    fn hex(digits: &str) -> Vec<u8> {
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn addresses_are_those_of_the_reference_wallets() {
        let mainnet = Wallet::from_mnemonic(WORDS, -239).unwrap();
        let expected =
            StdAddr::from_str_ext("UQDv2YSmlrlLH3hLNOVxC8FcQf4F9eGNs4vb2zKma4txo6i3", StdAddrFormat::any());
        assert_eq!(*mainnet.address(), expected.unwrap().0);
        let testnet = Wallet::from_mnemonic(WORDS, -3).unwrap();
        let expected =
            StdAddr::from_str_ext("0QA_6fh0aRAkD7n1MNfAUx8TvyCUw2iTQfzVM-0isMze2anN", StdAddrFormat::any());
        assert_eq!(*testnet.address(), expected.unwrap().0);
    }

    #[test]
    fn a_mnemonic_gives_the_reference_key_and_bad_words_are_refused() {
        let words = " dose ice enrich trigger test dove century still betray gas  diet dune use other base gym mad \
                     law immense village world example praise GAME ";
        let seed = seed_from_mnemonic(words).unwrap();
        let expected = "119dcf2840a3d56521d260b2f125eedc0d4f3795b9e627269a4b5a6dca8257bd";
        assert_eq!(HashBytes(*seed), HashBytes::from_str(expected).unwrap());
        assert_eq!(seed_from_mnemonic("a b").unwrap_err(), MnemonicError::WordCount(2));
        let misspelt = words.replace("dose", "doze");
        assert_eq!(seed_from_mnemonic(&misspelt).unwrap_err(), MnemonicError::UnknownWord);
        let swapped = words.replace("dose ice", "ice dose");
        assert_eq!(seed_from_mnemonic(&swapped).unwrap_err(), MnemonicError::Checksum);
    }

    #[test]
    fn a_body_on_the_mainnet_is_rebuilt_cell_for_cell() {
        // A transaction with four messages, whose list of actions has to come out with the same hash.
        let body = Boc::decode(hex(ON_MAINNET)).unwrap();
        let mut slice = body.as_slice().unwrap();
        slice.skip_first(32, 0).unwrap();
        assert_eq!(slice.load_u32().unwrap(), wallet_id(-239));
        slice.skip_first(64, 0).unwrap();
        assert!(slice.load_bit().unwrap());
        let actions = slice.load_reference_cloned().unwrap();
        let mut transfers = Vec::new();
        let mut list = actions.clone();
        while list.reference_count() == 2 {
            let message = list.reference(1).unwrap().parse::<RelaxedMessage<'_>>().unwrap();
            let RelaxedMsgInfo::Int(info) = message.info else { panic!("an internal message") };
            let to = info.dst.as_std().unwrap().clone();
            transfers.push(Transfer::payment(to, info.value.tokens.into_inner()));
            list = list.reference_cloned(0).unwrap();
        }
        transfers.reverse();
        assert_eq!(
            transfers.iter().map(|t| t.value_nanoton).collect::<Vec<_>>(),
            [10_000, 10_001, 10_002, 10_003]
        );
        let wallet = Wallet::from_seed(&[3; 32], -239).unwrap();
        let signed = wallet.sign(&transfers, 7, 1_000, false).unwrap();
        let rebuilt = signed.message.parse::<Message<'_>>().unwrap().body;
        assert_eq!(rebuilt.get_reference(0).unwrap().repr_hash(), actions.repr_hash());
    }

    #[test]
    fn a_signature_is_over_the_body_without_it() {
        let wallet = Wallet::from_seed(&[3; 32], -239).unwrap();
        let to = StdAddr::new(0, HashBytes([0xf0; 32]));
        let signed = wallet.sign(&[Transfer::payment(to, 200_000)], 7, 1_000, true).unwrap();
        let message = signed.message.parse::<Message<'_>>().unwrap();
        let init = CellBuilder::build_from(message.init.unwrap()).unwrap();
        assert_eq!(*init.repr_hash(), wallet.address().address);
        let mut body = message.body;
        let mut unsigned = CellBuilder::new();
        unsigned.store_slice(body.load_prefix(body.size_bits() - 512, body.size_refs()).unwrap()).unwrap();
        let mut signature = [0; 64];
        body.load_raw(&mut signature, 512).unwrap();
        let key = ed25519_dalek::VerifyingKey::from_bytes(&wallet.public_key()).unwrap();
        let unsigned = unsigned.build().unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        key.verify_strict(unsigned.repr_hash().as_slice(), &signature).unwrap();
        let seen = crate::message::normalized_hash_of(&signed.message).unwrap();
        assert_eq!(seen, Some(signed.normalized_hash));
    }

    #[test]
    fn debug_shows_no_key_and_derived_secrets_differ_by_purpose() {
        let wallet = Wallet::from_seed(&[0xab; 32], -239).unwrap();
        assert!(!format!("{wallet:?}").contains("abab"));
        assert_eq!(wallet.derive_secret(b"a"), wallet.derive_secret(b"a"));
        assert_ne!(wallet.derive_secret(b"a"), wallet.derive_secret(b"b"));
    }

    #[test]
    fn the_seqno_is_read_from_mainnet_data_of_this_key_only() {
        let wallet = Wallet::from_seed(&[1; 32], -239).unwrap();
        let init = wallet.state_init().unwrap();
        assert_eq!(wallet.seqno_in(init.data.as_ref().unwrap()).unwrap(), 0);
        let other = Wallet::from_seed(&[2; 32], -239).unwrap();
        assert!(other.seqno_in(init.data.as_ref().unwrap()).is_err());
        assert!(wallet.seqno_in(&Cell::empty_cell()).is_err());
    }
}
