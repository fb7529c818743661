//! Sessions: what a worker may draw, and how client and worker end one.

use contracts::errors::ContractError;
use contracts::job::{CloseSession, JobPaid, JobRefund, JobStatus, Outcome, RedeemReceipt, TopUpJob};
use contracts::job_log::{CloseAsked, JobClosed, JobToppedUp};
use contracts::model::SharePaid;
use contracts::receipt::{Receipt, SignedReceipt};
use contracts::voucher::Voucher;
use contracts::wire::Signature;
use contracts::{Amount, Nanoton, SigningKey, StdAddr, Units};
use tests::market::{
    SHARE_BPS, TON, assert_all_succeeded, assert_closed_to_externals, assert_external_refused,
    assert_refused, cell, import_fee, least_balance, padded,
};
use tests::{Job, Kind, Market, Terms, Worker};
use tycho_types::cell::CellBuilder;

fn opened() -> (Market, Worker, StdAddr, Job) {
    opened_with(&Terms { wait_s: 86_400, ..Terms::default() })
}

fn opened_with(terms: &Terms) -> (Market, Worker, StdAddr, Job) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.session(&client, &worker, terms);
    (market, worker, client, job)
}

fn share(amount: u64) -> u64 {
    (u128::from(amount) * u128::from(SHARE_BPS) / 10_000) as u64
}

/// What the job sent its worker, less the gas that travels with it.
fn paid(market: &Market, tx: &tests::Tx) -> u64 {
    let payment = tx.out.iter().find(|sent| sent.read::<JobPaid>().is_some()).unwrap();
    assert_eq!(payment.read::<JobPaid>().unwrap().outcome, Outcome::Settled as u8);
    (payment.value - market.prices().gas(contracts::fees::GAS_WORKER_PAID).get()) as u64
}

#[test]
fn the_worker_draws_what_receipt_voucher_and_deposit_allow_in_all() {
    let (mut market, worker, _, job) = opened();
    let cost = market.prices().redemption().get() as u64;
    let mut before = 0;
    let mut drawn_in_all = 0;
    for (sequence, amount, voucher, drawn) in [
        (1, TON / 4, TON, TON / 4),
        (2, TON / 2, TON / 3, TON / 3),
        (9, u64::MAX, TON - 1_000_000, TON - 1_000_000),
    ] {
        let receipt = market.session_receipt(&job, sequence, amount, false);
        let txs = market.redeem(&worker, &job, receipt, voucher).unwrap();
        assert_all_succeeded(&txs);
        let earned = drawn - share(drawn) - (before - share(before));
        assert_eq!(paid(&market, &txs[0]), earned - cost);
        drawn_in_all += earned;
        let state = market.job_state(&job).unwrap();
        assert_eq!((state.paid.get(), state.sequence), (drawn, sequence));
        assert_eq!(state.status, JobStatus::Session);
        before = drawn;
    }
    // The job can still pay the rest and the share of all.
    let last = market.session_receipt(&job, 10, u64::MAX, true);
    let txs = market.redeem(&worker, &job, last, u64::MAX).unwrap();
    assert_all_succeeded(&txs);
    drawn_in_all += paid(&market, &txs[0]);
    assert_eq!(drawn_in_all, TON - share(TON));
    let shares = txs[0].out.iter().find(|sent| sent.read::<SharePaid>().is_some()).unwrap();
    let gas = market.prices().gas(contracts::fees::GAS_MODEL_SHARE).get();
    assert_eq!(shares.value, u128::from(share(TON)) + gas);
    let closed: JobClosed = txs[0].logged().unwrap();
    assert_eq!((closed.status, closed.paid.get()), (JobStatus::Settled as u8, TON));
    let refund = market.chain.inbox(&job.client).last().unwrap();
    assert_eq!(refund.read::<JobRefund>().unwrap().status, JobStatus::Settled as u8);
    assert_eq!(market.chain.balance(&job.address), 0);
}

#[test]
fn many_small_redemptions_pay_what_one_would_but_for_their_cost() {
    let (mut market, worker, _, job) = opened();
    let cost = market.prices().redemption().get() as u64;
    let mut sum = 0;
    for sequence in 1..=90u32 {
        let amount = u64::from(sequence) * 10_999_997;
        let receipt = market.session_receipt(&job, sequence, amount, false);
        let txs = market.redeem(&worker, &job, receipt, TON).unwrap();
        assert_all_succeeded(&txs);
        sum += paid(&market, &txs[0]) + cost;
        assert_eq!(sum, amount - share(amount));
        let state = market.job_state(&job).unwrap();
        let owed = state.deposit.get() - state.paid.get() + share(state.paid.get());
        assert!(market.chain.balance(&job.address) >= u128::from(owed) + market.prices().settlement().get());
    }
}

#[test]
fn a_redemption_costs_its_worker_and_leaves_the_clients_reserve() {
    let (mut market, worker, _, job) = opened();
    let before = market.chain.balance(&job.address);
    let receipt = market.session_receipt(&job, 1, TON / 2, false);
    market.redeem(&worker, &job, receipt, TON).unwrap();
    let left = market.chain.balance(&job.address);
    let drawn = u128::from(TON / 2 - share(TON / 2));
    assert!(left + drawn >= before, "{} nanoTON of the reserve are gone", before - left - drawn);
}

#[test]
fn a_redemption_has_to_pay_more_than_it_costs() {
    let (mut market, worker, _, job) = opened();
    let cost = market.prices().redemption().get() as u64;
    let amount = (cost..2 * cost).find(|amount| amount - share(*amount) == cost).unwrap();
    let receipt = market.session_receipt(&job, 1, amount, false);
    assert_external_refused(market.redeem(&worker, &job, receipt, TON), ContractError::NothingToWithdraw);
    let more = (amount..2 * cost).find(|amount| amount - share(*amount) > cost).unwrap();
    let receipt = market.session_receipt(&job, 1, more, false);
    let txs = market.redeem(&worker, &job, receipt, TON).unwrap();
    assert_all_succeeded(&txs);
    assert_eq!(paid(&market, &txs[0]), 1);
    // A final receipt may pay nothing more.
    let last = market.session_receipt(&job, 2, more, true);
    assert_all_succeeded(&market.redeem(&worker, &job, last, TON).unwrap());
}

#[test]
fn a_redemption_waits_until_the_job_holds_what_is_owed_and_what_it_costs() {
    let (mut market, worker, _, job) = opened();
    for (sequence, before) in [(1, 0), (2, TON / 3)] {
        for (is_final, cost) in
            [(false, market.prices().redemption().get()), (true, market.prices().settlement().get())]
        {
            let receipt = market.session_receipt(&job, sequence, before + TON / 3, is_final);
            let message = cell(&market.redemption(&worker, &job, receipt, TON));
            let least = least_balance(&market, &job.address, &message, ContractError::GasFloatTooLow);
            let owed = u128::from(TON - before + share(before));
            assert_eq!(least, owed + cost + import_fee(&market, &message));
        }
        let receipt = market.session_receipt(&job, sequence, before + TON / 3, false);
        assert_all_succeeded(&market.redeem(&worker, &job, receipt, TON).unwrap());
    }
}

#[test]
fn a_receipt_is_redeemed_once_and_never_after_a_later_one() {
    let (mut market, worker, _, job) = opened();
    let receipt = market.session_receipt(&job, 5, TON / 2, false);
    assert_all_succeeded(&market.redeem(&worker, &job, receipt.clone(), TON).unwrap());
    assert_external_refused(market.redeem(&worker, &job, receipt, TON), ContractError::WrongSequence);
    for sequence in [0, 4, 5] {
        let receipt = market.session_receipt(&job, sequence, TON, false);
        assert_external_refused(market.redeem(&worker, &job, receipt, TON), ContractError::WrongSequence);
    }
    let less = market.session_receipt(&job, 6, TON / 4, true);
    assert_external_refused(market.redeem(&worker, &job, less, TON), ContractError::WrongSequence);
    let last = market.session_receipt(&job, 6, TON, true);
    assert_all_succeeded(&market.redeem(&worker, &job, last.clone(), TON).unwrap());
    assert_closed_to_externals(market.redeem(&worker, &job, last, TON));
}

#[test]
fn a_sequence_that_marks_an_equivocation_is_no_sequence() {
    let (mut market, worker, _, job) = opened();
    let receipt = market.session_receipt(&job, contracts::job::EQUIVOCATED, TON / 2, false);
    assert_external_refused(market.redeem(&worker, &job, receipt, TON), ContractError::WrongSequence);
}

#[test]
fn a_receipt_or_voucher_of_another_key_job_posting_or_amount_is_refused() {
    let (mut market, worker, client, job) = opened();
    let other = market.session(&client, &worker, &Terms { wait_s: 86_400, ..Terms::default() });
    let Kind::Session(key) = job.kind.clone() else { unreachable!() };
    let receipt = market.session_receipt(&job, 1, TON / 2, false);
    let impostor = Worker { key: SigningKey::from_bytes(&[5; 32]), ..worker.clone() };
    let sent = market.redeem(&impostor, &job, receipt.clone(), TON);
    assert_external_refused(sent, ContractError::BadSignature);
    let stolen = market.session_receipt(&other, 1, TON / 2, false);
    assert_external_refused(market.redeem(&worker, &job, stolen, TON), ContractError::WrongJob);
    let earlier = Receipt { posted_lt: receipt.posted_lt - 1, ..receipt.clone() };
    assert_external_refused(market.redeem(&worker, &job, earlier, TON), ContractError::WrongJob);

    let amount = Amount::new(TON);
    let honest = Voucher { job: job.address.address, posted_lt: receipt.posted_lt, amount };
    let mut flipped = honest.sign(&key);
    flipped.0[33] ^= 4;
    let wrong: [Signature; 5] = [
        honest.sign(&worker.key),
        Voucher { job: other.address.address, ..honest }.sign(&key),
        Voucher { posted_lt: honest.posted_lt - 1, ..honest }.sign(&key),
        Voucher { amount: Amount::new(TON - 1), ..honest }.sign(&key),
        flipped,
    ];
    for voucher in wrong {
        let signed = SignedReceipt::new(receipt.clone(), &worker.key).unwrap();
        let message = RedeemReceipt::new(signed, amount, voucher).unwrap();
        let sent = market.chain.external(&job.address, cell(&message));
        assert_external_refused(sent, ContractError::BadSignature);
    }
    assert_all_succeeded(&market.redeem(&worker, &job, receipt, TON).unwrap());
}

#[test]
fn nobody_may_make_a_redemption_dearer_behind_its_voucher() {
    let (mut market, worker, _, job) = opened();
    let receipt = market.session_receipt(&job, 1, TON / 2, false);
    let honest = cell(&market.redemption(&worker, &job, receipt, TON));
    let voucher = honest.reference_cloned(1).unwrap();
    let altered = |bytes: &[u8], children: u8| {
        let mut longer = CellBuilder::new();
        longer.store_slice(voucher.as_slice().unwrap()).unwrap();
        longer.store_raw(bytes, bytes.len() as u16 * 8).unwrap();
        for _ in 0..children {
            longer.store_reference(padded(&voucher)).unwrap();
        }
        let mut message = CellBuilder::new();
        message.store_slice(honest.as_slice().unwrap().get_prefix(honest.bit_len(), 1)).unwrap();
        message.store_reference(longer.build().unwrap()).unwrap();
        message.build().unwrap()
    };
    for message in [altered(&[0], 0), altered(&[], 1), altered(&[0], 1)] {
        let sent = market.chain.external(&job.address, message);
        assert_external_refused(sent, ContractError::UnknownMessage);
    }
    assert_all_succeeded(&market.chain.external(&job.address, altered(&[], 0)).unwrap());
}

#[test]
fn a_session_takes_no_answer_and_a_job_no_redemption() {
    let (mut market, worker, client, session) = opened();
    let receipt = market.receipt(&session, Units::default());
    assert_external_refused(market.settle(&worker, &session, receipt), ContractError::WrongState);
    for job in [
        market.post(&client, &worker, &Terms::default()),
        market.claimed(&client, &worker, &Terms::default()),
    ] {
        let posing = Job { kind: session.kind.clone(), ..job };
        let receipt = market.session_receipt(&posing, 1, TON / 2, true);
        assert_external_refused(market.redeem(&worker, &posing, receipt, TON), ContractError::WrongState);
    }
}

#[test]
fn the_client_may_close_and_the_worker_has_its_notice() {
    let (mut market, worker, client, job) = opened();
    let stranger = market.person("stranger");
    for person in [&stranger, &worker.owner] {
        assert_refused(&market.close(person, &job), &job.address, ContractError::NotClient);
    }
    let txs = market.close(&client, &job);
    assert_all_succeeded(&txs);
    let state = market.job_state(&job).unwrap();
    assert_eq!((state.status, state.until), (JobStatus::Closing, market.chain.now + 600));
    assert_eq!(txs[0].logged::<CloseAsked>().unwrap().until, state.until);
    assert_refused(&market.close(&client, &job), &job.address, ContractError::WrongState);
    market.chain.wait(600);
    let receipt = market.session_receipt(&job, 1, TON / 4, false);
    assert_all_succeeded(&market.redeem(&worker, &job, receipt, TON).unwrap());
    let last = market.session_receipt(&job, 2, TON / 2, true);
    market.chain.wait(1);
    assert_external_refused(market.redeem(&worker, &job, last.clone(), TON), ContractError::TooLate);
    market.chain.now -= 1;
    assert_all_succeeded(&market.redeem(&worker, &job, last, TON).unwrap());
}

#[test]
fn a_notice_never_prolongs_a_session() {
    let (mut market, worker, client, job) = opened_with(&Terms { wait_s: 300, ..Terms::default() });
    market.chain.wait(100);
    assert_all_succeeded(&market.close(&client, &job));
    assert_eq!(market.job_state(&job).unwrap().until, job.until);
    market.chain.wait(201);
    let receipt = market.session_receipt(&job, 1, TON / 4, false);
    assert_external_refused(market.redeem(&worker, &job, receipt, TON), ContractError::TooLate);
}

#[test]
fn a_close_pays_for_itself_and_cannot_keep_the_worker_from_its_money() {
    let terms = Terms { wait_s: contracts::job::MAX_SESSION_S, ..Terms::default() };
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.draft_session(&client, &worker, &terms);
    let value = job.deposit.nanoton().checked_add(market.prices().session()).unwrap();
    market.post_draft(&client, &job, value);
    let held = market.chain.balance(&job.address);
    let least = market.prices().session_close();
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let txs = market.tell(&client, &job.address, short, &CloseSession { query_id: 1 });
    assert_refused(&txs, &job.address, ContractError::ValueTooLow);
    assert_all_succeeded(&market.tell(&client, &job.address, least, &CloseSession { query_id: 1 }));
    assert!(market.chain.balance(&job.address) >= held);
    let last = market.session_receipt(&job, 1, TON, true);
    assert_all_succeeded(&market.redeem(&worker, &job, last, TON).unwrap());
}

#[test]
fn the_client_may_add_to_the_deposit_and_pays_for_it() {
    let (mut market, worker, client, job) = opened();
    let least = market.prices().session_top_up();
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    assert_refused(&market.top_up(&client, &job, TON, short), &job.address, ContractError::ValueTooLow);
    let stranger = market.person("stranger");
    assert_refused(&market.top_up(&stranger, &job, TON, least), &job.address, ContractError::NotClient);
    let held = market.chain.balance(&job.address);
    let txs = market.top_up(&client, &job, TON, least);
    assert_all_succeeded(&txs);
    assert_eq!(market.job_state(&job).unwrap().deposit, Amount::new(2 * TON));
    assert_eq!(txs[0].logged::<JobToppedUp>().unwrap().deposit, Amount::new(2 * TON));
    assert!(market.chain.balance(&job.address) >= held + u128::from(TON));
    let receipt = market.session_receipt(&job, 1, 2 * TON, false);
    assert_all_succeeded(&market.redeem(&worker, &job, receipt, u64::MAX).unwrap());
    assert_eq!(market.job_state(&job).unwrap().paid, Amount::new(2 * TON));
}

#[test]
fn nothing_else_than_a_running_session_is_closed_or_topped_up() {
    let (mut market, worker, client, closing) = opened();
    market.close(&client, &closing);
    let fees = Nanoton::new(TON / 2);
    assert_refused(&market.top_up(&client, &closing, TON, fees), &closing.address, ContractError::WrongState);
    for job in [
        market.post(&client, &worker, &Terms::default()),
        market.claimed(&client, &worker, &Terms::default()),
    ] {
        assert_refused(&market.top_up(&client, &job, TON, fees), &job.address, ContractError::WrongState);
        assert_refused(&market.close(&client, &job), &job.address, ContractError::WrongState);
    }
}

#[test]
fn a_deposit_beyond_64_bits_is_refused() {
    let (mut market, _, client, job) = opened();
    let body = TopUpJob { query_id: 1, amount: Amount::new(u64::MAX) };
    let txs = market.tell(&client, &job.address, Nanoton::new(TON), &body);
    assert!(!txs[0].succeeded());
    assert_eq!(market.job_state(&job).unwrap().deposit, Amount::new(TON));
}

#[test]
fn money_that_a_deleted_worker_cannot_take_is_the_clients_in_the_end() {
    let (mut market, worker, client, job) = opened();
    let receipt = market.session_receipt(&job, 1, TON / 2, false);
    market.chain.delete(&worker.address);
    let txs = market.redeem(&worker, &job, receipt, TON).unwrap();
    assert!(txs.last().unwrap().bounced && txs.last().unwrap().succeeded());
    let before = market.chain.balance(&client);
    let last = market.session_receipt(&job, 2, TON / 2, true);
    market.redeem(&worker, &job, last, TON).unwrap();
    let gained = market.chain.balance(&client) - before;
    assert!(gained + u128::from(TON / 100) >= u128::from(TON - share(TON / 2)), "{gained}");
}
