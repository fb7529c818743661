//! A job's story: once from its transactions, once from what the job logged, which must be the same.

use contracts::job::{JobStatus, OpenSession, PostJob, PostOpenJob};
use contracts::job_log::JobLog;
use contracts::money::{Amount, Prices};
use contracts::{Cell, HashBytes, Message as _, StdAddr};
use serde::Serialize;
use tycho_types::models::{IntAddr, Message, MsgInfo};

use super::MAX_TRANSACTIONS;
use super::error::StoryError;
use super::life::{Life, Opening, Replay};
use super::logs;

/// What every reader of the job's logs knows of it. A session's redemptions leave no log but the one that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    /// What was posted.
    pub kind: JobKind,
    /// Where it is in its life.
    pub status: JobStatus,
    /// Unix time: the last moment of what it waits for, or waited for when it ended.
    pub until_s: u32,
    /// With what was added.
    pub deposit_nanoton: Amount,
    /// Of the claim that holds, or held, it.
    pub bond_nanoton: Amount,
    /// The account of the Worker that claimed it last.
    pub worker: Option<HashBytes>,
    /// What happened, oldest first; the first is how it was opened.
    pub chapters: Vec<Chapter>,
}

/// What was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// A job for one worker.
    Directed,
    /// Many receipts of one worker.
    Session,
    /// A job for whoever claims it.
    Market,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chapter {
    /// When, Unix seconds.
    pub at_s: u32,
    /// What.
    #[serde(flatten)]
    pub told: Told,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Told {
    /// It was posted.
    Opened {
        /// The last moment of a claim or answer; of a session, of all.
        until_s: u32,
        /// What it may pay at most.
        deposit_nanoton: Amount,
        /// Of the Seller's cell, or of the market terms'.
        terms_hash: HashBytes,
    },
    /// A worker claimed it.
    Taken {
        /// The Worker's account.
        worker: HashBytes,
        /// What the worker put up.
        bond_nanoton: Amount,
        /// The last moment of the answer; of a job of the market, of the input.
        until_s: u32,
        /// What the worker asks.
        prices: Prices,
    },
    /// The client of a job of the market delivered its input.
    InputDelivered {
        /// Of the first cell of the sealed input.
        input_hash: HashBytes,
        /// The last moment of the answer.
        until_s: u32,
    },
    /// The client asked for the session's end.
    CloseAsked {
        /// The last moment of a receipt.
        until_s: u32,
    },
    /// The client raised the session's deposit.
    ToppedUp {
        /// In all.
        deposit_nanoton: Amount,
    },
    /// It ended.
    Closed {
        /// How.
        status: JobStatus,
        /// To worker, publisher and treasury in all.
        paid_nanoton: Amount,
        /// Of the receipt or rejection that ended it; nothing where none did.
        signed_hash: Option<HashBytes>,
    },
    /// The worker was shown to have signed two receipts of one sequence.
    EquivocationShown {
        /// Of both.
        sequence: u32,
        /// What it is to lose.
        penalty_nanoton: Amount,
    },
}

impl Story {
    /// From the job's logs alone: root cells of all its messages to nobody, oldest first. Of several postings at one
    /// address, the newest. That no later log is left out, logs cannot tell.
    ///
    /// # Errors
    /// [`StoryError`] for logs in which another account, or no job, speaks, or which no job leaves in this order.
    pub fn of_logs(job: &StdAddr, messages: &[Cell]) -> Result<Self, StoryError> {
        if messages.len() > MAX_TRANSACTIONS {
            return Err(StoryError::TooLong);
        }
        let mut story: Option<Self> = None;
        let mut newest_lt = 0;
        for (index, message) in messages.iter().enumerate() {
            let strange = StoryError::StrangeLog { index };
            let (lt, at_s, log) = read_log(job, message).ok_or(strange)?;
            let impossible = |what: &str| StoryError::ImpossibleLog { index, what: what.to_owned() };
            if lt <= newest_lt {
                return Err(impossible("it is older than the one before"));
            }
            newest_lt = lt;
            if let JobLog::Opened(_) = log {
                if story.as_ref().is_some_and(|story| !story.status.is_closed()) {
                    return Err(impossible("the job was posted more than once"));
                }
                story = Some(opened(at_s, &log).ok_or_else(|| impossible("no message opens a job so"))?);
            } else {
                let story = story.as_mut().ok_or_else(|| impossible("there is no posting before it"))?;
                story.go_on(at_s, &log).map_err(impossible)?;
            }
        }
        story.ok_or(StoryError::NoJob("there is no log"))
    }

    /// From the account's transactions alone, and nothing that they logged: root cells, oldest first.
    ///
    /// # Errors
    /// [`StoryError`] for what is not the beginning of that account's history, link by link, or is no job's.
    pub fn of_transactions(job: &StdAddr, transactions: &[Cell]) -> Result<Self, StoryError> {
        let replay = Replay::of_transactions(job.clone(), transactions)?;
        let life = replay.life()?.ok_or(StoryError::NoJob("there is no posting"))?;
        Ok(life.story())
    }

    /// Once it ended: to worker, publisher and treasury in all.
    pub fn paid_nanoton(&self) -> Option<Amount> {
        self.chapters.iter().rev().find_map(|chapter| match chapter.told {
            Told::Closed { paid_nanoton, .. } => Some(paid_nanoton),
            _ => None,
        })
    }

    /// How many claims it took.
    pub fn claims(&self) -> usize {
        self.chapters.iter().filter(|chapter| matches!(chapter.told, Told::Taken { .. })).count()
    }

    pub(super) fn of(life: &Life<'_>) -> Self {
        let kind = match life.opening {
            Opening::Directed(_) => JobKind::Directed,
            Opening::Session(_) => JobKind::Session,
            Opening::Market(_) => JobKind::Market,
        };
        let held = life.end().map_or_else(|| life.state(), |end| &end.before);
        let first = std::iter::once((life.post.at_s, Some(logs::opened(life))));
        let acts = life.acts.iter().map(|act| (act.step.at_s, logs::due(act)));
        let chapters = first.chain(acts).filter_map(|(at_s, log)| Some(Chapter { at_s, told: told(&log?)? }));
        Self {
            kind,
            status: life.status(),
            until_s: held.until,
            deposit_nanoton: held.deposit,
            bond_nanoton: held.bond,
            worker: (life.takes().last())
                .and_then(|(act, _)| act.after.posting.seller.as_ref().map(|seller| seller.worker)),
            chapters: chapters.collect(),
        }
    }

    /// What this log adds; an error where a job of this story does not log it.
    fn go_on(&mut self, at_s: u32, log: &JobLog) -> Result<(), &'static str> {
        let told = told(log).ok_or("it closes a job that goes on")?;
        if self.chapters.last().is_some_and(|last| at_s < last.at_s) {
            return Err("it is from an earlier time than the one before");
        }
        let holds = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
        match &told {
            Told::Opened { .. } => return Err("the job was posted more than once"),
            Told::Taken { worker, bond_nanoton, until_s, .. } => {
                let open = self.status == JobStatus::Open && at_s <= self.until_s;
                holds(open || self.status == JobStatus::Awaiting, "a claim of a job that takes none")?;
                let is_market = self.kind == JobKind::Market;
                self.status = if is_market { JobStatus::Awaiting } else { JobStatus::Claimed };
                (self.until_s, self.bond_nanoton, self.worker) = (*until_s, *bond_nanoton, Some(*worker));
            }
            Told::InputDelivered { until_s, .. } => {
                holds(
                    self.status == JobStatus::Awaiting && at_s <= self.until_s,
                    "an input nobody waits for",
                )?;
                (self.status, self.until_s) = (JobStatus::Claimed, *until_s);
            }
            Told::CloseAsked { until_s } => {
                holds(
                    self.status == JobStatus::Session && *until_s <= self.until_s,
                    "a wish to close what is no session, or later than its end",
                )?;
                (self.status, self.until_s) = (JobStatus::Closing, *until_s);
            }
            Told::ToppedUp { deposit_nanoton } => {
                holds(
                    self.status == JobStatus::Session && *deposit_nanoton >= self.deposit_nanoton,
                    "a top-up of what is no session, or to less",
                )?;
                self.deposit_nanoton = *deposit_nanoton;
            }
            Told::Closed { status, paid_nanoton, signed_hash } => {
                holds(
                    self.may_end(at_s, *status, signed_hash.is_some()),
                    "an end that the job cannot have now",
                )?;
                let most = if *status == JobStatus::Settled { self.deposit_nanoton } else { Amount::ZERO };
                holds(*paid_nanoton <= most, "it paid more than it may")?;
                self.status = *status;
            }
            Told::EquivocationShown { .. } => {
                let is_served = self.kind != JobKind::Market || self.worker.is_some();
                holds(is_served, "two receipts of a job that nobody serves")?;
            }
        }
        self.chapters.push(Chapter { at_s, told });
        Ok(())
    }

    fn may_end(&self, at_s: u32, status: JobStatus, signed: bool) -> bool {
        let in_time = at_s <= self.until_s;
        let is_served = self.kind != JobKind::Market || self.worker.is_some();
        match (status, self.status) {
            (_, now) if now.is_closed() => false,
            // Only a session ends settled without a last receipt, and then because its time is over.
            (JobStatus::Settled, now) if now.is_session() => signed == in_time,
            (JobStatus::Settled, JobStatus::Open | JobStatus::Claimed) => signed && in_time && is_served,
            (JobStatus::Rejected, JobStatus::Open | JobStatus::Claimed | JobStatus::Session) => {
                signed && in_time && is_served
            }
            (JobStatus::Cancelled, now) => now == JobStatus::Open && !signed,
            (JobStatus::Expired, now) => !now.is_session() && !signed && !in_time,
            _ => false,
        }
    }
}

fn opened(at_s: u32, log: &JobLog) -> Option<Story> {
    let JobLog::Opened(opened) = log else { return None };
    let (kind, status) = match opened.opcode {
        PostJob::OPCODE => (JobKind::Directed, JobStatus::Open),
        OpenSession::OPCODE => (JobKind::Session, JobStatus::Session),
        PostOpenJob::OPCODE => (JobKind::Market, JobStatus::Open),
        _ => return None,
    };
    Some(Story {
        kind,
        status,
        until_s: opened.until,
        deposit_nanoton: opened.deposit,
        bond_nanoton: Amount::ZERO,
        worker: None,
        chapters: vec![Chapter { at_s, told: told(log)? }],
    })
}

/// Nothing for an end that is none.
fn told(log: &JobLog) -> Option<Told> {
    Some(match log {
        JobLog::Opened(opened) => Told::Opened {
            until_s: opened.until,
            deposit_nanoton: opened.deposit,
            terms_hash: opened.terms_hash,
        },
        JobLog::Taken(taken) => Told::Taken {
            worker: taken.worker,
            bond_nanoton: taken.bond,
            until_s: taken.until,
            prices: taken.prices,
        },
        JobLog::InputDelivered(delivered) => {
            Told::InputDelivered { input_hash: delivered.input_hash, until_s: delivered.until }
        }
        JobLog::CloseAsked(asked) => Told::CloseAsked { until_s: asked.until },
        JobLog::ToppedUp(topped_up) => Told::ToppedUp { deposit_nanoton: topped_up.deposit },
        JobLog::Closed(closed) => Told::Closed {
            status: JobStatus::from_wire(closed.status).filter(|status| status.is_closed())?,
            paid_nanoton: closed.paid,
            signed_hash: (closed.signed_hash != HashBytes::ZERO).then_some(closed.signed_hash),
        },
        JobLog::EquivocationShown(shown) => {
            Told::EquivocationShown { sequence: shown.sequence, penalty_nanoton: shown.penalty }
        }
    })
}

/// Logical time, time and content of a log of this job.
fn read_log(job: &StdAddr, message: &Cell) -> Option<(u64, u32, JobLog)> {
    let message = message.parse::<Message<'_>>().ok()?;
    let MsgInfo::ExtOut(info) = &message.info else { return None };
    if !matches!(&info.src, IntAddr::Std(from) if from == job) {
        return None;
    }
    let mut body = message.body;
    let log = JobLog::from_slice(&mut body).ok()??;
    Some((info.created_lt, info.created_at, log))
}
