//! A receipt, or a rejection, against the job it is for.

use contracts::job::{PostReceipt, PostRejection};
use contracts::receipt::verify_cell;
use contracts::{HashBytes, StdAddr, Units};

use crate::check::{Party, Verdict, holds};

/// What the chain has on the job that a receipt is for.
#[derive(Debug, Clone, Copy)]
pub struct ReceiptTerms<'a> {
    /// TON's global id.
    pub network_id: i32,
    /// The job's address.
    pub job: &'a StdAddr,
    /// Logical time of its posting.
    pub posted_lt: u64,
    /// The key attested at the claim.
    pub receipt_key: &'a HashBytes,
    /// What the client allowed.
    pub max_units: &'a Units,
}

/// Whether the receipt is signed, of this job, within its limits, and names the result beside it.
pub fn verify_receipt(posted: &PostReceipt, terms: &ReceiptTerms<'_>) -> Verdict {
    let receipt = &posted.receipt;
    let mut verdict = Verdict::default();
    verdict.add(
        "receipt_signature",
        "the receipt was signed with the key attested at the claim",
        Party::Worker,
        verify_cell(receipt.cell(), &posted.signature, terms.receipt_key)
            .map(|()| format!("receipt {}", receipt.hash()))
            .map_err(|error| error.to_string()),
    );
    verdict.add(
        "receipt_names_this_job",
        "the receipt is of this job, this posting and this network, and the only one",
        Party::Worker,
        holds(
            receipt.network_id == terms.network_id
                && receipt.job == *terms.job
                && receipt.posted_lt == terms.posted_lt
                && receipt.sequence == 1
                && receipt.is_final,
            format!("posted at lt {}", receipt.posted_lt),
            "it is of another job, posting or network",
        ),
    );
    let result_hash = *posted.result.repr_hash();
    verdict.add(
        "result_posted",
        "the ciphertext beside the receipt is the one it commits to",
        Party::Worker,
        holds(
            receipt.body.result_hash == result_hash,
            result_hash.to_string(),
            format!("the receipt names {}", receipt.body.result_hash),
        ),
    );
    verdict.add(
        "units_within_terms",
        "the units charged are within what the client allowed",
        Party::Contracts,
        holds(
            receipt.units.at_most(terms.max_units),
            format!("{} in, {} out", receipt.units.input, receipt.units.output),
            "more units than the terms allow",
        ),
    );
    verdict
}

/// Whether the rejection is signed with the key attested at the claim, and of this job and posting.
pub fn verify_rejection(
    posted: &PostRejection,
    network_id: i32,
    job: &StdAddr,
    posted_lt: u64,
    receipt_key: &HashBytes,
) -> Verdict {
    let rejection = &posted.rejection;
    let mut verdict = Verdict::default();
    verdict.add(
        "rejection_signature",
        "the rejection was signed with the key attested at the claim",
        Party::Worker,
        verify_cell(rejection.cell(), &posted.signature, receipt_key)
            .map(|()| format!("rejection {}", rejection.hash()))
            .map_err(|error| error.to_string()),
    );
    verdict.add(
        "rejection_names_this_job",
        "the rejection is of this job, this posting and this network",
        Party::Worker,
        holds(
            rejection.network_id == network_id && rejection.job == *job && rejection.posted_lt == posted_lt,
            format!("posted at lt {}", rejection.posted_lt),
            "it is of another job, posting or network",
        ),
    );
    verdict
}
