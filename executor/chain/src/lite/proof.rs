//! Checks a liteserver's answers against the hash of a masterchain block.
//!
//! Every link is a Merkle proof: masterchain block → its state → the shard's newest block → the shard's
//! state → the account. What is not checked is that validators signed the masterchain block itself.

use thiserror::Error;
use ton_liteapi::tl::common::BlockIdExt;
use ton_liteapi::tl::response::AccountState;
use tycho_types::boc::Boc;
use tycho_types::boc::de::{BocHeader, Options};
use tycho_types::cell::{Cell, CellFamily, CellSlice, CellType, DynCell, HashBytes, Load};
use tycho_types::dict::{AugDict, Dict};
use tycho_types::error::Error as CellError;
use tycho_types::merkle::MerkleProofRef;
use tycho_types::models::{Account, BlockInfo, DepthBalanceInfo, OptionalAccount, ShardAccount, StdAddr};

use super::query::MASTERCHAIN;
use crate::access::TxId;

/// Why a proof does not hold.
#[derive(Debug, Error)]
pub(crate) enum ProofError {
    #[error("not a bag of cells: {0}")]
    Boc(#[from] tycho_types::boc::de::Error),
    #[error("a cell that does not parse: {0}")]
    Cell(#[from] CellError),
    #[error("{0}")]
    Broken(&'static str),
}

/// Time (Unix seconds) and sequence number of the block whose root hash is `root_hash`, from its header proof.
pub(crate) fn block_header(proof: &[u8], root_hash: &HashBytes) -> Result<(u32, u32), ProofError> {
    let root = Boc::decode(proof)?;
    let block = virtual_root(root.as_ref(), root_hash)?;
    let info_cell = block.reference(0).ok_or(CellError::CellUnderflow)?;
    let info = BlockInfo::load_from(&mut info_cell.as_slice()?)?;
    Ok((info.gen_utime, info.seqno))
}

/// The account and its newest transaction, as of the masterchain block of `answer.id`.
pub(crate) fn account(
    answer: &AccountState,
    address: &StdAddr,
) -> Result<(Option<Account>, Option<TxId>), ProofError> {
    if i32::from(address.workchain) == MASTERCHAIN.0 {
        check(answer.shardblk == answer.id, "an account of the masterchain is proven by another block")?;
    } else {
        check_shard_block(answer, address)?;
    }
    let proofs = decode_roots(&answer.proof, 2)?;
    let state_hash = state_hash(virtual_root(proofs[0].as_ref(), &HashBytes(answer.shardblk.root_hash.0))?)?;
    let state = virtual_root(proofs[1].as_ref(), &state_hash)?;
    let accounts_cell = state.reference(STATE_ACCOUNTS_REF).ok_or(CellError::CellUnderflow)?;
    let accounts: AugDict<HashBytes, DepthBalanceInfo, ShardAccount> =
        AugDict::load_from(&mut accounts_cell.as_slice()?)?;
    let Some(leaf) = find_account(&accounts, &address.address)? else {
        check(answer.state.is_empty(), "the proof says there is no such account, the answer has one")?;
        return Ok((None, None));
    };
    let last = (leaf.last_lt != 0).then_some(TxId { lt: leaf.last_lt, hash: leaf.last_hash });
    if answer.state.is_empty() {
        check(leaf.account_hash == empty_account_hash()?, "the proof has an account, the answer has none")?;
        return Ok((None, last));
    }
    let state = Boc::decode(&answer.state)?;
    check(*state.repr_hash() == leaf.account_hash, "the account's state is not the proven one")?;
    let OptionalAccount(account) = state.parse()?;
    if let Some(account) = &account {
        let same = account.address.as_std().is_some_and(|proven| proven == address);
        check(same, "the state is that of another account")?;
    }
    Ok((account, last))
}

/// The roots of a bag of cells, exactly `count` of them.
pub(crate) fn decode_roots(boc: &[u8], count: usize) -> Result<Vec<Cell>, ProofError> {
    decode_boc_roots(boc, Options::exact(count))
}

/// The roots of a bag of cells, at most `max` of them; none where the bytes are empty.
pub(crate) fn decode_roots_up_to(boc: &[u8], max: usize) -> Result<Vec<Cell>, ProofError> {
    if boc.is_empty() {
        return Ok(Vec::new());
    }
    decode_boc_roots(boc, Options { min_roots: None, max_roots: Some(max) })
}

fn decode_boc_roots(boc: &[u8], options: Options) -> Result<Vec<Cell>, ProofError> {
    let header = BocHeader::decode(boc, &options)?;
    let cell_count = header.cells().len();
    let cells = header.finalize(Cell::empty_context())?;
    header
        .roots()
        .iter()
        .map(|root| {
            let known = (*root as usize) < cell_count;
            known.then(|| cells.get(*root)).flatten().ok_or(ProofError::Broken("a root that is not there"))
        })
        .collect()
}

/// `ShardStateUnsplit`: out_msg_queue_info, accounts, an anonymous cell, custom.
const STATE_ACCOUNTS_REF: u8 = 1;
const STATE_CUSTOM_REF: u8 = 3;
/// `Block`: info, value_flow, state_update, extra.
const BLOCK_STATE_UPDATE_REF: u8 = 2;

struct AccountLeaf {
    account_hash: HashBytes,
    last_hash: HashBytes,
    last_lt: u64,
}

/// The cell inside a Merkle proof of the cell `expected`. Hashes are checked by the parser.
fn virtual_root<'a>(proof: &'a DynCell, expected: &HashBytes) -> Result<&'a DynCell, ProofError> {
    let proof = proof.parse_exotic::<MerkleProofRef<'a>>()?;
    check(proof.hash == *expected, "a proof of another cell")?;
    Ok(proof.cell)
}

/// The hash of the state after a block: the second hash of its `!merkle_update` cell.
fn state_hash(block: &DynCell) -> Result<HashBytes, ProofError> {
    let update = block.reference(BLOCK_STATE_UPDATE_REF).ok_or(CellError::CellUnderflow)?;
    check(update.cell_type() == CellType::MerkleUpdate, "the block's state update is pruned away")?;
    let mut slice = update.as_slice_allow_exotic();
    slice.skip_first(8 + 256, 0)?;
    Ok(slice.load_u256()?)
}

fn check_shard_block(answer: &AccountState, address: &StdAddr) -> Result<(), ProofError> {
    let shard = &answer.shardblk;
    check(shard.workchain == i32::from(address.workchain), "a shard of another workchain")?;
    let prefix = u64::from_be_bytes(address.address.0[..8].try_into().unwrap_or_default());
    check(shard_contains(shard.shard, prefix), "a shard that does not hold the account")?;
    let proofs = decode_roots(&answer.shard_proof, 2)?;
    let mc_state_hash = state_hash(virtual_root(proofs[0].as_ref(), &HashBytes(answer.id.root_hash.0))?)?;
    let mc_state = virtual_root(proofs[1].as_ref(), &mc_state_hash)?;
    let custom = mc_state.reference(STATE_CUSTOM_REF).ok_or(CellError::CellUnderflow)?;
    let mut slice = custom.as_slice()?;
    check(slice.load_u16()? == MC_STATE_EXTRA_TAG, "the masterchain state has no extra part")?;
    let workchains = Dict::<i32, Cell>::load_from(&mut slice)?;
    let tree = workchains.get(shard.workchain)?.ok_or(ProofError::Broken("the workchain is not there"))?;
    let found = shard_in_tree(tree.as_ref(), shard)?;
    check(found, "the masterchain block does not name this shard block")
}

const MC_STATE_EXTRA_TAG: u16 = 0xcc26;
const MAX_SHARD_DEPTH: u8 = 60;

/// Whether `shard` (a prefix, a one bit, zeros) holds accounts whose hash begins with `prefix`.
fn shard_contains(shard: u64, prefix: u64) -> bool {
    let marker = shard & shard.wrapping_neg();
    marker != 0 && (prefix ^ shard) & !(marker | (marker - 1)) == 0
}

/// Follows `BinTree ShardDescr` along the bits of the shard's prefix to its leaf.
fn shard_in_tree(root: &DynCell, shard: &BlockIdExt) -> Result<bool, ProofError> {
    let depth = 63 - shard.shard.trailing_zeros().min(63);
    check(depth <= u32::from(MAX_SHARD_DEPTH), "a shard deeper than any")?;
    let mut cell = root;
    for level in 0..depth {
        let mut slice = cell.as_slice()?;
        check(slice.load_bit()?, "the shard tree ends above this shard")?;
        let right = shard.shard >> (63 - level) & 1;
        cell = cell.reference(u8::from(right == 1)).ok_or(CellError::CellUnderflow)?;
    }
    let mut slice = cell.as_slice()?;
    check(!slice.load_bit()?, "the shard tree goes on below this shard")?;
    let tag = slice.load_small_uint(4)?;
    check(tag == 0xa || tag == 0xb, "a shard description of another kind")?;
    let seqno = slice.load_u32()?;
    slice.skip_first(32 + 64 + 64, 0)?;
    Ok(seqno == shard.seqno && slice.load_u256()?.0 == shard.root_hash.0)
}

/// The leaf is read by hand: in a proof its account is a pruned branch, whose level-0 hash is the account's.
fn find_account(
    accounts: &AugDict<HashBytes, DepthBalanceInfo, ShardAccount>,
    address: &HashBytes,
) -> Result<Option<AccountLeaf>, ProofError> {
    let Some(mut leaf): Option<CellSlice<'_>> = accounts.dict().get_raw(address)? else {
        return Ok(None);
    };
    DepthBalanceInfo::load_from(&mut leaf)?;
    let account = leaf.load_reference()?;
    Ok(Some(AccountLeaf {
        account_hash: *account.hash(0),
        last_hash: leaf.load_u256()?,
        last_lt: leaf.load_u64()?,
    }))
}

fn empty_account_hash() -> Result<HashBytes, ProofError> {
    let cell = tycho_types::cell::CellBuilder::build_from(OptionalAccount::EMPTY)?;
    Ok(*cell.repr_hash())
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), ProofError> {
    if holds { Ok(()) } else { Err(ProofError::Broken(otherwise)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_holds_the_accounts_of_its_prefix() {
        assert!(shard_contains(0x8000_0000_0000_0000, u64::MAX));
        assert!(shard_contains(0x4000_0000_0000_0000, 0x7fff_ffff_ffff_ffff));
        assert!(!shard_contains(0x4000_0000_0000_0000, 0x8000_0000_0000_0000));
        assert!(shard_contains(0xc000_0000_0000_0000, 0x8000_0000_0000_0000));
        assert!(!shard_contains(0, 0));
    }
}
