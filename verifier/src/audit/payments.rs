//! Whether the transaction that ended a job paid each party its part, and nothing besides.

use contracts::job::{Excesses, JobForfeited, JobPaid, JobRefund, JobReturned, Payout};
use contracts::model::SharePaid;
use contracts::money::Split;
use contracts::wire::opcode_of;
use contracts::{Message as _, Nanoton, Network, StdAddr};

use super::life::{End, Life};
use super::steps::Step;

/// What the end of a job has to pay beside the refund, which every end has.
#[derive(Default)]
struct Due {
    /// `job_paid`: the bond back and the pay.
    paid: Option<(Nanoton, Nanoton)>,
    /// `job_returned`: the bond back.
    returned: Option<Nanoton>,
    /// `job_forfeited`: the bond that the client gets instead.
    forfeited: Option<Nanoton>,
    /// `share_paid`: royalty and fee.
    share: Option<(Nanoton, Nanoton)>,
    /// Who called, and gets back what it brought too much.
    caller: Option<StdAddr>,
    /// The refund's words: what was paid, and the bond in it.
    refund_paid: Nanoton,
    refund_bond: Nanoton,
    /// The least of the refund.
    to_client: Nanoton,
    /// Rent may have eaten into a job that nobody ended in time.
    less_rent: bool,
}

/// `left`: what the account had after the end, nanoTON.
pub(super) fn payments(network: &Network, life: &Life<'_>, left: u128) -> Result<String, String> {
    let deposit = life.posting.terms.limits.deposit;
    let claim = life.taken.as_ref().map(|taken| &*taken.message.claim);
    let bond = claim.map_or(Nanoton::ZERO, |claim| claim.bond);
    let with_bond =
        || deposit.checked_add(bond).ok_or("deposit and bond exceed any amount of TON".to_owned());
    let mut words = None;
    let (step, due) = match &life.end {
        End::Unfinished => return Err("nothing has been paid yet".into()),
        End::Settled(step, post) => {
            let claim = claim.ok_or("there is no claim")?;
            let receipt = &post.receipt;
            let cost = claim.prices.cost(&receipt.units);
            let split = Split::of(receipt.amount, cost, deposit, claim.royalty_bps, network.params.fee_bps)
                .ok_or("royalty and fee exceed the payment")?;
            words = Some(format!(
                "paid {}: worker {}, royalty {}, fee {}; refund {}",
                split.paid.get(),
                split.to_worker.get(),
                split.royalty.get(),
                split.fee.get(),
                split.to_client.get()
            ));
            let share = (split.royalty.get() + split.fee.get() > 0).then_some((split.royalty, split.fee));
            let paid = Some((bond, split.to_worker));
            let (refund_paid, to_client) = (split.paid, split.to_client);
            (step, Due { paid, share, refund_paid, to_client, ..Due::default() })
        }
        End::Rejected(step, _) => (step, Due { returned: Some(bond), to_client: deposit, ..Due::default() }),
        End::Cancelled(step) => (step, Due { to_client: deposit, less_rent: true, ..Due::default() }),
        End::Expired(step) => {
            let due = Due {
                forfeited: claim.map(|claim| claim.bond),
                caller: step.from.clone(),
                refund_bond: bond,
                to_client: with_bond()?,
                less_rent: true,
                ..Due::default()
            };
            (step, due)
        }
    };
    sent_as_due(network, life, step, &due, left)?;
    Ok(words.unwrap_or_else(|| {
        let whose = if due.returned.is_some() { "; the bond back to the worker" } else { "" };
        format!("{} nanoTON to the client{whose}", due.to_client.get())
    }))
}

fn sent_as_due(network: &Network, life: &Life<'_>, step: &Step, due: &Due, left: u128) -> Result<(), String> {
    let terms = &life.posting.terms;
    let model = network.model_address(&terms.model_id).map_err(|error| error.to_string())?;
    let ours = |client: &StdAddr, nonce: u64| *client == life.client && nonce == life.nonce;
    let status = life.status() as u8;
    let (mut to_worker, mut to_model, mut to_client) = (Vec::new(), Vec::new(), Vec::new());
    for sent in &step.sent {
        let is_workers = sent.to == terms.worker;
        if let Ok(paid) = JobPaid::from_cell(&sent.body) {
            let value = paid.paid.get().saturating_add(paid.bond.get());
            let named = due.paid == Some((paid.bond, paid.paid)) && ours(&paid.client, paid.nonce);
            to_worker.push(named && is_workers && sent.value >= value);
        } else if let Ok(returned) = JobReturned::from_cell(&sent.body) {
            let named = due.returned == Some(returned.bond) && ours(&returned.client, returned.nonce);
            to_worker.push(named && is_workers && sent.value >= returned.bond.get());
        } else if let Ok(lost) = JobForfeited::from_cell(&sent.body) {
            let named = due.forfeited == Some(lost.bond) && ours(&lost.client, lost.nonce);
            to_worker.push(named && is_workers);
        } else if let Ok(share) = SharePaid::from_cell(&sent.body) {
            let value = share.royalty.get().saturating_add(share.fee.get());
            let named = due.share == Some((share.royalty, share.fee)) && ours(&share.client, share.nonce);
            to_model.push(named && sent.to == model && sent.value >= value);
        } else if let Ok(refund) = JobRefund::from_cell(&sent.body) {
            let named =
                (refund.paid, refund.bond, refund.status) == (due.refund_paid, due.refund_bond, status);
            let value = if due.less_rent {
                // What the client lacks is what the chain took at the end, or what stays for rent.
                let spent = step.fees.saturating_add(forward_fees(step));
                sent.value.saturating_add(spent).saturating_add(left.min(reserve_of(life)))
            } else {
                sent.value
            };
            to_client.push(named && sent.to == life.client && value >= due.to_client.get());
        } else if is_excess_of(sent.body.as_slice().ok().and_then(|body| opcode_of(&body)), due, &sent.to) {
            if sent.value > step.value {
                return Err("the caller got more back than it brought".into());
            }
        } else {
            return Err("the end of the job sent a message that is no part of it".into());
        }
    }
    let worker_due: &[bool] =
        if due.paid.is_some() || due.returned.is_some() || due.forfeited.is_some() { &[true] } else { &[] };
    let model_due: &[bool] = if due.share.is_some() { &[true] } else { &[] };
    for (found, due, whom) in
        [(to_worker, worker_due, "worker"), (to_model, model_due, "model"), (to_client, &[true], "client")]
    {
        if found != due {
            return Err(format!("the {whom} did not get its part, once"));
        }
    }
    Ok(())
}

/// Whether each payment that came back to the closed job went on to whom it belongs; nothing where none came back.
pub(super) fn bounces(life: &Life<'_>) -> Option<Result<String, String>> {
    let end = life.end_step()?;
    let mut back = 0;
    for step in life.steps.iter().filter(|step| step.bounced && step.lt > end.lt) {
        let owner = life.taken.as_ref().map(|taken| &taken.message.claim.worker_owner);
        let to = match step.opcode() {
            Some(JobPaid::OPCODE | JobReturned::OPCODE) => owner.unwrap_or(&life.client),
            Some(SharePaid::OPCODE) => &life.client,
            _ => continue,
        };
        back += 1;
        let spent = step.fees.saturating_add(forward_fees(step));
        let went_on = step.succeeded
            && step.sent.iter().any(|sent| {
                let is_payout = Payout::from_cell(&sent.body).is_ok();
                is_payout && sent.to == *to && sent.value.saturating_add(spent) >= step.value
            });
        if !went_on {
            return Some(Err(format!("what came back at lt {} did not go on to {to}", step.lt)));
        }
    }
    (back > 0).then(|| Ok(format!("{back} came back and went on")))
}

/// What the posting left with the job above the deposit: gas and rent, which is all that may stay behind.
fn reserve_of(life: &Life<'_>) -> u128 {
    let surplus = life.post.sent.iter().filter(|sent| sent.to == life.client);
    let back = surplus.fold(0u128, |sum, sent| sum.saturating_add(sent.value));
    life.post.value.saturating_sub(back).saturating_sub(life.posting.terms.limits.deposit.get())
}

fn is_excess_of(opcode: Option<u32>, due: &Due, to: &StdAddr) -> bool {
    opcode == Some(Excesses::OPCODE) && due.caller.as_ref() == Some(to)
}

fn forward_fees(step: &Step) -> u128 {
    step.sent.iter().fold(0, |sum, sent| sum.saturating_add(sent.forward_fee))
}
