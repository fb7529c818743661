//! The sessions, the engine and the journal put together. Nothing here knows HTTP or TLS.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contracts::job::RedeemReceipt;
use contracts::money::Amount;
use contracts::{HashBytes, SigningKey};
use engine_api::{ClientKey, Engine};
use session::message::{Accepted, CloseReport, Done, Frame, SessionReport, StartRequest, WorkerReport};
use session::{
    Admission, Ask, Offered, Reason, RedeemPolicy, Redemption, Refused, RequestId, SellerLedger,
    SessionFacts, SessionId, SessionJournal, SessionReceipt, SignedVoucher, UnitBound, Written, redemption,
};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, sleep};

use crate::config::EndpointConfig;
use crate::held::Answer;
use crate::store::{StoreError, StoredSession};
use crate::work::{Order, Outcome, kinds, perform};
use crate::writer::Writer;

/// Unix seconds.
pub type Clock = Arc<dyn Fn() -> u32 + Send + Sync>;

/// What an endpoint is made of.
pub struct EndpointParts {
    /// The model.
    pub engine: Arc<dyn Engine>,
    /// The attested receipt key.
    pub receipt_key: SigningKey,
    /// Where the ledger is kept: a [`crate::RedbStore`].
    pub store: Arc<dyn SessionJournal<Error = StoreError> + Send + Sync>,
    /// What it held.
    pub stored: Vec<StoredSession>,
    /// See [`crate::RedbStore::since_lt`].
    pub since_lt: u64,
    /// The time.
    pub clock: Clock,
    /// The limits.
    pub config: EndpointConfig,
}

/// A session's redemption that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub session: SessionId,
    /// The message to hand to the job, again and again until the chain shows its sequence.
    pub message: RedeemReceipt,
}

/// The worker's side of all its sessions. Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    engine: Arc<dyn Engine>,
    receipt_key: SigningKey,
    writer: Writer,
    since_lt: u64,
    clock: Clock,
    config: EndpointConfig,
    state: Mutex<State>,
    /// Room for bodies, in units of [`BODY_UNIT_BYTES`].
    bodies: Arc<Semaphore>,
    changed: Notify,
}

struct State {
    ledger: SellerLedger,
    answers: HashMap<(SessionId, RequestId), Arc<Answer>>,
    open: usize,
    accepting: bool,
}

/// Where to read an answer.
pub(crate) type Found = Arc<Answer>;

impl Endpoint {
    /// Starts the thread that writes the ledger.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(parts: EndpointParts) -> io::Result<Self> {
        let own = HashBytes(parts.receipt_key.verifying_key().to_bytes());
        let (stored, others): (Vec<_>, Vec<_>) =
            parts.stored.into_iter().partition(|(record, _)| record.facts.receipt_key == own);
        for (record, _) in others {
            // Nothing can be signed for it any more.
            tracing::error!(
                session = %record.facts.id,
                charged = %record.amount(),
                "a session of another receipt key is lost to this worker"
            );
        }
        let ledger = SellerLedger::restore(parts.config.ledger, stored);
        let units = (parts.config.bodies_bytes / BODY_UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Ok(Self(Arc::new(Inner {
            engine: parts.engine,
            receipt_key: parts.receipt_key,
            writer: Writer::start(parts.store)?,
            since_lt: parts.since_lt,
            clock: parts.clock,
            config: parts.config,
            state: Mutex::new(State { ledger, answers: HashMap::new(), open: 0, accepting: true }),
            bodies: Arc::new(Semaphore::new(units)),
            changed: Notify::new(),
        })))
    }

    /// The chain shows a session for this worker: a new one is judged and, where it is served, written down; a known one is
    /// brought up to date, and forgotten when it is over.
    ///
    /// # Errors
    /// Why it is not served.
    pub async fn observe(&self, offered: &Offered, facts: SessionFacts) -> Result<(), Refused> {
        let written = {
            let mut state = self.lock();
            if state.ledger.record(&facts.id).is_some() {
                if facts.status.is_closed() {
                    state.forget(&facts.id);
                    self.0.writer.forget(facts.id);
                } else {
                    state.ledger.update(&facts);
                }
                return Ok(());
            }
            if facts.status.is_closed() {
                return Err(Reason::SessionEnded.into());
            }
            if facts.id.posted_lt <= self.0.since_lt {
                return Err(Reason::BeforeJournal.into());
            }
            self.0.writer.commit(state.ledger.open(offered, facts)?)
        };
        self.made_durable(written).await.map(drop)
    }

    /// The chain has no such session any more.
    pub fn forget(&self, session: &SessionId) {
        if self.lock().forget(session) {
            self.0.writer.forget(session.clone());
        }
    }

    /// The sessions that are to be read from the chain again.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.lock().ledger.sessions().map(|record| record.facts.id.clone()).collect()
    }

    /// What is to be redeemed now. `fee` is that of a redemption which is not final, at the chain's prices.
    pub async fn due(&self, policy: &RedeemPolicy, fee: Amount) -> Vec<Due> {
        let mut due = Vec::new();
        for session in self.sessions() {
            let now_s = (self.0.clock)();
            let (written, final_entry) = {
                let mut state = self.lock();
                match redemption(&state.ledger, &session, policy, fee, now_s) {
                    Redemption::Redeem(written) => (Some(*written), None),
                    Redemption::Finalise => match state.ledger.finalise(&session) {
                        Ok(Some(entry)) => (None, Some(self.0.writer.commit(entry))),
                        Ok(None) | Err(_) => (None, None),
                    },
                    Redemption::Drain => {
                        state.cancel_before_end(&session, policy.margin_s, now_s);
                        (None, None)
                    }
                    _ => (None, None),
                }
            };
            let written = match final_entry {
                Some(entry) => self.made_durable(entry).await.ok(),
                None => written,
            };
            match written.map(|written| written.redeem(&self.0.receipt_key)) {
                Some(Ok(Some(message))) => due.push(Due { session, message }),
                Some(Err(error)) => tracing::error!(%error, %session, "a receipt does not fit its cell"),
                Some(Ok(None)) | None => {}
            }
        }
        due
    }

    /// Returns when a client has closed its session, so that [`Endpoint::due`] has something to redeem.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Whether new requests are taken.
    pub fn set_accepting(&self, accepting: bool) {
        self.lock().accepting = accepting;
    }

    /// Requests under way.
    pub fn open_requests(&self) -> usize {
        self.lock().open
    }

    /// The limits.
    pub fn config(&self) -> &EndpointConfig {
        &self.0.config
    }

    /// Ends what nobody reads, and wipes what has been held long enough. Runs until the endpoint's other handles are gone.
    pub(crate) fn sweep(&self) -> impl Future<Output = ()> + use<> {
        let inner = Arc::downgrade(&self.0);
        async move {
            loop {
                sleep(SWEEP_EVERY).await;
                let Some(inner) = inner.upgrade() else { return };
                Endpoint(inner).sweep_once();
            }
        }
    }

    pub(crate) fn bodies(&self) -> &Arc<Semaphore> {
        &self.0.bodies
    }

    pub(crate) fn knows_key(&self, key: &[u8; 32]) -> bool {
        self.lock().ledger.knows_key(key)
    }

    /// Starts a request, or finds the one of this name.
    pub(crate) fn start(&self, key: Option<[u8; 32]>, request: StartRequest) -> Result<Found, Refused> {
        let StartRequest { session, request, voucher, seen_sequence, bound, work } = request;
        let name = (session, request);
        let (answer, again) = {
            let mut state = self.lock();
            if let Some(found) = state.answers.get(&name).cloned() {
                state.ledger.check_key(&name.0, key)?;
                return Ok(found);
            }
            // What is known of a request is told before what is lacking for another.
            let is_known = state.ledger.answered(&name.0, request).is_some();
            if !is_known && !state.accepting {
                return Err(Reason::Draining.into());
            }
            if state.open >= self.0.config.max_open || !state.make_room(self.0.config.answers_bytes) {
                state.ledger.check_key(&name.0, key)?;
                return Err(Reason::Busy.into());
            }
            let ask =
                Ask { session: &name.0, shown_key: key, request, voucher: &voucher, seen_sequence, bound };
            let again = match state.ledger.admit(&ask, (self.0.clock)())? {
                Admission::Start => None,
                Admission::Again { within } => Some(within),
                Admission::Running | Admission::Answered => return Err(Reason::AnswerGone.into()),
            };
            let answer = Arc::new(Answer::new());
            state.answers.insert(name.clone(), Arc::clone(&answer));
            state.open += 1;
            (answer, again)
        };
        let bound = again.map_or(bound, |within| UnitBound {
            input: within.input,
            output: within.output.min(bound.output),
        });
        let order = Order { work, bound, client: ClientKey(key.unwrap_or_default()) };
        let guard = Guard {
            endpoint: self.clone(),
            name,
            answer: Arc::clone(&answer),
            again: again.is_some(),
            released: false,
            ended: false,
        };
        tokio::spawn(guard.run(order));
        Ok(answer)
    }

    /// An answer that is under way or held.
    pub(crate) fn find(
        &self,
        key: Option<[u8; 32]>,
        session: &SessionId,
        request: RequestId,
    ) -> Result<Found, Refused> {
        let state = self.lock();
        state.ledger.check_key(session, key)?;
        match state.answers.get(&(session.clone(), request)) {
            Some(answer) => Ok(Arc::clone(answer)),
            None if state.ledger.answered(session, request).is_some() => Err(Reason::AnswerGone.into()),
            None => Err(Reason::UnknownRequest.into()),
        }
    }

    /// Ends what is under way, wipes what is held.
    pub(crate) fn drop_request(
        &self,
        key: Option<[u8; 32]>,
        session: &SessionId,
        request: RequestId,
    ) -> Result<(), Refused> {
        let answer = self.find(key, session, request)?;
        if answer.ended_at().is_some() {
            self.lock().answers.remove(&(session.clone(), request));
        } else {
            answer.cancel();
        }
        Ok(())
    }

    pub(crate) fn report(
        &self,
        key: Option<[u8; 32]>,
        session: &SessionId,
    ) -> Result<SessionReport, Refused> {
        let (written, open, answered) = {
            let state = self.lock();
            state.ledger.check_key(session, key)?;
            let held = |request: &RequestId| state.answers.contains_key(&(session.clone(), *request));
            (
                state.ledger.newest(session).cloned(),
                state.ledger.open_requests(session),
                state.ledger.answered_reports(session, held),
            )
        };
        let receipt = match &written {
            Some(written) => self.sign(written)?,
            None => None,
        };
        Ok(SessionReport { session: session.clone(), receipt, open, answered })
    }

    pub(crate) async fn close(
        &self,
        key: Option<[u8; 32]>,
        session: &SessionId,
        voucher: &SignedVoucher,
    ) -> Result<CloseReport, Refused> {
        let entry = {
            let mut state = self.lock();
            state.ledger.close(session, key, voucher)?.map(|entry| self.0.writer.commit(entry))
        };
        let written = match entry {
            Some(entry) => self.made_durable(entry).await?,
            None => {
                let state = self.lock();
                state.ledger.newest(session).cloned().ok_or(Reason::UnknownSession)?
            }
        };
        let receipt = self.sign(&written)?.filter(|receipt| receipt.is_final);
        self.0.changed.notify_one();
        Ok(CloseReport { receipt: receipt.ok_or(Reason::Busy)? })
    }

    pub(crate) fn worker_report(&self) -> WorkerReport {
        let info = self.0.engine.info();
        let state = self.lock();
        WorkerReport {
            model_id: info.model_id.0,
            engine: info.engine,
            dtype: info.dtype as u8,
            context_tokens: info.context_tokens,
            kinds: kinds(info.work),
            open_requests: u32::try_from(state.open).unwrap_or(u32::MAX),
            accepting: state.accepting && state.open < self.0.config.max_open && !state.ledger.has_failed(),
        }
    }

    /// The entry whose writing was ordered is durable, or the ledger has failed.
    async fn made_durable(&self, entry: oneshot::Receiver<Option<Written>>) -> Result<Written, Refused> {
        let written = entry.await.ok().flatten();
        let mut state = self.lock();
        match written {
            Some(written) => {
                state.ledger.written(&written);
                Ok(written)
            }
            None => {
                state.ledger.fail();
                Err(Reason::JournalFailed.into())
            }
        }
    }

    fn sign(&self, written: &Written) -> Result<Option<SessionReceipt>, Refused> {
        written.sign(&self.0.receipt_key).map_err(|error| {
            tracing::error!(%error, "a receipt does not fit its cell");
            Refused::new(Reason::EngineFailed)
        })
    }

    fn sweep_once(&self) {
        let config = &self.0.config;
        let now = Instant::now();
        let mut state = self.lock();
        state.answers.retain(|_, answer| {
            if answer.alone_since().is_some_and(|since| now.duration_since(since) > config.linger) {
                answer.cancel();
            }
            answer.ended_at().is_none_or(|ended| now.duration_since(ended) <= config.hold)
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether another answer fits, after the oldest finished ones have gone.
    fn make_room(&mut self, most_bytes: usize) -> bool {
        let mut held: usize = self.answers.values().map(|answer| answer.bytes()).sum();
        if held < most_bytes {
            return true;
        }
        let mut finished: Vec<_> = self
            .answers
            .iter()
            .filter_map(|(name, answer)| Some((answer.ended_at()?, name.clone(), answer.bytes())))
            .collect();
        finished.sort_unstable_by_key(|(ended, ..)| *ended);
        for (_, name, bytes) in finished {
            self.answers.remove(&name);
            held = held.saturating_sub(bytes);
            if held < most_bytes {
                return true;
            }
        }
        false
    }

    /// In the last moments of a session, what is under way for it ends.
    fn cancel_before_end(&self, session: &SessionId, margin_s: u32, now_s: u32) {
        let Some(record) = self.ledger.record(session) else { return };
        if record.facts.until > now_s.saturating_add(margin_s) {
            return;
        }
        for request in self.ledger.open_requests(session) {
            if let Some(answer) = self.answers.get(&(session.clone(), request)) {
                answer.cancel();
            }
        }
    }

    fn forget(&mut self, session: &SessionId) -> bool {
        self.answers.retain(|(of, _), answer| {
            if of == session {
                answer.cancel();
            }
            of != session
        });
        self.ledger.forget(session)
    }
}

/// A request under way. Dropped before its end, as by a panic, it gives back what it reserved.
struct Guard {
    endpoint: Endpoint,
    name: (SessionId, RequestId),
    answer: Arc<Answer>,
    again: bool,
    released: bool,
    ended: bool,
}

impl Guard {
    async fn run(mut self, order: Order) {
        let inner = &self.endpoint.0;
        let accepted = Frame::Accepted(Accepted { request: self.name.1, again: self.again });
        let until = Instant::now() + inner.config.request_timeout;
        let done =
            perform(inner.engine.clone(), order, &self.answer, until, inner.config.answer_bytes, || {
                self.answer.push(&accepted);
            });
        let last = match done.await {
            Ok(outcome) => self.settle(outcome).await,
            Err(reason) => {
                self.release(true);
                Frame::Refused(reason.into())
            }
        };
        if let Frame::Refused(refused) = &last {
            self.forget_refused(refused.reason);
        }
        self.answer.push(&last);
        self.ended = true;
    }

    /// Charges, writes, signs; in this order.
    async fn settle(&mut self, outcome: Outcome) -> Frame {
        let (session, request) = &self.name;
        if self.again {
            return self.settle_again(outcome);
        }
        let entry = {
            self.released = true;
            let mut state = self.endpoint.lock();
            state.open = state.open.saturating_sub(1);
            let entry = state.ledger.finish(session, *request, outcome.used, outcome.content);
            match entry {
                Ok(entry) => {
                    let used = entry.answered().map_or(outcome.used, |answered| answered.used);
                    (self.endpoint.0.writer.commit(entry), used)
                }
                Err(error) => {
                    tracing::error!(%error, %session, "a request is not charged");
                    let reason = match state.ledger.has_failed() {
                        true => Reason::JournalFailed,
                        false => Reason::EngineFailed,
                    };
                    return Frame::Refused(reason.into());
                }
            }
        };
        let (entry, used) = entry;
        let written = match self.endpoint.made_durable(entry).await {
            Ok(written) => written,
            Err(refused) => return Frame::Refused(refused),
        };
        match self.endpoint.sign(&written) {
            Ok(Some(receipt)) => self.done(outcome, used, receipt),
            Ok(None) => Frame::Refused(Reason::EngineFailed.into()),
            Err(refused) => Frame::Refused(refused),
        }
    }

    fn settle_again(&mut self, outcome: Outcome) -> Frame {
        let (session, request) = &self.name;
        let (newest, used) = {
            let state = self.endpoint.lock();
            let used = state.ledger.answered(session, *request).map(|answered| answered.used);
            (state.ledger.newest(session).cloned(), used)
        };
        self.release(false);
        let receipt = newest.map(|written| self.endpoint.sign(&written));
        match (receipt, used) {
            (Some(Ok(Some(receipt))), Some(used)) => self.done(outcome, used, receipt),
            _ => Frame::Refused(Reason::SessionEnded.into()),
        }
    }

    fn done(&self, outcome: Outcome, used: contracts::Units, receipt: SessionReceipt) -> Frame {
        Frame::Done(Box::new(Done {
            request: self.name.1,
            again: self.again,
            finish_reason: outcome.finish_reason,
            used,
            limit: outcome.limit,
            receipt,
            salt: outcome.salt,
            input_tokens: outcome.input_tokens.to_vec(),
        }))
    }

    /// Gives back what was reserved.
    fn release(&mut self, failed: bool) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        let (session, request) = &self.name;
        let mut state = self.endpoint.lock();
        state.open = state.open.saturating_sub(1);
        if self.again {
            state.ledger.served_again(session, *request, failed);
        } else {
            state.ledger.abandon(session, *request);
        }
    }

    /// What was refused may be asked again: whoever reads now reads its end, and nobody after.
    fn forget_refused(&self, reason: Reason) {
        if reason != Reason::JournalFailed {
            let mut state = self.endpoint.lock();
            if state.answers.get(&self.name).is_some_and(|held| Arc::ptr_eq(held, &self.answer)) {
                state.answers.remove(&self.name);
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            self.release(true);
            self.forget_refused(Reason::EngineFailed);
            self.answer.push(&Frame::Refused(Reason::EngineFailed.into()));
        }
    }
}

/// Of the budget for bodies.
pub(crate) const BODY_UNIT_BYTES: usize = 1 << 10;
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
