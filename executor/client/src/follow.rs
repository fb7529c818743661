//! Follows a job on the chain from its posting to its end.

use std::time::Duration;

use chain::{ChainAccess, McBlock, TxId, Watcher};
use contracts::StdAddr;
use contracts::job::JobStatus;

use crate::error::ClientError;
use crate::story::{JobStory, refused_posting};

/// Follows one job through final blocks.
#[derive(Debug)]
pub struct Follower {
    watcher: Watcher,
    client: StdAddr,
    story: JobStory,
    time_s: u32,
    /// Time of the first block read.
    since_s: Option<u32>,
    gone: bool,
    refused: Option<i32>,
}

/// Why [`Follower::advance`] returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The job took a step.
    Stepped,
    /// A block without a step of the job.
    Nothing,
    /// The job's deadline has passed and nobody has expired it.
    Overdue,
    /// The contract refused the posting with this exit code.
    Refused(i32),
    /// No job is there: none came within [`ABSENT_LIMIT_S`], or the account destroyed itself before its end
    /// was seen.
    Gone,
}

impl Follower {
    /// Follows the job that `client` posts at `job`, from its first transaction.
    pub fn new(job: StdAddr, client: StdAddr) -> Self {
        let mut watcher = Watcher::new(MAX_JOB_TRANSACTIONS);
        watcher.watch(job.clone(), None);
        Self {
            watcher,
            client,
            story: JobStory::new(job),
            time_s: 0,
            since_s: None,
            gone: false,
            refused: None,
        }
    }

    /// What is known of the job.
    pub fn story(&self) -> &JobStory {
        &self.story
    }

    /// Time of the last block read, Unix seconds.
    pub fn time_s(&self) -> u32 {
        self.time_s
    }

    /// Reads the next block. A transient error of the chain may be followed by another call.
    ///
    /// # Errors
    /// What reading the chain meets.
    pub async fn advance<C: ChainAccess + ?Sized>(&mut self, chain: &C) -> Result<Progress, ClientError> {
        let Some(tick) = self.watcher.next(chain, BLOCK_WAIT).await? else { return Ok(Progress::Nothing) };
        self.time_s = tick.block.time_s;
        let since_s = *self.since_s.get_or_insert(self.time_s);
        let known = steps(&self.story);
        for update in &tick.updates {
            self.gone = update.cursor.is_none();
            self.story.extend(&update.transactions)?;
            for transaction in &update.transactions {
                self.refused = refused_posting(transaction, &self.client)?.or(self.refused);
            }
        }
        if steps(&self.story) > known {
            return Ok(Progress::Stepped);
        }
        let absent = self.story.posted_lt().is_none() && self.time_s > since_s.saturating_add(ABSENT_LIMIT_S);
        if absent || self.gone && !self.story.status().is_some_and(JobStatus::is_closed) {
            return Ok(Progress::Gone);
        }
        if let (None, Some(exit_code)) = (self.story.posted_lt(), self.refused) {
            return Ok(Progress::Refused(exit_code));
        }
        match self.story.deadline_s() {
            Some(deadline_s) if self.time_s > deadline_s => Ok(Progress::Overdue),
            _ => Ok(Progress::Nothing),
        }
    }
}

/// Reads a job's whole life at once, as of `at`.
///
/// # Errors
/// [`ClientError::NoJob`] where there is no account, or none any more; [`read_story_from`] reads a swept one's.
pub async fn read_story<C: ChainAccess + ?Sized>(
    chain: &C,
    job: &StdAddr,
    at: &McBlock,
) -> Result<JobStory, ClientError> {
    let newest: TxId = chain.account(job, at).await?.last.ok_or_else(|| ClientError::NoJob(job.clone()))?;
    read_story_from(chain, job, newest).await
}

/// Reads a job's life up to `newest`, a transaction of its account: also of one that was swept, whose account names its
/// last transaction no more.
///
/// # Errors
/// [`ClientError::NoJob`] where no posting led there.
pub async fn read_story_from<C: ChainAccess + ?Sized>(
    chain: &C,
    job: &StdAddr,
    newest: TxId,
) -> Result<JobStory, ClientError> {
    let mut story = JobStory::new(job.clone());
    story.extend(&chain.transactions(job, newest, None, MAX_JOB_TRANSACTIONS).await?)?;
    if story.posted_lt().is_none() {
        return Err(ClientError::NoJob(job.clone()));
    }
    Ok(story)
}

/// How long after the first block read a posting may take to reach the job, seconds of the chain's time.
pub const ABSENT_LIMIT_S: u32 = 300;
/// Anyone may send a job messages that it refuses; more than this is an attack on its reader.
pub const MAX_JOB_TRANSACTIONS: usize = 10_000;
const BLOCK_WAIT: Duration = Duration::from_secs(10);

/// How many, the posting included.
fn steps(story: &JobStory) -> usize {
    story.life().map_or(0, |life| life.acts().len() + 1)
}
