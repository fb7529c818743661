//! Verdicts over TDX quotes, receipts and whole jobs. No sockets, no clock: the time is an argument.
//!
//! A verdict is a list of named [`Check`]s; every input may be hostile, and then a check fails.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod audit;
mod check;
mod proof;
mod quote;
mod receipt;
mod registration;

pub use audit::{
    Act, Audit, Chapter, Conclusion, Event, JobHistory, JobKind, Ledger, Life, MAX_TRANSACTIONS, Opening,
    RegistryAccount, Replay, Story, StoryError, Told, WorkerRegistration, audit,
};
pub use check::{Check, Party, Verdict};
pub use proof::{ProofError, raw_quote};
pub use quote::{
    Collateral, MAX_QUOTE_BYTES, QuoteFacts, QuotePolicy, TrustedRoot, verify_binding, verify_quote,
};
pub use receipt::{ReceiptTerms, verify_receipt, verify_rejection};
pub use registration::{
    AttestorAccount, AttestorTrust, Registered, RegistrationTrace, read_registration, verify_attestor,
    verify_registration,
};
