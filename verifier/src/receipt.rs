//! A receipt, or a rejection, against the job it is for.

use contracts::job::{PostReceipt, PostRejection};
use contracts::receipt::verify_cell;
use contracts::{HashBytes, StdAddr, Units};

use crate::check::{Party, Verdict, holds};

/// What the chain has on the job that a receipt is for.
#[derive(Debug, Clone, Copy)]
pub struct ReceiptTerms<'a> {
    /// The job's address.
    pub job: &'a StdAddr,
    /// Logical time of its posting.
    pub posted_lt: u64,
    /// The key that the posting, or the winning bid, names.
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
        "the receipt was signed with the key that the job names",
        Party::Worker,
        verify_cell(receipt.cell(), &posted.signature, terms.receipt_key)
            .map(|()| format!("receipt {}", receipt.hash()))
            .map_err(|error| error.to_string()),
    );
    verdict.add(
        "receipt_names_this_job",
        "the receipt is of this job and this posting, and the only one",
        Party::Worker,
        holds(
            receipt.job == *terms.job
                && receipt.posted_lt == terms.posted_lt
                && receipt.sequence == 1
                && receipt.is_final,
            format!("posted at lt {}", receipt.posted_lt),
            "it is of another job or posting",
        ),
    );
    let (content_hash, result_hash) = (posted.content.hash(), *posted.result.repr_hash());
    verdict.add(
        "result_posted",
        "the receipt commits to the content beside it, and the content to the ciphertext",
        Party::Worker,
        holds(
            receipt.content_hash == content_hash && posted.content.result_hash == result_hash,
            result_hash.to_string(),
            "the receipt names another content, or the content another result",
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

/// Whether the rejection is signed with the key that the job names, and of this job and posting.
pub fn verify_rejection(
    posted: &PostRejection,
    job: &StdAddr,
    posted_lt: u64,
    receipt_key: &HashBytes,
) -> Verdict {
    let rejection = &posted.rejection;
    let mut verdict = Verdict::default();
    verdict.add(
        "rejection_signature",
        "the rejection was signed with the key that the job names",
        Party::Worker,
        verify_cell(rejection.cell(), &posted.signature, receipt_key)
            .map(|()| format!("rejection {}", rejection.hash()))
            .map_err(|error| error.to_string()),
    );
    verdict.add(
        "rejection_names_this_job",
        "the rejection is of this job and this posting",
        Party::Worker,
        holds(
            rejection.job == *job && rejection.posted_lt == posted_lt,
            format!("posted at lt {}", rejection.posted_lt),
            "it is of another job or posting",
        ),
    );
    verdict
}

/// `Ok` with `found` where `check` holds of each.
pub(crate) fn all<T>(
    items: &[T],
    found: &str,
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<String, String> {
    items.iter().try_for_each(check).map(|()| found.to_owned())
}
