//! [`ChainAccess`] over ADNL liteservers: the same code for a local chain, the testnet and the mainnet.

mod proof;
mod query;
mod server;
mod servers;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep, timeout as limit, timeout_at};
use ton_liteapi::tl::common::Int256;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::StdAddr;

pub use server::Endpoint;
pub use servers::Timing;

use crate::access::{AccountTx, AccountView, ChainAccess, McBlock, TxId};
use crate::config::GlobalConfig;
use crate::error::ChainError;
use crate::history::{self, Walk};
use crate::stack::{GetterResult, StackValue, decode_stack, encode_stack, method_id};
use query::MASTERCHAIN;
use server::{MAX_LONG_POLLS, SERVER_WAIT};
use servers::Servers;

/// Chain access through the liteservers of a [`GlobalConfig`].
///
/// Answers are checked against the root hash of the masterchain block they are asked for; that validators
/// signed that block is not checked. Connections are made when first needed and made again when lost.
pub struct LiteserverChain {
    servers: Servers,
    newest: Mutex<Option<McBlock>>,
    /// Taken in turns by all who wait for a block, however many.
    long_polls: Semaphore,
}

impl LiteserverChain {
    /// Prepares access; connects on the first query.
    pub fn new(config: &GlobalConfig, timing: Timing) -> Self {
        Self {
            servers: Servers::new(&config.liteservers, timing),
            newest: Mutex::default(),
            long_polls: Semaphore::new(MAX_LONG_POLLS),
        }
    }

    async fn lookup(&self, seqno: u32, wait: bool) -> Result<McBlock, ChainError> {
        let query = query::lookup_masterchain_block(seqno, wait);
        let answer = self.servers.read(&query).await?;
        let bad = |detail: String| ChainError::BadAnswer { request: query.name, detail };
        let id = answer.id;
        if (id.workchain, id.shard) != MASTERCHAIN || id.seqno != seqno {
            return Err(bad(format!("it names block {} of workchain {}", id.seqno, id.workchain)));
        }
        let root_hash = hash(&id.root_hash);
        let (time_s, proven_seqno) =
            proof::block_header(&answer.header_proof, &root_hash).map_err(|error| bad(error.to_string()))?;
        if proven_seqno != seqno {
            return Err(bad(format!("its proof is of block {proven_seqno}")));
        }
        Ok(McBlock { seqno, root_hash, file_hash: hash(&id.file_hash), time_s })
    }

    async fn page(&self, address: &StdAddr, from: TxId) -> Result<Vec<AccountTx>, ChainError> {
        let query = query::transactions(address, from.lt, &from.hash, TRANSACTIONS_A_PAGE);
        let answer = self.servers.read(&query).await?;
        let bad = |detail: String| ChainError::BadAnswer { request: query.name, detail };
        let cells = proof::decode_roots_up_to(&answer.transactions, TRANSACTIONS_A_PAGE as usize)
            .map_err(|error| bad(error.to_string()))?;
        if cells.is_empty() {
            return Err(ChainError::HistoryMismatch { cursor: from });
        }
        history::check_page(&address.address, from, &cells).map_err(|error| bad(error.to_string()))
    }
}

/// What a liteserver of the reference node gives at most.
const TRANSACTIONS_A_PAGE: u32 = 16;
const WAIT: &str = "waitMasterchainSeqno";
/// For servers that answer "not yet" at once instead of waiting.
const POLL_EVERY: Duration = Duration::from_millis(200);

#[async_trait]
impl ChainAccess for LiteserverChain {
    async fn head(&self) -> Result<McBlock, ChainError> {
        let query = query::masterchain_info();
        let last = self.servers.read(&query).await?.last;
        let bad = |detail: &str| ChainError::BadAnswer { request: query.name, detail: detail.into() };
        if (last.workchain, last.shard) != MASTERCHAIN {
            return Err(bad("its last block is not of the masterchain"));
        }
        let mut newest = self.newest.lock().await;
        if let Some(known) = *newest
            && known.root_hash == hash(&last.root_hash)
        {
            return Ok(known);
        }
        let block = self.lookup(last.seqno, false).await?;
        if block.root_hash != hash(&last.root_hash) {
            return Err(bad("two different blocks of one sequence number"));
        }
        *newest = Some(block);
        Ok(block)
    }

    async fn wait_block(&self, seqno: u32, timeout: Duration) -> Result<McBlock, ChainError> {
        let deadline = Instant::now() + timeout;
        let late = || ChainError::Timeout { request: WAIT, timeout };
        loop {
            let turn = timeout_at(deadline, self.long_polls.acquire()).await.map_err(|_| late())?;
            let asked_at = Instant::now();
            let left = deadline.saturating_duration_since(asked_at);
            let lookup = self.lookup(seqno, true);
            let found = if left < SERVER_WAIT {
                limit(left, lookup).await.unwrap_or_else(|_| Err(late()))
            } else {
                lookup.await
            };
            drop(turn);
            match found {
                Err(ChainError::Server { .. }) if Instant::now() < deadline => {
                    sleep(POLL_EVERY.saturating_sub(asked_at.elapsed())).await;
                }
                Err(ChainError::Server { .. }) => return Err(late()),
                done => return done,
            }
        }
    }

    async fn block(&self, seqno: u32) -> Result<McBlock, ChainError> {
        if seqno > 0 {
            return self.lookup(seqno, false).await;
        }
        // Servers look no zero state up, but name it.
        let zero = self.servers.read(&query::masterchain_info()).await?.init;
        Ok(McBlock { seqno, root_hash: hash(&zero.root_hash), file_hash: hash(&zero.file_hash), time_s: 0 })
    }

    async fn account(&self, address: &StdAddr, at: &McBlock) -> Result<AccountView, ChainError> {
        let query = query::account_state(at, address);
        let answer = self.servers.read(&query).await?;
        let bad = |detail: String| ChainError::BadAnswer { request: query.name, detail };
        if answer.id != query::block_id(at) {
            return Err(bad(format!("as of block {}, not {}", answer.id.seqno, at.seqno)));
        }
        let (account, last) = proof::account(&answer, address).map_err(|error| bad(error.to_string()))?;
        Ok(AccountView { address: address.clone(), as_of: *at, account, last })
    }

    async fn transactions(
        &self,
        address: &StdAddr,
        newest: TxId,
        until: Option<TxId>,
        max: usize,
    ) -> Result<Vec<AccountTx>, ChainError> {
        if until == Some(newest) {
            return Ok(Vec::new());
        }
        let mut found: Vec<AccountTx> = Vec::new();
        let mut from = newest;
        loop {
            for transaction in self.page(address, from).await? {
                if found.len() == max {
                    return Err(ChainError::HistoryTooLong { max });
                }
                let step = history::next_step(&transaction, until);
                found.push(transaction);
                match step {
                    Walk::From(previous) => from = previous,
                    Walk::Done => {
                        found.reverse();
                        return Ok(found);
                    }
                    Walk::Missed => {
                        return Err(ChainError::HistoryMismatch { cursor: until.unwrap_or(newest) });
                    }
                }
            }
        }
    }

    async fn latest_transactions(
        &self,
        address: &StdAddr,
        newest: TxId,
        count: usize,
    ) -> Result<Vec<AccountTx>, ChainError> {
        let mut found: Vec<AccountTx> = Vec::new();
        let mut from = Some(newest);
        while let Some(next) = from
            && found.len() < count
        {
            found.extend(self.page(address, next).await?);
            from = found.last().and_then(AccountTx::previous);
        }
        found.truncate(count);
        Ok(found)
    }

    async fn run_getter(
        &self,
        address: &StdAddr,
        method: &str,
        arguments: &[StackValue],
        at: &McBlock,
    ) -> Result<GetterResult, ChainError> {
        let stack = Boc::encode(encode_stack(arguments)?);
        let query = query::run_method(at, address, method_id(method), stack);
        let answer = self.servers.read(&query).await?;
        let bad = |detail: String| ChainError::BadAnswer { request: query.name, detail };
        if answer.id != query::block_id(at) {
            return Err(bad(format!("as of block {}, not {}", answer.id.seqno, at.seqno)));
        }
        let exit_code = answer.exit_code;
        let stack = match &answer.result {
            Some(boc) if !boc.is_empty() && matches!(exit_code, 0 | 1) => {
                let root = Boc::decode(boc).map_err(|error| bad(error.to_string()))?;
                decode_stack(&root).map_err(|error| bad(error.to_string()))?
            }
            _ => Vec::new(),
        };
        Ok(GetterResult { exit_code, stack })
    }

    async fn send_external(&self, message: &Cell) -> Result<(), ChainError> {
        match self.servers.send_once(&query::send_message(Boc::encode(message))).await {
            Ok(_) => Ok(()),
            Err(ChainError::Server { message, .. }) => {
                Err(ChainError::Refused { exit_code: exit_code_in(&message), message })
            }
            Err(error) => Err(error),
        }
    }
}

fn hash(bytes: &Int256) -> HashBytes {
    HashBytes(bytes.0)
}

/// The reference node words a refusal `… exitcode=133, steps=…`.
fn exit_code_in(message: &str) -> Option<i32> {
    let (_, after) = message.split_once("exitcode=")?;
    let digits: String = after.chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use localnet::{BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions};
    use ton_liteapi::tl::response::{AccountState, BlockHeader};

    use super::*;

    #[test]
    fn the_exit_code_is_found_in_a_refusal() {
        let words = "cannot apply external message to current state : inbound external message rejected by \
                     transaction AB: exitcode=133, steps=14, gas_used=0";
        assert_eq!(exit_code_in(words), Some(133));
        assert_eq!(exit_code_in("exitcode=-14"), Some(-14));
        assert_eq!(exit_code_in("too big"), None);
    }

    /// Real answers of the local chain, every byte of them changed in turn: none may pass for another
    /// account, block or state, and none may panic.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_changed_byte_of_an_answer_is_believed() {
        let mode = BlockMode::OnDemand;
        let handle = LocalnetHandle::new(LocalnetOptions::default(), mode, Clock::Virtual).unwrap();
        let (giver, payee) = (handle.read(|chain| chain.giver().clone()), StdAddr::new(0, [5; 32].into()));
        handle.give(&payee, 1_000_000_000).unwrap();
        let server = Liteserver::bind_local(handle.clone()).await.unwrap();
        let config = GlobalConfig::from_json(&server.global_config_json().unwrap()).unwrap();
        tokio::spawn(server.serve());
        let chain = LiteserverChain::new(&config, Timing::default());
        let head = chain.head().await.unwrap();
        let absent = StdAddr::new(0, [6; 32].into());
        for address in [giver, payee, absent] {
            let view = chain.account(&address, &head).await.unwrap();
            let answer = chain.servers.read(&query::account_state(&head, &address)).await.unwrap();
            for (at, changed) in changes(tl_proto::serialize(&answer)) {
                let Ok(answer) = tl_proto::deserialize::<AccountState>(&changed) else { continue };
                if answer.id != query::block_id(&head) {
                    continue;
                }
                if let Ok((account, last)) = proof::account(&answer, &address) {
                    assert_eq!((&account, last), (&view.account, view.last), "byte {at} of {address}");
                }
            }
        }
        let answer = chain.servers.read(&query::lookup_masterchain_block(head.seqno, false)).await.unwrap();
        for (at, changed) in changes(tl_proto::serialize(&answer)) {
            let Ok(answer) = tl_proto::deserialize::<BlockHeader>(&changed) else { continue };
            if let Ok(header) = proof::block_header(&answer.header_proof, &head.root_hash) {
                assert_eq!(header, (head.time_s, head.seqno), "byte {at}");
            }
        }
    }

    /// The bytes with one bit of each byte in turn changed.
    fn changes(bytes: Vec<u8>) -> impl Iterator<Item = (usize, Vec<u8>)> {
        (0..bytes.len()).map(move |at| {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            (at, changed)
        })
    }
}
