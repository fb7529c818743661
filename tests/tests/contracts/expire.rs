//! Who may end a job whose time is over, and to whom the money goes.

use contracts::errors::ContractError;
use contracts::job::{AUDIT_WINDOW_S, ExpireJob, JobPaid, JobStatus, Outcome};
use contracts::job_log::JobClosed;
use contracts::model::SharePaid;
use contracts::{Nanoton, StdAddr};
use tests::market::{SHARE_BPS, TON, assert_all_succeeded, assert_refused};
use tests::{Job, Market, Terms, Worker};

fn setup() -> (Market, Worker, StdAddr, StdAddr) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    (market, worker, client, stranger)
}

/// One second too early first; then what the client has gained.
fn expires(market: &mut Market, stranger: &StdAddr, job: &Job, status: JobStatus) -> (u128, Vec<tests::Tx>) {
    market.chain.now = market.job_state(job).unwrap().until;
    assert_refused(&market.expire(stranger, job), &job.address, ContractError::TooEarly);
    market.chain.wait(1);
    let (client, caller) = (market.chain.balance(&job.client), market.chain.balance(stranger));
    let txs = market.expire(stranger, job);
    assert_all_succeeded(&txs);
    assert_eq!(market.status(job), Some(status));
    assert_eq!(market.chain.balance(&job.address), 0);
    let spent = caller - market.chain.balance(stranger);
    assert!(spent <= market.prices().expiry().get() + tests::chain::FORWARD_FEE, "the caller lost {spent}");
    let closed: JobClosed = txs[0].logged().unwrap();
    assert_eq!(closed.status, status as u8);
    assert_refused(&market.expire(stranger, job), &job.address, ContractError::WrongState);
    (market.chain.balance(&job.client) - client, txs)
}

#[test]
fn anyone_may_end_a_job_that_nobody_answered_or_claimed() {
    let (mut market, worker, client, stranger) = setup();
    for post in [Market::post, Market::open_job] {
        let job = post(&mut market, &client, &worker, &Terms::default());
        let (gained, _) = expires(&mut market, &stranger, &job, JobStatus::Expired);
        assert!(gained >= u128::from(TON), "the client got {gained} back");
    }
}

#[test]
fn the_bond_of_a_claim_without_an_answer_is_the_clients() {
    let (mut market, worker, client, stranger) = setup();
    let directed = market.claimed(&client, &worker, &Terms::default());
    let open = market.awaiting(&client, &worker, &Terms::default());
    market.chain.wait(1);
    assert_all_succeeded(&market.deliver(&client, &open));
    for job in [&directed, &open] {
        let free = market.free(&worker);
        let (gained, txs) = expires(&mut market, &stranger, job, JobStatus::Expired);
        assert!(gained >= u128::from(TON + TON / 2), "the client got {gained}");
        assert!(txs[0].sent::<JobPaid>().is_none());
        assert_eq!(market.free(&worker), free);
    }
}

#[test]
fn a_worker_that_waited_for_an_input_in_vain_has_its_bond_and_the_compensation() {
    let (mut market, worker, client, stranger) = setup();
    let job = market.awaiting(&client, &worker, &Terms::default());
    let free = market.free(&worker);
    let (gained, txs) = expires(&mut market, &stranger, &job, JobStatus::Expired);
    assert_eq!(txs[0].sent::<JobPaid>().unwrap().outcome, Outcome::Undelivered as u8);
    // But for the rent of these minutes.
    assert!(market.free(&worker) + 100_000 >= free + u128::from(TON / 2 + TON / 100));
    assert!(
        gained >= u128::from(TON - TON / 100) && gained < u128::from(TON - TON / 100 + tests::market::FEES)
    );
}

#[test]
fn a_session_that_ends_pays_the_share_of_what_was_redeemed_and_refunds_the_rest() {
    let (mut market, worker, client, stranger) = setup();
    for close in [false, true] {
        let job = market.session(&client, &worker, &Terms::default());
        let receipt = market.session_receipt(&job, 1, TON / 2, false);
        assert_all_succeeded(&market.redeem(&worker, &job, receipt, TON).unwrap());
        if close {
            assert_all_succeeded(&market.close(&client, &job));
        }
        let (gained, txs) = expires(&mut market, &stranger, &job, JobStatus::Settled);
        let share = txs[0].out.iter().find(|sent| sent.read::<SharePaid>().is_some()).unwrap();
        let gas = market.prices().gas(contracts::fees::GAS_MODEL_SHARE).get();
        assert_eq!(share.value, u128::from(TON / 2) * u128::from(SHARE_BPS) / 10_000 + gas);
        assert!(gained >= u128::from(TON / 2));
        let closed: JobClosed = txs[0].logged().unwrap();
        assert_eq!(closed.paid.get(), TON / 2);
    }
}

#[test]
fn one_nanoton_less_than_an_end_costs_is_refused() {
    let (mut market, worker, client, stranger) = setup();
    let job = market.post(&client, &worker, &Terms::default());
    market.chain.wait(121);
    let least = market.prices().expiry();
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let body = ExpireJob { query_id: 1 };
    let txs = market.tell(&stranger, &job.address, short, &body);
    assert_refused(&txs, &job.address, ContractError::ValueTooLow);
    assert_all_succeeded(&market.tell(&stranger, &job.address, least, &body));
}

#[test]
fn a_job_that_storage_has_eaten_up_still_ends() {
    let (mut market, worker, client, stranger) = setup();
    let terms = Terms {
        deposit: contracts::Amount::new(1),
        compensation: contracts::Amount::new(1),
        ..Terms::default()
    };
    let least = market.prices().market(&terms.max_units);
    let mut jobs = vec![market.draft(&client, &worker, &terms), market.draft_open(&client, &worker, &terms)];
    for job in &jobs {
        let value = least.checked_add(Nanoton::new(1)).unwrap();
        market.post_draft(&client, job, value);
    }
    market.claim_well(&worker, &jobs[1]);
    let session = market.session(&client, &worker, &terms);
    jobs.push(session);
    market.chain.wait(30 * 365 * 86_400);
    let free = market.free(&worker);
    for job in &jobs {
        market.tell(&client, &job.address, Nanoton::new(TON), &contracts::worker::FundGas { query_id: 1 });
        assert_all_succeeded(&market.expire(&stranger, job));
        assert!(market.status(job).unwrap().is_closed());
        market.chain.wait(AUDIT_WINDOW_S + 1);
        assert_all_succeeded(&market.sweep(&stranger, job));
        assert_eq!(market.job_state(job), None);
    }
    assert!(market.free(&worker) + u128::from(TON) >= free);
}

#[test]
fn a_job_in_debt_for_its_rent_ends_without_being_funded_first() {
    let (mut market, worker, client, stranger) = setup();
    let job = market.post(&client, &worker, &Terms::default());
    market.chain.take_above(&job.address, 0);
    market.chain.wait(10 * 365 * 86_400);
    let txs = market.expire(&stranger, &job);
    assert_all_succeeded(&txs);
    assert_eq!(market.status(&job), Some(JobStatus::Expired));
}
