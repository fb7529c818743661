//! What the worker decides, as a function of what it has seen.
//!
//! [`step`] takes a state and an event and returns effects. It reads no clock, no chain and no file: time comes with
//! [`Event::Tick`], everything else with the other events. Events may be repeated, late or out of order.
//!
//! Three things hold whatever happens, and whenever the process dies:
//! - of one posting, at most one claim order can still be executed at any time;
//! - of one posting, at most one receipt is ever posted, and it is the one the journal holds;
//! - a claimed job ends with a receipt or a rejection, unless its deadline passes first.

mod decide;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use contracts::HashBytes;
use contracts::errors::RejectionReason;
use contracts::job::JobStatus;

pub use decide::{Decision, Declined, Delay, decide};
pub use types::{
    AttestedKeys, ClaimFacts, Effect, End, Event, Job, JobFacts, JobKey, Order, Phase, Policy, PostedJob,
    SignedReceipt, WorkerFacts,
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

    /// Jobs between the claim order and the end.
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
        Event::Posted { posted, facts } => posted_seen(policy, state, *posted, &facts, &mut effects),
        Event::JobRead { key, facts } => job_read(policy, state, &key, &facts, &mut effects),
        Event::OrderTaken { seqno, client, nonce } => {
            let found = state.ordered().filter(|(_, order, _)| order.seqno == seqno);
            if let Some((key, order, _)) =
                found.map(|(key, order, taken)| (key.clone(), order.clone(), taken))
            {
                let is_ours = order.client == client && order.nonce == nonce;
                // Another order used the number up: ours can no longer be executed.
                let phase = if is_ours { Phase::Ordered { order, taken: true } } else { Phase::Waiting };
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
            if let Some(claim) = claim_if(state, &key, |phase| matches!(phase, Phase::Opening { .. })) {
                state.set(&key, Phase::Inferring { claim });
                effects.push(Effect::Infer { key });
            }
        }
        Event::Unservable { key, reason } => {
            let before_answer =
                |phase: &Phase| matches!(phase, Phase::Opening { .. } | Phase::Inferring { .. });
            if let Some(claim) = claim_if(state, &key, before_answer) {
                reject(state, &key, claim, reason, &mut effects);
            }
        }
        Event::Answered { key, receipt } => {
            if let Some(claim) = claim_if(state, &key, |phase| matches!(phase, Phase::Inferring { .. })) {
                state.set(&key, Phase::Posting { claim, receipt });
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
/// What only a key of before could do is given up: a claim under it is neither opened nor given back with another.
fn resume(policy: &Policy, state: &mut State, effects: &mut Vec<Effect>) {
    state.worker = None;
    let keys: Vec<JobKey> = state.jobs.keys().cloned().collect();
    for key in keys {
        match state.jobs.get(&key).map(|job| job.phase.clone()) {
            Some(Phase::Opening { claim } | Phase::Inferring { claim } | Phase::Rejecting { claim, .. })
                if claim.receipt_key != policy.receipt_key =>
            {
                close(policy, state, &key, End::OtherKey, effects);
            }
            Some(Phase::Ordered { taken: false, .. } | Phase::Posting { .. } | Phase::Rejecting { .. }) => {
                post(state, &key, effects);
            }
            Some(Phase::Opening { .. }) => effects.push(Effect::OpenInput { key }),
            Some(Phase::Inferring { claim }) => {
                state.set(&key, Phase::Opening { claim });
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
            Phase::Waiting if now_s > job.posted.claim_by => {
                state.drop_job(&key);
                effects.push(Effect::Decline { key, reason: Declined::TooLate });
            }
            Phase::Ordered { order, taken: false } if is_due && now_s <= order.valid_until_s => {
                post(state, &key, effects);
            }
            Phase::Opening { claim } | Phase::Inferring { claim }
                if now_s > claim.settle_by.saturating_add(policy.grace_s) =>
            {
                close(policy, state, &key, End::Missed, effects);
            }
            Phase::Posting { claim, .. } | Phase::Rejecting { claim, .. } => {
                if now_s > claim.settle_by.saturating_add(policy.grace_s) {
                    close(policy, state, &key, End::Missed, effects);
                } else if is_due && now_s <= claim.settle_by {
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
        state.set(&key, Phase::Waiting);
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
    effects: &mut Vec<Effect>,
) {
    let key = posted.key.clone();
    if state.jobs.contains_key(&key) {
        return job_read(policy, state, &key, facts, effects);
    }
    match (facts.status, &facts.claim) {
        (JobStatus::Open, _) => match decide(policy, state.worker.as_ref(), &posted, state.now_s) {
            Decision::Decline(reason) => effects.push(Effect::Decline { key, reason }),
            Decision::Claim { .. } | Decision::Wait(_) => {
                let waiting = state.jobs.values().filter(|job| matches!(job.phase, Phase::Waiting)).count();
                if waiting >= policy.max_waiting {
                    effects.push(Effect::Decline { key, reason: Declined::QueueFull });
                } else {
                    state.jobs.insert(key.clone(), Job { posted, phase: Phase::Waiting, sent_at_s: None });
                    state.dirty.insert(key);
                }
            }
        },
        // Our claim, and the journal does not know it: it was lost, and with it what we may have signed. Only a
        // rejection is certain not to be a second receipt.
        (JobStatus::Claimed, Some(claim))
            if claim.receipt_key == policy.receipt_key && state.now_s <= claim.settle_by =>
        {
            let phase = Phase::Opening { claim: claim.clone() };
            state.jobs.insert(key.clone(), Job { posted, phase, sent_at_s: None });
            reject(state, &key, claim.clone(), RejectionReason::EngineFailure, effects);
        }
        _ => {}
    }
}

fn job_read(policy: &Policy, state: &mut State, key: &JobKey, facts: &JobFacts, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(key) else { return };
    let seqno = match &job.phase {
        Phase::Closed { .. } => return,
        Phase::Ordered { order, .. } => Some(order.seqno),
        _ => None,
    };
    if facts.status.is_closed() {
        return close(policy, state, key, End::of(facts.status), effects);
    }
    let (JobStatus::Claimed, Some(claim)) = (facts.status, &facts.claim) else { return };
    if !matches!(job.phase, Phase::Waiting | Phase::Ordered { .. }) {
        return;
    }
    if let Some(seqno) = seqno {
        state.used_seqno(seqno);
    }
    if claim.receipt_key == policy.receipt_key {
        state.set(key, Phase::Opening { claim: claim.clone() });
        effects.push(Effect::OpenInput { key: key.clone() });
    } else {
        close(policy, state, key, End::OtherKey, effects);
    }
}

/// Orders the next claim. One at a time: the contract numbers orders, so a second would wait for the first anyway.
fn schedule(policy: &Policy, state: &mut State, effects: &mut Vec<Effect>) {
    if state.now_s == 0 || state.ordered().is_some() {
        return;
    }
    let Some(next_seqno) = state.worker.as_ref().map(|worker| worker.claim_seqno) else { return };
    let mut waiting: Vec<(u32, JobKey)> = state
        .jobs
        .iter()
        .filter(|(_, job)| matches!(job.phase, Phase::Waiting))
        .map(|(key, job)| (job.posted.claim_by, key.clone()))
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
            Decision::Claim { bond } => {
                let order = Order {
                    seqno: next_seqno,
                    valid_until_s: state.now_s.saturating_add(policy.order_valid_s).min(job.posted.claim_by),
                    client: job.posted.client.clone(),
                    nonce: job.posted.nonce,
                    model_id: job.posted.model_id,
                    bond,
                };
                state.set(&key, Phase::Ordered { order, taken: false });
                post(state, &key, effects);
                return;
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

fn reject(
    state: &mut State,
    key: &JobKey,
    claim: ClaimFacts,
    reason: RejectionReason,
    effects: &mut Vec<Effect>,
) {
    state.set(key, Phase::Rejecting { claim, reason });
    post(state, key, effects);
}

/// A closed job is remembered until no message about it can be of use, so that a repeated event finds it.
fn close(policy: &Policy, state: &mut State, key: &JobKey, end: End, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(key) else { return };
    let last_s = job.posted.claim_by.saturating_add(job.posted.settle_within_s);
    let forget_at_s = last_s.saturating_add(policy.grace_s);
    state.set(key, Phase::Closed { end, forget_at_s });
    effects.push(Effect::Forget { key: key.clone(), end });
}

fn claim_if(state: &State, key: &JobKey, matches: impl Fn(&Phase) -> bool) -> Option<ClaimFacts> {
    let phase = &state.jobs.get(key)?.phase;
    if matches(phase) { phase.claim().cloned() } else { None }
}

/// The key of an attestation that is not ours.
fn is_our_key(policy: &Policy, receipt_key: &HashBytes, encryption_key: &HashBytes) -> bool {
    *receipt_key == policy.receipt_key && *encryption_key == policy.encryption_key
}

#[cfg(test)]
mod tests;
