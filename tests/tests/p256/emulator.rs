//! The same questions to the official emulator: `tests/emulator/p256.mjs` wrote its answers, from its own arithmetic.

use serde::Deserialize;

use crate::hostile::{Candidate, Witness};
use crate::probe::{Answer, Probe};

#[derive(Deserialize)]
struct Case {
    name: String,
    digest: String,
    r: String,
    s: String,
    x: String,
    y: String,
    shift: String,
    slope: String,
    accepted: bool,
    gas: u64,
}

#[test]
fn answers_and_charges_as_the_official_emulator() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("emulator.json")).unwrap();
    let probe = Probe::new();
    let mut accepted = 0;
    for case in &cases {
        let number = crate::hostile::number;
        let candidate = Candidate {
            digest: number(&case.digest),
            r: number(&case.r),
            s: number(&case.s),
            x: number(&case.x),
            y: number(&case.y),
        };
        let shift = hex::decode(&case.shift).unwrap().try_into().unwrap();
        let witness = Witness { shift, slope: number(&case.slope) };
        let answer = probe.ask("checkSignature", &candidate, &witness);
        assert_eq!(answer, Answer { accepted: case.accepted, gas: case.gas }, "{}", case.name);
        accepted += usize::from(answer.accepted);
    }
    assert!(accepted >= 10 && cases.len() - accepted >= 20);
}
