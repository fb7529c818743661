//! What the worker decides, as a function of what it has seen.
//!
//! [`step`] takes a state and an event and returns effects. It reads no clock, no chain and no file: time comes with
//! [`Event::Tick`], everything else with the other events. Events may be repeated, late or out of order.
//!
//! Three things hold whatever happens, and whenever the process dies:
//! - of one posting, at most one claim order can still be executed at any time;
//! - of one posting, at most one receipt is ever posted, and it is the one the journal holds;
//! - a claimed job ends with a receipt or a rejection, unless its deadline passes first.
//!
//! Two different receipts of one posting cost the stake: that the journal holds the one before anybody sees it is what the
//! second of these rests on. Where the journal itself is new, jobs from before it are given back unanswered.

mod decide;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use contracts::HashBytes;
use contracts::errors::RejectionReason;
use contracts::job::JobStatus;

pub use decide::{Decision, Declined, Delay, decide};
pub use types::{
    AttestedKeys, Due, Effect, End, Event, Job, JobFacts, JobKey, OfferFacts, Order, Phase, Policy,
    PostedJob, ServedModel, SignedReceipt, WorkerFacts,
};

/// Everything the worker remembers. What has to outlive the process is `jobs`; the rest is read from the chain again.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Jobs that are not forgotten, by posting.
    pub jobs: BTreeMap<JobKey, Job>,
    /// Our contract, as last read.
    pub worker: Option<WorkerFacts>,
    /// The chain's time, Unix seconds; 0 before the first tick.
    pub now_s: u32,
    dirty: BTreeSet<JobKey>,
}

impl State {
    /// The state after a start, from what the journal held.
    pub fn restored(jobs: BTreeMap<JobKey, Job>) -> Self {
        Self { jobs, ..Self::default() }
    }

    /// The jobs that changed or vanished since the last call: what the journal has to write.
    pub fn take_dirty(&mut self) -> BTreeSet<JobKey> {
        std::mem::take(&mut self.dirty)
    }

    /// Jobs between their begin and their end.
    pub fn active(&self) -> usize {
        self.jobs.values().filter(|job| job.phase.is_active()).count()
    }

    /// Jobs whose account is worth reading at each block.
    pub fn followed(&self) -> impl Iterator<Item = &JobKey> {
        self.jobs.iter().filter(|(_, job)| !matches!(job.phase, Phase::Closed { .. })).map(|(key, _)| key)
    }

    fn set(&mut self, key: &JobKey, phase: Phase) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.phase = phase;
            job.sent_at_s = None;
            self.dirty.insert(key.clone());
        }
    }

    fn drop_job(&mut self, key: &JobKey) {
        if self.jobs.remove(key).is_some() {
            self.dirty.insert(key.clone());
        }
    }

    /// The one job whose order may be on its way.
    fn ordered(&self) -> Option<(&JobKey, &Order, bool)> {
        self.jobs.iter().find_map(|(key, job)| match &job.phase {
            Phase::Ordered { order, taken } => Some((key, order, *taken)),
            _ => None,
        })
    }

    fn used_seqno(&mut self, seqno: u32) {
        if let Some(worker) = &mut self.worker {
            worker.claim_seqno = worker.claim_seqno.max(seqno.saturating_add(1));
        }
    }
}

/// What `event` changes in `state`, and what is to be done about it.
///
/// The caller writes [`State::take_dirty`] to the journal before it runs an effect.
pub fn step(policy: &Policy, state: &mut State, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    match event {
        Event::Restarted => resume(policy, state, &mut effects),
        Event::Tick { now_s } => tick(policy, state, now_s, &mut effects),
        Event::WorkerRead(facts) => worker_read(policy, state, facts),
        Event::Posted { posted, facts, before_us } => {
            posted_seen(policy, state, *posted, &facts, before_us, &mut effects);
        }
        Event::JobRead { key, facts } => job_read(policy, state, &key, &facts, &mut effects),
        Event::OrderTaken { seqno, client, nonce } => {
            let found = state.ordered().filter(|(_, order, _)| order.seqno == seqno);
            if let Some((key, order, _)) =
                found.map(|(key, order, taken)| (key.clone(), order.clone(), taken))
            {
                let is_ours = order.client == client && order.nonce == nonce;
                // Another order used the number up: ours can no longer be executed.
                let phase = if is_ours { Phase::Ordered { order, taken: true } } else { Phase::Weighed };
                state.set(&key, phase);
            }
            state.used_seqno(seqno);
        }
        Event::ClaimRefused { seqno } => {
            let found = state.ordered().filter(|(_, order, _)| order.seqno == seqno);
            if let Some(key) = found.map(|(key, _, _)| key.clone()) {
                close(policy, state, &key, End::ClaimRefused, &mut effects);
            }
            state.used_seqno(seqno);
        }
        Event::InputOpened { key } => {
            if state.jobs.get(&key).is_some_and(|job| job.phase == Phase::Weighing) {
                state.set(&key, Phase::Weighed);
            }
            if let Some(due) = due_if(state, &key, |phase| matches!(phase, Phase::Opening { .. })) {
                state.set(&key, Phase::Inferring { due });
                effects.push(Effect::Infer { key });
            }
        }
        Event::Unservable { key, reason } => {
            if let Some(job) = state.jobs.get(&key)
                && job.phase == Phase::Weighing
            {
                let due = Due { claimed: false, by_s: job.posted.until };
                reject(state, &key, due, reason, &mut effects);
            }
            let before_answer =
                |phase: &Phase| matches!(phase, Phase::Opening { .. } | Phase::Inferring { .. });
            if let Some(due) = due_if(state, &key, before_answer) {
                reject(state, &key, due, reason, &mut effects);
            }
        }
        Event::Answered { key, receipt } => {
            if let Some(due) = due_if(state, &key, |phase| matches!(phase, Phase::Inferring { .. })) {
                state.set(&key, Phase::Posting { due, receipt });
                post(state, &key, &mut effects);
            }
        }
    }
    schedule(policy, state, &mut effects);
    effects
}

/// What was begun before the process ended, begun again. Nothing here can make a second claim or a second receipt: an
/// order signs to the same bytes, a receipt is posted as the journal holds it, and until it is there nobody saw one.
///
/// What only a key of before could do is given up: a job under it is neither opened nor given back with another.
fn resume(policy: &Policy, state: &mut State, effects: &mut Vec<Effect>) {
    state.worker = None;
    let keys: Vec<JobKey> = state.jobs.keys().cloned().collect();
    for key in keys {
        let Some(job) = state.jobs.get(&key) else { continue };
        let is_our_key = job.posted.receipt_key == policy.receipt_key;
        match &job.phase {
            Phase::Opening { .. } | Phase::Inferring { .. } | Phase::Rejecting { .. } if !is_our_key => {
                close(policy, state, &key, End::OtherKey, effects);
            }
            Phase::Ordered { taken: false, .. } | Phase::Posting { .. } | Phase::Rejecting { .. } => {
                post(state, &key, effects);
            }
            Phase::Weighing | Phase::Weighed => state.set(&key, Phase::Waiting),
            Phase::Opening { .. } => effects.push(Effect::OpenInput { key }),
            Phase::Inferring { due } => {
                let due = *due;
                state.set(&key, Phase::Opening { due });
                effects.push(Effect::OpenInput { key });
            }
            _ => {}
        }
    }
}

fn tick(policy: &Policy, state: &mut State, now_s: u32, effects: &mut Vec<Effect>) {
    state.now_s = state.now_s.max(now_s);
    let now_s = state.now_s;
    let keys: Vec<JobKey> = state.jobs.keys().cloned().collect();
    for key in keys {
        let Some(job) = state.jobs.get(&key) else { continue };
        let is_due = job.sent_at_s.is_none_or(|sent_s| now_s >= sent_s.saturating_add(policy.resend_every_s));
        match &job.phase {
            Phase::Waiting | Phase::Weighing | Phase::Weighed if now_s > job.posted.until => {
                state.drop_job(&key);
                effects.push(Effect::Decline { key, reason: Declined::TooLate });
            }
            Phase::Ordered { order, taken: false } if is_due && now_s <= order.valid_until_s => {
                post(state, &key, effects);
            }
            Phase::Opening { due } | Phase::Inferring { due }
                if now_s > due.by_s.saturating_add(policy.grace_s) =>
            {
                close(policy, state, &key, End::Missed, effects);
            }
            Phase::Posting { due, .. } | Phase::Rejecting { due, .. } => {
                if now_s > due.by_s.saturating_add(policy.grace_s) {
                    close(policy, state, &key, End::Missed, effects);
                } else if is_due && now_s <= due.by_s {
                    post(state, &key, effects);
                }
            }
            Phase::Closed { forget_at_s, .. } if now_s > *forget_at_s => state.drop_job(&key),
            _ => {}
        }
    }
}

fn worker_read(policy: &Policy, state: &mut State, mut facts: WorkerFacts) {
    if let Some(known) = &state.worker {
        if facts.as_of_s < known.as_of_s {
            return;
        }
        facts.claim_seqno = facts.claim_seqno.max(known.claim_seqno);
    }
    let (as_of_s, next_seqno) = (facts.as_of_s, facts.claim_seqno);
    state.worker = Some(facts);
    let Some((key, order, false)) = state.ordered() else { return };
    let is_dead = as_of_s > order.valid_until_s.saturating_add(policy.grace_s);
    if is_dead && next_seqno <= order.seqno {
        let key = key.clone();
        state.set(&key, Phase::Weighed);
    } else if is_dead {
        // The number is used up and we did not see by whom: perhaps by our order, which the job then refused.
        let key = key.clone();
        close(policy, state, &key, End::ClaimRefused, &mut Vec::new());
    }
}

fn posted_seen(
    policy: &Policy,
    state: &mut State,
    posted: PostedJob,
    facts: &JobFacts,
    before_us: bool,
    effects: &mut Vec<Effect>,
) {
    let key = posted.key.clone();
    if state.jobs.contains_key(&key) {
        return job_read(policy, state, &key, facts, effects);
    }
    let is_open = facts.status == JobStatus::Open;
    let is_claimed = facts.status == JobStatus::Claimed;
    if is_open && !before_us {
        return match decide(policy, state.worker.as_ref(), &posted, state.now_s) {
            Decision::Decline(reason) => effects.push(Effect::Decline { key, reason }),
            Decision::Answer | Decision::Claim { .. } | Decision::Wait(_) => {
                let waiting = state.jobs.values().filter(|job| job.phase.is_waiting()).count();
                if waiting >= policy.max_waiting {
                    effects.push(Effect::Decline { key, reason: Declined::QueueFull });
                } else {
                    state.jobs.insert(key.clone(), Job { posted, phase: Phase::Waiting, sent_at_s: None });
                    state.dirty.insert(key);
                }
            }
        };
    }
    // Claimed by us, or open to us before this journal began: what the journal knew of it was lost, and with it what we may
    // have signed. Only a rejection is certain not to be a second receipt.
    let is_ours = posted.worker == policy.worker.address && posted.receipt_key == policy.receipt_key;
    if (is_open || is_claimed) && is_ours && state.now_s <= facts.until {
        let due = Due { claimed: is_claimed, by_s: facts.until };
        state.jobs.insert(key.clone(), Job { posted, phase: Phase::Opening { due }, sent_at_s: None });
        reject(state, &key, due, RejectionReason::EngineFailure, effects);
    }
}

fn job_read(policy: &Policy, state: &mut State, key: &JobKey, facts: &JobFacts, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get_mut(key) else { return };
    if matches!(job.phase, Phase::Closed { .. }) {
        return;
    }
    if facts.status.is_closed() {
        return close(policy, state, key, End::of(facts.status), effects);
    }
    if facts.status != JobStatus::Claimed {
        return;
    }
    let due = Due { claimed: true, by_s: facts.until };
    if let Some(known) = job.phase.due_mut() {
        if *known != due {
            *known = due;
            state.dirty.insert(key.clone());
        }
        return;
    }
    let is_our_key = job.posted.receipt_key == policy.receipt_key;
    if let Phase::Ordered { order, .. } = &job.phase {
        let seqno = order.seqno;
        state.used_seqno(seqno);
    }
    if is_our_key {
        state.set(key, Phase::Opening { due });
        effects.push(Effect::OpenInput { key: key.clone() });
    } else {
        close(policy, state, key, End::OtherKey, effects);
    }
}

/// Begins what there is room for. What is to be claimed is weighed first: no bond is put up for a job that cannot be answered,
/// and its client has its deposit back at once. Claims go one at a time: the contract numbers orders, so a second would wait for the first
/// anyway.
fn schedule(policy: &Policy, state: &mut State, effects: &mut Vec<Effect>) {
    if state.now_s == 0 || state.worker.is_none() {
        return;
    }
    let mut waiting: Vec<(u32, JobKey)> = state
        .jobs
        .iter()
        .filter(|(_, job)| job.phase.is_waiting())
        .map(|(key, job)| (job.posted.until, key.clone()))
        .collect();
    waiting.sort();
    for (_, key) in waiting {
        if state.active() >= policy.max_jobs {
            return;
        }
        let Some(job) = state.jobs.get(&key) else { continue };
        match decide(policy, state.worker.as_ref(), &job.posted, state.now_s) {
            Decision::Wait(_) => {}
            Decision::Decline(reason) => {
                state.drop_job(&key);
                effects.push(Effect::Decline { key, reason });
            }
            Decision::Answer => {
                let due = Due { claimed: false, by_s: job.posted.until };
                state.set(&key, Phase::Opening { due });
                effects.push(Effect::OpenInput { key });
            }
            Decision::Claim { .. } if job.phase == Phase::Waiting => {
                state.set(&key, Phase::Weighing);
                effects.push(Effect::OpenInput { key });
            }
            Decision::Claim { bond } => {
                let (Some(worker), Some(model), None) =
                    (&state.worker, policy.model_at(&job.posted.model), state.ordered())
                else {
                    continue;
                };
                let order = Order {
                    seqno: worker.claim_seqno,
                    valid_until_s: state.now_s.saturating_add(policy.order_valid_s).min(job.posted.until),
                    client: job.posted.client.clone(),
                    nonce: job.posted.nonce,
                    model_id: model.model_id,
                    bond,
                };
                state.set(&key, Phase::Ordered { order, taken: false });
                post(state, &key, effects);
            }
        }
    }
}

/// Sends what the job's phase has to send.
fn post(state: &mut State, key: &JobKey, effects: &mut Vec<Effect>) {
    let now_s = state.now_s;
    let Some(job) = state.jobs.get_mut(key) else { return };
    let key = key.clone();
    effects.push(match &job.phase {
        Phase::Ordered { order, .. } => Effect::SubmitClaim { key, order: order.clone() },
        Phase::Posting { receipt, .. } => Effect::PostReceipt { key, receipt: receipt.clone() },
        Phase::Rejecting { reason, .. } => Effect::PostRejection { key, reason: *reason },
        _ => return,
    });
    job.sent_at_s = Some(now_s);
}

fn reject(state: &mut State, key: &JobKey, due: Due, reason: RejectionReason, effects: &mut Vec<Effect>) {
    state.set(key, Phase::Rejecting { due, reason });
    post(state, key, effects);
}

/// A closed job is remembered until no message about it can be of use, so that a repeated event finds it.
fn close(policy: &Policy, state: &mut State, key: &JobKey, end: End, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(key) else { return };
    let last_s = job.posted.until.saturating_add(job.posted.settle_within_s);
    let forget_at_s = last_s.saturating_add(policy.grace_s);
    state.set(key, Phase::Closed { end, forget_at_s });
    effects.push(Effect::Forget { key: key.clone(), end });
}

fn due_if(state: &State, key: &JobKey, matches: impl Fn(&Phase) -> bool) -> Option<Due> {
    let phase = &state.jobs.get(key)?.phase;
    if matches(phase) { phase.due() } else { None }
}

/// The key of an attestation that is not ours.
fn is_our_key(policy: &Policy, receipt_key: &HashBytes, encryption_key: &HashBytes) -> bool {
    *receipt_key == policy.receipt_key && *encryption_key == policy.encryption_key
}

#[cfg(test)]
mod tests;
