//! What `contracts/fees.tolk` foresees, as far as the worker decides by it. The tests compare with that file.

use contracts::{Nanoton, Units, fees};

/// Above what a Worker contract asks for a claim at the basechain's prices (`claimCost`).
pub(crate) const CLAIM_FLOAT: Nanoton = Nanoton::new(20_000_000);

/// How a job's reserve counts a result (`receiptImport`): fixed part, bytes a unit in, bytes a unit out.
pub(crate) const RESULT_BASE_BYTES: usize = fees::RESULT_BASE_BYTES as usize;
pub(crate) const RESULT_BYTES_PER_INPUT: usize = fees::RESULT_BYTES_PER_INPUT as usize;
pub(crate) const RESULT_BYTES_PER_OUTPUT: usize = fees::RESULT_BYTES_PER_OUTPUT as usize;
const RESULT_MAX_BYTES: usize = fees::RESULT_MAX_BYTES as usize;

/// Bytes of a sealed result whose import the job can pay for, whatever else it met: a receipt with more may be refused, and the
/// bond with it lost.
pub(crate) fn reserved_bytes(max_units: &Units) -> usize {
    let count = |units: u32| usize::try_from(units).unwrap_or(usize::MAX);
    let input = count(max_units.input).saturating_add(count(max_units.cached_input));
    RESULT_BASE_BYTES
        .saturating_add(input.saturating_mul(RESULT_BYTES_PER_INPUT))
        .saturating_add(count(max_units.output).saturating_mul(RESULT_BYTES_PER_OUTPUT))
        .min(RESULT_MAX_BYTES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use contracts::fees::FeePrices;
    use tvm_executor::Vm;

    use super::*;

    /// The basechain's prices in the built-in config.
    fn prices() -> FeePrices {
        let vm = Vm::new(-3).unwrap();
        let config = vm.config();
        FeePrices {
            storage: config.get_storage_prices().unwrap().values().last().unwrap().unwrap(),
            gas: config.get_gas_prices(false).unwrap(),
            forward: config.get_msg_forward_prices(false).unwrap(),
        }
    }

    #[test]
    fn a_result_is_counted_as_the_contract_counts_it() {
        let units = Units { input: 10, cached_input: 2, output: 5 };
        assert_eq!(reserved_bytes(&units), 512 + 12 * 8 + 5 * 16);
        let most = Units { input: u32::MAX, cached_input: u32::MAX, output: u32::MAX };
        assert_eq!(reserved_bytes(&most), 65_536);
    }

    #[test]
    fn the_claims_float_is_above_what_the_contract_asks() {
        let cost = prices().claim();
        assert!(cost <= CLAIM_FLOAT, "a claim costs {cost}");
        assert!(CLAIM_FLOAT.get() < 2 * cost.get(), "a claim costs {cost}: the float is needlessly large");
    }

    /// `registrationFees` in `fees.tolk`, and the most that a posting may use with its rent.
    #[test]
    fn a_registration_brings_what_the_contracts_ask() {
        let prices = prices();
        let cost = prices.registration();
        let brought = client::amounts::REGISTRATION;
        assert!(cost <= brought, "a registration needs {cost}");
        assert!(
            brought.get() < 2 * cost.get(),
            "a registration needs {cost}: what it brings is needlessly much"
        );
        let posting = prices
            .gas(prices.gas.gas_limit)
            .checked_add(prices.storage(
                fees::RENT_COLLATERAL_S,
                fees::COLLATERAL_BITS,
                fees::COLLATERAL_CELLS,
            ))
            .unwrap();
        assert!(posting <= client::amounts::POSTING, "a posting may need {posting}");
    }
}
