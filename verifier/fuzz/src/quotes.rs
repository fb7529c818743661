//! Quotes, before the verifier and before the prover.

use std::sync::LazyLock;

use prover::quote::Quote;
use prover::statement::{qe_text, td_fields, td_text};
use verifier::{Collateral, QuotePolicy, verify_quote};

use crate::seeds;

/// When the first fixture's collateral was in force.
const VALID_AT_S: u64 = 1_750_500_000;

/// Any bytes as a quote, under genuine collateral: nothing accepted but what Intel signed.
pub fn quote(bytes: &[u8]) {
    // No measurement is on the list, so nothing may pass, whatever it is signed by.
    let policy = QuotePolicy::production(Vec::new());
    let (verdict, facts) = verify_quote(bytes, &COLLATERAL, &policy, VALID_AT_S);
    assert!(!verdict.all_passed());
    let chain_holds = verdict.checks.iter().any(|check| check.name == "quote_chain" && check.passed);
    assert!(!chain_holds || is_known(bytes), "{facts:?}");
}

/// Any bytes as a quote to prove: what is proven was signed by a platform of the seeds, and what the contract would put
/// together is what was signed.
pub fn prover_quote(bytes: &[u8]) {
    let Ok(quote) = Quote::parse(bytes) else { return };
    assert!(bytes.starts_with(&quote.signed));
    let Ok(proof) = quote.prove(None) else { return };
    assert!(is_known(bytes));
    assert_eq!(td_text(&proof.td), quote.signed);
    assert_eq!(qe_text(&proof), quote.qe_report);
    // And from any text of its length, signed or not.
    let signature = (*proof.td.signature).clone();
    let fields = td_fields(quote.format(), bytes, signature);
    assert!(fields.is_ok_and(|fields| fields.format == quote.format()));
}

/// Whether the bytes begin with header and report of a seed, which an attestation key signed.
fn is_known(bytes: &[u8]) -> bool {
    SIGNED.iter().any(|signed| bytes.starts_with(signed))
}

static COLLATERAL: LazyLock<Collateral> =
    LazyLock::new(|| seeds::genuine_collaterals().into_iter().next().expect("the fixture is sound"));

static SIGNED: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| seeds::quotes().iter().filter_map(|raw| Some(Quote::parse(raw).ok()?.signed)).collect());
