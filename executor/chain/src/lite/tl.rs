//! The few TL messages of the liteserver protocol we speak (`lite_api.tl`, `ton_api.tl` of the reference node).
//!
//! Numbers are little-endian; `bytes` is a length (1 byte, or 254 and 3 bytes), the bytes, and zeros to a
//! multiple of four. Answers are bounded by the 16 MiB of an ADNL packet, and every length is checked
//! against what is there before anything is allocated.

use tycho_types::cell::HashBytes;
use tycho_types::models::StdAddr;

/// `tonNode.blockIdExt`, 80 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockIdExt {
    pub(crate) workchain: i32,
    pub(crate) shard: u64,
    pub(crate) seqno: u32,
    pub(crate) root_hash: HashBytes,
    pub(crate) file_hash: HashBytes,
}

/// The only shard of the masterchain.
pub(crate) const MASTERCHAIN: (i32, u64) = (-1, 0x8000_0000_0000_0000);

/// A query; `name` is for errors.
pub(crate) struct Request {
    pub(crate) name: &'static str,
    pub(crate) answer: u32,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn masterchain_info() -> Self {
        Self::new("getMasterchainInfo", 0x89b5_e62e, MASTERCHAIN_INFO)
    }

    pub(crate) fn lookup_masterchain_block(seqno: u32) -> Self {
        let mut request = Self::new("lookupBlock", 0xfac8_f71e, BLOCK_HEADER);
        let mode_by_seqno = 1;
        request.u32(mode_by_seqno);
        request.u32(MASTERCHAIN.0.cast_unsigned());
        request.u64(MASTERCHAIN.1);
        request.u32(seqno);
        request
    }

    pub(crate) fn account_state(block: &BlockIdExt, account: &StdAddr) -> Self {
        let mut request = Self::new("getAccountState", 0x6b89_0e25, ACCOUNT_STATE);
        request.block(block);
        request.account(account);
        request
    }

    pub(crate) fn transactions(account: &StdAddr, lt: u64, hash: &HashBytes, count: u32) -> Self {
        let mut request = Self::new("getTransactions", 0x1c40_e7a1, TRANSACTION_LIST);
        request.u32(count);
        request.account(account);
        request.u64(lt);
        request.raw(hash.as_slice());
        request
    }

    pub(crate) fn send_message(boc: &[u8]) -> Self {
        let mut request = Self::new("sendMessage", 0x690a_d482, SEND_MSG_STATUS);
        write_bytes(&mut request.body, boc);
        request
    }

    pub(crate) fn run_method(block: &BlockIdExt, account: &StdAddr, method: u64, stack: &[u8]) -> Self {
        let mut request = Self::new("runSmcMethod", 0x5cc6_5dd2, RUN_METHOD_RESULT);
        let mode_with_result = 4;
        request.u32(mode_with_result);
        request.block(block);
        request.account(account);
        request.u64(method);
        write_bytes(&mut request.body, stack);
        request
    }

    /// The whole ADNL message; with `wait`, the server first waits for masterchain block `wait.0`, at most
    /// `wait.1` milliseconds.
    pub(crate) fn to_packet(&self, query_id: &[u8; 32], wait: Option<(u32, u32)>) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.body.len() + 12);
        if let Some((seqno, timeout_ms)) = wait {
            for word in [WAIT_MASTERCHAIN_SEQNO, seqno, timeout_ms] {
                data.extend_from_slice(&word.to_le_bytes());
            }
        }
        data.extend_from_slice(&self.body);
        let mut query = LITE_QUERY.to_le_bytes().to_vec();
        write_bytes(&mut query, &data);
        let mut packet = ADNL_QUERY.to_le_bytes().to_vec();
        packet.extend_from_slice(query_id);
        write_bytes(&mut packet, &query);
        packet
    }

    fn new(name: &'static str, constructor: u32, answer: u32) -> Self {
        Self { name, answer, body: constructor.to_le_bytes().to_vec() }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    fn block(&mut self, id: &BlockIdExt) {
        self.u32(id.workchain.cast_unsigned());
        self.u64(id.shard);
        self.u32(id.seqno);
        self.raw(id.root_hash.as_slice());
        self.raw(id.file_hash.as_slice());
    }

    fn account(&mut self, account: &StdAddr) {
        self.u32(i32::from(account.workchain).cast_unsigned());
        self.raw(account.address.as_slice());
    }
}

/// What a packet from the server is.
pub(crate) enum Packet<'a> {
    /// The answer to the query of that id.
    Answer([u8; 32], &'a [u8]),
    /// Anything else, such as a pong.
    Other,
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(packet);
        if reader.u32()? != ADNL_ANSWER {
            return Some(Self::Other);
        }
        let id = reader.array()?;
        Some(Self::Answer(id, reader.bytes()?))
    }
}

/// `tcp.ping`, which keeps a connection open.
pub(crate) fn ping(random_id: u64) -> Vec<u8> {
    let mut packet = TCP_PING.to_le_bytes().to_vec();
    packet.extend_from_slice(&random_id.to_le_bytes());
    packet
}

/// An answer's constructor and the rest.
pub(crate) fn split_constructor(answer: &[u8]) -> Option<(u32, &[u8])> {
    let mut reader = Reader(answer);
    let constructor = reader.u32()?;
    Some((constructor, reader.0))
}

/// `liteServer.error code:int message:string`.
pub(crate) const ERROR: u32 = 0xbba9_e148;

pub(crate) fn parse_error(body: &[u8]) -> Option<(i32, String)> {
    let mut reader = Reader(body);
    let code = reader.u32()?.cast_signed();
    let message = reader.bytes()?;
    let shown = &message[..message.len().min(MAX_ERROR_TEXT)];
    Some((code, String::from_utf8_lossy(shown).chars().filter(|c| !c.is_control()).collect()))
}

/// The last block of `liteServer.masterchainInfo`.
pub(crate) fn parse_masterchain_info(body: &[u8]) -> Option<BlockIdExt> {
    Reader(body).block()
}

/// Root and file hash of the masterchain's zero state, in `liteServer.masterchainInfo`.
pub(crate) fn parse_zero_state(body: &[u8]) -> Option<(HashBytes, HashBytes)> {
    let mut reader = Reader(body);
    reader.block()?;
    // The hash of the masterchain's state, then the zero state's workchain.
    reader.take(32)?;
    reader.u32()?;
    Some((HashBytes(reader.array()?), HashBytes(reader.array()?)))
}

/// Id and header proof of `liteServer.blockHeader`.
pub(crate) fn parse_block_header(body: &[u8]) -> Option<(BlockIdExt, &[u8])> {
    let mut reader = Reader(body);
    let id = reader.block()?;
    reader.u32()?;
    Some((id, reader.bytes()?))
}

/// `liteServer.accountState`.
pub(crate) struct AccountStateAnswer<'a> {
    pub(crate) id: BlockIdExt,
    pub(crate) shard_block: BlockIdExt,
    pub(crate) shard_proof: &'a [u8],
    pub(crate) proof: &'a [u8],
    pub(crate) state: &'a [u8],
}

pub(crate) fn parse_account_state(body: &[u8]) -> Option<AccountStateAnswer<'_>> {
    let mut reader = Reader(body);
    Some(AccountStateAnswer {
        id: reader.block()?,
        shard_block: reader.block()?,
        shard_proof: reader.bytes()?,
        proof: reader.bytes()?,
        state: reader.bytes()?,
    })
}

/// The multi-root BoC of `liteServer.transactionList`.
pub(crate) fn parse_transaction_list(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(body);
    let ids = reader.u32()? as usize;
    reader.take(ids.checked_mul(BLOCK_ID_EXT_BYTES)?)?;
    reader.bytes()
}

/// `status` of `liteServer.sendMsgStatus`.
pub(crate) fn parse_send_status(body: &[u8]) -> Option<u32> {
    Reader(body).u32()
}

/// Block, exit code and result (a BoC of a stack) of `liteServer.runMethodResult`.
pub(crate) fn parse_run_method(body: &[u8]) -> Option<(BlockIdExt, i32, Option<&[u8]>)> {
    let mut reader = Reader(body);
    let mode = reader.u32()?;
    let id = reader.block()?;
    reader.block()?;
    let proof_parts = u32::from(mode & 1 != 0) * 2
        + u32::from(mode & 2 != 0)
        + u32::from(mode & 8 != 0)
        + u32::from(mode & 16 != 0);
    for _ in 0..proof_parts {
        reader.bytes()?;
    }
    let exit_code = reader.u32()?.cast_signed();
    let result = if mode & 4 != 0 { Some(reader.bytes()?) } else { None };
    Some((id, exit_code, result))
}

const ADNL_QUERY: u32 = 0xb48b_f97a;
const ADNL_ANSWER: u32 = 0x0fac_8416;
const TCP_PING: u32 = 0x4d08_2b9a;
const LITE_QUERY: u32 = 0x798c_06df;
const WAIT_MASTERCHAIN_SEQNO: u32 = 0xbaea_b892;
const MASTERCHAIN_INFO: u32 = 0x8583_2881;
const BLOCK_HEADER: u32 = 0x752d_8219;
const ACCOUNT_STATE: u32 = 0x7079_c751;
const TRANSACTION_LIST: u32 = 0x6f26_c60b;
const SEND_MSG_STATUS: u32 = 0x3950_e597;
const RUN_METHOD_RESULT: u32 = 0xa39a_616b;
const BLOCK_ID_EXT_BYTES: usize = 80;
const MAX_ERROR_TEXT: usize = 600;

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    match u8::try_from(bytes.len()) {
        Ok(short) if short < 254 => out.push(short),
        _ => {
            out.push(254);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes()[..3]);
        }
    }
    out.extend_from_slice(bytes);
    while !(out.len() - start).is_multiple_of(4) {
        out.push(0);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let (length, prefix) = match self.array::<1>()?[0] {
            short @ 0..=253 => (usize::from(short), 1),
            254 => {
                let [a, b, c] = self.array()?;
                (u32::from_le_bytes([a, b, c, 0]) as usize, 4)
            }
            255 => return None,
        };
        let bytes = self.take(length)?;
        let padding = (4 - (prefix + length) % 4) % 4;
        self.take(padding)?;
        Some(bytes)
    }

    fn block(&mut self) -> Option<BlockIdExt> {
        Some(BlockIdExt {
            workchain: self.u32()?.cast_signed(),
            shard: u64::from_le_bytes(self.array()?),
            seqno: self.u32()?,
            root_hash: HashBytes(self.array()?),
            file_hash: HashBytes(self.array()?),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_are_padded_and_read_back_at_every_length() {
        for length in [0, 1, 2, 3, 4, 252, 253, 254, 255, 1000, 70_000] {
            let bytes = vec![7_u8; length];
            let mut out = Vec::new();
            write_bytes(&mut out, &bytes);
            assert!(out.len().is_multiple_of(4));
            let mut reader = Reader(&out);
            assert_eq!(reader.bytes().unwrap(), bytes);
            assert!(reader.0.is_empty());
            for cut in 0..out.len().min(300) {
                let _ = Reader(&out[..cut]).bytes();
            }
        }
    }

    #[test]
    fn a_query_is_the_bytes_of_the_reference_client() {
        // getMasterchainInfo as the reference lite-client sends it, with query id 0x77….
        let packet = Request::masterchain_info().to_packet(&[0x77; 32], None);
        let mut expected = vec![0x7a, 0xf9, 0x8b, 0xb4];
        expected.extend_from_slice(&[0x77; 32]);
        expected
            .extend_from_slice(&[12, 0xdf, 0x06, 0x8c, 0x79, 4, 0x2e, 0xe6, 0xb5, 0x89, 0, 0, 0, 0, 0, 0]);
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_list_that_promises_more_than_it_holds_is_refused() {
        assert!(parse_transaction_list(&u32::MAX.to_le_bytes()).is_none());
        assert!(parse_transaction_list(&[1, 0, 0, 0, 9]).is_none());
    }
}
