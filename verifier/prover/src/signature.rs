//! A signature as the contract takes it: with its witness.

use contracts::attestor::{Bytes, P256Signature, P256Witness};
use contracts::{Ref, WireError};
use tycho_types::cell::HashBytes;

use crate::p256::{WitnessError, witness};

/// Checks a signature and adds the witness.
///
/// * `digest`: SHA-256 of what is signed.
/// * `signature`: r ‖ s, big-endian.
/// * `key`: x ‖ y, big-endian.
///
/// # Errors
/// [`WitnessError`]
pub fn proven(
    digest: &[u8; 32],
    signature: &[u8; 64],
    key: &[u8; 64],
) -> Result<P256Signature, WitnessError> {
    let found = witness(digest, signature, key)?;
    let (r, s) = signature.split_at(32);
    let witness = P256Witness { shift: Bytes(found.shift), slope: HashBytes(found.slope) };
    // 776 bits always fit a cell.
    let witness = Ref::new(witness).map_err(|_: WireError| WitnessError::Unprovable)?;
    Ok(P256Signature { r: HashBytes::from_slice(r), s: HashBytes::from_slice(s), witness })
}
