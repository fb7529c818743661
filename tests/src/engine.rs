//! One message against one account.

use std::convert::Infallible;

use contracts::fees::FeePrices;
use contracts::{Cell, HashBytes, StdAddr, artifacts};
use num_bigint::BigInt;
use sha2::{Digest, Sha256};
use tvm_executor::{Environment, PrevBlocks, TvmError, Vm, method_id};
use tycho_types::cell::{CellBuilder, Lazy};
use tycho_types::dict::Dict;
use tycho_types::models::{BlockId, OptionalAccount, ShardAccount, ShardIdent, SimpleLib, Transaction};
use tycho_vm::Stack;

pub struct Engine {
    vm: Vm,
    /// What a Librarian has published.
    libraries: Option<Cell>,
}

/// The contract did not accept an external message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Nothing when no code ran.
    pub exit_code: Option<i32>,
}

/// What a get-method leaves in one place of the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackItem {
    Null,
    Int(BigInt),
    Cell(Cell),
    /// What remains of it, as a cell of its own.
    Slice(Cell),
}

pub struct Executed {
    pub account: ShardAccount,
    pub transaction: Transaction,
    pub burned: u128,
    pub end_lt: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Self { vm: Vm::new(-3).expect("the config is sound"), libraries: published() }
    }
}

impl Engine {
    pub fn empty_account(&self) -> ShardAccount {
        ShardAccount {
            account: Lazy::new(&OptionalAccount::EMPTY).expect("an empty account fits"),
            last_trans_hash: HashBytes::ZERO,
            last_trans_lt: 0,
        }
    }

    /// Prices of the basechain.
    pub fn prices(&self) -> FeePrices {
        let config = &self.vm.config().params;
        let storage = config.get_storage_prices().expect("the config has storage prices");
        let last = storage.keys().last().expect("the storage prices are not empty").expect("a key");
        FeePrices {
            storage: storage.get(last).expect("storage prices read back").expect("the last one is there"),
            gas: config.get_gas_prices(false).expect("the config has gas prices"),
            forward: config.get_msg_forward_prices(false).expect("the config has forward prices"),
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
        match self.vm.execute(&self.environment(now, lt), lt, address, account, &message, external) {
            Ok(done) => Ok(Executed {
                account: done.account,
                transaction: done.transaction.load().expect("a transaction reads back"),
                burned: done.burned_nanoton,
                end_lt: done.next_lt,
            }),
            Err(TvmError::NotAccepted { exit_code }) => Err(Refused { exit_code: Some(exit_code) }),
            Err(TvmError::NoCode { .. }) => Err(Refused { exit_code: None }),
            Err(error) => panic!("the executor failed: {error:#}"),
        }
    }

    /// Runs a get-method of an active account that takes integers and leaves one. `None` where it failed.
    pub fn get_int(
        &self,
        account: &ShardAccount,
        now: u32,
        method: &str,
        arguments: &[u128],
    ) -> Option<u128> {
        let account = account.load_account().ok()??;
        let mut stack = Stack::default();
        for argument in arguments {
            stack.push_int(*argument).ok()?;
        }
        let stack = CellBuilder::build_from(&stack).ok()?;
        let output =
            self.vm.run_getter(&self.environment(now, 0), &account, method_id(method), &stack).ok()?;
        if output.exit_code > 1 {
            return None;
        }
        u128::try_from(&*output.stack.parse::<Stack>().ok()?.pop_int().ok()?).ok()
    }

    /// Runs a get-method of an active account. `None` where it failed.
    pub fn get(
        &self,
        account: &ShardAccount,
        now: u32,
        method: &str,
        arguments: &[BigInt],
    ) -> Option<Vec<StackItem>> {
        let account = account.load_account().ok()??;
        let mut stack = Stack::default();
        for argument in arguments {
            stack.push_int(argument.clone()).ok()?;
        }
        let stack = CellBuilder::build_from(&stack).ok()?;
        let output =
            self.vm.run_getter(&self.environment(now, 0), &account, method_id(method), &stack).ok()?;
        if output.exit_code > 1 {
            return None;
        }
        let mut stack = output.stack.parse::<Stack>().ok()?;
        let mut items = Vec::new();
        while stack.depth() > 0 {
            let value = stack.pop().ok()?;
            items.push(if value.is_null() {
                StackItem::Null
            } else if let Ok(int) = value.clone().into_int() {
                StackItem::Int((*int).clone())
            } else if let Ok(cell) = value.clone().into_cell() {
                StackItem::Cell((*cell).clone())
            } else {
                let slice = value.into_cell_slice().ok()?;
                let mut builder = CellBuilder::new();
                builder.store_slice(slice.apply()).ok()?;
                StackItem::Slice(builder.build().ok()?)
            });
        }
        items.reverse();
        Some(items)
    }

    fn environment(&self, now: u32, block_lt: u64) -> Environment {
        let picked: Result<_, Infallible> =
            PrevBlocks::pick(MC_SEQNO, mc_block(0), |seqno| Ok(mc_block(seqno)));
        let Ok(prev_blocks) = picked;
        let libraries = self.libraries.clone();
        Environment { utime: now, block_lt, rand_seed: HashBytes::ZERO, prev_blocks, libraries }
    }
}

fn published() -> Option<Cell> {
    let mut libraries = Dict::<HashBytes, SimpleLib>::new();
    for root in artifacts::libraries() {
        let hash = *root.repr_hash();
        libraries.set(hash, SimpleLib { public: true, root }).expect("a library fits");
    }
    libraries.root().clone()
}

/// Seqno of the newest masterchain block that any test sees.
pub const MC_SEQNO: u32 = 2_345;

/// A masterchain block before every test, of a seqno up to [`MC_SEQNO`].
pub fn mc_block(seqno: u32) -> BlockId {
    let hash = |what: &str| HashBytes(Sha256::digest(format!("{what} {seqno}")).into());
    BlockId {
        shard: ShardIdent::MASTERCHAIN,
        seqno,
        root_hash: hash("mc block root"),
        file_hash: hash("mc block file"),
    }
}
