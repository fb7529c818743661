//! Every get-method of the contracts, called on the local VM: what it returns is what the storage holds, field by field.

use std::collections::BTreeSet;

use contracts::registry::ApplyProposal;
use contracts::wire::{from_cell, to_cell};
use contracts::worker::{Offer, WorkerHistory};
use contracts::{Cell, HashBytes, Nanoton, Network, StdAddr};
use num_bigint::BigInt;
use tests::engine::StackItem;
use tests::market::{FEES, PRICES, ROYALTY_BPS, TIMELOCK_S, assert_all_succeeded, hash};
use tests::{Market, Terms};

const SOURCES: [(&str, &str); 5] = [
    ("registry", include_str!("../../../contracts/registry.tolk")),
    ("model", include_str!("../../../contracts/model.tolk")),
    ("worker", include_str!("../../../contracts/worker.tolk")),
    ("platform", include_str!("../../../contracts/platform.tolk")),
    ("job", include_str!("../../../contracts/job.tolk")),
];

fn int(value: impl Into<BigInt>) -> StackItem {
    StackItem::Int(value.into())
}

fn flag(value: bool) -> StackItem {
    int(if value { -1 } else { 0 })
}

fn number(hash: &HashBytes) -> BigInt {
    BigInt::from_bytes_be(num_bigint::Sign::Plus, &hash.0)
}

fn address(address: &StdAddr) -> StackItem {
    StackItem::Slice(to_cell(address).unwrap())
}

/// Calls get-methods and remembers which.
struct Caller<'a> {
    market: &'a Market,
    called: BTreeSet<(&'static str, String)>,
}

impl Caller<'_> {
    fn get(
        &mut self,
        contract: &'static str,
        at: &StdAddr,
        method: &str,
        arguments: &[BigInt],
    ) -> Vec<StackItem> {
        self.called.insert((contract, method.to_owned()));
        let left = self.market.chain.get(at, method, arguments);
        left.unwrap_or_else(|| panic!("{contract} {method} failed"))
    }
}

fn a_cell(items: &[StackItem]) -> &Cell {
    match items {
        [StackItem::Cell(cell)] => cell,
        other => panic!("not one cell: {other:?}"),
    }
}

#[test]
fn every_getter_returns_what_the_storage_holds() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.claimed(&client, &worker, &Terms::default());
    let (owner, registry, model) = (market.owner.clone(), market.registry.clone(), market.model.clone());
    let value = Nanoton::new(FEES);
    let earlier = market.registry_storage().generation;
    let proposal = crate::registry::proposal(&market, TIMELOCK_S);
    assert_all_succeeded(&market.tell(&owner, &registry, value, &proposal));
    market.chain.wait(TIMELOCK_S);
    assert_all_succeeded(&market.tell(&owner, &registry, value, &ApplyProposal { query_id: 1 }));
    assert_all_succeeded(&market.tell(&owner, &registry, value, &proposal));
    let platform = market.network.platform_address(market.ppid(&worker)).unwrap();
    let mut caller = Caller { market: &market, called: BTreeSet::new() };

    let storage = market.registry_storage();
    let state = caller.get("registry", &registry, "registryState", &[]);
    let next = storage.upgrades.next.clone().unwrap();
    // A null address beside a type tag: nobody waits for the ownership.
    assert_eq!(state[0], address(&owner));
    let tail: Vec<StackItem> = state[state.len() - 6..].to_vec();
    let measurements = storage.measurements.root().clone().unwrap();
    assert_eq!(
        tail,
        [
            int(1),
            int(TIMELOCK_S),
            StackItem::Cell(storage.generation.cell().clone()),
            StackItem::Cell(measurements),
            StackItem::Cell(storage.policy.cell().clone()),
            StackItem::Cell(storage.upgrades.cell().clone()),
        ]
    );
    let network: Network = from_cell(a_cell(&caller.get("registry", &registry, "network", &[]))).unwrap();
    assert_eq!(network, storage.network(registry.clone()));
    let pending = caller.get("registry", &registry, "pendingProposal", &[]);
    assert_eq!(
        pending[..4],
        [
            int(next.from),
            int(next.timelock_s),
            StackItem::Cell(next.generation.cell().clone()),
            StackItem::Cell(next.platform_code.clone()),
        ]
    );
    for (generation, served) in [(earlier.hash(), true), (storage.generation.hash(), false)] {
        let answer = caller.get("registry", &registry, "isServed", &[number(&generation)]);
        assert_eq!(answer, [flag(served)]);
    }
    let known = number(&market.measurement);
    assert_eq!(caller.get("registry", &registry, "admittedFrom", &[known]), [int(0)]);

    let state = market.model_state().unwrap();
    let got = caller.get("model", &model, "modelState", &[]);
    assert_eq!(got[0], address(&market.publisher));
    let tail: Vec<StackItem> = got[got.len() - 5..].to_vec();
    let metadata = StackItem::Cell(state.metadata.cell().clone());
    assert_eq!(tail, [int(ROYALTY_BPS), int(state.unit as u8), flag(false), flag(false), metadata]);
    let network: Network = from_cell(a_cell(&caller.get("model", &model, "network", &[]))).unwrap();
    assert_eq!(network, market.network);
    assert_eq!(caller.get("model", &model, "modelId", &[]), [int(number(&market.model_id))]);

    let state = market.worker_state(&worker).unwrap();
    let got = caller.get("worker", &worker.address, "workerState", &[]);
    let attestation = state.attestation.clone().unwrap();
    assert_eq!(
        got,
        [
            int(state.stake.get()),
            int(0),
            int(0),
            int(state.claim_seqno),
            int(state.registration_seqno),
            int(0),
            flag(false),
            StackItem::Cell(attestation.cell().clone()),
            StackItem::Cell(state.offers.root().clone().unwrap()),
            StackItem::Cell(state.history.cell().clone()),
        ]
    );
    from_cell::<WorkerHistory>(state.history.cell()).unwrap();
    assert_eq!(caller.get("worker", &worker.address, "owner", &[]), [address(&worker.owner)]);
    let network: Network = from_cell(a_cell(&caller.get("worker", &worker.address, "network", &[]))).unwrap();
    assert_eq!(network, market.network);
    let offer = caller.get("worker", &worker.address, "offer", &[number(&market.model_id)]);
    assert_eq!(from_cell::<Offer>(a_cell(&offer)).unwrap().prices, PRICES);
    let none = caller.get("worker", &worker.address, "offer", &[number(&hash("unknown"))]);
    assert_eq!(none, [StackItem::Null]);
    let (deposit, units) = (BigInt::from(5_000), contracts::Units { input: 70, cached_input: 0, output: 30 });
    let arguments = [deposit.clone(), 70.into(), 30.into()];
    let least = caller.get("worker", &worker.address, "minJobValue", &arguments);
    assert_eq!(least, [int(5_000 + market.prices().posting(&units).get())]);
    let least = caller.get("worker", &worker.address, "minSessionValue", &[deposit]);
    assert_eq!(least, [int(5_000 + market.prices().session().get())]);

    let served = caller.get("platform", &platform, "platformState", &[]);
    assert_eq!(served[..2], [address(&worker.owner), int(attestation.expires_at)]);

    let state = market.job_state(&job).unwrap();
    let got = caller.get("job", &job.address, "jobState", &[]);
    assert_eq!(
        got[..9],
        [
            address(&client),
            int(job.nonce),
            flag(true),
            int(state.status as u8),
            int(state.until),
            int(state.deposit.get()),
            int(state.bond.get()),
            int(state.paid.get()),
            int(state.sequence),
        ]
    );
    let posting = &state.posting;
    let units = posting.limits.max_units;
    assert_eq!(
        got[9..14],
        [
            int(posting.posted_lt),
            int(units.input),
            int(units.cached_input),
            int(units.output),
            int(posting.limits.least_bond.get()),
        ]
    );
    let StackItem::Cell(seller) = &got[14] else { panic!("{:?}", got[14]) };
    assert_eq!(Some(seller), posting.seller.as_ref().map(|seller| seller.cell()));

    let methods: BTreeSet<(&str, String)> = SOURCES
        .iter()
        .flat_map(|(name, text)| text.lines().map(move |line| (*name, line)))
        .filter_map(|(name, line)| Some((name, line.strip_prefix("get fun ")?.split('(').next()?.to_owned())))
        .collect();
    assert_eq!(caller.called, methods);
}
