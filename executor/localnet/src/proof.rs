//! The Merkle proofs a liteserver gives with its answers.

use tycho_types::boc::ser::BocHeader;
use tycho_types::cell::{Cell, CellBuilder, CellSlice, HashBytes, Load, UsageTree, UsageTreeMode};
use tycho_types::dict::{AugDict, Dict};
use tycho_types::error::Error;
use tycho_types::merkle::MerkleProof;
use tycho_types::models::{Account, AccountBlocks, DepthBalanceInfo, OptionalAccount, ShardAccount};

/// Proof of a block's header, and of the hashes of the states around it.
pub(crate) fn header(block: &Cell) -> Result<Cell, Error> {
    prove(block, |root| {
        for child in 0..BLOCK_EXTRA_REF {
            touch_children(&root.reference_cloned(child).ok_or(Error::CellUnderflow)?)?;
        }
        Ok(())
    })
}

/// [`header`] with what stands in a block's `extra`: of a masterchain block its custom part, and with `shards` the
/// descriptions of shards, with `signatures` all else there.
pub(crate) fn header_with_extra(block: &Cell, shards: bool, signatures: bool) -> Result<Cell, Error> {
    prove(block, |root| {
        for child in 0..BLOCK_EXTRA_REF {
            touch_children(&root.reference_cloned(child).ok_or(Error::CellUnderflow)?)?;
        }
        let extra = root.reference_cloned(BLOCK_EXTRA_REF).ok_or(Error::CellUnderflow)?;
        let Some(custom) = extra.reference_cloned(EXTRA_CUSTOM_REF) else { return Ok(()) };
        if shards && let Some(first) = custom.reference_cloned(0) {
            touch_all(&first)?;
        }
        if signatures { touch_all(&custom) } else { Ok(()) }
    })
}

/// Proof that a shard's state holds the account (its cell pruned) or does not hold it.
pub(crate) fn account(state: &Cell, account: &HashBytes) -> Result<Cell, Error> {
    prove(state, |root| {
        let cell = root.reference_cloned(STATE_ACCOUNTS_REF).ok_or(Error::CellUnderflow)?;
        let accounts: AugDict<HashBytes, DepthBalanceInfo, ShardAccount> =
            AugDict::load_from(&mut cell.as_slice()?)?;
        let _: Option<CellSlice<'_>> = accounts.dict().get_raw(account)?;
        Ok(())
    })
}

/// Proof of an account's cell, all of it.
pub(crate) fn whole(cell: &Cell) -> Result<Cell, Error> {
    prove(cell, touch_all)
}

/// An account's cell without its code, data and libraries.
pub(crate) fn without_code(account: &Cell) -> Result<Cell, Error> {
    prove_by(UsageTreeMode::OnDataAccess, account, |root| {
        let OptionalAccount(account) = root.parse()?;
        if let Some(Account { balance, .. }) = account {
            for entry in balance.other.as_dict().iter() {
                entry?;
            }
        }
        Ok(())
    })
}

/// Proof that a masterchain state names its shards.
pub(crate) fn shards(state: &Cell) -> Result<Cell, Error> {
    prove(state, |root| {
        let custom = root.reference_cloned(STATE_CUSTOM_REF).ok_or(Error::CellUnderflow)?;
        let mut slice = custom.as_slice()?;
        slice.skip_first(16, 0)?;
        let shards = Dict::<i32, Cell>::load_from(&mut slice)?;
        for entry in shards.iter() {
            let (_, tree) = entry?;
            touch_children(&tree)?;
        }
        Ok(())
    })
}

/// Proof that a block holds a transaction (its cell pruned).
pub(crate) fn transaction(block: &Cell, account: &HashBytes, lt: u64) -> Result<Cell, Error> {
    prove(block, |root| {
        let extra = root.reference_cloned(BLOCK_EXTRA_REF).ok_or(Error::CellUnderflow)?;
        let blocks = extra.reference_cloned(EXTRA_ACCOUNT_BLOCKS_REF).ok_or(Error::CellUnderflow)?;
        let blocks = AccountBlocks::load_from(&mut blocks.as_slice()?)?;
        let (_, block) = blocks.get(account)?.ok_or(Error::InvalidData)?;
        let _: Option<CellSlice<'_>> = block.transactions.dict().get_raw(lt)?;
        touch_children(root)
    })
}

/// Proof of which transactions a block holds (their cells pruned).
pub(crate) fn transactions(block: &Cell) -> Result<Cell, Error> {
    prove(block, |root| {
        touch_children(root)?;
        let extra = root.reference_cloned(BLOCK_EXTRA_REF).ok_or(Error::CellUnderflow)?;
        let blocks = extra.reference_cloned(EXTRA_ACCOUNT_BLOCKS_REF).ok_or(Error::CellUnderflow)?;
        let blocks = AccountBlocks::load_from(&mut blocks.as_slice()?)?;
        for entry in blocks.values() {
            let (_, block) = entry?;
            for lt in block.transactions.dict().raw_keys() {
                lt?;
            }
        }
        Ok(())
    })
}

/// Proof of the config parameters of a masterchain state, all or the ones `wanted`, and of the head of what stands
/// around them. A parameter that is not set is proven absent.
pub(crate) fn config(state: &Cell, wanted: Option<&[i32]>) -> Result<Cell, Error> {
    prove(state, |root| {
        let custom = root.reference_cloned(STATE_CUSTOM_REF).ok_or(Error::CellUnderflow)?;
        let mut slice = custom.as_slice()?;
        slice.skip_first(16, 0)?;
        Dict::<i32, Cell>::load_from(&mut slice)?;
        slice.skip_first(256, 0)?;
        touch_children(&custom)?;
        let parameters = slice.load_reference_cloned()?;
        let Some(wanted) = wanted else { return touch_all(&parameters) };
        let parameters = Dict::<i32, Cell>::from_raw(Some(parameters));
        for index in wanted {
            if let Some(parameter) = parameters.get(index)? {
                touch_all(&parameter)?;
            }
        }
        Ok(())
    })
}

/// One bag with several roots.
pub(crate) fn boc_of(roots: &[&Cell]) -> Vec<u8> {
    let mut bag = BocHeader::<std::collections::hash_map::RandomState>::with_capacity(roots.len());
    for root in roots {
        bag.add_root(root.as_ref());
    }
    let mut bytes = Vec::new();
    bag.encode(&mut bytes);
    bytes
}

/// `ShardStateUnsplit`: out_msg_queue_info, accounts, an anonymous cell, custom.
const STATE_ACCOUNTS_REF: u8 = 1;
const STATE_CUSTOM_REF: u8 = 3;
/// `Block`: info, value_flow, state_update, extra.
const BLOCK_EXTRA_REF: u8 = 3;
/// `BlockExtra`: in_msg_descr, out_msg_descr, account_blocks, custom.
const EXTRA_ACCOUNT_BLOCKS_REF: u8 = 2;
const EXTRA_CUSTOM_REF: u8 = 3;

/// A proof of the cells that `visit` reads.
fn prove(root: &Cell, visit: impl FnOnce(&Cell) -> Result<(), Error>) -> Result<Cell, Error> {
    prove_by(UsageTreeMode::OnLoad, root, visit)
}

fn prove_by(
    mode: UsageTreeMode,
    root: &Cell,
    visit: impl FnOnce(&Cell) -> Result<(), Error>,
) -> Result<Cell, Error> {
    let usage = UsageTree::new(mode);
    visit(&usage.track(root))?;
    let proof = MerkleProof::create(root.as_ref(), usage).build()?;
    CellBuilder::build_from(&proof)
}

fn touch_children(cell: &Cell) -> Result<(), Error> {
    for child in 0..cell.reference_count() {
        cell.reference_cloned(child).ok_or(Error::CellUnderflow)?;
    }
    Ok(())
}

fn touch_all(cell: &Cell) -> Result<(), Error> {
    for child in 0..cell.reference_count() {
        touch_all(&cell.reference_cloned(child).ok_or(Error::CellUnderflow)?)?;
    }
    Ok(())
}
