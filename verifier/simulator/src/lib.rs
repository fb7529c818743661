//! A visibly fake TDX platform: its own root, its own collateral, its own quotes. **For the local chain only.**
//!
//! Every name says `SIMULATED - NOT INTEL`, the FMSPC spells `SIMTDX`, and nothing here is signed by Intel, so a
//! verifier that trusts Intel's root refuses all of it. What it makes has the shape of the real thing (Intel, *TDX
//! DCAP Quoting Library API*, quote format 4; *PCK Certificate and CRL Profile Specification*), so that the same
//! verifier code runs over both.

mod der;
mod pki;
mod quote;

use dcap_qvl::QuoteCollateralV3;
use thiserror::Error;

pub use quote::TdIdentity;

/// FMSPC of every simulated platform.
pub const FMSPC: [u8; 6] = *b"SIMTDX";

/// Why the simulator could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// A certificate or revocation list could not be made.
    #[error("simulator: cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The time is outside what certificates can carry.
    #[error("simulator: {0} is not a time that a certificate can carry")]
    Time(u64),
    /// The seed does not give a key.
    #[error("simulator: the seed gives no key; use another")]
    Key,
}

/// What is wrong with a platform, for tests of the verifier. The default is a platform without fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// The TD runs with the debug bit.
    pub debug_td: bool,
    /// The platform's SVNs are below every acceptable TCB level.
    pub old_svn: bool,
    /// The PCK certificate is on the revocation list.
    pub revoked_pck: bool,
    /// TCB info names another PCE than the certificate.
    pub other_pce: bool,
}

/// A simulated machine with its certificate authority. **For the local chain only.**
#[must_use]
pub struct SimulatedPlatform {
    pki: pki::Pki,
    faults: Faults,
}

impl SimulatedPlatform {
    /// A platform that follows from `seed` and `now_s` to the byte, with collateral issued a day before `now_s` and good for a month.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn new(seed: &[u8; 32], now_s: u64) -> Result<Self, SimulatorError> {
        Self::with_faults(seed, now_s, Faults::default())
    }

    /// The same with something wrong.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn with_faults(seed: &[u8; 32], now_s: u64, faults: Faults) -> Result<Self, SimulatorError> {
        Ok(Self { pki: pki::Pki::new(seed, now_s, faults)?, faults })
    }

    /// The root certificate (DER) that a policy must name to accept anything made here.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.pki.root_der
    }

    /// Collateral in the form that Intel's service gives it.
    #[must_use]
    pub fn collateral(&self) -> &QuoteCollateralV3 {
        &self.pki.collateral
    }

    /// A version 4 quote over `report_data` for a TD of this identity.
    #[must_use]
    pub fn quote(&self, report_data: &[u8; 64], identity: &TdIdentity) -> Vec<u8> {
        quote::quote(&self.pki, self.faults, report_data, identity)
    }
}
