//! What `contracts/fees.tolk` foresees, as far as the worker decides by it. The tests compare with that file.

use contracts::{Nanoton, Units};

/// Above what a Worker contract asks for a claim at the basechain's prices (`claimCost`).
pub(crate) const CLAIM_FLOAT: Nanoton = Nanoton::new(16_000_000);

/// How a job's reserve counts a result (`receiptImport`): fixed part, bytes a unit in, bytes a unit out, and the most.
pub(crate) const RESULT_BASE_BYTES: usize = 1_536;
pub(crate) const RESULT_BYTES_PER_INPUT: usize = 8;
pub(crate) const RESULT_BYTES_PER_OUTPUT: usize = 16;
const RESULT_MAX_BYTES: usize = 65_536;

/// Bytes of ciphertext whose import the job can pay for, whatever else it met: a receipt with more may be refused, and the
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
    use tvm_executor::Vm;
    use tycho_types::models::{GasLimitsPrices, MsgForwardPrices, StoragePrices};

    use super::*;

    /// The whole number that `fees.tolk` gives a constant.
    fn stated(name: &str) -> u64 {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/fees.tolk");
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("const {name} = "))).unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn a_result_is_counted_as_the_contract_counts_it() {
        for (name, ours) in [
            ("RESULT_BASE_BYTES", RESULT_BASE_BYTES),
            ("RESULT_BYTES_PER_INPUT", RESULT_BYTES_PER_INPUT),
            ("RESULT_BYTES_PER_OUTPUT", RESULT_BYTES_PER_OUTPUT),
            ("RESULT_MAX_BYTES", RESULT_MAX_BYTES),
        ] {
            assert_eq!(stated(name), ours as u64, "{name}");
        }
        let units = Units { input: 10, cached_input: 2, output: 5 };
        assert_eq!(reserved_bytes(&units), 1_536 + 12 * 8 + 5 * 16);
        let most = Units { input: u32::MAX, cached_input: u32::MAX, output: u32::MAX };
        assert_eq!(reserved_bytes(&most), 65_536);
    }

    /// The fee functions of TVM at the basechain's prices.
    struct Prices {
        forward: MsgForwardPrices,
        gas: GasLimitsPrices,
        storage: StoragePrices,
    }

    impl Prices {
        fn read() -> Self {
            let vm = Vm::new(-3).unwrap();
            let config = vm.config();
            let storage = config.get_storage_prices().unwrap().values().last().unwrap().unwrap();
            Self {
                forward: config.get_msg_forward_prices(false).unwrap(),
                gas: config.get_gas_prices(false).unwrap(),
                storage,
            }
        }

        fn forward(&self, what: &str) -> u128 {
            let (bits, cells) = (stated(&format!("{what}_BITS")), stated(&format!("{what}_CELLS")));
            let size = u128::from(bits) * u128::from(self.forward.bit_price)
                + u128::from(cells) * u128::from(self.forward.cell_price);
            u128::from(self.forward.lump_price) + size.div_ceil(1 << 16)
        }

        fn gas(&self, what: &str) -> u128 {
            (u128::from(stated(what)) * u128::from(self.gas.gas_price)).div_ceil(1 << 16)
        }

        fn rent(&self, what: &str, days: u64) -> u128 {
            let (bits, cells) = (stated(&format!("{what}_BITS")), stated(&format!("{what}_CELLS")));
            let size = u128::from(bits) * u128::from(self.storage.bit_price_ps)
                + u128::from(cells) * u128::from(self.storage.cell_price_ps);
            (size * u128::from(days * 86_400)).div_ceil(1 << 16)
        }
    }

    /// `claimCost` in `fees.tolk`.
    #[test]
    fn the_claims_float_is_above_what_the_contract_asks() {
        let prices = Prices::read();
        let cost = prices.forward("ORDER")
            + prices.gas("GAS_WORKER_CLAIM")
            + prices.forward("CLAIM")
            + prices.gas("GAS_JOB_TAKE");
        assert!(cost <= CLAIM_FLOAT.get(), "a claim costs {cost}");
        assert!(CLAIM_FLOAT.get() < 2 * cost, "a claim costs {cost}: the float is needlessly large");
    }

    /// `registrationFees` in `fees.tolk`, and the most that a posting may use with its rent.
    #[test]
    fn a_registration_brings_what_the_contracts_ask() {
        let prices = Prices::read();
        let gas = ["GAS_ATTESTOR_VERIFY", "GAS_REGISTRY_QUOTE", "GAS_PLATFORM_SERVE", "GAS_WORKER_ATTEST"];
        let cost = gas.map(|what| prices.gas(what)).iter().sum::<u128>()
            + ["REPORT", "PLATFORM", "CANDIDATE"].map(|what| prices.forward(what)).iter().sum::<u128>()
            + prices.rent("PLATFORM", 60);
        let brought = client::amounts::REGISTRATION.get();
        assert!(cost <= brought, "a registration needs {cost}");
        assert!(brought < 2 * cost, "a registration needs {cost}: what it brings is needlessly much");
        let gas_limit = u128::from(prices.gas.gas_limit) * u128::from(prices.gas.gas_price) / (1 << 16);
        let posting = gas_limit + prices.rent("COLLATERAL", 30);
        assert!(posting <= client::amounts::POSTING.get(), "a posting may need {posting}");
    }
}
