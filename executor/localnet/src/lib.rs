//! The embedded local chain: a masterchain and a basechain in one process, with the two interfaces that TON's stock
//! clients speak: HTTP toncenter v2 and the ADNL liteserver.
//!
//! **It is a simulation.** No validator signs its blocks, nobody agrees on them, and whoever runs it can make it say
//! anything. What is as on TON: the cells of blocks, states, accounts and transactions, the Merkle proofs of account
//! states, logical time and the order of messages, the phases and fees of a transaction under a mainnet-like config.
//! What is not: signatures and validator sets, elections, splitting of shards, and the parts of a block listed in the
//! module `block`. By default nothing listens but on 127.0.0.1.
//!
//! [`Localnet`] is the chain: synchronous, without clock, sockets or threads, and equal for equal inputs.
//! [`LocalnetHandle`] shares one between tasks and makes its blocks.

mod block;
mod chain;
mod error;
mod genesis;
mod handle;
mod journal;
mod libraries;
mod liteserver;
mod options;
mod pool;
mod proof;
pub mod toncenter;

pub use chain::{BlockRecord, Localnet, Produced, Supply, TransactionRecord, exit_code};
pub use error::LocalnetError;
pub use handle::LocalnetHandle;
pub use liteserver::Liteserver;
pub use options::{
    BlockMode, Clock, DEFAULT_GENESIS_UTIME_S, DEFAULT_SUPPLY_NANOTON, LOCALNET_GLOBAL_ID, LocalnetOptions,
};
pub use pool::ExternalMessage;
pub use tvm_executor::{GetterOutput, method_id};

/// What a program that runs a local chain should print.
pub const BANNER: &str = "A local chain: a simulation of TON in one process. Its blocks carry no validator \
                          signatures; nothing on it has any worth.";
