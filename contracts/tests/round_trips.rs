//! Every type survives a trip through cells, and malformed cells are refused.
#![allow(clippy::unwrap_used)]

use contracts::attestor::Bytes;
use contracts::job::*;
use contracts::model::*;
use contracts::network::AttestationParams;
use contracts::platform::*;
use contracts::receipt::*;
use contracts::registry::*;
use contracts::sealing::Sealed;
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
    fn amount()(value in 0..=Nanoton::MAX.get()) -> Nanoton { Nanoton::checked(value).unwrap() }
}
prop_compose! {
    fn prices()(input in amount(), cached_input in amount(), output in amount()) -> Prices {
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
    fn params()(
        network_id: i32, treasury in address(), bps: (u16, u16, u16), times: (u32, u32, u32),
        min_stake in amount(), min_bond in amount(), codes in (code(), code(), code()), attestor in address(),
    ) -> Params {
        Params {
            network_id, treasury, fee_bps: bps.0, royalty_cap_bps: bps.1, min_stake, min_bond, bond_bps: bps.2,
            unbonding_s: times.1, audit_window_s: times.2,
            codes: Ref::new(Codes { worker: codes.0, model: codes.1, job: codes.2 }).unwrap(),
            attestation: Ref::new(AttestationParams { attestor, ttl_s: times.0, platform: codes.0 }).unwrap(),
        }
    }
}
prop_compose! {
    fn network()(registry in address(), params in params()) -> Network {
        Network { registry, params: Ref::new(params).unwrap() }
    }
}
prop_compose! {
    fn snake()(bytes in prop::collection::vec(any::<u8>(), 0..1000)) -> Snake { Snake::new(bytes).unwrap() }
}
prop_compose! {
    fn sealed()(enc in hash(), snake in snake()) -> Sealed { Sealed { enc, ciphertext: Ref::new(snake).unwrap() } }
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
    fn terms()(
        worker in address(), model_id in hash(), measurement in hash(), claim_by: u32, settle_within_s: u32,
        max_prices in prices(), max_units in units(), deposit in amount(),
    ) -> JobTerms {
        JobTerms {
            worker, model_id, measurement, claim_by, settle_within_s,
            limits: Ref::new(JobLimits { max_prices, max_units, deposit }).unwrap(),
        }
    }
}
prop_compose! {
    fn claim()(
        receipt_key in hash(), measurement in hash(), royalty_bps: u16, bond in amount(), settle_by: u32,
        worker_owner in address(), prices in prices(),
    ) -> Claim {
        Claim {
            receipt_key, measurement, royalty_bps, bond, settle_by, worker_owner, prices: Ref::new(prices).unwrap(),
        }
    }
}
prop_compose! {
    fn settlement()(
        receipt_hash in hash(), result_hash in hash(), paid in amount(), royalty in amount(), fee in amount(),
    ) -> Settlement {
        Settlement { receipt_hash, result_hash, paid, royalty, fee }
    }
}
prop_compose! {
    fn receipt()(
        network_id: i32, job in address(), posted_lt: u64, sequence: u32, is_final: bool, units in units(),
        amount in amount(), result_hash in hash(), transcript in hash(), engine: u32, dtype: u8,
    ) -> Receipt {
        Receipt {
            tag: Tag, network_id, job, posted_lt, sequence, is_final, units, amount,
            body: Ref::new(ReceiptBody { result_hash, transcript, engine, dtype }).unwrap(),
        }
    }
}
prop_compose! {
    fn order()(
        network_id: i32, worker in address(), seqno: u32, valid_until: u32, job_client in address(), job_nonce: u64,
        model_id in hash(), bond in amount(),
    ) -> ClaimOrder {
        ClaimOrder {
            tag: Tag, network_id, worker, seqno, valid_until, job_client, job_nonce,
            body: Ref::new(ClaimOrderBody { model_id, bond }).unwrap(),
        }
    }
}
fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![Just(Unit::Token), Just(Unit::AudioSecond), Just(Unit::Image)]
}
fn status() -> impl Strategy<Value = JobStatus> {
    (1u8..=6).prop_map(|value| JobStatus::from_wire(value).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn registry_and_model(
        q: u64, owner in address(), pending in prop::option::of(address()), salt: u64, lock: u32, params in params(),
        m in hash(), from: u32, a in attestation(), net in network(), bps: u16, u in unit(), meta in snake(),
        p in prices(), x in amount(), y in amount(), deprecated: bool, settled: u32,
    ) {
        let mut measurements = Dict::new();
        measurements.set(m, from).unwrap();
        round_trip(RegistryStorage {
            owner: owner.clone(), pending_owner: pending.clone(), salt, timelock_s: lock,
            params: Ref::new(params).unwrap(), measurements: measurements.clone(),
            policy: Ref::new(PlatformPolicy { needs: 1, next_needs: 3, next_from: from, advisories: measurements }).unwrap(),
            platform_code: to_cell(&meta).unwrap(),
        });
        round_trip(RegistrationRequest {
            receipt_key: m, encryption_key: m, registration_seqno: from, mc_seqno: lock, mc_root_hash: m,
        });
        let ppid = a.evidence.ppid;
        let platform = PlatformState { worker_owner: owner.clone(), until: from };
        round_trip(PlatformStorage { ppid, network: Ref::new(net.clone()).unwrap(), state: Some(Ref::new(platform).unwrap()) });
        let state = ModelState {
            publisher: owner.clone(), royalty_bps: bps, unit: u, deprecated, royalty: x, fee: y,
            jobs_settled: settled, metadata: Ref::new(meta.clone()).unwrap(),
        };
        round_trip(ModelStorage { model_id: m, network: Ref::new(net).unwrap(), state: Some(Ref::new(state).unwrap()) });
        let a = Ref::new(a).unwrap();
        let p = Ref::new(p).unwrap();
        message(AllowMeasurement { query_id: q, measurement: m });
        message(RevokeMeasurement { query_id: q, measurement: m });
        message(TransferOwnership { query_id: q, new_owner: pending });
        message(AcceptOwnership { query_id: q });
        message(ServeWorker { query_id: q, worker_owner: owner.clone(), registration_seqno: lock, attestation: a });
        message(LeaveWorker { query_id: q });
        message(SetAcceptedNeeds { query_id: q, needs: 5 });
        message(AllowAdvisories { query_id: q, advisories: m });
        message(RevokeAdvisories { query_id: q, advisories: m });
        message(RegistrationRefused { query_id: q, reason: bps });
        message(EnforceRevocation { query_id: q, measurement: m, worker_owner: owner.clone() });
        message(MeasurementRevoked { query_id: q, measurement: m });
        message(RegisterModel { query_id: q, royalty_bps: bps, unit: u, metadata: Ref::new(meta).unwrap() });
        message(AskRoyalty { query_id: q, worker_owner: owner.clone(), prices: p.clone() });
        message(RoyaltyQuoted { query_id: q, model_id: m, royalty_bps: bps, prices: p });
        message(SharePaid { query_id: q, royalty: x, fee: y, client: owner.clone(), nonce: salt });
        message(WithdrawShares { query_id: q });
        message(TransferModel { query_id: q, new_publisher: owner });
        message(DeprecateModel { query_id: q });
    }

    #[test]
    fn worker(
        q: u64, owner in address(), net in network(), x in amount(), y in amount(), a in attestation(), m in hash(),
        p in prices(), bps: u16, counts: (u32, u32, u32), t: u32, seqno: u32, order in order(),
        sig in prop::collection::vec(any::<u8>(), 64),
    ) {
        let a = Ref::new(a).unwrap();
        let mut offers = Dict::new();
        offers.set(m, Ref::new(Offer { prices: p, royalty_bps: bps }).unwrap()).unwrap();
        let state = WorkerState {
            stake: x, locked: y, earnings: x, unbonding: y, unbonding_until: t, claim_seqno: seqno,
            registration_seqno: t,
            record: WorkerRecord { settled: counts.0, rejected: counts.1, expired: counts.2 },
            attestation: Some(a.clone()), offers,
        };
        round_trip(WorkerStorage { owner, network: Ref::new(net).unwrap(), state: Some(Ref::new(state).unwrap()) });
        message(TopUpStake { query_id: q, amount: x });
        let ppid = a.evidence.ppid;
        message(AttestationRegistered { query_id: q, ppid, registration_seqno: seqno, attestation: a });
        message(LeavePlatform { query_id: q, ppid });
        message(OfferModel { query_id: q, model_id: m, prices: Ref::new(p).unwrap() });
        message(WithdrawOffer { query_id: q, model_id: m });
        message(RequestUnbond { query_id: q, amount: x });
        message(WithdrawUnbonded { query_id: q });
        message(WithdrawEarnings { query_id: q });
        message(FundGas { query_id: q });
        message(ClaimJob { signature: Signature(sig.try_into().unwrap()), order: Ref::new(order).unwrap() });
    }

    #[test]
    fn job(
        q: u64, client in address(), nonce: u64, net in network(), s in status(), lt: u64, times: (u32, u32),
        input in sealed(), terms in terms(), claim in claim(), settled in settlement(), receipt in receipt(),
        x in amount(), y in amount(), reason: u16, code: u8,
    ) {
        let claim = Ref::new(claim).unwrap();
        let state = JobState {
            status: s, posted_lt: lt, posted_at: times.0, closed_at: times.1, input_hash: HashBytes([7; 32]),
            terms: Ref::new(terms.clone()).unwrap(), claim: Some(claim.clone()),
            settlement: Some(Ref::new(settled).unwrap()),
        };
        round_trip(JobStorage { client: client.clone(), nonce, network: Ref::new(net).unwrap(), state: Some(Ref::new(state).unwrap()) });
        let rejection = Rejection { tag: Tag, network_id: receipt.network_id, job: client.clone(), posted_lt: lt, reason };
        let key = SigningKey::from_bytes(&[9; 32]);
        let public = contracts::receipt::public_key(&key);
        let post = PostReceipt::signed(receipt, &input, &key).unwrap();
        prop_assert_eq!(post.verify(&public), Ok(()));
        prop_assert_eq!(post.sealed_result().unwrap(), input.clone());
        message(post);
        let post = PostRejection::signed(rejection, &key).unwrap();
        prop_assert_eq!(post.verify(&public), Ok(()));
        message(post);
        message(PostJob::new(q, terms, &input).unwrap());
        message(TakeJob { query_id: q, bond: x, model_id: HashBytes([3; 32]), claim });
        message(CancelJob { query_id: q });
        message(ExpireJob { query_id: q });
        message(SweepJob { query_id: q });
        message(JobPaid { query_id: q, bond: x, paid: y, client: client.clone(), nonce });
        message(JobReturned { query_id: q, bond: x, client: client.clone(), nonce });
        message(JobForfeited { query_id: q, bond: x, client: client.clone(), nonce });
        message(JobRefund { query_id: q, status: code, paid: x, bond: y });
        message(JobPosted { query_id: q, client, nonce });
        message(Payout { query_id: q });
        message(Excesses { query_id: q });
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
fn a_ref_keeps_the_cell_it_was_read_from() {
    // 5 as Coins with a needless zero byte: not our encoding, but a valid one.
    let mut inner = CellBuilder::new();
    inner.store_u256(&HashBytes::ZERO).unwrap();
    inner.store_small_uint(2, 4).unwrap();
    inner.store_u16(5).unwrap();
    let inner = inner.build().unwrap();
    let body = Ref::<ClaimOrderBody>::from_cell(inner.clone()).unwrap();
    assert_eq!(body.bond, Nanoton::new(5));
    assert_eq!(body.hash(), *inner.repr_hash());
    assert_ne!(body.hash(), Ref::new((*body).clone()).unwrap().hash());
}

#[test]
fn unknown_enum_values_are_refused() {
    let mut builder = CellBuilder::new();
    builder.store_small_uint(7, 4).unwrap();
    assert!(from_cell::<JobStatus>(&builder.build().unwrap()).is_err());
    let mut builder = CellBuilder::new();
    builder.store_u8(3).unwrap();
    assert!(from_cell::<Unit>(&builder.build().unwrap()).is_err());
}
