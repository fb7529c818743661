//! Models: registration, royalty, offers, and how shares are split.

use contracts::errors::ContractError;
use contracts::job::Payout;
use contracts::model::{
    AcceptModel, AskRoyalty, DeprecateModel, ModelState, ModelStorage, RegisterModel, SharePaid,
    TransferModel, Unit, WithdrawShares,
};
use contracts::model_manifest::published_id;
use contracts::money::ShareSplit;
use contracts::wire::{Snake, from_cell};
use contracts::worker::{FundGas, OfferModel, WithdrawOffer};
use contracts::{HashBytes, Nanoton, Prices, Ref, StdAddr, Units};
use tests::market::{
    FEE_BPS, FEES, PRICES, ROYALTY_BPS, SHARE_BPS, TON, assert_all_succeeded, assert_external_refused,
    assert_refused, cell, hash,
};
use tests::{Market, Terms, Tx};
use tycho_types::cell::CellBuilder;

const VALUE: Nanoton = Nanoton::new(FEES);

fn payouts(txs: &[Tx], to: &StdAddr) -> u128 {
    let sent = txs.iter().flat_map(|tx| &tx.out);
    sent.filter(|sent| sent.to == *to && sent.read::<Payout>().is_some()).map(|sent| sent.value).sum()
}

#[test]
fn whoever_registers_a_model_first_is_its_publisher() {
    let mut market = Market::open();
    let state = market.model_state().unwrap();
    assert_eq!((&state.publisher, state.royalty_bps), (&market.publisher, ROYALTY_BPS));
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

/// The registration of another model with metadata of so many cells.
pub(crate) fn registration(
    market: &Market,
    id: &str,
    cells: usize,
) -> (StdAddr, RegisterModel, contracts::StateInit) {
    let id = hash(id);
    let address = market.network.model_address(&id).unwrap();
    let code = contracts::artifacts::code(contracts::artifacts::Contract::Model);
    let init = market.network.model_state_init(&code, &id).unwrap();
    let metadata = (0..cells * 127).map(|byte| (byte % 251) as u8).collect();
    let metadata = Ref::new(Snake::new(metadata).unwrap()).unwrap();
    (
        address,
        RegisterModel { query_id: 1, royalty_bps: 1, unit: Unit::Token, files_root: None, metadata },
        init,
    )
}

#[test]
fn metadata_is_as_large_as_its_rent_and_no_larger() {
    let mut market = Market::open();
    let publisher = market.publisher.clone();
    for (cells, fits) in [(32, true), (33, false)] {
        let (address, body, init) = registration(&market, "wordy model", cells);
        let txs = market.chain.send(&publisher, &address, Nanoton::new(5 * TON), cell(&body), Some(init));
        if fits {
            assert_all_succeeded(&txs);
            assert_eq!(market.chain.balance(&address), market.prices().model_rent().get());
            market.chain.delete(&address);
        } else {
            assert_refused(&txs, &address, ContractError::BadTerms);
        }
    }
}

#[test]
fn a_registration_brings_a_years_rent_to_the_nanoton() {
    let mut market = Market::open();
    let publisher = market.publisher.clone();
    let (address, body, init) = registration(&market, "a new model", 1);
    let prices = market.prices();
    let gas = prices.gas(contracts::fees::GAS_MODEL_SIMPLE);
    let least = prices.model_rent().checked_add(gas).unwrap();
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let txs = market.chain.send(&publisher, &address, short, cell(&body), Some(init.clone()));
    assert_refused(&txs, &address, ContractError::ValueTooLow);
    assert_all_succeeded(&market.chain.send(&publisher, &address, least, cell(&body), Some(init)));
}

#[test]
fn anyone_may_send_royalty_and_fee_to_whom_they_belong() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let prices = Prices { output: Nanoton::new(TON), ..PRICES };
    let job = market.post(&client, &worker, &Terms { prices, ..Terms::default() });
    let receipt = market.receipt(&job, Units { output: 1_000, ..Units::default() });
    market.settle(&worker, &job, receipt).unwrap();
    let rent = market.prices().model_rent().get();
    let sum = market.chain.balance(&market.model) - rent;
    assert!(sum >= u128::from(TON) * u128::from(SHARE_BPS) / 10_000);

    let (publisher, treasury, model) =
        (market.publisher.clone(), market.treasury.clone(), market.model.clone());
    let before = market.chain.balance(&stranger);
    let txs = market.tell(&stranger, &model, VALUE, &WithdrawShares { query_id: 1 });
    assert_all_succeeded(&txs);
    let split = ShareSplit::of(Nanoton::checked(sum).unwrap(), ROYALTY_BPS, FEE_BPS);
    assert_eq!(payouts(&txs, &publisher), split.to_publisher.get());
    assert_eq!(payouts(&txs, &treasury), split.to_treasury.get());
    assert_eq!(market.chain.balance(&model), rent);
    let spent = before - market.chain.balance(&stranger);
    assert!(spent < u128::from(TON / 100), "{spent}");
    let txs = market.tell(&stranger, &model, VALUE, &WithdrawShares { query_id: 1 });
    assert_refused(&txs, &model, ContractError::NothingToWithdraw);
}

#[test]
fn a_withdrawal_of_shares_pays_for_itself_to_the_nanoton() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let model = market.model.clone();
    let prices = market.prices();
    let mut least = prices.gas(contracts::fees::GAS_MODEL_WITHDRAW);
    for _ in 0..3 {
        least = least.checked_add(prices.forward(0, 0)).unwrap();
    }
    assert_all_succeeded(&market.tell(&stranger, &model, VALUE, &SharePaid { query_id: 1 }));
    let body = WithdrawShares { query_id: 1 };
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    assert_refused(&market.tell(&stranger, &model, short, &body), &model, ContractError::ValueTooLow);
    assert_all_succeeded(&market.tell(&stranger, &model, least, &body));
    assert!(market.chain.balance(&model) >= prices.model_rent().get());
}

#[test]
fn a_model_that_storage_has_eaten_up_pays_nothing_out_and_works_once_funded() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let model = market.model.clone();
    market.chain.wait(3 * 365 * 86_400);
    let body = WithdrawShares { query_id: 1 };
    assert_refused(&market.tell(&stranger, &model, VALUE, &body), &model, ContractError::NothingToWithdraw);
    let fund = FundGas { query_id: 1 };
    assert_all_succeeded(&market.tell(&stranger, &model, Nanoton::new(20 * TON), &fund));
    assert_all_succeeded(&market.tell(&stranger, &model, VALUE, &body));
}

#[test]
fn the_publisher_alone_may_transfer_or_deprecate() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let (publisher, model) = (market.publisher.clone(), market.model.clone());
    let transfer = TransferModel { query_id: 1, new_publisher: Some(stranger.clone()) };
    let deprecate = DeprecateModel { query_id: 1 };
    assert_refused(&market.tell(&stranger, &model, VALUE, &transfer), &model, ContractError::NotOwner);
    assert_refused(&market.tell(&stranger, &model, VALUE, &deprecate), &model, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&publisher, &model, VALUE, &transfer));
    assert_all_succeeded(&market.tell(&stranger, &model, VALUE, &AcceptModel { query_id: 1 }));
    assert_eq!(market.model_state().unwrap().publisher, stranger);
    assert_refused(&market.tell(&publisher, &model, VALUE, &deprecate), &model, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&stranger, &model, VALUE, &deprecate));
    assert!(matches!(market.model_state().unwrap(), ModelState { deprecated: true, .. }));
}

#[test]
fn a_model_passes_in_two_steps() {
    let mut market = Market::open();
    let heir = market.person("heir");
    let stranger = market.person("stranger");
    let (publisher, model) = (market.publisher.clone(), market.model.clone());
    let offer = TransferModel { query_id: 1, new_publisher: Some(heir.clone()) };
    let take_back = TransferModel { query_id: 1, new_publisher: None };
    let accept = AcceptModel { query_id: 1 };
    assert_refused(&market.tell(&heir, &model, VALUE, &accept), &model, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&publisher, &model, VALUE, &offer));
    let state = market.model_state().unwrap();
    assert_eq!((&state.publisher, state.next_publisher.as_ref()), (&publisher, Some(&heir)));
    assert_refused(&market.tell(&stranger, &model, VALUE, &accept), &model, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&publisher, &model, VALUE, &take_back));
    assert_refused(&market.tell(&heir, &model, VALUE, &accept), &model, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&publisher, &model, VALUE, &offer));
    assert_all_succeeded(&market.tell(&heir, &model, VALUE, &accept));
    let state = market.model_state().unwrap();
    assert_eq!((&state.publisher, state.next_publisher.as_ref()), (&heir, None));
    assert_refused(&market.tell(&publisher, &model, VALUE, &take_back), &model, ContractError::NotOwner);
}

/// A model whose id names its publisher: its files' root, its id, its address.
fn named_model(market: &Market, publisher: &StdAddr) -> (HashBytes, HashBytes, StdAddr) {
    let root = hash("files");
    let id = published_id(&root, publisher);
    (root, id, market.network.model_address(&id).unwrap())
}

fn register_named(
    market: &mut Market,
    from: &StdAddr,
    id: &HashBytes,
    files_root: Option<HashBytes>,
    royalty_bps: u16,
    value: Nanoton,
) -> Vec<Tx> {
    let address = market.network.model_address(id).unwrap();
    let code = contracts::artifacts::code(contracts::artifacts::Contract::Model);
    let init = market.network.model_state_init(&code, id).unwrap();
    let metadata = Ref::new(Snake::new(b"{}".to_vec()).unwrap()).unwrap();
    let body = RegisterModel { query_id: 1, royalty_bps, unit: Unit::Token, files_root, metadata };
    market.chain.send(from, &address, value, cell(&body), Some(init))
}

fn state_of(market: &Market, model: &StdAddr) -> ModelState {
    let storage: ModelStorage = from_cell(&market.chain.data(model).unwrap()).unwrap();
    storage.state.unwrap()
}

#[test]
fn whom_a_models_id_names_takes_it_over_from_whoever_was_faster_and_nobody_after() {
    let mut market = Market::open();
    let squatter = market.person("squatter");
    let publisher = market.publisher.clone();
    let (root, id, model) = named_model(&market, &publisher);
    // The squatter knows the files, and is not whom the id names.
    let txs = register_named(&mut market, &squatter, &id, Some(root), 0, VALUE);
    assert_refused(&txs, &model, ContractError::NotOwner);
    assert_all_succeeded(&register_named(&mut market, &squatter, &id, None, 0, VALUE));
    assert!(!state_of(&market, &model).named);
    // What came in so far was earned without a royalty: all of it is the treasury's.
    let earned = TON;
    market.tell(&squatter, &model, Nanoton::new(earned), &SharePaid { query_id: 1 });
    let held = market.chain.balance(&model) - market.prices().model_rent().get();

    let prices = market.prices();
    let mut least = prices.gas(contracts::fees::GAS_MODEL_SIMPLE + contracts::fees::GAS_MODEL_WITHDRAW);
    for _ in 0..3 {
        least = least.checked_add(prices.forward(0, 0)).unwrap();
    }
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let txs = register_named(&mut market, &publisher, &id, Some(root), 2_000, short);
    assert_refused(&txs, &model, ContractError::ValueTooLow);
    let txs = register_named(&mut market, &publisher, &id, Some(root), 2_000, least);
    assert_all_succeeded(&txs);
    assert_eq!(payouts(&txs, &market.treasury.clone()), held);
    assert_eq!((payouts(&txs, &publisher), payouts(&txs, &squatter)), (0, 0));
    assert!(market.chain.balance(&model) >= prices.model_rent().get());
    let state = state_of(&market, &model);
    assert_eq!((&state.publisher, state.royalty_bps, state.named), (&publisher, 2_000, true));

    for (from, files_root) in [(&squatter, None), (&squatter, Some(root)), (&publisher, Some(root))] {
        let txs = register_named(&mut market, from, &id, files_root, 0, VALUE);
        assert!(!txs[0].succeeded());
        assert_eq!(state_of(&market, &model), state);
    }
}

#[test]
fn whom_a_models_id_names_gets_the_royalty_that_was_not_paid_out_yet() {
    let mut market = Market::open();
    let squatter = market.person("squatter");
    let publisher = market.publisher.clone();
    let (root, id, model) = named_model(&market, &publisher);
    assert_all_succeeded(&register_named(&mut market, &squatter, &id, None, ROYALTY_BPS, VALUE));
    market.tell(&squatter, &model, Nanoton::new(TON), &SharePaid { query_id: 1 });
    let held = market.chain.balance(&model) - market.prices().model_rent().get();
    let txs = register_named(&mut market, &publisher, &id, Some(root), 0, VALUE);
    assert_all_succeeded(&txs);
    let split = ShareSplit::of(Nanoton::checked(held).unwrap(), ROYALTY_BPS, FEE_BPS);
    assert_eq!(payouts(&txs, &publisher), split.to_publisher.get());
    assert_eq!(payouts(&txs, &market.treasury.clone()), split.to_treasury.get());
}

#[test]
fn a_model_that_was_bought_from_whom_its_id_names_stays_its_buyers() {
    let mut market = Market::open();
    let buyer = market.person("buyer");
    let publisher = market.publisher.clone();
    let (root, id, model) = named_model(&market, &publisher);
    assert_all_succeeded(&register_named(&mut market, &publisher, &id, Some(root), 100, VALUE));
    let offer = TransferModel { query_id: 1, new_publisher: Some(buyer.clone()) };
    assert_all_succeeded(&market.tell(&publisher, &model, VALUE, &offer));
    assert_all_succeeded(&market.tell(&buyer, &model, VALUE, &AcceptModel { query_id: 1 }));
    let txs = register_named(&mut market, &publisher, &id, Some(root), 100, VALUE);
    assert_refused(&txs, &model, ContractError::AlreadyInitialised);
    assert_eq!(state_of(&market, &model).publisher, buyer);
}

#[test]
fn a_unit_that_nobody_knows_is_refused() {
    let mut market = Market::open();
    let publisher = market.publisher.clone();
    let (address, body, init) = registration(&market, "unheard-of", 1);
    let body = cell(&body);
    let mut altered = CellBuilder::new();
    altered.store_raw(&body.data()[..14], 112).unwrap();
    altered.store_u8(3).unwrap();
    let mut rest = body.as_slice().unwrap();
    rest.skip_first(120, 0).unwrap();
    altered.store_slice(rest).unwrap();
    let altered = altered.build().unwrap();
    let txs = market.chain.send(&publisher, &address, VALUE, altered, Some(init.clone()));
    assert_refused(&txs, &address, ContractError::BadTerms);
    assert_all_succeeded(&market.chain.send(&publisher, &address, VALUE, body, Some(init)));
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
fn nobody_may_ask_in_a_workers_name() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stranger = market.person("stranger");
    let prices = Ref::new(PRICES).unwrap();
    let ask = AskRoyalty { query_id: 1, worker_owner: worker.owner, min_deposit: Nanoton::ZERO, prices };
    let model = market.model.clone();
    assert_refused(&market.tell(&stranger, &model, VALUE, &ask), &model, ContractError::NotSibling);
}

#[test]
fn an_offer_names_the_models_account_and_royalty_and_costs_what_it_says() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let model_id = market.model_id;
    let prices = Ref::new(PRICES).unwrap();
    let offer = OfferModel { query_id: 1, model_id, min_deposit: Nanoton::new(1_234), prices };
    let least = market.prices().offer();
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let txs = market.tell(&worker.owner, &worker.address, short, &offer);
    assert_refused(&txs, &worker.address, ContractError::ValueTooLow);
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, least, &offer));
    let offered = market.worker_state(&worker).unwrap().offers.get(model_id).unwrap().unwrap();
    assert_eq!((offered.royalty_bps, offered.model), (ROYALTY_BPS, market.model.address));
    assert_eq!((offered.min_deposit, offered.prices), (Nanoton::new(1_234), PRICES));
}

#[test]
fn an_offer_for_an_unknown_model_comes_back() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let before = market.chain.balance(&worker.owner);
    let txs = market.offer_of(&worker, hash("unknown model"), PRICES);
    let last = txs.last().unwrap();
    assert!(last.bounced && last.succeeded());
    assert!(market.worker_state(&worker).unwrap().offers.is_empty());
    assert!(before - market.chain.balance(&worker.owner) < u128::from(TON / 50));
}

#[test]
fn an_offer_may_be_withdrawn() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let body = WithdrawOffer { query_id: 1, model_id: market.model_id };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &body));
    assert!(market.worker_state(&worker).unwrap().offers.is_empty());
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    assert_external_refused(market.claim(&worker, &job), ContractError::ModelNotOffered);
}

#[test]
fn what_the_publisher_brings_above_the_fees_comes_back() {
    let mut market = Market::open();
    let heir = market.person("heir");
    let (publisher, model) = (market.publisher.clone(), market.model.clone());
    let transfer = TransferModel { query_id: 1, new_publisher: Some(heir.clone()) };
    for (from, body) in [
        (&publisher, cell(&transfer)),
        (&heir, cell(&AcceptModel { query_id: 1 })),
        (&heir, cell(&DeprecateModel { query_id: 1 })),
    ] {
        let before = market.chain.balance(from);
        assert_all_succeeded(&market.chain.send(from, &model, VALUE, body, None));
        assert!(before - market.chain.balance(from) < u128::from(TON / 50));
    }
}
