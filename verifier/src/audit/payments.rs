//! Whether every transaction of a job paid each party its part, and nothing besides.

use contracts::fees::{GAS_MODEL_SHARE, GAS_WORKER_PAID};
use contracts::job::{
    Excesses, JobEquivocated, JobNoticed, JobPaid, JobRefund, JobStatus, Outcome, Payout, Seller,
};
use contracts::model::SharePaid;
use contracts::money::{Amount, LEAST_SHARE, Split};
use contracts::network::WORKCHAIN;
use contracts::wire::opcode_of;
use contracts::{HashBytes, Message as _, StdAddr};

use super::life::{Act, Event, Life, Opening, split_of};
use super::steps::{Sent, Step, balances};

/// What one transaction of a job has to send.
#[derive(Default)]
struct Due {
    /// `job_noticed`, without value.
    notice: Option<HashBytes>,
    /// `job_paid`.
    worker: Option<(HashBytes, u128, Outcome)>,
    /// What the worker earned pays for the transaction too.
    worker_pays: bool,
    /// `share_paid`.
    share: Option<(HashBytes, u128)>,
    /// `job_refund`, with all that is left.
    refund: Option<JobStatus>,
    /// The least of it. Nothing is foreseen where rent may have eaten into a job that nobody answered.
    least_refund: u128,
    /// Who called, and gets back what it brought too much.
    caller: Option<StdAddr>,
    /// `job_equivocated`.
    report: Option<HashBytes>,
}

/// `steps`: all of the account.
pub(super) fn payments(life: &Life<'_>, steps: &[Step]) -> Result<String, String> {
    let balances = balances(steps)?;
    let left_after = |step: &Step| {
        let at = steps.iter().position(|other| other.lt == step.lt);
        at.and_then(|at| balances.get(at)).copied().unwrap_or_default()
    };
    sent_as_due(&life.client, life.post, &due_at_opening(life))?;
    let mut total = (0u128, 0u128);
    for act in &life.acts {
        let due = due(act)?;
        let at = |what: String| format!("at lt {}: {what}", act.step.lt);
        sent_as_due(&life.client, act.step, &due).map_err(at)?;
        if due.refund.is_some() && left_after(act.step) != 0 {
            return Err(at("something was kept that belongs to the client".into()));
        }
        let value = |due: Option<u128>| due.unwrap_or_default();
        total.0 = total.0.saturating_add(value(due.worker.map(|(_, amount, _)| amount)));
        total.1 = total.1.saturating_add(value(due.share.map(|(_, amount)| amount)));
    }
    let paid = life.state().paid.get();
    Ok(format!(
        "paid {paid}: to workers {} with bonds, to the model {}, the rest to the client",
        total.0, total.1
    ))
}

/// Whether each payment that came back to the closed job went on to the client; nothing where none came back.
pub(super) fn bounces(life: &Life<'_>) -> Option<Result<String, String>> {
    let end = life.end()?;
    let mut back = 0;
    for step in life.steps.iter().filter(|step| step.bounced && step.lt > end.step.lt) {
        if !matches!(step.opcode(), Some(JobPaid::OPCODE | SharePaid::OPCODE)) {
            continue;
        }
        back += 1;
        let spent = step.fees.saturating_add(step.forward_fees());
        let went_on = step.succeeded
            && step.sent.iter().any(|sent| {
                let is_payout = Payout::from_cell(&sent.body).is_ok();
                is_payout && sent.to == life.client && sent.value.saturating_add(spent) >= step.value
            });
        // Less than the way costs stays.
        if !went_on && step.value > spent {
            return Some(Err(format!("what came back at lt {} did not go on to the client", step.lt)));
        }
    }
    (back > 0).then(|| Ok(format!("{back} came back and went on")))
}

fn due_at_opening(life: &Life<'_>) -> Due {
    let notice = match &life.opening {
        Opening::Directed(post) => post.seller.worker,
        Opening::Session(open) => open.seller.worker,
        Opening::Market(post) => post.terms.model,
    };
    Due { notice: Some(notice), ..Due::default() }
}

fn due(act: &Act<'_>) -> Result<Due, String> {
    let (before, after) = (&act.before, &act.after);
    let mut due = Due::default();
    let seller = || before.posting.seller.as_deref().ok_or_else(|| "nobody serves the job yet".to_owned());
    if act.is_end() {
        due.refund = Some(after.status);
    }
    let pay =
        |seller: &Seller, amount: u128, outcome| (amount > 0).then_some((seller.worker, amount, outcome));
    let share = |seller: &Seller, paid: Amount| {
        let share = paid.share_bps(seller.share_bps);
        (share >= LEAST_SHARE).then_some((seller.model, u128::from(share.get())))
    };
    let bond = u128::from(before.bond.get());
    let deposit = u128::from(before.deposit.get());
    match &act.event {
        Event::Taken(take) => {
            if let (true, JobStatus::Awaiting) = (take.bid.is_some(), before.status) {
                due.worker = pay(seller()?, bond, Outcome::Outbid);
            }
        }
        Event::Answered(post) => {
            let seller = seller()?;
            let split = split_of(post, seller, before.deposit);
            due.worker = pay(seller, bond + u128::from(split.to_worker.get()), Outcome::Settled);
            due.share = share(seller, split.paid);
            due.least_refund = u128::from(split.to_client.get());
        }
        Event::Redeemed(redeemed) => {
            let seller = seller()?;
            let receipt = &redeemed.receipt;
            let up_to =
                |amount| Split::of_session(amount, redeemed.voucher_amount, before.deposit, seller.share_bps);
            let now = up_to(receipt.amount);
            let now = if receipt.is_final { now.ended() } else { now };
            let earned_before = before.paid.saturating_sub(before.paid.share_bps(seller.share_bps));
            let earned = now
                .to_worker
                .checked_sub(earned_before)
                .ok_or("the receipt draws less than was drawn before")?;
            due.worker = pay(seller, u128::from(earned.get()), Outcome::Settled);
            if receipt.is_final {
                due.share = share(seller, now.paid);
                due.least_refund = u128::from(now.to_client.get());
            } else {
                due.worker_pays = true;
            }
        }
        Event::Rejected(_) => {
            due.worker = pay(seller()?, bond, Outcome::Rejected);
            due.least_refund = deposit;
        }
        Event::Expired => {
            due.caller = act.step.from.clone();
            if before.status == JobStatus::Awaiting {
                let market = before.posting.market().ok_or("it waits for an input outside the market")?;
                let compensation = u128::from(market.compensation.get());
                due.worker = pay(seller()?, bond + compensation, Outcome::Undelivered);
            } else if before.status.is_session() {
                due.share = share(seller()?, before.paid);
            }
        }
        Event::Equivocated(_) => due.report = Some(seller()?.worker),
        Event::Delivered(_)
        | Event::CloseAsked
        | Event::ToppedUp(_)
        | Event::Cancelled
        | Event::EquivocationRefused => {}
    }
    Ok(due)
}

fn sent_as_due(client: &StdAddr, step: &Step, due: &Due) -> Result<(), String> {
    let is_at = |sent: &Sent, account: HashBytes| sent.to == StdAddr::new(WORKCHAIN, account);
    let (mut notices, mut workers, mut shares, mut refunds, mut reports) = (0, 0, 0, 0, 0);
    for sent in &step.sent {
        let body = &sent.body;
        let opcode = body.as_slice().ok().and_then(|body| opcode_of(&body));
        let right = match opcode {
            Some(JobNoticed::OPCODE) => {
                notices += 1;
                due.notice.is_some_and(|account| is_at(sent, account) && sent.value == 0)
            }
            Some(JobPaid::OPCODE) => {
                workers += 1;
                due.worker.is_some_and(|(account, amount, outcome)| {
                    let named = JobPaid::from_cell(body).is_ok_and(|paid| paid.outcome == outcome as u8);
                    let enough = if due.worker_pays {
                        redeemed_for(step, sent, amount)
                    } else {
                        is_with_gas(step, sent, amount, GAS_WORKER_PAID)
                    };
                    named && is_at(sent, account) && enough
                })
            }
            Some(SharePaid::OPCODE) => {
                shares += 1;
                due.share.is_some_and(|(account, amount)| {
                    is_at(sent, account) && is_with_gas(step, sent, amount, GAS_MODEL_SHARE)
                })
            }
            Some(JobRefund::OPCODE) => {
                refunds += 1;
                let named = JobRefund::from_cell(body)
                    .is_ok_and(|refund| due.refund.is_some_and(|status| refund.status == status as u8));
                named && sent.to == *client && sent.value >= due.least_refund
            }
            Some(JobEquivocated::OPCODE) => {
                reports += 1;
                due.report.is_some_and(|account| is_at(sent, account) && sent.value <= step.value)
            }
            Some(Excesses::OPCODE) if due.caller.as_ref() == Some(&sent.to) => {
                if sent.value > step.value {
                    return Err("the caller got more back than it brought".into());
                }
                true
            }
            Some(Payout::OPCODE) if step.bounced => sent.to == *client && sent.value <= step.value,
            _ => return Err("it sent a message that is no part of it".into()),
        };
        if !right {
            return Err(format!("the message to {} is not what was due to it", sent.to));
        }
    }
    for (found, due, whom) in [
        (notices, due.notice.is_some(), "the worker was not told, once"),
        (workers, due.worker.is_some(), "the worker did not get its part, once"),
        (shares, due.share.is_some(), "the model did not get its part, once"),
        (refunds, due.refund.is_some(), "the client did not get its part, once"),
        (reports, due.report.is_some(), "the report did not go to the worker, once"),
    ] {
        if found != usize::from(due) {
            return Err(whom.to_owned());
        }
    }
    Ok(())
}

/// The amount, and beside it the gas that its receiver spends, at the price of this transaction. Twice that is let pass,
/// since the price of the first gas may differ.
fn is_with_gas(step: &Step, sent: &Sent, amount: u128, gas: u64) -> bool {
    let gas = step.price_of(gas).saturating_mul(2);
    sent.value >= amount && sent.value <= amount.saturating_add(gas)
}

/// What was earned, less what the redemption costs: never from the client's funds, and never more than twice the
/// chain's own bill.
fn redeemed_for(step: &Step, sent: &Sent, earned: u128) -> bool {
    let bill = step.fees.saturating_sub(step.rent).saturating_add(step.forward_fees());
    let foreseen = bill.saturating_mul(2).saturating_add(step.price_of(GAS_WORKER_PAID));
    sent.value.saturating_add(bill) <= earned && sent.value.saturating_add(foreseen) >= earned
}
