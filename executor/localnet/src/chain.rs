//! The chain itself: pure, synchronous, and the same for the same inputs. Time comes in with each block.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};
use tycho_types::cell::{Cell, HashBytes, Lazy, Load};
use tycho_types::dict::AugDict;
use tycho_types::models::{
    AccountBlock, AccountBlocks, BlockId, BlockRef, CurrencyCollection, DepthBalanceInfo, HashUpdate,
    KeyBlockRef, KeyMaxLt, MsgInfo, OptionalAccount, ShardAccount, ShardAccounts, ShardHashes, ShardIdent,
    StdAddr, Transaction, ValueFlow,
};

use crate::block::{self, Contents, Header, MasterExtra, OldMcBlocks};
use crate::error::LocalnetError;
use crate::genesis;
use crate::libraries::{self, PublicLibraries};
use crate::options::LocalnetOptions;
use crate::pool::{ExternalMessage, Pool};
use tvm_executor::{Environment, Executed, GetterOutput, PrevBlocks, Vm};

/// A local chain: a masterchain and a basechain of one shard each.
pub struct Localnet {
    options: LocalnetOptions,
    vm: Vm,
    giver: StdAddr,
    masterchain: Shard,
    basechain: Shard,
    shards: ShardHashes,
    prev_blocks: OldMcBlocks,
    /// As of the newest masterchain block.
    libraries: PublicLibraries,
    pool: Pool,
    history: HashMap<StdAddr, Vec<TransactionRecord>>,
    collected_fees_nanoton: u128,
    burned_nanoton: u128,
    stuck_nanoton: u128,
    given: u64,
}

/// A block of the local chain.
#[derive(Debug, Clone)]
pub struct BlockRecord {
    /// Its id.
    pub id: BlockId,
    /// When it was made, Unix seconds.
    pub utime_s: u32,
    /// Logical time before its first transaction.
    pub start_lt: u64,
    /// Logical time after its last.
    pub end_lt: u64,
    /// For a masterchain block, the basechain block it names.
    pub basechain_seqno: u32,
    /// Its transactions in the order they ran: account and logical time.
    pub transactions: Vec<(StdAddr, u64)>,
    /// Its cell; `None` for a zero state and for blocks no longer kept.
    pub block: Option<Cell>,
    /// The cell of the state after it; `None` where no longer kept.
    pub state: Option<Cell>,
}

/// A transaction of an account.
#[derive(Debug, Clone)]
pub struct TransactionRecord {
    /// Its account.
    pub account: StdAddr,
    /// Logical time.
    pub lt: u64,
    /// Hash of its cell.
    pub hash: HashBytes,
    /// Its cell.
    pub cell: Cell,
    /// The block, of the account's chain, that holds it.
    pub block_seqno: u32,
    /// When it ran, Unix seconds.
    pub utime_s: u32,
}

impl TransactionRecord {
    /// The transaction, parsed.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn load(&self) -> Result<Transaction, LocalnetError> {
        Ok(self.cell.parse()?)
    }
}

/// Where every nanoton is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supply {
    /// On accounts.
    pub accounts_nanoton: u128,
    /// In messages under way, with the forwarding fees they carry.
    pub messages_nanoton: u128,
    /// Fees collected since the zero state; they lie on no account.
    pub fees_nanoton: u128,
    /// Burned since the zero state.
    pub burned_nanoton: u128,
    /// In messages that the virtual machine could not run (a fault of the local chain).
    pub stuck_nanoton: u128,
}

impl Supply {
    /// The sum, which is the supply of the zero state at any time.
    pub fn total_nanoton(&self) -> u128 {
        self.accounts_nanoton
            + self.messages_nanoton
            + self.fees_nanoton
            + self.burned_nanoton
            + self.stuck_nanoton
    }
}

/// What one call of [`Localnet::produce_block`] made.
#[derive(Debug, Clone)]
pub struct Produced {
    /// The masterchain block.
    pub masterchain: BlockId,
    /// The basechain block it names.
    pub basechain: BlockId,
    /// Transactions in both.
    pub transactions: usize,
    /// Hashes of external messages that were taken from the pool and ran into a refusal, with why.
    pub dropped: Vec<(HashBytes, String)>,
}

impl Localnet {
    /// A chain with its zero state.
    ///
    /// # Errors
    /// [`LocalnetError::Options`].
    pub fn new(options: LocalnetOptions) -> Result<Self, LocalnetError> {
        check(&options)?;
        let vm = Vm::new(options.global_id)?;
        let (giver, giver_account) = genesis::giver(options.supply_nanoton, options.genesis_utime_s)?;
        let mut basechain = Shard::new(ShardIdent::BASECHAIN);
        basechain.set_account(&giver.address, &giver_account, options.supply_nanoton)?;
        let mut chain = Self {
            vm,
            giver,
            masterchain: Shard::new(ShardIdent::MASTERCHAIN),
            basechain,
            shards: ShardHashes::default(),
            prev_blocks: AugDict::new(),
            libraries: PublicLibraries::new(),
            pool: Pool::new(options.max_pool),
            history: HashMap::new(),
            collected_fees_nanoton: 0,
            burned_nanoton: 0,
            stuck_nanoton: 0,
            given: 0,
            options,
        };
        chain.make_zero_states()?;
        Ok(chain)
    }

    /// The options it was started with.
    pub fn options(&self) -> &LocalnetOptions {
        &self.options
    }

    /// The account that holds what nobody was given yet.
    pub fn giver(&self) -> &StdAddr {
        &self.giver
    }

    /// Takes an external message into the pool, once the account accepts it as things stand at `utime_s`.
    ///
    /// `false` where the same message waits already.
    ///
    /// # Errors
    /// [`LocalnetError::NotAccepted`], [`LocalnetError::NoCode`], [`LocalnetError::PoolFull`].
    pub fn send(&mut self, message: ExternalMessage, utime_s: u32) -> Result<bool, LocalnetError> {
        if self.pool.contains(&message.hash()) {
            return Ok(false);
        }
        let account = self.shard(message.destination.workchain).account(&message.destination.address)?;
        let environment = self.next_environment(message.destination.workchain, utime_s)?;
        self.vm
            .check_external(&environment, &message.destination, &account, &message.cell)
            .map_err(|error| LocalnetError::of_vm(error, &message.destination))?;
        self.take(message)
    }

    /// Takes a message that [`Localnet::send`] took in an earlier life of this chain.
    pub(crate) fn restore(&mut self, message: ExternalMessage) -> Result<(), LocalnetError> {
        self.take(message).map(|_| ())
    }

    fn take(&mut self, message: ExternalMessage) -> Result<bool, LocalnetError> {
        let asks_giver = message.destination == self.giver;
        let fresh = self.pool.push(message)?;
        self.given += u64::from(fresh && asks_giver);
        Ok(fresh)
    }

    /// Has the giver send `amount_nanoton` to `destination`, in the next block, without bouncing; the external message
    /// that asks it to, which waits in the pool.
    ///
    /// # Errors
    /// [`LocalnetError::BadRequest`] when the giver does not have that much, and as [`Localnet::send`].
    pub fn give(
        &mut self,
        destination: &StdAddr,
        amount_nanoton: u128,
        utime_s: u32,
    ) -> Result<ExternalMessage, LocalnetError> {
        let left = self.account(&self.giver)?.account.load()?.balance().tokens.into_inner();
        if amount_nanoton.saturating_add(GIVER_RESERVE_NANOTON) > left {
            return Err(LocalnetError::BadRequest(format!(
                "the giver has {left} nanoton, less than {amount_nanoton} and its fees"
            )));
        }
        if !matches!(destination.workchain, -1 | 0) {
            return Err(LocalnetError::BadRequest(format!("no such chain as that of {destination}")));
        }
        let cell = genesis::giver_request(&self.giver, destination, amount_nanoton, self.given)?;
        let message = ExternalMessage::from_cell(cell)?;
        self.send(message.clone(), utime_s)?;
        Ok(message)
    }

    /// Makes one block of the basechain and one of the masterchain, at `utime_s` or at the time of the newest block
    /// if that is later.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn produce_block(&mut self, utime_s: u32) -> Result<Produced, LocalnetError> {
        let utime = utime_s.max(self.masterchain.newest().utime_s);
        let mut dropped = Vec::new();
        let basechain = self.collate(0, utime, &mut dropped)?;
        let masterchain = self.collate(-1, utime, &mut dropped)?;
        let transactions =
            self.basechain.newest().transactions.len() + self.masterchain.newest().transactions.len();
        self.forget_old_blocks();
        Ok(Produced { masterchain, basechain, transactions, dropped })
    }

    /// Whether messages wait for a block.
    pub fn has_work(&self) -> bool {
        self.pool.len() > 0 || !self.basechain.inbound.is_empty() || !self.masterchain.inbound.is_empty()
    }

    /// External messages that wait.
    pub fn pool_len(&self) -> usize {
        self.pool.len()
    }

    /// The newest masterchain block.
    pub fn newest(&self) -> &BlockRecord {
        self.masterchain.newest()
    }

    /// A block of a chain (−1 or 0) by its sequence number.
    ///
    /// # Errors
    /// [`LocalnetError::UnknownBlock`].
    pub fn block(&self, workchain: i32, seqno: u32) -> Result<&BlockRecord, LocalnetError> {
        let newest = self.masterchain.newest().id.seqno;
        let unknown = LocalnetError::UnknownBlock { workchain, seqno, oldest: 0, newest };
        let shard = match workchain {
            -1 => &self.masterchain,
            0 => &self.basechain,
            _ => return Err(unknown),
        };
        shard.blocks.get(seqno as usize).ok_or(unknown)
    }

    /// All blocks of a chain (−1 or 0), by sequence number; the first is the zero state.
    pub fn blocks(&self, workchain: i32) -> &[BlockRecord] {
        match workchain {
            -1 => &self.masterchain.blocks,
            0 => &self.basechain.blocks,
            _ => &[],
        }
    }

    /// An account as of the newest block. One that does not exist is empty.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn account(&self, address: &StdAddr) -> Result<ShardAccount, LocalnetError> {
        self.shard(address.workchain).account(&address.address)
    }

    /// An account as of a masterchain block.
    ///
    /// # Errors
    /// [`LocalnetError::UnknownBlock`] where the state is no longer kept.
    pub fn account_at(&self, address: &StdAddr, mc_seqno: u32) -> Result<ShardAccount, LocalnetError> {
        let (_, state) = self.state_at(address.workchain.into(), mc_seqno)?;
        find_account(&accounts_of(&state)?, &address.address)
    }

    /// The block of `workchain` that the masterchain block `mc_seqno` names (itself, for the masterchain), and the
    /// state after it.
    ///
    /// # Errors
    /// [`LocalnetError::UnknownBlock`] where it does not exist or is no longer kept.
    pub fn state_at(&self, workchain: i32, mc_seqno: u32) -> Result<(&BlockRecord, Cell), LocalnetError> {
        let master = self.block(-1, mc_seqno)?;
        let seqno = if workchain == -1 { mc_seqno } else { master.basechain_seqno };
        let record = self.block(workchain, seqno)?;
        let state = record.state.clone().ok_or_else(|| LocalnetError::UnknownBlock {
            workchain,
            seqno,
            oldest: self.oldest_kept(),
            newest: self.masterchain.newest().id.seqno,
        })?;
        Ok((record, state))
    }

    /// All transactions of an account, oldest first.
    pub fn transactions(&self, address: &StdAddr) -> &[TransactionRecord] {
        self.history.get(address).map_or(&[], Vec::as_slice)
    }

    /// One transaction of an account by its logical time.
    pub fn transaction(&self, address: &StdAddr, lt: u64) -> Option<&TransactionRecord> {
        let all = self.transactions(address);
        all.binary_search_by_key(&lt, |record| record.lt).ok().and_then(|at| all.get(at))
    }

    /// What a get-method needs, so that it can run while the chain goes on: the account's state and its environment.
    ///
    /// # Errors
    /// [`LocalnetError::UnknownBlock`] where the state is no longer kept.
    pub fn run_getter(
        &self,
        address: &StdAddr,
        method_id: u32,
        stack: &Cell,
        mc_seqno: u32,
    ) -> Result<GetterOutput, LocalnetError> {
        let shard_account = self.account_at(address, mc_seqno)?;
        let OptionalAccount(account) = shard_account.account.load()?;
        let Some(account) = account else {
            return Ok(self.vm.no_code()?);
        };
        let master = self.block(-1, mc_seqno)?;
        let environment = Environment {
            utime: master.utime_s,
            block_lt: master.end_lt,
            rand_seed: self.rand_seed(address.workchain.into(), mc_seqno),
            prev_blocks: self.prev_blocks_at(mc_seqno)?,
            libraries: self.libraries_at(mc_seqno)?.into_root(),
        };
        Ok(self.vm.run_getter(&environment, &account, method_id, stack)?)
    }

    /// A library that accounts of the masterchain publish as of the newest block, by its hash.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn library(&self, hash: &HashBytes) -> Result<Option<Cell>, LocalnetError> {
        Ok(self.libraries.get(hash)?.map(|library| library.lib))
    }

    /// Runs an external message against the account as it stands, without keeping anything: what it would cost. With
    /// `any_signature` the account's code finds every signature good.
    ///
    /// # Errors
    /// As [`Localnet::send`].
    pub fn dry_run(
        &self,
        message: &ExternalMessage,
        utime_s: u32,
        any_signature: bool,
    ) -> Result<Transaction, LocalnetError> {
        let address = &message.destination;
        let account = self.account(address)?;
        let environment = self.next_environment(address.workchain, utime_s)?;
        let executed = self
            .vm
            .dry_run(&environment, address, &account, &message.cell, any_signature)
            .map_err(|error| LocalnetError::of_vm(error, address))?;
        Ok(executed.transaction.load()?)
    }

    /// The blockchain config of this network.
    pub fn config(&self) -> &tycho_types::models::BlockchainConfig {
        self.vm.config()
    }

    /// Where every nanoton is now.
    ///
    /// # Errors
    /// [`LocalnetError::Cell`], which would be a fault of the local chain.
    pub fn supply(&self) -> Result<Supply, LocalnetError> {
        let mut messages_nanoton = 0;
        for shard in [&self.basechain, &self.masterchain] {
            for message in shard.inbound.values() {
                messages_nanoton += message.value_nanoton + message.fwd_fee_nanoton;
            }
        }
        Ok(Supply {
            accounts_nanoton: self.basechain.balance() + self.masterchain.balance(),
            messages_nanoton,
            fees_nanoton: self.collected_fees_nanoton,
            burned_nanoton: self.burned_nanoton,
            stuck_nanoton: self.stuck_nanoton,
        })
    }
}

/// Two logical times of different blocks differ in more than their last six digits.
const LT_ALIGN: u64 = 1_000_000;
/// What the giver keeps to pay its fees.
const GIVER_RESERVE_NANOTON: u128 = 1_000_000_000;

/// An internal message under way.
#[derive(Debug, Clone)]
struct InternalMessage {
    destination: StdAddr,
    value_nanoton: u128,
    fwd_fee_nanoton: u128,
    cell: Cell,
}

/// Messages in the order they are delivered: by logical time, then hash.
type Messages = BTreeMap<(u64, HashBytes), InternalMessage>;

struct Shard {
    ident: ShardIdent,
    accounts: ShardAccounts,
    /// Messages for this chain that no block has taken yet.
    inbound: Messages,
    blocks: Vec<BlockRecord>,
}

impl Shard {
    fn new(ident: ShardIdent) -> Self {
        Self { ident, accounts: AugDict::new(), inbound: Messages::new(), blocks: Vec::new() }
    }

    /// Every chain has its zero state before anything reads it.
    fn newest(&self) -> &BlockRecord {
        self.blocks.last().unwrap_or_else(|| unreachable!("a chain begins with its zero state"))
    }

    fn balance(&self) -> u128 {
        self.accounts.root_extra().balance.tokens.into_inner()
    }

    fn account(&self, address: &HashBytes) -> Result<ShardAccount, LocalnetError> {
        find_account(&self.accounts, address)
    }

    fn set_account(
        &mut self,
        address: &HashBytes,
        account: &ShardAccount,
        balance_nanoton: u128,
    ) -> Result<(), LocalnetError> {
        let extra = DepthBalanceInfo { split_depth: 0, balance: CurrencyCollection::new(balance_nanoton) };
        self.accounts.set(address, &extra, account)?;
        Ok(())
    }
}

/// What collating one block gathers.
struct Collation {
    workchain: i8,
    environment: Environment,
    start_lt: u64,
    end_lt: u64,
    last_internal_lt: u64,
    transactions: Vec<(StdAddr, u64)>,
    by_account: BTreeMap<HashBytes, Touched>,
    fresh: Messages,
    imported_nanoton: u128,
    exported_nanoton: u128,
    fees_nanoton: u128,
    burned_nanoton: u128,
    /// The public libraries after it.
    libraries: PublicLibraries,
}

struct Touched {
    state_before: HashBytes,
    state_after: HashBytes,
    transactions: Vec<(u64, u128, Lazy<Transaction>)>,
}

impl Localnet {
    fn shard(&self, workchain: i8) -> &Shard {
        if workchain == -1 { &self.masterchain } else { &self.basechain }
    }

    fn shard_mut(&mut self, workchain: i8) -> &mut Shard {
        if workchain == -1 { &mut self.masterchain } else { &mut self.basechain }
    }

    fn make_zero_states(&mut self) -> Result<(), LocalnetError> {
        for workchain in [0, -1] {
            let shard = self.shard(workchain);
            let header = Header {
                global_id: self.options.global_id,
                shard: shard.ident,
                seqno: 0,
                utime: self.options.genesis_utime_s,
                start_lt: 0,
                end_lt: 0,
                rand_seed: HashBytes::ZERO,
                prev: BlockRef {
                    end_lt: 0,
                    seqno: 0,
                    root_hash: HashBytes::ZERO,
                    file_hash: HashBytes::ZERO,
                },
                master: None,
            };
            let extra = self.master_extra()?;
            let state = block::build_state(&header, &shard.accounts, 0, (workchain == -1).then_some(&extra))?;
            let id = BlockId {
                shard: header.shard,
                seqno: 0,
                root_hash: *state.repr_hash(),
                file_hash: genesis::file_hash(&state),
            };
            if workchain == 0 {
                self.shards = block::shard_hashes(&id, &header, 0)?;
            }
            self.shard_mut(workchain).blocks.push(BlockRecord {
                id,
                utime_s: header.utime,
                start_lt: 0,
                end_lt: 0,
                basechain_seqno: 0,
                transactions: Vec::new(),
                block: None,
                state: Some(state),
            });
        }
        Ok(())
    }

    fn master_extra(&self) -> Result<MasterExtra, LocalnetError> {
        let balance = self.basechain.balance() + self.masterchain.balance();
        Ok(MasterExtra {
            shards: self.shards.clone(),
            config: self.vm.config().clone(),
            prev_blocks: self.prev_blocks.clone(),
            global_balance: CurrencyCollection::new(balance),
            libraries: self.libraries.clone(),
        })
    }

    fn rand_seed(&self, workchain: i32, seqno: u32) -> HashBytes {
        let mut hasher = Sha256::new();
        hasher.update(self.options.seed);
        hasher.update(workchain.to_be_bytes());
        hasher.update(seqno.to_be_bytes());
        HashBytes(hasher.finalize().into())
    }

    /// The environment of the block that comes next.
    fn next_environment(&self, workchain: i8, utime_s: u32) -> Result<Environment, LocalnetError> {
        let shard = self.shard(workchain);
        let newest_mc = self.masterchain.newest();
        let newest_end = newest_mc.end_lt.max(self.basechain.newest().end_lt);
        Ok(Environment {
            utime: utime_s.max(newest_mc.utime_s),
            block_lt: (newest_end / LT_ALIGN + 1) * LT_ALIGN,
            rand_seed: self.rand_seed(workchain.into(), shard.newest().id.seqno + 1),
            prev_blocks: self.prev_blocks_at(newest_mc.id.seqno)?,
            libraries: self.libraries.root().clone(),
        })
    }

    fn libraries_at(&self, mc_seqno: u32) -> Result<PublicLibraries, LocalnetError> {
        if mc_seqno == self.masterchain.newest().id.seqno {
            return Ok(self.libraries.clone());
        }
        let (_, state) = self.state_at(-1, mc_seqno)?;
        Ok(libraries::of_state(&state)?)
    }

    /// What code sees of the masterchain where `mc_seqno` is its newest block. No block here is a key block but the
    /// zero state.
    fn prev_blocks_at(&self, mc_seqno: u32) -> Result<PrevBlocks, LocalnetError> {
        let zero_state = self.block(-1, 0)?.id;
        PrevBlocks::pick(mc_seqno, zero_state, |seqno| Ok(self.block(-1, seqno)?.id))
    }

    fn collate(
        &mut self,
        workchain: i8,
        utime: u32,
        dropped: &mut Vec<(HashBytes, String)>,
    ) -> Result<BlockId, LocalnetError> {
        let environment = self.next_environment(workchain, utime)?;
        let start_lt = environment.block_lt;
        let mut collation = Collation {
            workchain,
            environment,
            start_lt,
            end_lt: start_lt + 1,
            last_internal_lt: 0,
            transactions: Vec::new(),
            by_account: BTreeMap::new(),
            fresh: Messages::new(),
            imported_nanoton: 0,
            exported_nanoton: 0,
            fees_nanoton: 0,
            burned_nanoton: 0,
            libraries: self.libraries.clone(),
        };
        let balance_before = self.shard(workchain).balance();
        let limit = self.options.max_block_transactions;

        while collation.transactions.len() < limit
            && let Some((key, message)) = self.shard_mut(workchain).inbound.pop_first()
        {
            collation.imported_nanoton += message.value_nanoton + message.fwd_fee_nanoton;
            self.deliver(&mut collation, key, message)?;
        }
        while collation.transactions.len() < limit
            && let Some(message) = self.pool.pop(workchain)
        {
            if let Err(error) = self.run_external(&mut collation, &message) {
                tracing::debug!(message = %message.hash(), %error, "an external message was dropped");
                dropped.push((message.hash(), error.to_string()));
            }
        }
        while collation.transactions.len() < limit
            && let Some((key, message)) = collation.fresh.pop_first()
        {
            self.deliver(&mut collation, key, message)?;
        }
        let left = std::mem::take(&mut collation.fresh);
        for message in left.values() {
            collation.exported_nanoton += message.value_nanoton + message.fwd_fee_nanoton;
        }
        self.shard_mut(workchain).inbound.extend(left);
        self.seal(collation, balance_before)
    }

    /// Runs an internal message. One that the virtual machine fails on is put aside, its value counted as stuck.
    fn deliver(
        &mut self,
        collation: &mut Collation,
        (lt, hash): (u64, HashBytes),
        message: InternalMessage,
    ) -> Result<(), LocalnetError> {
        collation.last_internal_lt = collation.last_internal_lt.max(lt);
        let account = self.shard(collation.workchain).account(&message.destination.address)?;
        let ran = self.vm.execute(
            &collation.environment,
            collation.start_lt,
            &message.destination,
            &account,
            &message.cell,
            false,
        );
        match ran {
            Ok(executed) => {
                collation.fees_nanoton += message.fwd_fee_nanoton;
                self.collected_fees_nanoton += message.fwd_fee_nanoton;
                self.keep(collation, &message.destination, &account, executed)
            }
            Err(error) => {
                tracing::error!(message = %hash, account = %message.destination, %error, "a message is stuck");
                self.stuck_nanoton += message.value_nanoton + message.fwd_fee_nanoton;
                collation.exported_nanoton += message.value_nanoton + message.fwd_fee_nanoton;
                Ok(())
            }
        }
    }

    fn run_external(
        &mut self,
        collation: &mut Collation,
        message: &ExternalMessage,
    ) -> Result<(), LocalnetError> {
        let address = &message.destination;
        let account = self.shard(collation.workchain).account(&address.address)?;
        let min_lt = collation.start_lt.max(collation.last_internal_lt);
        let executed = self
            .vm
            .execute(&collation.environment, min_lt, address, &account, &message.cell, true)
            .map_err(|error| LocalnetError::of_vm(error, address))?;
        self.keep(collation, address, &account, executed)
    }

    fn keep(
        &mut self,
        collation: &mut Collation,
        address: &StdAddr,
        before: &ShardAccount,
        executed: Executed,
    ) -> Result<(), LocalnetError> {
        let shard = self.shard_mut(collation.workchain);
        if executed.exists {
            shard.set_account(&address.address, &executed.account, executed.balance_nanoton)?;
        } else {
            shard.accounts.remove(address.address)?;
        }
        if collation.workchain == -1 {
            libraries::update(&mut collation.libraries, &address.address, before, &executed.account)?;
        }
        for cell in executed.out_messages {
            if let Some((lt, message)) = internal(cell)? {
                let key = (lt, *message.cell.repr_hash());
                if message.destination.workchain == collation.workchain {
                    collation.fresh.insert(key, message);
                } else {
                    collation.exported_nanoton += message.value_nanoton + message.fwd_fee_nanoton;
                    self.shard_mut(message.destination.workchain).inbound.insert(key, message);
                }
            }
        }
        collation.end_lt = collation.end_lt.max(executed.next_lt);
        collation.fees_nanoton += executed.fees_nanoton;
        collation.burned_nanoton += executed.burned_nanoton;
        self.collected_fees_nanoton += executed.fees_nanoton;
        self.burned_nanoton += executed.burned_nanoton;
        let touched = collation.by_account.entry(address.address).or_insert_with(|| Touched {
            state_before: *before.account.inner().repr_hash(),
            state_after: HashBytes::ZERO,
            transactions: Vec::new(),
        });
        touched.state_after = *executed.account.account.inner().repr_hash();
        touched.transactions.push((executed.lt, executed.fees_nanoton, executed.transaction.clone()));
        collation.transactions.push((address.clone(), executed.lt));
        let block_seqno = self.shard(collation.workchain).newest().id.seqno + 1;
        self.history.entry(address.clone()).or_default().push(TransactionRecord {
            account: address.clone(),
            lt: executed.lt,
            hash: *executed.transaction.inner().repr_hash(),
            cell: executed.transaction.into_inner(),
            block_seqno,
            utime_s: collation.environment.utime,
        });
        Ok(())
    }

    /// Builds the block and the state of what was gathered.
    fn seal(&mut self, collation: Collation, balance_before: u128) -> Result<BlockId, LocalnetError> {
        let is_master = collation.workchain == -1;
        let shard = self.shard(collation.workchain);
        let previous = shard.newest();
        let newest_mc = self.masterchain.newest();
        let header = Header {
            global_id: self.options.global_id,
            shard: shard.ident,
            seqno: previous.id.seqno + 1,
            utime: collation.environment.utime,
            start_lt: collation.start_lt,
            end_lt: collation.end_lt,
            rand_seed: collation.environment.rand_seed,
            prev: block::block_ref(&previous.id, previous.end_lt),
            master: (!is_master).then(|| block::block_ref(&newest_mc.id, newest_mc.end_lt)),
        };
        if is_master {
            let entry = KeyBlockRef { is_key_block: false, block_ref: header.prev.clone() };
            let extra = KeyMaxLt { has_key_block: false, max_end_lt: header.prev.end_lt };
            self.prev_blocks.set(header.prev.seqno, extra, entry)?;
            self.libraries = collation.libraries;
        }
        let extra = self.master_extra()?;
        let shard = self.shard(collation.workchain);
        let old_state = shard.newest().state.clone().ok_or(tycho_types::error::Error::CellUnderflow)?;
        let new_state = block::build_state(
            &header,
            &shard.accounts,
            if is_master { self.collected_fees_nanoton } else { 0 },
            is_master.then_some(&extra),
        )?;
        let contents = Contents {
            old_state,
            new_state: new_state.clone(),
            account_blocks: account_blocks(collation.by_account)?,
            value_flow: ValueFlow {
                from_prev_block: CurrencyCollection::new(balance_before),
                to_next_block: CurrencyCollection::new(shard.balance()),
                imported: CurrencyCollection::new(collation.imported_nanoton),
                exported: CurrencyCollection::new(collation.exported_nanoton),
                fees_collected: CurrencyCollection::new(collation.fees_nanoton),
                burned: CurrencyCollection::new(collation.burned_nanoton),
                ..ValueFlow::default()
            },
            shards: is_master.then(|| self.shards.clone()),
        };
        let (id, block) = block::build_block(&header, &contents)?;
        if !is_master {
            self.shards = block::shard_hashes(&id, &header, newest_mc_seqno(self) + 1)?;
        }
        let basechain_seqno = if is_master { self.basechain.newest().id.seqno } else { id.seqno };
        self.shard_mut(collation.workchain).blocks.push(BlockRecord {
            id,
            utime_s: header.utime,
            start_lt: header.start_lt,
            end_lt: header.end_lt,
            basechain_seqno,
            transactions: collation.transactions,
            block: Some(block),
            state: Some(new_state),
        });
        Ok(id)
    }

    fn oldest_kept(&self) -> u32 {
        let newest = self.masterchain.newest().id.seqno;
        newest.saturating_sub(u32::try_from(self.options.kept_blocks).unwrap_or(u32::MAX))
    }

    fn forget_old_blocks(&mut self) {
        let kept = self.options.kept_blocks.max(1);
        for shard in [&mut self.basechain, &mut self.masterchain] {
            if let Some(at) = shard.blocks.len().checked_sub(kept + 1)
                && let Some(record) = shard.blocks.get_mut(at)
            {
                record.block = None;
                record.state = None;
            }
        }
    }
}

fn newest_mc_seqno(chain: &Localnet) -> u32 {
    chain.masterchain.newest().id.seqno
}

fn check(options: &LocalnetOptions) -> Result<(), LocalnetError> {
    let wrong = |what: &str| Err(LocalnetError::Options(what.to_owned()));
    if options.supply_nanoton <= GIVER_RESERVE_NANOTON || options.supply_nanoton > MAX_SUPPLY_NANOTON {
        return wrong("the supply must be between 1 TON and 10^19 TON");
    }
    if options.genesis_utime_s == 0 {
        return wrong("the genesis time must not be 0");
    }
    if options.max_block_transactions == 0 || options.max_pool == 0 || options.kept_blocks == 0 {
        return wrong("a limit of nothing makes no chain");
    }
    Ok(())
}

/// Far below the 120 bits of an amount of coins, so that no sum overflows.
const MAX_SUPPLY_NANOTON: u128 = 10_u128.pow(28);

fn find_account(accounts: &ShardAccounts, address: &HashBytes) -> Result<ShardAccount, LocalnetError> {
    match accounts.get(address)? {
        Some((_, account)) => Ok(account),
        None => Ok(ShardAccount {
            account: Lazy::new(&OptionalAccount::EMPTY)?,
            last_trans_hash: HashBytes::ZERO,
            last_trans_lt: 0,
        }),
    }
}

/// The accounts of a state's cell.
pub(crate) fn accounts_of(state: &Cell) -> Result<ShardAccounts, LocalnetError> {
    let state: tycho_types::models::ShardStateUnsplit = state.parse()?;
    Ok(state.load_accounts()?)
}

fn account_blocks(by_account: BTreeMap<HashBytes, Touched>) -> Result<AccountBlocks, LocalnetError> {
    let mut blocks = AccountBlocks::new();
    for (account, touched) in by_account {
        let mut transactions = AugDict::<u64, CurrencyCollection, Lazy<Transaction>>::new();
        for (lt, fees_nanoton, transaction) in touched.transactions {
            transactions.set(lt, CurrencyCollection::new(fees_nanoton), transaction)?;
        }
        let fees = transactions.root_extra().clone();
        let state_update = Lazy::new(&HashUpdate { old: touched.state_before, new: touched.state_after })?;
        blocks.set(account, fees, AccountBlock { account, transactions, state_update })?;
    }
    Ok(blocks)
}

/// Reads an outbound message; `None` for one that leaves the chain.
fn internal(cell: Cell) -> Result<Option<(u64, InternalMessage)>, LocalnetError> {
    let info = MsgInfo::load_from(&mut cell.as_slice()?)?;
    let MsgInfo::Int(info) = info else {
        return Ok(None);
    };
    let destination = info.dst.as_std().cloned().ok_or_else(|| {
        LocalnetError::Vm("a contract sent to an address the executor should have refused".into())
    })?;
    let message = InternalMessage {
        destination,
        value_nanoton: info.value.tokens.into_inner(),
        fwd_fee_nanoton: info.fwd_fee.into_inner(),
        cell,
    };
    Ok(Some((info.created_lt, message)))
}

/// The exit code of a transaction's compute phase; `None` where none ran.
pub fn exit_code(transaction: &Transaction) -> Option<i32> {
    tvm_executor::exit_code(transaction)
}
