//! Signatures, addresses and hashes that must never change.
#![allow(clippy::unwrap_used)]

use contracts::attestor::Bytes;
use contracts::job::PostReceipt;
use contracts::librarian::library_cell;
use contracts::measurement::{KeyBinding, TdMeasurements};
use contracts::model_manifest::{ManifestError, ModelFile, hash_file, model_id};
use contracts::network::state_init;
use contracts::platform::PlatformStorage;
use contracts::receipt::{
    Dtype, Receipt, ReceiptContent, SignatureError, Tag, public_key, sign_cell, verify_cell,
};
use contracts::registry::{PlatformPolicy, RegistryStorage};
use contracts::sealing::{FinishReason, Sealed};
use contracts::transcript::Transcript;
use contracts::voucher::Voucher;
use contracts::wire::{Signature, to_cell};
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
        generation: Generation {
            network_id: -3,
            fee_bps: 100,
            bond_bps: 5000,
            min_bond: Nanoton::new(100_000_000),
            job_code: library_cell(&code(3)),
            codes: Ref::new(Codes {
                worker: CodeRef::of(&code(1)),
                model: CodeRef::of(&code(2)),
                platform: *library_cell(&code(4)).repr_hash(),
            })
            .unwrap(),
            params: Ref::new(Params {
                treasury: address(2),
                royalty_cap_bps: 2000,
                min_stake: Nanoton::new(10_000_000_000),
                unbonding_s: 172_800,
                attestor: address(3),
                attestation_ttl_s: 86_400,
            })
            .unwrap(),
        },
    }
}

fn content() -> ReceiptContent {
    ReceiptContent {
        result_hash: HashBytes([4; 32]),
        transcript: HashBytes([5; 32]),
        engine: 1,
        dtype: Dtype::Q4_1 as u8,
    }
}

fn receipt() -> Receipt {
    Receipt {
        tag: Tag,
        job: address(3),
        posted_lt: 4_000_001,
        sequence: 1,
        is_final: true,
        units: Units { input: 10, cached_input: 0, output: 20 },
        amount: Amount::new(600),
        content_hash: content().hash().unwrap(),
    }
}

#[test]
fn an_address_is_the_hash_of_the_state_init() {
    let network = network();
    let pairs = [
        (network.job_address(&address(9), 7).unwrap(), network.job_state_init(&address(9), 7).unwrap()),
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
    let data = to_cell(&PlatformStorage::initial(&network, Bytes([6; 16])).unwrap()).unwrap();
    let init = CellBuilder::build_from(state_init(library_cell(&code(4)), data)).unwrap();
    assert_eq!(network.platform_address(Bytes([6; 16])).unwrap().address, *init.repr_hash());
    assert!(network.worker_state_init(&code(2), &address(9)).is_err());
    assert_ne!(network.job_address(&address(9), 7).unwrap(), network.job_address(&address(9), 8).unwrap());
}

#[test]
fn a_registry_deploys_the_platform_its_generation_names() {
    let initial = |code: Cell| {
        RegistryStorage::initial(
            address(1),
            0,
            60,
            network().generation,
            &[],
            PlatformPolicy::initial(0),
            code,
        )
    };
    assert_eq!(initial(library_cell(&code(4))).unwrap().network(address(1)), network());
    for other in [code(4), library_cell(&code(3))] {
        assert_eq!(initial(other), Err(WireError::CodeMismatch { what: "the platform" }));
    }
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
    changed.amount = Amount::new(601);
    assert!(verify_cell(&to_cell(&changed).unwrap(), &signature, &public_key(&key)).is_err());
    // The identity point signs everything under a lax check.
    let mut identity = HashBytes::ZERO;
    identity.0[0] = 1;
    assert!(verify_cell(receipt.cell(), &signature, &identity).is_err());
    assert!(verify_cell(receipt.cell(), &signature, &HashBytes([0xff; 32])).is_err());
}

#[test]
fn a_voucher_is_a_signature_over_54_bytes() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let voucher = Voucher { job: HashBytes([3; 32]), posted_lt: 258, amount: Amount::new(65_537) };
    let bytes = voucher.to_bytes();
    assert_eq!(bytes[..6], *b"chvchr");
    assert_eq!(bytes[6..38], [3; 32]);
    assert_eq!(bytes[38..], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 0, 1]);
    let signature = voucher.sign(&key);
    let session_key = public_key(&key);
    assert_eq!(voucher.verify(&signature, &session_key), Ok(()));
    for other in [
        Voucher { job: HashBytes([4; 32]), ..voucher },
        Voucher { posted_lt: 259, ..voucher },
        Voucher { amount: Amount::new(65_538), ..voucher },
    ] {
        assert_eq!(other.verify(&signature, &session_key), Err(SignatureError::BadVoucher));
    }
    let mut no_point = HashBytes::ZERO;
    no_point.0[0] = 2;
    assert_eq!(voucher.verify(&signature, &no_point), Err(SignatureError::BadSessionKey));
}

#[test]
fn posted_results_are_readable() {
    let sealed = Sealed::from_bytes(vec![3; 381]).unwrap();
    let mut content = content();
    content.result_hash = *to_cell(&sealed).unwrap().repr_hash();
    let mut receipt = receipt();
    receipt.content_hash = content.hash().unwrap();
    let key = SigningKey::from_bytes(&[7; 32]);
    let post = PostReceipt::signed(receipt.clone(), content.clone(), &sealed, &key).unwrap();
    let read = PostReceipt::from_cell(&post.to_cell().unwrap()).unwrap();
    assert_eq!(read.sealed_result().unwrap(), sealed);
    assert!(read.is_complete());
    assert!(format!("{read:?}").len() < 4000);
    let other = Sealed::from_bytes(vec![4; 381]).unwrap();
    assert!(!PostReceipt::signed(receipt.clone(), content.clone(), &other, &key).unwrap().is_complete());
    receipt.content_hash = HashBytes::ZERO;
    assert!(!PostReceipt::signed(receipt, content, &sealed, &key).unwrap().is_complete());
}

#[test]
fn golden_hashes() {
    let params = work::GenerateParams::greedy(8).digest();
    let transcript = Transcript {
        salt: &[1; 32],
        model_id: &HashBytes([2; 32]),
        engine: 3,
        dtype: Dtype::Bf16,
        params: &params,
        finish_reason: FinishReason::Length,
        input_tokens: &[4, 5],
        output_tokens: &[6],
    };
    let golden = [
        ("receipt", Ref::new(receipt()).unwrap().hash()),
        ("network", Ref::new(network()).unwrap().hash()),
        ("content", content().hash().unwrap()),
        ("job", network().job_address(&address(9), 7).unwrap().address),
        ("worker", network().worker_address(&address(9)).unwrap().address),
        ("platform", network().platform_address(Bytes([6; 16])).unwrap().address),
        ("transcript", transcript.hash()),
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
