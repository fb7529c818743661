//! A wallet's jobs, found again from its own history after a crash or on another machine.

use chain::{AccountTx, ChainAccess, McBlock, TxId};
use contracts::job::{OpenSession, PostJob, PostOpenJob};
use contracts::{Message, Network, StdAddr};

use crate::error::ClientError;

/// A job that a wallet sent off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedJob {
    /// The job's address.
    pub address: StdAddr,
    /// Its nonce.
    pub nonce: u64,
    /// The wallet's transaction that posted it.
    pub wallet_transaction: TxId,
    /// When, Unix seconds.
    pub at_s: u32,
}

/// The jobs in the last `max_transactions` transactions of the wallet `client`, newest first.
///
/// # Errors
/// What reading the chain meets.
pub async fn posted_jobs<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    client: &StdAddr,
    at: &McBlock,
    max_transactions: usize,
) -> Result<Vec<PostedJob>, ClientError> {
    let Some(newest) = chain.account(client, at).await?.last else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for transaction in &chain.latest_transactions(client, newest, max_transactions).await? {
        found.extend(jobs_in(transaction, network, client)?);
    }
    Ok(found)
}

/// The jobs that one transaction of the wallet posted. Pure.
///
/// # Errors
/// A cell error for a transaction that does not parse.
pub fn jobs_in(
    transaction: &AccountTx,
    network: &Network,
    client: &StdAddr,
) -> Result<Vec<PostedJob>, ClientError> {
    let mut found = Vec::new();
    for message in transaction.out_messages()? {
        let body = &message.body;
        let query_id = PostJob::from_cell(body).map(|post| post.query_id);
        let query_id = query_id.or_else(|_| OpenSession::from_cell(body).map(|open| open.query_id));
        let query_id = query_id.or_else(|_| PostOpenJob::from_cell(body).map(|post| post.query_id));
        // We post with the nonce as query id; the address tells whether this is such a message.
        let Ok(nonce) = query_id else { continue };
        if network.job_address(client, nonce)? == message.to {
            found.push(PostedJob {
                address: message.to,
                nonce,
                wallet_transaction: transaction.id,
                at_s: transaction.tx.now,
            });
        }
    }
    Ok(found)
}
