//! The loop that runs the virtual machine, with the opcodes of [`crate::opcodes`] put before each of its steps.

use num_bigint::BigInt;
use tycho_vm::{CommittedState, SafeRc, Stack, VmException, VmResult, VmState};

use crate::opcodes;

/// Runs to the end as `VmState::run` does; the complement of the exit code.
pub(crate) fn run(vm: &mut VmState<'_>) -> i32 {
    if vm.throw_on_code_access {
        // Not complemented: no contract can make this result itself.
        return VmException::Fatal as i32;
    }
    let mut result = run_one(vm);
    while vm.parent.is_some() {
        result = match end_child(vm, !result) {
            Ok(()) => run_one(vm),
            Err(_) => {
                vm.steps += 1;
                vm.throw_out_of_gas()
            }
        };
    }
    result
}

/// Runs until the machine that `RUNVM` nested deepest ends.
fn run_one(vm: &mut VmState<'_>) -> i32 {
    let mut result = 0;
    while result == 0 {
        let step = match opcodes::next(vm) {
            Some(opcode) => {
                vm.steps += 1;
                opcode.execute(vm)
            }
            None => vm.step(),
        };
        result = match step.or_else(|error| throw(vm, &error)) {
            Ok(result) => result,
            Err(double) => return double,
        };
    }
    if result | 1 == -1 && !vm.try_commit() {
        vm.stack = SafeRc::new(Stack::with_items(vec![Stack::make_zero()]));
        return VmException::CellOverflow.as_exit_code();
    }
    result
}

/// Hands an error to the contract's handler; `Err` with the result where even that is impossible.
fn throw(vm: &mut VmState<'_>, error: &tycho_vm::VmError) -> Result<i32, i32> {
    vm.steps += 1;
    if error.is_out_of_gas() {
        return Ok(vm.throw_out_of_gas());
    }
    let exception = error.as_exception();
    match vm.throw_exception(exception as i32) {
        Ok(result) => Ok(result),
        Err(error) if error.is_out_of_gas() => {
            vm.steps += 1;
            Ok(vm.throw_out_of_gas())
        }
        Err(_) => Err(exception.as_exit_code()),
    }
}

/// Goes back to the machine that `RUNVM` left, with what its child returns. `Err` where that machine is out of gas.
fn end_child(vm: &mut VmState<'_>, mut exit_code: i32) -> VmResult<()> {
    let Some(parent) = vm.parent.take() else {
        return Ok(());
    };
    let steps = vm.steps;
    vm.code = parent.code;
    let child_stack = std::mem::replace(&mut vm.stack, parent.stack);
    vm.signature_domains = parent.signature_domains;
    vm.cr = parent.cr;
    let committed = std::mem::replace(&mut vm.committed_state, parent.committed_state);
    vm.steps = parent.steps + steps;
    vm.quit0 = parent.quit0;
    vm.quit1 = parent.quit1;
    let gas = vm.gas.restore(parent.gas);
    vm.cp = parent.cp;
    vm.parent = parent.parent;

    vm.gas.try_consume(gas.gas_consumed.min(gas.gas_limit.saturating_add(1)))?;
    let stack = &mut SafeRc::make_mut(&mut vm.stack).items;
    let depth = child_stack.depth();
    let returned = match (exit_code, parent.return_values) {
        (0 | 1, Some(count)) if depth < count as usize => {
            exit_code = VmException::StackUnderflow.as_exit_code();
            stack.push(Stack::make_zero());
            0
        }
        (0 | 1, Some(count)) => count as usize,
        (0 | 1, None) => depth,
        _ => depth.min(1),
    };
    vm.gas.try_consume_stack_depth_gas(returned)?;
    stack.extend_from_slice(&child_stack.items[depth - returned..]);
    stack.push(SafeRc::new_dyn_value(BigInt::from(exit_code)));

    let (data, actions) = match committed {
        Some(CommittedState { c4, c5 }) => (Some(c4), Some(c5)),
        None => (None, None),
    };
    let or_null = |cell| match cell {
        Some(cell) => SafeRc::new_dyn_value::<tycho_types::cell::Cell>(cell),
        None => Stack::make_null(),
    };
    if parent.return_data {
        stack.push(or_null(data));
    }
    if parent.return_actions {
        stack.push(or_null(actions));
    }
    if parent.return_gas {
        stack.push(SafeRc::new_dyn_value(BigInt::from(gas.gas_consumed)));
    }
    Ok(())
}
