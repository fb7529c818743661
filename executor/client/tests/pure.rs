//! Building, following and opening a job without a chain.
#![allow(clippy::unwrap_used)]

use chain::{AccountTx, Transfer, TxId, Wallet};
use client::link::LinkError;
use client::{
    ClientError, JobRequest, JobStory, Outcome, Posting, SealedJob, SessionEnd, deploy, order, outcome,
    reply_key,
};
use contracts::errors::RejectionReason;
use contracts::job::{
    CancelJob, CloseSession, DeliverInput, ExpireJob, JobStatus, MarketNetwork, MarketTerms, OpenSession,
    PostJob, PostOpenJob, PostReceipt, PostRejection, RedeemReceipt, Seller, SessionTerms, SweepJob, TakeJob,
    TopUpJob,
};
use contracts::librarian::library_cell;
use contracts::money::Amount;
use contracts::receipt::{
    Dtype, Receipt, ReceiptContent, Rejection, SignedReceipt, generate_signing_key, public_key,
};
use contracts::registry::{PlatformPolicy, RegistryStorage};
use contracts::sealing::{
    ChatMessage, DecryptionKey, FinishReason, InputContext, Output, ResultContext, open_input, seal_result,
};
use contracts::voucher::Voucher;
use contracts::wire::Ref;
use contracts::work::{GenerateParams, Request};
use contracts::worker::Offer;
use contracts::{
    Cell, CodeRef, Codes, Generation, HashBytes, Message, Nanoton, Network, Params, Prices, SigningKey,
    StdAddr, Units,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tycho_types::cell::{CellBuilder, CellFamily, Lazy};
use tycho_types::models::{
    AccountStatus, ComputePhase, CurrencyCollection, ExecutedComputePhase, ExtInMsgInfo, HashUpdate,
    IntMsgInfo, MsgInfo, OrdinaryTxInfo, OwnedMessage, StateInit, Transaction, TxInfo,
};
use tycho_types::num::Tokens;

const NOW_S: u32 = 1_800_000_000;
const MODEL: HashBytes = HashBytes([4; 32]);
const PROMPT: &str = "What is a chrysalis?";

struct World {
    network: Network,
    wallet: Wallet,
    worker_key: DecryptionKey,
    receipt_key: SigningKey,
    offer: Offer,
    rng: StdRng,
}

impl World {
    fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let code = CodeRef::of(&Cell::empty_cell());
        let params = Params {
            treasury: StdAddr::new(0, HashBytes([9; 32])),
            royalty_cap_bps: 3_000,
            min_stake: Nanoton::new(1_000_000_000),
            unbonding_s: 86_400,
            attestor: StdAddr::new(0, HashBytes([7; 32])),
            attestation_ttl_s: 86_400,
        };
        let generation = Generation {
            network_id: -239,
            fee_bps: 100,
            bond_bps: 1_000,
            min_bond: Nanoton::new(10_000_000),
            job_code: library_cell(&Cell::empty_cell()),
            codes: Ref::new(Codes { worker: code, model: code, platform: code.hash }).unwrap(),
            params: Ref::new(params).unwrap(),
        };
        let price = |nanoton| Nanoton::new(nanoton);
        let offer = Offer {
            prices: Prices { input: price(20_000), cached_input: price(10_000), output: price(40_000) },
            min_deposit: Nanoton::ZERO,
            royalty_bps: 500,
            model: HashBytes([12; 32]),
        };
        let registry = StdAddr::new(0, HashBytes([8; 32]));
        Self {
            network: Network { registry, generation },
            offer,
            wallet: Wallet::from_seed(&[5; 32], -239).unwrap(),
            worker_key: DecryptionKey::generate(&mut rng),
            receipt_key: generate_signing_key(&mut rng),
            rng,
        }
    }

    fn request(&self) -> JobRequest {
        JobRequest {
            worker: StdAddr::new(0, HashBytes([3; 32])),
            model_id: MODEL,
            work: asked(100),
            measurement: HashBytes::ZERO,
            max_prices: self.offer.prices,
            max_units: Units { input: 1_000, cached_input: 0, output: 100 },
            deposit: None,
            open_for_s: 60,
            settle_within_s: 600,
        }
    }

    fn seal(&mut self, request: &JobRequest) -> SealedJob {
        let encryption_key = self.worker_key.public();
        let posting = Posting {
            network: &self.network,
            client: self.wallet.address(),
            reply_keys: &self.wallet,
            encryption_key: &encryption_key,
            nonce: 77,
            value: Nanoton::new(100_000_000),
        };
        let receipt_key = public_key(&self.receipt_key);
        let terms = request.terms(&self.network, &receipt_key, &self.offer, NOW_S).unwrap();
        request.seal(terms, &posting, &mut self.rng).unwrap()
    }

    /// The job posted and claimed.
    fn claimed(&mut self) -> (SealedJob, Account) {
        let job = self.seal(&self.request());
        let mut account = Account::of(&job, self.wallet.address());
        account.taken(&job.terms.seller.worker);
        (job, account)
    }

    fn post_receipt(&mut self, job: &SealedJob, reply_to: &HashBytes) -> PostReceipt {
        let (salt, input, output) = ([1; 32], vec![1, 2, 3], vec![4, 5]);
        let context = ResultContext { network_id: -239, job: job.address.clone(), posted_lt: 100 };
        let params = GenerateParams::greedy(100);
        let answer = Output::text("A pupa.".into(), FinishReason::Stop, salt, &params, input, output);
        let committed = answer.transcript(&job.terms.model_id, 1, Dtype::Q4_1);
        let sealed = seal_result(&answer, reply_to, &context, &mut self.rng).unwrap();
        let content = ReceiptContent {
            result_hash: *contracts::wire::to_cell(&sealed).unwrap().repr_hash(),
            transcript: committed,
            engine: 1,
            dtype: Dtype::Q4_1 as u8,
        };
        let units = Units { input: 3, cached_input: 0, output: 2 };
        let receipt = Receipt {
            tag: Default::default(),
            job: job.address.clone(),
            posted_lt: 100,
            sequence: 1,
            is_final: true,
            units,
            amount: Amount::try_from(self.offer.prices.cost(&units)).unwrap(),
            content_hash: content.hash().unwrap(),
        };
        PostReceipt::signed(receipt, content, &sealed, &self.receipt_key).unwrap()
    }
}

fn asked(max_output_tokens: u32) -> Request {
    let params = GenerateParams::greedy(max_output_tokens);
    Request::chat(vec![ChatMessage::new("user", PROMPT)], params)
}

/// A job's account, transaction by transaction.
#[derive(Clone)]
struct Account {
    address: StdAddr,
    transactions: Vec<AccountTx>,
}

impl Account {
    /// The job posted, at the logical time 100.
    fn of(job: &SealedJob, client: &StdAddr) -> Self {
        let mut account = Self { address: job.address.clone(), transactions: Vec::new() };
        let init = job.transfer.state_init.clone();
        account.play(NOW_S, Some(client), job.transfer.body.clone(), init, true);
        account
    }

    /// With the messages, each of which comes 10 seconds after the one before.
    fn with(mut self, from: Option<&StdAddr>, message: &impl Message) -> Self {
        let at_s = self.transactions.last().unwrap().tx.now + 10;
        self.play(at_s, from, message.to_cell().unwrap(), None, true);
        self
    }

    fn taken(&mut self, worker: &HashBytes) {
        let (bond, stake) = (Amount::new(10_000_000), Amount::new(9));
        let take = TakeJob { query_id: 3, bond, stake, bid: None };
        let worker = StdAddr::new(0, *worker);
        self.play(NOW_S + 10, Some(&worker), take.to_cell().unwrap(), None, true);
    }

    fn story(&self) -> JobStory {
        let mut story = JobStory::new(self.address.clone());
        story.extend(&self.transactions).unwrap();
        story
    }

    fn play(
        &mut self,
        at_s: u32,
        from: Option<&StdAddr>,
        body: Cell,
        init: Option<StateInit>,
        succeeds: bool,
    ) {
        let previous = self.transactions.last().map(|transaction| transaction.id);
        let lt = previous.map_or(100, |previous| previous.lt + 100);
        let dst = self.address.clone();
        let info = match from {
            Some(from) => MsgInfo::Int(IntMsgInfo {
                src: from.clone().into(),
                dst: dst.into(),
                value: CurrencyCollection::new(1_000_000_000),
                ..Default::default()
            }),
            None => MsgInfo::ExtIn(ExtInMsgInfo { src: None, dst: dst.into(), import_fee: Tokens::ZERO }),
        };
        let message = OwnedMessage { info, init, body: body.into(), layout: None };
        let compute = ExecutedComputePhase {
            success: succeeds,
            msg_state_used: false,
            account_activated: false,
            gas_fees: Tokens::ZERO,
            gas_used: Default::default(),
            gas_limit: Default::default(),
            gas_credit: None,
            mode: 0,
            exit_code: if succeeds { 0 } else { 105 },
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
            aborted: !succeeds,
            bounce_phase: None,
            destroyed: false,
        });
        let tx = Transaction {
            account: self.address.address,
            lt,
            prev_trans_hash: previous.map_or(HashBytes::ZERO, |previous| previous.hash),
            prev_trans_lt: previous.map_or(0, |previous| previous.lt),
            now: at_s,
            out_msg_count: Default::default(),
            orig_status: AccountStatus::Active,
            end_status: AccountStatus::Active,
            in_msg: Some(CellBuilder::build_from(message).unwrap()),
            out_msgs: Default::default(),
            total_fees: CurrencyCollection::ZERO,
            state_update: Lazy::new(&HashUpdate { old: HashBytes::ZERO, new: HashBytes::ZERO }).unwrap(),
            info: Lazy::new(&info).unwrap(),
        };
        let cell = CellBuilder::build_from(&tx).unwrap();
        self.transactions.push(AccountTx { id: TxId { lt, hash: *cell.repr_hash() }, cell, tx });
    }
}

#[test]
fn a_posting_is_one_message_that_the_worker_can_open() {
    let mut world = World::new();
    let job = world.seal(&world.request());
    assert_eq!(job.address, world.network.job_address(world.wallet.address(), 77).unwrap());
    let deposit = 1_000 * 20 + 100 * 40;
    assert_eq!(job.terms.deposit, Amount::new(deposit));
    let seller = &job.terms.seller;
    assert_eq!((seller.share_bps, seller.prices), (600, world.offer.prices));
    assert_eq!(seller.model, world.network.model_address(&job.terms.model_id).unwrap().address);
    assert_eq!(job.terms.limits.least_bond, Amount::new(10_000_000));
    assert_eq!(job.transfer.value_nanoton, 100_000_000);
    assert_eq!(job.terms.until, NOW_S + 60);
    assert!(job.transfer.bounce);
    let init = job.transfer.state_init.as_ref().unwrap();
    assert_eq!(init.code.as_ref(), Some(&world.network.generation.job_code));
    let posting = PostJob::from_cell(&job.transfer.body).unwrap();
    let context = InputContext {
        network_id: -239,
        job: job.address.clone(),
        model_id: job.terms.model_id,
        until: job.terms.until,
    };
    let input = open_input(&posting.sealed_input().unwrap(), &world.worker_key, &context).unwrap();
    assert_eq!(input.work, asked(100));
    let reply_to = reply_key(&world.wallet, -239, &job.address).unwrap();
    assert_eq!(input.reply_key, reply_to.public().0);
}

#[test]
fn reply_keys_differ_by_job_and_wallet() {
    let world = World::new();
    let (a, b) = (StdAddr::new(0, HashBytes([1; 32])), StdAddr::new(0, HashBytes([2; 32])));
    let key = |wallet: &Wallet, job: &StdAddr| reply_key(wallet, -239, job).unwrap().public();
    assert_eq!(key(&world.wallet, &a), key(&world.wallet, &a));
    assert_ne!(key(&world.wallet, &a), key(&world.wallet, &b));
    let other = Wallet::from_seed(&[6; 32], -239).unwrap();
    assert_ne!(key(&world.wallet, &a), key(&other, &a));
}

#[test]
fn a_request_nobody_can_serve_is_the_callers_fault() {
    let world = World::new();
    let bad = |change: fn(&mut JobRequest)| {
        let mut request = world.request();
        change(&mut request);
        request.terms(&world.network, &HashBytes([1; 32]), &world.offer, NOW_S).unwrap_err().to_string()
    };
    let empty = bad(|r| r.work = Request::chat(Vec::new(), GenerateParams::greedy(100)));
    assert!(empty.contains("caller: there is nothing to answer"), "{empty}");
    assert!(bad(|r| r.work = asked(101)).contains("100 output units"));
    assert!(bad(|r| r.open_for_s = 0).contains("7 days"));
    assert!(bad(|r| r.open_for_s = 7 * 86_400 + 1).contains("7 days"));
    assert!(bad(|r| r.deposit = Some(Nanoton::MAX)).contains("more than a job can hold"));
    assert!(bad(|r| r.settle_within_s = 29).contains("30 seconds"));
    assert!(bad(|r| r.deposit = Some(Nanoton::ZERO)).contains("deposit above zero"));
    assert!(!format!("{:?}", world.request()).contains(PROMPT));
}

#[test]
fn a_settled_job_gives_answer_receipt_and_money() {
    let mut world = World::new();
    let (job, account) = world.claimed();
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    let story = account.story();
    assert!(outcome(&story, &world.network, &key, Some(&MODEL)).unwrap().is_none());
    assert_eq!(story.status(), Some(JobStatus::Claimed));
    assert_eq!(story.deadline_s(), Some(NOW_S + 10 + 600));
    assert_eq!(story.posting().unwrap().seller, Ref::new(job.terms.seller.clone()).unwrap());
    let post = world.post_receipt(&job, &key.public());
    let account = account.with(None, &post);
    let story = account.story();
    let Some(Outcome::Settled(settled)) = outcome(&story, &world.network, &key, Some(&MODEL)).unwrap() else {
        panic!("settled")
    };
    assert_eq!(settled.answer.as_ref().unwrap().text, "A pupa.");
    assert!(settled.transcript_matches);
    // 3 × 20 + 2 × 40 nanoTON, whose share of 6 % is worth less than its message.
    assert_eq!((settled.paid, settled.share), (Amount::new(140), Amount::ZERO));
    assert_eq!((settled.royalty, settled.fee), (Nanoton::ZERO, Nanoton::ZERO));
    assert_eq!(settled.refund, Amount::new(24_000 - 140));
    assert_eq!(story.events()[2].amount, Some(Amount::new(140)));
    let client = world.wallet.address();
    let swept = account.with(Some(client), &SweepJob { query_id: 1 }).story();
    assert_eq!((swept.status(), swept.deadline_s()), (Some(JobStatus::Settled), None));
    assert!(swept.is_swept() && !story.is_swept());
    assert!(!format!("{settled:?}").contains("pupa"));
}

#[test]
fn an_answer_for_another_key_is_told_apart_from_a_bad_history() {
    let mut world = World::new();
    let (job, claimed) = world.claimed();
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    let stranger = DecryptionKey::generate(&mut world.rng).public();
    let post = world.post_receipt(&job, &stranger);
    let unreadable = claimed.clone().with(None, &post).story();
    let Some(Outcome::Settled(settled)) = outcome(&unreadable, &world.network, &key, Some(&MODEL)).unwrap()
    else {
        panic!("settled")
    };
    assert!(settled.answer.is_err() && !settled.transcript_matches);

    let mut forged = world.post_receipt(&job, &key.public());
    forged.signature.0[5] ^= 1;
    let history = claimed.clone().with(None, &forged).story();
    assert!(
        outcome(&history, &world.network, &key, Some(&MODEL)).unwrap_err().to_string().contains("signature")
    );

    let mut swapped = world.post_receipt(&job, &key.public());
    swapped.result = world.post_receipt(&job, &key.public()).result;
    let history = claimed.with(None, &swapped).story();
    assert!(
        outcome(&history, &world.network, &key, Some(&MODEL))
            .unwrap_err()
            .to_string()
            .contains("receipt names")
    );
}

#[test]
fn a_job_answered_as_it_was_ends_like_a_claimed_one() {
    let mut world = World::new();
    let (job, mut account) = world.claimed();
    account.transactions.truncate(1);
    let story = account.story();
    assert_eq!((story.status(), story.deadline_s()), (Some(JobStatus::Open), Some(NOW_S + 60)));
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    let post = world.post_receipt(&job, &key.public());
    let story = account.with(None, &post).story();
    assert!(story.events().iter().all(|event| event.name != "claimed"));
    let settled = |model_id: Option<&HashBytes>| match outcome(&story, &world.network, &key, model_id) {
        Ok(Some(Outcome::Settled(settled))) => settled,
        _ => panic!("settled"),
    };
    assert!(settled(Some(&MODEL)).transcript_matches);
    // An answer of another model, or of none that is known, is not the one committed to.
    assert!(!settled(Some(&HashBytes([5; 32]))).transcript_matches);
    assert!(!settled(None).transcript_matches);
}

#[test]
fn a_claim_is_read_with_its_bond() {
    let (_, account) = World::new().claimed();
    let events = account.story().events();
    let names: Vec<_> = events.iter().map(|event| (event.name, event.amount, event.at_s)).collect();
    let amounts = [Some(Amount::new(24_000)), Some(Amount::new(10_000_000))];
    assert_eq!(names, [("posted", amounts[0], NOW_S), ("claimed", amounts[1], NOW_S + 10)]);
    assert_eq!((events[1].lt, events[1].status), (200, JobStatus::Claimed));
}

#[test]
fn what_is_no_jobs_history_is_refused_and_its_giver_named() {
    let (_, account) = World::new().claimed();
    let refused = |transactions: &[AccountTx]| {
        let error = JobStory::new(account.address.clone()).extend(transactions).unwrap_err();
        ClientError::from(error).to_string()
    };
    assert!(refused(&account.transactions[1..]).starts_with("chain server: transaction"));
    let mut twice = account.clone();
    let posting = account.transactions[0].clone();
    let body = posting.in_message().unwrap().unwrap().body;
    twice.play(NOW_S + 20, Some(&StdAddr::new(0, HashBytes([3; 32]))), body, None, true);
    assert!(refused(&twice.transactions).contains("contracts: at lt 300: it was posted more than once"));
    // Refused by the contract, it changes nothing.
    let mut noise = account.clone();
    noise.play(NOW_S + 20, None, Cell::empty_cell(), None, false);
    assert_eq!(noise.story().events(), account.story().events());
}

#[test]
fn a_registry_that_gives_away_more_than_a_payment_is_not_deployed() {
    let world = World::new();
    let owner = StdAddr::new(0, HashBytes([2; 32]));
    let deploy = |royalty_cap_bps: u16, fee_bps: u16| {
        let mut generation = world.network.generation.clone();
        let params = Params { royalty_cap_bps, ..(*generation.params).clone() };
        (generation.params, generation.fee_bps) = (Ref::new(params).unwrap(), fee_bps);
        let storage = RegistryStorage::initial(
            owner.clone(),
            0,
            0,
            generation,
            &[],
            PlatformPolicy::initial(0),
            Cell::empty_cell(),
        )
        .unwrap();
        deploy::registry(&Cell::empty_cell(), &storage)
    };
    assert!(deploy(9_900, 100).is_ok());
    let refused = deploy(9_900, 101).unwrap_err();
    assert!(matches!(refused, ClientError::Request(_)), "{refused}");
    assert!(refused.to_string().contains("more than 10 000"), "{refused}");
    assert!(deploy(u16::MAX, u16::MAX).is_err());
}

#[test]
fn the_other_ends_give_the_deposit_back() {
    let mut world = World::new();
    let (job, claimed) = world.claimed();
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    let outcome_of =
        |account: Account| outcome(&account.story(), &world.network, &key, Some(&MODEL)).unwrap().unwrap();
    let rejection = Rejection {
        tag: Default::default(),
        job: job.address.clone(),
        posted_lt: 100,
        reason: RejectionReason::PromptOverContext.code(),
    };
    let rejection = PostRejection::signed(rejection, &world.receipt_key).unwrap();
    let Outcome::Rejected { reason, refund, .. } = outcome_of(claimed.clone().with(None, &rejection)) else {
        panic!("rejected")
    };
    assert_eq!((reason, refund), (Some(RejectionReason::PromptOverContext), Amount::new(24_000)));
    let (client, expire) = (world.wallet.address(), ExpireJob { query_id: 0 });
    let Outcome::Expired { bond, refund } = outcome_of(claimed.clone().with(Some(client), &expire)) else {
        panic!("expired")
    };
    assert_eq!((bond, refund), (Amount::new(10_000_000), Amount::new(24_000)));
    let mut open = claimed.clone();
    open.transactions.truncate(1);
    assert_eq!(open.story().deadline_s(), Some(NOW_S + 60));
    let Outcome::Expired { bond, .. } = outcome_of(open.clone().with(Some(client), &expire)) else {
        panic!("expired")
    };
    assert_eq!(bond, Amount::ZERO);
    let cancel = CancelJob { query_id: 0 };
    assert!(matches!(outcome_of(open.with(Some(client), &cancel)), Outcome::Cancelled { .. }));
}

/// A session or a job of the market in the place of the job that `World` seals.
fn opened(world: &mut World, opening: impl FnOnce(&SealedJob) -> Cell) -> (SealedJob, Account) {
    let mut job = world.seal(&world.request());
    job.transfer.body = opening(&job);
    let account = Account::of(&job, world.wallet.address());
    (job, account)
}

#[test]
fn a_session_is_followed_from_its_opening_to_its_end() {
    let mut world = World::new();
    let session_key = generate_signing_key(&mut world.rng);
    let terms = SessionTerms { session_key: public_key(&session_key) };
    let (job, account) = opened(&mut world, |job| {
        let JobTermsOf { until, deposit, limits, seller } = terms_of(job);
        let terms = Ref::new(terms).unwrap();
        OpenSession { query_id: 77, until, deposit, limits, seller, terms }.to_cell().unwrap()
    });
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    let redeem = |sequence: u32, sum: u64, is_final: bool| {
        let amount = Amount::new(sum);
        let receipt = Receipt {
            tag: Default::default(),
            job: job.address.clone(),
            posted_lt: 100,
            sequence,
            is_final,
            units: Units::default(),
            amount,
            content_hash: HashBytes::ZERO,
        };
        let voucher = Voucher { job: job.address.address, posted_lt: 100, amount }.sign(&session_key);
        let signed = SignedReceipt::new(receipt, &world.receipt_key).unwrap();
        RedeemReceipt::new(signed, amount, voucher).unwrap()
    };
    let client = world.wallet.address().clone();
    let story = account.story();
    assert_eq!((story.status(), story.deadline_s()), (Some(JobStatus::Session), Some(NOW_S + 60)));
    assert!(story.posting().is_none());
    let more = TopUpJob { query_id: 0, amount: Amount::new(6_000) };
    let account = account.with(None, &redeem(1, 9_000, false)).with(Some(&client), &more);
    let account = account.with(Some(&client), &CloseSession { query_id: 0 });
    assert_eq!(account.story().status(), Some(JobStatus::Closing));
    let ended = |account: Account| match outcome(&account.story(), &world.network, &key, Some(&MODEL)) {
        Ok(Some(Outcome::Session(end))) => *end,
        other => panic!("{other:?}"),
    };
    let last = redeem(2, 26_000, true);
    let SessionEnd { redemptions, receipt, paid, share, refund } = ended(account.clone().with(None, &last));
    assert_eq!((redemptions, receipt.as_ref()), (2, Some(&*last.receipt)));
    // All but 4 000 of 30 000, of which 6 % are the model's.
    assert_eq!((paid, share, refund), (Amount::new(26_000), Amount::new(1_560), Amount::new(4_000)));
    let expired = ended(account.clone().with(Some(&client), &ExpireJob { query_id: 0 }));
    assert_eq!((expired.redemptions, expired.paid, expired.refund.get()), (1, Amount::new(9_000), 21_000));
    let names: Vec<_> = account.story().events().iter().map(|event| event.name).collect();
    assert_eq!(names, ["posted", "redeemed", "topped_up", "close_asked"]);
    let told = account.story().told().unwrap();
    assert_eq!((told.status, told.deposit_nanoton), (JobStatus::Closing, Amount::new(30_000)));
}

#[test]
fn a_job_of_the_market_is_followed_through_its_bids() {
    let mut world = World::new();
    let network =
        MarketNetwork::of(&world.network, 600, world.offer.prices, Amount::new(10_000_000)).unwrap();
    let market = MarketTerms {
        model: world.offer.model,
        bid_until: NOW_S + 15,
        deliver_within_s: 30,
        compensation: Amount::new(4_000),
        delivery_key: HashBytes::ZERO,
        measurement: None,
        best_stake: Amount::ZERO,
        network: Ref::new(network).unwrap(),
    };
    let (job, account) = opened(&mut world, |job| {
        let JobTermsOf { until, deposit, limits, .. } = terms_of(job);
        let terms = Ref::new(market).unwrap();
        PostOpenJob { query_id: 77, until, deposit, max_units: limits.max_units, terms }.to_cell().unwrap()
    });
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    assert_eq!(account.story().seller(), None);
    let bid = |account: Account, worker: u8| {
        let seller = &job.terms.seller;
        let bid = contracts::job::Bid {
            worker_owner: StdAddr::new(0, HashBytes([9; 32])),
            receipt_key: seller.receipt_key,
            model: seller.model,
            share_bps: seller.share_bps,
            prices: seller.prices,
            measurement: None,
        };
        let bid = Some(Ref::new(bid).unwrap());
        let (bond, stake) = (Amount::new(10_000_000), Amount::new(9));
        let take = TakeJob { query_id: 3, bond, stake, bid };
        account.with(Some(&StdAddr::new(0, HashBytes([worker; 32]))), &take)
    };
    let account = bid(bid(account, 1), 2);
    let story = account.story();
    assert_eq!((story.status(), story.deadline_s()), (Some(JobStatus::Awaiting), Some(NOW_S + 20 + 30)));
    assert_eq!(story.seller().unwrap().worker, HashBytes([2; 32]));
    let client = world.wallet.address().clone();
    let late = account.clone().with(Some(&client), &ExpireJob { query_id: 0 });
    let undelivered = outcome(&late.story(), &world.network, &key, Some(&MODEL)).unwrap().unwrap();
    let Outcome::Expired { refund, bond } = undelivered else { panic!("expired") };
    assert_eq!((refund, bond), (Amount::new(20_000), Amount::ZERO));
    let input = PostJob::from_cell(&world.seal(&world.request()).transfer.body).unwrap().input;
    let delivered = account.with(Some(&client), &DeliverInput { query_id: 0, input });
    let post = world.post_receipt(&job, &key.public());
    let settled = delivered.with(None, &post).story();
    let Some(Outcome::Settled(end)) = outcome(&settled, &world.network, &key, Some(&MODEL)).unwrap() else {
        panic!("settled")
    };
    assert!(end.transcript_matches);
    let names: Vec<_> = settled.events().iter().map(|event| event.name).collect();
    assert_eq!(names, ["posted", "claimed", "claimed", "delivered", "settled"]);
}

struct JobTermsOf {
    until: u32,
    deposit: Amount,
    limits: contracts::job::JobLimits,
    seller: Ref<Seller>,
}

fn terms_of(job: &SealedJob) -> JobTermsOf {
    let terms = &job.terms;
    let seller = Ref::new(terms.seller.clone()).unwrap();
    JobTermsOf { until: terms.until, deposit: terms.deposit, limits: terms.limits, seller }
}

/// Everything a wallet may be asked to send, and as what.
fn transfers(world: &mut World) -> Vec<Transfer> {
    let (network, owner) = (world.network.clone(), world.wallet.address().clone());
    let (code, amount) = (Cell::empty_cell(), Nanoton::new(5_000_000_000));
    let job = world.seal(&world.request());
    let address = job.address.clone();
    vec![
        job.transfer,
        order::cancel(&address).unwrap(),
        order::close(&address).unwrap(),
        order::top_up(&address, amount).unwrap(),
        order::expire(&address).unwrap(),
        order::sweep(&address).unwrap(),
        deploy::top_up_stake(&network, &code, &owner, amount).unwrap(),
        deploy::fund_gas(&network, &owner, amount).unwrap(),
        deploy::request_unbond(&network, &owner, amount).unwrap(),
        deploy::withdraw_unbonded(&network, &owner).unwrap(),
        deploy::withdraw_earnings(&network, &owner, amount).unwrap(),
        deploy::pause_worker(&network, &owner, true).unwrap(),
        deploy::register_model(&network, &code, &MODEL, 500, contracts::model::Unit::Token, "{}").unwrap(),
        Transfer::payment(address, 7),
    ]
}

fn same(one: &Transfer, other: &Transfer) -> bool {
    let init =
        |transfer: &Transfer| transfer.state_init.as_ref().map(|init| CellBuilder::build_from(init).unwrap());
    (&one.to, one.value_nanoton, one.bounce, &one.body)
        == (&other.to, other.value_nanoton, other.bounce, &other.body)
        && init(one) == init(other)
}

#[test]
fn links_and_ton_connect_requests_lead_back_to_the_cells_the_command_would_send() {
    let mut world = World::new();
    let from = world.wallet.address().clone();
    for network_id in [-239, -3] {
        for transfer in transfers(&mut world) {
            let link = client::link::link(&transfer, network_id).unwrap();
            assert!(link.len() <= client::link::MAX_LINK_BYTES);
            // Nothing that a query would have to escape.
            let plain = |c: char| c.is_ascii_alphanumeric() || ":/?&=-_".contains(c);
            assert!(link.chars().all(plain), "{link}");
            assert!(same(&client::link::read_link(&link).unwrap(), &transfer), "{link}");
            let kind = &link["ton://transfer/".len()..][..1];
            assert_eq!(
                kind,
                if network_id == -239 {
                    if transfer.bounce { "E" } else { "U" }
                } else if transfer.bounce {
                    "k"
                } else {
                    "0"
                }
            );

            let request =
                client::link::ton_connect(&[transfer.clone(), transfer.clone()], Some(&from), 77, network_id);
            let request = request.unwrap();
            assert_eq!(
                (&request["network"], &request["from"]),
                (&network_id.to_string().into(), &from.to_string().into())
            );
            let (read, until) = client::link::read_ton_connect(&request).unwrap();
            assert!(until == 77 && read.len() == 2 && read.iter().all(|read| same(read, &transfer)));
        }
    }
}

#[test]
fn a_prompt_too_long_for_a_link_is_told_so_and_still_fits_a_request() {
    let mut world = World::new();
    let mut request = world.request();
    let words = "pupa ".repeat(600);
    request.work = Request::chat(vec![ChatMessage::new("user", words)], GenerateParams::greedy(100));
    let job = world.seal(&request);
    let refused = client::link::link(&job.transfer, -239).unwrap_err();
    assert!(matches!(refused, LinkError::TooLong { bytes } if bytes > client::link::MAX_LINK_BYTES));
    assert!(!refused.to_string().contains("pupa"));
    let request = client::link::ton_connect(std::slice::from_ref(&job.transfer), None, 77, -239).unwrap();
    assert!(same(&client::link::read_ton_connect(&request).unwrap().0[0], &job.transfer));
}

#[test]
fn a_link_that_was_changed_is_refused_or_another_and_never_panics() {
    let mut world = World::new();
    let transfer = transfers(&mut world).remove(0);
    let link = client::link::link(&transfer, -239).unwrap();
    for at in 0..link.len() {
        for byte in [b'A', b'?', b'&', b'=', b'9'] {
            let mut changed = link.clone().into_bytes();
            if changed[at] == byte {
                continue;
            }
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Ok(read) = client::link::read_link(&changed) {
                assert!(!same(&read, &transfer), "{changed}");
            }
        }
        assert!(
            client::link::read_link(&link[..at]).is_err_and(|error| error.to_string().starts_with("link: "))
                || !same(&client::link::read_link(&link[..at]).unwrap(), &transfer)
        );
    }
    for request in [
        "{}",
        r#"{"valid_until":1}"#,
        r#"{"valid_until":1,"messages":[{}]}"#,
        r#"{"valid_until":1,"messages":[{"address":"EQ","amount":"1"}]}"#,
    ] {
        client::link::read_ton_connect(&serde_json::from_str(request).unwrap()).unwrap_err();
    }
}
