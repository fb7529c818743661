//! The protocol's rounding, against wide integers.
#![allow(clippy::unwrap_used)]

use contracts::money::{LEAST_SHARE, ShareSplit, Split};
use contracts::*;
use proptest::prelude::*;

fn nano(value: u128) -> Nanoton {
    Nanoton::checked(value).unwrap()
}

proptest! {
    #[test]
    fn cost_rounds_up_the_sum(
        units: (u32, u32, u32), input in 0u128..1 << 48, cached in 0u128..1 << 48, output in 0u128..1 << 48,
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
    fn a_split_gives_out_the_deposit(amount: u64, cost: u64, voucher: u64, deposit: u64, share_bps in 0u16..=10_000) {
        let [cap, voucher, deposit] = [amount, voucher, deposit].map(Amount::new);
        let job = Split::of(cap, cost.into(), deposit, share_bps);
        prop_assert_eq!(job.paid.get(), amount.min(cost).min(deposit.get()));
        let session = Split::of_session(cap, voucher, deposit, share_bps);
        prop_assert_eq!(session.paid.get(), amount.min(voucher.get()).min(deposit.get()));
        for (split, ends) in [(job, true), (session, false), (session.ended(), true)] {
            let share = u128::from(split.paid.get()) * u128::from(share_bps) / 10_000;
            let sent = if ends && share < u128::from(LEAST_SHARE.get()) { 0 } else { share };
            prop_assert_eq!(u128::from(split.share.get()), sent);
            prop_assert_eq!(split.share.get() + split.to_worker.get(), split.paid.get());
            prop_assert_eq!(split.paid.get() + split.to_client.get(), deposit.get());
        }
    }

    #[test]
    fn a_model_gives_out_its_shares(sum in 0u128..1 << 100, royalty_bps: u16, fee_bps: u16) {
        let split = ShareSplit::of(nano(sum), royalty_bps, fee_bps);
        prop_assert_eq!(split.to_publisher.get() + split.to_treasury.get(), sum);
        let both = u128::from(royalty_bps) + u128::from(fee_bps);
        let expected = (sum * u128::from(royalty_bps)).checked_div(both).unwrap_or(sum);
        prop_assert_eq!(split.to_publisher.get(), expected);
    }
}

#[test]
fn cost_saturates_above_every_deposit() {
    let most = Amount::new(u64::MAX);
    assert_eq!(Split::of(most, Nanoton::MAX, most, 0).paid, most);
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
    let most = Amount::new(u64::MAX);
    assert_eq!(Amount::try_from(most.nanoton()), Ok(most));
    assert!(Amount::try_from(Nanoton::MAX).is_err());
    assert_eq!(serde_json::from_str::<Amount>(&serde_json::to_string(&most).unwrap()).unwrap(), most);
    assert!(serde_json::from_str::<Amount>("\"18446744073709551616\"").is_err());
    assert_eq!(Nanoton::MAX.checked_add(Nanoton::new(1)), None);
}
