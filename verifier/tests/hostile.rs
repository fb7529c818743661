//! Histories that nobody honest would give: no panic, no acceptance, no unbounded work. The fuzz targets' stable twin.
#![allow(clippy::unwrap_used)]

mod history;

use std::time::{Duration, Instant};

use contracts::attestor::{P256Signature, QuoteProof, VerifyQuote};
use contracts::{Cell, HashBytes, Message as _, Ref};
use history::{Ending, NOW_S, Plan};
use proptest::prelude::*;
use tycho_types::boc::Boc;
use tycho_types::cell::CellBuilder;
use tycho_types::dict::Dict;
use tycho_types::models::{OwnedMessage, Transaction};
use tycho_types::num::Uint15;
use verifier::{JobHistory, MAX_TRANSACTIONS, Verdict, audit};

/// An honest plan and its history, made once: making the platform is what takes the time.
fn honest() -> &'static (Plan, JobHistory) {
    static MADE: std::sync::OnceLock<(Plan, JobHistory)> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let plan = Plan::ending(Ending::SettledClaimed);
        let history = plan.history();
        (plan, history)
    })
}

fn judge(history: &JobHistory) -> Verdict {
    let plan = &honest().0;
    audit(history, plan.platform.collateral(), &plan.policy(), NOW_S).verdict
}

fn with_transaction(at: usize, cell: Cell) -> JobHistory {
    let mut history = honest().1.clone();
    history.transactions[at] = cell;
    history
}

/// The cell with one byte of its BoC, the header's aside, changed; nothing where that is no BoC.
fn mutated(cell: &Cell, at: prop::sample::Index, flip: u8) -> Option<Cell> {
    let mut bytes = Boc::encode(cell);
    let position = at.index(bytes.len());
    bytes[position] ^= flip;
    Boc::decode(&bytes).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_byte_in_a_transaction_is_never_accepted(
        which in 0usize..3, at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let original = &honest().1.transactions[which];
        if let Some(cell) = mutated(original, at, flip) {
            prop_assume!(cell.repr_hash() != original.repr_hash());
            prop_assert!(!judge(&with_transaction(which, cell)).all_passed());
        }
    }

    /// Nothing follows the newest transaction, so here what counts is that every share and the signature still hold.
    #[test]
    fn a_changed_byte_in_the_newest_transaction_never_panics(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let last = honest().1.transactions.len() - 1;
        if let Some(cell) = mutated(&honest().1.transactions[last], at, flip) {
            judge(&with_transaction(last, cell));
        }
    }

    #[test]
    fn a_changed_byte_in_the_proven_quote_is_never_accepted(
        part in 0usize..10, at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let change = move |proof: &mut QuoteProof| {
            let bytes: &mut [u8] = match part {
                0 => return change_in(&mut proof.td, |td| change_in(&mut td.measured, |held| turn(&mut held.mrtd.0, at, flip))),
                1 => return change_in(&mut proof.qe, |qe| turn(&mut qe.mrenclave.0, at, flip)),
                2 => return change_in(&mut proof.pck, |pck| turn(&mut pck.serial.0, at, flip)),
                3 => &mut proof.key_x.0,
                4 => &mut proof.key_y.0,
                5 => return change_in(&mut proof.td, |td| turn_signature(&mut td.signature, at, flip)),
                6 => return change_in(&mut proof.qe, |qe| turn_signature(&mut qe.signature, at, flip)),
                7 => return change_in(&mut proof.pck, |pck| turn_signature(&mut pck.signature, at, flip)),
                8 => return change_in(&mut proof.pck, |pck| change_in(&mut pck.platform, |held| turn(&mut held.svns.0, at, flip))),
                _ => return change_in(&mut proof.td, |td| turn(&mut td.user_data.0, at, flip)),
            };
            bytes[at.index(bytes.len())] ^= flip;
        };
        let mut history = honest().1.clone();
        let trace = &mut history.registration.as_mut().unwrap().trace;
        trace.attestor = with_proof(&trace.attestor, change);
        prop_assert!(!judge(&history).all_passed());
    }

    #[test]
    fn a_changed_byte_in_a_registration_never_panics(
        which in 0usize..4, at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let mut history = honest().1.clone();
        let trace = &mut history.registration.as_mut().unwrap().trace;
        let cell = [&mut trace.attestor, &mut trace.registry, &mut trace.platform, &mut trace.worker];
        if let Some(changed) = mutated(cell[which], at, flip) {
            *cell.into_iter().nth(which).unwrap() = changed;
            judge(&history);
        }
    }

    #[test]
    fn cells_of_any_kind_are_never_accepted(
        cells in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..6),
    ) {
        let mut history = honest().1.clone();
        history.transactions = cells.iter().map(|bytes| cell_of(bytes, None)).collect();
        prop_assert!(!judge(&history).all_passed());
    }

    #[test]
    fn transactions_around_messages_of_any_kind_are_never_accepted(
        bytes in prop::collection::vec(any::<u8>(), 0..120), which in 0usize..4,
    ) {
        let mut transaction: Transaction = honest().1.transactions[which].parse().unwrap();
        transaction.in_msg = Some(cell_of(&bytes, Some(&honest().1.transactions[0])));
        let cell = CellBuilder::build_from(transaction).unwrap();
        prop_assert!(!judge(&with_transaction(which, cell)).all_passed());
    }
}

#[test]
fn one_cell_named_as_many_messages_is_refused_before_it_is_read() {
    let last = honest().1.transactions.len() - 1;
    let mut transaction: Transaction = honest().1.transactions[last].parse().unwrap();
    let message = transaction.out_msgs.values().next().unwrap().unwrap();
    let mut many = Dict::<Uint15, Cell>::new();
    for index in 0..4_000 {
        many.set(Uint15::new(index), message.clone()).unwrap();
    }
    transaction.out_msgs = many;
    let history = with_transaction(last, CellBuilder::build_from(transaction).unwrap());
    let verdict = judge(&history);
    assert_eq!(verdict.checks.len(), 1, "{:?}", verdict.failures());
}

#[test]
fn a_history_of_too_many_transactions_is_refused_at_once() {
    let mut history = honest().1.clone();
    let one = history.transactions[0].clone();
    history.transactions = vec![one; MAX_TRANSACTIONS + 1];
    let start = Instant::now();
    assert!(!judge(&history).all_passed());
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_balance_at_the_end_of_the_range_overflows_nothing() {
    let mut history = honest().1.clone();
    history.balance_nanoton = u128::MAX;
    assert!(!judge(&history).all_passed());
    history.registration.as_mut().unwrap().mc_root_hash = Some(HashBytes::ZERO);
    assert!(!judge(&history).all_passed());
}

fn change_in<T: Clone + tycho_types::cell::Store>(held: &mut Ref<T>, change: impl FnOnce(&mut T)) {
    let mut value = (**held).clone();
    change(&mut value);
    *held = Ref::new(value).unwrap();
}

fn turn(bytes: &mut [u8], at: prop::sample::Index, flip: u8) {
    bytes[at.index(bytes.len())] ^= flip;
}

fn turn_signature(signature: &mut Ref<P256Signature>, at: prop::sample::Index, flip: u8) {
    change_in(signature, |signature| {
        let position = at.index(64);
        let half = if position < 32 { &mut signature.r.0 } else { &mut signature.s.0 };
        half[position % 32] ^= flip;
    });
}

/// The Attestor's transaction with another proof in its message.
fn with_proof(transaction: &Cell, change: impl FnOnce(&mut QuoteProof)) -> Cell {
    let mut transaction: Transaction = transaction.parse().unwrap();
    let message = transaction.in_msg.as_ref().unwrap().parse::<OwnedMessage>().unwrap();
    let body = CellBuilder::build_from(tycho_types::cell::CellSlice::apply(&message.body).unwrap()).unwrap();
    let mut asked = VerifyQuote::from_cell(&body).unwrap();
    let mut proof = (*asked.quote).clone();
    change(&mut proof);
    asked.quote = Ref::new(proof).unwrap();
    let body = asked.to_cell().unwrap().into();
    transaction.in_msg = Some(CellBuilder::build_from(OwnedMessage { body, ..message }).unwrap());
    CellBuilder::build_from(transaction).unwrap()
}

fn cell_of(bytes: &[u8], reference: Option<&Cell>) -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_raw(bytes, (bytes.len() * 8) as u16).unwrap();
    if let Some(reference) = reference {
        builder.store_reference(reference.clone()).unwrap();
    }
    builder.build().unwrap()
}
