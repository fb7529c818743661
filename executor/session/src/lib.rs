//! A session between a gateway (the buyer) and a worker (the seller), off chain.
//!
//! [`message`] and [`work`] are what travels, as `docs/sessions.md` describes it. [`SellerLedger`] decides what the worker
//! does and signs, [`BuyerLedger`] what the gateway promises and believes. All of it is pure: no sockets, no clock, no
//! randomness, no disk.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod message;
pub mod work;

mod buyer;
mod facts;
mod hexadecimal;
mod ids;
mod receipt;
mod redeem;
mod refusal;
mod seller;
mod units;
mod voucher;

pub use buyer::{BuyerError, BuyerLedger, BuyerRecord, Counted, Fault, OpenRequest, Proof};
pub use facts::SessionFacts;
pub use ids::{IdError, RequestId, SessionId};
pub use receipt::{Content, ReceiptError, SessionReceipt};
pub use redeem::{RedeemPolicy, Redemption, redemption};
pub use refusal::{Party, Reason, Refused};
pub use seller::{
    Admission, AnsweredRecord, Ask, Entry, Offered, SellerError, SellerLedger, SellerLimits, SessionJournal,
    SessionRecord, Written, write_all,
};
pub use units::UnitBound;
pub use voucher::SignedVoucher;
