//! Whether a job is worth claiming.

use contracts::{HashBytes, Nanoton, Units};

use super::{Policy, PostedJob, WorkerFacts, is_our_key};

/// What to do about an open job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Claim it with this bond.
    Claim {
        /// The least the job accepts.
        bond: Nanoton,
    },
    /// Not now.
    Wait(Delay),
    /// Never.
    Decline(Declined),
}

/// What has to change before a job can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// Our contract has not been read yet.
    WorkerUnknown,
    /// No attestation of our present keys, or it ends too soon.
    NotAttested,
    /// The model is served but its offer is not on chain yet.
    NotOffered,
    /// The free stake does not cover the bond.
    BondUnavailable,
    /// The contract could not pay for the claim.
    FloatTooLow,
}

/// Why a job is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Declined {
    /// The terms name another worker.
    OtherWorker,
    /// The model is not served here.
    OtherModel,
    /// The terms ask for another image.
    OtherMeasurement,
    /// Our price is over the client's.
    PriceOverTerms,
    /// Too little time to claim.
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
            Self::OtherWorker => "the terms name another worker",
            Self::OtherModel => "the model is not served here",
            Self::OtherMeasurement => "the terms ask for another image",
            Self::PriceOverTerms => "our price is over the client's",
            Self::TooLate => "too little time left to claim",
            Self::SettleTooShort => "too little time between claim and receipt",
            Self::DepositTooLow => "the deposit does not pay for the smallest answer",
            Self::QueueFull => "too many jobs wait",
        }
    }
}

/// Judges an open job. What the worker's contract would refuse without harm is judged here too, since a refused claim
/// costs a block's time, and what the job would refuse costs the float.
pub fn decide(policy: &Policy, worker: Option<&WorkerFacts>, posted: &PostedJob, now_s: u32) -> Decision {
    if let Err(reason) = permanent(policy, posted, now_s) {
        return Decision::Decline(reason);
    }
    let Some(worker) = worker else { return Decision::Wait(Delay::WorkerUnknown) };
    let keys = worker.attestation.as_ref();
    let Some(keys) = keys.filter(|keys| {
        is_our_key(policy, &keys.receipt_key, &keys.encryption_key)
            && keys.expires_at > now_s.saturating_add(policy.order_valid_s)
    }) else {
        return Decision::Wait(Delay::NotAttested);
    };
    if posted.measurement != HashBytes::ZERO && posted.measurement != keys.measurement {
        return Decision::Decline(Declined::OtherMeasurement);
    }
    let offer = worker.offers.iter().find(|(model_id, _)| *model_id == posted.model_id);
    let Some((_, prices)) = offer else { return Decision::Wait(Delay::NotOffered) };
    if !prices.at_most(&posted.max_prices) {
        return Decision::Decline(Declined::PriceOverTerms);
    }
    let least = prices.cost(&Units { input: 1, cached_input: 0, output: 1 });
    if posted.deposit < least.max(policy.min_deposit) {
        return Decision::Decline(Declined::DepositTooLow);
    }
    let bond = policy.min_bond.max(posted.deposit.share_bps_ceil(policy.bond_bps));
    let total = worker.stake.checked_add(worker.locked).unwrap_or(Nanoton::MAX);
    if worker.stake < bond || total < policy.min_stake {
        return Decision::Wait(Delay::BondUnavailable);
    }
    if worker.float < policy.min_float {
        return Decision::Wait(Delay::FloatTooLow);
    }
    Decision::Claim { bond }
}

/// What no change of our contract could mend.
fn permanent(policy: &Policy, posted: &PostedJob, now_s: u32) -> Result<(), Declined> {
    if posted.worker != policy.worker {
        return Err(Declined::OtherWorker);
    }
    if !policy.models.contains(&posted.model_id) {
        return Err(Declined::OtherModel);
    }
    if posted.claim_by <= now_s.saturating_add(policy.claim_margin_s) {
        return Err(Declined::TooLate);
    }
    if posted.settle_within_s < policy.min_settle_s {
        return Err(Declined::SettleTooShort);
    }
    if posted.max_units.input == 0 || posted.max_units.output == 0 {
        return Err(Declined::DepositTooLow);
    }
    Ok(())
}
