use contracts::errors::ContractError;
use contracts::job::JobStatus;
use contracts::{Nanoton, Units};
use tests::market::{assert_all_succeeded, assert_refused};
use tests::{Job, Market, Terms, Worker};

/// A job in each closed state.
fn closed() -> (Market, Worker, Vec<Job>) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let settled = market.claimed(&client, &worker, &Terms::default());
    let receipt = market.receipt(&settled, Units::default());
    market.settle(&worker, &settled, receipt).unwrap();
    let cancelled = market.post(&client, &worker, &Terms::default());
    market.cancel(&client, &cancelled);
    let rejected = market.claimed(&client, &worker, &Terms::default());
    let rejection = market.rejection(&rejected, 3);
    market.reject(&worker, &rejected, rejection).unwrap();
    let expired = market.post(&client, &worker, &Terms::default());
    market.chain.wait(121);
    market.expire(&client, &expired);
    let jobs = vec![settled, cancelled, rejected, expired];
    let statuses: Vec<_> = jobs.iter().map(|job| market.status(job).unwrap()).collect();
    assert_eq!(statuses, [JobStatus::Settled, JobStatus::Cancelled, JobStatus::Rejected, JobStatus::Expired]);
    (market, worker, jobs)
}

#[test]
fn anyone_may_sweep_a_closed_job_after_the_audit_window_and_nothing_stays() {
    let (mut market, _, jobs) = closed();
    let stranger = market.person("stranger");
    for job in &jobs {
        let txs = market.sweep(&stranger, job);
        assert_refused(&txs, &job.address, ContractError::TooEarly);
    }
    market.chain.wait(market.network.params.audit_window_s + 1);
    for job in &jobs {
        let client_before = market.chain.balance(&job.client);
        let txs = market.sweep(&stranger, job);
        assert_all_succeeded(&txs);
        assert!(txs[0].destroyed);
        assert_eq!(market.chain.balance(&job.address), 0);
        assert!(market.chain.account(&job.address).is_none());
        assert!(market.chain.balance(&job.client) >= client_before);
    }
}

#[test]
fn a_closed_job_lives_through_the_audit_window() {
    let (mut market, _, jobs) = closed();
    market.chain.wait(market.network.params.audit_window_s - 200);
    for job in &jobs {
        assert!(market.job_state(job).is_some());
        let txs = market.sweep(&job.client.clone(), job);
        assert_refused(&txs, &job.address, ContractError::TooEarly);
        assert!(market.chain.balance(&job.address) > 0, "the rent ran out");
    }
}

#[test]
fn an_open_or_claimed_job_is_not_swept() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let open = market.post(&client, &worker, &Terms::default());
    let claimed = market.claimed(&client, &worker, &Terms::default());
    market.chain.wait(market.network.params.audit_window_s + 10_000);
    for job in [&open, &claimed] {
        let txs = market.sweep(&client, job);
        assert_refused(&txs, &job.address, ContractError::WrongState);
    }
}

#[test]
fn a_receipt_of_a_swept_job_is_worth_nothing_against_its_successor() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &Terms::default());
    let receipt = market.receipt(&job, Units { output: 500, ..Units::default() });
    market.settle(&worker, &job, receipt.clone()).unwrap();
    market.chain.wait(market.network.params.audit_window_s + 1);
    market.sweep(&client, &job);
    market.attest(&worker);

    let mut again = job;
    again.terms.claim_by = market.chain.now + 120;
    let value = Nanoton::new(2_000_000_000);
    assert_all_succeeded(&market.post_draft(&client, &again, value));
    assert_all_succeeded(&market.claim(&worker, &again).unwrap());
    tests::market::assert_external_refused(market.settle(&worker, &again, receipt), ContractError::WrongJob);
}
