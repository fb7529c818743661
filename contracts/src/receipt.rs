//! What workers sign: receipts, rejections and claim orders. Ed25519 over the representation hash of the cell.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use tycho_types::cell::{Cell, CellBuilder, CellContext, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::StdAddr;
use zeroize::Zeroizing;

use crate::job::{PostReceipt, PostRejection, RedeemReceipt};
use crate::money::{Amount, Units};
use crate::sealing::Sealed;
use crate::voucher::Voucher;
use crate::wire::{Ref, Signature, WireError, to_cell};
use crate::worker::ClaimJob;

/// Domain tags: the first 48 bits of each signed cell.
pub const RECEIPT_TAG: u64 = u64::from_be_bytes(*b"\0\0chrcpt");
pub const REJECTION_TAG: u64 = u64::from_be_bytes(*b"\0\0chrejt");
pub const CLAIM_ORDER_TAG: u64 = u64::from_be_bytes(*b"\0\0chordr");

/// A signature did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the key is not an Ed25519 public key; the worker that registered it is at fault")]
    BadKey,
    #[error("the signature does not verify under the attested key; whoever signed it is at fault")]
    BadSignature,
    #[error("the session key is not an Ed25519 public key; the client that opened the session is at fault")]
    BadSessionKey,
    #[error("the voucher does not verify under the session key; whoever signed it is at fault")]
    BadVoucher,
}

/// The worker's claim to be paid for a result. Units and amount are those of all the job's receipts up to this one.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Receipt {
    pub tag: Tag<RECEIPT_TAG>,
    pub job: StdAddr,
    /// Of the posting this answers.
    pub posted_lt: u64,
    /// 1 for a one-shot job.
    pub sequence: u32,
    /// True for a one-shot job.
    pub is_final: bool,
    pub units: Units,
    /// Cumulative.
    pub amount: Amount,
    /// Hash of the cell of a [`ReceiptContent`].
    pub content_hash: HashBytes,
}

/// What a receipt is for. Two receipts of one sequence with different content cost the worker its stake.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct ReceiptContent {
    /// Hash of the first cell of the [`Sealed`] result.
    pub result_hash: HashBytes,
    /// See [`crate::transcript`].
    pub transcript: HashBytes,
    /// Kernel revision of the inference crate.
    pub engine: u32,
    /// A [`Dtype`]; the contract does not check it, so a reader must not depend on knowing it.
    pub dtype: u8,
}

impl ReceiptContent {
    /// What the receipt names.
    pub fn hash(&self) -> Result<HashBytes, WireError> {
        Ok(*to_cell(self)?.repr_hash())
    }
}

/// A receipt with its worker's signature.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct SignedReceipt {
    pub signature: Signature,
    pub receipt: Ref<Receipt>,
}

/// Number format of the weights: that of most numbers in the layers' matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Dtype {
    F32 = 0,
    Bf16 = 1,
    F16 = 2,
    #[serde(rename = "q8_0")]
    Q8_0 = 3,
    #[serde(rename = "q4_0")]
    Q4_0 = 4,
    #[serde(rename = "q4_1")]
    Q4_1 = 5,
    #[serde(rename = "q5_0")]
    Q5_0 = 6,
    #[serde(rename = "q5_1")]
    Q5_1 = 7,
    #[serde(rename = "q4_k")]
    Q4K = 8,
    #[serde(rename = "q5_k")]
    Q5K = 9,
    #[serde(rename = "q6_k")]
    Q6K = 10,
}

impl Dtype {
    pub fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::F32,
            1 => Self::Bf16,
            2 => Self::F16,
            3 => Self::Q8_0,
            4 => Self::Q4_0,
            5 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q4K,
            9 => Self::Q5K,
            10 => Self::Q6K,
            _ => return None,
        })
    }
}

/// The worker gives the job back, unpaid.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Rejection {
    pub tag: Tag<REJECTION_TAG>,
    pub job: StdAddr,
    pub posted_lt: u64,
    /// See [`crate::errors::RejectionReason`].
    pub reason: u16,
}

/// What the executor orders its own Worker contract to claim.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct ClaimOrder {
    pub tag: Tag<CLAIM_ORDER_TAG>,
    /// The Worker's account, in the basechain; it stands for the network too.
    pub worker: HashBytes,
    /// The Worker's `claim_seqno`.
    pub seqno: u32,
    /// Unix time.
    pub valid_until: u32,
    pub job_client: StdAddr,
    pub job_nonce: u64,
    pub model_id: HashBytes,
    pub bond: Amount,
    /// For a job of the market.
    pub is_bid: bool,
    /// For one that asks for it.
    pub names_measurement: bool,
}

/// A domain tag of 48 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tag<const VALUE: u64>;

/// Signs the cell's hash.
pub fn sign_cell(cell: &Cell, key: &SigningKey) -> Signature {
    Signature(key.sign(cell.repr_hash().as_array()).to_bytes())
}

/// Checks a signature over the cell's hash under an Ed25519 public key. Weak keys are refused.
pub fn verify_cell(cell: &Cell, signature: &Signature, public_key: &HashBytes) -> Result<(), SignatureError> {
    let key = VerifyingKey::from_bytes(public_key.as_array()).map_err(|_| SignatureError::BadKey)?;
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(cell.repr_hash().as_array(), &signature).map_err(|_| SignatureError::BadSignature)
}

/// A fresh Ed25519 key.
pub fn generate_signing_key(rng: &mut impl CryptoRng) -> SigningKey {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(secret.as_mut());
    SigningKey::from_bytes(&secret)
}

/// The public half as it stands in an attestation.
pub fn public_key(key: &SigningKey) -> HashBytes {
    HashBytes(key.verifying_key().to_bytes())
}

impl SignedReceipt {
    pub fn new(receipt: Receipt, key: &SigningKey) -> Result<Self, WireError> {
        let receipt = Ref::new(receipt)?;
        Ok(Self { signature: sign_cell(receipt.cell(), key), receipt })
    }

    pub fn verify(&self, public_key: &HashBytes) -> Result<(), SignatureError> {
        verify_cell(self.receipt.cell(), &self.signature, public_key)
    }
}

impl PostReceipt {
    /// Attaches the content that the receipt must name and the result that the content must name.
    pub fn new(signed: SignedReceipt, content: ReceiptContent, result: &Sealed) -> Result<Self, WireError> {
        Ok(Self {
            signature: signed.signature,
            receipt: signed.receipt,
            content: Ref::new(content)?,
            result: to_cell(result)?,
        })
    }

    /// Signs the receipt, then as [`Self::new`].
    pub fn signed(
        receipt: Receipt,
        content: ReceiptContent,
        result: &Sealed,
        key: &SigningKey,
    ) -> Result<Self, WireError> {
        Self::new(SignedReceipt::new(receipt, key)?, content, result)
    }

    pub fn verify(&self, public_key: &HashBytes) -> Result<(), SignatureError> {
        verify_cell(self.receipt.cell(), &self.signature, public_key)
    }

    /// The receipt names the content, and the content the result.
    pub fn is_complete(&self) -> bool {
        self.receipt.content_hash == self.content.hash()
            && self.content.result_hash == *self.result.repr_hash()
    }
}

impl RedeemReceipt {
    /// `voucher` is the session key's signature over the [`crate::voucher::Voucher`] of `voucher_amount`.
    pub fn new(signed: SignedReceipt, voucher_amount: Amount, voucher: Signature) -> Result<Self, WireError> {
        Ok(Self {
            signature: signed.signature,
            voucher_amount,
            receipt: signed.receipt,
            voucher: Ref::new(voucher)?,
        })
    }

    pub fn verify(&self, public_key: &HashBytes) -> Result<(), SignatureError> {
        verify_cell(self.receipt.cell(), &self.signature, public_key)
    }

    /// Checks the voucher under the Ed25519 public key of the session.
    pub fn verify_voucher(&self, session_key: &HashBytes) -> Result<(), SignatureError> {
        let voucher = Voucher {
            job: self.receipt.job.address,
            posted_lt: self.receipt.posted_lt,
            amount: self.voucher_amount,
        };
        voucher.verify(&self.voucher, session_key)
    }
}

impl PostRejection {
    pub fn signed(rejection: Rejection, key: &SigningKey) -> Result<Self, WireError> {
        let rejection = Ref::new(rejection)?;
        Ok(Self { signature: sign_cell(rejection.cell(), key), rejection })
    }

    pub fn verify(&self, public_key: &HashBytes) -> Result<(), SignatureError> {
        verify_cell(self.rejection.cell(), &self.signature, public_key)
    }
}

impl ClaimJob {
    pub fn signed(order: ClaimOrder, key: &SigningKey) -> Result<Self, WireError> {
        let order = Ref::new(order)?;
        Ok(Self { signature: sign_cell(order.cell(), key), order })
    }

    pub fn verify(&self, public_key: &HashBytes) -> Result<(), SignatureError> {
        verify_cell(self.order.cell(), &self.signature, public_key)
    }
}

const TAG_BITS: u16 = 48;

impl<const VALUE: u64> Store for Tag<VALUE> {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_uint(VALUE, TAG_BITS)
    }
}

impl<'a, const VALUE: u64> Load<'a> for Tag<VALUE> {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        if slice.load_uint(TAG_BITS)? == VALUE { Ok(Self) } else { Err(CellError::InvalidTag) }
    }
}
