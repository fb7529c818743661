//! A job's transactions as the steps of its life. Pure.

use chain::{AccountTx, TxId};
use contracts::job::{
    CancelJob, ExpireJob, JobStatus, PostJob, PostReceipt, PostRejection, Seller, SweepJob, TakeJob,
};
use contracts::money::{Amount, Split};
use contracts::{Message, StdAddr};
use tycho_types::error::Error as CellError;

/// A successful step of a job.
#[derive(Debug, Clone)]
pub struct JobEvent {
    /// The job's transaction.
    pub id: TxId,
    /// When, Unix seconds.
    pub at_s: u32,
    /// What.
    pub step: JobStep,
}

/// What a step did.
#[derive(Debug, Clone)]
pub enum JobStep {
    /// The client posted it.
    Posted(Box<PostJob>),
    /// The worker put up a bond for its answer.
    Claimed {
        /// The bond.
        bond: Amount,
    },
    /// A receipt settled it.
    Settled(Box<PostReceipt>),
    /// The worker gave it back.
    Rejected(Box<PostRejection>),
    /// The client took it back.
    Cancelled,
    /// A deadline passed.
    Expired,
    /// The account is gone.
    Swept,
}

impl JobStep {
    /// A word for a progress line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Posted(_) => "posted",
            Self::Claimed { .. } => "claimed",
            Self::Settled(_) => "settled",
            Self::Rejected(_) => "rejected",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Swept => "swept",
        }
    }
}

/// The step a transaction of a Job is; `None` for one that failed or changed nothing.
///
/// The contract admitted whatever succeeded, so the opcode alone tells the step.
///
/// # Errors
/// A cell error for a transaction that does not parse.
pub fn event_of(transaction: &AccountTx) -> Result<Option<JobEvent>, CellError> {
    let Some(message) = transaction.in_message()? else { return Ok(None) };
    if message.bounced || !transaction.result()?.succeeded {
        return Ok(None);
    }
    let body = &message.body;
    let Some(opcode) = body.as_slice().ok().and_then(|slice| contracts::wire::opcode_of(&slice)) else {
        return Ok(None);
    };
    let external = message.from.is_none();
    let malformed = |_| CellError::InvalidData;
    let step = match (external, opcode) {
        (false, PostJob::OPCODE) => JobStep::Posted(Box::new(PostJob::from_cell(body).map_err(malformed)?)),
        (false, TakeJob::OPCODE) => {
            JobStep::Claimed { bond: TakeJob::from_cell(body).map_err(malformed)?.bond }
        }
        (true, PostReceipt::OPCODE) => {
            JobStep::Settled(Box::new(PostReceipt::from_cell(body).map_err(malformed)?))
        }
        (true, PostRejection::OPCODE) => {
            JobStep::Rejected(Box::new(PostRejection::from_cell(body).map_err(malformed)?))
        }
        (false, CancelJob::OPCODE) => JobStep::Cancelled,
        (false, ExpireJob::OPCODE) => JobStep::Expired,
        (false, SweepJob::OPCODE) => JobStep::Swept,
        _ => return Ok(None),
    };
    Ok(Some(JobEvent { id: transaction.id, at_s: transaction.tx.now, step }))
}

/// The exit code with which the contract refused this posting by `client`; `None` for any other transaction.
/// A stranger's attempt says nothing of the client's.
///
/// # Errors
/// A cell error for a transaction that does not parse.
pub fn refused_posting(transaction: &AccountTx, client: &StdAddr) -> Result<Option<i32>, CellError> {
    let Some(message) = transaction.in_message()? else { return Ok(None) };
    let result = transaction.result()?;
    let opcode = message.body.as_slice().ok().and_then(|body| contracts::wire::opcode_of(&body));
    let by_client = message.from.as_ref() == Some(client) && !message.bounced;
    if opcode != Some(PostJob::OPCODE) || !by_client || result.succeeded {
        return Ok(None);
    }
    Ok(result.exit_code.filter(|code| !matches!(code, 0 | 1)).or(result.action_code))
}

/// A job's life so far.
#[derive(Debug, Clone)]
pub struct JobStory {
    /// The job's address.
    pub job: StdAddr,
    /// Its steps, oldest first.
    pub events: Vec<JobEvent>,
}

impl JobStory {
    /// A job of which nothing is known yet.
    pub fn new(job: StdAddr) -> Self {
        Self { job, events: Vec::new() }
    }

    /// Adds a transaction; the event, if it is one.
    ///
    /// # Errors
    /// A cell error for a transaction that does not parse.
    pub fn push(&mut self, transaction: &AccountTx) -> Result<Option<&JobEvent>, CellError> {
        match event_of(transaction)? {
            Some(event) => {
                self.events.push(event);
                Ok(self.events.last())
            }
            None => Ok(None),
        }
    }

    /// Logical time of the posting, and the posting.
    pub fn posted(&self) -> Option<(&JobEvent, &PostJob)> {
        self.events.iter().find_map(|event| match &event.step {
            JobStep::Posted(posting) => Some((event, posting.as_ref())),
            _ => None,
        })
    }

    /// Whom it was posted for.
    pub fn seller(&self) -> Option<&Seller> {
        self.posted().map(|(_, posting)| &*posting.seller)
    }

    /// The claim's bond, and when it was made; `None` for a job answered as it was.
    pub fn claim(&self) -> Option<(&JobEvent, Amount)> {
        self.events.iter().find_map(|event| match &event.step {
            JobStep::Claimed { bond } => Some((event, *bond)),
            _ => None,
        })
    }

    /// The receipt that settled it.
    pub fn receipt(&self) -> Option<(&JobEvent, &PostReceipt)> {
        self.events.iter().find_map(|event| match &event.step {
            JobStep::Settled(receipt) => Some((event, receipt.as_ref())),
            _ => None,
        })
    }

    /// The state the steps lead to; `None` before the posting.
    pub fn status(&self) -> Option<JobStatus> {
        let last = self.events.iter().rev().find(|event| !matches!(event.step, JobStep::Swept))?;
        Some(match last.step {
            JobStep::Posted(_) => JobStatus::Open,
            JobStep::Claimed { .. } => JobStatus::Claimed,
            JobStep::Settled(_) => JobStatus::Settled,
            JobStep::Rejected(_) => JobStatus::Rejected,
            JobStep::Cancelled => JobStatus::Cancelled,
            JobStep::Expired => JobStatus::Expired,
            JobStep::Swept => return None,
        })
    }

    /// The moment after which anybody may expire it, Unix seconds; `None` once it is closed.
    pub fn deadline_s(&self) -> Option<u32> {
        let (_, posting) = self.posted()?;
        match self.status()? {
            JobStatus::Open => Some(posting.until),
            JobStatus::Claimed => {
                let (event, _) = self.claim()?;
                Some(event.at_s.saturating_add(posting.seller.settle_within_s))
            }
            _ => None,
        }
    }

    /// How the receipt's money was split; `None` where nothing was settled.
    pub fn split(&self) -> Option<Split> {
        let (_, posting) = self.posted()?;
        let (_, settled) = self.receipt()?;
        let (receipt, seller) = (&settled.receipt, &posting.seller);
        let cost = seller.prices.cost(&receipt.units);
        Some(Split::of(receipt.amount, cost, posting.deposit, seller.share_bps))
    }
}
