//! A cumulative receipt as it travels.

use contracts::money::Amount;
use contracts::receipt::{Receipt, ReceiptContent, SignatureError, SignedReceipt, Tag};
use contracts::wire::{Ref, Signature};
use contracts::{HashBytes, SigningKey, Units, WireError};
use serde::{Deserialize, Serialize};

use crate::hexadecimal;
use crate::ids::SessionId;

/// What the newest request of a receipt was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The commitment to what was read and written (`contracts::transcript`); zeros in a receipt that answers nothing.
    #[serde(with = "hexadecimal")]
    pub transcript: [u8; 32],
    /// Kernel revision of the engine.
    pub engine: u32,
    /// `contracts::receipt::Dtype`.
    pub dtype: u8,
}

impl Content {
    /// Of a receipt that answers nothing: the last of a session.
    pub const NOTHING: Self = Self { transcript: [0; 32], engine: 0, dtype: 0 };

    /// The cell's fields. An answer of a session is on no chain, so its result is named by zeros.
    pub fn to_cell_fields(self) -> ReceiptContent {
        ReceiptContent {
            result_hash: HashBytes::ZERO,
            transcript: HashBytes(self.transcript),
            engine: self.engine,
            dtype: self.dtype,
        }
    }
}

/// What a worker has signed for all requests of a session so far. The session itself does not travel: whoever reads the
/// receipt puts in the one it knows, and a receipt of another does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionReceipt {
    /// From 1, one higher with every receipt.
    pub sequence: u32,
    /// The session ends with it.
    pub is_final: bool,
    /// Of all requests so far.
    pub units: Units,
    /// Of all requests so far: what `units` cost at the session's prices.
    pub amount: Amount,
    /// Of the newest request.
    pub content: Content,
    /// Ed25519 by the attested receipt key over the hash of the receipt's cell.
    #[serde(with = "hexadecimal")]
    pub signature: [u8; 64],
}

/// A receipt does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Its signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It makes no cell; none is known.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl SessionReceipt {
    /// Signs. The same arguments make the same bytes. To be used on what has been written down alone: two receipts of
    /// one sequence cost the stake.
    pub(crate) fn sign(
        session: &SessionId,
        sequence: u32,
        is_final: bool,
        units: Units,
        amount: Amount,
        content: Content,
        key: &SigningKey,
    ) -> Result<Self, WireError> {
        let mut receipt = Self { sequence, is_final, units, amount, content, signature: [0; 64] };
        receipt.signature = SignedReceipt::new(receipt.to_fields(session)?, key)?.signature.0;
        Ok(receipt)
    }

    /// As the contract takes it.
    ///
    /// # Errors
    /// [`WireError`]; none is known to happen.
    pub fn to_signed(&self, session: &SessionId) -> Result<SignedReceipt, WireError> {
        Ok(SignedReceipt {
            signature: Signature(self.signature),
            receipt: Ref::new(self.to_fields(session)?)?,
        })
    }

    /// Checks the signature under the Ed25519 public key of the session's seller.
    ///
    /// # Errors
    /// [`ReceiptError`]; the worker is at fault.
    pub fn verify(&self, session: &SessionId, receipt_key: &HashBytes) -> Result<(), ReceiptError> {
        Ok(self.to_signed(session)?.verify(receipt_key)?)
    }

    fn to_fields(self, session: &SessionId) -> Result<Receipt, WireError> {
        Ok(Receipt {
            tag: Tag,
            job: session.job.clone(),
            posted_lt: session.posted_lt,
            sequence: self.sequence,
            is_final: self.is_final,
            units: self.units,
            amount: self.amount,
            content_hash: self.content.to_cell_fields().hash()?,
        })
    }
}
