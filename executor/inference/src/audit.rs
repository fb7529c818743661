//! Checks a claimed answer by one prefill over prompt and answer: at every place the token must be the one that the
//! parameters choose from our own logits, or so near to it that rounding explains the difference.

use crate::engine::{Engine, FinishReason, GenerateParams};
use crate::error::GenerateError;
use crate::sampling::Sampler;
use crate::stop::StopStrings;

/// What an audit found. It carries token ids but no text; its `Debug` shows neither.
#[derive(Clone, PartialEq)]
pub struct AuditVerdict {
    /// Tokens of the answer.
    pub tokens: usize,
    /// How many are exactly those we would have chosen.
    pub exact: usize,
    /// How many differ by more than the tolerance.
    pub departures: usize,
    /// The first of them.
    pub first_departure: Option<Departure>,
    /// The largest margin of a token, in logits.
    pub worst_margin: f32,
    /// The mean over all tokens, in logits.
    pub mean_margin: f32,
    /// Whether it ended where it should have.
    pub ending: Ending,
}

/// A token that cannot have been chosen.
#[derive(Clone, Copy, PartialEq)]
pub struct Departure {
    /// Its place in the answer.
    pub index: usize,
    /// What we would have chosen.
    pub expected: u32,
    /// What the answer says.
    pub claimed: u32,
    /// How far every logit would have to be off, in logits; infinite for a token that ends an answer or is none.
    pub margin: f32,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// As it claims.
    Right,
    /// It stops although the model would have gone on; by how many logits.
    TooEarly {
        /// How far every logit would have to be off; infinite where a limit is claimed and was not reached.
        margin: f32,
    },
    /// It goes on after a stop string or a limit.
    TooLate,
}

impl AuditVerdict {
    /// Whether nothing departs.
    pub fn holds(&self) -> bool {
        self.departures == 0 && self.ending == Ending::Right
    }
}

impl std::fmt::Debug for AuditVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditVerdict")
            .field("tokens", &self.tokens)
            .field("exact", &self.exact)
            .field("departures", &self.departures)
            .field("first_departure", &self.first_departure.map(|departure| departure.index))
            .field("worst_margin", &self.worst_margin)
            .field("mean_margin", &self.mean_margin)
            .field("ending", &self.ending)
            .finish()
    }
}

impl std::fmt::Debug for Departure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Departure")
            .field("index", &self.index)
            .field("margin", &self.margin)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Checks that `output_ids`, ended by `finish_reason`, is what this model answers to `prompt_ids` under `params`.
    /// Logits may be off by `tolerance_logits`, which depends on the two backends; a cancelled answer may end anywhere.
    ///
    /// # Errors
    /// [`GenerateError`] where the request itself could not have been served.
    pub fn audit(
        &self,
        prompt_ids: &[u32],
        output_ids: &[u32],
        finish_reason: FinishReason,
        params: &GenerateParams,
        tolerance_logits: f32,
    ) -> Result<AuditVerdict, GenerateError> {
        let most = self.most_output_tokens(prompt_ids, params)?;
        let vocabulary = self.model.shape().vocabulary;
        let is_token = |id: u32| (id as usize) < vocabulary && !self.text.stop_ids.contains(&id);
        // Nothing after a token that cannot stand in an answer, or beyond the limit, can be scored.
        let scored = output_ids.iter().take(most).take_while(|id| is_token(**id)).count();
        let mut audit = Audit::new(output_ids.len(), tolerance_logits);
        let schema = params.json_schema.as_ref();
        let constraint = schema.map(|schema| self.text.constraint(schema)).transpose()?;
        let mut sampler = Sampler::new(params.sampling, prompt_ids).constrained(constraint);
        let mut ending_margin = f32::INFINITY;
        let (before, all) = (prompt_ids.len() - 1, [prompt_ids, &output_ids[..scored]].concat());
        self.model.sequence().append(&all, before, &mut |at, logits| {
            let index = at - before;
            let next = output_ids.get(index).copied();
            if let Some(claimed) = next.filter(|_| index < scored) {
                let found = sampler
                    .compare(logits, at + 1, std::iter::once(claimed), tolerance_logits)
                    .ok_or_else(|| sampler.failure())?;
                audit.token(index, found.chosen, claimed, found.margin);
                sampler.accept(claimed);
                return Ok(());
            }
            let ends = self.text.stop_ids.iter().copied();
            if let Some(found) = sampler.compare(logits, at + 1, ends, tolerance_logits) {
                ending_margin = found.margin;
            }
            if let Some(claimed) = next.filter(|_| index < most) {
                let expected = sampler.choose(logits, at + 1).ok_or_else(|| sampler.failure())?;
                audit.token(index, expected, claimed, f32::INFINITY);
            }
            Ok(())
        })?;
        let stopped_at = self.stopped_at(output_ids, params)?;
        let whole = output_ids.len();
        audit.verdict.ending = match (stopped_at, finish_reason) {
            (Some(at), _) if at < whole => Ending::TooLate,
            _ if whole > most => Ending::TooLate,
            (Some(_), FinishReason::Stop) | (_, FinishReason::Cancelled) => Ending::Right,
            (_, FinishReason::Length) if whole == most => Ending::Right,
            (_, FinishReason::Length) => Ending::TooEarly { margin: f32::INFINITY },
            (None, FinishReason::Stop) if ending_margin <= tolerance_logits => Ending::Right,
            (None, FinishReason::Stop) => Ending::TooEarly { margin: ending_margin },
        };
        Ok(audit.finished())
    }

    /// After how many tokens a stop string was whole.
    fn stopped_at(&self, ids: &[u32], params: &GenerateParams) -> Result<Option<usize>, GenerateError> {
        let mut stop = StopStrings::new(&params.stop)?;
        if params.stop.is_empty() {
            return Ok(None);
        }
        let mut stream = self.text.stream();
        for (index, id) in ids.iter().enumerate() {
            drop(zeroize::Zeroizing::new(stop.push(&stream.push(*id)?)));
            if stop.is_met() {
                return Ok(Some(index + 1));
            }
        }
        stop.push(&stream.finish()?);
        Ok(stop.is_met().then_some(ids.len()))
    }
}

struct Audit {
    verdict: AuditVerdict,
    tolerance: f32,
    margins: f64,
}

impl Audit {
    fn new(tokens: usize, tolerance: f32) -> Self {
        let verdict = AuditVerdict {
            tokens,
            exact: 0,
            departures: 0,
            first_departure: None,
            worst_margin: 0.0,
            mean_margin: 0.0,
            ending: Ending::Right,
        };
        Self { verdict, tolerance, margins: 0.0 }
    }

    fn token(&mut self, index: usize, expected: u32, claimed: u32, margin: f32) {
        let verdict = &mut self.verdict;
        verdict.exact += usize::from(expected == claimed);
        verdict.worst_margin = verdict.worst_margin.max(margin);
        self.margins += f64::from(margin);
        if margin.is_nan() || margin > self.tolerance {
            verdict.departures += 1;
            let departure = Departure { index, expected, claimed, margin };
            verdict.first_departure.get_or_insert(departure);
        }
    }

    fn finished(mut self) -> AuditVerdict {
        if self.verdict.tokens > 0 {
            self.verdict.mean_margin = (self.margins / self.verdict.tokens as f64) as f32;
        }
        self.verdict
    }
}
