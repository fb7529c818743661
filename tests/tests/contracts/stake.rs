use contracts::errors::ContractError;
use contracts::job::Payout;
use contracts::worker::{
    LeavePlatform, RequestUnbond, TopUpStake, WithdrawEarnings, WithdrawOffer, WithdrawUnbonded,
};
use contracts::{Message, Nanoton, Units};
use tests::market::{FEES, PRICES, TON, assert_all_succeeded, assert_refused};
use tests::{Market, Terms, Tx, Worker};

fn owner_says<M: Message>(market: &mut Market, worker: &Worker, body: &M) -> Vec<Tx> {
    market.tell(&worker.owner.clone(), &worker.address.clone(), Nanoton::new(FEES), body)
}

#[test]
fn the_owner_may_stake_and_add_to_the_stake() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    assert_eq!(market.worker_state(&worker).unwrap().stake, Nanoton::new(20 * TON));
    assert_all_succeeded(&market.stake(&worker, Nanoton::new(5 * TON)));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!(state.stake, Nanoton::new(25 * TON));
    assert!(market.chain.balance(&worker.address) >= u128::from(25 * TON));
}

#[test]
fn a_stake_below_the_minimum_may_not_attest() {
    let mut market = Market::open();
    let worker = market.unborn_worker("worker");
    assert_all_succeeded(&market.stake(&worker, Nanoton::new(10 * TON - 1)));
    let txs = market.attest(&worker);
    assert_refused(&txs, &worker.address, ContractError::UnderStaked);
    market.stake(&worker, Nanoton::new(1));
    assert_all_succeeded(&market.attest(&worker));
}

#[test]
fn a_stake_that_was_not_brought_is_refused() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let body = TopUpStake { query_id: 1, amount: Nanoton::new(5 * TON) };
    let txs = market.tell(&worker.owner, &worker.address, Nanoton::new(5 * TON), &body);
    assert_refused(&txs, &worker.address, ContractError::ValueTooLow);
}

#[test]
fn nobody_else_may_order_a_worker() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stranger = market.person("stranger");
    let before = market.worker_state(&worker).unwrap();
    let value = Nanoton::new(FEES);
    let leave = LeavePlatform { query_id: 1, ppid: market.ppid(&worker) };
    let offer = contracts::worker::OfferModel {
        query_id: 1,
        model_id: market.model_id,
        prices: contracts::Ref::new(PRICES).unwrap(),
    };
    let withdraw_offer = WithdrawOffer { query_id: 1, model_id: market.model_id };
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(TON) };
    let top_up = TopUpStake { query_id: 1, amount: Nanoton::new(1) };
    let to = worker.address.clone();
    let attempts = [
        market.tell(&stranger, &to, value, &leave),
        market.tell(&stranger, &to, value, &offer),
        market.tell(&stranger, &to, value, &withdraw_offer),
        market.tell(&stranger, &to, value, &unbond),
        market.tell(&stranger, &to, value, &top_up),
        market.tell(&stranger, &to, value, &WithdrawUnbonded { query_id: 1 }),
        market.tell(&stranger, &to, value, &WithdrawEarnings { query_id: 1 }),
    ];
    for txs in &attempts {
        assert_refused(txs, &worker.address, ContractError::NotOwner);
    }
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}

#[test]
fn the_owner_gets_the_stake_back_after_the_unbonding_time() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(20 * TON) };
    assert_all_succeeded(&owner_says(&mut market, &worker, &unbond));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!(state.stake, Nanoton::ZERO);
    assert_eq!(state.unbonding, Nanoton::new(20 * TON));
    assert_eq!(state.unbonding_until, market.chain.now + market.network.params.unbonding_s);
    let withdraw = WithdrawUnbonded { query_id: 1 };
    let txs = owner_says(&mut market, &worker, &withdraw);
    assert_refused(&txs, &worker.address, ContractError::TooEarly);
    market.chain.wait(market.network.params.unbonding_s);
    let before = market.chain.balance(&worker.owner);
    assert_all_succeeded(&owner_says(&mut market, &worker, &withdraw));
    let gained = market.chain.balance(&worker.owner) - before;
    assert!(gained + u128::from(TON / 50) >= u128::from(20 * TON), "{gained}");
    assert!(market.chain.inbox(&worker.owner).iter().any(|received| received.read::<Payout>().is_some()));
    let txs = owner_says(&mut market, &worker, &withdraw);
    assert_refused(&txs, &worker.address, ContractError::NothingToWithdraw);
}

#[test]
fn a_locked_stake_is_not_unbonded() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    market.claimed(&client, &worker, &Terms::default());
    for amount in [20 * TON, 20 * TON - TON / 2 + 1, u64::MAX] {
        let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(amount) };
        let txs = owner_says(&mut market, &worker, &unbond);
        assert_refused(&txs, &worker.address, ContractError::UnderStaked);
    }
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(20 * TON - TON / 2) };
    assert_all_succeeded(&owner_says(&mut market, &worker, &unbond));
}

#[test]
fn the_owner_may_withdraw_earnings_and_nothing_more() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let withdraw = WithdrawEarnings { query_id: 1 };
    let txs = owner_says(&mut market, &worker, &withdraw);
    assert_refused(&txs, &worker.address, ContractError::NothingToWithdraw);
    let terms =
        Terms { max_prices: contracts::Prices { output: Nanoton::new(TON), ..PRICES }, ..Terms::default() };
    let prices = terms.max_prices;
    assert_all_succeeded(&market.offer(&worker, prices));
    let job = market.claimed(&client, &worker, &terms);
    let units = Units { output: 900, ..Units::default() };
    let mut receipt = market.receipt(&job, units);
    receipt.amount = prices.cost(&units);
    market.settle(&worker, &job, receipt).unwrap();
    let earned = market.worker_state(&worker).unwrap().earnings;
    assert!(earned > Nanoton::new(TON / 2));
    let before = market.chain.balance(&worker.owner);
    assert_all_succeeded(&owner_says(&mut market, &worker, &withdraw));
    let gained = market.chain.balance(&worker.owner) - before;
    assert!(gained <= earned.get());
    assert!(gained + u128::from(TON / 50) >= earned.get());
    let state = market.worker_state(&worker).unwrap();
    assert_eq!(state.earnings, Nanoton::ZERO);
    assert_eq!(state.stake, Nanoton::new(20 * TON));
    assert!(market.chain.balance(&worker.address) >= state.stake.get());
}

#[test]
fn money_that_did_not_come_from_a_job_is_refused() {
    use contracts::job::{JobForfeited, JobPaid, JobReturned};
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &Terms::default());
    let before = market.worker_state(&worker).unwrap();
    let bond = Nanoton::new(TON / 2);
    let (to, nonce) = (worker.address.clone(), job.nonce);
    let value = Nanoton::new(2 * TON);
    let paid = JobPaid { query_id: 1, bond, paid: Nanoton::new(TON), client: client.clone(), nonce };
    let returned = JobReturned { query_id: 1, bond, client: client.clone(), nonce };
    let forfeited = JobForfeited { query_id: 1, bond, client: client.clone(), nonce };
    let attempts = [
        market.tell(&client, &to, value, &paid),
        market.tell(&client, &to, value, &returned),
        market.tell(&client, &to, value, &forfeited),
    ];
    for txs in &attempts {
        assert_refused(txs, &worker.address, ContractError::NotSibling);
    }
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}

#[test]
fn a_worker_without_state_knows_the_first_message_alone() {
    let mut market = Market::open();
    let worker = market.unborn_worker("worker");
    let txs = market.fund_gas(&worker, Nanoton::new(TON));
    assert!(txs.iter().all(|tx| !tx.succeeded()));
    assert_eq!(market.chain.balance(&worker.address), 0);
}
