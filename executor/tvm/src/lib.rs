//! TVM and the transaction phases behind one small API: account, message and config give a transaction and messages;
//! a get-method gives a stack. The machine and the phases are tycho's, with the opcodes they lack and with what the
//! reference does otherwise; what is left of the differences is in `DIFFERENCES.md`.

mod actions;
mod environment;
mod libraries;
mod machine;
mod opcodes;
mod storage_dict;
mod transaction;

pub use environment::{Environment, PrevBlocks};

use thiserror::Error;
use tycho_executor::{Executor, ExecutorParams, ParsedConfig};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes, Lazy};
use tycho_types::dict::Dict;
use tycho_types::models::{
    Account, AccountState, AccountStatus, BlockchainConfig, BlockchainConfigParams, ComputePhase, LibDescr,
    ShardAccount, StdAddr, Transaction, TxInfo, WorkchainDescription, WorkchainFormat, WorkchainFormatBasic,
};
use tycho_vm::{GasParams, SafeRc, SmcInfoBase, Stack, VmStateBuilder, VmVersion};

use libraries::Libraries;
use transaction::Refusal;

/// Why there is no transaction, or no stack.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TvmError {
    /// The contract refused an external message before accepting it. The sender is at fault.
    #[error(
        "the contract did not accept the external message (exit code {exit_code}); the sender must correct it"
    )]
    NotAccepted {
        /// TVM exit code; 0 where the code ended without accepting.
        exit_code: i32,
    },
    /// No code runs at the destination of an external message.
    #[error("no code runs at the destination ({reason}); the sender must fund it or attach its state init")]
    NoCode {
        /// Why the compute phase was skipped.
        reason: String,
    },
    /// Bytes that are no message. The sender is at fault.
    #[error("not a message: {0}; the sender must build it anew")]
    InvalidMessage(String),
    /// A get-method's arguments are no `VmStack`. The caller is at fault.
    #[error("the get-method's arguments are no VmStack ({0})")]
    BadStack(String),
    /// The machine failed in a way that no contract can cause. This crate is at fault.
    #[error("the virtual machine failed: {0}; report this")]
    Machine(String),
    /// A cell could not be built or read.
    #[error("a cell could not be built or read: {0}")]
    Cell(#[from] tycho_types::error::Error),
}

/// A transaction and what it leaves.
#[derive(Debug)]
pub struct Executed {
    /// The account after it.
    pub account: ShardAccount,
    /// Whether there still is one.
    pub exists: bool,
    /// What is left on it.
    pub balance_nanoton: u128,
    /// The transaction.
    pub transaction: Lazy<Transaction>,
    /// Messages it sent, in order.
    pub out_messages: Vec<Cell>,
    /// Fees it paid.
    pub fees_nanoton: u128,
    /// What was burned in it.
    pub burned_nanoton: u128,
    /// Its logical time.
    pub lt: u64,
    /// The least logical time of what follows.
    pub next_lt: u64,
}

/// [`Environment::libraries`] of these cells: as if an account of the masterchain, of address zero, published them.
///
/// # Errors
/// [`TvmError::Cell`]; none is known to occur.
pub fn public_libraries(cells: impl IntoIterator<Item = Cell>) -> Result<Option<Cell>, TvmError> {
    let mut publishers = Dict::new();
    publishers.set(HashBytes::ZERO, ())?;
    let mut libraries = Dict::<HashBytes, LibDescr>::new();
    for lib in cells {
        libraries.set(*lib.repr_hash(), LibDescr { lib, publishers: publishers.clone() })?;
    }
    Ok(libraries.into_root())
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
pub struct Vm {
    config: BlockchainConfig,
}

impl Vm {
    /// A mainnet-like config, for the network `global_id`.
    ///
    /// # Errors
    /// [`TvmError::Cell`]; none is known to occur.
    pub fn new(global_id: i32) -> Result<Self, TvmError> {
        let root = Boc::decode(include_bytes!("../config/mainnet-like.boc"))
            .map_err(|e| TvmError::Machine(e.to_string()))?;
        let mut params = BlockchainConfigParams::from_raw(root);
        params.set_global_id(global_id)?;
        let mut workchains = Dict::new();
        workchains.set(0, basechain())?;
        params.set_workchains(&workchains)?;
        let address =
            params.as_dict().get(0)?.ok_or_else(|| TvmError::Machine("no config address".into()))?;
        let address = address.as_slice()?.load_u256()?;
        Ok(Self { config: BlockchainConfig { address, params } })
    }

    /// The config of the network.
    pub fn config(&self) -> &BlockchainConfig {
        &self.config
    }

    /// Runs one message against an account. `Err(NotAccepted)` and `Err(NoCode)` only for external messages.
    pub fn execute(
        &self,
        environment: &Environment,
        min_lt: u64,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
        external: bool,
    ) -> Result<Executed, TvmError> {
        self.run(environment, parameters(environment), min_lt, address, account, message, external)
    }

    /// Runs an external message as [`Vm::execute`] does; with `any_signature` every signature is good.
    pub fn dry_run(
        &self,
        environment: &Environment,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
        any_signature: bool,
    ) -> Result<Executed, TvmError> {
        let mut params = parameters(environment);
        params.vm_modifiers.chksig_always_succeed = any_signature;
        self.run(environment, params, environment.block_lt, address, account, message, true)
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        environment: &Environment,
        params: ExecutorParams,
        min_lt: u64,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
        external: bool,
    ) -> Result<Executed, TvmError> {
        let config = self.parsed_config(params.block_unixtime, address)?;
        let executor = Executor::new(&params, &config).with_min_lt(min_lt);
        let ran = transaction::ordinary(&executor, environment, address, account, message, external);
        let output = ran.map_err(|refusal| refused(refusal, account, external))?;
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

    fn parsed_config(&self, utime: u32, address: &StdAddr) -> Result<ParsedConfig, TvmError> {
        let mut config = ParsedConfig::parse(self.config.clone(), utime)?;
        if address.is_masterchain() {
            let cells = &mut config.size_limits.max_acc_state_cells;
            *cells = (*cells).min(MASTERCHAIN_ACCOUNT_CELLS);
        }
        Ok(config)
    }

    /// Whether the account accepts an external message now.
    pub fn check_external(
        &self,
        environment: &Environment,
        address: &StdAddr,
        account: &ShardAccount,
        message: &Cell,
    ) -> Result<(), TvmError> {
        let params = parameters(environment);
        let config = self.parsed_config(params.block_unixtime, address)?;
        let executor = Executor::new(&params, &config).with_min_lt(environment.block_lt);
        transaction::accepts(&executor, environment, address, account, message)
            .map_err(|refusal| refused(refusal, account, true))
    }

    /// What a get-method on an account without code leaves.
    pub fn no_code(&self) -> Result<GetterOutput, TvmError> {
        Ok(GetterOutput { exit_code: NO_CODE, gas_used: 0, stack: empty_stack()? })
    }

    /// Runs a get-method.
    pub fn run_getter(
        &self,
        environment: &Environment,
        account: &Account,
        method_id: u32,
        stack: &Cell,
    ) -> Result<GetterOutput, TvmError> {
        let AccountState::Active(state) = &account.state else {
            return self.no_code();
        };
        let Some(code) = state.code.clone() else {
            return self.no_code();
        };
        let mut stack = stack.parse::<Stack>().map_err(|error| TvmError::BadStack(error.to_string()))?;
        stack.push_int(method_id).map_err(failed)?;
        let address_hash = account.address.as_std().map(|address| address.address).unwrap_or_default();
        let mut info = SmcInfoBase::new()
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
        info.base.base.prev_blocks_info = Some(environment.prev_blocks.to_tuple());
        let own_libraries = state.libraries.root().clone();
        let libraries = Libraries::new(None, own_libraries, environment.libraries.clone());
        let mut vm = VmStateBuilder::new()
            .with_smc_info(info)
            .with_code(libraries::code_root(code)?)
            .with_data(state.data.clone().unwrap_or_default())
            .with_libraries(&libraries)
            .with_init_selector(false)
            .with_raw_stack(SafeRc::new(stack))
            .with_gas(GasParams { max: GETTER_GAS, limit: GETTER_GAS, credit: 0, price: 0 })
            .with_version(VmVersion::LATEST_TON)
            .build();
        let exit_code = !machine::run(&mut vm);
        let gas_used = vm.gas.consumed();
        let stack = CellBuilder::build_from(&*vm.stack)?;
        Ok(GetterOutput { exit_code, gas_used, stack })
    }
}

/// Exit code of a get-method on an account without code, as liteservers give it.
const NO_CODE: i32 = -256;
const GETTER_GAS: u64 = 1_000_000;
/// The reference's limit where config param 43 does not set it, as tycho's form of it cannot.
const MASTERCHAIN_ACCOUNT_CELLS: u32 = 1 << 11;

/// `VmStack` of depth 0.
fn empty_stack() -> Result<Cell, TvmError> {
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
        disable_delete_frozen_accounts: false,
        charge_action_fees_on_fail: false,
        full_body_in_bounced: false,
        strict_extra_currency: true,
        ..ExecutorParams::default()
    }
}

fn refused(refusal: Refusal, account: &ShardAccount, external: bool) -> TvmError {
    match refusal {
        Refusal::NotAccepted(exit_code) => not_accepted(account, exit_code),
        Refusal::Fatal(error) if external => TvmError::InvalidMessage(error),
        Refusal::Fatal(error) => failed(error),
    }
}

fn not_accepted(account: &ShardAccount, exit_code: Option<i32>) -> TvmError {
    match exit_code {
        Some(exit_code) => TvmError::NotAccepted { exit_code },
        None => {
            let status = account.account.load().map(|account| account.status());
            let reason = match status {
                Ok(AccountStatus::Active) => "it has no gas credit".to_owned(),
                Ok(status) => format!("it is {status:?}"),
                Err(error) => error.to_string(),
            };
            TvmError::NoCode { reason }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> TvmError {
    TvmError::Machine(format!("{error:#}"))
}

/// Exit code of a transaction's compute phase, if it ran.
pub fn exit_code(transaction: &Transaction) -> Option<i32> {
    match transaction.load_info().ok()? {
        TxInfo::Ordinary(info) => match info.compute_phase {
            ComputePhase::Executed(phase) => Some(phase.exit_code),
            ComputePhase::Skipped(_) => None,
        },
        TxInfo::TickTock(_) => None,
    }
}

/// The id of a get-method: CRC-16/XMODEM of its name, with bit 16 set.
pub fn method_id(name: &str) -> u32 {
    u32::from(tycho_types::crc::crc_16(name.as_bytes())) | 0x1_0000
}
