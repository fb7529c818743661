//! Exit codes of the contracts and reasons of a rejection.

use std::fmt;

/// Exit code of a Job that was not posted: its data ends before what the message needs (the machine's cell underflow).
pub const UNPOSTED_JOB: i32 = 9;

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Sender,
    Client,
    Worker,
    Publisher,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sender => "sender",
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Publisher => "publisher",
        })
    }
}

macro_rules! contract_errors {
    ($($name:ident = $code:literal, $party:ident, $description:literal;)*) => {
        /// An exit code of the contracts, as in `docs/protocol.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ContractError { $(#[doc = $description] $name = $code),* }

        impl ContractError {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            pub fn from_code(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            pub fn party(self) -> Party {
                match self { $(Self::$name => Party::$party),* }
            }

            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $description),* }
            }
        }
    };
}

contract_errors! {
    NotOwner = 100, Sender, "only the owner may do this";
    NotClient = 101, Sender, "only the client of the job may do this";
    NotSibling = 102, Sender, "the sender's address is not the one computed for this contract's sibling";
    AlreadyInitialised = 103, Sender, "the contract exists already";
    NotInitialised = 104, Sender, "the contract has no state yet: send its first message first";
    ValueTooLow = 105, Sender, "the message does not bring the amount and the fees it has to: attach more";
    WrongState = 106, Sender, "the job is not in the state this needs";
    TooEarly = 107, Sender, "the deadline has not passed yet";
    TooLate = 108, Sender, "the deadline has passed";
    BadTerms = 109, Client, "the terms of the job cannot be met by anyone";
    RoyaltyOverCap = 110, Publisher, "the royalty is over the network's cap";
    MeasurementNotAdmitted = 111, Worker, "the Registry does not admit this image measurement";
    NotAttested = 112, Worker, "the worker has no attestation, or it has expired: register a fresh quote";
    UnderStaked = 113, Worker, "the stake is below the network's minimum, or below what is asked of it";
    PriceOverTerms = 114, Worker, "a price of the offer is over the client's";
    BondTooLow = 115, Worker, "the bond is below what the client or the network asks";
    BadSignature = 116, Sender, "the signature does not verify under the key that must have signed";
    WrongNetwork = 117, Sender, "signed for another network";
    WrongJob = 118, Sender, "signed for another job or another posting";
    WrongSeqno = 119, Worker, "the claim order's seqno is not the next one";
    UnitsOverTerms = 120, Worker, "the receipt states more units than the client allowed";
    ModelNotOffered = 121, Worker, "the worker does not offer this model";
    NothingToWithdraw = 122, Sender, "there is nothing to withdraw";
    ResultMismatch = 123, Worker, "the result is not the one the receipt names";
    GasFloatTooLow = 124, Worker, "the contract's free funds do not cover what this sends: fund its gas";
    ModelDeprecated = 125, Sender, "the model takes no new offers";
    WrongSequence = 126, Worker, "the receipt's sequence or final flag is not one that this job takes";
    MalformedText = 127, Sender, "a certificate, list, document or quote is not in the form the Attestor reads, or is cut wrongly";
    UnknownAuthority = 128, Sender, "the signer or issuer, or its revocation list, has not been posted: post the collateral first";
    WrongIssuer = 129, Sender, "issued by, or for, somebody else than the text says";
    OutOfDate = 130, Sender, "a certificate, revocation list or document is not in force: post newer collateral";
    Revoked = 131, Worker, "the platform's certificate or TCB level, or an authority above it, is revoked";
    NotNewer = 132, Sender, "what is held is as new or newer";
    UnfitTd = 133, Worker, "the quote is not of a TD that may keep secrets: debug, migratable or of another kind";
    UnknownPlatform = 134, Worker, "Intel's documents do not describe this quoting enclave, TDX module or platform";
    PlatformNotAccepted = 135, Worker, "the platform's TCB level needs an update or a setting that the Registry asks for";
    WrongBinding = 136, Worker, "the quote's report data is not that of this worker, these keys and this registration";
    PlatformTaken = 137, Worker, "the machine serves another Worker until that one leaves it or expires";
    Paused = 138, Worker, "the worker takes no new jobs";
    UnknownWord = 145, Sender, "the comment is none of the words that this contract knows, in docs/wallet.md";
    BadGeneration = 146, Sender, "the proposed generation contradicts itself or is of another network";
    UnknownMessage = 65535, Sender, "the contract does not know this message";
}

impl ContractError {
    pub fn code(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}; at fault: {}", self.name(), self.code(), self.description(), self.party())
    }
}

impl std::error::Error for ContractError {}

/// Why a worker gave a job back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RejectionReason {
    CannotDecrypt = 1,
    MalformedInput = 2,
    PromptOverContext = 3,
    PromptOverPrice = 4,
    ModelNotServed = 5,
    EngineFailure = 6,
}

impl RejectionReason {
    pub const ALL: &[Self] = &[
        Self::CannotDecrypt,
        Self::MalformedInput,
        Self::PromptOverContext,
        Self::PromptOverPrice,
        Self::ModelNotServed,
        Self::EngineFailure,
    ];

    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }

    pub fn code(self) -> u16 {
        self as u16
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::CannotDecrypt => "cannot decrypt",
            Self::MalformedInput => "malformed input",
            Self::PromptOverContext => "prompt longer than the context",
            Self::PromptOverPrice => "prompt longer than the price covers",
            Self::ModelNotServed => "model not served",
            Self::EngineFailure => "engine failure",
        }
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description(), self.code())
    }
}
