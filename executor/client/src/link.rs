//! A wallet message as a link and as a TON Connect request, for a wallet app to send. Pure.
//!
//! The link is `ton://transfer/ADDRESS?amount=NANOTON&bin=BODY&init=STATE_INIT`, where body and state init are bags of
//! cells in base64url without padding; the address is of the bounceable form where the message bounces. The request is the
//! one parameter of TON Connect's `sendTransaction`; its cells are in base64.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chain::Transfer;
use contracts::{Cell, StdAddr};
use serde_json::{Value, json};
use thiserror::Error;
use tycho_types::boc::Boc;
use tycho_types::cell::{CellBuilder, CellFamily};
use tycho_types::models::{Base64StdAddrFlags, DisplayBase64StdAddr, StateInit, StdAddrFormat};

/// The longest link that is made: what one QR code can hold (ISO/IEC 18004, version 40, level L, bytes).
pub const MAX_LINK_BYTES: usize = 2_953;
/// The network id of the mainnet; every other's addresses are marked as of a testnet.
const MAINNET: i32 = -239;

/// A message cannot be written as a link, or a link is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// More than fits.
    #[error(
        "caller: the link has {bytes} characters, and {MAX_LINK_BYTES} are the most that one QR code holds; use the TON Connect request"
    )]
    TooLong {
        /// What it has.
        bytes: usize,
    },
    /// The parts do not fit cells.
    #[error("caller: the state init does not fit its cells")]
    StateInit,
    /// Not such a link or request.
    #[error("link: {0}; ask whoever made it for another")]
    Malformed(&'static str),
}

/// The link.
///
/// # Errors
/// [`LinkError::TooLong`] above [`MAX_LINK_BYTES`].
pub fn link(transfer: &Transfer, network_id: i32) -> Result<String, LinkError> {
    let mut link = format!(
        "ton://transfer/{}?amount={}",
        friendly(&transfer.to, transfer.bounce, network_id),
        transfer.value_nanoton
    );
    if transfer.body != Cell::empty_cell() {
        link.push_str("&bin=");
        URL_SAFE_NO_PAD.encode_string(Boc::encode(&transfer.body), &mut link);
    }
    if let Some(init) = &transfer.state_init {
        link.push_str("&init=");
        URL_SAFE_NO_PAD.encode_string(Boc::encode(init_cell(init)?), &mut link);
    }
    if link.len() > MAX_LINK_BYTES { Err(LinkError::TooLong { bytes: link.len() }) } else { Ok(link) }
}

/// The message of a link.
///
/// # Errors
/// [`LinkError::Malformed`].
pub fn read_link(link: &str) -> Result<Transfer, LinkError> {
    let bad = LinkError::Malformed;
    let rest = link.strip_prefix("ton://transfer/").ok_or(bad("it begins with something else"))?;
    let (address, query) = rest.split_once('?').ok_or(bad("it states no amount"))?;
    let (mut amount, mut body, mut init) = (None, Cell::empty_cell(), None);
    for part in query.split('&') {
        let cell = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("a part is not base64url"))?;
            Boc::decode(bytes).map_err(|_| bad("a part is no bag of cells"))
        };
        match part.split_once('=').ok_or(bad("a part has no value"))? {
            ("amount", text) => amount = Some(text.parse().map_err(|_| bad("its amount is no number"))?),
            ("bin", text) => body = cell(text)?,
            ("init", text) => init = Some(read_init(&cell(text)?)?),
            _ => return Err(bad("it has a part of another kind")),
        }
    }
    let (to, bounce) = read_friendly(address)?;
    let value_nanoton = amount.ok_or(bad("it states no amount"))?;
    Ok(Transfer { to, value_nanoton, bounce, state_init: init, body })
}

/// The request, which a wallet refuses after `valid_until_s`, Unix seconds. `from`: the only account that may send it.
///
/// # Errors
/// [`LinkError::StateInit`]; none is known to occur.
pub fn ton_connect(
    transfers: &[Transfer],
    from: Option<&StdAddr>,
    valid_until_s: u32,
    network_id: i32,
) -> Result<Value, LinkError> {
    let messages = transfers.iter().map(|transfer| {
        let mut message = json!({
            "address": friendly(&transfer.to, transfer.bounce, network_id),
            "amount": transfer.value_nanoton.to_string(),
        });
        if transfer.body != Cell::empty_cell() {
            message["payload"] = STANDARD.encode(Boc::encode(&transfer.body)).into();
        }
        if let Some(init) = &transfer.state_init {
            message["stateInit"] = STANDARD.encode(Boc::encode(init_cell(init)?)).into();
        }
        Ok(message)
    });
    let messages = messages.collect::<Result<Vec<_>, LinkError>>()?;
    let mut request =
        json!({ "valid_until": valid_until_s, "network": network_id.to_string(), "messages": messages });
    if let Some(from) = from {
        request["from"] = from.to_string().into();
    }
    Ok(request)
}

/// The messages of a request, and the last moment to send them.
///
/// # Errors
/// [`LinkError::Malformed`].
pub fn read_ton_connect(request: &Value) -> Result<(Vec<Transfer>, u32), LinkError> {
    let bad = LinkError::Malformed;
    let until = request["valid_until"].as_u64().and_then(|until| u32::try_from(until).ok());
    let until = until.ok_or(bad("it does not say until when"))?;
    let cell = |text: &Value| {
        let bytes = text.as_str().and_then(|text| STANDARD.decode(text).ok());
        Boc::decode(bytes.ok_or(bad("a part is not base64"))?).map_err(|_| bad("a part is no bag of cells"))
    };
    let read = |message: &Value| {
        let (to, bounce) = read_friendly(message["address"].as_str().ok_or(bad("it has no address"))?)?;
        let amount = message["amount"].as_str().and_then(|amount| amount.parse().ok());
        let body = message.get("payload").map_or(Ok(Cell::empty_cell()), cell)?;
        let state_init =
            message.get("stateInit").map(|init| cell(init).and_then(|init| read_init(&init))).transpose()?;
        let value_nanoton = amount.ok_or(bad("its amount is no number"))?;
        Ok(Transfer { to, value_nanoton, bounce, state_init, body })
    };
    let messages = request["messages"].as_array().ok_or(bad("it has no messages"))?;
    Ok((messages.iter().map(read).collect::<Result<_, _>>()?, until))
}

fn friendly(address: &StdAddr, bounceable: bool, network_id: i32) -> String {
    let flags = Base64StdAddrFlags { testnet: network_id != MAINNET, base64_url: true, bounceable };
    DisplayBase64StdAddr { addr: address, flags }.to_string()
}

fn read_friendly(text: &str) -> Result<(StdAddr, bool), LinkError> {
    let (address, flags) = StdAddr::from_str_ext(text, StdAddrFormat::any())
        .map_err(|_| LinkError::Malformed("its address is none"))?;
    Ok((address, flags.bounceable))
}

fn init_cell(init: &StateInit) -> Result<Cell, LinkError> {
    CellBuilder::build_from(init).map_err(|_| LinkError::StateInit)
}

fn read_init(cell: &Cell) -> Result<StateInit, LinkError> {
    cell.parse().map_err(|_| LinkError::Malformed("its state init is none"))
}
