use contracts::errors::ContractError;
use contracts::job::{JobPaid, JobRefund, JobStatus, PostReceipt, PostRejection};
use contracts::model::SharePaid;
use contracts::money::Split;
use contracts::receipt::{Receipt, ReceiptBody};
use contracts::worker::ClaimJob;
use contracts::{Nanoton, Ref, SigningKey, Units};
use tests::market::{
    PRICES, ROYALTY_BPS, TON, assert_all_succeeded, assert_closed_to_externals, assert_external_refused,
    cell, hash, padded, result, sealed,
};
use tests::{Job, Market, Terms, Worker};

const UNITS: Units = Units { input: 100, cached_input: 7, output: 333 };

fn claimed() -> (Market, Worker, Job) {
    claimed_with(&Terms::default())
}

fn claimed_with(terms: &Terms) -> (Market, Worker, Job) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, terms);
    (market, worker, job)
}

/// Settles and checks every share against the protocol's rounding.
fn settles_for(market: &mut Market, worker: &Worker, job: &Job, receipt: Receipt, paid: Nanoton) {
    let before = market.worker_state(worker).unwrap();
    let model_before = market.model_state().unwrap();
    let deposit = job.terms.limits.deposit;
    let receipt_hash = Ref::new(receipt.clone()).unwrap().hash();
    let split = Split::of(paid, paid, deposit, ROYALTY_BPS, 200).unwrap();
    let txs = market.settle(worker, job, receipt).unwrap();
    assert_all_succeeded(&txs);
    let paid_out: JobPaid = txs[0].sent().unwrap();
    assert_eq!(paid_out.bond, Nanoton::new(TON / 2));
    assert_eq!(paid_out.paid, split.to_worker);
    if !split.royalty.is_zero() || !split.fee.is_zero() {
        let share: SharePaid = txs[0].sent().unwrap();
        assert_eq!((share.royalty, share.fee), (split.royalty, split.fee));
    }
    let refund = market.chain.inbox(&job.client).last().unwrap().clone();
    let message: JobRefund = refund.read().unwrap();
    assert_eq!(message.status, JobStatus::Settled as u8);
    assert_eq!(message.paid, split.paid);
    assert!(refund.value >= split.to_client.get());

    let state = market.job_state(job).unwrap();
    let settlement = state.settlement.unwrap();
    assert_eq!(state.status, JobStatus::Settled);
    assert_eq!(state.closed_at, market.chain.now);
    assert_eq!(settlement.receipt_hash, receipt_hash);
    assert_eq!(settlement.result_hash, Ref::new(result()).unwrap().hash());
    assert_eq!((settlement.paid, settlement.royalty, settlement.fee), (split.paid, split.royalty, split.fee));
    let after = market.worker_state(worker).unwrap();
    assert_eq!(after.locked, Nanoton::ZERO);
    assert_eq!(after.stake.get(), before.stake.get() + before.locked.get());
    assert_eq!(after.record.settled, before.record.settled + 1);
    assert_eq!(after.earnings.get(), before.earnings.get() + split.to_worker.get());
    let model = market.model_state().unwrap();
    assert_eq!(model.royalty.get(), model_before.royalty.get() + split.royalty.get());
    assert_eq!(model.fee.get(), model_before.fee.get() + split.fee.get());
}

#[test]
fn a_receipt_pays_worker_publisher_treasury_and_refunds_the_client() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    settles_for(&mut market, &worker, &job, receipt, PRICES.cost(&UNITS));
}

#[test]
fn a_receipt_for_nothing_pays_nothing() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, Units::default());
    settles_for(&mut market, &worker, &job, receipt, Nanoton::ZERO);
}

#[test]
fn a_receipt_over_the_deposit_is_clamped() {
    let terms = Terms { deposit: Nanoton::new(1_000_003), ..Terms::default() };
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &terms);
    let bond = market.job_state(&job).unwrap().claim.unwrap().bond;
    let units = Units { output: 1_000, ..UNITS };
    let receipt = market.receipt(&job, units);
    let txs = market.settle(&worker, &job, receipt).unwrap();
    assert_all_succeeded(&txs);
    let settlement = market.job_state(&job).unwrap().settlement.unwrap();
    assert_eq!(settlement.paid, terms.deposit);
    let paid: JobPaid = txs[0].sent().unwrap();
    assert_eq!(paid.bond, bond);
}

#[test]
fn a_receipt_over_the_cost_of_its_units_is_clamped() {
    let (mut market, worker, job) = claimed();
    let receipt = Receipt { amount: Nanoton::MAX, ..market.receipt(&job, UNITS) };
    settles_for(&mut market, &worker, &job, receipt, PRICES.cost(&UNITS));
}

#[test]
fn a_receipt_may_ask_for_less_than_the_cost() {
    let (mut market, worker, job) = claimed();
    let receipt = Receipt { amount: Nanoton::new(17), ..market.receipt(&job, UNITS) };
    settles_for(&mut market, &worker, &job, receipt, Nanoton::new(17));
}

#[test]
fn a_receipt_is_worth_something_once() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    market.settle(&worker, &job, receipt.clone()).unwrap();
    let held = market.chain.balance(&job.address);
    assert_closed_to_externals(market.settle(&worker, &job, receipt));
    assert_eq!(market.chain.balance(&job.address), held);
}

#[test]
fn a_receipt_of_another_job_posting_or_network_is_refused() {
    let (mut market, worker, job) = claimed();
    let client = job.client.clone();
    let other = market.claimed(&client, &worker, &Terms::default());
    let stolen = market.receipt(&other, UNITS);
    assert_external_refused(market.settle(&worker, &job, stolen), ContractError::WrongJob);
    let receipt = market.receipt(&job, UNITS);
    let earlier = Receipt { posted_lt: receipt.posted_lt - 1, ..receipt.clone() };
    assert_external_refused(market.settle(&worker, &job, earlier), ContractError::WrongJob);
    let elsewhere = Receipt { network_id: -239, ..receipt };
    assert_external_refused(market.settle(&worker, &job, elsewhere), ContractError::WrongNetwork);
    assert_eq!(market.status(&job), Some(JobStatus::Claimed));
}

#[test]
fn a_receipt_with_one_bit_changed_is_refused() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    let honest = PostReceipt::signed(receipt.clone(), &result(), &worker.key).unwrap();
    for bit in [0, 1, 77, 255, 256, 400, 510, 511] {
        let mut message = honest.clone();
        message.signature.0[bit / 8] ^= 1 << (bit % 8);
        assert_external_refused(
            market.chain.external(&job.address, cell(&message)),
            ContractError::BadSignature,
        );
    }
    let dearer = Receipt { amount: Nanoton::checked(receipt.amount.get() ^ 1).unwrap(), ..receipt };
    let message = PostReceipt { receipt: Ref::new(dearer).unwrap(), ..honest };
    assert_external_refused(market.chain.external(&job.address, cell(&message)), ContractError::BadSignature);
}

#[test]
fn a_receipt_from_an_unattested_key_is_refused() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    let impostor = Worker { key: SigningKey::from_bytes(&[5; 32]), ..worker };
    assert_external_refused(market.settle(&impostor, &job, receipt), ContractError::BadSignature);
}

#[test]
fn a_key_attested_after_the_claim_does_not_settle_it() {
    let (mut market, worker, job) = claimed();
    let renewed = Worker { key: SigningKey::from_bytes(&[6; 32]), ..worker.clone() };
    assert_all_succeeded(&market.attest(&renewed));
    let receipt = market.receipt(&job, UNITS);
    assert_external_refused(market.settle(&renewed, &job, receipt.clone()), ContractError::BadSignature);
    assert_all_succeeded(&market.settle(&worker, &job, receipt).unwrap());
}

#[test]
fn units_over_the_terms_are_refused() {
    let (mut market, worker, job) = claimed();
    for units in [
        Units { input: 1_001, ..UNITS },
        Units { cached_input: 1_001, ..UNITS },
        Units { output: 1_001, ..UNITS },
    ] {
        let receipt = market.receipt(&job, units);
        assert_external_refused(market.settle(&worker, &job, receipt), ContractError::UnitsOverTerms);
    }
}

#[test]
fn a_result_that_the_receipt_does_not_name_is_refused() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    let message = PostReceipt::signed(receipt, &sealed("another result", 528), &worker.key).unwrap();
    assert_external_refused(
        market.chain.external(&job.address, cell(&message)),
        ContractError::ResultMismatch,
    );
}

#[test]
fn a_one_shot_receipt_is_the_first_and_the_last() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    for wrong in [
        Receipt { sequence: 0, ..receipt.clone() },
        Receipt { sequence: 2, ..receipt.clone() },
        Receipt { is_final: false, ..receipt.clone() },
    ] {
        assert_external_refused(market.settle(&worker, &job, wrong), ContractError::WrongSequence);
    }
}

#[test]
fn a_late_receipt_is_refused() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    market.chain.wait(601);
    assert_external_refused(market.settle(&worker, &job, receipt), ContractError::TooLate);
}

#[test]
fn a_receipt_at_the_last_second_is_in_time() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    market.chain.wait(600);
    assert_all_succeeded(&market.settle(&worker, &job, receipt).unwrap());
}

#[test]
fn a_receipt_before_a_claim_is_refused() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    let receipt = market.receipt(&job, UNITS);
    assert_external_refused(market.settle(&worker, &job, receipt), ContractError::WrongState);
}

#[test]
fn an_unknown_transcript_or_dtype_changes_nothing_for_the_contract() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, UNITS);
    let body = ReceiptBody { transcript: hash("anything"), dtype: 200, ..(*receipt.body).clone() };
    let receipt = Receipt { body: Ref::new(body).unwrap(), ..receipt };
    assert_all_succeeded(&market.settle(&worker, &job, receipt).unwrap());
}

#[test]
fn answering_jobs_does_not_eat_the_workers_float() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let float = |market: &Market| {
        let state = market.worker_state(&worker).unwrap();
        let owed = state.stake.get() + state.earnings.get() + state.unbonding.get();
        market.chain.balance(&worker.address) - owed
    };
    let before = float(&market);
    for round in 0..20 {
        let job = market.claimed(&client, &worker, &Terms::default());
        if round % 2 == 0 {
            let receipt = market.receipt(&job, UNITS);
            market.settle(&worker, &job, receipt).unwrap();
        } else {
            let rejection = market.rejection(&job, 1);
            market.reject(&worker, &job, rejection).unwrap();
        }
    }
    assert!(float(&market) >= before, "{before} became {}", float(&market));
}

#[test]
fn what_a_deleted_worker_cannot_take_goes_to_its_owner() {
    let (mut market, worker, job) = claimed();
    market.chain.delete(&worker.address);
    let before = market.chain.balance(&worker.owner);
    let receipt = market.receipt(&job, UNITS);
    let paid = receipt.amount;
    let txs = market.settle(&worker, &job, receipt).unwrap();
    assert!(txs[0].succeeded());
    let split = Split::of(paid, paid, paid, ROYALTY_BPS, 200).unwrap();
    let gained = market.chain.balance(&worker.owner) - before;
    let due = u128::from(TON / 2) + split.to_worker.get();
    assert!(gained + u128::from(TON / 100) >= due, "{gained} of {due}");
}

#[test]
fn what_a_deleted_model_cannot_take_goes_to_the_client() {
    let (mut market, worker, job) = claimed();
    let model = market.model.clone();
    market.chain.delete(&model);
    let receipt = market.receipt(&job, UNITS);
    let txs = market.settle(&worker, &job, receipt).unwrap();
    assert!(txs[0].succeeded());
    assert_eq!(market.status(&job), Some(JobStatus::Settled));
    let last = market.chain.inbox(&job.client).last().unwrap();
    assert!(last.read::<contracts::job::Payout>().is_some());
}

#[test]
fn nobody_may_make_a_signed_message_dearer() {
    let (mut market, worker, job) = claimed();
    let receipt = PostReceipt::signed(market.receipt(&job, UNITS), &result(), &worker.key).unwrap();
    let rejection = PostRejection::signed(market.rejection(&job, 1), &worker.key).unwrap();
    let client = job.client.clone();
    let open = market.post(&client, &worker, &Terms::default());
    let claim = ClaimJob::signed(market.order(&worker, &open), &worker.key).unwrap();
    for (to, body) in
        [(&job.address, cell(&receipt)), (&job.address, cell(&rejection)), (&worker.address, cell(&claim))]
    {
        let held = market.chain.balance(to);
        assert!(market.chain.external(to, padded(&body)).is_err());
        assert_eq!(market.chain.balance(to), held);
    }
    assert_all_succeeded(&market.chain.external(&worker.address, cell(&claim)).unwrap());
    assert_all_succeeded(&market.chain.external(&job.address, cell(&receipt)).unwrap());
}
