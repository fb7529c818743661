//! What the chain says of a session.

use contracts::job::{JobState, JobStatus};
use contracts::money::Amount;
use contracts::{HashBytes, Prices, StdAddr};
use serde::{Deserialize, Serialize};

use crate::ids::SessionId;

/// A session as its Job contract has it. Whoever makes one has read it with its proof, and has seen that the account runs
/// the code of jobs at the address of its client and nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionFacts {
    /// Which.
    pub id: SessionId,
    /// Whose wallet opened it.
    pub client: StdAddr,
    /// The seller's Worker, in the basechain.
    pub worker: HashBytes,
    /// Ed25519: signs receipts.
    pub receipt_key: HashBytes,
    /// Account of the Model, in the basechain.
    pub model: HashBytes,
    /// Ed25519: signs vouchers, and is the client's key of the TLS connection.
    pub session_key: HashBytes,
    /// Of the session, whatever the worker asks today.
    pub prices: Prices,
    /// Of publisher and treasury together.
    pub share_bps: u16,
    /// From the wish to end it to its end.
    pub settle_within_s: u32,
    /// What it can pay in all.
    pub deposit: Amount,
    /// What it has paid.
    pub paid: Amount,
    /// Of the last receipt redeemed.
    pub sequence: u32,
    /// Where it is in its life.
    pub status: JobStatus,
    /// Unix time: its end.
    pub until: u32,
}

impl SessionFacts {
    /// From the state of the account `job`. `None` where it is no session.
    pub fn of_state(job: StdAddr, client: StdAddr, state: &JobState) -> Option<Self> {
        let posting = &state.posting;
        let (terms, seller) = (posting.session()?, posting.seller.as_ref()?);
        Some(Self {
            id: SessionId { job, posted_lt: posting.posted_lt },
            client,
            worker: seller.worker,
            receipt_key: seller.receipt_key,
            model: seller.model,
            session_key: terms.session_key,
            prices: seller.prices,
            share_bps: seller.share_bps,
            settle_within_s: seller.settle_within_s,
            deposit: state.deposit,
            paid: state.paid,
            sequence: state.sequence,
            status: state.status,
            until: state.until,
        })
    }
}
