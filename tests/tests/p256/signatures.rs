//! What is accepted, what is not, and what it costs.

use p256::ProjectivePoint;

use crate::hostile::{Candidate, Witness, bytes, reduce, scalar};
use crate::probe::Probe;

/// Gas of `verifyP256DigestUnderPoint`, `verifyP256Digest` and `isOnP256` in the probe.
const GAS_UNDER_POINT: u64 = 9_609;
const GAS: u64 = 10_245;
const GAS_OF_POINT: u64 = 546;

fn proven(candidate: &Candidate) -> Witness {
    let signature = [candidate.r, candidate.s].concat().try_into().unwrap();
    let key = [candidate.x, candidate.y].concat().try_into().unwrap();
    prover::p256::witness(&candidate.digest, &signature, &key).unwrap().into()
}

#[test]
fn accepts_a_signature_with_the_provers_witness_for_the_stated_gas() {
    let probe = Probe::new();
    for seed in 0..20 {
        let candidate = Candidate::signed(scalar(seed + 100), scalar(seed), scalar(seed + 200));
        let witness = proven(&candidate);
        assert_eq!(candidate.witness(), Some(witness));
        for (method, gas) in [("checkSignature", GAS), ("checkSignatureUnderPoint", GAS_UNDER_POINT)] {
            let answer = probe.ask(method, &candidate, &witness);
            assert!(answer.accepted);
            assert_eq!(answer.gas, gas, "{method}");
        }
        assert_eq!(probe.ask_point(&candidate.x, &candidate.y).gas, GAS_OF_POINT);
    }
}

#[test]
fn a_refusal_costs_no_more() {
    let probe = Probe::new();
    let candidate = Candidate { s: bytes(scalar(4)), ..Candidate::signed(scalar(1), scalar(2), scalar(3)) };
    for witness in candidate.witnesses() {
        let answer = probe.ask("checkSignature", &candidate, &witness);
        assert!(!answer.accepted && answer.gas <= GAS, "{answer:?}");
    }
}

#[test]
fn accepts_low_and_high_s() {
    let probe = Probe::new();
    let low = Candidate::signed(scalar(2), scalar(1), scalar(3));
    let high = Candidate { s: bytes(-reduce(&low.s)), ..low };
    for candidate in [low, high] {
        assert!(probe.accepts(&candidate, &proven(&candidate)));
    }
}

#[test]
fn refuses_another_digest_key_or_half() {
    let probe = Probe::new();
    let candidate = Candidate::signed(scalar(1), scalar(2), scalar(3));
    let other = Candidate::signed(scalar(4), scalar(5), scalar(6));
    let Candidate { digest, r, s, x, .. } = candidate;
    for forged in [
        Candidate { digest: other.digest, ..candidate },
        Candidate { r: other.r, ..candidate },
        Candidate { s: other.s, ..candidate },
        candidate.with_key(&other.key().unwrap()),
        candidate.with_key(&ProjectivePoint::GENERATOR),
        Candidate { r: s, s: r, ..candidate },
        Candidate { r: x, ..candidate },
        Candidate { digest: x, x: digest, ..candidate },
        Candidate { x: candidate.y, y: x, ..candidate },
        Candidate { r: bytes(-reduce(&r)), ..candidate },
        Candidate { digest: bytes(reduce(&digest).double()), ..candidate },
    ] {
        assert!(!forged.is_valid());
        assert!(!probe.is_fooled_by(&forged), "{forged:?}");
    }
}

#[test]
fn refuses_a_valid_signature_with_another_ones_witness() {
    let probe = Probe::new();
    let first = Candidate::signed(scalar(1), scalar(2), scalar(3));
    let second = Candidate::signed(scalar(4), scalar(2), scalar(5));
    assert!(!probe.accepts(&first, &proven(&second)));
}
