//! The zero state: one account, the giver, holds the whole supply.
//!
//! The giver's code answers any external message whose body is `mode:uint8 nonce:uint64 message:^Cell`: it accepts it
//! and sends `message` with `mode`. It has no replay protection and asks for no signature: it is a faucet.

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes, Lazy, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::{
    Account, AccountState, CurrencyCollection, ExtInMsgInfo, IntAddr, IntMsgInfo, MsgInfo, OptionalAccount,
    OwnedMessage, ShardAccount, StateInit, StdAddr, StorageInfo, StorageUsed,
};
use tycho_types::num::{Tokens, VarUint56};

/// `PAY_FWD_FEES_SEPARATELY`: the receiver gets the amount whole.
const SEND_MODE: u8 = 1;
const MAX_GIVER_CELLS: usize = 16;

/// ```text
/// FF00    SETCP0
/// 20 DD   DUP IFNOTRET      an internal message: keep what it brings
/// A4 DC   INC IFRET         a get-method: there is none
/// F800    ACCEPT
/// D307    8 LDU             mode rest
/// D74C    PLDREF            mode message
/// 01      SWAP
/// FB00    SENDRAWMSG
/// ```
const GIVER_CODE: [u8; 15] =
    [0xff, 0x00, 0x20, 0xdd, 0xa4, 0xdc, 0xf8, 0x00, 0xd3, 0x07, 0xd7, 0x4c, 0x01, 0xfb, 0x00];

/// The giver's address and account.
pub(crate) fn giver(supply_nanoton: u128, utime_s: u32) -> Result<(StdAddr, ShardAccount), Error> {
    let state = StateInit {
        split_depth: None,
        special: None,
        code: Some(giver_code()?),
        data: Some(Cell::empty_cell()),
        libraries: Dict::new(),
    };
    let address = StdAddr::new(0, *CellBuilder::build_from(&state)?.repr_hash());
    let mut account = Account {
        address: IntAddr::Std(address.clone()),
        storage_stat: StorageInfo {
            used: StorageUsed::ZERO,
            storage_extra: Default::default(),
            last_paid: utime_s,
            due_payment: None,
        },
        last_trans_lt: 0,
        balance: CurrencyCollection::new(supply_nanoton),
        state: AccountState::Active(state),
    };
    account.storage_stat.used = storage_used(&account)?;
    let shard_account = ShardAccount {
        account: Lazy::new(&OptionalAccount(Some(account)))?,
        last_trans_hash: HashBytes::ZERO,
        last_trans_lt: 0,
    };
    Ok((address, shard_account))
}

/// The external message that has the giver send `amount_nanoton` to `destination`, without bouncing.
///
/// `nonce` tells equal requests apart.
pub(crate) fn giver_request(
    giver: &StdAddr,
    destination: &StdAddr,
    amount_nanoton: u128,
    nonce: u64,
) -> Result<Cell, Error> {
    let transfer = OwnedMessage {
        info: MsgInfo::Int(IntMsgInfo {
            ihr_disabled: true,
            bounce: false,
            bounced: false,
            src: IntAddr::Std(giver.clone()),
            dst: IntAddr::Std(destination.clone()),
            value: CurrencyCollection::new(amount_nanoton),
            extra_flags: Default::default(),
            fwd_fee: Tokens::ZERO,
            created_lt: 0,
            created_at: 0,
        }),
        init: None,
        body: Default::default(),
        layout: None,
    };
    let mut body = CellBuilder::new();
    body.store_u8(SEND_MODE)?;
    body.store_u64(nonce)?;
    body.store_reference(CellBuilder::build_from(&transfer)?)?;
    let request = OwnedMessage {
        info: MsgInfo::ExtIn(ExtInMsgInfo {
            src: None,
            dst: IntAddr::Std(giver.clone()),
            import_fee: Tokens::ZERO,
        }),
        init: None,
        body: body.build()?.into(),
        layout: None,
    };
    CellBuilder::build_from(&request)
}

/// The cells and bits of an account's `AccountStorage`, each cell counted once.
fn storage_used(account: &Account) -> Result<StorageUsed, Error> {
    let mut storage = CellBuilder::new();
    storage.store_u64(account.last_trans_lt)?;
    account.balance.store_into(&mut storage, Cell::empty_context())?;
    account.state.store_into(&mut storage, Cell::empty_context())?;
    let stats = storage.build()?.compute_unique_stats(MAX_GIVER_CELLS).ok_or(Error::Cancelled)?;
    Ok(StorageUsed { cells: VarUint56::new(stats.cell_count), bits: VarUint56::new(stats.bit_count) })
}

fn giver_code() -> Result<Cell, Error> {
    let mut builder = CellBuilder::new();
    builder.store_raw(&GIVER_CODE, GIVER_CODE.len() as u16 * 8)?;
    builder.build()
}

/// Hash of a state's bag of cells.
pub(crate) fn file_hash(root: &Cell) -> HashBytes {
    Boc::file_hash(Boc::encode(root))
}
