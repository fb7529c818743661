//! Chain access: liteserver client, masterchain-final watcher, V5R1 wallet.
//!
//! [`ChainAccess`] is what the rest of the executor sees; nothing else in it knows ADNL or TL.

mod access;
mod error;
mod stack;

pub use access::{AccountTx, AccountView, ChainAccess, McBlock, TxId};
pub use error::{ChainError, Party};
pub use stack::{GetterResult, StackValue, decode_stack, encode_stack, method_id};
