//! Follows accounts through final blocks: what changed, each transaction once, oldest first.
//!
//! [`observe`] decides and does no I/O; [`Watcher`] reads the chain for it. A cursor moves only with the
//! [`Update`] that carries it, and belongs on disk in the same step as the effects of that update.

use std::collections::BTreeMap;
use std::time::Duration;

use tycho_types::models::StdAddr;

use crate::access::{AccountTx, AccountView, ChainAccess, McBlock, TxId};
use crate::error::ChainError;

/// What a view of an account means to someone who has seen its history up to a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// Nothing new.
    Unchanged,
    /// Transactions after `until`, up to `newest`, are to be read.
    Advanced {
        /// The newest.
        newest: TxId,
        /// The cursor; `None` before the first.
        until: Option<TxId>,
    },
    /// The account is gone (it destroyed itself).
    Vanished,
    /// The server shows an older state than we have seen.
    Behind {
        /// The newest it shows.
        shown: TxId,
        /// Our cursor.
        seen: TxId,
    },
}

/// Compares a view with the cursor.
pub fn observe(cursor: Option<TxId>, view: &AccountView) -> Observation {
    match (view.last, cursor) {
        (None, None) => Observation::Unchanged,
        (None, Some(_)) => Observation::Vanished,
        (Some(newest), Some(seen)) if newest == seen => Observation::Unchanged,
        (Some(newest), Some(seen)) if newest.lt <= seen.lt => Observation::Behind { shown: newest, seen },
        (Some(newest), until) => Observation::Advanced { newest, until },
    }
}

/// A change of one account.
#[derive(Debug, Clone)]
pub struct Update {
    /// The account as of the block; its state is newer than any of `transactions` alone tells.
    pub view: AccountView,
    /// The transactions since the last update, oldest first; empty if the account vanished.
    pub transactions: Vec<AccountTx>,
    /// The new cursor.
    pub cursor: Option<TxId>,
}

/// What one block brought.
#[derive(Debug, Clone)]
pub struct Tick {
    /// The block.
    pub block: McBlock,
    /// The accounts that changed since the block before.
    pub updates: Vec<Update>,
}

/// Follows a set of accounts.
#[derive(Debug, Clone)]
pub struct Watcher {
    cursors: BTreeMap<StdAddr, Option<TxId>>,
    seen: Option<McBlock>,
    max_backlog: usize,
}

impl Watcher {
    /// A watcher of nothing. More than `max_backlog` unseen transactions of one account are an error.
    pub fn new(max_backlog: usize) -> Self {
        Self { cursors: BTreeMap::new(), seen: None, max_backlog }
    }

    /// Follows `address` after `cursor`; `None`: from its first transaction.
    pub fn watch(&mut self, address: StdAddr, cursor: Option<TxId>) {
        self.cursors.insert(address, cursor);
    }

    /// Stops following `address`.
    pub fn unwatch(&mut self, address: &StdAddr) {
        self.cursors.remove(address);
    }

    /// The accounts followed, with their cursors.
    pub fn cursors(&self) -> impl Iterator<Item = (&StdAddr, Option<TxId>)> {
        self.cursors.iter().map(|(address, cursor)| (address, *cursor))
    }

    /// Waits for a block newer than the last one (the first call: takes the newest there is) and reads what
    /// changed. `None` when no block came within `timeout`.
    ///
    /// # Errors
    /// Any error leaves every cursor where it was: calling again loses and repeats nothing.
    pub async fn next<C: ChainAccess + ?Sized>(
        &mut self,
        chain: &C,
        timeout: Duration,
    ) -> Result<Option<Tick>, ChainError> {
        let block = match self.seen {
            None => chain.head().await?,
            Some(seen) => match chain.wait_block(seen.seqno + 1, timeout).await {
                Ok(next) => {
                    let head = chain.head().await?;
                    if head.seqno > next.seqno { head } else { next }
                }
                Err(ChainError::Timeout { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let mut updates = Vec::new();
        for (address, cursor) in &self.cursors {
            let view = chain.account(address, &block).await?;
            match observe(*cursor, &view) {
                Observation::Unchanged => {}
                Observation::Vanished => {
                    updates.push(Update { view, transactions: Vec::new(), cursor: None })
                }
                Observation::Behind { shown, seen } => {
                    return Err(ChainError::Behind { shown: shown.to_string(), seen: seen.to_string() });
                }
                Observation::Advanced { newest, until } => {
                    let transactions = chain.transactions(address, newest, until, self.max_backlog).await?;
                    updates.push(Update { view, transactions, cursor: Some(newest) });
                }
            }
        }
        for update in &updates {
            self.cursors.insert(update.view.address.clone(), update.cursor);
        }
        self.seen = Some(block);
        Ok(Some(Tick { block, updates }))
    }
}

#[cfg(test)]
mod tests {
    use tycho_types::cell::HashBytes;

    use super::*;

    fn id(lt: u64) -> TxId {
        TxId { lt, hash: HashBytes([lt as u8; 32]) }
    }

    fn view(last: Option<TxId>) -> AccountView {
        let zero = HashBytes::ZERO;
        AccountView {
            address: StdAddr::new(0, zero),
            as_of: McBlock { seqno: 1, root_hash: zero, file_hash: zero, time_s: 1 },
            account: None,
            last,
        }
    }

    #[test]
    fn a_view_is_judged_by_the_cursor() {
        assert_eq!(observe(None, &view(None)), Observation::Unchanged);
        assert_eq!(observe(Some(id(5)), &view(Some(id(5)))), Observation::Unchanged);
        assert_eq!(observe(Some(id(5)), &view(None)), Observation::Vanished);
        assert_eq!(
            observe(Some(id(5)), &view(Some(id(4)))),
            Observation::Behind { shown: id(4), seen: id(5) }
        );
        assert_eq!(
            observe(Some(id(5)), &view(Some(id(9)))),
            Observation::Advanced { newest: id(9), until: Some(id(5)) }
        );
        assert_eq!(observe(None, &view(Some(id(9)))), Observation::Advanced { newest: id(9), until: None });
    }
}
