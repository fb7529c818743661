//! The Worker's account: stake, unbonding, what is the owner's, operator and pause.

use contracts::artifacts::{self, Contract};
use contracts::errors::ContractError;
use contracts::job::{JobPaid, Outcome, Payout};
use contracts::model::RoyaltyQuoted;
use contracts::worker::{
    FundGas, LeavePlatform, MAX_JOB_LIFE_S, OfferModel, PauseWorker, RequestUnbond, SetEndpoint, SetOperator,
    TopUpStake, WithdrawEarnings, WithdrawOffer, WithdrawUnbonded,
};
use contracts::{Amount, Message, Nanoton, Ref, StdAddr, Units};
use tests::market::{FEES, PRICES, TON, assert_all_succeeded, assert_external_refused, assert_refused, cell};
use tests::{Market, Terms, Tx, Worker};

const VALUE: Nanoton = Nanoton::new(FEES);

fn owner_says<M: Message>(market: &mut Market, worker: &Worker, body: &M) -> Vec<Tx> {
    market.tell(&worker.owner.clone(), &worker.address.clone(), VALUE, body)
}

fn unbond(amount: u64) -> RequestUnbond {
    RequestUnbond { query_id: 1, amount: Nanoton::new(amount) }
}

fn withdraw(amount: u128) -> WithdrawEarnings {
    WithdrawEarnings { query_id: 1, amount: Nanoton::checked(amount).unwrap() }
}

fn payout(txs: &[Tx], to: &StdAddr) -> u128 {
    let sent = txs.iter().flat_map(|tx| &tx.out);
    sent.filter(|sent| sent.to == *to && sent.read::<Payout>().is_some()).map(|sent| sent.value).sum()
}

#[test]
fn the_owner_may_stake_and_add_to_the_stake() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    assert_eq!(market.worker_state(&worker).unwrap().stake, Nanoton::new(20 * TON));
    assert_all_succeeded(&market.stake(&worker, Nanoton::new(5 * TON)));
    assert_eq!(market.worker_state(&worker).unwrap().stake, Nanoton::new(25 * TON));
    assert!(market.chain.balance(&worker.address) >= u128::from(25 * TON));
}

#[test]
fn the_first_stake_brings_a_years_rent_and_a_later_one_its_gas_to_the_nanoton() {
    let mut market = Market::open();
    let worker = market.unborn_worker("worker");
    let prices = market.prices();
    let gas = prices.gas(contracts::fees::GAS_WORKER_SIMPLE);
    for least in [gas.checked_add(prices.worker_rent()).unwrap(), gas] {
        let amount = Nanoton::new(10 * TON);
        let short = least.checked_sub(Nanoton::new(1)).unwrap();
        let txs = market.stake_with(&worker, amount, short);
        assert_refused(&txs, &worker.address, ContractError::ValueTooLow);
        assert_all_succeeded(&market.stake_with(&worker, amount, least));
        let state = market.worker_state(&worker).unwrap();
        assert!(market.chain.balance(&worker.address) >= state.stake.get());
    }
    assert_eq!(market.worker_state(&worker).unwrap().stake, Nanoton::new(20 * TON));
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
fn nobody_else_may_order_a_worker() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stranger = market.person("stranger");
    let before = market.worker_state(&worker).unwrap();
    let model_id = market.model_id;
    let prices = Ref::new(PRICES).unwrap();
    let offer = OfferModel { query_id: 1, model_id, min_deposit: Nanoton::ZERO, prices };
    let leave = LeavePlatform { query_id: 1, ppid: market.ppid(&worker) };
    let operator = SetOperator { query_id: 1, account: Some(Ref::new(stranger.clone()).unwrap()) };
    let top_up = TopUpStake { query_id: 1, amount: Nanoton::new(1) };
    let to = worker.address.clone();
    let attempts = [
        market.tell(&stranger, &to, VALUE, &leave),
        market.tell(&stranger, &to, VALUE, &offer),
        market.tell(&stranger, &to, VALUE, &WithdrawOffer { query_id: 1, model_id }),
        market.tell(&stranger, &to, VALUE, &unbond(TON)),
        market.tell(&stranger, &to, VALUE, &top_up),
        market.tell(&stranger, &to, VALUE, &WithdrawUnbonded { query_id: 1 }),
        market.tell(&stranger, &to, VALUE, &withdraw(0)),
        market.tell(&stranger, &to, VALUE, &operator),
        market.tell(&stranger, &to, VALUE, &PauseWorker { query_id: 1, paused: true }),
    ];
    for txs in &attempts {
        assert_refused(txs, &worker.address, ContractError::NotOwner);
    }
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}

#[test]
fn an_operator_may_pause_and_offer_and_move_no_money() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let operator = market.person("operator");
    let set = SetOperator { query_id: 1, account: Some(Ref::new(operator.clone()).unwrap()) };
    assert_all_succeeded(&owner_says(&mut market, &worker, &set));
    assert_eq!(market.worker_state(&worker).unwrap().history.operator, Some(operator.clone()));
    let model_id = market.model_id;
    let prices = Ref::new(PRICES).unwrap();
    let offer = OfferModel { query_id: 1, model_id, min_deposit: Nanoton::new(7), prices };
    let to = worker.address.clone();
    assert_all_succeeded(&market.tell(&operator, &to, VALUE, &PauseWorker { query_id: 1, paused: true }));
    assert!(market.worker_state(&worker).unwrap().paused);
    assert_all_succeeded(&market.tell(&operator, &to, VALUE, &PauseWorker { query_id: 1, paused: false }));
    assert_all_succeeded(&market.tell(&operator, &to, VALUE, &WithdrawOffer { query_id: 1, model_id }));
    assert!(market.worker_state(&worker).unwrap().offers.is_empty());
    assert_all_succeeded(&market.tell(&operator, &to, VALUE, &offer));
    let offered = market.worker_state(&worker).unwrap().offers.get(model_id).unwrap().unwrap();
    assert_eq!(offered.min_deposit, Nanoton::new(7));

    let at = |text: &[u8]| Some(Ref::new(contracts::Snake::new(text.to_vec()).unwrap()).unwrap());
    let serve = SetEndpoint { query_id: 1, endpoint: at(b"worker.example:443") };
    assert_all_succeeded(&market.tell(&operator, &to, VALUE, &serve));
    assert_eq!(market.worker_state(&worker).unwrap().endpoint().as_deref(), Some("worker.example:443"));
    for text in [&[b'a'; 128][..], b""] {
        let endpoint = at(text);
        let txs = market.tell(&operator, &to, VALUE, &SetEndpoint { query_id: 1, endpoint });
        assert_refused(&txs, &worker.address, ContractError::BadTerms);
    }
    assert_all_succeeded(&market.tell(&operator, &to, VALUE, &SetEndpoint { query_id: 1, endpoint: None }));
    assert_eq!(market.worker_state(&worker).unwrap().endpoint(), None);

    let leave = LeavePlatform { query_id: 1, ppid: market.ppid(&worker) };
    let attempts = [
        market.tell(&operator, &to, VALUE, &leave),
        market.tell(&operator, &to, VALUE, &unbond(TON)),
        market.tell(&operator, &to, VALUE, &TopUpStake { query_id: 1, amount: Nanoton::new(1) }),
        market.tell(&operator, &to, VALUE, &WithdrawUnbonded { query_id: 1 }),
        market.tell(&operator, &to, VALUE, &withdraw(0)),
        market.tell(&operator, &to, VALUE, &set),
    ];
    for txs in &attempts {
        assert_refused(txs, &worker.address, ContractError::NotOwner);
    }
    // Nobody else may, while there is an operator or none.
    let stranger = market.person("stranger");
    for txs in [
        market.tell(&stranger, &to, VALUE, &PauseWorker { query_id: 1, paused: true }),
        market.tell(&stranger, &to, VALUE, &WithdrawOffer { query_id: 1, model_id }),
        market.tell(&stranger, &to, VALUE, &offer),
        market.tell(&stranger, &to, VALUE, &serve),
    ] {
        assert_refused(&txs, &worker.address, ContractError::NotOwner);
    }
    let dismiss = SetOperator { query_id: 1, account: None };
    assert_all_succeeded(&owner_says(&mut market, &worker, &dismiss));
    let txs = market.tell(&operator, &to, VALUE, &PauseWorker { query_id: 1, paused: true });
    assert_refused(&txs, &worker.address, ContractError::NotOwner);
}

#[test]
fn whoever_orders_a_worker_gets_back_what_the_order_does_not_use() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let operator = market.person("operator");
    let model_id = market.model_id;
    let offer =
        OfferModel { query_id: 1, model_id, min_deposit: Nanoton::ZERO, prices: Ref::new(PRICES).unwrap() };
    let set = SetOperator { query_id: 1, account: Some(Ref::new(operator.clone()).unwrap()) };
    let bodies = [
        cell(&set),
        cell(&PauseWorker { query_id: 1, paused: true }),
        cell(&WithdrawOffer { query_id: 1, model_id }),
        cell(&offer),
        cell(&unbond(TON)),
    ];
    let owner = worker.owner.clone();
    for (sender, orders) in [(&owner, &bodies[..]), (&operator, &bodies[1..3])] {
        for body in orders {
            let before = market.chain.balance(sender);
            assert_all_succeeded(&market.chain.send(sender, &worker.address, VALUE, body.clone(), None));
            let spent = before - market.chain.balance(sender);
            assert!(spent < u128::from(TON / 40), "{spent} nanoTON for {body:?}");
        }
    }
}

#[test]
fn the_owner_gets_the_stake_back_after_four_weeks_whatever_the_network_says() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    assert!(market.network.generation.params.unbonding_s < MAX_JOB_LIFE_S);
    assert_all_succeeded(&owner_says(&mut market, &worker, &unbond(20 * TON)));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!((state.stake, state.unbonding), (Nanoton::ZERO, Nanoton::new(20 * TON)));
    assert_eq!(state.unbonding_until, market.chain.now + MAX_JOB_LIFE_S);
    let take = WithdrawUnbonded { query_id: 1 };
    market.chain.wait(MAX_JOB_LIFE_S - 1);
    assert_refused(&owner_says(&mut market, &worker, &take), &worker.address, ContractError::TooEarly);
    market.chain.wait(1);
    // Without stake the float leaves too.
    let balance = market.chain.balance(&worker.address);
    let txs = owner_says(&mut market, &worker, &take);
    assert_all_succeeded(&txs);
    assert!(payout(&txs, &worker.owner) + u128::from(TON / 50) >= balance);
    assert_eq!(market.chain.balance(&worker.address), 0);
    assert_refused(
        &owner_says(&mut market, &worker, &take),
        &worker.address,
        ContractError::NothingToWithdraw,
    );
    // And the account may be used again.
    assert_all_succeeded(&market.stake(&worker, Nanoton::new(10 * TON)));
}

#[test]
fn a_second_wish_to_unbond_starts_the_time_anew_and_a_part_leaves_the_rest() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    owner_says(&mut market, &worker, &unbond(2 * TON));
    market.chain.wait(1_000);
    owner_says(&mut market, &worker, &unbond(3 * TON));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!(state.unbonding_until, market.chain.now + MAX_JOB_LIFE_S);
    assert_eq!(state.unbonding, Nanoton::new(5 * TON));
    for (amount, error) in [(0, ContractError::NothingToWithdraw), (15 * TON + 1, ContractError::UnderStaked)]
    {
        assert_refused(&owner_says(&mut market, &worker, &unbond(amount)), &worker.address, error);
    }
    market.chain.wait(MAX_JOB_LIFE_S);
    let free = market.free(&worker);
    let txs = owner_says(&mut market, &worker, &WithdrawUnbonded { query_id: 1 });
    assert_all_succeeded(&txs);
    let paid = payout(&txs, &worker.owner);
    assert!(paid >= u128::from(5 * TON) && paid <= u128::from(5 * TON + FEES), "{paid}");
    let state = market.worker_state(&worker).unwrap();
    assert_eq!((state.stake, state.unbonding), (Nanoton::new(15 * TON), Nanoton::ZERO));
    // But for four weeks' rent.
    assert!(market.free(&worker) + market.prices().worker_rent().get() >= free);
    assert!(market.chain.balance(&worker.address) >= state.stake.get());
}

#[test]
fn what_storage_ate_of_the_stake_has_to_be_brought_back_before_it_leaves_in_part() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let all = market.free(&worker);
    assert_all_succeeded(&owner_says(&mut market, &worker, &withdraw(all)));
    owner_says(&mut market, &worker, &unbond(10 * TON));
    market.chain.wait(5 * 365 * 86_400);
    let take = WithdrawUnbonded { query_id: 1 };
    let txs = owner_says(&mut market, &worker, &take);
    assert_refused(&txs, &worker.address, ContractError::GasFloatTooLow);
    assert_all_succeeded(&market.fund_gas(&worker, Nanoton::new(TON)));
    assert_all_succeeded(&owner_says(&mut market, &worker, &take));
    let state = market.worker_state(&worker).unwrap();
    assert!(market.chain.balance(&worker.address) >= state.stake.get());
}

#[test]
fn the_owner_may_withdraw_all_but_the_float_or_a_part_or_the_float_too_and_no_stake() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stake = u128::from(20 * TON);
    let held = |market: &Market| market.chain.balance(&worker.address);

    let free = market.free(&worker);
    let txs = owner_says(&mut market, &worker, &withdraw(u128::from(TON / 10)));
    assert_all_succeeded(&txs);
    let paid = payout(&txs, &worker.owner);
    assert!(paid >= u128::from(TON / 10) && paid < u128::from(TON / 10 + FEES));
    assert_eq!(market.free(&worker), free - u128::from(TON / 10));

    assert_all_succeeded(&owner_says(&mut market, &worker, &withdraw(0)));
    assert_eq!(market.free(&worker), market.prices().claim().get());
    let again = owner_says(&mut market, &worker, &withdraw(0));
    assert_refused(&again, &worker.address, ContractError::NothingToWithdraw);

    let float = market.free(&worker);
    let over = owner_says(&mut market, &worker, &withdraw(float + 1));
    assert_refused(&over, &worker.address, ContractError::NothingToWithdraw);
    assert_all_succeeded(&owner_says(&mut market, &worker, &withdraw(float)));
    assert_eq!(held(&market), stake);
    let txs = owner_says(&mut market, &worker, &withdraw(1));
    assert_refused(&txs, &worker.address, ContractError::NothingToWithdraw);
    assert_eq!(market.worker_state(&worker).unwrap().stake.get(), stake);
}

#[test]
fn what_a_worker_earns_is_its_owners_to_the_nanoton() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let prices = contracts::Prices { output: Nanoton::new(TON), ..PRICES };
    let job = market.post(&client, &worker, &Terms { prices, ..Terms::default() });
    let receipt = market.receipt(&job, Units { output: 900, ..Units::default() });
    let free = market.free(&worker);
    market.settle(&worker, &job, receipt).unwrap();
    let earned = market.free(&worker) - free;
    assert!(earned >= u128::from(TON * 9 / 10) * 9_300 / 10_000, "{earned}");
    let txs = owner_says(&mut market, &worker, &withdraw(earned));
    assert_all_succeeded(&txs);
    assert!(payout(&txs, &worker.owner) >= earned);
    assert!(market.free(&worker) + 1_000 >= free);
}

#[test]
fn a_bond_is_made_of_free_funds_and_cannot_be_withdrawn_meanwhile() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let free = market.free(&worker);
    let job = market.claimed(&client, &worker, &Terms::default());
    assert!(market.free(&worker) < free - u128::from(TON / 2));
    let rejection = market.rejection(&job, 1);
    market.reject(&worker, &job, rejection).unwrap();
    assert!(market.free(&worker) + market.prices().claim().get() >= free);
    // As much as there is, and no more.
    let job = market.post(&client, &worker, &Terms::default());
    let mut order = market.order(&worker, &job);
    let bond = Nanoton::checked(market.free(&worker)).unwrap();
    order.bond = Amount::try_from(bond).unwrap();
    assert_external_refused(market.claim_with(&worker, order), ContractError::GasFloatTooLow);
}

#[test]
fn money_that_says_it_comes_from_a_job_is_the_owners_and_changes_no_book() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stranger = market.person("stranger");
    let before = market.worker_state(&worker).unwrap();
    let free = market.free(&worker);
    for outcome in [Outcome::Settled as u8, 0, 200] {
        let body = JobPaid { query_id: 1, outcome };
        assert_all_succeeded(&market.tell(&stranger, &worker.address, Nanoton::new(TON), &body));
    }
    assert_eq!(market.worker_state(&worker).unwrap(), before);
    assert!(market.free(&worker) + u128::from(TON / 100) >= free + u128::from(3 * TON));
}

#[test]
fn nobody_but_the_model_may_quote_a_royalty() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stranger = market.person("stranger");
    let before = market.worker_state(&worker).unwrap();
    let quote = RoyaltyQuoted {
        query_id: 1,
        model_id: market.model_id,
        royalty_bps: 0,
        min_deposit: Nanoton::ZERO,
        prices: Ref::new(PRICES).unwrap(),
    };
    let txs = market.tell(&stranger, &worker.address, VALUE, &quote);
    assert_refused(&txs, &worker.address, ContractError::NotSibling);
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}

#[test]
fn a_worker_without_state_knows_the_first_message_alone() {
    let mut market = Market::open();
    let worker = market.unborn_worker("worker");
    let txs = market.fund_gas(&worker, Nanoton::new(TON));
    assert!(txs.iter().all(|tx| !tx.succeeded()));
    assert_eq!(market.chain.balance(&worker.address), 0);
    let code = artifacts::code(Contract::Worker);
    let init = market.network.worker_state_init(&code, &worker.owner).unwrap();
    for body in [cell(&FundGas { query_id: 1 }), cell(&PauseWorker { query_id: 1, paused: true })] {
        let txs = market.chain.send(&worker.owner, &worker.address, VALUE, body, Some(init.clone()));
        assert_refused(&txs, &worker.address, ContractError::NotInitialised);
    }
    market.staked_worker("worker");
    assert_all_succeeded(&owner_says(&mut market, &worker, &FundGas { query_id: 1 }));
}
