//! Why a request is refused.

use std::fmt;

use contracts::money::Amount;
use serde::{Deserialize, Serialize};

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The gateway, or whose session it is.
    Client,
    /// The worker.
    Worker,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $party:ident, $text:literal;)*) => {
        /// Why. What it means is part of the protocol; no text of a prompt or an answer is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Who has to change something.
            pub fn party(self) -> Party {
                match self { $(Self::$name => Party::$party),* }
            }

            /// What to do.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

reasons! {
    /// The worker has not seen it on chain.
    UnknownSession, Client, "the worker knows no such session; wait some seconds for its block, or open one";
    /// The connection shows another key than the session names.
    WrongKey, Client, "the connection does not show the session's key";
    /// The session names another worker, key or model.
    OtherSeller, Client, "the session is not for this worker, its present key and its model; open another";
    /// It pays less than the offer asked when it was opened, or shares otherwise.
    TermsBelowOffer, Client, "the session does not pay what the worker's offer asks; open another";
    /// It was opened before the worker's journal began: what was signed for it then is not known.
    BeforeJournal, Worker, "the worker has lost what it knew of this session; close it and open another";
    /// It is closing, closed, or at its end.
    SessionEnded, Client, "the session is closing or over; open another";
    /// A voucher that the session key did not sign.
    BadVoucher, Client, "the voucher does not verify under the session key";
    /// The voucher does not cover what is settled and under way and this.
    VoucherTooLow, Client, "the voucher does not cover this request beside those before it; sign a higher one";
    /// The deposit does not.
    DepositTooLow, Client, "the session's deposit does not cover this request; top it up";
    /// The client has seen a receipt that the worker does not know.
    BehindReceipt, Worker, "the worker has lost receipts of this session; close it and open another";
    /// Counters or requests of the session are at their end.
    SessionFull, Client, "the session has had as many requests or units as one may; open another";
    /// Too many requests of this session at once.
    TooManyOpen, Client, "the session has as many requests under way as it may; wait for one";
    /// The request was answered and charged, and the answer is no longer held.
    AnswerGone, Client, "the request was answered and its answer is no longer held; ask anew under another name";
    /// No request of this name.
    UnknownRequest, Client, "the session has no request of this name";
    /// Not JSON of this protocol.
    Malformed, Client, "the request is not one of this protocol";
    /// A body, prompt or recording beyond the limits.
    TooLarge, Client, "the request is larger than this worker takes";
    /// The body did not come in time.
    TooSlow, Client, "the request did not arrive in time";
    /// The model does no such work, or a parameter is not honoured or out of range.
    Unsupported, Client, "the model does no such work, or a parameter is out of its range";
    /// The units named do not cover the input.
    BoundTooLow, Client, "the request names fewer units than its input has";
    /// The prompt leaves no room for an answer.
    OverContext, Client, "prompt and answer are longer than the model's context";
    /// The engine has as much to do as it takes.
    Busy, Worker, "the worker is busy; try again, or another worker";
    /// The worker takes no new requests.
    Draining, Worker, "the worker is stopping; choose another worker";
    /// The client took the request back.
    Cancelled, Client, "the request was cancelled";
    /// The engine failed. Nothing was charged.
    EngineFailed, Worker, "the engine failed and nothing was charged; choose another worker";
    /// The worker cannot write its journal. Nothing was charged.
    JournalFailed, Worker, "the worker cannot write its journal; choose another worker";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A refusal as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {reason}", match .party { Party::Client => "client", Party::Worker => "worker" })]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// Who has to change something.
    pub party: Party,
    /// The least voucher or deposit, where it was too low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<Amount>,
}

impl Refused {
    /// Without an amount.
    pub fn new(reason: Reason) -> Self {
        Self { reason, party: reason.party(), needed: None }
    }

    pub(crate) fn needing(reason: Reason, needed: Amount) -> Self {
        Self { needed: Some(needed), ..Self::new(reason) }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}
