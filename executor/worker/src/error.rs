//! Why the daemon stopped.

use chain::ChainError;
use contracts::WireError;

use crate::journal::JournalError;

/// The daemon cannot go on. What it has promised is in the journal, and a new start takes it up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The chain cannot be followed, and asking again will not help.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A cell could not be built.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The wallet is another owner's.
    #[error("worker: the wallet {wallet} is not the owner {owner} of this worker; use the owner's wallet")]
    OtherOwner {
        /// The wallet's address.
        wallet: contracts::StdAddr,
        /// The owner in the configuration.
        owner: contracts::StdAddr,
    },
    /// The task that follows the chain ended.
    #[error("worker: the task that follows the chain ended; start the worker again")]
    WatchEnded,
}
