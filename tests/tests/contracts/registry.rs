use contracts::Nanoton;
use contracts::errors::ContractError;
use contracts::registry::{AcceptOwnership, AllowMeasurement, RevokeMeasurement, TransferOwnership};
use tests::Market;
use tests::market::{FEES, TIMELOCK_S, assert_all_succeeded, assert_refused, hash};

const VALUE: Nanoton = Nanoton::new(FEES);

#[test]
fn the_owner_alone_may_allow_and_revoke_measurements() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let allow = AllowMeasurement { query_id: 1, measurement: hash("image") };
    let revoke = RevokeMeasurement { query_id: 1, measurement: market.measurement };
    let before = market.registry_storage();
    let txs = market.tell(&stranger, &registry, VALUE, &allow);
    assert_refused(&txs, &registry, ContractError::NotOwner);
    let txs = market.tell(&stranger, &registry, VALUE, &revoke);
    assert_refused(&txs, &registry, ContractError::NotOwner);
    assert_eq!(market.registry_storage(), before);
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &allow));
    assert_eq!(
        market.registry_storage().measurements.get(hash("image")).unwrap(),
        Some(market.chain.now + TIMELOCK_S)
    );
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &revoke));
    let known = market.measurement;
    assert_eq!(market.registry_storage().measurements.get(known).unwrap(), None);
}

#[test]
fn ownership_passes_in_two_steps() {
    let mut market = Market::open();
    let heir = market.person("heir");
    let stranger = market.person("stranger");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let offer = TransferOwnership { query_id: 1, new_owner: Some(heir.clone()) };
    let accept = AcceptOwnership { query_id: 1 };
    let txs = market.tell(&stranger, &registry, VALUE, &offer);
    assert_refused(&txs, &registry, ContractError::NotOwner);
    let txs = market.tell(&heir, &registry, VALUE, &accept);
    assert_refused(&txs, &registry, ContractError::NotOwner);

    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &offer));
    assert_eq!(market.registry_storage().owner, owner);
    assert_eq!(market.registry_storage().pending_owner, Some(heir.clone()));
    let txs = market.tell(&stranger, &registry, VALUE, &accept);
    assert_refused(&txs, &registry, ContractError::NotOwner);
    let take_back = TransferOwnership { query_id: 1, new_owner: None };
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &take_back));
    let txs = market.tell(&heir, &registry, VALUE, &accept);
    assert_refused(&txs, &registry, ContractError::NotOwner);

    market.tell(&owner, &registry, VALUE, &offer);
    assert_all_succeeded(&market.tell(&heir, &registry, VALUE, &accept));
    let storage = market.registry_storage();
    assert_eq!(storage.owner, heir);
    assert_eq!(storage.pending_owner, None);
    let txs = market.tell(&owner, &registry, VALUE, &take_back);
    assert_refused(&txs, &registry, ContractError::NotOwner);
}

#[test]
fn no_message_changes_the_parameters() {
    let mut market = Market::open();
    let before = market.registry_storage().generation;
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let revoke = RevokeMeasurement { query_id: 1, measurement: market.measurement };
    market.tell(&owner, &registry, VALUE, &revoke);
    assert_eq!(market.registry_storage().generation, before);
    assert_eq!(market.network.generation, *before);
}
