//! The hash of an account's cell dictionary, which the reference keeps in the storage info of large accounts
//! (`crypto/block/account-storage-stat.cpp`): for each cell, how often the account's cells refer to it.

use std::collections::BTreeMap;

use tycho_executor::ExecutorState;
use tycho_types::cell::{Cell, CellBuilder, CellContext, CellType, HashBytes, Store};
use tycho_types::dict::RawDict;
use tycho_types::error::Error;
use tycho_types::models::{AccountState, AccountStatus, ShardAccount, StateInit, StorageExtra};

/// `storage_extra` of the account that `state` is about to become.
pub(crate) fn storage_extra(state: &ExecutorState<'_>, before: &ShardAccount) -> Result<StorageExtra, Error> {
    if state.address.is_masterchain() {
        return Ok(StorageExtra::None);
    }
    let old = match before.load_account()? {
        Some(account) => Some(roots_of(&account.state)),
        None => None,
    };
    let new = match state.end_status {
        AccountStatus::Active => roots_of(&state.state),
        AccountStatus::Uninit | AccountStatus::Frozen | AccountStatus::NotExists => Vec::new(),
    };
    let kept = state.storage_stat.storage_extra;
    let lacks = kept == StorageExtra::None && state.storage_stat.used.cells.into_inner() >= LEAST_CELLS;
    if old.as_ref() == Some(&new) && !lacks {
        return Ok(kept);
    }
    let mut cells = Cells::default();
    for root in &new {
        cells.add(root);
    }
    // The root cell counts, but it is not in the dictionary.
    if (cells.0.len() as u64).saturating_add(1) < LEAST_CELLS {
        return Ok(StorageExtra::None);
    }
    let dictionary = RawDict::<256>::try_from_btree(&cells.0)?;
    Ok(match dictionary.root() {
        Some(root) => StorageExtra::DictHash(*root.repr_hash()),
        None => StorageExtra::None,
    })
}

/// `acc_state_cells_for_storage_dict` where config param 43 does not set it.
const LEAST_CELLS: u64 = 26;

fn roots_of(state: &AccountState) -> Vec<Cell> {
    match state {
        AccountState::Active(StateInit { code, data, libraries, .. }) => {
            [code.as_ref(), data.as_ref(), libraries.root().as_ref()].into_iter().flatten().cloned().collect()
        }
        AccountState::Uninit | AccountState::Frozen(_) => Vec::new(),
    }
}

#[derive(Default)]
struct Cells(BTreeMap<HashBytes, Entry>);

struct Entry {
    references: u32,
    /// Merkle cells on the deepest path below, itself among them; at most 3.
    merkle_depth: u8,
}

impl Cells {
    /// Counts a reference to `cell`; its Merkle depth. As deep as the tree of cells, whose depth TON limits to 1024.
    fn add(&mut self, cell: &Cell) -> u8 {
        if let Some(entry) = self.0.get_mut(cell.repr_hash()) {
            entry.references = entry.references.saturating_add(1);
            return entry.merkle_depth;
        }
        let mut merkle_depth = 0;
        for child in cell.references().cloned() {
            merkle_depth = self.add(&child).max(merkle_depth);
        }
        if matches!(cell.cell_type(), CellType::MerkleProof | CellType::MerkleUpdate) {
            merkle_depth += 1;
        }
        let merkle_depth = merkle_depth.min(3);
        self.0.insert(*cell.repr_hash(), Entry { references: 1, merkle_depth });
        merkle_depth
    }
}

impl Store for Entry {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), Error> {
        builder.store_u32(self.references)?;
        builder.store_small_uint(self.merkle_depth, 2)
    }
}
