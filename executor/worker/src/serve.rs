//! From a sealed input to a signed receipt. Pure but for the engine; randomness is an argument.
//!
//! Plaintext lives in [`Opened`] and in locals here, is wiped on drop, and goes nowhere but into the engine and into the
//! sealed result.

use contracts::errors::RejectionReason;
use contracts::job::{PostReceipt, PostRejection};
use contracts::money::Amount;
use contracts::receipt::{Receipt, ReceiptContent, Rejection, Tag};
use contracts::sealing::{
    Input, InputContext, MAX_JSON_BYTES, Output, ResultContext, SealError, Sealed, open_input, seal_result,
};
use contracts::transcript::transcript;
use contracts::wire::{from_cell, to_cell};
use contracts::{HashBytes, Message, Units, WireError};
use rand_core::CryptoRng;
use tycho_types::boc::Boc;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::engine::{Engine, EngineInfo, Generated};
use crate::fees::{RESULT_BASE_BYTES, RESULT_BYTES_PER_INPUT, RESULT_BYTES_PER_OUTPUT, reserved_bytes};
use crate::keys::Keys;
use crate::machine::{PostedJob, SignedReceipt};

/// A decrypted input that can be served. Without `Debug`, wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Opened {
    reply_key: [u8; 32],
    prompt_ids: Vec<u32>,
    max_output_tokens: u32,
}

impl Opened {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_ids.len()
    }
}

/// What the worker signs with and for.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// The attested keys.
    pub keys: &'a Keys,
    /// The network.
    pub network_id: i32,
    /// Account of the Model that the engine serves.
    pub model: HashBytes,
}

/// Decrypts the input (a bag of cells) and checks that it can be answered within the terms.
///
/// # Errors
/// The reason to reject the job with.
pub fn open(
    signer: Signer<'_>,
    engine: &dyn Engine,
    posted: &PostedJob,
    input: &[u8],
    context_limit: Option<u32>,
) -> Result<Opened, RejectionReason> {
    let info = engine.info();
    if signer.model != posted.model {
        return Err(RejectionReason::ModelNotServed);
    }
    let sealed: Sealed = Boc::decode(input)
        .ok()
        .and_then(|cell| from_cell(&cell).ok())
        .ok_or(RejectionReason::CannotDecrypt)?;
    let context = InputContext {
        network_id: signer.network_id,
        job: posted.key.job.clone(),
        model_id: info.model_id,
        until: posted.until,
    };
    let input = open_input(&sealed, signer.keys.encryption(), &context).map_err(|error| match error {
        SealError::MalformedPlaintext { .. } => RejectionReason::MalformedInput,
        _ => RejectionReason::CannotDecrypt,
    })?;
    check_shape(&input)?;
    let mut prompt_ids = Zeroizing::new(engine.tokenize(&input.messages).map_err(|error| error.reason())?);
    let context_tokens = context_limit.map_or(info.context_tokens, |limit| limit.min(info.context_tokens));
    let max_output_tokens = output_limit(posted, prompt_ids.len(), input.max_output_tokens, context_tokens)?;
    Ok(Opened { reply_key: input.reply_key, prompt_ids: std::mem::take(&mut prompt_ids), max_output_tokens })
}

/// Generates, seals and signs. A second run makes another receipt: the caller keeps the first.
///
/// An answer whose result is larger than the job's reserve pays for is made again, shorter, until it fits: the contract
/// would refuse its receipt. `on_text` then sees empty pieces.
///
/// # Errors
/// The reason to reject the job with.
pub fn answer(
    signer: Signer<'_>,
    engine: &dyn Engine,
    posted: &PostedJob,
    opened: &Opened,
    on_text: &mut dyn FnMut(&str) -> bool,
    rng: &mut impl CryptoRng,
) -> Result<SignedReceipt, RejectionReason> {
    let reserved = reserved_bytes(&posted.max_units);
    let mut limit = opened.max_output_tokens;
    for attempt in 0..MAX_ATTEMPTS {
        let mut unseen = |_: &str| on_text("");
        let generated = if attempt == 0 {
            engine.generate(&opened.prompt_ids, limit, on_text)
        } else {
            engine.generate(&opened.prompt_ids, limit, &mut unseen)
        };
        let generated = generated.map_err(|error| error.reason())?;
        let made = u32::try_from(generated.output_ids.len()).map_err(|_| RejectionReason::EngineFailure)?;
        if made > limit {
            return Err(RejectionReason::EngineFailure);
        }
        let size = match seal(signer, engine, posted, opened, generated, rng) {
            Ok(result) if result.size() <= reserved => {
                return sign(signer, posted, &result).map_err(|_| RejectionReason::EngineFailure);
            }
            Ok(result) => result.size(),
            Err(SealError::TooLong { bytes }) => bytes,
            Err(SealError::BadRecipient) => return Err(RejectionReason::MalformedInput),
            Err(_) => return Err(RejectionReason::EngineFailure),
        };
        tracing::info!(
            size,
            reserved,
            tokens = made,
            "the result is larger than the job pays for; made shorter"
        );
        match shorter(made, size, reserved) {
            Some(fewer) => limit = fewer,
            None => break,
        }
    }
    Err(RejectionReason::PromptOverPrice)
}

/// The body of the `post_rejection` message. The same arguments make the same bytes.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn rejection(
    signer: Signer<'_>,
    posted: &PostedJob,
    reason: RejectionReason,
) -> Result<contracts::Cell, WireError> {
    let rejection = Rejection {
        tag: Tag,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
        reason: reason.code(),
    };
    PostRejection::signed(rejection, signer.keys.receipt())?.to_cell()
}

/// A sealed result and what the receipt says of it.
struct Sealing {
    sealed: Sealed,
    units: Units,
    transcript: HashBytes,
    info: EngineInfo,
}

impl Sealing {
    /// Bytes of the sealed result.
    fn size(&self) -> usize {
        self.sealed.as_bytes().len()
    }
}

fn seal(
    signer: Signer<'_>,
    engine: &dyn Engine,
    posted: &PostedJob,
    opened: &Opened,
    mut generated: Generated,
    rng: &mut impl CryptoRng,
) -> Result<Sealing, SealError> {
    let count = |ids: &[u32]| u32::try_from(ids.len()).map_err(|_| SealError::TooLong { bytes: usize::MAX });
    let units =
        Units { input: count(&opened.prompt_ids)?, cached_input: 0, output: count(&generated.output_ids)? };
    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    let info = engine.info();
    let transcript =
        transcript(&salt, &info.model_id, info.engine, info.dtype, &opened.prompt_ids, &generated.output_ids);
    let output = Output::new(
        std::mem::take(&mut generated.text),
        generated.finish_reason,
        salt,
        opened.prompt_ids.clone(),
        std::mem::take(&mut generated.output_ids),
    );
    let context = ResultContext {
        network_id: signer.network_id,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
    };
    let sealed = seal_result(&output, &HashBytes(opened.reply_key), &context, rng)?;
    Ok(Sealing { sealed, units, transcript, info })
}

/// How many tokens are likely to fit where `made` gave `size` bytes; fewer than `made`, none where not even one does.
fn shorter(made: u32, size: usize, reserved: usize) -> Option<u32> {
    let share = u64::from(made).saturating_mul(reserved as u64) / (size as u64).max(1);
    let fewer = u32::try_from(share).unwrap_or(u32::MAX).min(made.saturating_sub(1));
    // What does not shrink with the tokens would make the share too large each time.
    let fewer = fewer.min(made.saturating_sub(made / 8)).max(1);
    (fewer < made).then_some(fewer)
}

fn sign(signer: Signer<'_>, posted: &PostedJob, result: &Sealing) -> Result<SignedReceipt, WireError> {
    let content = ReceiptContent {
        result_hash: *to_cell(&result.sealed)?.repr_hash(),
        transcript: result.transcript,
        engine: result.info.engine,
        dtype: result.info.dtype as u8,
    };
    let receipt = Receipt {
        tag: Tag,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
        sequence: 1,
        is_final: true,
        units: result.units,
        amount: Amount::try_from(posted.prices.cost(&result.units))
            .map_or(posted.deposit, |cost| cost.min(posted.deposit)),
        content_hash: content.hash()?,
    };
    let message = PostReceipt::signed(receipt, content, &result.sealed, signer.keys.receipt())?.to_cell()?;
    Ok(SignedReceipt(Boc::encode(&message)))
}

fn check_shape(input: &Input) -> Result<(), RejectionReason> {
    let known = |role: &str| matches!(role, "system" | "user" | "assistant");
    let is_sound = !input.messages.is_empty()
        && input.messages.len() <= MAX_MESSAGES
        && input.max_output_tokens > 0
        && input.reply_key != [0; 32]
        && input.messages.iter().all(|message| known(&message.role));
    if is_sound { Ok(()) } else { Err(RejectionReason::MalformedInput) }
}

/// The most output tokens that request, terms, deposit, context and the size of a result allow.
fn output_limit(
    posted: &PostedJob,
    prompt_tokens: usize,
    asked: u32,
    context_tokens: u32,
) -> Result<u32, RejectionReason> {
    let input = u32::try_from(prompt_tokens).map_err(|_| RejectionReason::PromptOverContext)?;
    let room = context_tokens.saturating_sub(input);
    let bytes_left = (MAX_JSON_BYTES - RESULT_BASE_BYTES).checked_sub(RESULT_BYTES_PER_INPUT * prompt_tokens);
    let sized = bytes_left.map_or(0, |bytes| bytes / RESULT_BYTES_PER_OUTPUT);
    let sized = u32::try_from(sized).unwrap_or(u32::MAX);
    if input == 0 {
        return Err(RejectionReason::MalformedInput);
    }
    if room == 0 || sized == 0 {
        return Err(RejectionReason::PromptOverContext);
    }
    let deposit = posted.deposit.nanoton();
    let pays = |output: u32| posted.prices.cost(&Units { input, cached_input: 0, output }) <= deposit;
    if input > posted.max_units.input || !pays(1) {
        return Err(RejectionReason::PromptOverPrice);
    }
    let most = asked.min(posted.max_units.output).min(room).min(sized);
    // The largest number of tokens that the deposit pays for, by bisection: cost rises with it.
    let (mut paid, mut unpaid) = (1, most.saturating_add(1));
    while unpaid - paid > 1 {
        let middle = paid + (unpaid - paid) / 2;
        if pays(middle) {
            paid = middle;
        } else {
            unpaid = middle;
        }
    }
    Ok(paid.min(most))
}

const MAX_MESSAGES: usize = 1_024;
/// Each is shorter than the one before by an eighth at least.
const MAX_ATTEMPTS: usize = 24;

#[cfg(test)]
mod tests;
