//! How the next token is chosen from logits: a function of the logits, the tokens before, the parameters and the
//! position, with nothing else in it, so that whoever knows them can choose again.
//!
//! In this order: tokens that the JSON schema, if there is one, forbids are left out; penalties; division by the temperature; top-k, top-p and min-p, each of which only raises the least
//! value that stays; then the largest sum of value and Gumbel noise, the lowest id among equals. The noise of token
//! `t` at position `p` (the prompt's tokens counted) under `seed` is `-ln(-ln u)` with `u = (w + ½) / 2³²`, where `w`
//! is word `t mod 4` of [`philox`] of the counter `[t / 4, 0, p mod 2³², p / 2³²]` under the key
//! `[seed mod 2³², seed / 2³²]`. That draws from the softmax of the values that stayed (the Gumbel-max trick).

use std::collections::HashMap;

use crate::error::GenerateError;
use crate::philox::philox;
use crate::schema::SchemaError;
use crate::schema_tokens::Constraint;

/// How tokens are chosen. The default is greedy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 chooses the most likely token, whatever the seed. At most 100.
    pub temperature: f32,
    /// Only this many of the most likely tokens stay, and those equal to the last of them; 0: all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability stay, among those left by top-k; 1: all.
    pub top_p: f32,
    /// Only tokens at least this many times as likely as the most likely stay; 0: all.
    pub min_p: f32,
    /// Logits of tokens in the prompt or the answer are divided by it where positive, else multiplied; 1: not.
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens in the answer; 0: nothing.
    pub presence_penalty: f32,
    /// Taken off the logits of tokens in the answer, for each time they are there; 0: nothing.
    pub frequency_penalty: f32,
    /// Names the noise.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses parameters out of range.
    ///
    /// # Errors
    /// [`GenerateError::Parameter`] with the name of the first.
    pub fn check(&self) -> Result<(), GenerateError> {
        let penalty = -10.0..=10.0;
        for (name, holds) in [
            ("temperature", (0.0..=100.0).contains(&self.temperature)),
            ("top_p", self.top_p > 0.0 && self.top_p <= 1.0),
            ("min_p", (0.0..=1.0).contains(&self.min_p)),
            ("repetition_penalty", (0.01..=100.0).contains(&self.repetition_penalty)),
            ("presence_penalty", penalty.contains(&self.presence_penalty)),
            ("frequency_penalty", penalty.contains(&self.frequency_penalty)),
        ] {
            if !holds {
                return Err(GenerateError::Parameter(name));
            }
        }
        Ok(())
    }
}

/// Chooses the tokens of one answer.
pub(crate) struct Sampler {
    sampling: Sampling,
    /// Tokens of prompt and answer, with how often each is in the answer.
    seen: HashMap<u32, u32>,
    constraint: Option<Constraint>,
}

/// What was chosen, and how far another token was from being chosen instead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) chosen: u32,
    /// How much every logit would have to change for the other token to be chosen, and not less; 0 where it is.
    pub(crate) margin: f32,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, prompt_ids: &[u32]) -> Self {
        let seen = if sampling.repetition_penalty == 1.0 { &[] } else { prompt_ids };
        Self { sampling, seen: seen.iter().map(|id| (*id, 0)).collect(), constraint: None }
    }

    /// Only tokens that `constraint` allows are chosen.
    pub(crate) fn constrained(self, constraint: Option<Constraint>) -> Self {
        Self { constraint, ..self }
    }

    /// Why nothing could be chosen.
    pub(crate) fn failure(&self) -> GenerateError {
        match &self.constraint {
            Some(constraint) if constraint.has_failed() => GenerateError::Schema(SchemaError::TooComplex),
            _ => GenerateError::Backend,
        }
    }

    /// The token at `position`. `None` where no logit is a number.
    pub(crate) fn choose(&self, logits: &[f32], position: usize) -> Option<u32> {
        let values = self.values(logits);
        let least = self.least(&values);
        self.best(&values, least, position).map(|(id, _)| id)
    }

    /// The token at `position`, and how far the nearest of `others` was from being chosen where logits may be wrong
    /// by `tolerance`. `None` where no logit is a number or no other is in the vocabulary.
    pub(crate) fn compare(
        &self,
        logits: &[f32],
        position: usize,
        others: impl Iterator<Item = u32>,
        tolerance: f32,
    ) -> Option<Comparison> {
        let values = self.values(logits);
        let least = self.least(&values);
        let (chosen, _) = self.best(&values, least, position)?;
        let per_logit = if self.sampling.temperature > 0.0 { self.sampling.temperature } else { 1.0 };
        // Only tokens that stay even if the logits are a little wrong may beat another.
        let sure = self.best(&values, least + tolerance / per_logit, position);
        let margin_of = |id: u32| {
            let value = *values.get(id as usize)?;
            if value.is_nan() {
                return Some(f32::INFINITY);
            }
            let beaten_by = sure.map_or(0.0, |(_, best)| best - self.score(id, value, position));
            Some((beaten_by as f32).max(least - value).max(0.0) * per_logit)
        };
        let margin = others.filter_map(margin_of).min_by(f32::total_cmp)?;
        Some(Comparison { chosen, margin })
    }

    /// Counts `id` as a token of the answer.
    pub(crate) fn accept(&mut self, id: u32) {
        *self.seen.entry(id).or_default() += 1;
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id);
        }
    }

    /// Logits after penalties and temperature, NaN where a token must not be chosen.
    fn values(&self, logits: &[f32]) -> Vec<f32> {
        let Sampling { temperature, repetition_penalty, presence_penalty, frequency_penalty, .. } =
            self.sampling;
        let mut values = logits.to_vec();
        for (id, times) in &self.seen {
            let Some(value) = values.get_mut(*id as usize) else { continue };
            *value = if *value > 0.0 { *value / repetition_penalty } else { *value * repetition_penalty };
            if *times > 0 {
                *value -= presence_penalty + *times as f32 * frequency_penalty;
            }
        }
        if temperature > 0.0 {
            values.iter_mut().for_each(|value| *value /= temperature);
        }
        if let Some(constraint) = &self.constraint {
            constraint.forbid(&mut values);
        }
        values
    }

    /// The least value that stays.
    fn least(&self, values: &[f32]) -> f32 {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if temperature == 0.0 || (top_k == 0 && top_p >= 1.0 && min_p == 0.0) {
            return f32::NEG_INFINITY;
        }
        let mut least = if min_p > 0.0 { most + min_p.ln() } else { f32::NEG_INFINITY };
        if top_k == 0 && top_p >= 1.0 {
            return least;
        }
        let mut order: Vec<f32> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        let descending = |a: &f32, b: &f32| b.total_cmp(a);
        if top_k > 0 && top_k < order.len() {
            let (_, last, _) = order.select_nth_unstable_by(top_k - 1, descending);
            let last = *last;
            least = least.max(last);
            order.retain(|value| *value >= last);
        }
        if top_p < 1.0 {
            order.sort_unstable_by(descending);
            let weight = |value: &f32| f64::from(value - most).exp();
            let enough = order.iter().map(weight).sum::<f64>() * f64::from(top_p);
            let mut reached = 0.0;
            for value in &order {
                reached += weight(value);
                if reached >= enough {
                    least = least.max(*value);
                    break;
                }
            }
        }
        least
    }

    /// The best token of value `least` or more, and its score.
    fn best(&self, values: &[f32], least: f32, position: usize) -> Option<(u32, f64)> {
        let mut best: Option<(u32, f64)> = None;
        for (id, value) in (0u32..).zip(values) {
            if value.is_nan() || *value < least {
                continue;
            }
            let score = self.score(id, *value, position);
            if best.is_none_or(|(_, most)| score > most) {
                best = Some((id, score));
            }
        }
        best
    }

    fn score(&self, id: u32, value: f32, position: usize) -> f64 {
        let noise =
            if self.sampling.temperature > 0.0 { gumbel(self.sampling.seed, position, id) } else { 0.0 };
        f64::from(value) + noise
    }
}

/// The noise of a token at a position.
fn gumbel(seed: u64, position: usize, id: u32) -> f64 {
    let position = position as u64;
    let counter = [id / 4, 0, position as u32, (position >> 32) as u32];
    let word = philox(counter, [seed as u32, (seed >> 32) as u32])[(id % 4) as usize];
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -(-uniform.ln()).ln()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 3.0, -1.0, f32::NAN];

    fn drawn(sampling: Sampling, draws: usize) -> Vec<usize> {
        let sampler = Sampler::new(sampling, &[]);
        let mut counts = vec![0; LOGITS.len()];
        for position in 0..draws {
            counts[sampler.choose(&LOGITS, position).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        assert_eq!(Sampler::new(Sampling::default(), &[]).choose(&LOGITS, 7), Some(1));
        assert_eq!(Sampler::new(Sampling::default(), &[]).choose(&[f32::NAN], 0), None);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let temperature = 1.5f32;
        let draws = 40_000;
        let counts = drawn(Sampling { temperature, seed: 0xfeed_0000_0001, ..Sampling::default() }, draws);
        let weights: Vec<f32> = LOGITS[..5].iter().map(|logit| (logit / temperature).exp()).collect();
        let whole: f32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let (seen, due) = (*count as f32 / draws as f32, weight / whole);
            assert!((seen - due).abs() < 0.01, "{seen} for {due}");
        }
        assert_eq!(counts[5], 0);
    }

    #[test]
    fn filters_leave_what_they_say() {
        let base = Sampling { temperature: 2.0, seed: 5, ..Sampling::default() };
        let kept = |sampling| {
            let counts = drawn(sampling, 4_000);
            (0..LOGITS.len()).filter(|id| counts[*id] > 0).collect::<Vec<_>>()
        };
        assert_eq!(kept(base), [0, 1, 2, 3, 4]);
        // Ties of the last are kept.
        assert_eq!(kept(Sampling { top_k: 1, ..base }), [1, 3]);
        assert_eq!(kept(Sampling { top_k: 3, ..base }), [1, 2, 3]);
        assert_eq!(kept(Sampling { top_p: 0.5, ..base }), [1, 3]);
        assert_eq!(kept(Sampling { top_p: 0.7, ..base }), [1, 2, 3]);
        // exp(-2 / 2) = 0.37 of the most likely.
        assert_eq!(kept(Sampling { min_p: 0.36, ..base }), [0, 1, 2, 3]);
        assert_eq!(kept(Sampling { min_p: 0.38, ..base }), [1, 2, 3]);
    }

    #[test]
    fn penalties_count_prompt_and_answer_as_said() {
        let mut sampler =
            Sampler::new(Sampling { repetition_penalty: 2.0, ..Sampling::default() }, &[1, 4, 99]);
        assert_eq!(sampler.values(&LOGITS)[..5], [1.0, 1.5, 2.0, 3.0, -2.0]);
        sampler.accept(3);
        assert_eq!(sampler.values(&LOGITS)[3], 1.5);
        let both = Sampling { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampling::default() };
        let mut sampler = Sampler::new(both, &[1]);
        sampler.accept(3);
        sampler.accept(3);
        assert_eq!(sampler.values(&LOGITS)[..5], [1.0, 3.0, 2.0, 2.0, -1.0]);
    }

    #[test]
    fn a_margin_is_how_much_logits_would_have_to_change() {
        let greedy = Sampler::new(Sampling::default(), &[]);
        let compare = |id| greedy.compare(&LOGITS, 0, std::iter::once(id), 0.01);
        assert_eq!(compare(1), Some(Comparison { chosen: 1, margin: 0.0 }));
        assert_eq!(compare(2), Some(Comparison { chosen: 1, margin: 1.0 }));
        assert_eq!(compare(5), Some(Comparison { chosen: 1, margin: f32::INFINITY }));
        assert_eq!(compare(6), None);
        let sampling = Sampling { temperature: 0.5, top_k: 2, seed: 3, ..Sampling::default() };
        let sampler = Sampler::new(sampling, &[]);
        for position in 0..50 {
            let chosen = sampler.choose(&LOGITS, position).unwrap();
            let own = sampler.compare(&LOGITS, position, std::iter::once(chosen), 0.01).unwrap();
            assert_eq!((own.chosen, own.margin), (chosen, 0.0));
            let cut = sampler.compare(&LOGITS, position, std::iter::once(0), 0.01).unwrap();
            assert!(cut.margin >= 2.0, "a token that top-k drops is at least as far as the filter");
        }
    }

    #[test]
    fn ranges_are_kept() {
        let refused = |sampling: Sampling| matches!(sampling.check(), Err(GenerateError::Parameter(_)));
        assert!(Sampling::default().check().is_ok());
        assert!(refused(Sampling { temperature: f32::NAN, ..Sampling::default() }));
        assert!(refused(Sampling { temperature: -1.0, ..Sampling::default() }));
        assert!(refused(Sampling { top_p: 0.0, ..Sampling::default() }));
        assert!(refused(Sampling { repetition_penalty: 0.0, ..Sampling::default() }));
        assert!(refused(Sampling { frequency_penalty: f32::INFINITY, ..Sampling::default() }));
    }
}
