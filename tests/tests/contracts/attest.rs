use contracts::attestor::{Bytes, CertificateRevoked, QuoteVerified, VerifiedReport, needs};
use contracts::errors::ContractError;
use contracts::platform::{LeaveWorker, PlatformState, ServeWorker};
use contracts::receipt::public_key;
use contracts::registry::{
    AllowAdvisories, AllowMeasurement, EnforceRevocation, MeasurementRevoked, RegistrationRefused,
    RegistrationRequest, RevokeAdvisories, RevokeMeasurement, SetAcceptedNeeds,
};
use contracts::wire::{from_cell, to_cell};
use contracts::worker::{AttestationRegistered, LeavePlatform};
use contracts::{HashBytes, Message, Nanoton, Ref, Units};
use tests::engine::{MC_SEQNO, mc_block};
use tests::market::{
    FEES, TIMELOCK_S, TON, assert_all_succeeded, assert_external_refused, assert_refused, hash,
};
use tests::{Market, Terms, Tx, Worker};

/// The registration ended with this reason, what it brought is back with the owner, and the worker has no attestation.
fn assert_registration_refused(market: &Market, worker: &Worker, txs: &[Tx], reason: ContractError) {
    assert_all_succeeded(txs);
    let sent = txs.iter().flat_map(|tx| &tx.out);
    let back = sent.filter(|message| message.to == worker.owner).collect::<Vec<_>>();
    assert_eq!(back.len(), 1, "one message goes back to the owner");
    let refused = RegistrationRefused::from_cell(&back[0].body).unwrap();
    assert_eq!(refused.reason, reason.code(), "expected {reason}");
    assert!(market.worker_state(worker).unwrap().attestation.is_none());
}

/// The same answer about another report.
fn with_report(body: &QuoteVerified, change: impl FnOnce(&mut VerifiedReport)) -> QuoteVerified {
    let mut report = (*body.report).clone();
    change(&mut report);
    QuoteVerified { report: Ref::new(report).unwrap(), ..body.clone() }
}

/// The same answer about a request that names another block or number, bound as the quote would have bound it.
fn rebound(
    market: &Market,
    worker: &Worker,
    body: &QuoteVerified,
    change: impl FnOnce(&mut RegistrationRequest),
) -> QuoteVerified {
    let mut request: RegistrationRequest = from_cell(&body.payload).unwrap();
    change(&mut request);
    let report_data = Bytes(market.binding(worker, &request).report_data());
    let bound = with_report(body, |report| report.report_data = report_data);
    QuoteVerified { payload: to_cell(&request).unwrap(), ..bound }
}

#[test]
fn the_owner_may_register_keys_of_an_admitted_image() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
    assert_all_succeeded(&market.attest(&worker));
    let state = market.worker_state(&worker).unwrap();
    assert_eq!(state.registration_seqno, 1);
    let attestation = state.attestation.unwrap();
    assert_eq!(attestation.receipt_key, public_key(&worker.key));
    assert_eq!(attestation.measurement, market.measurement);
    assert_eq!(attestation.expires_at, market.chain.now + market.network.generation.params.attestation_ttl_s);
    assert_eq!(attestation.evidence.registered_at, market.chain.now);
    assert_eq!(attestation.evidence.quote_digest, hash("quote"));
    let platform = market.platform_storage(market.ppid(&worker)).unwrap();
    let expected = PlatformState { worker_owner: worker.owner.clone(), until: attestation.expires_at };
    assert_eq!(platform.state.unwrap(), expected);
}

#[test]
fn an_attestation_ends_with_the_evidence_it_rests_on() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let end = market.chain.now + 1_000;
    let body = market.quote_verified(&worker, market.measurement);
    let body = with_report(&body, |report| report.expires_at = end);
    assert_all_succeeded(&market.say_as_attestor(&body));
    assert_eq!(market.worker_state(&worker).unwrap().attestation.unwrap().expires_at, end);
}

#[test]
fn an_image_that_is_not_listed_is_refused() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let txs = market.attest_as(&worker, hash("unlisted"));
    assert_registration_refused(&market, &worker, &txs, ContractError::MeasurementNotAdmitted);
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
fn a_platform_that_needs_more_than_the_policy_accepts_is_refused_until_the_owner_accepts_it_after_the_timelock()
 {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let value = Nanoton::new(FEES);
    let outdated = |market: &mut Market| {
        let body = market.quote_verified(&worker, market.measurement);
        with_report(&body, |report| report.needs = needs::SW_HARDENING)
    };
    let body = outdated(&mut market);
    let txs = market.say_as_attestor(&body);
    assert_registration_refused(&market, &worker, &txs, ContractError::PlatformNotAccepted);

    let accept = SetAcceptedNeeds { query_id: 1, needs: needs::SW_HARDENING };
    assert_all_succeeded(&market.tell(&owner, &registry, value, &accept));
    market.chain.wait(TIMELOCK_S - 1);
    let txs = market.say_as_attestor(&body);
    assert_registration_refused(&market, &worker, &txs, ContractError::PlatformNotAccepted);
    market.chain.wait(1);
    assert_all_succeeded(&market.say_as_attestor(&body));
    assert!(market.worker_state(&worker).unwrap().attestation.is_some());

    // What is dropped is dropped at once.
    let drop = SetAcceptedNeeds { query_id: 1, needs: 0 };
    assert_all_succeeded(&market.tell(&owner, &registry, value, &drop));
    let other = market.staked_worker("other");
    let body = market.quote_verified(&other, market.measurement);
    let body = with_report(&body, |report| report.needs = needs::SW_HARDENING);
    let txs = market.say_as_attestor(&body);
    assert_registration_refused(&market, &other, &txs, ContractError::PlatformNotAccepted);
}

#[test]
fn advisories_are_accepted_by_the_owner_alone_after_the_timelock_and_dropped_at_once() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let value = Nanoton::new(FEES);
    let advisories = hash("advisories");
    let body = market.quote_verified(&worker, market.measurement);
    let body = with_report(&body, |report| {
        let mut origin = (*report.origin).clone();
        origin.advisories = advisories;
        report.origin = Ref::new(origin).unwrap();
    });
    let txs = market.say_as_attestor(&body);
    assert_registration_refused(&market, &worker, &txs, ContractError::PlatformNotAccepted);
    let allow = AllowAdvisories { query_id: 1, advisories };
    let stranger = market.person("stranger");
    let txs = market.tell(&stranger, &registry, value, &allow);
    assert_refused(&txs, &registry, ContractError::NotOwner);
    assert_all_succeeded(&market.tell(&owner, &registry, value, &allow));
    let txs = market.say_as_attestor(&body);
    assert_registration_refused(&market, &worker, &txs, ContractError::PlatformNotAccepted);
    market.chain.wait(TIMELOCK_S);
    assert_all_succeeded(&market.tell(
        &owner,
        &registry,
        value,
        &RevokeAdvisories { query_id: 1, advisories },
    ));
    let txs = market.say_as_attestor(&body);
    assert_registration_refused(&market, &worker, &txs, ContractError::PlatformNotAccepted);
    assert_all_succeeded(&market.tell(&owner, &registry, value, &allow));
    market.chain.wait(TIMELOCK_S);
    assert_all_succeeded(&market.say_as_attestor(&body));
    assert!(market.worker_state(&worker).unwrap().attestation.is_some());
}

#[test]
fn report_data_that_binds_anything_else_is_refused() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let other = market.staked_worker("other");
    let body = market.quote_verified(&worker, market.measurement);
    let request: RegistrationRequest = from_cell(&body.payload).unwrap();
    let mut attempts = Vec::new();
    for bit in [0, 255, 256, 511] {
        attempts.push(with_report(&body, |report| report.report_data.0[bit / 8] ^= 1 << (bit % 8)));
    }
    let changed: [fn(&mut RegistrationRequest); 3] = [
        |request| request.receipt_key.0[0] ^= 1,
        |request| request.encryption_key.0[31] ^= 1,
        |request| request.registration_seqno += 1,
    ];
    for change in changed {
        let mut request = request.clone();
        change(&mut request);
        attempts.push(QuoteVerified { payload: to_cell(&request).unwrap(), ..body.clone() });
    }
    for attempt in &attempts {
        let txs = market.say_as_attestor(attempt);
        assert_registration_refused(&market, &worker, &txs, ContractError::WrongBinding);
    }
    // Another owner cannot have it registered as its own.
    let stolen = QuoteVerified { requester: other.owner.clone(), ..body };
    let txs = market.say_as_attestor(&stolen);
    assert_registration_refused(&market, &other, &txs, ContractError::WrongBinding);
}

#[test]
fn the_block_must_be_one_of_the_last_sixteen_hundreds() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let newest = MC_SEQNO / 100 * 100;
    let at = |market: &mut Market, seqno: u32, root_hash: HashBytes| {
        let body = market.quote_verified(&worker, market.measurement);
        let body = rebound(market, &worker, &body, |request| {
            request.mc_seqno = seqno;
            request.mc_root_hash = root_hash;
        });
        market.say_as_attestor(&body)
    };
    for seqno in [newest + 100, newest - 1, newest - 1_600, 1] {
        let txs = at(&mut market, seqno, mc_block(seqno).root_hash);
        assert_registration_refused(&market, &worker, &txs, ContractError::TooLate);
    }
    let txs = at(&mut market, newest, hash("no block"));
    assert_registration_refused(&market, &worker, &txs, ContractError::TooLate);
    assert_all_succeeded(&at(&mut market, newest - 1_500, mc_block(newest - 1_500).root_hash));
    assert!(market.worker_state(&worker).unwrap().attestation.is_some());
}

#[test]
fn a_quote_registers_once() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let body = market.quote_verified(&worker, market.measurement);
    assert_all_succeeded(&market.say_as_attestor(&body));
    let before = market.worker_state(&worker).unwrap();
    let txs = market.say_as_attestor(&body);
    assert_refused(&txs, &worker.address, ContractError::WrongSeqno);
    let back = txs.iter().flat_map(|tx| &tx.out).filter(|message| message.to == worker.owner).count();
    assert_eq!(back, 1, "what the message brought goes back to the owner");
    assert_eq!(market.worker_state(&worker).unwrap(), before);
    assert_all_succeeded(&market.attest(&worker));
    assert_eq!(market.worker_state(&worker).unwrap().registration_seqno, 2);
}

#[test]
fn a_machine_serves_one_worker_until_it_is_left_or_its_attestation_ends() {
    let mut market = Market::open();
    let first = market.worker("first");
    let second = market.staked_worker("second");
    let ppid = market.ppid(&first);
    let on_the_same_machine = |market: &mut Market| {
        let body = market.quote_verified(&second, market.measurement);
        let body = with_report(&body, |report| {
            let mut origin = (*report.origin).clone();
            origin.ppid = ppid;
            report.origin = Ref::new(origin).unwrap();
        });
        market.say_as_attestor(&body)
    };
    let txs = on_the_same_machine(&mut market);
    assert_registration_refused(&market, &second, &txs, ContractError::PlatformTaken);
    // Its own worker may renew.
    assert_all_succeeded(&market.attest(&first));

    let value = Nanoton::new(FEES);
    let platform = market.network.platform_address(ppid).unwrap();
    let txs = market.tell(&second.owner, &platform, value, &LeaveWorker { query_id: 1 });
    assert_refused(&txs, &platform, ContractError::TooEarly);
    let leave = LeavePlatform { query_id: 1, ppid };
    assert_all_succeeded(&market.tell(&first.owner, &first.address, value, &leave));
    assert!(market.worker_state(&first).unwrap().attestation.is_none());
    assert!(market.platform_storage(ppid).is_none(), "a machine that serves nobody keeps nothing");
    assert_all_succeeded(&on_the_same_machine(&mut market));
    assert!(market.worker_state(&second).unwrap().attestation.is_some());

    market.chain.wait(market.network.generation.params.attestation_ttl_s + 1);
    let stranger = market.person("stranger");
    assert_all_succeeded(&market.tell(&stranger, &platform, value, &LeaveWorker { query_id: 1 }));
    assert!(market.platform_storage(ppid).is_none());
}

#[test]
fn a_departure_overtakes_a_registration_that_is_on_its_way() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let on_its_way = market.quote_verified(&worker, market.measurement);
    let leave = LeavePlatform { query_id: 1, ppid: market.ppid(&worker) };
    let (owner, address) = (worker.owner.clone(), worker.address.clone());
    assert_all_succeeded(&market.tell(&owner, &address, Nanoton::new(FEES), &leave));
    let txs = market.say_as_attestor(&on_its_way);
    assert_refused(&txs, &address, ContractError::WrongSeqno);
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
    assert_all_succeeded(&market.attest(&worker));
    assert!(market.worker_state(&worker).unwrap().attestation.is_some());
}

#[test]
fn to_leave_a_machine_that_is_not_ones_own_changes_nothing_and_costs_the_fees() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let other = market.worker("other");
    let attestation = |market: &Market| market.worker_state(&worker).unwrap().attestation;
    let before = attestation(&market);
    for ppid in [market.ppid(&other), Bytes([9; 16])] {
        let held = market.chain.balance(&worker.owner);
        let body = LeavePlatform { query_id: 1, ppid };
        let (owner, address) = (worker.owner.clone(), worker.address.clone());
        let txs = market.tell(&owner, &address, Nanoton::new(FEES), &body);
        assert!(txs.last().unwrap().bounced && txs.last().unwrap().succeeded());
        assert!(held - market.chain.balance(&owner) < u128::from(TON / 40));
        assert_eq!(attestation(&market), before);
    }
    assert!(market.worker_state(&other).unwrap().attestation.is_some());
}

#[test]
fn a_revoked_certificate_ends_the_attestation_at_once() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let value = Nanoton::new(FEES);
    let attestor = market.attestor.clone();
    let revoked = CertificateRevoked { query_id: 1, authority: hash("authority"), serial: Bytes([7; 20]) };
    let stranger = market.person("stranger");
    let txs = market.tell(&stranger, &worker.address, value, &revoked);
    assert_refused(&txs, &worker.address, ContractError::NotSibling);
    for other in [
        CertificateRevoked { serial: Bytes([8; 20]), ..revoked.clone() },
        CertificateRevoked { authority: hash("another"), ..revoked.clone() },
    ] {
        assert_all_succeeded(&market.tell(&attestor, &worker.address, value, &other));
        assert!(market.worker_state(&worker).unwrap().attestation.is_some());
    }
    assert_all_succeeded(&market.tell(&attestor, &worker.address, value, &revoked));
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
    let job = market.post(&client, &worker, &Terms::default());
    assert_external_refused(market.claim(&worker, &job), ContractError::NotAttested);
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
    let enforce =
        EnforceRevocation { query_id: 1, measurement, worker_owner: worker.owner.clone(), generation: None };
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
fn nobody_may_speak_for_the_attestor_the_registry_or_a_platform() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let before = market.worker_state(&worker).unwrap();
    let value = Nanoton::new(FEES);
    let ppid = market.ppid(&worker);
    let platform = market.network.platform_address(ppid).unwrap();
    let registry = market.registry.clone();
    let attestation = market.attestation(&worker, hash("unlisted"));
    let registration_seqno = before.registration_seqno;
    let registered =
        AttestationRegistered { query_id: 1, ppid, registration_seqno, attestation: attestation.clone() };
    let serve =
        ServeWorker { query_id: 1, worker_owner: worker.owner.clone(), registration_seqno, attestation };
    let verified = market.quote_verified(&worker, market.measurement);
    let revoked = MeasurementRevoked { query_id: 1, measurement: market.measurement };
    let stranger = market.person("stranger");
    for sender in [stranger, worker.owner.clone()] {
        let txs = market.tell(&sender, &worker.address, value, &registered);
        assert_refused(&txs, &worker.address, ContractError::NotSibling);
        let txs = market.tell(&sender, &worker.address, value, &revoked);
        assert_refused(&txs, &worker.address, ContractError::NotSibling);
        let txs = market.tell(&sender, &platform, value, &serve);
        assert_refused(&txs, &platform, ContractError::NotSibling);
        let txs = market.tell(&sender, &registry, value, &verified);
        assert_refused(&txs, &registry, ContractError::NotSibling);
    }
    assert_eq!(market.worker_state(&worker).unwrap(), before);
}
