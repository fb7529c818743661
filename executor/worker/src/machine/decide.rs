//! Whether a job is worth serving, and whether with a bond.

use contracts::{Nanoton, Units};

use super::{Policy, PostedJob, ServedModel, WorkerFacts, is_our_key};

/// What to do about an open job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer it as it is: less is at stake than a claim costs.
    Answer,
    /// Claim it with this bond.
    Claim {
        /// What the network asks of a claim of this deposit.
        bond: Nanoton,
    },
    /// Not now.
    Wait(Delay),
    /// Never.
    Decline(Declined),
}

/// What has to change before a job can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// Our contract has not been read yet.
    WorkerUnknown,
    /// Owner or operator have paused our contract.
    Paused,
    /// No attestation of our present keys, or it ends too soon.
    NotAttested,
    /// The model is served but its offer is not on chain yet.
    NotOffered,
    /// The stake is below the network's least.
    UnderStaked,
    /// The funds beside the stake do not cover the bond and the claim's cost.
    FundsTooLow,
}

/// Why a job is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Declined {
    /// Its seller is another worker.
    OtherWorker,
    /// Its seller's key is not the one held here.
    OtherKey,
    /// The model is not served here.
    OtherModel,
    /// It pays less than the offer asks.
    PriceBelowOffer,
    /// It gives publisher and treasury another share than the offer.
    OtherShare,
    /// It asks a larger bond than the network.
    BondTooHigh,
    /// Too little time left.
    TooLate,
    /// Too little time between claim and receipt.
    SettleTooShort,
    /// The deposit or the units do not pay for the smallest answer.
    DepositTooLow,
    /// Too many jobs wait already.
    QueueFull,
}

impl Declined {
    /// For a log line.
    pub fn description(self) -> &'static str {
        match self {
            Self::OtherWorker => "its seller is another worker",
            Self::OtherKey => "its seller's key is not held here",
            Self::OtherModel => "the model is not served here",
            Self::PriceBelowOffer => "it pays less than the offer asks",
            Self::OtherShare => "it gives the model another share than the offer",
            Self::BondTooHigh => "it asks a larger bond than the network",
            Self::TooLate => "too little time left",
            Self::SettleTooShort => "too little time between claim and receipt",
            Self::DepositTooLow => "the deposit does not pay for the smallest answer",
            Self::QueueFull => "too many jobs wait",
        }
    }
}

/// Judges an open job. A job does not check what its client names as the seller, so all of it is checked here. What the
/// worker's contract would refuse without harm is judged too, since a refused claim costs a block's time, and what the job
/// would refuse costs the float.
pub fn decide(policy: &Policy, worker: Option<&WorkerFacts>, posted: &PostedJob, now_s: u32) -> Decision {
    let model = match permanent(policy, posted, now_s) {
        Ok(model) => model,
        Err(reason) => return Decision::Decline(reason),
    };
    let Some(worker) = worker else { return Decision::Wait(Delay::WorkerUnknown) };
    if worker.paused {
        return Decision::Wait(Delay::Paused);
    }
    let is_attested = worker.attestation.as_ref().is_some_and(|keys| {
        is_our_key(policy, &keys.receipt_key, &keys.encryption_key)
            && keys.expires_at > now_s.saturating_add(policy.order_valid_s)
    });
    if !is_attested {
        return Decision::Wait(Delay::NotAttested);
    }
    let Some(offer) = worker.offer(&model.model_id) else { return Decision::Wait(Delay::NotOffered) };
    if !offer.prices.at_most(&posted.prices) {
        return Decision::Decline(Declined::PriceBelowOffer);
    }
    if u32::from(posted.share_bps) != u32::from(offer.royalty_bps) + u32::from(policy.fee_bps) {
        return Decision::Decline(Declined::OtherShare);
    }
    let least = posted.prices.cost(&Units { input: 1, cached_input: 0, output: 1 });
    let deposit = posted.deposit.nanoton();
    if deposit < least.max(policy.min_deposit).max(offer.min_deposit) {
        return Decision::Decline(Declined::DepositTooLow);
    }
    if deposit < policy.claim_above {
        return match posted.until > now_s.saturating_add(policy.min_settle_s) {
            true => Decision::Answer,
            false => Decision::Decline(Declined::TooLate),
        };
    }
    let bond = policy.bond_for(deposit);
    if posted.least_bond.nanoton() > bond {
        return Decision::Decline(Declined::BondTooHigh);
    }
    if worker.stake < policy.min_stake {
        return Decision::Wait(Delay::UnderStaked);
    }
    if bond.checked_add(policy.min_float).is_none_or(|needed| worker.float < needed) {
        return Decision::Wait(Delay::FundsTooLow);
    }
    Decision::Claim { bond }
}

/// What no change of our contract could mend.
fn permanent<'a>(policy: &'a Policy, posted: &PostedJob, now_s: u32) -> Result<&'a ServedModel, Declined> {
    if posted.worker != policy.worker.address {
        return Err(Declined::OtherWorker);
    }
    if posted.receipt_key != policy.receipt_key {
        return Err(Declined::OtherKey);
    }
    let model = policy.model_at(&posted.model).ok_or(Declined::OtherModel)?;
    if posted.until <= now_s.saturating_add(policy.claim_margin_s) {
        return Err(Declined::TooLate);
    }
    if posted.settle_within_s < policy.min_settle_s {
        return Err(Declined::SettleTooShort);
    }
    if posted.max_units.input == 0 || posted.max_units.output == 0 {
        return Err(Declined::DepositTooLow);
    }
    Ok(model)
}
