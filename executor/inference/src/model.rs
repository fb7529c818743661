//! What the engine needs of a model, whatever backend it runs on.

use crate::error::GenerateError;
use crate::shape::Shape;

/// Sees logits: the number of the token they follow, and `[vocabulary]`.
pub(crate) type Visit<'a> = dyn FnMut(usize, &[f32]) -> Result<(), GenerateError> + 'a;

/// A model in memory.
pub(crate) trait Model: Send + Sync {
    fn shape(&self) -> &Shape;

    /// A fresh sequence.
    fn sequence(&self) -> Box<dyn Sequence + '_>;
}

/// The keys and values of one sequence.
pub(crate) trait Sequence {
    /// Appends `tokens` and shows the logits after each of them from number `from` (of `tokens`) on.
    ///
    /// # Errors
    /// [`GenerateError::UnknownToken`], [`GenerateError::Backend`], or what `visit` returns.
    fn append(&mut self, tokens: &[u32], from: usize, visit: &mut Visit<'_>) -> Result<(), GenerateError>;

    /// Appends `tokens` and returns the logits after the last of them.
    ///
    /// # Errors
    /// As [`Sequence::append`]; [`GenerateError::EmptyPrompt`] without a token.
    fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let mut last = None;
        let from = tokens.len().saturating_sub(1);
        self.append(tokens, from, &mut |_, logits| {
            last = Some(logits.to_vec());
            Ok(())
        })?;
        last.ok_or(GenerateError::EmptyPrompt)
    }
}
