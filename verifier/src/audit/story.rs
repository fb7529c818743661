//! A job's story in short: once from its transactions, once from what the job logged, which must be the same.

use contracts::job::{JobStatus, OpenSession, PostOpenJob};
use contracts::job_log::{
    CloseAsked, EquivocationShown, InputDelivered, JobClosed, JobLog, JobOpened, JobTaken, JobToppedUp,
};
use contracts::money::Amount;
use contracts::{HashBytes, Message as _};
use serde::Serialize;

use super::life::{Act, Delivery, Event, Life, Opening};
use super::steps::Step;

/// What every reader of the job's logs knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    /// Opcode of the message that opened it.
    pub opened_with: u32,
    /// Of the Seller's cell, or of the market terms'.
    pub terms_hash: HashBytes,
    /// Where it is in its life.
    pub status: JobStatus,
    /// Unix time: the last moment of what it waits for, or waited for when it ended.
    pub until: u32,
    /// With what was added.
    pub deposit_nanoton: Amount,
    /// Of the claim that holds, or held, it.
    pub bond_nanoton: Amount,
    /// How many claims it took.
    pub claims: u32,
    /// The account of the Worker that claimed it last.
    pub worker: Option<HashBytes>,
    /// Of the first cell of the input of a job of the market.
    pub input_hash: Option<HashBytes>,
    /// Once it ended: to worker, publisher and treasury.
    pub paid_nanoton: Option<Amount>,
    /// Of the receipt or rejection that ended it.
    pub signed_hash: Option<HashBytes>,
    /// How often a worker was shown to have signed two receipts of one sequence.
    pub equivocations: u32,
}

impl Story {
    /// From the logs of one posting alone, oldest first; nothing where they tell no story.
    pub fn of_logs(logs: &[JobLog]) -> Option<Self> {
        let (JobLog::Opened(opened), rest) = logs.split_first()? else { return None };
        let mut story = Self {
            opened_with: opened.opcode,
            terms_hash: opened.terms_hash,
            status: if opened.opcode == OpenSession::OPCODE { JobStatus::Session } else { JobStatus::Open },
            until: opened.until,
            deposit_nanoton: opened.deposit,
            bond_nanoton: Amount::ZERO,
            claims: 0,
            worker: None,
            input_hash: None,
            paid_nanoton: None,
            signed_hash: None,
            equivocations: 0,
        };
        for log in rest {
            match log {
                JobLog::Opened(_) => return None,
                JobLog::Taken(taken) => {
                    let is_market = opened.opcode == PostOpenJob::OPCODE;
                    story.status = if is_market { JobStatus::Awaiting } else { JobStatus::Claimed };
                    story.until = taken.until;
                    story.bond_nanoton = taken.bond;
                    story.worker = Some(taken.worker);
                    story.claims = story.claims.saturating_add(1);
                }
                JobLog::InputDelivered(delivered) => {
                    story.status = JobStatus::Claimed;
                    story.until = delivered.until;
                    story.input_hash = Some(delivered.input_hash);
                }
                JobLog::CloseAsked(asked) => {
                    story.status = JobStatus::Closing;
                    story.until = asked.until;
                }
                JobLog::ToppedUp(topped_up) => story.deposit_nanoton = topped_up.deposit,
                JobLog::Closed(closed) => {
                    story.status = JobStatus::from_wire(closed.status).filter(|status| status.is_closed())?;
                    story.paid_nanoton = Some(closed.paid);
                    story.signed_hash = (closed.signed_hash != HashBytes::ZERO).then_some(closed.signed_hash);
                }
                JobLog::EquivocationShown(_) => {
                    story.equivocations = story.equivocations.saturating_add(1);
                }
            }
        }
        Some(story)
    }

    /// From what the job was sent, and nothing that it logged.
    pub(super) fn of(life: &Life<'_>) -> Self {
        let end = life.end();
        let count = |of: fn(&Event) -> bool| {
            u32::try_from(life.acts.iter().filter(|act| of(&act.event)).count()).unwrap_or(u32::MAX)
        };
        let held = end.map_or_else(|| life.state(), |end| &end.before);
        Self {
            opened_with: life.opening.opcode(),
            terms_hash: life.opening.terms_hash(),
            status: life.status(),
            until: held.until,
            deposit_nanoton: held.deposit,
            bond_nanoton: held.bond,
            claims: count(|event| matches!(event, Event::Taken(_))),
            worker: (life.takes().last())
                .and_then(|(act, _)| act.after.posting.seller.as_ref().map(|seller| seller.worker)),
            input_hash: life.acts.iter().find_map(|act| match &act.event {
                Event::Delivered(delivered) => Some(input_hash(delivered)),
                _ => None,
            }),
            paid_nanoton: end.map(|end| end.after.paid),
            signed_hash: end.and_then(signed_hash),
            equivocations: count(|event| matches!(event, Event::Equivocated(_))),
        }
    }
}

/// Whether every transaction logged what it did, and nothing else did.
pub(super) fn logs(life: &Life<'_>) -> Result<String, String> {
    let mut logged = 0;
    let mut acts = life.acts.iter().peekable();
    for step in life.steps {
        let due = if step.lt == life.post.lt {
            Some(opened(&life.opening, &life.posted.deposit, life.posted.until))
        } else if let Some(act) = acts.next_if(|act| act.step.lt == step.lt) {
            due(act)
        } else {
            None
        };
        let found = read(step)?;
        if found.as_slice() != due.as_slice() {
            return Err(format!("the transaction at lt {} logged something else than it did", step.lt));
        }
        logged += found.len();
    }
    Ok(format!("{logged} logs"))
}

fn opened(opening: &Opening, deposit: &Amount, until: u32) -> JobLog {
    let (opcode, terms_hash) = (opening.opcode(), opening.terms_hash());
    JobLog::Opened(JobOpened { opcode, until, deposit: *deposit, terms_hash })
}

fn due(act: &Act<'_>) -> Option<JobLog> {
    let (before, after) = (&act.before, &act.after);
    if act.is_end() {
        let signed_hash = signed_hash(act).unwrap_or(HashBytes::ZERO);
        return Some(JobLog::Closed(JobClosed { status: after.status as u8, paid: after.paid, signed_hash }));
    }
    let until = after.until;
    match &act.event {
        Event::Taken(take) => after.posting.seller.as_ref().map(|seller| {
            let (worker, prices) = (seller.worker, seller.prices);
            JobLog::Taken(JobTaken { worker, bond: take.bond, until, prices })
        }),
        Event::Delivered(delivered) => {
            Some(JobLog::InputDelivered(InputDelivered { input_hash: input_hash(delivered), until }))
        }
        Event::CloseAsked => Some(JobLog::CloseAsked(CloseAsked { until })),
        Event::ToppedUp(_) => Some(JobLog::ToppedUp(JobToppedUp { deposit: after.deposit })),
        Event::Equivocated(report) => Some(JobLog::EquivocationShown(EquivocationShown {
            sequence: report.one.receipt.sequence,
            penalty: before.penalty(),
        })),
        _ => None,
    }
}

fn read(step: &Step) -> Result<Vec<JobLog>, String> {
    let parse = |body: &contracts::Cell| {
        let mut body = body.as_slice().map_err(|error| error.to_string())?;
        let log = JobLog::from_slice(&mut body).map_err(|error| error.to_string())?;
        log.ok_or_else(|| format!("the transaction at lt {} logged what no job logs", step.lt))
    };
    step.logs.iter().map(parse).collect()
}

fn signed_hash(act: &Act<'_>) -> Option<HashBytes> {
    match &act.event {
        Event::Answered(post) => Some(post.receipt.hash()),
        Event::Redeemed(redeemed) => Some(redeemed.receipt.hash()),
        Event::Rejected(post) => Some(post.rejection.hash()),
        _ => None,
    }
}

fn input_hash(delivered: &Delivery) -> HashBytes {
    *delivered.input().repr_hash()
}
