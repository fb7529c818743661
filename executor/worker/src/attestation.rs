//! Quotes: where they come from and what is read from them.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use collateral::{Pccs, Platform};
use contracts::HashBytes;
use contracts::measurement::TdMeasurements;
use dcap_qvl::QuoteCollateralV3;
use tokio::runtime::Handle;

/// Makes TDX quotes of the machine this program runs in. Calls block.
pub trait AttestationSource: Send + Sync + 'static {
    /// A raw quote whose report carries these 64 bytes.
    ///
    /// # Errors
    /// [`AttestationError`].
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttestationError>;
}

/// Gives what the vendor signed about this machine: certificates, revocation lists, TCB info, QE identity. Calls block.
pub trait CollateralSource: Send + Sync + 'static {
    /// As new as there is.
    ///
    /// # Errors
    /// [`AttestationError::NoCollateral`].
    fn collateral(&self) -> Result<QuoteCollateralV3, AttestationError>;
}

/// Collateral in a file, as a provisioning service gives it (JSON). Read anew each time, so that it may be replaced.
#[derive(Debug, Clone)]
pub struct CollateralFile(pub PathBuf);

impl CollateralSource for CollateralFile {
    fn collateral(&self) -> Result<QuoteCollateralV3, AttestationError> {
        let failed = |detail: String| AttestationError::NoCollateral { detail };
        let path = &self.0;
        let file = File::open(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let mut text = String::new();
        let read = file.take(MAX_COLLATERAL_BYTES).read_to_string(&mut text);
        read.map_err(|error| failed(format!("{}: {error}", path.display())))?;
        serde_json::from_str(&text).map_err(|error| failed(format!("{}: {error}", path.display())))
    }
}

/// Collateral from a server, for the machine that the quotes are of. Not to be asked from within the runtime's own tasks.
pub struct PccsCollateral {
    /// The server.
    pccs: Pccs,
    /// Of the machine: one quote, over zeros, tells which platform it is. It binds no key.
    source: Arc<dyn AttestationSource>,
    /// Where requests are made.
    runtime: Handle,
    /// The clock, Unix time in seconds.
    now_s: fn() -> u64,
    /// Known after the first quote.
    platform: OnceLock<Platform>,
}

impl PccsCollateral {
    /// Nothing is asked yet.
    pub fn new(pccs: Pccs, source: Arc<dyn AttestationSource>, runtime: Handle, now_s: fn() -> u64) -> Self {
        Self { pccs, source, runtime, now_s, platform: OnceLock::new() }
    }

    fn platform(&self) -> Result<Platform, AttestationError> {
        if let Some(platform) = self.platform.get() {
            return Ok(*platform);
        }
        let quote = self.source.quote(&[0; 64])?;
        let platform = Platform::of_quote(&quote)
            .map_err(|error| AttestationError::NoCollateral { detail: error.to_string() })?;
        Ok(*self.platform.get_or_init(|| platform))
    }
}

impl CollateralSource for PccsCollateral {
    fn collateral(&self) -> Result<QuoteCollateralV3, AttestationError> {
        let platform = self.platform()?;
        let fetched = self.runtime.block_on(self.pccs.collateral(&platform, (self.now_s)()));
        fetched.map_err(|error| AttestationError::NoCollateral { detail: error.to_string() })
    }
}

impl fmt::Debug for PccsCollateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PccsCollateral({})", self.pccs.server())
    }
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
    /// No collateral.
    #[error(
        "worker: no collateral for the quote ({detail}); name a collateral server (pccs_url), or a file with what one \
         gave (--collateral)"
    )]
    NoCollateral {
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
    let short = |at: usize| -> [u8; 8] { report[at..at + 8].try_into().unwrap_or([0; 8]) };
    let fields = TdMeasurements {
        td_attributes: short(120),
        xfam: short(128),
        mr_td: field(136),
        mr_config_id: field(184),
        mr_owner: field(232),
        mr_owner_config: field(280),
        rtmr0: field(328),
        rtmr1: field(376),
        rtmr2: field(424),
        rtmr3: field(472),
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
const MAX_COLLATERAL_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tdx_simulator::{SimulatedPlatform, TdIdentity};
    use verifier::{QuotePolicy, verify_quote};

    use super::*;

    /// Bytes of a quote whose report is `0, 1, 2, …`.
    fn quote(version: u8) -> Vec<u8> {
        let mut quote = vec![version, 0, 2, 0, 0x81, 0, 0, 0];
        quote.resize(HEADER_BYTES, 0);
        if version == 5 {
            quote.extend_from_slice(&[2, 0, 0x48, 2, 0, 0]);
        }
        quote.extend((0..REPORT_BYTES).map(|at| at as u8));
        quote
    }

    #[test]
    fn the_fields_of_a_report_are_where_the_format_puts_them() {
        let facts = read_quote(&quote(4)).unwrap();
        assert_eq!(facts, read_quote(&quote(5)).unwrap());
        let field = |at: usize| std::array::from_fn(|offset| (at + offset) as u8);
        let expected = TdMeasurements {
            mr_td: field(136),
            rtmr0: field(328),
            rtmr1: field(376),
            rtmr2: field(424),
            rtmr3: field(472),
            mr_config_id: field(184),
            mr_owner: field(232),
            mr_owner_config: field(280),
            td_attributes: std::array::from_fn(|offset| (120 + offset) as u8),
            xfam: std::array::from_fn(|offset| (128 + offset) as u8),
        };
        assert_eq!(facts.measurement, expected.measurement());
        assert_eq!(facts.report_data, std::array::from_fn(|offset| (520 + offset) as u8));
    }

    #[test]
    fn other_quotes_are_refused() {
        let good = quote(4);
        for bad in [&good[..0], &good[..631], &quote(3)[..], &[vec![4, 0, 2, 0, 0], good.clone()].concat()] {
            assert!(matches!(read_quote(bad), Err(AttestationError::Malformed { .. })));
        }
    }
    /// From the platform's quote to what the verifier says of it: both read the same report.
    #[test]
    fn a_simulated_quote_reads_as_the_verifier_reads_it() {
        let now_s = 1_800_000_000;
        let platform = SimulatedPlatform::new(&[5; 32], now_s).unwrap();
        let identity = TdIdentity::of_image("worker");
        let report_data = std::array::from_fn(|at| at as u8);
        let raw = platform.quote(&report_data, &identity);
        let facts = read_quote(&raw).unwrap();
        assert_eq!(facts.report_data, report_data);
        let policy = QuotePolicy::dangerous_simulated(platform.root_der().to_vec(), vec![facts.measurement]);
        let (verdict, verified) = verify_quote(&raw, platform.collateral(), &policy, now_s);
        assert!(verdict.all_passed(), "{:?}", verdict.failures());
        let verified = verified.unwrap();
        assert_eq!((facts.measurement, facts.report_data), (verified.measurement, verified.report_data));
        let other = read_quote(&platform.quote(&report_data, &TdIdentity::of_image("another"))).unwrap();
        assert_ne!(other.measurement, facts.measurement);
        // The registers of the image, each in its place.
        let [rtmr0, rtmr1, rtmr2, rtmr3] = identity.rtmr;
        let named = TdMeasurements {
            mr_td: identity.mr_td,
            rtmr0,
            rtmr1,
            rtmr2,
            rtmr3,
            mr_config_id: identity.mr_config_id,
            mr_owner: identity.mr_owner,
            mr_owner_config: identity.mr_owner_config,
            td_attributes: platform.profile().td_attributes.to_le_bytes(),
            xfam: identity.xfam,
        };
        assert_eq!(facts.measurement, named.measurement());
    }
}
