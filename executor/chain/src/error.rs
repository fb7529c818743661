//! What can go wrong between us and the chain, who is at fault, and whether asking again can help.

use std::time::Duration;

use thiserror::Error;

use crate::access::TxId;

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The code or the configuration that made the call.
    Caller,
    /// The server that answered, or the way to it.
    Liteserver,
    /// Whoever signed or paid for the message.
    Sender,
}

/// An error of chain access.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No server of the configuration could be reached; nothing was sent.
    #[error(
        "liteserver: none of {servers} could be reached ({detail}); check the network and the global config"
    )]
    Unreachable {
        /// How many servers were tried.
        servers: usize,
        /// What the last attempt met.
        detail: String,
    },
    /// A server did not answer in time.
    #[error("liteserver: no answer to {request} within {timeout:?}; it may be overloaded or behind")]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// How long we waited.
        timeout: Duration,
    },
    /// The connection broke while a query was under way.
    #[error("liteserver: the connection broke during {request} ({detail})")]
    Disconnected {
        /// What was asked.
        request: &'static str,
        /// What the connection met.
        detail: String,
    },
    /// The server answered with an error of its own.
    #[error("liteserver: refused {request} with code {code}: {message}")]
    Server {
        /// What was asked.
        request: &'static str,
        /// The server's code.
        code: i32,
        /// The server's words.
        message: String,
    },
    /// The server's answer is malformed, or contradicts what it is supposed to prove.
    #[error("liteserver: its answer to {request} is not usable: {detail}; use another server")]
    BadAnswer {
        /// What was asked.
        request: &'static str,
        /// What is wrong with the answer.
        detail: String,
    },
    /// The server knows an older chain than we have already seen.
    #[error("liteserver: behind: it shows {shown}, we have already seen {seen}")]
    Behind {
        /// What the server shows.
        shown: String,
        /// What was seen before.
        seen: String,
    },
    /// The chain of transactions does not lead to the cursor.
    #[error(
        "liteserver: the history of the account does not lead back to {cursor}: another network, a chain \
         started anew, or a server without that history"
    )]
    HistoryMismatch {
        /// The transaction expected on the way back.
        cursor: TxId,
    },
    /// More transactions than the caller's bound.
    #[error("caller: more than {max} transactions to read; raise the bound or start from a newer cursor")]
    HistoryTooLong {
        /// The caller's bound.
        max: usize,
    },
    /// The network did not accept an external message.
    #[error("sender: the network did not accept the message{}: {message}", exit_code_words(*.exit_code))]
    Refused {
        /// The exit code of the contract's run, if the server told it.
        exit_code: Option<i32>,
        /// The server's words.
        message: String,
    },
    /// An external message may or may not have reached the network.
    #[error(
        "liteserver: it is not known whether the message arrived ({detail}); read the chain before sending another"
    )]
    SendUnknown {
        /// What happened on the way.
        detail: String,
    },
    /// An argument or a configuration that cannot work.
    #[error("caller: {0}")]
    Caller(String),
}

impl ChainError {
    /// Who has to act.
    pub fn party(&self) -> Party {
        match self {
            Self::Caller(_) | Self::HistoryTooLong { .. } => Party::Caller,
            Self::Refused { .. } => Party::Sender,
            _ => Party::Liteserver,
        }
    }

    /// Whether the same call may succeed later without a change.
    ///
    /// [`ChainError::SendUnknown`] is not: the caller first has to read the chain.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Disconnected { .. }
            | Self::Behind { .. } => true,
            Self::Server { code, .. } => TRANSIENT_SERVER_CODES.contains(code),
            _ => false,
        }
    }
}

/// Liteserver codes that mean "not now": timeout 652, not ready 651, too many requests 228 and 429.
const TRANSIENT_SERVER_CODES: [i32; 4] = [652, 651, 228, 429];

fn exit_code_words(exit_code: Option<i32>) -> String {
    exit_code.map_or_else(String::new, |code| format!(" (exit code {code})"))
}
