//! Who may answer a job, with a claim or without one, and where the money goes.

use contracts::errors::ContractError;
use contracts::job::{JobPaid, JobRefund, JobStatus, Outcome, Payout, PostReceipt, PostRejection};
use contracts::job_log::JobClosed;
use contracts::model::SharePaid;
use contracts::money::Split;
use contracts::receipt::{Receipt, ReceiptContent};
use contracts::worker::{ClaimJob, FundGas};
use contracts::{Amount, Nanoton, Prices, Ref, SigningKey, Units};
use tests::market::{
    SHARE_BPS, TON, assert_all_succeeded, assert_closed_to_externals, assert_external_refused, cell, hash,
    import_fee, least_balance, padded, sealed,
};
use tests::{Job, Market, Terms, Worker};

const UNITS: Units = Units { input: 100, cached_input: 7, output: 333 };

/// One job that a bond stands for, and one that nobody claimed.
fn answerable() -> (Market, Worker, [Job; 2]) {
    answerable_with(&Terms::default())
}

fn answerable_with(terms: &Terms) -> (Market, Worker, [Job; 2]) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let jobs = [market.claimed(&client, &worker, terms), market.post(&client, &worker, terms)];
    (market, worker, jobs)
}

fn gas_for(market: &Market, gas: u64) -> u128 {
    market.prices().gas(gas).get()
}

/// Settles and accounts for every nanoTON.
fn settles_for(market: &mut Market, worker: &Worker, job: &Job, receipt: Receipt, paid: u64) {
    let state = market.job_state(job).unwrap();
    let free = market.free(worker);
    let model = market.chain.balance(&market.model);
    let split = Split::of(receipt.amount, job.seller.prices.cost(&receipt.units), job.deposit, SHARE_BPS);
    assert_eq!(split.paid, Amount::new(paid));
    let signed_hash = Ref::new(receipt.clone()).unwrap().hash();
    let txs = market.settle(worker, job, receipt).unwrap();
    assert_all_succeeded(&txs);

    let to_worker = split.to_worker.get() + state.bond.get();
    let payment = txs[0].out.iter().find(|sent| sent.read::<JobPaid>().is_some());
    assert_eq!(payment.is_some(), to_worker > 0);
    if let Some(payment) = payment {
        assert_eq!(payment.read::<JobPaid>().unwrap().outcome, Outcome::Settled as u8);
        let gas = gas_for(market, contracts::fees::GAS_WORKER_PAID);
        assert_eq!(payment.value, u128::from(to_worker) + gas);
    }
    let share = txs[0].out.iter().find(|sent| sent.read::<SharePaid>().is_some());
    assert_eq!(share.is_some(), !split.share.is_zero());
    if let Some(share) = share {
        let gas = gas_for(market, contracts::fees::GAS_MODEL_SHARE);
        assert_eq!(share.value, split.share.nanoton().get() + gas);
    }
    assert!(market.free(worker) >= free + u128::from(to_worker), "the payment paid for itself");
    assert!(market.chain.balance(&market.model) >= model + split.share.nanoton().get());
    let refund = market.chain.inbox(&job.client).last().unwrap().clone();
    assert_eq!(refund.read::<JobRefund>().unwrap().status, JobStatus::Settled as u8);
    assert!(refund.value >= split.to_client.nanoton().get());
    assert_eq!(market.chain.balance(&job.address), 0, "a closed job keeps something");

    let closed: JobClosed = txs[0].logged().unwrap();
    assert_eq!((closed.status, closed.paid), (JobStatus::Settled as u8, split.paid));
    assert_eq!(closed.signed_hash, signed_hash);
    let state = market.job_state(job).unwrap();
    assert_eq!((state.status, state.paid, state.sequence), (JobStatus::Settled, split.paid, 1));
    assert_eq!(state.bond, Amount::ZERO);
    assert_eq!(state.until, market.chain.now + contracts::job::AUDIT_WINDOW_S);
}

#[test]
fn a_receipt_pays_worker_and_model_and_refunds_the_client() {
    let (mut market, worker, jobs) = answerable();
    for job in &jobs {
        let receipt = market.receipt(job, UNITS);
        let cost = receipt.amount.get();
        settles_for(&mut market, &worker, job, receipt, cost);
    }
}

#[test]
fn a_receipt_for_nothing_pays_nothing() {
    let (mut market, worker, jobs) = answerable();
    for job in &jobs {
        let receipt = market.receipt(job, Units::default());
        settles_for(&mut market, &worker, job, receipt, 0);
    }
}

#[test]
fn a_share_is_paid_from_the_least_that_is_worth_its_message() {
    let prices = Prices { output: Nanoton::new(TON), ..tests::market::PRICES };
    for (paid, is_paid) in [(10_000_000, true), (9_999_999, false)] {
        let (mut market, worker, jobs) =
            answerable_with(&Terms { share_bps: 1_000, prices, ..Terms::default() });
        for job in &jobs {
            let receipt = Receipt { amount: Amount::new(paid), ..market.receipt(job, UNITS) };
            let txs = market.settle(&worker, job, receipt).unwrap();
            assert_all_succeeded(&txs);
            let closed: JobClosed = txs[0].logged().unwrap();
            assert_eq!(closed.paid, Amount::new(paid));
            assert_eq!(txs[0].sent::<SharePaid>().is_some(), is_paid);
        }
    }
}

#[test]
fn a_receipt_over_the_deposit_is_clamped() {
    let terms = Terms { deposit: Amount::new(1_000_003), ..Terms::default() };
    let (mut market, worker, jobs) = answerable_with(&terms);
    for job in &jobs {
        let receipt = market.receipt(job, Units { output: 1_000, ..UNITS });
        settles_for(&mut market, &worker, job, receipt, 1_000_003);
    }
}

#[test]
fn a_receipt_over_the_cost_of_its_units_is_clamped_and_one_under_it_is_not() {
    let (mut market, worker, [claimed, open]) = answerable();
    let honest = market.receipt(&claimed, UNITS);
    let cost = honest.amount.get();
    let greedy = Receipt { amount: Amount::new(u64::MAX), ..honest };
    settles_for(&mut market, &worker, &claimed, greedy, cost);
    let modest = Receipt { amount: Amount::new(17), ..market.receipt(&open, UNITS) };
    settles_for(&mut market, &worker, &open, modest, 17);
}

#[test]
fn the_largest_units_and_prices_do_not_overflow() {
    let most = contracts::money::MAX_PRICE;
    let terms = Terms {
        deposit: Amount::new(700 * TON),
        max_units: Units { input: u32::MAX, cached_input: u32::MAX, output: u32::MAX },
        prices: contracts::Prices { input: most, cached_input: most, output: most },
        ..Terms::default()
    };
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &terms);
    let receipt = market.receipt(&job, terms.max_units);
    settles_for(&mut market, &worker, &job, receipt, 700 * TON);
}

#[test]
fn a_receipt_is_worth_something_once() {
    let (mut market, worker, jobs) = answerable();
    for job in &jobs {
        let receipt = market.receipt(job, UNITS);
        market.settle(&worker, job, receipt.clone()).unwrap();
        assert_closed_to_externals(market.settle(&worker, job, receipt.clone()));
        // Nor with money of its own.
        market.chain.submit(&job.client, &job.address, u128::from(TON), Default::default(), None, false);
        market.chain.settle();
        assert_external_refused(market.settle(&worker, job, receipt), ContractError::WrongState);
    }
}

#[test]
fn a_receipt_of_another_job_or_posting_is_refused() {
    let (mut market, worker, [claimed, open]) = answerable();
    for (job, other) in [(&claimed, &open), (&open, &claimed)] {
        let stolen = market.receipt(other, UNITS);
        assert_external_refused(market.settle(&worker, job, stolen), ContractError::WrongJob);
        let receipt = market.receipt(job, UNITS);
        let earlier = Receipt { posted_lt: receipt.posted_lt - 1, ..receipt };
        assert_external_refused(market.settle(&worker, job, earlier), ContractError::WrongJob);
    }
}

#[test]
fn a_receipt_with_one_bit_changed_is_refused() {
    let (mut market, worker, jobs) = answerable();
    for job in &jobs {
        let receipt = market.receipt(job, UNITS);
        let honest = market.answer(&worker, receipt.clone());
        for bit in [0, 1, 77, 255, 256, 400, 510, 511] {
            let mut message = honest.clone();
            message.signature.0[bit / 8] ^= 1 << (bit % 8);
            let sent = market.chain.external(&job.address, cell(&message));
            assert_external_refused(sent, ContractError::BadSignature);
        }
        let dearer = Receipt { amount: Amount::new(receipt.amount.get() ^ 1), ..receipt };
        let message = PostReceipt { receipt: Ref::new(dearer).unwrap(), ..honest };
        let sent = market.chain.external(&job.address, cell(&message));
        assert_external_refused(sent, ContractError::BadSignature);
    }
}

#[test]
fn a_key_that_the_client_did_not_name_is_refused() {
    let (mut market, worker, jobs) = answerable();
    let impostor = Worker { key: SigningKey::from_bytes(&[5; 32]), ..worker.clone() };
    let renewed = Worker { key: SigningKey::from_bytes(&[6; 32]), ..worker.clone() };
    assert_all_succeeded(&market.attest(&renewed));
    for job in &jobs {
        for other in [&impostor, &renewed] {
            let receipt = market.receipt(job, UNITS);
            assert_external_refused(market.settle(other, job, receipt), ContractError::BadSignature);
        }
        let receipt = market.receipt(job, UNITS);
        assert_all_succeeded(&market.settle(&worker, job, receipt).unwrap());
    }
}

#[test]
fn units_over_the_limits_are_refused() {
    let (mut market, worker, jobs) = answerable();
    for job in &jobs {
        for units in [
            Units { input: 1_001, ..UNITS },
            Units { cached_input: 1_001, ..UNITS },
            Units { output: 1_001, ..UNITS },
        ] {
            let receipt = market.receipt(job, units);
            assert_external_refused(market.settle(&worker, job, receipt), ContractError::UnitsOverTerms);
        }
    }
}

#[test]
fn a_content_or_result_that_is_not_named_is_refused() {
    let (mut market, worker, jobs) = answerable();
    for job in &jobs {
        let receipt = market.receipt(job, UNITS);
        let content = ReceiptContent { engine: 2, ..market.content() };
        let message = PostReceipt::signed(receipt.clone(), content, &tests::market::result(), &worker.key);
        let sent = market.chain.external(&job.address, cell(&message.unwrap()));
        assert_external_refused(sent, ContractError::ResultMismatch);
        let other = sealed("another result", 4 * 127);
        let message = PostReceipt::signed(receipt, market.content(), &other, &worker.key).unwrap();
        let sent = market.chain.external(&job.address, cell(&message));
        assert_external_refused(sent, ContractError::ResultMismatch);
    }
}

#[test]
fn a_one_shot_receipt_is_the_first_and_the_last() {
    let (mut market, worker, jobs) = answerable();
    for job in &jobs {
        let receipt = market.receipt(job, UNITS);
        for wrong in [
            Receipt { sequence: 0, ..receipt.clone() },
            Receipt { sequence: 2, ..receipt.clone() },
            Receipt { is_final: false, ..receipt.clone() },
        ] {
            assert_external_refused(market.settle(&worker, job, wrong), ContractError::WrongSequence);
        }
    }
}

#[test]
fn a_receipt_is_in_time_up_to_the_last_second() {
    for claimed in [false, true] {
        let (mut market, worker, [with_claim, without]) = answerable();
        let (job, last_s) = if claimed { (with_claim, 600) } else { (without, 120) };
        let receipt = market.receipt(&job, UNITS);
        market.chain.wait(last_s + 1);
        assert_external_refused(market.settle(&worker, &job, receipt.clone()), ContractError::TooLate);
        market.chain.now -= 1;
        assert_all_succeeded(&market.settle(&worker, &job, receipt).unwrap());
    }
}

#[test]
fn an_unknown_transcript_engine_or_dtype_changes_nothing_for_the_contract() {
    let (mut market, worker, [job, _]) = answerable();
    let content =
        ReceiptContent { transcript: hash("anything"), engine: u32::MAX, dtype: 200, ..market.content() };
    let receipt = Receipt { content_hash: content.hash().unwrap(), ..market.receipt(&job, UNITS) };
    let message = PostReceipt::signed(receipt, content, &tests::market::result(), &worker.key).unwrap();
    assert_all_succeeded(&market.chain.external(&job.address, cell(&message)).unwrap());
}

#[test]
fn a_result_larger_than_foreseen_waits_until_somebody_pays_for_it() {
    let terms = Terms { max_units: Units { input: 10, cached_input: 0, output: 10 }, ..Terms::default() };
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.draft(&client, &worker, &terms);
    let least = job.deposit.nanoton().checked_add(market.prices().posting(&terms.max_units)).unwrap();
    market.post_draft(&client, &job, least);
    let result = sealed("result", 200 * 127);
    let result_hash = *contracts::wire::to_cell(&result).unwrap().repr_hash();
    let content = ReceiptContent { result_hash, ..market.content() };
    let units = Units { input: 1, cached_input: 0, output: 1 };
    let receipt = Receipt { content_hash: content.hash().unwrap(), ..market.receipt(&job, units) };
    let message = PostReceipt::signed(receipt, content, &result, &worker.key).unwrap();
    let held = market.chain.balance(&job.address);
    let sent = market.chain.external(&job.address, cell(&message));
    assert_external_refused(sent, ContractError::GasFloatTooLow);
    assert_eq!(market.chain.balance(&job.address), held);
    let fund = FundGas { query_id: 1 };
    assert_all_succeeded(&market.tell(&client, &job.address, Nanoton::new(TON / 10), &fund));
    assert_all_succeeded(&market.chain.external(&job.address, cell(&message)).unwrap());
}

#[test]
fn an_answer_waits_until_the_job_holds_deposit_and_bond_and_what_it_sends() {
    let (market, worker, jobs) = answerable();
    for job in &jobs {
        let state = market.job_state(job).unwrap();
        let message = cell(&market.answer(&worker, market.receipt(job, UNITS)));
        let owed = u128::from(state.deposit.get() + state.bond.get());
        let least = least_balance(&market, &job.address, &message, ContractError::GasFloatTooLow);
        assert_eq!(least, owed + market.prices().settlement().get() + import_fee(&market, &message));
    }
}

#[test]
fn what_a_deleted_worker_or_model_cannot_take_goes_to_the_client() {
    for delete_model in [false, true] {
        let prices = contracts::Prices { output: Nanoton::new(TON), ..tests::market::PRICES };
        let (mut market, worker, jobs) = answerable_with(&Terms { prices, ..Terms::default() });
        let gone = if delete_model { market.model.clone() } else { worker.address.clone() };
        let receipts = jobs.clone().map(|job| market.receipt(&job, UNITS));
        market.chain.delete(&gone);
        for (job, receipt) in jobs.iter().zip(receipts) {
            let txs = market.settle(&worker, job, receipt).unwrap();
            assert!(txs[0].succeeded());
            assert_eq!(market.status(job), Some(JobStatus::Settled));
            let last = market.chain.inbox(&job.client).last().unwrap();
            assert!(last.read::<Payout>().is_some());
            assert_eq!(market.chain.balance(&job.address), 0);
        }
    }
}

#[test]
fn answering_jobs_does_not_eat_the_workers_funds() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let before = market.free(&worker);
    let claim = market.prices().claim().get();
    for round in 0..20u128 {
        let job = market.post(&client, &worker, &Terms::default());
        let receipt = market.receipt(&job, Units::default());
        if round % 2 == 0 {
            market.settle(&worker, &job, receipt).unwrap();
        } else {
            let rejection = market.rejection(&job, 1);
            market.reject(&worker, &job, rejection).unwrap();
        }
    }
    assert!(market.free(&worker) >= before, "{before} became {}", market.free(&worker));
    for _ in 0..20 {
        let job = market.claimed(&client, &worker, &Terms::default());
        let receipt = market.receipt(&job, Units::default());
        market.settle(&worker, &job, receipt).unwrap();
    }
    assert!(market.free(&worker) + 20 * claim >= before, "a claim costs more than it says");
}

#[test]
fn nobody_may_make_a_signed_message_dearer() {
    let (mut market, worker, [claimed, open]) = answerable();
    let client = open.client.clone();
    let session = market.session(&client, &worker, &Terms::default());
    let redeemed = market.session_receipt(&session, 1, TON / 2, false);
    let redemption = cell(&market.redemption(&worker, &session, redeemed, TON));
    let last = market.post(&client, &worker, &Terms::default());
    let claim = ClaimJob::signed(market.order(&worker, &last), &worker.key).unwrap();
    let rejection = PostRejection::signed(market.rejection(&open, 1), &worker.key).unwrap();
    let receipt = market.answer(&worker, market.receipt(&claimed, UNITS));
    for (to, body) in [
        (&claimed.address, cell(&receipt)),
        (&open.address, cell(&rejection)),
        (&session.address, redemption),
        (&worker.address, cell(&claim)),
    ] {
        let held = market.chain.balance(to);
        assert!(market.chain.external(to, padded(&body)).is_err());
        assert_eq!(market.chain.balance(to), held);
        assert_all_succeeded(&market.chain.external(to, body).unwrap());
    }
}
