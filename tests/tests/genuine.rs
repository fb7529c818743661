//! Genuine Intel quotes and simulated ones against the Attestor on the local VM: what verifies, under which root, when,
//! and what it costs. The fixtures' provenance is in `verifier/fixtures/README.md`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use contracts::artifacts::{self, Contract};
use contracts::attestor::{
    AttestorStorage, PostAuthority, QuoteVerified, ReportRevocation, TdFormat, VerifyQuote,
};
use contracts::errors::ContractError;
use contracts::network::{CodeRef, state_init};
use contracts::wire::{from_cell, to_cell};
use contracts::{Cell, Message, Nanoton, Ref, StdAddr};
use prover::collateral::postings;
use prover::trust::{Names, attestor_storage};
use tdx_simulator::{SimulatedPlatform, TdIdentity};
use tests::Chain;
use tests::chain::Tx;
use tests::market::TON;
use verifier::Collateral;

const INTEL_ROOT: &[u8] = include_bytes!("../../verifier/fixtures/intel_root.der");
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots/gas-attestor.json");
const DAY_S: u32 = 86_400;

struct Sample {
    name: &'static str,
    quote: &'static [u8],
    collateral: Collateral,
    valid_at: u32,
}

fn samples() -> Vec<Sample> {
    let read = |text: &str| serde_json::from_str(text).unwrap();
    vec![
        Sample {
            name: "v4",
            quote: include_bytes!("../../verifier/fixtures/tdx_quote"),
            collateral: read(include_str!("../../verifier/fixtures/tdx_quote_collateral.json")),
            valid_at: 1_750_415_547,
        },
        Sample {
            name: "v5 1.5ex",
            quote: include_bytes!("../../verifier/fixtures/tdx_quote_td15ex"),
            collateral: read(include_str!("../../verifier/fixtures/tdx_quote_td15ex_collateral.json")),
            valid_at: 1_791_504_586,
        },
    ]
}

struct World {
    chain: Chain,
    attestor: StdAddr,
    anybody: StdAddr,
}

impl World {
    fn new(storage: &AttestorStorage, now: u32) -> Self {
        let mut chain = Chain::new();
        chain.now = now;
        let anybody = chain.person("anybody", Nanoton::new(1_000 * TON));
        let code = artifacts::code(Contract::Attestor);
        let data = to_cell(storage).unwrap();
        let attestor = CodeRef::of(&code).address(&data);
        let init = state_init(code, data);
        chain.send(&anybody, &attestor, Nanoton::new(TON), Cell::default(), Some(init));
        Self { chain, attestor, anybody }
    }

    fn intel(now: u32) -> Self {
        Self::new(&attestor_storage(INTEL_ROOT, &Names::intel()).unwrap(), now)
    }

    fn storage(&self) -> AttestorStorage {
        from_cell(&self.chain.data(&self.attestor).unwrap()).unwrap()
    }

    fn balance(&self) -> u128 {
        self.chain.balance(&self.attestor)
    }

    /// The Attestor's own transaction.
    fn send(&mut self, body: Cell) -> Tx {
        let (from, to) = (self.anybody.clone(), self.attestor.clone());
        // Rent for the time since the last message is due first.
        self.chain.send(&from, &to, Nanoton::new(TON), Cell::default(), None);
        let before = self.balance();
        let txs = self.chain.send(&from, &to, Nanoton::new(2 * TON), body, None);
        assert!(self.balance() >= before, "a message cost the Attestor its own money");
        txs.into_iter().find(|tx| tx.account == self.attestor).unwrap()
    }

    /// Posts what the Attestor does not hold yet, with the gas of each.
    fn post(&mut self, collateral: &Collateral) -> BTreeMap<String, u64> {
        let mut gas = BTreeMap::new();
        for posting in postings(collateral, &self.storage(), 1).unwrap() {
            let tx = self.send(posting.to_cell().unwrap());
            assert!(tx.succeeded(), "{}: exit code {:?}", posting.what(), tx.exit_code);
            gas.insert(posting.what().to_owned(), tx.gas_used);
        }
        gas
    }

    fn verify(&mut self, quote: &[u8], collateral: &Collateral) -> Tx {
        self.send(to_cell(&self.question(quote, collateral)).unwrap())
    }

    fn question(&self, quote: &[u8], collateral: &Collateral) -> VerifyQuote {
        let proof = prover::quote::prove(quote, collateral.pck_certificate_chain.as_deref()).unwrap();
        VerifyQuote {
            query_id: 7,
            answer_to: self.anybody.clone(),
            quote: Ref::new(proof).unwrap(),
            payload: Cell::default(),
        }
    }
}

fn refused(tx: &Tx, error: ContractError) {
    assert_eq!(tx.exit_code, Some(i32::from(error.code())), "expected {error}");
}

#[test]
fn genuine_quotes_verify_while_their_collateral_is_in_force_and_not_after() {
    for sample in samples() {
        let mut world = World::intel(sample.valid_at);
        refused(&world.verify(sample.quote, &sample.collateral), ContractError::UnknownAuthority);
        world.post(&sample.collateral);
        let held = world.storage();
        let tx = world.verify(sample.quote, &sample.collateral);
        assert!(tx.succeeded(), "{}: exit code {:?}", sample.name, tx.exit_code);
        assert_eq!(world.storage(), held, "verification wrote something");
        let answer = tx.sent::<QuoteVerified>().unwrap();
        assert_eq!(answer.requester, world.anybody);

        // The same as the other reader of the same evidence says.
        let policy = verifier::QuotePolicy::production(Vec::new());
        let (_, facts) =
            verifier::verify_quote(sample.quote, &sample.collateral, &policy, u64::from(sample.valid_at));
        let facts = facts.unwrap();
        assert_eq!(answer.report.measurement, facts.measurement);
        assert_eq!(answer.report.report_data.0, facts.report_data);
        assert_eq!(answer.report.origin.ppid.0.as_slice(), facts.ppid.as_slice());
        assert_eq!(answer.report.origin.fmspc.0.as_slice(), facts.fmspc.as_slice());
        assert_eq!((facts.tcb_status.as_str(), answer.report.needs), ("UpToDate", 0));
        assert!(u64::from(answer.report.expires_at) <= facts.expires_at_s);

        let last = answer.report.expires_at;
        world.chain.now = last;
        assert!(world.verify(sample.quote, &sample.collateral).succeeded());
        world.chain.now = last + 1;
        refused(&world.verify(sample.quote, &sample.collateral), ContractError::OutOfDate);
    }
}

#[test]
fn a_genuine_platform_below_every_level_is_refused() {
    let collateral: Collateral =
        serde_json::from_str(include_str!("../../verifier/fixtures/tdx_quote_outdated_collateral.json"))
            .unwrap();
    let mut world = World::intel(1_771_498_731);
    world.post(&collateral);
    let quote = include_bytes!("../../verifier/fixtures/tdx_quote_outdated");
    refused(&world.verify(quote, &collateral), ContractError::UnknownPlatform);
}

#[test]
fn collateral_moves_forward_only() {
    let [older, newer] = <[Sample; 2]>::try_from(samples()).ok().unwrap();
    let mut world = World::intel(newer.valid_at);
    world.post(&newer.collateral);
    let held = world.storage();
    // What is older, by its own dates, is refused; and nothing is held to be posted twice.
    let empty = attestor_storage(INTEL_ROOT, &Names::intel()).unwrap();
    for posting in postings(&older.collateral, &empty, 1).unwrap() {
        world.send(posting.to_cell().unwrap());
    }
    assert_eq!(world.storage(), held);
    assert!(postings(&newer.collateral, &held, 1).unwrap().is_empty());
    for posting in postings(&newer.collateral, &empty, 1).unwrap() {
        refused(&world.send(posting.to_cell().unwrap()), ContractError::NotNewer);
    }
}

#[test]
fn simulated_quotes_verify_under_the_simulators_root_alone() {
    let now = 1_800_000_000;
    let platform = SimulatedPlatform::new(&[7; 32], u64::from(now)).unwrap();
    let simulated = tdx_simulator::Names::simulated();
    let names = Names {
        platform_ca: simulated.platform_ca,
        processor_ca: simulated.processor_ca,
        tcb_signer: simulated.tcb_signer,
        pck: simulated.pck,
    };
    let quote = platform.quote(&[9; 64], &TdIdentity::of_image("worker"));
    let mut world = World::new(&attestor_storage(platform.root_der(), &names).unwrap(), now);
    world.post(platform.collateral());
    let tx = world.verify(&quote, platform.collateral());
    assert!(tx.succeeded(), "exit code {:?}", tx.exit_code);
    assert_eq!(tx.sent::<QuoteVerified>().unwrap().report.report_data.0, [9; 64]);

    let mut intel = World::intel(now);
    let held = intel.storage();
    let empty = attestor_storage(platform.root_der(), &names).unwrap();
    for posting in postings(platform.collateral(), &empty, 1).unwrap() {
        assert!(!intel.send(posting.to_cell().unwrap()).succeeded());
    }
    assert_eq!(intel.storage(), held);
    refused(&intel.verify(&quote, platform.collateral()), ContractError::UnknownAuthority);
    let genuine = samples().remove(0);
    refused(&world.verify(genuine.quote, &genuine.collateral), ContractError::UnknownAuthority);
}

#[test]
fn every_bit_of_the_signed_report_counts() {
    let sample = samples().remove(0);
    let mut world = World::intel(sample.valid_at);
    world.post(&sample.collateral);
    let question = world.question(sample.quote, &sample.collateral);
    let signature = (*question.quote.td.signature).clone();
    let text = prover::statement::td_text(&question.quote.td);
    for at in (8..632).filter(|at| !(12..28).contains(at) && !(112..160).contains(at)) {
        let mut changed = text.clone();
        changed[at] ^= 1 << (at % 8);
        let td = prover::statement::td_fields(TdFormat::V4, &changed, signature.clone()).unwrap();
        assert_eq!(prover::statement::td_text(&td), changed, "byte {at}");
        let mut proof = (*question.quote).clone();
        proof.td = Ref::new(td).unwrap();
        let spoiled = VerifyQuote { quote: Ref::new(proof).unwrap(), ..question.clone() };
        assert!(!world.send(to_cell(&spoiled).unwrap()).succeeded(), "byte {at}");
    }
}

#[test]
fn nothing_but_the_roots_word_makes_an_authority() {
    let sample = samples().remove(0);
    let mut world = World::intel(sample.valid_at);
    let empty = attestor_storage(INTEL_ROOT, &Names::intel()).unwrap();
    let held = world.storage();
    let postings = postings(&sample.collateral, &empty, 1).unwrap();
    for posting in &postings {
        let cell = posting.to_cell().unwrap();
        let Ok(message) = PostAuthority::from_cell(&cell) else { continue };
        for at in 0..message.certificate.as_slice().len() {
            let mut pieces = message.certificate.as_slice().to_vec();
            pieces[at][0] ^= 1;
            let certificate = Ref::new(contracts::attestor::Pieces::new(pieces).unwrap()).unwrap();
            refused(
                &world.send(to_cell(&PostAuthority { certificate, ..message.clone() }).unwrap()),
                ContractError::BadSignature,
            );
        }
    }
    assert_eq!(world.storage(), held);
    // A serial that no list names is revoked for nobody.
    world.post(&sample.collateral);
    let (authority, _) = world.storage().authorities.iter().next().unwrap().unwrap();
    let serial = contracts::attestor::Bytes([1; 20]);
    let report = ReportRevocation { query_id: 1, authority, serial, worker: world.anybody.clone() };
    assert!(!world.send(to_cell(&report).unwrap()).succeeded());
}

#[test]
fn gas_is_that_of_the_snapshot() {
    let mut measured = BTreeMap::new();
    for sample in samples() {
        let mut world = World::intel(sample.valid_at);
        for (what, gas) in world.post(&sample.collateral) {
            measured.insert(format!("{}: {what}", sample.name), gas);
        }
        let tx = world.verify(sample.quote, &sample.collateral);
        measured.insert(format!("{}: verify_quote", sample.name), tx.gas_used);
        assert!(tx.gas_used <= 90_000, "{}", tx.gas_used);
        world.chain.wait(DAY_S);
    }
    let text = serde_json::to_string_pretty(&measured).unwrap() + "\n";
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(SNAPSHOT, &text).unwrap();
    }
    let committed = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    assert_eq!(text, committed, "gas changed: look whether it should have, then run with UPDATE_SNAPSHOTS=1");
}
