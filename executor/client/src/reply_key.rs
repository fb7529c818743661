//! The key to which a job's result is sealed, derived from the wallet so that it survives a crash.

use chain::Wallet;
use contracts::StdAddr;
use contracts::sealing::{DecryptionKey, SealError};

/// The reply key of a job: HKDF of the wallet's seed over the network and the job's address.
///
/// # Errors
/// [`SealError::BadRecipient`]; none is known to occur, since X25519 takes any 32 bytes.
pub fn reply_key(wallet: &Wallet, network_id: i32, job: &StdAddr) -> Result<DecryptionKey, SealError> {
    let mut purpose = b"chrysalis/reply-key/v1".to_vec();
    purpose.extend_from_slice(&network_id.to_be_bytes());
    purpose.push(job.workchain.cast_unsigned());
    purpose.extend_from_slice(job.address.as_slice());
    DecryptionKey::from_bytes(&wallet.derive_secret(&purpose))
}
