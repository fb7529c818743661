//! What workers sign: receipts, rejections and claim orders. Ed25519 over the representation hash of the cell.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use tycho_types::cell::{Cell, CellBuilder, CellContext, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::StdAddr;
use zeroize::Zeroizing;

use crate::job::{PostReceipt, PostRejection};
use crate::money::{Nanoton, Units};
use crate::sealing::Sealed;
use crate::wire::{Ref, Signature, WireError, to_cell};
use crate::worker::ClaimJob;

/// Domain tags: the first 64 bits of each signed cell.
pub const RECEIPT_TAG: u64 = u64::from_be_bytes(*b"chryrcpt");
pub const REJECTION_TAG: u64 = u64::from_be_bytes(*b"chryrejt");
pub const CLAIM_ORDER_TAG: u64 = u64::from_be_bytes(*b"chryordr");

/// A signature did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the key is not an Ed25519 public key; the worker that registered it is at fault")]
    BadKey,
    #[error("the signature does not verify under the attested key; whoever signed it is at fault")]
    BadSignature,
}

/// The worker's claim to be paid for a result.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Receipt {
    pub tag: Tag<RECEIPT_TAG>,
    pub network_id: i32,
    pub job: StdAddr,
    /// Of the posting this answers.
    pub posted_lt: u64,
    /// 1 for a one-shot job.
    pub sequence: u32,
    /// True for a one-shot job.
    pub is_final: bool,
    pub units: Units,
    /// Cumulative.
    pub amount: Nanoton,
    pub body: Ref<ReceiptBody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct ReceiptBody {
    /// Hash of the cell of the [`Sealed`] result.
    pub result_hash: HashBytes,
    /// See [`crate::transcript`].
    pub transcript: HashBytes,
    /// Kernel revision of the inference crate.
    pub engine: u32,
    /// A [`Dtype`]; the contract does not check it, so a reader must not depend on knowing it.
    pub dtype: u8,
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
    pub network_id: i32,
    pub job: StdAddr,
    pub posted_lt: u64,
    /// See [`crate::errors::RejectionReason`].
    pub reason: u16,
}

/// What the executor orders its own Worker contract to claim.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct ClaimOrder {
    pub tag: Tag<CLAIM_ORDER_TAG>,
    pub network_id: i32,
    pub worker: StdAddr,
    /// The Worker's `claim_seqno`.
    pub seqno: u32,
    /// Unix time.
    pub valid_until: u32,
    pub job_client: StdAddr,
    pub job_nonce: u64,
    pub body: Ref<ClaimOrderBody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct ClaimOrderBody {
    pub model_id: HashBytes,
    pub bond: Nanoton,
}

/// A domain tag of 64 bits.
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

impl PostReceipt {
    /// Signs the receipt and attaches the result whose hash it must name.
    pub fn signed(receipt: Receipt, result: &Sealed, key: &SigningKey) -> Result<Self, WireError> {
        let receipt = Ref::new(receipt)?;
        Ok(Self { signature: sign_cell(receipt.cell(), key), receipt, result: to_cell(result)? })
    }

    pub fn verify(&self, public_key: &HashBytes) -> Result<(), SignatureError> {
        verify_cell(self.receipt.cell(), &self.signature, public_key)
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

impl<const VALUE: u64> Store for Tag<VALUE> {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_u64(VALUE)
    }
}

impl<'a, const VALUE: u64> Load<'a> for Tag<VALUE> {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        if slice.load_u64()? == VALUE { Ok(Self) } else { Err(CellError::InvalidTag) }
    }
}
