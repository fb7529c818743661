//! The Attestor against dcap-qvl over changed evidence: it accepts nothing that dcap-qvl refuses, and what it refuses
//! beyond that is in the committed table. `CHRYSALIS_SEED=n` chooses the cases, `CHRYSALIS_CASE=n` runs one of them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tdx_simulator::{PckIssuer, Profile, QuoteFormat, Signer};

use crate::bench::Bench;
use crate::evidence::{Evidence, NOW, PARTS, Part, Text, World};
use crate::mutations;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/attestor/stricter.json");
const CASES: u64 = 20_000;

struct Worlds {
    /// What is changed.
    own: Vec<World>,
    /// Whose texts are put in place of the own: another root, another CA of the same name, another machine, revoked.
    others: Vec<World>,
}

fn worlds(bench: &Bench) -> Worlds {
    let profile = |change: fn(&mut Profile)| {
        let mut profile = Profile::default();
        profile.revocations.more_by_issuer = vec![[0x11; 20], [0x7f; 20], [0x91; 20]];
        profile.revocations.more_by_root = vec![[0x21; 20]];
        change(&mut profile);
        profile
    };
    let own = [
        profile(|_| ()),
        profile(|profile| (profile.format, profile.issuer) = (QuoteFormat::V5Td15Ex, PckIssuer::Processor)),
        profile(|profile| {
            profile.format = QuoteFormat::V5Td15;
            profile.component_svns = [200, 7, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 128];
            profile.tee_tcb_svn = [3, 3, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            profile.revocations.more_by_root = Vec::new();
        }),
        profile(|profile| {
            profile.format = QuoteFormat::V5Td10;
            profile.tee_tcb_svn = [5, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            profile.pce_svn = 200;
        }),
    ];
    let others = [
        ([8; 32], profile(|_| ())),
        ([7; 32], profile(|profile| profile.issuer_key = 1)),
        ([7; 32], profile(|profile| profile.issuer = PckIssuer::Processor)),
        ([7; 32], profile(|profile| profile.machine = 1)),
        ([7; 32], profile(|profile| profile.fmspc = *b"SIMTD2")),
    ];
    Worlds {
        own: own.into_iter().map(|profile| World::new(bench, [7; 32], profile)).collect(),
        others: others.into_iter().map(|(seed, profile)| World::new(bench, seed, profile)).collect(),
    }
}

struct Case {
    name: String,
    evidence: Evidence,
    changed: Part,
    now: u32,
}

/// One case; everything about it follows from seed and number.
fn case(worlds: &Worlds, seed: u64, number: u64) -> (&World, Case) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
    let world = &worlds.own[rng.random_range(0..worlds.own.len())];
    let mut evidence = world.evidence.clone();
    let weights =
        [Part::Report, Part::QeReport, Part::Pck, Part::Pck, Part::Pck, Part::PckCrl, Part::RootCrl];
    let changed = match rng.random_range(0..3) {
        0 => PARTS[rng.random_range(0..PARTS.len())],
        _ => weights[rng.random_range(0..weights.len())],
    };
    let mut now = NOW;
    let what = match rng.random_range(0..20) {
        0 | 1 => swap(&mut rng, worlds, &mut evidence, changed),
        2 => {
            let days = [-3_000, -2, -1, 0, 29, 30, 31, 2_555, 2_556, 8_000][rng.random_range(0..10)];
            now = NOW.saturating_add_signed(days * 86_400 + rng.random_range(-1..=1));
            "another time".to_owned()
        }
        3 => shift(&mut rng, world, &mut evidence, changed),
        4 => {
            let signature = &mut evidence.text_mut(changed).signature;
            signature[rng.random_range(0..64)] ^= 1 << rng.random_range(0..8);
            "signature bit".to_owned()
        }
        5 => key(&mut rng, world, &mut evidence),
        6 | 7 => {
            let how = mutations::blind(&mut rng, &mut evidence.text_mut(changed).bytes);
            format!("{how}, not signed")
        }
        8..12 => {
            let how = mutations::blind(&mut rng, &mut evidence.text_mut(changed).bytes);
            sign(world, &mut evidence, changed);
            format!("{how}, signed")
        }
        _ => {
            let bytes = &mut evidence.text_mut(changed).bytes;
            let how = if changed.is_der() {
                mutations::der(&mut rng, bytes)
            } else if changed.is_json() {
                mutations::json(&mut rng, bytes)
            } else {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
                "bit"
            };
            sign(world, &mut evidence, changed);
            format!("{how}, signed")
        }
    };
    (world, Case { name: format!("{changed:?}: {what}"), evidence, changed, now })
}

fn sign(world: &World, evidence: &mut Evidence, part: Part) {
    let text = evidence.text_mut(part);
    text.signature = world.platform.sign_as(part.signer(), &text.bytes);
}

/// Another world's text, or another text of this one, in this one's place.
fn swap(rng: &mut StdRng, worlds: &Worlds, evidence: &mut Evidence, changed: Part) -> String {
    if rng.random_range(0..3) == 0 {
        let from = PARTS[rng.random_range(0..PARTS.len())];
        *evidence.text_mut(changed) = evidence.text(from).clone();
        return format!("the {from:?}");
    }
    let which = rng.random_range(0..worlds.others.len());
    *evidence.text_mut(changed) = worlds.others[which].evidence.text(changed).clone();
    format!("of other world {which}")
}

/// The sound text, cut elsewhere.
fn shift(rng: &mut StdRng, world: &World, evidence: &mut Evidence, changed: Part) -> String {
    let mut cuts = world.sound_cuts(changed).to_vec();
    if cuts.is_empty() {
        return "whole".to_owned();
    }
    let at = rng.random_range(0..cuts.len());
    let what = match rng.random_range(0..3) {
        0 => {
            cuts[at] = cuts[at].saturating_add_signed(isize::from(rng.random_range(-9i8..=9)));
            "a cut shifted"
        }
        1 => {
            cuts.remove(at);
            "a cut less"
        }
        _ => {
            let length = evidence.text(changed).bytes.len();
            cuts.push(rng.random_range(1..length));
            "a cut more"
        }
    };
    cuts.sort_unstable();
    evidence.text_mut(changed).cuts = Some(cuts);
    what.to_owned()
}

/// Another attestation key, bound or not.
fn key(rng: &mut StdRng, world: &World, evidence: &mut Evidence) -> String {
    use sha2::{Digest, Sha256};
    match rng.random_range(0..3) {
        0 => {
            evidence.attestation_key[rng.random_range(0..64)] ^= 1 << rng.random_range(0..8);
            "attestation key bit".to_owned()
        }
        1 => {
            evidence.authentication_data[rng.random_range(0..32)] ^= 1;
            "authentication data bit".to_owned()
        }
        _ => {
            evidence.attestation_key = world.platform.public_key(Signer::TcbSigner);
            let bound =
                Sha256::digest([&evidence.attestation_key[..], &evidence.authentication_data].concat());
            let report = &mut evidence.text_mut(Part::QeReport).bytes;
            report[320..352].copy_from_slice(&bound);
            let is_signed = rng.random();
            if is_signed {
                sign(world, evidence, Part::QeReport);
            }
            let Text { bytes, signature, .. } = evidence.text_mut(Part::Report);
            *signature = world.platform.sign_as(Signer::TcbSigner, bytes);
            format!("another attestation key, {}", if is_signed { "bound" } else { "not bound" })
        }
    }
}

#[derive(Default)]
struct Tally {
    both_accept: u64,
    both_refuse: u64,
    told_otherwise: u64,
    /// The contract accepted, as dcap-qvl does, the text it put together, in which the change is not.
    put_together: u64,
    stricter: BTreeMap<String, (u64, String)>,
    failures: Vec<String>,
}

fn run(bench: &Bench, worlds: &Worlds, seed: u64, number: u64, tally: &Mutex<Tally>) {
    let (world, case) = case(worlds, seed, number);
    let contract = world.contract(bench, &case.evidence, case.changed, case.now);
    let reference = world.reference(&case.evidence, case.now);
    // A statement has no place for some changes. What is accepted is then what was put together.
    let (contract, reference, is_put_together) = match (contract, reference) {
        (Ok(shown), Err(_)) if shown.evidence != case.evidence => {
            let reference = world.reference(&shown.evidence, case.now);
            (Ok(shown.accepted), reference, true)
        }
        (contract, reference) => (contract.map(|shown| shown.accepted), reference, false),
    };
    let mut tally = tally.lock().unwrap();
    match (contract, reference) {
        (Ok(ours), Ok(theirs)) => {
            if is_put_together {
                tally.put_together += 1
            } else {
                tally.both_accept += 1
            }
            // What the quoting enclave needs beyond being up to date counts for the contract alone.
            let is_milder = ours.up_to_date && !theirs.up_to_date;
            if is_milder || (&ours.report_data, &ours.ppid) != (&theirs.report_data, &theirs.ppid) {
                tally.failures.push(format!("case {number}, {}: {ours:?} is not {theirs:?}", case.name));
            }
        }
        (Err(_), Err(_)) => tally.both_refuse += 1,
        (Ok(_), Err(_)) if is_told_otherwise(world, &case) => tally.told_otherwise += 1,
        (Ok(_), Err(theirs)) => {
            tally
                .failures
                .push(format!("case {number}, {}: accepted, where dcap-qvl says: {theirs}", case.name));
        }
        (Err(ours), Ok(_)) => {
            let part = case.name.split(':').next().unwrap_or_default();
            let entry = tally.stricter.entry(format!("{part}: {}", reason(&ours))).or_default();
            entry.0 += 1;
            if entry.1.is_empty() {
                entry.1 = format!("case {number}, {}: {ours}", case.name);
            }
        }
    }
}

/// Whether TCB info that its signer signed is all that dcap-qvl takes but for the words that describe a component, which
/// the contract passes over: they decide nothing.
fn is_told_otherwise(world: &World, case: &Case) -> bool {
    let mut evidence = case.evidence.clone();
    let text = evidence.text_mut(Part::TcbInfo);
    let json = String::from_utf8_lossy(&text.bytes).into_owned();
    let mut plain = String::new();
    let mut rest = json.as_str();
    while let Some((before, after)) = rest.split_once(",\"category\":\"") {
        let Some(end) = ["},{\"svn\":", "}],\""].iter().filter_map(|end| after.find(end)).min() else {
            break;
        };
        plain.push_str(before);
        rest = &after[end..];
    }
    plain.push_str(rest);
    text.bytes = plain.into_bytes();
    sign(world, &mut evidence, Part::TcbInfo);
    case.changed == Part::TcbInfo && world.reference(&evidence, case.now).is_ok()
}

/// The kind of a refusal. Which word of the form was expected changes with the case; the example names it.
fn reason(refusal: &str) -> String {
    let kind = if refusal.contains("from the form Intel issues") {
        "not in the form Intel issues"
    } else if refusal.contains("other cuts") {
        "cut elsewhere"
    } else {
        refusal
    };
    kind.to_owned()
}

#[test]
fn accepts_nothing_that_the_reference_refuses() {
    let variable = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = variable("CHRYSALIS_SEED").unwrap_or(1);
    println!("CHRYSALIS_SEED={seed}");
    let (from, until) = match variable("CHRYSALIS_CASE") {
        Some(case) => (case, case + 1),
        None => (0, variable("CHRYSALIS_CASES").unwrap_or(CASES)),
    };
    let worlds = worlds(&Bench::new());
    let tally = Mutex::new(Tally::default());
    let next = std::sync::atomic::AtomicU64::new(from);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let bench = Bench::new();
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= until {
                        break;
                    }
                    run(&bench, &worlds, seed, number, &tally);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    let more: u64 = tally.stricter.values().map(|(count, _)| count).sum();
    println!(
        "both accept {}, both refuse {}, only the contract refuses {more}, described otherwise {}, put together {}",
        tally.both_accept, tally.both_refuse, tally.told_otherwise, tally.put_together
    );
    for (reason, (count, first)) in &tally.stricter {
        println!("{count:6}  {reason}  [{first}]");
    }
    assert!(tally.failures.is_empty(), "{} failures:\n{}", tally.failures.len(), tally.failures.join("\n"));

    let mut known: Vec<String> =
        serde_json::from_str(&std::fs::read_to_string(TABLE).unwrap_or_else(|_| "[]".into())).unwrap();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        known.extend(tally.stricter.keys().cloned());
        known.sort();
        known.dedup();
        std::fs::write(TABLE, serde_json::to_string_pretty(&known).unwrap() + "\n").unwrap();
    }
    let new: Vec<_> = tally.stricter.iter().filter(|(reason, _)| !known.contains(reason)).collect();
    assert!(new.is_empty(), "refused for reasons that are not in stricter.json: {new:#?}");
}
