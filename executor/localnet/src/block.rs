//! Blocks and shard states as TON serialises them.
//!
//! What differs from a validator's: `in_msg_descr` and `out_msg_descr` are empty, the queue of outbound messages is not
//! part of the state, and a block's state update names the two states by hash only (both trees pruned at the root).

use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes, Lazy, LazyExotic};
use tycho_types::dict::AugDict;
use tycho_types::error::Error;
use tycho_types::merkle::{MerkleUpdate, make_pruned_branch};
use tycho_types::models::{
    AccountBlocks, Block, BlockExtra, BlockId, BlockInfo, BlockRef, BlockchainConfig, CurrencyCollection,
    KeyBlockRef, KeyMaxLt, McBlockExtra, McStateExtra, ShardAccounts, ShardDescription, ShardHashes,
    ShardIdent, ShardStateUnsplit, ValidatorInfo, ValueFlow,
};

use crate::genesis::file_hash;
use crate::libraries::PublicLibraries;

/// Blocks before the current one, by sequence number.
pub(crate) type OldMcBlocks = AugDict<u32, KeyMaxLt, KeyBlockRef>;

/// What names a block and places it in time.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) global_id: i32,
    pub(crate) shard: ShardIdent,
    pub(crate) seqno: u32,
    pub(crate) utime: u32,
    pub(crate) start_lt: u64,
    pub(crate) end_lt: u64,
    pub(crate) rand_seed: HashBytes,
    /// The block before this one in the same chain; a zero state where its seqno is 0.
    pub(crate) prev: BlockRef,
    /// The newest masterchain block a basechain block knows.
    pub(crate) master: Option<BlockRef>,
}

/// The part of the masterchain's state that is not accounts.
#[derive(Clone)]
pub(crate) struct MasterExtra {
    pub(crate) shards: ShardHashes,
    pub(crate) config: BlockchainConfig,
    pub(crate) prev_blocks: OldMcBlocks,
    pub(crate) global_balance: CurrencyCollection,
    pub(crate) libraries: PublicLibraries,
}

/// The cell of a shard state.
pub(crate) fn build_state(
    header: &Header,
    accounts: &ShardAccounts,
    fees_nanoton: u128,
    extra: Option<&MasterExtra>,
) -> Result<Cell, Error> {
    let custom = match extra {
        None => None,
        Some(extra) => Some(Lazy::new(&McStateExtra {
            shards: extra.shards.clone(),
            config: extra.config.clone(),
            validator_info: ValidatorInfo {
                validator_list_hash_short: 0,
                catchain_seqno: 0,
                nx_cc_updated: false,
            },
            prev_blocks: extra.prev_blocks.clone(),
            after_key_block: false,
            last_key_block: None,
            block_create_stats: None,
            global_balance: extra.global_balance.clone(),
        })?),
    };
    CellBuilder::build_from(&ShardStateUnsplit {
        global_id: header.global_id,
        shard_ident: header.shard,
        seqno: header.seqno,
        vert_seqno: 0,
        gen_utime: header.utime,
        gen_lt: header.end_lt,
        min_ref_mc_seqno: header.master.as_ref().map_or(header.seqno, |master| master.seqno),
        out_msg_queue_info: empty_queue_info()?,
        before_split: false,
        accounts: Lazy::new(accounts)?,
        overload_history: 0,
        underload_history: 0,
        total_balance: accounts.root_extra().balance.clone(),
        total_validator_fees: CurrencyCollection::new(fees_nanoton),
        libraries: extra.map(|extra| extra.libraries.clone()).unwrap_or_default(),
        master_ref: header.master.clone(),
        custom,
    })
}

/// What one block holds beside its header.
pub(crate) struct Contents {
    pub(crate) old_state: Cell,
    pub(crate) new_state: Cell,
    pub(crate) account_blocks: AccountBlocks,
    pub(crate) value_flow: ValueFlow,
    /// The shards a masterchain block names.
    pub(crate) shards: Option<ShardHashes>,
}

/// The cell of a block, and the id it gets.
pub(crate) fn build_block(header: &Header, contents: &Contents) -> Result<(BlockId, Cell), Error> {
    let mut info = BlockInfo {
        version: 0,
        seqno: header.seqno,
        shard: header.shard,
        gen_utime: header.utime,
        start_lt: header.start_lt,
        end_lt: header.end_lt,
        min_ref_mc_seqno: header.master.as_ref().map_or(header.seqno, |master| master.seqno),
        master_ref: header.master.as_ref().map(Lazy::new).transpose()?,
        ..BlockInfo::default()
    };
    info.set_prev_ref_single(&header.prev);
    let custom = match &contents.shards {
        None => None,
        Some(shards) => Some(Lazy::new(&McBlockExtra { shards: shards.clone(), ..McBlockExtra::default() })?),
    };
    let extra = BlockExtra {
        account_blocks: Lazy::new(&contents.account_blocks)?,
        rand_seed: header.rand_seed,
        custom,
        ..BlockExtra::default()
    };
    let block = CellBuilder::build_from(&Block {
        global_id: header.global_id,
        info: Lazy::new(&info)?,
        value_flow: Lazy::new(&contents.value_flow)?,
        state_update: LazyExotic::new(&state_update(&contents.old_state, &contents.new_state)?)?,
        out_msg_queue_updates: None,
        extra: Lazy::new(&extra)?,
    })?;
    let id = BlockId {
        shard: header.shard,
        seqno: header.seqno,
        root_hash: *block.repr_hash(),
        file_hash: file_hash(&block),
    };
    Ok((id, block))
}

/// How the masterchain names the basechain's newest block.
pub(crate) fn shard_hashes(
    block: &BlockId,
    header: &Header,
    reg_mc_seqno: u32,
) -> Result<ShardHashes, Error> {
    let description = ShardDescription {
        seqno: block.seqno,
        reg_mc_seqno,
        start_lt: header.start_lt,
        end_lt: header.end_lt,
        root_hash: block.root_hash,
        file_hash: block.file_hash,
        before_split: false,
        before_merge: false,
        want_split: false,
        want_merge: false,
        nx_cc_updated: false,
        next_catchain_seqno: 0,
        next_validator_shard: ShardIdent::PREFIX_FULL,
        min_ref_mc_seqno: header.master.as_ref().map_or(0, |master| master.seqno),
        gen_utime: header.utime,
        split_merge_at: None,
        fees_collected: CurrencyCollection::ZERO,
        funds_created: CurrencyCollection::ZERO,
    };
    ShardHashes::from_shards([(&block.shard, &description)])
}

/// How a later block refers to `block`.
pub(crate) fn block_ref(block: &BlockId, end_lt: u64) -> BlockRef {
    BlockRef { end_lt, seqno: block.seqno, root_hash: block.root_hash, file_hash: block.file_hash }
}

fn state_update(old: &Cell, new: &Cell) -> Result<MerkleUpdate, Error> {
    Ok(MerkleUpdate {
        old_hash: *old.repr_hash(),
        new_hash: *new.repr_hash(),
        old_depth: old.repr_depth(),
        new_depth: new.repr_depth(),
        old: make_pruned_branch(old.as_ref(), 0, Cell::empty_context())?,
        new: make_pruned_branch(new.as_ref(), 0, Cell::empty_context())?,
    })
}

/// `OutMsgQueueInfo` of an empty queue: no messages (with the least logical time, 0), nothing processed, no extra.
fn empty_queue_info() -> Result<Cell, Error> {
    let mut builder = CellBuilder::new();
    builder.store_bit_zero()?;
    builder.store_u64(0)?;
    builder.store_bit_zero()?;
    builder.store_bit_zero()?;
    builder.build()
}
