//! Blocks, accounts and transactions in toncenter's JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellSliceParts, HashBytes, Load};
use tycho_types::models::{
    BlockId, ComputePhase, IntAddr, MsgInfo, OwnedMessage, StdAddr, Transaction, TxInfo,
};

use crate::chain::TransactionRecord;
use crate::error::LocalnetError;

/// `ton.blockIdExt`.
pub(super) fn block_id(id: &BlockId) -> Value {
    json!({
        "@type": "ton.blockIdExt",
        "workchain": id.shard.workchain(),
        "shard": shard(id),
        "seqno": id.seqno,
        "root_hash": base64(id.root_hash.as_slice()),
        "file_hash": base64(id.file_hash.as_slice()),
    })
}

/// The shard's prefix as a signed decimal.
pub(super) fn shard(id: &BlockId) -> String {
    id.shard.prefix().cast_signed().to_string()
}

/// `internal.transactionId`.
pub(super) fn transaction_id(lt: u64, hash: &HashBytes) -> Value {
    json!({
        "@type": "internal.transactionId",
        "lt": lt.to_string(),
        "hash": base64(hash.as_slice()),
    })
}

/// `raw.transaction`.
pub(super) fn transaction(record: &TransactionRecord) -> Result<Value, LocalnetError> {
    let transaction = record.load()?;
    let fee = transaction.total_fees.tokens.into_inner();
    let storage_fee = fees(&transaction)?.storage_nanoton;
    let mut out_messages = Vec::new();
    for entry in transaction.out_msgs.iter() {
        let (_, cell) = entry?;
        out_messages.push(message(&cell)?);
    }
    let mut rendered = json!({
        "@type": "raw.transaction",
        "address": { "@type": "accountAddress", "account_address": friendly(&record.account) },
        "utime": record.utime_s,
        "data": base64(&Boc::encode(&record.cell)),
        "transaction_id": transaction_id(record.lt, &record.hash),
        "fee": fee.to_string(),
        "storage_fee": storage_fee.to_string(),
        "other_fee": fee.saturating_sub(storage_fee).to_string(),
        "out_msgs": out_messages,
    });
    if let Some(cell) = &transaction.in_msg {
        rendered["in_msg"] = message(cell)?;
    }
    Ok(rendered)
}

/// The parts of a transaction's fees.
pub(super) struct Fees {
    pub(super) import_nanoton: u128,
    pub(super) storage_nanoton: u128,
    pub(super) gas_nanoton: u128,
    pub(super) forward_nanoton: u128,
}

pub(super) fn fees(transaction: &Transaction) -> Result<Fees, LocalnetError> {
    let mut fees = Fees { import_nanoton: 0, storage_nanoton: 0, gas_nanoton: 0, forward_nanoton: 0 };
    let TxInfo::Ordinary(info) = transaction.load_info()? else { return Ok(fees) };
    let mut action_nanoton = 0;
    if let Some(phase) = &info.storage_phase {
        fees.storage_nanoton = phase.storage_fees_collected.into_inner();
    }
    if let ComputePhase::Executed(phase) = &info.compute_phase {
        fees.gas_nanoton = phase.gas_fees.into_inner();
    }
    if let Some(phase) = &info.action_phase {
        fees.forward_nanoton = phase.total_fwd_fees.unwrap_or_default().into_inner();
        action_nanoton = phase.total_action_fees.unwrap_or_default().into_inner();
    }
    let known = fees.storage_nanoton + fees.gas_nanoton + action_nanoton;
    fees.import_nanoton = transaction.total_fees.tokens.into_inner().saturating_sub(known);
    Ok(fees)
}

/// `raw.message`.
fn message(cell: &Cell) -> Result<Value, LocalnetError> {
    let message: OwnedMessage = cell.parse()?;
    let body = cell_of(&message.body)?;
    let (source, destination, value, fwd_fee, created_lt) = match &message.info {
        MsgInfo::Int(info) => (
            address(&info.src),
            address(&info.dst),
            info.value.tokens.into_inner(),
            info.fwd_fee.into_inner(),
            info.created_lt,
        ),
        MsgInfo::ExtIn(info) => (String::new(), address(&info.dst), 0, info.import_fee.into_inner(), 0),
        MsgInfo::ExtOut(info) => (address(&info.src), String::new(), 0, 0, info.created_lt),
    };
    let init = match &message.init {
        Some(init) => base64(&Boc::encode(CellBuilder::build_from(init)?)),
        None => String::new(),
    };
    let mut rendered = json!({
        "@type": "raw.message",
        "hash": base64(cell.repr_hash().as_slice()),
        "source": source,
        "destination": destination,
        "value": value.to_string(),
        "extra_currencies": [],
        "fwd_fee": fwd_fee.to_string(),
        "ihr_fee": "0",
        "created_lt": created_lt.to_string(),
        "body_hash": base64(body.repr_hash().as_slice()),
        "msg_data": { "@type": "msg.dataRaw", "body": base64(&Boc::encode(&body)), "init_state": init },
    });
    if let Some(text) = comment(&body) {
        rendered["message"] = text.into();
    }
    Ok(rendered)
}

/// The text of a comment: 32 zero bits, then UTF-8 through the first references.
fn comment(body: &Cell) -> Option<String> {
    let mut slice = body.as_slice().ok()?;
    if slice.load_u32().ok()? != 0 {
        return None;
    }
    let mut bytes = Vec::new();
    loop {
        let bits = slice.size_bits();
        if bits % 8 != 0 || bytes.len() > MAX_COMMENT_BYTES {
            return None;
        }
        for _ in 0..bits / 8 {
            bytes.push(slice.load_u8().ok()?);
        }
        if slice.size_refs() == 0 {
            return String::from_utf8(bytes).ok();
        }
        slice = slice.load_reference_as_slice().ok()?;
    }
}

const MAX_COMMENT_BYTES: usize = 4_096;

fn cell_of(parts: &CellSliceParts) -> Result<Cell, LocalnetError> {
    let (range, cell) = parts;
    let mut builder = CellBuilder::new();
    builder.store_slice(range.apply(cell)?)?;
    Ok(builder.build()?)
}

fn address(address: &IntAddr) -> String {
    match address {
        IntAddr::Std(address) => friendly(address),
        IntAddr::Var(_) => String::new(),
    }
}

/// The bounceable, URL-safe form.
pub(super) fn friendly(address: &StdAddr) -> String {
    address.display_base64_url(true).to_string()
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Source and creation time of an internal message.
pub(super) fn internal_route(cell: &Cell) -> Option<(StdAddr, StdAddr, u64)> {
    let info = MsgInfo::load_from(&mut cell.as_slice().ok()?).ok()?;
    let MsgInfo::Int(info) = info else { return None };
    Some((info.src.as_std()?.clone(), info.dst.as_std()?.clone(), info.created_lt))
}
