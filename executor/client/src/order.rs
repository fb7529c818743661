//! The short messages with which a wallet steers a job. Pure.

use chain::Transfer;
use contracts::job::{CancelJob, CloseSession, ExpireJob, SweepJob, TopUpJob};
use contracts::money::Amount;
use contracts::{Message, Nanoton, StdAddr};

use crate::amounts;
use crate::error::ClientError;

/// Client: takes an open job back.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn cancel(job: &StdAddr) -> Result<Transfer, ClientError> {
    order(job, Nanoton::ZERO, &CancelJob { query_id: 0 })
}

/// Client: asks for a session's end.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn close(job: &StdAddr) -> Result<Transfer, ClientError> {
    order(job, Nanoton::ZERO, &CloseSession { query_id: 0 })
}

/// Client: adds `amount` to a session's deposit.
///
/// # Errors
/// [`ClientError::Request`] for more than a job can hold.
pub fn top_up(job: &StdAddr, amount: Nanoton) -> Result<Transfer, ClientError> {
    let more = Amount::try_from(amount).map_err(|error| ClientError::Request(error.to_string()))?;
    order(job, amount, &TopUpJob { query_id: 0, amount: more })
}

/// Anyone: ends a job whose deadline has passed.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn expire(job: &StdAddr) -> Result<Transfer, ClientError> {
    order(job, Nanoton::ZERO, &ExpireJob { query_id: 0 })
}

/// Anyone: destroys a job that ended an audit window ago. It pays out nothing: a closed job keeps nothing.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn sweep(job: &StdAddr) -> Result<Transfer, ClientError> {
    order(job, Nanoton::ZERO, &SweepJob { query_id: 0 })
}

fn order(job: &StdAddr, amount: Nanoton, message: &impl Message) -> Result<Transfer, ClientError> {
    let value = amount.checked_add(amounts::JOB_ACTION);
    let value = value.ok_or_else(|| ClientError::Request("more than any amount of TON".into()))?;
    Ok(Transfer::new(job.clone(), value.get(), message.to_cell()?))
}
