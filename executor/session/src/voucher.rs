//! A voucher with its signature.

use contracts::money::Amount;
use contracts::receipt::SignatureError;
use contracts::voucher::Voucher;
use contracts::wire::Signature;
use contracts::{HashBytes, SigningKey};
use serde::{Deserialize, Serialize};

use crate::hexadecimal;
use crate::ids::SessionId;

/// What the gateway lets the worker draw in all, signed by the session key ([`Voucher`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedVoucher {
    /// Cumulative.
    pub amount: Amount,
    /// Ed25519.
    #[serde(with = "hexadecimal")]
    pub signature: [u8; 64],
}

impl SignedVoucher {
    /// Signs; the same arguments make the same bytes.
    pub fn sign(session: &SessionId, amount: Amount, session_key: &SigningKey) -> Self {
        Self { amount, signature: voucher(session, amount).sign(session_key).0 }
    }

    /// Checks it under the Ed25519 public key of the session.
    ///
    /// # Errors
    /// [`SignatureError`]; the gateway is at fault.
    pub fn verify(&self, session: &SessionId, session_key: &HashBytes) -> Result<(), SignatureError> {
        voucher(session, self.amount).verify(&Signature(self.signature), session_key)
    }
}

fn voucher(session: &SessionId, amount: Amount) -> Voucher {
    Voucher { job: session.job.address, posted_lt: session.posted_lt, amount }
}
