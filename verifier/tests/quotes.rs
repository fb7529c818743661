//! Genuine quotes, simulated quotes, and what must be refused.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tdx_simulator::{Faults, SimulatedPlatform, TdIdentity};
use verifier::{Collateral, Party, QuotePolicy, TrustedRoot, Verdict, verify_quote};

const NOW_S: u64 = 1_800_000_000;

struct Genuine {
    quote: &'static [u8],
    collateral: Collateral,
    valid_at_s: u64,
}

fn genuine() -> Vec<Genuine> {
    let read = |json: &str| serde_json::from_str(json).unwrap();
    vec![
        Genuine {
            quote: include_bytes!("../fixtures/tdx_quote"),
            collateral: read(include_str!("../fixtures/tdx_quote_collateral.json")),
            valid_at_s: 1_750_500_000,
        },
        Genuine {
            quote: include_bytes!("../fixtures/tdx_quote_td15ex"),
            collateral: read(include_str!("../fixtures/tdx_quote_td15ex_collateral.json")),
            valid_at_s: 1_791_600_000,
        },
    ]
}

fn intel() -> QuotePolicy {
    QuotePolicy { measurements: None, ..QuotePolicy::production(Vec::new()) }
}

fn failed(verdict: &Verdict) -> Vec<&'static str> {
    verdict.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[test]
fn genuine_quotes_chain_to_intel_while_their_collateral_is_valid() {
    for sample in genuine() {
        let (verdict, facts) = verify_quote(sample.quote, &sample.collateral, &intel(), sample.valid_at_s);
        let names = failed(&verdict);
        assert!(!names.contains(&"quote_chain"), "{:?}", verdict.failures());
        assert!(!names.contains(&"pce_id"), "{:?}", verdict.failures());
        assert!(!names.contains(&"collateral_current"), "{:?}", verdict.failures());
        let facts = facts.unwrap();
        assert_eq!((facts.ppid.len(), facts.fmspc.len(), facts.simulated), (16, 6, false));
        assert!(facts.expires_at_s >= sample.valid_at_s);
        let (at_the_end, _) =
            verify_quote(sample.quote, &sample.collateral, &intel(), facts.expires_at_s + 1);
        assert!(failed(&at_the_end).contains(&"collateral_current"));
    }
}

#[test]
fn genuine_quotes_are_refused_when_their_collateral_has_expired() {
    for sample in genuine() {
        let later = sample.valid_at_s + 90 * 86_400;
        let (verdict, _) = verify_quote(sample.quote, &sample.collateral, &intel(), later);
        assert!(failed(&verdict).contains(&"quote_chain"));
        let chain = verdict.checks.iter().find(|check| check.name == "quote_chain").unwrap();
        assert_eq!(chain.party_at_fault, Party::Collateral);
    }
}

#[test]
fn a_genuine_platform_below_every_tcb_level_is_refused() {
    let collateral =
        serde_json::from_str(include_str!("../fixtures/tdx_quote_outdated_collateral.json")).unwrap();
    let quote = include_bytes!("../fixtures/tdx_quote_outdated");
    let (verdict, _) = verify_quote(quote, &collateral, &intel(), 1_771_600_000);
    assert!(verdict.failures().iter().any(|failure| failure.contains("No matching TCB level")));
}

#[test]
fn an_sgx_quote_is_not_a_tdx_quote() {
    let collateral = genuine().remove(0).collateral;
    let (verdict, facts) =
        verify_quote(include_bytes!("../fixtures/sgx_quote"), &collateral, &intel(), NOW_S);
    assert_eq!(failed(&verdict), ["quote_parses"]);
    assert!(facts.is_none());
}

fn simulated(faults: Faults) -> (SimulatedPlatform, Vec<u8>) {
    let platform = SimulatedPlatform::with_faults(&[7; 32], NOW_S, faults).unwrap();
    let quote = platform.quote(&[9; 64], &TdIdentity::of_image("worker"));
    (platform, quote)
}

fn judge(platform: &SimulatedPlatform, quote: &[u8], now_s: u64) -> Verdict {
    let root = TrustedRoot::DangerousSimulator(platform.root_der().to_vec());
    let policy = QuotePolicy { root, ..intel() };
    verify_quote(quote, platform.collateral(), &policy, now_s).0
}

#[test]
fn a_simulated_quote_passes_under_the_simulators_root_alone() {
    let (platform, quote) = simulated(Faults::default());
    let verdict = judge(&platform, &quote, NOW_S);
    assert!(verdict.all_passed(), "{:?}", verdict.failures());
    assert!(verdict.checks.iter().any(|check| check.detail.contains("SIMULATOR")));

    let (under_intel, _) = verify_quote(&quote, platform.collateral(), &intel(), NOW_S);
    assert!(failed(&under_intel).contains(&"quote_chain"));
    let other = SimulatedPlatform::new(&[8; 32], NOW_S).unwrap();
    assert!(failed(&judge(&other, &quote, NOW_S)).contains(&"quote_chain"));
}

#[test]
fn every_fault_of_a_platform_is_found() {
    let none = Faults::default();
    for (faults, name) in [
        (Faults { debug_td: true, ..none }, "debug_off"),
        (Faults { old_svn: true, ..none }, "tcb_status"),
        (Faults { revoked_pck: true, ..none }, "quote_chain"),
        (Faults { other_pce: true, ..none }, "pce_id"),
    ] {
        let (platform, quote) = simulated(faults);
        let verdict = judge(&platform, &quote, NOW_S);
        assert!(failed(&verdict).contains(&name), "{faults:?}: {:?}", verdict.failures());
    }
}

#[test]
fn expired_collateral_and_a_future_one_are_refused() {
    let (platform, quote) = simulated(Faults::default());
    for now_s in [NOW_S - 3 * 86_400, NOW_S + 60 * 86_400] {
        assert!(failed(&judge(&platform, &quote, now_s)).contains(&"quote_chain"));
    }
}

#[test]
fn an_image_off_the_list_is_refused() {
    let (platform, quote) = simulated(Faults::default());
    let policy = QuotePolicy::dangerous_simulated(platform.root_der().to_vec(), Vec::new());
    let (verdict, _) = verify_quote(&quote, platform.collateral(), &policy, NOW_S);
    assert_eq!(failed(&verdict), ["measurement_admitted"]);
}

/// Everything up to the PCK chain's PEM is under a signature; inside the PEM, the DER is.
const SIGNED_END: usize = 48 + 584;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_in_what_is_signed_is_never_accepted(position in 0..SIGNED_END * 8) {
        let (platform, mut quote) = (&made().0, made().1.clone());
        quote[position / 8] ^= 1 << (position % 8);
        prop_assert!(!judge(platform, &quote, NOW_S).all_passed());
    }

    #[test]
    fn a_truncated_quote_is_never_accepted_and_never_panics(length in 0usize..5_000) {
        let (platform, mut quote) = (&made().0, made().1.clone());
        prop_assume!(length < quote.len());
        quote.truncate(length);
        prop_assert!(!judge(platform, &quote, NOW_S).all_passed());
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6_000)) {
        let collateral = genuine().remove(0).collateral;
        prop_assert!(!verify_quote(&bytes, &collateral, &intel(), NOW_S).0.all_passed());
    }

    /// Where the certificates' PEM has slack, a change may do nothing; what was signed never changes.
    #[test]
    fn a_changed_byte_anywhere_is_refused_or_says_the_same(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let (platform, quote) = made();
        let mut changed = quote.clone();
        changed[at.index(quote.len())] ^= flip;
        if judge(platform, &changed, NOW_S).all_passed() {
            prop_assert_eq!(&changed[..SIGNED_END], &quote[..SIGNED_END]);
        }
    }

    #[test]
    fn a_changed_byte_in_a_genuine_quote_breaks_its_chain(position in 0..SIGNED_END, flip in 1u8..) {
        let sample = genuine().remove(0);
        let mut quote = sample.quote.to_vec();
        quote[position] ^= flip;
        let (verdict, _) = verify_quote(&quote, &sample.collateral, &intel(), sample.valid_at_s);
        prop_assert!(failed(&verdict).contains(&"quote_chain") || failed(&verdict).contains(&"quote_parses"));
    }

    #[test]
    fn a_changed_byte_in_signed_collateral_is_never_accepted(
        which in 0usize..4, at in any::<prop::sample::Index>(), flip in 1u8..128,
    ) {
        let (platform, quote) = made();
        let mut collateral = platform.collateral().clone();
        let text = |text: &mut String| {
            let mut bytes = text.clone().into_bytes();
            let position = at.index(bytes.len());
            bytes[position] = (bytes[position] ^ flip) & 0x7f;
            *text = String::from_utf8(bytes).unwrap();
        };
        match which {
            0 => text(&mut collateral.tcb_info),
            1 => text(&mut collateral.qe_identity),
            2 => { let position = at.index(collateral.pck_crl.len()); collateral.pck_crl[position] ^= flip; }
            _ => { let position = at.index(collateral.root_ca_crl.len()); collateral.root_ca_crl[position] ^= flip; }
        }
        let root = TrustedRoot::DangerousSimulator(platform.root_der().to_vec());
        let (verdict, _) = verify_quote(quote, &collateral, &QuotePolicy { root, ..intel() }, NOW_S);
        prop_assert!(!verdict.all_passed());
    }
}

fn made() -> &'static (SimulatedPlatform, Vec<u8>) {
    static MADE: std::sync::OnceLock<(SimulatedPlatform, Vec<u8>)> = std::sync::OnceLock::new();
    MADE.get_or_init(|| simulated(Faults::default()))
}
