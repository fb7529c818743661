//! The TL messages of the liteserver protocol (`lite_api.tl` and `ton_api.tl` of the reference node) that we serve.
//!
//! Numbers are little-endian; `bytes` is a length (1 byte, or 254 and 3 bytes), the bytes, and zeros to a multiple of
//! four. Every length is checked against what is there before anything is allocated.

use tycho_types::cell::HashBytes;
use tycho_types::models::{BlockId, ShardIdent, StdAddr};

/// A packet from a client.
pub(super) enum Packet<'a> {
    /// `tcp.ping`, to be sent back as a pong.
    Ping(u64),
    /// A query: its id, and the bytes inside `liteServer.query`.
    Query([u8; 32], &'a [u8]),
}

impl<'a> Packet<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(packet);
        match reader.u32()? {
            TCP_PING => Some(Self::Ping(reader.u64()?)),
            ADNL_QUERY => {
                let id = reader.array()?;
                let mut query = Reader(reader.bytes()?);
                if query.u32()? != LITE_QUERY {
                    return Some(Self::Query(id, &[]));
                }
                Some(Self::Query(id, query.bytes().unwrap_or_default()))
            }
            _ => None,
        }
    }
}

/// `tcp.pong`.
pub(super) fn pong(random_id: u64) -> Vec<u8> {
    let mut writer = Writer::new(TCP_PONG);
    writer.u64(random_id);
    writer.0
}

/// `adnl.message.answer`.
pub(super) fn answer(query_id: &[u8; 32], answer: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(ADNL_ANSWER);
    writer.raw(query_id);
    writer.bytes(answer);
    writer.0
}

/// `liteServer.error`.
pub(super) fn error(code: i32, message: &str) -> Vec<u8> {
    let mut writer = Writer::new(0xbba9_e148);
    writer.u32(code.cast_unsigned());
    writer.bytes(message.as_bytes());
    writer.0
}

/// A query, with how long the server should first wait for a masterchain block.
pub(super) struct Query {
    pub(super) wait: Option<Wait>,
    pub(super) request: Request,
}

/// `liteServer.waitMasterchainSeqno`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) seqno: u32,
    pub(super) timeout_ms: u32,
}

/// A block as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockIdExt {
    pub(super) workchain: i32,
    pub(super) shard: u64,
    pub(super) seqno: u32,
    pub(super) root_hash: HashBytes,
    pub(super) file_hash: HashBytes,
}

/// An account as a client names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccountId {
    pub(super) workchain: i32,
    pub(super) id: HashBytes,
}

impl AccountId {
    /// `None` for a workchain this chain does not have.
    pub(super) fn to_address(self) -> Option<StdAddr> {
        let workchain = i8::try_from(self.workchain).ok().filter(|workchain| matches!(workchain, -1 | 0))?;
        Some(StdAddr::new(workchain, self.id))
    }
}

/// What a lookup goes by: exactly one of these.
#[derive(Debug, Clone, Copy)]
pub(super) enum LookupBy {
    Seqno(u32),
    Lt(u64),
    Utime(u32),
}

/// The methods we serve.
pub(super) enum Request {
    MasterchainInfo,
    MasterchainInfoExt {
        mode: u32,
    },
    Time,
    Version,
    Block(BlockIdExt),
    State(BlockIdExt),
    BlockHeader {
        id: BlockIdExt,
        mode: u32,
    },
    SendMessage(Vec<u8>),
    /// With `pruned`, without code and data.
    AccountState {
        id: BlockIdExt,
        account: AccountId,
        pruned: bool,
    },
    RunSmcMethod {
        mode: u32,
        id: BlockIdExt,
        account: AccountId,
        method_id: u64,
        params: Vec<u8>,
    },
    ShardInfo {
        id: BlockIdExt,
        workchain: i32,
        shard: u64,
        exact: bool,
    },
    AllShardsInfo(BlockIdExt),
    OneTransaction {
        id: BlockIdExt,
        account: AccountId,
        lt: u64,
    },
    Transactions {
        count: u32,
        account: AccountId,
        lt: u64,
        hash: HashBytes,
    },
    LookupBlock {
        mode: u32,
        workchain: i32,
        /// `None` where the mode names none or several.
        by: Option<LookupBy>,
    },
    ListBlockTransactions {
        id: BlockIdExt,
        mode: u32,
        count: u32,
        after: Option<(HashBytes, u64)>,
        extended: bool,
    },
    /// The parameters `wanted`, or all.
    Config {
        mode: u32,
        id: BlockIdExt,
        wanted: Option<Vec<i32>>,
    },
    Libraries(Vec<HashBytes>),
}

/// Why a query cannot be served.
pub(super) enum QueryError {
    /// Bytes are missing or too many.
    Malformed,
    /// A method we do not have.
    UnknownMethod(u32),
}

impl Query {
    pub(super) fn parse(data: &[u8]) -> Result<Self, QueryError> {
        let mut reader = Reader(data);
        let mut method = reader.u32().ok_or(QueryError::Malformed)?;
        let mut wait = None;
        if method == WAIT_MASTERCHAIN_SEQNO {
            let parsed = (|| {
                let wait = Wait { seqno: reader.u32()?, timeout_ms: reader.u32()? };
                Some((wait, reader.u32()?))
            })();
            let (parsed, next) = parsed.ok_or(QueryError::Malformed)?;
            wait = Some(parsed);
            method = next;
        }
        let request = Request::parse(method, &mut reader)?;
        Ok(Self { wait, request })
    }
}

impl Request {
    fn parse(method: u32, reader: &mut Reader<'_>) -> Result<Self, QueryError> {
        if !METHODS.contains(&method) {
            return Err(QueryError::UnknownMethod(method));
        }
        let request = Self::parse_known(method, reader).ok_or(QueryError::Malformed)?;
        if reader.0.is_empty() { Ok(request) } else { Err(QueryError::Malformed) }
    }

    fn parse_known(method: u32, r: &mut Reader<'_>) -> Option<Self> {
        Some(match method {
            0x89b5_e62e => Self::MasterchainInfo,
            0x70a6_71df => Self::MasterchainInfoExt { mode: r.u32()? },
            0x16ad_5a34 => Self::Time,
            0x232b_940b => Self::Version,
            0x6377_cf0d => Self::Block(r.block()?),
            0xba6e_2eb6 => Self::State(r.block()?),
            0x21ec_069e => Self::BlockHeader { id: r.block()?, mode: r.u32()? },
            0x690a_d482 => Self::SendMessage(r.bytes()?.to_vec()),
            GET_ACCOUNT_STATE | GET_ACCOUNT_STATE_PRUNED => Self::AccountState {
                id: r.block()?,
                account: r.account()?,
                pruned: method == GET_ACCOUNT_STATE_PRUNED,
            },
            0x5cc6_5dd2 => Self::RunSmcMethod {
                mode: r.u32()?,
                id: r.block()?,
                account: r.account()?,
                method_id: r.u64()?,
                params: r.bytes()?.to_vec(),
            },
            0x46a2_f425 => Self::ShardInfo {
                id: r.block()?,
                workchain: r.u32()?.cast_signed(),
                shard: r.u64()?,
                exact: r.u32()? == BOOL_TRUE,
            },
            0x74d3_fd6b => Self::AllShardsInfo(r.block()?),
            0xd40f_24ea => Self::OneTransaction { id: r.block()?, account: r.account()?, lt: r.u64()? },
            0x1c40_e7a1 => Self::Transactions {
                count: r.u32()?,
                account: r.account()?,
                lt: r.u64()?,
                hash: HashBytes(r.array()?),
            },
            0xfac8_f71e => {
                let mode = r.u32()?;
                let workchain = r.u32()?.cast_signed();
                r.u64()?;
                let seqno = r.u32()?;
                let lt = if mode & 2 != 0 { Some(r.u64()?) } else { None };
                let utime = if mode & 4 != 0 { Some(r.u32()?) } else { None };
                let by = match (mode & 1 != 0, lt, utime) {
                    (true, None, None) => Some(LookupBy::Seqno(seqno)),
                    (false, Some(lt), None) => Some(LookupBy::Lt(lt)),
                    (false, None, Some(utime)) => Some(LookupBy::Utime(utime)),
                    _ => None,
                };
                Self::LookupBlock { mode, workchain, by }
            }
            LIST_BLOCK_TRANSACTIONS | LIST_BLOCK_TRANSACTIONS_EXT => {
                let id = r.block()?;
                let mode = r.u32()?;
                let count = r.u32()?;
                let after = if mode & 128 != 0 { Some((HashBytes(r.array()?), r.u64()?)) } else { None };
                let extended = method == LIST_BLOCK_TRANSACTIONS_EXT;
                Self::ListBlockTransactions { id, mode, count, after, extended }
            }
            0x911b_26b7 => Self::Config { mode: r.u32()?, id: r.block()?, wanted: None },
            0x2a11_1c19 => {
                let (mode, id) = (r.u32()?, r.block()?);
                let wanted = r.words()?.into_iter().map(u32::cast_signed).collect();
                Self::Config { mode, id, wanted: Some(wanted) }
            }
            0xd122_b662 => {
                let count = r.u32()? as usize;
                let hashes = r.take(count.checked_mul(32)?)?;
                Self::Libraries(hashes.chunks_exact(32).map(HashBytes::from_slice).collect())
            }
            _ => return None,
        })
    }
}

/// Builds an answer.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(constructor: u32) -> Self {
        Self(constructor.to_le_bytes().to_vec())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(if value { BOOL_TRUE } else { BOOL_FALSE });
    }

    pub(super) fn hash(&mut self, hash: &HashBytes) {
        self.raw(hash.as_slice());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let length = bytes.len();
        let header = if length < 254 {
            self.0.push(length as u8);
            1
        } else {
            self.raw(&[254, length as u8, (length >> 8) as u8, (length >> 16) as u8]);
            4
        };
        self.raw(bytes);
        let padding = (4 - (header + length) % 4) % 4;
        self.raw(&[0; 3][..padding]);
    }

    /// The id that names no block: the answer where a workchain or a shard does not exist.
    pub(super) fn no_block(&mut self) {
        self.u32(i32::MIN.cast_unsigned());
        self.raw(&[0; 8 + 4 + 32 + 32]);
    }

    pub(super) fn block(&mut self, id: &BlockId) {
        self.u32(id.shard.workchain().cast_unsigned());
        self.u64(id.shard.prefix());
        self.u32(id.seqno);
        self.hash(&id.root_hash);
        self.hash(&id.file_hash);
    }
}

const ADNL_QUERY: u32 = 0xb48b_f97a;
const ADNL_ANSWER: u32 = 0x0fac_8416;
const TCP_PING: u32 = 0x4d08_2b9a;
const TCP_PONG: u32 = 0xdc69_fb03;
const LITE_QUERY: u32 = 0x798c_06df;
const WAIT_MASTERCHAIN_SEQNO: u32 = 0xbaea_b892;
const BOOL_TRUE: u32 = 0x9972_75b5;
const BOOL_FALSE: u32 = 0xbc79_9737;
const GET_ACCOUNT_STATE: u32 = 0x6b89_0e25;
const GET_ACCOUNT_STATE_PRUNED: u32 = 0x5a69_8507;
const LIST_BLOCK_TRANSACTIONS: u32 = 0xadfc_c7da;
const LIST_BLOCK_TRANSACTIONS_EXT: u32 = 0x0079_dd5c;
const METHODS: [u32; 22] = [
    0x89b5_e62e,
    0x70a6_71df,
    0x16ad_5a34,
    0x232b_940b,
    0x6377_cf0d,
    0xba6e_2eb6,
    0x21ec_069e,
    0x690a_d482,
    GET_ACCOUNT_STATE,
    GET_ACCOUNT_STATE_PRUNED,
    0x5cc6_5dd2,
    0x46a2_f425,
    0x74d3_fd6b,
    0xd40f_24ea,
    0x1c40_e7a1,
    0xfac8_f71e,
    LIST_BLOCK_TRANSACTIONS,
    LIST_BLOCK_TRANSACTIONS_EXT,
    0x911b_26b7,
    0x2a11_1c19,
    0xd122_b662,
    WAIT_MASTERCHAIN_SEQNO,
];

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let [first] = self.array()?;
        let (header, length) = match first {
            255 => return None,
            254 => {
                let [a, b, c] = self.array()?;
                (4, u32::from_le_bytes([a, b, c, 0]) as usize)
            }
            short => (1, usize::from(short)),
        };
        let bytes = self.take(length)?;
        self.take((4 - (header + length) % 4) % 4)?;
        Some(bytes)
    }

    /// A vector of words: as many as there are bytes for, whatever it says of itself.
    fn words(&mut self) -> Option<Vec<u32>> {
        let count = self.u32()? as usize;
        let bytes = self.take(count.checked_mul(4)?)?;
        Some(
            bytes
                .chunks_exact(4)
                .filter_map(|word| Some(u32::from_le_bytes(word.try_into().ok()?)))
                .collect(),
        )
    }

    fn block(&mut self) -> Option<BlockIdExt> {
        Some(BlockIdExt {
            workchain: self.u32()?.cast_signed(),
            shard: self.u64()?,
            seqno: self.u32()?,
            root_hash: HashBytes(self.array()?),
            file_hash: HashBytes(self.array()?),
        })
    }

    fn account(&mut self) -> Option<AccountId> {
        Some(AccountId { workchain: self.u32()?.cast_signed(), id: HashBytes(self.array()?) })
    }
}

impl BlockIdExt {
    /// Whether it names `id`, hashes and all.
    pub(super) fn names(&self, id: &BlockId) -> bool {
        ShardIdent::new(self.workchain, self.shard) == Some(id.shard)
            && self.seqno == id.seqno
            && self.root_hash == id.root_hash
            && self.file_hash == id.file_hash
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_of_any_length_come_back() {
        for length in [0, 1, 3, 4, 253, 254, 255, 1000, 70_000] {
            let mut writer = Writer::new(1);
            writer.bytes(&vec![7; length]);
            assert_eq!(writer.0.len() % 4, 0);
            let mut reader = Reader(&writer.0);
            reader.u32().unwrap();
            assert_eq!(reader.bytes().unwrap(), vec![7; length]);
            assert!(reader.0.is_empty());
        }
    }

    #[test]
    fn a_wait_comes_before_its_request() {
        let mut data = WAIT_MASTERCHAIN_SEQNO.to_le_bytes().to_vec();
        data.extend([5, 0, 0, 0, 232, 3, 0, 0]);
        data.extend(0x89b5_e62e_u32.to_le_bytes());
        let query = Query::parse(&data).ok().unwrap();
        let wait = query.wait.unwrap();
        assert_eq!((wait.seqno, wait.timeout_ms), (5, 1000));
        assert!(matches!(query.request, Request::MasterchainInfo));
    }

    #[test]
    fn no_bytes_panic() {
        for method in METHODS {
            for length in 0..200 {
                let mut data = method.to_le_bytes().to_vec();
                data.extend(vec![0xff; length]);
                let _ = Query::parse(&data);
                let _ = Packet::parse(&data);
            }
        }
        assert!(matches!(Query::parse(&[1, 2, 3, 4]), Err(QueryError::UnknownMethod(_))));
        assert!(matches!(Query::parse(&[1]), Err(QueryError::Malformed)));
    }
}
