//! The Job: the escrow of one job or session, from posting to its end.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use tycho_types::cell::{Cell, CellBuilder, CellContext, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::StdAddr;

use crate::money::{Amount, Prices, Units};
use crate::network::{CodeRef, Network};
use crate::receipt::{Receipt, ReceiptContent, Rejection, SignedReceipt};
use crate::sealing::Sealed;
use crate::wire::{Ref, Signature, WireError, from_cell, messages, to_cell};

/// From a post to `until` at most.
pub const MAX_WAIT_S: u32 = 7 * 86_400;
/// From the opening of a session to `until` at most.
pub const MAX_SESSION_S: u32 = 14 * 86_400;
/// Bounds of `settle_within_s` and `deliver_within_s`.
pub const MIN_SETTLE_S: u32 = 30;
pub const MAX_SETTLE_S: u32 = 7 * 86_400;
/// A closed job stays so long for those who audit it.
pub const AUDIT_WINDOW_S: u32 = 7 * 86_400;
/// Two receipts of one sequence cost the deposit so many times, or what the client's terms say up to the larger number.
pub const LEAST_PENALTY_FACTOR: u64 = 2;
pub const MOST_PENALTY_FACTOR: u64 = 10;
/// First 6 bytes of what a delivery key signs.
pub const INPUT_TAG: [u8; 6] = *b"chinpt";
const INPUT_ORDER_BYTES: usize = 110;
/// In [`JobState::sequence`] once the worker was shown to have signed two receipts of one sequence; no receipt of a
/// session has this sequence or more.
pub const EQUIVOCATED: u32 = 1 << 31;

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct JobStorage {
    pub client: StdAddr,
    pub nonce: u64,
    /// Nothing until it is posted.
    pub state: Option<JobState>,
}

impl JobStorage {
    /// As deployed: without state.
    pub fn initial(client: StdAddr, nonce: u64) -> Self {
        Self { client, nonce, state: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct JobState {
    pub status: JobStatus,
    /// Unix time: the last moment of what the status waits for; of a closed job, of its audit window.
    pub until: u32,
    pub deposit: Amount,
    /// What the worker put up.
    pub bond: Amount,
    /// To worker, publisher and treasury so far.
    pub paid: Amount,
    /// Of the last receipt taken, and [`EQUIVOCATED`] more where that was shown.
    pub sequence: u32,
    pub posting: Posting,
}

impl JobState {
    /// What two receipts of one sequence cost the worker now, as far as its stake goes.
    pub fn penalty(&self) -> Amount {
        let times = |factor: u64| Amount::new(self.deposit.get().saturating_mul(factor));
        self.posting.limits.least_bond.max(times(LEAST_PENALTY_FACTOR)).min(times(MOST_PENALTY_FACTOR))
    }
}

/// Where a job is in its life; 4 bits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum JobStatus {
    /// Posted and not claimed. The worker it names may answer it as it is.
    Open = 1,
    /// A worker of the market has it, and waits for the input.
    Awaiting = 2,
    /// A bond stands for the answer.
    Claimed = 3,
    /// A session.
    Session = 4,
    /// A session that its client wants to end.
    Closing = 5,
    Settled = 6,
    Cancelled = 7,
    Expired = 8,
    Rejected = 9,
}

impl JobStatus {
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::Awaiting,
        Self::Claimed,
        Self::Session,
        Self::Closing,
        Self::Settled,
        Self::Cancelled,
        Self::Expired,
        Self::Rejected,
    ];

    pub fn from_wire(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == value)
    }

    /// All money has left for where it belongs.
    pub fn is_closed(self) -> bool {
        self as u8 >= Self::Settled as u8
    }

    /// Takes a `post_receipt`.
    pub fn takes_receipt(self) -> bool {
        matches!(self, Self::Open | Self::Claimed)
    }

    /// Takes a `redeem_receipt`.
    pub fn is_session(self) -> bool {
        matches!(self, Self::Session | Self::Closing)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Awaiting => "awaiting",
            Self::Claimed => "claimed",
            Self::Session => "session",
            Self::Closing => "closing",
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

/// What a job keeps of the message that posted it.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Posting {
    /// Logical time of the transaction that posted the job: what is signed for an earlier job at its address is void.
    pub posted_lt: u64,
    pub limits: JobLimits,
    /// Of a job of the market, nobody until it is claimed.
    pub seller: Option<Ref<Seller>>,
    pub special: Option<Ref<JobSpecial>>,
}

impl Posting {
    /// Of a session.
    pub fn session(&self) -> Option<&SessionTerms> {
        match self.special.as_deref() {
            Some(JobSpecial::Session(terms)) => Some(terms),
            _ => None,
        }
    }

    /// Of a job of the market.
    pub fn market(&self) -> Option<&MarketTerms> {
        match self.special.as_deref() {
            Some(JobSpecial::Market(terms)) => Some(terms),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct JobLimits {
    pub max_units: Units,
    /// That a claim must put up; of a job of the market zero until it is taken.
    pub least_bond: Amount,
}

/// Who serves, as the client read it from the chain.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Seller {
    /// The Worker's account, in the basechain.
    pub worker: HashBytes,
    /// Ed25519: signs receipts and rejections.
    pub receipt_key: HashBytes,
    /// The Model's account, in the basechain.
    pub model: HashBytes,
    /// From the claim to the answer; of a session, from the wish to end it to its end.
    pub settle_within_s: u32,
    /// Of publisher and treasury together.
    pub share_bps: u16,
    pub prices: Prices,
}

impl Seller {
    /// Where a job takes it: `settle_within_s` and `share_bps` within their bounds.
    pub fn is_acceptable(&self) -> bool {
        (MIN_SETTLE_S..=MAX_SETTLE_S).contains(&self.settle_within_s) && self.share_bps <= 10_000
    }
}

/// What a session and a job of the market have beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobSpecial {
    Session(SessionTerms),
    Market(Box<MarketTerms>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
#[tlb(tag = "#53")]
pub struct SessionTerms {
    /// Ed25519: signs vouchers.
    pub session_key: HashBytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
#[tlb(tag = "#4d")]
pub struct MarketTerms {
    /// The Model's account, in the basechain.
    pub model: HashBytes,
    /// Unix time: until then a cheaper claim replaces the one before.
    pub bid_until: u32,
    pub deliver_within_s: u32,
    /// To a worker that waited for an input in vain.
    pub compensation: Amount,
    /// Ed25519: signs a [`PostInput`]. Zero: the client delivers with messages of its own.
    pub delivery_key: HashBytes,
    /// None: any that the Registry admitted.
    pub measurement: Option<HashBytes>,
    /// Of the worker that holds the job while others may bid; zero as posted.
    pub best_stake: Amount,
    pub network: Ref<MarketNetwork>,
}

/// Where the workers of the market come from, and what their claims must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct MarketNetwork {
    pub worker: CodeRef,
    /// Of the [`Network`] cell.
    pub network: CodeRef,
    pub settle_within_s: u32,
    pub max_prices: Prices,
    pub least_bond: Amount,
}

impl MarketNetwork {
    pub fn of(
        network: &Network,
        settle_within_s: u32,
        max_prices: Prices,
        least_bond: Amount,
    ) -> Result<Self, WireError> {
        Ok(Self {
            worker: network.generation.codes.worker,
            network: CodeRef::of(&to_cell(network)?),
            settle_within_s,
            max_prices,
            least_bond,
        })
    }
}

impl Store for JobSpecial {
    fn store_into(&self, builder: &mut CellBuilder, context: &dyn CellContext) -> Result<(), CellError> {
        match self {
            Self::Session(terms) => terms.store_into(builder, context),
            Self::Market(terms) => terms.store_into(builder, context),
        }
    }
}

impl<'a> Load<'a> for JobSpecial {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        match slice.get_u8(0)? {
            0x53 => SessionTerms::load_from(slice).map(Self::Session),
            0x4d => MarketTerms::load_from(slice).map(|terms| Self::Market(Box::new(terms))),
            _ => Err(CellError::InvalidTag),
        }
    }
}

/// Why a job pays its worker, in [`JobPaid::outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    Settled = 1,
    Rejected = 2,
    Outbid = 3,
    Undelivered = 4,
}

impl Outcome {
    pub fn from_wire(value: u8) -> Option<Self> {
        [Self::Settled, Self::Rejected, Self::Outbid, Self::Undelivered]
            .into_iter()
            .find(|outcome| *outcome as u8 == value)
    }
}

/// What a Worker vouches for of a seller; the rest the job knows.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Bid {
    pub worker_owner: StdAddr,
    pub receipt_key: HashBytes,
    /// The Model's account, of whose offer the rest is.
    pub model: HashBytes,
    pub share_bps: u16,
    pub prices: Prices,
    /// Where the job asks for it.
    pub measurement: Option<Ref<HashBytes>>,
}

impl Bid {
    /// Who serves a job of these terms after this bid; `worker` is the bidding Worker's account.
    pub fn seller(&self, worker: HashBytes, terms: &MarketTerms) -> Seller {
        Seller {
            worker,
            receipt_key: self.receipt_key,
            model: self.model,
            settle_within_s: terms.network.settle_within_s,
            share_bps: self.share_bps,
            prices: self.prices,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Parties {
    pub client: StdAddr,
    pub reporter: StdAddr,
}

messages! {
    /// Client, with the state init: a job for one worker, its input sealed to that worker's key.
    "post_job" "#43480401" PostJob {
        query_id: u64,
        /// Unix time: the last moment of a claim, or of an answer without one.
        until: u32,
        deposit: Amount,
        limits: JobLimits,
        seller: Ref<Seller>,
        /// First cell of a [`Sealed`]; the contract does not keep it.
        input: Cell,
    }
    /// Client, with the state init.
    "open_session" "#4348040d" OpenSession {
        query_id: u64,
        /// Unix time: the end, unless it is closed before.
        until: u32,
        deposit: Amount,
        limits: JobLimits,
        seller: Ref<Seller>,
        terms: Ref<SessionTerms>,
    }
    /// Client, with the state init: a job for whoever claims it, without its input.
    "post_open_job" "#4348040e" PostOpenJob {
        query_id: u64,
        /// Unix time: the last moment of the first claim.
        until: u32,
        deposit: Amount,
        max_units: Units,
        terms: Ref<MarketTerms>,
    }
    /// Worker to Job; the bond travels with it.
    "take_job" "#43480402" TakeJob {
        query_id: u64,
        bond: Amount,
        stake: Amount,
        /// On the market.
        bid: Option<Ref<Bid>>,
    }
    /// Client, of a job of the market, once the bidding is over.
    "deliver_input" "#43480409" DeliverInput {
        query_id: u64,
        /// First cell of a [`Sealed`].
        input: Cell,
    }
    /// External: the same without a wallet; see [`PostInput::signed`].
    "post_input" "#43480411" PostInput {
        signature: Signature,
        /// First cell of a [`Sealed`].
        input: Cell,
    }
    /// Client, while open.
    "cancel_job" "#43480403" CancelJob { query_id: u64 }
    /// Client, of a session: it ends `settle_within_s` later.
    "close_session" "#4348040a" CloseSession { query_id: u64 }
    /// Client, of a session.
    "top_up_job" "#4348040b" TopUpJob { query_id: u64, amount: Amount }
    /// Anyone, after the deadline.
    "expire_job" "#43480404" ExpireJob { query_id: u64 }
    /// Anyone, after the audit window: what is left goes to the client.
    "sweep_job" "#43480405" SweepJob { query_id: u64 }
    /// External; see [`PostReceipt::signed`].
    "post_receipt" "#43480406" PostReceipt {
        signature: Signature,
        receipt: Ref<Receipt>,
        content: Ref<ReceiptContent>,
        /// First cell of a [`Sealed`], whose hash the content names.
        result: Cell,
    }
    /// External; see [`PostRejection::signed`].
    "post_rejection" "#43480407" PostRejection { signature: Signature, rejection: Ref<Rejection> }
    /// External, of a session; see [`RedeemReceipt::new`].
    "redeem_receipt" "#43480408" RedeemReceipt {
        signature: Signature,
        voucher_amount: Amount,
        receipt: Ref<Receipt>,
        /// By the session key, over a [`crate::voucher::Voucher`].
        voucher: Ref<Signature>,
    }
    /// Anyone: two receipts of one sequence and different content.
    "report_equivocation" "#4348040c" ReportEquivocation {
        query_id: u64,
        /// Under which the Worker keeps the key that signed.
        registration_seqno: u32,
        one: Ref<SignedReceipt>,
        other: Ref<SignedReceipt>,
    }
    /// Job to Worker, or to Model for a job of the market, when posted. Without value: the receiver's code does not run.
    "job_noticed" "#43480208" JobNoticed { query_id: u64 }
    /// Job to Worker, with what it earned and the bond it put up.
    "job_paid" "#43480410" JobPaid {
        query_id: u64,
        /// An [`Outcome`].
        outcome: u8,
    }
    /// Job to Worker.
    "job_equivocated" "#43480412" JobEquivocated {
        query_id: u64,
        receipt_key: HashBytes,
        registration_seqno: u32,
        penalty: Amount,
        nonce: u64,
        parties: Ref<Parties>,
    }
    /// Job to client, with all that is left.
    "job_refund" "#43480413" JobRefund {
        query_id: u64,
        /// A [`JobStatus`].
        status: u8,
    }
    /// To an owner, publisher or treasury.
    "payout" "#43480420" Payout { query_id: u64 }
    /// What a message brought too much.
    "excesses" "#d53276db" Excesses { query_id: u64 }
}

impl PostJob {
    pub fn new(
        query_id: u64,
        until: u32,
        deposit: Amount,
        limits: JobLimits,
        seller: Seller,
        input: &Sealed,
    ) -> Result<Self, WireError> {
        Ok(Self { query_id, until, deposit, limits, seller: Ref::new(seller)?, input: to_cell(input)? })
    }

    /// The sealed input; errors where the client's cell is none.
    pub fn sealed_input(&self) -> Result<Sealed, WireError> {
        from_cell(&self.input)
    }
}

impl PostInput {
    /// Signs `"chinpt"` ‖ the job's account ‖ `posted_lt` ‖ hash of the seller's cell ‖ hash of the input with the
    /// delivery key: the seller is the winner of the bidding, to whose key the input is sealed.
    pub fn signed(
        job: &HashBytes,
        posted_lt: u64,
        seller: &Ref<Seller>,
        input: &Sealed,
        delivery_key: &SigningKey,
    ) -> Result<Self, WireError> {
        let input = to_cell(input)?;
        let order = input_order(job, posted_lt, seller.cell().repr_hash(), input.repr_hash());
        Ok(Self { signature: Signature(delivery_key.sign(&order).to_bytes()), input })
    }

    /// Whether the delivery key signed it for this posting and seller. Weak keys are refused.
    pub fn verify(
        &self,
        job: &HashBytes,
        posted_lt: u64,
        seller: &Ref<Seller>,
        delivery_key: &HashBytes,
    ) -> bool {
        let order = input_order(job, posted_lt, seller.cell().repr_hash(), self.input.repr_hash());
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
        VerifyingKey::from_bytes(delivery_key.as_array())
            .is_ok_and(|key| key.verify_strict(&order, &signature).is_ok())
    }

    /// The sealed input; errors where the client's cell is none.
    pub fn sealed_input(&self) -> Result<Sealed, WireError> {
        from_cell(&self.input)
    }
}

fn input_order(
    job: &HashBytes,
    posted_lt: u64,
    seller: &HashBytes,
    input: &HashBytes,
) -> [u8; INPUT_ORDER_BYTES] {
    let mut bytes = [0; INPUT_ORDER_BYTES];
    bytes[..6].copy_from_slice(&INPUT_TAG);
    bytes[6..38].copy_from_slice(&job.0);
    bytes[38..46].copy_from_slice(&posted_lt.to_be_bytes());
    bytes[46..78].copy_from_slice(&seller.0);
    bytes[78..].copy_from_slice(&input.0);
    bytes
}

impl DeliverInput {
    pub fn new(query_id: u64, input: &Sealed) -> Result<Self, WireError> {
        Ok(Self { query_id, input: to_cell(input)? })
    }

    /// The sealed input; errors where the client's cell is none.
    pub fn sealed_input(&self) -> Result<Sealed, WireError> {
        from_cell(&self.input)
    }
}

impl PostReceipt {
    /// The sealed result; errors where the worker's cell is none.
    pub fn sealed_result(&self) -> Result<Sealed, WireError> {
        from_cell(&self.result)
    }
}
