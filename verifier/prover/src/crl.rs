//! Revocation lists of Intel's SGX authorities, read as `contracts/crl.tolk` reads them.

use contracts::attestor::Serial;
use tycho_types::dict::Dict;
use tycho_types::error::Error as CellError;

use crate::certificate::name;
use crate::der::{AUTHORITY_KEY_ID, ECDSA_WITH_SHA256, serial_value, split_signed};
use crate::p256::{WitnessError, signature_from_der};
use crate::text::{SignedText, Text, TextError};

/// The list's extensions up to its number: `[0]`, and the number's header.
const NUMBER: [u8; 15] =
    [0xa0, 0x2f, 0x30, 0x2d, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x14, 0x04, 0x03, 0x02, 0x01];
const EXTENSIONS_BYTES: usize = 49;
/// A reason up to its code.
const REASON: [u8; 13] = [0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01];
const TIME_BYTES: usize = 15;

/// A revocation list in the one form that Intel issues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    pub signed: SignedText,
    /// r ‖ s, big-endian.
    pub signature: [u8; 64],
    /// DER Name.
    pub issuer: Vec<u8>,
    /// Unix time.
    pub this_update: u32,
    /// Unix time.
    pub next_update: u32,
    pub number: u8,
    /// In the list's order.
    pub revoked: Vec<Serial>,
}

/// A revocation list is of no use to the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    #[error(
        "these bytes are no X.509 revocation list signed with ECDSA over P-256; whoever supplied them is at fault"
    )]
    NotAList,
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("the revocation list's signature: {0}")]
    Signature(#[from] WitnessError),
}

impl RevocationList {
    /// Reads a DER list whole. Does not check its signature.
    ///
    /// # Errors
    /// [`CrlError`]
    pub fn from_der(der: &[u8]) -> Result<Self, CrlError> {
        let (signed, signature) = split_signed(der).ok_or(CrlError::NotAList)?;
        let signature = signature_from_der(signature)?;
        let mut text = Text::new("the revocation list", signed);
        text.sequence_header("a SEQUENCE")?;
        text.expect_bytes(&[0x02, 0x01, 0x01], "version 2")?;
        text.expect_bytes(&ECDSA_WITH_SHA256, "ecdsa-with-SHA256")?;
        text.end_piece();
        let issuer = name(&mut text)?;
        text.end_piece();
        let this_update = update(&mut text)?;
        let next_update = update(&mut text)?;
        let mut revoked = Vec::new();
        if text.rest().len() > EXTENSIONS_BYTES {
            let length = text.sequence_header("a list of revoked certificates")?;
            if length + EXTENSIONS_BYTES != text.rest().len() {
                return Err(text.error("extensions of 49 bytes after the revoked certificates").into());
            }
            while text.rest().len() > EXTENSIONS_BYTES {
                revoked.push(entry(&mut text)?);
            }
        }
        text.end_piece();
        let extensions: [u8; EXTENSIONS_BYTES] =
            text.take_array("a CRL number and an authority key identifier")?;
        let number = match extensions.strip_prefix(&NUMBER) {
            Some([number @ 0..=127, rest @ ..]) if rest.starts_with(&AUTHORITY_KEY_ID) => *number,
            _ => {
                return Err(text
                    .error("before here, a CRL number of one byte and an authority key identifier")
                    .into());
            }
        };
        Ok(Self { signed: text.finish()?, signature, issuer, this_update, next_update, number, revoked })
    }

    /// The set of revoked serials, as the contract keeps it.
    ///
    /// # Errors
    /// A cell error: never for what [`Self::from_der`] returned.
    pub fn revoked_set(&self) -> Result<Dict<Serial, bool>, CellError> {
        let mut set = Dict::new();
        for serial in &self.revoked {
            set.set(*serial, true)?;
        }
        Ok(set)
    }
}

fn update(text: &mut Text<'_>) -> Result<u32, TextError> {
    let time: [u8; TIME_BYTES] = text.take_array("a UTCTime")?;
    text.time_in(&time)
}

/// One bite: a serial, a time, and a reason or nothing.
fn entry(text: &mut Text<'_>) -> Result<Serial, TextError> {
    const EXPECTED: &str = "before here, a revoked serial with its time and at most a reason";
    let at_fault = text.error(EXPECTED);
    let content = text.short_element(0x30, "a revoked certificate")?;
    let serial = match content {
        [0x02, length, ..] => content.get(2..2 + usize::from(*length)),
        _ => None,
    };
    let serial = serial.ok_or_else(|| at_fault.clone())?;
    let after = content.get(2 + serial.len()..).unwrap_or_default();
    let (time, reason) = after.split_at_checked(TIME_BYTES).ok_or_else(|| at_fault.clone())?;
    let is_reason = reason.is_empty() || (reason.starts_with(&REASON) && reason.len() == REASON.len() + 1);
    if time.first_chunk() != Some(&[0x17, 0x0d]) || !is_reason {
        return Err(at_fault);
    }
    serial_value(serial).ok_or(at_fault)
}
