//! How a job ended, and the opened answer. Pure.

use contracts::errors::RejectionReason;
use contracts::job::JobStatus;
use contracts::receipt::{Dtype, Receipt};
use contracts::sealing::{DecryptionKey, Output, ResultContext, SealError, open_result};
use contracts::transcript::transcript;
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
        refund: Nanoton,
    },
    /// A deadline passed; the deposit came back, and the bond with it if the worker had claimed.
    Expired {
        /// Deposit that came back.
        refund: Nanoton,
        /// The worker's bond.
        bond: Nanoton,
    },
    /// The client took it back before a claim.
    Cancelled {
        /// Deposit that came back.
        refund: Nanoton,
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
    /// Hash of the receipt's cell, which was signed.
    pub receipt_hash: HashBytes,
    /// Hash of the sealed result's cell, which the receipt names.
    pub result_hash: HashBytes,
    /// What the worker got, of the deposit, with royalty and fee.
    pub paid: Nanoton,
    /// Of `paid`, to the publisher.
    pub royalty: Nanoton,
    /// Of `paid`, to the treasury.
    pub fee: Nanoton,
    /// Deposit that came back.
    pub refund: Nanoton,
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
/// `key` is the reply key of the job. The receipt's signature and its hash of the result are checked again.
///
/// # Errors
/// [`ClientError::BadHistory`] where the steps cannot be those of a Job contract.
pub fn outcome(
    story: &JobStory,
    network: &Network,
    key: &DecryptionKey,
) -> Result<Option<Outcome>, ClientError> {
    let bad = |reason: &str| ClientError::BadHistory { job: story.job.clone(), reason: reason.into() };
    let Some(status) = story.status() else { return Ok(None) };
    if !status.is_closed() {
        return Ok(None);
    }
    let refund = story.terms().ok_or_else(|| bad("it ended without having been posted"))?.limits.deposit;
    Ok(Some(match status {
        JobStatus::Settled => Outcome::Settled(Box::new(settled(story, network, key)?)),
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
            let bond = story.claim().map_or(Nanoton::ZERO, |(_, claim)| claim.bond);
            Outcome::Expired { refund, bond }
        }
        _ => Outcome::Cancelled { refund },
    }))
}

fn settled(story: &JobStory, network: &Network, key: &DecryptionKey) -> Result<Settled, ClientError> {
    let bad = |reason: &str| ClientError::BadHistory { job: story.job.clone(), reason: reason.into() };
    let (posted, posting) = story.posted().ok_or_else(|| bad("settled without having been posted"))?;
    let (_, claim) = story.claim().ok_or_else(|| bad("settled without a claim"))?;
    if story.claimed_model() != Some(&posting.terms.model_id) {
        return Err(bad("the claim is for another model than the job"));
    }
    let (_, post) = story.receipt().ok_or_else(|| bad("settled without a receipt"))?;
    let split = story.split(network).ok_or_else(|| bad("its shares exceed what was paid"))?;
    post.verify(&claim.receipt_key).map_err(|error| bad(&error.to_string()))?;
    let receipt = (*post.receipt).clone();
    let result_hash = *post.result.repr_hash();
    if result_hash != receipt.body.result_hash {
        return Err(bad("the result is not the one the receipt names"));
    }
    let context = ResultContext {
        network_id: network.params.network_id,
        job: story.job.clone(),
        posted_lt: posted.id.lt,
    };
    let answer =
        post.sealed_result().map_err(SealError::from).and_then(|sealed| open_result(&sealed, key, &context));
    let transcript_matches = match (&answer, Dtype::from_wire(receipt.body.dtype)) {
        (Ok(output), Some(dtype)) => {
            let committed = transcript(
                &output.salt,
                &posting.terms.model_id,
                receipt.body.engine,
                dtype,
                &output.input_tokens,
                &output.output_tokens,
            );
            committed == receipt.body.transcript
        }
        _ => false,
    };
    Ok(Settled {
        answer,
        transcript_matches,
        receipt_hash: post.receipt.hash(),
        result_hash,
        receipt,
        paid: split.paid,
        royalty: split.royalty,
        fee: split.fee,
        refund: split.to_client,
    })
}
