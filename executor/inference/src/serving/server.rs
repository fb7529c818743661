//! The thread that runs a model for many requests, and its callers' side.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::blocks::Key;
use super::scheduler::{Job, JobId, Limits, Refusal, Scheduler, Step, Work};
use super::{Piece, Scope, ServeError, ServeLimits, ServeLoad, ServeRequest, Served};
use crate::answer::{Answer, Next};
use crate::attention::BLOCK_TOKENS;
use crate::engine::{Engine, FinishReason, GenerateParams, MAX_TOP_LOGPROBS, TokenEvent, elapsed_ms};
use crate::error::GenerateError;
use crate::model::{Cache, Span};
use crate::schema_tokens::Constraint;
use crate::stop::StopStrings;

/// Serves many requests on one model. Dropped, it ends those that are left with [`ServeError::Stopped`].
pub struct Server {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    limits: ServeLimits,
    thread: Option<JoinHandle<()>>,
}

/// The answer to one request, as it is made. Dropped before its end, it cancels the request.
pub struct Stream {
    ticket: Ticket,
    events: Receiver<Event>,
    outcome: Option<Result<Served, ServeError>>,
}

/// A request that was taken.
pub struct Ticket {
    /// None where it had ended when it was taken.
    job: Option<JobId>,
    shared: Arc<Shared>,
}

/// What comes of a request: pieces, then one end.
#[derive(Debug)]
pub enum Event {
    /// A part of the answer.
    Piece(Piece),
    /// The whole answer, or why there is none.
    End(Box<Result<Served, ServeError>>),
}

/// Where the events of one request go. Called by the thread that runs the model, so it must not block. What it returns is
/// whether anybody is still there; the answer is cancelled where nobody is. Dropped without an end, the server has stopped.
pub type EventSink = Box<dyn FnMut(Event) -> bool + Send>;

struct Shared {
    state: Mutex<State>,
    /// Something changed that the thread may wait for.
    changed: Condvar,
    /// What the scheduler's clock counts from.
    start: Instant,
    block_bytes: usize,
    held_bytes: AtomicUsize,
}

struct State {
    scheduler: Scheduler,
    /// Accepted by the scheduler, not yet seen by the thread.
    arrivals: Vec<Arrival>,
    cancelled: Vec<JobId>,
    closed: bool,
}

struct Arrival {
    job: JobId,
    prompt: Zeroizing<Vec<u32>>,
    params: GenerateParams,
    /// Compiled by the caller's thread, since that may take long.
    constraint: Option<Constraint>,
    most: usize,
    events: EventSink,
    at: Instant,
}

impl Engine {
    /// Bytes of keys and values of `requests` that fill the model's context each.
    pub fn kv_bytes(&self, requests: usize) -> usize {
        let blocks = self.model.shape().context.div_ceil(BLOCK_TOKENS);
        self.model.block_bytes().saturating_mul(blocks).saturating_mul(requests)
    }
}

impl Server {
    /// Starts serving.
    ///
    /// # Errors
    /// [`ServeError::NoRoom`], [`ServeError::Threads`].
    pub fn start(engine: Arc<Engine>, limits: ServeLimits) -> Result<Self, ServeError> {
        let block_bytes = engine.model.block_bytes();
        let blocks = limits.kv_bytes / block_bytes.max(1);
        if blocks == 0 {
            return Err(ServeError::NoRoom { budget_bytes: limits.kv_bytes, block_bytes });
        }
        let threads = |error: &dyn std::error::Error| ServeError::Threads(error.to_string());
        let pool = match limits.threads {
            Some(count) => {
                let name = |index| format!("inference-{index}");
                let pool = rayon::ThreadPoolBuilder::new().num_threads(count.max(1)).thread_name(name);
                Some(pool.build().map_err(|error| threads(&error))?)
            }
            None => None,
        };
        let scheduler = Scheduler::new(Limits {
            blocks,
            step_tokens: limits.step_tokens,
            running: limits.running,
            waiting: limits.waiting,
        });
        let state = State { scheduler, arrivals: Vec::new(), cancelled: Vec::new(), closed: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            start: Instant::now(),
            block_bytes,
            held_bytes: AtomicUsize::new(0),
        });
        let thread = {
            let (engine, shared) = (Arc::clone(&engine), Arc::clone(&shared));
            let run = move || Runner::new(&engine, &shared, pool.as_ref(), blocks).run();
            std::thread::Builder::new().name("inference".into()).spawn(run)
        };
        let thread = Some(thread.map_err(|error| threads(&error))?);
        Ok(Self { engine, shared, limits, thread })
    }

    /// The model that is served.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether a request of this size can be served at all, whatever else runs: to be asked before a job is claimed.
    ///
    /// # Errors
    /// [`ServeError::TooLarge`], or [`ServeError::Generate`] where the prompt does not fit into the model's context.
    pub fn admit(&self, prompt_tokens: usize, max_output_tokens: usize) -> Result<(), ServeError> {
        let context_tokens = self.engine.model.shape().context;
        if prompt_tokens >= context_tokens {
            return Err(GenerateError::PromptTooLong { prompt_tokens, context_tokens }.into());
        }
        let most = max_output_tokens.min(context_tokens - prompt_tokens);
        let needed_bytes = Scheduler::blocks_for(prompt_tokens, most).saturating_mul(self.shared.block_bytes);
        if needed_bytes > self.limits.kv_bytes {
            let (tokens, budget_bytes) = (prompt_tokens + most, self.limits.kv_bytes);
            return Err(ServeError::TooLarge { tokens, needed_bytes, budget_bytes });
        }
        Ok(())
    }

    /// As [`Server::admit`], for a request with these parameters, which are checked too. May take a second to understand a
    /// JSON schema.
    ///
    /// # Errors
    /// As [`Server::admit`]; [`ServeError::Generate`] for a parameter that [`Server::submit`] would refuse.
    pub fn admit_with(&self, prompt_tokens: usize, params: &GenerateParams) -> Result<(), ServeError> {
        self.admit(prompt_tokens, params.max_output_tokens)?;
        params.sampling.check()?;
        if params.top_logprobs.is_some_and(|alternatives| alternatives > MAX_TOP_LOGPROBS) {
            return Err(GenerateError::Parameter("top_logprobs").into());
        }
        StopStrings::new(&params.stop)?;
        Answer::constraint(&self.engine.text, params)?;
        Ok(())
    }

    /// Queues a request. Its answer can be read as it is made.
    ///
    /// # Errors
    /// At once, for a request that is not taken: [`ServeError::Generate`], [`ServeError::TooLarge`],
    /// [`ServeError::Busy`], [`ServeError::Stopped`].
    pub fn submit(&self, request: ServeRequest) -> Result<Stream, ServeError> {
        let (events, receiver) = channel();
        let ticket = self.submit_to(request, Box::new(move |event| events.send(event).is_ok()))?;
        Ok(Stream { ticket, events: receiver, outcome: None })
    }

    /// As [`Server::submit`], with the answer handed to `events` as it is made. Returns at once, but for a JSON schema,
    /// which may take a second to be understood.
    ///
    /// # Errors
    /// As [`Server::submit`]; `events` was not called then.
    pub fn submit_to(&self, request: ServeRequest, mut events: EventSink) -> Result<Ticket, ServeError> {
        let ServeRequest { prompt_ids, params, client, reuse_prefix, deadline } = request;
        let prompt = Zeroizing::new(prompt_ids.0.clone());
        let most = self.engine.most_output_tokens(&prompt, &params)?;
        StopStrings::new(&params.stop)?;
        let mut ticket = Ticket { job: None, shared: Arc::clone(&self.shared) };
        let vocabulary = self.engine.model.shape().vocabulary;
        if let Some(unknown) = prompt.iter().find(|id| **id as usize >= vocabulary) {
            return Err(GenerateError::UnknownToken(*unknown).into());
        }
        self.admit(prompt.len(), most)?;
        let constraint = Answer::constraint(&self.engine.text, &params)?;
        if most == 0 {
            let (generation, _) = Answer::new(&self.engine.text, &prompt, &params, constraint, 0)?
                .finish(FinishReason::Length)?;
            events(Event::End(Box::new(Ok(Served { generation, cached_input_tokens: 0, waited_ms: 0 }))));
            return Ok(ticket);
        }
        let model = &self.engine.fingerprint;
        let prefix = match reuse_prefix {
            Scope::Nobody => None,
            Scope::Client => Some(Key::root(model, &[b"client ".as_slice(), &client].concat())),
            Scope::Everyone => Some(Key::root(model, b"everyone")),
        };
        let mut state = self.shared.lock();
        if state.closed {
            return Err(ServeError::Stopped);
        }
        let deadline_ms = deadline.map(|deadline| {
            let from_start = deadline.saturating_duration_since(self.shared.start);
            u64::try_from(from_start.as_millis()).unwrap_or(u64::MAX)
        });
        let job = Job { client, prefix, prompt: prompt.clone(), most_output: most, deadline_ms };
        let job = match state.scheduler.submit(job) {
            Ok(job) => job,
            Err(Refusal::Full) => return Err(ServeError::Busy { waiting: self.limits.waiting }),
            Err(Refusal::TooLarge { blocks }) => {
                return Err(ServeError::TooLarge {
                    tokens: prompt.len() + most,
                    needed_bytes: blocks.saturating_mul(self.shared.block_bytes),
                    budget_bytes: self.limits.kv_bytes,
                });
            }
        };
        state.arrivals.push(Arrival { job, prompt, params, constraint, most, events, at: Instant::now() });
        drop(state);
        self.shared.changed.notify_all();
        ticket.job = Some(job);
        Ok(ticket)
    }

    /// Answers one request, as [`Engine::generate`] does, beside others. Blocks; `on_token` may break off.
    ///
    /// # Errors
    /// As [`Server::submit`] and [`Stream::finish`].
    pub fn generate(
        &self,
        request: ServeRequest,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Served, ServeError> {
        let mut stream = self.submit(request)?;
        let (mut tokens, mut text) = (0, Zeroizing::new(String::new()));
        while let Some(piece) = stream.next() {
            tokens += usize::from(piece.id.is_some());
            text.push_str(&piece.text);
            if on_token(TokenEvent { id: piece.id, text_piece: &piece.text }).is_break() && piece.id.is_some()
            {
                stream.cancel();
                let mut served = stream.finish()?;
                // Tokens that came after are none of the answer.
                let generation = &mut served.generation;
                generation.finish_reason = FinishReason::Cancelled;
                generation.output_ids.truncate(tokens);
                generation.logprobs.truncate(tokens);
                let whole = std::mem::replace(&mut generation.text, std::mem::take(&mut *text));
                drop(Zeroizing::new(whole));
                return Ok(served);
            }
        }
        stream.finish()
    }

    /// Its bounds.
    pub fn limits(&self) -> &ServeLimits {
        &self.limits
    }

    /// What it is busy with.
    pub fn load(&self) -> ServeLoad {
        let load = self.shared.lock().scheduler.load();
        ServeLoad {
            running: load.running,
            waiting: load.waiting,
            kv_bytes_in_use: load.blocks_in_use * self.shared.block_bytes,
            kv_bytes_held: self.shared.held_bytes.load(Ordering::Relaxed),
            preemptions: load.preemptions,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Its own panic has ended all requests already.
            let _ = thread.join();
        }
    }
}

impl Ticket {
    /// Ends the answer where it is; what was made of it is still there. Nothing where it has ended already.
    pub fn cancel(&self) {
        if let Some(job) = self.job {
            self.shared.lock().cancelled.push(job);
            self.shared.changed.notify_all();
        }
    }
}

impl Stream {
    /// Waits for the next piece. None when there are no more.
    #[allow(clippy::should_implement_trait, reason = "an iterator would be taken for one that never blocks")]
    pub fn next(&mut self) -> Option<Piece> {
        if self.outcome.is_some() {
            return None;
        }
        match self.events.recv() {
            Ok(Event::Piece(piece)) => return Some(piece),
            Ok(Event::End(outcome)) => self.outcome = Some(*outcome),
            Err(_) => self.outcome = Some(Err(ServeError::Stopped)),
        }
        None
    }

    /// Ends the answer where it is; what was made of it is still there.
    pub fn cancel(&self) {
        if self.outcome.is_none() {
            self.ticket.cancel();
        }
    }

    /// Waits for the end. Pieces that were not read are part of the answer too. A cancelled answer ends with
    /// [`FinishReason::Cancelled`].
    ///
    /// # Errors
    /// [`ServeError::Deadline`], [`ServeError::Generate`], [`ServeError::Stopped`].
    pub fn finish(mut self) -> Result<Served, ServeError> {
        while self.next().is_some() {}
        self.ticket.job = None;
        self.outcome.take().unwrap_or(Err(ServeError::Stopped))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic left is consistent: nothing under the lock stops half way but by running out of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        elapsed_ms(self.start)
    }
}

/// The thread's side.
struct Runner<'a> {
    engine: &'a Engine,
    shared: &'a Shared,
    pool: Option<&'a rayon::ThreadPool>,
    blocks: usize,
    cache: Box<dyn Cache + 'a>,
    answers: HashMap<JobId, Running<'a>>,
}

/// A request that was accepted.
struct Running<'a> {
    answer: Answer<'a>,
    events: EventSink,
    submitted: Instant,
    /// When it first went through the model.
    began: Option<Instant>,
    /// When its first token was there.
    answered: Option<Instant>,
    cached_input_tokens: usize,
}

/// What a job's logits led to.
type Choice = (JobId, Result<Next, GenerateError>);

/// A span that outlives the lock.
struct Taken {
    work: Work,
    tokens: Zeroizing<Vec<u32>>,
    start: usize,
    blocks: Vec<u32>,
    from: usize,
}

impl<'a> Runner<'a> {
    fn new(
        engine: &'a Engine,
        shared: &'a Shared,
        pool: Option<&'a rayon::ThreadPool>,
        blocks: usize,
    ) -> Self {
        Self { engine, shared, pool, blocks, cache: engine.model.cache(blocks), answers: HashMap::new() }
    }

    fn run(mut self) {
        while let Some(taken) = self.next_step() {
            match self.step(&taken) {
                Ok(chosen) => self.report(&taken, chosen),
                Err(()) => self.fail(&taken),
            }
        }
    }

    /// Waits for work. None where the server is closed.
    fn next_step(&mut self) -> Option<Vec<Taken>> {
        let mut state = self.shared.lock();
        loop {
            let arrivals = std::mem::take(&mut state.arrivals);
            for arrival in arrivals {
                self.welcome(&mut state, arrival);
            }
            for job in std::mem::take(&mut state.cancelled) {
                state.scheduler.remove(job);
                self.end(job, FinishReason::Cancelled);
            }
            if state.closed {
                // Their senders go with the answers, which tells the streams.
                state.scheduler.clear();
                return None;
            }
            let Step { work, expired } = state.scheduler.plan(self.shared.now_ms());
            for job in expired {
                if let Some(mut late) = self.answers.remove(&job) {
                    late.send_end(Err(ServeError::Deadline));
                }
            }
            if work.is_empty() {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let scheduler = &state.scheduler;
            let taken = work.into_iter().filter_map(|work| {
                let Span { tokens, start, blocks, from } = scheduler.span(&work)?;
                if let Some(running) = self.answers.get_mut(&work.job)
                    && running.began.is_none()
                {
                    running.began = Some(Instant::now());
                    running.cached_input_tokens = scheduler.found(work.job).unwrap_or(0);
                }
                let (tokens, blocks) = (Zeroizing::new(tokens.to_vec()), blocks.to_vec());
                Some(Taken { work, tokens, start, blocks, from })
            });
            return Some(taken.collect());
        }
    }

    fn welcome(&mut self, state: &mut State, arrival: Arrival) {
        let Arrival { job, prompt, params, constraint, most, mut events, at } = arrival;
        match Answer::new(&self.engine.text, &prompt, &params, constraint, most) {
            Ok(answer) => {
                let running = Running {
                    answer,
                    events,
                    submitted: at,
                    began: None,
                    answered: None,
                    cached_input_tokens: 0,
                };
                self.answers.insert(job, running);
            }
            Err(error) => {
                state.scheduler.remove(job);
                events(Event::End(Box::new(Err(error.into()))));
            }
        }
    }

    /// Runs the model and chooses the next tokens. An error means that the cache is of no use any more.
    fn step(&mut self, taken: &[Taken]) -> Result<Vec<Choice>, ()> {
        let spans: Vec<Span<'_>> = taken
            .iter()
            .map(|taken| Span {
                tokens: &taken.tokens,
                start: taken.start,
                blocks: &taken.blocks,
                from: taken.from,
            })
            .collect();
        let vocabulary = self.cache.vocabulary();
        let cache = &mut self.cache;
        let mut run = || catch_unwind(AssertUnwindSafe(|| cache.step(&spans)));
        let logits = match self.pool {
            Some(pool) => pool.install(run),
            None => run(),
        };
        let logits = match logits {
            Ok(Ok(logits)) => logits,
            Ok(Err(_)) | Err(_) => return Err(()),
        };
        self.shared.held_bytes.store(self.cache.held_bytes(), Ordering::Relaxed);
        let mut rows: HashMap<JobId, &[f32]> = taken
            .iter()
            .filter(|taken| taken.work.last)
            .map(|taken| taken.work.job)
            .zip(logits.chunks_exact(vocabulary))
            .collect();
        let mut choices: Vec<_> = self
            .answers
            .iter_mut()
            .filter_map(|(job, running)| Some((*job, &mut running.answer, rows.remove(job)?)))
            .collect();
        let mut choose =
            || choices.par_iter_mut().map(|(job, answer, row)| (*job, answer.choose(row))).collect();
        Ok(match self.pool {
            Some(pool) => pool.install(choose),
            None => choose(),
        })
    }

    fn report(&mut self, taken: &[Taken], chosen: Vec<Choice>) {
        let shared = self.shared;
        let mut state = shared.lock();
        for taken in taken {
            state.scheduler.done(&taken.work);
        }
        for (job, next) in chosen {
            let finished = match next {
                Err(error) => {
                    if let Some(mut failed) = self.answers.remove(&job) {
                        failed.send_end(Err(error.into()));
                    }
                    state.scheduler.remove(job);
                    continue;
                }
                Ok(Next::End) => Some(FinishReason::Stop),
                Ok(Next::Token { id, piece, finished }) => {
                    let Some(running) = self.answers.get_mut(&job) else { continue };
                    running.answered.get_or_insert_with(Instant::now);
                    state.scheduler.push(job, id);
                    let logprobs = running.answer.last_logprobs().cloned();
                    let piece = Piece { id: Some(id), text: piece, logprobs };
                    if (running.events)(Event::Piece(piece)) {
                        finished
                    } else {
                        Some(FinishReason::Cancelled)
                    }
                }
            };
            if let Some(reason) = finished {
                state.scheduler.remove(job);
                self.end(job, reason);
            }
        }
    }

    /// The model failed: whoever was in the step gets an error, the others start again.
    fn fail(&mut self, taken: &[Taken]) {
        let mut state = self.shared.lock();
        for Taken { work, .. } in taken {
            state.scheduler.remove(work.job);
            if let Some(mut failed) = self.answers.remove(&work.job) {
                failed.send_end(Err(GenerateError::Backend.into()));
            }
        }
        state.scheduler.forget_computed();
        self.cache = self.engine.model.cache(self.blocks);
    }

    fn end(&mut self, job: JobId, reason: FinishReason) {
        let Some(running) = self.answers.remove(&job) else { return };
        let Running { answer, mut events, submitted, began, answered, cached_input_tokens } = running;
        let now = Instant::now();
        let ms = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
        };
        let began = began.unwrap_or(now);
        let answered = answered.unwrap_or(now);
        let outcome = answer.finish(reason).map(|(mut generation, rest)| {
            (generation.prefill_ms, generation.decode_ms) = (ms(began, answered), ms(answered, now));
            if !rest.is_empty() && reason != FinishReason::Cancelled {
                events(Event::Piece(Piece { id: None, text: rest, logprobs: None }));
            }
            Served { generation, cached_input_tokens, waited_ms: ms(submitted, began) }
        });
        events(Event::End(Box::new(outcome.map_err(ServeError::from))));
    }
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        // However the thread ends, nobody waits for it any longer.
        let mut state = self.shared.lock();
        state.closed = true;
        state.arrivals.clear();
    }
}

impl Running<'_> {
    fn send_end(&mut self, outcome: Result<Served, ServeError>) {
        (self.events)(Event::End(Box::new(outcome)));
    }
}
