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

/// An amount in nanoTON in 64 bits, as jobs and receipts hold it: more than there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Store, Load)]
pub struct Amount(u64);

/// About what it costs to send a Model its share: one that is less is not sent.
pub const LEAST_SHARE: Amount = Amount(1_000_000);

/// More nanoTON than a job can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{amount} is more than a job can hold: ask for less")]
pub struct TooMuch {
    pub amount: Nanoton,
}

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

    /// `⌊self × bps / 10 000⌋`, at most [`Self::MAX`].
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

impl Amount {
    pub const ZERO: Self = Self(0);

    pub const fn new(nanoton: u64) -> Self {
        Self(nanoton)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub const fn nanoton(self) -> Nanoton {
        Nanoton::new(self.0)
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `⌊self × bps / 10 000⌋`; `bps` above 10 000 counts as 10 000.
    pub fn share_bps(self, bps: u16) -> Self {
        let bps = u128::from(bps).min(BPS);
        Self((u128::from(self.0) * bps / BPS) as u64)
    }
}

/// In TON with all nine decimals.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nanoton().fmt(f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u64> for Amount {
    fn from(nanoton: u64) -> Self {
        Self(nanoton)
    }
}

impl From<Amount> for Nanoton {
    fn from(amount: Amount) -> Self {
        amount.nanoton()
    }
}

impl TryFrom<Nanoton> for Amount {
    type Error = TooMuch;

    fn try_from(amount: Nanoton) -> Result<Self, TooMuch> {
        u64::try_from(amount.get()).map(Self).map_err(|_| TooMuch { amount })
    }
}

/// As [`Nanoton`].
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.nanoton().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Nanoton::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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

/// nanoTON per 1 000 units of each kind; 48 bits each on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    #[serde(deserialize_with = "price")]
    pub input: Nanoton,
    #[serde(deserialize_with = "price")]
    pub cached_input: Nanoton,
    #[serde(deserialize_with = "price")]
    pub output: Nanoton,
}

/// The greatest price: 281 474 TON per 1 000 units.
pub const MAX_PRICE: Nanoton = Nanoton::new((1 << PRICE_BITS) - 1);

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

impl Store for Prices {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        for price in [self.input, self.cached_input, self.output] {
            if price > MAX_PRICE {
                return Err(CellError::IntOverflow);
            }
            builder.store_uint(price.0 as u64, PRICE_BITS)?;
        }
        Ok(())
    }
}

impl<'a> Load<'a> for Prices {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let mut price = || slice.load_uint(PRICE_BITS).map(Nanoton::new);
        Ok(Self { input: price()?, cached_input: price()?, output: price()? })
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

/// Who gets what of a job that ends with a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Of a one-shot job `min(receipt amount, cost of the units, deposit)`, of a session
    /// `min(receipt amount, voucher, deposit)`.
    pub paid: Amount,
    /// Of `paid`, to the Model: royalty and fee. At the end of a job nothing where that is less than [`LEAST_SHARE`].
    pub share: Amount,
    /// `paid − share`.
    pub to_worker: Amount,
    /// `deposit − paid`.
    pub to_client: Amount,
}

impl Split {
    /// Of a one-shot job. `cost` is that of the receipt's units at the seller's prices.
    pub fn of(amount: Amount, cost: Nanoton, deposit: Amount, share_bps: u16) -> Self {
        let paid = amount.min(deposit);
        Self::of_paid(Amount::try_from(cost).map_or(paid, |cost| paid.min(cost)), deposit, share_bps).ended()
    }

    /// Of a session, in all up to this receipt, while it goes on.
    pub fn of_session(amount: Amount, voucher: Amount, deposit: Amount, share_bps: u16) -> Self {
        Self::of_paid(amount.min(voucher).min(deposit), deposit, share_bps)
    }

    /// The same where the job ends with it: a share under [`LEAST_SHARE`] is the worker's.
    pub fn ended(self) -> Self {
        if self.share >= LEAST_SHARE {
            self
        } else {
            Self { share: Amount::ZERO, to_worker: self.paid, ..self }
        }
    }

    fn of_paid(paid: Amount, deposit: Amount, share_bps: u16) -> Self {
        let share = paid.share_bps(share_bps);
        Self { paid, share, to_worker: paid.saturating_sub(share), to_client: deposit.saturating_sub(paid) }
    }
}

/// What a Model pays out of the `sum` above its rent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSplit {
    pub to_publisher: Nanoton,
    pub to_treasury: Nanoton,
}

impl ShareSplit {
    /// `⌊sum × royalty_bps / (royalty_bps + fee_bps)⌋` to the publisher, the rest to the treasury; all of it to the
    /// publisher where both are zero.
    pub fn of(sum: Nanoton, royalty_bps: u16, fee_bps: u16) -> Self {
        let both = u128::from(royalty_bps) + u128::from(fee_bps);
        if both == 0 {
            return Self { to_publisher: sum, to_treasury: Nanoton::ZERO };
        }
        let royalty = u128::from(royalty_bps);
        // The quotient first, so that no product exceeds 2^128.
        let to_publisher = Nanoton((sum.0 / both) * royalty + (sum.0 % both) * royalty / both);
        Self { to_publisher, to_treasury: sum.saturating_sub(to_publisher) }
    }
}

const PRICE_BITS: u16 = 48;

fn price<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nanoton, D::Error> {
    let price = Nanoton::deserialize(deserializer)?;
    if price > MAX_PRICE {
        return Err(serde::de::Error::custom("a price is at most 2^48 - 1 nanoTON per 1 000 units"));
    }
    Ok(price)
}
