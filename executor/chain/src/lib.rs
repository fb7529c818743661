//! Chain access: proven reads through the `ton` crate's LiteClient, masterchain-final watcher, V5R1 wallet.
//!
//! [`ChainAccess`] is what the rest of the executor sees; nothing else in it knows ADNL or TL.

mod access;
mod config;
mod error;
pub mod history;
mod lite;
mod message;
mod stack;
pub mod trace;
mod tx;
pub mod wallet;
pub mod watcher;

pub use access::{AccountTx, AccountView, ChainAccess, McBlock, TxId};
pub use config::GlobalConfig;
pub use error::{ChainError, Party};
pub use lite::{Endpoint, LiteserverChain, Timing};
pub use message::{Transfer, cell_of, external_message, normalized_hash, normalized_hash_of};
pub use stack::{GetterResult, StackValue, decode_stack, encode_stack, method_id};
pub use tx::{InMessage, OutMessage, TxResult};
pub use wallet::{Confirmed, SenderTiming, SignedExternal, Wallet, WalletError, WalletSender, new_mnemonic};
pub use watcher::{Tick, Update, Watcher};
