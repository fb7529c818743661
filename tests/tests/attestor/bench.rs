//! The Attestor's code on prepared storage: one message, one transaction, no chain around it.

use contracts::artifacts::{self, Contract};
use contracts::attestor::{AttestorStorage, QuoteVerified};
use contracts::wire::{from_cell, to_cell};
use contracts::{Cell, HashBytes, Message, StdAddr};
use tests::engine::Engine;
use tycho_types::cell::{CellBuilder, CellSliceParts, Lazy};
use tycho_types::models::{
    Account, AccountState, ComputePhase, CurrencyCollection, IntAddr, IntMsgInfo, MsgInfo, OptionalAccount,
    OwnedMessage, ShardAccount, StateInit, StorageInfo, TxInfo,
};
use tycho_types::num::Tokens;

/// Of the account before every message.
pub(crate) const BALANCE: u128 = 10_000_000_000;
const LT: u64 = 1_000_000;
/// Logical time after a transaction.
pub(crate) const LATER: u64 = LT + 1_000;

pub(crate) struct Bench {
    engine: Engine,
    code: Cell,
    pub(crate) address: StdAddr,
    pub(crate) sender: StdAddr,
}

/// What one message came to.
pub(crate) struct Outcome {
    /// Nothing when the compute phase was skipped.
    pub(crate) exit_code: Option<i32>,
    pub(crate) succeeded: bool,
    pub(crate) gas_used: u64,
    pub(crate) balance: u128,
    pub(crate) data: Cell,
    /// Bodies and values of the messages it sent, with their destinations.
    pub(crate) sent: Vec<(StdAddr, u128, Cell)>,
}

impl Outcome {
    pub(crate) fn report(&self) -> Option<QuoteVerified> {
        self.sent.iter().find_map(|(_, _, body)| QuoteVerified::from_cell(body).ok())
    }

    pub(crate) fn storage(&self) -> AttestorStorage {
        from_cell(&self.data).unwrap()
    }
}

/// An internal message as it arrives.
pub(crate) struct Delivery {
    pub(crate) value: u128,
    pub(crate) bounced: bool,
    pub(crate) now: u32,
    pub(crate) body: Cell,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            engine: Engine::default(),
            code: artifacts::code(Contract::Attestor),
            address: StdAddr::new(0, HashBytes([0xa7; 32])),
            sender: StdAddr::new(0, HashBytes([0x5e; 32])),
        }
    }

    /// A message of 2 TON.
    pub(crate) fn send(&self, data: &Cell, body: Cell, now: u32) -> Outcome {
        self.deliver(data, Delivery { value: 2_000_000_000, bounced: false, now, body })
    }

    pub(crate) fn deliver(&self, data: &Cell, delivery: Delivery) -> Outcome {
        let (account, now) = (self.account(data.clone(), delivery.now), delivery.now);
        let message = self.message(&delivery);
        let executed =
            self.engine.execute(&self.address, &account, message, false, now, LT + 1).ok().unwrap();
        let TxInfo::Ordinary(info) = executed.transaction.info.load().unwrap() else { panic!("ordinary") };
        let (exit_code, gas_used) = match &info.compute_phase {
            ComputePhase::Executed(phase) => (Some(phase.exit_code), u64::from(phase.gas_used)),
            ComputePhase::Skipped(_) => (None, 0),
        };
        let after = executed.account.load_account().unwrap().unwrap();
        let data = match after.state {
            AccountState::Active(init) => init.data.unwrap(),
            _ => panic!("the account is gone"),
        };
        let sent = executed.transaction.out_msgs.values().filter_map(|message| {
            let parsed: OwnedMessage = message.ok()?.parse().ok()?;
            let MsgInfo::Int(info) = parsed.info else { return None };
            assert!(!info.bounce, "what came back would be the Attestor's, and nobody's");
            let IntAddr::Std(to) = info.dst else { return None };
            let body =
                CellBuilder::build_from(tycho_types::cell::CellSlice::apply_allow_exotic(&parsed.body))
                    .ok()?;
            Some((to, info.value.tokens.into_inner(), body))
        });
        Outcome {
            exit_code,
            succeeded: !info.aborted && exit_code == Some(0),
            gas_used,
            balance: after.balance.tokens.into_inner(),
            data,
            sent: sent.collect(),
        }
    }

    pub(crate) fn message(&self, delivery: &Delivery) -> Cell {
        let Delivery { value, bounced, now, body } = delivery;
        CellBuilder::build_from(&OwnedMessage {
            info: MsgInfo::Int(IntMsgInfo {
                ihr_disabled: true,
                bounce: !bounced,
                bounced: *bounced,
                src: IntAddr::Std(self.sender.clone()),
                dst: IntAddr::Std(self.address.clone()),
                value: CurrencyCollection { tokens: Tokens::new(*value), ..CurrencyCollection::ZERO },
                created_lt: LT,
                created_at: *now,
                ..Default::default()
            }),
            init: None,
            body: CellSliceParts::from(body.clone()),
            layout: None,
        })
        .unwrap()
    }

    /// As a message without a body leaves the account: with the statistics of its storage. The next message comes at
    /// [`LATER`].
    pub(crate) fn settled_account(&self, data: &Cell, now: u32) -> ShardAccount {
        let empty = Delivery { value: 1_000_000_000, bounced: false, now, body: Cell::default() };
        let account = self.account(data.clone(), now);
        self.engine
            .execute(&self.address, &account, self.message(&empty), false, now, LT + 1)
            .ok()
            .unwrap()
            .account
    }

    fn account(&self, data: Cell, now: u32) -> ShardAccount {
        let account = Account {
            address: IntAddr::Std(self.address.clone()),
            // Rent is paid to this second: what a message costs is all that changes the balance.
            storage_stat: StorageInfo { last_paid: now, ..StorageInfo::default() },
            last_trans_lt: LT,
            balance: CurrencyCollection { tokens: Tokens::new(BALANCE), ..CurrencyCollection::ZERO },
            state: AccountState::Active(StateInit {
                code: Some(self.code.clone()),
                data: Some(data),
                ..StateInit::default()
            }),
        };
        ShardAccount {
            account: Lazy::new(&OptionalAccount(Some(account))).unwrap(),
            last_trans_hash: HashBytes::ZERO,
            // The transaction that left the account so ended after it began.
            last_trans_lt: LT - 1,
        }
    }
}

pub(crate) fn cell_of(storage: &AttestorStorage) -> Cell {
    to_cell(storage).unwrap()
}
