//! What a Job tells nobody in particular: an external message at every transition, whose body begins with an opcode.

use tycho_types::cell::{CellSlice, HashBytes};

use crate::money::{Amount, Prices};
use crate::wire::{Message, WireError, messages, opcode_of};

messages! {
    "job_opened" "#43480480" JobOpened {
        /// Of the message that opened it.
        opcode: u32,
        /// Unix time.
        until: u32,
        deposit: Amount,
        /// Of the cell of the [`crate::job::Seller`], or of the [`crate::job::MarketTerms`].
        terms_hash: HashBytes,
    }
    "job_taken" "#43480481" JobTaken {
        /// The Worker's account, in the basechain.
        worker: HashBytes,
        bond: Amount,
        /// Unix time: of the answer; of a job of the market, of the input.
        until: u32,
        prices: Prices,
    }
    "input_delivered" "#43480482" InputDelivered {
        /// Hash of the first cell of the sealed input.
        input_hash: HashBytes,
        /// Unix time: of the answer.
        until: u32,
    }
    "close_asked" "#43480484" CloseAsked {
        /// Unix time: of the session.
        until: u32,
    }
    "job_topped_up" "#43480485" JobToppedUp {
        /// In all.
        deposit: Amount,
    }
    "job_closed" "#43480486" JobClosed {
        /// A [`crate::job::JobStatus`].
        status: u8,
        /// To worker, publisher and treasury in all.
        paid: Amount,
        /// Of the receipt or rejection that ended the job; zero where none did.
        signed_hash: HashBytes,
    }
    "equivocation_shown" "#43480487" EquivocationShown {
        sequence: u32,
        penalty: Amount,
    }
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobLog {
    Opened(JobOpened),
    Taken(JobTaken),
    InputDelivered(InputDelivered),
    CloseAsked(CloseAsked),
    ToppedUp(JobToppedUp),
    Closed(JobClosed),
    EquivocationShown(EquivocationShown),
}

impl JobLog {
    /// The log in a whole body; nothing where its opcode is that of no log.
    pub fn from_slice(body: &mut CellSlice<'_>) -> Result<Option<Self>, WireError> {
        let Some(opcode) = opcode_of(body) else {
            return Ok(None);
        };
        Ok(Some(match opcode {
            JobOpened::OPCODE => Self::Opened(Message::from_slice(body)?),
            JobTaken::OPCODE => Self::Taken(Message::from_slice(body)?),
            InputDelivered::OPCODE => Self::InputDelivered(Message::from_slice(body)?),
            CloseAsked::OPCODE => Self::CloseAsked(Message::from_slice(body)?),
            JobToppedUp::OPCODE => Self::ToppedUp(Message::from_slice(body)?),
            JobClosed::OPCODE => Self::Closed(Message::from_slice(body)?),
            EquivocationShown::OPCODE => Self::EquivocationShown(Message::from_slice(body)?),
            _ => return Ok(None),
        }))
    }
}
