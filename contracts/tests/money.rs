//! The protocol's rounding, against wide integers.
#![allow(clippy::unwrap_used)]

use contracts::money::Split;
use contracts::*;
use proptest::prelude::*;

fn nano(value: u128) -> Nanoton {
    Nanoton::checked(value).unwrap()
}

proptest! {
    #[test]
    fn cost_rounds_up_the_sum(
        units: (u32, u32, u32), input in 0u128..1 << 80, cached in 0u128..1 << 80, output in 0u128..1 << 80,
    ) {
        let prices = Prices { input: nano(input), cached_input: nano(cached), output: nano(output) };
        let units = Units { input: units.0, cached_input: units.1, output: units.2 };
        let sum = u128::from(units.input) * input
            + u128::from(units.cached_input) * cached
            + u128::from(units.output) * output;
        prop_assert_eq!(prices.cost(&units).get(), sum.div_ceil(1000));
    }

    #[test]
    fn royalty_and_fee_round_down_and_a_bond_up(amount in 0u128..1 << 100, bps: u16) {
        let product = amount * u128::from(bps);
        prop_assert_eq!(nano(amount).share_bps(bps).get(), product / 10_000);
        prop_assert_eq!(nano(amount).share_bps_ceil(bps).get(), product.div_ceil(10_000));
    }

    #[test]
    fn a_split_gives_out_the_deposit(
        amount: u64, cost: u64, deposit: u64, royalty_bps in 0u16..=5000, fee_bps in 0u16..=5000,
    ) {
        let split = Split::of(amount.into(), cost.into(), deposit.into(), royalty_bps, fee_bps).unwrap();
        prop_assert_eq!(split.paid.get(), u128::from(amount.min(cost).min(deposit)));
        let sum = split.royalty.get() + split.fee.get() + split.to_worker.get() + split.to_client.get();
        prop_assert_eq!(sum, u128::from(deposit));
    }
}

#[test]
fn cost_saturates_above_every_deposit() {
    let prices = Prices { input: Nanoton::MAX, cached_input: Nanoton::MAX, output: Nanoton::MAX };
    let units = Units { input: u32::MAX, cached_input: u32::MAX, output: u32::MAX };
    assert_eq!(prices.cost(&units), Nanoton::MAX);
    assert_eq!(Nanoton::MAX.share_bps(u16::MAX), Nanoton::MAX);
    assert_eq!(Nanoton::MAX.share_bps(10_000), Nanoton::MAX);
}

#[test]
fn amounts_read_and_write() {
    assert_eq!(Nanoton::new(1_500_000_000).to_string(), "1.500000000 TON");
    assert_eq!("17".parse::<Nanoton>().unwrap(), Nanoton::new(17));
    for bad in ["", "-1", "1.5", "1 TON", "1329227995784915872903807060280344576"] {
        assert!(bad.parse::<Nanoton>().is_err(), "{bad}");
    }
    assert_eq!(serde_json::to_string(&Nanoton::new(5)).unwrap(), "\"5\"");
    assert_eq!(serde_json::from_str::<Nanoton>("5").unwrap(), Nanoton::new(5));
    assert_eq!(Nanoton::MAX.checked_add(Nanoton::new(1)), None);
}
