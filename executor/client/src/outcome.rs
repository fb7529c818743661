//! How a job ended, and the opened answer. Pure.

use contracts::errors::RejectionReason;
use contracts::job::{JobStatus, PostReceipt};
use contracts::money::{Amount, ShareSplit, Split};
use contracts::receipt::{Dtype, Receipt, ReceiptContent};
use contracts::sealing::{DecryptionKey, Output, ResultContext, SealError, open_result};
use contracts::{HashBytes, Nanoton, Network};

use verifier::{Act, Event, Life};

use crate::error::ClientError;
use crate::story::JobStory;

/// The end of a job.
#[derive(Debug)]
pub enum Outcome {
    /// A receipt settled it.
    Settled(Box<Settled>),
    /// The worker gave it back; the whole deposit came back.
    Rejected {
        /// The worker's code.
        code: u16,
        /// What the code means, if it is one of the protocol's.
        reason: Option<RejectionReason>,
        /// Deposit that came back.
        refund: Amount,
    },
    /// A session ended.
    Session(Box<SessionEnd>),
    /// A deadline passed; the deposit came back, and the bond with it if the worker owed the answer. Where it waited for
    /// an input in vain, it got its bond back, and the compensation.
    Expired {
        /// Deposit that came back.
        refund: Amount,
        /// The worker's bond.
        bond: Amount,
    },
    /// The client took it back before a claim or an answer.
    Cancelled {
        /// Deposit that came back.
        refund: Amount,
    },
}

/// A settled job.
#[derive(Debug)]
pub struct Settled {
    /// The opened answer, or why it cannot be opened (then the worker is at fault).
    pub answer: Result<Output, SealError>,
    /// Whether the opened answer is the one the receipt commits to.
    pub transcript_matches: bool,
    /// The receipt.
    pub receipt: Receipt,
    /// What it is for.
    pub content: ReceiptContent,
    /// Hash of the receipt's cell, which was signed.
    pub receipt_hash: HashBytes,
    /// Hash of the sealed result's cell, which the receipt names.
    pub result_hash: HashBytes,
    /// What the worker got, of the deposit, with royalty and fee.
    pub paid: Amount,
    /// Of `paid`, to the Model, which splits it.
    pub share: Amount,
    /// Of `share`, to the publisher. The Model splits its whole sum, which may round one nanoTON otherwise.
    pub royalty: Nanoton,
    /// Of `share`, to the treasury.
    pub fee: Nanoton,
    /// Deposit that came back.
    pub refund: Amount,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// How many receipts were redeemed, the last one included.
    pub redemptions: usize,
    /// The last receipt; `None` where none was redeemed.
    pub receipt: Option<Receipt>,
    /// What worker, publisher and treasury got in all.
    pub paid: Amount,
    /// Of `paid`, to the Model, which splits it.
    pub share: Amount,
    /// Deposit that came back.
    pub refund: Amount,
}

impl Outcome {
    /// The job's last state.
    pub fn status(&self) -> JobStatus {
        match self {
            Self::Settled(_) | Self::Session(_) => JobStatus::Settled,
            Self::Rejected { .. } => JobStatus::Rejected,
            Self::Expired { .. } => JobStatus::Expired,
            Self::Cancelled { .. } => JobStatus::Cancelled,
        }
    }
}

/// The outcome of a job whose steps are `story`; `None` while it goes on.
///
/// `key` is the reply key of the job, `model_id` that of the Model it names; without it no transcript matches. The
/// receipt's signature and its hash of the result are checked again.
///
/// # Errors
/// [`ClientError::BadHistory`] where the steps cannot be those of a Job contract.
pub fn outcome(
    story: &JobStory,
    network: &Network,
    key: &DecryptionKey,
    model_id: Option<&HashBytes>,
) -> Result<Option<Outcome>, ClientError> {
    let Some(life) = story.life() else { return Ok(None) };
    let Some(end) = life.end() else { return Ok(None) };
    let refund = end.before.deposit;
    Ok(Some(match &end.event {
        Event::Answered(post) => {
            Outcome::Settled(Box::new(settled(story, &life, post, end, network, key, model_id)?))
        }
        Event::Rejected(post) => {
            let code = post.rejection.reason;
            Outcome::Rejected { code, reason: RejectionReason::from_code(code), refund }
        }
        Event::Redeemed(_) | Event::Expired if end.before.status.is_session() => {
            Outcome::Session(Box::new(session_end(&life, end)))
        }
        Event::Expired => match (end.before.status, end.before.posting.market()) {
            (JobStatus::Awaiting, Some(market)) => {
                Outcome::Expired { refund: refund.saturating_sub(market.compensation), bond: Amount::ZERO }
            }
            _ => Outcome::Expired { refund, bond: end.before.bond },
        },
        _ => Outcome::Cancelled { refund },
    }))
}

fn session_end(life: &Life<'_>, end: &Act<'_>) -> SessionEnd {
    let mut redeemed = life.acts().iter().filter_map(|act| match &act.event {
        Event::Redeemed(redeemed) => Some(&*redeemed.receipt),
        _ => None,
    });
    let paid = end.after.paid;
    let share_bps = end.before.posting.seller.as_ref().map_or(0, |seller| seller.share_bps);
    SessionEnd {
        redemptions: redeemed.clone().count(),
        receipt: redeemed.next_back().cloned(),
        paid,
        share: paid.share_bps(share_bps),
        refund: end.before.deposit.saturating_sub(paid),
    }
}

fn settled(
    story: &JobStory,
    life: &Life<'_>,
    post: &PostReceipt,
    end: &Act<'_>,
    network: &Network,
    key: &DecryptionKey,
    model_id: Option<&HashBytes>,
) -> Result<Settled, ClientError> {
    let bad = |reason: &str| ClientError::BadHistory { job: story.job().clone(), reason: reason.into() };
    let seller = end.before.posting.seller.as_deref().ok_or_else(|| bad("settled by nobody"))?;
    let cost = seller.prices.cost(&post.receipt.units);
    let split = Split::of(post.receipt.amount, cost, end.before.deposit, seller.share_bps);
    post.verify(&seller.receipt_key).map_err(|error| bad(&error.to_string()))?;
    if !post.is_complete() {
        return Err(bad("the result is not the one the receipt names"));
    }
    let receipt = (*post.receipt).clone();
    let content = &post.content;
    let fee_bps = network.generation.fee_bps;
    let shares = ShareSplit::of(split.share.nanoton(), seller.share_bps.saturating_sub(fee_bps), fee_bps);
    let context =
        ResultContext { network_id: network.id(), job: story.job().clone(), posted_lt: life.posted_lt() };
    let answer =
        post.sealed_result().map_err(SealError::from).and_then(|sealed| open_result(&sealed, key, &context));
    let transcript_matches = match (&answer, Dtype::from_wire(content.dtype), model_id) {
        (Ok(output), Some(dtype), Some(model_id)) => {
            output.transcript(model_id, content.engine, dtype) == content.transcript
        }
        _ => false,
    };
    Ok(Settled {
        answer,
        transcript_matches,
        receipt_hash: post.receipt.hash(),
        result_hash: content.result_hash,
        content: (**content).clone(),
        receipt,
        paid: split.paid,
        share: split.share,
        royalty: shares.to_publisher,
        fee: shares.to_treasury,
        refund: split.to_client,
    })
}
