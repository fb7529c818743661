//! An account's chain of transactions: each names the one before it by logical time and hash.

use tycho_types::cell::{Cell, HashBytes};
use tycho_types::error::Error as CellError;
use tycho_types::models::Transaction;

use crate::access::{AccountTx, TxId};

/// Why a page of transactions is not the account's history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A transaction's cell does not hash to what its successor (or the account's state) names.
    #[error("a transaction is not {expected}, which its successor names")]
    WrongLink {
        /// What was named.
        expected: TxId,
    },
    /// More transactions after the account's first.
    #[error("transactions before the account's first")]
    BeforeFirst,
    /// A cell that is not a transaction.
    #[error("a cell that is not a transaction: {0}")]
    Cell(#[from] CellError),
}

/// Checks a page, newest first, whose first transaction must be `newest` on the account `account`.
///
/// Every returned transaction hashes to what the one after it names.
pub fn check_page(account: &HashBytes, newest: TxId, cells: &[Cell]) -> Result<Vec<AccountTx>, HistoryError> {
    let mut expected = Some(newest);
    let mut page = Vec::with_capacity(cells.len());
    for cell in cells {
        let id = expected.ok_or(HistoryError::BeforeFirst)?;
        let tx: Transaction = cell.parse()?;
        if *cell.repr_hash() != id.hash || tx.lt != id.lt || tx.account != *account {
            return Err(HistoryError::WrongLink { expected: id });
        }
        let checked = AccountTx { id, cell: cell.clone(), tx };
        expected = checked.previous();
        page.push(checked);
    }
    Ok(page)
}

/// How far a walk back from the newest transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Read on, from here.
    From(TxId),
    /// Every transaction after the cursor is there.
    Done,
    /// The walk went past the cursor without meeting it.
    Missed,
}

/// Where to go on after `oldest`, on the way back to `until` (`None`: to the first transaction).
pub fn next_step(oldest: &AccountTx, until: Option<TxId>) -> Walk {
    match (oldest.previous(), until) {
        (None, None) => Walk::Done,
        (None, Some(_)) => Walk::Missed,
        (Some(previous), Some(cursor)) if previous == cursor => Walk::Done,
        (Some(previous), Some(cursor)) if previous.lt <= cursor.lt => Walk::Missed,
        (Some(previous), _) => Walk::From(previous),
    }
}
