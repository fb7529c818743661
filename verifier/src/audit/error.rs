//! Why a job's story cannot be told from what was given.

use contracts::HashBytes;
use thiserror::Error;

use super::MAX_TRANSACTIONS;
use crate::check::Party;

/// Transactions or logs that tell no job's story, and who must have wronged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoryError {
    /// More than an honest job can have.
    #[error("chain server: more than {MAX_TRANSACTIONS} transactions; no job needs as many")]
    TooLong,
    /// Not a transaction.
    #[error("chain server: transaction {hash} does not parse; read the history from another server")]
    Malformed {
        /// Of the cell.
        hash: HashBytes,
    },
    /// Another account's.
    #[error("chain server: transaction {hash} is of another account; read the history from another server")]
    OtherAccount {
        /// Of the cell.
        hash: HashBytes,
    },
    /// One is missing, or is not where it belongs.
    #[error(
        "chain server: transaction {hash} does not follow the one before it; read the whole history, from another server"
    )]
    Unlinked {
        /// Of the cell.
        hash: HashBytes,
    },
    /// A step that no Job contract takes.
    #[error("contracts: at lt {lt}: {what}; the account runs other code than a job's")]
    Impossible {
        /// Of the transaction.
        lt: u64,
        /// What it would have been.
        what: String,
    },
    /// Nothing that begins a story.
    #[error("caller: {0}; this is no job's account")]
    NoJob(&'static str),
    /// A message that no job sends to nobody.
    #[error("log server: log {index} is none of a job's; read the logs from another server")]
    StrangeLog {
        /// Counted from nought.
        index: usize,
    },
    /// An order or a content that no job's logs have.
    #[error("log server: log {index}: {what}; logs are missing, forged or in another order")]
    ImpossibleLog {
        /// Counted from nought.
        index: usize,
        /// What is wrong.
        what: String,
    },
}

impl StoryError {
    /// Who is at fault.
    pub fn party(&self) -> Party {
        match self {
            Self::Impossible { .. } => Party::Contracts,
            Self::NoJob(_) => Party::Client,
            _ => Party::Chain,
        }
    }
}
