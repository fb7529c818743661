//! Quotes: where they come from and what is read from them.

use std::fmt;

use contracts::HashBytes;
use contracts::measurement::TdMeasurements;

/// Makes TDX quotes of the machine this program runs in. Calls block.
pub trait AttestationSource: Send + Sync + 'static {
    /// A raw quote whose report carries these 64 bytes.
    ///
    /// # Errors
    /// [`AttestationError`].
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttestationError>;
}

/// No usable quote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestationError {
    /// Not inside a TDX guest, or the kernel is too old.
    #[error(
        "worker: this machine makes no TDX quotes ({detail}); run in a TDX guest with Linux 6.7 or later"
    )]
    Unavailable {
        /// What was tried.
        detail: String,
    },
    /// The platform answered with an error.
    #[error("worker: the platform made no quote ({detail}); check the host's quote generation service")]
    Failed {
        /// What was met.
        detail: String,
    },
    /// The quote is not what was asked for.
    #[error("worker: the quote is not usable: {reason}; the source of quotes is at fault")]
    Malformed {
        /// Why.
        reason: &'static str,
    },
}

/// What a worker reads from its own quote. Its signatures are for others to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteFacts {
    /// As the Registry lists it.
    pub measurement: HashBytes,
    /// What the report carries.
    pub report_data: [u8; 64],
}

/// Reads the TD report of a raw quote, versions 4 and 5 with a TD 1.0 or 1.5 report (Intel TDX DCAP, quote format).
///
/// # Errors
/// [`AttestationError::Malformed`].
pub fn read_quote(quote: &[u8]) -> Result<QuoteFacts, AttestationError> {
    let malformed = |reason| AttestationError::Malformed { reason };
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(quote.get(at..at + 4)?.try_into().ok()?)) };
    let (version, tee) = (word(0).map(|word| word & 0xffff), word(4));
    if tee != Some(TEE_TDX) {
        return Err(malformed("not of a TDX guest"));
    }
    let start = match version {
        Some(4) => HEADER_BYTES,
        Some(5) => HEADER_BYTES + BODY_HEADER_BYTES,
        _ => return Err(malformed("neither version 4 nor 5")),
    };
    let report =
        quote.get(start..start + REPORT_BYTES).ok_or_else(|| malformed("shorter than a TD report"))?;
    let field = |at: usize| -> [u8; 48] { report[at..at + 48].try_into().unwrap_or([0; 48]) };
    let fields = TdMeasurements {
        mr_td: field(136),
        rtmr0: field(328),
        rtmr1: field(376),
        rtmr2: field(424),
        rtmr3: field(472),
        mr_config_id: field(184),
        mr_owner: field(232),
        mr_owner_config: field(280),
        xfam: report[128..136].try_into().unwrap_or([0; 8]),
    };
    let report_data = report[520..584].try_into().map_err(|_| malformed("shorter than a TD report"))?;
    Ok(QuoteFacts { measurement: fields.measurement(), report_data })
}

impl fmt::Debug for dyn AttestationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttestationSource")
    }
}

const TEE_TDX: u32 = 0x81;
const HEADER_BYTES: usize = 48;
/// Version 5 puts a type (u16) and a size (u32) before the report.
const BODY_HEADER_BYTES: usize = 6;
const REPORT_BYTES: usize = 584;
