//! A cell built by Tolk and one built by Rust hash the same, and both compute the same addresses and fees.

use std::collections::BTreeSet;

use contracts::artifacts::{self, Contract};
use contracts::job::*;
use contracts::job_log::*;
use contracts::model::{AskRoyalty, ModelState, ModelStorage, RoyaltyQuoted, SharePaid, WithdrawShares};
use contracts::money::{ShareSplit, Split};
use contracts::network::{WORKCHAIN, job_address};
use contracts::platform::{LeaveWorker, PlatformStorage, ServeWorker};
use contracts::registry::{
    ApplyProposal, EnforceRevocation, MeasurementRevoked, PlatformPolicy, Proposal, RegistrationRefused,
    RegistryChanged, RegistryStorage, RetireGeneration, Upgrades,
};
use contracts::wire::{Signature, from_cell, to_cell};
use contracts::worker::*;
use contracts::{
    Amount, Cell, CodeRef, Codes, Generation, Message, Nanoton, Network, Params, Ref, Snake, StdAddr, Units,
};
use tests::market::{FEES, PRICES, SHARE_BPS, TON, assert_all_succeeded, cell, hash};
use tests::{Job, Kind, Market, Terms, Tx, Worker};
use tycho_types::cell::{CellType, Load, Store};
use tycho_types::models::AccountState;

/// So dear that the share is worth sending.
const DEAR: contracts::Prices = contracts::Prices { output: Nanoton::new(200_000_000), ..PRICES };
const UNITS: Units = Units { input: 500, cached_input: 300, output: 200 };

/// Children are kept as cells, so each of them is checked by a call of its own.
fn same<T: Store + for<'a> Load<'a>>(built_by_tolk: &Cell) -> T {
    let value: T = from_cell(built_by_tolk).unwrap();
    assert_eq!(to_cell(&value).unwrap().repr_hash(), built_by_tolk.repr_hash());
    value
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

fn same_log<M: Message + PartialEq + std::fmt::Debug>(txs: &[Tx]) -> M {
    let (body, message) = txs
        .iter()
        .flat_map(|tx| &tx.logs)
        .find_map(|body| M::from_cell(body).ok().map(|message| (body, message)))
        .unwrap_or_else(|| panic!("no contract logged {}", M::NAME));
    assert_eq!(message.to_cell().unwrap().repr_hash(), body.repr_hash());
    message
}

/// The job's storage with all that hangs from it.
fn same_job(market: &Market, job: &Job) -> JobState {
    let storage: JobStorage = same(&market.chain.data(&job.address).unwrap());
    assert_eq!((&storage.client, storage.nonce), (&job.client, job.nonce));
    let state = storage.state.unwrap();
    if let Some(seller) = &state.posting.seller {
        same::<Seller>(seller.cell());
    }
    if let Some(special) = &state.posting.special {
        same::<JobSpecial>(special.cell());
    }
    if let Some(terms) = state.posting.market() {
        same::<MarketNetwork>(terms.network.cell());
    }
    state
}

fn posted(market: &mut Market, job: &Job) -> Vec<Tx> {
    let value = market.value_of(job);
    market.post_draft(&job.client.clone(), job, value)
}

fn tell<M: Message>(market: &mut Market, from: &StdAddr, to: &StdAddr, body: &M) -> Vec<Tx> {
    market.tell(from, to, Nanoton::new(FEES), body)
}

#[test]
fn storage_of_registry_model_worker_and_platform_reads_and_writes_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let set = SetOperator { query_id: 1, account: Some(Ref::new(hash_address("operator")).unwrap()) };
    assert_all_succeeded(&tell(&mut market, &worker.owner, &worker.address, &set));
    let endpoint = Some(Ref::new(Snake::new(b"worker.example:443".to_vec()).unwrap()).unwrap());
    let set = SetEndpoint { query_id: 1, endpoint };
    assert_all_succeeded(&tell(&mut market, &worker.owner, &worker.address, &set));
    let pause = PauseWorker { query_id: 1, paused: true };
    assert_all_succeeded(&tell(&mut market, &worker.owner, &worker.address, &pause));
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(TON) };
    assert_all_succeeded(&tell(&mut market, &worker.owner, &worker.address, &unbond));

    let storage: RegistryStorage = same(&market.chain.data(&market.registry).unwrap());
    let generation: Generation = same(storage.generation.cell());
    same::<Codes>(generation.codes.cell());
    same::<Params>(generation.params.cell());
    same::<PlatformPolicy>(storage.policy.cell());
    let upgrades: Upgrades = same(storage.upgrades.cell());
    assert_eq!(upgrades.platform_code, artifacts::library(Contract::Platform));
    assert_eq!(generation.job_code, artifacts::library(Contract::Job));
    assert_eq!(storage.network(market.registry.clone()), market.network);

    let storage: ModelStorage = same(&market.chain.data(&market.model).unwrap());
    assert_eq!(same::<Network>(storage.network.cell()), market.network);
    let state: ModelState = storage.state.unwrap();
    same::<Snake>(state.metadata.cell());

    let storage: WorkerStorage = same(&market.chain.data(&worker.address).unwrap());
    assert_eq!(same::<Network>(storage.network.cell()), market.network);
    let state = storage.state.unwrap();
    assert_eq!((state.unbonding, state.paused), (Nanoton::new(TON), true));
    assert_eq!(state.endpoint().as_deref(), Some("worker.example:443"));
    let attestation: Attestation = same(state.attestation.clone().unwrap().cell());
    same::<Evidence>(attestation.evidence.cell());
    let offer: Offer = same(state.offers.get(market.model_id).unwrap().unwrap().cell());
    assert_eq!((offer.prices, offer.model), (PRICES, market.model.address));
    let history: WorkerHistory = same(state.history.cell());
    assert_eq!(history.operator, Some(hash_address("operator")));
    let key = history.receipt_keys.get(0).unwrap().unwrap();
    assert_eq!((key.key, key.until), (attestation.receipt_key, attestation.expires_at + MAX_JOB_LIFE_S));

    let platform = market.network.platform_address(market.ppid(&worker)).unwrap();
    let storage: PlatformStorage = same(&market.chain.data(&platform).unwrap());
    assert_eq!(same::<Network>(storage.network.cell()), market.network);
    assert_eq!(storage.state.unwrap().worker_owner, worker.owner);
}

#[test]
fn a_change_of_parameters_reads_and_writes_back_with_its_log() {
    let mut market = Market::open();
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let proposal = crate::registry::proposal(&market, 60);
    let txs = tell(&mut market, &owner, &registry, &proposal);
    let log: RegistryChanged = same_log(&txs);
    assert_eq!(log.subject, proposal.generation.hash());
    let storage: RegistryStorage = same(&market.chain.data(&registry).unwrap());
    let upgrades: Upgrades = same(storage.upgrades.cell());
    let next: Proposal = same(upgrades.next.clone().unwrap().cell());
    assert_eq!(same::<Generation>(next.generation.cell()), *proposal.generation);
    market.chain.wait(tests::market::TIMELOCK_S);
    let before = storage.generation.hash();
    assert!(storage.serves(&before) && !storage.serves(&proposal.generation.hash()));
    tell(&mut market, &owner, &registry, &ApplyProposal { query_id: 1 });
    let storage: RegistryStorage = same(&market.chain.data(&registry).unwrap());
    let upgrades: Upgrades = same(storage.upgrades.cell());
    assert_eq!(upgrades.earlier.iter().count(), 1);
    assert!(storage.serves(&before) && storage.serves(&proposal.generation.hash()));
    tell(&mut market, &owner, &registry, &RetireGeneration { query_id: 1, generation: before });
    let storage: RegistryStorage = same(&market.chain.data(&registry).unwrap());
    assert!(!storage.serves(&before));
}

#[test]
fn storage_of_a_job_reads_and_writes_back_in_every_status() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let mut seen = BTreeSet::new();
    let mut see = |market: &Market, job: &Job| {
        let state = same_job(market, job);
        seen.insert(state.status as u8);
        state
    };

    let job = market.post(&client, &worker, &Terms::default());
    let state = see(&market, &job);
    assert_eq!((state.deposit, state.posting.limits), (job.deposit, job.limits));
    assert_eq!(state.posting.seller.as_deref(), Some(&job.seller));
    market.claim_well(&worker, &job);
    assert_eq!(see(&market, &job).bond, job.limits.least_bond);
    let receipt = market.receipt(&job, UNITS);
    market.settle(&worker, &job, receipt.clone()).unwrap();
    let state = see(&market, &job);
    assert_eq!((state.paid, state.sequence), (Amount::try_from(PRICES.cost(&UNITS)).unwrap(), 1));
    assert_eq!(state.until, market.chain.now + AUDIT_WINDOW_S);

    let job = market.post(&client, &worker, &Terms::default());
    market.cancel(&client, &job);
    see(&market, &job);
    let job = market.claimed(&client, &worker, &Terms::default());
    let rejection = market.rejection(&job, 1);
    market.reject(&worker, &job, rejection).unwrap();
    see(&market, &job);
    let job = market.post(&client, &worker, &Terms::default());
    market.chain.wait(121);
    market.expire(&client, &job);
    see(&market, &job);

    let job = market.session(&client, &worker, &Terms::default());
    assert!(see(&market, &job).posting.session().is_some());
    market.close(&client, &job);
    see(&market, &job);

    // The Worker builds the seller of a bid, and the Job writes the terms anew.
    let job = market.awaiting(&client, &worker, &Terms::default());
    let state = see(&market, &job);
    assert_eq!(state.posting.seller.as_deref(), Some(&job.seller));
    assert_eq!(
        state.posting.market().unwrap().best_stake.nanoton(),
        market.worker_state(&worker).unwrap().stake
    );

    let all: BTreeSet<u8> = JobStatus::ALL.iter().map(|status| *status as u8).collect();
    assert_eq!(seen, all);
}

#[test]
fn messages_of_a_worker_s_life_read_and_write_back() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    let txs = market.fund_gas(&worker, Nanoton::new(TON));
    assert_all_succeeded(&txs);
    let txs = market.attest(&worker);
    let served: ServeWorker = same_message(&txs);
    let registered: AttestationRegistered = same_message(&txs);
    assert_eq!(served.attestation, registered.attestation);
    same_message::<Excesses>(&txs);
    let txs = market.attest_as(&worker, hash("unlisted"));
    same_message::<RegistrationRefused>(&txs);

    let txs = market.offer(&worker, PRICES);
    let ask: AskRoyalty = same_message(&txs);
    assert_eq!((&ask.worker_owner, *ask.prices), (&worker.owner, PRICES));
    let quoted: RoyaltyQuoted = same_message(&txs);
    assert_eq!((quoted.min_deposit, *quoted.prices), (ask.min_deposit, PRICES));

    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let enforce = EnforceRevocation {
        query_id: 9,
        measurement: hash("never listed"),
        worker_owner: worker.owner.clone(),
        generation: None,
    };
    let txs = tell(&mut market, &owner, &registry, &enforce);
    same_message::<MeasurementRevoked>(&txs);
    let withdraw = WithdrawEarnings { query_id: 1, amount: Nanoton::new(TON / 10) };
    let txs = tell(&mut market, &worker.owner, &worker.address, &withdraw);
    same_message::<Payout>(&txs);
    let leave = LeavePlatform { query_id: 1, ppid: market.ppid(&worker) };
    let txs = tell(&mut market, &worker.owner, &worker.address, &leave);
    same_message::<LeaveWorker>(&txs);
}

#[test]
fn messages_and_logs_of_a_directed_job_read_and_write_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.draft(&client, &worker, &Terms { prices: DEAR, ..Terms::default() });
    let txs = posted(&mut market, &job);
    same_message::<JobNoticed>(&txs);
    let opened: JobOpened = same_log(&txs);
    assert_eq!((opened.opcode, opened.until, opened.deposit), (PostJob::OPCODE, job.until, job.deposit));
    assert_eq!(opened.terms_hash, Ref::new(job.seller.clone()).unwrap().hash());

    let txs = market.claim(&worker, &job).unwrap();
    let take: TakeJob = same_message(&txs);
    assert_eq!((take.bond, take.bid), (job.limits.least_bond, None));
    assert_eq!(take.stake, Amount::new(20 * TON));
    let taken: JobTaken = same_log(&txs);
    assert_eq!((taken.worker, taken.prices), (worker.address.address, DEAR));
    assert_eq!(taken.until, market.job_state(&job).unwrap().until);

    let answer = market.answer(&worker, market.receipt(&job, UNITS));
    let txs = market.chain.external(&job.address, cell(&answer)).unwrap();
    let paid: JobPaid = same_message(&txs);
    assert_eq!(Outcome::from_wire(paid.outcome), Some(Outcome::Settled));
    same_message::<SharePaid>(&txs);
    let refund: JobRefund = same_message(&txs);
    assert_eq!(JobStatus::from_wire(refund.status), Some(JobStatus::Settled));
    let closed: JobClosed = same_log(&txs);
    assert_eq!(closed.signed_hash, answer.receipt.hash());
    assert_eq!(closed.paid, market.job_state(&job).unwrap().paid);

    let job = market.claimed(&client, &worker, &Terms::default());
    let rejection = market.rejection(&job, 1);
    let signed_hash = Ref::new(rejection.clone()).unwrap().hash();
    let txs = market.reject(&worker, &job, rejection).unwrap();
    assert_eq!(Outcome::from_wire(same_message::<JobPaid>(&txs).outcome), Some(Outcome::Rejected));
    assert_eq!(same_log::<JobClosed>(&txs).signed_hash, signed_hash);

    let (anyone, model) = (client.clone(), market.model.clone());
    let txs = tell(&mut market, &anyone, &model, &WithdrawShares { query_id: 1 });
    same_message::<Payout>(&txs);
}

#[test]
fn messages_and_logs_of_a_session_read_and_write_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.draft_session(&client, &worker, &Terms::default());
    let txs = posted(&mut market, &job);
    same_message::<JobNoticed>(&txs);
    assert_eq!(same_log::<JobOpened>(&txs).opcode, OpenSession::OPCODE);
    let txs = market.top_up(&client, &job, TON, Nanoton::new(FEES));
    assert_eq!(same_log::<JobToppedUp>(&txs).deposit, job.deposit.checked_add(Amount::new(TON)).unwrap());
    let redemption =
        market.redemption(&worker, &job, market.session_receipt(&job, 1, TON / 2, false), TON / 3);
    let body = cell(&redemption);
    same::<Signature>(redemption.voucher.cell());
    let txs = market.chain.external(&job.address, body).unwrap();
    same_message::<JobPaid>(&txs);
    let txs = market.close(&client, &job);
    assert_eq!(same_log::<CloseAsked>(&txs).until, market.job_state(&job).unwrap().until);

    let two = [TON / 2, TON / 2 + 1].map(|amount| market.session_receipt(&job, 2, amount, false));
    let report = market.equivocation(&worker, two[0].clone(), two[1].clone());
    let txs = market.report(&market.owner.clone(), &job, &report);
    let shown: EquivocationShown = same_log(&txs);
    assert_eq!(shown.sequence, 2);
    let slash: JobEquivocated = same_message(&txs);
    assert_eq!((slash.penalty, slash.nonce), (shown.penalty, job.nonce));
    assert_eq!((&slash.parties.client, &slash.parties.reporter), (&client, &market.owner));
    same::<Parties>(slash.parties.cell());
    let paid: Vec<_> =
        txs.iter().flat_map(|tx| &tx.out).filter(|sent| sent.read::<Payout>().is_some()).collect();
    let penalty = u128::from(shown.penalty.get());
    let treasury = penalty * u128::from(TREASURY_PART_BPS) / 10_000;
    let reward = penalty * u128::from(REPORTER_PART_BPS) / 10_000;
    assert_eq!((&paid[0].to, paid[0].value), (&client, penalty - treasury - reward));
    assert_eq!((&paid[1].to, paid[1].value), (&market.treasury, treasury));
    assert!(paid[2].to == market.owner && paid[2].value >= reward);
    assert_eq!(same_job(&market, &job).sequence, EQUIVOCATED + 1);
}

#[test]
fn messages_and_logs_of_a_job_of_the_market_read_and_write_back() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let cheaper = market.worker("cheaper");
    let client = market.person("client");
    let prices = contracts::Prices { output: Nanoton::new(1), ..PRICES };
    assert_all_succeeded(&market.offer(&cheaper, prices));
    let terms = Terms { bid_for_s: 60, ..Terms::default() };
    let job = market.draft_open(&client, &worker, &terms);
    let txs = posted(&mut market, &job);
    same_message::<JobNoticed>(&txs);
    assert_eq!(same_log::<JobOpened>(&txs).opcode, PostOpenJob::OPCODE);

    let txs = market.claim(&worker, &job).unwrap();
    let take: TakeJob = same_message(&txs);
    let bid: Bid = same(take.bid.clone().unwrap().cell());
    let Kind::Market(asked) = &job.kind else { panic!("not of the market") };
    assert_eq!(bid.seller(worker.address.address, asked), job.seller);
    assert_eq!((&bid.worker_owner, bid.measurement), (&worker.owner, None));
    let held = market.job_state(&job).unwrap().posting.seller.unwrap();
    assert_eq!(same::<Seller>(held.cell()), job.seller);
    let txs = market.claim(&cheaper, &job).unwrap();
    assert_eq!(Outcome::from_wire(same_message::<JobPaid>(&txs).outcome), Some(Outcome::Outbid));
    assert_eq!(same_log::<JobTaken>(&txs).prices, prices);
    market.chain.wait(61);
    let txs = market.deliver(&client, &job);
    let delivered: InputDelivered = same_log(&txs);
    assert_eq!(delivered.input_hash, *to_cell(&job.input).unwrap().repr_hash());

    let job = market.awaiting(&client, &worker, &Terms::default());
    market.chain.wait(301);
    let txs = market.expire(&client, &job);
    assert_eq!(Outcome::from_wire(same_message::<JobPaid>(&txs).outcome), Some(Outcome::Undelivered));

    let terms = Terms { measurement: Some(market.measurement), ..Terms::default() };
    let job = market.open_job(&client, &worker, &terms);
    let txs = market.claim(&worker, &job).unwrap();
    let bid: Bid = same(same_message::<TakeJob>(&txs).bid.unwrap().cell());
    assert_eq!(bid.measurement.as_deref(), Some(&market.measurement));
    same_job(&market, &job);
    market.chain.wait(1);
    let txs = market.post_input(&job).unwrap();
    let delivered: InputDelivered = same_log(&txs);
    assert_eq!(delivered.input_hash, *to_cell(&job.input).unwrap().repr_hash());
}

#[test]
fn addresses_computed_in_rust_are_those_the_contracts_compute() {
    // The Registry sends its order to the address it computes for the worker, and deploys the Platform at its own.
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    market.fund_gas(&worker, Nanoton::new(TON));
    let txs = market.attest(&worker);
    let platform = market.network.platform_address(market.ppid(&worker)).unwrap();
    assert_eq!(txs[0].out[0].to, platform);
    market.offer(&worker, PRICES);
    let (owner, registry) = (market.owner.clone(), market.registry.clone());
    let enforce = EnforceRevocation {
        query_id: 9,
        measurement: hash("never listed"),
        worker_owner: worker.owner.clone(),
        generation: None,
    };
    let txs = tell(&mut market, &owner, &registry, &enforce);
    assert_eq!(txs[0].out[0].to, worker.address);

    // The Worker sends its claim to the address it computes for the job, the Job its share to the model's.
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms { prices: DEAR, ..Terms::default() });
    assert_eq!(job_address(&artifacts::library(Contract::Job), &client, job.nonce).unwrap(), job.address);
    let txs = market.claim(&worker, &job).unwrap();
    assert_eq!(txs[0].out[0].to, job.address);
    let receipt = market.receipt(&job, UNITS);
    let txs = market.settle(&worker, &job, receipt).unwrap();
    assert!(txs[0].out.iter().any(|sent| sent.to == market.model));

    // A job of the market computes its workers' addresses from two hashes and depths.
    let network = MarketNetwork::of(&market.network, 600, PRICES, Amount::ZERO).unwrap();
    assert_eq!(network.network, CodeRef::of(&to_cell(&market.network).unwrap()));
    let data = to_cell(&WorkerStorage::initial(&market.network, worker.owner.clone()).unwrap()).unwrap();
    assert_eq!(network.worker.address(&data), worker.address);
    let job = market.awaiting(&client, &worker, &Terms::default());
    assert_eq!(market.job_state(&job).unwrap().posting.seller.unwrap().worker, worker.address.address);
}

#[test]
fn jobs_and_platforms_have_library_cells_for_code() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    let platform = market.network.platform_address(market.ppid(&worker)).unwrap();
    for (address, contract) in [(&job.address, Contract::Job), (&platform, Contract::Platform)] {
        let account = market.chain.account(address).unwrap().load_account().unwrap().unwrap();
        let AccountState::Active(init) = account.state else {
            panic!("the account is active");
        };
        let code = init.code.unwrap();
        assert_eq!(code.cell_type(), CellType::LibraryReference);
        assert_eq!(code, artifacts::library(contract));
    }
}

#[test]
fn fees_computed_in_rust_are_those_the_contracts_compute() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let prices = market.prices();
    for (deposit, input, output) in [(TON, 1_000, 256), (1, 0, 0), (5 * TON, 1_000_000, 1_000_000)] {
        let arguments = [u128::from(deposit), input, output].map(u128::from);
        let least = market.chain.get_int(&worker.address, "minJobValue", &arguments).unwrap();
        let units = Units { input: input as u32, cached_input: 0, output: output as u32 };
        assert_eq!(least, u128::from(deposit) + prices.posting(&units).get());
        let least = market.chain.get_int(&worker.address, "minSessionValue", &arguments[..1]).unwrap();
        assert_eq!(least, u128::from(deposit) + prices.session().get());
    }

    let job = market.post(&client, &worker, &Terms { prices: DEAR, ..Terms::default() });
    let txs = market.claim(&worker, &job).unwrap();
    assert_eq!(txs[0].out[0].value, u128::from(job.limits.least_bond.get()) + prices.claim_value().get());
    // What a payment carries beside the amount: the gas of its receiver.
    let gas_paid = prices.gas(contracts::fees::GAS_WORKER_PAID).get();
    let gas_share = prices.gas(contracts::fees::GAS_MODEL_SHARE).get();
    let receipt = market.receipt(&job, UNITS);
    let split = Split::of(receipt.amount, DEAR.cost(&UNITS), job.deposit, SHARE_BPS);
    let txs = market.settle(&worker, &job, receipt).unwrap();
    let to = |txs: &[Tx], to: &StdAddr| txs[0].out.iter().find(|sent| sent.to == *to).unwrap().value;
    let earned = split.to_worker.checked_add(job.limits.least_bond).unwrap().nanoton().get();
    assert_eq!(to(&txs, &worker.address), earned + gas_paid);
    assert_eq!(to(&txs, &market.model), split.share.nanoton().get() + gas_share);

    let open = market.open_job(&client, &worker, &Terms::default());
    let txs = market.claim(&worker, &open).unwrap();
    assert_eq!(txs[0].out[0].value, u128::from(open.limits.least_bond.get()) + prices.bid_value().get());

    let before = u128::from(split.share.get());
    let royalty = ShareSplit::of(Nanoton::checked(before).unwrap(), 500, 200);
    assert_eq!(royalty.to_publisher.get() + royalty.to_treasury.get(), before);

    session_fees(&mut market, &client, &worker);
}

fn session_fees(market: &mut Market, client: &StdAddr, worker: &Worker) {
    let prices = market.prices();
    let gas_paid = prices.gas(contracts::fees::GAS_WORKER_PAID).get();
    let job = market.session(client, worker, &Terms::default());
    let mut before = Amount::ZERO;
    for (sequence, amount, voucher) in [(1, TON / 7, TON), (2, TON, TON / 3), (3, 2 * TON, 2 * TON)] {
        let receipt = market.session_receipt(&job, sequence, amount, sequence == 3);
        let txs = market.redeem(worker, &job, receipt, voucher).unwrap();
        let split = Split::of_session(amount.into(), voucher.into(), job.deposit, SHARE_BPS);
        let increment = split.to_worker.checked_sub(before).unwrap().nanoton().get();
        before = split.to_worker;
        let cost = if sequence == 3 { 0 } else { prices.redemption().get() };
        let value = txs[0].out.iter().find(|sent| sent.to == worker.address).unwrap().value;
        assert_eq!(value, increment - cost + gas_paid, "{sequence}");
    }
}

fn hash_address(name: &str) -> StdAddr {
    StdAddr::new(WORKCHAIN, hash(name))
}
