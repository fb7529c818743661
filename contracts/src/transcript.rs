//! The salted commitment of a receipt to what was read and written.

use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;

use crate::receipt::Dtype;

/// `SHA-256("chrysalis/transcript/v1" ‖ salt ‖ model id ‖ engine ‖ dtype ‖ n_in ‖ ids ‖ n_out ‖ ids)`, big-endian.
pub fn transcript(
    salt: &[u8; 32],
    model_id: &HashBytes,
    engine: u32,
    dtype: Dtype,
    input_tokens: &[u32],
    output_tokens: &[u32],
) -> HashBytes {
    let mut hasher = Sha256::new();
    hasher.update(b"chrysalis/transcript/v1");
    hasher.update(salt);
    hasher.update(model_id.0);
    hasher.update(engine.to_be_bytes());
    hasher.update([dtype as u8]);
    for ids in [input_tokens, output_tokens] {
        hasher.update((ids.len() as u32).to_be_bytes());
        for id in ids {
            hasher.update(id.to_be_bytes());
        }
    }
    HashBytes(hasher.finalize().into())
}
