//! One chain shared between tasks.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::{BlockId, OptionalAccount, ShardAccount, StdAddr};

use crate::chain::{Localnet, Produced, Supply, TransactionRecord};
use crate::error::LocalnetError;
use crate::journal::Journal;
use crate::options::{BlockMode, Clock, LocalnetOptions};
use crate::pool::ExternalMessage;
use tvm_executor::{GetterOutput, method_id};

/// A chain that several tasks use. Clones share it.
///
/// Its methods hold a lock for as long as they compute, a few milliseconds at most but for [`LocalnetHandle::advance`]
/// of a full block.
#[derive(Clone)]
pub struct LocalnetHandle {
    shared: Arc<Shared>,
}

impl LocalnetHandle {
    /// A chain with its first block made: clients cannot ask for the account states of a zero state.
    ///
    /// [`BlockMode::Interval`] needs [`LocalnetHandle::run`] to be polled.
    ///
    /// # Errors
    /// [`LocalnetError::Options`].
    pub fn new(options: LocalnetOptions, mode: BlockMode, clock: Clock) -> Result<Self, LocalnetError> {
        Self::start(Localnet::new(options)?, None, mode, clock)
    }

    /// A chain that goes on from the journal at `path`, and keeps it; a new one where there is none.
    ///
    /// Every message and block of the chain's life runs again, some thousand blocks a second. A virtual clock stands at
    /// the newest block's time.
    ///
    /// # Errors
    /// [`LocalnetError::Io`]; [`LocalnetError::Options`] where the journal is that of a chain with other options.
    pub fn open(
        options: LocalnetOptions,
        mode: BlockMode,
        clock: Clock,
        path: &Path,
    ) -> Result<Self, LocalnetError> {
        let mut chain = Localnet::new(options)?;
        let journal = Journal::open(path, &mut chain)?;
        Self::start(chain, Some(journal), mode, clock)
    }

    fn start(
        chain: Localnet,
        journal: Option<Journal>,
        mode: BlockMode,
        clock: Clock,
    ) -> Result<Self, LocalnetError> {
        let newest_seqno = chain.newest().id.seqno;
        let virtual_utime_s = chain.newest().utime_s;
        let (newest, _) = watch::channel(newest_seqno);
        let state = State { chain, journal, virtual_utime_s };
        let handle = Self { shared: Arc::new(Shared { state: Mutex::new(state), newest, mode, clock }) };
        if newest_seqno == 0 {
            handle.advance()?;
        }
        Ok(handle)
    }

    /// Makes blocks at the interval of the mode, for ever. In other modes it only waits for ever.
    pub async fn run(&self) {
        let BlockMode::Interval(every) = self.shared.mode else {
            return std::future::pending().await;
        };
        let mut ticks = interval(every.max(SHORTEST_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = self.clone();
            let made = tokio::task::spawn_blocking(move || this.advance()).await;
            match made {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(%error, "no block was made"),
                Err(error) => tracing::error!(%error, "no block was made"),
            }
        }
    }

    /// Makes one block of each chain.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn advance(&self) -> Result<Produced, LocalnetError> {
        let now_s = self.now_s();
        let mut state = self.lock();
        if let Some(journal) = &mut state.journal {
            journal.block(now_s)?;
        }
        let produced = state.chain.produce_block(now_s)?;
        self.shared.newest.send_replace(produced.masterchain.seqno);
        Ok(produced)
    }

    /// Makes blocks until no message waits, at most `limit`; how many were made.
    ///
    /// # Errors
    /// As [`LocalnetHandle::advance`].
    pub fn settle(&self, limit: usize) -> Result<usize, LocalnetError> {
        let mut made = 0;
        while made < limit && self.read(Localnet::has_work) {
            self.advance()?;
            made += 1;
        }
        Ok(made)
    }

    /// The chain's time, Unix seconds.
    pub fn now_s(&self) -> u32 {
        match self.shared.clock {
            Clock::Virtual => self.lock().virtual_utime_s,
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
            }
        }
    }

    /// Moves a virtual clock on. A system clock does not move.
    pub fn skip_time(&self, seconds: u32) {
        let mut state = self.lock();
        state.virtual_utime_s = state.virtual_utime_s.saturating_add(seconds);
    }

    /// Takes an external message (a bag of cells) into the pool; its hash. In the mode on demand, blocks are made until
    /// it and what it caused is done.
    ///
    /// # Errors
    /// [`LocalnetError::InvalidMessage`], [`LocalnetError::NotAccepted`], [`LocalnetError::NoCode`],
    /// [`LocalnetError::PoolFull`].
    pub fn send_boc(&self, boc: &[u8]) -> Result<HashBytes, LocalnetError> {
        self.send(ExternalMessage::from_boc(boc)?)
    }

    /// Takes an external message into the pool; its hash. Otherwise as [`LocalnetHandle::send_boc`].
    ///
    /// # Errors
    /// As [`LocalnetHandle::send_boc`].
    pub fn send(&self, message: ExternalMessage) -> Result<HashBytes, LocalnetError> {
        let hash = message.hash();
        let now_s = self.now_s();
        {
            let mut state = self.lock();
            let fresh = state.chain.send(message.clone(), now_s)?;
            if let Some(journal) = state.journal.as_mut().filter(|_| fresh) {
                journal.external(&message)?;
            }
        }
        self.serve_demand()?;
        Ok(hash)
    }

    /// Has the giver send `amount_nanoton` to `destination`; the hash of the external message that asks it to.
    ///
    /// # Errors
    /// [`LocalnetError::BadRequest`] when the giver does not have that much, and as [`LocalnetHandle::send_boc`].
    pub fn give(&self, destination: &StdAddr, amount_nanoton: u128) -> Result<HashBytes, LocalnetError> {
        let now_s = self.now_s();
        let message = {
            let mut state = self.lock();
            let message = state.chain.give(destination, amount_nanoton, now_s)?;
            if let Some(journal) = &mut state.journal {
                journal.external(&message)?;
            }
            message
        };
        self.serve_demand()?;
        Ok(message.hash())
    }

    /// The newest masterchain block.
    pub fn newest(&self) -> BlockId {
        self.read(|chain| chain.newest().id)
    }

    /// Waits until the masterchain block `seqno` exists; `false` when it did not in time.
    pub async fn wait_block(&self, seqno: u32, limit: Duration) -> bool {
        let mut newest = self.shared.newest.subscribe();
        let reached = newest.wait_for(|newest| *newest >= seqno);
        matches!(timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// An account as of the newest block; empty where there is none.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn account(&self, address: &StdAddr) -> Result<ShardAccount, LocalnetError> {
        self.read(|chain| chain.account(address))
    }

    /// An account's balance, nanoton; 0 where there is none.
    ///
    /// # Errors
    /// As [`LocalnetHandle::account`].
    pub fn balance(&self, address: &StdAddr) -> Result<u128, LocalnetError> {
        let account: OptionalAccount = self.account(address)?.account.load()?;
        Ok(account.balance().tokens.into_inner())
    }

    /// All transactions of an account, oldest first.
    pub fn transactions(&self, address: &StdAddr) -> Vec<TransactionRecord> {
        self.read(|chain| chain.transactions(address).to_vec())
    }

    /// Runs a get-method as of the newest block. `stack` is a `VmStack`.
    ///
    /// # Errors
    /// [`LocalnetError::BadRequest`] for arguments that are no stack.
    pub fn run_getter(
        &self,
        address: &StdAddr,
        method: &str,
        stack: &Cell,
    ) -> Result<GetterOutput, LocalnetError> {
        self.read(|chain| chain.run_getter(address, method_id(method), stack, chain.newest().id.seqno))
    }

    /// Where every nanoton is now.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn supply(&self) -> Result<Supply, LocalnetError> {
        self.read(Localnet::supply)
    }

    /// Reads anything of the chain, under its lock.
    pub fn read<T>(&self, read: impl FnOnce(&Localnet) -> T) -> T {
        read(&self.lock().chain)
    }

    fn serve_demand(&self) -> Result<(), LocalnetError> {
        if self.shared.mode == BlockMode::OnDemand {
            self.settle(MAX_BLOCKS_ON_DEMAND)?;
        }
        Ok(())
    }

    /// A panic of another task while it held the lock leaves at worst a block half made; reading on is better than
    /// spreading the panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    state: Mutex<State>,
    newest: watch::Sender<u32>,
    mode: BlockMode,
    clock: Clock,
}

struct State {
    chain: Localnet,
    journal: Option<Journal>,
    virtual_utime_s: u32,
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Two contracts could send to each other for ever.
const MAX_BLOCKS_ON_DEMAND: usize = 16;
