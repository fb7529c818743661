//! What can go wrong on the local chain.

use thiserror::Error;
use tvm_executor::TvmError;
use tycho_types::models::StdAddr;

/// An error of the local chain. Each says who is at fault.
#[derive(Debug, Error)]
pub enum LocalnetError {
    /// The options the chain was started with.
    #[error("the local chain's options are wrong: {0}; correct them and start again")]
    Options(String),
    /// Bytes that are no external message. The sender is at fault.
    #[error("not a valid external message: {0}; the sender must build it anew")]
    InvalidMessage(String),
    /// The contract refused an external message before accepting it. The sender is at fault.
    #[error(
        "cannot apply external message to current state : inbound external message rejected by account \
         {address}: exitcode={exit_code}; the sender must correct the message"
    )]
    NotAccepted {
        /// Where the message went.
        address: StdAddr,
        /// TVM exit code; 0 where the code ended without accepting.
        exit_code: i32,
    },
    /// No code runs at the destination: it does not exist, is frozen, or has no gas credit.
    #[error(
        "cannot apply external message to current state : account {address} runs no code ({reason}); the \
         sender must fund it or attach its state init"
    )]
    NoCode {
        /// Where the message went.
        address: StdAddr,
        /// Why the compute phase was skipped.
        reason: String,
    },
    /// Too many messages wait. The sender should wait for a block.
    #[error("the pool of external messages is full ({limit} wait); send again after the next block")]
    PoolFull {
        /// How many messages the pool holds.
        limit: usize,
    },
    /// The caller named a block that does not exist, or whose state is no longer kept.
    #[error("block {seqno} of workchain {workchain} is not here; ask for one between {oldest} and {newest}")]
    UnknownBlock {
        /// Workchain asked for.
        workchain: i32,
        /// Sequence number asked for.
        seqno: u32,
        /// Oldest one kept.
        oldest: u32,
        /// Newest one.
        newest: u32,
    },
    /// The caller named something that does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// The caller's request cannot be served as it stands.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// The virtual machine failed in a way no contract can cause. The local chain is at fault.
    #[error("the local chain's virtual machine failed: {0}; report this")]
    Vm(String),
    /// A cell of a block or a state could not be built or read. The local chain is at fault.
    #[error("the local chain could not build or read a cell: {0}; report this")]
    Cell(#[from] tycho_types::error::Error),
    /// A socket or a file of the local chain.
    #[error("the local chain's {what} failed: {source}; check the address and permissions")]
    Io {
        /// Which socket or file.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl LocalnetError {
    /// What the machine met with a message to `address`.
    pub(crate) fn of_vm(error: TvmError, address: &StdAddr) -> Self {
        let address = address.clone();
        match error {
            TvmError::NotAccepted { exit_code } => Self::NotAccepted { address, exit_code },
            TvmError::NoCode { reason } => Self::NoCode { address, reason },
            other => other.into(),
        }
    }
}

impl From<TvmError> for LocalnetError {
    fn from(error: TvmError) -> Self {
        match error {
            TvmError::InvalidMessage(reason) => Self::InvalidMessage(reason),
            TvmError::BadStack(_) => Self::BadRequest(error.to_string()),
            TvmError::Cell(error) => Self::Cell(error),
            other => Self::Vm(other.to_string()),
        }
    }
}
