//! The history of a job, with every number and address a field that a test may change.
#![allow(dead_code, clippy::unwrap_used)]

use contracts::attestor::{
    AttestorStorage, QuoteOrigin, QuoteProof, QuoteVerified, VerifiedReport, VerifyQuote,
};
use contracts::job::{
    CancelJob, Claim, Excesses, ExpireJob, JobForfeited, JobLimits, JobPaid, JobRefund, JobReturned,
    JobState, JobStatus, JobStorage, JobTerms, Payout, PostJob, PostReceipt, PostRejection, Settlement,
    SweepJob, TakeJob,
};
use contracts::measurement::{KeyBinding, TdMeasurements};
use contracts::model::SharePaid;
use contracts::money::Split;
use contracts::network::AttestationParams;
use contracts::platform::ServeWorker;
use contracts::receipt::{Receipt, ReceiptBody, Rejection, Tag, public_key, sign_cell};
use contracts::registry::{PlatformPolicy, RegistrationRequest, RegistryStorage};
use contracts::sealing::Sealed;
use contracts::wire::{Message as _, to_cell};
use contracts::worker::{Attestation, AttestationRegistered, Evidence, FundGas};
use contracts::{
    Cell, CodeRef, Codes, HashBytes, Nanoton, Network, Params, Prices, Ref, SigningKey, Snake, StdAddr, Units,
};
use prover::certificate::Kind;
use prover::quote::{PckChain, Quote};
use sha2::{Digest, Sha256};
use tdx_simulator::{SimulatedPlatform, TD_SEPT_VE_DISABLE, TdIdentity};
use tycho_types::cell::{CellBuilder, Lazy};
use tycho_types::dict::Dict;
use tycho_types::models::{
    AccountStatus, ComputePhase, CurrencyCollection, ExecutedComputePhase, ExtInMsgInfo, HashUpdate,
    IntMsgInfo, MsgInfo, OrdinaryTxInfo, OwnedMessage, StateInit, Transaction, TxInfo,
};
use tycho_types::num::{Tokens, Uint15};
use verifier::{
    AttestorAccount, AttestorTrust, JobHistory, QuotePolicy, RegistrationTrace, RegistryAccount,
    WorkerRegistration,
};

pub(crate) const NOW_S: u64 = 1_800_000_000;
pub(crate) const NETWORK_ID: i32 = -3;
const IMAGE: &str = "worker";
const FEES: u128 = 4_000_000;
const FORWARD_FEE: u128 = 266_669;

/// How far the job gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Open,
    Claimed,
    Settled,
    Rejected,
    Cancelled,
    ExpiredOpen,
    ExpiredClaimed,
}

impl Ending {
    pub(crate) const ALL: [Self; 7] = [
        Self::Open,
        Self::Claimed,
        Self::Settled,
        Self::Rejected,
        Self::Cancelled,
        Self::ExpiredOpen,
        Self::ExpiredClaimed,
    ];

    pub(crate) fn status(self) -> JobStatus {
        match self {
            Self::Open => JobStatus::Open,
            Self::Claimed => JobStatus::Claimed,
            Self::Settled => JobStatus::Settled,
            Self::Rejected => JobStatus::Rejected,
            Self::Cancelled => JobStatus::Cancelled,
            Self::ExpiredOpen | Self::ExpiredClaimed => JobStatus::Expired,
        }
    }

    pub(crate) fn has_claim(self) -> bool {
        matches!(self, Self::Claimed | Self::Settled | Self::Rejected | Self::ExpiredClaimed)
    }
}

pub(crate) struct Plan {
    pub(crate) ending: Ending,
    pub(crate) swept: bool,
    pub(crate) claimed_all_the_same: bool,
    pub(crate) registry_code: Cell,
    pub(crate) trusted_registry_code: HashBytes,
    pub(crate) registry_params: Option<Params>,
    pub(crate) admitted_from: Option<u32>,
    pub(crate) stored: Box<dyn Fn(&mut JobState) + Send + Sync>,
    pub(crate) rejection: Rejection,
    pub(crate) ended_from: StdAddr,
    pub(crate) end_fees: u128,
    pub(crate) bond_named: Nanoton,
    pub(crate) bond_value: u128,
    pub(crate) back_to_caller: u128,
    pub(crate) payment_bounces_to: Option<StdAddr>,
    pub(crate) platform: SimulatedPlatform,
    pub(crate) network: Network,
    pub(crate) client: StdAddr,
    pub(crate) nonce: u64,
    pub(crate) nonce_in_state_init: u64,
    pub(crate) worker: StdAddr,
    pub(crate) posted_from: StdAddr,
    pub(crate) activated_before: bool,
    pub(crate) posted_value: u128,
    pub(crate) limits: JobLimits,
    pub(crate) terms_measurement: HashBytes,
    pub(crate) claim_by: u32,
    pub(crate) taken_from: StdAddr,
    pub(crate) taken_at_s: u32,
    pub(crate) claimed_model_id: HashBytes,
    pub(crate) claim: Claim,
    pub(crate) bond_brought: Nanoton,
    pub(crate) receipt: Receipt,
    pub(crate) receipt_signer: SigningKey,
    pub(crate) result_hash: HashBytes,
    pub(crate) settled_at_s: u32,
    pub(crate) settlement_succeeds: bool,
    pub(crate) paid: Nanoton,
    pub(crate) paid_to_worker: Nanoton,
    pub(crate) royalty: Nanoton,
    pub(crate) fee: Nanoton,
    pub(crate) payment_to: StdAddr,
    pub(crate) share_to: StdAddr,
    pub(crate) refund_to: StdAddr,
    pub(crate) refund_value: u128,
    pub(crate) refund_status: u8,
    pub(crate) worker_paid_twice: bool,
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

const POSTED_LT: u64 = 1_000;
pub(crate) const SETTLE_WITHIN_S: u32 = 300;
const ENCRYPTION_KEY: HashBytes = HashBytes([77; 32]);
const MC_ROOT_HASH: HashBytes = HashBytes([55; 32]);
const MC_SEQNO: u32 = 4_321;
const MODEL_ID: HashBytes = HashBytes([33; 32]);
const RESULT_ENC: HashBytes = HashBytes([22; 32]);

impl Plan {
    pub(crate) fn honest() -> Self {
        let now = NOW_S as u32;
        let platform = SimulatedPlatform::new(&[7; 32], NOW_S).unwrap();
        let attestor =
            contracts::CodeRef::of(&attestor_code()).address(&to_cell(&attestor(&platform)).unwrap());
        let network = Network { registry: address(1), params: Ref::new(params(attestor)).unwrap() };
        let (client, owner) = (address(2), address(3));
        let nonce = 7;
        let worker = network.worker_address(&owner).unwrap();
        let job = network.job_address(&client, nonce).unwrap();
        let key = signing_key(40);
        let prices = Prices {
            input: Nanoton::new(1_000_000),
            cached_input: Nanoton::new(500_000),
            output: Nanoton::new(20_000_001),
        };
        let units = Units { input: 120, cached_input: 3, output: 64 };
        let result = to_cell(&sealed(RESULT_ENC)).unwrap();
        let receipt = Receipt {
            tag: Tag,
            network_id: NETWORK_ID,
            job,
            posted_lt: POSTED_LT,
            sequence: 1,
            is_final: true,
            units,
            amount: prices.cost(&units),
            body: Ref::new(body(*result.repr_hash())).unwrap(),
        };
        let claim = Claim {
            receipt_key: public_key(&key),
            measurement: measurement_of(IMAGE),
            royalty_bps: 500,
            bond: Nanoton::new(600_000_000),
            settle_by: 0,
            worker_owner: owner,
            prices: Ref::new(prices).unwrap(),
        };
        let registry_code = registry_code(1);
        let mut plan = Self {
            ending: Ending::Settled,
            swept: false,
            claimed_all_the_same: false,
            trusted_registry_code: *registry_code.repr_hash(),
            registry_code,
            registry_params: None,
            admitted_from: Some(0),
            stored: Box::new(|_| {}),
            rejection: Rejection {
                tag: Tag,
                network_id: NETWORK_ID,
                job: receipt.job.clone(),
                posted_lt: POSTED_LT,
                reason: 1,
            },
            ended_from: client.clone(),
            end_fees: FEES,
            bond_named: claim.bond,
            bond_value: claim.bond.get() + 5_000,
            back_to_caller: 1_000,
            payment_bounces_to: None,
            attestor_root: platform.root_der().to_vec(),
            attestor_code: attestor_code(),
            change_proof: Box::new(|_| {}),
            change_registered: Box::new(|_| {}),
            change_trace: Box::new(|_| {}),
            registered_from: None,
            answer_to: None,
            platform,
            share_to: network.model_address(&MODEL_ID).unwrap(),
            posted_from: client.clone(),
            refund_to: client.clone(),
            client,
            nonce,
            nonce_in_state_init: nonce,
            activated_before: false,
            posted_value: 900_000_000,
            limits: JobLimits {
                max_prices: prices,
                max_units: Units { input: 200, cached_input: 200, output: 128 },
                deposit: Nanoton::new(50_000_000),
            },
            terms_measurement: HashBytes::ZERO,
            claim_by: now - 50,
            taken_from: worker.clone(),
            taken_at_s: now - 60,
            claimed_model_id: MODEL_ID,
            bond_brought: claim.bond,
            claim,
            receipt,
            receipt_signer: key,
            result_hash: *result.repr_hash(),
            settled_at_s: now - 10,
            settlement_succeeds: true,
            paid: Nanoton::ZERO,
            paid_to_worker: Nanoton::ZERO,
            royalty: Nanoton::ZERO,
            fee: Nanoton::ZERO,
            payment_to: worker.clone(),
            refund_value: 0,
            refund_status: 3,
            worker_paid_twice: false,
            registered_at_s: now - 500,
            candidate_expires_at: now + 86_400,
            image: IMAGE,
            bound_worker: worker.clone(),
            bound_network_id: NETWORK_ID,
            bound_encryption_key: ENCRYPTION_KEY,
            chain_root_hash: Some(MC_ROOT_HASH),
            worker,
            network,
        };
        plan.settle_payments();
        plan
    }

    /// An honest job with this end.
    pub(crate) fn ending(ending: Ending) -> Self {
        let mut plan = Self::honest();
        let deposit = plan.limits.deposit.get();
        plan.ending = ending;
        match ending {
            Ending::Open | Ending::Claimed | Ending::Settled => {}
            Ending::Rejected | Ending::Cancelled => plan.refund_value = deposit + 1_000,
            Ending::ExpiredOpen => {
                plan.refund_value = deposit + 1_000;
                plan.settled_at_s = plan.claim_by + 1;
                plan.ended_from = address(87);
            }
            Ending::ExpiredClaimed => {
                plan.refund_value = deposit + plan.claim.bond.get() + 1_000;
                plan.settled_at_s = plan.taken_at_s + SETTLE_WITHIN_S + 1;
                plan.ended_from = address(87);
            }
        }
        if matches!(ending, Ending::Cancelled | Ending::ExpiredOpen | Ending::ExpiredClaimed) {
            plan.posted_value = deposit + 10_000_000;
        }
        if ending != Ending::Settled {
            plan.paid = Nanoton::ZERO;
            plan.refund_status = ending.status() as u8;
        }
        plan
    }

    pub(crate) fn params(&self) -> &Params {
        &self.network.params
    }

    /// Another generation of contracts, the job and the worker moved to it.
    pub(crate) fn network_with(&mut self, change: impl FnOnce(&mut Params)) {
        let mut params = self.params().clone();
        change(&mut params);
        self.network = Network { registry: address(1), params: Ref::new(params).unwrap() };
        self.worker = self.network.worker_address(&self.claim.worker_owner).unwrap();
        self.taken_from = self.worker.clone();
        self.payment_to = self.worker.clone();
        self.bound_worker = self.worker.clone();
        self.share_to = self.network.model_address(&MODEL_ID).unwrap();
        self.receipt.job = self.job();
        self.rejection.job = self.job();
    }

    /// What the contract would pay.
    pub(crate) fn settle_payments(&mut self) {
        let cost = self.claim.prices.cost(&self.receipt.units);
        let (royalty_bps, fee_bps) = (self.claim.royalty_bps, self.params().fee_bps);
        let split = Split::of(self.receipt.amount, cost, self.limits.deposit, royalty_bps, fee_bps).unwrap();
        self.paid = split.paid;
        self.paid_to_worker = split.to_worker;
        self.royalty = split.royalty;
        self.fee = split.fee;
        self.refund_value = split.to_client.get() + 1_000;
    }

    pub(crate) fn job(&self) -> StdAddr {
        self.network.job_address(&self.client, self.nonce).unwrap()
    }

    pub(crate) fn policy(&self) -> QuotePolicy {
        QuotePolicy::dangerous_simulated(self.platform.root_der().to_vec(), vec![measurement_of(IMAGE)])
    }

    pub(crate) fn post_receipt(&self) -> PostReceipt {
        let mut receipt = self.receipt.clone();
        receipt.body = Ref::new(body(self.result_hash)).unwrap();
        let receipt = Ref::new(receipt).unwrap();
        PostReceipt {
            signature: sign_cell(receipt.cell(), &self.receipt_signer),
            receipt,
            result: to_cell(&sealed(RESULT_ENC)).unwrap(),
        }
    }

    pub(crate) fn history(&self) -> JobHistory {
        let mut account = Account::new(self.job());
        let init = JobStorage::initial(&self.network, self.client.clone(), self.nonce_in_state_init).unwrap();
        let init = StateInit { data: Some(to_cell(&init).unwrap()), ..Default::default() };
        let fund = FundGas { query_id: 0 }.to_cell().unwrap();
        if self.activated_before {
            let early = account.from(&address(88), 5_000_000, fund.clone(), Some(init.clone()));
            account.transaction(POSTED_LT - 500, self.taken_at_s - 90, early, Vec::new(), false);
        }
        let post = self.post_job().to_cell().unwrap();
        let with_init = if self.activated_before { None } else { Some(init) };
        let post = account.from(&self.posted_from, self.posted_value, post, with_init);
        account.transaction(POSTED_LT, self.taken_at_s - 30, post, Vec::new(), true);
        let take = TakeJob {
            query_id: 0,
            bond: self.claim.bond,
            model_id: self.claimed_model_id,
            claim: Ref::new(self.claim.clone()).unwrap(),
        };
        let value = self.bond_brought.get() + 6_000_000;
        let take = account.from(&self.taken_from, value, take.to_cell().unwrap(), None);
        if self.ending.has_claim() || self.claimed_all_the_same {
            account.transaction(POSTED_LT + 1_000, self.taken_at_s, take, Vec::new(), true);
        }
        // What a stranger sends is refused and proves nothing.
        let refused = account.from(&address(89), 7_000_000, self.post_job().to_cell().unwrap(), None);
        account.transaction(POSTED_LT + 2_000, self.taken_at_s + 1, refused, Vec::new(), false);
        let end = match self.ending {
            Ending::Open | Ending::Claimed => None,
            Ending::Settled => Some(account.external(self.post_receipt().to_cell().unwrap())),
            Ending::Rejected => Some(account.external(self.post_rejection().to_cell().unwrap())),
            Ending::Cancelled => {
                let body = CancelJob { query_id: 9 }.to_cell().unwrap();
                Some(account.from(&self.ended_from, 50_000_000, body, None))
            }
            Ending::ExpiredOpen | Ending::ExpiredClaimed => {
                let body = ExpireJob { query_id: 9 }.to_cell().unwrap();
                Some(account.from(&self.ended_from, 50_000_000, body, None))
            }
        };
        if let Some(end) = end {
            let payments = if self.settlement_succeeds { self.payments(&account) } else { Vec::new() };
            account.fees = self.end_fees;
            account.transaction(
                POSTED_LT + 3_000,
                self.settled_at_s,
                end,
                payments,
                self.settlement_succeeds,
            );
            account.fees = FEES;
        }
        if let Some(to) = &self.payment_bounces_to {
            let value = self.bond_value - 1_000_000;
            let mut body = CellBuilder::new();
            body.store_u32(u32::MAX).unwrap();
            body.store_u32(if self.ending == Ending::Settled {
                JobPaid::OPCODE
            } else {
                JobReturned::OPCODE
            })
            .unwrap();
            let back = account.bounced(&self.worker, value, body.build().unwrap());
            let payout = Payout { query_id: 0 }.to_cell().unwrap();
            let on = account.to(to, value - FEES - FORWARD_FEE, payout);
            account.transaction(POSTED_LT + 3_500, self.settled_at_s + 1, back, vec![on], true);
        }
        if self.swept {
            let body = SweepJob { query_id: 9 }.to_cell().unwrap();
            let sweep = account.from(&address(86), 50_000_000, body, None);
            let all = account.balance + 50_000_000 - FEES - FORWARD_FEE;
            let rest = account.to(&self.client, all, Excesses { query_id: 9 }.to_cell().unwrap());
            account.transaction(POSTED_LT + 4_000, self.settled_at_s + 700_000, sweep, vec![rest], true);
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
            state: (!self.swept).then(|| self.state()),
            registration: self.ending.has_claim().then(|| self.registration()),
        }
    }

    fn registry(&self) -> RegistryAccount {
        let params = self.registry_params.clone().unwrap_or_else(|| self.params().clone());
        let mut storage = RegistryStorage::initial(
            address(5),
            0,
            0,
            params,
            &[],
            PlatformPolicy::initial(0),
            Cell::default(),
        )
        .unwrap();
        if let Some(from_s) = self.admitted_from {
            storage.measurements.set(self.claim.measurement, from_s).unwrap();
        }
        RegistryAccount {
            code: self.registry_code.clone(),
            data: to_cell(&storage).unwrap(),
            as_of_s: NOW_S as u32,
        }
    }

    /// What the contract would hold.
    fn state(&self) -> JobState {
        let post = self.post_job();
        let mut claim = self.claim.clone();
        claim.settle_by = self.taken_at_s + SETTLE_WITHIN_S;
        let ended = self.settlement_succeeds && self.ending.status().is_closed();
        let settlement = match self.ending {
            Ending::Settled if ended => Some(Settlement {
                receipt_hash: self.post_receipt().receipt.hash(),
                result_hash: *self.post_receipt().result.repr_hash(),
                paid: self.paid,
                royalty: self.royalty,
                fee: self.fee,
            }),
            Ending::Rejected => Some(Settlement {
                receipt_hash: self.post_rejection().rejection.hash(),
                result_hash: HashBytes::ZERO,
                paid: Nanoton::ZERO,
                royalty: Nanoton::ZERO,
                fee: Nanoton::ZERO,
            }),
            _ => None,
        };
        let mut state = JobState {
            status: if ended || !self.ending.has_claim() { self.ending.status() } else { JobStatus::Claimed },
            posted_lt: POSTED_LT,
            posted_at: self.taken_at_s - 30,
            closed_at: if ended { self.settled_at_s } else { 0 },
            input_hash: post.input_hash(),
            terms: post.terms,
            claim: self.ending.has_claim().then(|| Ref::new(claim).unwrap()),
            settlement: settlement.map(|settlement| Ref::new(settlement).unwrap()),
        };
        (self.stored)(&mut state);
        state
    }

    pub(crate) fn post_rejection(&self) -> PostRejection {
        let rejection = Ref::new(self.rejection.clone()).unwrap();
        PostRejection { signature: sign_cell(rejection.cell(), &self.receipt_signer), rejection }
    }

    fn post_job(&self) -> PostJob {
        let terms = JobTerms {
            worker: self.worker.clone(),
            model_id: MODEL_ID,
            measurement: self.terms_measurement,
            claim_by: self.claim_by,
            settle_within_s: SETTLE_WITHIN_S,
            limits: Ref::new(self.limits.clone()).unwrap(),
        };
        PostJob::new(0, terms, &sealed(HashBytes([11; 32]))).unwrap()
    }

    fn payments(&self, account: &Account) -> Vec<(Cell, u128)> {
        let (client, nonce, bond) = (self.client.clone(), self.nonce, self.claim.bond);
        let mut sent = Vec::new();
        let (royalty, fee) = (self.royalty, self.fee);
        let copies = if self.worker_paid_twice { 2 } else { 1 };
        match self.ending {
            Ending::Settled => {
                if royalty.get() + fee.get() > 0 {
                    let share =
                        SharePaid { query_id: POSTED_LT, royalty, fee, client: client.clone(), nonce };
                    let value = royalty.get() + fee.get() + 9_000;
                    sent.push(account.to(&self.share_to, value, share.to_cell().unwrap()));
                }
                let paid = self.paid_to_worker;
                let message = JobPaid { query_id: POSTED_LT, bond, paid, client, nonce };
                for _ in 0..copies {
                    let value = bond.get() + paid.get() + 5_000;
                    sent.push(account.to(&self.payment_to, value, message.to_cell().unwrap()));
                }
            }
            Ending::Rejected => {
                let message = JobReturned { query_id: POSTED_LT, bond: self.bond_named, client, nonce };
                for _ in 0..copies {
                    sent.push(account.to(&self.payment_to, self.bond_value, message.to_cell().unwrap()));
                }
            }
            Ending::ExpiredOpen | Ending::ExpiredClaimed => {
                if self.ending == Ending::ExpiredClaimed {
                    let message = JobForfeited { query_id: 9, bond: self.bond_named, client, nonce };
                    sent.push(account.to(&self.payment_to, 5_000, message.to_cell().unwrap()));
                }
                let back = Excesses { query_id: 9 }.to_cell().unwrap();
                sent.push(account.to(&self.ended_from, self.back_to_caller, back));
            }
            Ending::Open | Ending::Claimed | Ending::Cancelled => {}
        }
        let refund = JobRefund {
            query_id: POSTED_LT,
            status: self.refund_status,
            paid: self.paid,
            bond: if self.ending == Ending::ExpiredClaimed { self.bond_named } else { Nanoton::ZERO },
        };
        sent.push(account.to(&self.refund_to, self.refund_value, refund.to_cell().unwrap()));
        sent
    }

    fn registration(&self) -> WorkerRegistration {
        let request = RegistrationRequest {
            receipt_key: self.claim.receipt_key,
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

        let owner = self.registered_from.clone().unwrap_or_else(|| self.claim.worker_owner.clone());
        let origin = QuoteOrigin {
            quote_digest: HashBytes(Sha256::digest(&quote.signed).into()),
            advisories: HashBytes::ZERO,
            authority: proof.pck.platform.issuer,
            ppid: claims.ppid,
            fmspc: claims.fmspc,
        };
        let report = VerifiedReport {
            measurement: self.claim.measurement,
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
            receipt_key: self.claim.receipt_key,
            encryption_key: ENCRYPTION_KEY,
            measurement: self.claim.measurement,
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
            self.params().attestation.attestor.clone(),
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

    fn transaction(
        &mut self,
        lt: u64,
        now: u32,
        (in_msg, value): (Cell, u128),
        sent: Vec<(Cell, u128)>,
        success: bool,
    ) {
        let mut out_msgs = Dict::<Uint15, Cell>::new();
        self.balance += value;
        for (index, (out, out_value)) in sent.iter().enumerate() {
            out_msgs.set(Uint15::new(index as u16), out.clone()).unwrap();
            self.balance -= out_value + FORWARD_FEE;
        }
        self.balance -= self.fees;
        let compute = ExecutedComputePhase {
            success,
            msg_state_used: false,
            account_activated: false,
            gas_fees: Tokens::ZERO,
            gas_used: Default::default(),
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
            out_msg_count: Uint15::new(sent.len() as u16),
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

fn sealed(enc: HashBytes) -> Sealed {
    Sealed { enc, ciphertext: Ref::new(Snake::new(vec![0xa5; 400]).unwrap()).unwrap() }
}

fn body(result_hash: HashBytes) -> ReceiptBody {
    ReceiptBody { result_hash, transcript: HashBytes([66; 32]), engine: 1, dtype: 5 }
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

fn params(attestor: StdAddr) -> Params {
    let code = |byte| CodeRef { hash: HashBytes([byte; 32]), depth: 3 };
    Params {
        network_id: NETWORK_ID,
        treasury: address(4),
        fee_bps: 250,
        royalty_cap_bps: 1_000,
        min_stake: Nanoton::new(10_000_000_000),
        min_bond: Nanoton::new(500_000_000),
        bond_bps: 1_000,
        unbonding_s: 604_800,
        audit_window_s: 604_800,
        codes: Ref::new(Codes { worker: code(201), model: code(202), job: code(203) }).unwrap(),
        attestation: Ref::new(AttestationParams { attestor, ttl_s: 86_400, platform: code(204) }).unwrap(),
    }
}
