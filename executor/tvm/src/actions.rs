//! The action phase: tycho's, with library actions as the reference carries them out.
//!
//! The reference keeps the changes of an account's libraries that came before an action that failed; tycho drops them.
//! So the library actions are carried out here beforehand, and tycho gets a list in which each that succeeds is a
//! `SETCODE` to the code there already is (which counts the same), and the first that fails one of an invalid mode.

use tycho_executor::ExecutorState;
use tycho_executor::phase::{ActionPhaseContext, ActionPhaseFull, ReceivedMessage};
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::{
    AccountState, ChangeLibraryMode, CurrencyCollection, ExecutedComputePhase, LibRef, OutAction, SimpleLib,
    SizeLimitsConfig, StateInit,
};

use crate::libraries;
use crate::transaction::{Refusal, fatal};

/// What the action phase begins with.
pub(crate) struct Actions<'a> {
    pub(crate) original_balance: CurrencyCollection,
    pub(crate) new_state: StateInit,
    pub(crate) list: Cell,
    pub(crate) compute_phase: &'a ExecutedComputePhase,
}

/// Carries out the list of actions.
pub(crate) fn action_phase(
    state: &mut ExecutorState<'_>,
    message: &mut ReceivedMessage,
    actions: Actions<'_>,
) -> Result<ActionPhaseFull, Refusal> {
    let plan = Plan::make(&actions.list, &actions.new_state, &state.config.size_limits).map_err(fatal)?;
    let run = |state: &mut ExecutorState<'_>, message: &mut ReceivedMessage, list, new_state| {
        let context = ActionPhaseContext {
            received_message: Some(message),
            original_balance: actions.original_balance.clone(),
            new_state,
            actions: list,
            compute_phase: actions.compute_phase,
            inspector: None,
        };
        state.action_phase(context).map_err(fatal)
    };
    let mut new_state = actions.new_state.clone();
    if let Some(libraries) = plan.libraries_after.last() {
        new_state.libraries = libraries.1.clone();
    }
    let before = (state.balance.clone(), message.balance_remaining.clone());
    let list = plan.list.clone().unwrap_or_else(|| actions.list.clone());
    let mut done = run(state, message, list.clone(), new_state)?;
    done.action_phase.action_list_hash = *actions.list.repr_hash();
    let failed = done.action_phase.valid && !done.action_phase.success && !done.state_exceeds_limits;
    let failed_at = match done.action_phase.result_arg.map(usize::try_from) {
        Some(Ok(at)) if failed => at,
        _ => return Ok(done),
    };
    if let Some((at, result_code)) = plan.failure
        && at == failed_at
    {
        done.action_phase.result_code = result_code;
    }
    if done.action_phase.messages_created > 0 {
        // tycho forgets what forwarding the messages before would have cost, the reference states it.
        let list = first(&list, failed_at).map_err(fatal)?;
        let (mut rehearsed, mut message) = (copy(state), message.clone());
        (rehearsed.balance, message.balance_remaining) = before;
        let until = run(&mut rehearsed, &mut message, list, actions.new_state.clone())?;
        done.action_phase.total_fwd_fees = until.action_phase.total_fwd_fees.filter(|fees| !fees.is_zero());
    }
    keep_libraries(state, &plan, failed_at, &mut done);
    Ok(done)
}

/// Keeps the libraries as they were when the action `failed_at` failed, if the account may be that large.
fn keep_libraries(state: &mut ExecutorState<'_>, plan: &Plan, failed_at: usize, done: &mut ActionPhaseFull) {
    let kept = plan.libraries_after.iter().rev().find(|(at, _)| *at < failed_at);
    let (Some((_, kept)), AccountState::Active(held)) = (kept, &state.state) else { return };
    if held.libraries == *kept {
        return;
    }
    let with_them = StateInit { libraries: kept.clone(), ..held.clone() };
    let limits = &state.config.size_limits;
    if !state.is_special && !libraries::fits(&with_them, limits, state.address.is_masterchain()) {
        done.action_phase.result_code = libraries::STATE_TOO_LARGE;
        done.state_exceeds_limits = true;
        return;
    }
    state.state = AccountState::Active(with_them);
    state.cached_storage_stat = None;
}

/// What becomes of the library actions of a list.
#[derive(Default)]
struct Plan {
    /// The list for tycho; `None` where no action of it concerns libraries.
    list: Option<Cell>,
    /// By index of a library action that succeeds, the libraries after it.
    libraries_after: Vec<(usize, Dict<HashBytes, SimpleLib>)>,
    /// The first that fails, and its result code.
    failure: Option<(usize, i32)>,
}

impl Plan {
    /// A list that tycho refuses whole makes an empty plan.
    fn make(list: &Cell, state: &StateInit, limits: &SizeLimitsConfig) -> Result<Self, Error> {
        let items = unroll(list).unwrap_or_default();
        if !items.iter().any(concerns_libraries) {
            return Ok(Self::default());
        }
        let mut plan = Self::default();
        let mut held = state.libraries.clone();
        let mut code = state.code.clone();
        let mut rewritten = Cell::empty_cell();
        for (at, item) in items.iter().enumerate() {
            let mut slice = item.as_slice_allow_exotic();
            slice.skip_first(0, 1)?;
            let mut rest = slice;
            let action = OutAction::load_from(&mut rest).ok().filter(|_| rest.is_empty());
            let mut builder = CellBuilder::new();
            builder.store_reference(rewritten)?;
            match (action, &code) {
                (Some(OutAction::ChangeLibrary { mode, lib }), Some(code)) if plan.failure.is_none() => {
                    match libraries::change(&mut held, mode, lib, limits) {
                        Ok(()) => {
                            plan.libraries_after.push((at, held.clone()));
                            let same = OutAction::SetCode { new_code: code.clone() };
                            same.store_into(&mut builder, Cell::empty_context())?;
                        }
                        Err(result_code) => {
                            plan.failure = Some((at, result_code));
                            let bounces = mode.intersection(ChangeLibraryMode::BOUNCE_ON_ERROR);
                            let mode =
                                bounces | ChangeLibraryMode::ADD_PRIVATE | ChangeLibraryMode::ADD_PUBLIC;
                            let invalid =
                                OutAction::ChangeLibrary { mode, lib: LibRef::Hash(HashBytes::ZERO) };
                            invalid.store_into(&mut builder, Cell::empty_context())?;
                        }
                    }
                }
                (action, _) => {
                    builder.store_slice(slice)?;
                    if let Some(OutAction::SetCode { new_code }) = action {
                        code = Some(new_code);
                    }
                }
            }
            rewritten = builder.build()?;
        }
        plan.list = Some(rewritten);
        Ok(plan)
    }
}

fn concerns_libraries(item: &Cell) -> bool {
    item.as_slice_allow_exotic().load_u32().is_ok_and(|tag| tag == OutAction::TAG_CHANGE_LIB)
}

/// The cells of a list, the first action's first; `None` where it is none that can be carried out.
fn unroll(list: &Cell) -> Option<Vec<Cell>> {
    let mut items = Vec::new();
    let mut cell = list.clone();
    while !cell.is_exotic() {
        if cell.bit_len() == 0 && cell.reference_count() == 0 {
            items.reverse();
            return Some(items);
        }
        if items.len() == MOST_ACTIONS {
            return None;
        }
        let previous = cell.reference_cloned(0)?;
        items.push(std::mem::replace(&mut cell, previous));
    }
    None
}

/// The list of only the first `count` actions of a list.
fn first(list: &Cell, count: usize) -> Result<Cell, Error> {
    let items = unroll(list).ok_or(Error::InvalidData)?;
    Ok(match count.checked_sub(1) {
        None => Cell::empty_cell(),
        Some(last) => items.get(last).cloned().ok_or(Error::InvalidData)?,
    })
}

const MOST_ACTIONS: usize = 255;

fn copy<'a>(state: &ExecutorState<'a>) -> ExecutorState<'a> {
    ExecutorState {
        params: state.params,
        config: state.config,
        is_special: state.is_special,
        is_marks_authority: state.is_marks_authority,
        is_suspended_by_marks: state.is_suspended_by_marks,
        address: state.address.clone(),
        storage_stat: state.storage_stat.clone(),
        balance: state.balance.clone(),
        state: state.state.clone(),
        orig_status: state.orig_status,
        end_status: state.end_status,
        start_lt: state.start_lt,
        end_lt: state.end_lt,
        out_msgs: state.out_msgs.clone(),
        total_fees: state.total_fees,
        burned: state.burned,
        cached_storage_stat: None,
    }
}
