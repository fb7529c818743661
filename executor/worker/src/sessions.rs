//! Sells sessions: follows the Worker's account for those that were opened, lets their clients in, and redeems.
//!
//! It runs beside the daemon for jobs, with a cursor and a file of its own, and shares nothing with it but keys and engine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chain::watcher::{Observation as Change, observe};
use chain::{AccountTx, AccountView, ChainAccess, ChainError, McBlock, TxId, external_message};
use contracts::job::{JobNoticed, JobStorage};
use contracts::money::Amount;
use contracts::wire::{from_cell, opcode_of};
use contracts::{HashBytes, Message, Network, StdAddr, WireError};
use endpoint::{Due, Endpoint, EndpointConfig, EndpointParts, RedbStore, StoreError, StoreIdentity, serve};
use engine_api::{Engine, Work};
use ra_tls::certificate::Validity;
use ra_tls::evidence::Binding;
use ra_tls::{Acceptor, ClientAuth, ConfigError, IdentityError, ServerLimits, SystemClock};
use session::{Offered, RedeemPolicy, SessionFacts, SessionId};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::keys::Keys;
use crate::machine::WorkerFacts;
use crate::observe::{MAX_NOTICES, history, worker_facts};

/// How sessions are sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// Where gateways connect.
    pub listen: SocketAddr,
    /// What may be earned in a session before it is redeemed. More saves fees; all of it is lost with the keys.
    pub at_stake: Amount,
    /// A session whose end is nearer than this is ended.
    pub margin_s: u32,
    /// The least time from a client's wish to end a session to its end. Above `endpoint.request_timeout`.
    pub min_settle_s: u32,
    /// A redemption that the chain does not show is sent again after this long.
    pub resend_every_s: u32,
    /// How long answers under way are waited for when the worker stops.
    pub drain_s: u32,
    /// Limits on clients.
    pub endpoint: EndpointConfig,
    /// Limits on connections.
    pub connections: ServerLimits,
}

impl SessionConfig {
    /// Defaults at this address.
    pub fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            at_stake: Amount::new(1_000_000_000),
            margin_s: 300,
            min_settle_s: 300,
            resend_every_s: 15,
            drain_s: 30,
            endpoint: EndpointConfig::default(),
            connections: ServerLimits::default(),
        }
    }
}

/// Everything that selling sessions takes.
pub struct SessionServer<C: ChainAccess + ?Sized> {
    /// The chain.
    pub chain: Arc<C>,
    /// The network.
    pub network: Network,
    /// Whose worker it is.
    pub owner: StdAddr,
    /// The attested keys.
    pub keys: Arc<Keys>,
    /// The model.
    pub engine: Arc<dyn Engine>,
    /// The sessions' file, beside the journal.
    pub file: PathBuf,
    /// What the operator set.
    pub config: SessionConfig,
}

/// Sessions cannot be sold, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionsError {
    /// The ledger's file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address.
    #[error("operator: {address} cannot be listened at ({source}); choose another address")]
    Listen {
        /// Of the configuration.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// No thread.
    #[error("operator: the system gives no thread: {0}")]
    Thread(io::Error),
    /// The chain cannot be followed, and asking again will not help.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A cell could not be built.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] ConfigError),
}

impl<C: ChainAccess + ?Sized + 'static> SessionServer<C> {
    /// Sells sessions until `stop` is ready; then takes nothing new, lets answers end, and redeems what is earned.
    ///
    /// # Errors
    /// [`SessionsError`]. What was charged is in the file, and a new start with the same keys redeems it.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), SessionsError> {
        let worker = self.network.worker_address(&self.owner)?;
        let model_id = self.engine.info().model_id;
        let model = self.network.model_address(&model_id)?.address;
        let address = self.config.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| SessionsError::Listen { address, source })?;
        tokio::pin!(stop);
        let start = async {
            loop {
                match self.head(&worker).await {
                    Err(error) if !is_final(&error) => {
                        tracing::warn!(%error, "reading the chain; trying again");
                        sleep(PAUSE).await;
                    }
                    read => return read,
                }
            }
        };
        let (block, view) = tokio::select! {
            read = start => read?,
            () = &mut stop => return Ok(()),
        };
        let identity = StoreIdentity::new(worker.clone(), self.network.id());
        let now_lt = view.last.map_or(0, |last| last.lt);
        let (store, stored) = RedbStore::open(&self.file, &identity, now_lt)?;
        let store = Arc::new(store);
        let cursor = match store.cursor()? {
            Some((lt, hash)) => Some(TxId { lt, hash }),
            // Nothing older than the file is served.
            None => view.last,
        };
        let mut limits = self.config.endpoint;
        if matches!(self.engine.info().work, Work::Transcription { .. }) {
            limits.max_body_bytes = limits.max_body_bytes.max(RECORDING_BODY_BYTES);
        }
        let time_s = Arc::new(AtomicU32::new(block.time_s));
        let clock = time_s.clone();
        let endpoint = Endpoint::new(EndpointParts {
            engine: self.engine.clone(),
            receipt_key: self.keys.receipt().clone(),
            store: store.clone(),
            stored,
            since_lt: store.since_lt(),
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            config: limits,
        })
        .map_err(SessionsError::Thread)?;
        let mut shop = Shop {
            server: self,
            worker,
            model_id,
            model,
            store,
            endpoint,
            cursor,
            time_s,
            listener: Some(listener),
            open: None,
            sent: BTreeMap::new(),
            turn: None,
        };
        let result = shop.follow(block, &mut stop).await;
        shop.close().await;
        let store = shop.store.clone();
        drop(shop);
        // Whoever starts anew has to find the file free.
        for _ in 0..RELEASE_STEPS {
            if Arc::strong_count(&store) == 1 {
                break;
            }
            sleep(RELEASE_STEP).await;
        }
        result
    }

    async fn head(&self, worker: &StdAddr) -> Result<(McBlock, AccountView), ChainError> {
        let block = self.chain.head().await?;
        let view = self.chain.account(worker, &block).await?;
        Ok((block, view))
    }
}

struct Shop<C: ChainAccess + ?Sized> {
    server: SessionServer<C>,
    worker: StdAddr,
    model_id: HashBytes,
    /// Account of the Model.
    model: HashBytes,
    store: Arc<RedbStore>,
    endpoint: Endpoint,
    /// As the file has it.
    cursor: Option<TxId>,
    /// The chain's time.
    time_s: Arc<AtomicU32>,
    /// Until it is served.
    listener: Option<TcpListener>,
    open: Option<Open>,
    /// The newest redemption of each session: its sequence, and when it was sent.
    sent: BTreeMap<SessionId, (u32, Instant)>,
    /// The session that was read last.
    turn: Option<SessionId>,
}

/// What gateways connect to.
struct Open {
    acceptor: Acceptor,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    registration_seqno: u32,
    certified_s: u64,
}

impl<C: ChainAccess + ?Sized + 'static> Shop<C> {
    async fn follow(
        &mut self,
        first: McBlock,
        stop: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<(), SessionsError> {
        let mut block = first;
        let mut is_new = true;
        loop {
            if std::mem::take(&mut is_new) {
                match self.read(&block).await {
                    Ok(()) => {}
                    Err(SessionsError::Chain(error)) if !is_final(&error) => {
                        tracing::warn!(%error, "reading the chain; trying again with the next block");
                    }
                    Err(error) => return Err(error),
                }
                self.redeem(self.server.config.at_stake).await;
            }
            let (chain, endpoint) = (self.server.chain.clone(), self.endpoint.clone());
            tokio::select! {
                () = &mut *stop => return Ok(()),
                () = endpoint.changed() => self.redeem(self.server.config.at_stake).await,
                next = next_block(chain.as_ref(), block.seqno) => match next {
                    Ok(Some(next)) => {
                        block = next;
                        is_new = true;
                    }
                    Ok(None) => {}
                    Err(error) if is_final(&error) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(%error, "reading the chain; trying again");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// What a block brings: the Worker's own state, new sessions, and the state of some of the known ones.
    async fn read(&mut self, block: &McBlock) -> Result<(), SessionsError> {
        self.time_s.store(block.time_s, Ordering::Relaxed);
        let view = self.server.chain.account(&self.worker, block).await?;
        let facts = worker_facts(&view);
        let offered = facts.as_ref().and_then(|facts| self.offered(facts, block.time_s));
        let accepts = offered.is_some() && facts.as_ref().is_some_and(|facts| !facts.paused);
        self.endpoint.set_accepting(accepts);
        if let (Some(facts), Some(_)) = (&facts, &offered) {
            self.show(facts.registration_seqno)?;
        }
        // What was opened meanwhile waits until there is something to judge it by.
        if let Some(offered) = &offered
            && let Change::Advanced { newest, until } = observe(self.cursor, &view)
        {
            self.find(block, offered, newest, until).await?;
        }
        let Some(offered) = offered else { return Ok(()) };
        for session in self.next_sessions() {
            match self.read_session(block, &session.job).await? {
                Some(read) if read.id == session => {
                    let _ = self.endpoint.observe(&offered, read).await;
                }
                _ => self.endpoint.forget(&session),
            }
        }
        let known: BTreeSet<SessionId> = self.endpoint.sessions().into_iter().collect();
        self.sent.retain(|session, _| known.contains(session));
        Ok(())
    }

    /// What is on offer, where the chain attests our key and has an offer for the model.
    fn offered(&self, facts: &WorkerFacts, now_s: u32) -> Option<Offered> {
        let keys = facts.attestation.as_ref()?;
        let offer = facts.offer(&self.model_id)?;
        let receipt_key = self.server.keys.receipt_public();
        (keys.receipt_key == receipt_key && keys.expires_at > now_s).then(|| Offered {
            worker: self.worker.address,
            receipt_key,
            model: self.model,
            prices: offer.prices,
            share_bps: self.server.network.generation.share_bps(offer.royalty_bps),
            min_deposit: offer.min_deposit,
            min_settle_s: self.server.config.min_settle_s,
        })
    }

    /// Opens the door when the chain attests us, and changes the certificate when it gets old or was for another
    /// registration. `next_seqno` is that of the next registration.
    fn show(&mut self, next_seqno: u32) -> Result<(), SessionsError> {
        let registration_seqno = next_seqno.saturating_sub(1);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let is_good = self.open.as_ref().is_some_and(|open| {
            open.registration_seqno == registration_seqno
                && now_s.saturating_sub(open.certified_s) < CERTIFICATE_LIFE_S
        });
        if is_good {
            return Ok(());
        }
        let binding = Binding {
            network_id: self.server.network.id(),
            worker: self.worker.clone(),
            registration_seqno,
            validity: Validity::starting(now_s),
        };
        let identity = ra_tls::Identity::worker(&binding, self.server.keys.receipt(), &mut rand::rng())?;
        if let Some(open) = &mut self.open {
            open.acceptor.rotate(&identity);
            (open.registration_seqno, open.certified_s) = (registration_seqno, now_s);
        } else if let Some(listener) = self.listener.take() {
            let limits = self.server.config.connections;
            let acceptor = Acceptor::new(&identity, ClientAuth::Required, limits, Arc::new(SystemClock))?;
            let (stop, stopped) = oneshot::channel::<()>();
            let drain = Duration::from_secs(u64::from(self.server.config.drain_s));
            let stopped = async { drop(stopped.await) };
            let served =
                tokio::spawn(serve(self.endpoint.clone(), listener, acceptor.clone(), stopped, drain));
            tracing::info!(address = %self.server.config.listen, "sessions are served");
            self.open = Some(Open { acceptor, stop, served, registration_seqno, certified_s: now_s });
        }
        Ok(())
    }

    /// Reads the Worker's new transactions for notices of sessions, a bounded number of them at once.
    async fn find(
        &mut self,
        block: &McBlock,
        offered: &Offered,
        newest: TxId,
        until: Option<TxId>,
    ) -> Result<(), SessionsError> {
        let mut noticed = BTreeSet::new();
        let mut read_to = self.cursor;
        for transaction in history(self.server.chain.as_ref(), &self.worker, newest, until).await? {
            if let Some(job) = notice_of(&transaction)
                && !noticed.contains(&job)
            {
                if noticed.len() >= MAX_NOTICES {
                    break;
                }
                if let Some(facts) = self.read_session(block, &job).await?
                    && facts.worker == self.worker.address
                {
                    let session = facts.id.clone();
                    match self.endpoint.observe(offered, facts).await {
                        Ok(()) => tracing::info!(%session, "a session was opened"),
                        Err(refused) => tracing::info!(%session, %refused, "a session is not served"),
                    }
                }
                noticed.insert(job);
            }
            read_to = Some(transaction.id);
        }
        if let Some(cursor) = read_to.filter(|_| read_to != self.cursor) {
            self.store.set_cursor(cursor.lt, &cursor.hash)?;
            self.cursor = Some(cursor);
        }
        Ok(())
    }

    /// The session at `job`, if that is one: its account has to run the code of jobs at the address of its client and nonce.
    async fn read_session(
        &self,
        block: &McBlock,
        job: &StdAddr,
    ) -> Result<Option<SessionFacts>, SessionsError> {
        let view = self.server.chain.account(job, block).await?;
        let network = &self.server.network;
        let code = network.generation.job_code.repr_hash();
        if view.code().is_none_or(|found| found.repr_hash() != code) {
            return Ok(None);
        }
        let Some(storage) = view.data().and_then(|data| from_cell::<JobStorage>(data).ok()) else {
            return Ok(None);
        };
        if network.job_address(&storage.client, storage.nonce)? != *job {
            return Ok(None);
        }
        let JobStorage { client, state, .. } = storage;
        Ok(state.and_then(|state| SessionFacts::of_state(job.clone(), client, &state)))
    }

    /// Those whose turn it is to be read again.
    fn next_sessions(&mut self) -> Vec<SessionId> {
        let known: BTreeSet<SessionId> = self.endpoint.sessions().into_iter().collect();
        let after = match &self.turn {
            Some(turn) => known.range((std::ops::Bound::Excluded(turn.clone()), std::ops::Bound::Unbounded)),
            None => known.range(..),
        };
        let next: Vec<SessionId> =
            after.chain(known.iter()).take(READS_PER_BLOCK.min(known.len())).cloned().collect();
        self.turn = next.last().cloned();
        next
    }

    async fn redeem(&mut self, at_stake: Amount) {
        let policy = RedeemPolicy { at_stake, margin_s: self.server.config.margin_s };
        let resend = Duration::from_secs(u64::from(self.server.config.resend_every_s));
        for Due { session, message } in self.endpoint.due(&policy, REDEMPTION_FEE).await {
            let sequence = message.receipt.sequence;
            let was_sent =
                self.sent.get(&session).is_some_and(|(sent, at)| *sent == sequence && at.elapsed() < resend);
            if was_sent {
                continue;
            }
            let message = message.to_cell().ok();
            let message = message.and_then(|body| external_message(&session.job, None, &body).ok());
            let Some(message) = message else {
                tracing::error!(%session, "a redemption does not fit into cells");
                continue;
            };
            match self.server.chain.send_external(&message).await {
                Ok(()) => tracing::info!(%session, sequence, "a receipt was sent to be redeemed"),
                Err(error) => tracing::warn!(%session, sequence, %error, "not taken; the chain decides"),
            }
            self.sent.insert(session, (sequence, Instant::now()));
        }
    }

    /// Takes nothing new, lets answers end, redeems what is earned.
    async fn close(&mut self) {
        self.endpoint.set_accepting(false);
        if let Some(open) = self.open.take() {
            // It ends when it hears of it.
            let _ = open.stop.send(());
            if let Err(error) = open.served.await {
                tracing::error!(%error, "the endpoint did not end well");
            }
        }
        self.redeem(Amount::ZERO).await;
    }
}

async fn next_block<C: ChainAccess + ?Sized>(chain: &C, seen: u32) -> Result<Option<McBlock>, ChainError> {
    match chain.wait_block(seen.saturating_add(1), BLOCK_WAIT).await {
        Ok(next) => {
            let head = chain.head().await?;
            Ok(Some(if head.seqno > next.seqno { head } else { next }))
        }
        Err(ChainError::Timeout { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who sent a notice of a job; that it is one is yet to be read.
fn notice_of(transaction: &AccountTx) -> Option<StdAddr> {
    let message = transaction.in_message().ok()??;
    let is_notice = !message.bounced && opcode_of(&message.body.as_slice().ok()?) == Some(JobNoticed::OPCODE);
    message.from.filter(|_| is_notice)
}

fn is_final(error: &ChainError) -> bool {
    matches!(error, ChainError::HistoryMismatch { .. } | ChainError::Caller(_))
}

/// Above what a redemption that is not final costs at the basechain's prices (`FeePrices::redemption`).
const REDEMPTION_FEE: Amount = Amount::new(6_000_000);
/// A recording of 25 MiB in base64, and what is around it.
const RECORDING_BODY_BYTES: usize = 36 << 20;
/// Half the longest validity.
const CERTIFICATE_LIFE_S: u64 = ra_tls::evidence::MAX_VALIDITY_S / 2;
/// Known sessions that one block makes us read again.
const READS_PER_BLOCK: usize = 64;
const BLOCK_WAIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(1);
const RELEASE_STEPS: u32 = 400;
const RELEASE_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use contracts::fees::FeePrices;
    use tvm_executor::Vm;

    use super::*;

    #[test]
    fn the_fee_of_a_redemption_is_foreseen() {
        let vm = Vm::new(-3).unwrap();
        let config = vm.config();
        let prices = FeePrices {
            storage: config.get_storage_prices().unwrap().values().last().unwrap().unwrap(),
            gas: config.get_gas_prices(false).unwrap(),
            forward: config.get_msg_forward_prices(false).unwrap(),
        };
        let fee = prices.redemption().get();
        let foreseen = u128::from(REDEMPTION_FEE.get());
        assert!(fee <= foreseen && foreseen <= 2 * fee, "{fee}");
    }
}
