//! An ordinary transaction: tycho's phases in the reference's order, with a compute phase that runs
//! [`crate::machine`] and with what the reference writes otherwise.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use tycho_executor::phase::{
    BouncePhaseContext, ComputePhaseContext, ComputePhaseFull, ComputePhaseSmcInfo, ReceivedMessage,
    StoragePhaseContext, TransactionInput,
};
use tycho_executor::{Executor, ExecutorInspector, ExecutorOutput, ExecutorState, UncommittedTransaction};
use tycho_types::cell::{Cell, CellTreeStats, HashBytes, Lazy};
use tycho_types::error::Error;
use tycho_types::models::{
    AccountState, AccountStatus, ActionPhase, BouncePhase, BounceReason, ComputeGasParams, ComputePhase,
    ComputePhaseSkipReason, CreditPhase, ExecutedComputePhase, MsgInfo, NewBounceComputePhaseInfo,
    OrdinaryTxInfo, ShardAccount, SkippedComputePhase, StdAddr, StoragePhase,
};
use tycho_types::num::{Tokens, VarUint24, VarUint56};
use tycho_vm::{GasParams, SafeRc, Stack, VmState, VmVersion, tuple};

use crate::actions::{self, Actions};
use crate::environment::Environment;
use crate::libraries::{self, Libraries};
use crate::{machine, storage_dict};

/// Why there is no transaction.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// An external message was not accepted; the exit code, where code ran.
    NotAccepted(Option<i32>),
    /// The message or the account is none that a transaction can be made of.
    Fatal(String),
}

/// Runs `message` against `account`.
pub(crate) fn ordinary(
    executor: &Executor<'_>,
    environment: &Environment,
    address: &StdAddr,
    account: &ShardAccount,
    message: &Cell,
    external: bool,
) -> Result<ExecutorOutput, Refusal> {
    let before = account.load_account().map_err(fatal)?;
    let mut state = executor.begin(address, before).map_err(fatal)?;
    let info = phases(&mut state, environment, message, external)?;
    state.storage_stat.storage_extra = storage_dict::storage_extra(&state, account).map_err(fatal)?;
    let freezes = state.end_status == AccountStatus::Frozen;
    let mut output = UncommittedTransaction::with_info(state, account, Some(message.clone()), info)
        .and_then(UncommittedTransaction::commit)
        .map_err(fatal)?;
    if freezes {
        as_frozen(&mut output).map_err(fatal)?;
    }
    Ok(output)
}

/// An account frozen in the state of its address is stored as one without state; the reference's transaction says
/// "frozen" all the same.
fn as_frozen(output: &mut ExecutorOutput) -> Result<(), Error> {
    let mut transaction = output.transaction.load()?;
    transaction.end_status = AccountStatus::Frozen;
    output.transaction = Lazy::new(&transaction)?;
    output.new_state.last_trans_hash = *output.transaction.inner().repr_hash();
    Ok(())
}

/// Whether the account accepts an external message: its phases up to the one that runs code.
pub(crate) fn accepts(
    executor: &Executor<'_>,
    environment: &Environment,
    address: &StdAddr,
    account: &ShardAccount,
    message: &Cell,
) -> Result<(), Refusal> {
    let before = account.load_account().map_err(fatal)?;
    let mut state = executor.begin(address, before).map_err(fatal)?;
    first_phases(&mut state, environment, message, true).map(|_| ())
}

struct Computed {
    message: ReceivedMessage,
    storage_phase: StoragePhase,
    credit_phase: Option<CreditPhase>,
    full: ComputePhaseFull,
}

fn first_phases(
    state: &mut ExecutorState<'_>,
    environment: &Environment,
    message: &Cell,
    external: bool,
) -> Result<Computed, Refusal> {
    let mut message = match state.receive_in_msg(message.clone()) {
        Ok(message) if message.is_external == external => message,
        Ok(_) => return Err(Refusal::Fatal("it is not of the kind that was said".into())),
        Err(_) if external => return Err(Refusal::NotAccepted(None)),
        Err(error) => return Err(fatal(error)),
    };
    let credit_first = !message.bounce_enabled;
    let mut credit_phase = None;
    if credit_first && !external {
        credit_phase = Some(state.credit_phase(&message).map_err(fatal)?);
    }
    let storage_phase = state
        .storage_phase(StoragePhaseContext {
            adjust_msg_balance: credit_first,
            received_message: Some(&mut message),
            inspector: None,
        })
        .map_err(fatal)?;
    if !credit_first && !external {
        credit_phase = Some(state.credit_phase(&message).map_err(fatal)?);
    }
    let full = compute(state, &message, storage_phase.storage_fees_collected, environment)?;
    if external && !full.accepted {
        let exit_code = match &full.compute_phase {
            ComputePhase::Executed(run) => Some(run.exit_code),
            ComputePhase::Skipped(_) => None,
        };
        return Err(Refusal::NotAccepted(exit_code));
    }
    Ok(Computed { message, storage_phase, credit_phase, full })
}

fn phases(
    state: &mut ExecutorState<'_>,
    environment: &Environment,
    message: &Cell,
    external: bool,
) -> Result<OrdinaryTxInfo, Refusal> {
    let Computed { mut message, storage_phase, credit_phase, full } =
        first_phases(state, environment, message, external)?;
    let ComputePhaseFull { compute_phase, original_balance, new_state, actions, .. } = full;
    let succeeded = matches!(&compute_phase, ComputePhase::Executed(run) if run.success);
    let mut action_phase = None;
    let mut action_fine = Tokens::ZERO;
    let mut must_bounce = !succeeded;
    if let ComputePhase::Executed(run) = &compute_phase
        && run.success
    {
        let to_do = Actions { original_balance, new_state, list: actions, compute_phase: run };
        let done = actions::action_phase(state, &mut message, to_do)?;
        must_bounce = done.state_exceeds_limits || done.bounce;
        action_fine = done.action_fine;
        action_phase = Some(as_written(done.action_phase));
    }
    let mut bounce_phase = None;
    if message.bounce_enabled && must_bounce {
        bounce_phase = Some(bounce(state, &message, &compute_phase, action_phase.as_ref(), action_fine)?);
    }
    Ok(OrdinaryTxInfo {
        credit_first: !message.bounce_enabled,
        storage_phase: Some(storage_phase),
        credit_phase,
        aborted: !action_phase.as_ref().is_some_and(|action| action.success),
        destroyed: action_phase.is_some() && state.end_status == AccountStatus::NotExists,
        compute_phase,
        action_phase,
        bounce_phase,
    })
}

fn compute(
    state: &mut ExecutorState<'_>,
    message: &ReceivedMessage,
    storage_fee: Tokens,
    environment: &Environment,
) -> Result<ComputePhaseFull, Refusal> {
    let mut original_balance = state.balance.clone();
    original_balance.try_sub_assign(&message.balance_remaining).map_err(fatal)?;
    let own_libraries = match &state.state {
        AccountState::Active(init) => Some(init.libraries.root().clone()),
        AccountState::Uninit | AccountState::Frozen(_) => None,
    };
    let freezes = state.end_status == AccountStatus::Frozen && own_libraries.is_some();
    let prepared = if freezes {
        // No state that the message brings wakes it in this transaction.
        let held = std::mem::replace(&mut state.state, AccountState::Frozen(HashBytes::ZERO));
        let prepared = prepare(state, message, storage_fee)?;
        state.state = held;
        prepared
    } else {
        prepare(state, message, storage_fee)?
    };
    let info = match prepared {
        Prepared::Skipped(skipped) => return Ok(as_skipped(*skipped, message)),
        Prepared::Ready(info) => info,
    };
    let mut info = *info;
    info.base.base.prev_blocks_info = Some(environment.prev_blocks.to_tuple());
    let AccountState::Active(mut new_state) = state.state.clone() else {
        return Err(Refusal::Fatal("an account without code came to the compute phase".into()));
    };
    let deploys = own_libraries.is_none();
    let libraries = Libraries::new(
        message.init.as_ref().and_then(|init| init.parsed.libraries.root().clone()),
        own_libraries.flatten(),
        environment.libraries.clone(),
    );
    let code = new_state.code.clone().map(|code| libraries::resolved_code(code, &libraries));
    let code = code.transpose().map_err(fatal)?;
    let gas = gas_params(state, message);
    let stack = tuple![
        int state.balance.tokens,
        int message.balance_remaining.tokens,
        cell message.root.clone(),
        slice message.body.clone(),
        int if message.is_external { -1 } else { 0 },
    ];
    let mut vm = VmState::builder()
        .with_smc_info(info)
        .with_version(VmVersion::LATEST_TON)
        .with_code(code)
        .with_data(new_state.data.clone().unwrap_or_default())
        .with_libraries(&libraries)
        .with_init_selector(false)
        .with_raw_stack(SafeRc::new(Stack::with_items(stack)))
        .with_gas(gas)
        .with_modifiers(state.params.vm_modifiers)
        .build();
    let exit_code = !machine::run(&mut vm);

    let accepted = vm.gas.credit() == 0;
    let success = accepted && vm.committed_state.is_some();
    let gas_used = vm.gas.consumed().min(vm.gas.limit());
    let gas_fees = if accepted && !state.is_special {
        state.config.gas_prices(state.address.is_masterchain()).compute_gas_fee(gas_used)
    } else {
        Tokens::ZERO
    };
    let exit_arg = if success { None } else { vm.stack.get_exit_arg().filter(|argument| *argument != 0) };
    let vm_steps = u32::try_from(vm.steps).unwrap_or(u32::MAX);
    let mut actions = Cell::default();
    if accepted && let Some(committed) = vm.committed_state.take() {
        new_state.data = Some(committed.c4);
        actions = committed.c5;
    }
    drop(vm);
    if accepted && deploys {
        state.end_status = AccountStatus::Active;
    }
    state.balance.try_sub_assign_tokens(gas_fees).map_err(fatal)?;
    state.total_fees.try_add_assign(gas_fees).map_err(fatal)?;
    let compute_phase = ComputePhase::Executed(ExecutedComputePhase {
        success,
        // The reference never sets these two, whatever the message brought.
        msg_state_used: false,
        account_activated: false,
        gas_fees,
        gas_used: var_uint_56(gas_used),
        gas_limit: var_uint_56(gas.limit),
        gas_credit: (gas.credit != 0).then(|| var_uint_24(gas.credit)),
        mode: 0,
        exit_code,
        exit_arg,
        vm_steps,
        vm_init_state_hash: HashBytes::ZERO,
        vm_final_state_hash: HashBytes::ZERO,
    });
    Ok(ComputePhaseFull { compute_phase, accepted, original_balance, new_state, actions })
}

enum Prepared {
    Skipped(Box<ComputePhaseFull>),
    Ready(Box<ComputePhaseSmcInfo>),
}

/// Goes through tycho's compute phase up to the point where it would run the machine: checks and takes the message's
/// state, and gathers what c7 holds. The hook that shows c7 stops it there.
fn prepare(
    state: &mut ExecutorState<'_>,
    message: &ReceivedMessage,
    storage_fee: Tokens,
) -> Result<Prepared, Refusal> {
    let seen = Rc::new(RefCell::new(None));
    let seen_by_hook = seen.clone();
    let mut hook = move |info: &mut ComputePhaseSmcInfo| {
        *seen_by_hook.borrow_mut() = Some(Box::new(std::mem::take(info)));
        Err(std::fmt::Error)?
    };
    let mut inspector =
        ExecutorInspector { modify_smc_info: Some(&mut hook), ..ExecutorInspector::default() };
    let done = state.compute_phase(ComputePhaseContext {
        input: TransactionInput::Ordinary(message),
        storage_fee,
        force_accept: false,
        stop_on_accept: false,
        inspector: Some(&mut inspector),
    });
    match (done, seen.take()) {
        (_, Some(info)) => Ok(Prepared::Ready(info)),
        (Ok(skipped), None) => Ok(Prepared::Skipped(Box::new(skipped))),
        (Err(error), None) => Err(fatal(error)),
    }
}

fn gas_params(state: &ExecutorState<'_>, message: &ReceivedMessage) -> GasParams {
    let prices = state.config.gas_prices(state.address.is_masterchain());
    let computed = prices.compute_gas_params(ComputeGasParams {
        account_balance: &state.balance.tokens,
        message_balance: &message.balance_remaining.tokens,
        is_special: state.is_special,
        is_tx_ordinary: true,
        is_in_msg_external: message.is_external,
    });
    GasParams { max: computed.max, limit: computed.limit, credit: computed.credit, price: prices.gas_price }
}

/// The reference says "no state" where the message brings none, tycho "bad state" where the account is frozen.
fn as_skipped(mut full: ComputePhaseFull, message: &ReceivedMessage) -> ComputePhaseFull {
    if let ComputePhase::Skipped(SkippedComputePhase { reason }) = &mut full.compute_phase
        && *reason == ComputePhaseSkipReason::BadState
        && message.init.is_none()
    {
        *reason = ComputePhaseSkipReason::NoState;
    }
    full
}

/// The reference has no `result_arg` where the first action failed: 0 is none.
fn as_written(mut action: ActionPhase) -> ActionPhase {
    action.result_arg = action.result_arg.filter(|argument| *argument != 0);
    action
}

fn bounce(
    state: &mut ExecutorState<'_>,
    message: &ReceivedMessage,
    compute_phase: &ComputePhase,
    action_phase: Option<&ActionPhase>,
    action_fine: Tokens,
) -> Result<BouncePhase, Refusal> {
    let reason = match (action_phase, compute_phase) {
        (Some(action), _) => BounceReason::ActionPhaseFailed { result_code: action.result_code },
        (None, ComputePhase::Executed(run)) => BounceReason::ComputePhaseFailed { exit_code: run.exit_code },
        (None, ComputePhase::Skipped(skipped)) => BounceReason::ComputePhaseSkipped(skipped.reason),
    };
    let (gas_fees, compute_phase_info) = match compute_phase {
        ComputePhase::Executed(run) => {
            let gas_used = u32::try_from(run.gas_used.into_inner()).unwrap_or(u32::MAX);
            (run.gas_fees, Some(NewBounceComputePhaseInfo { gas_used, vm_steps: run.vm_steps }))
        }
        ComputePhase::Skipped(_) => (Tokens::ZERO, None),
    };
    let mut bounced = state
        .bounce_phase(BouncePhaseContext {
            gas_fees,
            action_fine,
            received_message: message,
            reason,
            compute_phase_info,
        })
        .map_err(fatal)?;
    // The reference states the whole fee there, tycho what lacks of it.
    if let BouncePhase::NoFunds(no_funds) = &mut bounced {
        let MsgInfo::Int(info) = message.root.parse::<MsgInfo>().map_err(fatal)? else {
            return Err(Refusal::Fatal("only an internal message bounces".into()));
        };
        let to_masterchain = state.address.is_masterchain() || info.src.is_masterchain();
        no_funds.req_fwd_fees = state.config.fwd_prices(to_masterchain).compute_fwd_fee(CellTreeStats {
            bit_count: no_funds.msg_size.bits.into_inner(),
            cell_count: no_funds.msg_size.cells.into_inner(),
        });
    }
    Ok(bounced)
}

fn var_uint_56(value: u64) -> VarUint56 {
    VarUint56::new(value.min(VarUint56::MAX.into_inner()))
}

fn var_uint_24(value: u64) -> VarUint24 {
    VarUint24::new(u32::try_from(value).unwrap_or(u32::MAX).min(VarUint24::MAX.into_inner()))
}

pub(crate) fn fatal(error: impl Display) -> Refusal {
    Refusal::Fatal(format!("{error:#}"))
}
