//! A visibly fake TDX platform: its own root, its own collateral, its own quotes. **For the local chain only.**
//!
//! Every name says `SIMULATED NOT INTEL`, the FMSPC spells `SIMTDX`, and nothing here is signed by Intel, so a
//! verifier that trusts Intel's root refuses all of it. What it makes has the layout of the real thing byte for
//! byte (Intel, *TDX DCAP Quoting Library API*, quote formats 4 and 5; *SGX PCK Certificate and CRL Profile
//! Specification*; PCS API v4), so that the same verifiers, on chain and off, run over both.

mod der;
mod documents;
mod pki;
mod profile;
mod quote;

use dcap_qvl::QuoteCollateralV3;
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use der::x509;
pub use pki::{Certificates, Names, Signer, pem};
pub use profile::{
    Faults, PckIssuer, Period, Periods, Profile, QeIdentityProfile, QuoteFormat, Revocations, SvnLevel,
    TD_DEBUG, TD_SEPT_VE_DISABLE, TcbInfoProfile, TcbLevel, TdxModule,
};
pub use quote::{QuoteParts, TdIdentity};

/// FMSPC of a simulated platform that is not told another.
pub const FMSPC: [u8; 6] = *b"SIMTDX";

/// Why the simulator could not be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// The time is outside what certificates can carry.
    #[error("simulator: {0} is not a time between 2000 and 2049, which certificates can carry")]
    Time(u64),
    /// The seed does not give a key.
    #[error("simulator: the seed gives no key; use another")]
    Key,
    /// Intel's lists have a number of one byte.
    #[error("simulator: CRL number {0}; use one below 128")]
    CrlNumber(u8),
    /// Not a signature to put in a certificate.
    #[error("simulator: r or s of the signature is zero or not below the order; sign again")]
    Signature,
}

/// A simulated machine with its certificate authority. **For the local chain only.**
#[must_use]
pub struct SimulatedPlatform {
    pki: pki::Pki,
    profile: Profile,
}

impl SimulatedPlatform {
    /// A platform that follows from `seed` and `now_s` to the byte, with collateral issued a day before `now_s` and good
    /// for a month after. `now_s` is Unix seconds.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn new(seed: &[u8; 32], now_s: u64) -> Result<Self, SimulatorError> {
        Self::with_profile(seed, now_s, Profile::default())
    }

    /// The same with something wrong.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn with_faults(seed: &[u8; 32], now_s: u64, faults: Faults) -> Result<Self, SimulatorError> {
        Self::with_profile(seed, now_s, faults.into())
    }

    /// The same as the profile says. Platforms of one seed have one root.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn with_profile(seed: &[u8; 32], now_s: u64, profile: Profile) -> Result<Self, SimulatorError> {
        Ok(Self { pki: pki::Pki::new(seed, now_s, &profile)?, profile })
    }

    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The root certificate (DER) that a policy must name to accept anything made here.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.pki.certificates.root
    }

    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.pki.certificates
    }

    /// Collateral in the form that Intel's service gives it.
    #[must_use]
    pub fn collateral(&self) -> &QuoteCollateralV3 {
        &self.pki.collateral
    }

    /// A quote over `report_data` for a TD of this identity.
    #[must_use]
    pub fn quote(&self, report_data: &[u8; 64], identity: &TdIdentity) -> Vec<u8> {
        self.quote_parts(report_data, identity).encode()
    }

    /// The same in parts.
    #[must_use]
    pub fn quote_parts(&self, report_data: &[u8; 64], identity: &TdIdentity) -> QuoteParts {
        quote::parts(&self.pki, &self.profile, report_data, identity)
    }

    /// ECDSA over SHA-256 of any bytes, with a key of the simulation: r ‖ s, big-endian.
    #[must_use]
    pub fn sign_as(&self, signer: Signer, bytes: &[u8]) -> [u8; 64] {
        self.pki.holder(signer).sign(bytes)
    }

    /// x ‖ y, big-endian.
    #[must_use]
    pub fn public_key(&self, signer: Signer) -> [u8; 64] {
        self.pki.holder(signer).public_key()
    }

    /// Serial of the signer's certificate; the attestation key has none and the number says nothing.
    #[must_use]
    pub fn serial(&self, signer: Signer) -> [u8; 20] {
        self.pki.holder(signer).serial
    }
}

pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}
