//! What can go wrong for a client, and who has to act.

use chain::{ChainError, WalletError};
use contracts::errors::ContractError;
use contracts::sealing::SealError;
use contracts::{HashBytes, Nanoton, StdAddr, WireError};
use thiserror::Error;
use tycho_types::error::Error as CellError;
use verifier::StoryError;

/// An error of the client.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The chain could not be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The wallet could not send.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// A value of the protocol does not fit its cells.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The input could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A transaction or a message that does not parse.
    #[error("liteserver: a transaction or a message does not parse: {0}")]
    Cell(#[from] CellError),
    /// The address does not hold a contract of this network.
    #[error(
        "caller: {address} is no {what} of this network ({reason}); check the address and the network file"
    )]
    NotOurs {
        /// Where it was looked for.
        address: StdAddr,
        /// What was looked for.
        what: &'static str,
        /// What is there instead.
        reason: String,
    },
    /// The worker cannot serve this job now.
    #[error("worker: {address} cannot take this job: {reason}; choose another worker or change the terms")]
    Unfit {
        /// The worker.
        address: StdAddr,
        /// Why not.
        reason: Unfit,
    },
    /// The quote behind the worker's keys does not satisfy the policy. Nothing was sealed or sent.
    #[error("worker: the quote of {address} is refused ({failed}); do not send it anything")]
    QuoteRefused {
        /// The worker.
        address: StdAddr,
        /// The names of the checks that failed, with what each found.
        failed: String,
    },
    /// The request cannot work.
    #[error("caller: {0}")]
    Request(String),
    /// No job was posted there.
    #[error(
        "caller: no job is at {0}; check the address, wait for its posting, or name the last transaction of one that was swept"
    )]
    NoJob(StdAddr),
    /// The contract refused the posting; the value came back.
    #[error("client: job {job} was refused ({}); nothing is escrowed", refusal_words(*.exit_code))]
    PostingRefused {
        /// The job.
        job: StdAddr,
        /// The contract's exit code.
        exit_code: i32,
    },
    /// The job's transactions tell no job's story.
    #[error(transparent)]
    Story(#[from] StoryError),
    /// The job's history contradicts itself.
    #[error("liteserver: the history of job {job} is not that of a job: {reason}")]
    BadHistory {
        /// The job.
        job: StdAddr,
        /// What is wrong.
        reason: String,
    },
}

fn refusal_words(exit_code: i32) -> String {
    match ContractError::from_code(exit_code) {
        Some(error) => error.to_string(),
        None => format!("exit code {exit_code}"),
    }
}

fn admitted_later(from_s: Option<u32>) -> String {
    from_s.map(|from_s| format!(" before {from_s}")).unwrap_or_default()
}

/// Why a worker cannot take a job.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It has no attested keys.
    #[error("it has no attestation")]
    NotAttested,
    /// Its owner has paused it.
    #[error("it is paused")]
    Paused,
    /// Its attestation ends while the job is still open.
    #[error("its attestation ends at {expires_at_s}, before the job's first deadline")]
    AttestationEnds {
        /// Unix seconds.
        expires_at_s: u32,
    },
    /// The Registry does not admit its image.
    #[error("the Registry does not admit its image {measurement}{}", admitted_later(*.from_s))]
    MeasurementNotAdmitted {
        /// The image's.
        measurement: HashBytes,
        /// When it will be admitted, Unix seconds; `None`: it is not listed, or was revoked.
        from_s: Option<u32>,
    },
    /// Its image is not the one asked for.
    #[error("its image has another measurement than the one asked for")]
    OtherMeasurement,
    /// It does not offer the model.
    #[error("it does not offer the model")]
    ModelNotOffered,
    /// It asks more than the client's prices.
    #[error("it asks more than the highest prices given")]
    PriceOverTerms,
    /// It takes no job this small.
    #[error("it takes no deposit under {least}")]
    DepositTooLow {
        /// What it asks.
        least: Nanoton,
    },
    /// Its stake is below the network's least.
    #[error("its stake of {stake} is below the network's least of {least}")]
    UnderStaked {
        /// What it has.
        stake: Nanoton,
        /// What a claim takes.
        least: Nanoton,
    },
    /// The registration that its attestation came with is not in the chain's history.
    #[error("its attestation came from no registration that the chain's history still has")]
    NotRegistered,
    /// The machine of its attestation serves another worker now.
    #[error("its machine does not serve it any more")]
    PlatformLeft,
}
