//! What each method answers.

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes};
use tycho_types::models::{BlockId, StdAddr};

use super::tl::{AccountId, BlockIdExt, LookupBy, Request, Writer};
use crate::chain::{BlockRecord, Localnet, TransactionRecord};
use crate::error::LocalnetError;
use crate::handle::LocalnetHandle;
use crate::pool::ExternalMessage;
use crate::proof;

/// An error as the protocol states it.
pub(super) struct Failure {
    pub(super) code: i32,
    pub(super) message: String,
}

/// The code of the reference node for a block it does not have.
const NOT_READY: i32 = 651;
/// Its code for what the client got wrong.
const PROTOCOL_VIOLATION: i32 = 621;
/// Transactions in one answer at most, as the reference node has it.
const MAX_TRANSACTIONS: u32 = 16;
const MAX_BLOCK_TRANSACTIONS: u32 = 256;
const VERSION: u32 = 0x101;
const CAPABILITIES: u64 = 7;

/// Answers a request. It may compute for some milliseconds.
pub(super) fn answer(handle: &LocalnetHandle, request: Request) -> Result<Vec<u8>, Failure> {
    if let Request::SendMessage(boc) = request {
        return send(handle, &boc);
    }
    let now_s = handle.now_s();
    handle.read(|chain| answer_from(chain, request, now_s))
}

fn answer_from(chain: &Localnet, request: Request, now_s: u32) -> Result<Vec<u8>, Failure> {
    match request {
        Request::MasterchainInfo => masterchain_info(chain),
        Request::MasterchainInfoExt { mode } => masterchain_info_ext(chain, mode, now_s),
        Request::Time => {
            let mut writer = Writer::new(0xe953_000d);
            writer.u32(now_s);
            Ok(writer.finish())
        }
        Request::Version => {
            let mut writer = Writer::new(0x5a04_91e5);
            writer.u32(0);
            writer.u32(VERSION);
            writer.u64(CAPABILITIES);
            writer.u32(now_s);
            Ok(writer.finish())
        }
        Request::Block(id) => {
            let (record, block) = block_of(chain, &id)?;
            let mut writer = Writer::new(0xa574_ed6c);
            writer.block(&record.id);
            writer.bytes(&Boc::encode(block));
            Ok(writer.finish())
        }
        Request::State(id) => state(chain, &id),
        Request::BlockHeader { id, mode } => {
            let (record, block) = block_of(chain, &id)?;
            header(record, block, mode)
        }
        Request::LookupBlock { mode, workchain, by } => {
            let record = lookup(chain, workchain, by)?;
            let block = record.block.as_ref().ok_or_else(|| not_kept(&record.id))?;
            header(record, block, mode)
        }
        Request::AccountState { id, account } => account_state(chain, &id, account),
        Request::RunSmcMethod { mode, id, account, method_id, params } => {
            run_method(chain, mode, &id, account, method_id, &params)
        }
        Request::ShardInfo { id, workchain } => shard_info(chain, &id, workchain),
        Request::AllShardsInfo(id) => all_shards(chain, &id),
        Request::OneTransaction { id, account, lt } => one_transaction(chain, &id, account, lt),
        Request::Transactions { count, account, lt, hash } => transactions(chain, count, account, lt, &hash),
        Request::ListBlockTransactions { id, mode, count, after, extended } => {
            block_transactions(chain, &id, mode, count, after, extended)
        }
        Request::ConfigAll { mode, id } => config(chain, mode, &id),
        Request::Libraries => {
            let mut writer = Writer::new(0x117a_b96b);
            writer.u32(0);
            Ok(writer.finish())
        }
        Request::SendMessage(_) => Err(violation("a message is not read")),
    }
}

fn send(handle: &LocalnetHandle, boc: &[u8]) -> Result<Vec<u8>, Failure> {
    handle.send(ExternalMessage::from_boc(boc)?)?;
    let mut writer = Writer::new(0x3950_e597);
    writer.u32(1);
    Ok(writer.finish())
}

fn masterchain_info(chain: &Localnet) -> Result<Vec<u8>, Failure> {
    let mut writer = Writer::new(0x8583_2881);
    writer.block(&chain.newest().id);
    write_state_and_init(&mut writer, chain)?;
    Ok(writer.finish())
}

fn masterchain_info_ext(chain: &Localnet, mode: u32, now_s: u32) -> Result<Vec<u8>, Failure> {
    if mode != 0 {
        return Err(violation("unsupported getMasterchainInfo mode"));
    }
    let mut writer = Writer::new(0xa8cc_e0f5);
    writer.u32(mode);
    writer.u32(VERSION);
    writer.u64(CAPABILITIES);
    writer.block(&chain.newest().id);
    writer.u32(chain.newest().utime_s);
    writer.u32(now_s);
    write_state_and_init(&mut writer, chain)?;
    Ok(writer.finish())
}

fn write_state_and_init(writer: &mut Writer, chain: &Localnet) -> Result<(), Failure> {
    let newest = chain.newest();
    let state = newest.state.as_ref().ok_or_else(|| not_kept(&newest.id))?;
    let zero = chain.block(-1, 0)?;
    writer.hash(state.repr_hash());
    writer.u32((-1_i32).cast_unsigned());
    writer.hash(&zero.id.root_hash);
    writer.hash(&zero.id.file_hash);
    Ok(())
}

fn state(chain: &Localnet, id: &BlockIdExt) -> Result<Vec<u8>, Failure> {
    let record = record_of(chain, id)?;
    let state = record.state.as_ref().ok_or_else(|| not_kept(&record.id))?;
    let boc = Boc::encode(state);
    let mut writer = Writer::new(0xabad_dc0c);
    writer.block(&record.id);
    writer.hash(state.repr_hash());
    writer.hash(&Boc::file_hash(&boc));
    writer.bytes(&boc);
    Ok(writer.finish())
}

fn header(record: &BlockRecord, block: &Cell, mode: u32) -> Result<Vec<u8>, Failure> {
    let mut writer = Writer::new(0x752d_8219);
    writer.block(&record.id);
    writer.u32(mode & HEADER_MODES);
    writer.bytes(&Boc::encode(proof::header(block)?));
    Ok(writer.finish())
}

/// The bits of a lookup that its answer repeats.
const HEADER_MODES: u32 = 0xffff;

/// Proof that the masterchain block names the basechain block: of the block, and of its state.
fn shard_proof(chain: &Localnet, master: &BlockRecord) -> Result<Vec<u8>, Failure> {
    let block = master.block.as_ref().ok_or_else(|| not_kept(&master.id))?;
    let (_, state) = chain.state_at(-1, master.id.seqno)?;
    Ok(proof::boc_of(&[&proof::header(block)?, &proof::shards(&state)?]))
}

struct ProvenAccount {
    shard_block: BlockId,
    shard_proof: Vec<u8>,
    proof: Vec<u8>,
}

fn prove_account(
    chain: &Localnet,
    master: &BlockRecord,
    address: &StdAddr,
) -> Result<ProvenAccount, Failure> {
    let (record, state) = chain.state_at(address.workchain.into(), master.id.seqno)?;
    let block = record.block.as_ref().ok_or_else(|| not_kept(&record.id))?;
    let shard_proof = if address.workchain == -1 { Vec::new() } else { shard_proof(chain, master)? };
    let account_proof = proof::account(&state, &address.address)?;
    Ok(ProvenAccount {
        shard_block: record.id,
        shard_proof,
        proof: proof::boc_of(&[&proof::header(block)?, &account_proof]),
    })
}

fn account_state(chain: &Localnet, id: &BlockIdExt, account: AccountId) -> Result<Vec<u8>, Failure> {
    let master = master_of(chain, id)?;
    let address = address_of(account)?;
    let proven = prove_account(chain, master, &address)?;
    let shard_account = chain.account_at(&address, master.id.seqno)?;
    let exists = shard_account.account.load()?.0.is_some();
    let mut writer = Writer::new(0x7079_c751);
    writer.block(&master.id);
    writer.block(&proven.shard_block);
    writer.bytes(&proven.shard_proof);
    writer.bytes(&proven.proof);
    if exists {
        writer.bytes(&Boc::encode(shard_account.account.inner()));
    } else {
        writer.bytes(&[]);
    }
    Ok(writer.finish())
}

fn run_method(
    chain: &Localnet,
    mode: u32,
    id: &BlockIdExt,
    account: AccountId,
    method_id: u64,
    params: &[u8],
) -> Result<Vec<u8>, Failure> {
    let master = master_of(chain, id)?;
    let address = address_of(account)?;
    let method_id = u32::try_from(method_id).map_err(|_| violation("the method id exceeds 32 bits"))?;
    let stack = if params.is_empty() {
        empty_stack()?
    } else {
        Boc::decode(params)
            .map_err(|error| violation(&format!("cannot deserialize parameter list boc: {error}")))?
    };
    let output = chain.run_getter(&address, method_id, &stack, master.id.seqno)?;
    let proven = prove_account(chain, master, &address)?;
    let with_proof = mode & 1 != 0;
    let with_result = mode & 4 != 0;
    let mut writer = Writer::new(0xa39a_616b);
    writer.u32(mode & 5);
    writer.block(&master.id);
    writer.block(&proven.shard_block);
    if with_proof {
        writer.bytes(&proven.shard_proof);
        writer.bytes(&proven.proof);
    }
    writer.u32(output.exit_code.cast_unsigned());
    if with_result {
        writer.bytes(&Boc::encode(&output.stack));
    }
    Ok(writer.finish())
}

fn empty_stack() -> Result<Cell, Failure> {
    let mut builder = CellBuilder::new();
    builder.store_uint(0, 24)?;
    Ok(builder.build_ext(Cell::empty_context())?)
}

fn shard_info(chain: &Localnet, id: &BlockIdExt, workchain: i32) -> Result<Vec<u8>, Failure> {
    if workchain != 0 {
        return Err(violation("there is no such workchain but the basechain"));
    }
    let master = master_of(chain, id)?;
    let shard = chain.block(0, master.basechain_seqno)?;
    let tree = shards_of(chain, master)?.as_dict().get(0)?.ok_or_else(|| not_kept(&shard.id))?;
    let mut leaf = tree.as_slice()?;
    leaf.skip_first(1, 0)?;
    let mut description = CellBuilder::new();
    description.store_slice(leaf)?;
    let description = description.build()?;
    let mut writer = Writer::new(0x9fe6_cd84);
    writer.block(&master.id);
    writer.block(&shard.id);
    writer.bytes(&shard_proof(chain, master)?);
    writer.bytes(&Boc::encode(description));
    Ok(writer.finish())
}

fn all_shards(chain: &Localnet, id: &BlockIdExt) -> Result<Vec<u8>, Failure> {
    let master = master_of(chain, id)?;
    let shards = CellBuilder::build_from(shards_of(chain, master)?.as_dict())?;
    let mut writer = Writer::new(0x098f_e72d);
    writer.block(&master.id);
    writer.bytes(&shard_proof(chain, master)?);
    writer.bytes(&Boc::encode(shards));
    Ok(writer.finish())
}

fn shards_of(chain: &Localnet, master: &BlockRecord) -> Result<tycho_types::models::ShardHashes, Failure> {
    let (_, state) = chain.state_at(-1, master.id.seqno)?;
    let state: tycho_types::models::ShardStateUnsplit = state.parse()?;
    let extra = state.load_custom()?.ok_or_else(|| not_kept(&master.id))?;
    Ok(extra.shards)
}

fn one_transaction(
    chain: &Localnet,
    id: &BlockIdExt,
    account: AccountId,
    lt: u64,
) -> Result<Vec<u8>, Failure> {
    let (record, block) = block_of(chain, id)?;
    let address = address_of(account)?;
    let found = chain
        .transaction(&address, lt)
        .filter(|found| {
            found.block_seqno == record.id.seqno
                && record.id.shard.workchain() == i32::from(address.workchain)
        })
        .ok_or_else(|| not_found("no such transaction in that block"))?;
    let mut writer = Writer::new(0x0ede_ed47);
    writer.block(&record.id);
    writer.bytes(&Boc::encode(proof::transaction(block, &address.address, lt)?));
    writer.bytes(&Boc::encode(&found.cell));
    Ok(writer.finish())
}

fn transactions(
    chain: &Localnet,
    count: u32,
    account: AccountId,
    lt: u64,
    hash: &HashBytes,
) -> Result<Vec<u8>, Failure> {
    let address = address_of(account)?;
    if count == 0 {
        return Err(violation("no transactions are asked for"));
    }
    let all = chain.transactions(&address);
    let newest = all
        .binary_search_by_key(&lt, |record| record.lt)
        .ok()
        .filter(|at| all.get(*at).is_some_and(|record| record.hash == *hash))
        .ok_or_else(|| {
            not_found("cannot locate transaction in block with specified logical time and hash")
        })?;
    let count = count.min(MAX_TRANSACTIONS) as usize;
    let oldest = (newest + 1).saturating_sub(count);
    let page: Vec<&TransactionRecord> = all.iter().take(newest + 1).skip(oldest).rev().collect();
    let mut writer = Writer::new(0x6f26_c60b);
    writer.u32(page.len() as u32);
    for record in &page {
        writer.block(&chain.block(address.workchain.into(), record.block_seqno)?.id);
    }
    let cells: Vec<&Cell> = page.iter().map(|record| &record.cell).collect();
    writer.bytes(&proof::boc_of(&cells));
    Ok(writer.finish())
}

fn block_transactions(
    chain: &Localnet,
    id: &BlockIdExt,
    mode: u32,
    count: u32,
    after: Option<(HashBytes, u64)>,
    extended: bool,
) -> Result<Vec<u8>, Failure> {
    let record = record_of(chain, id)?;
    let count = count.min(MAX_BLOCK_TRANSACTIONS) as usize;
    let mut all: Vec<&(StdAddr, u64)> = record.transactions.iter().collect();
    all.sort_by_key(|(account, lt)| (account.address, *lt));
    let reverse = mode & 64 != 0;
    if reverse {
        all.reverse();
    }
    let mut left: Vec<(&StdAddr, &TransactionRecord)> = Vec::new();
    let mut incomplete = false;
    for (account, lt) in all {
        let passed = after.is_some_and(|(hash, after_lt)| {
            let (this, that) = ((account.address, *lt), (hash, after_lt));
            if reverse { this >= that } else { this <= that }
        });
        if passed {
            continue;
        }
        if left.len() == count {
            incomplete = true;
            break;
        }
        let found = chain.transaction(account, *lt).ok_or_else(|| not_found("the transaction is gone"))?;
        left.push((account, found));
    }
    let mut writer = Writer::new(if extended { 0xfb8f_fce4 } else { 0xbd8c_ad2b });
    writer.block(&record.id);
    writer.u32(count as u32);
    writer.bool(incomplete);
    if extended {
        let cells: Vec<&Cell> = left.iter().map(|(_, record)| &record.cell).collect();
        writer.bytes(&if cells.is_empty() { Vec::new() } else { proof::boc_of(&cells) });
    } else {
        writer.u32(left.len() as u32);
        for (account, found) in left {
            writer.u32(mode & 7);
            if mode & 1 != 0 {
                writer.hash(&account.address);
            }
            if mode & 2 != 0 {
                writer.u64(found.lt);
            }
            if mode & 4 != 0 {
                writer.hash(&found.hash);
            }
        }
    }
    writer.bytes(&[]);
    Ok(writer.finish())
}

fn config(chain: &Localnet, mode: u32, id: &BlockIdExt) -> Result<Vec<u8>, Failure> {
    let master = master_of(chain, id)?;
    let block = master.block.as_ref().ok_or_else(|| not_kept(&master.id))?;
    let (_, state) = chain.state_at(-1, master.id.seqno)?;
    let mut writer = Writer::new(0xae7b_272f);
    writer.u32(mode & 0xffff);
    writer.block(&master.id);
    writer.bytes(&Boc::encode(proof::header(block)?));
    writer.bytes(&Boc::encode(proof::config(&state)?));
    Ok(writer.finish())
}

fn lookup(chain: &Localnet, workchain: i32, by: LookupBy) -> Result<&BlockRecord, Failure> {
    let blocks = chain.blocks(workchain);
    let found = match by {
        LookupBy::Seqno(seqno) => Some(chain.block(workchain, seqno)?),
        LookupBy::Lt(lt) => blocks.get(blocks.partition_point(|record| record.end_lt <= lt)),
        LookupBy::Utime(utime) => blocks
            .partition_point(|record| record.utime_s <= utime)
            .checked_sub(1)
            .and_then(|at| blocks.get(at)),
    };
    found.ok_or_else(|| Failure { code: NOT_READY, message: "block is not applied".into() })
}

fn record_of<'a>(chain: &'a Localnet, id: &BlockIdExt) -> Result<&'a BlockRecord, Failure> {
    let record = chain.block(id.workchain, id.seqno)?;
    if id.names(&record.id) {
        Ok(record)
    } else {
        Err(Failure { code: NOT_READY, message: format!("block {} has other hashes", id.seqno) })
    }
}

fn block_of<'a>(chain: &'a Localnet, id: &BlockIdExt) -> Result<(&'a BlockRecord, &'a Cell), Failure> {
    let record = record_of(chain, id)?;
    let block = record.block.as_ref().ok_or_else(|| not_kept(&record.id))?;
    Ok((record, block))
}

fn master_of<'a>(chain: &'a Localnet, id: &BlockIdExt) -> Result<&'a BlockRecord, Failure> {
    if id.workchain != -1 {
        return Err(violation("reference block for a query must belong to the masterchain"));
    }
    record_of(chain, id)
}

fn address_of(account: AccountId) -> Result<StdAddr, Failure> {
    account.to_address().ok_or_else(|| violation("there is no such workchain"))
}

fn not_kept(id: &BlockId) -> Failure {
    Failure { code: NOT_READY, message: format!("block {} or its state is not in db", id.seqno) }
}

fn not_found(message: &str) -> Failure {
    Failure { code: 0, message: message.to_owned() }
}

fn violation(message: &str) -> Failure {
    Failure { code: PROTOCOL_VIOLATION, message: message.to_owned() }
}

impl From<LocalnetError> for Failure {
    fn from(error: LocalnetError) -> Self {
        let code = match error {
            LocalnetError::UnknownBlock { .. } => NOT_READY,
            LocalnetError::BadRequest(_) => PROTOCOL_VIOLATION,
            _ => 0,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<tycho_types::error::Error> for Failure {
    fn from(error: tycho_types::error::Error) -> Self {
        LocalnetError::Cell(error).into()
    }
}
