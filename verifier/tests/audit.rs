//! The audit over a history made message by message, so that each single departure from the protocol can be made too.
#![allow(clippy::unwrap_used)]

mod history;

use contracts::wire::Message as _;
use contracts::{HashBytes, Nanoton};
use history::{NETWORK_ID, NOW_S, Plan, address, signing_key};
use verifier::{QuotePolicy, Verdict, audit};

fn judge(plan: &Plan) -> Verdict {
    judge_history(plan, &plan.history())
}

fn judge_history(plan: &Plan, history: &verifier::JobHistory) -> Verdict {
    audit(history, plan.platform.collateral(), &plan.policy(), NOW_S)
}

fn failed(verdict: &Verdict) -> Vec<&'static str> {
    verdict.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

/// What fails once `change` was made.
fn fails(change: impl FnOnce(&mut Plan)) -> Vec<&'static str> {
    let mut plan = Plan::honest();
    change(&mut plan);
    failed(&judge(&plan))
}

#[test]
fn an_honest_job_passes_every_check() {
    let verdict = judge(&Plan::honest());
    assert!(verdict.all_passed(), "{:?}", verdict.failures());
    for name in [
        "transactions_linked",
        "conservation",
        "settled",
        "job_address",
        "posted_by_client",
        "worker_address",
        "claim_within_terms",
        "bond",
        "receipt_signature",
        "receipt_names_this_job",
        "result_posted",
        "units_within_terms",
        "settled_in_time",
        "payments",
        "registration",
        "block_is_of_this_chain",
        "quote_chain",
        "tcb_status",
        "measurement_admitted",
        "measurement_as_claimed",
        "report_data_binds_keys",
    ] {
        assert_eq!(verdict.checks.iter().filter(|check| check.name == name).count(), 1, "{name}");
    }
}

#[test]
fn a_job_without_royalty_and_fee_pays_no_model() {
    let names = fails(|plan| {
        plan.network_with(|params| params.fee_bps = 0);
        plan.claim.royalty_bps = 0;
        plan.settle_payments();
    });
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn an_address_that_somebody_activated_before_the_post_is_still_the_clients_job() {
    let names = fails(|plan| plan.activated_before = true);
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_job_at_another_address_or_of_another_client_fails() {
    assert!(fails(|plan| plan.nonce_in_state_init += 1).contains(&"job_address"));
    assert_eq!(fails(|plan| plan.posted_from = address(99)), ["posted_by_client"]);
}

#[test]
fn a_claim_beyond_the_terms_fails() {
    assert_eq!(fails(|plan| plan.limits.max_prices.output = Nanoton::new(1)), ["claim_within_terms"]);
    assert_eq!(fails(|plan| plan.claimed_model_id = HashBytes([6; 32])), ["claim_within_terms"]);
    assert_eq!(fails(|plan| plan.terms_measurement = HashBytes([5; 32])), ["claim_within_terms"]);
    assert_eq!(fails(|plan| plan.claim_by = plan.taken_at_s - 1), ["claim_within_terms"]);
    assert_eq!(fails(|plan| plan.limits.max_units.output = 1), ["units_within_terms"]);
    assert_eq!(fails(|plan| plan.settled_at_s += 10_000), ["settled_in_time"]);
}

#[test]
fn a_claim_from_a_stranger_fails() {
    assert_eq!(fails(|plan| plan.taken_from = address(98)), ["worker_address"]);
    assert!(fails(|plan| plan.claim.worker_owner = address(97)).contains(&"worker_address"));
}

#[test]
fn a_bond_too_low_or_not_brought_fails() {
    assert_eq!(fails(|plan| plan.bond_brought = Nanoton::new(1)), ["bond"]);
    assert!(
        fails(|plan| plan.network_with(|params| params.min_bond = Nanoton::new(600_000_001)))
            .contains(&"bond")
    );
}

#[test]
fn a_receipt_of_anything_else_fails() {
    let name = "receipt_names_this_job";
    assert_eq!(fails(|plan| plan.receipt.posted_lt += 1), [name]);
    assert_eq!(fails(|plan| plan.receipt.job = address(96)), [name]);
    assert_eq!(fails(|plan| plan.receipt.network_id = NETWORK_ID + 1), [name]);
    assert_eq!(fails(|plan| plan.receipt.sequence = 2), [name]);
    assert_eq!(fails(|plan| plan.receipt.is_final = false), [name]);
    assert_eq!(fails(|plan| plan.receipt_signer = signing_key(41)), ["receipt_signature"]);
    assert_eq!(fails(|plan| plan.result_hash = HashBytes([1; 32])), ["result_posted"]);
}

#[test]
fn each_party_must_get_exactly_its_part() {
    let one = Nanoton::new(1);
    assert_eq!(
        fails(|plan| plan.paid_to_worker = plan.paid_to_worker.checked_sub(one).unwrap()),
        ["payments"]
    );
    assert_eq!(
        fails(|plan| plan.paid_to_worker = plan.paid_to_worker.checked_add(one).unwrap()),
        ["payments"]
    );
    assert_eq!(fails(|plan| plan.royalty = plan.royalty.checked_add(one).unwrap()), ["payments"]);
    assert_eq!(fails(|plan| plan.fee = plan.fee.checked_sub(one).unwrap()), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_to = address(95)), ["payments"]);
    assert_eq!(fails(|plan| plan.share_to = address(94)), ["payments"]);
    assert_eq!(fails(|plan| plan.payment_to = address(93)), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_value = 1), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_status = 4), ["payments"]);
    assert_eq!(fails(|plan| plan.worker_paid_twice = true), ["payments"]);
    // More than units × prices: the receipt may ask for it, nobody may pay it.
    assert_eq!(
        fails(|plan| {
            plan.receipt.amount = plan.limits.deposit;
            plan.paid_to_worker = plan.limits.deposit;
        }),
        ["payments"]
    );
}

#[test]
fn a_receipt_for_less_than_the_cost_is_paid_as_asked() {
    let names = fails(|plan| {
        plan.receipt.amount = Nanoton::new(12_345);
        plan.settle_payments();
    });
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn money_that_appears_or_vanishes_fails() {
    for change in [1i64, -1] {
        let plan = Plan::honest();
        let mut history = plan.history();
        history.balance_nanoton = history.balance_nanoton.checked_add_signed(change.into()).unwrap();
        assert_eq!(failed(&judge_history(&plan, &history)), ["conservation"]);
    }
}

#[test]
fn a_history_with_a_gap_a_swap_or_a_stranger_in_it_fails() {
    let plan = Plan::honest();
    for at in 0..plan.history().transactions.len() - 1 {
        let mut gap = plan.history();
        gap.transactions.remove(at);
        assert_eq!(failed(&judge_history(&plan, &gap)), ["transactions_linked"]);
        let mut swap = plan.history();
        swap.transactions.swap(at, at + 1);
        assert_eq!(failed(&judge_history(&plan, &swap)), ["transactions_linked"]);
    }
    let mut other = plan.history();
    other.job = address(92);
    assert_eq!(failed(&judge_history(&plan, &other)), ["transactions_linked"]);
}

#[test]
fn a_job_that_has_not_settled_fails() {
    let plan = Plan::honest();
    let mut open = plan.history();
    open.transactions.truncate(2);
    assert!(failed(&judge_history(&plan, &open)).contains(&"settled"));
    let mut nothing = plan.history();
    nothing.transactions.clear();
    assert!(!judge_history(&plan, &nothing).all_passed());
}

#[test]
fn a_failed_receipt_is_no_settlement() {
    assert_eq!(fails(|plan| plan.settlement_succeeds = false), ["settled"]);
}

#[test]
fn a_registration_that_was_not_in_force_fails() {
    assert!(fails(|plan| plan.registered_at_s = plan.taken_at_s + 1).contains(&"registration"));
    assert!(fails(|plan| plan.candidate_expires_at = plan.taken_at_s).contains(&"registration"));
    // The contract caps what the worker stated.
    assert!(
        fails(|plan| plan.registered_at_s = plan.taken_at_s - plan.params().attestation_ttl_s)
            .contains(&"registration")
    );
    let plan = Plan::honest();
    let mut unregistered = plan.history();
    unregistered.registration = None;
    assert_eq!(failed(&judge_history(&plan, &unregistered)), ["registration"]);
}

#[test]
fn a_quote_of_other_keys_another_worker_or_another_image_fails() {
    assert_eq!(fails(|plan| plan.bound_encryption_key = HashBytes([3; 32])), ["report_data_binds_keys"]);
    assert_eq!(fails(|plan| plan.bound_worker = address(91)), ["report_data_binds_keys"]);
    assert_eq!(fails(|plan| plan.bound_network_id = 1), ["report_data_binds_keys"]);
    assert_eq!(fails(|plan| plan.chain_root_hash = Some(HashBytes([9; 32]))), ["block_is_of_this_chain"]);
    assert_eq!(fails(|plan| plan.chain_root_hash = None), ["block_is_of_this_chain"]);
    let names = fails(|plan| plan.image = "another image");
    assert!(
        names.contains(&"measurement_admitted") && names.contains(&"measurement_as_claimed"),
        "{names:?}"
    );
}

#[test]
fn a_simulated_worker_fails_where_intel_is_asked_for() {
    let plan = Plan::honest();
    let policy = QuotePolicy::production(plan.policy().measurements.unwrap());
    let verdict = audit(&plan.history(), plan.platform.collateral(), &policy, NOW_S);
    assert!(failed(&verdict).contains(&"quote_chain"), "{:?}", verdict.failures());
}

#[test]
fn every_bit_of_the_signed_receipt_counts() {
    let plan = Plan::honest();
    let receipt = plan.post_receipt();
    for bit in 0..512 {
        let mut signature = receipt.signature;
        signature.0[bit / 8] ^= 1 << (bit % 8);
        assert!(
            contracts::receipt::verify_cell(receipt.receipt.cell(), &signature, &plan.claim.receipt_key)
                .is_err()
        );
    }
    assert!(contracts::job::PostReceipt::from_cell(&receipt.to_cell().unwrap()).is_ok());
}
