//! Sends a wallet's messages one at a time and follows each to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tycho_types::models::AccountStatus;

use super::{SignedExternal, Wallet, WalletError};
use crate::access::{AccountTx, AccountView, ChainAccess, McBlock, TxId};
use crate::error::ChainError;
use crate::message::{Transfer, normalized_hash_of};

/// How long a message lives and how patiently it is followed.
#[derive(Debug, Clone, Copy)]
pub struct SenderTiming {
    /// `valid_until` after the newest block's time.
    pub valid_for_s: u32,
    /// How long after `valid_until` a block may still bring the message in: a shard's block is older than
    /// the masterchain block that names it.
    pub margin_s: u32,
    /// An unconfirmed message is handed to the network again after this long; the bytes are the same, so it
    /// cannot happen twice.
    pub resend_every_s: u32,
    /// How long the chain may stay unreadable before we give up following.
    pub patience: Duration,
}

impl Default for SenderTiming {
    fn default() -> Self {
        Self { valid_for_s: 60, margin_s: 30, resend_every_s: 15, patience: Duration::from_secs(180) }
    }
}

/// A wallet's message that is final on the chain.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// The wallet's transaction.
    pub transaction: AccountTx,
    /// The masterchain block in which it was seen.
    pub block: McBlock,
}

/// The only sender of a wallet: a second message waits until the first has an end.
pub struct WalletSender<C: ChainAccess + ?Sized> {
    wallet: Wallet,
    chain: Arc<C>,
    timing: SenderTiming,
    turn: Mutex<()>,
}

impl<C: ChainAccess + ?Sized> WalletSender<C> {
    /// A sender for `wallet` on `chain`.
    pub fn new(wallet: Wallet, chain: Arc<C>, timing: SenderTiming) -> Self {
        Self { wallet, chain, timing, turn: Mutex::new(()) }
    }

    /// The wallet.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// The chain it sends to.
    pub fn chain(&self) -> &Arc<C> {
        &self.chain
    }

    /// Sends `transfers` in one wallet transaction and waits until it is final.
    ///
    /// # Errors
    /// [`WalletError`]; after [`WalletError::Expired`] nothing has happened and the caller may send again.
    pub async fn send(&self, transfers: &[Transfer]) -> Result<Confirmed, WalletError> {
        let _turn = self.turn.lock().await;
        let (signed, before) = self.prepare(transfers).await?;
        self.submit(&signed).await?;
        self.confirm(&signed, before).await
    }

    /// Signs `transfers` for the wallet's present seqno; with it, the wallet's newest transaction.
    ///
    /// # Errors
    /// [`WalletError::InsufficientFunds`] before anything is sent, and what reading the chain meets.
    pub async fn prepare(
        &self,
        transfers: &[Transfer],
    ) -> Result<(SignedExternal, Option<TxId>), WalletError> {
        let head = self.chain.head().await?;
        let view = self.chain.account(self.wallet.address(), &head).await?;
        let balance_nanoton = view.balance_nanoton();
        let needed_nanoton = transfers
            .iter()
            .map(|transfer| transfer.value_nanoton)
            .fold(FEE_ALLOWANCE_NANOTON, u128::saturating_add);
        if balance_nanoton < needed_nanoton {
            let address = self.wallet.address().clone();
            return Err(WalletError::InsufficientFunds { address, balance_nanoton, needed_nanoton });
        }
        let seqno = self.seqno(&view)?;
        let deploy = view.status() != AccountStatus::Active;
        let valid_until_s = head.time_s.saturating_add(self.timing.valid_for_s);
        Ok((self.wallet.sign(transfers, seqno, valid_until_s, deploy)?, view.last))
    }

    /// Hands a signed message to the network. Not knowing whether it arrived is no error here:
    /// [`WalletSender::confirm`] finds out.
    ///
    /// # Errors
    /// When the network refuses it or no server can be reached.
    pub async fn submit(&self, signed: &SignedExternal) -> Result<(), WalletError> {
        match self.chain.send_external(&signed.message).await {
            Ok(()) | Err(ChainError::SendUnknown { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Follows a signed message until it is final, expired or superseded; `before` is a transaction of the
    /// wallet older than it.
    ///
    /// # Errors
    /// [`WalletError::Expired`], [`WalletError::SeqnoTaken`], [`WalletError::MessagesSkipped`], or
    /// [`WalletError::Unconfirmed`] when the chain stayed unreadable.
    pub async fn confirm(
        &self,
        signed: &SignedExternal,
        before: Option<TxId>,
    ) -> Result<Confirmed, WalletError> {
        let mut cursor = before;
        let mut readable_at = Instant::now();
        let mut resend_at_s = None;
        let mut next_block = None;
        loop {
            match self.look(signed, &mut cursor, &mut next_block).await {
                Ok(Some(Seen::Included(confirmed))) => return checked(signed, *confirmed),
                Ok(Some(Seen::Block(block))) => {
                    readable_at = Instant::now();
                    if block.time_s > signed.valid_until_s.saturating_add(self.timing.margin_s) {
                        return Err(WalletError::Expired { valid_until_s: signed.valid_until_s });
                    }
                    let due_s = *resend_at_s.get_or_insert(block.time_s + self.timing.resend_every_s);
                    if block.time_s >= due_s && block.time_s <= signed.valid_until_s {
                        resend_at_s = Some(block.time_s + self.timing.resend_every_s);
                        if let Err(error) = self.chain.send_external(&signed.message).await {
                            tracing::debug!(%error, "resending a wallet message");
                        }
                    }
                }
                Ok(None) => return Err(WalletError::SeqnoTaken { seqno: signed.seqno }),
                Err(WalletError::Chain(error)) if error.is_transient() => {
                    if readable_at.elapsed() > self.timing.patience {
                        return Err(WalletError::Unconfirmed {
                            seqno: signed.seqno,
                            cause: error.to_string(),
                        });
                    }
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the wallet as of the next block. `None`: the seqno is used up, by another message.
    async fn look(
        &self,
        signed: &SignedExternal,
        cursor: &mut Option<TxId>,
        next_block: &mut Option<u32>,
    ) -> Result<Option<Seen>, WalletError> {
        let block = match *next_block {
            Some(seqno) => self.chain.wait_block(seqno, BLOCK_WAIT).await?,
            None => self.chain.head().await?,
        };
        let view = self.chain.account(self.wallet.address(), &block).await?;
        if let Some(newest) = view.last
            && view.last > *cursor
        {
            let found =
                self.chain.transactions(self.wallet.address(), newest, *cursor, MAX_TRANSACTIONS).await?;
            for transaction in found {
                if in_message_hash(&transaction)? == Some(signed.normalized_hash) {
                    return Ok(Some(Seen::Included(Box::new(Confirmed { transaction, block }))));
                }
            }
            *cursor = view.last;
        }
        *next_block = Some(block.seqno + 1);
        if self.seqno(&view)? > signed.seqno { Ok(None) } else { Ok(Some(Seen::Block(block))) }
    }

    fn seqno(&self, view: &AccountView) -> Result<u32, WalletError> {
        match view.data() {
            Some(data) => self.wallet.seqno_in(data),
            None => Ok(0),
        }
    }
}

/// What one look at the wallet showed.
enum Seen {
    Included(Box<Confirmed>),
    Block(McBlock),
}

/// For the wallet's own gas and the forwarding of its messages.
const FEE_ALLOWANCE_NANOTON: u128 = 20_000_000;
const MAX_TRANSACTIONS: usize = 10_000;
const BLOCK_WAIT: Duration = Duration::from_secs(20);
const RETRY_PAUSE: Duration = Duration::from_millis(300);

fn in_message_hash(transaction: &AccountTx) -> Result<Option<tycho_types::cell::HashBytes>, WalletError> {
    match &transaction.tx.in_msg {
        Some(message) => Ok(normalized_hash_of(message)?),
        None => Ok(None),
    }
}

/// Send mode 2 lets a wallet's transaction succeed without its messages.
fn checked(signed: &SignedExternal, confirmed: Confirmed) -> Result<Confirmed, WalletError> {
    let sent = usize::from(confirmed.transaction.tx.out_msg_count.into_inner());
    if sent < signed.transfers {
        return Err(WalletError::MessagesSkipped {
            sent,
            wanted: signed.transfers,
            transaction_lt: confirmed.transaction.id.lt,
        });
    }
    Ok(confirmed)
}
