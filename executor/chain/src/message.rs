//! Messages as cells: internal ones for a wallet to send, external ones for the network to take.

use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::{
    CurrencyCollection, ExtInMsgInfo, IntAddr, Message, MsgInfo, RelaxedIntMsgInfo, RelaxedMessage,
    RelaxedMsgInfo, StateInit, StdAddr,
};
use tycho_types::num::Tokens;

/// An internal message for a wallet to send.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Destination.
    pub to: StdAddr,
    /// Attached value, nanoTON.
    pub value_nanoton: u128,
    /// Whether a failure sends the value back.
    pub bounce: bool,
    /// Code and data of the destination, where the message may be its first.
    pub state_init: Option<StateInit>,
    /// Body.
    pub body: Cell,
}

impl Transfer {
    /// A bounceable message to an existing contract.
    pub fn new(to: StdAddr, value_nanoton: u128, body: Cell) -> Self {
        Self { to, value_nanoton, bounce: true, state_init: None, body }
    }

    /// A plain payment.
    pub fn payment(to: StdAddr, value_nanoton: u128) -> Self {
        Self { bounce: false, ..Self::new(to, value_nanoton, Cell::empty_cell()) }
    }

    /// The same, carrying the destination's state init.
    #[must_use]
    pub fn with_state_init(mut self, init: StateInit) -> Self {
        self.state_init = Some(init);
        self
    }

    /// `MessageRelaxed` for an out-action; the chain fills in source, fees and times.
    pub(crate) fn to_cell(&self) -> Result<Cell, CellError> {
        let info = RelaxedMsgInfo::Int(RelaxedIntMsgInfo {
            ihr_disabled: true,
            bounce: self.bounce,
            bounced: false,
            src: None,
            dst: IntAddr::Std(self.to.clone()),
            value: CurrencyCollection::new(self.value_nanoton),
            ..RelaxedIntMsgInfo::default()
        });
        CellBuilder::build_from(RelaxedMessage {
            info,
            init: self.state_init.clone(),
            body: self.body.as_slice()?,
            layout: None,
        })
    }
}

/// An external message to `to`; `body` goes into its own cell where it does not fit.
///
/// # Errors
/// A cell error when the parts cannot be laid out.
pub fn external_message(to: &StdAddr, state_init: Option<StateInit>, body: &Cell) -> Result<Cell, CellError> {
    CellBuilder::build_from(Message {
        info: MsgInfo::ExtIn(external_info(to)),
        init: state_init,
        body: body.as_slice()?,
        layout: None,
    })
}

/// The hash by which an external message is recognised however it was laid out (TEP-467): no source, no
/// import fee, no state init, body in a reference.
pub fn normalized_hash(to: &StdAddr, body: &Cell) -> Result<HashBytes, CellError> {
    let context = Cell::empty_context();
    let mut builder = CellBuilder::new();
    MsgInfo::ExtIn(external_info(to)).store_into(&mut builder, context)?;
    builder.store_bit_zero()?;
    builder.store_bit_one()?;
    builder.store_reference(body.clone())?;
    Ok(*builder.build()?.repr_hash())
}

/// The normalized hash of `message` if it is an external one.
///
/// # Errors
/// A cell error for what is not a message.
pub fn normalized_hash_of(message: &Cell) -> Result<Option<HashBytes>, CellError> {
    let parsed = Message::load_from(&mut message.as_slice()?)?;
    match parsed.info {
        MsgInfo::ExtIn(ExtInMsgInfo { dst: IntAddr::Std(to), .. }) => {
            Ok(Some(normalized_hash(&to, &cell_of(parsed.body)?)?))
        }
        _ => Ok(None),
    }
}

fn external_info(to: &StdAddr) -> ExtInMsgInfo {
    ExtInMsgInfo { src: None, dst: IntAddr::Std(to.clone()), import_fee: Tokens::ZERO }
}

/// The slice as a cell of its own.
pub fn cell_of(slice: CellSlice<'_>) -> Result<Cell, CellError> {
    let mut builder = CellBuilder::new();
    builder.store_slice(slice)?;
    builder.build()
}
