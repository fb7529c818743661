//! Building, following and opening a job without a chain.
#![allow(clippy::unwrap_used)]

use chain::{AccountTx, TxId, Wallet};
use client::{
    ClientError, JobEvent, JobRequest, JobStep, JobStory, Outcome, Posting, SealedJob, deploy, event_of,
    outcome, reply_key,
};
use contracts::errors::RejectionReason;
use contracts::job::{JobStatus, PostJob, PostReceipt, PostRejection, TakeJob};
use contracts::librarian::library_cell;
use contracts::money::Amount;
use contracts::receipt::{Dtype, Receipt, ReceiptContent, Rejection, generate_signing_key, public_key};
use contracts::registry::{PlatformPolicy, RegistryStorage};
use contracts::sealing::{
    ChatMessage, DecryptionKey, FinishReason, InputContext, Output, ResultContext, open_input, seal_result,
};
use contracts::transcript::transcript;
use contracts::wire::Ref;
use contracts::worker::Offer;
use contracts::{
    Cell, CodeRef, Codes, Generation, HashBytes, Message, Nanoton, Network, Params, Prices, SigningKey,
    StdAddr, Units,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tycho_types::cell::{CellBuilder, CellFamily, Lazy};
use tycho_types::models::{
    AccountStatus, ComputePhase, CurrencyCollection, ExecutedComputePhase, HashUpdate, IntMsgInfo, MsgInfo,
    OrdinaryTxInfo, OwnedMessage, Transaction, TxInfo,
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
            messages: vec![ChatMessage::new("user", PROMPT)],
            max_output_tokens: 100,
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
            wallet: &self.wallet,
            encryption_key: &encryption_key,
            nonce: 77,
            value: Nanoton::new(100_000_000),
        };
        let receipt_key = public_key(&self.receipt_key);
        let terms = request.terms(&self.network, &receipt_key, &self.offer, NOW_S).unwrap();
        request.seal(terms, &posting, &mut self.rng).unwrap()
    }

    /// The job posted and claimed.
    fn claimed(&mut self) -> (SealedJob, JobStory) {
        let job = self.seal(&self.request());
        let mut story = JobStory::new(job.address.clone());
        let posting = PostJob::from_cell(&job.transfer.body).unwrap();
        story.events.push(event(100, NOW_S, JobStep::Posted(Box::new(posting))));
        let bond = Amount::new(10_000_000);
        story.events.push(event(200, NOW_S + 10, JobStep::Claimed { bond }));
        (job, story)
    }

    fn post_receipt(&mut self, job: &SealedJob, reply_to: &HashBytes) -> PostReceipt {
        let (salt, input, output) = ([1; 32], vec![1, 2, 3], vec![4, 5]);
        let context = ResultContext { network_id: -239, job: job.address.clone(), posted_lt: 100 };
        let committed = transcript(&salt, &job.terms.model_id, 1, Dtype::Q4_1, &input, &output);
        let answer = Output::new("A pupa.".into(), FinishReason::Stop, salt, input, output);
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

fn event(lt: u64, at_s: u32, step: JobStep) -> JobEvent {
    JobEvent { id: TxId { lt, hash: HashBytes::ZERO }, at_s, step }
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
    assert_eq!(input.messages[0].content, PROMPT);
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
    assert!(bad(|r| r.messages.clear()).contains("caller: the conversation is empty"));
    assert!(bad(|r| r.max_output_tokens = 101).contains("100 output units"));
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
    let (job, mut story) = world.claimed();
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    assert!(outcome(&story, &world.network, &key, Some(&MODEL)).unwrap().is_none());
    assert_eq!(story.status(), Some(JobStatus::Claimed));
    assert_eq!(story.deadline_s(), Some(NOW_S + 10 + 600));
    let post = world.post_receipt(&job, &key.public());
    story.events.push(event(300, NOW_S + 20, JobStep::Settled(Box::new(post))));
    let Some(Outcome::Settled(settled)) = outcome(&story, &world.network, &key, Some(&MODEL)).unwrap() else {
        panic!("settled")
    };
    assert_eq!(settled.answer.as_ref().unwrap().text, "A pupa.");
    assert!(settled.transcript_matches);
    // 3 × 20 + 2 × 40 nanoTON, whose share of 6 % is worth less than its message.
    assert_eq!((settled.paid, settled.share), (Amount::new(140), Amount::ZERO));
    assert_eq!((settled.royalty, settled.fee), (Nanoton::ZERO, Nanoton::ZERO));
    assert_eq!(settled.refund, Amount::new(24_000 - 140));
    story.events.push(event(400, NOW_S + 90_000, JobStep::Swept));
    assert_eq!(story.status(), Some(JobStatus::Settled));
    assert!(!format!("{settled:?}").contains("pupa"));
}

#[test]
fn an_answer_for_another_key_is_told_apart_from_a_bad_history() {
    let mut world = World::new();
    let (job, story) = world.claimed();
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    let stranger = DecryptionKey::generate(&mut world.rng).public();
    let post = world.post_receipt(&job, &stranger);
    let mut unreadable = story.clone();
    unreadable.events.push(event(300, NOW_S + 20, JobStep::Settled(Box::new(post))));
    let Some(Outcome::Settled(settled)) = outcome(&unreadable, &world.network, &key, Some(&MODEL)).unwrap()
    else {
        panic!("settled")
    };
    assert!(settled.answer.is_err() && !settled.transcript_matches);

    let mut forged = world.post_receipt(&job, &key.public());
    forged.signature.0[5] ^= 1;
    let mut history = story.clone();
    history.events.push(event(300, NOW_S + 20, JobStep::Settled(Box::new(forged))));
    assert!(
        outcome(&history, &world.network, &key, Some(&MODEL)).unwrap_err().to_string().contains("signature")
    );

    let mut swapped = world.post_receipt(&job, &key.public());
    swapped.result = world.post_receipt(&job, &key.public()).result;
    let mut history = story;
    history.events.push(event(300, NOW_S + 20, JobStep::Settled(Box::new(swapped))));
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
    let (job, mut story) = world.claimed();
    story.events.truncate(1);
    assert_eq!((story.status(), story.deadline_s()), (Some(JobStatus::Open), Some(NOW_S + 60)));
    let key = reply_key(&world.wallet, -239, &job.address).unwrap();
    let post = world.post_receipt(&job, &key.public());
    story.events.push(event(300, NOW_S + 20, JobStep::Settled(Box::new(post))));
    assert!(story.claim().is_none());
    let settled = |model_id: Option<&HashBytes>| match outcome(&story, &world.network, &key, model_id) {
        Ok(Some(Outcome::Settled(settled))) => settled,
        _ => panic!("settled"),
    };
    assert!(settled(Some(&MODEL)).transcript_matches);
    // An answer of another model, or of none that is known, is not the one committed to.
    assert!(!settled(Some(&HashBytes([5; 32]))).transcript_matches);
    assert!(!settled(None).transcript_matches);
}

/// A transaction in which the job took this message from its worker.
fn taking(message: &TakeJob) -> AccountTx {
    let job = StdAddr::new(0, HashBytes([7; 32]));
    let info = IntMsgInfo {
        src: StdAddr::new(0, HashBytes([3; 32])).into(),
        dst: job.clone().into(),
        value: CurrencyCollection::new(1_000_000_000),
        ..Default::default()
    };
    let body = message.to_cell().unwrap().into();
    let message = OwnedMessage { info: MsgInfo::Int(info), init: None, body, layout: None };
    let compute = ExecutedComputePhase {
        success: true,
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
        aborted: false,
        bounce_phase: None,
        destroyed: false,
    });
    let tx = Transaction {
        account: job.address,
        lt: 10,
        prev_trans_hash: HashBytes::ZERO,
        prev_trans_lt: 0,
        now: NOW_S,
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
    AccountTx { id: TxId { lt: 10, hash: *cell.repr_hash() }, cell, tx }
}

#[test]
fn a_claim_is_read_with_its_bond() {
    let bond = Amount::new(77);
    let message = TakeJob { query_id: 3, bond, stake: Amount::new(9), bid: None };
    let event = event_of(&taking(&message)).unwrap().unwrap();
    assert!(matches!(event.step, JobStep::Claimed { bond: found } if found == bond));
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
    let refund_of = |steps: Vec<JobStep>, base: &JobStory| {
        let mut story = base.clone();
        story.events.extend(steps.into_iter().map(|step| event(300, NOW_S + 700, step)));
        outcome(&story, &world.network, &key, Some(&MODEL)).unwrap().unwrap()
    };
    let rejection = Rejection {
        tag: Default::default(),
        job: job.address.clone(),
        posted_lt: 100,
        reason: RejectionReason::PromptOverContext.code(),
    };
    let rejection = PostRejection::signed(rejection, &world.receipt_key).unwrap();
    let Outcome::Rejected { reason, refund, .. } =
        refund_of(vec![JobStep::Rejected(Box::new(rejection))], &claimed)
    else {
        panic!("rejected")
    };
    assert_eq!((reason, refund), (Some(RejectionReason::PromptOverContext), Amount::new(24_000)));
    let Outcome::Expired { bond, refund } = refund_of(vec![JobStep::Expired], &claimed) else {
        panic!("expired")
    };
    assert_eq!((bond, refund), (Amount::new(10_000_000), Amount::new(24_000)));
    let mut open = claimed.clone();
    open.events.truncate(1);
    assert_eq!(open.deadline_s(), Some(NOW_S + 60));
    let Outcome::Expired { bond, .. } = refund_of(vec![JobStep::Expired], &open) else { panic!("expired") };
    assert_eq!(bond, Amount::ZERO);
    assert!(matches!(refund_of(vec![JobStep::Cancelled], &open), Outcome::Cancelled { .. }));
}
