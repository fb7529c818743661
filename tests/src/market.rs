//! A whole market on a [`Chain`]: registry, model, workers, clients, and each step of a job as one call.

use std::collections::HashMap;

use contracts::artifacts::{self, Contract};
use contracts::attestor::{Bytes, QuoteOrigin, QuoteVerified, VerifiedReport};
use contracts::comment::Word;
use contracts::errors::ContractError;
use contracts::fees::FeePrices;
use contracts::job::{
    CancelJob, CloseSession, DeliverInput, ExpireJob, JobLimits, JobState, JobStatus, JobStorage,
    MarketNetwork, MarketTerms, OpenSession, PostInput, PostJob, PostOpenJob, PostReceipt, PostRejection,
    RedeemReceipt, ReportEquivocation, Seller, SessionTerms, SweepJob, TopUpJob,
};
use contracts::measurement::KeyBinding;
use contracts::model::{ModelState, ModelStorage, RegisterModel, Unit};
use contracts::platform::{PlatformStorage, Ppid};
use contracts::receipt::{self, ClaimOrder, Dtype, Receipt, ReceiptContent, Rejection, SignedReceipt, Tag};
use contracts::registry::{PlatformPolicy, RegistrationRequest, RegistryStorage};
use contracts::sealing::Sealed;
use contracts::voucher::Voucher;
use contracts::wire::{Snake, from_cell, to_cell};
use contracts::worker::{
    Attestation, ClaimJob, Evidence, FundGas, OfferModel, TopUpStake, WorkerState, WorkerStorage,
};
use contracts::{
    Amount, Codes, Generation, HashBytes, Message, Nanoton, Network, Params, Prices, Ref, SigningKey,
    StateInit, StdAddr, Units,
};
use sha2::{Digest, Sha256};
use tycho_types::cell::CellBuilder;

use crate::chain::{Chain, Tx};
use crate::engine::{MC_SEQNO, Refused, mc_block};

/// One TON.
pub const TON: u64 = 1_000_000_000;
/// What messages bring for their fees; the rest comes back.
pub const FEES: u64 = TON / 2;
pub const NETWORK_ID: i32 = -3;
pub const TIMELOCK_S: u32 = 3_600;
pub const PRICES: Prices = Prices {
    input: Nanoton::new(2_000_000),
    cached_input: Nanoton::new(1_000_000),
    output: Nanoton::new(6_000_000),
};
pub const ROYALTY_BPS: u16 = 500;
pub const FEE_BPS: u16 = 200;
/// What a job of the market's own model pays its Model.
pub const SHARE_BPS: u16 = ROYALTY_BPS + FEE_BPS;

/// Registry, model and everybody's addresses.
#[derive(Clone)]
pub struct Market {
    pub chain: Chain,
    /// What each contract is, for reports.
    pub names: HashMap<StdAddr, &'static str>,
    pub network: Network,
    pub registry: StdAddr,
    pub owner: StdAddr,
    pub treasury: StdAddr,
    pub publisher: StdAddr,
    pub model_id: HashBytes,
    pub model: StdAddr,
    pub measurement: HashBytes,
    /// Speaks as the Attestor would: what the Attestor itself accepts is tested with real quotes elsewhere.
    pub attestor: StdAddr,
    next_nonce: u64,
}

/// A worker's owner, contract and keys.
#[derive(Clone)]
pub struct Worker {
    pub owner: StdAddr,
    pub address: StdAddr,
    pub key: SigningKey,
}

/// A job, posted or not.
#[derive(Clone)]
pub struct Job {
    pub client: StdAddr,
    pub nonce: u64,
    pub address: StdAddr,
    pub until: u32,
    pub deposit: Amount,
    pub limits: JobLimits,
    pub kind: Kind,
    /// Whom its client chose; of a job of the market, whom the tests expect.
    pub seller: Seller,
    pub model_id: HashBytes,
    pub input: Sealed,
    /// What the message brings above the deposit.
    pub fees: Nanoton,
}

/// What kind of job.
#[derive(Clone)]
pub enum Kind {
    /// For one worker.
    Directed,
    /// A session, whose vouchers this key signs.
    Session(Box<SigningKey>),
    /// For whoever claims it.
    Market(Box<MarketTerms>),
}

/// What a client may vary.
#[derive(Debug, Clone)]
pub struct Terms {
    pub model_id: Option<HashBytes>,
    /// From the post to `until`.
    pub wait_s: u32,
    pub settle_within_s: u32,
    pub prices: Prices,
    pub share_bps: u16,
    pub max_units: Units,
    pub deposit: Amount,
    pub least_bond: Amount,
    /// What the message brings above the deposit.
    pub fees: Nanoton,
    /// The rest is for jobs of the market.
    pub measurement: Option<HashBytes>,
    pub bid_for_s: u32,
    pub deliver_within_s: u32,
    pub compensation: Amount,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            model_id: None,
            wait_s: 120,
            settle_within_s: 600,
            prices: PRICES,
            share_bps: SHARE_BPS,
            max_units: Units { input: 1_000, cached_input: 1_000, output: 1_000 },
            deposit: Amount::new(TON),
            least_bond: Amount::new(TON / 2),
            fees: Nanoton::new(FEES),
            measurement: None,
            bid_for_s: 0,
            deliver_within_s: 300,
            compensation: Amount::new(TON / 100),
        }
    }
}

impl Market {
    /// Registry deployed, model registered.
    pub fn open() -> Self {
        let mut chain = Chain::new();
        let owner = chain.person("registry owner", Nanoton::new(100 * TON));
        let treasury = chain.person("treasury", Nanoton::ZERO);
        let publisher = chain.person("publisher", Nanoton::new(100 * TON));
        let attestor = chain.person("attestor", Nanoton::new(1_000 * TON));
        let measurement = hash("measurement");
        let storage = RegistryStorage::initial(
            owner.clone(),
            1,
            TIMELOCK_S,
            generation(&treasury, &attestor),
            &[measurement],
            PlatformPolicy::initial(0),
            artifacts::library(Contract::Platform),
        )
        .expect("the registry's storage fits");
        let code = artifacts::code(Contract::Registry);
        let registry = storage.address(&code).expect("the address is computed");
        let network = storage.network(registry.clone());
        let init = storage.state_init(&code).expect("the state init is built");
        let empty = contracts::Cell::default();
        chain.send(&owner, &registry, Nanoton::new(TON), empty, Some(init));
        let model_id = hash("model");
        let model = network.model_address(&model_id).expect("the address is computed");
        let mut market = Self {
            chain,
            names: HashMap::from([(registry.clone(), "registry"), (model.clone(), "model")]),
            network,
            registry,
            owner,
            treasury,
            publisher,
            model_id,
            model,
            measurement,
            attestor,
            next_nonce: 1,
        };
        let publisher = market.publisher.clone();
        let txs = market.register_model(&publisher, model_id, ROYALTY_BPS);
        assert_all_succeeded(&txs);
        market
    }

    /// A person with 1 000 TON.
    pub fn person(&mut self, name: &str) -> StdAddr {
        self.chain.person(name, Nanoton::new(1_000 * TON))
    }

    pub fn register_model(&mut self, publisher: &StdAddr, model_id: HashBytes, royalty_bps: u16) -> Vec<Tx> {
        let address = self.network.model_address(&model_id).expect("the address is computed");
        self.names.insert(address.clone(), "model");
        let init = self
            .network
            .model_state_init(&artifacts::code(Contract::Model), &model_id)
            .expect("the state init is built");
        let metadata = Snake::new(br#"{"name":"test","licence":"MIT"}"#.to_vec())
            .and_then(Ref::new)
            .expect("the metadata fits");
        let body = RegisterModel { query_id: 1, royalty_bps, unit: Unit::Token, files_root: None, metadata };
        self.chain.send(publisher, &address, Nanoton::new(FEES), cell(&body), Some(init))
    }

    /// A worker ready to claim: staked, funded, attested, with an offer.
    pub fn worker(&mut self, name: &str) -> Worker {
        let worker = self.staked_worker(name);
        assert_all_succeeded(&self.fund_gas(&worker, Nanoton::new(TON)));
        assert_all_succeeded(&self.attest(&worker));
        assert_all_succeeded(&self.offer(&worker, PRICES));
        worker
    }

    /// A worker with a stake and nothing else.
    pub fn staked_worker(&mut self, name: &str) -> Worker {
        let worker = self.unborn_worker(name);
        let txs = self.stake(&worker, Nanoton::new(20 * TON));
        assert_all_succeeded(&txs);
        worker
    }

    /// Owner, address and key of a worker that nobody has deployed.
    pub fn unborn_worker(&mut self, name: &str) -> Worker {
        let owner = self.person(name);
        let address = self.network.worker_address(&owner).expect("the address is computed");
        self.names.insert(address.clone(), "worker");
        Worker {
            owner,
            address,
            key: SigningKey::from_bytes(&Sha256::digest(format!("key of {name}")).into()),
        }
    }

    /// Adds stake, deploying the worker where it does not exist.
    pub fn stake(&mut self, worker: &Worker, amount: Nanoton) -> Vec<Tx> {
        self.stake_with(worker, amount, Nanoton::new(FEES))
    }

    /// Adds stake in a message that brings so much above it.
    pub fn stake_with(&mut self, worker: &Worker, amount: Nanoton, fees: Nanoton) -> Vec<Tx> {
        let init = self
            .network
            .worker_state_init(&artifacts::code(Contract::Worker), &worker.owner)
            .expect("the state init is built");
        let value = amount.checked_add(fees).expect("an amount of a test");
        let body = TopUpStake { query_id: 1, amount };
        self.chain.send(&worker.owner, &worker.address, value, cell(&body), Some(init))
    }

    pub fn fund_gas(&mut self, worker: &Worker, value: Nanoton) -> Vec<Tx> {
        self.tell(&worker.owner.clone(), &worker.address.clone(), value, &FundGas { query_id: 1 })
    }

    pub fn attest(&mut self, worker: &Worker) -> Vec<Tx> {
        let measurement = self.measurement;
        self.attest_as(worker, measurement)
    }

    pub fn attest_as(&mut self, worker: &Worker, measurement: HashBytes) -> Vec<Tx> {
        let body = self.quote_verified(worker, measurement);
        self.say_as_attestor(&body)
    }

    /// The generation of all workers here, where the Registry has come to another one.
    pub fn earlier_generation(&self) -> Option<Ref<Generation>> {
        let own = Ref::new(self.network.generation.clone()).expect("a generation fits");
        (self.registry_storage().generation.hash() != own.hash()).then_some(own)
    }

    /// The same for a worker of an earlier generation, which names it.
    pub fn attest_of(
        &mut self,
        worker: &Worker,
        measurement: HashBytes,
        generation: Option<Ref<Generation>>,
    ) -> Vec<Tx> {
        let mut body = self.quote_verified(worker, measurement);
        let mut request: RegistrationRequest = from_cell(&body.payload).expect("a request reads back");
        request.generation = generation;
        body.payload = to_cell(&request).expect("a request fits");
        self.say_as_attestor(&body)
    }

    /// What the Attestor tells the Registry, from the test's own account in its place.
    pub fn say_as_attestor(&mut self, body: &QuoteVerified) -> Vec<Tx> {
        self.tell(&self.attestor.clone(), &self.registry.clone(), Nanoton::new(FEES), body)
    }

    /// What the Attestor would answer for a sound quote of this worker's own machine.
    pub fn quote_verified(&mut self, worker: &Worker, measurement: HashBytes) -> QuoteVerified {
        let ppid = self.ppid(worker);
        let platform = self.network.platform_address(ppid).expect("the address is computed");
        self.names.insert(platform, "platform");
        let block = mc_block(MC_SEQNO / 100 * 100);
        let request = RegistrationRequest {
            receipt_key: receipt::public_key(&worker.key),
            encryption_key: hash("encryption key"),
            registration_seqno: self.worker_state(worker).map_or(0, |state| state.registration_seqno),
            mc_seqno: block.seqno,
            mc_root_hash: block.root_hash,
            generation: self.earlier_generation(),
        };
        let origin = QuoteOrigin {
            quote_digest: hash("quote"),
            advisories: HashBytes::ZERO,
            authority: hash("authority"),
            ppid,
            fmspc: Bytes(*b"SIMTDX"),
        };
        let report = VerifiedReport {
            measurement,
            report_data: Bytes(self.binding(worker, &request).report_data()),
            needs: 0,
            expires_at: u32::MAX,
            serial: Bytes([7; 20]),
            origin: Ref::new(origin).expect("an origin fits"),
        };
        QuoteVerified {
            query_id: 1,
            requester: worker.owner.clone(),
            report: Ref::new(report).expect("a report fits"),
            payload: to_cell(&request).expect("a request fits"),
        }
    }

    /// What the Platform would tell the Worker.
    pub fn attestation(&self, worker: &Worker, measurement: HashBytes) -> Ref<Attestation> {
        let evidence = Evidence {
            quote_digest: hash("quote"),
            mc_seqno: MC_SEQNO,
            registered_at: self.chain.now,
            authority: hash("authority"),
            serial: Bytes([7; 20]),
            ppid: self.ppid(worker),
        };
        let attestation = Attestation {
            receipt_key: receipt::public_key(&worker.key),
            encryption_key: hash("encryption key"),
            measurement,
            expires_at: u32::MAX,
            evidence: Ref::new(evidence).expect("evidence fits"),
        };
        Ref::new(attestation).expect("an attestation fits")
    }

    /// What a quote of this worker for this request has to bind.
    pub fn binding(&self, worker: &Worker, request: &RegistrationRequest) -> KeyBinding {
        KeyBinding {
            network_id: NETWORK_ID,
            worker: worker.address.clone(),
            receipt_key: request.receipt_key,
            encryption_key: request.encryption_key,
            registration_seqno: request.registration_seqno,
            mc_seqno: request.mc_seqno,
            mc_root_hash: request.mc_root_hash,
        }
    }

    /// The machine of a worker.
    pub fn ppid(&self, worker: &Worker) -> Ppid {
        let mut ppid = [0; 16];
        ppid.copy_from_slice(&worker.address.address.0[..16]);
        Bytes(ppid)
    }

    pub fn offer(&mut self, worker: &Worker, prices: Prices) -> Vec<Tx> {
        self.offer_of(worker, self.model_id, prices)
    }

    /// Offers another model than the market's own.
    pub fn offer_of(&mut self, worker: &Worker, model_id: HashBytes, prices: Prices) -> Vec<Tx> {
        let prices = Ref::new(prices).expect("prices fit");
        let body = OfferModel { query_id: 1, model_id, min_deposit: Nanoton::new(1_000), prices };
        self.tell(&worker.owner.clone(), &worker.address.clone(), Nanoton::new(FEES), &body)
    }

    /// Sends a message with a value.
    pub fn tell<M: Message>(&mut self, from: &StdAddr, to: &StdAddr, value: Nanoton, body: &M) -> Vec<Tx> {
        self.chain.send(from, to, value, cell(body), None)
    }

    /// Sends a wallet's comment.
    pub fn write(&mut self, from: &StdAddr, to: &StdAddr, value: Nanoton, word: Word) -> Vec<Tx> {
        self.tell(from, to, value, &word.comment())
    }

    /// A job for the worker as it would be posted, without posting it.
    pub fn draft(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        let address = self.network.job_address(client, nonce).expect("the address is computed");
        self.names.insert(address.clone(), "job");
        let model_id = terms.model_id.unwrap_or(self.model_id);
        let model = self.network.model_address(&model_id).expect("the address is computed");
        Job {
            client: client.clone(),
            nonce,
            address,
            until: self.chain.now + terms.wait_s,
            deposit: terms.deposit,
            limits: JobLimits { max_units: terms.max_units, least_bond: terms.least_bond },
            kind: Kind::Directed,
            seller: Seller {
                worker: worker.address.address,
                receipt_key: receipt::public_key(&worker.key),
                model: model.address,
                settle_within_s: terms.settle_within_s,
                share_bps: terms.share_bps,
                prices: terms.prices,
            },
            model_id,
            input: sealed(&format!("input {nonce}"), SEALED_BYTES),
            fees: terms.fees,
        }
    }

    /// The same as a session, without posting it.
    pub fn draft_session(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let mut job = self.draft(client, worker, terms);
        let seed = Sha256::digest(format!("session {}", job.nonce));
        job.kind = Kind::Session(Box::new(SigningKey::from_bytes(&seed.into())));
        job
    }

    /// The same for whoever claims it, without posting it.
    pub fn draft_open(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let mut job = self.draft(client, worker, terms);
        let network = MarketNetwork::of(&self.network, terms.settle_within_s, terms.prices, terms.least_bond);
        let network = network.and_then(Ref::new).expect("a network fits");
        job.kind = Kind::Market(Box::new(MarketTerms {
            model: job.seller.model,
            delivery_key: receipt::public_key(&delivery_key(job.nonce)),
            measurement: terms.measurement,
            bid_until: (self.chain.now + terms.bid_for_s).min(job.until),
            deliver_within_s: terms.deliver_within_s,
            compensation: terms.compensation.min(terms.deposit),
            best_stake: Amount::ZERO,
            network,
        }));
        job
    }

    /// Posts a job; panics unless the contract took it.
    pub fn post(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let job = self.draft(client, worker, terms);
        self.post_well(&job);
        job
    }

    /// Opens a session; panics unless the contract took it.
    pub fn session(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let job = self.draft_session(client, worker, terms);
        self.post_well(&job);
        job
    }

    /// Posts a job of the market; panics unless the contract took it.
    pub fn open_job(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let job = self.draft_open(client, worker, terms);
        self.post_well(&job);
        job
    }

    pub fn try_post(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> (Job, Vec<Tx>) {
        let job = self.draft(client, worker, terms);
        let txs = self.post_draft(client, &job, self.value_of(&job));
        (job, txs)
    }

    /// What the job's message brings.
    pub fn value_of(&self, job: &Job) -> Nanoton {
        job.deposit.nanoton().checked_add(job.fees).expect("an amount of a test")
    }

    pub fn post_draft(&mut self, from: &StdAddr, job: &Job, value: Nanoton) -> Vec<Tx> {
        let (body, init) = self.opening(job);
        self.chain.send(from, &job.address, value, body, Some(init))
    }

    /// Body and state init of what opens the job.
    pub fn opening(&self, job: &Job) -> (contracts::Cell, StateInit) {
        let (until, deposit, limits) = (job.until, job.deposit, job.limits);
        let seller = Ref::new(job.seller.clone()).expect("a seller fits");
        let query_id = job.nonce;
        let body = match &job.kind {
            Kind::Directed => cell(
                &PostJob::new(query_id, until, deposit, limits, job.seller.clone(), &job.input)
                    .expect("a job fits"),
            ),
            Kind::Session(key) => {
                let terms =
                    Ref::new(SessionTerms { session_key: receipt::public_key(key) }).expect("terms fit");
                cell(&OpenSession { query_id, until, deposit, limits, seller, terms })
            }
            Kind::Market(terms) => {
                let terms = Ref::new((**terms).clone()).expect("terms fit");
                cell(&PostOpenJob { query_id, until, deposit, max_units: limits.max_units, terms })
            }
        };
        let init = self.network.job_state_init(&job.client, job.nonce).expect("the state init is built");
        (body, init)
    }

    /// The order with which the worker would claim the job now.
    pub fn order(&self, worker: &Worker, job: &Job) -> ClaimOrder {
        let market = match &job.kind {
            Kind::Market(terms) => Some(terms),
            _ => None,
        };
        let bond = self.network.generation.min_bond.max(job.limits.least_bond.nanoton());
        ClaimOrder {
            tag: Tag,
            worker: worker.address.address,
            seqno: self.worker_state(worker).map_or(0, |state| state.claim_seqno),
            valid_until: self.chain.now + 60,
            job_client: job.client.clone(),
            job_nonce: job.nonce,
            model_id: job.model_id,
            bond: Amount::try_from(bond).expect("a bond of a test"),
            is_bid: market.is_some(),
            names_measurement: market.is_some_and(|terms| terms.measurement.is_some()),
        }
    }

    pub fn claim(&mut self, worker: &Worker, job: &Job) -> Result<Vec<Tx>, Refused> {
        let order = self.order(worker, job);
        self.claim_with(worker, order)
    }

    pub fn claim_with(&mut self, worker: &Worker, order: ClaimOrder) -> Result<Vec<Tx>, Refused> {
        let message = ClaimJob::signed(order, &worker.key).expect("an order fits");
        self.chain.external(&worker.address, cell(&message))
    }

    /// Posts and claims; panics unless both went through.
    pub fn claimed(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let job = self.post(client, worker, terms);
        self.claim_well(worker, &job);
        assert_eq!(self.status(&job), Some(JobStatus::Claimed));
        job
    }

    /// A job of the market that the worker has taken and that waits for its input.
    pub fn awaiting(&mut self, client: &StdAddr, worker: &Worker, terms: &Terms) -> Job {
        let job = self.open_job(client, worker, terms);
        self.claim_well(worker, &job);
        assert_eq!(self.status(&job), Some(JobStatus::Awaiting));
        job
    }

    /// Claims; panics unless the job took it.
    pub fn claim_well(&mut self, worker: &Worker, job: &Job) {
        let txs = self.claim(worker, job).expect("the worker accepts its own order");
        assert_all_succeeded(&txs);
    }

    pub fn deliver(&mut self, from: &StdAddr, job: &Job) -> Vec<Tx> {
        let body = DeliverInput::new(1, &job.input).expect("an input fits");
        self.tell(from, &job.address, Nanoton::new(FEES), &body)
    }

    /// Delivers the input without a wallet.
    pub fn post_input(&mut self, job: &Job) -> Result<Vec<Tx>, Refused> {
        let message = self.signed_input(job);
        self.chain.external(&job.address, cell(&message))
    }

    /// What [`Self::post_input`] posts.
    pub fn signed_input(&self, job: &Job) -> PostInput {
        let posting = self.job_state(job).expect("the job exists").posting;
        let seller = posting.seller.expect("somebody has taken the job");
        let key = delivery_key(job.nonce);
        PostInput::signed(&job.address.address, posting.posted_lt, &seller, &job.input, &key)
            .expect("an input fits")
    }

    /// The content of every honest receipt here.
    pub fn content(&self) -> ReceiptContent {
        ReceiptContent {
            result_hash: *to_cell(&result()).expect("a result fits").repr_hash(),
            transcript: hash("transcript"),
            engine: 1,
            dtype: Dtype::Q4_1 as u8,
        }
    }

    /// The receipt an honest worker would write for the units.
    pub fn receipt(&self, job: &Job, units: Units) -> Receipt {
        let cost = job.seller.prices.cost(&units);
        Receipt {
            tag: Tag,
            job: job.address.clone(),
            posted_lt: self.posted_lt(job),
            sequence: 1,
            is_final: true,
            units,
            amount: Amount::try_from(cost).unwrap_or(Amount::new(u64::MAX)),
            content_hash: self.content().hash().expect("a content fits"),
        }
    }

    /// The receipt of a session for all up to now.
    pub fn session_receipt(&self, job: &Job, sequence: u32, amount: u64, is_final: bool) -> Receipt {
        let amount = Amount::new(amount);
        Receipt { sequence, is_final, amount, ..self.receipt(job, Units::default()) }
    }

    /// Signs and posts a receipt with the standard content and result.
    pub fn settle(&mut self, worker: &Worker, job: &Job, receipt: Receipt) -> Result<Vec<Tx>, Refused> {
        let message = self.answer(worker, receipt);
        self.chain.external(&job.address, cell(&message))
    }

    /// What [`Self::settle`] posts.
    pub fn answer(&self, worker: &Worker, receipt: Receipt) -> PostReceipt {
        PostReceipt::signed(receipt, self.content(), &result(), &worker.key).expect("a receipt fits")
    }

    /// Redeems a receipt of a session with a voucher for so much.
    pub fn redeem(
        &mut self,
        worker: &Worker,
        job: &Job,
        receipt: Receipt,
        voucher: u64,
    ) -> Result<Vec<Tx>, Refused> {
        let message = self.redemption(worker, job, receipt, voucher);
        self.chain.external(&job.address, cell(&message))
    }

    /// What [`Self::redeem`] posts.
    pub fn redemption(&self, worker: &Worker, job: &Job, receipt: Receipt, voucher: u64) -> RedeemReceipt {
        let Kind::Session(key) = &job.kind else {
            panic!("the job is no session");
        };
        let amount = Amount::new(voucher);
        let promise = Voucher { job: job.address.address, posted_lt: self.posted_lt(job), amount };
        let signed = SignedReceipt::new(receipt, &worker.key).expect("a receipt fits");
        RedeemReceipt::new(signed, amount, promise.sign(key)).expect("a redemption fits")
    }

    pub fn rejection(&self, job: &Job, reason: u16) -> Rejection {
        Rejection { tag: Tag, job: job.address.clone(), posted_lt: self.posted_lt(job), reason }
    }

    pub fn reject(&mut self, worker: &Worker, job: &Job, rejection: Rejection) -> Result<Vec<Tx>, Refused> {
        let message = PostRejection::signed(rejection, &worker.key).expect("a rejection fits");
        self.chain.external(&job.address, cell(&message))
    }

    pub fn cancel(&mut self, from: &StdAddr, job: &Job) -> Vec<Tx> {
        self.tell(from, &job.address, Nanoton::new(FEES), &CancelJob { query_id: 1 })
    }

    pub fn close(&mut self, from: &StdAddr, job: &Job) -> Vec<Tx> {
        self.tell(from, &job.address, Nanoton::new(FEES), &CloseSession { query_id: 1 })
    }

    pub fn top_up(&mut self, from: &StdAddr, job: &Job, amount: u64, fees: Nanoton) -> Vec<Tx> {
        let value = Nanoton::new(amount).checked_add(fees).expect("an amount of a test");
        self.tell(from, &job.address, value, &TopUpJob { query_id: 1, amount: Amount::new(amount) })
    }

    pub fn expire(&mut self, from: &StdAddr, job: &Job) -> Vec<Tx> {
        self.tell(from, &job.address, Nanoton::new(FEES), &ExpireJob { query_id: 1 })
    }

    pub fn sweep(&mut self, from: &StdAddr, job: &Job) -> Vec<Tx> {
        self.tell(from, &job.address, Nanoton::new(FEES), &SweepJob { query_id: 1 })
    }

    /// Two receipts of one sequence, both signed by the worker, of the key of its newest registration.
    pub fn equivocation(&self, worker: &Worker, one: Receipt, other: Receipt) -> ReportEquivocation {
        let registrations = self.worker_state(worker).map_or(0, |state| state.registration_seqno);
        let signed =
            |receipt| SignedReceipt::new(receipt, &worker.key).and_then(Ref::new).expect("a receipt fits");
        ReportEquivocation {
            query_id: 1,
            registration_seqno: registrations.saturating_sub(1),
            one: signed(one),
            other: signed(other),
        }
    }

    pub fn report(&mut self, from: &StdAddr, job: &Job, report: &ReportEquivocation) -> Vec<Tx> {
        self.tell(from, &job.address, Nanoton::new(FEES), report)
    }

    pub fn job_state(&self, job: &Job) -> Option<JobState> {
        let storage: JobStorage =
            from_cell(&self.chain.data(&job.address)?).expect("the job's storage is as the TL-B says");
        storage.state
    }

    pub fn status(&self, job: &Job) -> Option<JobStatus> {
        self.job_state(job).map(|state| state.status)
    }

    pub fn posted_lt(&self, job: &Job) -> u64 {
        self.job_state(job).map_or(0, |state| state.posting.posted_lt)
    }

    pub fn worker_state(&self, worker: &Worker) -> Option<WorkerState> {
        let storage: WorkerStorage =
            from_cell(&self.chain.data(&worker.address)?).expect("the worker's storage is as the TL-B says");
        storage.state
    }

    /// What of a worker's balance is its owner's.
    pub fn free(&self, worker: &Worker) -> u128 {
        let balance = Nanoton::checked(self.chain.balance(&worker.address)).expect("an amount");
        self.worker_state(worker).map_or(0, |state| state.free(balance).get())
    }

    pub fn model_state(&self) -> Option<ModelState> {
        let storage: ModelStorage =
            from_cell(&self.chain.data(&self.model)?).expect("the model's storage is as the TL-B says");
        storage.state
    }

    pub fn platform_storage(&self, ppid: Ppid) -> Option<PlatformStorage> {
        let platform = self.network.platform_address(ppid).expect("the address is computed");
        Some(from_cell(&self.chain.data(&platform)?).expect("the platform's storage is as the TL-B says"))
    }

    pub fn registry_storage(&self) -> RegistryStorage {
        let data = self.chain.data(&self.registry).expect("the registry exists");
        from_cell(&data).expect("the registry's storage is as the TL-B says")
    }

    /// Prices of the basechain that every contract here is charged.
    pub fn prices(&self) -> FeePrices {
        self.chain.prices()
    }

    fn post_well(&mut self, job: &Job) {
        let value = self.value_of(job);
        let txs = self.post_draft(&job.client.clone(), job, value);
        // The notice to the worker has no gas.
        let own: Vec<Tx> = txs.into_iter().filter(|tx| tx.account == job.address).collect();
        assert_all_succeeded(&own);
    }
}

/// The parameters every test runs with.
pub fn generation(treasury: &StdAddr, attestor: &StdAddr) -> Generation {
    let params = Params {
        treasury: treasury.clone(),
        royalty_cap_bps: 2_000,
        min_stake: Nanoton::new(10 * TON),
        unbonding_s: 172_800,
        attestor: attestor.clone(),
        attestation_ttl_s: 86_400,
    };
    let codes: Codes = artifacts::codes();
    Generation {
        network_id: NETWORK_ID,
        fee_bps: FEE_BPS,
        bond_bps: 5_000,
        min_bond: Nanoton::new(TON / 10),
        job_code: artifacts::library(Contract::Job),
        codes: Ref::new(codes).expect("codes fit"),
        params: Ref::new(params).expect("parameters fit"),
    }
}

/// Of the market's job with this nonce: signs its input.
pub fn delivery_key(nonce: u64) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(format!("delivery {nonce}")).into())
}

/// SHA-256 of a name.
pub fn hash(name: &str) -> HashBytes {
    HashBytes(Sha256::digest(name).into())
}

/// Size of every sealed input here.
const SEALED_BYTES: usize = 2 * 127;

/// Something that looks sealed.
pub fn sealed(seed: &str, bytes: usize) -> Sealed {
    let bytes: Vec<u8> = hash(seed).0.iter().copied().cycle().take(bytes).collect();
    Sealed::from_bytes(bytes).expect("a whole number of cells")
}

/// The result of every honest receipt here.
pub fn result() -> Sealed {
    sealed("result", 4 * 127)
}

/// The body of a message.
pub fn cell<M: Message>(message: &M) -> contracts::Cell {
    to_cell(message).expect("a message fits")
}

/// The body with another cell behind it, which nobody signed.
pub fn padded(body: &contracts::Cell) -> contracts::Cell {
    let mut builder = CellBuilder::new();
    let slice = body.as_slice().expect("a body is an ordinary cell");
    builder.store_slice(slice).expect("a body fits");
    let filler = to_cell(&sealed("filler", 40 * 127)).expect("a short filler fits");
    builder.store_reference(filler).expect("a body has room");
    builder.build().expect("a body fits")
}

pub fn assert_all_succeeded(txs: &[Tx]) {
    assert!(!txs.is_empty(), "no contract ran");
    for tx in txs {
        assert!(
            tx.succeeded(),
            "{} failed: exit code {:?}, action code {:?}",
            tx.operation(),
            tx.exit_code,
            tx.action_code
        );
    }
}

/// The contract refused the message with this error, and what it brought went back to its sender.
pub fn assert_refused(txs: &[Tx], contract: &StdAddr, error: ContractError) {
    let tx = txs.iter().find(|tx| tx.account == *contract).expect("the contract ran");
    assert_eq!(
        tx.exit_code,
        Some(i32::from(error.code())),
        "{} was expected to end with {error}",
        tx.operation()
    );
    let back = tx.out.first().expect("the value went back");
    assert_eq!(Some(&back.to), tx.from.as_ref());
}

/// The external message of a closed job was not accepted: for its state, or, since only rent is left, for lack of gas.
pub fn assert_closed_to_externals(result: Result<Vec<Tx>, Refused>) {
    let refused = result.expect_err("a closed job accepted the message");
    let wrong_state = i32::from(ContractError::WrongState.code());
    assert!(refused.exit_code.is_none_or(|code| code == wrong_state));
}

/// The least balance with which a contract takes the external message, which it refuses for this reason with less.
pub fn least_balance(
    market: &Market,
    account: &StdAddr,
    message: &contracts::Cell,
    error: ContractError,
) -> u128 {
    let send = |chain: &mut Chain| chain.external(account, message.clone());
    let least = market.chain.least_balance(account, |chain| send(chain).is_ok());
    let mut chain = market.chain.clone();
    chain.take_above(account, least - 1);
    assert_external_refused(send(&mut chain), error);
    let mut chain = market.chain.clone();
    chain.take_above(account, least);
    let txs = send(&mut chain).expect("the contract has enough");
    let own: Vec<Tx> = txs.into_iter().filter(|tx| tx.account == *account).collect();
    assert_all_succeeded(&own);
    least
}

/// What an external message with this body costs its account, where the body's first cell lies in the message's.
pub fn import_fee(market: &Market, body: &contracts::Cell) -> u128 {
    let mut seen = std::collections::HashSet::new();
    let mut queue: Vec<_> = body.references().cloned().collect();
    let mut bits = 0;
    while let Some(cell) = queue.pop() {
        if seen.insert(*cell.repr_hash()) {
            bits += u64::from(cell.bit_len());
            queue.extend(cell.references().cloned());
        }
    }
    market.prices().forward(bits, seen.len() as u64).get()
}

/// The contract did not accept the external message, for this reason.
pub fn assert_external_refused(result: Result<Vec<Tx>, Refused>, error: ContractError) {
    let refused = result.expect_err("the contract accepted the message");
    assert_eq!(refused.exit_code, Some(i32::from(error.code())), "expected {error}");
}
