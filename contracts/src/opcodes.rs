//! Every message of the contracts by opcode, for explorers and tests.

use crate::wire::Message;
use crate::{attestor, job, model, platform, registry, worker};

/// `(opcode, name in the TL-B)` of every message.
pub const ALL: &[(u32, &str)] = &[
    entry::<registry::AllowMeasurement>(),
    entry::<registry::RevokeMeasurement>(),
    entry::<registry::TransferOwnership>(),
    entry::<registry::AcceptOwnership>(),
    entry::<registry::EnforceRevocation>(),
    entry::<registry::MeasurementRevoked>(),
    entry::<registry::SetAcceptedNeeds>(),
    entry::<registry::AllowAdvisories>(),
    entry::<registry::RevokeAdvisories>(),
    entry::<registry::RegistrationRefused>(),
    entry::<model::RegisterModel>(),
    entry::<model::AskRoyalty>(),
    entry::<model::RoyaltyQuoted>(),
    entry::<model::SharePaid>(),
    entry::<model::WithdrawShares>(),
    entry::<model::TransferModel>(),
    entry::<model::DeprecateModel>(),
    entry::<worker::TopUpStake>(),
    entry::<worker::AttestationRegistered>(),
    entry::<worker::OfferModel>(),
    entry::<worker::WithdrawOffer>(),
    entry::<worker::RequestUnbond>(),
    entry::<worker::WithdrawUnbonded>(),
    entry::<worker::WithdrawEarnings>(),
    entry::<worker::FundGas>(),
    entry::<worker::LeavePlatform>(),
    entry::<worker::ClaimJob>(),
    entry::<platform::ServeWorker>(),
    entry::<platform::LeaveWorker>(),
    entry::<job::PostJob>(),
    entry::<job::TakeJob>(),
    entry::<job::CancelJob>(),
    entry::<job::ExpireJob>(),
    entry::<job::SweepJob>(),
    entry::<job::PostReceipt>(),
    entry::<job::PostRejection>(),
    entry::<job::JobPaid>(),
    entry::<job::JobReturned>(),
    entry::<job::JobForfeited>(),
    entry::<job::JobRefund>(),
    entry::<job::JobPosted>(),
    entry::<job::Payout>(),
    entry::<job::Excesses>(),
    entry::<attestor::VerifyQuote>(),
    entry::<attestor::QuoteVerified>(),
    entry::<attestor::PostAuthority>(),
    entry::<attestor::PostCrl>(),
    entry::<attestor::PostTcbInfo>(),
    entry::<attestor::PostQeIdentity>(),
    entry::<attestor::ReportRevocation>(),
    entry::<attestor::CertificateRevoked>(),
];

/// The TL-B name of an opcode.
pub fn name(opcode: u32) -> Option<&'static str> {
    ALL.iter().find(|(code, _)| *code == opcode).map(|(_, name)| *name)
}

const fn entry<M: Message>() -> (u32, &'static str) {
    (M::OPCODE, M::NAME)
}
