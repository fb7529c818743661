//! Why there is no collateral.

use std::path::PathBuf;

use crate::address::AddressError;
use crate::document::{DocumentError, Kind};
use crate::http::HttpError;

/// No collateral could be had. Each message names who is at fault and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollateralError {
    /// The address in the configuration is of no use.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The root's certificate cannot be read.
    #[error("the root certificate of the network file cannot be used ({reason}); take the network file anew")]
    Root {
        /// Why.
        reason: String,
    },
    /// The file with the server's certificate authority is of no use.
    #[error(
        "the file {path} with the collateral server's authority cannot be used ({reason}); name a PEM file"
    )]
    AuthorityFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nobody to check a server by.
    #[error(
        "no certificate authority to check an https server by ({reason}); install the system's (ca-certificates), or \
         name the server's own in a PEM file"
    )]
    NoAuthorities {
        /// What was met.
        reason: String,
    },
    /// The server gave no answer.
    #[error("the collateral server {server} gave no {kind}: {cause}")]
    Http {
        /// Scheme, host and port.
        server: String,
        /// What was asked for.
        kind: Kind,
        /// Why.
        cause: HttpError,
    },
    /// The server gave something else.
    #[error(
        "the collateral server {server} gave a {kind} that is of no use: {cause}; ask its operator, or another server"
    )]
    Document {
        /// Scheme, host and port.
        server: String,
        /// What was asked for.
        kind: Kind,
        /// Why.
        cause: DocumentError,
    },
}
