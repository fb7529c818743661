//! Every type survives a trip through cells, and malformed cells are refused.
#![allow(clippy::unwrap_used)]

use contracts::attestor::Bytes;
use contracts::job::*;
use contracts::job_log::*;
use contracts::librarian::library_cell_of;
use contracts::model::*;
use contracts::platform::*;
use contracts::receipt::*;
use contracts::registry::*;
use contracts::sealing::Sealed;
use contracts::voucher::Voucher;
use contracts::wire::{self, MAX_SNAKE_BYTES, Message, Signature, Snake, from_cell, to_cell};
use contracts::worker::*;
use contracts::*;
use proptest::prelude::*;
use tycho_types::cell::{CellBuilder, Load, Store};
use tycho_types::dict::Dict;

fn round_trip<T: Store + for<'a> Load<'a> + PartialEq + std::fmt::Debug>(value: T) {
    let cell = to_cell(&value).unwrap();
    assert_eq!(from_cell::<T>(&cell).unwrap(), value);

    let mut longer = CellBuilder::new();
    longer.store_slice(cell.as_slice().unwrap()).unwrap();
    if longer.store_bit(true).is_ok() {
        let error = from_cell::<T>(&longer.build().unwrap());
        assert!(error.is_err(), "a trailing bit was accepted");
    }
    let mut slice = cell.as_slice().unwrap();
    if slice.skip_last(1, 0).is_ok() {
        let mut shorter = CellBuilder::new();
        shorter.store_slice(slice).unwrap();
        assert!(from_cell::<T>(&shorter.build().unwrap()).is_err());
    }
}

fn message<T: Message + PartialEq + std::fmt::Debug>(value: T) {
    let cell = value.to_cell().unwrap();
    let slice = cell.as_slice().unwrap();
    assert_eq!(wire::opcode_of(&slice), Some(T::OPCODE));
    assert_eq!(opcodes::name(T::OPCODE), Some(T::NAME));
    let mut other = CellBuilder::new();
    other.store_u32(T::OPCODE ^ 1).unwrap();
    let mut rest = slice;
    rest.skip_first(32, 0).unwrap();
    other.store_slice(rest).unwrap();
    assert!(T::from_cell(&other.build().unwrap()).is_err());
    round_trip(value);
}

prop_compose! {
    fn hash()(bytes: [u8; 32]) -> HashBytes { HashBytes(bytes) }
}
prop_compose! {
    fn address()(workchain in prop_oneof![Just(0i8), Just(-1)], hash in hash()) -> StdAddr {
        StdAddr::new(workchain, hash)
    }
}
prop_compose! {
    fn coins()(value in 0..=Nanoton::MAX.get()) -> Nanoton { Nanoton::checked(value).unwrap() }
}
prop_compose! {
    fn amount()(value: u64) -> Amount { Amount::new(value) }
}
prop_compose! {
    fn price()(value in 0..1u64 << 48) -> Nanoton { Nanoton::new(value) }
}
prop_compose! {
    fn prices()(input in price(), cached_input in price(), output in price()) -> Prices {
        Prices { input, cached_input, output }
    }
}
prop_compose! {
    fn units()(input: u32, cached_input: u32, output: u32) -> Units { Units { input, cached_input, output } }
}
prop_compose! {
    fn code()(hash in hash(), depth in 0u16..512) -> CodeRef { CodeRef { hash, depth } }
}
prop_compose! {
    fn generation()(
        network_id: i32, treasury in address(), bps: (u16, u16, u16), times: (u32, u32), min_stake in coins(),
        min_bond in coins(), codes in (code(), code()), libraries in (hash(), hash()), attestor in address(),
    ) -> Generation {
        Generation {
            network_id, fee_bps: bps.0, bond_bps: bps.1, min_bond,
            job_code: library_cell_of(&libraries.0),
            codes: Ref::new(Codes { worker: codes.0, model: codes.1, platform: libraries.1 }).unwrap(),
            params: Ref::new(Params {
                treasury, royalty_cap_bps: bps.2, min_stake, unbonding_s: times.0, attestor,
                attestation_ttl_s: times.1,
            })
            .unwrap(),
        }
    }
}
prop_compose! {
    fn network()(registry in address(), generation in generation()) -> Network { Network { registry, generation } }
}
prop_compose! {
    fn snake()(bytes in prop::collection::vec(any::<u8>(), 0..1000)) -> Snake { Snake::new(bytes).unwrap() }
}
prop_compose! {
    fn sealed()(cells in 2usize..5, byte: u8) -> Sealed { Sealed::from_bytes(vec![byte; 127 * cells]).unwrap() }
}
prop_compose! {
    fn signature()(halves: ([u8; 32], [u8; 32])) -> Signature {
        Signature([halves.0, halves.1].concat().try_into().unwrap())
    }
}
prop_compose! {
    fn attestation()(
        keys in (hash(), hash()), measurement in hash(), expires_at: u32, quote_digest in hash(), mc_seqno: u32,
        authority in hash(), serial: [u8; 20], ppid: [u8; 16], registered_at: u32,
    ) -> Attestation {
        Attestation {
            receipt_key: keys.0, encryption_key: keys.1, measurement, expires_at,
            evidence: Ref::new(Evidence {
                quote_digest, mc_seqno, registered_at, authority, serial: Bytes(serial), ppid: Bytes(ppid),
            })
            .unwrap(),
        }
    }
}
prop_compose! {
    fn seller()(
        accounts in (hash(), hash()), receipt_key in hash(), settle_within_s: u32, share_bps: u16, prices in prices(),
    ) -> Seller {
        Seller { worker: accounts.0, receipt_key, model: accounts.1, settle_within_s, share_bps, prices }
    }
}
prop_compose! {
    fn market()(
        model in hash(), measurement in prop::option::of(hash()), max_prices in prices(), bid_until: u32,
        deliver_within_s: u32, compensation in amount(), delivery_key in hash(), best_stake in amount(),
        worker in code(), network in code(), settle_within_s: u32,
    ) -> MarketTerms {
        let network = Ref::new(MarketNetwork { worker, network, settle_within_s, max_prices, least_bond: best_stake }).unwrap();
        MarketTerms {
            model, bid_until, deliver_within_s, compensation, delivery_key, measurement, best_stake, network,
        }
    }
}
prop_compose! {
    fn limits()(max_units in units(), least_bond in amount()) -> JobLimits { JobLimits { max_units, least_bond } }
}
fn special() -> impl Strategy<Value = JobSpecial> {
    prop_oneof![
        hash().prop_map(|session_key| JobSpecial::Session(SessionTerms { session_key })),
        market().prop_map(|terms| JobSpecial::Market(Box::new(terms))),
    ]
}
prop_compose! {
    fn posting()(
        posted_lt: u64, limits in limits(), seller in prop::option::of(seller()), special in prop::option::of(special()),
    ) -> Posting {
        Posting {
            posted_lt, limits, seller: seller.map(|seller| Ref::new(seller).unwrap()),
            special: special.map(|special| Ref::new(special).unwrap()),
        }
    }
}
prop_compose! {
    fn content()(result_hash in hash(), transcript in hash(), engine: u32, dtype: u8) -> ReceiptContent {
        ReceiptContent { result_hash, transcript, engine, dtype }
    }
}
prop_compose! {
    fn receipt()(
        job in address(), posted_lt: u64, sequence: u32, is_final: bool, units in units(), amount in amount(),
        content_hash in hash(),
    ) -> Receipt {
        Receipt { tag: Tag, job, posted_lt, sequence, is_final, units, amount, content_hash }
    }
}
prop_compose! {
    fn order()(
        worker in hash(), seqno: u32, valid_until: u32, job_client in address(), job_nonce: u64,
        model_id in hash(), bond in amount(), is_bid: bool, names_measurement: bool,
    ) -> ClaimOrder {
        ClaimOrder {
            tag: Tag, worker, seqno, valid_until, job_client, job_nonce, model_id, bond, is_bid, names_measurement,
        }
    }
}
fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![Just(Unit::Token), Just(Unit::AudioSecond), Just(Unit::Image)]
}
fn status() -> impl Strategy<Value = JobStatus> {
    (1u8..=9).prop_map(|value| JobStatus::from_wire(value).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn registry_and_model(
        q: u64, owner in address(), pending in prop::option::of(address()), salt: u64, lock: u32, made in generation(),
        m in hash(), from: u32, a in attestation(), net in network(), bps: u16, u in unit(), meta in snake(),
        p in prices(), x in coins(), deprecated: bool,
    ) {
        let made_ref = Ref::new(made.clone()).unwrap();
        let proposal = Proposal {
            from, timelock_s: lock, generation: made_ref.clone(), platform_code: library_cell_of(&m),
        };
        let mut earlier = Dict::new();
        earlier.set(m, library_cell_of(&m)).unwrap();
        let upgrades = Upgrades {
            platform_code: library_cell_of(&m), next: Some(Ref::new(proposal.clone()).unwrap()), earlier,
        };
        let mut measurements = Dict::new();
        measurements.set(m, from).unwrap();
        round_trip(RegistryStorage {
            owner: owner.clone(), pending_owner: pending.clone(), salt, timelock_s: lock,
            generation: Ref::new(made).unwrap(), measurements: measurements.clone(),
            policy: Ref::new(PlatformPolicy { needs: 1, next_needs: 3, next_from: from, advisories: measurements }).unwrap(),
            upgrades: Ref::new(upgrades.clone()).unwrap(),
        });
        round_trip(upgrades);
        round_trip(proposal);
        round_trip(RegistrationRequest {
            receipt_key: m, encryption_key: m, registration_seqno: from, mc_seqno: lock, mc_root_hash: m,
            generation: deprecated.then(|| made_ref.clone()),
        });
        let ppid = a.evidence.ppid;
        let platform = PlatformState { worker_owner: owner.clone(), until: from };
        round_trip(PlatformStorage { ppid, network: Ref::new(net.clone()).unwrap(), state: Some(platform) });
        let state = ModelState {
            publisher: owner.clone(), next_publisher: pending.clone(), royalty_bps: bps, unit: u, deprecated,
            named: !deprecated,
            metadata: Ref::new(meta.clone()).unwrap(),
        };
        round_trip(ModelStorage { model_id: m, network: Ref::new(net).unwrap(), state: Some(state) });
        let a = Ref::new(a).unwrap();
        let p = Ref::new(p).unwrap();
        message(AllowMeasurement { query_id: q, measurement: m });
        message(RevokeMeasurement { query_id: q, measurement: m });
        message(TransferOwnership { query_id: q, new_owner: pending.clone() });
        message(AcceptOwnership { query_id: q });
        message(ServeWorker { query_id: q, worker_owner: owner.clone(), registration_seqno: lock, attestation: a });
        message(LeaveWorker { query_id: q });
        message(SetAcceptedNeeds { query_id: q, needs: 5 });
        message(AllowAdvisories { query_id: q, advisories: m });
        message(RevokeAdvisories { query_id: q, advisories: m });
        message(RegistrationRefused { query_id: q, reason: bps });
        message(EnforceRevocation { query_id: q, measurement: m, worker_owner: owner.clone(), generation: None });
        message(ProposeGeneration {
            query_id: q, timelock_s: lock, generation: made_ref, platform_code: library_cell_of(&m),
        });
        message(WithdrawProposal { query_id: q });
        message(ApplyProposal { query_id: q });
        message(RetireGeneration { query_id: q, generation: m });
        message(RegistryChanged { opcode: from, subject: m, from });
        message(MeasurementRevoked { query_id: q, measurement: m });
        message(RegisterModel { query_id: q, royalty_bps: bps, unit: u, files_root: deprecated.then_some(m), metadata: Ref::new(meta).unwrap() });
        message(AskRoyalty { query_id: q, worker_owner: owner.clone(), min_deposit: x, prices: p.clone() });
        message(RoyaltyQuoted { query_id: q, model_id: m, royalty_bps: bps, min_deposit: x, prices: p });
        message(SharePaid { query_id: q });
        message(WithdrawShares { query_id: q });
        message(TransferModel { query_id: q, new_publisher: pending });
        message(AcceptModel { query_id: q });
        message(DeprecateModel { query_id: q });
    }

    #[test]
    fn worker(
        q: u64, owner in address(), net in network(), x in coins(), y in coins(), a in attestation(), m in hash(),
        p in prices(), bps: u16, slashed: u32, t: u32, seqno: u32, paused: bool, operator in prop::option::of(address()),
        order in order(), signature in signature(),
    ) {
        let a = Ref::new(a).unwrap();
        let mut offers = Dict::new();
        offers.set(m, Ref::new(Offer { prices: p, min_deposit: x, royalty_bps: bps, model: m }).unwrap()).unwrap();
        let endpoint = Snake::new(b"worker.example:443".to_vec()).unwrap();
        let mut receipt_keys = Dict::new();
        receipt_keys.set(seqno, ReceiptKey { key: m, until: t }).unwrap();
        let state = WorkerState {
            stake: x, unbonding: y, unbonding_until: t, claim_seqno: seqno, registration_seqno: t, slashed, paused,
            attestation: Some(a.clone()), offers,
            history: Ref::new(WorkerHistory { operator: operator.clone(), endpoint: Some(Ref::new(endpoint.clone()).unwrap()), receipt_keys }).unwrap(),
        };
        round_trip(WorkerStorage { owner, network: Ref::new(net).unwrap(), state: Some(state) });
        message(TopUpStake { query_id: q, amount: x });
        let ppid = a.evidence.ppid;
        message(AttestationRegistered { query_id: q, ppid, registration_seqno: seqno, attestation: a });
        message(LeavePlatform { query_id: q, ppid });
        message(OfferModel { query_id: q, model_id: m, min_deposit: y, prices: Ref::new(p).unwrap() });
        message(WithdrawOffer { query_id: q, model_id: m });
        message(RequestUnbond { query_id: q, amount: x });
        message(WithdrawUnbonded { query_id: q });
        message(WithdrawEarnings { query_id: q, amount: y });
        message(FundGas { query_id: q });
        message(PauseWorker { query_id: q, paused });
        message(SetEndpoint { query_id: q, endpoint: Some(Ref::new(endpoint).unwrap()) });
        message(SetOperator { query_id: q, account: operator.map(|account| Ref::new(account).unwrap()) });
        message(ClaimJob { signature, order: Ref::new(order).unwrap() });
    }

    #[test]
    fn job(
        q: u64, client in address(), nonce: u64, s in status(), until: u32, x in amount(), y in amount(),
        sequence: u32, posting in posting(), sealed in sealed(), seller in seller(), market in market(),
        limits in limits(), m in hash(),
    ) {
        let state = JobState { status: s, until, deposit: x, bond: y, paid: x, sequence, posting };
        prop_assert_eq!(JobStatus::from_wire(s as u8), Some(s));
        round_trip(JobStorage { client: client.clone(), nonce, state: Some(state) });
        round_trip(JobStorage::initial(client.clone(), nonce));
        let post = PostJob::new(q, until, x, limits, seller.clone(), &sealed).unwrap();
        prop_assert_eq!(post.sealed_input().unwrap(), sealed.clone());
        message(post);
        let seller = Ref::new(seller).unwrap();
        let terms = Ref::new(SessionTerms { session_key: m }).unwrap();
        message(OpenSession { query_id: q, until, deposit: x, limits, seller: seller.clone(), terms });
        message(PostOpenJob { query_id: q, until, deposit: x, max_units: limits.max_units, terms: Ref::new(market).unwrap() });
        for measurement in [None, Some(m)] {
            let (receipt_key, share_bps, prices) = (seller.receipt_key, seller.share_bps, seller.prices);
            let (worker_owner, model) = (client.clone(), seller.model);
            let measurement = measurement.map(|value| Ref::new(value).unwrap());
            let bid = Bid { worker_owner, receipt_key, model, share_bps, prices, measurement };
            message(TakeJob { query_id: q, bond: x, stake: y, bid: Some(Ref::new(bid).unwrap()) });
        }
        message(TakeJob { query_id: q, bond: x, stake: y, bid: None });
        let delivery_key = contracts::SigningKey::from_bytes(&[3; 32]);
        let posted = PostInput::signed(&m, q, &seller, &sealed, &delivery_key).unwrap();
        let public_key = contracts::receipt::public_key(&delivery_key);
        prop_assert!(posted.verify(&m, q, &seller, &public_key));
        prop_assert!(!posted.verify(&m, q ^ 1, &seller, &public_key));
        prop_assert_eq!(posted.sealed_input().unwrap(), sealed.clone());
        message(posted);
        let deliver = DeliverInput::new(q, &sealed).unwrap();
        prop_assert_eq!(deliver.sealed_input().unwrap(), sealed);
        message(deliver);
        message(CancelJob { query_id: q });
        message(CloseSession { query_id: q });
        message(TopUpJob { query_id: q, amount: x });
        message(ExpireJob { query_id: q });
        message(SweepJob { query_id: q });
        message(JobNoticed { query_id: q });
        message(JobPaid { query_id: q, outcome: s as u8 });
        let parties = Ref::new(Parties { client: client.clone(), reporter: client }).unwrap();
        message(JobEquivocated { query_id: q, receipt_key: m, registration_seqno: sequence, penalty: x, nonce, parties });
        message(JobRefund { query_id: q, status: s as u8 });
        message(Payout { query_id: q });
        message(Excesses { query_id: q });
    }

    #[test]
    fn signed(
        receipt in receipt(), content in content(), sealed in sealed(), reason: u16, voucher_amount in amount(), q: u64,
        secret: [u8; 32],
    ) {
        let key = SigningKey::from_bytes(&secret);
        let public = contracts::receipt::public_key(&key);
        let signed = SignedReceipt::new(receipt.clone(), &key).unwrap();
        prop_assert_eq!(signed.verify(&public), Ok(()));
        let post = PostReceipt::new(signed.clone(), content, &sealed).unwrap();
        prop_assert_eq!(post.verify(&public), Ok(()));
        prop_assert_eq!(post.sealed_result().unwrap(), sealed);
        message(post);
        let voucher = Voucher { job: receipt.job.address, posted_lt: receipt.posted_lt, amount: voucher_amount };
        let redeem = RedeemReceipt::new(signed.clone(), voucher_amount, voucher.sign(&key)).unwrap();
        prop_assert_eq!(redeem.verify(&public), Ok(()));
        prop_assert_eq!(redeem.verify_voucher(&public), Ok(()));
        message(redeem);
        let one = Ref::new(signed).unwrap();
        message(ReportEquivocation { query_id: q, registration_seqno: 1, one: one.clone(), other: one });
        let rejection = Rejection { tag: Tag, job: receipt.job, posted_lt: receipt.posted_lt, reason };
        let post = PostRejection::signed(rejection, &key).unwrap();
        prop_assert_eq!(post.verify(&public), Ok(()));
        message(post);
    }

    #[test]
    fn logs(opcode: u32, until: u32, x in amount(), m in hash(), prices in prices(), status: u8) {
        fn log<T: Message + PartialEq + std::fmt::Debug>(value: T, expected: JobLog) {
            let cell = value.to_cell().unwrap();
            assert_eq!(JobLog::from_slice(&mut cell.as_slice().unwrap()).unwrap(), Some(expected));
            message(value);
        }
        let opened = JobOpened { opcode, until, deposit: x, terms_hash: m };
        log(opened.clone(), JobLog::Opened(opened));
        let taken = JobTaken { worker: m, bond: x, until, prices };
        log(taken.clone(), JobLog::Taken(taken));
        let delivered = InputDelivered { input_hash: m, until };
        log(delivered.clone(), JobLog::InputDelivered(delivered));
        log(CloseAsked { until }, JobLog::CloseAsked(CloseAsked { until }));
        log(JobToppedUp { deposit: x }, JobLog::ToppedUp(JobToppedUp { deposit: x }));
        let closed = JobClosed { status, paid: x, signed_hash: m };
        log(closed.clone(), JobLog::Closed(closed));
        let shown = EquivocationShown { sequence: until, penalty: x };
        log(shown.clone(), JobLog::EquivocationShown(shown));
    }

    #[test]
    fn arbitrary_cells_never_panic(bits in prop::collection::vec(any::<u8>(), 0..127), child in prop::collection::vec(any::<u8>(), 0..127), refs in 0usize..4) {
        let mut leaf = CellBuilder::new();
        leaf.store_raw(&child, (child.len() * 8) as u16).unwrap();
        let leaf = leaf.build().unwrap();
        let mut root = CellBuilder::new();
        root.store_raw(&bits, (bits.len() * 8) as u16).unwrap();
        for _ in 0..refs { root.store_reference(leaf.clone()).unwrap(); }
        let cell = root.build().unwrap();
        let _ = from_cell::<JobStorage>(&cell);
        let _ = from_cell::<WorkerStorage>(&cell);
        let _ = from_cell::<ModelStorage>(&cell);
        let _ = from_cell::<RegistryStorage>(&cell);
        let _ = from_cell::<Receipt>(&cell);
        let _ = from_cell::<Network>(&cell);
        let _ = from_cell::<JobSpecial>(&cell);
        let _ = JobLog::from_slice(&mut cell.as_slice().unwrap());
        let _ = from_cell::<Sealed>(&cell);
        let _ = from_cell::<Snake>(&cell);
    }
}

#[test]
fn a_snake_has_one_encoding_and_a_bound() {
    for length in [0, 1, 126, 127, 128, 254, 255, 5000, MAX_SNAKE_BYTES] {
        round_trip(Snake::new(vec![5; length]).unwrap());
    }
    assert!(Snake::new(vec![0; MAX_SNAKE_BYTES + 1]).is_err());
    let cut = |first: usize, second: usize| {
        let mut tail = CellBuilder::new();
        tail.store_raw(&[1; 127], (second * 8) as u16).unwrap();
        let mut head = CellBuilder::new();
        head.store_raw(&[1; 127], (first * 8) as u16).unwrap();
        head.store_reference(tail.build().unwrap()).unwrap();
        from_cell::<Snake>(&head.build().unwrap())
    };
    assert!(cut(127, 1).is_ok());
    assert!(cut(126, 1).is_err(), "a short cell in the middle");
    assert!(cut(127, 0).is_err(), "an empty last cell");
}

#[test]
fn a_price_has_48_bits() {
    let price = |output| Prices { output, ..Prices::default() };
    assert!(to_cell(&price(contracts::money::MAX_PRICE)).is_ok());
    assert!(to_cell(&price(Nanoton::new(1 << 48))).is_err());
    let json = r#"{"input": 1, "cached_input": 1, "output": "281474976710656"}"#;
    assert!(serde_json::from_str::<Prices>(json).is_err());
    assert!(serde_json::from_str::<Prices>(&json.replace("656", "655")).is_ok());
}

#[test]
fn a_ref_keeps_the_cell_it_was_read_from() {
    // 5 as Coins with a needless zero byte: not our encoding, but a valid one.
    let mut inner = CellBuilder::new();
    inner.store_u32(TopUpStake::OPCODE).unwrap();
    inner.store_u64(1).unwrap();
    inner.store_small_uint(2, 4).unwrap();
    inner.store_u16(5).unwrap();
    let inner = inner.build().unwrap();
    let body = Ref::<TopUpStake>::from_cell(inner.clone()).unwrap();
    assert_eq!(body.amount, Nanoton::new(5));
    assert_eq!(body.hash(), *inner.repr_hash());
    assert_ne!(body.hash(), Ref::new((*body).clone()).unwrap().hash());
}

#[test]
fn unknown_enum_values_are_refused() {
    let mut builder = CellBuilder::new();
    builder.store_small_uint(10, 4).unwrap();
    assert!(from_cell::<JobStatus>(&builder.build().unwrap()).is_err());
    let mut builder = CellBuilder::new();
    builder.store_u8(3).unwrap();
    assert!(from_cell::<Unit>(&builder.build().unwrap()).is_err());
}
