//! The salted commitment of a receipt to what was asked, read and written.

use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;

use crate::receipt::Dtype;
use crate::sealing::FinishReason;

/// What a receipt commits to.
#[derive(Clone, Copy)]
pub struct Transcript<'a> {
    /// Random, and part of the sealed result alone.
    pub salt: &'a [u8; 32],
    /// The model.
    pub model_id: &'a HashBytes,
    /// Revision of the kernels.
    pub engine: u32,
    /// Number format of the weights.
    pub dtype: Dtype,
    /// How it was asked: [`crate::work::GenerateParams::digest`] and its like for other work.
    pub params: &'a HashBytes,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Tokens read.
    pub input_tokens: &'a [u32],
    /// Tokens written, or the numbers of vectors as the bits of an f32.
    pub output_tokens: &'a [u32],
}

impl Transcript<'_> {
    /// `SHA-256("chrysalis/transcript/v2" ‖ salt ‖ model id ‖ engine ‖ dtype (u8) ‖ params ‖ finish reason (u8: 0 stop, 1
    /// length) ‖ n_in ‖ ids ‖ n_out ‖ ids)`; integers are u32 unless said, big-endian.
    pub fn hash(&self) -> HashBytes {
        let mut hasher = Sha256::new_with_prefix(b"chrysalis/transcript/v2");
        hasher.update(self.salt);
        hasher.update(self.model_id.0);
        hasher.update(self.engine.to_be_bytes());
        hasher.update([self.dtype as u8]);
        hasher.update(self.params.0);
        hasher.update([match self.finish_reason {
            FinishReason::Stop => 0,
            FinishReason::Length => 1,
        }]);
        for ids in [self.input_tokens, self.output_tokens] {
            hasher.update((ids.len() as u32).to_be_bytes());
            for id in ids {
                hasher.update(id.to_be_bytes());
            }
        }
        HashBytes(hasher.finalize().into())
    }
}
