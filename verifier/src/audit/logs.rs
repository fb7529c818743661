//! What each transaction of a job has to log, and whether it did.

use contracts::HashBytes;

use contracts::job_log::{
    CloseAsked, EquivocationShown, InputDelivered, JobClosed, JobLog, JobOpened, JobTaken, JobToppedUp,
};
use tycho_types::models::Message;

use super::life::{Act, Delivery, Event, Life};
use super::steps::Step;

/// Whether every transaction logged what it did, and nothing else did.
pub(super) fn logs(life: &Life<'_>) -> Result<String, String> {
    let mut logged = 0;
    let mut acts = life.acts.iter().peekable();
    for step in life.steps {
        let due = if step.lt == life.post.lt {
            Some(opened(life))
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

/// Of the posting.
pub(super) fn opened(life: &Life<'_>) -> JobLog {
    let (opcode, terms_hash) = (life.opening.opcode(), life.opening.terms_hash());
    let (until, deposit) = (life.posted.until, life.posted.deposit);
    JobLog::Opened(JobOpened { opcode, until, deposit, terms_hash })
}

/// Of what came after it.
pub(super) fn due(act: &Act<'_>) -> Option<JobLog> {
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
    let parse = |message: &contracts::Cell| {
        let parsed = message.parse::<Message<'_>>().map_err(|error| error.to_string())?;
        let mut body = parsed.body;
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
