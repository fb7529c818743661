//! What the two parties of a session signed, redemption by redemption.

use contracts::job::EQUIVOCATED;

use super::life::{Act, Life};
use crate::check::{Party, Verdict, holds};
use crate::receipt::all;

pub(super) fn check_redemptions(verdict: &mut Verdict, job: &contracts::StdAddr, life: &Life<'_>) {
    let Some(session) = life.posted.posting.session() else { return };
    let Some(seller) = life.seller() else { return };
    let redeemed: Vec<_> = life.redemptions().collect();
    if redeemed.is_empty() {
        return;
    }
    let count = format!("{} receipts", redeemed.len());
    verdict.add(
        "receipt_signature",
        "every receipt was signed with the key that the session names",
        Party::Worker,
        all(&redeemed, &count, |(_, post)| {
            post.verify(&seller.receipt_key).map_err(|error| error.to_string())
        }),
    );
    verdict.add(
        "voucher_signature",
        "the client promised every sum that was drawn, by the session's key",
        Party::Client,
        all(&redeemed, &count, |(_, post)| {
            post.verify_voucher(&session.session_key).map_err(|error| error.to_string())
        }),
    );
    verdict.add(
        "receipt_names_this_job",
        "every receipt is of this session",
        Party::Worker,
        all(&redeemed, &count, |(_, post)| {
            let receipt = &post.receipt;
            if receipt.job == *job && receipt.posted_lt == life.post.lt {
                Ok(())
            } else {
                Err("it is of another job or posting".into())
            }
        }),
    );
    verdict.add(
        "sums_grow",
        "each receipt is a later one than the one before, and what was drawn in all only grew, within the deposit",
        Party::Contracts,
        all(&redeemed, &count, |(act, _)| grows(act)),
    );
    verdict.add(
        "redeemed_in_time",
        "no receipt was redeemed after the session's end",
        Party::Contracts,
        all(&redeemed, &count, |(act, _)| in_time(act)),
    );
}

fn grows(act: &Act<'_>) -> Result<(), String> {
    let (before, after) = (&act.before, &act.after);
    let later = after.sequence > before.sequence && after.sequence < EQUIVOCATED;
    let is_more = after.paid > before.paid || (act.is_end() && after.paid == before.paid);
    holds(later && is_more && after.paid <= before.deposit, "", "an older receipt, or a smaller sum")
        .map(drop)
}

fn in_time(act: &Act<'_>) -> Result<(), String> {
    let until = act.before.until;
    if act.step.at_s <= until { Ok(()) } else { Err(format!("redeemed at {}", act.step.at_s)) }
}
