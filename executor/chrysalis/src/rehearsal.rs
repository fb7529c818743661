//! What a wallet's messages would cause, run here on the accounts as the chain has them. Nothing is sent.
//!
//! Gas is exact. Fees are those of the prices in the built-in mainnet-like config.

use std::collections::{HashMap, VecDeque};

use anyhow::{Context, bail};
use chain::trace::Step;
use chain::{AccountTx, ChainAccess, LiteserverChain, McBlock, Transfer, TxId, WalletSender};
use contracts::{Cell, HashBytes, StdAddr, artifacts};
use tvm_executor::{Environment, PrevBlocks, Vm};
use tycho_types::cell::Lazy;
use tycho_types::dict::Dict;
use tycho_types::models::{BlockId, LibDescr, Message, MsgInfo, OptionalAccount, ShardAccount, ShardIdent};

/// The wallet's transaction for `transfers` and all that it would cause, were it made now.
pub(crate) async fn rehearse(
    sender: &WalletSender<LiteserverChain>,
    network_id: i32,
    transfers: &[Transfer],
) -> anyhow::Result<Vec<Step>> {
    let (signed, before) = sender.prepare(transfers).await?;
    let chain = sender.chain();
    let head = chain.head().await?;
    let environment = Environment {
        utime: head.time_s,
        block_lt: before.map_or(0, |last| last.lt) + LT_OF_A_BLOCK,
        rand_seed: head.root_hash,
        prev_blocks: prev_blocks(chain, &head).await?,
        libraries: libraries()?,
    };
    let mut stage =
        Stage { vm: Vm::new(network_id)?, lt: environment.block_lt, environment, accounts: HashMap::new() };
    let mut steps = Vec::new();
    let mut waiting = VecDeque::from([(sender.wallet().address().clone(), signed.message, true)]);
    while let Some((to, message, external)) = waiting.pop_front() {
        if steps.len() == MOST_STEPS {
            bail!("the messages cause more than {MOST_STEPS} transactions");
        }
        if !stage.accounts.contains_key(&to) {
            let account = account(chain, &to, &head).await?;
            stage.accounts.insert(to.clone(), account);
        }
        let (transaction, sent) = stage.run(&to, &message, external)?;
        for message in sent {
            if let Some(to) = receiver(&message)? {
                waiting.push_back((to, message, false));
            }
        }
        steps.push(Step { account: to, transaction });
    }
    Ok(steps)
}

const MOST_STEPS: usize = 256;
const LT_OF_A_BLOCK: u64 = 1_000_000;
const BLOCKS_SEEN: u32 = 16;

struct Stage {
    vm: Vm,
    environment: Environment,
    lt: u64,
    accounts: HashMap<StdAddr, ShardAccount>,
}

impl Stage {
    fn run(
        &mut self,
        to: &StdAddr,
        message: &Cell,
        external: bool,
    ) -> anyhow::Result<(AccountTx, Vec<Cell>)> {
        let account = self.accounts.get(to).context("the account was not read")?;
        let min_lt = self.lt.max(account.last_trans_lt + 1);
        let done = self.vm.execute(&self.environment, min_lt, to, account, message, external)?;
        self.lt = done.next_lt;
        let cell = done.transaction.inner().clone();
        let id = TxId { lt: done.lt, hash: *cell.repr_hash() };
        let transaction = AccountTx { id, tx: done.transaction.load()?, cell };
        self.accounts.insert(to.clone(), done.account);
        Ok((transaction, done.out_messages))
    }
}

/// The codes of this release that contracts name by library cells, as the masterchain would publish them.
fn libraries() -> anyhow::Result<Option<Cell>> {
    let mut published = Dict::<HashBytes, LibDescr>::new();
    for lib in artifacts::libraries() {
        let mut publishers = Dict::new();
        // One is needed; who it is tells the VM nothing.
        publishers.set(HashBytes::ZERO, ())?;
        published.set(*lib.repr_hash(), LibDescr { lib, publishers })?;
    }
    Ok(published.into_root())
}

async fn account(chain: &LiteserverChain, address: &StdAddr, at: &McBlock) -> anyhow::Result<ShardAccount> {
    let view = chain.account(address, at).await?;
    Ok(ShardAccount {
        account: Lazy::new(&OptionalAccount(view.account))?,
        last_trans_hash: view.last.map_or(HashBytes::ZERO, |last| last.hash),
        last_trans_lt: view.last.map_or(0, |last| last.lt),
    })
}

async fn prev_blocks(chain: &LiteserverChain, head: &McBlock) -> anyhow::Result<PrevBlocks> {
    let last = head.seqno.saturating_sub(BLOCKS_SEEN - 1)..=head.seqno;
    let newest_hundred = head.seqno / 100;
    let hundreds = newest_hundred.saturating_sub(BLOCKS_SEEN - 1)..=newest_hundred;
    let mut known = HashMap::new();
    for seqno in last.chain(hundreds.map(|hundred| hundred * 100)).chain([0]) {
        known.insert(seqno, id_of(&chain.block(seqno).await?));
    }
    let key_block = *known.get(&0).context("the zero state was not read")?;
    let find = |seqno: u32| known.get(&seqno).copied().with_context(|| format!("block {seqno} was not read"));
    PrevBlocks::pick(head.seqno, key_block, find)
}

fn id_of(block: &McBlock) -> BlockId {
    BlockId {
        shard: ShardIdent::MASTERCHAIN,
        seqno: block.seqno,
        root_hash: block.root_hash,
        file_hash: block.file_hash,
    }
}

/// Where an internal message goes.
fn receiver(message: &Cell) -> anyhow::Result<Option<StdAddr>> {
    match message.parse::<Message<'_>>()?.info {
        MsgInfo::Int(info) => Ok(info.dst.as_std().cloned()),
        _ => Ok(None),
    }
}
