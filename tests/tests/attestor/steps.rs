//! What each step of `verify_quote` costs: the gas used where the step's end is refused, less that where the step before
//! it is. The tables of `docs/attestation.md` are written from it and from the snapshot of `tests/genuine.rs`.

use std::collections::BTreeMap;

use contracts::attestor::{AttestorStorage, Levels, needs};
use contracts::errors::ContractError;
use contracts::wire::to_cell;
use contracts::{Cell, HashBytes, Message, Ref};
use prover::collateral::postings;
use prover::trust::{Names, attestor_storage};
use tycho_types::cell::CellBuilder;
use verifier::Collateral;

use crate::bench::{Bench, cell_of};
use crate::emulator::{GENUINE, INTEL_ROOT};
use crate::evidence::question;

const STEPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots/gas-attestor-steps.json");
const OPERATIONS: &str = include_str!("../../snapshots/gas-attestor.json");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/attestation.md");
const CELL_UNDERFLOW: i32 = 9;

/// The cell tree with one cell in place of another.
pub(crate) fn replaced(cell: &Cell, old: &HashBytes, new: &Cell) -> Cell {
    if cell.repr_hash() == old {
        return new.clone();
    }
    let mut builder = CellBuilder::new();
    let slice = cell.as_slice().unwrap();
    builder.store_slice(slice.get_prefix(slice.size_bits(), 0)).unwrap();
    for child in cell.references().cloned() {
        builder.store_reference(replaced(&child, old, new)).unwrap();
    }
    builder.build().unwrap()
}

/// Gas from the first instruction to the end of each step, in order.
fn ends(bench: &Bench, quote: &[u8], collateral: &str, now: u32) -> Vec<(&'static str, u64)> {
    let collateral: Collateral = serde_json::from_str(collateral).unwrap();
    let empty = attestor_storage(INTEL_ROOT, &Names::intel()).unwrap();
    let mut held = empty.clone();
    for posting in postings(&collateral, &empty, 1).unwrap() {
        held = bench.send(&cell_of(&held), posting.to_cell().unwrap(), now).storage();
    }
    let proof = prover::quote::prove(quote, collateral.pck_certificate_chain.as_deref()).unwrap();
    let body = question(proof.clone()).to_cell().unwrap();
    let gas = |held: &AttestorStorage, body: &Cell, exit_code: i32| {
        let outcome = bench.send(&cell_of(held), body.clone(), now);
        assert_eq!(outcome.exit_code, Some(exit_code));
        outcome.gas_used
    };
    let refused =
        |held: &AttestorStorage, body: &Cell, error: ContractError| gas(held, body, i32::from(error.code()));

    let mut without_list = held.clone();
    without_list.root_crl = None;
    let mut without_identity = held.clone();
    let mut changed = (*held.collateral).clone();
    changed.qe_identity = None;
    without_identity.collateral = Ref::new(changed).unwrap();
    let mut unfit = (*proof.td).clone();
    unfit.td_attributes.0[0] |= 1;
    let mut unfit_proof = proof.clone();
    unfit_proof.td = Ref::new(unfit).unwrap();
    let unfit = question(unfit_proof).to_cell().unwrap();
    // The TDX module's level revoked: what is looked at last.
    let mut revoked = held.clone();
    let mut changed = (*held.collateral).clone();
    let fmspc = proof.pck.platform.fmspc;
    let mut info = (*changed.tcb_infos.get(fmspc).unwrap().unwrap()).clone();
    let version = proof.td.extension.as_ref().map_or(proof.td.tee_tcb_svn.0[1], |piece| piece.concat()[1]);
    let mut module = (*info.modules.get(version).unwrap().unwrap()).clone();
    let mut levels = module.levels.as_ref().unwrap().0.clone();
    levels[0].needs = needs::REVOKED;
    module.levels = Some(Ref::new(Levels(levels)).unwrap());
    info.modules.set(version, Ref::new(module).unwrap()).unwrap();
    changed.tcb_infos.set(fmspc, Ref::new(info).unwrap()).unwrap();
    revoked.collateral = Ref::new(changed).unwrap();

    // A signature that is not there is missed when it is read, a wrong one when it was checked.
    let signature = |signature: &Ref<contracts::attestor::P256Signature>| {
        let read = gas(&held, &replaced(&body, &signature.hash(), &Cell::default()), CELL_UNDERFLOW);
        let mut wrong = (**signature).clone();
        wrong.s.0[31] ^= 1;
        let wrong = replaced(&body, &signature.hash(), &to_cell(&wrong).unwrap());
        (read, refused(&held, &wrong, ContractError::BadSignature))
    };
    let (pck, qe, td) =
        (signature(&proof.pck.signature), signature(&proof.qe.signature), signature(&proof.td.signature));
    vec![
        ("message, storage", refused(&without_list, &body, ContractError::UnknownAuthority)),
        ("PCK certificate: issuer, put together, hashed", pck.0),
        ("its signature", pck.1),
        (
            "validity, both CRLs, key on the curve",
            refused(&without_identity, &body, ContractError::UnknownPlatform),
        ),
        ("QE report: put together, hashed", qe.0),
        ("its signature", qe.1),
        ("QE identity and its level, key on the curve", refused(&held, &unfit, ContractError::UnfitTd)),
        ("header and TD report: put together, hashed", td.0),
        ("its signature", td.1),
        ("TCB info and TDX module", refused(&revoked, &body, ContractError::Revoked)),
        ("answer", gas(&held, &body, 0)),
    ]
}

fn steps(bench: &Bench) -> Vec<(String, [u64; 2])> {
    let [v4, v5] = [0, 1].map(|at| {
        let (_, quote, collateral, now) = GENUINE[at];
        ends(bench, quote, collateral, now)
    });
    let mut before = [0, 0];
    v4.into_iter()
        .zip(v5)
        .map(|((name, v4), (_, v5))| {
            let step = [v4 - before[0], v5 - before[1]];
            before = [v4, v5];
            (name.to_owned(), step)
        })
        .collect()
}

#[test]
fn gas_by_step_is_that_of_the_snapshot_and_both_tables_of_the_page_are_true() {
    let measured = steps(&Bench::new());
    let text = serde_json::to_string_pretty(&measured).unwrap() + "\n";
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(STEPS, &text).unwrap();
    }
    let committed = std::fs::read_to_string(STEPS).unwrap_or_default();
    assert_eq!(text, committed, "gas changed: look whether it should have, then run with UPDATE_SNAPSHOTS=1");

    let operations: BTreeMap<String, u64> = serde_json::from_str(OPERATIONS).unwrap();
    let row = |name: &str, [v4, v5]: [u64; 2]| format!("| {name} | {} | {} |\n", spaced(v4), spaced(v5));
    let of = |what: &str| ["v4", "v5 1.5ex"].map(|sample| operations[&format!("{sample}: {what}")]);
    let total = [0, 1].map(|at| measured.iter().map(|(_, step)| step[at]).sum());
    assert_eq!(total, of("verify_quote"));
    let by_operation = [
        ("`verify_quote`", "verify_quote"),
        ("one authority", "authority"),
        ("root CRL, empty", "root CRL"),
        ("PCK CRL, 44 and 57 serials", "PCK CRL"),
        ("TCB info, 2 and 4 levels", "TCB info"),
        ("QE identity", "QE identity"),
    ]
    .map(|(name, key)| row(name, of(key)));
    let by_step: String = measured.iter().map(|(name, step)| row(name, *step)).collect();
    let page = std::fs::read_to_string(PAGE).unwrap();
    for table in [by_operation.concat(), by_step + &row("**all of it**", total)] {
        assert!(page.contains(&table), "docs/attestation.md lacks\n{table}");
    }
}

/// 12345 as `12 345`.
fn spaced(number: u64) -> String {
    if number < 1_000 { number.to_string() } else { format!("{} {:03}", number / 1_000, number % 1_000) }
}
