//! What each method of toncenter v2 answers.

use serde_json::{Value, json};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSliceParts, HashBytes};
use tycho_types::models::{
    AccountState, ExtInMsgInfo, IntAddr, MsgInfo, OptionalAccount, OwnedMessage, ShardAccount, StateInit,
    StdAddr,
};
use tycho_types::num::Tokens;

use super::params::Params;
use super::render::{self, base64, block_id, friendly, transaction_id};
use super::stack;
use crate::chain::{BlockRecord, Localnet, TransactionRecord};
use crate::error::LocalnetError;
use crate::handle::LocalnetHandle;
use crate::pool::ExternalMessage;
use tvm_executor::method_id;

/// Answers one call. It may compute for some milliseconds.
pub(super) fn call(handle: &LocalnetHandle, method: &str, params: &Params) -> Result<Value, LocalnetError> {
    match method {
        "sendBoc" => {
            send(handle, params)?;
            Ok(json!({ "@type": "ok" }))
        }
        "sendBocReturnHash" | "sendBocReturnHashNoError" => {
            let hash = send(handle, params)?;
            Ok(json!({ "@type": "raw.extMessageInfo", "hash": base64(hash.as_slice()) }))
        }
        "estimateFee" => estimate_fee(handle, params),
        _ => handle.read(|chain| read(chain, method, params)),
    }
}

/// Transactions in one answer at most.
const MAX_TRANSACTIONS: usize = 1_000;
const DEFAULT_TRANSACTIONS: usize = 10;
const DEFAULT_BLOCK_TRANSACTIONS: usize = 40;
const MAX_LIBRARIES: usize = 16;
/// Transactions of one account searched for a message at most.
const MAX_SEARCHED: usize = 10_000;

fn read(chain: &Localnet, method: &str, params: &Params) -> Result<Value, LocalnetError> {
    match method {
        "getMasterchainInfo" => masterchain_info(chain),
        "getConsensusBlock" => {
            let newest = chain.newest();
            Ok(json!({ "consensus_block": newest.id.seqno, "timestamp": newest.utime_s }))
        }
        "getAddressInformation" => address_information(chain, params),
        "getExtendedAddressInformation" => extended_information(chain, params),
        "getWalletInformation" => wallet_information(chain, params),
        "getAddressBalance" => {
            let (_, account) = account_of(chain, params)?;
            Ok(balance(&account).into())
        }
        "getAddressState" => {
            let (_, account) = account_of(chain, params)?;
            Ok(state_name(&account).into())
        }
        "getTransactions" => transactions(chain, params),
        "runGetMethod" => run_get_method(chain, params),
        "getLibraries" => libraries(chain, params),
        "shards" => {
            let seqno = params.required_integer::<u32>("seqno")?;
            let shard = chain.block(0, chain.block(-1, seqno)?.basechain_seqno)?;
            Ok(json!({ "@type": "blocks.shards", "shards": [block_id(&shard.id)] }))
        }
        "getBlockTransactions" => block_transactions(chain, params, false),
        "getBlockTransactionsExt" => block_transactions(chain, params, true),
        "getBlockHeader" => {
            let record = block_of(chain, params)?;
            Ok(block_header(chain, record))
        }
        "lookupBlock" => Ok(block_id(&lookup(chain, params)?.id)),
        "tryLocateTx" | "tryLocateResultTx" => locate(chain, params, Side::Destination),
        "tryLocateSourceTx" => locate(chain, params, Side::Source),
        "getConfigParam" => config_param(chain, params),
        "getConfigAll" => {
            let root = chain.config().params.as_dict().root().clone().unwrap_or_default();
            Ok(json!({
                "@type": "configInfo",
                "config": { "@type": "tvm.cell", "bytes": base64(&Boc::encode(root)) },
            }))
        }
        "detectAddress" => {
            let address = params.address("address")?;
            Ok(json!({
                "raw_form": address.to_string(),
                "bounceable": { "b64url": friendly(&address), "b64": address.display_base64(true).to_string() },
                "non_bounceable": {
                    "b64url": address.display_base64_url(false).to_string(),
                    "b64": address.display_base64(false).to_string(),
                },
                "test_only": false,
            }))
        }
        "packAddress" => Ok(friendly(&params.address("address")?).into()),
        "unpackAddress" => Ok(params.address("address")?.to_string().into()),
        _ => Err(LocalnetError::NotFound(format!("there is no method {method}"))),
    }
}

fn send(handle: &LocalnetHandle, params: &Params) -> Result<HashBytes, LocalnetError> {
    let boc = params.bytes("boc")?;
    if boc.is_empty() {
        return Err(LocalnetError::BadRequest("the parameter boc is missing".into()));
    }
    handle.send_boc(&boc)
}

fn masterchain_info(chain: &Localnet) -> Result<Value, LocalnetError> {
    let newest = chain.newest();
    let state = newest.state.as_ref().map(|state| *state.repr_hash()).unwrap_or_default();
    let zero = chain.block(-1, 0)?;
    let mut init = block_id(&zero.id);
    init["shard"] = "0".into();
    Ok(json!({
        "@type": "blocks.masterchainInfo",
        "last": block_id(&newest.id),
        "state_root_hash": base64(state.as_slice()),
        "init": init,
    }))
}

fn account_of(chain: &Localnet, params: &Params) -> Result<(ShardAccount, OptionalAccount), LocalnetError> {
    let address = params.address("address")?;
    let account = match params.integer::<u32>("seqno")? {
        Some(seqno) => chain.account_at(&address, seqno)?,
        None => chain.account(&address)?,
    };
    let state = account.account.load()?;
    Ok((account, state))
}

fn balance(account: &OptionalAccount) -> String {
    account.balance().tokens.into_inner().to_string()
}

fn state_name(account: &OptionalAccount) -> &'static str {
    match account.state() {
        None | Some(AccountState::Uninit) => "uninitialized",
        Some(AccountState::Active(_)) => "active",
        Some(AccountState::Frozen(_)) => "frozen",
    }
}

fn code_and_data(account: &OptionalAccount) -> (String, String) {
    let boc = |cell: &Option<Cell>| cell.as_ref().map(|cell| base64(&Boc::encode(cell))).unwrap_or_default();
    match account.state() {
        Some(AccountState::Active(init)) => (boc(&init.code), boc(&init.data)),
        _ => (String::new(), String::new()),
    }
}

fn address_information(chain: &Localnet, params: &Params) -> Result<Value, LocalnetError> {
    let (shard_account, account) = account_of(chain, params)?;
    let (code, data) = code_and_data(&account);
    let frozen_hash = match account.state() {
        Some(AccountState::Frozen(hash)) => base64(hash.as_slice()),
        _ => String::new(),
    };
    let at = match params.integer::<u32>("seqno")? {
        Some(seqno) => chain.block(-1, seqno)?,
        None => chain.newest(),
    };
    Ok(json!({
        "@type": "raw.fullAccountState",
        "balance": balance(&account),
        "extra_currencies": [],
        "code": code,
        "data": data,
        "last_transaction_id": transaction_id(shard_account.last_trans_lt, &shard_account.last_trans_hash),
        "block_id": block_id(&at.id),
        "frozen_hash": frozen_hash,
        "sync_utime": at.utime_s,
        "state": state_name(&account),
    }))
}

fn extended_information(chain: &Localnet, params: &Params) -> Result<Value, LocalnetError> {
    let (shard_account, account) = account_of(chain, params)?;
    let (code, data) = code_and_data(&account);
    let newest = chain.newest();
    Ok(json!({
        "@type": "fullAccountState",
        "address": {
            "@type": "accountAddress", "account_address": friendly(&params.address("address")?),
        },
        "balance": balance(&account),
        "extra_currencies": [],
        "last_transaction_id": transaction_id(shard_account.last_trans_lt, &shard_account.last_trans_hash),
        "block_id": block_id(&newest.id),
        "sync_utime": newest.utime_s,
        "account_state": match account.state() {
            Some(AccountState::Active(_)) => {
                json!({ "@type": "raw.accountState", "code": code, "data": data, "frozen_hash": "" })
            }
            Some(AccountState::Frozen(hash)) => {
                json!({ "@type": "uninited.accountState", "frozen_hash": base64(hash.as_slice()) })
            }
            _ => json!({ "@type": "uninited.accountState", "frozen_hash": "" }),
        },
        "revision": 0,
    }))
}

fn wallet_information(chain: &Localnet, params: &Params) -> Result<Value, LocalnetError> {
    let (shard_account, account) = account_of(chain, params)?;
    let mut rendered = json!({
        "wallet": false,
        "balance": balance(&account),
        "account_state": state_name(&account),
        "last_transaction_id": transaction_id(shard_account.last_trans_lt, &shard_account.last_trans_hash),
    });
    let address = params.address("address")?;
    let newest = chain.newest().id.seqno;
    let output = chain.run_getter(&address, method_id("seqno"), &stack::encode(&[])?, newest)?;
    if matches!(output.exit_code, 0 | 1)
        && let Some(stack::Item::Int(seqno)) = stack::decode(&output.stack)?.last()
        && let Ok(seqno) = u32::try_from(seqno)
    {
        rendered["wallet"] = true.into();
        rendered["seqno"] = seqno.into();
    }
    Ok(rendered)
}

fn transactions(chain: &Localnet, params: &Params) -> Result<Value, LocalnetError> {
    let address = params.address("address")?;
    let limit = params.integer::<usize>("limit")?.unwrap_or(DEFAULT_TRANSACTIONS).min(MAX_TRANSACTIONS);
    let to_lt = params.integer::<u64>("to_lt")?.unwrap_or(0);
    let all = chain.transactions(&address);
    let newest = match params.integer::<u64>("lt")? {
        None => all.len(),
        Some(lt) => {
            let at = all.binary_search_by_key(&lt, |record| record.lt).ok();
            let hash = params.hash("hash")?;
            let found =
                at.filter(|at| all.get(*at).is_some_and(|found| hash.is_none_or(|hash| hash == found.hash)));
            let at = found.ok_or_else(|| {
                LocalnetError::NotFound("a transaction of that account with this lt and hash".into())
            })?;
            at + 1
        }
    };
    all.iter()
        .take(newest)
        .rev()
        .take_while(|record| record.lt > to_lt)
        .take(limit)
        .map(render::transaction)
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Array)
}

fn run_get_method(chain: &Localnet, params: &Params) -> Result<Value, LocalnetError> {
    let address = params.address("address")?;
    let method = params.required_text("method")?;
    let id = method.parse::<u32>().unwrap_or_else(|_| method_id(&method));
    let arguments = stack::arguments_from_json(params.get("stack"))?;
    let seqno = params.integer::<u32>("seqno")?.unwrap_or(chain.newest().id.seqno);
    let output = chain.run_getter(&address, id, &arguments, seqno)?;
    let last = chain.account(&address)?;
    Ok(json!({
        "@type": "smc.runResult",
        "gas_used": output.gas_used,
        "stack": stack::results_to_json(&output.stack)?,
        "exit_code": output.exit_code,
        "block_id": block_id(&chain.block(-1, seqno)?.id),
        "last_transaction_id": transaction_id(last.last_trans_lt, &last.last_trans_hash),
    }))
}

fn libraries(chain: &Localnet, params: &Params) -> Result<Value, LocalnetError> {
    let mut found = Vec::new();
    for hash in params.hashes("libraries", MAX_LIBRARIES)? {
        if let Some(library) = chain.library(&hash)? {
            found.push(json!({
                "@type": "smc.libraryEntry",
                "hash": base64(hash.as_slice()),
                "data": base64(&Boc::encode(library)),
            }));
        }
    }
    Ok(json!({ "@type": "smc.libraryResult", "result": found }))
}

fn estimate_fee(handle: &LocalnetHandle, params: &Params) -> Result<Value, LocalnetError> {
    let destination = params.address("address")?;
    let cell = |name: &str| -> Result<Option<Cell>, LocalnetError> {
        let bytes = params.bytes(name)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        Boc::decode(bytes)
            .map(Some)
            .map_err(|_| LocalnetError::BadRequest(format!("the parameter {name} is not a bag of cells")))
    };
    let body = cell("body")?.unwrap_or_else(Cell::empty_cell);
    let (code, data) = (cell("init_code")?, cell("init_data")?);
    let init = (code.is_some() || data.is_some()).then(|| StateInit { code, data, ..StateInit::default() });
    let message = OwnedMessage {
        info: MsgInfo::ExtIn(ExtInMsgInfo {
            src: None,
            dst: IntAddr::Std(destination),
            import_fee: Tokens::ZERO,
        }),
        init,
        body: CellSliceParts::from(body),
        layout: None,
    };
    let message = ExternalMessage::from_cell(CellBuilder::build_from(&message)?)?;
    let now_s = handle.now_s();
    let any_signature = params.0.get("ignore_chksig").is_none() || params.flag("ignore_chksig");
    let transaction = handle.read(|chain| chain.dry_run(&message, now_s, any_signature))?;
    let fees = render::fees(&transaction)?;
    Ok(json!({
        "@type": "query.fees",
        "source_fees": {
            "@type": "fees",
            "in_fwd_fee": fee_number(fees.import_nanoton),
            "storage_fee": fee_number(fees.storage_nanoton),
            "gas_fee": fee_number(fees.gas_nanoton),
            "fwd_fee": fee_number(fees.forward_nanoton),
        },
        "destination_fees": [],
    }))
}

/// Fees are JSON numbers in this API; no fee comes near the limit.
fn fee_number(nanoton: u128) -> u64 {
    u64::try_from(nanoton).unwrap_or(u64::MAX)
}

fn block_of<'a>(chain: &'a Localnet, params: &Params) -> Result<&'a BlockRecord, LocalnetError> {
    let workchain = params.required_integer::<i32>("workchain")?;
    chain.block(workchain, params.required_integer::<u32>("seqno")?)
}

fn block_transactions(chain: &Localnet, params: &Params, extended: bool) -> Result<Value, LocalnetError> {
    let record = block_of(chain, params)?;
    let count = params.integer::<usize>("count")?.unwrap_or(DEFAULT_BLOCK_TRANSACTIONS).min(MAX_TRANSACTIONS);
    let after_lt = params.integer::<u64>("after_lt")?;
    let after_hash = params.hash("after_hash")?;
    let mut all: Vec<&(StdAddr, u64)> = record.transactions.iter().collect();
    all.sort_by_key(|(account, lt)| (account.address, *lt));
    if let (Some(after_lt), Some(after_hash)) = (after_lt, after_hash) {
        all.retain(|(account, lt)| (account.address, *lt) > (after_hash, after_lt));
    }
    let incomplete = all.len() > count;
    let found: Vec<&TransactionRecord> =
        all.into_iter().take(count).filter_map(|(account, lt)| chain.transaction(account, *lt)).collect();
    let rendered = if extended {
        found.into_iter().map(render::transaction).collect::<Result<Vec<_>, _>>()?
    } else {
        found
            .into_iter()
            .map(|found| {
                json!({
                    "@type": "blocks.shortTxId",
                    "mode": 135,
                    "account": found.account.to_string(),
                    "lt": found.lt.to_string(),
                    "hash": base64(found.hash.as_slice()),
                })
            })
            .collect()
    };
    Ok(json!({
        "@type": "blocks.transactions",
        "id": block_id(&record.id),
        "req_count": count,
        "incomplete": incomplete,
        "transactions": rendered,
    }))
}

fn block_header(chain: &Localnet, record: &BlockRecord) -> Value {
    let workchain = record.id.shard.workchain();
    let previous = record.id.seqno.checked_sub(1).and_then(|seqno| chain.block(workchain, seqno).ok());
    json!({
        "@type": "blocks.header",
        "id": block_id(&record.id),
        "global_id": chain.options().global_id,
        "version": 0,
        "flags": 0,
        "after_merge": false,
        "after_split": false,
        "before_split": false,
        "want_merge": false,
        "want_split": false,
        "validator_list_hash_short": 0,
        "catchain_seqno": 0,
        "min_ref_mc_seqno": 0,
        "is_key_block": false,
        "prev_key_block_seqno": 0,
        "start_lt": record.start_lt.to_string(),
        "end_lt": record.end_lt.to_string(),
        "gen_utime": record.utime_s,
        "prev_blocks": previous.map(|previous| block_id(&previous.id)).into_iter().collect::<Vec<_>>(),
    })
}

fn lookup<'a>(chain: &'a Localnet, params: &Params) -> Result<&'a BlockRecord, LocalnetError> {
    let workchain = params.required_integer::<i32>("workchain")?;
    let blocks = chain.blocks(workchain);
    if let Some(seqno) = params.integer::<u32>("seqno")? {
        return chain.block(workchain, seqno);
    }
    let found = if let Some(lt) = params.integer::<u64>("lt")? {
        blocks.get(blocks.partition_point(|record| record.end_lt <= lt))
    } else if let Some(utime) = params.integer::<u32>("unixtime")? {
        blocks.partition_point(|record| record.utime_s <= utime).checked_sub(1).and_then(|at| blocks.get(at))
    } else {
        return Err(LocalnetError::BadRequest("one of seqno, lt and unixtime must be given".into()));
    };
    found.ok_or_else(|| LocalnetError::NotFound("a block at that time".into()))
}

enum Side {
    Source,
    Destination,
}

fn locate(chain: &Localnet, params: &Params, side: Side) -> Result<Value, LocalnetError> {
    let wanted = (
        params.address("source")?,
        params.address("destination")?,
        params.required_integer::<u64>("created_lt")?,
    );
    let account = match side {
        Side::Source => &wanted.0,
        Side::Destination => &wanted.1,
    };
    for record in chain.transactions(account).iter().rev().take(MAX_SEARCHED) {
        let transaction = record.load()?;
        let found = match side {
            Side::Destination => transaction
                .in_msg
                .as_ref()
                .and_then(render::internal_route)
                .is_some_and(|route| route == wanted),
            Side::Source => {
                let mut found = false;
                for entry in transaction.out_msgs.iter() {
                    let (_, cell) = entry?;
                    found |= render::internal_route(&cell).is_some_and(|route| route == wanted);
                }
                found
            }
        };
        if found {
            return render::transaction(record);
        }
    }
    Err(LocalnetError::NotFound("the transaction of that message".into()))
}

fn config_param(chain: &Localnet, params: &Params) -> Result<Value, LocalnetError> {
    let id = match params.integer::<u32>("config_id")? {
        Some(id) => id,
        None => params.required_integer::<u32>("param")?,
    };
    let cell = chain.config().params.as_dict().get(id)?;
    let cell = cell.ok_or_else(|| LocalnetError::NotFound(format!("config parameter {id}")))?;
    Ok(json!({
        "@type": "configInfo",
        "config": { "@type": "tvm.cell", "bytes": base64(&Boc::encode(cell)) },
    }))
}
