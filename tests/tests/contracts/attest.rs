use contracts::errors::ContractError;
use contracts::receipt::public_key;
use contracts::registry::{
    AllowMeasurement, EnforceRevocation, MeasurementAdmitted, MeasurementRevoked, RevokeMeasurement,
};
use contracts::{Nanoton, Units};
use tests::market::{FEES, TIMELOCK_S, assert_all_succeeded, assert_external_refused, assert_refused, hash};
use tests::{Market, Terms};

#[test]
fn the_owner_may_register_keys_of_an_admitted_image() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
    assert_all_succeeded(&market.attest(&worker));
    let attestation = market.worker_state(&worker).unwrap().attestation.unwrap();
    assert_eq!(attestation.receipt_key, public_key(&worker.key));
    assert_eq!(attestation.measurement, market.measurement);
    assert_eq!(attestation.expires_at, market.chain.now + market.network.params.attestation_ttl_s);
    assert_eq!(attestation.evidence.registered_at, market.chain.now);
    let message = market.attestation_message(&worker, market.measurement);
    assert_eq!(attestation.evidence.quote_hash, message.candidate.evidence.quote_hash);
}

#[test]
fn a_worker_cannot_state_its_own_expiry() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let message = market.attestation_message(&worker, market.measurement);
    let candidate = contracts::worker::Attestation { expires_at: u32::MAX, ..(*message.candidate).clone() };
    let message = contracts::worker::RegisterAttestation {
        candidate: contracts::Ref::new(candidate).unwrap(),
        ..message
    };
    let latest = market.chain.now + market.network.params.attestation_ttl_s;
    market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &message);
    let expires_at =
        market.worker_state(&worker).unwrap().attestation.map(|attestation| attestation.expires_at);
    assert!(expires_at.is_none_or(|time| time <= latest));
}

#[test]
fn an_image_that_is_not_listed_is_refused() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let txs = market.attest_as(&worker, hash("unlisted"));
    let refusal = txs.iter().find(|tx| tx.account == market.registry).unwrap();
    assert_eq!(refusal.exit_code, Some(i32::from(ContractError::MeasurementNotAdmitted.code())));
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
}

#[test]
fn a_new_image_is_admitted_after_the_timelock() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let image = hash("new image");
    let allow = AllowMeasurement { query_id: 1, measurement: image };
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    assert_all_succeeded(&market.tell(&owner, &registry, Nanoton::new(FEES), &allow));
    market.chain.wait(TIMELOCK_S - 1);
    market.attest_as(&worker, image);
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
    market.chain.wait(1);
    assert_all_succeeded(&market.attest_as(&worker, image));
    assert!(market.worker_state(&worker).unwrap().attestation.is_some());
}

#[test]
fn a_revoked_image_is_refused_at_once_and_anyone_may_enforce_it() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let stranger = market.person("stranger");
    let in_flight = market.claimed(&client, &worker, &Terms::default());
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let value = Nanoton::new(FEES);
    let measurement = market.measurement;
    let enforce = EnforceRevocation { query_id: 1, measurement, worker_owner: worker.owner.clone() };
    let txs = market.tell(&stranger, &registry, value, &enforce);
    assert!(!txs[0].succeeded(), "an admitted image was revoked");
    assert!(market.worker_state(&worker).unwrap().attestation.is_some());

    let revoke = RevokeMeasurement { query_id: 1, measurement };
    assert_all_succeeded(&market.tell(&owner, &registry, value, &revoke));
    let other = market.staked_worker("other");
    market.attest(&other);
    assert!(market.worker_state(&other).unwrap().attestation.is_none());

    assert_all_succeeded(&market.tell(&stranger, &registry, value, &enforce));
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
    let job = market.post(&client, &worker, &Terms::default());
    assert_external_refused(market.claim(&worker, &job), ContractError::NotAttested);
    // A job already claimed is between its client and its worker.
    let receipt = market.receipt(&in_flight, Units::default());
    assert_all_succeeded(&market.settle(&worker, &in_flight, receipt).unwrap());
}

#[test]
fn nobody_may_speak_for_the_registry() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let before = market.worker_state(&worker).unwrap();
    let value = Nanoton::new(FEES);
    let candidate = market.attestation_message(&worker, hash("unlisted")).candidate;
    let admitted = MeasurementAdmitted { query_id: 1, candidate };
    let revoked = MeasurementRevoked { query_id: 1, measurement: market.measurement };
    let stranger = market.person("stranger");
    for sender in [stranger, worker.owner.clone()] {
        let txs = market.tell(&sender, &worker.address, value, &admitted);
        assert_refused(&txs, &worker.address, ContractError::NotSibling);
        let txs = market.tell(&sender, &worker.address, value, &revoked);
        assert_refused(&txs, &worker.address, ContractError::NotSibling);
    }
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}
