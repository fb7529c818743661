//! What each method answers.

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes};
use tycho_types::models::{BlockId, ShardIdent, StdAddr};

use super::libraries;
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
/// Its code where it gives no other.
const REFUSED: i32 = -400;
/// Transactions in one answer at most, as the reference node has it.
const MAX_TRANSACTIONS: u32 = 16;
const MAX_BLOCK_TRANSACTIONS: u32 = 256;
const VERSION: u32 = 0x101;
const CAPABILITIES: u64 = 15;
/// States after this many blocks are too large to be asked for whole.
const LAST_WHOLE_STATE: u32 = 1_000;
const MAX_CONFIG_PARAMETERS: usize = 256;
const MAX_GETTER_PARAMETER_BYTES: usize = 65_535;
/// In place of a sequence number: the newest masterchain block.
const NEWEST: u32 = u32::MAX;

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
            let by =
                by.ok_or_else(|| refused("exactly one of mode.0, mode.1 and mode.2 bits must be set"))?;
            let record = lookup(chain, workchain, by)?;
            let block = record.block.as_ref().ok_or_else(|| not_kept(&record.id))?;
            header(record, block, mode >> LOOKUP_MODE_BITS)
        }
        Request::AccountState { id, account, pruned } => account_state(chain, &id, account, pruned),
        Request::RunSmcMethod { mode, id, account, method_id, params } => {
            run_method(chain, mode, &id, account, method_id, &params)
        }
        Request::ShardInfo { id, workchain, shard, exact } => shard_info(chain, &id, workchain, shard, exact),
        Request::AllShardsInfo(id) => all_shards(chain, &id),
        Request::OneTransaction { id, account, lt } => one_transaction(chain, &id, account, lt),
        Request::Transactions { count, account, lt, hash } => transactions(chain, count, account, lt, &hash),
        Request::ListBlockTransactions { id, mode, count, after, extended } => {
            block_transactions(chain, &id, mode, count, after, extended)
        }
        Request::Config { mode, id, wanted } => config(chain, mode, &id, wanted.as_deref()),
        Request::Libraries(hashes) => libraries::answer(chain, &hashes),
        Request::SendMessage(_) => Err(refused("a message is not read")),
    }
}

fn send(handle: &LocalnetHandle, boc: &[u8]) -> Result<Vec<u8>, Failure> {
    let sent = ExternalMessage::from_boc(boc).and_then(|message| handle.send(message));
    sent.map_err(|error| {
        let words = error.to_string();
        let prefix = if words.starts_with(NOT_APPLIED) { "" } else { NOT_APPLIED };
        Failure { code: 0, message: format!("{prefix}{words}") }
    })?;
    let mut writer = Writer::new(0x3950_e597);
    writer.u32(1);
    Ok(writer.finish())
}

/// How the reference node begins every refusal of an external message.
const NOT_APPLIED: &str = "cannot apply external message to current state : ";

fn masterchain_info(chain: &Localnet) -> Result<Vec<u8>, Failure> {
    let mut writer = Writer::new(0x8583_2881);
    writer.block(&chain.newest().id);
    write_state_and_init(&mut writer, chain)?;
    Ok(writer.finish())
}

fn masterchain_info_ext(chain: &Localnet, mode: u32, now_s: u32) -> Result<Vec<u8>, Failure> {
    let mode = mode & 0x7fff_ffff;
    if mode & !SHARD_CLIENT_STATE != 0 {
        return Err(refused("unsupported getMasterchainInfo mode"));
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

/// Asks for the newest masterchain block all whose shards are there: here, the newest.
const SHARD_CLIENT_STATE: u32 = 1;

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
    if id.seqno > LAST_WHOLE_STATE {
        return Err(refused("cannot request total state: possibly too large"));
    }
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
    writer.u32(mode);
    let proof = if mode & HEADER_EXTRA == 0 {
        proof::header(block)?
    } else {
        proof::header_with_extra(block, mode & HEADER_SHARDS != 0, mode & HEADER_SIGNATURES != 0)?
    };
    writer.bytes(&Boc::encode(proof));
    Ok(writer.finish())
}

/// What a header's proof holds beside the header; the state update and the value flow always stand in ours.
const HEADER_EXTRA: u32 = 16;
const HEADER_SHARDS: u32 = 32;
const HEADER_SIGNATURES: u32 = 64;
/// In a lookup, the modes of the header follow those of the lookup.
const LOOKUP_MODE_BITS: u32 = 4;

/// Proof that the masterchain block names the basechain block: of the block, and of its state.
fn shard_proof(chain: &Localnet, master: &BlockRecord) -> Result<Vec<u8>, Failure> {
    let block = master.block.as_ref().ok_or_else(|| not_kept(&master.id))?;
    let (_, state) = chain.state_at(-1, master.id.seqno)?;
    Ok(proof::boc_of(&[&proof::header(block)?, &proof::shards(&state)?]))
}

/// Where an account is looked for: as of a masterchain block, or of a block of its own shard.
struct Reference<'a> {
    /// The block the client named, or the newest.
    base: BlockId,
    /// The masterchain block whose state it is.
    master: &'a BlockRecord,
    /// From the masterchain to the shard; empty where there is no such step.
    shard_proof: Vec<u8>,
}

fn reference<'a>(chain: &'a Localnet, id: &BlockIdExt, account: AccountId) -> Result<Reference<'a>, Failure> {
    if id.workchain == -1 {
        let master = if id.seqno == NEWEST { chain.newest() } else { record_of(chain, id)? };
        let shard_proof = if account.workchain == -1 { Vec::new() } else { shard_proof(chain, master)? };
        return Ok(Reference { base: master.id, master, shard_proof });
    }
    if id.workchain != account.workchain {
        return Err(refused("reference block for a getAccountState() must belong to the masterchain"));
    }
    let base = record_of(chain, id)?.id;
    let masters = chain.blocks(-1);
    let at = masters.partition_point(|master| master.basechain_seqno < base.seqno);
    let master = masters
        .get(at)
        .filter(|master| master.basechain_seqno == base.seqno)
        .ok_or_else(|| refused("masterchain ref block is not available"))?;
    Ok(Reference { base, master, shard_proof: Vec::new() })
}

struct ProvenAccount {
    shard_block: BlockId,
    proof: Vec<u8>,
    /// `None` where it does not exist.
    account: Option<Cell>,
}

fn prove_account(
    chain: &Localnet,
    master: &BlockRecord,
    address: &StdAddr,
) -> Result<ProvenAccount, Failure> {
    let (record, state) = chain.state_at(address.workchain.into(), master.id.seqno)?;
    let block = record.block.as_ref().ok_or_else(|| not_kept(&record.id))?;
    let account_proof = proof::account(&state, &address.address)?;
    let found = chain.account_at(address, master.id.seqno)?.account;
    Ok(ProvenAccount {
        shard_block: record.id,
        proof: proof::boc_of(&[&proof::header(block)?, &account_proof]),
        account: found.load()?.0.is_some().then(|| found.inner().clone()),
    })
}

fn account_state(
    chain: &Localnet,
    id: &BlockIdExt,
    account: AccountId,
    pruned: bool,
) -> Result<Vec<u8>, Failure> {
    let at = reference(chain, id, account)?;
    let mut writer = Writer::new(0x7079_c751);
    writer.block(&at.base);
    let Some(address) = account.to_address() else {
        writer.no_block();
        writer.bytes(&at.shard_proof);
        writer.bytes(&[]);
        writer.bytes(&[]);
        return Ok(writer.finish());
    };
    let proven = prove_account(chain, at.master, &address)?;
    writer.block(&proven.shard_block);
    writer.bytes(&at.shard_proof);
    writer.bytes(&proven.proof);
    writer.bytes(&match proven.account {
        None => Vec::new(),
        Some(account) if pruned => Boc::encode(proof::without_code(&account)?),
        Some(account) => Boc::encode(account),
    });
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
    if params.len() > MAX_GETTER_PARAMETER_BYTES {
        return Err(refused("more than 64k parameter bytes passed"));
    }
    if mode & !GETTER_MODES != 0 {
        return Err(refused("unsupported mode in runSmcMethod"));
    }
    let at = reference(chain, id, account)?;
    let address = address_of(account)?;
    let method_id = u32::try_from(method_id).map_err(|_| refused("the method id exceeds 32 bits"))?;
    let stack = if params.is_empty() {
        empty_stack()?
    } else {
        Boc::decode(params)
            .map_err(|error| refused(&format!("cannot deserialize parameter list boc: {error}")))?
    };
    let output = chain.run_getter(&address, method_id, &stack, at.master.id.seqno)?;
    let proven = prove_account(chain, at.master, &address)?;
    let mode = mode & SERVED_GETTER_MODES;
    let mut writer = Writer::new(0xa39a_616b);
    writer.u32(mode);
    writer.block(&at.base);
    writer.block(&proven.shard_block);
    if mode & GETTER_PROOF != 0 {
        writer.bytes(&at.shard_proof);
        writer.bytes(&proven.proof);
    }
    if mode & GETTER_STATE_PROOF != 0 {
        writer.bytes(&match &proven.account {
            None => Vec::new(),
            Some(account) => Boc::encode(proof::whole(account)?),
        });
    }
    if mode & GETTER_LIBRARIES != 0 {
        writer.bytes(&[]);
    }
    writer.u32(output.exit_code.cast_unsigned());
    if mode & GETTER_RESULT != 0 {
        let ran = output.exit_code != NOTHING_RAN;
        writer.bytes(&if ran { Boc::encode(&output.stack) } else { Vec::new() });
    }
    Ok(writer.finish())
}

/// The modes of a get-method that the reference node knows; and ours, which lack the registers the code began with
/// (8, and 32 for all of them): the answer says so by its own mode.
const GETTER_MODES: u32 = 0x3f;
const SERVED_GETTER_MODES: u32 = GETTER_PROOF | GETTER_STATE_PROOF | GETTER_RESULT | GETTER_LIBRARIES;
const GETTER_PROOF: u32 = 1;
const GETTER_STATE_PROOF: u32 = 2;
const GETTER_RESULT: u32 = 4;
const GETTER_LIBRARIES: u32 = 16;
/// The exit code where the account has no code to run.
const NOTHING_RAN: i32 = -0x100;

fn empty_stack() -> Result<Cell, Failure> {
    let mut builder = CellBuilder::new();
    builder.store_uint(0, 24)?;
    Ok(builder.build_ext(Cell::empty_context())?)
}

fn shard_info(
    chain: &Localnet,
    id: &BlockIdExt,
    workchain: i32,
    shard: u64,
    exact: bool,
) -> Result<Vec<u8>, Failure> {
    let wanted = ShardIdent::new(workchain, shard).ok_or_else(|| refused("requested shard is invalid"))?;
    let master = master_of(chain, id)?;
    let mut writer = Writer::new(0x9fe6_cd84);
    writer.block(&master.id);
    if workchain != 0 || (exact && wanted != ShardIdent::BASECHAIN) {
        writer.no_block();
        writer.bytes(&shard_proof(chain, master)?);
        writer.bytes(&[]);
        return Ok(writer.finish());
    }
    let shard = chain.block(0, master.basechain_seqno)?;
    let tree = shards_of(chain, master)?.as_dict().get(0)?.ok_or_else(|| not_kept(&shard.id))?;
    let mut leaf = tree.as_slice()?;
    leaf.skip_first(1, 0)?;
    let mut description = CellBuilder::new();
    description.store_slice(leaf)?;
    let description = description.build()?;
    writer.block(&shard.id);
    writer.bytes(&shard_proof(chain, master)?);
    writer.bytes(&Boc::encode(description));
    Ok(writer.finish())
}

fn all_shards(chain: &Localnet, id: &BlockIdExt) -> Result<Vec<u8>, Failure> {
    let master = master_of(chain, id)?;
    let block = master.block.as_ref().ok_or_else(|| not_kept(&master.id))?;
    let shards = CellBuilder::build_from(shards_of(chain, master)?.as_dict())?;
    let mut writer = Writer::new(0x098f_e72d);
    writer.block(&master.id);
    writer.bytes(&Boc::encode(proof::header_with_extra(block, false, false)?));
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
    if record.id.shard.workchain() != i32::from(address.workchain) {
        return Err(refused("requested account id is not contained in the shard of the specified block"));
    }
    let found = chain.transaction(&address, lt).filter(|found| found.block_seqno == record.id.seqno);
    let mut writer = Writer::new(0x0ede_ed47);
    writer.block(&record.id);
    match found {
        Some(found) => {
            writer.bytes(&Boc::encode(proof::transaction(block, &address.address, lt)?));
            writer.bytes(&Boc::encode(&found.cell));
        }
        None => {
            writer.bytes(&Boc::encode(proof::transactions(block)?));
            writer.bytes(&[]);
        }
    }
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
    let mut writer = Writer::new(0x6f26_c60b);
    if count == 0 || lt == 0 {
        writer.u32(0);
        writer.bytes(&[]);
        return Ok(writer.finish());
    }
    let all = chain.transactions(&address);
    let newest = all
        .binary_search_by_key(&lt, |record| record.lt)
        .map_err(|_| refused("cannot locate transaction in block with specified logical time"))?;
    if all.get(newest).is_none_or(|record| record.hash != *hash) {
        return Err(refused("transaction hash mismatch"));
    }
    let count = count.min(MAX_TRANSACTIONS) as usize;
    let oldest = (newest + 1).saturating_sub(count);
    let page: Vec<&TransactionRecord> = all.iter().take(newest + 1).skip(oldest).rev().collect();
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
    let (record, block) = block_of(chain, id)?;
    let most = count.min(MAX_BLOCK_TRANSACTIONS) as usize;
    let mut all: Vec<&(StdAddr, u64)> = record.transactions.iter().collect();
    all.sort_by_key(|(account, lt)| (account.address, *lt));
    let reverse = mode & 64 != 0;
    if reverse {
        all.reverse();
    }
    let mut left: Vec<(&StdAddr, &TransactionRecord)> = Vec::new();
    for (account, lt) in all {
        let passed = after.is_some_and(|(hash, after_lt)| {
            let (this, that) = ((account.address, *lt), (hash, after_lt));
            if reverse { this >= that } else { this <= that }
        });
        if passed {
            continue;
        }
        if left.len() == most {
            break;
        }
        let found = chain.transaction(account, *lt).ok_or_else(|| refused("the transaction is gone"))?;
        left.push((account, found));
    }
    let mut writer = Writer::new(if extended { 0xfb8f_fce4 } else { 0xbd8c_ad2b });
    writer.block(&record.id);
    writer.u32(count);
    // The reference node does not look further once it has as many as were asked for.
    writer.bool(left.len() == most);
    if extended {
        let cells: Vec<&Cell> = left.iter().map(|(_, record)| &record.cell).collect();
        writer.bytes(&if cells.is_empty() { Vec::new() } else { proof::boc_of(&cells) });
    } else {
        writer.u32(left.len() as u32);
        for (account, found) in left {
            writer.u32(mode & !WITH_METADATA);
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
    let wants_proof = mode & WITH_PROOF != 0 || (extended && mode & WITH_METADATA != 0);
    writer.bytes(&if wants_proof { Boc::encode(proof::transactions(block)?) } else { Vec::new() });
    Ok(writer.finish())
}

const WITH_PROOF: u32 = 32;
/// Who began a chain of messages; envelopes, which say it, are not part of our blocks.
const WITH_METADATA: u32 = 256;

fn config(chain: &Localnet, mode: u32, id: &BlockIdExt, wanted: Option<&[i32]>) -> Result<Vec<u8>, Failure> {
    if wanted.is_some_and(|wanted| wanted.len() > MAX_CONFIG_PARAMETERS) {
        return Err(refused("too long param list"));
    }
    let master = master_of(chain, id)?;
    let block = master.block.as_ref().ok_or_else(|| not_kept(&master.id))?;
    let (_, state) = chain.state_at(-1, master.id.seqno)?;
    let mut writer = Writer::new(0xae7b_272f);
    writer.u32(mode & 0xffff);
    writer.block(&master.id);
    writer.bytes(&Boc::encode(proof::header(block)?));
    writer.bytes(&Boc::encode(proof::config(&state, wanted)?));
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
        return Err(refused("reference block for a query must belong to the masterchain"));
    }
    record_of(chain, id)
}

fn address_of(account: AccountId) -> Result<StdAddr, Failure> {
    account.to_address().ok_or_else(|| refused("there is no such workchain"))
}

fn not_kept(id: &BlockId) -> Failure {
    Failure { code: NOT_READY, message: format!("block {} or its state is not in db", id.seqno) }
}

fn refused(message: &str) -> Failure {
    Failure { code: REFUSED, message: message.to_owned() }
}

impl From<LocalnetError> for Failure {
    fn from(error: LocalnetError) -> Self {
        let code = match error {
            LocalnetError::UnknownBlock { .. } => NOT_READY,
            LocalnetError::BadRequest(_) => REFUSED,
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
