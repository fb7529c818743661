//! One message against one account.

use contracts::{Cell, HashBytes, StdAddr};
use tycho_executor::{Executor, ExecutorInspector, ExecutorParams, ParsedConfig, TxError};
use tycho_types::boc::Boc;
use tycho_types::cell::Lazy;
use tycho_types::crc::crc_16;
use tycho_types::models::{
    AccountState, BlockId, BlockchainConfig, BlockchainConfigParams, OptionalAccount, ShardAccount,
    Transaction, WorkchainDescription, WorkchainFormat, WorkchainFormatBasic,
};
use tycho_vm::{GasParams, SafeRc, SmcInfoBase, Stack, VmStateBuilder, VmVersion};

pub struct Engine {
    config: BlockchainConfig,
}

/// The contract did not accept an external message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Nothing when no code ran.
    pub exit_code: Option<i32>,
}

pub struct Executed {
    pub account: ShardAccount,
    pub transaction: Transaction,
    pub burned: u128,
    pub end_lt: u64,
}

impl Engine {
    pub fn new() -> Self {
        let root = Boc::decode(include_bytes!("../../executor/localnet/src/config.boc"))
            .expect("the config is a cell");
        let mut params = BlockchainConfigParams::from_raw(root);
        params.set_global_id(-3).expect("the id fits");
        let mut workchains = tycho_types::dict::Dict::<i32, WorkchainDescription>::new();
        workchains
            .set(
                0,
                WorkchainDescription {
                    enabled_since: 0,
                    actual_min_split: 0,
                    min_split: 0,
                    max_split: 4,
                    active: true,
                    accept_msgs: true,
                    zerostate_root_hash: HashBytes::ZERO,
                    zerostate_file_hash: HashBytes::ZERO,
                    version: 0,
                    format: WorkchainFormat::Basic(WorkchainFormatBasic { vm_version: -1, vm_mode: 0 }),
                },
            )
            .expect("fits");
        params.set_workchains(&workchains).expect("fits");
        let address = params.as_dict().get(0).expect("param 0").expect("param 0");
        let address = address.as_slice().expect("ordinary").load_u256().expect("an address");
        Self { config: BlockchainConfig { address, params } }
    }

    pub fn empty_account(&self) -> ShardAccount {
        ShardAccount {
            account: Lazy::new(&OptionalAccount::EMPTY).expect("an empty account fits"),
            last_trans_hash: HashBytes::ZERO,
            last_trans_lt: 0,
        }
    }

    pub fn execute(
        &self,
        address: &StdAddr,
        account: &ShardAccount,
        message: Cell,
        external: bool,
        now: u32,
        lt: u64,
    ) -> Result<Executed, Refused> {
        let params = ExecutorParams {
            block_unixtime: now,
            block_lt: lt,
            prev_mc_block_id: Some(BlockId::default()),
            charge_action_fees_on_fail: true,
            strict_extra_currency: true,
            ..ExecutorParams::default()
        };
        let config = ParsedConfig::parse(self.config.clone(), now).expect("the config is sound");
        let executor = Executor::new(&params, &config).with_min_lt(lt);
        let mut inspector = ExecutorInspector::default();
        let output =
            match executor.begin_ordinary_ext(address, external, message, account, Some(&mut inspector)) {
                Ok(begun) => begun.commit().expect("a transaction is written"),
                Err(TxError::Skipped) => {
                    return Err(Refused { exit_code: inspector.exit_code });
                }
                Err(TxError::Fatal(error)) => panic!("the executor failed: {error:#}"),
            };
        Ok(Executed {
            account: output.new_state,
            transaction: output.transaction.load().expect("a transaction reads back"),
            burned: output.burned.into_inner(),
            end_lt: output.transaction_meta.next_lt,
        })
    }
}

impl Engine {
    /// Runs a get-method of an active account that takes integers and leaves one. `None` where it failed.
    pub fn get_int(
        &self,
        account: &ShardAccount,
        now: u32,
        method: &str,
        arguments: &[u128],
    ) -> Option<u128> {
        let account = account.load_account().ok()??;
        let AccountState::Active(state) = &account.state else {
            return None;
        };
        let code = state.code.clone()?;
        let mut stack = Stack::default();
        for argument in arguments {
            stack.push_int(*argument).ok()?;
        }
        stack.push_int(u32::from(crc_16(method.as_bytes())) | 0x1_0000).ok()?;
        let info = SmcInfoBase::new()
            .with_now(now)
            .with_account_balance(account.balance.clone())
            .with_account_addr(account.address.clone())
            .with_config(self.config.params.clone())
            .require_ton_v4()
            .with_code(code.clone())
            .require_ton_v6()
            .fill_unpacked_config()
            .ok()?
            .require_ton_v11();
        let mut vm = VmStateBuilder::new()
            .with_smc_info(info)
            .with_code(code)
            .with_data(state.data.clone().unwrap_or_default())
            .with_init_selector(false)
            .with_raw_stack(SafeRc::new(stack))
            .with_gas(GasParams::getter())
            .with_version(VmVersion::LATEST_TON)
            .build();
        if vm.run() > 1 {
            return None;
        }
        let stack = SafeRc::make_mut(&mut vm.stack);
        u128::try_from(&*stack.pop_int().ok()?).ok()
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}
