//! The market as it is: attested workers found on chain, sessions paid from the user's wallet, receipts checked.
//!
//! A request goes to the cheapest worker that the policy accepts and that has not failed lately; a session with it is
//! opened where there is none. A worker that fails in the middle of an answer is replaced: decoding is determined by the
//! request's seed, so another worker makes the same answer, what was told already is compared and left out, and where the
//! two differ the answer ends with an error. A worker that is dishonest is asked for nothing more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use contracts::money::Amount;
use contracts::{HashBytes, Nanoton, Prices, SigningKey, StdAddr, Units};
use ra_tls::{Connector, Identity};
use rand::RngExt as _;
use session::message::{Done as SessionDone, Frame, StartRequest};
use session::work::{Embeddings, Transcription, Work};
use session::{BuyerError, BuyerLedger, Counted, Fault, Party, Reason, SessionFacts, SessionId, UnitBound};
use tokio::sync::mpsc;

use crate::ground::{Ground, GroundError, Opening, Seller};
use crate::link::{Frames, Link, LinkError, LinkLimits};
use crate::market::{
    Answer, AnswerEvent, Done, Embedded, Market, ModelOnSale, Paid, TextPiece, TextWork, TokenLogprob,
    Transcribed, Usage,
};
use crate::openai::ApiError;
use crate::purse::{Purse, PurseError, ReconcileError};
use crate::store::{Stage, Store, StoreError, StoredSession};

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

struct Inner {
    parts: MarketParts,
    sellers: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Seller>>)>>,
    purses: Mutex<HashMap<(StdAddr, HashBytes), Arc<Purse>>>,
    /// Held while a session is opened or topped up, so that the budget is counted once.
    spending: tokio::sync::Mutex<()>,
    record: Mutex<HashMap<StdAddr, Record>>,
    dishonest: Mutex<HashSet<StdAddr>>,
}

/// How a worker did lately.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failed_at: Option<Instant>,
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
            sellers: tokio::sync::Mutex::default(),
            purses: Mutex::default(),
            spending: tokio::sync::Mutex::default(),
            record: Mutex::default(),
            dishonest: Mutex::default(),
        }));
        for proof in market.0.parts.store.proofs()? {
            lock(&market.0.dishonest).insert(StdAddr::new(0, proof.facts.worker));
        }
        market.0.recover().await?;
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
        for purse in purses {
            if let Err(error) = purse.close().await {
                tracing::warn!(%error, session = %purse.session(), "asking on chain for the session's end");
                if let Err(error) = self.0.parts.ground.ask_close(purse.session()).await {
                    tracing::warn!(%error, session = %purse.session(), "it ends at its time");
                }
            }
        }
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
            let mut told = String::new();
            loop {
                let ended = tokio::select! {
                    ended = stop.pump(&sender, &mut told) => ended,
                    // Whoever asked is gone: the worker is told, and what was made until then is charged.
                    () = sender.closed() => {
                        stop.cancel().await;
                        return;
                    }
                };
                let error = match ended {
                    Ended::Well => return,
                    Ended::Gone => {
                        stop.cancel().await;
                        return;
                    }
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

// ---- a request's way from worker to worker

/// A request, and the workers that have not been asked yet.
struct Tour {
    market: Arc<Inner>,
    work: Work,
    bound: UnitBound,
    counted_input: Option<u32>,
    candidates: std::vec::IntoIter<Seller>,
}

/// A request under way at one worker.
struct Stop {
    market: Arc<Inner>,
    purse: Arc<Purse>,
    request: StartRequest,
    frames: Frames,
    counted_input: Option<u32>,
    began: Instant,
    tokens: Vec<u32>,
}

/// How a stop ended.
enum Ended {
    /// With `done`, told.
    Well,
    /// Whoever asked is gone.
    Gone,
    /// Another worker may do better.
    Elsewhere(ApiError),
    /// No other will.
    Finally(ApiError),
}

impl Tour {
    async fn begin(market: Arc<Inner>, model: &str, work: Work) -> Result<Self, ApiError> {
        let sellers = market.sellers().await?;
        let matching = matching(&sellers, model)?;
        let model_id = matching[0].model_id;
        let (counter, asked) = (market.parts.counter.clone(), work.clone());
        let counted_input = tokio::task::spawn_blocking(move || counter.count(&model_id, &asked))
            .await
            .map_err(|_| ApiError::upstream("gateway: it is stopping"))?;
        let bound = bound_of(&work, counted_input);
        let candidates = market.ranked(matching, &bound).into_iter();
        Ok(Self { market, work, bound, counted_input, candidates })
    }

    /// Has the next worker accept it. `before` is what was wrong with the last.
    async fn next_stop(&mut self, before: Option<ApiError>) -> Result<Stop, ApiError> {
        let mut last = before;
        for seller in self.candidates.by_ref() {
            match self.market.start_at(&seller, self.bound, &self.work, self.counted_input).await {
                Ok(stop) => return Ok(stop),
                Err(Ended::Elsewhere(error)) => last = Some(error),
                Err(Ended::Finally(error)) => return Err(error),
                Err(Ended::Well | Ended::Gone) => {}
            }
        }
        Err(last.unwrap_or_else(nobody))
    }
}

impl Stop {
    /// Passes on what comes until the end. `told` is what whoever asked has read already, from an earlier stop too.
    async fn pump(&mut self, to: &mpsc::Sender<AnswerEvent>, told: &mut String) -> Ended {
        let mut passed = 0;
        loop {
            let frame = match self.frame().await {
                Ok(frame) => frame,
                Err(ended) => return ended,
            };
            match frame {
                Frame::Piece(piece) => {
                    if self.tokens.is_empty() && !piece.tokens.is_empty() {
                        self.market.first_piece(&self.purse.seller.expected.worker, self.began.elapsed());
                    }
                    self.tokens.extend_from_slice(&piece.tokens);
                    // What another worker has told already has to come again, and is not told twice.
                    let again = piece.text.len().min(told.len() - passed);
                    if piece.text.as_bytes()[..again] != told.as_bytes()[passed..passed + again] {
                        return Ended::Finally(ApiError::upstream(
                            "worker: it broke off, and another made a different answer; ask again",
                        ));
                    }
                    passed += again;
                    let is_new = again < piece.text.len() || (piece.text.is_empty() && passed == told.len());
                    if !is_new {
                        continue;
                    }
                    let Some(new) = piece.text.get(again..) else {
                        return Ended::Finally(ApiError::upstream("worker: it sent half a character"));
                    };
                    told.push_str(new);
                    passed = told.len();
                    let logprobs = piece.logprobs.iter().map(logprob).collect();
                    let event = AnswerEvent::Piece(TextPiece { text: new.to_owned(), logprobs });
                    if to.send(event).await.is_err() {
                        return Ended::Gone;
                    }
                }
                Frame::Done(done) => {
                    let ended = self.done(&done).await;
                    return match ended {
                        Ok(done) => match to.send(AnswerEvent::Done(done)).await {
                            Ok(()) => Ended::Well,
                            Err(_) => Ended::Well,
                        },
                        Err(ended) => ended,
                    };
                }
                Frame::Accepted(_) | Frame::Vector(_) | Frame::Segment(_) | Frame::Refused(_) => {}
            }
        }
    }

    /// All frames, where an answer is no use before it is whole.
    async fn collect(&mut self) -> Result<(Vec<Frame>, Done), Ended> {
        let mut frames = Vec::new();
        loop {
            match self.frame().await? {
                Frame::Done(done) => return Ok((frames, self.done(&done).await?)),
                frame => {
                    match &frame {
                        Frame::Segment(part) => self.tokens.extend_from_slice(&part.tokens),
                        Frame::Vector(vector) => {
                            self.tokens.extend(vector.iter().map(|number| number.to_bits()))
                        }
                        _ => {}
                    }
                    frames.push(frame);
                }
            }
        }
    }

    /// The next frame, over a new connection where the old one broke.
    async fn frame(&mut self) -> Result<Frame, Ended> {
        let mut attempts = 0;
        loop {
            let error = match self.frames.next().await {
                Ok(Some(Frame::Refused(refused))) => {
                    self.purse.refused(self.request.request, &refused);
                    return Err(self.market.refusal(&self.purse, &refused.into()));
                }
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => LinkError::BrokenOff,
                Err(error) => error,
            };
            let count = self.frames.count();
            attempts += 1;
            if attempts > RESUMES {
                return Err(self.give_up(&error));
            }
            tokio::time::sleep(RESUME_PAUSE * attempts).await;
            match self.purse.link.resume(self.purse.session(), self.request.request, count).await {
                Ok(frames) => self.frames = frames.after(count),
                Err(LinkError::Refused(refused)) if refused.reason == Reason::UnknownRequest => {
                    // It never had it, or lost it before it charged anything.
                    self.purse.refused(self.request.request, &refused);
                    return Err(self.market.failed(&self.purse, &error));
                }
                Err(_) => {}
            }
        }
    }

    fn give_up(&self, error: &LinkError) -> Ended {
        self.purse.lost(self.request.request);
        self.market.failed(&self.purse, error)
    }

    /// Checks the end: what was charged against what came, and the commitment to both.
    async fn done(&mut self, done: &SessionDone) -> Result<Done, Ended> {
        let (seller, used) = (self.purse.seller.clone(), done.used);
        let output = match &self.request.work {
            Work::Chat(_) | Work::Completion(_) => self.tokens.len(),
            Work::Embeddings(_) | Work::Transcription(_) => 0,
        };
        let output = u32::try_from(output).unwrap_or(u32::MAX);
        let input = used.input.saturating_add(used.cached_input);
        if let Work::Chat(_) | Work::Completion(_) = &self.request.work {
            let shown = u32::try_from(done.input_tokens.len()).unwrap_or(u32::MAX);
            let params = self.request.work.params_digest(done.limit, &[]);
            let committed = done.transcript(&seller.model_id, &params, &self.tokens);
            let names_it = committed.is_some_and(|hash| hash.0 == done.receipt.content.transcript);
            if shown != input || !names_it {
                return Err(self.market.dishonest(&self.purse, "its receipt names another prompt or answer"));
            }
        }
        let counted = Counted { input: self.counted_input, output };
        if let Err(fault) = self.purse.done(done, &counted).await {
            return Err(self.market.faulty(&self.purse, fault));
        }
        Ok(Done {
            finish: done.finish_reason,
            usage: Usage {
                prompt_tokens: input.into(),
                cached_tokens: used.cached_input.into(),
                completion_tokens: used.output.into(),
            },
            paid: Paid {
                worker: seller.expected.worker.to_string(),
                session: self.purse.session().job.to_string(),
                amount: seller.prices.cost(&used),
            },
        })
    }

    /// Takes the request back. What was made is charged, and shows in the next report.
    async fn cancel(&self) {
        let id = self.request.request;
        self.purse.lost(id);
        let _ = self.purse.link.cancel(self.purse.session(), id).await;
        if let Err(error) = self.purse.reconcile().await {
            self.market.not_reconciled(&self.purse, &error);
        }
    }
}

impl Inner {
    async fn sellers(&self) -> Result<Arc<Vec<Seller>>, ApiError> {
        let mut cached = self.sellers.lock().await;
        if let Some((at, sellers)) = cached.as_ref()
            && at.elapsed() < SELLERS_FRESH
        {
            return Ok(sellers.clone());
        }
        match self.parts.ground.sellers().await {
            Ok(sellers) => {
                let sellers = Arc::new(sellers);
                *cached = Some((Instant::now(), sellers.clone()));
                Ok(sellers)
            }
            Err(error) => match cached.as_ref() {
                // A liteserver that is away for a moment stops nobody; what is revoked meanwhile is, soon.
                Some((at, sellers)) if at.elapsed() < SELLERS_STALE => {
                    tracing::warn!(%error, "the chain cannot be read; using workers as of before");
                    Ok(sellers.clone())
                }
                _ => Err(ApiError::upstream(error.to_string())),
            },
        }
    }

    /// Whom to ask, the best first.
    fn ranked(&self, mut sellers: Vec<Seller>, bound: &UnitBound) -> Vec<Seller> {
        let spending = &self.parts.spending;
        let (dishonest, record) = (lock(&self.dishonest).clone(), lock(&self.record).clone());
        sellers.retain(|seller| {
            !dishonest.contains(&seller.expected.worker)
                && seller.stake >= spending.min_stake
                && spending.max_prices.as_ref().is_none_or(|most| seller.prices.at_most(most))
        });
        let units = Units { input: bound.input, cached_input: 0, output: bound.output };
        sellers.sort_by_cached_key(|seller| {
            let record = record.get(&seller.expected.worker).copied().unwrap_or_default();
            let failed = record.failed_at.is_some_and(|at| at.elapsed() < FAILURE_COUNTS);
            let slow = (record.first_ms / 50.0) as u64;
            (failed, price_for(&seller.prices, &units), slow, seller.expected.worker.address.0)
        });
        sellers
    }

    async fn start_at(
        self: &Arc<Self>,
        seller: &Seller,
        bound: UnitBound,
        work: &Work,
        counted_input: Option<u32>,
    ) -> Result<Stop, Ended> {
        let purse = self.purse(seller, &bound).await?;
        let request = loop {
            match purse.begin(bound, work.clone()).await {
                Ok(request) => break request,
                Err(PurseError::Ledger(BuyerError::OverBudget { needed, .. })) => {
                    self.top_up(&purse, needed).await?;
                }
                Err(PurseError::Ledger(BuyerError::Faulty(fault))) => return Err(self.faulty(&purse, fault)),
                Err(PurseError::Ledger(error)) => {
                    self.drop_purse(&purse);
                    return Err(Ended::Elsewhere(ApiError::upstream(error.to_string())));
                }
                Err(error) => return Err(Ended::Finally(ApiError::upstream(error.to_string()))),
            }
        };
        let began = Instant::now();
        let stop = |frames| Stop {
            market: self.clone(),
            purse: purse.clone(),
            request: request.clone(),
            frames,
            counted_input,
            began,
            tokens: Vec::new(),
        };
        let mut attempts = 0;
        loop {
            match purse.link.start(&request).await {
                Ok(frames) => return Ok(stop(frames)),
                Err(LinkError::Refused(refused)) if is_for_later(refused.reason) && attempts < LATER => {
                    // The worker has not seen the block in which the session was opened or topped up.
                    attempts += 1;
                    tokio::time::sleep(LATER_PAUSE).await;
                }
                Err(error @ LinkError::Refused(refused)) => {
                    purse.refused(request.request, &refused);
                    return Err(self.refusal(&purse, &error));
                }
                Err(error) => {
                    match error.is_uncertain() {
                        true => purse.lost(request.request),
                        false => purse.refused(request.request, &Reason::Cancelled.into()),
                    }
                    return Err(self.failed(&purse, &error));
                }
            }
        }
    }

    /// The session with a worker, opened where there is none.
    async fn purse(self: &Arc<Self>, seller: &Seller, bound: &UnitBound) -> Result<Arc<Purse>, Ended> {
        let place = (seller.expected.worker.clone(), seller.model_id);
        let fits = |purse: &Arc<Purse>| {
            let ledger = purse.ledger();
            let facts = ledger.facts();
            // A worker that has registered anew signs with another key, and needs another session.
            facts.receipt_key == seller.expected.receipt_key
                && facts.prices.at_most(&seller.prices)
                && seller.prices.at_most(&facts.prices)
                && u64::from(facts.until) > now_s() + u64::from(SESSION_MARGIN_S)
                && ledger.fault().is_none()
        };
        let known = |inner: &Self| lock(&inner.purses).get(&place).cloned().filter(fits);
        if let Some(purse) = known(self) {
            return Ok(purse);
        }
        let _spending = self.spending.lock().await;
        if let Some(purse) = known(self) {
            return Ok(purse);
        }
        if let Some(old) = lock(&self.purses).remove(&place) {
            tokio::spawn(async move {
                if let Err(error) = old.close().await {
                    tracing::warn!(%error, session = %old.session(), "a session that is replaced ends at its time");
                }
            });
        }
        let purse = self.open(seller, bound).await?;
        lock(&self.purses).insert(place, purse.clone());
        Ok(purse)
    }

    async fn open(self: &Arc<Self>, seller: &Seller, bound: &UnitBound) -> Result<Arc<Purse>, Ended> {
        let ground = &self.parts.ground;
        let spending = &self.parts.spending;
        let units = Units { input: bound.input, cached_input: 0, output: bound.output };
        let needed = Amount::try_from(seller.prices.cost(&units)).map_err(|_| over_budget("this request"))?;
        let deposit = spending.deposit.max(needed).max(seller.min_deposit);
        let failed = |error: GroundError| Ended::Finally(ApiError::upstream(error.to_string()));
        let fees = ground.opening_fees(seller, deposit).await.map_err(failed)?;
        let sent = deposit.checked_add(fees).ok_or_else(|| over_budget("a session"))?;
        self.within_budget(sent)?;
        let nonce = rand::rng().random();
        let job = ground.job_address(nonce).map_err(failed)?;
        let now_s = ground.now_s().await.map_err(failed)?;
        let mut stored = StoredSession {
            job: job.clone(),
            worker: seller.expected.worker.clone(),
            model_id: seller.model_id,
            sent,
            stage: Stage::Opening { until_s: now_s.saturating_add(OPENING_S) },
        };
        self.put(&stored).await?;
        tracing::info!(%job, worker = %stored.worker, deposit = %deposit, "opening a session");
        let opening = Opening {
            seller,
            nonce,
            deposit,
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
        let ledger = BuyerLedger::new(facts.clone(), facts.deposit);
        stored.stage = Stage::Open(Box::new(ledger.record()));
        self.put(&stored).await?;
        self.assemble(seller.clone(), ledger, sent)
    }

    fn assemble(&self, seller: Seller, ledger: BuyerLedger, sent: Amount) -> Result<Arc<Purse>, Ended> {
        let key: SigningKey = self.parts.ground.session_key(&ledger.session().job);
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
        let link = Link::new(seller.endpoint.clone(), connector, self.parts.limits);
        Ok(Arc::new(Purse::new(seller, link, key, ledger, sent, self.parts.store.clone())))
    }

    async fn top_up(self: &Arc<Self>, purse: &Arc<Purse>, needed: Amount) -> Result<(), Ended> {
        let _spending = self.spending.lock().await;
        let deposit = purse.ledger().facts().deposit;
        if deposit >= needed {
            return Ok(());
        }
        let missing = needed.saturating_sub(deposit);
        let amount = self.parts.spending.deposit.max(missing);
        // Where the budget has less left than a whole step, what is missing will do.
        let amount = if self.within_budget(amount).is_ok() { amount } else { missing };
        self.within_budget(amount)?;
        tracing::info!(session = %purse.session(), amount = %amount, "topping a session up");
        let facts = self
            .parts
            .ground
            .top_up(purse.session(), amount)
            .await
            .map_err(|error| Ended::Finally(ApiError::upstream(error.to_string())))?;
        purse
            .update(&facts, amount)
            .await
            .map_err(|error| Ended::Finally(ApiError::upstream(error.to_string())))?;
        match facts.deposit >= needed {
            true => Ok(()),
            false => Err(Ended::Elsewhere(ApiError::upstream(
                "chain: the session was not topped up; it is ending",
            ))),
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

    fn within_budget(&self, more: Amount) -> Result<(), Ended> {
        let committed =
            self.committed().map_err(|error| Ended::Finally(ApiError::upstream(error.to_string())))?;
        let most = self.parts.spending.max_spend;
        match committed.checked_add(more).is_some_and(|sum| sum <= most) {
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

    async fn recover(self: &Arc<Self>) -> Result<(), MarketError> {
        let open: Vec<StoredSession> = self
            .parts
            .store
            .sessions()?
            .into_iter()
            .filter(|stored| !matches!(stored.stage, Stage::Over { .. }))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let sellers = self.parts.ground.sellers().await?;
        let now_s = self.parts.ground.now_s().await?;
        for mut stored in open {
            let facts = self.parts.ground.facts(&stored.job).await?;
            let ended = match (&stored.stage, &facts) {
                (_, Some(facts)) if facts.status.is_closed() => Some(spent(stored.sent, facts)),
                (_, Some(_)) => None,
                (Stage::Opening { until_s }, None) if now_s <= *until_s => continue,
                (Stage::Opening { .. }, None) => {
                    // The wallet's message was never taken.
                    self.parts.store.remove(&stored.job)?;
                    continue;
                }
                // Swept: what its last record allows is the most it can have cost.
                (Stage::Open(record), None) => {
                    Some(stored.sent.saturating_sub(record.facts.deposit.saturating_sub(record.promised)))
                }
                (Stage::Over { .. }, None) => continue,
            };
            if let Some(spent) = ended {
                stored.stage = Stage::Over { spent };
                self.parts.store.put(&stored)?;
                continue;
            }
            let Some(facts) = facts else { continue };
            let ledger = match &stored.stage {
                Stage::Open(record) => {
                    let mut ledger = BuyerLedger::restore(record.as_ref().clone());
                    ledger.update(&facts, facts.deposit);
                    ledger
                }
                Stage::Opening { .. } | Stage::Over { .. } => BuyerLedger::new(facts.clone(), facts.deposit),
            };
            let seller = sellers.iter().find(|seller| {
                seller.expected.worker == stored.worker
                    && seller.model_id == stored.model_id
                    && seller.expected.receipt_key == facts.receipt_key
            });
            let Some(seller) = seller else {
                tracing::warn!(session = %stored.job, "its worker is not on sale any more; asking on chain for its end");
                let ended = match facts.status == contracts::job::JobStatus::Closing && facts.until < now_s {
                    true => self.parts.ground.expire(ledger.session()).await,
                    false => self.parts.ground.ask_close(ledger.session()).await,
                };
                if let Err(error) = ended {
                    tracing::warn!(%error, session = %stored.job, "it ends at its time");
                }
                continue;
            };
            stored.stage = Stage::Open(Box::new(ledger.record()));
            self.parts.store.put(&stored)?;
            let Ok(purse) = self.assemble(seller.clone(), ledger, stored.sent) else { continue };
            if let Err(error) = purse.reconcile().await {
                self.not_reconciled(&purse, &error);
            }
            lock(&self.purses).insert((stored.worker.clone(), stored.model_id), purse);
        }
        Ok(())
    }

    // ---- what went wrong

    fn refusal(&self, purse: &Arc<Purse>, error: &LinkError) -> Ended {
        let LinkError::Refused(refused) = error else { return self.failed(purse, error) };
        let message = refused.to_string();
        match (refused.party, refused.reason) {
            (_, Reason::TooLarge | Reason::Unsupported | Reason::OverContext | Reason::BoundTooLow) => {
                Ended::Finally(ApiError::invalid("messages", message))
            }
            (Party::Client, Reason::Cancelled) => Ended::Gone,
            (Party::Client, _) => {
                // The session is not what the worker wants any more.
                self.drop_purse(purse);
                Ended::Elsewhere(ApiError::upstream(message))
            }
            (Party::Worker, _) => {
                self.mark_failed(purse);
                match refused.reason {
                    Reason::Busy => Ended::Elsewhere(ApiError::busy(message)),
                    _ => Ended::Elsewhere(ApiError::upstream(message)),
                }
            }
        }
    }

    fn failed(&self, purse: &Arc<Purse>, error: &LinkError) -> Ended {
        self.mark_failed(purse);
        tracing::warn!(%error, worker = %purse.seller.expected.worker, "a worker failed");
        Ended::Elsewhere(ApiError::upstream(error.to_string()))
    }

    fn faulty(&self, purse: &Arc<Purse>, fault: Fault) -> Ended {
        self.dishonest(purse, &fault.to_string())
    }

    fn dishonest(&self, purse: &Arc<Purse>, why: &str) -> Ended {
        lock(&self.dishonest).insert(purse.seller.expected.worker.clone());
        self.drop_purse(purse);
        tracing::warn!(worker = %purse.seller.expected.worker, why, "a worker is dishonest and is asked for nothing more");
        Ended::Elsewhere(ApiError::upstream(format!("worker: {why}; it is asked for nothing more")))
    }

    fn not_reconciled(&self, purse: &Arc<Purse>, error: &ReconcileError) {
        match error {
            ReconcileError::Fault(fault) => drop(self.faulty(purse, *fault)),
            ReconcileError::Link(error) => {
                tracing::debug!(%error, session = %purse.session(), "the worker did not say what it charged");
            }
        }
    }

    fn mark_failed(&self, purse: &Purse) {
        let mut record = lock(&self.record);
        record.entry(purse.seller.expected.worker.clone()).or_default().failed_at = Some(Instant::now());
    }

    fn first_piece(&self, worker: &StdAddr, after: Duration) {
        let mut record = lock(&self.record);
        let record = record.entry(worker.clone()).or_default();
        let ms = after.as_secs_f64() * 1e3;
        record.first_ms = if record.first_ms == 0.0 { ms } else { record.first_ms * 0.8 + ms * 0.2 };
        record.failed_at = None;
    }

    fn drop_purse(&self, purse: &Purse) {
        let place = (purse.seller.expected.worker.clone(), purse.seller.model_id);
        let mut purses = lock(&self.purses);
        if purses.get(&place).is_some_and(|known| known.session() == purse.session()) {
            purses.remove(&place);
        }
    }
}

fn matching(sellers: &[Seller], model: &str) -> Result<Vec<Seller>, ApiError> {
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

fn nobody() -> ApiError {
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

/// What a request may be charged at most. Where the input is not counted, a token has at least one byte, and a template
/// adds little to each message.
fn bound_of(work: &Work, counted: Option<u32>) -> UnitBound {
    let text = |text: &str| text.len() + 8;
    let (input, output) = match work {
        Work::Chat(chat) => {
            let messages: usize = chat
                .messages
                .iter()
                .map(|message| {
                    let calls = message.tool_calls.iter();
                    text(&message.role)
                        + text(&message.content)
                        + message.name.as_deref().map_or(0, text)
                        + calls.map(|call| text(&call.name) + text(&call.arguments) + 64).sum::<usize>()
                })
                .sum();
            let tools: usize = chat.tools.iter().map(|tool| tool.0.to_string().len() * 2).sum();
            (messages + tools + TEMPLATE_TOKENS, chat.params.max_output_tokens)
        }
        Work::Completion(completion) => (text(&completion.prompt), completion.params.max_output_tokens),
        Work::Embeddings(embeddings) => (embeddings.texts.iter().map(|one| text(one)).sum(), 0),
        // A second of the least that any recording has: 8 kHz, 8 bits.
        Work::Transcription(recording) => (recording.audio.len() / 8_000 + 1, 0),
    };
    UnitBound { input: counted.unwrap_or_else(|| u32::try_from(input).unwrap_or(u32::MAX)), output }
}

fn logprob(logprob: &session::message::TokenLogprobs) -> TokenLogprob {
    let mut bytes = logprob.bytes.iter().map(|text| hex::decode(text).unwrap_or_default());
    let token = bytes.next().unwrap_or_default();
    let top = logprob.top.iter().map(|(_, value)| (bytes.next().unwrap_or_default(), *value)).collect();
    TokenLogprob { token, logprob: logprob.logprob, top }
}

/// What did not come back of what was sent.
fn spent(sent: Amount, facts: &SessionFacts) -> Amount {
    sent.saturating_sub(facts.deposit.saturating_sub(facts.paid))
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
const TEMPLATE_TOKENS: usize = 256;
const SELLERS_FRESH: Duration = Duration::from_secs(30);
const SELLERS_STALE: Duration = Duration::from_secs(300);
/// How long a failure keeps a worker behind others.
const FAILURE_COUNTS: Duration = Duration::from_secs(120);
/// A session that ends sooner is replaced.
const SESSION_MARGIN_S: u32 = 900;
/// How long the wallet's message can be taken.
const OPENING_S: u32 = 300;
const RESUMES: u32 = 3;
const RESUME_PAUSE: Duration = Duration::from_millis(200);
const LATER: u32 = 40;
const LATER_PAUSE: Duration = Duration::from_millis(500);
