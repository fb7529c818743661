//! When a worker turns a receipt into money.

use contracts::job::{JobStatus, RedeemReceipt};
use contracts::money::{Amount, Split};
use contracts::wire::Signature;
use contracts::{SigningKey, WireError};

use crate::ids::SessionId;
use crate::seller::{SellerLedger, Written};

/// What a worker makes of risk and fees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedeemPolicy {
    /// Earned and not yet redeemed: above this, it is.
    pub at_stake: Amount,
    /// A session whose end is nearer than this is ended.
    pub margin_s: u32,
}

/// What is due for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redemption {
    /// Nothing now.
    Nothing,
    /// End it: [`SellerLedger::finalise`], and redeem that.
    Finalise,
    /// It is about to end, and requests are under way: let them end first.
    Drain,
    /// Redeem this, and again until the chain shows it.
    Redeem(Box<Written>),
}

/// What is due. `fee` is what a redemption that is not final costs at the chain's prices (`FeePrices::redemption`).
pub fn redemption(
    ledger: &SellerLedger,
    session: &SessionId,
    policy: &RedeemPolicy,
    fee: Amount,
    now_s: u32,
) -> Redemption {
    let (Some(record), Some(written)) = (ledger.record(session), ledger.newest(session)) else {
        return Redemption::Nothing;
    };
    let (facts, durable) = (&record.facts, written.record());
    if !facts.status.is_session() || now_s > facts.until {
        return Redemption::Nothing;
    }
    // Without a voucher nothing can be redeemed, and nothing was earned.
    let Some(voucher) = durable.voucher.filter(|_| durable.sequence > facts.sequence) else {
        let is_ending = is_ending(facts.status, facts.until, policy.margin_s, now_s);
        return match is_ending && record.voucher.is_some() && !record.is_final {
            true if ledger.open_requests(session).is_empty() => Redemption::Finalise,
            true => Redemption::Drain,
            false => Redemption::Nothing,
        };
    };
    if durable.is_final {
        return Redemption::Redeem(Box::new(written.clone()));
    }
    if is_ending(facts.status, facts.until, policy.margin_s, now_s) && !record.is_final {
        if ledger.open_requests(session).is_empty() {
            return Redemption::Finalise;
        }
        // The last minutes: what is written is worth more than what may come.
        if facts.until > now_s.saturating_add(policy.margin_s / 4) {
            return Redemption::Drain;
        }
    }
    let split = |amount| Split::of_session(amount, voucher.amount, facts.deposit, facts.share_bps).to_worker;
    let earned = split(durable.amount()).saturating_sub(split(facts.paid));
    if earned > fee.max(policy.at_stake) || (earned > fee && is_last(facts.until, policy.margin_s, now_s)) {
        Redemption::Redeem(Box::new(written.clone()))
    } else {
        Redemption::Nothing
    }
}

impl Written {
    /// The message that redeems it. `None` without a receipt or a voucher.
    ///
    /// # Errors
    /// [`WireError`]; none is known to happen.
    pub fn redeem(&self, receipt_key: &SigningKey) -> Result<Option<RedeemReceipt>, WireError> {
        let (Some(receipt), Some(voucher)) = (self.sign(receipt_key)?, self.record().voucher) else {
            return Ok(None);
        };
        let signed = receipt.to_signed(&self.record().facts.id)?;
        RedeemReceipt::new(signed, voucher.amount, Signature(voucher.signature)).map(Some)
    }
}

fn is_ending(status: JobStatus, until: u32, margin_s: u32, now_s: u32) -> bool {
    status == JobStatus::Closing || until <= now_s.saturating_add(margin_s)
}

fn is_last(until: u32, margin_s: u32, now_s: u32) -> bool {
    until <= now_s.saturating_add(margin_s / 4)
}
