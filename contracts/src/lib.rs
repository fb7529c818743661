//! Messages, storage, addresses and receipts of the Chrysalis contracts, mirrored in Rust. No I/O.
//!
//! The wire truth is `contracts/chrysalis.tlb`; what is signed, sealed and paid is in `docs/protocol.md`.

pub mod artifacts;
pub mod attestor;
pub mod comment;
pub mod config_file;
pub mod errors;
pub mod fees;
pub mod job;
pub mod job_log;
pub mod librarian;
pub mod measurement;
pub mod model;
pub mod model_manifest;
pub mod model_metadata;
pub mod money;
pub mod network;
pub mod network_file;
pub mod opcodes;
pub mod platform;
pub mod receipt;
pub mod registry;
pub mod sealing;
pub mod transcript;
pub mod voucher;
pub mod wire;
pub mod work;
pub mod worker;

pub use money::{Amount, Nanoton, Prices, Units};
pub use network::{CodeRef, Codes, Generation, Network, Params};
pub use wire::{Message, Ref, Snake, WireError};

pub use ed25519_dalek::{SigningKey, VerifyingKey};
pub use tycho_types::cell::{Cell, HashBytes};
pub use tycho_types::models::{StateInit, StdAddr};
