//! The market as it is: attested workers found on chain, sessions paid from the user's wallet, receipts checked.
//!
//! A request goes to the cheapest worker that the policy accepts and that has not failed lately; a session with it is
//! opened where there is none. A worker that fails in the middle of an answer is replaced: decoding is determined by the
//! request's seed, so another worker makes the same answer, what was told already is compared and left out, and where the
//! two differ the answer ends with an error. A worker that is dishonest is asked for nothing more.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use contracts::job::{JobStatus, ReportEquivocation};
use contracts::money::Amount;
use contracts::wire::Ref;
use contracts::{HashBytes, Nanoton, Prices, SigningKey, StdAddr, Units};
use ra_tls::{Connector, Identity};
use rand::RngExt as _;
use session::message::Frame;
use session::work::{Embeddings, Transcription, Work};
use session::{BuyerError, BuyerLedger, Fault, Reason, SessionFacts, SessionId, UnitBound};
use tokio::sync::mpsc;

use crate::ground::{Ground, GroundError, Opening, Seller};
use crate::link::{Link, LinkError, LinkLimits};
use crate::market::{Answer, AnswerEvent, Embedded, Market, ModelOnSale, TextWork, Transcribed};
use crate::openai::ApiError;
use crate::purse::{Purse, PurseError, ReconcileError};
use crate::store::{KeptProof, Money, Stage, Store, StoreError, StoredSession, TopUp};
use crate::tour::{Stop, Told, Tour};

/// What the user allows.
#[derive(Debug, Clone)]
pub struct Spending {
    /// The most that may leave the wallet for good, over all sessions of this gateway's store, fees included.
    pub max_spend: Amount,
    /// What a session is opened with, and topped up by.
    pub deposit: Amount,
    /// The most that is paid, nanoTON per 1 000 units.
    pub max_prices: Option<Prices>,
    /// The least stake of a worker.
    pub min_stake: Amount,
    /// How long a session may live, seconds.
    pub session_s: u32,
    /// How long a worker has for its last receipt once the session is to end, seconds.
    pub settle_within_s: u32,
}

/// Counts the units of an input as the model reads it; `None` where it does not know the model.
pub trait Counter: Send + Sync + 'static {
    /// Tokens of a text's prompt, or of embeddings' texts; seconds of a recording.
    fn count(&self, model_id: &HashBytes, work: &Work) -> Option<u32>;
}

/// Counts nothing: then a worker's own count is held to the request's bound and to the tokens it shows.
pub struct NoCounter;

impl Counter for NoCounter {
    fn count(&self, _: &HashBytes, _: &Work) -> Option<u32> {
        None
    }
}

/// What a market is made of.
pub struct MarketParts {
    /// Chain and wallet.
    pub ground: Arc<dyn Ground>,
    /// Sessions of earlier runs.
    pub store: Arc<Store>,
    /// What the user allows.
    pub spending: Spending,
    /// How long connections may take.
    pub limits: LinkLimits,
    /// Its own count of tokens.
    pub counter: Arc<dyn Counter>,
}

/// Sells what attested workers sell.
#[derive(Clone)]
pub struct SessionMarket(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: MarketParts,
    sellers: Mutex<Option<(Instant, Arc<Vec<Seller>>)>>,
    /// Held while they are read.
    reading: tokio::sync::Mutex<()>,
    purses: Mutex<HashMap<(StdAddr, HashBytes), Arc<Purse>>>,
    /// Every purse that is still used, also of sessions that no new request goes to.
    live: Mutex<HashMap<StdAddr, Weak<Purse>>>,
    /// Held while a session is opened or topped up, so that the budget is counted once.
    spending: tokio::sync::Mutex<()>,
    record: Mutex<HashMap<StdAddr, Record>>,
    dishonest: Mutex<HashSet<StdAddr>>,
}

/// How a worker did lately.
#[derive(Debug, Clone, Default)]
struct Record {
    failed_at: Option<Instant>,
    /// When sessions were opened with it.
    opened_at: VecDeque<Instant>,
    /// Until the first frame with text, smoothed, ms.
    first_ms: f64,
}

/// Sessions of this gateway.
#[derive(Debug, Clone)]
pub struct SessionSummary {
    /// As it is written down.
    pub stored: StoredSession,
    /// As the chain has it; `None` where it is gone or unreadable.
    pub facts: Option<SessionFacts>,
}

impl SessionMarket {
    /// Takes up what an earlier run left: sessions that are open on chain are used again, those that are over are counted.
    ///
    /// # Errors
    /// [`GroundError`] where the chain cannot be read; the store's errors as such.
    pub async fn start(parts: MarketParts) -> Result<Self, MarketError> {
        let market = Self(Arc::new(Inner {
            parts,
            sellers: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            purses: Mutex::default(),
            live: Mutex::default(),
            spending: tokio::sync::Mutex::default(),
            record: Mutex::default(),
            dishonest: Mutex::default(),
        }));
        for kept in market.0.parts.store.proofs()? {
            lock(&market.0.dishonest).insert(StdAddr::new(0, kept.proof.facts.worker));
        }
        let spending = market.0.spending.lock().await;
        market.0.recover().await?;
        drop(spending);
        Ok(market)
    }

    /// The session with the best worker of a model, opened where there is none.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn open_session(&self, model: &str) -> Result<SessionId, ApiError> {
        let sellers = self.0.sellers().await?;
        let matching = matching(&sellers, model)?;
        let bound = UnitBound { input: TYPICAL.input, output: TYPICAL.output };
        let mut last = None;
        for seller in self.0.ranked(matching, &bound) {
            match self.0.purse(&seller, &bound).await {
                Ok(purse) => return Ok(purse.session().clone()),
                Err(Ended::Finally(error)) => return Err(error),
                Err(Ended::Elsewhere(error)) => last = Some(error),
                Err(Ended::Well | Ended::Gone) => {}
            }
        }
        Err(last.unwrap_or_else(nobody))
    }

    /// Has every session ended by its worker; one that does not answer is asked on chain to end. What they cost shows
    /// at the next start, when the chain says so.
    pub async fn close(&self) {
        let purses: Vec<_> = lock(&self.0.purses).drain().map(|(_, purse)| purse).collect();
        futures_util::future::join_all(purses.into_iter().map(|purse| self.0.end(purse))).await;
    }

    /// Shows the chain every proof of two receipts of one sequence that it has not seen: the worker's stake is cut. Returns
    /// the sessions.
    ///
    /// # Errors
    /// [`MarketError`]; what was shown before it stays shown.
    pub async fn prove(&self) -> Result<Vec<SessionId>, MarketError> {
        let mut shown = Vec::new();
        for kept in self.0.parts.store.proofs()? {
            let Some(report) = equivocation_report(&kept)? else { continue };
            let session = &kept.proof.facts.id;
            let now = self.0.parts.ground.facts(&session.job).await?;
            let is_news =
                now.is_some_and(|facts| facts.id == *session && facts.sequence < contracts::job::EQUIVOCATED);
            if is_news {
                self.0.parts.ground.report(&session.job, &report).await?;
                shown.push(session.clone());
            }
        }
        Ok(shown)
    }

    /// Every session of the store, with what the chain says of it.
    ///
    /// # Errors
    /// The store's; a session whose account cannot be read is listed without it.
    pub async fn sessions(&self) -> Result<Vec<SessionSummary>, MarketError> {
        let mut list = Vec::new();
        for stored in self.0.parts.store.sessions()? {
            let facts = self.0.parts.ground.facts(&stored.job).await.ok().flatten();
            list.push(SessionSummary { stored, facts });
        }
        Ok(list)
    }

    /// What has left the wallet for good, or may yet.
    ///
    /// # Errors
    /// The store's.
    pub fn committed(&self) -> Result<Amount, MarketError> {
        Ok(self.0.committed()?)
    }
}

/// The market cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarketError {
    /// The chain.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A proof makes no cells; none is known.
    #[error("gateway: a kept proof makes no message: {0}")]
    Proof(#[from] contracts::WireError),
}

/// The message that shows a Job two receipts of one sequence. `None` where the proof is of something else, which no
/// contract judges.
///
/// # Errors
/// [`contracts::WireError`]; none is known to happen.
pub fn equivocation_report(kept: &KeptProof) -> Result<Option<ReportEquivocation>, contracts::WireError> {
    let Some((one, other)) = kept.proof.equivocation()? else { return Ok(None) };
    let registration_seqno = kept.registration_seqno;
    Ok(Some(ReportEquivocation {
        query_id: 0,
        registration_seqno,
        one: Ref::new(one)?,
        other: Ref::new(other)?,
    }))
}

/// How a worker's part in a request ended.
pub(crate) enum Ended {
    /// With `done`, told.
    Well,
    /// Whoever asked is gone.
    Gone,
    /// Another worker may do better.
    Elsewhere(ApiError),
    /// No other will.
    Finally(ApiError),
}

#[async_trait]
impl Market for SessionMarket {
    async fn models(&self) -> Result<Vec<ModelOnSale>, ApiError> {
        let sellers = self.0.sellers().await?;
        let mut models: BTreeMap<HashBytes, ModelOnSale> = BTreeMap::new();
        for seller in sellers.iter() {
            let model = models.entry(seller.model_id).or_insert_with(|| ModelOnSale {
                name: name_of(seller, &sellers),
                model_id: seller.model_id,
                licence: seller.licence.clone(),
                context_tokens: seller.context_tokens,
                registered_at_s: seller.registered_at_s,
                publisher: seller.publisher.clone(),
                workers: 0,
                prices: seller.prices,
            });
            model.workers += 1;
            if price_for(&seller.prices, &TYPICAL) < price_for(&model.prices, &TYPICAL) {
                model.prices = seller.prices;
            }
        }
        Ok(models.into_values().collect())
    }

    async fn generate(&self, model: &str, work: TextWork) -> Result<Answer, ApiError> {
        let work = match work {
            TextWork::Chat(work) => Work::Chat(work),
            TextWork::Completion(work) => Work::Completion(work),
        };
        let mut tour = Tour::begin(self.0.clone(), model, work).await?;
        let (sender, events) = mpsc::channel(64);
        let mut stop = tour.next_stop(None).await?;
        tokio::spawn(async move {
            let mut told = Told::default();
            loop {
                let ended = tokio::select! {
                    ended = stop.pump(&sender, &mut told) => ended,
                    // Whoever asked is gone: the worker is told, and what was made until then is charged.
                    () = sender.closed() => return,
                };
                let error = match ended {
                    Ended::Well | Ended::Gone => return,
                    Ended::Finally(error) => error,
                    Ended::Elsewhere(error) => match tour.next_stop(Some(error)).await {
                        Ok(next) => {
                            stop = next;
                            continue;
                        }
                        Err(error) => error,
                    },
                };
                let _ = sender.send(AnswerEvent::Failed(error)).await;
                return;
            }
        });
        Ok(Answer { events })
    }

    async fn embed(&self, model: &str, texts: Vec<String>) -> Result<Embedded, ApiError> {
        let count = texts.len();
        let mut tour = Tour::begin(self.0.clone(), model, Work::Embeddings(Embeddings { texts })).await?;
        let mut stop = tour.next_stop(None).await?;
        loop {
            match stop.collect().await {
                Ok((frames, done)) => {
                    let vectors: Vec<Vec<f32>> = frames
                        .into_iter()
                        .filter_map(|frame| match frame {
                            Frame::Vector(vector) => Some(vector),
                            _ => None,
                        })
                        .collect();
                    if vectors.len() != count {
                        return Err(ApiError::upstream(
                            "worker: it sent another number of vectors than of texts",
                        ));
                    }
                    let prompt_tokens = done.usage.prompt_tokens;
                    return Ok(Embedded { vectors, prompt_tokens, paid: done.paid });
                }
                Err(Ended::Elsewhere(error)) => stop = tour.next_stop(Some(error)).await?,
                Err(Ended::Finally(error)) => return Err(error),
                Err(Ended::Well | Ended::Gone) => return Err(ApiError::upstream("worker: no end came")),
            }
        }
    }

    async fn transcribe(&self, model: &str, recording: Transcription) -> Result<Transcribed, ApiError> {
        let language = recording.language.clone().unwrap_or_default();
        let mut tour = Tour::begin(self.0.clone(), model, Work::Transcription(recording)).await?;
        let mut stop = tour.next_stop(None).await?;
        loop {
            match stop.collect().await {
                Ok((frames, done)) => {
                    let segments: Vec<(f64, f64, String)> = frames
                        .iter()
                        .filter_map(|frame| match frame {
                            Frame::Segment(part) => Some((part.start_s, part.end_s, part.text.clone())),
                            _ => None,
                        })
                        .collect();
                    let text: String = segments.iter().map(|(_, _, text)| text.as_str()).collect();
                    return Ok(Transcribed {
                        text: text.trim().to_owned(),
                        language,
                        segments,
                        audio_s: u32::try_from(done.usage.prompt_tokens).unwrap_or(u32::MAX),
                        paid: done.paid,
                    });
                }
                Err(Ended::Elsewhere(error)) => stop = tour.next_stop(Some(error)).await?,
                Err(Ended::Finally(error)) => return Err(error),
                Err(Ended::Well | Ended::Gone) => return Err(ApiError::upstream("worker: no end came")),
            }
        }
    }
}

impl Inner {
    /// Read anew in the background once it is half a minute old, and waited for when it is a minute old.
    pub(crate) async fn sellers(self: &Arc<Self>) -> Result<Arc<Vec<Seller>>, ApiError> {
        let known = lock(&self.sellers).clone();
        match known {
            Some((at, sellers)) if at.elapsed() < SELLERS_FRESH => Ok(sellers),
            Some((at, sellers)) if at.elapsed() < SELLERS_WAIT => {
                let market = self.clone();
                tokio::spawn(async move { market.read_sellers().await });
                Ok(sellers)
            }
            _ => {
                let market = self.clone();
                let reading = tokio::spawn(async move { market.read_sellers().await });
                reading.await.map_err(|_| ApiError::upstream("gateway: it is stopping"))?
            }
        }
    }

    async fn read_sellers(&self) -> Result<Arc<Vec<Seller>>, ApiError> {
        let _one_at_a_time = self.reading.lock().await;
        let known = lock(&self.sellers).clone();
        if let Some((at, sellers)) = &known
            && at.elapsed() < SELLERS_FRESH
        {
            return Ok(sellers.clone());
        }
        match (self.parts.ground.sellers().await, known) {
            (Ok(sellers), _) => {
                let sellers = Arc::new(sellers);
                *lock(&self.sellers) = Some((Instant::now(), sellers.clone()));
                Ok(sellers)
            }
            // A liteserver that is away for a moment stops nobody; what is revoked meanwhile is, soon.
            (Err(error), Some((at, sellers))) if at.elapsed() < SELLERS_STALE => {
                tracing::warn!(%error, "the chain cannot be read; using workers as of before");
                Ok(sellers)
            }
            (Err(error), _) => Err(ApiError::upstream(error.to_string())),
        }
    }

    /// Whom to ask, the best first.
    pub(crate) fn ranked(&self, mut sellers: Vec<Seller>, bound: &UnitBound) -> Vec<Seller> {
        let spending = &self.parts.spending;
        let (dishonest, record) = (lock(&self.dishonest).clone(), lock(&self.record).clone());
        let now_s = now_s();
        sellers.retain(|seller| {
            !dishonest.contains(&seller.expected.worker)
                && seller.expected.attested_until_s > now_s
                && seller.stake >= spending.min_stake
                && spending.max_prices.as_ref().is_none_or(|most| seller.prices.at_most(most))
        });
        let units = Units { input: bound.input, cached_input: 0, output: bound.output };
        sellers.sort_by_cached_key(|seller| {
            let record = record.get(&seller.expected.worker);
            let failed_at = record.and_then(|record| record.failed_at);
            let failed = failed_at.is_some_and(|at| at.elapsed() < FAILURE_COUNTS);
            let slow = record.map_or(0, |record| (record.first_ms / 50.0) as u64);
            (failed, price_for(&seller.prices, &units), slow, seller.expected.worker.address.0)
        });
        sellers
    }

    pub(crate) async fn start_at(
        self: &Arc<Self>,
        seller: &Seller,
        bound: UnitBound,
        work: &Work,
        counted_input: Option<u32>,
    ) -> Result<Stop, Ended> {
        let purse = self.purse(seller, &bound).await?;
        let (request, mut flight) = loop {
            match purse.begin(bound, work.clone()).await {
                Ok(begun) => break begun,
                // What nobody waits for any more may not have been charged.
                Err(PurseError::Ledger(BuyerError::OverBudget { .. }))
                    if purse.has_lost() && self.reconciled(&purse).await? => {}
                Err(PurseError::Ledger(BuyerError::OverBudget { needed, .. })) => {
                    let (market, purse) = (self.clone(), purse.clone());
                    apart(async move { market.top_up(&purse, needed).await }).await?;
                }
                Err(PurseError::Ledger(BuyerError::Faulty(fault))) => return Err(self.faulty(&purse, fault)),
                Err(PurseError::Ledger(error)) => {
                    self.retire(&purse);
                    return Err(Ended::Elsewhere(ApiError::upstream(error.to_string())));
                }
                Err(error) => return Err(Ended::Finally(ApiError::upstream(error.to_string()))),
            }
        };
        let began = Instant::now();
        let mut attempts = 0;
        loop {
            match purse.link().start(&request).await {
                Ok(frames) => {
                    return Ok(Stop::new(self.clone(), purse, request, flight, frames, counted_input, began));
                }
                Err(LinkError::Refused(refused)) if is_for_later(refused.reason) && attempts < LATER => {
                    // The worker has not seen the block in which the session was opened or topped up.
                    attempts += 1;
                    tokio::time::sleep(LATER_PAUSE).await;
                }
                Err(error @ LinkError::Refused(refused)) => {
                    flight.refused(&refused);
                    return Err(self.refusal(&purse, &error));
                }
                Err(error) => {
                    if !error.is_uncertain() {
                        flight.refused(&Reason::Cancelled.into());
                    }
                    return Err(self.failed(&purse, &error));
                }
            }
        }
    }

    /// Whether something that was lost is settled now.
    async fn reconciled(self: &Arc<Self>, purse: &Arc<Purse>) -> Result<bool, Ended> {
        match purse.reconcile().await {
            Ok(()) => Ok(!purse.has_lost()),
            Err(ReconcileError::Fault(fault)) => Err(self.faulty(purse, fault)),
            Err(ReconcileError::Link(_)) => Ok(false),
        }
    }

    /// The session with a worker, opened where there is none.
    async fn purse(self: &Arc<Self>, seller: &Seller, bound: &UnitBound) -> Result<Arc<Purse>, Ended> {
        if let Some(purse) = self.known(seller)? {
            return Ok(purse);
        }
        let (market, seller, bound) = (self.clone(), seller.clone(), *bound);
        apart(async move {
            let _spending = market.spending.lock().await;
            if let Some(purse) = market.known(&seller)? {
                return Ok(purse);
            }
            if let Some(old) = lock(&market.purses).remove(&place(&seller)) {
                let market = market.clone();
                tokio::spawn(async move { market.end(old).await });
            }
            market.open(&seller, &bound).await
        })
        .await
    }

    /// The open session with a worker, where its terms are still the worker's.
    fn known(self: &Arc<Self>, seller: &Seller) -> Result<Option<Arc<Purse>>, Ended> {
        let Some(purse) = lock(&self.purses).get(&place(seller)).cloned() else { return Ok(None) };
        let fault = purse.ledger().fault();
        if let Some(fault) = fault {
            return Err(self.faulty(&purse, fault));
        }
        let fits = {
            let ledger = purse.ledger();
            let facts = ledger.facts();
            // A worker that has registered a new key signs with that, and needs another session.
            facts.receipt_key == seller.expected.receipt_key
                && facts.prices == seller.prices
                && facts.status == JobStatus::Session
                && u64::from(facts.until) > now_s() + u64::from(SESSION_MARGIN_S)
        };
        if !fits {
            return Ok(None);
        }
        let bound_to = purse.seller();
        if bound_to.expected != seller.expected || bound_to.endpoint != seller.endpoint {
            purse.rebind(seller.clone(), self.link(seller, purse.key())?);
        }
        Ok(Some(purse))
    }

    async fn open(self: &Arc<Self>, seller: &Seller, bound: &UnitBound) -> Result<Arc<Purse>, Ended> {
        let ground = &self.parts.ground;
        let spending = &self.parts.spending;
        let units = Units { input: bound.input, cached_input: 0, output: bound.output };
        let needed = Amount::try_from(seller.prices.cost(&units)).map_err(|_| over_budget("this request"))?;
        let failed = |error: GroundError| Ended::Finally(ApiError::upstream(error.to_string()));
        self.may_open(&seller.expected.worker)?;
        // Where the budget has less left than a whole step, what is needed will do.
        let least = needed.max(seller.min_deposit);
        let mut deposit = spending.deposit.max(least);
        let (mut fees, mut money) = self.opening_cost(seller, deposit).await.map_err(failed)?;
        if self.within_budget(money.committed()).await.is_err() {
            deposit = least;
            (fees, money) = self.opening_cost(seller, deposit).await.map_err(failed)?;
            self.within_budget(money.committed()).await?;
        }
        let nonce = rand::rng().random();
        let job = ground.job_address(nonce).map_err(failed)?;
        let now_s = ground.now_s().await.map_err(failed)?;
        let mut stored = StoredSession {
            job: job.clone(),
            worker: seller.expected.worker.clone(),
            model_id: seller.model_id,
            money,
            stage: Stage::Opening { until_s: now_s.saturating_add(OPENING_S) },
        };
        self.put(&stored).await?;
        tracing::info!(%job, worker = %stored.worker, deposit = %deposit, "opening a session");
        let opening = Opening {
            seller,
            nonce,
            deposit,
            fees,
            lives_for_s: spending.session_s,
            settle_within_s: spending.settle_within_s,
        };
        let facts = match ground.open(&opening).await {
            Ok(facts) => facts,
            Err(error) => {
                if error.is_certain && self.parts.store.remove(&job).is_err() {
                    tracing::warn!(%job, "a session that was not opened is still counted");
                }
                return Err(failed(error));
            }
        };
        self.opened(&seller.expected.worker);
        if facts.status.is_closed() {
            stored.stage = Stage::Over { spent: spent(&stored.money, &facts) };
            self.put(&stored).await?;
            return Err(Ended::Elsewhere(ApiError::upstream("worker: its contract refused the session")));
        }
        let ledger = BuyerLedger::new(facts.clone(), facts.deposit);
        stored.stage = Stage::Open(Box::new(ledger.record()));
        self.put(&stored).await?;
        let purse = self.assemble(seller.clone(), ledger, stored.money)?;
        let other = lock(&self.purses).insert(place(seller), purse.clone());
        if let Some(other) = other {
            let market = self.clone();
            tokio::spawn(async move { market.end(other).await });
        }
        Ok(purse)
    }

    /// What the message brings beside the deposit, and what all of it may cost.
    async fn opening_cost(&self, seller: &Seller, deposit: Amount) -> Result<(Amount, Money), GroundError> {
        let ground = &self.parts.ground;
        let fees = ground.opening_fees(seller, deposit).await?;
        let all = [deposit, fees, ground.message_fee()];
        let sent = all.into_iter().try_fold(Amount::ZERO, Amount::checked_add);
        let reserve = ground.action_fees().checked_add(ground.message_fee());
        let most = Amount::new(u64::MAX);
        Ok((fees, Money { sent: sent.unwrap_or(most), reserve: reserve.unwrap_or(most), top_up: None }))
    }

    /// A worker that refuses what was opened for it costs fees each time.
    fn may_open(&self, worker: &StdAddr) -> Result<(), Ended> {
        let mut record = lock(&self.record);
        let opened = &mut record.entry(worker.clone()).or_default().opened_at;
        while opened.front().is_some_and(|at| at.elapsed() > OPENINGS_WITHIN) {
            opened.pop_front();
        }
        match opened.len() < OPENINGS {
            true => Ok(()),
            false => Err(Ended::Elsewhere(ApiError::upstream(
                "gateway: too many sessions were opened with this worker within an hour; it is not tried for a while",
            ))),
        }
    }

    fn opened(&self, worker: &StdAddr) {
        lock(&self.record).entry(worker.clone()).or_default().opened_at.push_back(Instant::now());
    }

    fn assemble(&self, seller: Seller, ledger: BuyerLedger, money: Money) -> Result<Arc<Purse>, Ended> {
        let key: SigningKey = self.parts.ground.session_key(&ledger.session().job);
        let link = self.link(&seller, &key)?;
        let job = ledger.session().job.clone();
        let purse = Arc::new(Purse::new(seller, link, key, ledger, money, self.parts.store.clone()));
        let mut live = lock(&self.live);
        live.retain(|_, purse| purse.strong_count() > 0);
        live.insert(job, Arc::downgrade(&purse));
        Ok(purse)
    }

    fn link(&self, seller: &Seller, key: &SigningKey) -> Result<Arc<Link>, Ended> {
        let refused =
            |error: &dyn std::fmt::Display| Ended::Finally(ApiError::upstream(format!("gateway: {error}")));
        let identity = Identity::session(key.clone()).map_err(|error| refused(&error))?;
        let connector = Connector::new(
            seller.expected.clone(),
            Some(&identity),
            self.parts.limits.connect_timeout,
            Arc::new(ra_tls::SystemClock),
        )
        .map_err(|error| refused(&error))?;
        Ok(Link::new(seller.endpoint.clone(), connector, self.parts.limits))
    }

    async fn top_up(self: &Arc<Self>, purse: &Arc<Purse>, needed: Amount) -> Result<(), Ended> {
        let _spending = self.spending.lock().await;
        let ground = &self.parts.ground;
        let failed = |error: &dyn std::fmt::Display| Ended::Finally(ApiError::upstream(error.to_string()));
        let now_s = ground.now_s().await.map_err(|error| failed(&error))?;
        if purse.money().top_up.is_some() {
            let facts = ground.facts(&purse.session().job).await.map_err(|error| failed(&error))?;
            purse
                .account(facts.as_ref(), |money| resolve_top_up(money, facts.as_ref(), now_s))
                .await
                .map_err(|error| failed(&error))?;
            if purse.money().top_up.is_some() {
                return Err(Ended::Elsewhere(ApiError::upstream(
                    "chain: a top-up of this session is not seen yet; ask again in some minutes",
                )));
            }
        }
        let deposit = purse.ledger().facts().deposit;
        if deposit >= needed {
            return Ok(());
        }
        let missing = needed.saturating_sub(deposit);
        let sum = |amount: Amount| {
            let fees = ground.action_fees().checked_add(ground.message_fee());
            fees.and_then(|fees| amount.checked_add(fees)).ok_or_else(|| over_budget("this request"))
        };
        // Where the budget has less left than a whole step, what is missing will do.
        let mut amount = self.parts.spending.deposit.max(missing);
        if self.within_budget(sum(amount)?).await.is_err() {
            amount = missing;
            self.within_budget(sum(amount)?).await?;
        }
        let top_up = TopUp {
            sent: sum(amount)?,
            deposit: deposit.checked_add(amount).ok_or_else(|| over_budget("this request"))?,
            until_s: now_s.saturating_add(OPENING_S),
        };
        purse.account(None, |money| money.top_up = Some(top_up)).await.map_err(|error| failed(&error))?;
        tracing::info!(session = %purse.session(), amount = %amount, "topping a session up");
        let facts = match ground.top_up(purse.session(), amount).await {
            Ok(facts) => facts,
            Err(error) => {
                if error.is_certain {
                    purse.account(None, |money| money.top_up = None).await.map_err(|error| failed(&error))?;
                }
                return Err(failed(&error));
            }
        };
        purse.account(Some(&facts), |money| money.top_up_landed()).await.map_err(|error| failed(&error))?;
        match facts.deposit >= needed {
            true => Ok(()),
            false => {
                self.retire(purse);
                Err(Ended::Elsewhere(ApiError::upstream(
                    "chain: the session was not topped up; it is ending",
                )))
            }
        }
    }

    /// No new request goes to it.
    fn retire(self: &Arc<Self>, purse: &Arc<Purse>) {
        self.drop_purse(purse);
        let (market, purse) = (self.clone(), purse.clone());
        tokio::spawn(async move { market.end(purse).await });
    }

    /// Has a session ended by its worker, or on chain where that does not do it.
    async fn end(&self, purse: Arc<Purse>) {
        let Err(error) = purse.close().await else { return };
        tracing::warn!(%error, session = %purse.session(), "asking on chain for the session's end");
        if let Err(error) = purse.account(None, Money::spend_reserve).await {
            tracing::warn!(%error, session = %purse.session(), "it ends at its time");
            return;
        }
        if let Err(error) = self.parts.ground.ask_close(purse.session()).await {
            tracing::warn!(%error, session = %purse.session(), "it ends at its time");
        }
    }

    fn committed(&self) -> Result<Amount, StoreError> {
        let sum = self
            .parts
            .store
            .sessions()?
            .iter()
            .try_fold(0u64, |sum, session| sum.checked_add(session.committed().get()));
        Ok(Amount::new(sum.unwrap_or(u64::MAX)))
    }

    /// Under the lock on spending.
    async fn within_budget(self: &Arc<Self>, more: Amount) -> Result<(), Ended> {
        let failed = |error: &dyn std::fmt::Display| Ended::Finally(ApiError::upstream(error.to_string()));
        let most = self.parts.spending.max_spend;
        let is_within = |committed: Amount| committed.checked_add(more).is_some_and(|sum| sum <= most);
        if is_within(self.committed().map_err(|error| failed(&error))?) {
            return Ok(());
        }
        // Sessions that have ended since have given back what they did not spend.
        self.recover().await.map_err(|error| failed(&error))?;
        let committed = self.committed().map_err(|error| failed(&error))?;
        match is_within(committed) {
            true => Ok(()),
            false => Err(Ended::Finally(ApiError::over_budget(format!(
                "client: {committed} nanoTON of the budget of {most} are spent or promised, and this needs {more} more; \
                 raise --max-spend or close sessions"
            )))),
        }
    }

    async fn put(&self, stored: &StoredSession) -> Result<(), Ended> {
        let (store, stored) = (self.parts.store.clone(), stored.clone());
        let written = tokio::task::spawn_blocking(move || store.put(&stored)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::Finally(ApiError::upstream(error.to_string()))),
            Err(_) => Err(Ended::Finally(ApiError::upstream("gateway: it is stopping"))),
        }
    }

    /// Brings every session that is not in use up to what the chain says. Under the lock on spending.
    async fn recover(self: &Arc<Self>) -> Result<(), MarketError> {
        let mut idle: Vec<StoredSession> = self.parts.store.sessions()?;
        idle.retain(|stored| {
            !matches!(stored.stage, Stage::Over { .. })
                && lock(&self.live).get(&stored.job).is_none_or(|purse| purse.strong_count() == 0)
        });
        if idle.is_empty() {
            return Ok(());
        }
        let sellers = self.parts.ground.sellers().await?;
        let now_s = self.parts.ground.now_s().await?;
        for stored in idle {
            self.take_up(stored, &sellers, now_s).await?;
        }
        Ok(())
    }

    async fn take_up(
        self: &Arc<Self>,
        mut stored: StoredSession,
        sellers: &[Seller],
        now_s: u32,
    ) -> Result<(), MarketError> {
        let ground = &self.parts.ground;
        let facts = ground.facts(&stored.job).await?;
        resolve_top_up(&mut stored.money, facts.as_ref(), now_s);
        let Some(facts) = facts else {
            match &stored.stage {
                // The wallet's message was never taken.
                Stage::Opening { until_s } if now_s > *until_s => self.parts.store.remove(&stored.job)?,
                // Swept: what its last record allows is the most it can have cost.
                Stage::Open(record) => {
                    let unspent = record.facts.deposit.saturating_sub(record.promised);
                    let spent = stored.money.sent.saturating_sub(unspent);
                    stored.stage = Stage::Over { spent };
                    self.parts.store.put(&stored)?;
                }
                Stage::Opening { .. } | Stage::Over { .. } => {}
            }
            return Ok(());
        };
        if facts.status.is_closed() {
            // A top-up that may still come is still counted.
            if stored.money.top_up.is_none() {
                stored.stage = Stage::Over { spent: spent(&stored.money, &facts) };
                self.parts.store.put(&stored)?;
            }
            return Ok(());
        }
        let ledger = match &stored.stage {
            Stage::Open(record) => {
                let mut ledger = BuyerLedger::restore(record.as_ref().clone());
                ledger.update(&facts, facts.deposit);
                ledger
            }
            Stage::Opening { .. } | Stage::Over { .. } => BuyerLedger::new(facts.clone(), facts.deposit),
        };
        stored.stage = Stage::Open(Box::new(ledger.record()));
        self.parts.store.put(&stored)?;
        let is_dishonest = lock(&self.dishonest).contains(&stored.worker);
        let seller = sellers.iter().find(|seller| {
            seller.expected.worker == stored.worker
                && seller.model_id == stored.model_id
                && seller.expected.receipt_key == facts.receipt_key
        });
        let Some(seller) = seller.filter(|_| !is_dishonest && facts.status == JobStatus::Session) else {
            let asked = match facts.until < now_s {
                true => Some(ground.expire(ledger.session()).await),
                // Once: it is closing then.
                false if facts.status == JobStatus::Session => {
                    tracing::warn!(session = %stored.job, "its worker is not on sale any more; asking on chain for its end");
                    stored.money.spend_reserve();
                    self.parts.store.put(&stored)?;
                    Some(ground.ask_close(ledger.session()).await)
                }
                false => None,
            };
            if let Some(Err(error)) = asked {
                tracing::warn!(%error, session = %stored.job, "it ends at its time");
            }
            return Ok(());
        };
        let Ok(purse) = self.assemble(seller.clone(), ledger, stored.money) else { return Ok(()) };
        match purse.reconcile().await {
            Ok(()) => {}
            Err(ReconcileError::Fault(fault)) => {
                drop(self.faulty(&purse, fault));
                return Ok(());
            }
            Err(ReconcileError::Link(error)) => {
                tracing::debug!(%error, session = %purse.session(), "the worker did not say what it charged");
                purse.tidy();
            }
        }
        // Two with one worker: one is enough.
        let other = lock(&self.purses).insert(place(seller), purse);
        if let Some(other) = other {
            let market = self.clone();
            tokio::spawn(async move { market.end(other).await });
        }
        Ok(())
    }

    // ---- what went wrong

    pub(crate) fn refusal(self: &Arc<Self>, purse: &Arc<Purse>, error: &LinkError) -> Ended {
        let LinkError::Refused(refused) = error else { return self.failed(purse, error) };
        let message = refused.to_string();
        match refused.reason {
            Reason::TooLarge | Reason::Unsupported | Reason::OverContext | Reason::BoundTooLow => {
                return Ended::Finally(ApiError::invalid("messages", message));
            }
            Reason::TooManyOpen => return Ended::Elsewhere(ApiError::busy(message)),
            Reason::Busy => {
                self.mark_failed(purse);
                return Ended::Elsewhere(ApiError::busy(message));
            }
            // The session is not what the worker wants any more, or the worker has lost it.
            Reason::UnknownSession
            | Reason::WrongKey
            | Reason::OtherSeller
            | Reason::TermsBelowOffer
            | Reason::BeforeJournal
            | Reason::SessionEnded
            | Reason::BadVoucher
            | Reason::VoucherTooLow
            | Reason::DepositTooLow
            | Reason::BehindReceipt
            | Reason::SessionFull => self.retire(purse),
            _ => {}
        }
        self.mark_failed(purse);
        Ended::Elsewhere(ApiError::upstream(message))
    }

    pub(crate) fn failed(&self, purse: &Arc<Purse>, error: &LinkError) -> Ended {
        self.mark_failed(purse);
        tracing::warn!(%error, worker = %purse.seller().expected.worker, "a worker failed");
        Ended::Elsewhere(ApiError::upstream(error.to_string()))
    }

    pub(crate) fn faulty(self: &Arc<Self>, purse: &Arc<Purse>, fault: Fault) -> Ended {
        self.dishonest(purse, &fault.to_string())
    }

    pub(crate) fn dishonest(self: &Arc<Self>, purse: &Arc<Purse>, why: &str) -> Ended {
        let worker = purse.seller().expected.worker.clone();
        tracing::warn!(%worker, why, "a worker is dishonest and is asked for nothing more");
        if lock(&self.dishonest).insert(worker) {
            self.retire(purse);
        }
        Ended::Elsewhere(ApiError::upstream(format!("worker: {why}; it is asked for nothing more")))
    }

    fn mark_failed(&self, purse: &Purse) {
        let mut record = lock(&self.record);
        record.entry(purse.seller().expected.worker.clone()).or_default().failed_at = Some(Instant::now());
    }

    pub(crate) fn first_piece(&self, worker: &StdAddr, after: Duration) {
        let mut record = lock(&self.record);
        let record = record.entry(worker.clone()).or_default();
        let ms = after.as_secs_f64() * 1e3;
        record.first_ms = if record.first_ms == 0.0 { ms } else { record.first_ms * 0.8 + ms * 0.2 };
        record.failed_at = None;
    }

    fn drop_purse(&self, purse: &Purse) {
        let place = place(&purse.seller());
        let mut purses = lock(&self.purses);
        if purses.get(&place).is_some_and(|known| known.session() == purse.session()) {
            purses.remove(&place);
        }
    }
}

pub(crate) fn matching(sellers: &[Seller], model: &str) -> Result<Vec<Seller>, ApiError> {
    let matching: Vec<Seller> = sellers
        .iter()
        .filter(|seller| name_of(seller, sellers) == model || seller.model_id.to_string() == model)
        .cloned()
        .collect();
    match matching.is_empty() {
        true => Err(ApiError::unknown_model(model)),
        false => Ok(matching),
    }
}

pub(crate) fn nobody() -> ApiError {
    ApiError::upstream("gateway: no worker of this model is within the limits on prices and stake")
}

/// Its publisher's name for it where no other model on sale has that name, else its id.
fn name_of(seller: &Seller, sellers: &[Seller]) -> String {
    let is_alone = sellers
        .iter()
        .all(|other| other.model_id == seller.model_id || other.model_name != seller.model_name);
    match is_alone && !seller.model_name.is_empty() {
        true => seller.model_name.clone(),
        false => seller.model_id.to_string(),
    }
}

/// What did not come back of what was sent.
fn spent(money: &Money, facts: &SessionFacts) -> Amount {
    money.sent.saturating_sub(facts.deposit.saturating_sub(facts.paid))
}

/// A top-up is there, can come no more, or is still awaited.
fn resolve_top_up(money: &mut Money, facts: Option<&SessionFacts>, now_s: u32) {
    let Some(top_up) = money.top_up else { return };
    match facts {
        Some(facts) if facts.deposit >= top_up.deposit => money.top_up_landed(),
        _ if now_s > top_up.until_s => money.top_up = None,
        _ => {}
    }
}

fn place(seller: &Seller) -> (StdAddr, HashBytes) {
    (seller.expected.worker.clone(), seller.model_id)
}

/// In a task of its own: once begun, the wallet's business is brought to its end whoever waits for it.
async fn apart<T: Send + 'static>(
    task: impl Future<Output = Result<T, Ended>> + Send + 'static,
) -> Result<T, Ended> {
    match tokio::spawn(task).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Ended::Finally(ApiError::upstream("gateway: it is stopping"))),
    }
}

fn price_for(prices: &Prices, units: &Units) -> Nanoton {
    prices.cost(units)
}

fn over_budget(what: &str) -> Ended {
    Ended::Finally(ApiError::over_budget(format!("client: {what} would cost more than any amount of TON")))
}

/// A worker says these of a session that it has not seen in a block yet.
fn is_for_later(reason: Reason) -> bool {
    matches!(reason, Reason::UnknownSession | Reason::DepositTooLow)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By which models' prices are compared in a list.
const TYPICAL: Units = Units { input: 700, cached_input: 0, output: 300 };
const SELLERS_FRESH: Duration = Duration::from_secs(30);
const SELLERS_WAIT: Duration = Duration::from_secs(60);
const SELLERS_STALE: Duration = Duration::from_secs(300);
/// How long a failure keeps a worker behind others.
const FAILURE_COUNTS: Duration = Duration::from_secs(120);
/// A session that ends sooner is replaced.
const SESSION_MARGIN_S: u32 = 900;
/// How long the wallet's message can be taken.
const OPENING_S: u32 = 300;
const LATER: u32 = 40;
const LATER_PAUSE: Duration = Duration::from_millis(500);
/// Sessions opened with one worker, and within which time.
const OPENINGS: usize = 4;
const OPENINGS_WITHIN: Duration = Duration::from_secs(3_600);
