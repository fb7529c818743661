//! One open session: its ledger, written down before a voucher leaves, and the requests it pays for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contracts::SigningKey;
use rand::RngExt as _;
use session::message::{CloseRequest, Done, SessionReport, StartRequest};
use session::work::Work;
use session::{
    BuyerError, BuyerLedger, Counted, Fault, Reason, Refused, RequestId, SessionFacts, SessionId,
    SignedVoucher, UnitBound,
};

use crate::ground::Seller;
use crate::link::{Link, LinkError};
use crate::store::{KeptProof, Money, Stage, Store, StoreError, StoredSession};

/// A session that is open.
pub(crate) struct Purse {
    place: Mutex<(Arc<Seller>, Arc<Link>)>,
    key: SigningKey,
    session: SessionId,
    ledger: Mutex<BuyerLedger>,
    in_flight: Mutex<BTreeSet<RequestId>>,
    money: Mutex<Money>,
    store: Arc<Store>,
    /// Counts changes that have to be written down.
    changes: AtomicU64,
    /// How many of them are. Whoever holds it writes, and all that was changed until then with it: what is written never
    /// goes back, and requests that begin at once share a commit.
    written: Arc<tokio::sync::Mutex<u64>>,
    tidying: AtomicBool,
    proof_kept: AtomicBool,
}

/// A request that is under way. Dropped before its end, the worker is told, and asked what it charged.
pub(crate) struct Flight {
    purse: Arc<Purse>,
    request: RequestId,
    is_posted: bool,
    is_settled: bool,
}

/// Why a request was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PurseError {
    #[error(transparent)]
    Ledger(#[from] BuyerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("gateway: it is stopping")]
    Stopping,
}

impl Purse {
    pub(crate) fn new(
        seller: Seller,
        link: Arc<Link>,
        key: SigningKey,
        ledger: BuyerLedger,
        money: Money,
        store: Arc<Store>,
    ) -> Self {
        Self {
            place: Mutex::new((Arc::new(seller), link)),
            key,
            session: ledger.session().clone(),
            ledger: Mutex::new(ledger),
            in_flight: Mutex::default(),
            money: Mutex::new(money),
            store,
            changes: AtomicU64::new(0),
            written: Arc::default(),
            tidying: AtomicBool::new(false),
            proof_kept: AtomicBool::new(false),
        }
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    pub(crate) fn seller(&self) -> Arc<Seller> {
        lock(&self.place).0.clone()
    }

    pub(crate) fn link(&self) -> Arc<Link> {
        lock(&self.place).1.clone()
    }

    /// Its worker has attested anew with the same key, or moved.
    pub(crate) fn rebind(&self, seller: Seller, link: Arc<Link>) {
        *lock(&self.place) = (Arc::new(seller), link);
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, BuyerLedger> {
        lock(&self.ledger)
    }

    pub(crate) fn money(&self) -> Money {
        *lock(&self.money)
    }

    /// Changes what is known of the wallet's money, or the ledger by what the chain says, and writes that down.
    pub(crate) async fn account(
        self: &Arc<Self>,
        facts: Option<&SessionFacts>,
        change: impl FnOnce(&mut Money),
    ) -> Result<(), PurseError> {
        if let Some(facts) = facts {
            self.ledger().update(facts, facts.deposit);
        }
        change(&mut lock(&self.money));
        self.write().await
    }

    /// Reserves `bound`, and writes that down. What comes back may be sent.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        bound: UnitBound,
        work: Work,
    ) -> Result<(StartRequest, Flight), PurseError> {
        let request = RequestId(rand::rng().random());
        let (amount, seen_sequence) = {
            let mut ledger = self.ledger();
            let amount = ledger.promise(request, bound)?;
            lock(&self.in_flight).insert(request);
            (amount, ledger.seen_sequence())
        };
        let mut flight = Flight { purse: self.clone(), request, is_posted: false, is_settled: false };
        if let Err(error) = self.write().await {
            flight.refused(&Reason::Cancelled.into());
            return Err(error);
        }
        let voucher = SignedVoucher::sign(&self.session, amount, &self.key);
        // From here on the voucher may leave.
        flight.is_posted = true;
        let session = self.session.clone();
        Ok((StartRequest { session, request, voucher, seen_sequence, bound, work }, flight))
    }

    /// Whether requests are reserved that nobody waits for any more.
    pub(crate) fn has_lost(&self) -> bool {
        let in_flight = lock(&self.in_flight).clone();
        self.ledger().open_requests().any(|request| !in_flight.contains(&request))
    }

    /// Asks the worker what became of lost requests.
    pub(crate) async fn reconcile(self: &Arc<Self>) -> Result<(), ReconcileError> {
        let report: SessionReport = self.link().report(&self.session).await?;
        let outcome = {
            let in_flight = lock(&self.in_flight).clone();
            self.ledger().report(&report, &in_flight)
        };
        Ok(self.settle(outcome).await?)
    }

    /// The same, soon, where it is needed then; a worker that is away is asked some times more.
    pub(crate) fn tidy(self: &Arc<Self>) {
        if self.tidying.swap(true, Ordering::SeqCst) {
            return;
        }
        let purse = self.clone();
        spawn(async move {
            for attempt in 0..TIDY_ATTEMPTS {
                tokio::time::sleep(TIDY_AFTER * (1 << attempt)).await;
                if !purse.has_lost() {
                    break;
                }
                match purse.reconcile().await {
                    Ok(()) if !purse.has_lost() => break,
                    Ok(()) => {}
                    Err(ReconcileError::Fault(_)) => break,
                    Err(ReconcileError::Link(error)) => {
                        tracing::debug!(%error, session = %purse.session, "the worker did not say what it charged");
                    }
                }
            }
            purse.tidying.store(false, Ordering::SeqCst);
        });
    }

    /// Has the worker end the session. It redeems its final receipt itself.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), ReconcileError> {
        let promised = self.ledger().promised();
        let voucher = SignedVoucher::sign(&self.session, promised, &self.key);
        let report = self.link().close(&self.session, &CloseRequest { voucher }).await?;
        let outcome = self.ledger().closed(&report);
        Ok(self.settle(outcome).await?)
    }

    /// As it is written down.
    fn stored(&self) -> StoredSession {
        let seller = self.seller();
        let (money, record) = (self.money(), self.ledger().record());
        StoredSession {
            job: self.session.job.clone(),
            worker: seller.expected.worker.clone(),
            model_id: seller.model_id,
            money,
            stage: Stage::Open(Box::new(record)),
        }
    }

    /// Keeps a proof, where there is one. What was charged is written with the next voucher: what is not written is asked
    /// of the worker after a crash.
    async fn settle(self: &Arc<Self>, outcome: Result<(), Fault>) -> Result<(), Fault> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let Err(fault) = outcome else { return Ok(()) };
        let proof = self.ledger().proof().cloned();
        if let Some(proof) = proof
            && !self.proof_kept.swap(true, Ordering::SeqCst)
        {
            tracing::warn!(%fault, session = %self.session, "a worker is dishonest; the proof is kept");
            let registration_seqno = self.seller().expected.registration_seqno;
            let store = self.store.clone();
            let keeping = tokio::task::spawn_blocking(move || {
                store.keep_proof(&KeptProof { proof, registration_seqno })
            });
            if !matches!(keeping.await, Ok(Ok(()))) {
                tracing::error!(session = %self.session, "the proof could not be kept");
            }
        }
        Err(fault)
    }

    /// Returns when all that was changed before is on disk.
    pub(crate) async fn write(self: &Arc<Self>) -> Result<(), PurseError> {
        let mine = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        let mut written = self.written.clone().lock_owned().await;
        if *written >= mine {
            return Ok(());
        }
        let purse = self.clone();
        // The lock goes with the writing: whoever gives up waiting does not let an older state overtake a newer.
        let writing = tokio::task::spawn_blocking(move || {
            let all = purse.changes.load(Ordering::SeqCst);
            purse.store.put(&purse.stored())?;
            *written = all;
            Ok::<(), StoreError>(())
        });
        match writing.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(PurseError::Stopping),
        }
    }
}

impl Flight {
    pub(crate) fn id(&self) -> RequestId {
        self.request
    }

    /// The request was answered. Runs to its end whoever waits for it.
    pub(crate) async fn done(&mut self, done: &Done, counted: &Counted) -> Result<(), Fault> {
        let outcome = self.purse.ledger().done(done, counted);
        lock(&self.purse.in_flight).remove(&self.request);
        self.is_settled = true;
        let purse = self.purse.clone();
        let settled = tokio::spawn(async move {
            let outcome = purse.settle(outcome).await;
            if outcome.is_ok() && purse.has_lost() {
                purse.tidy();
            }
            outcome
        });
        settled.await.unwrap_or(outcome)
    }

    /// The worker has no such request, and charges nothing for it.
    pub(crate) fn refused(&mut self, refused: &Refused) {
        lock(&self.purse.in_flight).remove(&self.request);
        self.purse.ledger().refused(self.request, refused);
        self.is_settled = true;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        lock(&self.purse.in_flight).remove(&self.request);
        if !self.is_posted {
            self.purse.ledger().refused(self.request, &Reason::Cancelled.into());
            return;
        }
        let (purse, request) = (self.purse.clone(), self.request);
        spawn(async move {
            let _ = purse.link().cancel(&purse.session, request).await;
            purse.tidy();
        });
    }
}

/// The worker did not say what it knows, or what it said is not true.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("worker: {0}")]
    Fault(#[from] Fault),
}

/// Where there is still a runtime to do it.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const TIDY_AFTER: Duration = Duration::from_millis(500);
const TIDY_ATTEMPTS: u32 = 8;
