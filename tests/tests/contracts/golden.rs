//! A cell built by Tolk and one built by Rust hash the same.

use contracts::job::{JobForfeited, JobPaid, JobPosted, JobRefund, JobReturned, TakeJob};
use contracts::model::{AskRoyalty, ModelStorage, RoyaltyQuoted, SharePaid};
use contracts::platform::ServeWorker;
use contracts::registry::{MeasurementRevoked, RegistrationRefused, RegistryStorage};
use contracts::wire::{from_cell, to_cell};
use contracts::worker::{AttestationRegistered, WorkerStorage};
use contracts::{Cell, Message, Units};
use tests::market::{FEES, hash};
use tests::{Market, Terms, Tx};
use tycho_types::cell::{Load, Store};

/// Children are kept as cells, so each of them is checked by a call of its own.
fn same<T: Store + for<'a> Load<'a>>(built_by_tolk: &Cell) {
    let value: T = from_cell(built_by_tolk).unwrap();
    assert_eq!(to_cell(&value).unwrap().repr_hash(), built_by_tolk.repr_hash());
}

fn same_message<M: Message + PartialEq + std::fmt::Debug>(txs: &[Tx]) -> M {
    let (sent, message) = txs
        .iter()
        .flat_map(|tx| &tx.out)
        .find_map(|sent| sent.read::<M>().map(|message| (sent, message)))
        .unwrap_or_else(|| panic!("no contract sent {}", M::NAME));
    assert_eq!(message.to_cell().unwrap().repr_hash(), sent.body.repr_hash());
    message
}

#[test]
fn storage_written_by_the_contracts_reads_and_writes_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &Terms::default());
    let receipt = market.receipt(&job, Units { input: 3, cached_input: 2, output: 1 });
    market.settle(&worker, &job, receipt).unwrap();

    let data = market.chain.data(&market.registry).unwrap();
    same::<RegistryStorage>(&data);
    let storage: RegistryStorage = from_cell(&data).unwrap();
    same::<contracts::Params>(storage.params.cell());
    same::<contracts::Codes>(storage.params.codes.cell());
    same::<contracts::network::AttestationParams>(storage.params.attestation.cell());
    same::<contracts::registry::PlatformPolicy>(storage.policy.cell());

    let data = market.chain.data(&market.model).unwrap();
    same::<ModelStorage>(&data);
    let storage: ModelStorage = from_cell(&data).unwrap();
    let state = storage.state.unwrap();
    same::<contracts::Network>(storage.network.cell());
    same::<contracts::model::ModelState>(state.cell());
    same::<contracts::Snake>(state.metadata.cell());

    let data = market.chain.data(&worker.address).unwrap();
    same::<WorkerStorage>(&data);
    let storage: WorkerStorage = from_cell(&data).unwrap();
    let state = storage.state.unwrap();
    same::<contracts::worker::WorkerState>(state.cell());
    let attestation = state.attestation.clone().unwrap();
    same::<contracts::worker::Attestation>(attestation.cell());
    same::<contracts::worker::Evidence>(attestation.evidence.cell());
    let platform = market.platform_storage(market.ppid(&worker)).unwrap();
    same::<contracts::platform::PlatformStorage>(&to_cell(&platform).unwrap());
    same::<contracts::platform::PlatformState>(platform.state.unwrap().cell());
    let offer = state.offers.get(market.model_id).unwrap().unwrap();
    same::<contracts::worker::Offer>(offer.cell());

    let data = market.chain.data(&job.address).unwrap();
    same::<contracts::job::JobStorage>(&data);
    let state = market.job_state(&job).unwrap();
    same::<contracts::job::JobTerms>(state.terms.cell());
    same::<contracts::job::JobLimits>(state.terms.limits.cell());
    let claim = state.claim.unwrap();
    same::<contracts::job::Claim>(claim.cell());
    same::<contracts::Prices>(claim.prices.cell());
    same::<contracts::job::Settlement>(state.settlement.unwrap().cell());
}

#[test]
fn messages_between_contracts_read_and_write_back() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    market.fund_gas(&worker, contracts::Nanoton::new(1_000_000_000));
    let txs = market.attest(&worker);
    let served: ServeWorker = same_message(&txs);
    let registered: AttestationRegistered = same_message(&txs);
    assert_eq!(served.attestation, registered.attestation);
    let txs = market.attest_as(&worker, hash("unlisted"));
    same_message::<RegistrationRefused>(&txs);
    let txs = market.offer(&worker, tests::market::PRICES);
    let ask: AskRoyalty = same_message(&txs);
    assert_eq!(ask.worker_owner, worker.owner);
    same_message::<RoyaltyQuoted>(&txs);

    let client = market.person("client");
    let (job, txs) = market.try_post(&client, &worker, &Terms::default());
    same_message::<JobPosted>(&txs);
    let txs = market.claim(&worker, &job).unwrap();
    same_message::<TakeJob>(&txs);
    let units = Units { input: 500, cached_input: 0, output: 500 };
    let receipt = market.receipt(&job, units);
    let txs = market.settle(&worker, &job, receipt).unwrap();
    same_message::<JobPaid>(&txs);
    same_message::<SharePaid>(&txs);
    same_message::<JobRefund>(&txs);

    let job = market.claimed(&client, &worker, &Terms::default());
    let rejection = market.rejection(&job, 1);
    let txs = market.reject(&worker, &job, rejection).unwrap();
    same_message::<JobReturned>(&txs);

    let job = market.claimed(&client, &worker, &Terms::default());
    market.chain.wait(601);
    let txs = market.expire(&client, &job);
    same_message::<JobForfeited>(&txs);

    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let value = contracts::Nanoton::new(FEES);
    let unlisted = hash("never listed");
    let enforce = contracts::registry::EnforceRevocation {
        query_id: 9,
        measurement: unlisted,
        worker_owner: worker.owner.clone(),
    };
    let txs = market.tell(&owner, &registry, value, &enforce);
    same_message::<MeasurementRevoked>(&txs);
}

#[test]
fn addresses_computed_in_rust_are_those_the_contracts_compute() {
    // The Registry sends its order to the address it computes for the worker.
    let mut market = Market::open();
    let worker = market.worker("worker");
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let enforce = contracts::registry::EnforceRevocation {
        query_id: 9,
        measurement: hash("never listed"),
        worker_owner: worker.owner.clone(),
    };
    let txs = market.tell(&owner, &registry, contracts::Nanoton::new(FEES), &enforce);
    assert_eq!(txs[0].out[0].to, worker.address);
    // The Worker sends its claim to the address it computes for the job, the Job its share to the model's.
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    let txs = market.claim(&worker, &job).unwrap();
    assert_eq!(txs[0].out[0].to, job.address);
    let units = Units { input: 500, cached_input: 0, output: 500 };
    let receipt = market.receipt(&job, units);
    let txs = market.settle(&worker, &job, receipt).unwrap();
    assert!(txs[0].out.iter().any(|sent| sent.to == market.model));
}
