//! What the engine needs of a model, whatever backend it runs on.

use crate::attention::BLOCK_TOKENS;
use crate::error::GenerateError;
use crate::shape::Shape;

/// Sees logits: the number of the token they follow, and `[vocabulary]`.
pub(crate) type Visit<'a> = dyn FnMut(usize, &[f32]) -> Result<(), GenerateError> + 'a;

/// A model in memory.
pub(crate) trait Model: Send + Sync {
    fn shape(&self) -> &Shape;

    /// An empty cache for sequences of this model, which together use the first `most_blocks` blocks.
    fn cache(&self, most_blocks: usize) -> Box<dyn Cache + '_>;

    /// Bytes that a block of [`BLOCK_TOKENS`] tokens takes in a cache.
    fn block_bytes(&self) -> usize {
        let Shape { kv_heads, head_size, layers, .. } = self.shape();
        2 * kv_heads * head_size * layers.len() * BLOCK_TOKENS * size_of::<f32>()
    }

    /// A fresh sequence with a cache of its own.
    fn sequence(&self) -> Sequence<'_> {
        Sequence { cache: self.cache(usize::MAX), blocks: Vec::new(), tokens: 0 }
    }
}

/// Tokens that continue one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    pub(crate) tokens: &'a [u32],
    /// Tokens of the sequence that are in the cache already.
    pub(crate) start: usize,
    /// The blocks of the sequence, enough for `start` and these tokens. Those from `start` on are its own.
    pub(crate) blocks: &'a [u32],
    /// The first of `tokens` after which logits are wanted; their number where none are.
    pub(crate) from: usize,
}

/// The keys and values of any number of sequences, in blocks of [`BLOCK_TOKENS`] tokens.
pub(crate) trait Cache: Send {
    /// Puts the tokens of all spans through the model together and returns the wanted logits,
    /// `[wanted][vocabulary]`, in the order of the spans. No sequence is in two spans.
    ///
    /// # Errors
    /// [`GenerateError::UnknownToken`], [`GenerateError::Backend`].
    fn step(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>, GenerateError>;

    /// Bytes of keys and values that it holds.
    fn held_bytes(&self) -> usize;

    /// The vocabulary's size.
    fn vocabulary(&self) -> usize;
}

/// A sequence alone.
pub(crate) struct Sequence<'a> {
    cache: Box<dyn Cache + 'a>,
    blocks: Vec<u32>,
    tokens: usize,
}

/// Tokens of a prompt that go through the layers together. On the processor nothing depends on it; elsewhere it is
/// part of the engine's revision, since another size may round differently.
pub(crate) const PREFILL_CHUNK: usize = 128;

impl Sequence<'_> {
    /// Appends `tokens` and shows the logits after each of them from number `from` (of `tokens`) on.
    ///
    /// # Errors
    /// [`GenerateError::UnknownToken`], [`GenerateError::Backend`], or what `visit` returns.
    pub(crate) fn append(
        &mut self,
        tokens: &[u32],
        from: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), GenerateError> {
        for (index, chunk) in tokens.chunks(PREFILL_CHUNK).enumerate() {
            let before = index * PREFILL_CHUNK;
            let blocks = (self.tokens + chunk.len()).div_ceil(BLOCK_TOKENS);
            let more = self.blocks.len()..blocks;
            self.blocks.extend(more.map(|block| u32::try_from(block).unwrap_or(u32::MAX)));
            let first = from.saturating_sub(before).min(chunk.len());
            let span = Span { tokens: chunk, start: self.tokens, blocks: &self.blocks, from: first };
            let logits = self.cache.step(&[span])?;
            self.tokens += chunk.len();
            for (row, logits) in logits.chunks_exact(self.cache.vocabulary()).enumerate() {
                visit(before + first + row, logits)?;
            }
        }
        Ok(())
    }

    /// Appends `tokens` and returns the logits after the last of them.
    ///
    /// # Errors
    /// As [`Sequence::append`]; [`GenerateError::EmptyPrompt`] without a token.
    pub(crate) fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let mut last = None;
        let from = tokens.len().saturating_sub(1);
        self.append(tokens, from, &mut |_, logits| {
            last = Some(logits.to_vec());
            Ok(())
        })?;
        last.ok_or(GenerateError::EmptyPrompt)
    }
}
