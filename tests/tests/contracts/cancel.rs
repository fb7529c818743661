use contracts::errors::ContractError;
use contracts::job::{JobRefund, JobStatus};
use contracts::{Nanoton, Units};
use tests::market::{TON, assert_all_succeeded, assert_refused};
use tests::{Market, Terms};

#[test]
fn the_client_may_cancel_before_a_claim_and_gets_everything_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let before = market.chain.balance(&client);
    let job = market.post(&client, &worker, &Terms::default());
    assert_all_succeeded(&market.cancel(&client, &job));
    assert_eq!(market.status(&job), Some(JobStatus::Cancelled));
    let refund: JobRefund = market.chain.inbox(&client).iter().find_map(|received| received.read()).unwrap();
    assert_eq!(refund.status, JobStatus::Cancelled as u8);
    assert_eq!((refund.paid, refund.bond), (Nanoton::ZERO, Nanoton::ZERO));
    let spent = before - market.chain.balance(&client);
    assert!(spent < u128::from(TON / 20), "{spent} nanoTON stayed away");
}

#[test]
fn nobody_else_may_cancel() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let job = market.post(&client, &worker, &Terms::default());
    for person in [&stranger, &worker.owner, &market.owner.clone()] {
        let txs = market.cancel(person, &job);
        assert_refused(&txs, &job.address, ContractError::NotClient);
    }
    assert_eq!(market.status(&job), Some(JobStatus::Open));
}

#[test]
fn a_claimed_or_closed_job_is_not_cancelled() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &Terms::default());
    let txs = market.cancel(&client, &job);
    assert_refused(&txs, &job.address, ContractError::WrongState);
    let receipt = market.receipt(&job, Units::default());
    market.settle(&worker, &job, receipt).unwrap();
    let txs = market.cancel(&client, &job);
    assert_refused(&txs, &job.address, ContractError::WrongState);
    let job = market.post(&client, &worker, &Terms::default());
    market.cancel(&client, &job);
    let txs = market.cancel(&client, &job);
    assert_refused(&txs, &job.address, ContractError::WrongState);
}

#[test]
fn a_cancelled_job_is_not_claimed() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    market.cancel(&client, &job);
    let before = market.worker_state(&worker).unwrap();
    let txs = market.claim(&worker, &job).unwrap();
    assert!(txs.last().unwrap().bounced);
    let after = market.worker_state(&worker).unwrap();
    assert_eq!((after.stake, after.locked), (before.stake, before.locked));
}
