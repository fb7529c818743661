//! What goes wrong in Cocoon's contracts, each of it reproduced there in the official emulator, and cannot here.

use contracts::errors::ContractError;
use contracts::job::{AUDIT_WINDOW_S, CancelJob, ExpireJob, JobPaid, JobStatus, SweepJob};
use contracts::worker::{FundGas, MAX_JOB_LIFE_S, RequestUnbond, WithdrawEarnings, WithdrawUnbonded};
use contracts::{Amount, Nanoton, Prices, StdAddr, Units};
use tests::market::{
    FEES, PRICES, TON, assert_all_succeeded, assert_closed_to_externals, assert_external_refused,
    assert_refused,
};
use tests::{Job, Market, Terms, Worker};

const VALUE: Nanoton = Nanoton::new(FEES);
const UNITS: Units = Units { input: 100, cached_input: 0, output: 300 };

fn setup() -> (Market, Worker, StdAddr) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    (market, worker, client)
}

/// One of each kind that holds a deposit.
fn holding(market: &mut Market, client: &StdAddr, worker: &Worker) -> Vec<Job> {
    let terms = Terms { wait_s: 86_400, ..Terms::default() };
    [Market::post, Market::claimed, Market::session, Market::open_job, Market::awaiting]
        .map(|post| post(market, client, worker, &terms))
        .to_vec()
}

/// There the proxy closes after a delay and takes every client's deposit and every worker's earnings.
#[test]
fn whoever_runs_the_network_takes_no_deposit_and_no_earnings() {
    let (mut market, worker, client) = setup();
    let jobs = holding(&mut market, &client, &worker);
    let people = [&market.owner, &market.treasury, &market.publisher, &market.attestor].map(StdAddr::clone);
    market.chain.person("treasury", Nanoton::new(10 * TON));
    for person in people {
        for job in &jobs {
            let held = market.chain.balance(&job.address);
            market.tell(&person, &job.address, VALUE, &CancelJob { query_id: 1 });
            market.tell(&person, &job.address, VALUE, &ExpireJob { query_id: 1 });
            market.tell(&person, &job.address, VALUE, &SweepJob { query_id: 1 });
            assert!(market.chain.balance(&job.address) >= held);
            assert!(!market.status(job).unwrap().is_closed());
        }
        let held = market.chain.balance(&worker.address);
        let amount = Nanoton::new(1);
        for txs in [
            market.tell(&person, &worker.address, VALUE, &WithdrawEarnings { query_id: 1, amount }),
            market.tell(&person, &worker.address, VALUE, &RequestUnbond { query_id: 1, amount }),
            market.tell(&person, &worker.address, VALUE, &WithdrawUnbonded { query_id: 1 }),
        ] {
            assert_refused(&txs, &worker.address, ContractError::NotOwner);
        }
        assert!(market.chain.balance(&worker.address) >= held);
    }
}

/// There a lost key of the proxy locks a third of the money for ever.
#[test]
fn everybody_has_their_money_back_with_their_own_key_alone() {
    let (mut market, worker, client) = setup();
    let jobs = holding(&mut market, &client, &worker);
    let before = market.chain.balance(&client);
    // The Registry is gone, the Model too, and no machine ever signs again.
    let (registry, model) = (market.registry.clone(), market.model.clone());
    market.chain.delete(&registry);
    market.chain.delete(&model);
    market.chain.wait(15 * 86_400);
    for job in &jobs {
        assert_all_succeeded(&market.expire(&client, job));
    }
    // The bond of the claimed one is the client's; what it waited for in vain paid a compensation.
    let deposits = jobs.len() as u128 * u128::from(TON);
    let back = market.chain.balance(&client) - before;
    assert!(back > deposits + u128::from(TON / 2 - TON / 50), "{back}");
    let owner = worker.owner.clone();
    let amount = market.worker_state(&worker).unwrap().stake;
    assert_all_succeeded(&market.tell(
        &owner,
        &worker.address,
        VALUE,
        &RequestUnbond { query_id: 1, amount },
    ));
    market.chain.wait(MAX_JOB_LIFE_S);
    let before = market.chain.balance(&owner);
    assert_all_succeeded(&market.tell(&owner, &worker.address, VALUE, &WithdrawUnbonded { query_id: 1 }));
    assert!(market.chain.balance(&owner) >= before + amount.get());
    assert_eq!(market.chain.balance(&worker.address), 0);
}

/// There the holder of a key drains deposits to its own worker at once.
#[test]
fn a_worker_whose_key_signs_anything_draws_what_units_and_vouchers_allow() {
    let (mut market, worker, client) = setup();
    let session = market.session(&client, &worker, &Terms::default());
    let greedy = market.session_receipt(&session, 1, TON, false);
    let txs = market.redeem(&worker, &session, greedy, TON / 100).unwrap();
    assert!(txs[0].sent::<JobPaid>().is_some());
    assert_eq!(market.job_state(&session).unwrap().paid, Amount::new(TON / 100));
    let again = market.session_receipt(&session, 2, TON, false);
    assert_external_refused(
        market.redeem(&worker, &session, again, TON / 100),
        ContractError::NothingToWithdraw,
    );
    let job = market.post(&client, &worker, &Terms::default());
    let mut receipt = market.receipt(&job, UNITS);
    receipt.amount = Amount::new(u64::MAX);
    assert_all_succeeded(&market.settle(&worker, &job, receipt).unwrap());
    assert_eq!(u128::from(market.job_state(&job).unwrap().paid.get()), PRICES.cost(&UNITS).get());
}

/// There a payout that fails for lack of funds still marks the claim as paid.
#[test]
fn an_answer_that_the_job_cannot_pay_for_is_not_taken_and_waits() {
    let (mut market, worker, client) = setup();
    let fees = market.prices().posting(&Terms::default().max_units);
    let terms = Terms { wait_s: 7 * 86_400, fees, ..Terms::default() };
    let job = market.post(&client, &worker, &terms);
    // Its reserve pays for the result that its limits foresee, and no larger one.
    let receipt = market.receipt(&job, UNITS);
    let large = tests::market::sealed("large", 380 * 127);
    let content = contracts::receipt::ReceiptContent {
        result_hash: *contracts::wire::to_cell(&large).unwrap().repr_hash(),
        ..market.content()
    };
    let receipt = contracts::receipt::Receipt { content_hash: content.hash().unwrap(), ..receipt };
    let message = contracts::job::PostReceipt::signed(receipt, content, &large, &worker.key).unwrap();
    let body = tests::market::cell(&message);
    let before = market.job_state(&job).unwrap();
    assert_external_refused(market.chain.external(&job.address, body.clone()), ContractError::GasFloatTooLow);
    assert_eq!(market.job_state(&job).unwrap(), before);
    assert_all_succeeded(&market.tell(&client, &job.address, VALUE, &FundGas { query_id: 1 }));
    let txs = market.chain.external(&job.address, body).unwrap();
    assert_all_succeeded(&txs);
    assert!(txs[0].sent::<JobPaid>().is_some());
}

/// There a client withdraws ahead of a charge, and the worker is paid from another client's deposit.
#[test]
fn a_client_cannot_withdraw_ahead_of_a_charge_and_no_job_pays_for_another() {
    let (mut market, worker, client) = setup();
    let other = market.person("other client");
    let others = market.session(&other, &worker, &Terms::default());
    let held = market.chain.balance(&others.address);
    let claimed = market.claimed(&client, &worker, &Terms::default());
    assert_refused(&market.cancel(&client, &claimed), &claimed.address, ContractError::WrongState);
    let receipt = market.receipt(&claimed, UNITS);
    assert_all_succeeded(&market.settle(&worker, &claimed, receipt).unwrap());
    let session = market.session(&client, &worker, &Terms { wait_s: 86_400, ..Terms::default() });
    assert_refused(&market.cancel(&client, &session), &session.address, ContractError::WrongState);
    assert_all_succeeded(&market.close(&client, &session));
    assert_refused(&market.expire(&client, &session), &session.address, ContractError::TooEarly);
    let last = market.session_receipt(&session, 1, TON / 2, true);
    let txs = market.redeem(&worker, &session, last, TON).unwrap();
    assert_all_succeeded(&txs);
    assert_eq!(market.job_state(&session).unwrap().paid, Amount::new(TON / 2));
    assert_eq!(market.chain.balance(&others.address), held);
}

/// There the second of two forced refunds gets nothing although the money is there.
#[test]
fn every_refund_pays_whatever_others_were_refunded_before() {
    let (mut market, worker, _) = setup();
    let clients = ["one", "two", "three"].map(|name| market.person(name));
    let jobs = clients.clone().map(|client| market.post(&client, &worker, &Terms::default()));
    market.chain.wait(121);
    for (client, job) in clients.iter().zip(&jobs) {
        let before = market.chain.balance(client);
        assert_all_succeeded(&market.expire(client, job));
        assert!(market.chain.balance(client) >= before + u128::from(TON));
    }
}

/// There closed contracts keep 0.01 to 0.11 TON for ever.
#[test]
fn a_closed_contract_keeps_nothing_and_goes() {
    let (mut market, worker, client) = setup();
    let prices = Prices { output: Nanoton::new(200_000_000), ..PRICES };
    let terms = Terms { prices, ..Terms::default() };
    let settled = market.claimed(&client, &worker, &terms);
    let receipt = market.receipt(&settled, UNITS);
    assert_all_succeeded(&market.settle(&worker, &settled, receipt.clone()).unwrap());
    let cancelled = market.post(&client, &worker, &terms);
    assert_all_succeeded(&market.cancel(&client, &cancelled));
    let ended = market.session(&client, &worker, &terms);
    let last = market.session_receipt(&ended, 1, TON / 2, true);
    assert_all_succeeded(&market.redeem(&worker, &ended, last, TON).unwrap());
    let expired = market.session(&client, &worker, &terms);
    market.chain.wait(121);
    assert_all_succeeded(&market.expire(&client, &expired));
    for job in [&settled, &cancelled, &ended, &expired] {
        assert!(market.status(job).is_some_and(JobStatus::is_closed));
        assert_eq!(market.chain.balance(&job.address), 0);
    }
    assert_closed_to_externals(market.settle(&worker, &settled, receipt));
    market.chain.wait(AUDIT_WINDOW_S + 1);
    for job in [&settled, &cancelled, &ended, &expired] {
        assert_all_succeeded(&market.sweep(&worker.owner.clone(), job));
        assert!(market.chain.account(&job.address).is_none());
    }
}
