//! What a local chain is started with.

use std::time::Duration;

/// Options of a local chain. Two chains with equal options, fed the same messages at the same times, make equal
/// blocks.
#[derive(Debug, Clone)]
pub struct LocalnetOptions {
    /// Seeds the blocks' randomness and the liteserver's key.
    pub seed: [u8; 32],
    /// The network id of messages and blocks (mainnet −239, testnet −3).
    pub global_id: i32,
    /// Time of the zero state, Unix seconds.
    pub genesis_utime_s: u32,
    /// Everything there is, held by the giver at first.
    pub supply_nanoton: u128,
    /// Transactions in one block of one chain at most; what is left waits for the next block.
    pub max_block_transactions: usize,
    /// External messages that wait at most.
    pub max_pool: usize,
    /// Blocks whose cells and states are kept, counted from the newest. Transactions are kept for ever.
    pub kept_blocks: usize,
}

impl Default for LocalnetOptions {
    fn default() -> Self {
        Self {
            seed: [7; 32],
            global_id: LOCALNET_GLOBAL_ID,
            genesis_utime_s: DEFAULT_GENESIS_UTIME_S,
            supply_nanoton: DEFAULT_SUPPLY_NANOTON,
            max_block_transactions: 2_000,
            max_pool: 4_096,
            kept_blocks: 20_000,
        }
    }
}

/// The network id of a local chain, unless told otherwise: the testnet's, so that stock tools know it and nothing signed
/// for it counts on the mainnet.
pub const LOCALNET_GLOBAL_ID: i32 = -3;

/// 2026-01-01T00:00:00Z.
pub const DEFAULT_GENESIS_UTIME_S: u32 = 1_767_225_600;

/// Five thousand million TON.
pub const DEFAULT_SUPPLY_NANOTON: u128 = 5_000_000_000 * 1_000_000_000;

/// When blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockMode {
    /// Only when told to.
    Manual,
    /// A block for every accepted message (and those it causes), and when told to.
    OnDemand,
    /// One every so often, empty or not.
    Interval(Duration),
}

/// Where the time of blocks comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The system's.
    System,
    /// Stands still until it is moved; begins at the genesis time.
    Virtual,
}
