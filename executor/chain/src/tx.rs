//! A transaction in the terms its readers think in: what came in, whether it worked, what went out.

use tycho_types::cell::{Cell, HashBytes};
use tycho_types::error::Error as CellError;
use tycho_types::models::{ComputePhase, IntAddr, Message, MsgInfo, StdAddr, TxInfo};

use crate::access::AccountTx;
use crate::message::cell_of;

/// The message a transaction answers.
#[derive(Debug, Clone)]
pub struct InMessage {
    /// Hash of the message's cell.
    pub hash: HashBytes,
    /// Who sent it; `None` for an external message.
    pub from: Option<StdAddr>,
    /// Attached value, nanoTON; 0 for an external message.
    pub value_nanoton: u128,
    /// Whether it is one of our own messages coming back.
    pub bounced: bool,
    /// Logical time at which its sender made it; 0 for an external message.
    pub created_lt: u64,
    /// Its body.
    pub body: Cell,
}

/// An internal message a transaction sent.
#[derive(Debug, Clone)]
pub struct OutMessage {
    /// Hash of the message's cell.
    pub hash: HashBytes,
    /// Where to.
    pub to: StdAddr,
    /// Attached value, nanoTON.
    pub value_nanoton: u128,
    /// What its delivery cost, nanoTON.
    pub forward_fee_nanoton: u128,
    /// Whether it returns a message that failed.
    pub bounced: bool,
    /// Its body.
    pub body: Cell,
}

/// How a transaction went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxResult {
    /// The contract ran, and its actions were carried out.
    pub succeeded: bool,
    /// Exit code of the contract's run; `None` where it did not run.
    pub exit_code: Option<i32>,
    /// Result code of the actions; `None` where there were none to carry out.
    pub action_code: Option<i32>,
    /// Gas units.
    pub gas_used: u64,
    /// Whether the account destroyed itself.
    pub destroyed: bool,
}

impl AccountTx {
    /// The incoming message; `None` for a tick-tock transaction.
    ///
    /// # Errors
    /// A cell error for a message that does not parse.
    pub fn in_message(&self) -> Result<Option<InMessage>, CellError> {
        let Some(cell) = &self.tx.in_msg else { return Ok(None) };
        let message = cell.parse::<Message<'_>>()?;
        let (from, value_nanoton, bounced, created_lt) = match &message.info {
            MsgInfo::Int(info) => {
                (std_addr(&info.src), info.value.tokens.into_inner(), info.bounced, info.created_lt)
            }
            MsgInfo::ExtIn(_) | MsgInfo::ExtOut(_) => (None, 0, false, 0),
        };
        let body = cell_of(message.body)?;
        Ok(Some(InMessage { hash: *cell.repr_hash(), from, value_nanoton, bounced, created_lt, body }))
    }

    /// The internal messages it sent, in order.
    ///
    /// # Errors
    /// A cell error for a message that does not parse.
    pub fn out_messages(&self) -> Result<Vec<OutMessage>, CellError> {
        let mut sent = Vec::new();
        for cell in self.tx.out_msgs.values() {
            let cell = cell?;
            let message = cell.parse::<Message<'_>>()?;
            if let MsgInfo::Int(info) = &message.info
                && let Some(to) = std_addr(&info.dst)
            {
                sent.push(OutMessage {
                    hash: *cell.repr_hash(),
                    to,
                    value_nanoton: info.value.tokens.into_inner(),
                    forward_fee_nanoton: info.fwd_fee.into_inner(),
                    bounced: info.bounced,
                    body: cell_of(message.body)?,
                });
            }
        }
        Ok(sent)
    }

    /// How it went.
    ///
    /// # Errors
    /// A cell error for a description that does not parse.
    pub fn result(&self) -> Result<TxResult, CellError> {
        let (compute, action, aborted, destroyed) = match self.tx.load_info()? {
            TxInfo::Ordinary(info) => (info.compute_phase, info.action_phase, info.aborted, info.destroyed),
            TxInfo::TickTock(info) => (info.compute_phase, info.action_phase, info.aborted, info.destroyed),
        };
        let action_code = action.map(|action| action.result_code);
        Ok(match compute {
            ComputePhase::Skipped(_) => {
                TxResult { succeeded: false, exit_code: None, action_code, gas_used: 0, destroyed }
            }
            ComputePhase::Executed(run) => TxResult {
                succeeded: !aborted && run.success,
                exit_code: Some(run.exit_code),
                action_code,
                gas_used: run.gas_used.into_inner(),
                destroyed,
            },
        })
    }

    /// All fees charged to the account by it, nanoTON, the forwarding of its messages apart.
    pub fn fees_nanoton(&self) -> u128 {
        self.tx.total_fees.tokens.into_inner()
    }
}

fn std_addr(address: &IntAddr) -> Option<StdAddr> {
    address.as_std().cloned()
}
