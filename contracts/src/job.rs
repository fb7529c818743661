//! The Job: the escrow of one job, from posting to release.

use serde::{Deserialize, Serialize};
use tycho_types::cell::{Cell, CellBuilder, CellContext, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::StdAddr;

use crate::money::{Nanoton, Prices, Units};
use crate::network::Network;
use crate::receipt::{Receipt, Rejection};
use crate::sealing::Sealed;
use crate::wire::{Ref, Signature, WireError, from_cell, messages};

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct JobStorage {
    pub client: StdAddr,
    pub nonce: u64,
    pub network: Ref<Network>,
    pub state: Option<Ref<JobState>>,
}

impl JobStorage {
    /// As deployed: without state.
    pub fn initial(network: &Network, client: StdAddr, nonce: u64) -> Result<Self, WireError> {
        Ok(Self { client, nonce, network: Ref::new(network.clone())?, state: None })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct JobState {
    pub status: JobStatus,
    /// Logical time of the transaction that posted the job.
    pub posted_lt: u64,
    pub posted_at: u32,
    /// Unix time; 0 while open or claimed.
    pub closed_at: u32,
    /// Hash of the cell of the [`Sealed`] input.
    pub input_hash: HashBytes,
    pub terms: Ref<JobTerms>,
    pub claim: Option<Ref<Claim>>,
    pub settlement: Option<Ref<Settlement>>,
}

/// Where a job is in its life; 4 bits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum JobStatus {
    Open = 1,
    Claimed = 2,
    Settled = 3,
    Cancelled = 4,
    Expired = 5,
    Rejected = 6,
}

impl JobStatus {
    pub fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Open,
            2 => Self::Claimed,
            3 => Self::Settled,
            4 => Self::Cancelled,
            5 => Self::Expired,
            6 => Self::Rejected,
            _ => return None,
        })
    }

    /// All money has left for where it belongs.
    pub fn is_closed(self) -> bool {
        !matches!(self, Self::Open | Self::Claimed)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Settled => "settled",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }
}

impl Store for JobStatus {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_small_uint(*self as u8, 4)
    }
}

impl<'a> Load<'a> for JobStatus {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        Self::from_wire(slice.load_small_uint(4)?).ok_or(CellError::InvalidData)
    }
}

/// What the client asks and is ready to pay.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct JobTerms {
    /// Address of the `Worker` contract that may take the job.
    pub worker: StdAddr,
    pub model_id: HashBytes,
    /// Zero: any measurement the worker is attested with.
    pub measurement: HashBytes,
    /// Unix time: last moment of a claim.
    pub claim_by: u32,
    /// From the claim to the last moment of a receipt.
    pub settle_within_s: u32,
    pub limits: Ref<JobLimits>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct JobLimits {
    pub max_prices: Prices,
    pub max_units: Units,
    pub deposit: Nanoton,
}

/// What the worker bound itself to.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Claim {
    /// Ed25519 key that may sign the receipt or the rejection.
    pub receipt_key: HashBytes,
    pub measurement: HashBytes,
    pub royalty_bps: u16,
    pub bond: Nanoton,
    /// Unix time; set by the job when it takes the claim.
    pub settle_by: u32,
    pub worker_owner: StdAddr,
    pub prices: Ref<Prices>,
}

/// How the job ended. Rejected: `receipt_hash` is the rejection's hash and the amounts are zero.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Settlement {
    pub receipt_hash: HashBytes,
    pub result_hash: HashBytes,
    pub paid: Nanoton,
    pub royalty: Nanoton,
    pub fee: Nanoton,
}

messages! {
    /// Client, with the state init.
    "post_job" "#43480401" PostJob {
        query_id: u64,
        terms: Ref<JobTerms>,
        /// Cell of a [`Sealed`]; the contract keeps its hash only.
        input: Cell,
    }
    /// Worker to Job; the bond travels with it.
    "take_job" "#43480402" TakeJob {
        query_id: u64,
        bond: Nanoton,
        /// Whose offer the claim's prices and royalty are.
        model_id: HashBytes,
        claim: Ref<Claim>,
    }
    /// Client, while open.
    "cancel_job" "#43480403" CancelJob { query_id: u64 }
    /// Anyone, after the deadline.
    "expire_job" "#43480404" ExpireJob { query_id: u64 }
    /// Anyone, after the audit window: what is left goes to the client.
    "sweep_job" "#43480405" SweepJob { query_id: u64 }
    /// External; see [`PostReceipt::signed`].
    "post_receipt" "#43480406" PostReceipt {
        signature: Signature,
        receipt: Ref<Receipt>,
        /// Cell of a [`Sealed`] whose hash the receipt names.
        result: Cell,
    }
    /// External; see [`PostRejection::signed`].
    "post_rejection" "#43480407" PostRejection { signature: Signature, rejection: Ref<Rejection> }
    /// Job to Worker.
    "job_paid" "#43480410" JobPaid { query_id: u64, bond: Nanoton, paid: Nanoton, client: StdAddr, nonce: u64 }
    /// Job to Worker, after a rejection.
    "job_returned" "#43480411" JobReturned { query_id: u64, bond: Nanoton, client: StdAddr, nonce: u64 }
    /// Job to Worker: the bond went to the client.
    "job_forfeited" "#43480412" JobForfeited { query_id: u64, bond: Nanoton, client: StdAddr, nonce: u64 }
    /// Job to client.
    "job_refund" "#43480413" JobRefund { query_id: u64, status: u8, paid: Nanoton, bond: Nanoton }
    /// Job to Worker when posted, so that an executor sees it on its own account.
    "job_posted" "#43480414" JobPosted { query_id: u64, client: StdAddr, nonce: u64 }
    /// To an owner, publisher or treasury.
    "payout" "#43480420" Payout { query_id: u64 }
    /// What a message brought too much.
    "excesses" "#d53276db" Excesses { query_id: u64 }
}

impl PostJob {
    pub fn new(query_id: u64, terms: JobTerms, input: &Sealed) -> Result<Self, WireError> {
        Ok(Self { query_id, terms: Ref::new(terms)?, input: crate::wire::to_cell(input)? })
    }

    /// The sealed input; errors where the client's cell is none.
    pub fn sealed_input(&self) -> Result<Sealed, WireError> {
        from_cell(&self.input)
    }

    /// What the job stores of the input.
    pub fn input_hash(&self) -> HashBytes {
        *self.input.repr_hash()
    }
}

impl PostReceipt {
    /// The sealed result; errors where the worker's cell is none.
    pub fn sealed_result(&self) -> Result<Sealed, WireError> {
        from_cell(&self.result)
    }
}
