//! The audit over a history made message by message, so that each single departure from the protocol can be made too.
#![allow(clippy::unwrap_used)]

mod history;

use contracts::job::{
    JobEquivocated, JobNoticed, JobPaid, JobRefund, JobState, JobStatus, Outcome, PostRejection, TakeJob,
};
use contracts::job_log::{JobClosed, JobLog};
use contracts::model::{RoyaltyQuoted, SharePaid};
use contracts::money::Amount;
use contracts::receipt::Receipt;
use contracts::wire::Message;
use contracts::{HashBytes, Nanoton, Ref, StdAddr};
use history::{
    Ending, FEES, MODEL_ID, NOW_S, Plan, RECEIVERS_GAS, Script, address, registry_code, signing_key,
};
use tycho_types::cell::CellBuilder;
use tycho_types::models::{MsgInfo, OwnedMessage, Transaction};
use verifier::{Audit, Conclusion, JobKind, Party, QuotePolicy, Story, StoryError, Verdict, audit};

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

/// What fails in a job with this end whose messages were changed.
fn fails_edited(ending: Ending, edit: impl Fn(&mut Script) + Send + Sync + 'static) -> Vec<&'static str> {
    fails_with(ending, |plan| plan.edit = Box::new(edit))
}

fn body(message: &impl Message) -> contracts::Cell {
    message.to_cell().unwrap()
}

/// The log of the end tells what the message tells, where a test changed it.
fn log_closed(script: &mut Script, change: impl Fn(&mut JobClosed)) {
    let log = &mut script.named("end").logs[0];
    let mut closed = JobClosed::from_cell(log).unwrap();
    change(&mut closed);
    *log = body(&closed);
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
        "registry_generation",
        "measurement_listed",
        "job_address",
        "posted_by_client",
        "deposit",
        "state_agrees",
        "logs_agree",
        "stories_agree",
        "receipt_signature",
        "receipt_names_this_job",
        "result_posted",
        "units_within_terms",
        "settled_in_time",
        "payments",
        "model_share",
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
    let claimed = judge(&Plan::ending(Ending::SettledClaimed));
    for name in ["worker_address", "claimed_in_time", "bond"] {
        assert_eq!(claimed.checks.iter().filter(|check| check.name == name).count(), 1, "{name}");
    }
}

#[test]
fn every_ending_has_its_verdict_and_accounts_for_every_nanoton() {
    for ending in Ending::ALL {
        let plan = Plan::ending(ending);
        let history = plan.history();
        let found = audit_history(&plan, &history);
        let failures = found.verdict.failures();
        assert_eq!(found.status, Some(ending.status()), "{ending:?}: {failures:?}");
        let ledger = found.ledger.unwrap();
        assert_eq!(ledger.unaccounted_nanoton(), 0, "{ending:?}: {ledger:?}");
        assert_eq!(ledger.left_nanoton, history.balance_nanoton);
        if ending.status().is_closed() {
            assert_eq!(found.conclusion(), Conclusion::Holds, "{ending:?}: {failures:?}");
            assert_eq!(ledger.left_nanoton, 0, "{ending:?}");
        } else {
            assert_eq!(found.conclusion(), Conclusion::Unfinished, "{ending:?}: {failures:?}");
            assert_eq!(failed(&found.verdict), ["ended"], "{ending:?}: {failures:?}");
            assert!(failures[0].contains("not finished"), "{failures:?}");
        }
        let has = |name: &str| found.verdict.checks.iter().any(|check| check.name == name);
        assert_eq!(has("bond"), ending.has_claim(), "{ending:?}");
        assert_eq!(has("market_terms"), ending.is_market(), "{ending:?}");
        assert_eq!(has("report_data_binds_keys"), ending.is_served(), "{ending:?}");
        assert!(has("payments") && has("logs_agree"), "{ending:?}");
    }
}

/// The logs of a history, read from its transactions by other means than the verifier's.
fn logs_of(history: &verifier::JobHistory) -> Vec<contracts::Cell> {
    let mut logs = Vec::new();
    for cell in &history.transactions {
        let transaction: Transaction = cell.parse().unwrap();
        for message in transaction.out_msgs.values() {
            let message = message.unwrap();
            if matches!(message.parse::<OwnedMessage>().unwrap().info, MsgInfo::ExtOut(_)) {
                logs.push(message);
            }
        }
    }
    logs
}

fn log_in(message: &contracts::Cell) -> JobLog {
    let message = message.parse::<OwnedMessage>().unwrap();
    let mut body = tycho_types::cell::CellSlice::apply(&message.body).unwrap();
    JobLog::from_slice(&mut body).unwrap().unwrap()
}

/// The log as it would be with another content.
fn relogged(message: &contracts::Cell, log: &impl Message) -> contracts::Cell {
    let mut message = message.parse::<OwnedMessage>().unwrap();
    message.body = body(log).into();
    CellBuilder::build_from(message).unwrap()
}

#[test]
fn logs_alone_and_transactions_alone_tell_one_story() {
    for ending in Ending::ALL {
        for equivocated in [false, ending == Ending::Settled] {
            let mut plan = Plan::ending(ending);
            plan.equivocated = equivocated;
            let history = plan.history();
            let logs = logs_of(&history);
            let told = Story::of_logs(&history.job, &logs).unwrap();
            let found = audit_history(&plan, &history);
            assert_eq!(Some(&told), found.story.as_ref(), "{ending:?}");
            assert_eq!(Ok(&told), Story::of_transactions(&history.job, &history.transactions).as_ref());
            assert_eq!((told.status, told.chapters.len()), (ending.status(), logs.len()));
            assert_eq!(
                told.claims(),
                if ending.is_market() { 2 } else { 1 } * usize::from(ending.has_claim())
            );
            // No story is told from fewer, or told another way.
            for missing in 0..logs.len() {
                let mut fewer = logs.clone();
                fewer.remove(missing);
                assert_ne!(Story::of_logs(&history.job, &fewer).as_ref(), Ok(&told), "{ending:?}: {missing}");
            }
        }
    }
}

#[test]
fn logs_that_no_job_leaves_tell_no_story() {
    let logs = |ending| {
        let history = Plan::ending(ending).history();
        (history.job.clone(), logs_of(&history))
    };
    for ending in Ending::ALL {
        let (job, own) = logs(ending);
        let refused = |logs: &[contracts::Cell]| Story::of_logs(&job, logs).unwrap_err();
        assert_eq!(refused(&[]).party(), Party::Client, "{ending:?}");
        assert_eq!(refused(&own[1..]).party(), if own.len() > 1 { Party::Chain } else { Party::Client });
        // One twice, and any two in another order.
        for at in 0..own.len() {
            let mut twice = own.clone();
            twice.insert(at, own[at].clone());
            assert!(refused(&twice).to_string().starts_with("log server"), "{ending:?}");
        }
        for at in 1..own.len() {
            let mut swapped = own.clone();
            swapped.swap(at - 1, at);
            refused(&swapped);
        }
        let elsewhere = Story::of_logs(&address(99), &own).unwrap_err();
        assert!(matches!(elsewhere, StoryError::StrangeLog { index: 0 }), "{elsewhere}");
    }
    // The end of one kind of job is not that of another.
    let endings: Vec<_> = Ending::ALL.into_iter().filter(|ending| ending.status().is_closed()).collect();
    let (mut told, mut refused) = (0, 0);
    for ending in Ending::ALL {
        let (job, own) = logs(ending);
        let going: Vec<_> =
            own.iter().filter(|log| !matches!(log_in(log), JobLog::Closed(_))).cloned().collect();
        for other in &endings {
            let JobLog::Closed(mut closed) = log_in(logs(*other).1.last().unwrap()) else {
                panic!("{other:?}")
            };
            let mut forged = going.clone();
            let shape = logs(*other).1.last().unwrap().clone();
            let mut message = relogged(&shape, &closed).parse::<OwnedMessage>().unwrap();
            if let MsgInfo::ExtOut(info) = &mut message.info {
                info.created_lt = u64::MAX;
            }
            forged.push(CellBuilder::build_from(&message).unwrap());
            match Story::of_logs(&job, &forged) {
                Ok(story) => {
                    assert_eq!(story.status, other.status());
                    let never = match story.kind {
                        JobKind::Directed => [].as_slice(),
                        JobKind::Session => &[JobStatus::Cancelled, JobStatus::Expired],
                        JobKind::Market if story.worker.is_none() => {
                            &[JobStatus::Settled, JobStatus::Rejected]
                        }
                        JobKind::Market => &[JobStatus::Cancelled],
                    };
                    assert!(!never.contains(&story.status), "{ending:?} ended like {other:?}");
                    told += 1;
                }
                Err(error) => {
                    assert_eq!(error.party(), Party::Chain);
                    refused += 1;
                }
            }
            // More than the deposit is never paid.
            closed.paid = Amount::new(u64::MAX);
            message.body = body(&closed).into();
            forged.pop();
            forged.push(CellBuilder::build_from(&message).unwrap());
            Story::of_logs(&job, &forged).unwrap_err();
        }
    }
    assert!(told > 0 && refused > 0, "{told} told, {refused} refused");
}

#[test]
fn truncated_and_forged_histories_tell_no_story_and_name_who_gave_them() {
    for ending in Ending::ALL {
        let history = Plan::ending(ending).history();
        let (job, transactions) = (&history.job, &history.transactions);
        let honest = Story::of_transactions(job, transactions).unwrap();
        for at in 0..transactions.len() {
            let mut without = transactions.clone();
            without.remove(at);
            let told = Story::of_transactions(job, &without);
            if at + 1 < transactions.len() {
                let error = told.unwrap_err();
                assert!(matches!(error, StoryError::Unlinked { .. }), "{ending:?}: {error}");
                assert_eq!(error.party(), Party::Chain);
            } else {
                // The newest is bound by the account's state alone, which the caller compares.
                assert_ne!(told.ok(), (transactions.len() > 2).then(|| honest.clone()), "{ending:?}");
            }
        }
        let elsewhere = Story::of_transactions(&address(99), transactions).unwrap_err();
        assert!(matches!(elsewhere, StoryError::OtherAccount { .. }), "{elsewhere}");
        let nothing = Story::of_transactions(job, &[]).unwrap_err();
        assert_eq!(nothing.party(), Party::Client);
        let noise = Story::of_transactions(job, &[registry_code(1)]).unwrap_err();
        assert!(matches!(noise, StoryError::Malformed { .. }), "{noise}");
    }
    // A whole, linked history of what no job does.
    let twice = |script: &mut Script| {
        let post = script.named("post").clone();
        script.moves.push(post);
    };
    let mut plan = Plan::ending(Ending::Open);
    plan.edit = Box::new(twice);
    let history = plan.history();
    let error = Story::of_transactions(&history.job, &history.transactions).unwrap_err();
    assert_eq!(error.party(), Party::Contracts);
    assert!(error.to_string().contains("posted more than once"), "{error}");
}

#[test]
fn what_comes_to_the_address_of_a_swept_job_changes_nothing_in_its_story() {
    let mut plan = Plan::ending(Ending::Settled);
    plan.swept = true;
    let before = plan.history();
    plan.edit = Box::new(|script| {
        let late = script.named("stranger").clone();
        let at_s = script.moves.last().unwrap().at_s + 1;
        script.moves.push(history::Move { name: "late", at_s, value: FEES, ..late });
    });
    let after = plan.history();
    assert!(after.transactions.len() > before.transactions.len());
    let story = |history: &verifier::JobHistory| Story::of_transactions(&history.job, &history.transactions);
    assert_eq!(story(&after), story(&before));
    assert_eq!(failed(&judge_history(&plan, &after)), [""; 0]);
}

#[test]
fn what_a_job_does_not_log_or_logs_besides_fails() {
    for ending in Ending::ALL {
        let names = fails_edited(ending, |script| script.named("post").logs.clear());
        assert!(names.contains(&"logs_agree"), "{ending:?}: {names:?}");
        let names = fails_edited(ending, |script| {
            let log = script.named("post").logs[0].clone();
            script.named("stranger").logs.push(log);
        });
        assert!(names.contains(&"logs_agree"), "{ending:?}: {names:?}");
    }
    for change in [
        (|closed| closed.paid = Amount::new(1)) as fn(&mut JobClosed),
        |closed| closed.status = 7,
        |closed| closed.signed_hash = HashBytes::ZERO,
    ] {
        let names = fails_edited(Ending::Settled, move |script| log_closed(script, change));
        assert_eq!(names, ["logs_agree", "stories_agree"]);
    }
    let names = fails_edited(Ending::Settled, |script| {
        script.named("end").logs[0] = registry_code(1);
    });
    assert_eq!(names, ["logs_agree", "stories_agree"]);
}

#[test]
fn a_job_without_royalty_and_fee_pays_no_model() {
    let names = fails(|plan| {
        plan.royalty_bps = 0;
        plan.generation_with(|generation| generation.fee_bps = 0);
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
    let posted = fails_edited(Ending::Settled, |script| script.named("post").from = Some(address(99)));
    assert_eq!(posted, ["posted_by_client"]);
    let posted = fails_edited(Ending::Settled, |script| script.named("post").value = 499_999_999);
    assert!(posted.contains(&"deposit"), "{posted:?}");
}

#[test]
fn a_worker_that_is_not_told_or_told_with_money_fails() {
    let untold = fails_edited(Ending::Settled, |script| script.named("post").sent.clear());
    assert_eq!(untold, ["payments"]);
    let elsewhere = fails_edited(Ending::Settled, |script| script.sent::<JobNoticed>("post").0 = address(95));
    assert_eq!(elsewhere, ["payments"]);
    let with_money = fails_edited(Ending::Settled, |script| script.sent::<JobNoticed>("post").1 = 1);
    assert_eq!(with_money, ["payments"]);
}

#[test]
fn a_claim_from_a_stranger_too_late_or_without_its_bond_fails() {
    let claim = |change: fn(&mut history::Move)| {
        fails_edited(Ending::SettledClaimed, move |script| change(script.named("claim")))
    };
    assert_eq!(claim(|claim| claim.from = Some(address(98))), ["worker_address"]);
    assert_eq!(claim(|claim| claim.value = 599_999_999), ["bond"]);
    let low = fails_with(Ending::SettledClaimed, |plan| plan.bond = Amount::new(549_999_999));
    assert_eq!(low, ["bond"]);
    let late = fails_with(Ending::SettledClaimed, |plan| plan.until = plan.posted_at_s + 29);
    assert_eq!(late, ["stories_agree", "claimed_in_time"]);
}

#[test]
fn a_receipt_of_anything_else_fails() {
    let answered = |change: fn(&Plan, &mut Receipt)| {
        let plan = Plan::honest();
        let mut receipt = plan.receipt();
        change(&plan, &mut receipt);
        let post = plan.post(receipt, &plan.key);
        fails_edited(Ending::Settled, move |script| {
            script.named("end").body = body(&post);
            log_closed(script, |closed| closed.signed_hash = post.receipt.hash());
        })
    };
    let name = "receipt_names_this_job";
    assert_eq!(answered(|_, receipt| receipt.posted_lt += 1), [name]);
    assert_eq!(answered(|_, receipt| receipt.job = address(96)), [name]);
    assert_eq!(answered(|_, receipt| receipt.sequence = 2), [name]);
    assert_eq!(answered(|_, receipt| receipt.is_final = false), [name]);
    assert_eq!(answered(|_, receipt| receipt.content_hash = HashBytes([1; 32])), ["result_posted"]);
    let units = answered(|_, receipt| receipt.units.cached_input = 20_001);
    assert_eq!(units, ["units_within_terms"]);

    let plan = Plan::honest();
    let strangers = plan.post(plan.receipt(), &signing_key(41));
    let other_result = {
        let mut post = plan.post_receipt();
        post.result = registry_code(1);
        post
    };
    for (post, name) in [(strangers, "receipt_signature"), (other_result, "result_posted")] {
        let names = fails_edited(Ending::Settled, move |script| script.named("end").body = body(&post));
        assert_eq!(names, [name]);
    }
    let late = fails_edited(Ending::Settled, |script| script.named("end").at_s += 10_000);
    assert_eq!(late, ["state_agrees", "stories_agree", "settled_in_time"]);
}

#[test]
fn each_party_must_get_exactly_its_part() {
    for ending in [Ending::Settled, Ending::SettledClaimed, Ending::SessionSettled, Ending::MarketSettled] {
        let edited = |change: fn(&mut Script)| fails_edited(ending, change);
        let wrong: [fn(&mut Script); 11] = [
            |script| script.sent::<JobPaid>("end").1 -= RECEIVERS_GAS + 1,
            |script| script.sent::<JobPaid>("end").1 += RECEIVERS_GAS + 1,
            |script| script.sent::<JobPaid>("end").0 = address(93),
            |script| script.sent::<JobPaid>("end").2 = paid_as(Outcome::Rejected),
            |script| script.sent::<SharePaid>("end").1 -= RECEIVERS_GAS + 1,
            |script| script.sent::<SharePaid>("end").1 += RECEIVERS_GAS + 1,
            |script| script.sent::<SharePaid>("end").0 = address(94),
            |script| {
                let mut twice = script.sent::<JobPaid>("end").clone();
                twice.1 = RECEIVERS_GAS;
                script.named("end").sent.push(twice);
            },
            |script| script.named("end").sent.clear(),
            |script| script.named("end").rest.as_mut().unwrap().0 = address(95),
            |script| {
                let refund = JobRefund { query_id: 0, status: JobStatus::Rejected as u8 };
                script.named("end").rest.as_mut().unwrap().1 = body(&refund);
            },
        ];
        for (at, change) in wrong.into_iter().enumerate() {
            assert_eq!(edited(change), ["payments"], "{ending:?}: {at}");
        }
        // The client's rest that stays with the job.
        let kept = edited(|script| script.named("end").kept = 1);
        assert_eq!(kept, ["payments"], "{ending:?}");
    }
    // More than units × prices: the receipt may ask for it, nobody may pay it.
    let plan = Plan::honest();
    let post = plan.post(Receipt { amount: plan.deposit, ..plan.receipt() }, &plan.key);
    let names = fails_edited(Ending::Settled, move |script| {
        script.named("end").body = body(&post);
        log_closed(script, |closed| closed.signed_hash = post.receipt.hash());
        script.sent::<JobPaid>("end").1 = 400_000_000;
    });
    assert_eq!(names, ["payments"]);
}

fn paid_as(outcome: Outcome) -> contracts::Cell {
    body(&JobPaid { query_id: 0, outcome: outcome as u8 })
}

#[test]
fn a_receipt_for_less_than_the_cost_is_paid_as_asked() {
    let names = fails(|plan| plan.amount = Amount::new(12_345));
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn money_that_appears_or_vanishes_fails() {
    for ending in [Ending::Claimed, Ending::Session, Ending::MarketAwaiting] {
        for change in [1i64, -1] {
            let plan = Plan::ending(ending);
            let mut history = plan.history();
            history.balance_nanoton = history.balance_nanoton.checked_add_signed(change.into()).unwrap();
            assert_eq!(failed(&judge_history(&plan, &history)), ["conservation", "ended"]);
        }
    }
}

#[test]
fn a_history_with_a_gap_a_swap_or_a_stranger_in_it_fails() {
    let plan = Plan::ending(Ending::SessionSettled);
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
fn what_is_wrong_with_an_unfinished_job_is_not_hidden_by_its_being_unfinished() {
    let mut plan = Plan::ending(Ending::Claimed);
    plan.bond = Amount::new(1);
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
    for ending in [Ending::Open, Ending::Claimed, Ending::Session, Ending::Market, Ending::MarketAwaiting] {
        let plan = Plan::ending(ending);
        let history = plan.history();
        let late = NOW_S + 86_400;
        let found = audit(&history, plan.platform.collateral(), &plan.policy(), late);
        assert!(found.verdict.failures()[0].contains("anybody may expire it now"), "{ending:?}");
        assert!(!found.verdict.all_passed());
    }
}

#[test]
fn a_rejection_of_anything_else_fails() {
    for ending in [Ending::Rejected, Ending::RejectedClaimed, Ending::SessionRejected] {
        let rejected = |change: fn(&mut contracts::receipt::Rejection), key: u8| {
            let plan = Plan::ending(ending);
            let mut rejection = plan.rejection();
            change(&mut rejection);
            let post = PostRejection::signed(rejection, &signing_key(key)).unwrap();
            fails_edited(ending, move |script| {
                script.named("end").body = body(&post);
                log_closed(script, |closed| closed.signed_hash = post.rejection.hash());
            })
        };
        assert!(rejected(|_| {}, 40).is_empty());
        assert_eq!(rejected(|signed| signed.job = address(96), 40), ["rejection_names_this_job"]);
        assert_eq!(rejected(|signed| signed.posted_lt += 1, 40), ["rejection_names_this_job"]);
        assert_eq!(rejected(|signed| signed.reason = 99, 40), ["rejection_reason"]);
        assert_eq!(rejected(|_| {}, 41), ["rejection_signature"]);
        let late = fails_edited(ending, |script| script.named("end").at_s += 10_000);
        assert_eq!(late, ["state_agrees", "stories_agree", "rejected_in_time"]);
    }
}

#[test]
fn a_rejection_returns_deposit_and_bond_once() {
    let edited = |change: fn(&mut Script)| fails_edited(Ending::RejectedClaimed, change);
    let wrong: [fn(&mut Script); 4] = [
        |script| script.sent::<JobPaid>("end").1 = 599_999_999,
        |script| script.sent::<JobPaid>("end").0 = address(93),
        |script| script.named("end").sent.clear(),
        |script| script.named("end").rest.as_mut().unwrap().0 = address(95),
    ];
    for change in wrong {
        assert_eq!(edited(change), ["payments"]);
    }
    // A job that nobody claimed owes nobody a bond.
    let unclaimed = fails_edited(Ending::Rejected, |script| {
        script.named("end").sent.push((address(93), 5, paid_as(Outcome::Rejected)));
    });
    assert_eq!(unclaimed, ["payments"]);
}

#[test]
fn only_the_client_cancels_and_only_an_open_job() {
    let stranger = fails_edited(Ending::Cancelled, |script| script.named("end").from = Some(address(85)));
    assert_eq!(stranger, ["cancelled_by_client"]);
    // A claim that succeeded before it.
    let claimed = fails_edited(Ending::RejectedClaimed, |script| {
        script.named("end").body = body(&contracts::job::CancelJob { query_id: 9 });
        script.named("end").from = Some(address(2));
    });
    assert_eq!(claimed, ["life"]);
}

#[test]
fn nobody_ends_a_job_before_its_deadline() {
    for ending in
        [Ending::ExpiredOpen, Ending::ExpiredClaimed, Ending::SessionExpired, Ending::MarketUndelivered]
    {
        let early = fails_edited(ending, |script| script.named("end").at_s -= 1);
        assert_eq!(early, ["state_agrees", "stories_agree", "expired_after_deadline"], "{ending:?}");
        let greedy = fails_edited(ending, |script| {
            let sent = &mut script.named("end").sent;
            let back = sent.iter_mut().find(|(to, ..)| *to == address(87)).unwrap();
            back.1 = 50_000_001;
        });
        assert_eq!(greedy, ["payments"], "{ending:?}");
    }
}

#[test]
fn an_expired_job_pays_the_client_the_deposit_and_a_silent_workers_bond() {
    let edited = |change: fn(&mut Script)| fails_edited(Ending::ExpiredClaimed, change);
    let to_worker = edited(|script| {
        script.named("end").sent.push((address(93), 600_000_000, paid_as(Outcome::Rejected)));
    });
    assert_eq!(to_worker, ["payments"]);
    assert_eq!(edited(|script| script.named("end").rest.as_mut().unwrap().0 = address(95)), ["payments"]);
    let uncompensated = fails_edited(Ending::MarketUndelivered, |script| {
        script.sent::<JobPaid>("end").1 -= 3_000_000;
    });
    assert_eq!(uncompensated, ["payments"]);
    let no_share = fails_edited(Ending::SessionExpired, |script| {
        let sent = &mut script.named("end").sent;
        sent.retain(|(_, _, body)| SharePaid::from_cell(body).is_err());
    });
    assert_eq!(no_share, ["payments"]);
}

#[test]
fn rent_may_have_eaten_into_a_job_that_nobody_ended() {
    let names = fails_edited(Ending::ExpiredOpen, |script| script.named("end").fees = 90_000_000);
    assert!(names.is_empty(), "{names:?}");
    // A receipt or a rejection is refused where the job cannot pay for it, so there rent is no excuse.
    let names = fails_edited(Ending::Rejected, |script| script.named("end").fees = 90_000_000);
    assert_eq!(names, ["payments"]);
}

#[test]
fn a_comment_counts_as_the_message_it_stands_for() {
    for (ending, name, words) in [
        (Ending::Cancelled, "end", "Cancel"),
        (Ending::SessionExpired, "close", "close"),
        (Ending::ExpiredOpen, "end", "EXPIRE"),
    ] {
        let names = fails_edited(ending, move |script| {
            let mut said = CellBuilder::new();
            said.store_u32(0).unwrap();
            said.store_raw(words.as_bytes(), (words.len() * 8) as u16).unwrap();
            script.named(name).body = said.build().unwrap();
        });
        assert!(names.is_empty(), "{ending:?}: {names:?}");
    }
}

#[test]
fn a_swept_job_is_audited_from_its_transactions() {
    for ending in Ending::ALL {
        let mut plan = Plan::ending(ending);
        plan.swept = true;
        if !ending.status().is_closed() {
            assert_eq!(failed(&judge(&plan)), ["life"], "{ending:?}");
            continue;
        }
        let found = audit_history(&plan, &plan.history());
        assert_eq!(found.conclusion(), Conclusion::Holds, "{ending:?}: {:?}", found.verdict.failures());
        let mut history = plan.history();
        history.balance_nanoton = 1;
        assert_eq!(failed(&judge_history(&plan, &history)), ["conservation"]);
    }
}

/// The end, and after it a payment of it that came back and went on to `to`.
fn bounced(script: &mut Script, opcode: u32, to: &StdAddr) {
    let mut marker = CellBuilder::new();
    marker.store_u32(u32::MAX).unwrap();
    marker.store_u32(opcode).unwrap();
    let end = script.named("end").clone();
    let payout = body(&contracts::job::Payout { query_id: 0 });
    script.moves.push(history::Move {
        name: "bounce",
        at_s: end.at_s + 1,
        from: Some(end.sent[0].0.clone()),
        value: 300_000_000,
        body: marker.build().unwrap(),
        bounced: true,
        sent: Vec::new(),
        rest: Some((to.clone(), payout)),
        kept: 0,
        logs: Vec::new(),
        fees: FEES,
        ..end
    });
}

#[test]
fn a_payment_that_came_back_must_go_on_to_the_client() {
    for ending in [Ending::Settled, Ending::RejectedClaimed, Ending::SessionSettled] {
        for opcode in [JobPaid::OPCODE, SharePaid::OPCODE] {
            let went_on = fails_edited(ending, move |script| bounced(script, opcode, &address(2)));
            assert!(went_on.is_empty(), "{went_on:?}");
            let elsewhere = fails_edited(ending, move |script| bounced(script, opcode, &address(87)));
            assert_eq!(elsewhere, ["bounces_forwarded"]);
        }
    }
}

#[test]
fn a_sessions_receipts_and_vouchers_must_hold_and_grow() {
    let redeemed = |move_name: &'static str, change: fn(&Plan, &mut contracts::job::RedeemReceipt)| {
        let plan = Plan::ending(Ending::SessionSettled);
        fails_edited(Ending::SessionSettled, move |script| {
            let redemption = script.named(move_name);
            let mut redeem = contracts::job::RedeemReceipt::from_cell(&redemption.body).unwrap();
            change(&plan, &mut redeem);
            redemption.body = body(&redeem);
        })
    };
    for name in ["redeem", "second redeem"] {
        let unsigned = redeemed(name, |_, redeem| redeem.signature.0[5] ^= 1);
        assert_eq!(unsigned, ["receipt_signature"]);
        let unpromised = redeemed(name, |_, redeem| {
            let mut voucher = *redeem.voucher;
            voucher.0[5] ^= 1;
            redeem.voucher = Ref::new(voucher).unwrap();
        });
        assert_eq!(unpromised, ["voucher_signature"]);
        // Signed by both, but of another job or posting.
        let other_job = redeemed(name, |plan, redeem| {
            let receipt = Receipt { posted_lt: 5, ..(*redeem.receipt).clone() };
            *redeem = plan.redeem_with(receipt, redeem.voucher_amount);
        });
        assert_eq!(other_job, ["voucher_signature", "receipt_names_this_job"]);
        let late = fails_edited(Ending::SessionSettled, move |script| script.named(name).at_s += 10_000);
        assert_eq!(late, ["redeemed_in_time"]);
    }
    // The same receipt once more, or an older one.
    let repeated = redeemed("second redeem", |plan, redeem| *redeem = plan.redeem(1, 200_000_000, false));
    assert!(repeated.contains(&"sums_grow"), "{repeated:?}");
    let smaller = redeemed("second redeem", |plan, redeem| *redeem = plan.redeem(2, 90_000_000, false));
    assert!(smaller.contains(&"sums_grow") && smaller.contains(&"payments"), "{smaller:?}");
    // The smaller of receipt and voucher counts.
    let greedy = redeemed("second redeem", |plan, redeem| {
        let receipt = Receipt { amount: Amount::new(400_000_000), ..(*redeem.receipt).clone() };
        *redeem = plan.redeem_with(receipt, redeem.voucher_amount);
    });
    assert!(greedy.is_empty(), "{greedy:?}");
}

#[test]
fn a_redemption_is_paid_by_what_was_earned_and_by_no_more() {
    for name in ["redeem", "second redeem"] {
        let from_the_client = fails_edited(Ending::SessionSettled, move |script| {
            script.sent::<JobPaid>(name).1 += 5_000_000;
        });
        assert_eq!(from_the_client, ["payments"]);
        let too_little = fails_edited(Ending::SessionSettled, move |script| {
            script.sent::<JobPaid>(name).1 -= 5_000_000;
        });
        assert_eq!(too_little, ["payments"]);
    }
}

#[test]
fn only_the_client_adds_to_a_session_and_closes_it() {
    let name = "session_steps_by_client";
    let edited = |change: fn(&mut Script)| fails_edited(Ending::SessionExpired, change);
    assert_eq!(edited(|script| script.named("close").from = Some(address(85))), [name]);
    assert_eq!(edited(|script| script.named("top up").from = Some(address(85))), [name]);
    assert_eq!(edited(|script| script.named("top up").value = 69_999_999), [name]);
}

#[test]
fn a_bid_beyond_the_terms_or_no_better_than_the_one_before_fails() {
    let bid = |name: &'static str, change: fn(&mut TakeJob, &mut contracts::job::Bid)| {
        fails_edited(Ending::MarketUndelivered, move |script| {
            let taking = script.named(name);
            let mut take = TakeJob::from_cell(&taking.body).unwrap();
            let mut bid = (**take.bid.as_ref().unwrap()).clone();
            change(&mut take, &mut bid);
            let mut log = contracts::job_log::JobTaken::from_cell(&taking.logs[0]).unwrap();
            log.prices = bid.prices;
            taking.logs[0] = body(&log);
            take.bid = Some(Ref::new(bid).unwrap());
            taking.body = body(&take);
        })
    };
    let first = |change| bid("first bid", change);
    assert!(first(|_, _| {}).is_empty());
    assert_eq!(first(|_, seller| seller.prices.output = Nanoton::new(30_000_001)), ["bids"]);
    assert_eq!(first(|_, bid| bid.worker_owner = address(98)), ["bids"]);
    assert_eq!(first(|_, bid| bid.model = HashBytes([6; 32])), ["bids"]);
    assert_eq!(first(|_, bid| bid.measurement = None), ["bids"]);
    assert_eq!(first(|_, bid| bid.measurement = Some(Ref::new(HashBytes([5; 32])).unwrap())), ["bids"]);
    // As cheap as the second, which has no more at stake.
    assert_eq!(first(|_, seller| seller.prices.output = Nanoton::new(20_000_001)), ["bids"]);
    // As cheap, with less at stake than the second.
    let tied = first(|take, seller| {
        seller.prices.output = Nanoton::new(20_000_001);
        take.stake = Amount::new(9_000_000_000);
    });
    assert!(tied.is_empty(), "{tied:?}");
    let late = fails_edited(Ending::MarketUndelivered, |script| script.named("bid").at_s += 60);
    assert!(late.contains(&"bids"), "{late:?}");
    let stranger =
        fails_edited(Ending::MarketUndelivered, |script| script.named("bid").from = Some(address(98)));
    assert!(stranger.contains(&"bids"), "{stranger:?}");
    let kept = fails_edited(Ending::MarketUndelivered, |script| script.named("bid").sent.clear());
    assert_eq!(kept, ["payments"]);
    let input =
        fails_edited(Ending::MarketSettled, |script| script.named("deliver").from = Some(address(98)));
    assert_eq!(input, ["input_delivered"]);
    let early = fails_edited(Ending::MarketSettled, |script| script.named("deliver").at_s -= 20);
    assert!(early.contains(&"input_delivered"), "{early:?}");
}

#[test]
fn a_market_of_other_workers_or_another_model_fails() {
    let terms = |change: fn(&mut contracts::job::MarketTerms)| {
        fails_edited(Ending::Market, move |script| {
            let post = script.named("post");
            let mut open = contracts::job::PostOpenJob::from_cell(&post.body).unwrap();
            let mut terms = (*open.terms).clone();
            change(&mut terms);
            open.terms = Ref::new(terms).unwrap();
            let mut log = contracts::job_log::JobOpened::from_cell(&post.logs[0]).unwrap();
            log.terms_hash = open.terms.hash();
            post.logs[0] = body(&log);
            post.body = body(&open);
        })
    };
    for change in [
        (|terms| terms.best_stake = Amount::new(5)) as fn(&mut contracts::job::MarketTerms),
        |terms| terms.best_stake = Amount::new(5),
        |terms| {
            let mut network = *terms.network;
            network.worker.hash = HashBytes([6; 32]);
            terms.network = Ref::new(network).unwrap();
        },
        |terms| {
            let mut network = *terms.network;
            network.network.depth += 1;
            terms.network = Ref::new(network).unwrap();
        },
    ] {
        assert_eq!(terms(change), ["ended", "market_terms", "state_agrees"]);
    }
}

#[test]
fn two_receipts_of_one_sequence_are_reported_once_and_truly() {
    let reported = |edit: fn(&mut Script)| {
        fails_with(Ending::Settled, |plan| {
            plan.equivocated = true;
            plan.edit = Box::new(edit);
        })
    };
    assert!(reported(|_| {}).is_empty());
    let told_another = reported(|script| script.sent::<JobEquivocated>("report").0 = address(83));
    assert_eq!(told_another, ["payments"]);
    let twice = reported(|script| {
        let mut again = script.named("report").clone();
        again.name = "again";
        script.moves.push(again);
    });
    assert_eq!(twice, ["life"]);
    let same = reported(|script| {
        let report = script.named("report");
        let mut shown = contracts::job::ReportEquivocation::from_cell(&report.body).unwrap();
        shown.other = shown.one.clone();
        report.body = body(&shown);
    });
    assert_eq!(same, ["equivocation"]);
}

#[test]
fn the_models_part_is_what_the_model_asks() {
    let name = "model_share";
    assert_eq!(fails(|plan| plan.share_bps -= 1), [name]);
    assert_eq!(fails(|plan| plan.share_bps = 0), [name]);
    assert_eq!(fails(|plan| plan.model_data = Some(plan.model(MODEL_ID, 501))), [name]);
    assert_eq!(fails(|plan| plan.model_data = Some(plan.model(HashBytes([6; 32]), 500))), [name]);
    assert_eq!(fails(|plan| plan.model_data = Some(registry_code(1))), [name]);
    assert_eq!(fails(|plan| plan.model_data = None), [name]);
    // Where nobody was paid, nobody was paid too little.
    assert!(fails_with(Ending::Cancelled, |plan| plan.model_data = None).is_empty());
}

#[test]
fn the_prices_are_those_that_the_worker_offered() {
    let offered = |change: fn(&mut RoyaltyQuoted)| {
        fails(|plan| {
            let mut offer = RoyaltyQuoted {
                query_id: 0,
                model_id: MODEL_ID,
                royalty_bps: plan.royalty_bps,
                min_deposit: Nanoton::new(1),
                prices: Ref::new(plan.prices).unwrap(),
            };
            change(&mut offer);
            plan.offer = Some(offer);
        })
    };
    assert!(offered(|_| {}).is_empty());
    // A worker takes more than it asked for.
    let cheaper = offered(|offer| {
        let mut prices = *offer.prices;
        prices.output = Nanoton::new(20_000_000);
        offer.prices = Ref::new(prices).unwrap();
    });
    assert!(cheaper.is_empty(), "{cheaper:?}");
    let changes: [fn(&mut RoyaltyQuoted); 4] = [
        |offer| {
            let mut prices = *offer.prices;
            prices.output = Nanoton::new(20_000_002);
            offer.prices = Ref::new(prices).unwrap();
        },
        |offer| offer.min_deposit = Nanoton::new(500_000_001),
        |offer| offer.royalty_bps += 1,
        |offer| offer.model_id = HashBytes([6; 32]),
    ];
    for change in changes {
        assert_eq!(offered(change), ["offer"]);
    }
}

#[test]
fn the_registry_on_chain_has_the_last_word() {
    assert_eq!(fails(|plan| plan.trusted_registry_code = HashBytes([8; 32])), ["registry_code"]);
    assert_eq!(fails(|plan| plan.registry_code = registry_code(2)), ["registry_code"]);
    for ending in [Ending::Settled, Ending::SettledClaimed] {
        let unlisted = fails_with(ending, |plan| plan.admitted_from = None);
        assert_eq!(unlisted, ["measurement_listed"]);
        let later = fails_with(ending, |plan| plan.admitted_from = Some(NOW_S as u32 + 1));
        assert_eq!(later, ["measurement_listed"]);
    }
    let names = fails(|plan| {
        let mut generation = plan.network.generation.clone();
        generation.fee_bps += 1;
        plan.registry_generation = Some(generation);
    });
    assert_eq!(names, ["registry_generation"]);
    let plan = Plan::honest();
    let mut history = plan.history();
    history.registry = None;
    assert_eq!(failed(&judge_history(&plan, &history)), ["registry_code", "registry_generation"]);
    let mut history = plan.history();
    history.registry.as_mut().unwrap().data = registry_code(1);
    assert_eq!(failed(&judge_history(&plan, &history)), ["registry_generation", "measurement_listed"]);
}

#[test]
fn the_contracts_own_state_must_tell_the_same() {
    let changes: [fn(&mut JobState); 8] = [
        |state| state.status = JobStatus::Expired,
        |state| state.posting.posted_lt += 1,
        |state| state.posting.limits.max_units.input += 1,
        |state| state.until += 1,
        |state| state.deposit = Amount::new(1),
        |state| state.bond = Amount::new(1),
        |state| state.paid = Amount::ZERO,
        |state| state.sequence = 0,
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
    let mut plan = Plan::ending(Ending::SettledClaimed);
    plan.edit = Box::new(|script| {
        let end = script.named("end");
        end.succeeds = false;
        end.sent.clear();
        end.logs.clear();
        end.rest = None;
    });
    let found = audit_history(&plan, &plan.history());
    assert_eq!(found.status, Some(JobStatus::Claimed));
    assert_eq!(failed(&found.verdict), ["ended", "state_agrees"]);
}

#[test]
fn a_registration_that_was_not_in_force_fails() {
    for ending in [Ending::Settled, Ending::SettledClaimed, Ending::SessionSettled, Ending::MarketSettled] {
        let engaged_at_s = |plan: &Plan| match ending {
            Ending::SettledClaimed => plan.posted_at_s + 30,
            Ending::MarketSettled => plan.posted_at_s + 31,
            _ => plan.posted_at_s,
        };
        let late = fails_with(ending, |plan| plan.registered_at_s = engaged_at_s(plan) + 1);
        assert!(late.contains(&"registration"), "{ending:?}");
        let over = fails_with(ending, |plan| plan.candidate_expires_at = engaged_at_s(plan));
        assert!(over.contains(&"registration"), "{ending:?}");
    }
    let plan = Plan::honest();
    let mut unregistered = plan.history();
    unregistered.registration = None;
    assert_eq!(failed(&judge_history(&plan, &unregistered)), ["registration"]);
    // Another job's registration: of another key.
    let mut other = Plan::honest();
    other.key = signing_key(44);
    let mut history = plan.history();
    history.registration = other.history().registration;
    assert_eq!(failed(&judge_history(&plan, &history)), ["registration"]);
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
            contracts::receipt::verify_cell(receipt.receipt.cell(), &signature, &plan.seller().receipt_key)
                .is_err()
        );
    }
    assert!(contracts::job::PostReceipt::from_cell(&receipt.to_cell().unwrap()).is_ok());
}
