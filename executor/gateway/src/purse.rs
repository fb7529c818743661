//! One open session: its ledger, written down before a voucher leaves, and the requests it pays for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contracts::SigningKey;
use contracts::money::Amount;
use rand::RngExt as _;
use session::message::{CloseRequest, Done, SessionReport, StartRequest};
use session::work::Work;
use session::{
    BuyerError, BuyerLedger, Counted, Fault, Refused, RequestId, SessionFacts, SessionId, SignedVoucher,
    UnitBound,
};

use crate::ground::Seller;
use crate::link::{Link, LinkError};
use crate::store::{Stage, Store, StoreError, StoredSession};

/// A session that is open.
pub(crate) struct Purse {
    pub(crate) seller: Seller,
    pub(crate) link: Arc<Link>,
    key: SigningKey,
    session: SessionId,
    ledger: Mutex<BuyerLedger>,
    in_flight: Mutex<BTreeSet<RequestId>>,
    sent: Mutex<Amount>,
    store: Arc<Store>,
    /// One at a time promises and writes that down, so that what is written never goes back.
    writing: tokio::sync::Mutex<()>,
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
        sent: Amount,
        store: Arc<Store>,
    ) -> Self {
        Self {
            seller,
            link,
            key,
            session: ledger.session().clone(),
            ledger: Mutex::new(ledger),
            in_flight: Mutex::default(),
            sent: Mutex::new(sent),
            store,
            writing: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, BuyerLedger> {
        lock(&self.ledger)
    }

    /// What the wallet has sent.
    pub(crate) fn sent(&self) -> Amount {
        *lock(&self.sent)
    }

    /// Reserves `bound`, and writes that down. What comes back may be sent.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        bound: UnitBound,
        work: Work,
    ) -> Result<StartRequest, PurseError> {
        let request = RequestId(rand::rng().random());
        let _writing = self.writing.lock().await;
        let (amount, seen_sequence) = {
            let mut ledger = self.ledger();
            let amount = ledger.promise(request, bound)?;
            lock(&self.in_flight).insert(request);
            (amount, ledger.seen_sequence())
        };
        if let Err(error) = self.write().await {
            // No voucher of it has left.
            self.ledger().refused(request, &Refused::new(session::Reason::Cancelled));
            lock(&self.in_flight).remove(&request);
            return Err(error);
        }
        let voucher = SignedVoucher::sign(&self.session, amount, &self.key);
        Ok(StartRequest { session: self.session.clone(), request, voucher, seen_sequence, bound, work })
    }

    /// The request was answered.
    pub(crate) async fn done(self: &Arc<Self>, done: &Done, counted: &Counted) -> Result<(), Fault> {
        lock(&self.in_flight).remove(&done.request);
        let outcome = self.ledger().done(done, counted);
        self.settle(outcome).await
    }

    /// The worker has no such request, and charges nothing for it.
    pub(crate) fn refused(&self, request: RequestId, refused: &Refused) {
        lock(&self.in_flight).remove(&request);
        self.ledger().refused(request, refused);
    }

    /// No answer came, and one may have been charged.
    pub(crate) fn lost(&self, request: RequestId) {
        lock(&self.in_flight).remove(&request);
    }

    /// Asks the worker what became of lost requests.
    pub(crate) async fn reconcile(self: &Arc<Self>) -> Result<(), ReconcileError> {
        let report: SessionReport = self.link.report(&self.session).await?;
        let outcome = {
            let in_flight = lock(&self.in_flight).clone();
            self.ledger().report(&report, &in_flight)
        };
        Ok(self.settle(outcome).await?)
    }

    /// Has the worker end the session. It redeems its final receipt itself.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), ReconcileError> {
        let voucher = {
            let ledger = self.ledger();
            SignedVoucher::sign(&self.session, ledger.promised(), &self.key)
        };
        let report = self.link.close(&self.session, &CloseRequest { voucher }).await?;
        let outcome = self.ledger().closed(&report);
        Ok(self.settle(outcome).await?)
    }

    /// The chain has been read again, or has more of the wallet's money.
    pub(crate) async fn update(
        self: &Arc<Self>,
        facts: &SessionFacts,
        sent_more: Amount,
    ) -> Result<(), PurseError> {
        let _writing = self.writing.lock().await;
        self.ledger().update(facts, facts.deposit);
        {
            let mut sent = lock(&self.sent);
            *sent = sent.checked_add(sent_more).unwrap_or(Amount::new(u64::MAX));
        }
        self.write().await
    }

    async fn settle(self: &Arc<Self>, outcome: Result<(), Fault>) -> Result<(), Fault> {
        // What is not written is asked of the worker after a crash.
        let _writing = self.writing.lock().await;
        if let Err(error) = self.write().await {
            tracing::warn!(%error, session = %self.session, "a session's charges are not written down");
        }
        let proof = self.ledger().proof().cloned();
        if let (Err(fault), Some(proof)) = (&outcome, proof) {
            tracing::warn!(%fault, session = %self.session, "a worker is dishonest; the proof is kept");
            let store = self.store.clone();
            let kept = tokio::task::spawn_blocking(move || store.keep_proof(&proof)).await;
            if !matches!(kept, Ok(Ok(()))) {
                tracing::error!(session = %self.session, "the proof could not be kept");
            }
        }
        outcome
    }

    async fn write(self: &Arc<Self>) -> Result<(), PurseError> {
        let session = StoredSession {
            job: self.session.job.clone(),
            worker: self.seller.expected.worker.clone(),
            model_id: self.seller.model_id,
            sent: self.sent(),
            stage: Stage::Open(Box::new(self.ledger().record())),
        };
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.put(&session)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(PurseError::Stopping),
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
