use contracts::errors::{ContractError, RejectionReason};
use contracts::job::{JobRefund, JobReturned, JobStatus, PostRejection};
use contracts::receipt::Rejection;
use contracts::{Nanoton, Ref, SigningKey, Units};
use tests::market::{TON, assert_all_succeeded, assert_closed_to_externals, assert_external_refused, cell};
use tests::{Job, Market, Terms, Worker};

fn claimed() -> (Market, Worker, Job) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &Terms::default());
    (market, worker, job)
}

#[test]
fn the_worker_may_give_a_job_back_without_loss() {
    let (mut market, worker, job) = claimed();
    let before = market.worker_state(&worker).unwrap();
    let rejection = market.rejection(&job, RejectionReason::CannotDecrypt.code());
    let rejection_hash = Ref::new(rejection.clone()).unwrap().hash();
    let txs = market.reject(&worker, &job, rejection).unwrap();
    assert_all_succeeded(&txs);
    let returned: JobReturned = txs[0].sent().unwrap();
    assert_eq!(returned.bond, Nanoton::new(TON / 2));
    let refund = market.chain.inbox(&job.client).last().unwrap();
    let message: JobRefund = refund.read().unwrap();
    assert_eq!(message.status, JobStatus::Rejected as u8);
    assert_eq!(message.paid, Nanoton::ZERO);
    assert!(refund.value >= u128::from(TON));
    let state = market.job_state(&job).unwrap();
    assert_eq!(state.status, JobStatus::Rejected);
    let settlement = state.settlement.unwrap();
    assert_eq!(settlement.receipt_hash, rejection_hash);
    assert_eq!(settlement.paid, Nanoton::ZERO);
    let after = market.worker_state(&worker).unwrap();
    assert_eq!(after.locked, Nanoton::ZERO);
    assert_eq!(after.stake.get(), before.stake.get() + before.locked.get());
    assert_eq!(after.earnings, before.earnings);
    assert_eq!(after.record.rejected, before.record.rejected + 1);
}

#[test]
fn nobody_else_may_give_it_back() {
    let (mut market, worker, job) = claimed();
    let impostor = Worker { key: SigningKey::from_bytes(&[5; 32]), ..worker };
    let rejection = market.rejection(&job, 1);
    assert_external_refused(market.reject(&impostor, &job, rejection), ContractError::BadSignature);
}

#[test]
fn a_rejection_of_another_job_posting_or_network_is_refused() {
    let (mut market, worker, job) = claimed();
    let client = job.client.clone();
    let other = market.claimed(&client, &worker, &Terms::default());
    let stolen = market.rejection(&other, 1);
    assert_external_refused(market.reject(&worker, &job, stolen), ContractError::WrongJob);
    let rejection = market.rejection(&job, 1);
    let earlier = Rejection { posted_lt: rejection.posted_lt - 1, ..rejection.clone() };
    assert_external_refused(market.reject(&worker, &job, earlier), ContractError::WrongJob);
    let elsewhere = Rejection { network_id: 0, ..rejection };
    assert_external_refused(market.reject(&worker, &job, elsewhere), ContractError::WrongNetwork);
}

#[test]
fn a_rejection_with_one_bit_changed_is_refused() {
    let (mut market, worker, job) = claimed();
    let rejection = market.rejection(&job, 1);
    let mut message = PostRejection::signed(rejection, &worker.key).unwrap();
    message.signature.0[63] ^= 0x10;
    assert_external_refused(market.chain.external(&job.address, cell(&message)), ContractError::BadSignature);
}

#[test]
fn a_settled_job_is_not_given_back_and_a_rejected_one_not_settled() {
    let (mut market, worker, job) = claimed();
    let receipt = market.receipt(&job, Units::default());
    let rejection = market.rejection(&job, 1);
    market.settle(&worker, &job, receipt).unwrap();
    assert_closed_to_externals(market.reject(&worker, &job, rejection));
    let client = job.client.clone();
    let other = market.claimed(&client, &worker, &Terms::default());
    let receipt = market.receipt(&other, Units::default());
    let rejection = market.rejection(&other, 2);
    market.reject(&worker, &other, rejection).unwrap();
    assert_closed_to_externals(market.settle(&worker, &other, receipt));
}

#[test]
fn a_late_rejection_is_refused() {
    let (mut market, worker, job) = claimed();
    let rejection = market.rejection(&job, 1);
    market.chain.wait(601);
    assert_external_refused(market.reject(&worker, &job, rejection), ContractError::TooLate);
}
