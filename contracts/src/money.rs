//! Amounts, prices and units, with the protocol's rounding.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tycho_types::cell::{CellBuilder, CellContext, CellSlice, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::num::Tokens;

/// Basis points in a whole.
pub const BPS: u128 = 10_000;

/// An amount in nanoTON, 0 to 2^120 − 1 (`Coins` of TL-B).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanoton(u128);

/// Text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an amount: write whole nanoTON, at most 2^120 - 1")]
pub struct AmountError;

impl Nanoton {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self((1 << 120) - 1);

    pub const fn new(nanoton: u64) -> Self {
        Self(nanoton as u128)
    }

    /// `None` above 2^120 − 1.
    pub const fn checked(nanoton: u128) -> Option<Self> {
        if nanoton <= Self::MAX.0 { Some(Self(nanoton)) } else { None }
    }

    pub const fn get(self) -> u128 {
        self.0
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::checked(self.0 + other.0)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `⌊self × bps / 10 000⌋`, at most [`Self::MAX`]: royalty and fee.
    pub fn share_bps(self, bps: u16) -> Self {
        let (whole, rest) = self.share_parts(bps);
        Self((whole + rest / BPS).min(Self::MAX.0))
    }

    /// `⌈self × bps / 10 000⌉`, at most [`Self::MAX`]: bond.
    pub fn share_bps_ceil(self, bps: u16) -> Self {
        let (whole, rest) = self.share_parts(bps);
        Self((whole + rest.div_ceil(BPS)).min(Self::MAX.0))
    }

    /// Split so that no product exceeds 2^120 × 2^16 / 10 000 + 10 000 × 2^16.
    fn share_parts(self, bps: u16) -> (u128, u128) {
        let bps = u128::from(bps);
        ((self.0 / BPS) * bps, (self.0 % BPS) * bps)
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// In TON with all nine decimals.
impl fmt::Display for Nanoton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} TON", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl fmt::Debug for Nanoton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u64> for Nanoton {
    fn from(nanoton: u64) -> Self {
        Self::new(nanoton)
    }
}

impl From<Nanoton> for Tokens {
    fn from(value: Nanoton) -> Self {
        Tokens::new(value.0)
    }
}

impl From<Tokens> for Nanoton {
    fn from(value: Tokens) -> Self {
        Self(value.into_inner())
    }
}

/// Whole nanoTON in decimal.
impl FromStr for Nanoton {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        text.parse().ok().and_then(Self::checked).ok_or(AmountError)
    }
}

/// A decimal string, since JSON numbers lose digits above 2^53.
impl Serialize for Nanoton {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A decimal string or a number.
impl<'de> Deserialize<'de> for Nanoton {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(Self::new(value)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Store for Nanoton {
    fn store_into(&self, builder: &mut CellBuilder, context: &dyn CellContext) -> Result<(), CellError> {
        Tokens::new(self.0).store_into(builder, context)
    }
}

impl<'a> Load<'a> for Nanoton {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        Tokens::load_from(slice).map(Self::from)
    }
}

/// nanoTON per 1 000 units of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Store, Load, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub input: Nanoton,
    pub cached_input: Nanoton,
    pub output: Nanoton,
}

impl Prices {
    /// Every price at most the other's.
    pub fn at_most(&self, limit: &Self) -> bool {
        self.input <= limit.input && self.cached_input <= limit.cached_input && self.output <= limit.output
    }

    /// `⌈Σ units × price / 1000⌉`, at most [`Nanoton::MAX`] (which no deposit exceeds).
    pub fn cost(&self, units: &Units) -> Nanoton {
        let terms =
            [(units.input, self.input), (units.cached_input, self.cached_input), (units.output, self.output)];
        let mut whole = 0u128;
        let mut rest = 0u128;
        for (count, price) in terms {
            let count = u128::from(count);
            whole = whole.saturating_add((price.0 / 1000).saturating_mul(count));
            rest += (price.0 % 1000) * count;
        }
        Nanoton(whole.saturating_add(rest.div_ceil(1000)).min(Nanoton::MAX.0))
    }
}

/// Counts of what was served, in the model's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Store, Load, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Units {
    pub input: u32,
    pub cached_input: u32,
    pub output: u32,
}

impl Units {
    /// Every count at most the other's.
    pub fn at_most(&self, limit: &Self) -> bool {
        self.input <= limit.input && self.cached_input <= limit.cached_input && self.output <= limit.output
    }
}

/// How a receipt's money is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// `min(receipt amount, cost of the units, deposit)`.
    pub paid: Nanoton,
    /// Of `paid`, for the publisher.
    pub royalty: Nanoton,
    /// Of `paid`, for the treasury.
    pub fee: Nanoton,
    /// `paid − royalty − fee`.
    pub to_worker: Nanoton,
    /// `deposit − paid`.
    pub to_client: Nanoton,
}

impl Split {
    /// `None` when royalty and fee together exceed what was paid, which the parameters' caps exclude.
    pub fn of(
        amount: Nanoton,
        cost: Nanoton,
        deposit: Nanoton,
        royalty_bps: u16,
        fee_bps: u16,
    ) -> Option<Self> {
        let paid = amount.min(cost).min(deposit);
        let royalty = paid.share_bps(royalty_bps);
        let fee = paid.share_bps(fee_bps);
        Some(Self {
            paid,
            royalty,
            fee,
            to_worker: paid.checked_sub(royalty)?.checked_sub(fee)?,
            to_client: deposit.checked_sub(paid)?,
        })
    }
}
