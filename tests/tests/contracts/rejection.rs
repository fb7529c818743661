//! Who may give a job back, and what that costs.

use contracts::errors::{ContractError, RejectionReason};
use contracts::job::{JobPaid, JobRefund, JobStatus, Outcome, PostRejection};
use contracts::job_log::JobClosed;
use contracts::receipt::Rejection;
use contracts::worker::FundGas;
use contracts::{Nanoton, Ref, SigningKey, StdAddr, Units};
use tests::market::{
    FEES, TON, assert_all_succeeded, assert_closed_to_externals, assert_external_refused, cell, import_fee,
    least_balance,
};
use tests::{Job, Market, Terms, Worker};

fn setup() -> (Market, Worker, StdAddr) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    (market, worker, client)
}

/// A job in each state in which its worker may give it back.
fn rejectable() -> (Market, Worker, Vec<Job>) {
    let (mut market, worker, client) = setup();
    let terms = Terms::default();
    let mut jobs = vec![
        market.claimed(&client, &worker, &terms),
        market.post(&client, &worker, &terms),
        market.session(&client, &worker, &terms),
    ];
    let open = market.awaiting(&client, &worker, &terms);
    market.chain.wait(1);
    assert_all_succeeded(&market.deliver(&client, &open));
    jobs.push(open);
    (market, worker, jobs)
}

#[test]
fn the_worker_may_reject_and_both_sides_have_everything_back() {
    let (mut market, worker, jobs) = rejectable();
    for job in &jobs {
        let bond = market.job_state(job).unwrap().bond;
        let free = market.free(&worker);
        let rejection = market.rejection(job, RejectionReason::ALL[0] as u16);
        let signed_hash = Ref::new(rejection.clone()).unwrap().hash();
        let txs = market.reject(&worker, job, rejection).unwrap();
        assert_all_succeeded(&txs);
        let state = market.job_state(job).unwrap();
        assert_eq!((state.status, state.paid), (JobStatus::Rejected, contracts::Amount::ZERO));
        let back: Option<JobPaid> = txs[0].sent();
        assert_eq!(back.map(|back| back.outcome), (!bond.is_zero()).then_some(Outcome::Rejected as u8));
        // But for the rent of a moment.
        assert!(market.free(&worker) + 100_000 >= free + bond.nanoton().get());
        let refund = market.chain.inbox(&job.client).last().unwrap();
        assert_eq!(refund.read::<JobRefund>().unwrap().status, JobStatus::Rejected as u8);
        assert!(refund.value >= job.deposit.nanoton().get());
        let closed: JobClosed = txs[0].logged().unwrap();
        assert_eq!((closed.status, closed.signed_hash), (JobStatus::Rejected as u8, signed_hash));
        let again = market.rejection(job, 1);
        assert_closed_to_externals(market.reject(&worker, job, again));
    }
}

#[test]
fn a_rejection_of_another_job_or_posting_or_key_is_refused() {
    let (mut market, worker, jobs) = rejectable();
    let impostor = Worker { key: SigningKey::from_bytes(&[5; 32]), ..worker.clone() };
    for (index, job) in jobs.iter().enumerate() {
        let honest = market.rejection(job, 1);
        assert_external_refused(market.reject(&impostor, job, honest.clone()), ContractError::BadSignature);
        let earlier = Rejection { posted_lt: honest.posted_lt - 1, ..honest.clone() };
        assert_external_refused(market.reject(&worker, job, earlier), ContractError::WrongJob);
        let elsewhere = market.rejection(&jobs[(index + 1) % jobs.len()], 1);
        assert_external_refused(market.reject(&worker, job, elsewhere), ContractError::WrongJob);
        let mut flipped = PostRejection::signed(honest, &worker.key).unwrap();
        flipped.signature.0[63] ^= 1;
        let sent = market.chain.external(&job.address, cell(&flipped));
        assert_external_refused(sent, ContractError::BadSignature);
    }
}

#[test]
fn a_job_that_is_too_old_or_not_the_workers_is_not_rejected() {
    let (mut market, worker, client) = setup();
    let terms = Terms::default();
    let job = market.post(&client, &worker, &terms);
    let open = market.open_job(&client, &worker, &terms);
    let rejection = market.rejection(&open, 1);
    assert_external_refused(market.reject(&worker, &open, rejection.clone()), ContractError::WrongState);
    market.claim_well(&worker, &open);
    assert_external_refused(market.reject(&worker, &open, rejection), ContractError::WrongState);
    market.chain.wait(121);
    let rejection = market.rejection(&job, 1);
    assert_external_refused(market.reject(&worker, &job, rejection.clone()), ContractError::TooLate);
    // The last second is in time.
    market.chain.now -= 1;
    assert_all_succeeded(&market.reject(&worker, &job, rejection).unwrap());
}

#[test]
fn a_rejection_waits_until_the_job_holds_deposit_and_bond_and_what_it_sends() {
    let (mut market, worker, jobs) = rejectable();
    for job in &jobs {
        let state = market.job_state(job).unwrap();
        // Pays the rent up to now.
        let client = job.client.clone();
        market.tell(&client, &job.address, Nanoton::new(FEES), &FundGas { query_id: 1 });
        let message = cell(&PostRejection::signed(market.rejection(job, 1), &worker.key).unwrap());
        let owed = u128::from(state.deposit.get() + state.bond.get());
        let least = least_balance(&market, &job.address, &message, ContractError::GasFloatTooLow);
        assert_eq!(least, owed + market.prices().settlement().get() + import_fee(&market, &message));
    }
}

#[test]
fn a_session_that_has_paid_or_is_closing_is_not_rejected() {
    let (mut market, worker, client) = setup();
    let job = market.session(&client, &worker, &Terms::default());
    let receipt = market.session_receipt(&job, 1, TON / 2, false);
    market.redeem(&worker, &job, receipt, TON).unwrap();
    let rejection = market.rejection(&job, 1);
    assert_external_refused(market.reject(&worker, &job, rejection), ContractError::WrongState);
    let job = market.session(&client, &worker, &Terms::default());
    assert_all_succeeded(&market.close(&client, &job));
    let rejection = market.rejection(&job, 1);
    assert_external_refused(market.reject(&worker, &job, rejection), ContractError::WrongState);
}

#[test]
fn a_receipt_is_no_rejection_and_a_rejection_no_receipt() {
    let (mut market, worker, jobs) = rejectable();
    let job = &jobs[0];
    let mut receipt = market.answer(&worker, market.receipt(job, Units::default()));
    let mut rejection = PostRejection::signed(market.rejection(job, 1), &worker.key).unwrap();
    std::mem::swap(&mut receipt.signature, &mut rejection.signature);
    for body in [cell(&receipt), cell(&rejection)] {
        assert_external_refused(market.chain.external(&job.address, body), ContractError::BadSignature);
    }
}
