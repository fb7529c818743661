//! What the executor and the clients ask of a chain, whatever serves it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::{Account, AccountState, AccountStatus, StdAddr, Transaction};

use crate::error::ChainError;
use crate::stack::{GetterResult, StackValue};

/// Reads of a chain as of a masterchain block (final), and sending of external messages.
///
/// Reads are retried inside, within bounds; a returned transient error means those bounds were reached.
/// Sends are never repeated inside once a byte may have left (see [`ChainAccess::send_external`]).
#[async_trait]
pub trait ChainAccess: Send + Sync {
    /// The newest masterchain block the server knows.
    async fn head(&self) -> Result<McBlock, ChainError>;

    /// The masterchain block `seqno`, waiting up to `timeout` until it exists.
    ///
    /// # Errors
    /// [`ChainError::Timeout`] when the block did not appear in time.
    async fn wait_block(&self, seqno: u32, timeout: Duration) -> Result<McBlock, ChainError>;

    /// The masterchain block `seqno`, which exists already: its root hash and its time. 0 is the zero state, whose time
    /// is given as 0.
    async fn block(&self, seqno: u32) -> Result<McBlock, ChainError>;

    /// The state of `address` as of the masterchain block `at`.
    async fn account(&self, address: &StdAddr, at: &McBlock) -> Result<AccountView, ChainError>;

    /// The transactions of `address` after `until` (`None`: from the first) up to and including `newest`,
    /// **oldest first**, each with its hash recomputed and its link to its predecessor checked.
    ///
    /// # Errors
    /// [`ChainError::HistoryMismatch`] when the chain of hashes does not lead to `until`;
    /// [`ChainError::HistoryTooLong`] when more than `max` transactions lie between.
    async fn transactions(
        &self,
        address: &StdAddr,
        newest: TxId,
        until: Option<TxId>,
        max: usize,
    ) -> Result<Vec<AccountTx>, ChainError>;

    /// At most `count` transactions of `address`, **newest first**, beginning with `newest`, checked like those of
    /// [`ChainAccess::transactions`]. Fewer where the account has fewer.
    async fn latest_transactions(
        &self,
        address: &StdAddr,
        newest: TxId,
        count: usize,
    ) -> Result<Vec<AccountTx>, ChainError>;

    /// Runs the get-method `method` of `address` on the server, as of the block `at`.
    async fn run_getter(
        &self,
        address: &StdAddr,
        method: &str,
        arguments: &[StackValue],
        at: &McBlock,
    ) -> Result<GetterResult, ChainError>;

    /// Hands an external message (its root cell) to the network.
    ///
    /// `Ok` means a server took it, not that a transaction will exist: confirm on the chain.
    ///
    /// # Errors
    /// [`ChainError::Refused`]: the network did not accept it (the sender is at fault; do not repeat as is).
    /// [`ChainError::SendUnknown`]: it may or may not have arrived; look at the chain before deciding.
    /// [`ChainError::Unreachable`]: no server could be reached, nothing was sent.
    async fn send_external(&self, message: &Cell) -> Result<(), ChainError>;
}

/// A masterchain block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct McBlock {
    /// Sequence number.
    pub seqno: u32,
    /// Hash of the block's root cell.
    pub root_hash: HashBytes,
    /// Hash of the block's serialized bytes.
    pub file_hash: HashBytes,
    /// When it was made, Unix seconds.
    pub time_s: u32,
}

/// Names one transaction of an account: its logical time and the hash of its cell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxId {
    /// Logical time.
    pub lt: u64,
    /// Hash of the transaction's cell.
    pub hash: HashBytes,
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lt, self.hash)
    }
}

/// An account as of a masterchain block.
#[derive(Debug, Clone)]
pub struct AccountView {
    /// The account's address.
    pub address: StdAddr,
    /// The block of this view.
    pub as_of: McBlock,
    /// Its state; `None` where no account exists at the address.
    pub account: Option<Account>,
    /// Its newest transaction; `None` where it has none.
    pub last: Option<TxId>,
}

impl AccountView {
    /// Whether the account exists and what state it is in.
    pub fn status(&self) -> AccountStatus {
        self.account.as_ref().map_or(AccountStatus::NotExists, |account| account.state.status())
    }

    /// Balance in nanoTON; 0 where no account exists.
    pub fn balance_nanoton(&self) -> u128 {
        self.account.as_ref().map_or(0, |account| account.balance.tokens.into_inner())
    }

    /// Code cell of an active account.
    pub fn code(&self) -> Option<&Cell> {
        self.state_init().and_then(|init| init.code.as_ref())
    }

    /// Data cell of an active account.
    pub fn data(&self) -> Option<&Cell> {
        self.state_init().and_then(|init| init.data.as_ref())
    }

    fn state_init(&self) -> Option<&tycho_types::models::StateInit> {
        match self.account.as_ref().map(|account| &account.state) {
            Some(AccountState::Active(init)) => Some(init),
            _ => None,
        }
    }
}

/// A transaction whose cell hashes to `id.hash`.
#[derive(Debug, Clone)]
pub struct AccountTx {
    /// Logical time and hash.
    pub id: TxId,
    /// The transaction's root cell.
    pub cell: Cell,
    /// The same, parsed.
    pub tx: Transaction,
}

impl AccountTx {
    /// The transaction before this one on the account; `None` for the first.
    pub fn previous(&self) -> Option<TxId> {
        (self.tx.prev_trans_lt != 0)
            .then_some(TxId { lt: self.tx.prev_trans_lt, hash: self.tx.prev_trans_hash })
    }
}
