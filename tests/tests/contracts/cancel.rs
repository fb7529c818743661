//! Who may call a job off, and when.

use contracts::errors::ContractError;
use contracts::job::{CancelJob, JobRefund, JobStatus};
use contracts::job_log::JobClosed;
use contracts::{Amount, Nanoton};
use tests::market::{TON, assert_all_succeeded, assert_refused};
use tests::{Market, Terms};

#[test]
fn the_client_may_cancel_before_a_claim_and_gets_everything_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    for draft in [Market::post, Market::open_job] {
        let before = market.chain.balance(&client);
        let job = draft(&mut market, &client, &worker, &Terms::default());
        let txs = market.cancel(&client, &job);
        assert_all_succeeded(&txs);
        assert_eq!(market.status(&job), Some(JobStatus::Cancelled));
        let refund = market.chain.inbox(&client).last().unwrap();
        assert_eq!(refund.read::<JobRefund>().unwrap().status, JobStatus::Cancelled as u8);
        let closed: JobClosed = txs[0].logged().unwrap();
        assert_eq!((closed.status, closed.paid), (JobStatus::Cancelled as u8, Amount::ZERO));
        let spent = before - market.chain.balance(&client);
        assert!(spent < u128::from(TON / 50), "{spent} nanoTON stayed away");
        assert_eq!(market.chain.balance(&job.address), 0);
    }
}

#[test]
fn a_cancel_that_leaves_nothing_to_send_back_still_cancels() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    // As years of rent would.
    market.chain.take_above(&job.address, 0);
    let mut without_refund = 0;
    for value in (0..5_000_000).step_by(50_000) {
        let mut market = market.clone();
        let txs = market.tell(&client, &job.address, Nanoton::new(value), &CancelJob { query_id: 1 });
        let cancel = txs.iter().find(|tx| tx.account == job.address).unwrap();
        if cancel.succeeded() {
            assert_eq!(market.status(&job), Some(JobStatus::Cancelled));
            without_refund += u32::from(cancel.out.is_empty());
        } else {
            assert_eq!(market.status(&job), Some(JobStatus::Open));
        }
    }
    assert!(without_refund > 0, "every value was too little, or enough to send something");
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
fn a_job_in_any_other_state_is_not_cancelled() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let terms = Terms::default();
    let session = market.session(&client, &worker, &terms);
    let closing = market.session(&client, &worker, &terms);
    market.close(&client, &closing);
    let cancelled = market.post(&client, &worker, &terms);
    market.cancel(&client, &cancelled);
    let jobs = [
        market.claimed(&client, &worker, &terms),
        market.awaiting(&client, &worker, &terms),
        session,
        closing,
        cancelled,
    ];
    for job in &jobs {
        let before = market.job_state(job);
        let txs = market.cancel(&client, job);
        assert_refused(&txs, &job.address, ContractError::WrongState);
        assert_eq!(market.job_state(job), before);
    }
}

#[test]
fn a_cancelled_job_is_not_claimed_and_the_bond_comes_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    market.cancel(&client, &job);
    let free = market.free(&worker);
    let txs = market.claim(&worker, &job).unwrap();
    assert!(txs.last().unwrap().bounced);
    assert!(market.free(&worker) + market.prices().claim().get() >= free);
}
