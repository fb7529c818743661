//! Sealing of inputs and results: HPKE (RFC 9180) base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! ChaCha20-Poly1305 (suite 0x0020, 0x0001, 0x0003), as `docs/protocol.md` says.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as _, X25519HkdfSha256};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tycho_types::cell::{CellBuilder, CellContext, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::StdAddr;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::receipt::Dtype;
use crate::transcript::Transcript;
use crate::wire::{MAX_SNAKE_BYTES, SNAKE_CELL_BYTES, Snake, WireError};
use crate::work::{GenerateParams, Request, embeddings_digest, transcription_digest};

/// A sealed message is a multiple of this, a whole number of cells.
pub const PAD_BYTES: usize = SNAKE_CELL_BYTES;
/// The least sealed message: two cells.
pub const MIN_SEALED_BYTES: usize = 2 * PAD_BYTES;
/// Most JSON bytes of a plaintext.
pub const MAX_JSON_BYTES: usize = MAX_SNAKE_BYTES / PAD_BYTES * PAD_BYTES - OVERHEAD_BYTES - LENGTH_BYTES;
/// `v` of [`Input`] and [`Output`].
pub const VERSION: u32 = 2;

const INPUT_INFO: &[u8] = b"chrysalis/input/v1";
const RESULT_INFO: &[u8] = b"chrysalis/result/v1";
const ENC_BYTES: usize = 32;
const AEAD_TAG_BYTES: usize = 16;
const OVERHEAD_BYTES: usize = ENC_BYTES + AEAD_TAG_BYTES;
const LENGTH_BYTES: usize = 4;

type Kem = X25519HkdfSha256;

/// An HPKE message: the encapsulated X25519 key (32 bytes), then the ciphertext, which ends with the 16-byte tag. A
/// [`Snake`] of both on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Snake);

impl Sealed {
    /// # Errors
    /// [`SealError::NotSealed`] where the bytes are no whole number of cells, or fewer than two; [`SealError::Wire`]
    /// where they are more than a chain of cells holds.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SealError> {
        if !is_sealed_size(bytes.len()) {
            return Err(SealError::NotSealed { bytes: bytes.len() });
        }
        Ok(Self(Snake::new(bytes)?))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    /// The encapsulated key.
    pub fn enc(&self) -> &[u8] {
        &self.as_bytes()[..ENC_BYTES]
    }

    pub fn ciphertext(&self) -> &[u8] {
        &self.as_bytes()[ENC_BYTES..]
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.as_bytes().len())
    }
}

impl Store for Sealed {
    fn store_into(&self, builder: &mut CellBuilder, context: &dyn CellContext) -> Result<(), CellError> {
        self.0.store_into(builder, context)
    }
}

impl<'a> Load<'a> for Sealed {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let snake = Snake::load_from(slice)?;
        if is_sealed_size(snake.as_bytes().len()) { Ok(Self(snake)) } else { Err(CellError::InvalidData) }
    }
}

/// What an input is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputContext {
    pub network_id: i32,
    pub job: StdAddr,
    pub model_id: HashBytes,
    /// Unix time: that of the posting.
    pub until: u32,
}

/// What a result is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultContext {
    pub network_id: i32,
    pub job: StdAddr,
    pub posted_lt: u64,
}

/// What a client asks. Prompts never show in `Debug`.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Input {
    v: u32,
    /// X25519 key to which the result is sealed.
    #[serde(with = "hex::serde")]
    pub reply_key: [u8; 32],
    pub work: Request,
}

/// One turn of a conversation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    pub content: String,
    /// JSON text of the list of calls that the assistant made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<String>,
    /// Which call a tool answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Whose turn it is, where several have one role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a worker answers. Answers never show in `Debug`.
///
/// Text has its tokens in `output_tokens`. Embeddings have each text's count of tokens in `parts` and the vectors' numbers, as
/// the bits of an f32, in `output_tokens` ([`Output::vectors`]). A transcription has its text and the tokens of that.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Output {
    v: u32,
    pub text: String,
    #[zeroize(skip)]
    pub finish_reason: FinishReason,
    /// Of the transcript.
    #[serde(with = "hex::serde")]
    pub salt: [u8; 32],
    /// Of the transcript: how it was asked, with the limit that held.
    #[zeroize(skip)]
    pub params: HashBytes,
    /// The limit of the answer's tokens that held; 0 where there is none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub max_output_tokens: u32,
    pub input_tokens: Vec<u32>,
    pub output_tokens: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<u32>,
    /// What was spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// Why decoding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its answer.
    Stop,
    /// `max_output_tokens` or the context was reached.
    Length,
}

/// Sealing or opening failed. Never carries plaintext.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the plaintext's JSON of {bytes} bytes is over {MAX_JSON_BYTES}; shorten it")]
    TooLong { bytes: usize },
    #[error(
        "{bytes} bytes are no sealed message, which fills two cells of {PAD_BYTES} bytes or more; whoever sealed it is at fault"
    )]
    NotSealed { bytes: usize },
    #[error("the recipient's key is not a usable X25519 key; whoever published it is at fault")]
    BadRecipient,
    #[error("cannot decrypt: sealed to another key or for another job, or altered on the way")]
    CannotOpen,
    #[error("the opened plaintext is malformed ({reason}); whoever sealed it is at fault")]
    MalformedPlaintext { reason: &'static str },
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// An X25519 private key; wiped on drop, never shown.
#[derive(Clone)]
pub struct DecryptionKey(<Kem as hpke::Kem>::PrivateKey);

impl DecryptionKey {
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(Kem::gen_keypair_with_rng(rng).0)
    }

    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SealError> {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(bytes).map(Self).map_err(|_| SealError::BadRecipient)
    }

    /// For the key's own file.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.0.write_exact(bytes.as_mut());
        bytes
    }

    /// The X25519 public key.
    pub fn public(&self) -> HashBytes {
        HashBytes(Kem::sk_to_pk(&self.0).to_bytes().into())
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecryptionKey(public {})", self.public())
    }
}

impl InputContext {
    fn associated_data(&self) -> Vec<u8> {
        let mut bytes = self.network_id.to_be_bytes().to_vec();
        push_address(&mut bytes, &self.job);
        bytes.extend_from_slice(&self.model_id.0);
        bytes.extend_from_slice(&self.until.to_be_bytes());
        bytes
    }
}

impl ResultContext {
    fn associated_data(&self) -> Vec<u8> {
        let mut bytes = self.network_id.to_be_bytes().to_vec();
        push_address(&mut bytes, &self.job);
        bytes.extend_from_slice(&self.posted_lt.to_be_bytes());
        bytes
    }
}

impl Input {
    pub fn new(reply_key: HashBytes, work: Request) -> Self {
        Self { v: VERSION, reply_key: reply_key.0, work }
    }
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), tool_calls: None, tool_call_id: None, name: None }
    }
}

impl Output {
    /// An answer in text, made under `params`, whose limit is the one that held.
    pub fn text(
        text: String,
        finish_reason: FinishReason,
        salt: [u8; 32],
        params: &GenerateParams,
        input_tokens: Vec<u32>,
        output_tokens: Vec<u32>,
    ) -> Self {
        Self {
            v: VERSION,
            text,
            finish_reason,
            salt,
            params: params.digest(),
            max_output_tokens: params.max_output_tokens,
            input_tokens,
            output_tokens,
            parts: Vec::new(),
            language: None,
        }
    }

    /// The vectors of texts, each with its tokens.
    pub fn embeddings(salt: [u8; 32], texts: &[Vec<u32>], vectors: &[Vec<f32>]) -> Self {
        let parts: Vec<u32> = texts.iter().map(|ids| ids.len() as u32).collect();
        Self {
            v: VERSION,
            text: String::new(),
            finish_reason: FinishReason::Stop,
            salt,
            params: embeddings_digest(&parts),
            max_output_tokens: 0,
            input_tokens: texts.concat(),
            output_tokens: vectors.iter().flatten().map(|number| number.to_bits()).collect(),
            parts,
            language: None,
        }
    }

    /// The text of a recording; `params` is its [`crate::work::transcription_digest`].
    pub fn transcription(
        text: String,
        salt: [u8; 32],
        params: HashBytes,
        output_tokens: Vec<u32>,
        language: String,
    ) -> Self {
        Self {
            v: VERSION,
            text,
            finish_reason: FinishReason::Stop,
            salt,
            params,
            max_output_tokens: 0,
            input_tokens: Vec::new(),
            output_tokens,
            parts: Vec::new(),
            language: Some(language),
        }
    }

    /// The vectors, one for each of `parts`; `None` where the result holds none, or not as many numbers for each.
    pub fn vectors(&self) -> Option<Vec<Vec<f32>>> {
        let (texts, numbers) = (self.parts.len(), self.output_tokens.len());
        if texts == 0 || numbers == 0 || !numbers.is_multiple_of(texts) {
            return None;
        }
        let vectors = self.output_tokens.chunks_exact(numbers / texts);
        Some(vectors.map(|bits| bits.iter().map(|bits| f32::from_bits(*bits)).collect()).collect())
    }

    /// What a receipt of this result commits to.
    pub fn transcript(&self, model_id: &HashBytes, engine: u32, dtype: Dtype) -> HashBytes {
        let Self { salt, params, finish_reason, input_tokens, output_tokens, .. } = self;
        let finish_reason = *finish_reason;
        Transcript { salt, model_id, engine, dtype, params, finish_reason, input_tokens, output_tokens }
            .hash()
    }

    /// Whether it was made as `request` asked, at most with a lower limit. A conversation's and a text's own tokens are the
    /// engine's to compare.
    pub fn answers(&self, request: &Request) -> bool {
        match request {
            Request::Chat { params, .. } | Request::Completion { params, .. } => {
                let mut held = params.clone();
                held.max_output_tokens = self.max_output_tokens;
                self.max_output_tokens <= params.max_output_tokens && held.digest() == self.params
            }
            Request::Embeddings { texts } => {
                self.parts.len() == texts.len() && embeddings_digest(&self.parts) == self.params
            }
            Request::Transcription { audio, language, translate } => {
                STANDARD.decode(audio).is_ok_and(|audio| {
                    transcription_digest(&audio, language.as_deref(), *translate) == self.params
                })
            }
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({:?})", self.work)
    }
}

impl fmt::Debug for ChatMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatMessage(redacted)")
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({} tokens, {:?}, redacted)", self.output_tokens.len(), self.finish_reason)
    }
}

/// Seals a client's input to the worker's attested encryption key.
pub fn seal_input(
    input: &Input,
    encryption_key: &HashBytes,
    context: &InputContext,
    rng: &mut impl CryptoRng,
) -> Result<Sealed, SealError> {
    seal(input, encryption_key, INPUT_INFO, &context.associated_data(), rng)
}

/// Opens a client's input.
pub fn open_input(sealed: &Sealed, key: &DecryptionKey, context: &InputContext) -> Result<Input, SealError> {
    let input: Input = open(sealed, key, INPUT_INFO, &context.associated_data())?;
    if input.v != VERSION {
        return Err(SealError::MalformedPlaintext { reason: "unknown version" });
    }
    Ok(input)
}

/// Seals a worker's result to the reply key of the input.
pub fn seal_result(
    output: &Output,
    reply_key: &HashBytes,
    context: &ResultContext,
    rng: &mut impl CryptoRng,
) -> Result<Sealed, SealError> {
    seal(output, reply_key, RESULT_INFO, &context.associated_data(), rng)
}

/// Opens a worker's result.
pub fn open_result(
    sealed: &Sealed,
    key: &DecryptionKey,
    context: &ResultContext,
) -> Result<Output, SealError> {
    let output: Output = open(sealed, key, RESULT_INFO, &context.associated_data())?;
    if output.v != VERSION {
        return Err(SealError::MalformedPlaintext { reason: "unknown version" });
    }
    Ok(output)
}

fn push_address(bytes: &mut Vec<u8>, address: &StdAddr) {
    bytes.push(address.workchain as u8);
    bytes.extend_from_slice(&address.address.0);
}

fn seal<T: Serialize>(
    value: &T,
    recipient: &HashBytes,
    info: &[u8],
    associated_data: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Sealed, SealError> {
    let recipient =
        <Kem as hpke::Kem>::PublicKey::from_bytes(&recipient.0).map_err(|_| SealError::BadRecipient)?;
    let plaintext = padded_json(value)?;
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &recipient,
        info,
        &plaintext,
        associated_data,
        rng,
    )
    .map_err(|_| SealError::BadRecipient)?;
    let mut bytes = Vec::with_capacity(ENC_BYTES + ciphertext.len());
    bytes.extend_from_slice(&enc.to_bytes());
    bytes.extend_from_slice(&ciphertext);
    Sealed::from_bytes(bytes)
}

fn open<T: DeserializeOwned>(
    sealed: &Sealed,
    key: &DecryptionKey,
    info: &[u8],
    associated_data: &[u8],
) -> Result<T, SealError> {
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(sealed.enc()).map_err(|_| SealError::CannotOpen)?;
    let plaintext = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &key.0,
        &enc,
        info,
        sealed.ciphertext(),
        associated_data,
    )
    .map(Zeroizing::new)
    .map_err(|_| SealError::CannotOpen)?;
    let malformed = |reason| SealError::MalformedPlaintext { reason };
    let (length, rest) =
        plaintext.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| malformed("no length"))?;
    let length = u32::from_be_bytes(*length) as usize;
    let json = rest.get(..length).ok_or_else(|| malformed("length beyond the end"))?;
    if plaintext.len() != padded_len(length) || rest[length..].iter().any(|&byte| byte != 0) {
        return Err(malformed("padding is not the least run of zeros"));
    }
    // serde_json's messages can quote the text, so they are dropped.
    serde_json::from_slice(json).map_err(|_| malformed("JSON is not of the expected shape"))
}

/// Length, JSON, zeros; in one buffer of the right size, so that no copy of the plaintext is left behind.
fn padded_json<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut count = Counter(0);
    serde_json::to_writer(&mut count, value)
        .map_err(|_| SealError::MalformedPlaintext { reason: "cannot be written as JSON" })?;
    if count.0 > MAX_JSON_BYTES {
        return Err(SealError::TooLong { bytes: count.0 });
    }
    let size = padded_len(count.0);
    let mut buffer = Zeroizing::new(Vec::with_capacity(size));
    buffer.extend_from_slice(&(count.0 as u32).to_be_bytes());
    serde_json::to_writer(&mut *buffer, value)
        .map_err(|_| SealError::MalformedPlaintext { reason: "cannot be written as JSON" })?;
    buffer.resize(size, 0);
    Ok(buffer)
}

/// Length of the plaintext of so many bytes of JSON: with key and tag it fills whole cells.
fn padded_len(json_bytes: usize) -> usize {
    let sealed = (OVERHEAD_BYTES + LENGTH_BYTES).saturating_add(json_bytes).next_multiple_of(PAD_BYTES);
    sealed.max(MIN_SEALED_BYTES) - OVERHEAD_BYTES
}

fn is_sealed_size(bytes: usize) -> bool {
    bytes >= MIN_SEALED_BYTES && bytes.is_multiple_of(PAD_BYTES)
}

fn is_none(limit: &u32) -> bool {
    *limit == 0
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
