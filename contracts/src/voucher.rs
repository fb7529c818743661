//! What the client of a session lets its worker draw in all. Ed25519 by the session key over 54 bytes, not over a cell.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use tycho_types::cell::HashBytes;

use crate::money::Amount;
use crate::receipt::SignatureError;
use crate::wire::Signature;

/// First 6 bytes of what is signed.
pub const VOUCHER_TAG: [u8; 6] = *b"chvchr";
/// Length of what is signed.
pub const VOUCHER_BYTES: usize = 54;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// Account of the job, in the basechain.
    pub job: HashBytes,
    /// Of the transaction that opened the session.
    pub posted_lt: u64,
    /// Cumulative.
    pub amount: Amount,
}

impl Voucher {
    /// `"chvchr"` ‖ the job's account ‖ `posted_lt` ‖ amount, big-endian.
    pub fn to_bytes(&self) -> [u8; VOUCHER_BYTES] {
        let mut bytes = [0; VOUCHER_BYTES];
        bytes[..6].copy_from_slice(&VOUCHER_TAG);
        bytes[6..38].copy_from_slice(&self.job.0);
        bytes[38..46].copy_from_slice(&self.posted_lt.to_be_bytes());
        bytes[46..].copy_from_slice(&self.amount.get().to_be_bytes());
        bytes
    }

    pub fn sign(&self, session_key: &SigningKey) -> Signature {
        Signature(session_key.sign(&self.to_bytes()).to_bytes())
    }

    /// Checks a signature under the Ed25519 public key of the session. Weak keys are refused.
    pub fn verify(&self, signature: &Signature, session_key: &HashBytes) -> Result<(), SignatureError> {
        let key =
            VerifyingKey::from_bytes(session_key.as_array()).map_err(|_| SignatureError::BadSessionKey)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&self.to_bytes(), &signature).map_err(|_| SignatureError::BadVoucher)
    }
}
