//! The DER forms (ITU-T X.690) that certificates and revocation lists share.

use contracts::attestor::Serial;

use crate::dates::utc_time;
use crate::text::{Text, TextError};

/// ecdsa-with-SHA256 as an AlgorithmIdentifier.
pub(crate) const ECDSA_WITH_SHA256: [u8; 12] =
    [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// An authority key identifier of 20 bytes, up to them.
pub(crate) const AUTHORITY_KEY_ID: [u8; 13] =
    [0x30, 0x1f, 0x06, 0x03, 0x55, 0x1d, 0x23, 0x04, 0x18, 0x30, 0x16, 0x80, 0x14];

/// Splits `SEQUENCE { signed, ecdsa-with-SHA256, BIT STRING }` of X.509 (RFC 5280, 4.1 and 5.1): the signed part with
/// its header, and the signature in DER.
pub(crate) fn split_signed(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, after) = sequence(der)?;
    if !after.is_empty() {
        return None;
    }
    let (_, rest) = sequence(content)?;
    let signed = content.get(..content.len().checked_sub(rest.len())?)?;
    let rest = rest.strip_prefix(&ECDSA_WITH_SHA256)?;
    let (&[0x03, length, 0], signature) = rest.split_first_chunk::<3>()? else {
        return None;
    };
    (length < 128 && usize::from(length) == signature.len() + 1).then_some((signed, signature))
}

/// The value of INTEGER bytes of a serial: positive, minimal, at most 20 bytes.
pub(crate) fn serial_value(content: &[u8]) -> Option<Serial> {
    let significant = match content {
        [0, first, ..] if *first >= 0x80 => content.get(1..)?,
        [0] => content,
        [first, ..] if *first != 0 && *first < 0x80 => content,
        _ => return None,
    };
    let mut value = [0; 20];
    let start = value.len().checked_sub(significant.len())?;
    value[start..].copy_from_slice(significant);
    Some(contracts::attestor::Bytes(value))
}

impl<'a> Text<'a> {
    /// A bite of exactly these bytes.
    pub(crate) fn expect_bytes(&mut self, bytes: &[u8], expected: &'static str) -> Result<(), TextError> {
        if !self.rest().starts_with(bytes) {
            return Err(self.error(expected));
        }
        self.take(bytes.len(), expected).map(|_| ())
    }

    /// An element with a length of one byte, whole, as one bite: its content.
    pub(crate) fn short_element(&mut self, tag: u8, expected: &'static str) -> Result<&'a [u8], TextError> {
        let length = match self.rest() {
            [found, length @ 0..=125, ..] if *found == tag => usize::from(*length),
            _ => return Err(self.error(expected)),
        };
        Ok(self.take(2 + length, expected)?.get(2..).unwrap_or_default())
    }

    /// The header of a SEQUENCE as one bite: the length of its content.
    pub(crate) fn sequence_header(&mut self, expected: &'static str) -> Result<usize, TextError> {
        let (header, content) = header(0x30, self.rest()).ok_or_else(|| self.error(expected))?;
        self.take(header, expected)?;
        Ok(content)
    }

    pub(crate) fn serial(&mut self) -> Result<Serial, TextError> {
        const EXPECTED: &str = "a positive serial number of at most 20 bytes";
        let at_fault = self.error(EXPECTED);
        serial_value(self.short_element(0x02, EXPECTED)?).ok_or(at_fault)
    }

    /// UTCTime at the start of `bytes`, which the cursor has already passed.
    pub(crate) fn time_in(&self, bytes: &[u8]) -> Result<u32, TextError> {
        const EXPECTED: &str = "before here, a UTCTime between 2000 and 2049";
        match bytes.first_chunk::<15>() {
            Some([0x17, 0x0d, time @ ..]) => utc_time(time).ok_or_else(|| self.error(EXPECTED)),
            _ => Err(self.error(EXPECTED)),
        }
    }
}

/// An element of less than 64 KiB: of a longer one, the length is cut off.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [&header, content].concat()
}

/// Lengths of the header and the content of an element in minimal form, below 64 KiB.
pub(crate) fn header(tag: u8, bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes {
        [found, ..] if found != tag => None,
        [_, length @ 0..=127, ..] => Some((2, usize::from(length))),
        [_, 0x81, length @ 128..=255, ..] => Some((3, usize::from(length))),
        [_, 0x82, high @ 1..=255, low, ..] => Some((4, usize::from(u16::from_be_bytes([high, low])))),
        _ => None,
    }
}

/// The content of a SEQUENCE, and what follows it.
fn sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, content) = header(0x30, bytes)?;
    bytes.get(header..)?.split_at_checked(content)
}
