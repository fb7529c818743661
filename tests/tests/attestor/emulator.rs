//! What the official emulator is asked about the Attestor: `tests/emulator/fixtures/attestor.json`, which
//! `executor/tvm/tests/conformance.rs` replays. Inputs are made here, outcomes there:
//! `UPDATE_SNAPSHOTS=1 cargo test -p tests --test attestor emulator`, then `npm run generate attestor` in `tests/emulator`.

use contracts::attestor::{AttestorStorage, ReportRevocation, VerifyQuote};
use contracts::{Cell, HashBytes, Message, Ref};
use prover::collateral::postings;
use prover::trust::{Names, attestor_storage};
use serde_json::{Value, json};
use tdx_simulator::{PckIssuer, Profile, QuoteFormat, Signer};
use tycho_types::boc::Boc;
use tycho_types::cell::CellBuilder;
use verifier::Collateral;

use crate::bench::{Bench, Delivery, LATER, cell_of};
use crate::evidence::{NOW, World, question};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/emulator/fixtures/attestor.json");
pub(crate) const INTEL_ROOT: &[u8] = include_bytes!("../../../verifier/fixtures/intel_root.der");
pub(crate) const GENUINE: [(&str, &[u8], &str, u32); 3] = [
    (
        "v4",
        include_bytes!("../../../verifier/fixtures/tdx_quote"),
        include_str!("../../../verifier/fixtures/tdx_quote_collateral.json"),
        1_750_415_547,
    ),
    (
        "v5 1.5ex",
        include_bytes!("../../../verifier/fixtures/tdx_quote_td15ex"),
        include_str!("../../../verifier/fixtures/tdx_quote_td15ex_collateral.json"),
        1_791_504_586,
    ),
    (
        "v5 1.5 below every level",
        include_bytes!("../../../verifier/fixtures/tdx_quote_outdated"),
        include_str!("../../../verifier/fixtures/tdx_quote_outdated_collateral.json"),
        1_771_498_731,
    ),
];

/// One message to an account.
struct Case {
    name: String,
    now: u32,
    account: Cell,
    message: Cell,
    exit_code: Option<i32>,
}

struct Cases<'a> {
    bench: &'a Bench,
    list: Vec<Case>,
}

impl Cases<'_> {
    /// Returns the storage afterwards.
    fn add(&mut self, name: &str, data: &Cell, body: Cell, now: u32, value: u128) -> AttestorStorage {
        let delivery = || Delivery { value, bounced: false, now, body: body.clone() };
        let outcome = self.bench.deliver(data, delivery());
        self.list.push(Case {
            name: name.to_owned(),
            now,
            account: CellBuilder::build_from(self.bench.settled_account(data, now)).unwrap(),
            message: self.bench.message(&delivery()),
            exit_code: outcome.exit_code,
        });
        outcome.storage()
    }
}

fn cases(bench: &Bench) -> Vec<Case> {
    const VALUE: u128 = 2_000_000_000;
    let mut cases = Cases { bench, list: Vec::new() };
    for (name, quote, collateral, now) in GENUINE {
        let collateral: Collateral = serde_json::from_str(collateral).unwrap();
        let empty = attestor_storage(INTEL_ROOT, &Names::intel()).unwrap();
        let chain = collateral.pck_certificate_chain.as_deref();
        let ask = question(prover::quote::prove(quote, chain).unwrap()).to_cell().unwrap();
        if name == "v4" {
            cases.add("verify v4 before anything is posted", &cell_of(&empty), ask.clone(), now, VALUE);
        }
        let mut held = empty.clone();
        for (at, posting) in postings(&collateral, &empty, 1).unwrap().into_iter().enumerate() {
            let name = format!("post {at} {} of {name}", posting.what());
            held = cases.add(&name, &cell_of(&held), posting.to_cell().unwrap(), now, VALUE);
        }
        let data = cell_of(&held);
        cases.add(&format!("verify {name}"), &data, ask.clone(), now, VALUE);
        cases.add(&format!("verify {name} after a year"), &data, ask.clone(), now + 31_536_000, VALUE);
        if name == "v4" {
            cases.add("verify v4 for too little", &data, ask.clone(), now, 50_000_000);
            let list = postings(&collateral, &empty, 1).unwrap();
            cases.add("post again", &data, list[0].to_cell().unwrap(), now, VALUE);
            tampered(&mut cases, &data, &ask, now);
        }
    }

    let world = |change: fn(&mut Profile)| {
        let mut profile = Profile::default();
        change(&mut profile);
        World::new(bench, [7; 32], profile)
    };
    let ask = |world: &World| question(world.proof().clone()).to_cell().unwrap();
    for (name, change) in [
        ("simulated v4, processor CA", (|profile| profile.issuer = PckIssuer::Processor) as fn(&mut Profile)),
        ("simulated v5 1.0", |profile| profile.format = QuoteFormat::V5Td10),
        ("simulated v5 1.5, SVNs of 128", |profile| {
            profile.format = QuoteFormat::V5Td15;
            profile.component_svns = [128; 16];
            profile.pce_svn = 128;
        }),
    ] {
        let world = world(change);
        cases.add(&format!("verify {name}"), &cell_of(&world.full), ask(&world), NOW, VALUE);
    }
    let revoked = world(|profile| profile.revocations.pck = true);
    cases.add("verify a revoked platform", &cell_of(&revoked.full), ask(&revoked), NOW, VALUE);
    let authority = revoked.proof().pck.platform.issuer;
    let serial = contracts::attestor::Bytes(revoked.platform.serial(Signer::Pck));
    let report = ReportRevocation { query_id: 1, authority, serial, worker: bench.sender.clone() };
    cases.add("report a revocation", &cell_of(&revoked.full), report.to_cell().unwrap(), NOW, VALUE);
    let issuer = world(|profile| profile.revocations.issuer = true);
    cases.add("verify under a revoked issuer", &cell_of(&issuer.full), ask(&issuer), NOW, VALUE);
    let mut debug = world(|_| ());
    debug.sign_debug();
    cases.add("verify a debug TD", &cell_of(&debug.full), debug.honest_question(), NOW, VALUE);
    let mut noise = CellBuilder::new();
    noise.store_u64(0x4348_05ff_0000_0001).unwrap();
    cases.add("an unknown message", &cell_of(&debug.full), noise.build().unwrap(), NOW, VALUE);
    cases.list
}

/// One bit of everything that a proof says.
fn tampered(cases: &mut Cases<'_>, data: &Cell, ask: &Cell, now: u32) {
    type Change = fn(&mut contracts::attestor::QuoteProof);
    let changes: [(&str, Change); 6] = [
        ("the attestation key", |proof| proof.key_x.0[3] ^= 1),
        ("MRTD", |proof| {
            let mut td = (*proof.td).clone();
            let mut measured = (*td.measured).clone();
            measured.mrtd.0[0] ^= 1;
            td.measured = Ref::new(measured).unwrap();
            proof.td = Ref::new(td).unwrap();
        }),
        ("the format", |proof| {
            let mut td = (*proof.td).clone();
            td.format = contracts::attestor::TdFormat::V5Td10;
            proof.td = Ref::new(td).unwrap();
        }),
        ("MRENCLAVE", |proof| {
            let mut qe = (*proof.qe).clone();
            qe.mrenclave.0[0] ^= 1;
            proof.qe = Ref::new(qe).unwrap();
        }),
        ("the serial", |proof| {
            let mut pck = (*proof.pck).clone();
            pck.serial.0[0] ^= 0x80;
            proof.pck = Ref::new(pck).unwrap();
        }),
        ("an SVN", |proof| {
            let mut pck = (*proof.pck).clone();
            let mut platform = (*pck.platform).clone();
            platform.svns.0[5] ^= 0x80;
            pck.platform = Ref::new(platform).unwrap();
            proof.pck = Ref::new(pck).unwrap();
        }),
    ];
    for (what, change) in changes {
        let mut asked = VerifyQuote::from_cell(ask).unwrap();
        let mut proof = (*asked.quote).clone();
        change(&mut proof);
        asked.quote = Ref::new(proof).unwrap();
        cases.add(
            &format!("verify v4 with {what} changed"),
            data,
            asked.to_cell().unwrap(),
            now,
            2_000_000_000,
        );
    }
}

#[test]
fn the_emulator_was_asked_about_this_code() {
    let bench = Bench::new();
    let mut cases = cases(&bench);
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    let inputs: Vec<Value> = cases
        .iter()
        .map(|case| {
            json!({
                "name": case.name,
                "now": case.now,
                "lt": LATER.to_string(),
                "account": Boc::encode_base64(&case.account),
                "message": Boc::encode_base64(&case.message),
            })
        })
        .collect();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(FIXTURES, serde_json::to_string_pretty(&inputs).unwrap() + "\n").unwrap();
        return;
    }
    let committed: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(FIXTURES).unwrap()).unwrap();
    let hash = |text: &Value| *Boc::decode_base64(text.as_str().unwrap()).unwrap().repr_hash();
    let facts = |list: &[Value]| -> Vec<(String, u64, HashBytes, HashBytes)> {
        let fact = |case: &Value| {
            let name = case["name"].as_str().unwrap().to_owned();
            (name, case["now"].as_u64().unwrap(), hash(&case["account"]), hash(&case["message"]))
        };
        list.iter().map(fact).collect()
    };
    assert_eq!(facts(&inputs), facts(&committed), "regenerate the fixtures, as the module says");
    // Whether outcome and gas are the same is asked in conformance.rs; that they are what this test means, here.
    let codes: std::collections::BTreeSet<_> = cases.iter().filter_map(|case| case.exit_code).collect();
    for expected in [0, 105, 116, 128, 130, 131, 132, 133, 134, 65_535] {
        assert!(codes.contains(&expected), "no case ends with {expected}: {codes:?}");
    }
}
