//! External messages that wait for a block.

use std::collections::{HashSet, VecDeque};

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes, Load};
use tycho_types::models::{IntAddr, MsgInfo, StdAddr};

use crate::error::LocalnetError;

/// An external message that was checked for its form.
#[derive(Debug, Clone)]
pub struct ExternalMessage {
    /// Where it goes.
    pub destination: StdAddr,
    /// Its root cell.
    pub cell: Cell,
}

impl ExternalMessage {
    /// Reads an external message from a bag of cells.
    ///
    /// # Errors
    /// [`LocalnetError::InvalidMessage`] when it is too large or too deep, is no inbound external message, or goes to
    /// an address that is not of the masterchain or basechain.
    pub fn from_boc(boc: &[u8]) -> Result<Self, LocalnetError> {
        if boc.len() > MAX_EXTERNAL_BYTES {
            return Err(invalid(format!("{} bytes, more than {MAX_EXTERNAL_BYTES}", boc.len())));
        }
        let cell = Boc::decode(boc).map_err(|error| invalid(format!("not a bag of cells ({error})")))?;
        Self::from_cell(cell)
    }

    /// Reads an external message from its root cell.
    ///
    /// # Errors
    /// As [`ExternalMessage::from_boc`].
    pub fn from_cell(cell: Cell) -> Result<Self, LocalnetError> {
        if cell.repr_depth() > MAX_EXTERNAL_DEPTH {
            return Err(invalid(format!("{} cells deep", cell.repr_depth())));
        }
        let mut slice = cell.as_slice().map_err(|error| invalid(error.to_string()))?;
        let info = MsgInfo::load_from(&mut slice).map_err(|error| invalid(error.to_string()))?;
        let MsgInfo::ExtIn(info) = info else {
            return Err(invalid("its header is not that of an inbound external message".into()));
        };
        let IntAddr::Std(destination) = info.dst else {
            return Err(invalid("its destination is not a standard address".into()));
        };
        if destination.anycast.is_some() || !matches!(destination.workchain, -1 | 0) {
            return Err(invalid(format!("no such chain as that of {destination}")));
        }
        cell.parse::<tycho_types::models::Message<'_>>()
            .map_err(|error| invalid(format!("its state init or body does not parse ({error})")))?;
        Ok(Self { destination, cell })
    }

    /// The hash that names the message.
    pub fn hash(&self) -> HashBytes {
        *self.cell.repr_hash()
    }
}

/// Messages in the order they came, each hash once.
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    queue: VecDeque<ExternalMessage>,
    hashes: HashSet<HashBytes>,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, queue: VecDeque::new(), hashes: HashSet::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn contains(&self, hash: &HashBytes) -> bool {
        self.hashes.contains(hash)
    }

    /// `false` where the same message waits already.
    pub(crate) fn push(&mut self, message: ExternalMessage) -> Result<bool, LocalnetError> {
        if self.hashes.contains(&message.hash()) {
            return Ok(false);
        }
        if self.queue.len() >= self.limit {
            return Err(LocalnetError::PoolFull { limit: self.limit });
        }
        self.hashes.insert(message.hash());
        self.queue.push_back(message);
        Ok(true)
    }

    /// The first message for `workchain`.
    pub(crate) fn pop(&mut self, workchain: i8) -> Option<ExternalMessage> {
        let at = self.queue.iter().position(|message| message.destination.workchain == workchain)?;
        let message = self.queue.remove(at)?;
        self.hashes.remove(&message.hash());
        Some(message)
    }
}

/// Config parameter 43 of the mainnet.
const MAX_EXTERNAL_BYTES: usize = 65_535;
const MAX_EXTERNAL_DEPTH: u16 = 512;

fn invalid(why: String) -> LocalnetError {
    LocalnetError::InvalidMessage(why)
}
