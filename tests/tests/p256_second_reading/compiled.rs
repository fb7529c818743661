//! The compiled contract, asked the questions at the ends of the ranges, and the reading of its source asked the same.

use num_bigint::BigInt;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tvm_executor::{Environment, Vm, method_id};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::models::{
    Account, AccountState, CurrencyCollection, IntAddr, StateInit, StdAddr, StorageInfo,
};
use tycho_types::num::Tokens;
use tycho_vm::{OwnedCellSlice, SafeRc, Stack};

use crate::big::{P256, Question, bytes, floored, int, one, shift_of, two_to};

struct Contract {
    vm: Vm,
    account: Account,
}

impl Contract {
    fn new() -> Self {
        let artefact: Value =
            serde_json::from_str(include_str!("../../../contracts/artifacts/P256Probe.json")).unwrap();
        let code = Boc::decode_base64(artefact["code_boc64"].as_str().unwrap()).unwrap();
        let state = StateInit { code: Some(code), data: Some(Cell::default()), ..StateInit::default() };
        let account = Account {
            address: IntAddr::Std(StdAddr::new(0, HashBytes([8; 32]))),
            storage_stat: StorageInfo::default(),
            last_trans_lt: 0,
            balance: CurrencyCollection::from(Tokens::new(1_000_000_000)),
            state: AccountState::Active(state),
        };
        Self { vm: Vm::new(-3).unwrap(), account }
    }

    fn accepts(&self, question: &Question) -> bool {
        let mut stack = Stack::default();
        for number in [&question.digest, &question.r, &question.s, &question.x, &question.y] {
            stack.push_int(number.clone()).unwrap();
        }
        let mut shift = CellBuilder::new();
        shift.store_raw(&question.shift, 520).unwrap();
        stack.push_raw(SafeRc::new(OwnedCellSlice::new_allow_exotic(shift.build().unwrap()))).unwrap();
        stack.push_int(question.slope.clone()).unwrap();
        let stack = CellBuilder::build_from(&stack).unwrap();
        let environment = Environment { utime: 1_800_000_000, block_lt: 1, ..Environment::default() };
        let method = method_id("checkSignature");
        let output = self.vm.run_getter(&environment, &self.account, method, &stack).unwrap();
        assert!(output.exit_code <= 1, "the contract threw {}", output.exit_code);
        let mut stack = output.stack.parse::<Stack>().unwrap();
        stack.pop_int().unwrap();
        stack.pop_bool().unwrap()
    }
}

/// A key whose owner we are, and a signature of `digest` with this nonce.
struct Signer {
    secret: BigInt,
    key: (BigInt, BigInt),
}

impl Signer {
    fn new(curve: &P256, secret: BigInt) -> Self {
        let key = curve.multiple(&secret).unwrap();
        Self { secret, key }
    }

    fn sign(&self, curve: &P256, digest: &BigInt, nonce: &BigInt) -> (BigInt, BigInt) {
        let r = floored(curve.multiple(nonce).unwrap().0, &curve.n);
        let s = floored((digest + &r * &self.secret) * curve.inverse(nonce), &curve.n);
        (r, s)
    }
}

fn random(rng: &mut StdRng) -> BigInt {
    int(&rng.random::<[u8; 32]>())
}

/// Where ranges end.
fn edges(curve: &P256) -> Vec<BigInt> {
    let (p, n, e) = (&curve.p, &curve.n, &curve.e);
    vec![
        BigInt::ZERO,
        one(),
        BigInt::from(2),
        n - 1,
        n.clone(),
        n + 1,
        p - 1,
        p.clone(),
        p + 1,
        two_to(255),
        two_to(256) - 1,
        e - 1,
        e.clone(),
        e + 1,
        curve.generator.0.clone(),
    ]
}

#[test]
fn the_compiled_code_says_what_the_source_says_at_the_ends_of_every_range() {
    let (curve, contract) = (P256::of_the_source(), Contract::new());
    let mut rng = StdRng::seed_from_u64(0x7032_3536);
    let edges = edges(&curve);
    let edge = |rng: &mut StdRng| edges[rng.random_range(0..edges.len())].clone();
    let (mut accepted, mut asked) = (0, 0);
    for round in 0..40 {
        let signer = Signer::new(&curve, floored(random(&mut rng), &curve.n));
        let digest = if round % 2 == 0 { random(&mut rng) } else { edge(&mut rng) };
        let (r, s) = signer.sign(&curve, &digest, &floored(random(&mut rng), &curve.n));
        let Some((shift, slope)) = curve.witness(&digest, &r, &signer.key) else {
            assert_eq!(digest, curve.e);
            continue;
        };
        let (x, y) = signer.key.clone();
        let honest = Question { digest, r, s, x, y, shift, slope };
        assert!(contract.accepts(&honest) && curve.contract_accepts(&honest));
        assert!(curve.ecdsa(&honest.digest, &honest.r, &honest.s, &signer.key));
        accepted += 1;
        for field in 0..9 {
            let mut changed = honest.clone();
            let value = edge(&mut rng);
            match field {
                0 => changed.digest.clone_from(&value),
                1 => changed.r.clone_from(&value),
                2 => changed.s.clone_from(&value),
                3 => changed.x.clone_from(&value),
                4 => changed.y.clone_from(&value),
                5 => changed.slope.clone_from(&value),
                6 => changed.shift[1..33].copy_from_slice(&bytes(&value)),
                7 => changed.shift[33..].copy_from_slice(&bytes(&value)),
                _ => changed.shift[0] = rng.random(),
            }
            let verdict = contract.accepts(&changed);
            assert_eq!(verdict, curve.contract_accepts(&changed), "round {round}, field {field}, {value}");
            let key = (changed.x.clone(), changed.y.clone());
            let is_valid = curve.contains(&key) && curve.ecdsa(&changed.digest, &changed.r, &changed.s, &key);
            assert!(!verdict || is_valid, "round {round}, field {field}, {value}");
            asked += 1;
        }
    }
    // Nothing but ends of ranges: nothing is thrown, and nobody is believed.
    for _ in 0..300 {
        let mut shift = [0; 65];
        shift[0] = rng.random_range(0..6);
        shift[1..33].copy_from_slice(&bytes(&edge(&mut rng)));
        shift[33..].copy_from_slice(&bytes(&edge(&mut rng)));
        let [digest, r, s, x, y, slope] = std::array::from_fn(|_| edge(&mut rng));
        let question = Question { digest, r, s, x, y, shift, slope };
        assert_eq!(contract.accepts(&question), curve.contract_accepts(&question));
        asked += 1;
    }
    println!("{accepted} honest, {asked} changed");
}

/// A forger's own keys: T with a logarithm he knows but not k's, Q + T as wanted, each with what he can sign under it.
/// All that is missing is a hash.
#[test]
fn everything_but_the_hash_can_be_had_and_is_not_enough() {
    let (curve, contract) = (P256::of_the_source(), Contract::new());
    let mut rng = StdRng::seed_from_u64(0x666f_7267);
    let n = &curve.n;
    for _ in 0..12 {
        let signer = Signer::new(&curve, floored(random(&mut rng), n));
        // A signature of another digest, which the forger has seen, for a digest of his own: T must be (z' − e) / r · G,
        // k must be (z − e) / r.
        let (seen, wanted) = (random(&mut rng), random(&mut rng));
        let (r, s) = signer.sign(&curve, &seen, &floored(random(&mut rng), n));
        let log = floored((&seen - &curve.e) * curve.inverse(&r), n);
        let k = floored((&wanted - &curve.e) * curve.inverse(&r), n);
        let t = curve.multiple(&log).unwrap();
        let shift = shift_of(&t, &k);
        let slope = curve.slope(&signer.key, &t).unwrap();
        let (x, y) = signer.key.clone();
        let forged = Question { digest: wanted, r, s, x, y, shift, slope };
        assert!(!contract.accepts(&forged) && !curve.contract_accepts(&forged));
        // The hash that would do is one residue: −(t + k) · G.x / 2. It is another than SHA-256 gives.
        let helpful = floored(-(&log + &k) * &curve.generator.0 * curve.inverse(&BigInt::from(2)), n);
        let sigma = floored(&helpful + &k * &curve.generator.0, n);
        assert!(curve.ecdsa(&helpful, &curve.generator.0, &sigma, &t), "the equation of lemma 1");
        let next = floored(&helpful + 1, n);
        let sigma = floored(&next + &k * &curve.generator.0, n);
        assert!(!curve.ecdsa(&next, &curve.generator.0, &sigma, &t));
    }
}
