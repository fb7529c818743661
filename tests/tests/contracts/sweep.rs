//! Who may delete a closed job, and when.

use contracts::Units;
use contracts::errors::ContractError;
use contracts::job::{AUDIT_WINDOW_S, JobStatus};
use contracts::worker::FundGas;
use tests::market::{FEES, TON, assert_all_succeeded, assert_external_refused, assert_refused};
use tests::{Job, Market, Terms, Worker};

/// A job in each closed state.
fn closed() -> (Market, Worker, Vec<Job>) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let terms = Terms::default();
    let settled = market.claimed(&client, &worker, &terms);
    let receipt = market.receipt(&settled, Units::default());
    market.settle(&worker, &settled, receipt).unwrap();
    let cancelled = market.post(&client, &worker, &terms);
    market.cancel(&client, &cancelled);
    let rejected = market.claimed(&client, &worker, &terms);
    let rejection = market.rejection(&rejected, 3);
    market.reject(&worker, &rejected, rejection).unwrap();
    let session = market.session(&client, &worker, &terms);
    let last = market.session_receipt(&session, 1, TON / 2, true);
    market.redeem(&worker, &session, last, TON).unwrap();
    let expired = market.post(&client, &worker, &terms);
    market.chain.wait(121);
    market.expire(&client, &expired);
    let jobs = vec![settled, cancelled, rejected, session, expired];
    let statuses: Vec<_> = jobs.iter().map(|job| market.status(job).unwrap()).collect();
    use JobStatus::{Cancelled, Expired, Rejected, Settled};
    assert_eq!(statuses, [Settled, Cancelled, Rejected, Settled, Expired]);
    (market, worker, jobs)
}

#[test]
fn anyone_may_sweep_a_closed_job_after_the_audit_window_and_nothing_stays() {
    let (mut market, _, jobs) = closed();
    let stranger = market.person("stranger");
    for job in &jobs {
        market.chain.now = market.job_state(job).unwrap().until;
        assert_refused(&market.sweep(&stranger, job), &job.address, ContractError::TooEarly);
        market.chain.wait(1);
        let before = market.chain.balance(&job.client);
        let txs = market.sweep(&stranger, job);
        assert_all_succeeded(&txs);
        assert!(txs[0].destroyed);
        // What its sender gets back, and nothing for a client that is owed nothing.
        assert_eq!(txs[0].out.len(), 1);
        assert!(market.chain.account(&job.address).is_none());
        assert!(market.chain.balance(&job.client) >= before);
    }
}

#[test]
fn a_closed_job_without_a_balance_lives_through_the_audit_window_and_for_years() {
    let (mut market, _, jobs) = closed();
    for wait_s in [AUDIT_WINDOW_S - 200, 20 * 365 * 86_400] {
        market.chain.wait(wait_s);
        for job in &jobs {
            assert_eq!(market.chain.balance(&job.address), 0);
            // A message that fails shows the account to be alive.
            let txs = market.expire(&job.client.clone(), job);
            assert_refused(&txs, &job.address, ContractError::WrongState);
            assert!(market.job_state(job).unwrap().status.is_closed());
        }
    }
    for job in &jobs {
        assert_all_succeeded(&market.sweep(&job.client.clone(), job));
    }
}

#[test]
fn what_was_sent_to_a_closed_job_goes_to_its_client() {
    let (mut market, _, jobs) = closed();
    let stranger = market.person("stranger");
    let job = &jobs[0];
    let fund = FundGas { query_id: 1 };
    let txs = market.tell(&stranger, &job.address, FEES.into(), &fund);
    assert_refused(&txs, &job.address, ContractError::WrongState);
    market.chain.submit(&stranger, &job.address, u128::from(TON), Default::default(), None, false);
    market.chain.settle();
    market.chain.wait(AUDIT_WINDOW_S + 1);
    let (before, sweeper) = (market.chain.balance(&job.client), market.chain.balance(&stranger));
    // But for the rent that was due, to the nanoTON; what the sweep brought and did not use goes back.
    let held = market.chain.balance(&job.address);
    assert_all_succeeded(&market.sweep(&stranger, job));
    let gained = market.chain.balance(&job.client) - before;
    assert!(gained <= held && gained + 1_000_000 >= held, "{gained} of {held}");
    assert!(market.chain.balance(&stranger) + u128::from(TON / 100) >= sweeper);
}

#[test]
fn a_job_that_is_not_closed_is_not_swept() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let terms = Terms::default();
    let jobs = [
        market.post(&client, &worker, &terms),
        market.claimed(&client, &worker, &terms),
        market.awaiting(&client, &worker, &terms),
        market.session(&client, &worker, &terms),
    ];
    market.chain.wait(2 * AUDIT_WINDOW_S);
    for job in &jobs {
        assert_refused(&market.sweep(&client, job), &job.address, ContractError::WrongState);
    }
}

#[test]
fn what_was_signed_for_a_swept_job_is_worth_nothing_against_its_successor() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let mut job = market.claimed(&client, &worker, &Terms::default());
    let receipt = market.receipt(&job, Units { output: 500, ..Units::default() });
    let rejection = market.rejection(&job, 1);
    market.settle(&worker, &job, receipt.clone()).unwrap();
    market.chain.wait(AUDIT_WINDOW_S + 1);
    market.sweep(&client, &job);
    market.attest(&worker);

    job.until = market.chain.now + 120;
    let value = market.value_of(&job);
    market.post_draft(&client, &job, value);
    assert_external_refused(market.settle(&worker, &job, receipt.clone()), ContractError::WrongJob);
    market.claim_well(&worker, &job);
    assert_external_refused(market.settle(&worker, &job, receipt), ContractError::WrongJob);
    assert_external_refused(market.reject(&worker, &job, rejection), ContractError::WrongJob);
}
