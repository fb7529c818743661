//! What travels over the connection, as JSON. `docs/sessions.md` says when.

use std::fmt;

use contracts::receipt::Dtype;
use contracts::transcript::Transcript;
use contracts::{HashBytes, Units};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::hexadecimal;
use crate::ids::{RequestId, SessionId};
use crate::receipt::SessionReceipt;
use crate::refusal::Refused;
use crate::units::UnitBound;
use crate::voucher::SignedVoucher;
use crate::work::{Work, WorkKind};

/// Starts a request.
pub const REQUESTS_PATH: &str = "/v1/requests";
/// Of sessions: `/v1/sessions/ID`, and `/v1/sessions/ID/close`.
pub const SESSIONS_PATH: &str = "/v1/sessions";
/// What the worker serves.
pub const WORKER_PATH: &str = "/v1/worker";
/// Media type of a stream of [`Frame`]s, one a line.
pub const FRAMES_TYPE: &str = "application/x-ndjson";

/// `POST /v1/requests`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// Which session pays.
    pub session: SessionId,
    /// The same name is the same request.
    pub request: RequestId,
    /// Covers all that is settled, the bounds of all that is under way, and this request's.
    pub voucher: SignedVoucher,
    /// The newest receipt that the client has seen; 0 before the first.
    pub seen_sequence: u32,
    /// The most it may be charged.
    pub bound: UnitBound,
    /// What is asked for.
    pub work: Work,
}

impl fmt::Debug for StartRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartRequest")
            .field("session", &self.session)
            .field("request", &self.request)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

/// One line of an answer. The first is `accepted`, the last `done` or `refused`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// The request is under way, or was before.
    Accepted(Accepted),
    /// Of a chat or a completion.
    Piece(Piece),
    /// Of embeddings: the vector of the next text.
    Vector(Vec<f32>),
    /// Of a transcription.
    Segment(Segment),
    /// The end, and what it cost.
    Done(Box<Done>),
    /// The end; nothing was charged.
    Refused(Refused),
}

impl Frame {
    /// No frame follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Refused(_))
    }
}

/// See [`Frame::Accepted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Which.
    pub request: RequestId,
    /// It was charged before, and is served once more without a charge.
    #[serde(default)]
    pub again: bool,
}

/// Text that became certain, and the tokens behind it.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// May be empty.
    #[serde(default)]
    pub text: String,
    /// Tokens chosen since the piece before; all together are the output that is charged.
    #[serde(default)]
    pub tokens: Vec<u32>,
    /// One for each of `tokens` where asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprobs>,
}

/// How likely a token was to the model, before penalties and temperature.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct TokenLogprobs {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens and theirs, the most likely first.
    pub top: Vec<(u32, f32)>,
    /// Bytes of the token and of each of `top`, in this order, where the engine tells; hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<String>,
}

/// A part of a recording.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Where it begins, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
    /// What was heard.
    pub text: String,
    /// Its tokens.
    #[serde(default)]
    pub tokens: Vec<u32>,
}

/// See [`Frame::Done`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Which.
    pub request: RequestId,
    /// It was charged before, and has been served once more without a charge.
    #[serde(default)]
    pub again: bool,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Of this request alone.
    pub used: Units,
    /// The limit of output tokens that held, as the transcript has it: that of the request, or a lower one of its bound,
    /// of the context, or of where it was cancelled. 0 for other work than text.
    #[serde(default)]
    pub limit: u32,
    /// With this request. Where it is served `again`, the session's newest.
    pub receipt: SessionReceipt,
    /// Of the transcript that the receipt's content names.
    #[serde(with = "hexadecimal")]
    pub salt: [u8; 32],
    /// Tokens of the prompt, as the engine read it; with the output's tokens they make the transcript.
    #[serde(default)]
    pub input_tokens: Vec<u32>,
}

impl Done {
    /// What the receipt's content has to name, from what the client asked and received: the work's
    /// [`Work::params_digest`], and the output's tokens, or the bits of the vectors' numbers.
    pub fn transcript(
        &self,
        model_id: &HashBytes,
        params: &HashBytes,
        output_tokens: &[u32],
    ) -> Option<HashBytes> {
        let transcript = Transcript {
            salt: &self.salt,
            model_id,
            engine: self.receipt.content.engine,
            dtype: Dtype::from_wire(self.receipt.content.dtype)?,
            params,
            finish_reason: self.finish_reason.in_transcript(),
            input_tokens: &self.input_tokens,
            output_tokens,
        };
        Some(transcript.hash())
    }
}

impl FinishReason {
    /// An answer that was cancelled is one that a lower limit ended.
    pub fn in_transcript(self) -> contracts::sealing::FinishReason {
        match self {
            Self::Stop => contracts::sealing::FinishReason::Stop,
            Self::Length | Self::Cancelled => contracts::sealing::FinishReason::Length,
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.input_tokens.zeroize();
        self.salt.zeroize();
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop string; of other work, it is complete.
    Stop,
    /// The limit of the request, its bound or the context.
    Length,
    /// The client took it back, or stayed away; what was made until then is charged.
    Cancelled,
}

/// `GET /v1/sessions/ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionReport {
    /// Which.
    pub session: SessionId,
    /// The newest; absent before the first.
    pub receipt: Option<SessionReceipt>,
    /// Under way.
    pub open: Vec<RequestId>,
    /// The newest that were answered, at most [`MAX_REPORTED`], the newest first.
    pub answered: Vec<AnsweredReport>,
}

/// Of [`SessionReport::answered`].
pub const MAX_REPORTED: usize = 256;

/// A request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsweredReport {
    /// Which.
    pub request: RequestId,
    /// Of its receipt.
    pub sequence: u32,
    /// What it was charged.
    pub used: Units,
    /// Its answer can be had again.
    pub held: bool,
}

/// `POST /v1/sessions/ID/close`: the worker signs a final receipt, redeems it, and the deposit's rest returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseRequest {
    /// Covers all that is settled.
    pub voucher: SignedVoucher,
}

/// Its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseReport {
    /// Final.
    pub receipt: SessionReceipt,
}

/// `GET /v1/worker`: what whoever connects may know. What a session is held to is on chain, not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerReport {
    /// Of the model, hexadecimal.
    #[serde(with = "hexadecimal")]
    pub model_id: [u8; 32],
    /// Kernel revision.
    pub engine: u32,
    /// `contracts::receipt::Dtype`.
    pub dtype: u8,
    /// Tokens of prompt and answer together; 0 where that means nothing.
    pub context_tokens: u32,
    /// What can be asked for.
    pub kinds: Vec<WorkKind>,
    /// Requests under way.
    pub open_requests: u32,
    /// It takes new ones.
    pub accepting: bool,
}

macro_rules! no_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

no_text!(Piece, TokenLogprobs, Segment);

/// Shows neither text nor tokens.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(accepted) => accepted.fmt(f),
            Self::Piece(_) => f.write_str("Piece"),
            Self::Vector(_) => f.write_str("Vector"),
            Self::Segment(_) => f.write_str("Segment"),
            Self::Done(done) => done.fmt(f),
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done")
            .field("request", &self.request)
            .field("finish_reason", &self.finish_reason)
            .field("used", &self.used)
            .field("sequence", &self.receipt.sequence)
            .finish_non_exhaustive()
    }
}
