//! One answer in the making: from logits to tokens, text and its end. Whoever runs the model, alone or in a batch, makes
//! answers here.

use std::mem;

use zeroize::Zeroize;

use crate::engine::{FinishReason, GenerateParams, Generation, TokenLogprobs};
use crate::error::GenerateError;
use crate::sampling::Sampler;
use crate::schema_tokens::Constraint;
use crate::stop::StopStrings;
use crate::text::{Text, TextStream};

/// What an answer is so far.
pub(crate) struct Answer<'a> {
    text: &'a Text,
    stream: TextStream<'a>,
    stop: StopStrings,
    sampler: Sampler,
    prompt_tokens: usize,
    most: usize,
    top_logprobs: Option<usize>,
    output_ids: Vec<u32>,
    output: String,
    logprobs: Vec<TokenLogprobs>,
}

/// What logits led to.
pub(crate) enum Next {
    /// A token, with the text that became certain; the answer may be at its end now.
    Token {
        /// The token.
        id: u32,
        /// Its text, and what waited for it.
        piece: String,
        /// Why the answer ends with it, where it does.
        finished: Option<FinishReason>,
    },
    /// The model ended the answer.
    End,
}

impl<'a> Answer<'a> {
    /// What `params` ask of an answer's form, ready for one answer. May take long where nobody asked for it before.
    ///
    /// # Errors
    /// [`GenerateError::Schema`].
    pub(crate) fn constraint(
        text: &Text,
        params: &GenerateParams,
    ) -> Result<Option<Constraint>, GenerateError> {
        Ok(params.json_schema.as_ref().map(|schema| text.constraint(schema)).transpose()?)
    }

    /// An answer of at most `most` tokens, at least one, to a prompt.
    ///
    /// # Errors
    /// [`GenerateError::Parameter`].
    pub(crate) fn new(
        text: &'a Text,
        prompt_ids: &[u32],
        params: &GenerateParams,
        constraint: Option<Constraint>,
        most: usize,
    ) -> Result<Self, GenerateError> {
        Ok(Self {
            text,
            stream: text.stream(),
            stop: StopStrings::new(&params.stop)?,
            sampler: Sampler::new(params.sampling, prompt_ids).constrained(constraint),
            prompt_tokens: prompt_ids.len(),
            most,
            top_logprobs: params.top_logprobs,
            output_ids: Vec::new(),
            output: String::new(),
            logprobs: Vec::new(),
        })
    }

    /// Chooses the next token.
    ///
    /// # Errors
    /// [`GenerateError::Backend`] where no logit is a number, [`GenerateError::Schema`], [`GenerateError::Tokenizer`].
    pub(crate) fn choose(&mut self, logits: &[f32]) -> Result<Next, GenerateError> {
        let position = self.prompt_tokens + self.output_ids.len();
        let id = self.sampler.choose(logits, position).ok_or_else(|| self.sampler.failure())?;
        if self.text.stop_ids.contains(&id) {
            return Ok(Next::End);
        }
        if let Some(alternatives) = self.top_logprobs {
            self.logprobs.push(TokenLogprobs::of(logits, id, alternatives));
        }
        self.output_ids.push(id);
        self.sampler.accept(id);
        let piece = self.stop.push(&self.stream.push(id)?);
        self.output.push_str(&piece);
        let finished = match self.output_ids.len() {
            _ if self.stop.is_met() => Some(FinishReason::Stop),
            tokens if tokens >= self.most => Some(FinishReason::Length),
            _ => None,
        };
        Ok(Next::Token { id, piece, finished })
    }

    /// How likely the last token was, where asked for.
    pub(crate) fn last_logprobs(&self) -> Option<&TokenLogprobs> {
        self.logprobs.last()
    }

    /// Ends the answer. Returns it with the text that had waited, which is part of it.
    ///
    /// # Errors
    /// [`GenerateError::Tokenizer`].
    pub(crate) fn finish(
        mut self,
        finish_reason: FinishReason,
    ) -> Result<(Generation, String), GenerateError> {
        let mut rest = self.stop.push(&self.stream.finish()?);
        rest.push_str(&self.stop.finish());
        self.output.push_str(&rest);
        let finish_reason = match finish_reason {
            FinishReason::Length if self.stop.is_met() => FinishReason::Stop,
            other => other,
        };
        let generation = Generation {
            output_ids: mem::take(&mut self.output_ids),
            text: mem::take(&mut self.output),
            finish_reason,
            logprobs: mem::take(&mut self.logprobs),
            prefill_ms: 0,
            decode_ms: 0,
        };
        Ok((generation, rest))
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.output.zeroize();
        self.output_ids.zeroize();
    }
}
