//! What the code of an account can see of the chain.

use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::BlockId;
use tycho_vm::{SafeRc, Tuple, tuple};

/// What the code of an account can see of the chain, beside its config.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Unix time of the block.
    pub utime: u32,
    /// Logical time at which the block begins.
    pub block_lt: u64,
    /// Randomness of the block.
    pub rand_seed: HashBytes,
    /// Masterchain blocks before it.
    pub prev_blocks: PrevBlocks,
    /// What library cells may name, beside an account's own: the root of the `libraries` in the masterchain's state
    /// (`HashmapE 256 LibDescr`), or of any dictionary from hash to a value whose first reference is the library.
    pub libraries: Option<Cell>,
}

/// Masterchain blocks before the one that runs: what `PREVMCBLOCKS`, `PREVKEYBLOCK` and `PREVMCBLOCKS_100` give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrevBlocks {
    /// The newest first; at most 16, and as many as there are. Where none is known, code sees null.
    pub last_16: Vec<BlockId>,
    /// The newest key block, which the zero state counts as.
    pub key_block: BlockId,
    /// Those whose seqno 100 divides, 0 among them, the newest first; at most 16.
    pub last_16_by_100: Vec<BlockId>,
}

impl PrevBlocks {
    /// Picks them from a chain as the node does (`ConfigInfo::get_prev_blocks_info`): `newest_seqno` is the newest
    /// block, `id_of` finds the id of each block down to the zero state, 0. `Err` is its first failure.
    pub fn pick<E>(
        newest_seqno: u32,
        key_block: BlockId,
        mut id_of: impl FnMut(u32) -> Result<BlockId, E>,
    ) -> Result<Self, E> {
        let last_16 = (0..=newest_seqno).rev().take(16).map(&mut id_of).collect::<Result<_, _>>()?;
        let hundreds = (0..=newest_seqno / 100).rev().take(16);
        let last_16_by_100 = hundreds.map(|hundred| id_of(hundred * 100)).collect::<Result<_, _>>()?;
        Ok(Self { last_16, key_block, last_16_by_100 })
    }

    /// `PrevBlocksInfo` of c7. Without blocks it is as the official emulator makes it without them.
    pub(crate) fn to_tuple(&self) -> SafeRc<Tuple> {
        let list = |ids: &[BlockId]| -> SafeRc<Tuple> {
            SafeRc::new(ids.iter().map(|id| block_tuple(id).into_dyn_value()).collect())
        };
        if self.last_16.is_empty() {
            return SafeRc::new(tuple![null, null]);
        }
        let mut info = tuple![raw list(&self.last_16), raw block_tuple(&self.key_block)];
        if !self.last_16_by_100.is_empty() {
            info.push(list(&self.last_16_by_100).into_dyn_value());
        }
        SafeRc::new(info)
    }
}

/// [ workchain shard seqno root_hash file_hash ]
fn block_tuple(id: &BlockId) -> SafeRc<Tuple> {
    SafeRc::new(tuple![
        int id.shard.workchain(),
        int id.shard.prefix(),
        int id.seqno,
        int id.root_hash.as_bigint(),
        int id.file_hash.as_bigint(),
    ])
}
