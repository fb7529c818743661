//! What a request may use.

use contracts::{Prices, Units};
use serde::{Deserialize, Serialize};

/// The most that one request may be charged, in the model's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitBound {
    /// Of the input, computed before or not.
    pub input: u32,
    /// Of the output.
    pub output: u32,
}

impl UnitBound {
    /// `used` is within it.
    pub fn covers(&self, used: &Units) -> bool {
        u64::from(used.input) + u64::from(used.cached_input) <= u64::from(self.input)
            && used.output <= self.output
    }

    /// Charged at the full price of input.
    pub(crate) fn units(&self) -> Units {
        Units { input: self.input, cached_input: 0, output: self.output }
    }
}

/// Both together. `None` where a count passes 2^32 − 1.
pub(crate) fn plus(one: &Units, other: &Units) -> Option<Units> {
    Some(Units {
        input: one.input.checked_add(other.input)?,
        cached_input: one.cached_input.checked_add(other.cached_input)?,
        output: one.output.checked_add(other.output)?,
    })
}

/// All together. `None` where a count passes 2^32 − 1.
pub(crate) fn sum<'a>(units: impl IntoIterator<Item = &'a Units>) -> Option<Units> {
    units.into_iter().try_fold(Units::default(), |sum, units| plus(&sum, units))
}

/// Counts cached input as input where that costs no more: a bound is charged as input alone.
pub(crate) fn at_best(prices: &Prices, used: Units) -> Units {
    match used.input.checked_add(used.cached_input) {
        Some(input) if prices.cached_input > prices.input => {
            Units { input, cached_input: 0, output: used.output }
        }
        _ => used,
    }
}
