//! A job's transactions as the steps of its life, whatever its kind. Pure.

use chain::AccountTx;
use contracts::job::{JobStatus, OpenSession, PostJob, PostOpenJob, Seller};
use contracts::money::Amount;
use contracts::{Message, StdAddr};
use tycho_types::error::Error as CellError;
use verifier::{Event, Life, Opening, Replay, Story, StoryError};

/// A job's life so far, played again by the verifier from the account's transactions.
#[derive(Debug, Clone)]
pub struct JobStory {
    replay: Replay,
}

/// A step of a job, for a progress line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Logical time of the job's transaction.
    pub lt: u64,
    /// When, Unix seconds.
    pub at_s: u32,
    /// A word for what happened: `posted`, `claimed`, `delivered`, `topped_up`, `close_asked`, `redeemed`, `settled`,
    /// `rejected`, `cancelled`, `expired`, `equivocation_shown`, `equivocation_refused`.
    pub name: &'static str,
    /// Where it left the job.
    pub status: JobStatus,
    /// What the step moved: the deposit of a posting or after a top-up, the bond of a claim, what a redemption or an end
    /// had paid in all.
    pub amount: Option<Amount>,
}

impl JobStory {
    /// A job of which nothing is known yet.
    pub fn new(job: StdAddr) -> Self {
        Self { replay: Replay::new(job) }
    }

    /// Adds the account's next transactions, oldest first.
    ///
    /// # Errors
    /// [`StoryError`] where they are not, or are no job's.
    pub fn extend<'a>(
        &mut self,
        transactions: impl IntoIterator<Item = &'a AccountTx>,
    ) -> Result<(), StoryError> {
        for transaction in transactions {
            self.replay.push(&transaction.cell)?;
        }
        self.replay.life().map(drop)
    }

    /// The job's address.
    pub fn job(&self) -> &StdAddr {
        self.replay.job()
    }

    /// The newest posting and what became of it; nothing before there is one.
    pub fn life(&self) -> Option<Life<'_>> {
        // What cannot be played was refused when it was added.
        self.replay.life().ok().flatten()
    }

    /// What every reader of the chain knows of it.
    pub fn told(&self) -> Option<Story> {
        self.life().map(|life| life.story())
    }

    /// The posting and every step since, oldest first.
    pub fn events(&self) -> Vec<JobEvent> {
        let Some(life) = self.life() else { return Vec::new() };
        let posted = JobEvent {
            lt: life.posted_lt(),
            at_s: life.posted_at_s(),
            name: "posted",
            status: life.posted().status,
            amount: Some(life.posted().deposit),
        };
        let acts = life.acts().iter().map(|act| JobEvent {
            lt: act.lt(),
            at_s: act.at_s(),
            name: act.name(),
            status: act.after.status,
            amount: match &act.event {
                Event::Taken(take) => Some(take.bond),
                Event::ToppedUp(_) => Some(act.after.deposit),
                Event::Redeemed(_) | Event::Answered(_) => Some(act.after.paid),
                Event::Expired if act.after.status == JobStatus::Settled => Some(act.after.paid),
                _ => None,
            },
        });
        std::iter::once(posted).chain(acts).collect()
    }

    /// The state the steps lead to; `None` before the posting.
    pub fn status(&self) -> Option<JobStatus> {
        self.life().map(|life| life.status())
    }

    /// Whether the account was destroyed after the job's end.
    pub fn is_swept(&self) -> bool {
        self.life().is_some_and(|life| life.is_swept())
    }

    /// Logical time of the posting; `None` before it.
    pub fn posted_lt(&self) -> Option<u64> {
        self.life().map(|life| life.posted_lt())
    }

    /// The posting of a job for one worker, with its input; `None` of another kind, or before it.
    pub fn posting(&self) -> Option<PostJob> {
        match self.life()?.opening() {
            Opening::Directed(post) => Some((**post).clone()),
            _ => None,
        }
    }

    /// Who serves; of a job of the market, who holds it.
    pub fn seller(&self) -> Option<Seller> {
        self.life()?.seller().cloned()
    }

    /// The moment after which anybody may expire it, Unix seconds; `None` once it is closed.
    pub fn deadline_s(&self) -> Option<u32> {
        let life = self.life()?;
        (!life.status().is_closed()).then(|| life.state().until)
    }
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
    let opens = matches!(opcode, Some(PostJob::OPCODE | OpenSession::OPCODE | PostOpenJob::OPCODE));
    let by_client = message.from.as_ref() == Some(client) && !message.bounced;
    if !opens || !by_client || result.succeeded {
        return Ok(None);
    }
    Ok(result.exit_code.filter(|code| !matches!(code, 0 | 1)).or(result.action_code))
}
