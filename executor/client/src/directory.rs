//! Which workers there are: whoever registered, as the Registry's own history tells.

use std::collections::BTreeSet;

use chain::{AccountTx, ChainAccess, McBlock};
use contracts::platform::ServeWorker;
use contracts::{Message, Network, StdAddr};

use crate::error::ClientError;

/// Addresses of the workers that registered within the Registry's newest `walk` transactions, the newest first. Whether
/// they are attested still is for whoever reads their contracts.
///
/// # Errors
/// What reading the chain meets.
pub async fn registered_workers<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    walk: usize,
    at: &McBlock,
) -> Result<Vec<StdAddr>, ClientError> {
    let mut from = chain.account(&network.registry, at).await?.last;
    let (mut walked, mut found, mut seen) = (0, Vec::new(), BTreeSet::new());
    while let Some(newest) = from
        && walked < walk
    {
        let page = chain.latest_transactions(&network.registry, newest, PAGE.min(walk - walked)).await?;
        for transaction in &page {
            for message in transaction.out_messages()? {
                // A message of the Registry is its word: nobody else can have sent it.
                let Ok(serve) = ServeWorker::from_cell(&message.body) else { continue };
                let worker = network.worker_address(&serve.worker_owner)?;
                if seen.insert(worker.clone()) {
                    found.push(worker);
                }
            }
        }
        walked += page.len();
        from = page.last().and_then(AccountTx::previous);
    }
    Ok(found)
}

const PAGE: usize = 64;
