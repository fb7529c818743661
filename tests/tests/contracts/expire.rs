use contracts::errors::ContractError;
use contracts::job::{JobForfeited, JobRefund, JobStatus};
use contracts::{Nanoton, Units};
use tests::market::{TON, assert_all_succeeded, assert_refused};
use tests::{Market, Terms};

#[test]
fn anyone_may_end_a_job_that_nobody_claimed_in_time() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let job = market.post(&client, &worker, &Terms::default());
    let txs = market.expire(&stranger, &job);
    assert_refused(&txs, &job.address, ContractError::TooEarly);
    market.chain.wait(121);
    let (client_before, stranger_before) = (market.chain.balance(&client), market.chain.balance(&stranger));
    assert_all_succeeded(&market.expire(&stranger, &job));
    assert_eq!(market.status(&job), Some(JobStatus::Expired));
    let gained = market.chain.balance(&client) - client_before;
    assert!(gained >= u128::from(TON), "the client got {gained} back");
    let spent = stranger_before - market.chain.balance(&stranger);
    assert!(spent < u128::from(TON / 50), "the caller lost {spent}");
}

#[test]
fn anyone_may_end_a_claim_without_a_receipt_and_the_bond_goes_to_the_client() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let job = market.claimed(&client, &worker, &Terms::default());
    market.chain.wait(600);
    let txs = market.expire(&stranger, &job);
    assert_refused(&txs, &job.address, ContractError::TooEarly);
    market.chain.wait(1);
    let before = market.worker_state(&worker).unwrap();
    let client_before = market.chain.balance(&client);
    let txs = market.expire(&stranger, &job);
    assert_all_succeeded(&txs);
    assert_eq!(market.status(&job), Some(JobStatus::Expired));
    let refund: JobRefund = txs[0].sent().unwrap();
    assert_eq!(refund.bond, Nanoton::new(TON / 2));
    let forfeited: JobForfeited = txs[0].sent().unwrap();
    assert_eq!(forfeited.bond, Nanoton::new(TON / 2));
    let gained = market.chain.balance(&client) - client_before;
    assert!(gained >= u128::from(TON + TON / 2), "the client got {gained}");
    let after = market.worker_state(&worker).unwrap();
    assert_eq!(after.locked, Nanoton::ZERO);
    assert_eq!(after.stake, before.stake);
    assert_eq!(after.record.expired, before.record.expired + 1);
}

#[test]
fn a_closed_job_does_not_expire() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &Terms::default());
    let receipt = market.receipt(&job, Units::default());
    market.settle(&worker, &job, receipt).unwrap();
    market.chain.wait(10_000);
    let txs = market.expire(&client, &job);
    assert_refused(&txs, &job.address, ContractError::WrongState);
    let job = market.post(&client, &worker, &Terms::default());
    market.chain.wait(121);
    assert_all_succeeded(&market.expire(&client, &job));
    let txs = market.expire(&client, &job);
    assert_refused(&txs, &job.address, ContractError::WrongState);
}
