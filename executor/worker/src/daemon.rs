//! Runs the machine: feeds it what the chain shows, journals what it decides, and does it.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chain::trace::{self, Limits};
use chain::{ChainAccess, ChainError, Confirmed, McBlock, Transfer, TxId, external_message};
use client::{ClientError, read_attestor};
use contracts::errors::RejectionReason;
use contracts::receipt::{ClaimOrder, Tag};
use contracts::worker::ClaimJob;
use contracts::{Cell, HashBytes, Message, Network, Ref, StdAddr, WireError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument, Span};
use tycho_types::boc::Boc;

use crate::attestation::{AttestationError, AttestationSource, CollateralSource};
use crate::config::WorkerConfig;
use crate::engine::Engine;
use crate::error::WorkerError;
use crate::journal::{Change, Journal, Recovered};
use crate::keys::Keys;
use crate::machine::{
    Effect, Event, Job, JobKey, Order, Phase, Policy, SignedReceipt, State, WorkerFacts, step,
};
use crate::observe::{Observation, Scope, observe_block};
use crate::registration::{
    Needs, OwnerWallet, Proven, Registrant, RegistrationError, is_attested, recent_block, refusals_in,
};
use crate::serve::{self, Opened, Signer};

/// Everything a worker is made of.
pub struct Worker<C: ChainAccess + ?Sized> {
    /// The chain.
    pub chain: Arc<C>,
    /// The network.
    pub network: Network,
    /// Code of the network's Worker contract.
    pub worker_code: Cell,
    /// Whose worker it is.
    pub owner: StdAddr,
    /// The attested keys.
    pub keys: Arc<Keys>,
    /// The model.
    pub engine: Arc<dyn Engine>,
    /// Where quotes come from.
    pub attestation: Arc<dyn AttestationSource>,
    /// Where their collateral comes from.
    pub collateral: Arc<dyn CollateralSource>,
    /// The owner's wallet; without it, what it would have to send is logged instead.
    pub wallet: Option<Arc<dyn OwnerWallet>>,
    /// The opened journal and what it held.
    pub journal: (Journal, Recovered),
    /// What the operator set.
    pub config: WorkerConfig,
    /// Sees each step as it is taken.
    pub on_step: Option<OnStep>,
    /// Sees answers as they are made, in the clear. For demonstrations alone: nothing else ever shows them.
    pub on_text: Option<OnText>,
}

/// Called for each step of the daemon. Steps carry nothing secret.
pub type OnStep = Arc<dyn Fn(&Step<'_>) + Send + Sync>;
/// Called with each piece of an answer.
pub type OnText = Arc<dyn Fn(&JobKey, &str) + Send + Sync>;

/// A step of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A job's phase is in the journal.
    Journaled {
        /// Which job.
        key: &'a JobKey,
        /// Its phase; `forgotten` when it is gone.
        phase: &'static str,
    },
    /// An effect begins.
    Begun {
        /// The effect.
        effect: &'a Effect,
    },
    /// An effect has come to its end, whatever that was.
    Done {
        /// Which job.
        key: &'a JobKey,
        /// Name of the effect.
        effect: &'static str,
    },
}

impl<C: ChainAccess + ?Sized + 'static> Worker<C> {
    /// Works until `stop` is ready and the jobs in flight have ended (or the drain time has passed), or until an error.
    ///
    /// # Errors
    /// [`WorkerError`]: nothing new was claimed from then on, and signed receipts were posted once more.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), WorkerError> {
        if let Some(wallet) = &self.wallet
            && *wallet.address() != self.owner
        {
            let (wallet, owner) = (wallet.address().clone(), self.owner.clone());
            return Err(WorkerError::OtherOwner { wallet, owner });
        }
        let address = self.network.worker_address(&self.owner)?;
        let model_id = self.engine.info().model_id;
        let scope = Scope { network: self.network.clone(), worker: address.clone() };
        let registrant = Registrant {
            network: self.network.clone(),
            worker_code: self.worker_code.clone(),
            owner: self.owner.clone(),
            worker: address.clone(),
            model_id,
            config: self.config.clone(),
        };
        let policy = self.config.policy(&self.network, address, &self.keys, model_id)?;
        let drain = Duration::from_secs(u64::from(self.config.drain_s));
        let (journal, recovered) = self.journal;
        let (observed_to, mut observed) = mpsc::channel(2);
        let (done_to, mut done) = mpsc::channel(DONE_QUEUE);
        let (followed, followed_at) = watch::channel(Vec::new());
        let (worker_seen, worker_seen_at) = watch::channel(None);
        let mut background = JoinSet::new();
        background.spawn(follow(self.chain.clone(), scope, recovered.cursor, followed_at, observed_to));
        background.spawn(
            Registrar {
                chain: self.chain.clone(),
                registrant,
                keys: self.keys.clone(),
                source: self.attestation,
                collateral: self.collateral,
                wallet: self.wallet,
            }
            .run(worker_seen_at),
        );
        let mut core = Core {
            chain: self.chain,
            network_id: self.network.id(),
            model: self.network.model_address(&model_id)?.address,
            keys: self.keys,
            engine: self.engine,
            context_limit: self.config.max_context_tokens,
            on_step: self.on_step,
            on_text: self.on_text,
            policy,
            promised: recovered
                .jobs
                .iter()
                .filter(|(_, job)| is_promised(job))
                .map(|(key, job)| (key.clone(), job.clone()))
                .collect(),
            state: State::restored(recovered.jobs),
            journal,
            cursor: recovered.cursor,
            opened: HashMap::new(),
            stops: HashMap::new(),
            sends: JoinSet::new(),
            done_to,
            followed,
        };
        let result = core.serve(stop, drain, &mut observed, &mut done, &worker_seen).await;
        if let Err(error) = &result {
            tracing::error!(%error, "the worker stops");
            core.post_once_more().await;
        }
        core.cancel_all();
        result
    }
}

/// What came of an effect.
enum Finished {
    Opened(JobKey, Result<Opened, RejectionReason>),
    Answered(JobKey, Result<SignedReceipt, RejectionReason>),
}

/// What the registrar hears.
type WorkerSeen = Option<(McBlock, Option<WorkerFacts>)>;

struct Core<C: ?Sized> {
    chain: Arc<C>,
    network_id: i32,
    /// Account of the Model that the engine serves.
    model: HashBytes,
    keys: Arc<Keys>,
    engine: Arc<dyn Engine>,
    context_limit: Option<u32>,
    on_step: Option<OnStep>,
    on_text: Option<OnText>,
    policy: Policy,
    state: State,
    journal: Journal,
    /// As the journal has it.
    cursor: Option<TxId>,
    /// Jobs whose receipt or rejection is in the journal, as it is there.
    promised: BTreeMap<JobKey, Job>,
    /// Plaintexts between opening and answering.
    opened: HashMap<JobKey, Opened>,
    stops: HashMap<JobKey, Arc<AtomicBool>>,
    sends: JoinSet<()>,
    done_to: mpsc::Sender<Finished>,
    followed: watch::Sender<Vec<JobKey>>,
}

impl<C: ChainAccess + ?Sized + 'static> Core<C> {
    async fn serve(
        &mut self,
        stop: impl Future<Output = ()>,
        drain: Duration,
        observed: &mut mpsc::Receiver<Result<Observation, WorkerError>>,
        done: &mut mpsc::Receiver<Finished>,
        worker_seen: &watch::Sender<WorkerSeen>,
    ) -> Result<(), WorkerError> {
        tokio::pin!(stop);
        let mut stop_at: Option<Instant> = None;
        self.apply(vec![Event::Restarted], &[], None)?;
        loop {
            if stop_at.is_some() && self.state.active() == 0 {
                return Ok(());
            }
            tokio::select! {
                () = &mut stop, if stop_at.is_none() => {
                    tracing::info!(jobs = self.state.active(), "no new claims; finishing the jobs in flight");
                    self.policy.max_jobs = 0;
                    stop_at = Some(Instant::now() + drain);
                }
                () = until(stop_at), if stop_at.is_some() => return Ok(()),
                seen = observed.recv() => {
                    let seen = seen.ok_or(WorkerError::WatchEnded)??;
                    worker_seen.send_replace(Some((seen.block, seen.worker)));
                    self.apply(seen.events, &seen.inputs, seen.cursor)?;
                }
                Some(finished) = done.recv() => {
                    let event = self.finish(finished);
                    self.apply(vec![event], &[], None)?;
                }
                Some(_) = self.sends.join_next(), if !self.sends.is_empty() => {}
            }
        }
    }

    /// Decides, journals, acts, in this order.
    fn apply(
        &mut self,
        events: Vec<Event>,
        inputs: &[(JobKey, Vec<u8>)],
        cursor: Option<TxId>,
    ) -> Result<(), WorkerError> {
        let mut effects = Vec::new();
        for event in events {
            effects.extend(step(&self.policy, &mut self.state, event));
        }
        let dirty = self.state.take_dirty();
        let cursor = cursor.filter(|cursor| self.cursor != Some(*cursor));
        let change = Change {
            jobs: dirty.iter().map(|key| (key, self.state.jobs.get(key))).collect(),
            inputs: inputs
                .iter()
                .filter(|(key, _)| dirty.contains(key) && self.state.jobs.contains_key(key))
                .map(|(key, input)| (key, input.as_slice()))
                .collect(),
            cursor,
        };
        if !dirty.is_empty() || cursor.is_some() {
            self.journal.commit(&change)?;
        }
        self.cursor = cursor.or(self.cursor);
        for key in &dirty {
            match self.state.jobs.get(key) {
                Some(job) if is_promised(job) => {
                    self.promised.insert(key.clone(), job.clone());
                }
                _ => drop(self.promised.remove(key)),
            }
            let phase = self.state.jobs.get(key).map_or("forgotten", |job| job.phase.name());
            tracing::info!(job = %key.job, state = phase, "journaled");
            self.report(Step::Journaled { key, phase });
        }
        if !dirty.is_empty() || self.followed.borrow().is_empty() {
            let followed: Vec<JobKey> = self.state.followed().cloned().collect();
            self.followed.send_replace(followed);
        }
        effects.retain(|effect| self.is_current(effect));
        for effect in effects {
            self.report(Step::Begun { effect: &effect });
            self.act(effect)?;
        }
        Ok(())
    }

    /// What a later event of the same block has overtaken need not be sent.
    fn is_current(&self, effect: &Effect) -> bool {
        let phase = self.state.jobs.get(effect.key()).map(|job| &job.phase);
        match effect {
            Effect::SubmitClaim { order, .. } => {
                matches!(phase, Some(Phase::Ordered { order: present, taken: false }) if present == order)
            }
            Effect::PostReceipt { .. } => matches!(phase, Some(Phase::Posting { .. })),
            Effect::PostRejection { .. } => matches!(phase, Some(Phase::Rejecting { .. })),
            Effect::OpenInput { .. } => matches!(phase, Some(Phase::Opening { .. })),
            Effect::Infer { .. } => matches!(phase, Some(Phase::Inferring { .. })),
            Effect::Forget { .. } | Effect::Decline { .. } => true,
        }
    }

    fn act(&mut self, effect: Effect) -> Result<(), WorkerError> {
        let name = effect.name();
        let span = self.span(effect.key());
        let _inside = span.clone().entered();
        match effect {
            Effect::SubmitClaim { key, order } => match self.signed_order(&order) {
                Ok(body) => self.send(self.policy.worker.clone(), body, key, name, span),
                Err(error) => tracing::error!(%error, "the claim order could not be built"),
            },
            Effect::PostReceipt { key, receipt } => match Boc::decode(&receipt.0) {
                Ok(body) => self.send(key.job.clone(), body, key, name, span),
                Err(_) => tracing::error!("the journaled receipt is not a bag of cells"),
            },
            Effect::PostRejection { key, reason } => {
                tracing::warn!(%reason, "giving the job back");
                let Some(job) = self.state.jobs.get(&key) else { return Ok(()) };
                match serve::rejection(self.signer(), &job.posted, reason) {
                    Ok(body) => self.send(key.job.clone(), body, key, name, span),
                    Err(error) => tracing::error!(%error, "the rejection could not be built"),
                }
            }
            Effect::OpenInput { key } => self.open_input(key, span)?,
            Effect::Infer { key } => self.infer(key, span),
            Effect::Forget { key, end } => {
                tracing::info!(?end, "the job is over");
                self.opened.remove(&key);
                if let Some(flag) = self.stops.remove(&key) {
                    flag.store(true, Ordering::Relaxed);
                }
                self.report(Step::Done { key: &key, effect: name });
            }
            Effect::Decline { reason, .. } => {
                tracing::info!(reason = reason.description(), "the job is left alone");
            }
        }
        Ok(())
    }

    fn open_input(&mut self, key: JobKey, span: Span) -> Result<(), WorkerError> {
        let Some(job) = self.state.jobs.get(&key) else { return Ok(()) };
        let input = self.journal.input(&key)?.unwrap_or_default();
        let posted = job.posted.clone();
        let (keys, engine) = (self.keys.clone(), self.engine.clone());
        let (network_id, model, limit) = (self.network_id, self.model, self.context_limit);
        self.blocking(span, key, Finished::Opened, move || {
            let signer = Signer { keys: &keys, network_id, model };
            serve::open(signer, engine.as_ref(), &posted, &input, limit)
        });
        Ok(())
    }

    fn infer(&mut self, key: JobKey, span: Span) {
        let Some(job) = self.state.jobs.get(&key) else { return };
        let posted = job.posted.clone();
        let stop = Arc::new(AtomicBool::new(false));
        self.stops.insert(key.clone(), stop.clone());
        let (keys, engine) = (self.keys.clone(), self.engine.clone());
        let (network_id, model) = (self.network_id, self.model);
        let (opened, on_text, text_of) = (self.opened.remove(&key), self.on_text.clone(), key.clone());
        self.blocking(span, key, Finished::Answered, move || {
            let opened = opened.ok_or(RejectionReason::EngineFailure)?;
            let signer = Signer { keys: &keys, network_id, model };
            let mut show = |piece: &str| {
                if let Some(on_text) = &on_text {
                    on_text(&text_of, piece);
                }
                !stop.load(Ordering::Relaxed)
            };
            serve::answer(signer, engine.as_ref(), &posted, &opened, &mut show, &mut rand::rng())
        });
    }

    /// Work of the engine on a thread of its own. Its panic is the engine's failure, not ours.
    fn blocking<T: Send + 'static>(
        &mut self,
        span: Span,
        key: JobKey,
        finished: fn(JobKey, Result<T, RejectionReason>) -> Finished,
        work: impl FnOnce() -> Result<T, RejectionReason> + Send + 'static,
    ) {
        let done_to = self.done_to.clone();
        let inside = span.clone();
        self.sends.spawn(
            async move {
                let result = tokio::task::spawn_blocking(move || inside.in_scope(work)).await;
                let result = result.unwrap_or(Err(RejectionReason::EngineFailure));
                // Nobody listens once the daemon has stopped; the journal then says what to do again.
                let _ = done_to.send(finished(key, result)).await;
            }
            .instrument(span),
        );
    }

    fn finish(&mut self, finished: Finished) -> Event {
        match finished {
            Finished::Opened(key, Ok(opened)) => {
                self.report(Step::Done { key: &key, effect: "open_input" });
                let is_wanted =
                    self.state.jobs.get(&key).is_some_and(|job| matches!(job.phase, Phase::Opening { .. }));
                if is_wanted {
                    tracing::info!(job = %key.job, prompt_tokens = opened.prompt_tokens(), "input opened");
                    self.opened.insert(key.clone(), opened);
                }
                Event::InputOpened { key }
            }
            Finished::Answered(key, Ok(receipt)) => {
                self.stops.remove(&key);
                self.report(Step::Done { key: &key, effect: "infer" });
                Event::Answered { key, receipt }
            }
            Finished::Opened(key, Err(reason)) | Finished::Answered(key, Err(reason)) => {
                self.stops.remove(&key);
                Event::Unservable { key, reason }
            }
        }
    }

    /// Hands an external message to the network. What becomes of it shows on the chain.
    fn send(&mut self, to: StdAddr, body: Cell, key: JobKey, name: &'static str, span: Span) {
        let message = match external_message(&to, None, &body) {
            Ok(message) => message,
            Err(error) => return tracing::error!(%error, "a message does not fit into cells"),
        };
        let chain = self.chain.clone();
        let on_step = self.on_step.clone();
        let send = async move {
            match chain.send_external(&message).await {
                Ok(()) => tracing::debug!(message = name, "sent"),
                Err(error) => tracing::warn!(message = name, %error, "not taken; the chain decides"),
            }
            if let Some(on_step) = on_step {
                on_step(&Step::Done { key: &key, effect: name });
            }
        };
        self.sends.spawn(send.instrument(span));
    }

    fn signed_order(&self, order: &Order) -> Result<Cell, WireError> {
        let order = ClaimOrder {
            tag: Tag,
            worker: self.policy.worker.address,
            seqno: order.seqno,
            valid_until: order.valid_until_s,
            job_client: order.client.clone(),
            job_nonce: order.nonce,
            model_id: order.model_id,
            // A bond beyond 64 bits, which the Worker's funds do not reach.
            bond: Amount::try_from(order.bond).unwrap_or(Amount::new(u64::MAX)),
            is_bid: false,
            names_measurement: false,
        };
        ClaimJob::signed(order, self.keys.receipt())?.to_cell()
    }

    /// The last act of a daemon whose journal failed: what was promised durably is handed to the network again.
    async fn post_once_more(&mut self) {
        for (key, job) in std::mem::take(&mut self.promised) {
            let span = self.span(&key);
            let body = match &job.phase {
                Phase::Posting { receipt, .. } => Boc::decode(&receipt.0).ok(),
                Phase::Rejecting { reason, .. } => serve::rejection(self.signer(), &job.posted, *reason).ok(),
                _ => None,
            };
            if let Some(body) = body {
                self.send(key.job.clone(), body, key, "post_once_more", span);
            }
        }
        let all = async { while self.sends.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_SENDS, all).await.is_err() {
            tracing::warn!("some messages were not handed over in time");
        }
    }

    fn cancel_all(&mut self) {
        for flag in self.stops.values() {
            flag.store(true, Ordering::Relaxed);
        }
        self.opened.clear();
    }

    fn signer(&self) -> Signer<'_> {
        Signer { keys: &self.keys, network_id: self.network_id, model: self.model }
    }

    fn span(&self, key: &JobKey) -> Span {
        let state = self.state.jobs.get(key).map_or("none", |job| job.phase.name());
        tracing::info_span!("job", job = %key.job, state)
    }

    fn report(&self, step: Step<'_>) {
        if let Some(on_step) = &self.on_step {
            on_step(&step);
        }
    }
}

/// Reads block after block. An error moves nothing, so reading again loses and repeats nothing.
async fn follow<C: ChainAccess + ?Sized>(
    chain: Arc<C>,
    scope: Scope,
    mut cursor: Option<TxId>,
    followed: watch::Receiver<Vec<JobKey>>,
    observed_to: mpsc::Sender<Result<Observation, WorkerError>>,
) {
    let mut seen = None;
    let is_new = cursor.is_none();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let keys = followed.borrow().clone();
        let is_first = is_new && seen.is_none();
        match read_next(chain.as_ref(), &scope, seen, cursor, &keys, is_first).await {
            Ok(Some(observation)) => {
                seen = Some(observation.block.seqno);
                cursor = observation.cursor;
                pause = SHORTEST_PAUSE;
                if observed_to.send(Ok(observation)).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) if is_final(&error) => {
                // The daemon may have stopped already.
                let _ = observed_to.send(Err(error)).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "reading the chain; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn read_next<C: ChainAccess + ?Sized>(
    chain: &C,
    scope: &Scope,
    seen: Option<u32>,
    cursor: Option<TxId>,
    followed: &[JobKey],
    is_first: bool,
) -> Result<Option<Observation>, WorkerError> {
    let block = match seen {
        None => chain.head().await?,
        Some(seqno) => match chain.wait_block(seqno.saturating_add(1), BLOCK_WAIT).await {
            Ok(next) => {
                let head = chain.head().await?;
                if head.seqno > next.seqno { head } else { next }
            }
            Err(ChainError::Timeout { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        },
    };
    observe_block(chain, scope, &block, cursor, followed, is_first).await.map(Some)
}

/// A server's fault passes or another server answers; ours does not.
fn is_final(error: &WorkerError) -> bool {
    match error {
        WorkerError::Chain(error) => {
            matches!(error, ChainError::HistoryMismatch { .. } | ChainError::Caller(_))
        }
        _ => true,
    }
}

struct Registrar<C: ?Sized> {
    chain: Arc<C>,
    registrant: Registrant,
    keys: Arc<Keys>,
    source: Arc<dyn AttestationSource>,
    collateral: Arc<dyn CollateralSource>,
    wallet: Option<Arc<dyn OwnerWallet>>,
}

impl<C: ChainAccess + ?Sized + 'static> Registrar<C> {
    /// Keeps the worker staked, attested and on offer.
    async fn run(self, mut worker_seen: watch::Receiver<WorkerSeen>) {
        let mut next_s = 0;
        let mut last = (Needs::default(), RETRY_S);
        while worker_seen.changed().await.is_ok() {
            let Some((block, facts)) = worker_seen.borrow_and_update().clone() else { continue };
            let needs = self.registrant.needs(facts.as_ref(), &self.keys, block.time_s);
            if !needs.any() || block.time_s < next_s {
                continue;
            }
            tracing::info!(
                stake = %needs.stake,
                float = %needs.float,
                attestation = needs.attestation,
                offer = needs.offer,
                "the worker's contract needs its owner"
            );
            match self.transfers(&needs, facts.as_ref()).await {
                Ok(transfers) => self.deliver(&transfers, needs.attestation).await,
                Err(error) => tracing::error!(%error, "the registration could not be built"),
            }
            // What did not help is not worth its gas every minute.
            let wait_s = if last.0 == needs { (last.1 * 2).min(LONGEST_RETRY_S) } else { RETRY_S };
            next_s = block.time_s.saturating_add(wait_s);
            last = (needs, wait_s);
        }
    }

    async fn transfers(
        &self,
        needs: &Needs,
        facts: Option<&WorkerFacts>,
    ) -> Result<Vec<Transfer>, RegistrationError> {
        let proven = match needs.attestation {
            true => Some(self.prove(facts.map_or(0, |facts| facts.registration_seqno)).await?),
            false => None,
        };
        self.registrant.transfers(needs, proven.as_ref())
    }

    async fn prove(&self, registration_seqno: u32) -> Result<Proven, RegistrationError> {
        let chain = self.chain.as_ref();
        let block = recent_block(chain).await.map_err(ClientError::from)?;
        let head = chain.head().await.map_err(ClientError::from)?;
        let held = read_attestor(chain, &self.registrant.network, &head).await?.storage;
        let (registrant, keys) = (self.registrant.clone(), self.keys.clone());
        let (source, collateral) = (self.source.clone(), self.collateral.clone());
        let made = tokio::task::spawn_blocking(move || {
            let collateral = match collateral.collateral() {
                Ok(collateral) => Some(collateral),
                // The Attestor may have what is needed from somebody else.
                Err(error) => {
                    tracing::warn!(%error, "nothing is posted to the Attestor");
                    None
                }
            };
            registrant.prove(source.as_ref(), collateral.as_ref(), &keys, registration_seqno, &block, &held)
        });
        made.await.unwrap_or_else(|_| {
            Err(AttestationError::Failed { detail: "the source of quotes panicked".into() }.into())
        })
    }

    /// Sends them, or says what to send.
    async fn deliver(&self, transfers: &[Transfer], registers: bool) {
        let Some(wallet) = &self.wallet else {
            for transfer in transfers {
                let body = Boc::encode_base64(&transfer.body);
                let init = transfer.state_init.as_ref().and_then(|init| contracts::wire::to_cell(init).ok());
                let init = init.map(Boc::encode_base64).unwrap_or_default();
                tracing::info!(
                    owner = %self.registrant.owner,
                    to = %transfer.to,
                    value_nanoton = %transfer.value_nanoton,
                    body,
                    init,
                    "send this from the owner's wallet"
                );
            }
            return;
        };
        let confirmed = match wallet.send(transfers).await {
            Ok(confirmed) => confirmed,
            Err(error) => return tracing::error!(%error, "the owner's wallet could not send them"),
        };
        tracing::info!(messages = transfers.len(), "the owner's wallet has sent them");
        if registers {
            self.tell_outcome(confirmed).await;
        }
    }

    async fn tell_outcome(&self, confirmed: Confirmed) {
        let owner = &self.registrant.owner;
        let followed = trace::follow(self.chain.as_ref(), owner, confirmed.transaction, Limits::default());
        match followed.await {
            Ok(trace) => {
                for refusal in refusals_in(&trace) {
                    tracing::error!(%refusal, "a contract refused what the owner's wallet sent");
                }
                if is_attested(&trace) {
                    tracing::info!("the worker is attested");
                }
            }
            Err(error) => tracing::warn!(%error, "what came of the registration is not known yet"),
        }
    }
}

fn is_promised(job: &Job) -> bool {
    matches!(job.phase, Phase::Posting { .. } | Phase::Rejecting { .. })
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

const DONE_QUEUE: usize = 64;
const BLOCK_WAIT: Duration = Duration::from_secs(20);
const SHORTEST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const LAST_SENDS: Duration = Duration::from_secs(20);
/// What was sent needs some blocks to show.
const RETRY_S: u32 = 60;
const LONGEST_RETRY_S: u32 = 3_600;
