//! Signatures, addresses and hashes that must never change.
#![allow(clippy::unwrap_used)]

use contracts::job::PostReceipt;
use contracts::measurement::{KeyBinding, TdMeasurements};
use contracts::model_manifest::{ManifestError, ModelFile, hash_file, model_id};
use contracts::network::AttestationParams;
use contracts::receipt::{
    Dtype, Receipt, ReceiptBody, SignatureError, Tag, public_key, sign_cell, verify_cell,
};
use contracts::sealing::Sealed;
use contracts::transcript::transcript;
use contracts::wire::{Signature, Snake, to_cell};
use contracts::*;
use sha2::{Digest, Sha256};
use tycho_types::cell::CellBuilder;

fn address(byte: u8) -> StdAddr {
    StdAddr::new(0, HashBytes([byte; 32]))
}

fn code(byte: u8) -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_u8(byte).unwrap();
    builder.build().unwrap()
}

fn network() -> Network {
    Network {
        registry: address(1),
        params: Ref::new(Params {
            network_id: -3,
            treasury: address(2),
            fee_bps: 100,
            royalty_cap_bps: 2000,
            min_stake: Nanoton::new(10_000_000_000),
            min_bond: Nanoton::new(100_000_000),
            bond_bps: 5000,
            unbonding_s: 172_800,
            audit_window_s: 604_800,
            codes: Ref::new(Codes {
                worker: CodeRef::of(&code(1)),
                model: CodeRef::of(&code(2)),
                job: CodeRef::of(&code(3)),
            })
            .unwrap(),
            attestation: Ref::new(AttestationParams {
                attestor: address(3),
                ttl_s: 86_400,
                platform: CodeRef::of(&code(4)),
            })
            .unwrap(),
        })
        .unwrap(),
    }
}

fn receipt() -> Receipt {
    Receipt {
        tag: Tag,
        network_id: -3,
        job: address(3),
        posted_lt: 4_000_001,
        sequence: 1,
        is_final: true,
        units: Units { input: 10, cached_input: 0, output: 20 },
        amount: Nanoton::new(600),
        body: Ref::new(ReceiptBody {
            result_hash: HashBytes([4; 32]),
            transcript: HashBytes([5; 32]),
            engine: 1,
            dtype: Dtype::Q4_1 as u8,
        })
        .unwrap(),
    }
}

#[test]
fn an_address_is_the_hash_of_the_state_init() {
    let network = network();
    let pairs = [
        (
            network.job_address(&address(9), 7).unwrap(),
            network.job_state_init(&code(3), &address(9), 7).unwrap(),
        ),
        (
            network.worker_address(&address(9)).unwrap(),
            network.worker_state_init(&code(1), &address(9)).unwrap(),
        ),
        (
            network.model_address(&HashBytes([8; 32])).unwrap(),
            network.model_state_init(&code(2), &HashBytes([8; 32])).unwrap(),
        ),
    ];
    for (address, init) in pairs {
        let cell = CellBuilder::build_from(&init).unwrap();
        assert_eq!(address, StdAddr::new(0, *cell.repr_hash()));
    }
    assert!(network.job_state_init(&code(1), &address(9), 7).is_err());
    assert_ne!(network.job_address(&address(9), 7).unwrap(), network.job_address(&address(9), 8).unwrap());
}

#[test]
fn a_signature_holds_for_one_cell_and_one_key() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let receipt = Ref::new(receipt()).unwrap();
    let signature = sign_cell(receipt.cell(), &key);
    assert_eq!(verify_cell(receipt.cell(), &signature, &public_key(&key)), Ok(()));
    for bit in [0, 100, 255, 300, 511] {
        let mut bytes = signature.0;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            verify_cell(receipt.cell(), &Signature(bytes), &public_key(&key)),
            Err(SignatureError::BadSignature)
        );
    }
    let other = SigningKey::from_bytes(&[8; 32]);
    assert_eq!(
        verify_cell(receipt.cell(), &signature, &public_key(&other)),
        Err(SignatureError::BadSignature)
    );
    let mut changed = (*receipt).clone();
    changed.amount = Nanoton::new(601);
    assert!(verify_cell(&to_cell(&changed).unwrap(), &signature, &public_key(&key)).is_err());
    // The identity point signs everything under a lax check.
    let mut identity = HashBytes::ZERO;
    identity.0[0] = 1;
    assert!(verify_cell(receipt.cell(), &signature, &identity).is_err());
    assert!(verify_cell(receipt.cell(), &signature, &HashBytes([0xff; 32])).is_err());
}

#[test]
fn posted_results_are_readable() {
    let sealed =
        Sealed { enc: HashBytes([1; 32]), ciphertext: Ref::new(Snake::new(vec![3; 300]).unwrap()).unwrap() };
    let key = SigningKey::from_bytes(&[7; 32]);
    let post = PostReceipt::signed(receipt(), &sealed, &key).unwrap();
    let read = PostReceipt::from_cell(&post.to_cell().unwrap()).unwrap();
    assert_eq!(read.sealed_result().unwrap(), sealed);
    assert!(format!("{read:?}").len() < 4000);
}

#[test]
fn golden_hashes() {
    let golden = [
        ("receipt", Ref::new(receipt()).unwrap().hash()),
        ("network", Ref::new(network()).unwrap().hash()),
        ("job", network().job_address(&address(9), 7).unwrap().address),
        ("worker", network().worker_address(&address(9)).unwrap().address),
        ("transcript", transcript(&[1; 32], &HashBytes([2; 32]), 3, Dtype::Bf16, &[4, 5], &[6])),
    ];
    let text: String = golden.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect();
    assert_eq!(text, include_str!("golden_hashes.txt"));
}

#[test]
fn a_model_id_is_a_merkle_root_over_sorted_files() {
    let file = |name: &str, byte: u8| ModelFile {
        name: name.into(),
        size_bytes: u64::from(byte),
        sha256: HashBytes([byte; 32]),
    };
    let leaf = |file: &ModelFile| -> [u8; 32] {
        let mut bytes = b"chrysalis/file/v1".to_vec();
        bytes.extend((file.name.len() as u16).to_be_bytes());
        bytes.extend(file.name.as_bytes());
        bytes.extend(file.size_bytes.to_be_bytes());
        bytes.extend(file.sha256.0);
        Sha256::digest(bytes).into()
    };
    let node = |left: [u8; 32], right: [u8; 32]| -> [u8; 32] {
        Sha256::digest([&[1][..], &left, &right].concat()).into()
    };
    let (a, b, c) = (file("a", 1), file("b", 2), file("c", 3));
    assert_eq!(model_id(std::slice::from_ref(&a)).unwrap().0, leaf(&a));
    let expected = node(node(leaf(&a), leaf(&b)), leaf(&c));
    assert_eq!(model_id(&[c.clone(), a.clone(), b.clone()]).unwrap().0, expected);
    assert_eq!(model_id(&[]), Err(ManifestError::Empty));
    assert!(matches!(model_id(&[a.clone(), file("a", 9)]), Err(ManifestError::Duplicate { .. })));
    assert!(matches!(model_id(&[file("", 9)]), Err(ManifestError::BadName { .. })));
}

#[test]
fn a_file_is_hashed_as_it_streams() {
    let contents = vec![42u8; 3_000_000];
    let mut seen = 0;
    let file = hash_file("weights", &contents[..], |bytes| seen += bytes).unwrap();
    assert_eq!(file.size_bytes, 3_000_000);
    assert_eq!(seen, 3_000_000);
    assert_eq!(file.sha256.0, <[u8; 32]>::from(Sha256::digest(&contents)));
}

#[test]
fn report_data_binds_every_field() {
    let binding = KeyBinding {
        network_id: -3,
        worker: address(1),
        receipt_key: HashBytes([2; 32]),
        encryption_key: HashBytes([3; 32]),
        registration_seqno: 6,
        mc_seqno: 4,
        mc_root_hash: HashBytes([5; 32]),
    };
    let mut bytes = b"chrysalis/report-data/v1".to_vec();
    bytes.extend([0xff, 0xff, 0xff, 0xfd, 0]);
    bytes.extend([1; 32]);
    bytes.extend([2; 32]);
    bytes.extend([3; 32]);
    bytes.extend([0, 0, 0, 6]);
    bytes.extend([0, 0, 0, 4]);
    bytes.extend([5; 32]);
    let report_data = binding.report_data();
    assert_eq!(report_data[..32], Sha256::digest(bytes)[..]);
    assert_eq!(report_data[32..], [0; 32]);

    let fields = TdMeasurements {
        td_attributes: [10; 8],
        xfam: [9; 8],
        mr_td: [1; 48],
        mr_config_id: [2; 48],
        mr_owner: [3; 48],
        mr_owner_config: [4; 48],
        rtmr0: [5; 48],
        rtmr1: [6; 48],
        rtmr2: [7; 48],
        rtmr3: [8; 48],
    };
    let mut bytes = b"chrysalis/measurement/v1".to_vec();
    bytes.extend([10; 8]);
    bytes.extend([9; 8]);
    for byte in 1..=8 {
        bytes.extend([byte; 48]);
    }
    assert_eq!(fields.measurement().0, <[u8; 32]>::from(Sha256::digest(bytes)));
}
