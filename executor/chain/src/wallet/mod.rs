//! The ordinary V5R1 wallet: its address, and the external messages it signs.

mod mnemonic;
mod sender;

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes};
use tycho_types::error::Error as CellError;
use tycho_types::models::{StateInit, StdAddr};
use zeroize::Zeroizing;

pub use mnemonic::{MnemonicError, seed_from_mnemonic};
pub use sender::{Confirmed, SenderTiming, WalletSender};

use crate::error::ChainError;
use crate::message::{Transfer, external_message, normalized_hash};

/// A V5R1 wallet (subwallet 0 of the basechain) and its key.
///
/// The message format and the storage are those of `types.tlb` of the wallet-contract-v5 repository.
#[derive(Clone)]
pub struct Wallet {
    key: SigningKey,
    network_id: i32,
    address: StdAddr,
    code: Cell,
}

/// An external message that the wallet has signed, and what it is recognised by.
#[derive(Debug, Clone)]
pub struct SignedExternal {
    /// The message's root cell.
    pub message: Cell,
    /// See [`normalized_hash`].
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
    /// A cell error if the embedded code cannot be read; a test excludes it.
    pub fn from_seed(seed: &[u8; 32], network_id: i32) -> Result<Self, WalletError> {
        let key = SigningKey::from_bytes(seed);
        let code = Boc::decode_base64(CODE.trim()).map_err(|_| CellError::InvalidCell)?;
        let init = state_init(&key, network_id, &code)?;
        let address = StdAddr::new(0, *CellBuilder::build_from(&init)?.repr_hash());
        Ok(Self { key, network_id, address, code })
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
        self.key.verifying_key().to_bytes()
    }

    /// Its code and first data.
    ///
    /// # Errors
    /// A cell error; none is known to occur.
    pub fn state_init(&self) -> Result<StateInit, WalletError> {
        Ok(state_init(&self.key, self.network_id, &self.code)?)
    }

    /// A 32-byte secret for `purpose`, which only this wallet's key can derive: HKDF-SHA256 (RFC 5869) of the
    /// seed.
    pub fn derive_secret(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let seed = Zeroizing::new(self.key.to_bytes());
        let mut secret = Zeroizing::new([0; 32]);
        let hkdf = Hkdf::<Sha256>::new(Some(DERIVE_TAG), seed.as_slice());
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
        let mut body = CellBuilder::new();
        body.store_u32(SIGNED_EXTERNAL)?;
        body.store_u32(wallet_id(self.network_id))?;
        body.store_u32(valid_until_s)?;
        body.store_u32(seqno)?;
        body.store_bit(!transfers.is_empty())?;
        if !transfers.is_empty() {
            body.store_reference(out_list(transfers)?)?;
        }
        let no_other_actions = false;
        body.store_bit(no_other_actions)?;
        let unsigned = body.clone().build()?;
        body.store_raw(&self.key.sign(unsigned.repr_hash().as_slice()).to_bytes(), 512)?;
        let signed = body.build()?;
        let init = if deploy { Some(self.state_init()?) } else { None };
        Ok(SignedExternal {
            message: external_message(&self.address, init, &signed)?,
            normalized_hash: normalized_hash(&self.address, &signed)?,
            seqno,
            valid_until_s,
            transfers: transfers.len(),
        })
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
            Ok((seqno, id, key)) if id == wallet_id(self.network_id) && key.0 == self.public_key() => {
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

/// The wallet's code as its authors deployed it on the mainnet (a BoC in base64).
const CODE: &str = include_str!("v5r1.boc.base64");
const SIGNED_EXTERNAL: u32 = 0x7369_676e;
const ACTION_SEND_MSG: u32 = 0x0ec3_c86d;
const MAX_MESSAGES: usize = 255;
/// Pay fees apart from the value (1); skip a message that cannot be sent (2), which V5 demands of externals.
const SEND_MODE: u8 = 3;
const DERIVE_TAG: &[u8] = b"chrysalis/wallet-secret/v1";

/// `wallet_id = network_id XOR context`; the context of subwallet 0 of version 0 in workchain 0 is its top bit.
fn wallet_id(network_id: i32) -> u32 {
    network_id.cast_unsigned() ^ 0x8000_0000
}

fn state_init(key: &SigningKey, network_id: i32, code: &Cell) -> Result<StateInit, CellError> {
    let mut data = CellBuilder::new();
    let (signatures_allowed, has_extensions) = (true, false);
    data.store_bit(signatures_allowed)?;
    data.store_u32(0)?;
    data.store_u32(wallet_id(network_id))?;
    data.store_raw(key.verifying_key().as_bytes(), 256)?;
    data.store_bit(has_extensions)?;
    Ok(StateInit { code: Some(code.clone()), data: Some(data.build()?), ..StateInit::default() })
}

/// `OutList`: the first message innermost, so that it leaves first.
fn out_list(transfers: &[Transfer]) -> Result<Cell, CellError> {
    let mut list = Cell::empty_cell();
    for transfer in transfers {
        let mut action = CellBuilder::new();
        action.store_reference(list)?;
        action.store_u32(ACTION_SEND_MSG)?;
        action.store_u8(SEND_MODE)?;
        action.store_reference(transfer.to_cell()?)?;
        list = action.build()?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::str::FromStr;

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
        assert_eq!(out_list(&transfers).unwrap().repr_hash(), actions.repr_hash());
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
        let key = wallet.key.verifying_key();
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
