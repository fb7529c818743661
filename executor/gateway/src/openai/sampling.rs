//! What requests for text have in common: how tokens are chosen and where the answer ends.

use serde::Deserialize;

use super::error::ApiError;

/// Most answers of one request (`n`).
pub(super) const MAX_CHOICES: u32 = 8;
/// Most stop strings.
pub(super) const MAX_STOPS: usize = 4;
/// Longest stop string, bytes.
pub(super) const MAX_STOP_BYTES: usize = 256;
/// Most alternatives whose log-probability is told.
pub(super) const MAX_TOP_LOGPROBS: u8 = 20;

/// How tokens are chosen, checked. The API's defaults where the request is silent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 to 2; 0 is greedy.
    pub temperature: f32,
    /// Above 0, to 1.
    pub top_p: f32,
    /// 0: all.
    pub top_k: u32,
    /// 0 to 1.
    pub min_p: f32,
    /// Above 0, to 2.
    pub repetition_penalty: f32,
    /// −2 to 2.
    pub presence_penalty: f32,
    /// −2 to 2.
    pub frequency_penalty: f32,
    /// Names the noise; the gateway draws one where the request has none.
    pub seed: Option<u64>,
}

/// The parameters as they stand in a request, flattened into each.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SamplingWire {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) seed: Option<i64>,
}

/// `stop`: a text, several, or none.
#[derive(Deserialize, Default)]
#[serde(untagged)]
pub(crate) enum StopWire {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl SamplingWire {
    pub(crate) fn check(self) -> Result<Sampling, ApiError> {
        let within = |name: &str, value: Option<f32>, default: f32, least: f32, most: f32| {
            let value = value.unwrap_or(default);
            match value.is_finite() && value >= least && value <= most {
                true => Ok(value),
                false => {
                    Err(ApiError::invalid(name, format!("client: {name} has to be from {least} to {most}")))
                }
            }
        };
        Ok(Sampling {
            temperature: within("temperature", self.temperature, 1.0, 0.0, 2.0)?,
            top_p: within("top_p", self.top_p, 1.0, f32::MIN_POSITIVE, 1.0)?,
            top_k: self.top_k.unwrap_or(0),
            min_p: within("min_p", self.min_p, 0.0, 0.0, 1.0)?,
            repetition_penalty: within("repetition_penalty", self.repetition_penalty, 1.0, 0.01, 2.0)?,
            presence_penalty: within("presence_penalty", self.presence_penalty, 0.0, -2.0, 2.0)?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, 0.0, -2.0, 2.0)?,
            // The API's seed is a signed integer; the bits are what counts.
            seed: self.seed.map(i64::cast_unsigned),
        })
    }
}

impl StopWire {
    pub(crate) fn check(self) -> Result<Vec<String>, ApiError> {
        let stops = match self {
            Self::None => Vec::new(),
            Self::One(stop) => vec![stop],
            Self::Many(stops) => stops,
        };
        let fit = stops.len() <= MAX_STOPS
            && stops.iter().all(|stop| !stop.is_empty() && stop.len() <= MAX_STOP_BYTES);
        match fit {
            true => Ok(stops),
            false => Err(ApiError::invalid(
                "stop",
                format!("client: at most {MAX_STOPS} stop strings of 1 to {MAX_STOP_BYTES} bytes"),
            )),
        }
    }
}

/// `n` of a request.
pub(crate) fn choices(n: Option<u32>) -> Result<u32, ApiError> {
    match n.unwrap_or(1) {
        n @ 1..=MAX_CHOICES => Ok(n),
        _ => Err(ApiError::invalid("n", format!("client: n has to be from 1 to {MAX_CHOICES}"))),
    }
}

/// The seed of the `choice`-th answer: each of several differs, the first is the request's own.
pub fn seed_of(seed: u64, choice: u32) -> u64 {
    seed.wrapping_add(u64::from(choice).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
