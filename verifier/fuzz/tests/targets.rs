//! Each target on its seeds, and on what chance makes of them. No coverage guides this; that is cargo-fuzz's part. It
//! shows that the targets run, on every machine, and catches what is found without looking long.
#![allow(clippy::unwrap_used)]

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use verifier_fuzz::TARGETS;

/// Changed inputs a target; `CHRYSALIS_FUZZ_ROUNDS` asks for more.
const ROUNDS: u64 = 3_000;
const SEED: u64 = 0x6368_7279;

#[test]
fn every_target_takes_its_seeds_and_what_chance_makes_of_them() {
    let rounds = std::env::var("CHRYSALIS_FUZZ_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for seed in &seeds {
            (target.run)(seed);
        }
        (target.run)(&[]);
        for round in 0..rounds {
            let mut rng = StdRng::seed_from_u64(SEED.wrapping_add(round));
            let input = changed(&seeds, &mut rng);
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{} fails in round {round} on {}", target.name, hex::encode(&input));
        }
        println!("{}: {} seeds, {rounds} changed", target.name, seeds.len());
    }
}

/// A seed after one to four changes.
fn changed(seeds: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let pick = |rng: &mut StdRng| &seeds[rng.random_range(0..seeds.len())];
    let mut bytes = pick(rng).clone();
    for _ in 0..rng.random_range(1..5) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = rng.random_range(0..bytes.len());
        let length = rng.random_range(0..=(bytes.len() - at).min(40));
        match rng.random_range(0..9) {
            0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 1, 0x30, 0x7f, 0x80, 0x81, 0x82, 0xff][rng.random_range(0..8)],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + length)),
            5 => {
                let again = bytes[at..at + length].to_vec();
                bytes.splice(at..at, again);
            }
            6 => {
                // The same place of another seed, where it has one.
                if let Some(other) = pick(rng).get(at..at + length) {
                    bytes[at..at + length].copy_from_slice(other);
                }
            }
            7 => bytes.splice(at..at, (0..length).map(|_| rng.random())).for_each(drop),
            // Lengths are counted up and down.
            _ => bytes[at] = bytes[at].wrapping_add(if rng.random() { 1 } else { 255 }),
        }
    }
    bytes
}
