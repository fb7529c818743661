//! Sealing: the suite against RFC 9180, the binding, the padding, and what must not leak.
#![allow(clippy::unwrap_used)]

use contracts::receipt::Dtype;
use contracts::sealing::*;
use contracts::wire::{Snake, from_cell, to_cell};
use contracts::work::{GenerateParams, Request};
use contracts::*;
use hpke::{Deserializable, OpModeR};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn context() -> InputContext {
    InputContext {
        network_id: -3,
        job: StdAddr::new(0, HashBytes([1; 32])),
        model_id: HashBytes([2; 32]),
        until: 1_800_000_000,
    }
}

fn input(text: &str) -> Input {
    let messages = vec![ChatMessage::new("user", text)];
    Input::new(HashBytes([3; 32]), Request::chat(messages, GenerateParams::greedy(64)))
}

fn output(text: &str) -> Output {
    Output::text(text.into(), FinishReason::Stop, [4; 32], &GenerateParams::greedy(64), vec![1, 2], vec![3])
}

#[test]
fn rfc_9180_a_2_1_opens_under_the_suite() {
    type Kem = hpke::kem::X25519HkdfSha256;
    let bytes = |text: &str| hex::decode(text).unwrap();
    let key = <Kem as hpke::Kem>::PrivateKey::from_bytes(&bytes(
        "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
    ))
    .unwrap();
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(&bytes(
        "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
    ))
    .unwrap();
    let plaintext = hpke::single_shot_open::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, Kem>(
        &OpModeR::Base,
        &key,
        &enc,
        b"Ode on a Grecian Urn",
        &bytes("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"),
        b"Count-0",
    )
    .unwrap();
    assert_eq!(plaintext, b"Beauty is truth, truth beauty");
}

#[test]
fn an_input_opens_for_its_key_and_job_alone() {
    let key = DecryptionKey::generate(&mut rng());
    let sealed = seal_input(&input("hello"), &key.public(), &context(), &mut rng()).unwrap();
    assert_eq!(open_input(&sealed, &key, &context()).unwrap(), input("hello"));

    let mut others = Vec::new();
    let mut change = |edit: fn(&mut InputContext)| {
        let mut other = context();
        edit(&mut other);
        others.push(other);
    };
    change(|c| c.network_id = -239);
    change(|c| c.job.address.0[31] ^= 1);
    change(|c| c.job.workchain = -1);
    change(|c| c.model_id.0[0] ^= 1);
    change(|c| c.until += 1);
    for other in others {
        assert_eq!(open_input(&sealed, &key, &other), Err(SealError::CannotOpen));
    }
    let stranger = DecryptionKey::generate(&mut StdRng::seed_from_u64(8));
    assert_eq!(open_input(&sealed, &stranger, &context()), Err(SealError::CannotOpen));
    for position in [0, 31, 32, 100, sealed.as_bytes().len() - 1] {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[position] ^= 1;
        let altered = Sealed::from_bytes(bytes).unwrap();
        assert_eq!(open_input(&altered, &key, &context()), Err(SealError::CannotOpen));
    }
}

#[test]
fn a_result_opens_for_its_posting_alone() {
    let key = DecryptionKey::generate(&mut rng());
    let context = ResultContext { network_id: -3, job: StdAddr::new(0, HashBytes([1; 32])), posted_lt: 77 };
    let sealed = seal_result(&output("hi"), &key.public(), &context, &mut rng()).unwrap();
    assert_eq!(open_result(&sealed, &key, &context).unwrap(), output("hi"));
    let later = ResultContext { posted_lt: 78, ..context.clone() };
    assert_eq!(open_result(&sealed, &key, &later), Err(SealError::CannotOpen));
    // An input is not a result, even with the same key.
    let as_input = InputContext { network_id: -3, job: context.job, model_id: HashBytes::ZERO, until: 0 };
    assert_eq!(open_input(&sealed, &key, &as_input), Err(SealError::CannotOpen));
}

#[test]
fn lengths_tell_little() {
    let key = DecryptionKey::generate(&mut rng());
    let size = |text: &str| {
        seal_input(&input(text), &key.public(), &context(), &mut rng()).unwrap().as_bytes().len()
    };
    assert_eq!(size("a"), 254);
    assert_eq!(size("a"), size("a longer prompt"));
    for length in 0..300 {
        let size = size(&"x".repeat(length));
        assert!(size.is_multiple_of(127) && size >= 254, "{length}: {size}");
    }
    // The greatest that fits in two cells, and the least that does not.
    let fixed = serde_json::to_vec(&input("")).unwrap().len();
    let room = 254 - 48 - 4 - fixed;
    assert_eq!((size(&"x".repeat(room)), size(&"x".repeat(room + 1))), (254, 381));
}

#[test]
fn the_longest_input_fits_a_chain_of_cells() {
    let key = DecryptionKey::generate(&mut rng());
    let fixed = serde_json::to_vec(&input("")).unwrap().len();
    let longest = input(&"x".repeat(MAX_JSON_BYTES - fixed));
    let sealed = seal_input(&longest, &key.public(), &context(), &mut rng()).unwrap();
    assert_eq!(open_input(&sealed, &key, &context()).unwrap(), longest);
    assert_eq!(from_cell::<Sealed>(&to_cell(&sealed).unwrap()).unwrap(), sealed);
}

#[test]
fn what_fills_no_two_cells_is_not_sealed() {
    for bytes in [0, 48, 127, 253, 255] {
        assert_eq!(Sealed::from_bytes(vec![1; bytes]), Err(SealError::NotSealed { bytes }));
        let cell = to_cell(&Snake::new(vec![1; bytes]).unwrap()).unwrap();
        assert!(from_cell::<Sealed>(&cell).is_err());
    }
}

#[test]
fn too_long_an_input_is_refused() {
    let key = DecryptionKey::generate(&mut rng());
    let long = input(&"x".repeat(MAX_JSON_BYTES));
    assert!(matches!(
        seal_input(&long, &key.public(), &context(), &mut rng()),
        Err(SealError::TooLong { .. })
    ));
}

#[test]
fn a_key_of_low_order_is_refused() {
    assert_eq!(
        seal_input(&input("a"), &HashBytes::ZERO, &context(), &mut rng()),
        Err(SealError::BadRecipient)
    );
}

#[test]
fn keys_survive_their_file() {
    let key = DecryptionKey::generate(&mut rng());
    let read = DecryptionKey::from_bytes(&key.to_bytes()).unwrap();
    assert_eq!(read.public(), key.public());
}

#[test]
fn debug_shows_no_secret() {
    let key = DecryptionKey::generate(&mut rng());
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        input("secret prompt"),
        ChatMessage::new("user", "secret turn"),
        output("secret answer"),
        key
    );
    assert!(!shown.contains("secret"), "{shown}");
    assert!(!shown.contains(&hex::encode(*key.to_bytes())));
}

#[test]
fn a_result_says_what_it_answers() {
    let messages = vec![ChatMessage::new("user", "secret")];
    let asked = |params: &GenerateParams| Request::chat(messages.clone(), params.clone());
    let mut params = GenerateParams::greedy(64);
    params.sampling.seed = 9;
    let mut held = params.clone();
    held.max_output_tokens = 3;
    let made = Output::text("hi".into(), FinishReason::Length, [4; 32], &held, vec![1, 2], vec![3]);
    assert!(made.answers(&asked(&params)));
    assert!(made.answers(&asked(&held)));
    let mut other = params.clone();
    other.sampling.seed = 8;
    assert!(!made.answers(&asked(&other)));
    held.max_output_tokens = 2;
    assert!(!made.answers(&asked(&held)), "more than was allowed");

    let vectors = vec![vec![0.5, -1.5], vec![f32::MIN_POSITIVE, 3.0e9]];
    let embedded = Output::embeddings([4; 32], &[vec![1, 2, 3], vec![4]], &vectors);
    let key = DecryptionKey::generate(&mut rng());
    let context = ResultContext { network_id: -3, job: StdAddr::new(0, HashBytes([1; 32])), posted_lt: 77 };
    let sealed = seal_result(&embedded, &key.public(), &context, &mut rng()).unwrap();
    let opened = open_result(&sealed, &key, &context).unwrap();
    assert_eq!(opened.vectors().unwrap(), vectors);
    assert!(opened.answers(&Request::Embeddings { texts: vec!["a".into(), "b".into()] }));
    assert!(!opened.answers(&Request::Embeddings { texts: vec!["a".into()] }));
    assert!(!opened.answers(&asked(&params)));
    assert_eq!(made.vectors(), None);

    let audio =
        |audio: &str| Request::Transcription { audio: audio.into(), language: None, translate: false };
    let digest = contracts::work::transcription_digest(b"abc", None, false);
    let heard = Output::transcription("hi".into(), [4; 32], digest, vec![3], "en".into());
    assert!(heard.answers(&audio("YWJj")));
    assert!(!heard.answers(&audio("YWJk")) && !heard.answers(&audio("no base64")));
}

#[test]
fn a_transcript_depends_on_all_that_it_commits_to() {
    let params = GenerateParams::greedy(3);
    let made = |reason| Output::text("hi".into(), reason, [4; 32], &params, vec![1, 2], vec![3]);
    let base = made(FinishReason::Stop);
    let hash = |output: &Output| output.transcript(&HashBytes([1; 32]), 1, Dtype::F32);
    let mut hashes = vec![
        hash(&base),
        base.transcript(&HashBytes([2; 32]), 1, Dtype::F32),
        base.transcript(&HashBytes([1; 32]), 2, Dtype::F32),
        base.transcript(&HashBytes([1; 32]), 1, Dtype::F16),
        hash(&made(FinishReason::Length)),
    ];
    let changes: [fn(&mut Output); 5] = [
        |output| output.salt[0] ^= 1,
        |output| output.params.0[0] ^= 1,
        |output| output.input_tokens[1] = 3,
        |output| output.output_tokens[0] = 2,
        |output| {
            output.input_tokens.pop();
            output.output_tokens.insert(0, 2);
        },
    ];
    for change in changes {
        let mut other = base.clone();
        change(&mut other);
        hashes.push(hash(&other));
    }
    let different: std::collections::HashSet<_> = hashes.iter().collect();
    assert_eq!(different.len(), hashes.len());
}
