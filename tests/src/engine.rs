//! One message against one account.

use contracts::{Cell, HashBytes, StdAddr};
use tycho_executor::{Executor, ExecutorInspector, ExecutorParams, ParsedConfig, TxError};
use tycho_types::boc::Boc;
use tycho_types::cell::Lazy;
use tycho_types::models::{
    BlockId, BlockchainConfig, BlockchainConfigParams, OptionalAccount, ShardAccount, Transaction,
    WorkchainDescription, WorkchainFormat, WorkchainFormatBasic,
};

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

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}
