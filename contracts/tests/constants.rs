//! The constants of the Tolk sources are those of the Rust.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use contracts::{fees, job, receipt, voucher, worker};

/// `const NAME = product` lines.
fn constants(text: &str) -> BTreeMap<String, u64> {
    let number = |text: &str| match text.trim().strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => text.trim().parse().unwrap(),
    };
    text.lines()
        .filter_map(|line| line.strip_prefix("const ")?.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.split('*').map(number).product()))
        .collect()
}

#[test]
fn fees() {
    let tolk = constants(include_str!("../fees.tolk"));
    let rust = constants(
        &include_str!("../src/fees.rs").replace("pub const", "const").replace(": u64", "").replace(';', ""),
    );
    assert!(tolk.len() > 50);
    assert_eq!(tolk, rust);
    assert_eq!(tolk["GAS_JOB_POST"], fees::GAS_JOB_POST);
}

#[test]
fn deadlines_and_shares() {
    let tolk = constants(include_str!("../job.tolk"));
    for (name, value) in [
        ("MAX_WAIT_S", job::MAX_WAIT_S),
        ("MAX_SESSION_S", job::MAX_SESSION_S),
        ("MIN_SETTLE_S", job::MIN_SETTLE_S),
        ("MAX_SETTLE_S", job::MAX_SETTLE_S),
        ("AUDIT_WINDOW_S", job::AUDIT_WINDOW_S),
    ] {
        assert_eq!(tolk[name], u64::from(value), "{name}");
    }
    assert_eq!(tolk["LEAST_SHARE"], contracts::money::LEAST_SHARE.get());
    assert_eq!(tolk["LEAST_PENALTY_FACTOR"], job::LEAST_PENALTY_FACTOR);
    assert_eq!(tolk["MOST_PENALTY_FACTOR"], job::MOST_PENALTY_FACTOR);
    let tolk = constants(include_str!("../worker.tolk"));
    assert_eq!(tolk["MAX_JOB_LIFE_S"], u64::from(worker::MAX_JOB_LIFE_S));
    assert_eq!(tolk["MAX_RECEIPT_KEYS"], u64::from(worker::MAX_RECEIPT_KEYS));
    assert_eq!(tolk["TREASURY_PART_BPS"], u64::from(worker::TREASURY_PART_BPS));
    assert_eq!(tolk["REPORTER_PART_BPS"], u64::from(worker::REPORTER_PART_BPS));
}

#[test]
fn statuses_outcomes_and_tags() {
    let text = include_str!("../storage.tolk");
    let tolk = constants(text);
    for status in job::JobStatus::ALL {
        assert_eq!(tolk[&format!("JOB_{}", status.name().to_uppercase())], status as u64);
    }
    assert_eq!(tolk["EQUIVOCATED"], u64::from(job::EQUIVOCATED));
    let mut voucher_tag = [0; 8];
    voucher_tag[2..].copy_from_slice(&voucher::VOUCHER_TAG);
    assert_eq!(tolk["TAG_VOUCHER"], u64::from_be_bytes(voucher_tag));
    let mut input_tag = [0; 8];
    input_tag[2..].copy_from_slice(&job::INPUT_TAG);
    assert_eq!(tolk["TAG_INPUT"], u64::from_be_bytes(input_tag));
    for (name, tag) in [
        ("Receipt", receipt::RECEIPT_TAG),
        ("Rejection", receipt::REJECTION_TAG),
        ("ClaimOrder", receipt::CLAIM_ORDER_TAG),
    ] {
        assert!(text.contains(&format!("struct ({tag:#014x}) {name} {{")), "{name}");
    }
    let tolk = constants(include_str!("../messages.tolk"));
    for (name, outcome) in [
        ("OUTCOME_SETTLED", job::Outcome::Settled),
        ("OUTCOME_REJECTED", job::Outcome::Rejected),
        ("OUTCOME_OUTBID", job::Outcome::Outbid),
        ("OUTCOME_UNDELIVERED", job::Outcome::Undelivered),
    ] {
        assert_eq!(tolk[name], outcome as u64);
        assert_eq!(job::Outcome::from_wire(outcome as u8), Some(outcome));
    }
}
