//! Governance: who may change what in the Registry, from when, and what no change reaches.

use contracts::artifacts::{Contract, library};
use contracts::errors::ContractError;
use contracts::job::Payout;
use contracts::model::{SharePaid, WithdrawShares};
use contracts::money::ShareSplit;
use contracts::registry::{
    AcceptOwnership, AllowAdvisories, AllowMeasurement, ApplyProposal, EnforceRevocation, ProposeGeneration,
    RegistrationRefused, RegistryChanged, RetireGeneration, RevokeAdvisories, RevokeMeasurement,
    SetAcceptedNeeds, TransferOwnership, WithdrawProposal,
};
use contracts::worker::{MAX_JOB_LIFE_S, RequestUnbond, WithdrawUnbonded};
use contracts::{Codes, Generation, HashBytes, Message, Nanoton, Params, Prices, Ref, StdAddr, Units};
use tests::engine::StackItem;
use tests::market::{
    FEE_BPS, FEES, PRICES, ROYALTY_BPS, SHARE_BPS, TIMELOCK_S, TON, assert_all_succeeded, assert_refused,
    cell, hash,
};
use tests::{Market, Terms, Tx, Worker};

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

/// Another fee, stake and timelock for the children that come.
pub(crate) fn proposal(market: &Market, timelock_s: u32) -> ProposeGeneration {
    let generation = Generation { fee_bps: FEE_BPS + 100, ..other_generation(market) };
    let generation = Ref::new(generation).unwrap();
    ProposeGeneration { query_id: 1, timelock_s, generation, platform_code: library(Contract::Platform) }
}

fn other_generation(market: &Market) -> Generation {
    let generation = market.registry_storage().generation;
    let params = Params { min_stake: Nanoton::new(15 * TON), ..(*generation.params).clone() };
    Generation { params: Ref::new(params).unwrap(), ..(*generation).clone() }
}

fn change(txs: &[Tx]) -> RegistryChanged {
    txs[0].logged().unwrap()
}

#[test]
fn parameters_change_only_after_the_timelock_in_sight_of_everybody_and_anyone_may_apply_them() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let body = proposal(&market, 7_200);
    let apply = ApplyProposal { query_id: 1 };
    let txs = market.tell(&stranger, &registry, VALUE, &body);
    assert_refused(&txs, &registry, ContractError::NotOwner);
    let txs = market.tell(&stranger, &registry, VALUE, &apply);
    assert_refused(&txs, &registry, ContractError::WrongState);

    let before = market.registry_storage();
    let txs = market.tell(&owner, &registry, VALUE, &body);
    assert_all_succeeded(&txs);
    let from = market.chain.now + TIMELOCK_S;
    let expected =
        RegistryChanged { opcode: ProposeGeneration::OPCODE, subject: body.generation.hash(), from };
    assert_eq!(change(&txs), expected);
    let pending = market.registry_storage();
    assert_eq!(pending.generation, before.generation);
    assert_eq!(pending.timelock_s, TIMELOCK_S);
    let next = pending.upgrades.next.as_deref().unwrap();
    assert_eq!((next.from, next.timelock_s, &next.generation), (from, 7_200, &body.generation));
    // Also by the getter.
    let got = market.chain.get(&registry, "pendingProposal", &[]).unwrap();
    assert_eq!(got[0], StackItem::Int(from.into()));
    assert_eq!(got[2], StackItem::Cell(body.generation.cell().clone()));

    market.chain.wait(TIMELOCK_S - 1);
    for person in [&stranger, &owner] {
        let txs = market.tell(person, &registry, VALUE, &apply);
        assert_refused(&txs, &registry, ContractError::TooEarly);
    }
    market.chain.wait(1);
    let txs = market.tell(&stranger, &registry, VALUE, &apply);
    assert_all_succeeded(&txs);
    assert_eq!(change(&txs).opcode, ApplyProposal::OPCODE);
    let after = market.registry_storage();
    assert_eq!((&after.generation, after.timelock_s), (&body.generation, 7_200));
    assert_eq!(after.upgrades.next, None);
    let served = after.upgrades.earlier.get(before.generation.hash()).unwrap();
    assert_eq!(served, Some(library(Contract::Platform)));
    let txs = market.tell(&stranger, &registry, VALUE, &apply);
    assert_refused(&txs, &registry, ContractError::WrongState);
}

#[test]
fn the_owner_cannot_replace_a_change_under_way_and_may_withdraw_it_at_once() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let body = proposal(&market, TIMELOCK_S);
    let withdraw = WithdrawProposal { query_id: 1 };
    assert_refused(&market.tell(&owner, &registry, VALUE, &withdraw), &registry, ContractError::WrongState);
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &body));
    market.chain.wait(TIMELOCK_S - 1);
    let other = ProposeGeneration { generation: market.registry_storage().generation, ..body.clone() };
    assert_refused(&market.tell(&owner, &registry, VALUE, &other), &registry, ContractError::WrongState);
    assert_refused(&market.tell(&stranger, &registry, VALUE, &withdraw), &registry, ContractError::NotOwner);
    let txs = market.tell(&owner, &registry, VALUE, &withdraw);
    assert_all_succeeded(&txs);
    assert_eq!(change(&txs).opcode, WithdrawProposal::OPCODE);
    // The same again waits as long again.
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &body));
    market.chain.wait(TIMELOCK_S - 1);
    let apply = ApplyProposal { query_id: 1 };
    assert_refused(&market.tell(&owner, &registry, VALUE, &apply), &registry, ContractError::TooEarly);
}

#[test]
fn the_owner_cannot_shorten_the_timelock_of_a_change_under_way() {
    let mut market = Market::open();
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &proposal(&market, 0)));
    market.chain.wait(TIMELOCK_S - 10);
    let allow = AllowMeasurement { query_id: 1, measurement: hash("image") };
    let advisories = AllowAdvisories { query_id: 1, advisories: hash("advisories") };
    let needs = SetAcceptedNeeds { query_id: 1, needs: 1 };
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &allow));
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &advisories));
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &needs));
    let from = market.chain.now + TIMELOCK_S;
    market.chain.wait(10);
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &ApplyProposal { query_id: 1 }));
    assert_eq!(market.registry_storage().timelock_s, 0);
    // Nor by saying it again under the shorter one.
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &allow));
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &advisories));
    let storage = market.registry_storage();
    assert_eq!(storage.measurements.get(hash("image")).unwrap(), Some(from));
    assert_eq!(storage.policy.advisories.get(hash("advisories")).unwrap(), Some(from));
    assert_eq!((storage.policy.next_from, storage.policy.accepted(from - 1)), (from, 0));
}

#[test]
fn a_generation_that_contradicts_itself_is_refused() {
    let mut market = Market::open();
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let sound = proposal(&market, TIMELOCK_S);
    let generation = (*sound.generation).clone();
    let of = |generation| ProposeGeneration { generation: Ref::new(generation).unwrap(), ..sound.clone() };
    let with = |params| of(Generation { params: Ref::new(params).unwrap(), ..generation.clone() });
    let params = (*generation.params).clone();
    let far = |workchain| StdAddr { workchain, ..params.treasury.clone() };
    for wrong in [
        of(Generation { network_id: -239, ..generation.clone() }),
        of(Generation { fee_bps: 8_001, ..generation.clone() }),
        with(Params { treasury: far(5), ..params.clone() }),
        with(Params { attestor: far(-1), ..params.clone() }),
        ProposeGeneration { platform_code: library(Contract::Job), ..sound.clone() },
        ProposeGeneration { timelock_s: 365 * 86_400 + 1, ..sound.clone() },
    ] {
        let txs = market.tell(&owner, &registry, VALUE, &wrong);
        assert_refused(&txs, &registry, ContractError::BadGeneration);
    }
    let edge = ProposeGeneration {
        timelock_s: 365 * 86_400,
        ..of(Generation { fee_bps: 8_000, ..generation.clone() })
    };
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &edge));
}

/// A market whose owner has applied another generation, with a worker of the one before.
fn upgraded() -> (Market, Worker, Ref<Generation>) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let earlier = market.registry_storage().generation;
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &proposal(&market, TIMELOCK_S)));
    market.chain.wait(TIMELOCK_S);
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &ApplyProposal { query_id: 1 }));
    (market, worker, earlier)
}

#[test]
fn a_change_of_parameters_reaches_no_job_no_stake_and_no_share_that_exists() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let prices = Prices { output: Nanoton::new(TON), ..PRICES };
    let terms = Terms { prices, wait_s: 86_400, settle_within_s: 86_400, ..Terms::default() };
    let claimed = market.claimed(&client, &worker, &terms);
    let session = market.session(&client, &worker, &terms);
    let (owner, registry, model) = (market.owner.clone(), market.registry.clone(), market.model.clone());
    let held = |market: &Market| {
        let accounts = [&claimed.address, &session.address, &worker.address, &model];
        accounts.map(|account| (market.chain.balance(account), market.chain.data(account)))
    };
    let before = held(&market);
    let revoke = RevokeMeasurement { query_id: 1, measurement: market.measurement };
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &proposal(&market, 0)));
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &revoke));
    assert_eq!(held(&market), before);
    market.chain.wait(TIMELOCK_S);
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &ApplyProposal { query_id: 1 }));
    assert_eq!(held(&market), before);

    // The job pays by the terms it was posted with.
    let units = Units { output: 500, ..Units::default() };
    let receipt = market.receipt(&claimed, units);
    let txs = market.settle(&worker, &claimed, receipt).unwrap();
    let share = txs[0].out.iter().find(|sent| sent.read::<SharePaid>().is_some()).unwrap();
    let gas = market.prices().gas(contracts::fees::GAS_MODEL_SHARE).get();
    assert_eq!(share.value - gas, u128::from(TON / 2) * u128::from(SHARE_BPS) / 10_000);
    let receipt = market.session_receipt(&session, 1, TON / 2, true);
    assert_all_succeeded(&market.redeem(&worker, &session, receipt, TON).unwrap());
    // The model splits by the fee of its own generation, to the treasury of its own generation.
    let txs = market.tell(&client, &model, VALUE, &WithdrawShares { query_id: 1 });
    let paid = |to: &StdAddr| -> u128 {
        let sent = txs.iter().flat_map(|tx| &tx.out);
        sent.filter(|sent| sent.to == *to && sent.read::<Payout>().is_some()).map(|sent| sent.value).sum()
    };
    let (royalty, fee) = (paid(&market.publisher), paid(&market.treasury));
    let split = ShareSplit::of(Nanoton::checked(royalty + fee).unwrap(), ROYALTY_BPS, FEE_BPS);
    assert_eq!((royalty, fee), (split.to_publisher.get(), split.to_treasury.get()));
    // And the stake leaves as it came.
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(20 * TON) };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &unbond));
    market.chain.wait(MAX_JOB_LIFE_S);
    let take = WithdrawUnbonded { query_id: 1 };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &take));
    assert_eq!(market.chain.balance(&worker.address), 0);
}

#[test]
fn a_worker_of_an_earlier_generation_registers_until_the_owner_retires_it() {
    let (mut market, worker, earlier) = upgraded();
    let stranger = market.person("stranger");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let measurement = market.measurement;
    let seqno = |market: &Market| market.worker_state(&worker).unwrap().registration_seqno;
    let before = seqno(&market);
    // Without its generation it is taken for one of the newest.
    let txs = market.attest_of(&worker, measurement, None);
    assert_eq!(txs[0].sent::<RegistrationRefused>().unwrap().reason, ContractError::WrongBinding.code());
    assert_all_succeeded(&market.attest_of(&worker, measurement, Some(earlier.clone())));
    assert_eq!(seqno(&market), before + 1);
    // Of no generation that ever was.
    let unknown = Generation { bond_bps: 1, ..(*earlier).clone() };
    let txs = market.attest_of(&worker, measurement, Some(Ref::new(unknown).unwrap()));
    assert_eq!(txs[0].sent::<RegistrationRefused>().unwrap().reason, ContractError::WrongNetwork.code());

    let retire = RetireGeneration { query_id: 1, generation: earlier.hash() };
    assert_refused(&market.tell(&stranger, &registry, VALUE, &retire), &registry, ContractError::NotOwner);
    let txs = market.tell(&owner, &registry, VALUE, &retire);
    assert_all_succeeded(&txs);
    assert_eq!(change(&txs).opcode, RetireGeneration::OPCODE);
    let txs = market.attest_of(&worker, measurement, Some(earlier));
    assert_eq!(txs[0].sent::<RegistrationRefused>().unwrap().reason, ContractError::WrongNetwork.code());
    assert_eq!(seqno(&market), before + 1);
}

#[test]
fn a_worker_of_the_newest_generation_may_name_it() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let generation = market.registry_storage().generation;
    let measurement = market.measurement;
    assert_all_succeeded(&market.attest_of(&worker, measurement, Some(generation)));
}

#[test]
fn a_revocation_reaches_workers_of_every_generation_retired_or_not() {
    let (mut market, worker, earlier) = upgraded();
    let stranger = market.person("stranger");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let measurement = market.measurement;
    let revoke = RevokeMeasurement { query_id: 1, measurement };
    let enforce = EnforceRevocation {
        query_id: 1,
        measurement,
        worker_owner: worker.owner.clone(),
        generation: Some(earlier.clone()),
    };
    let txs = market.tell(&stranger, &registry, VALUE, &enforce);
    assert_refused(&txs, &registry, ContractError::WrongState);
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &revoke));
    let retire = RetireGeneration { query_id: 1, generation: earlier.hash() };
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &retire));
    assert!(market.worker_state(&worker).unwrap().attestation.is_some());
    assert_all_succeeded(&market.tell(&stranger, &registry, VALUE, &enforce));
    assert!(market.worker_state(&worker).unwrap().attestation.is_none());
}

#[test]
fn every_change_of_the_registry_leaves_a_log_and_what_changes_nothing_leaves_none() {
    let mut market = Market::open();
    let heir = market.person("heir");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let (image, list) = (hash("image"), hash("advisories"));
    let (now, later) = (market.chain.now, market.chain.now + TIMELOCK_S);
    let needs = HashBytes({
        let mut bytes = [0; 32];
        bytes[31] = 3;
        bytes
    });
    let said = [
        market.tell(&owner, &registry, VALUE, &AllowMeasurement { query_id: 1, measurement: image }),
        market.tell(&owner, &registry, VALUE, &RevokeMeasurement { query_id: 1, measurement: image }),
        market.tell(&owner, &registry, VALUE, &AllowAdvisories { query_id: 1, advisories: list }),
        market.tell(&owner, &registry, VALUE, &RevokeAdvisories { query_id: 1, advisories: list }),
        market.tell(&owner, &registry, VALUE, &SetAcceptedNeeds { query_id: 1, needs: 3 }),
        market.tell(&owner, &registry, VALUE, &TransferOwnership { query_id: 1, new_owner: None }),
        market.tell(
            &owner,
            &registry,
            VALUE,
            &TransferOwnership { query_id: 1, new_owner: Some(heir.clone()) },
        ),
        market.tell(&heir, &registry, VALUE, &AcceptOwnership { query_id: 1 }),
    ];
    let logged: Vec<_> =
        said.iter().map(|txs| change(txs)).map(|log| (log.opcode, log.subject, log.from)).collect();
    let expected = [
        (AllowMeasurement::OPCODE, image, later),
        (RevokeMeasurement::OPCODE, image, now),
        (AllowAdvisories::OPCODE, list, later),
        (RevokeAdvisories::OPCODE, list, now),
        (SetAcceptedNeeds::OPCODE, needs, later),
        (TransferOwnership::OPCODE, HashBytes::ZERO, now),
        (TransferOwnership::OPCODE, heir.address, now),
        (AcceptOwnership::OPCODE, heir.address, now),
    ];
    assert_eq!(logged, expected);
    let known = market.measurement;
    let nothing = [
        market.tell(&heir, &registry, VALUE, &AllowMeasurement { query_id: 1, measurement: known }),
        market.tell(&heir, &registry, VALUE, &RevokeMeasurement { query_id: 1, measurement: image }),
        market.tell(&heir, &registry, VALUE, &RevokeAdvisories { query_id: 1, advisories: list }),
        market.tell(&heir, &registry, VALUE, &RetireGeneration { query_id: 1, generation: image }),
    ];
    for txs in &nothing {
        assert_all_succeeded(txs);
        assert!(txs[0].logs.is_empty());
    }
}

#[test]
fn any_contract_may_own_the_registry() {
    // A wallet's code is no part of what the Registry knows of its owner: here another contract's account speaks.
    let mut market = Market::open();
    let (owner, registry, multisig) = (market.owner.clone(), market.registry.clone(), {
        let mut address = market.person("multisig");
        address.workchain = -1;
        address
    });
    market.chain.adopt(&multisig, Nanoton::new(10 * TON));
    let offer = TransferOwnership { query_id: 1, new_owner: Some(multisig.clone()) };
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &offer));
    assert_all_succeeded(&market.tell(&multisig, &registry, VALUE, &AcceptOwnership { query_id: 1 }));
    let allow = AllowMeasurement { query_id: 1, measurement: hash("image") };
    assert_all_succeeded(&market.tell(&multisig, &registry, VALUE, &allow));
    assert_refused(&market.tell(&owner, &registry, VALUE, &allow), &registry, ContractError::NotOwner);
}

#[test]
fn what_a_message_to_the_registry_brings_above_its_fees_comes_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let heir = market.person("heir");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let (image, list) = (hash("image"), hash("advisories"));
    let earlier = market.registry_storage().generation.hash();
    let body = proposal(&market, TIMELOCK_S);
    let enforce = EnforceRevocation {
        query_id: 1,
        measurement: hash("unlisted"),
        worker_owner: worker.owner.clone(),
        generation: None,
    };
    let mut say = |from: &StdAddr, body: contracts::Cell| {
        let before = market.chain.balance(from);
        let txs = market.chain.send(from, &registry, VALUE, body, None);
        assert_all_succeeded(&txs);
        let spent = before - market.chain.balance(from);
        assert!(spent < u128::from(TON / 50), "{} kept {spent}", txs[0].operation());
        market.chain.wait(TIMELOCK_S);
    };
    say(&owner, cell(&AllowMeasurement { query_id: 1, measurement: image }));
    say(&owner, cell(&RevokeMeasurement { query_id: 1, measurement: image }));
    say(&owner, cell(&AllowAdvisories { query_id: 1, advisories: list }));
    say(&owner, cell(&RevokeAdvisories { query_id: 1, advisories: list }));
    say(&owner, cell(&SetAcceptedNeeds { query_id: 1, needs: 1 }));
    say(&heir, cell(&enforce));
    say(&owner, cell(&body));
    say(&owner, cell(&WithdrawProposal { query_id: 1 }));
    say(&owner, cell(&body));
    say(&heir, cell(&ApplyProposal { query_id: 1 }));
    say(&owner, cell(&RetireGeneration { query_id: 1, generation: earlier }));
    say(&owner, cell(&TransferOwnership { query_id: 1, new_owner: Some(heir.clone()) }));
    say(&heir, cell(&AcceptOwnership { query_id: 1 }));
}

#[test]
fn a_stranger_changes_nothing_in_the_registry_and_a_comment_comes_back() {
    let mut market = Market::open();
    let stranger = market.person("stranger");
    let registry = market.registry.clone();
    let before = market.registry_storage();
    let (image, list) = (hash("image"), hash("advisories"));
    for body in [
        cell(&AllowMeasurement { query_id: 1, measurement: image }),
        cell(&RevokeMeasurement { query_id: 1, measurement: market.measurement }),
        cell(&AllowAdvisories { query_id: 1, advisories: list }),
        cell(&RevokeAdvisories { query_id: 1, advisories: list }),
        cell(&SetAcceptedNeeds { query_id: 1, needs: 7 }),
        cell(&TransferOwnership { query_id: 1, new_owner: Some(stranger.clone()) }),
        cell(&AcceptOwnership { query_id: 1 }),
        cell(&proposal(&market, 0)),
        cell(&WithdrawProposal { query_id: 1 }),
        cell(&RetireGeneration { query_id: 1, generation: image }),
    ] {
        let txs = market.chain.send(&stranger, &registry, VALUE, body, None);
        assert_refused(&txs, &registry, ContractError::NotOwner);
    }
    let comment = market.write(&stranger, &registry, VALUE, contracts::comment::Word::Withdraw);
    assert_refused(&comment, &registry, ContractError::UnknownMessage);
    assert_eq!(market.registry_storage(), before);
}

#[test]
fn who_enforces_a_revocation_pays_for_it_to_the_nanoton() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let stranger = market.person("stranger");
    let registry = market.registry.clone();
    let body = EnforceRevocation {
        query_id: 1,
        measurement: hash("unlisted"),
        worker_owner: worker.owner.clone(),
        generation: None,
    };
    let prices = market.prices();
    let order = prices.gas(contracts::fees::GAS_WORKER_SIMPLE);
    let mut least = prices.gas(contracts::fees::GAS_REGISTRY_ENFORCE).checked_add(order).unwrap();
    for _ in 0..2 {
        least = least.checked_add(prices.forward(0, 0)).unwrap();
    }
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let txs = market.tell(&stranger, &registry, short, &body);
    assert_refused(&txs, &registry, ContractError::ValueTooLow);
    let before = market.chain.balance(&registry);
    let txs = market.tell(&stranger, &registry, least, &body);
    assert_all_succeeded(&txs);
    assert_eq!(txs[0].out[0].value, order.get());
    assert!(market.chain.balance(&registry) + 1_000_000 >= before);
}

#[test]
fn a_new_generation_comes_with_its_own_platforms_code() {
    let mut market = Market::open();
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let before = market.registry_storage();
    let platform_code = library(Contract::Job);
    let codes = Codes { platform: *platform_code.repr_hash(), ..*before.generation.codes };
    let generation = Generation { codes: Ref::new(codes).unwrap(), ..(*before.generation).clone() };
    let generation = Ref::new(generation).unwrap();
    let body = ProposeGeneration { platform_code: platform_code.clone(), generation, ..proposal(&market, 0) };
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &body));
    market.chain.wait(TIMELOCK_S);
    assert_all_succeeded(&market.tell(&owner, &registry, VALUE, &ApplyProposal { query_id: 1 }));
    let upgrades = market.registry_storage().upgrades;
    assert_eq!(upgrades.platform_code, platform_code);
    let served = upgrades.earlier.get(before.generation.hash()).unwrap();
    assert_eq!(served, Some(library(Contract::Platform)));
}

#[test]
fn needs_that_are_accepted_stay_so_while_others_wait() {
    let mut market = Market::open();
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    market.tell(&owner, &registry, VALUE, &SetAcceptedNeeds { query_id: 1, needs: 1 });
    market.chain.wait(TIMELOCK_S);
    market.tell(&owner, &registry, VALUE, &SetAcceptedNeeds { query_id: 1, needs: 3 });
    let (policy, now) = (market.registry_storage().policy, market.chain.now);
    assert_eq!((policy.accepted(now), policy.accepted(now + TIMELOCK_S)), (1, 3));
}
