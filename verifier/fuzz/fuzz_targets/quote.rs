//! Any bytes as a quote, under genuine collateral: no panic, and nothing accepted but what Intel signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use verifier::{Collateral, QuotePolicy, verify_quote};

const VALID_AT_S: u64 = 1_750_500_000;
static GENUINE: &[u8] = include_bytes!("../../fixtures/tdx_quote");
static COLLATERAL: LazyLock<Collateral> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../fixtures/tdx_quote_collateral.json"))
        .expect("the fixture is sound")
});

fuzz_target!(|bytes: &[u8]| {
    // No measurement is on the list, so nothing may pass, whatever it is signed by.
    let policy = QuotePolicy::production(Vec::new());
    let (verdict, facts) = verify_quote(bytes, &COLLATERAL, &policy, VALID_AT_S);
    assert!(!verdict.all_passed());
    let chain_holds = verdict.checks.iter().any(|check| check.name == "quote_chain" && check.passed);
    // Header and TD report are what the attestation key signed.
    const SIGNED_BYTES: usize = 48 + 584;
    assert!(!chain_holds || bytes[..SIGNED_BYTES] == GENUINE[..SIGNED_BYTES], "{facts:?}");
});
