//! The audit over a history made message by message, so that each single departure from the protocol can be made too.
#![allow(clippy::unwrap_used)]

mod history;

use contracts::job::JobStatus;
use contracts::wire::Message as _;
use contracts::{HashBytes, Nanoton};
use history::{Ending, NETWORK_ID, NOW_S, Plan, address, registry_code, signing_key};
use verifier::{Audit, Conclusion, QuotePolicy, Verdict, audit};

fn judge(plan: &Plan) -> Verdict {
    judge_history(plan, &plan.history())
}

fn judge_history(plan: &Plan, history: &verifier::JobHistory) -> Verdict {
    audit_history(plan, history).verdict
}

fn audit_history(plan: &Plan, history: &verifier::JobHistory) -> Audit {
    audit(history, plan.platform.collateral(), &plan.policy(), NOW_S)
}

fn failed(verdict: &Verdict) -> Vec<&'static str> {
    verdict.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

/// What fails once `change` was made.
fn fails(change: impl FnOnce(&mut Plan)) -> Vec<&'static str> {
    fails_with(Ending::Settled, change)
}

/// What fails in a job with this end, once `change` was made.
fn fails_with(ending: Ending, change: impl FnOnce(&mut Plan)) -> Vec<&'static str> {
    let mut plan = Plan::ending(ending);
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
        "life",
        "ended",
        "registry_code",
        "registry_params",
        "measurement_listed",
        "job_address",
        "posted_by_client",
        "deposit",
        "state_agrees",
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
        "attestor_code",
        "attestor_root",
        "attested_on_chain",
        "quote_rebuilt",
        "verifiers_agree",
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
fn every_ending_has_its_verdict_and_accounts_for_every_nanoton() {
    for ending in Ending::ALL {
        let plan = Plan::ending(ending);
        let history = plan.history();
        let found = audit_history(&plan, &history);
        assert_eq!(found.status, Some(ending.status()), "{ending:?}");
        let ledger = found.ledger.unwrap();
        assert_eq!(ledger.unaccounted_nanoton(), 0, "{ending:?}: {ledger:?}");
        assert_eq!(ledger.left_nanoton, history.balance_nanoton);
        let failures = found.verdict.failures();
        if ending.status().is_closed() {
            assert_eq!(found.conclusion(), Conclusion::Holds, "{ending:?}: {failures:?}");
            let deposit = plan.limits.deposit.get();
            let bond = if ending == Ending::ExpiredClaimed { plan.claim.bond.get() } else { 0 };
            let back = ledger.to_client_nanoton;
            assert!(back >= deposit + bond - plan.paid.get(), "{ending:?}: {back}");
        } else {
            assert_eq!(found.conclusion(), Conclusion::Unfinished, "{ending:?}: {failures:?}");
            assert_eq!(failed(&found.verdict), ["ended"], "{ending:?}");
            assert!(failures[0].contains("not finished"), "{failures:?}");
        }
        let has = |name: &str| found.verdict.checks.iter().any(|check| check.name == name);
        assert_eq!(has("payments"), ending.status().is_closed(), "{ending:?}");
        for name in ["bond", "claim_within_terms", "measurement_listed", "report_data_binds_keys"] {
            assert_eq!(has(name), ending.has_claim(), "{ending:?}: {name}");
        }
    }
}

#[test]
fn what_is_wrong_with_an_unfinished_job_is_not_hidden_by_its_being_unfinished() {
    let mut plan = Plan::ending(Ending::Claimed);
    plan.bond_brought = Nanoton::new(1);
    let found = audit_history(&plan, &plan.history());
    assert_eq!(found.conclusion(), Conclusion::Fails);
    assert_eq!(failed(&found.verdict), ["ended", "bond"]);
    let mut nothing = Plan::honest().history();
    nothing.transactions.clear();
    let found = audit_history(&plan, &nothing);
    assert_eq!((found.status, found.conclusion()), (None, Conclusion::Fails));
}

#[test]
fn an_overdue_job_says_that_anybody_may_end_it() {
    for ending in [Ending::Open, Ending::Claimed] {
        let mut plan = Plan::ending(ending);
        plan.claim_by = plan.taken_at_s + 5;
        let history = plan.history();
        let late = NOW_S + 86_400;
        let found = audit(&history, plan.platform.collateral(), &plan.policy(), late);
        assert!(found.verdict.failures()[0].contains("anybody may expire it now"), "{ending:?}");
        assert_eq!(found.conclusion(), Conclusion::Unfinished);
    }
}

#[test]
fn a_rejection_of_anything_else_fails() {
    let fails = |change: fn(&mut Plan)| fails_with(Ending::Rejected, change);
    assert_eq!(fails(|plan| plan.rejection.job = address(96)), ["rejection_names_this_job"]);
    assert_eq!(fails(|plan| plan.rejection.posted_lt += 1), ["rejection_names_this_job"]);
    assert_eq!(fails(|plan| plan.rejection.network_id += 1), ["rejection_names_this_job"]);
    assert_eq!(fails(|plan| plan.receipt_signer = signing_key(41)), ["rejection_signature"]);
    assert_eq!(fails(|plan| plan.rejection.reason = 99), ["rejection_reason"]);
    assert_eq!(fails(|plan| plan.settled_at_s += 10_000), ["rejected_in_time"]);
}

#[test]
fn a_rejection_returns_deposit_and_bond_once() {
    let fails = |change: fn(&mut Plan)| fails_with(Ending::Rejected, change);
    let one = Nanoton::new(1);
    assert_eq!(fails(|plan| plan.bond_value = plan.claim.bond.get() - 1), ["payments"]);
    assert_eq!(fails(|plan| plan.payment_to = address(93)), ["payments"]);
    assert_eq!(fails(|plan| plan.worker_paid_twice = true), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_value = plan.limits.deposit.get() - 1), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_to = address(95)), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_status = 3), ["payments"]);
    assert_eq!(fails(|plan| plan.paid = Nanoton::new(1)), ["payments"]);
    let names =
        fails_with(Ending::Rejected, |plan| plan.bond_named = plan.bond_named.checked_sub(one).unwrap());
    assert_eq!(names, ["payments"]);
}

#[test]
fn only_the_client_cancels_and_only_an_open_job() {
    let fails = |change: fn(&mut Plan)| fails_with(Ending::Cancelled, change);
    assert_eq!(fails(|plan| plan.ended_from = address(87)), ["cancelled_by_client"]);
    assert_eq!(fails(|plan| plan.refund_value = 1), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_to = address(87)), ["payments"]);
    // A claim that succeeded before it.
    assert_eq!(fails(|plan| plan.claimed_all_the_same = true), ["life"]);
}

#[test]
fn nobody_ends_a_job_before_its_deadline() {
    assert_eq!(
        fails_with(Ending::ExpiredOpen, |plan| plan.settled_at_s = plan.claim_by),
        ["expired_after_deadline"]
    );
    assert_eq!(fails_with(Ending::ExpiredClaimed, |plan| plan.settled_at_s -= 1), ["expired_after_deadline"]);
}

#[test]
fn an_expired_job_pays_the_client_the_deposit_and_a_silent_workers_bond() {
    let fails = |change: fn(&mut Plan)| fails_with(Ending::ExpiredClaimed, change);
    // More than the rent that the end may have cost.
    assert_eq!(fails(|plan| plan.refund_value -= 400_000_000), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_value -= 20_000_000), ["payments"]);
    assert_eq!(fails(|plan| plan.refund_to = plan.worker.clone()), ["payments"]);
    assert_eq!(fails(|plan| plan.bond_named = Nanoton::ZERO), ["payments"]);
    assert_eq!(fails(|plan| plan.payment_to = address(93)), ["payments"]);
    assert_eq!(fails(|plan| plan.back_to_caller = 50_000_001), ["payments"]);
    let open = fails_with(Ending::ExpiredOpen, |plan| plan.refund_status = 4);
    assert_eq!(open, ["payments"]);
    assert_eq!(fails(|plan| plan.posted_value = plan.limits.deposit.get() - 1), ["deposit"]);
}

#[test]
fn rent_may_have_eaten_into_a_job_that_nobody_ended() {
    // All that came is the posting's 60 and the caller's 50 million; the chain took most of it.
    let names = fails_with(Ending::ExpiredOpen, |plan| {
        plan.end_fees = 90_000_000;
        plan.refund_value = 10_000_000;
    });
    assert!(names.is_empty(), "{names:?}");
    // A receipt or a rejection is refused where the job cannot pay for it, so there rent is no excuse.
    let names = fails_with(Ending::Rejected, |plan| {
        plan.end_fees = 9_000_000;
        plan.refund_value = plan.limits.deposit.get() - 5_000_000;
    });
    assert_eq!(names, ["payments"]);
}

#[test]
fn a_swept_job_is_audited_from_its_transactions() {
    for ending in [Ending::Settled, Ending::Rejected, Ending::Cancelled, Ending::ExpiredClaimed] {
        let mut plan = Plan::ending(ending);
        plan.swept = true;
        let found = audit_history(&plan, &plan.history());
        assert_eq!(found.conclusion(), Conclusion::Holds, "{ending:?}: {:?}", found.verdict.failures());
        let mut history = plan.history();
        history.balance_nanoton = 1;
        assert_eq!(failed(&judge_history(&plan, &history)), ["conservation"]);
    }
    let mut open = Plan::ending(Ending::Open);
    open.swept = true;
    assert!(failed(&judge(&open)).contains(&"life"));
}

#[test]
fn a_payment_that_came_back_must_go_on_to_the_workers_owner() {
    for ending in [Ending::Settled, Ending::Rejected] {
        let went_on = fails_with(ending, |plan| {
            plan.payment_bounces_to = Some(plan.claim.worker_owner.clone());
        });
        assert!(went_on.is_empty(), "{went_on:?}");
        let kept = fails_with(ending, |plan| plan.payment_bounces_to = Some(address(87)));
        assert_eq!(kept, ["bounces_forwarded"]);
    }
}

#[test]
fn the_registry_on_chain_has_the_last_word() {
    assert_eq!(fails(|plan| plan.trusted_registry_code = HashBytes([8; 32])), ["registry_code"]);
    assert_eq!(fails(|plan| plan.registry_code = registry_code(2)), ["registry_code"]);
    assert_eq!(fails(|plan| plan.admitted_from = None), ["measurement_listed"]);
    assert_eq!(fails(|plan| plan.admitted_from = Some(NOW_S as u32 + 1)), ["measurement_listed"]);
    let names = fails(|plan| {
        let mut params = plan.params().clone();
        params.fee_bps += 1;
        plan.registry_params = Some(params);
    });
    assert_eq!(names, ["registry_params"]);
    let plan = Plan::honest();
    let mut history = plan.history();
    history.registry = None;
    assert_eq!(failed(&judge_history(&plan, &history)), ["registry_code", "registry_params"]);
    let mut history = plan.history();
    history.registry.as_mut().unwrap().data = registry_code(1);
    assert_eq!(failed(&judge_history(&plan, &history)), ["registry_params", "measurement_listed"]);
}

#[test]
fn the_contracts_own_state_must_tell_the_same() {
    let changes: [fn(&mut contracts::job::JobState); 6] = [
        |state| state.status = JobStatus::Expired,
        |state| state.posted_lt += 1,
        |state| state.input_hash = HashBytes([1; 32]),
        |state| state.closed_at += 1,
        |state| state.claim = None,
        |state| state.settlement = None,
    ];
    for change in changes {
        assert_eq!(fails(|plan| plan.stored = Box::new(change)), ["state_agrees"]);
    }
    let plan = Plan::honest();
    let mut history = plan.history();
    history.state = None;
    assert_eq!(failed(&judge_history(&plan, &history)), ["state_agrees"]);
}

#[test]
fn a_failed_receipt_is_no_settlement() {
    let mut plan = Plan::honest();
    plan.settlement_succeeds = false;
    let found = audit_history(&plan, &plan.history());
    assert_eq!(found.status, Some(JobStatus::Claimed));
    assert_eq!(found.conclusion(), Conclusion::Unfinished);
}

#[test]
fn a_registration_that_was_not_in_force_fails() {
    assert!(fails(|plan| plan.registered_at_s = plan.taken_at_s + 1).contains(&"registration"));
    assert!(fails(|plan| plan.candidate_expires_at = plan.taken_at_s).contains(&"registration"));
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
    assert!(names.contains(&"measurement_admitted") && names.contains(&"verifiers_agree"), "{names:?}");
}

#[test]
fn an_attestor_of_other_code_or_another_root_fails() {
    assert_eq!(fails(|plan| plan.attestor_code = registry_code(78)), ["attestor_code"]);
    let other = tdx_simulator::SimulatedPlatform::new(&[8; 32], NOW_S).unwrap();
    assert_eq!(fails(|plan| plan.attestor_root = other.root_der().to_vec()), ["attestor_root"]);
    assert_eq!(fails(|plan| plan.attestor_root.clear()), ["attestor_root"]);
    let plan = Plan::honest();
    let mut history = plan.history();
    history.attestor = None;
    assert_eq!(failed(&judge_history(&plan, &history)), ["attestor_code", "attestor_root"]);
    // Another contract's account in the Attestor's place.
    let mut history = plan.history();
    history.attestor.as_mut().unwrap().data = registry_code(1);
    assert_eq!(failed(&judge_history(&plan, &history)), ["attestor_root"]);
}

#[test]
fn a_registration_whose_messages_do_not_lead_from_the_attestor_to_the_worker_fails() {
    let name = "attested_on_chain";
    let other = Plan::honest().history().registration.unwrap().trace;
    let changes: [fn(&mut verifier::RegistrationTrace); 5] = [
        |trace| trace.worker = trace.platform.clone(),
        |trace| trace.platform = trace.registry.clone(),
        |trace| trace.registry = trace.attestor.clone(),
        |trace| trace.attestor = trace.worker.clone(),
        |trace| trace.attestor = contracts::Cell::default(),
    ];
    for change in changes {
        assert_eq!(fails(|plan| plan.change_trace = Box::new(change)), [name]);
    }
    // Sound transactions, but of two registrations.
    for which in 0..4 {
        let other = other.clone();
        let names = fails(|plan| {
            plan.registered_at_s -= 7;
            plan.candidate_expires_at -= 7;
            plan.bound_encryption_key = HashBytes([3; 32]);
            plan.change_trace = Box::new(move |trace| match which {
                0 => trace.attestor = other.attestor.clone(),
                1 => trace.registry = other.registry.clone(),
                2 => trace.platform = other.platform.clone(),
                _ => trace.worker = other.worker.clone(),
            });
        });
        assert!(names.contains(&name), "{which}: {names:?}");
    }
    assert_eq!(fails(|plan| plan.answer_to = Some(address(90))), [name]);
    assert_eq!(
        fails(|plan| plan.change_registered = Box::new(|taken| taken.registration_seqno += 1)),
        [name]
    );
    let keys = fails(|plan| {
        plan.change_registered = Box::new(|taken| {
            let mut attestation = (*taken.attestation).clone();
            attestation.encryption_key = HashBytes([1; 32]);
            taken.attestation = contracts::Ref::new(attestation).unwrap();
        });
    });
    assert_eq!(keys, [name]);
    // Another owner's registration of the same keys, as the same machine's.
    let stranger = fails(|plan| plan.registered_from = Some(address(90)));
    assert_eq!(stranger, ["report_data_binds_keys", "registration"]);
}

#[test]
fn a_simulated_worker_fails_where_intel_is_asked_for() {
    let plan = Plan::honest();
    let policy = QuotePolicy::production(plan.policy().measurements.unwrap());
    let verdict = audit(&plan.history(), plan.platform.collateral(), &policy, NOW_S).verdict;
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
