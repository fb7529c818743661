//! The worker: a pure state machine, its journal and the daemon that runs the effects.
//!
//! [`machine`] decides, [`journal`] remembers, [`observe`] reads the chain, [`serve`] opens, answers and signs,
//! [`registration`] keeps the contract staked, attested and on offer, and [`daemon`] ties them together. Prompts and
//! answers are in memory only, between opening and sealing.

pub mod attestation;
pub mod config;
pub mod daemon;
pub mod data_dir;
pub mod error;
mod fees;
pub mod journal;
pub mod keys;
pub mod machine;
pub mod observe;
pub mod panics;
pub mod registration;
pub mod serve;
pub mod sessions;
pub mod tsm;

pub use attestation::{
    AttestationError, AttestationSource, CollateralFile, CollateralSource, PccsCollateral,
};
pub use config::WorkerConfig;
pub use daemon::{OnStep, OnText, Step, Worker};
pub use data_dir::{DataDir, DataDirError};
pub use engine_api::{self as engine, Engine, EngineError, EngineInfo};
pub use error::WorkerError;
pub use journal::{Identity, Journal, JournalError};
pub use keys::{KeyError, KeyStore, Keys, Passphrase};
pub use registration::{OwnerWallet, Proven, Refusal, Registrant, is_attested, refusals_in};
