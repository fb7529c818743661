use contracts::errors::ContractError;
use contracts::job::Payout;
use contracts::model::{AskRoyalty, DeprecateModel, RoyaltyQuoted, SharePaid, TransferModel, WithdrawShares};
use contracts::{Nanoton, Ref, Units};
use tests::market::{FEES, PRICES, ROYALTY_BPS, TON, assert_all_succeeded, assert_refused, hash};
use tests::{Market, Terms};

const VALUE: Nanoton = Nanoton::new(FEES);

#[test]
fn whoever_registers_a_model_first_is_its_publisher() {
    let mut market = Market::open();
    let state = market.model_state().unwrap();
    assert_eq!(state.publisher, market.publisher);
    assert_eq!(state.royalty_bps, ROYALTY_BPS);
    assert!(!state.deprecated);
    let stranger = market.person("stranger");
    let txs = market.register_model(&stranger, market.model_id, 0);
    assert_refused(&txs, &market.model, ContractError::AlreadyInitialised);
    assert_eq!(market.model_state().unwrap(), state);
}

#[test]
fn a_royalty_over_the_cap_is_refused() {
    let mut market = Market::open();
    let publisher = market.publisher.clone();
    let id = hash("greedy model");
    let address = market.network.model_address(&id).unwrap();
    let txs = market.register_model(&publisher, id, 2_001);
    assert_refused(&txs, &address, ContractError::RoyaltyOverCap);
    assert_all_succeeded(&market.register_model(&publisher, id, 2_000));
}

#[test]
fn anyone_may_send_royalty_and_fee_to_whom_they_belong() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let prices = contracts::Prices { output: Nanoton::new(TON), ..PRICES };
    market.offer(&worker, prices);
    let terms = Terms { max_prices: prices, ..Terms::default() };
    let job = market.claimed(&client, &worker, &terms);
    let units = Units { output: 1_000, ..Units::default() };
    let mut receipt = market.receipt(&job, units);
    receipt.amount = prices.cost(&units);
    market.settle(&worker, &job, receipt).unwrap();
    let state = market.model_state().unwrap();
    assert_eq!(state.royalty, Nanoton::new(TON / 20));
    assert_eq!(state.fee, Nanoton::new(TON / 50));
    assert_eq!(state.jobs_settled, 1);

    let (publisher, treasury, model) =
        (market.publisher.clone(), market.treasury.clone(), market.model.clone());
    let before = (market.chain.balance(&publisher), market.chain.balance(&treasury));
    assert_all_succeeded(&market.tell(&stranger, &model, VALUE, &WithdrawShares { query_id: 1 }));
    let royalty = market.chain.balance(&publisher) - before.0;
    let fee = market.chain.balance(&treasury) - before.1;
    assert_eq!(fee, u128::from(TON / 50));
    // Gas that jobs sent and the Model did not use is the publisher's too.
    assert!(royalty >= u128::from(TON / 20) && royalty < u128::from(TON / 20 + TON / 50), "{royalty}");
    for person in [&publisher, &treasury] {
        assert!(market.chain.inbox(person).iter().any(|received| received.read::<Payout>().is_some()));
    }
    let state = market.model_state().unwrap();
    assert_eq!((state.royalty, state.fee), (Nanoton::ZERO, Nanoton::ZERO));
    let txs = market.tell(&stranger, &model, VALUE, &WithdrawShares { query_id: 1 });
    assert_refused(&txs, &model, ContractError::NothingToWithdraw);
}

#[test]
fn the_publisher_alone_may_transfer_or_deprecate() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let (publisher, model) = (market.publisher.clone(), market.model.clone());
    let transfer = TransferModel { query_id: 1, new_publisher: stranger.clone() };
    let deprecate = DeprecateModel { query_id: 1 };
    let txs = market.tell(&stranger, &model, VALUE, &transfer);
    assert_refused(&txs, &model, ContractError::NotOwner);
    let txs = market.tell(&stranger, &model, VALUE, &deprecate);
    assert_refused(&txs, &model, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&publisher, &model, VALUE, &transfer));
    assert_eq!(market.model_state().unwrap().publisher, stranger);
    let txs = market.tell(&publisher, &model, VALUE, &deprecate);
    assert_refused(&txs, &model, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&stranger, &model, VALUE, &deprecate));
    assert!(market.model_state().unwrap().deprecated);
}

#[test]
fn a_deprecated_model_takes_no_new_offers() {
    let mut market = Market::open();
    let old = market.worker("old worker");
    let (publisher, model) = (market.publisher.clone(), market.model.clone());
    market.tell(&publisher, &model, VALUE, &DeprecateModel { query_id: 1 });
    let worker = market.staked_worker("worker");
    let txs = market.offer(&worker, PRICES);
    let refusal = txs.iter().find(|tx| tx.account == model).unwrap();
    assert_eq!(refusal.exit_code, Some(i32::from(ContractError::ModelDeprecated.code())));
    assert!(market.worker_state(&worker).unwrap().offers.is_empty());
    assert!(!market.worker_state(&old).unwrap().offers.is_empty());
}

#[test]
fn shares_that_did_not_come_from_a_job_are_refused() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let model = market.model.clone();
    let share = SharePaid {
        query_id: 1,
        royalty: Nanoton::new(TON),
        fee: Nanoton::new(TON),
        client: stranger.clone(),
        nonce: 1,
    };
    let txs = market.tell(&stranger, &model, Nanoton::new(3 * TON), &share);
    assert_refused(&txs, &model, ContractError::NotSibling);
    assert_eq!(market.model_state().unwrap().royalty, Nanoton::ZERO);
}

#[test]
fn nobody_may_quote_a_royalty_for_a_model_or_ask_in_a_workers_name() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stranger = market.person("stranger");
    let before = market.worker_state(&worker).unwrap();
    let quote = RoyaltyQuoted {
        query_id: 1,
        model_id: market.model_id,
        royalty_bps: 0,
        prices: Ref::new(PRICES).unwrap(),
    };
    let txs = market.tell(&stranger, &worker.address, VALUE, &quote);
    assert_refused(&txs, &worker.address, ContractError::NotSibling);
    let ask =
        AskRoyalty { query_id: 1, worker_owner: worker.owner.clone(), prices: Ref::new(PRICES).unwrap() };
    let model = market.model.clone();
    let txs = market.tell(&stranger, &model, VALUE, &ask);
    assert_refused(&txs, &model, ContractError::NotSibling);
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}

#[test]
fn an_offer_for_an_unknown_model_comes_back() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let txs = market.offer_of(&worker, hash("unknown model"), PRICES);
    let last = txs.last().unwrap();
    assert!(last.bounced && last.succeeded());
    assert!(market.worker_state(&worker).unwrap().offers.is_empty());
}

#[test]
fn an_offer_may_be_withdrawn() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let body = contracts::worker::WithdrawOffer { query_id: 1, model_id: market.model_id };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &body));
    assert!(market.worker_state(&worker).unwrap().offers.is_empty());
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    tests::market::assert_external_refused(market.claim(&worker, &job), ContractError::ModelNotOffered);
}
