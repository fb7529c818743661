//! The virtual machine and its transaction phases, as the chain uses them.

use tvm_executor as _;
use tycho_executor::{Executor, ExecutorInspector, ExecutorParams, ParsedConfig, TxError};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes, Lazy};
use tycho_types::dict::Dict;
use tycho_types::models::{
    Account, AccountState, AccountStatus, BlockId, BlockchainConfig, BlockchainConfigParams, ComputePhase,
    LibDescr, ShardAccount, StdAddr, Transaction, TxInfo, WorkchainDescription, WorkchainFormat,
    WorkchainFormatBasic,
};
use tycho_vm::{GasParams, SafeRc, SmcInfoBase, Stack, VmStateBuilder, VmVersion};

use crate::error::LocalnetError;

/// What the code of an account can see of the chain.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) utime: u32,
    pub(crate) block_lt: u64,
    pub(crate) rand_seed: HashBytes,
    /// The newest masterchain block.
    pub(crate) prev_mc_block: BlockId,
}

/// A transaction and what it leaves.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) account: ShardAccount,
    pub(crate) exists: bool,
    pub(crate) balance_nanoton: u128,
    pub(crate) transaction: Lazy<Transaction>,
    pub(crate) out_messages: Vec<Cell>,
    pub(crate) fees_nanoton: u128,
    pub(crate) burned_nanoton: u128,
    pub(crate) lt: u64,
    pub(crate) next_lt: u64,
}

/// What a get-method left.
#[derive(Debug, Clone)]
pub struct GetterOutput {
    /// TVM exit code; 0 and 1 mean success.
    pub exit_code: i32,
    /// Gas units used.
    pub gas_used: u64,
    /// `VmStack`.
    pub stack: Cell,
}

/// The virtual machine under one network config.
pub(crate) struct Vm {
    config: BlockchainConfig,
}

impl Vm {
    /// A mainnet-like config, for the network `global_id`.
    pub(crate) fn new(global_id: i32) -> Result<Self, LocalnetError> {
        let root = Boc::decode(include_bytes!("config.boc")).map_err(|e| LocalnetError::Vm(e.to_string()))?;
        let mut params = BlockchainConfigParams::from_raw(root);
        params.set_global_id(global_id)?;
        let mut workchains = Dict::new();
        workchains.set(0, basechain())?;
        params.set_workchains(&workchains)?;
        let address =
            params.as_dict().get(0)?.ok_or_else(|| LocalnetError::Vm("no config address".into()))?;
        let address = address.as_slice()?.load_u256()?;
        Ok(Self { config: BlockchainConfig { address, params } })
    }

    pub(crate) fn config(&self) -> &BlockchainConfig {
        &self.config
    }

    /// Runs one message against an account. `Err(NotAccepted)` and `Err(NoCode)` only for external messages.
    pub(crate) fn execute(
        &self,
        environment: &Environment,
        min_lt: u64,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
        external: bool,
    ) -> Result<Executed, LocalnetError> {
        self.run(parameters(environment), min_lt, address, account, message, external)
    }

    /// Runs an external message as [`Vm::execute`] does; with `any_signature` every signature is good.
    pub(crate) fn dry_run(
        &self,
        environment: &Environment,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
        any_signature: bool,
    ) -> Result<Executed, LocalnetError> {
        let mut params = parameters(environment);
        params.vm_modifiers.chksig_always_succeed = any_signature;
        self.run(params, environment.block_lt, address, account, message, true)
    }

    fn run(
        &self,
        params: ExecutorParams,
        min_lt: u64,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
        external: bool,
    ) -> Result<Executed, LocalnetError> {
        let config = ParsedConfig::parse(self.config.clone(), params.block_unixtime)?;
        let executor = Executor::new(&params, &config).with_min_lt(min_lt);
        let mut inspector = ExecutorInspector::default();
        let begun =
            executor.begin_ordinary_ext(address, external, message.clone(), account, Some(&mut inspector));
        let output = match begun {
            Ok(begun) => begun.commit().map_err(failed)?,
            Err(TxError::Skipped) => return Err(not_accepted(address, account, inspector.exit_code)),
            Err(TxError::Fatal(error)) if external => {
                return Err(LocalnetError::InvalidMessage(error.to_string()));
            }
            Err(TxError::Fatal(error)) => return Err(failed(error)),
        };
        let transaction = output.transaction;
        let lt = transaction.load()?.lt;
        Ok(Executed {
            account: output.new_state,
            exists: output.new_state_meta.exists,
            balance_nanoton: output.new_state_meta.balance.tokens.into_inner(),
            transaction,
            out_messages: output.transaction_meta.out_msgs.into_iter().map(Lazy::into_inner).collect(),
            fees_nanoton: output.transaction_meta.total_fees.into_inner(),
            burned_nanoton: output.burned.into_inner(),
            lt,
            next_lt: output.transaction_meta.next_lt,
        })
    }

    /// Whether the account accepts an external message now.
    pub(crate) fn check_external(
        &self,
        environment: &Environment,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
    ) -> Result<(), LocalnetError> {
        let min_lt = environment.block_lt;
        self.execute(environment, min_lt, address, account, message, true).map(|_| ())
    }

    /// What a get-method on an account without code leaves.
    pub(crate) fn no_code(&self) -> Result<GetterOutput, LocalnetError> {
        Ok(GetterOutput { exit_code: NO_CODE, gas_used: 0, stack: empty_stack()? })
    }

    /// Runs a get-method.
    pub(crate) fn run_getter(
        &self,
        environment: &Environment,
        account: &Account,
        method_id: u32,
        stack: &Cell,
    ) -> Result<GetterOutput, LocalnetError> {
        let AccountState::Active(state) = &account.state else {
            return self.no_code();
        };
        let Some(code) = state.code.clone() else {
            return self.no_code();
        };
        let mut stack = stack.parse::<Stack>().map_err(|error| {
            LocalnetError::BadRequest(format!("the get-method's arguments are no VmStack ({error})"))
        })?;
        stack.push_int(method_id).map_err(failed)?;
        let address_hash = account.address.as_std().map(|address| address.address).unwrap_or_default();
        let info = SmcInfoBase::new()
            .with_now(environment.utime)
            .with_block_lt(account.last_trans_lt)
            .with_tx_lt(account.last_trans_lt)
            .with_mixed_rand_seed(&environment.rand_seed, &address_hash)
            .with_account_balance(account.balance.clone())
            .with_account_addr(account.address.clone())
            .with_config(self.config.params.clone())
            .require_ton_v4()
            .with_code(code.clone())
            .require_ton_v6()
            .fill_unpacked_config()?
            .require_ton_v11();
        let libraries: (&Dict<_, _>, &Dict<HashBytes, LibDescr>) = (&state.libraries, &Dict::new());
        let mut vm = VmStateBuilder::new()
            .with_smc_info(info)
            .with_code(code)
            .with_data(state.data.clone().unwrap_or_default())
            .with_libraries(&libraries)
            .with_init_selector(false)
            .with_raw_stack(SafeRc::new(stack))
            .with_gas(GasParams { max: GETTER_GAS, limit: GETTER_GAS, credit: 0, price: 0 })
            .with_version(VmVersion::LATEST_TON)
            .build();
        let exit_code = !vm.run();
        let gas_used = vm.gas.consumed();
        let stack = CellBuilder::build_from(&*vm.stack)?;
        Ok(GetterOutput { exit_code, gas_used, stack })
    }
}

/// Exit code of a get-method on an account without code, as liteservers give it.
const NO_CODE: i32 = -256;
const GETTER_GAS: u64 = 1_000_000;

/// `VmStack` of depth 0.
fn empty_stack() -> Result<Cell, LocalnetError> {
    let mut builder = CellBuilder::new();
    builder.store_uint(0, 24)?;
    Ok(builder.build()?)
}

/// The description of workchain 0, in the older of its two forms.
fn basechain() -> WorkchainDescription {
    WorkchainDescription {
        enabled_since: 0,
        actual_min_split: 0,
        min_split: 0,
        max_split: 0,
        active: true,
        accept_msgs: true,
        zerostate_root_hash: HashBytes::ZERO,
        zerostate_file_hash: HashBytes::ZERO,
        version: 0,
        format: WorkchainFormat::Basic(WorkchainFormatBasic { vm_version: -1, vm_mode: 0 }),
    }
}

fn parameters(environment: &Environment) -> ExecutorParams {
    ExecutorParams {
        rand_seed: environment.rand_seed,
        block_unixtime: environment.utime,
        block_lt: environment.block_lt,
        prev_mc_block_id: Some(environment.prev_mc_block),
        disable_delete_frozen_accounts: false,
        charge_action_fees_on_fail: true,
        full_body_in_bounced: false,
        strict_extra_currency: true,
        ..ExecutorParams::default()
    }
}

fn not_accepted(address: &StdAddr, account: &ShardAccount, exit_code: Option<i32>) -> LocalnetError {
    let address = address.clone();
    match exit_code {
        Some(exit_code) => LocalnetError::NotAccepted { address, exit_code },
        None => {
            let status = account.account.load().map(|account| account.status());
            let reason = match status {
                Ok(AccountStatus::Active) => "it has no gas credit".to_owned(),
                Ok(status) => format!("it is {status:?}"),
                Err(error) => error.to_string(),
            };
            LocalnetError::NoCode { address, reason }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> LocalnetError {
    LocalnetError::Vm(format!("{error:#}"))
}

/// Exit code of a transaction's compute phase, if it ran.
pub(crate) fn exit_code(transaction: &Transaction) -> Option<i32> {
    match transaction.load_info().ok()? {
        TxInfo::Ordinary(info) => match info.compute_phase {
            ComputePhase::Executed(phase) => Some(phase.exit_code),
            ComputePhase::Skipped(_) => None,
        },
        TxInfo::TickTock(_) => None,
    }
}
