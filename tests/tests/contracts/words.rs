//! What a wallet app can do with a comment alone: who may say which word, what it brings, and what it moves.

use contracts::artifacts::{Contract, code};
use contracts::comment::{Text, TextComment, Word};
use contracts::errors::ContractError;
use contracts::fees::{GAS_MODEL_WITHDRAW, GAS_WORKER_SIMPLE};
use contracts::job::{AUDIT_WINDOW_S, JobStatus, Payout};
use contracts::job_log::JobClosed;
use contracts::model::SharePaid;
use contracts::worker::{MAX_JOB_LIFE_S, SetOperator};
use contracts::{Nanoton, Ref, StdAddr};
use tests::market::{TON, assert_all_succeeded, assert_refused, cell};
use tests::{Market, Terms, Tx, Worker};

/// What docs/wallet.md says to attach.
const VALUE: Nanoton = Nanoton::new(TON / 20);

fn payout(txs: &[Tx], to: &StdAddr) -> u128 {
    let sent = txs.iter().flat_map(|tx| &tx.out);
    sent.filter(|sent| sent.to == *to && sent.read::<Payout>().is_some()).map(|sent| sent.value).sum()
}

fn write_stake(market: &mut Market, worker: &Worker, value: Nanoton) -> Vec<Tx> {
    let init = market.network.worker_state_init(&code(Contract::Worker), &worker.owner).unwrap();
    market.chain.send(&worker.owner, &worker.address, value, cell(&Word::Stake.comment()), Some(init))
}

fn less(value: Nanoton) -> Nanoton {
    value.checked_sub(Nanoton::new(1)).unwrap()
}

#[test]
fn the_owner_may_stake_by_a_comment_all_that_it_brings_above_rent_and_gas() {
    let mut market = Market::open();
    let worker = market.unborn_worker("worker");
    let gas = market.prices().gas(GAS_WORKER_SIMPLE);
    let first = gas.checked_add(market.prices().worker_rent()).unwrap();
    let txs = write_stake(&mut market, &worker, less(first));
    assert_refused(&txs, &worker.address, ContractError::ValueTooLow);
    let value = first.checked_add(Nanoton::new(10 * TON)).unwrap();
    assert_all_succeeded(&write_stake(&mut market, &worker, value));
    assert_eq!(market.worker_state(&worker).unwrap().stake, Nanoton::new(10 * TON));

    let (owner, address) = (worker.owner.clone(), worker.address.clone());
    assert_refused(
        &market.write(&owner, &address, less(gas), Word::Stake),
        &address,
        ContractError::ValueTooLow,
    );
    let value = gas.checked_add(Nanoton::new(3)).unwrap();
    assert_all_succeeded(&market.write(&owner, &address, value, Word::Stake));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!(state.stake, Nanoton::new(10 * TON + 3));
    assert!(market.chain.balance(&address) >= state.stake.get());
}

#[test]
fn nobody_but_the_owner_may_stake_unbond_or_withdraw_by_a_comment() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let operator = market.person("operator");
    let stranger = market.person("stranger");
    let set = SetOperator { query_id: 1, account: Some(Ref::new(operator.clone()).unwrap()) };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &set));
    let before = market.worker_state(&worker).unwrap();
    for person in [&stranger, &operator] {
        for word in [Word::Stake, Word::Unbond, Word::Withdraw] {
            let txs = market.write(person, &worker.address, VALUE, word);
            assert_refused(&txs, &worker.address, ContractError::NotOwner);
        }
    }
    for word in [Word::Pause, Word::Resume] {
        let txs = market.write(&stranger, &worker.address, VALUE, word);
        assert_refused(&txs, &worker.address, ContractError::NotOwner);
    }
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}

#[test]
fn owner_and_operator_may_pause_and_resume_by_a_comment() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let operator = market.person("operator");
    let set = SetOperator { query_id: 1, account: Some(Ref::new(operator.clone()).unwrap()) };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &set));
    for person in [&worker.owner, &operator] {
        for (word, paused) in [(Word::Pause, true), (Word::Resume, false)] {
            let before = market.chain.balance(person);
            assert_all_succeeded(&market.write(person, &worker.address, VALUE, word));
            assert_eq!(market.worker_state(&worker).unwrap().paused, paused);
            assert!(before - market.chain.balance(person) < u128::from(TON / 100));
        }
    }
}

#[test]
fn the_owner_may_take_everything_out_by_comments_and_no_stake_before_its_time() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let (owner, address) = (worker.owner.clone(), worker.address.clone());
    let claim = market.prices().claim().get();
    // Earnings, but the cost of a claim.
    let free = market.free(&worker);
    let txs = market.write(&owner, &address, VALUE, Word::Withdraw);
    assert_all_succeeded(&txs);
    assert!(payout(&txs, &owner) >= free - claim);
    assert_eq!(market.free(&worker), claim);
    let again = market.write(&owner, &address, VALUE, Word::Withdraw);
    assert_refused(&again, &address, ContractError::NothingToWithdraw);

    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Unbond));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!((state.stake, state.unbonding), (Nanoton::ZERO, Nanoton::new(20 * TON)));
    let again = market.write(&owner, &address, VALUE, Word::Unbond);
    assert_refused(&again, &address, ContractError::NothingToWithdraw);
    market.chain.wait(MAX_JOB_LIFE_S - 1);
    let early = market.write(&owner, &address, VALUE, Word::Withdraw);
    assert_refused(&early, &address, ContractError::NothingToWithdraw);
    assert_eq!(market.worker_state(&worker).unwrap().unbonding, Nanoton::new(20 * TON));
    market.chain.wait(1);
    let balance = market.chain.balance(&address);
    let txs = market.write(&owner, &address, VALUE, Word::Withdraw);
    assert_all_succeeded(&txs);
    assert!(payout(&txs, &owner) + u128::from(TON / 50) >= balance);
    assert_eq!(market.chain.balance(&address), 0);
}

#[test]
fn a_withdrawal_by_a_comment_leaves_the_stake_that_is_not_unbonded() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let (owner, address) = (worker.owner.clone(), worker.address.clone());
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Unbond));
    market.chain.wait(MAX_JOB_LIFE_S);
    assert_all_succeeded(&market.stake(&worker, Nanoton::new(4 * TON)));
    let txs = market.write(&owner, &address, VALUE, Word::Withdraw);
    assert_all_succeeded(&txs);
    assert!(payout(&txs, &owner) >= u128::from(20 * TON));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!((state.stake, state.unbonding), (Nanoton::new(4 * TON), Nanoton::ZERO));
    assert_eq!(market.free(&worker), market.prices().claim().get());
}

#[test]
fn what_storage_ate_of_the_stake_is_not_withdrawn_by_a_comment() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let (owner, address) = (worker.owner.clone(), worker.address.clone());
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Withdraw));
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Unbond));
    let gas = market.prices().gas(GAS_WORKER_SIMPLE);
    assert_all_succeeded(&market.stake_with(&worker, Nanoton::new(10 * TON), gas));
    market.chain.wait(5 * 365 * 86_400);
    let txs = market.write(&owner, &address, VALUE, Word::Withdraw);
    assert_refused(&txs, &address, ContractError::GasFloatTooLow);
    assert_all_succeeded(&market.fund_gas(&worker, Nanoton::new(TON)));
    assert_all_succeeded(&market.write(&owner, &address, VALUE, Word::Withdraw));
    assert!(market.chain.balance(&address) >= u128::from(10 * TON));
}

#[test]
fn the_client_alone_may_cancel_by_a_comment_and_gets_everything_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let before = market.chain.balance(&client);
    let job = market.post(&client, &worker, &Terms::default());
    for person in [&stranger, &worker.owner] {
        let txs = market.write(person, &job.address, VALUE, Word::Cancel);
        assert_refused(&txs, &job.address, ContractError::NotClient);
    }
    let txs = market.write(&client, &job.address, VALUE, Word::Cancel);
    assert_all_succeeded(&txs);
    let closed: JobClosed = txs[0].logged().unwrap();
    assert_eq!(closed.status, JobStatus::Cancelled as u8);
    assert!(before - market.chain.balance(&client) < u128::from(TON / 50));
    let claimed = market.claimed(&client, &worker, &Terms::default());
    let txs = market.write(&client, &claimed.address, VALUE, Word::Cancel);
    assert_refused(&txs, &claimed.address, ContractError::WrongState);
}

#[test]
fn the_client_alone_may_close_a_session_by_a_comment_that_pays_for_it_to_the_nanoton() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let session = market.session(&client, &worker, &Terms { wait_s: 86_400, ..Terms::default() });
    let least = market.prices().session_close();
    let txs = market.write(&stranger, &session.address, VALUE, Word::Close);
    assert_refused(&txs, &session.address, ContractError::NotClient);
    let txs = market.write(&client, &session.address, less(least), Word::Close);
    assert_refused(&txs, &session.address, ContractError::ValueTooLow);
    assert_all_succeeded(&market.write(&client, &session.address, least, Word::Close));
    assert_eq!(market.status(&session), Some(JobStatus::Closing));
}

#[test]
fn anyone_may_expire_and_sweep_by_a_comment_when_it_is_time() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let job = market.claimed(&client, &worker, &Terms::default());
    let say = |market: &mut Market, value, word| market.write(&stranger, &job.address, value, word);
    let least = market.prices().expiry();
    assert_refused(&say(&mut market, VALUE, Word::Expire), &job.address, ContractError::TooEarly);
    market.chain.wait(601);
    assert_refused(&say(&mut market, less(least), Word::Expire), &job.address, ContractError::ValueTooLow);
    let before = market.chain.balance(&client);
    assert_all_succeeded(&say(&mut market, least, Word::Expire));
    assert!(market.chain.balance(&client) - before >= u128::from(job.deposit.get()));
    assert_refused(&say(&mut market, VALUE, Word::Sweep), &job.address, ContractError::TooEarly);
    market.chain.wait(AUDIT_WINDOW_S + 1);
    assert_all_succeeded(&say(&mut market, VALUE, Word::Sweep));
    assert_eq!(market.status(&job), None);
}

#[test]
fn anyone_may_pay_a_models_shares_out_by_a_comment_that_pays_for_it_to_the_nanoton() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let (publisher, treasury, model) =
        (market.publisher.clone(), market.treasury.clone(), market.model.clone());
    let prices = market.prices();
    let mut least = prices.gas(GAS_MODEL_WITHDRAW);
    for _ in 0..3 {
        least = least.checked_add(prices.forward(0, 0)).unwrap();
    }
    let empty = market.write(&stranger, &model, VALUE, Word::Withdraw);
    assert_refused(&empty, &model, ContractError::NothingToWithdraw);
    assert_all_succeeded(&market.tell(&stranger, &model, Nanoton::new(TON), &SharePaid { query_id: 1 }));
    let txs = market.write(&stranger, &model, less(least), Word::Withdraw);
    assert_refused(&txs, &model, ContractError::ValueTooLow);
    let txs = market.write(&stranger, &model, least, Word::Withdraw);
    assert_all_succeeded(&txs);
    assert!(payout(&txs, &publisher) > u128::from(TON / 2));
    assert!(payout(&txs, &treasury) > u128::from(TON / 5));
    assert_eq!(payout(&txs, &stranger), 0);
}

#[test]
fn letters_count_and_not_their_case() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    for (text, paused) in [("Pause", true), ("RESUME", false), ("pAUSe", true), ("resume", false)] {
        let body = TextComment { text: Text::new(text).unwrap() };
        assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &body));
        assert_eq!(market.worker_state(&worker).unwrap().paused, paused);
    }
}

#[test]
fn a_comment_that_is_no_word_of_the_contract_comes_back_with_its_money() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    let (publisher, model) = (market.publisher.clone(), market.model.clone());
    let texts = ["", "s", "stak", "stakes", "stake!", "unstake", "withdraw all", "hello, world: a long text"];
    for (from, to, others) in [
        (&worker.owner, &worker.address, ["cancel", "close", "expire", "sweep"].as_slice()),
        (&client, &job.address, &["stake", "unbond", "withdraw", "pause", "resume"]),
        (&publisher, &model, &["stake", "unbond", "pause", "cancel", "sweep"]),
    ] {
        let data = market.chain.data(to);
        for text in texts.iter().chain(others) {
            let body = TextComment { text: Text::new(text).unwrap() };
            let txs = market.tell(from, to, VALUE, &body);
            assert_refused(&txs, to, ContractError::UnknownWord);
        }
        assert_eq!(market.chain.data(to), data);
    }
}

#[test]
fn a_transfer_without_a_body_comes_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    let model = market.model.clone();
    for to in [&worker.address, &job.address, &model] {
        let txs = market.chain.send(&client, to, VALUE, contracts::Cell::default(), None);
        assert_refused(&txs, to, ContractError::UnknownMessage);
    }
}
