//! Every message and log of the contracts by opcode, for explorers and tests.

use crate::wire::Message;
use crate::{attestor, job, job_log, model, platform, registry, worker};

/// `(opcode, name in the TL-B)` of every message and log.
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
    entry::<worker::PauseWorker>(),
    entry::<worker::SetOperator>(),
    entry::<platform::ServeWorker>(),
    entry::<platform::LeaveWorker>(),
    entry::<job::PostJob>(),
    entry::<job::OpenSession>(),
    entry::<job::PostOpenJob>(),
    entry::<job::TakeJob>(),
    entry::<job::PostInput>(),
    entry::<job::DeliverInput>(),
    entry::<job::CancelJob>(),
    entry::<job::CloseSession>(),
    entry::<job::TopUpJob>(),
    entry::<job::ExpireJob>(),
    entry::<job::SweepJob>(),
    entry::<job::PostReceipt>(),
    entry::<job::PostRejection>(),
    entry::<job::RedeemReceipt>(),
    entry::<job::ReportEquivocation>(),
    entry::<job::JobNoticed>(),
    entry::<job::JobPaid>(),
    entry::<job::JobEquivocated>(),
    entry::<job::JobRefund>(),
    entry::<job::Payout>(),
    entry::<job::Excesses>(),
    entry::<job_log::JobOpened>(),
    entry::<job_log::JobTaken>(),
    entry::<job_log::InputDelivered>(),
    entry::<job_log::CloseAsked>(),
    entry::<job_log::JobToppedUp>(),
    entry::<job_log::JobClosed>(),
    entry::<job_log::EquivocationShown>(),
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
