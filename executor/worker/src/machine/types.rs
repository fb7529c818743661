//! What the machine knows, hears and asks for.

use std::fmt;

use contracts::errors::RejectionReason;
use contracts::job::JobStatus;
use contracts::money::Amount;
use contracts::{HashBytes, Nanoton, Prices, StdAddr, Units};
use serde::{Deserialize, Serialize};

use super::Declined;

/// What does not change while the worker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Our Worker contract.
    pub worker: StdAddr,
    /// Our attested Ed25519 key.
    pub receipt_key: HashBytes,
    /// Our attested X25519 key.
    pub encryption_key: HashBytes,
    /// The models served here.
    pub models: Vec<ServedModel>,
    /// Of the network's params.
    pub min_stake: Nanoton,
    /// Of the network's generation.
    pub min_bond: Nanoton,
    /// Of the network's generation.
    pub bond_bps: u16,
    /// Of the network's generation.
    pub fee_bps: u16,
    /// Jobs between order and end at once.
    pub max_jobs: usize,
    /// Jobs that wait for a place at most.
    pub max_waiting: usize,
    /// A job of this deposit or more is claimed before it is answered.
    pub claim_above: Nanoton,
    /// Time to the job's `until` that an order needs to reach the chain.
    pub claim_margin_s: u32,
    /// A job with less time for its answer is left alone.
    pub min_settle_s: u32,
    /// Life of a claim order.
    pub order_valid_s: u32,
    /// How far a shard's block may be behind the masterchain block that names it.
    pub grace_s: u32,
    /// An unconfirmed message is sent again after this long.
    pub resend_every_s: u32,
    /// A job with a smaller deposit is left alone.
    pub min_deposit: Nanoton,
    /// What the Worker contract must have above its stake and the bond to be asked to claim.
    pub min_float: Nanoton,
}

impl Policy {
    /// The model whose contract is this account of the basechain.
    pub fn model_at(&self, account: &HashBytes) -> Option<&ServedModel> {
        self.models.iter().find(|model| model.account == *account)
    }

    /// What we put up for a claim: `max(min_bond, ⌈deposit × bond_bps / 10 000⌉)`.
    pub fn bond_for(&self, deposit: Nanoton) -> Nanoton {
        self.min_bond.max(deposit.share_bps_ceil(self.bond_bps))
    }
}

/// A model and the account of its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedModel {
    /// Hash of its weights' manifest.
    pub model_id: HashBytes,
    /// Of its Model contract.
    pub account: HashBytes,
}

/// One posting of one job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobKey {
    /// The Job contract.
    pub job: StdAddr,
    /// Logical time of the transaction that posted it.
    pub posted_lt: u64,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.job, self.posted_lt)
    }
}

/// A job as posted, its input apart. What its client names as the seller is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostedJob {
    /// Which posting.
    pub key: JobKey,
    /// Makes the job's address, with `nonce`.
    pub client: StdAddr,
    /// See `client`.
    pub nonce: u64,
    /// Unix time: last moment of a claim, or of an answer without one.
    pub until: u32,
    /// What the job can pay at most.
    pub deposit: Amount,
    /// The most a receipt may state.
    pub max_units: Units,
    /// The least bond of a claim.
    pub least_bond: Amount,
    /// The account that is to serve it.
    pub worker: HashBytes,
    /// Who may sign the receipt.
    pub receipt_key: HashBytes,
    /// The Model's account.
    pub model: HashBytes,
    /// From a claim to the last moment of its receipt.
    pub settle_within_s: u32,
    /// Of publisher and treasury together.
    pub share_bps: u16,
    /// What units are billed at.
    pub prices: Prices,
}

/// Our Worker contract as of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFacts {
    /// The block's time.
    pub as_of_s: u32,
    /// What stands behind its receipts.
    pub stake: Nanoton,
    /// Balance above stake and unbonding: earnings, gas, and what bonds are made of.
    pub float: Nanoton,
    /// Takes no new jobs.
    pub paused: bool,
    /// Of the next order.
    pub claim_seqno: u32,
    /// Of the next registration.
    pub registration_seqno: u32,
    /// The keys the chain knows.
    pub attestation: Option<AttestedKeys>,
    /// What it offers.
    pub offers: Vec<OfferFacts>,
    /// Where its contract says that it serves sessions.
    pub endpoint: Option<String>,
}

impl WorkerFacts {
    /// The offer of a model.
    pub fn offer(&self, model_id: &HashBytes) -> Option<&OfferFacts> {
        self.offers.iter().find(|offer| offer.model_id == *model_id)
    }
}

/// An offer on chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferFacts {
    /// Of what.
    pub model_id: HashBytes,
    /// What is asked.
    pub prices: Prices,
    /// The publisher's share.
    pub royalty_bps: u16,
    /// The least deposit of a job.
    pub min_deposit: Nanoton,
}

/// An attestation's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedKeys {
    /// Ed25519.
    pub receipt_key: HashBytes,
    /// X25519.
    pub encryption_key: HashBytes,
    /// The image's.
    pub measurement: HashBytes,
    /// Unix time.
    pub registered_at: u32,
    /// Unix time.
    pub expires_at: u32,
}

/// A Job contract as of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// Where it is in its life.
    pub status: JobStatus,
    /// Unix time: the last moment of what the status waits for.
    pub until: u32,
}

/// By when an answer has to be on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    /// Whether our bond is in the job.
    pub claimed: bool,
    /// Unix time: last moment of a receipt or rejection.
    pub by_s: u32,
}

/// A claim order before it is signed. Signing is deterministic, so the same order is the same message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Of the Worker contract.
    pub seqno: u32,
    /// Unix time: the contract refuses it later.
    pub valid_until_s: u32,
    /// Of the job.
    pub client: StdAddr,
    /// Of the job.
    pub nonce: u64,
    /// Of the job.
    pub model_id: HashBytes,
    /// What goes into the job.
    pub bond: Nanoton,
}

/// The body of a `post_receipt` message as a bag of cells: the signed receipt and the sealed result. Ciphertext only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedReceipt(#[serde(with = "hex::serde")] pub Vec<u8>);

impl fmt::Debug for SignedReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedReceipt({} bytes)", self.0.len())
    }
}

/// A job and where we are with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The posting.
    pub posted: PostedJob,
    /// Where we are.
    pub phase: Phase,
    /// When the phase's message was last sent, Unix seconds.
    #[serde(skip)]
    pub sent_at_s: Option<u32>,
}

/// Where we are with a job. A phase is written to the journal before its effect runs, so a phase says what is to be
/// done again after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// Worth serving, not begun yet.
    Waiting,
    /// Worth a claim: the input is opened to see whether it can be answered at all, and is forgotten again.
    Weighing,
    /// It can be answered; not claimed yet.
    Weighed,
    /// The claim order may be on its way; `taken`: our contract has executed it.
    Ordered {
        /// The only order of this job that can be executed.
        order: Order,
        /// Whether our contract has executed it.
        taken: bool,
    },
    /// Claimed, or served as it is: the input is to be opened.
    Opening {
        /// By when.
        due: Due,
    },
    /// The input is opened, in memory only.
    Inferring {
        /// By when.
        due: Due,
    },
    /// Signed; never signed again.
    Posting {
        /// By when.
        due: Due,
        /// What is posted until the job has it.
        receipt: SignedReceipt,
    },
    /// Given back.
    Rejecting {
        /// By when.
        due: Due,
        /// Why.
        #[serde(with = "reason")]
        reason: RejectionReason,
    },
    /// Over.
    Closed {
        /// How.
        end: End,
        /// When to forget it, Unix seconds.
        forget_at_s: u32,
    },
}

impl Phase {
    /// For logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Weighing => "weighing",
            Self::Weighed => "weighed",
            Self::Ordered { .. } => "ordered",
            Self::Opening { .. } => "opening",
            Self::Inferring { .. } => "inferring",
            Self::Posting { .. } => "posting",
            Self::Rejecting { .. } => "rejecting",
            Self::Closed { .. } => "closed",
        }
    }

    /// Between its begin and its end.
    pub fn is_active(&self) -> bool {
        !self.is_waiting() && !matches!(self, Self::Closed { .. })
    }

    /// Waits for a place, or for its turn to be claimed.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting | Self::Weighed)
    }

    /// By when it has to be answered, once it is being served.
    pub fn due(&self) -> Option<Due> {
        match self {
            Self::Opening { due }
            | Self::Inferring { due }
            | Self::Posting { due, .. }
            | Self::Rejecting { due, .. } => Some(*due),
            Self::Waiting | Self::Weighing | Self::Weighed | Self::Ordered { .. } | Self::Closed { .. } => {
                None
            }
        }
    }

    pub(super) fn due_mut(&mut self) -> Option<&mut Due> {
        match self {
            Self::Opening { due }
            | Self::Inferring { due }
            | Self::Posting { due, .. }
            | Self::Rejecting { due, .. } => Some(due),
            Self::Waiting | Self::Weighing | Self::Weighed | Self::Ordered { .. } | Self::Closed { .. } => {
                None
            }
        }
    }
}

/// How a job ended for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Paid.
    Settled,
    /// Given back.
    Rejected,
    /// The client took it back before a claim or an answer.
    Cancelled,
    /// A deadline passed.
    Expired,
    /// The job refused our claim, or we cannot know what became of it.
    ClaimRefused,
    /// To be signed with a key that is not ours now.
    OtherKey,
    /// The deadline passed before the receipt was on the chain.
    Missed,
}

impl End {
    /// The end that a closed job's status is.
    pub(super) fn of(status: JobStatus) -> Self {
        match status {
            JobStatus::Settled => Self::Settled,
            JobStatus::Rejected => Self::Rejected,
            JobStatus::Cancelled => Self::Cancelled,
            _ => Self::Expired,
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The process has started, with the jobs that the journal held.
    Restarted,
    /// The chain's time.
    Tick {
        /// Unix seconds.
        now_s: u32,
    },
    /// Our contract was read.
    WorkerRead(WorkerFacts),
    /// A notice of a job was seen, and the job read.
    Posted {
        /// The job.
        posted: Box<PostedJob>,
        /// Its state now.
        facts: JobFacts,
        /// It was there before the journal was: what we signed for it then is not known.
        before_us: bool,
    },
    /// A job's account was read.
    JobRead {
        /// Which.
        key: JobKey,
        /// Its state now.
        facts: JobFacts,
    },
    /// Our contract executed an order.
    OrderTaken {
        /// Its number.
        seqno: u32,
        /// Of the job it claims.
        client: StdAddr,
        /// Of the job it claims.
        nonce: u64,
    },
    /// A job refused the claim that the order made.
    ClaimRefused {
        /// The order's number.
        seqno: u32,
    },
    /// The input is decrypted and can be served.
    InputOpened {
        /// Which job.
        key: JobKey,
    },
    /// The input cannot be served, or the engine failed.
    Unservable {
        /// Which job.
        key: JobKey,
        /// Why.
        reason: RejectionReason,
    },
    /// Generated, sealed, signed.
    Answered {
        /// Which job.
        key: JobKey,
        /// What to post.
        receipt: SignedReceipt,
    },
}

/// What is to be done. Every effect may be run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sign the order and send it to our contract.
    SubmitClaim {
        /// For which job.
        key: JobKey,
        /// What to sign.
        order: Order,
    },
    /// Decrypt and check the input; answer with [`Event::InputOpened`] or [`Event::Unservable`].
    OpenInput {
        /// Which job.
        key: JobKey,
    },
    /// Generate, seal and sign; answer with [`Event::Answered`] or [`Event::Unservable`].
    Infer {
        /// Which job.
        key: JobKey,
    },
    /// Send exactly this to the job.
    PostReceipt {
        /// Which job.
        key: JobKey,
        /// The message's body.
        receipt: SignedReceipt,
    },
    /// Sign a rejection and send it to the job.
    PostRejection {
        /// Which job.
        key: JobKey,
        /// Why.
        reason: RejectionReason,
    },
    /// Wipe what memory holds of the job and stop working on it.
    Forget {
        /// Which job.
        key: JobKey,
        /// How it ended.
        end: End,
    },
    /// Nothing to do but to say so.
    Decline {
        /// Which job.
        key: JobKey,
        /// Why.
        reason: Declined,
    },
}

impl Effect {
    /// The job it is about.
    pub fn key(&self) -> &JobKey {
        match self {
            Self::SubmitClaim { key, .. }
            | Self::OpenInput { key }
            | Self::Infer { key }
            | Self::PostReceipt { key, .. }
            | Self::PostRejection { key, .. }
            | Self::Forget { key, .. }
            | Self::Decline { key, .. } => key,
        }
    }

    /// For logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SubmitClaim { .. } => "submit_claim",
            Self::OpenInput { .. } => "open_input",
            Self::Infer { .. } => "infer",
            Self::PostReceipt { .. } => "post_receipt",
            Self::PostRejection { .. } => "post_rejection",
            Self::Forget { .. } => "forget",
            Self::Decline { .. } => "decline",
        }
    }
}

mod reason {
    use contracts::errors::RejectionReason;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        reason: &RejectionReason,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(reason.code())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RejectionReason, D::Error> {
        let code = u16::deserialize(deserializer)?;
        RejectionReason::from_code(code).ok_or_else(|| D::Error::custom("no such rejection reason"))
    }
}
