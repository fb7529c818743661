//! The steps that make a job's life, found among everything its account was sent.

use contracts::job::{
    CancelJob, ExpireJob, JobStatus, JobStorage, PostJob, PostReceipt, PostRejection, SweepJob, TakeJob,
};
use contracts::wire::from_cell;
use contracts::{Message as _, StdAddr};

use super::JobHistory;
use super::steps::Step;

/// One posting and what became of it.
pub(super) struct Life<'a> {
    pub(super) client: StdAddr,
    pub(super) nonce: u64,
    pub(super) post: &'a Step,
    pub(super) posting: PostJob,
    pub(super) taken: Option<Taken<'a>>,
    pub(super) end: End<'a>,
    /// The rent that was left went to the client, and the account away.
    pub(super) swept: bool,
    /// Every step of the account that belongs to this posting, the sweep apart.
    pub(super) steps: &'a [Step],
}

/// The claim that the job took.
pub(super) struct Taken<'a> {
    pub(super) step: &'a Step,
    pub(super) message: TakeJob,
}

/// How it ended.
pub(super) enum End<'a> {
    Unfinished,
    Settled(&'a Step, Box<PostReceipt>),
    Rejected(&'a Step, Box<PostRejection>),
    Expired(&'a Step),
    Cancelled(&'a Step),
}

impl<'a> Life<'a> {
    /// The newest posting of the account. One that was swept is over, and a later one at the same address is another.
    pub(super) fn read(history: &JobHistory, steps: &'a [Step]) -> Result<Self, String> {
        let (client, nonce) = identity(history, steps)?;
        let swept = steps.last().is_some_and(|step| is(step, SweepJob::OPCODE, false));
        let closed = if swept { steps.len() - 1 } else { steps.len() };
        let began = steps[..closed].iter().rposition(|step| is(step, SweepJob::OPCODE, false));
        let own = &steps[began.map_or(0, |at| at + 1)..closed];

        let post = once("post_job", own, PostJob::OPCODE, false)?.ok_or("there is no post_job")?;
        let take = once("take_job", own, TakeJob::OPCODE, false)?;
        let ends = [
            once("post_receipt", own, PostReceipt::OPCODE, true)?,
            once("post_rejection", own, PostRejection::OPCODE, true)?,
            once("expire_job", own, ExpireJob::OPCODE, false)?,
            once("cancel_job", own, CancelJob::OPCODE, false)?,
        ];
        let ending = match ends.iter().flatten().collect::<Vec<_>>().as_slice() {
            [] => None,
            [one] => Some(**one),
            _ => return Err("it ended more than once".into()),
        };
        let taken_lt = take.map_or(post.lt, |take| take.lt);
        if taken_lt < post.lt || ending.is_some_and(|end| end.lt <= taken_lt) {
            return Err("its steps are out of order".into());
        }
        if swept && ending.is_none() {
            return Err("it was swept before its end".into());
        }
        let shape = |error: contracts::WireError| error.to_string();
        let end = match ends {
            [Some(step), ..] => {
                End::Settled(step, Box::new(PostReceipt::from_cell(&step.body).map_err(shape)?))
            }
            [_, Some(step), ..] => {
                End::Rejected(step, Box::new(PostRejection::from_cell(&step.body).map_err(shape)?))
            }
            [_, _, Some(step), _] => End::Expired(step),
            [.., Some(step)] => End::Cancelled(step),
            _ => End::Unfinished,
        };
        let taken = match take {
            Some(step) => Some(Taken { step, message: TakeJob::from_cell(&step.body).map_err(shape)? }),
            None => None,
        };
        match (&end, &taken) {
            (End::Settled(..) | End::Rejected(..), None) => {
                return Err("it was answered but not claimed".into());
            }
            (End::Cancelled(_), Some(_)) => return Err("it was cancelled after a claim".into()),
            _ => {}
        }
        let posting = PostJob::from_cell(&post.body).map_err(shape)?;
        Ok(Self { client, nonce, post, posting, taken, end, swept, steps: own })
    }

    pub(super) fn status(&self) -> JobStatus {
        match (&self.end, &self.taken) {
            (End::Settled(..), _) => JobStatus::Settled,
            (End::Rejected(..), _) => JobStatus::Rejected,
            (End::Expired(_), _) => JobStatus::Expired,
            (End::Cancelled(_), _) => JobStatus::Cancelled,
            (End::Unfinished, Some(_)) => JobStatus::Claimed,
            (End::Unfinished, None) => JobStatus::Open,
        }
    }

    /// The transaction that ended it.
    pub(super) fn end_step(&self) -> Option<&'a Step> {
        match self.end {
            End::Unfinished => None,
            End::Settled(step, _) | End::Rejected(step, _) | End::Expired(step) | End::Cancelled(step) => {
                Some(step)
            }
        }
    }

    /// Last moment of what it waits for, Unix seconds: the claim, or the receipt of the claim.
    pub(super) fn deadline_s(&self) -> u32 {
        match &self.taken {
            Some(taken) => taken.step.at_s.saturating_add(self.posting.terms.settle_within_s),
            None => self.posting.terms.claim_by,
        }
    }
}

/// Whether the step is this message and did what it asked.
fn is(step: &Step, opcode: u32, external: bool) -> bool {
    step.succeeded && !step.bounced && step.external == external && step.opcode() == Some(opcode)
}

fn once<'a>(what: &str, steps: &'a [Step], opcode: u32, external: bool) -> Result<Option<&'a Step>, String> {
    let mut found = steps.iter().filter(|step| is(step, opcode, external));
    let first = found.next();
    match found.count() {
        0 => Ok(first),
        more => Err(format!("there are {} times {what}", more + 1)),
    }
}

/// Client and nonce: from the initial data that gives this address, which anybody may have brought, before or with the
/// posting; else from the first that came.
fn identity(history: &JobHistory, steps: &[Step]) -> Result<(StdAddr, u64), String> {
    let mut first = None;
    for data in steps.iter().filter_map(|step| step.deployed_with.as_ref()) {
        let Ok(storage) = from_cell::<JobStorage>(data) else { continue };
        let found = (storage.client, storage.nonce);
        if history.network.job_address(&found.0, found.1).is_ok_and(|address| address == history.job) {
            return Ok(found);
        }
        first.get_or_insert(found);
    }
    first.ok_or_else(|| "no message brought the job's initial data".to_owned())
}
