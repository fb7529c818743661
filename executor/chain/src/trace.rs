//! From a transaction to those that its messages caused, and back to the one that caused it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tycho_types::cell::HashBytes;
use tycho_types::models::StdAddr;

use crate::access::{AccountTx, ChainAccess, TxId};
use crate::error::ChainError;
use crate::tx::InMessage;

/// A transaction and whose it is.
#[derive(Debug, Clone)]
pub struct Step {
    /// The account.
    pub account: StdAddr,
    /// The transaction.
    pub transaction: AccountTx,
}

/// How far and how long to look.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Transactions to look through on one account.
    pub walk: usize,
    /// Transactions of a trace.
    pub steps: usize,
    /// Time in which everything has to happen.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { walk: 20_000, steps: 256, timeout: Duration::from_secs(60) }
    }
}

/// The transaction of `sender` that sent `message`, looked for from the account's newest transaction backwards; `None`
/// where it is not within `walk` transactions.
///
/// # Errors
/// What reading the chain meets.
pub async fn sender_of<C: ChainAccess + ?Sized>(
    chain: &C,
    sender: &StdAddr,
    message: &InMessage,
    walk: usize,
) -> Result<Option<AccountTx>, ChainError> {
    let head = chain.head().await?;
    let newest = chain.account(sender, &head).await?.last;
    newest_matching(chain, sender, newest, walk, |transaction| {
        if transaction.id.lt >= message.created_lt {
            return Ok(Found::Earlier);
        }
        // A transaction's messages are older than its successor, so the first one from before the message is the sender.
        let sent = transaction.out_messages().map_err(malformed)?;
        Ok(if sent.iter().any(|sent| sent.hash == message.hash) { Found::This } else { Found::Past })
    })
    .await
}

/// Every transaction that `first` of `account` caused, itself first, the others in the order of their messages. Waits
/// until each message has been delivered.
///
/// # Errors
/// [`ChainError::Timeout`] where a message has not been delivered in time; [`ChainError::HistoryTooLong`] for more
/// transactions than `limits` allow.
pub async fn follow<C: ChainAccess + ?Sized>(
    chain: &C,
    account: &StdAddr,
    first: AccountTx,
    limits: Limits,
) -> Result<Vec<Step>, ChainError> {
    let deadline = Instant::now() + limits.timeout;
    let mut trace = Vec::new();
    let mut waiting = VecDeque::from([Step { account: account.clone(), transaction: first }]);
    while let Some(step) = waiting.pop_front() {
        for sent in step.transaction.out_messages().map_err(malformed)? {
            if trace.len() + waiting.len() >= limits.steps {
                return Err(ChainError::HistoryTooLong { max: limits.steps });
            }
            let after_lt = step.transaction.id.lt;
            let transaction = loop {
                if let Some(found) = receiver_of(chain, &sent.to, sent.hash, after_lt, limits.walk).await? {
                    break found;
                }
                if Instant::now() >= deadline {
                    return Err(ChainError::Timeout {
                        request: "a message's delivery",
                        timeout: limits.timeout,
                    });
                }
                sleep(POLL_EVERY).await;
            };
            waiting.push_back(Step { account: sent.to, transaction });
        }
        trace.push(step);
    }
    Ok(trace)
}

/// The transaction of `receiver`, later than `after_lt`, that the message started; `None` where there is none (yet).
///
/// # Errors
/// What reading the chain meets.
pub async fn receiver_of<C: ChainAccess + ?Sized>(
    chain: &C,
    receiver: &StdAddr,
    message: HashBytes,
    after_lt: u64,
    walk: usize,
) -> Result<Option<AccountTx>, ChainError> {
    let head = chain.head().await?;
    let newest = chain.account(receiver, &head).await?.last;
    let found = newest_matching(chain, receiver, newest, walk, |transaction| {
        if transaction.id.lt <= after_lt {
            return Ok(Found::Past);
        }
        let came = transaction.in_message().map_err(malformed)?;
        Ok(if came.is_some_and(|came| came.hash == message) { Found::This } else { Found::Earlier })
    });
    found.await
}

enum Found {
    This,
    Earlier,
    Past,
}

const PAGE: usize = 16;
const POLL_EVERY: Duration = Duration::from_millis(200);

async fn newest_matching<C: ChainAccess + ?Sized>(
    chain: &C,
    account: &StdAddr,
    mut from: Option<TxId>,
    walk: usize,
    look: impl Fn(&AccountTx) -> Result<Found, ChainError> + Send + Sync,
) -> Result<Option<AccountTx>, ChainError> {
    let mut walked = 0;
    while let Some(newest) = from
        && walked < walk
    {
        let page = chain.latest_transactions(account, newest, PAGE).await?;
        for transaction in &page {
            match look(transaction)? {
                Found::This => return Ok(Some(transaction.clone())),
                Found::Past => return Ok(None),
                Found::Earlier => {}
            }
        }
        walked += page.len();
        from = page.last().and_then(AccountTx::previous);
    }
    Ok(None)
}

fn malformed(error: tycho_types::error::Error) -> ChainError {
    ChainError::BadAnswer {
        request: "getTransactions",
        detail: format!("a message that does not parse: {error}"),
    }
}
