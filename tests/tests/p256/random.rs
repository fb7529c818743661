//! Random signatures are accepted; with any bit of anything flipped they are not.

use p256::elliptic_curve::Field;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::hostile::{Candidate, reduce};
use crate::probe::Probe;

#[test]
fn accepted_until_a_bit_flips() {
    let probe = Probe::new();
    let input = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>(), 0_usize..256, 0_usize..5);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&input, |(digest, secret, nonce, bit, field)| {
        let (secret, nonce) = (reduce(&secret), reduce(&nonce));
        prop_assume!(!bool::from(secret.is_zero()) && !bool::from(nonce.is_zero()));
        let candidate = Candidate { digest, ..Candidate::signed(reduce(&digest), secret, nonce) };
        let witness = candidate.witness().unwrap();
        prop_assert!(probe.accepts(&candidate, &witness));

        let flip = |bytes: &mut [u8]| bytes[bit / 8] ^= 1 << (bit % 8);
        for field in 0..5 {
            let mut flipped = candidate;
            flip(flipped.field(field));
            prop_assert!(!probe.accepts(&flipped, &witness));
        }
        let mut flipped = candidate;
        flip(flipped.field(field));
        prop_assert!(!probe.is_fooled_by(&flipped));

        let mut slope = witness;
        flip(&mut slope.slope);
        let mut point = witness;
        flip(&mut point.shift[..33]);
        let mut k = witness;
        flip(&mut k.shift[33..]);
        for witness in [slope, point, k] {
            prop_assert!(!probe.accepts(&candidate, &witness));
        }
        Ok(())
    });
    outcome.unwrap();
}

impl Candidate {
    fn field(&mut self, index: usize) -> &mut [u8; 32] {
        match index {
            0 => &mut self.digest,
            1 => &mut self.r,
            2 => &mut self.s,
            3 => &mut self.x,
            _ => &mut self.y,
        }
    }
}
