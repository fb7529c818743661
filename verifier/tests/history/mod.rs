//! The history of a job, message by message, each of which a test may change before the transactions are made of them.
#![allow(dead_code, clippy::unwrap_used)]

use contracts::attestor::{
    AttestorStorage, QuoteOrigin, QuoteProof, QuoteVerified, VerifiedReport, VerifyQuote,
};
use contracts::job::{
    AUDIT_WINDOW_S, Bid, CancelJob, CloseSession, DeliverInput, EQUIVOCATED, Excesses, ExpireJob,
    JobEquivocated, JobLimits, JobNoticed, JobPaid, JobRefund, JobSpecial, JobState, JobStatus, JobStorage,
    MarketNetwork, MarketTerms, OpenSession, Outcome, Parties, PostJob, PostOpenJob, PostReceipt,
    PostRejection, Posting, RedeemReceipt, ReportEquivocation, Seller, SessionTerms, SweepJob, TakeJob,
    TopUpJob,
};
use contracts::job_log::{
    CloseAsked, EquivocationShown, InputDelivered, JobClosed, JobOpened, JobTaken, JobToppedUp,
};
use contracts::librarian::library_cell;
use contracts::measurement::{KeyBinding, TdMeasurements};
use contracts::model::{ModelState, ModelStorage, RoyaltyQuoted, SharePaid, Unit};
use contracts::money::{Amount, Split};
use contracts::platform::ServeWorker;
use contracts::receipt::{Receipt, ReceiptContent, Rejection, SignedReceipt, Tag, public_key};
use contracts::registry::{PlatformPolicy, RegistrationRequest, RegistryStorage};
use contracts::sealing::Sealed;
use contracts::voucher::Voucher;
use contracts::wire::{Message, to_cell};
use contracts::worker::{Attestation, AttestationRegistered, Evidence, FundGas};
use contracts::{
    Cell, CodeRef, Codes, Generation, HashBytes, Nanoton, Network, Params, Prices, Ref, SigningKey, Snake,
    StdAddr, Units,
};
use prover::certificate::Kind;
use prover::quote::{PckChain, Quote};
use sha2::{Digest, Sha256};
use tdx_simulator::{SimulatedPlatform, TD_SEPT_VE_DISABLE, TdIdentity};
use tycho_types::cell::{CellBuilder, Lazy};
use tycho_types::dict::Dict;
use tycho_types::models::{
    AccountStatus, ComputePhase, CurrencyCollection, ExecutedComputePhase, ExtInMsgInfo, ExtOutMsgInfo,
    HashUpdate, IntMsgInfo, MsgInfo, OrdinaryTxInfo, OwnedMessage, StateInit, Transaction, TxInfo,
};
use tycho_types::num::{Tokens, Uint15, VarUint56};
use verifier::{
    AttestorAccount, AttestorTrust, JobHistory, QuotePolicy, RegistrationTrace, RegistryAccount,
    WorkerRegistration,
};

pub(crate) const NOW_S: u64 = 1_800_000_000;
pub(crate) const NETWORK_ID: i32 = -3;
const IMAGE: &str = "worker";
pub(crate) const FEES: u128 = 4_000_000;
const FORWARD_FEE: u128 = 266_669;
/// What 760 gas cost at the price that the transactions here state.
pub(crate) const RECEIVERS_GAS: u128 = 304_000;
const REDEMPTION_COST: u128 = 5_580_000;

/// How far the job gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Open,
    Claimed,
    /// Answered without a claim.
    Settled,
    SettledClaimed,
    Rejected,
    RejectedClaimed,
    Cancelled,
    ExpiredOpen,
    ExpiredClaimed,
    Session,
    SessionSettled,
    SessionRejected,
    /// The client asked for the end, the worker redeemed no more.
    SessionExpired,
    Market,
    MarketAwaiting,
    MarketUndelivered,
    MarketSettled,
}

impl Ending {
    pub(crate) const ALL: [Self; 17] = [
        Self::Open,
        Self::Claimed,
        Self::Settled,
        Self::SettledClaimed,
        Self::Rejected,
        Self::RejectedClaimed,
        Self::Cancelled,
        Self::ExpiredOpen,
        Self::ExpiredClaimed,
        Self::Session,
        Self::SessionSettled,
        Self::SessionRejected,
        Self::SessionExpired,
        Self::Market,
        Self::MarketAwaiting,
        Self::MarketUndelivered,
        Self::MarketSettled,
    ];

    pub(crate) fn status(self) -> JobStatus {
        match self {
            Self::Open | Self::Market => JobStatus::Open,
            Self::Claimed => JobStatus::Claimed,
            Self::Session => JobStatus::Session,
            Self::MarketAwaiting => JobStatus::Awaiting,
            Self::Settled
            | Self::SettledClaimed
            | Self::SessionSettled
            | Self::SessionExpired
            | Self::MarketSettled => JobStatus::Settled,
            Self::Rejected | Self::RejectedClaimed | Self::SessionRejected => JobStatus::Rejected,
            Self::Cancelled => JobStatus::Cancelled,
            Self::ExpiredOpen | Self::ExpiredClaimed | Self::MarketUndelivered => JobStatus::Expired,
        }
    }

    pub(crate) fn is_session(self) -> bool {
        matches!(self, Self::Session | Self::SessionSettled | Self::SessionRejected | Self::SessionExpired)
    }

    pub(crate) fn is_market(self) -> bool {
        matches!(self, Self::Market | Self::MarketAwaiting | Self::MarketUndelivered | Self::MarketSettled)
    }

    pub(crate) fn has_claim(self) -> bool {
        let is_claimed = matches!(
            self,
            Self::Claimed | Self::SettledClaimed | Self::RejectedClaimed | Self::ExpiredClaimed
        );
        is_claimed || (self.is_market() && self != Self::Market)
    }

    /// Whether the worker did something.
    pub(crate) fn is_served(self) -> bool {
        let is_unclaimed = matches!(
            self,
            Self::Settled
                | Self::Rejected
                | Self::Session
                | Self::SessionSettled
                | Self::SessionRejected
                | Self::SessionExpired
        );
        self.has_claim() || is_unclaimed
    }
}

/// One message to the job, and what its transaction sends.
#[derive(Clone)]
pub(crate) struct Move {
    pub(crate) name: &'static str,
    pub(crate) at_s: u32,
    /// Nobody: from outside.
    pub(crate) from: Option<StdAddr>,
    pub(crate) value: u128,
    pub(crate) body: Cell,
    pub(crate) bounced: bool,
    pub(crate) init: Option<StateInit>,
    pub(crate) sent: Vec<(StdAddr, u128, Cell)>,
    /// Gets all that is left, after the others.
    pub(crate) rest: Option<(StdAddr, Cell)>,
    /// Of that, what stays all the same.
    pub(crate) kept: u128,
    pub(crate) logs: Vec<Cell>,
    pub(crate) succeeds: bool,
    pub(crate) fees: u128,
}

impl Move {
    fn new(
        name: &'static str,
        at_s: u32,
        from: Option<&StdAddr>,
        value: u128,
        message: &impl Message,
    ) -> Self {
        Self {
            name,
            at_s,
            from: from.cloned(),
            value,
            body: message.to_cell().unwrap(),
            bounced: false,
            init: None,
            sent: Vec::new(),
            rest: None,
            kept: 0,
            logs: Vec::new(),
            succeeds: true,
            fees: FEES,
        }
    }

    fn refused(mut self) -> Self {
        self.succeeds = false;
        self
    }

    fn send(mut self, to: &StdAddr, value: u128, message: &impl Message) -> Self {
        self.sent.push((to.clone(), value, message.to_cell().unwrap()));
        self
    }

    fn log(mut self, log: &impl Message) -> Self {
        self.logs.push(log.to_cell().unwrap());
        self
    }
}

/// The moves of one job, and the state they leave.
pub(crate) struct Script {
    pub(crate) moves: Vec<Move>,
    state: JobState,
}

impl Script {
    pub(crate) fn named(&mut self, name: &str) -> &mut Move {
        self.moves.iter_mut().find(|found| found.name == name).unwrap()
    }

    /// The move's message of this kind, to be changed.
    pub(crate) fn sent<M: Message>(&mut self, name: &str) -> &mut (StdAddr, u128, Cell) {
        let sent = &mut self.named(name).sent;
        sent.iter_mut().find(|(_, _, body)| M::from_cell(body).is_ok()).unwrap()
    }
}

type Edit = Box<dyn Fn(&mut Script) + Send + Sync>;

pub(crate) struct Plan {
    pub(crate) ending: Ending,
    pub(crate) swept: bool,
    pub(crate) activated_before: bool,
    pub(crate) equivocated: bool,
    /// Of the moves, before there are transactions.
    pub(crate) edit: Edit,
    pub(crate) stored: Box<dyn Fn(&mut JobState) + Send + Sync>,
    pub(crate) registry_code: Cell,
    pub(crate) trusted_registry_code: HashBytes,
    pub(crate) registry_generation: Option<Generation>,
    pub(crate) admitted_from: Option<u32>,
    pub(crate) platform: SimulatedPlatform,
    pub(crate) network: Network,
    pub(crate) client: StdAddr,
    pub(crate) owner: StdAddr,
    pub(crate) nonce: u64,
    pub(crate) nonce_in_state_init: u64,
    pub(crate) key: SigningKey,
    pub(crate) session_key: SigningKey,
    pub(crate) posted_at_s: u32,
    pub(crate) until: u32,
    pub(crate) deposit: Amount,
    pub(crate) limits: JobLimits,
    pub(crate) prices: Prices,
    pub(crate) royalty_bps: u16,
    pub(crate) share_bps: u16,
    pub(crate) bond: Amount,
    pub(crate) model_data: Option<Cell>,
    pub(crate) offer: Option<RoyaltyQuoted>,
    pub(crate) units: Units,
    pub(crate) amount: Amount,
    pub(crate) registered_measurement: HashBytes,
    pub(crate) registered_at_s: u32,
    pub(crate) candidate_expires_at: u32,
    pub(crate) image: &'static str,
    pub(crate) bound_worker: StdAddr,
    pub(crate) bound_network_id: i32,
    pub(crate) bound_encryption_key: HashBytes,
    pub(crate) chain_root_hash: Option<HashBytes>,
    pub(crate) attestor_code: Cell,
    pub(crate) attestor_root: Vec<u8>,
    pub(crate) change_proof: Box<dyn Fn(&mut QuoteProof) + Send + Sync>,
    pub(crate) change_registered: Box<dyn Fn(&mut AttestationRegistered) + Send + Sync>,
    pub(crate) change_trace: Box<dyn Fn(&mut RegistrationTrace) + Send + Sync>,
    pub(crate) registered_from: Option<StdAddr>,
    pub(crate) answer_to: Option<StdAddr>,
}

pub(crate) fn address(byte: u8) -> StdAddr {
    StdAddr::new(0, HashBytes([byte; 32]))
}

pub(crate) fn signing_key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

pub(crate) const POSTED_LT: u64 = 1_000_000;
const LT_STEP: u64 = 1_000;
pub(crate) const SETTLE_WITHIN_S: u32 = 300;
const DELIVER_WITHIN_S: u32 = 120;
const BID_FOR_S: u32 = 60;
const COMPENSATION: Amount = Amount::new(3_000_000);
const ENCRYPTION_KEY: HashBytes = HashBytes([77; 32]);
const MC_ROOT_HASH: HashBytes = HashBytes([55; 32]);
const MC_SEQNO: u32 = 4_321;
pub(crate) const MODEL_ID: HashBytes = HashBytes([33; 32]);

impl Plan {
    pub(crate) fn honest() -> Self {
        Self::ending(Ending::Settled)
    }

    /// An honest job with this end.
    pub(crate) fn ending(ending: Ending) -> Self {
        let now = NOW_S as u32;
        let platform = SimulatedPlatform::new(&[7; 32], NOW_S).unwrap();
        let attestor =
            contracts::CodeRef::of(&attestor_code()).address(&to_cell(&attestor(&platform)).unwrap());
        let network = Network { registry: address(1), generation: generation(attestor) };
        let (client, owner) = (address(2), address(3));
        let prices = Prices {
            input: Nanoton::new(1_000_000),
            cached_input: Nanoton::new(500_000),
            output: Nanoton::new(20_000_001),
        };
        let units = Units { input: 120, cached_input: 3, output: 64 };
        let registry_code = registry_code(1);
        let royalty_bps = 500;
        let posted_at_s = now - 1_000;
        let mut plan = Self {
            ending,
            swept: false,
            activated_before: false,
            equivocated: false,
            edit: Box::new(|_| {}),
            stored: Box::new(|_| {}),
            trusted_registry_code: *registry_code.repr_hash(),
            registry_code,
            registry_generation: None,
            admitted_from: Some(0),
            attestor_root: platform.root_der().to_vec(),
            attestor_code: attestor_code(),
            change_proof: Box::new(|_| {}),
            change_registered: Box::new(|_| {}),
            change_trace: Box::new(|_| {}),
            registered_from: None,
            answer_to: None,
            platform,
            client,
            nonce: 7,
            nonce_in_state_init: 7,
            key: signing_key(40),
            session_key: signing_key(42),
            posted_at_s,
            until: posted_at_s + 600,
            deposit: Amount::new(500_000_000),
            limits: JobLimits {
                max_units: Units { input: 200, cached_input: 200, output: 128 },
                least_bond: Amount::new(550_000_000),
            },
            amount: Amount::try_from(prices.cost(&units)).unwrap(),
            prices,
            royalty_bps,
            share_bps: network.generation.share_bps(royalty_bps),
            bond: Amount::new(600_000_000),
            model_data: None,
            offer: None,
            units,
            registered_measurement: measurement_of(IMAGE),
            registered_at_s: posted_at_s - 500,
            candidate_expires_at: now + 86_400,
            image: IMAGE,
            bound_worker: network.worker_address(&owner).unwrap(),
            bound_network_id: NETWORK_ID,
            bound_encryption_key: ENCRYPTION_KEY,
            chain_root_hash: Some(MC_ROOT_HASH),
            owner,
            network,
        };
        plan.model_data = Some(plan.model(MODEL_ID, royalty_bps));
        plan
    }

    /// Another generation of contracts, the worker moved to it.
    pub(crate) fn generation_with(&mut self, change: impl FnOnce(&mut Generation)) {
        change(&mut self.network.generation);
        self.bound_worker = self.worker();
        self.share_bps = self.network.generation.share_bps(self.royalty_bps);
        self.model_data = Some(self.model(MODEL_ID, self.royalty_bps));
    }

    pub(crate) fn worker(&self) -> StdAddr {
        self.network.worker_address(&self.owner).unwrap()
    }

    pub(crate) fn job(&self) -> StdAddr {
        self.network.job_address(&self.client, self.nonce).unwrap()
    }

    pub(crate) fn model_address(&self) -> StdAddr {
        self.network.model_address(&MODEL_ID).unwrap()
    }

    /// The data of a Model's account.
    pub(crate) fn model(&self, id: HashBytes, royalty_bps: u16) -> Cell {
        let mut storage = ModelStorage::initial(&self.network, id).unwrap();
        storage.state = Some(ModelState {
            publisher: address(9),
            royalty_bps,
            unit: Unit::Token,
            deprecated: false,
            metadata: Ref::new(Snake::new(b"{}".to_vec()).unwrap()).unwrap(),
        });
        to_cell(&storage).unwrap()
    }

    pub(crate) fn policy(&self) -> QuotePolicy {
        QuotePolicy::dangerous_simulated(self.platform.root_der().to_vec(), vec![measurement_of(IMAGE)])
    }

    pub(crate) fn seller(&self) -> Seller {
        Seller {
            worker: self.worker().address,
            receipt_key: public_key(&self.key),
            model: self.model_address().address,
            settle_within_s: SETTLE_WITHIN_S,
            share_bps: self.share_bps,
            prices: self.prices,
        }
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            tag: Tag,
            job: self.job(),
            posted_lt: POSTED_LT,
            sequence: 1,
            is_final: true,
            units: self.units,
            amount: self.amount,
            content_hash: content().hash().unwrap(),
        }
    }

    pub(crate) fn post_receipt(&self) -> PostReceipt {
        self.post(self.receipt(), &self.key)
    }

    pub(crate) fn post(&self, receipt: Receipt, key: &SigningKey) -> PostReceipt {
        PostReceipt::signed(receipt, content(), &sealed(22), key).unwrap()
    }

    pub(crate) fn rejection(&self) -> Rejection {
        Rejection { tag: Tag, job: self.job(), posted_lt: POSTED_LT, reason: 1 }
    }

    pub(crate) fn redeem(&self, sequence: u32, sum: u64, is_final: bool) -> RedeemReceipt {
        let receipt = Receipt { sequence, is_final, amount: Amount::new(sum), ..self.receipt() };
        self.redeem_with(receipt, Amount::new(sum))
    }

    pub(crate) fn redeem_with(&self, receipt: Receipt, amount: Amount) -> RedeemReceipt {
        let voucher = Voucher { job: self.job().address, posted_lt: POSTED_LT, amount };
        let signed = SignedReceipt::new(receipt, &self.key).unwrap();
        RedeemReceipt::new(signed, amount, voucher.sign(&self.session_key)).unwrap()
    }

    /// Who holds the job first, and is outbid.
    pub(crate) fn first_bidder(&self) -> Seller {
        let mut seller = self.seller();
        seller.worker = self.network.worker_address(&address(6)).unwrap().address;
        seller.prices.output = Nanoton::new(seller.prices.output.get() as u64 + 500_000);
        seller.receipt_key = public_key(&signing_key(43));
        seller
    }

    pub(crate) fn market_terms(&self) -> MarketTerms {
        let mut max_prices = self.prices;
        max_prices.output = Nanoton::new(30_000_000);
        MarketTerms {
            model_id: MODEL_ID,
            measurement: HashBytes::ZERO,
            max_prices,
            bid_until: self.posted_at_s + BID_FOR_S,
            deliver_within_s: DELIVER_WITHIN_S,
            compensation: COMPENSATION,
            best_stake: Amount::ZERO,
            network: Ref::new(MarketNetwork::of(&self.network, &MODEL_ID, SETTLE_WITHIN_S).unwrap()).unwrap(),
        }
    }

    fn script(&self) -> Script {
        let (seller, limits, at_s) = (Ref::new(self.seller()).unwrap(), self.limits, self.posted_at_s);
        let (until, deposit, client) = (self.until, self.deposit, &self.client);
        let init = JobStorage::initial(client.clone(), self.nonce_in_state_init);
        let init = StateInit { data: Some(to_cell(&init).unwrap()), ..Default::default() };
        let value = u128::from(deposit.get()) + 60_000_000;
        let notice = JobNoticed { query_id: 0 };
        let opened = |opcode, terms_hash| JobOpened { opcode, until, deposit, terms_hash };
        let from = Some(client);
        let (mut post, status, posted_seller, special) = if self.ending.is_session() {
            let terms = SessionTerms { session_key: public_key(&self.session_key) };
            let session_seller = seller.clone();
            let open = OpenSession {
                query_id: 0,
                until,
                deposit,
                limits,
                seller: session_seller,
                terms: Ref::new(terms).unwrap(),
            };
            let post = Move::new("post", at_s, from, value, &open)
                .send(&self.worker(), 0, &notice)
                .log(&opened(OpenSession::OPCODE, seller.hash()));
            let special = Ref::new(JobSpecial::Session(terms)).unwrap();
            (post, JobStatus::Session, Some(seller.clone()), Some(special))
        } else if self.ending.is_market() {
            let terms = Ref::new(self.market_terms()).unwrap();
            let hash = terms.hash();
            let open = PostOpenJob { query_id: 0, until, deposit, limits, terms };
            let post = Move::new("post", at_s, from, value, &open)
                .send(&self.model_address(), 0, &notice)
                .log(&opened(PostOpenJob::OPCODE, hash));
            (post, JobStatus::Open, None, Some(market(self.market_terms())))
        } else {
            let job = PostJob::new(0, until, deposit, limits, self.seller(), &sealed(11)).unwrap();
            let post = Move::new("post", at_s, from, value, &job)
                .send(&self.worker(), 0, &notice)
                .log(&opened(PostJob::OPCODE, seller.hash()));
            (post, JobStatus::Open, Some(seller.clone()), None)
        };
        let posting = Posting { posted_lt: POSTED_LT, limits, seller: posted_seller, special };
        let (bond, paid) = (Amount::ZERO, Amount::ZERO);
        let state = JobState { status, until, deposit, bond, paid, sequence: 0, posting };
        let mut script = Script { moves: Vec::new(), state };
        if self.activated_before {
            let early =
                Move::new("early", at_s - 60, Some(&address(88)), 5_000_000, &FundGas { query_id: 0 });
            script.moves.push(Move { init: Some(init), ..early.refused() });
        } else {
            post.init = Some(init);
        }
        // What a stranger sends is refused and proves nothing.
        let stranger = Move {
            body: post.body.clone(),
            ..Move::new("stranger", at_s + 1, Some(&address(89)), 7_000_000, &notice)
        };
        script.moves.extend([post, stranger.refused()]);
        self.claims(&mut script);
        if self.ending.is_session() {
            self.redemptions(&mut script);
        }
        self.end(&mut script);
        if self.equivocated {
            let other = Receipt { units: Units::default(), ..self.receipt() };
            let (one, other) = (self.receipt(), other);
            let report = ReportEquivocation {
                query_id: 3,
                registration_seqno: 6,
                one: Ref::new(SignedReceipt::new(one, &self.key).unwrap()).unwrap(),
                other: Ref::new(SignedReceipt::new(other, &self.key).unwrap()).unwrap(),
            };
            let penalty = script.state.penalty();
            let parties = Parties { client: client.clone(), reporter: address(84) };
            let told = JobEquivocated {
                query_id: 3,
                receipt_key: public_key(&self.key),
                registration_seqno: 6,
                penalty,
                nonce: self.nonce,
                parties: Ref::new(parties).unwrap(),
            };
            let last_s = script.moves.last().unwrap().at_s;
            script.moves.push(
                Move::new("report", last_s + 5, Some(&address(84)), 20_000_000, &report)
                    .send(&self.worker(), 20_000_000 - FEES - FORWARD_FEE, &told)
                    .log(&EquivocationShown { sequence: 1, penalty }),
            );
            script.state.sequence += EQUIVOCATED;
        }
        if self.swept {
            let at_s = script.state.until + 1;
            let sweep = Move::new("sweep", at_s, Some(&address(86)), 50_000_000, &SweepJob { query_id: 9 });
            let rest = Excesses { query_id: 9 }.to_cell().unwrap();
            script.moves.push(Move { rest: Some((client.clone(), rest)), ..sweep });
        }
        script
    }

    fn claims(&self, script: &mut Script) {
        if !self.ending.has_claim() {
            return;
        }
        let (stake, measurement) = (Amount::new(10_000_000_000), self.registered_measurement);
        let take = |bid| TakeJob { query_id: 0, bond: self.bond, stake, measurement, bid };
        let value = u128::from(self.bond.get()) + 6_000_000;
        let at_s = self.posted_at_s + 30;
        let (state, moves) = (&mut script.state, &mut script.moves);
        state.bond = self.bond;
        if !self.ending.is_market() {
            state.until = at_s + SETTLE_WITHIN_S;
            state.status = JobStatus::Claimed;
            let taken = self.taken(&self.seller(), state.until);
            moves.push(Move::new("claim", at_s, Some(&self.worker()), value, &take(None)).log(&taken));
            return;
        }
        let until = self.posted_at_s + BID_FOR_S + DELIVER_WITHIN_S;
        let bidders =
            [("first bid", self.first_bidder(), address(6)), ("bid", self.seller(), self.owner.clone())];
        for (at, (name, seller, owner)) in bidders.into_iter().enumerate() {
            let worker = self.network.worker_address(&owner).unwrap();
            let taken = self.taken(&seller, until);
            let bid = Bid { worker_owner: owner, seller: Ref::new(seller).unwrap() };
            let bid = take(Some(Ref::new(bid).unwrap()));
            let mut taking = Move::new(name, at_s + at as u32, Some(&worker), value, &bid).log(&taken);
            if at > 0 {
                let outbid = JobPaid { query_id: 0, outcome: Outcome::Outbid as u8 };
                let first = StdAddr::new(0, self.first_bidder().worker);
                taking = taking.send(&first, u128::from(self.bond.get()) + RECEIVERS_GAS, &outbid);
            }
            moves.push(taking);
        }
        state.until = until;
        state.status = JobStatus::Awaiting;
        state.posting.seller = Some(Ref::new(self.seller()).unwrap());
        state.posting.special = Some(market(MarketTerms { best_stake: stake, ..self.market_terms() }));
        if self.ending == Ending::MarketSettled {
            let at_s = self.posted_at_s + BID_FOR_S + 10;
            state.until = at_s + SETTLE_WITHIN_S;
            state.status = JobStatus::Claimed;
            let deliver = DeliverInput::new(0, &sealed(12)).unwrap();
            let log = InputDelivered { input_hash: *deliver.input.repr_hash(), until: state.until };
            moves.push(Move::new("deliver", at_s, Some(&self.client), 8_000_000, &deliver).log(&log));
        }
    }

    fn taken(&self, seller: &Seller, until: u32) -> JobTaken {
        JobTaken { worker: seller.worker, bond: self.bond, until, prices: seller.prices }
    }

    fn redemptions(&self, script: &mut Script) {
        if self.ending == Ending::SessionRejected {
            return;
        }
        let (state, moves) = (&mut script.state, &mut script.moves);
        let mut before = Split::of_session(Amount::ZERO, Amount::ZERO, self.deposit, self.share_bps);
        for (at, sum) in [(1u32, 100_000_000u64), (2, 200_000_000)] {
            let redeem = self.redeem(at, sum, false);
            let split = Split::of_session(Amount::new(sum), Amount::new(sum), self.deposit, self.share_bps);
            let earned = u128::from(split.to_worker.get() - before.to_worker.get());
            let value = earned - REDEMPTION_COST + RECEIVERS_GAS;
            let name = if at == 1 { "redeem" } else { "second redeem" };
            moves.push(Move::new(name, self.posted_at_s + 20 * at, None, 0, &redeem).send(
                &self.worker(),
                value,
                &JobPaid { query_id: POSTED_LT, outcome: Outcome::Settled as u8 },
            ));
            (state.paid, state.sequence) = (split.paid, at);
            before = split;
        }
        let more = TopUpJob { query_id: 0, amount: Amount::new(70_000_000) };
        state.deposit = state.deposit.checked_add(more.amount).unwrap();
        let log = JobToppedUp { deposit: state.deposit };
        moves.push(
            Move::new("top up", self.posted_at_s + 50, Some(&self.client), 75_000_000, &more).log(&log),
        );
        if self.ending == Ending::SessionExpired {
            let at_s = self.posted_at_s + 55;
            state.until = at_s + SETTLE_WITHIN_S;
            let log = CloseAsked { until: state.until };
            let close = CloseSession { query_id: 0 };
            moves.push(Move::new("close", at_s, Some(&self.client), 5_000_000, &close).log(&log));
        }
    }

    fn end(&self, script: &mut Script) {
        let client = &self.client;
        let state = &mut script.state;
        let seller = state.posting.seller.as_ref().map(|seller| (**seller).clone());
        let paid_before = state.paid;
        let at_s = match self.ending {
            Ending::ExpiredOpen
            | Ending::ExpiredClaimed
            | Ending::SessionExpired
            | Ending::MarketUndelivered => state.until + 1,
            _ => self.posted_at_s + 150,
        };
        let mut signed_hash = HashBytes::ZERO;
        let mut share = Amount::ZERO;
        let mut to_worker = None;
        let mut end = match self.ending {
            Ending::Open | Ending::Claimed | Ending::Session | Ending::Market | Ending::MarketAwaiting => {
                return;
            }
            Ending::Settled | Ending::SettledClaimed | Ending::MarketSettled => {
                let post = self.post_receipt();
                let cost = self.prices.cost(&self.units);
                let split = Split::of(self.amount, cost, state.deposit, self.share_bps);
                (state.paid, share, signed_hash) = (split.paid, split.share, post.receipt.hash());
                state.sequence = 1;
                to_worker = Some((split.to_worker.get() + state.bond.get(), Outcome::Settled));
                Move::new("end", at_s, None, 0, &post)
            }
            Ending::SessionSettled => {
                let redeem = self.redeem(3, 300_000_000, true);
                let sum = Amount::new(300_000_000);
                let split = Split::of_session(sum, sum, state.deposit, self.share_bps);
                let before = paid_before.get() - paid_before.share_bps(self.share_bps).get();
                (state.paid, share, signed_hash) = (split.paid, split.share, redeem.receipt.hash());
                state.sequence = 3;
                to_worker = Some((split.to_worker.get() - before, Outcome::Settled));
                Move::new("end", at_s, None, 0, &redeem)
            }
            Ending::Rejected | Ending::RejectedClaimed | Ending::SessionRejected => {
                let post = PostRejection::signed(self.rejection(), &self.key).unwrap();
                signed_hash = post.rejection.hash();
                to_worker = Some((state.bond.get(), Outcome::Rejected));
                Move::new("end", at_s, None, 0, &post)
            }
            Ending::Cancelled => Move::new("end", at_s, Some(client), 50_000_000, &CancelJob { query_id: 9 }),
            Ending::ExpiredOpen
            | Ending::ExpiredClaimed
            | Ending::SessionExpired
            | Ending::MarketUndelivered => {
                if self.ending == Ending::SessionExpired {
                    share = state.paid.share_bps(self.share_bps);
                }
                if self.ending == Ending::MarketUndelivered {
                    to_worker = Some((state.bond.get() + COMPENSATION.get(), Outcome::Undelivered));
                }
                Move::new("end", at_s, Some(&address(87)), 50_000_000, &ExpireJob { query_id: 9 })
            }
        };
        if let (true, Some(seller)) = (share > Amount::ZERO, &seller) {
            let model = StdAddr::new(0, seller.model);
            let value = u128::from(share.get()) + RECEIVERS_GAS;
            end = end.send(&model, value, &SharePaid { query_id: POSTED_LT });
        }
        if let (Some((amount @ 1.., outcome)), Some(seller)) = (to_worker, &seller) {
            let value = u128::from(amount) + RECEIVERS_GAS;
            let paid = JobPaid { query_id: POSTED_LT, outcome: outcome as u8 };
            end = end.send(&StdAddr::new(0, seller.worker), value, &paid);
        }
        if end.name == "end" && end.from.as_ref() == Some(&address(87)) {
            end = end.send(&address(87), 40_000_000, &Excesses { query_id: 9 });
        }
        let status = self.ending.status();
        end = end.log(&JobClosed { status: status as u8, paid: state.paid, signed_hash });
        let refund = JobRefund { query_id: POSTED_LT, status: status as u8 }.to_cell().unwrap();
        end.rest = Some((client.clone(), refund));
        (state.status, state.until, state.bond) = (status, at_s + AUDIT_WINDOW_S, Amount::ZERO);
        script.moves.push(end);
    }

    pub(crate) fn history(&self) -> JobHistory {
        let mut script = self.script();
        (self.edit)(&mut script);
        (self.stored)(&mut script.state);
        let mut account = Account::new(self.job());
        let mut posted = false;
        let mut lt = POSTED_LT - LT_STEP;
        for step in &script.moves {
            // The posting has the logical time that receipts name, whatever came before.
            lt = match (posted, step.name) {
                (false, "post") => POSTED_LT,
                (false, _) => POSTED_LT - LT_STEP,
                (true, _) => lt + LT_STEP,
            };
            posted |= step.name == "post";
            let incoming = account.incoming(step);
            account.fees = step.fees;
            account.play(lt, step, incoming);
        }
        JobHistory {
            network: self.network.clone(),
            registry_code: self.trusted_registry_code,
            registry: Some(self.registry()),
            attestor_trust: AttestorTrust {
                code: *self.attestor_code.repr_hash(),
                root_der: self.attestor_root.clone(),
            },
            attestor: Some(AttestorAccount {
                code: attestor_code(),
                data: to_cell(&attestor(&self.platform)).unwrap(),
            }),
            job: self.job(),
            transactions: account.transactions,
            balance_nanoton: account.balance,
            state: (!self.swept).then_some(script.state),
            registration: self.ending.is_served().then(|| self.registration()),
            model: self.model_data.clone(),
            offer: self.offer.as_ref().map(|offer| self.offered(offer)),
        }
    }

    fn offered(&self, offer: &RoyaltyQuoted) -> Cell {
        let mut worker = Account::new(self.worker());
        let step = Move::new("offer", self.posted_at_s - 200, Some(&self.model_address()), 9_000_000, offer);
        let incoming = worker.incoming(&step);
        worker.play(50, &step, incoming);
        worker.transactions.remove(0)
    }

    fn registry(&self) -> RegistryAccount {
        let generation = self.registry_generation.clone().unwrap_or_else(|| self.network.generation.clone());
        let mut storage = RegistryStorage::initial(
            address(5),
            0,
            0,
            generation,
            &[],
            PlatformPolicy::initial(0),
            platform_code(),
        )
        .unwrap();
        if let Some(from_s) = self.admitted_from {
            storage.measurements.set(self.registered_measurement, from_s).unwrap();
        }
        RegistryAccount {
            code: self.registry_code.clone(),
            data: to_cell(&storage).unwrap(),
            as_of_s: NOW_S as u32,
        }
    }

    fn registration(&self) -> WorkerRegistration {
        let request = RegistrationRequest {
            receipt_key: public_key(&self.key),
            encryption_key: ENCRYPTION_KEY,
            registration_seqno: 6,
            mc_seqno: MC_SEQNO,
            mc_root_hash: MC_ROOT_HASH,
        };
        let binding = KeyBinding {
            network_id: self.bound_network_id,
            worker: self.bound_worker.clone(),
            receipt_key: request.receipt_key,
            encryption_key: self.bound_encryption_key,
            registration_seqno: request.registration_seqno,
            mc_seqno: MC_SEQNO,
            mc_root_hash: MC_ROOT_HASH,
        };
        let report_data = binding.report_data();
        let raw = self.platform.quote(&report_data, &TdIdentity::of_image(self.image));
        let quote = Quote::parse(&raw).unwrap();
        let chain = PckChain::from_pem(quote.pck_chain.as_deref().unwrap()).unwrap();
        let Kind::Pck(claims) = chain.pck.kind.clone() else { panic!("a PCK certificate") };
        let mut proof = quote.prove_with(&chain).unwrap();
        (self.change_proof)(&mut proof);

        let owner = self.registered_from.clone().unwrap_or_else(|| self.owner.clone());
        let origin = QuoteOrigin {
            quote_digest: HashBytes(Sha256::digest(&quote.signed).into()),
            advisories: HashBytes::ZERO,
            authority: proof.pck.platform.issuer,
            ppid: claims.ppid,
            fmspc: claims.fmspc,
        };
        let report = VerifiedReport {
            measurement: self.registered_measurement,
            report_data: contracts::attestor::Bytes(report_data),
            needs: 0,
            expires_at: u32::MAX,
            serial: chain.pck.serial,
            origin: Ref::new(origin.clone()).unwrap(),
        };
        let evidence = Evidence {
            quote_digest: origin.quote_digest,
            mc_seqno: MC_SEQNO,
            registered_at: self.registered_at_s,
            authority: origin.authority,
            serial: report.serial,
            ppid: origin.ppid,
        };
        let attestation = Ref::new(Attestation {
            receipt_key: public_key(&self.key),
            encryption_key: ENCRYPTION_KEY,
            measurement: self.registered_measurement,
            expires_at: self.candidate_expires_at,
            evidence: Ref::new(evidence).unwrap(),
        })
        .unwrap();
        let mut registered = AttestationRegistered {
            query_id: 0,
            ppid: origin.ppid,
            registration_seqno: request.registration_seqno,
            attestation: attestation.clone(),
        };
        (self.change_registered)(&mut registered);
        let asked = VerifyQuote {
            query_id: 0,
            answer_to: self.answer_to.clone().unwrap_or_else(|| self.network.registry.clone()),
            quote: Ref::new(proof).unwrap(),
            payload: to_cell(&request).unwrap(),
        };
        let verified = QuoteVerified {
            query_id: 0,
            requester: owner.clone(),
            report: Ref::new(report).unwrap(),
            payload: to_cell(&request).unwrap(),
        };
        let serve = ServeWorker {
            query_id: 0,
            worker_owner: owner.clone(),
            registration_seqno: request.registration_seqno,
            attestation,
        };
        let accounts = [
            self.network.generation.params.attestor.clone(),
            self.network.registry.clone(),
            self.network.platform_address(origin.ppid).unwrap(),
            self.network.worker_address(&owner).unwrap(),
        ];
        let bodies = [
            verified.to_cell().unwrap(),
            serve.to_cell().unwrap(),
            registered.to_cell().unwrap(),
            Excesses { query_id: 0 }.to_cell().unwrap(),
        ];
        let mut came = internal(&owner, &accounts[0], 100_000_000, asked.to_cell().unwrap(), None);
        let mut transactions = accounts.iter().enumerate().map(|(at, address)| {
            let mut account = Account::new(address.clone());
            let value = 100_000_000 - 10_000_000 * at as u128;
            let next = accounts.get(at + 1).unwrap_or(&owner);
            let sent = account.to(next, value - 10_000_000, bodies[at].clone());
            let incoming = (std::mem::replace(&mut came, sent.0.clone()), value);
            account.transaction(100 + at as u64, self.registered_at_s, incoming, vec![sent], true);
            account.transactions.remove(0)
        });
        let mut next = || transactions.next().unwrap();
        let mut trace =
            RegistrationTrace { attestor: next(), registry: next(), platform: next(), worker: next() };
        (self.change_trace)(&mut trace);
        WorkerRegistration { trace, mc_root_hash: self.chain_root_hash }
    }
}

/// An account that is made to have these transactions.
struct Account {
    address: StdAddr,
    transactions: Vec<Cell>,
    previous: (u64, HashBytes),
    balance: u128,
    fees: u128,
}

impl Account {
    fn new(address: StdAddr) -> Self {
        Self { address, transactions: Vec::new(), previous: (0, HashBytes::ZERO), balance: 0, fees: FEES }
    }

    fn from(&self, sender: &StdAddr, value: u128, body: Cell, init: Option<StateInit>) -> (Cell, u128) {
        (internal(sender, &self.address, value, body, init), value)
    }

    fn bounced(&self, sender: &StdAddr, value: u128, body: Cell) -> (Cell, u128) {
        let info = IntMsgInfo {
            bounced: true,
            src: sender.clone().into(),
            dst: self.address.clone().into(),
            value: CurrencyCollection::new(value),
            ..Default::default()
        };
        (message(MsgInfo::Int(info), body, None), value)
    }

    fn to(&self, receiver: &StdAddr, value: u128, body: Cell) -> (Cell, u128) {
        (internal(&self.address, receiver, value, body, None), value)
    }

    fn external(&self, body: Cell) -> (Cell, u128) {
        let info = ExtInMsgInfo { src: None, dst: self.address.clone().into(), import_fee: Tokens::ZERO };
        (message(MsgInfo::ExtIn(info), body, None), 0)
    }

    fn incoming(&self, step: &Move) -> (Cell, u128) {
        match &step.from {
            None => self.external(step.body.clone()),
            Some(from) if step.bounced => self.bounced(from, step.value, step.body.clone()),
            Some(from) => self.from(from, step.value, step.body.clone(), step.init.clone()),
        }
    }

    fn play(&mut self, lt: u64, step: &Move, incoming: (Cell, u128)) {
        let mut sent: Vec<_> =
            step.sent.iter().map(|(to, value, body)| self.to(to, *value, body.clone())).collect();
        if let Some((to, body)) = &step.rest {
            let spent: u128 = sent.iter().map(|(_, value)| value + FORWARD_FEE).sum();
            let rest = self.balance + incoming.1 - spent - self.fees - FORWARD_FEE - step.kept;
            sent.push(self.to(to, rest, body.clone()));
        }
        self.transaction_with(lt, step.at_s, incoming, sent, &step.logs, step.succeeds);
    }

    fn transaction(
        &mut self,
        lt: u64,
        now: u32,
        incoming: (Cell, u128),
        sent: Vec<(Cell, u128)>,
        success: bool,
    ) {
        self.transaction_with(lt, now, incoming, sent, &[], success);
    }

    fn transaction_with(
        &mut self,
        lt: u64,
        now: u32,
        (in_msg, value): (Cell, u128),
        sent: Vec<(Cell, u128)>,
        logs: &[Cell],
        success: bool,
    ) {
        let mut out_msgs = Dict::<Uint15, Cell>::new();
        self.balance += value;
        for (index, (out, out_value)) in sent.iter().enumerate() {
            out_msgs.set(Uint15::new(index as u16), out.clone()).unwrap();
            self.balance -= out_value + FORWARD_FEE;
        }
        for (index, log) in logs.iter().enumerate() {
            let info = ExtOutMsgInfo {
                src: self.address.clone().into(),
                dst: None,
                created_lt: lt + 1,
                created_at: now,
            };
            let at = Uint15::new((sent.len() + index) as u16);
            out_msgs.set(at, message(MsgInfo::ExtOut(info), log.clone(), None)).unwrap();
        }
        self.balance -= self.fees;
        let compute = ExecutedComputePhase {
            success,
            msg_state_used: false,
            account_activated: false,
            gas_fees: Tokens::new(3_200_000),
            gas_used: VarUint56::new(8_000),
            gas_limit: Default::default(),
            gas_credit: None,
            mode: 0,
            exit_code: 0,
            exit_arg: None,
            vm_steps: 0,
            vm_init_state_hash: HashBytes::ZERO,
            vm_final_state_hash: HashBytes::ZERO,
        };
        let info = TxInfo::Ordinary(OrdinaryTxInfo {
            credit_first: false,
            storage_phase: None,
            credit_phase: None,
            compute_phase: ComputePhase::Executed(compute),
            action_phase: None,
            aborted: !success,
            bounce_phase: None,
            destroyed: false,
        });
        let transaction = Transaction {
            account: self.address.address,
            lt,
            prev_trans_hash: self.previous.1,
            prev_trans_lt: self.previous.0,
            now,
            out_msg_count: Uint15::new((sent.len() + logs.len()) as u16),
            orig_status: AccountStatus::Active,
            end_status: AccountStatus::Active,
            in_msg: Some(in_msg),
            out_msgs,
            total_fees: CurrencyCollection::new(self.fees),
            state_update: Lazy::new(&HashUpdate { old: HashBytes::ZERO, new: HashBytes::ZERO }).unwrap(),
            info: Lazy::new(&info).unwrap(),
        };
        let cell = CellBuilder::build_from(transaction).unwrap();
        self.previous = (lt, *cell.repr_hash());
        self.transactions.push(cell);
    }
}

fn internal(from: &StdAddr, to: &StdAddr, value: u128, body: Cell, init: Option<StateInit>) -> Cell {
    let info = IntMsgInfo {
        src: from.clone().into(),
        dst: to.clone().into(),
        value: CurrencyCollection::new(value),
        fwd_fee: Tokens::new(FORWARD_FEE),
        ..Default::default()
    };
    message(MsgInfo::Int(info), body, init)
}

fn message(info: MsgInfo, body: Cell, init: Option<StateInit>) -> Cell {
    CellBuilder::build_from(OwnedMessage { info, init, body: body.into(), layout: None }).unwrap()
}

fn sealed(byte: u8) -> Sealed {
    Sealed::from_bytes(vec![byte; 254]).unwrap()
}

fn content() -> ReceiptContent {
    let result_hash = *to_cell(&sealed(22)).unwrap().repr_hash();
    ReceiptContent { result_hash, transcript: HashBytes([66; 32]), engine: 1, dtype: 5 }
}

fn market(terms: MarketTerms) -> Ref<JobSpecial> {
    Ref::new(JobSpecial::Market(Box::new(terms))).unwrap()
}

fn measurement_of(image: &str) -> HashBytes {
    let td = TdIdentity::of_image(image);
    let [rtmr0, rtmr1, rtmr2, rtmr3] = td.rtmr;
    let fields = TdMeasurements {
        td_attributes: TD_SEPT_VE_DISABLE.to_le_bytes(),
        xfam: td.xfam,
        mr_td: td.mr_td,
        mr_config_id: td.mr_config_id,
        mr_owner: td.mr_owner,
        mr_owner_config: td.mr_owner_config,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
    };
    fields.measurement()
}

pub(crate) fn registry_code(byte: u8) -> Cell {
    let mut code = CellBuilder::new();
    code.store_u8(byte).unwrap();
    code.build().unwrap()
}

pub(crate) fn attestor_code() -> Cell {
    registry_code(77)
}

fn attestor(platform: &SimulatedPlatform) -> AttestorStorage {
    let tdx_simulator::Names { platform_ca, processor_ca, tcb_signer, pck, .. } =
        tdx_simulator::Names::simulated();
    let names = prover::trust::Names { platform_ca, processor_ca, tcb_signer, pck };
    prover::trust::attestor_storage(platform.root_der(), &names).unwrap()
}

fn platform_code() -> Cell {
    library_cell(&registry_code(204))
}

fn generation(attestor: StdAddr) -> Generation {
    let code = |byte| CodeRef { hash: HashBytes([byte; 32]), depth: 3 };
    let params = Params {
        treasury: address(4),
        royalty_cap_bps: 1_000,
        min_stake: Nanoton::new(10_000_000_000),
        unbonding_s: 2_419_200,
        attestor,
        attestation_ttl_s: 86_400,
    };
    let codes = Codes { worker: code(201), model: code(202), platform: *platform_code().repr_hash() };
    Generation {
        network_id: NETWORK_ID,
        fee_bps: 250,
        bond_bps: 1_000,
        min_bond: Nanoton::new(500_000_000),
        job_code: library_cell(&registry_code(203)),
        codes: Ref::new(codes).unwrap(),
        params: Ref::new(params).unwrap(),
    }
}
