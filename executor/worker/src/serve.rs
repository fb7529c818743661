//! From a sealed input to a signed receipt. Pure but for the engine; randomness is an argument.
//!
//! Plaintext lives in [`Opened`] and in locals here, is wiped on drop, and goes nowhere but into the engine and into the
//! sealed result.

use contracts::errors::RejectionReason;
use contracts::job::{PostReceipt, PostRejection};
use contracts::receipt::{Receipt, ReceiptBody, Rejection, Tag};
use contracts::sealing::{
    Input, InputContext, MAX_JSON_BYTES, Output, ResultContext, SealError, Sealed, open_input, seal_result,
};
use contracts::transcript::transcript;
use contracts::wire::{Ref, from_cell, to_cell};
use contracts::{HashBytes, Message, Prices, Units, WireError};
use rand_core::CryptoRng;
use tycho_types::boc::Boc;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::engine::{Engine, EngineInfo};
use crate::keys::Keys;
use crate::machine::{ClaimFacts, PostedJob, SignedReceipt};

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
}

/// Decrypts the input (a bag of cells) and checks that it can be answered within the terms.
///
/// # Errors
/// The reason to reject the job with.
pub fn open(
    signer: Signer<'_>,
    engine: &dyn Engine,
    posted: &PostedJob,
    claim: &ClaimFacts,
    input: &[u8],
    context_limit: Option<u32>,
) -> Result<Opened, RejectionReason> {
    let info = engine.info();
    if info.model_id != posted.model_id {
        return Err(RejectionReason::ModelNotServed);
    }
    let sealed: Sealed = Boc::decode(input)
        .ok()
        .and_then(|cell| from_cell(&cell).ok())
        .ok_or(RejectionReason::CannotDecrypt)?;
    let context = InputContext {
        network_id: signer.network_id,
        job: posted.key.job.clone(),
        model_id: posted.model_id,
        claim_by: posted.claim_by,
    };
    let input = open_input(&sealed, signer.keys.encryption(), &context).map_err(|error| match error {
        SealError::MalformedPlaintext { .. } => RejectionReason::MalformedInput,
        _ => RejectionReason::CannotDecrypt,
    })?;
    check_shape(&input)?;
    let mut prompt_ids = Zeroizing::new(engine.tokenize(&input.messages).map_err(|error| error.reason())?);
    let context_tokens = context_limit.map_or(info.context_tokens, |limit| limit.min(info.context_tokens));
    let max_output_tokens =
        output_limit(posted, &claim.prices, prompt_ids.len(), input.max_output_tokens, context_tokens)?;
    Ok(Opened { reply_key: input.reply_key, prompt_ids: std::mem::take(&mut prompt_ids), max_output_tokens })
}

/// Generates, seals and signs. A second run makes another receipt: the caller keeps the first.
///
/// # Errors
/// The reason to reject the job with.
pub fn answer(
    signer: Signer<'_>,
    engine: &dyn Engine,
    posted: &PostedJob,
    claim: &ClaimFacts,
    opened: &Opened,
    on_text: &mut dyn FnMut(&str) -> bool,
    rng: &mut impl CryptoRng,
) -> Result<SignedReceipt, RejectionReason> {
    let mut generated = engine
        .generate(&opened.prompt_ids, opened.max_output_tokens, on_text)
        .map_err(|error| error.reason())?;
    let input_units =
        u32::try_from(opened.prompt_ids.len()).map_err(|_| RejectionReason::PromptOverContext)?;
    let output_units =
        u32::try_from(generated.output_ids.len()).map_err(|_| RejectionReason::EngineFailure)?;
    let units = Units { input: input_units, cached_input: 0, output: output_units };
    if output_units > opened.max_output_tokens {
        return Err(RejectionReason::EngineFailure);
    }
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
    let sealed =
        seal_result(&output, &HashBytes(opened.reply_key), &context, rng).map_err(|error| match error {
            SealError::BadRecipient => RejectionReason::MalformedInput,
            _ => RejectionReason::EngineFailure,
        })?;
    let parts = Parts { units, transcript, info };
    sign(signer, posted, claim, &sealed, parts).map_err(|_| RejectionReason::EngineFailure)
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
        network_id: signer.network_id,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
        reason: reason.code(),
    };
    PostRejection::signed(rejection, signer.keys.receipt())?.to_cell()
}

struct Parts {
    units: Units,
    transcript: HashBytes,
    info: EngineInfo,
}

fn sign(
    signer: Signer<'_>,
    posted: &PostedJob,
    claim: &ClaimFacts,
    sealed: &Sealed,
    parts: Parts,
) -> Result<SignedReceipt, WireError> {
    let body = ReceiptBody {
        result_hash: *to_cell(sealed)?.repr_hash(),
        transcript: parts.transcript,
        engine: parts.info.engine,
        dtype: parts.info.dtype as u8,
    };
    let receipt = Receipt {
        tag: Tag,
        network_id: signer.network_id,
        job: posted.key.job.clone(),
        posted_lt: posted.key.posted_lt,
        sequence: 1,
        is_final: true,
        units: parts.units,
        amount: claim.prices.cost(&parts.units).min(posted.deposit),
        body: Ref::new(body)?,
    };
    let message = PostReceipt::signed(receipt, sealed, signer.keys.receipt())?.to_cell()?;
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
    prices: &Prices,
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
    let pays = |output: u32| prices.cost(&Units { input, cached_input: 0, output }) <= posted.deposit;
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
/// How a job's reserve counts a result (`contracts/fees.tolk`): fixed part, bytes a token in, bytes a token out.
const RESULT_BASE_BYTES: usize = 1_536;
const RESULT_BYTES_PER_INPUT: usize = 8;
const RESULT_BYTES_PER_OUTPUT: usize = 16;

#[cfg(test)]
mod tests;
