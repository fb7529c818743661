//! How a job ended, and the opened answer. Pure.

use contracts::errors::RejectionReason;
use contracts::job::JobStatus;
use contracts::money::{Amount, ShareSplit};
use contracts::receipt::{Dtype, Receipt, ReceiptContent};
use contracts::sealing::{DecryptionKey, Output, ResultContext, SealError, open_result};
use contracts::{HashBytes, Nanoton, Network};

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
    /// A deadline passed; the deposit came back, and the bond with it if the worker had claimed.
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

impl Outcome {
    /// The job's last state.
    pub fn status(&self) -> JobStatus {
        match self {
            Self::Settled(_) => JobStatus::Settled,
            Self::Rejected { .. } => JobStatus::Rejected,
            Self::Expired { .. } => JobStatus::Expired,
            Self::Cancelled { .. } => JobStatus::Cancelled,
        }
    }
}

/// The outcome of a job whose steps are `story`; `None` while it is open or claimed.
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
    let bad = |reason: &str| ClientError::BadHistory { job: story.job.clone(), reason: reason.into() };
    let Some(status) = story.status() else { return Ok(None) };
    if !status.is_closed() {
        return Ok(None);
    }
    let (_, posting) = story.posted().ok_or_else(|| bad("it ended without having been posted"))?;
    let refund = posting.deposit;
    Ok(Some(match status {
        JobStatus::Settled => Outcome::Settled(Box::new(settled(story, network, key, model_id)?)),
        JobStatus::Rejected => {
            let code = story
                .events
                .iter()
                .find_map(|event| match &event.step {
                    crate::story::JobStep::Rejected(rejection) => Some(rejection.rejection.reason),
                    _ => None,
                })
                .ok_or_else(|| bad("rejected without a rejection"))?;
            Outcome::Rejected { code, reason: RejectionReason::from_code(code), refund }
        }
        JobStatus::Expired => {
            let bond = story.claim().map_or(Amount::ZERO, |(_, bond)| bond);
            Outcome::Expired { refund, bond }
        }
        _ => Outcome::Cancelled { refund },
    }))
}

fn settled(
    story: &JobStory,
    network: &Network,
    key: &DecryptionKey,
    model_id: Option<&HashBytes>,
) -> Result<Settled, ClientError> {
    let bad = |reason: &str| ClientError::BadHistory { job: story.job.clone(), reason: reason.into() };
    let (posted, posting) = story.posted().ok_or_else(|| bad("settled without having been posted"))?;
    let (_, post) = story.receipt().ok_or_else(|| bad("settled without a receipt"))?;
    let split = story.split().ok_or_else(|| bad("settled without a receipt"))?;
    let seller = &posting.seller;
    post.verify(&seller.receipt_key).map_err(|error| bad(&error.to_string()))?;
    if !post.is_complete() {
        return Err(bad("the result is not the one the receipt names"));
    }
    let receipt = (*post.receipt).clone();
    let content = &post.content;
    let fee_bps = network.generation.fee_bps;
    let shares = ShareSplit::of(split.share.nanoton(), seller.share_bps.saturating_sub(fee_bps), fee_bps);
    let context = ResultContext { network_id: network.id(), job: story.job.clone(), posted_lt: posted.id.lt };
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
