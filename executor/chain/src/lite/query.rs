//! The few queries of the liteserver protocol we send, and their answers as the `ton_liteapi` crate decodes them.

use ton_liteapi::tl::common::{AccountId, BlockId, BlockIdExt, Int256};
use ton_liteapi::tl::request::{GetAccountState, GetTransactions, LookupBlock, RunSmcMethod, SendMessage};
use ton_liteapi::tl::response;
use tycho_types::cell::HashBytes;
use tycho_types::models::StdAddr;

pub(crate) use ton_liteapi::tl::request::Request;
pub(crate) use ton_liteapi::tl::response::Response;

use crate::access::McBlock;

/// The masterchain and its only shard.
pub(crate) const MASTERCHAIN: (i32, u64) = (-1, 0x8000_0000_0000_0000);

/// A query and how to take its answer, `T`.
pub(crate) struct Query<T> {
    /// As in `lite_api.tl`, for errors.
    pub(crate) name: &'static str,
    pub(crate) request: Request,
    /// The server is to wait until it has this masterchain block.
    pub(crate) wait_for: Option<u32>,
    /// The answer, or `None` where it is one to another query.
    pub(crate) take: fn(Response) -> Option<T>,
}

pub(crate) fn masterchain_info() -> Query<response::MasterchainInfo> {
    let take = |answer| match answer {
        Response::MasterchainInfo(info) => Some(info),
        _ => None,
    };
    Query { name: "getMasterchainInfo", request: Request::GetMasterchainInfo, wait_for: None, take }
}

/// The masterchain block `seqno`; with `wait`, the server first waits a while for it.
pub(crate) fn lookup_masterchain_block(seqno: u32, wait: bool) -> Query<response::BlockHeader> {
    let (workchain, shard) = MASTERCHAIN;
    let request = Request::LookupBlock(LookupBlock {
        mode: (),
        id: BlockId { workchain, shard, seqno },
        seqno: Some(()),
        lt: None,
        utime: None,
        with_state_update: None,
        with_value_flow: None,
        with_extra: None,
        with_shard_hashes: None,
        with_prev_blk_signatures: None,
    });
    let take = |answer| match answer {
        Response::BlockHeader(header) => Some(header),
        _ => None,
    };
    Query { name: "lookupBlock", request, wait_for: wait.then_some(seqno), take }
}

pub(crate) fn account_state(at: &McBlock, account: &StdAddr) -> Query<response::AccountState> {
    let request =
        Request::GetAccountState(GetAccountState { id: block_id(at), account: account_id(account) });
    let take = |answer| match answer {
        Response::AccountState(state) => Some(state),
        _ => None,
    };
    Query { name: "getAccountState", request, wait_for: None, take }
}

pub(crate) fn transactions(
    account: &StdAddr,
    lt: u64,
    hash: &HashBytes,
    count: u32,
) -> Query<response::TransactionList> {
    let account = account_id(account);
    let request = Request::GetTransactions(GetTransactions { count, account, lt, hash: Int256(hash.0) });
    let take = |answer| match answer {
        Response::TransactionList(list) => Some(list),
        _ => None,
    };
    Query { name: "getTransactions", request, wait_for: None, take }
}

pub(crate) fn send_message(boc: Vec<u8>) -> Query<response::SendMsgStatus> {
    let request = Request::SendMessage(SendMessage { body: boc });
    let take = |answer| match answer {
        Response::SendMsgStatus(status) => Some(status),
        _ => None,
    };
    Query { name: "sendMessage", request, wait_for: None, take }
}

pub(crate) fn run_method(
    at: &McBlock,
    account: &StdAddr,
    method_id: u64,
    stack: Vec<u8>,
) -> Query<response::RunMethodResult> {
    const WITH_RESULT: u32 = 4;
    let request = Request::RunSmcMethod(RunSmcMethod {
        mode: WITH_RESULT,
        id: block_id(at),
        account: account_id(account),
        method_id,
        params: stack,
    });
    let take = |answer| match answer {
        Response::RunMethodResult(result) => Some(result),
        _ => None,
    };
    Query { name: "runSmcMethod", request, wait_for: None, take }
}

/// The block's id on the wire.
pub(crate) fn block_id(block: &McBlock) -> BlockIdExt {
    BlockIdExt {
        workchain: MASTERCHAIN.0,
        shard: MASTERCHAIN.1,
        seqno: block.seqno,
        root_hash: Int256(block.root_hash.0),
        file_hash: Int256(block.file_hash.0),
    }
}

/// The words of `liteServer.error`, fit to be shown. The crate's own conversions panic on what is not UTF-8.
pub(crate) fn words_of(error: &response::Error) -> String {
    let encoded = tl_proto::serialize(&error.message);
    let bytes: &[u8] = tl_proto::deserialize(&encoded).unwrap_or_default();
    let shown = &bytes[..bytes.len().min(MAX_ERROR_BYTES)];
    String::from_utf8_lossy(shown).chars().filter(|c| !c.is_control()).collect()
}

const MAX_ERROR_BYTES: usize = 600;

fn account_id(account: &StdAddr) -> AccountId {
    AccountId { workchain: i32::from(account.workchain), id: Int256(account.address.0) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_servers_words_are_cut_and_cleaned() {
        for (message, shown) in [
            (b"exitcode=133".to_vec(), "exitcode=133".to_owned()),
            (vec![0xff, b'\n', b'x'], "\u{fffd}x".to_owned()),
            (vec![b'a'; 10_000], "a".repeat(MAX_ERROR_BYTES)),
            (vec![], String::new()),
        ] {
            let mut wire = 7_i32.to_le_bytes().to_vec();
            wire.extend(tl_proto::serialize(message));
            let error: response::Error = tl_proto::deserialize(&wire).unwrap();
            assert_eq!((error.code, words_of(&error)), (7, shown));
        }
    }
}
