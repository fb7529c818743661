//! What the simulator makes is shaped like the real thing and cannot be taken for it.
#![allow(clippy::unwrap_used)]

use dcap_qvl::verify::QuoteVerifier;
use tdx_simulator::{FMSPC, Faults, SimulatedPlatform, TdIdentity};

const NOW_S: u64 = 1_800_000_000;
const MRTD_AT: usize = 48 + 136;

fn platform(seed: u8) -> SimulatedPlatform {
    SimulatedPlatform::new(&[seed; 32], NOW_S).unwrap()
}

fn quote_of(platform: &SimulatedPlatform) -> Vec<u8> {
    platform.quote(&[9; 64], &TdIdentity::of_image("worker"))
}

/// The library's own verdict, without the checks of the `verifier` crate.
fn verify(
    root: &SimulatedPlatform,
    by: &SimulatedPlatform,
    quote: &[u8],
    now_s: u64,
) -> Result<String, String> {
    QuoteVerifier::new(root.root_der().to_vec())
        .verify(quote, by.collateral(), now_s)
        .map(|report| report.status)
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn a_quote_verifies_under_its_own_root_alone() {
    let (one, two) = (platform(1), platform(2));
    let quote = quote_of(&one);
    assert_eq!(verify(&one, &one, &quote, NOW_S), Ok("UpToDate".to_owned()));
    assert!(verify(&two, &one, &quote, NOW_S).is_err());
    assert!(verify(&two, &two, &quote, NOW_S).is_err());
    assert!(QuoteVerifier::new_prod().verify(&quote, one.collateral(), NOW_S).is_err());
}

#[test]
fn a_platform_follows_from_seed_and_time() {
    let (one, again) = (platform(1), platform(1));
    assert_eq!(one.root_der(), again.root_der());
    assert_eq!(one.collateral(), again.collateral());
    assert_eq!(quote_of(&one), quote_of(&again));
    assert_ne!(one.root_der(), platform(2).root_der());
}

#[test]
fn a_platform_made_later_from_the_same_seed_has_the_same_authority() {
    let (first, later) = (platform(1), SimulatedPlatform::new(&[1; 32], NOW_S + 86_400).unwrap());
    assert_eq!(verify(&first, &later, &quote_of(&later), NOW_S + 86_400), Ok("UpToDate".to_owned()));
    assert_eq!(verify(&first, &later, &quote_of(&first), NOW_S + 86_400), Ok("UpToDate".to_owned()));
}

#[test]
fn it_says_what_it_is_everywhere() {
    let platform = platform(1);
    let quote = quote_of(&platform);
    let contains =
        |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    assert!(contains(platform.root_der(), b"SIMULATED NOT INTEL"));
    assert!(contains(&quote, b"SIMULATED-NOT-INTEL"));
    assert!(contains(&quote, b"SIMULATED QE - NOT INTEL"));
    assert_eq!(&FMSPC, b"SIMTDX");
    assert!(platform.collateral().tcb_info.contains(&hex::encode_upper(FMSPC)));
}

#[test]
fn each_fault_is_refused() {
    let none = Faults::default();
    for (faults, word) in
        [(Faults { debug_td: true, ..none }, "Debug"), (Faults { revoked_pck: true, ..none }, "CertRevoked")]
    {
        let platform = SimulatedPlatform::with_faults(&[1; 32], NOW_S, faults).unwrap();
        let refused = verify(&platform, &platform, &quote_of(&platform), NOW_S).unwrap_err();
        assert!(refused.contains(word), "{refused}");
    }
    let old = SimulatedPlatform::with_faults(&[1; 32], NOW_S, Faults { old_svn: true, ..none }).unwrap();
    assert_eq!(verify(&old, &old, &quote_of(&old), NOW_S), Ok("OutOfDate".to_owned()));
}

#[test]
fn a_tampered_mrtd_and_expired_collateral_are_refused() {
    let platform = platform(1);
    let mut quote = quote_of(&platform);
    assert!(verify(&platform, &platform, &quote, NOW_S + 40 * 86_400).is_err());
    assert_eq!(quote[MRTD_AT..MRTD_AT + 48], TdIdentity::of_image("worker").mr_td);
    quote[MRTD_AT] ^= 1;
    assert!(verify(&platform, &platform, &quote, NOW_S).unwrap_err().contains("signature"));
}

#[test]
fn a_time_that_no_certificate_can_carry_is_an_error() {
    for now_s in [0, u64::MAX, i64::MAX as u64] {
        assert!(SimulatedPlatform::new(&[1; 32], now_s).is_err());
    }
}
