//! The forms that Intel's signed JSON documents are made of, read as `contracts/json.tolk` reads them: literals and
//! values in one order, without spaces.

use contracts::attestor::{Advisories, DocumentLife, Serial, SvnLevel, needs};

use crate::dates::rfc3339_time;
use crate::text::{Text, TextError};

/// What is common to the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issue {
    /// Unix time.
    pub issue_date: u32,
    /// Unix time.
    pub next_update: u32,
    pub evaluation_number: u32,
}

impl Issue {
    /// As the contract keeps it, with its signer's certificate.
    #[must_use]
    pub fn life(&self, signer_serial: Serial, signer_not_after: u32) -> DocumentLife {
        let Self { issue_date, next_update, evaluation_number } = *self;
        DocumentLife { issue_date, next_update, evaluation_number, signer_serial, signer_not_after }
    }
}

const ADVISORY_START: &[u8] = b"\"INTEL-SA-";
const ADVISORY_BYTES: usize = ADVISORY_START.len() + 5;
const ADVISORY_END: &[u8] = b"\",";
const LAST_ADVISORY_END: &[u8] = b"\"]}";

const STATUSES: [(&str, u8); 7] = [
    ("UpToDate\"", 0),
    ("OutOfDate\"", needs::OUT_OF_DATE),
    ("SWHardeningNeeded\"", needs::SW_HARDENING),
    ("ConfigurationNeeded\"", needs::CONFIGURATION),
    ("ConfigurationAndSWHardeningNeeded\"", needs::CONFIGURATION | needs::SW_HARDENING),
    ("OutOfDateConfigurationNeeded\"", needs::OUT_OF_DATE | needs::CONFIGURATION),
    ("Revoked\"", needs::REVOKED),
];

impl Text<'_> {
    /// A decimal number without leading zeros.
    pub(crate) fn number(&mut self, limit: u32) -> Result<u32, TextError> {
        const EXPECTED: &str = "a decimal number in its range";
        let digits = self.rest().iter().take(11).take_while(|byte| byte.is_ascii_digit()).count();
        let at_fault = self.error(EXPECTED);
        let text = self.take(digits.max(1), EXPECTED)?;
        let value: u32 =
            str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| at_fault.clone())?;
        if value > limit || (digits > 1 && text.first() == Some(&b'0')) {
            return Err(at_fault);
        }
        Ok(value)
    }

    /// `YYYY-MM-DDThh:mm:ssZ`
    pub(crate) fn date(&mut self) -> Result<u32, TextError> {
        const EXPECTED: &str = "a time between 2000 and 2099";
        let at_fault = self.error(EXPECTED);
        rfc3339_time(&self.take_array(EXPECTED)?).ok_or(at_fault)
    }

    /// Upper-case hexadecimal of at most 16 bytes, as one bite.
    pub(crate) fn hex<const N: usize>(&mut self) -> Result<[u8; N], TextError> {
        const EXPECTED: &str = "upper-case hexadecimal";
        let at_fault = self.error(EXPECTED);
        let mut bytes = [0; N];
        let (pairs, _) = self.take(2 * N, EXPECTED)?.as_chunks::<2>();
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = hex_digit(*high)
                .zip(hex_digit(*low))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| at_fault.clone())?;
        }
        Ok(bytes)
    }

    /// A TCB status with its closing quote: what it needs.
    pub(crate) fn status(&mut self) -> Result<u8, TextError> {
        for (status, needs) in STATUSES {
            if self.try_expect(status) {
                return Ok(needs);
            }
        }
        Err(self.error("a TCB status"))
    }

    /// The rest of a level after its status: its advisories, if any, and the closing brace.
    pub(crate) fn advisories(&mut self) -> Result<Advisories, TextError> {
        let mut numbers = Vec::new();
        if self.try_expect("}") {
            return Ok(Advisories(numbers));
        }
        self.expect(",\"advisoryIDs\":[")?;
        if self.try_expect("]}") {
            return Ok(Advisories(numbers));
        }
        loop {
            const EXPECTED: &str = "an advisory INTEL-SA-ddddd";
            // With its number and what follows, an advisory is one bite.
            let Some((number, end)) = advisory(self.rest()) else {
                return Err(self.error(EXPECTED));
            };
            numbers.push(number);
            self.take(ADVISORY_BYTES + end.len(), EXPECTED)?;
            if end == LAST_ADVISORY_END {
                return Ok(Advisories(numbers));
            }
        }
    }

    /// Levels of one security version number, with the closing bracket. `allowed` are the needs a status may express.
    pub(crate) fn svn_levels(&mut self, limit: u32, allowed: u8) -> Result<Vec<SvnLevel>, TextError> {
        let mut levels = Vec::new();
        loop {
            self.expect("{\"tcb\":{\"isvsvn\":")?;
            let isv_svn = self.number(limit)? as u16;
            self.expect("},\"tcbDate\":\"")?;
            self.date()?;
            self.expect("\",\"tcbStatus\":\"")?;
            let at_fault = self.error("a TCB status that this kind of level can have");
            let needs = self.status()?;
            if needs & !(allowed | needs::REVOKED) != 0 {
                return Err(at_fault);
            }
            let advisories = self.advisories_digest()?;
            levels.push(SvnLevel { isv_svn, needs, advisories });
            if !self.try_expect(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(levels)
    }

    /// [`Self::advisories`] as levels hold them.
    pub(crate) fn advisories_digest(&mut self) -> Result<tycho_types::cell::HashBytes, TextError> {
        let at_fault = self.error("advisories that fit their cells");
        self.advisories()?.digest().map_err(|_| at_fault)
    }
}

/// The number of the advisory at the start of `text`, and what ends it.
fn advisory(text: &[u8]) -> Option<([u8; 5], &'static [u8])> {
    let (number, rest) = text.strip_prefix(ADVISORY_START)?.split_first_chunk::<5>()?;
    let end = [ADVISORY_END, LAST_ADVISORY_END].into_iter().find(|end| rest.starts_with(end))?;
    number.iter().all(u8::is_ascii_digit).then_some((*number, end))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
