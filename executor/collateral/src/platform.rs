//! For which platform collateral is wanted.

use std::fmt;
use std::str::FromStr;

use contracts::attestor::Fmspc;
use prover::certificate::Kind;
use prover::quote::{PckChain, Quote, QuoteError};

/// What a PCS has to be told of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// Family, model, stepping, platform type and custom SKU.
    pub fmspc: Fmspc,
    /// Who issued its PCK certificate.
    pub ca: Ca,
}

/// The authorities that issue PCK certificates (Intel, *SGX PCK Certificate and CRL Profile Specification*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ca {
    /// Of platforms with several processors, and of all that are registered as such.
    Platform,
    /// Of single processors.
    Processor,
}

/// A quote does not say for which platform it speaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The quote or its chain cannot be read.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The PCK certificate comes from elsewhere.
    #[error(
        "the PCK certificate's issuer is called neither Platform CA nor Processor CA; whoever supplied the chain is at \
         fault"
    )]
    UnknownIssuer,
}

impl Platform {
    /// The platform of a raw quote that carries its PCK certificate chain, as quotes of TDX do. No signature is checked.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn of_quote(raw: &[u8]) -> Result<Self, PlatformError> {
        let quote = Quote::parse(raw)?;
        Self::of_chain(quote.pck_chain.as_deref().ok_or(QuoteError::NoChain)?)
    }

    /// The platform of a PCK certificate chain (PEM, the PCK certificate first).
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn of_chain(pem: &str) -> Result<Self, PlatformError> {
        let chain = PckChain::from_pem(pem)?;
        let Kind::Pck(claims) = &chain.pck.kind else { return Err(QuoteError::NotPck.into()) };
        let ca = Ca::named_in(&chain.pck.issuer).ok_or(PlatformError::UnknownIssuer)?;
        Ok(Self { fmspc: claims.fmspc, ca })
    }
}

impl Ca {
    /// As the API's parameter `ca` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Processor => "processor",
        }
    }

    /// Which of the two a DER Name names; the simulator's names end alike.
    pub(crate) fn named_in(name: &[u8]) -> Option<Self> {
        [(Self::Platform, "PCK Platform CA"), (Self::Processor, "PCK Processor CA")]
            .into_iter()
            .find(|(_, text)| name.windows(text.len()).any(|window| window == text.as_bytes()))
            .map(|(ca, _)| ca)
    }
}

impl fmt::Display for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Ca {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Platform, Self::Processor]
            .into_iter()
            .find(|ca| ca.name() == text)
            .ok_or_else(|| format!("{text} is neither platform nor processor"))
    }
}
