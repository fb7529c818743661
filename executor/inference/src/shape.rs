//! The numbers that fix a decoder: what every family of models is reduced to.

use std::f64::consts::TAU;

/// A decoder's sizes and the choices its family made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// `llama`, `qwen3`, … as the file names it.
    pub(crate) architecture: String,
    pub(crate) name: String,
    pub(crate) hidden: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) norm_epsilon: f32,
    pub(crate) activation: Activation,
    /// Embeddings are multiplied by it.
    pub(crate) embedding_scale: f32,
    /// Products of queries and keys are multiplied by it.
    pub(crate) attention_scale: f32,
    /// `cap × tanh(score / cap)` of attention scores.
    pub(crate) attention_cap: Option<f32>,
    /// `cap × tanh(logit / cap)` of logits.
    pub(crate) logit_cap: Option<f32>,
    /// Rotations that layers choose from.
    pub(crate) rotations: Vec<Rotation>,
    /// The rows of queries and keys lie so that neighbours are rotated together, not the halves of a head.
    pub(crate) neighbours: bool,
    pub(crate) layers: Vec<LayerShape>,
    pub(crate) experts: Option<Experts>,
}

/// What differs between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerShape {
    /// A token sees this many of the last tokens, itself among them; all where absent.
    pub(crate) window: Option<usize>,
    /// Which of [`Shape::rotations`].
    pub(crate) rotation: usize,
    /// Experts instead of one feed-forward network.
    pub(crate) sparse: bool,
}

/// Mixture of experts: the router's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Experts {
    pub(crate) count: usize,
    /// Experts a token goes through.
    pub(crate) used: usize,
    pub(crate) feed_forward: usize,
    /// Whether the weights of the chosen are made to sum to one.
    pub(crate) normalised: bool,
}

/// The function inside the feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// GELU in its approximation by tanh (arXiv 1606.08415).
    GeluTanh,
}

/// Rotary position embedding: radians a position, of each pair of a head's numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotation {
    pub(crate) frequencies: Vec<f32>,
}

/// How a model stretches its rotation over a longer context than it was first trained for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stretch {
    None,
    Linear {
        factor: f64,
    },
    /// Llama 3.1's rule: high frequencies stay, low ones are divided, those between are mixed.
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        original_context: f64,
    },
    /// GGUF's form of the same: a divisor of each frequency.
    Divisors(Vec<f32>),
}

impl Rotation {
    /// The rotation of heads of `head_size` numbers. `None` where `stretch` does not fit or is out of range.
    pub(crate) fn new(head_size: usize, base: f64, stretch: &Stretch) -> Option<Self> {
        let half = head_size / 2;
        if !(base.is_finite() && base > 1.0) {
            return None;
        }
        let plain = (0..half).map(|pair| base.powf((2 * pair) as f64 / head_size as f64).recip());
        let frequencies: Vec<f32> = match stretch {
            Stretch::None => plain.map(|frequency| frequency as f32).collect(),
            Stretch::Linear { factor } => plain.map(|frequency| (frequency / factor) as f32).collect(),
            Stretch::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_context,
            } => plain
                .map(|frequency| {
                    let turns = original_context * frequency / TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    ((1.0 - kept) * frequency / factor + kept * frequency) as f32
                })
                .collect(),
            Stretch::Divisors(divisors) if divisors.len() == half => plain
                .zip(divisors)
                .map(|(frequency, divisor)| (frequency / f64::from(*divisor)) as f32)
                .collect(),
            Stretch::Divisors(_) => return None,
        };
        let sane = frequencies.iter().all(|frequency| frequency.is_finite() && *frequency >= 0.0);
        sane.then_some(Self { frequencies })
    }
}

impl Shape {
    /// Refuses sizes that cannot be, before anything is allocated for them.
    pub(crate) fn checked(self) -> Result<Self, String> {
        let within = |what: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{what} is {value}, not in 1..={most}"))
            }
        };
        within("the number of layers", self.layers.len(), MAX_LAYERS)?;
        within("the hidden size", self.hidden, 1 << 17)?;
        within("the feed-forward size", self.feed_forward, 1 << 19)?;
        within("the number of heads", self.heads, 1 << 10)?;
        within("the number of key heads", self.kv_heads, self.heads)?;
        within("the size of a head", self.head_size, MAX_HEAD_SIZE)?;
        within("the vocabulary", self.vocabulary, 1 << 21)?;
        within("the context", self.context, 1 << 24)?;
        if let Some(experts) = self.experts {
            within("the number of experts", experts.count, 1 << 12)?;
            within("the number of experts a token uses", experts.used, experts.count)?;
            within("an expert's feed-forward size", experts.feed_forward, 1 << 19)?;
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads do not share {} key heads evenly", self.heads, self.kv_heads));
        }
        if !self.head_size.is_multiple_of(2) {
            return Err(format!("a head of {} numbers cannot be rotated", self.head_size));
        }
        let positive = |value: f32| value.is_finite() && value > 0.0;
        let sane = positive(self.norm_epsilon)
            && positive(self.embedding_scale)
            && positive(self.attention_scale)
            && self.attention_cap.is_none_or(positive)
            && self.logit_cap.is_none_or(positive)
            && self.layers.iter().all(|layer| {
                layer.rotation < self.rotations.len()
                    && layer.window.is_none_or(|window| window > 0)
                    && (!layer.sparse || self.experts.is_some())
            })
            && self.rotations.iter().all(|rotation| rotation.frequencies.len() == self.head_size / 2);
        if sane { Ok(self) } else { Err("a scale, cap, window or rotation is out of range".into()) }
    }
}

/// Layers a model may have; checked before a list of them is made.
pub(crate) const MAX_LAYERS: usize = 1_000;
/// Numbers a head may have; checked before its frequencies are made.
pub(crate) const MAX_HEAD_SIZE: usize = 1 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let stretch = Stretch::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        };
        let plain = Rotation::new(128, 500_000.0, &Stretch::None).unwrap().frequencies;
        let stretched = Rotation::new(128, 500_000.0, &stretch).unwrap().frequencies;
        assert_eq!(plain[0], stretched[0]);
        assert_eq!(plain[63] / 8.0, stretched[63]);
        assert!(plain.iter().zip(&stretched).any(|(a, b)| b < a && *b > a / 8.0));
    }

    #[test]
    fn rotations_that_cannot_be_are_refused() {
        assert!(Rotation::new(8, f64::NAN, &Stretch::None).is_none());
        assert!(Rotation::new(8, 1e4, &Stretch::Divisors(vec![1.0; 3])).is_none());
        assert!(Rotation::new(8, 1e4, &Stretch::Divisors(vec![0.0; 4])).is_none());
        assert!(Rotation::new(8, 1e4, &Stretch::Linear { factor: 0.0 }).is_none());
    }
}
