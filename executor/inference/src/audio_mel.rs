//! What a speech model hears: the log-mel spectrogram of Whisper (arXiv 2212.04356, section 2.2), as transformers'
//! `WhisperFeatureExtractor` computes it. Sums run in f64, in an order of their own for each frame.

use std::f64::consts::TAU;

use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::audio::SAMPLES_PER_S;

/// Samples between two frames, and samples a frame looks at.
pub(crate) const HOP: usize = 160;
const FRAME: usize = 400;
const HALF: usize = FRAME / 2;
/// Frequencies of a frame, from 0 Hz to half the sample rate.
const BINS: usize = HALF + 1;

/// The tables of a spectrogram with so many mel bands.
pub(crate) struct Mel {
    window: Vec<f64>,
    /// `[HALF + 1][BINS]`: cosines and sines of sample times frequency.
    cosines: Vec<f64>,
    sines: Vec<f64>,
    /// For each band, its first bin and its weights.
    filters: Vec<(usize, Vec<f64>)>,
}

impl Mel {
    pub(crate) fn new(bands: usize) -> Self {
        let turn = |index: usize| TAU * (index % FRAME) as f64 / FRAME as f64;
        let table = |of: fn(f64) -> f64| -> Vec<f64> {
            (0..=HALF).flat_map(|n| (0..BINS).map(move |k| of(turn(n * k)))).collect()
        };
        Self {
            window: (0..FRAME).map(|n| 0.5 - 0.5 * turn(n).cos()).collect(),
            cosines: table(f64::cos),
            sines: table(f64::sin),
            filters: filters(bands),
        }
    }

    /// `[frames, bands]` of `samples`, filled up with silence to so many frames, which are an even number at least.
    pub(crate) fn log(&self, samples: &[f32], frames: usize) -> Zeroizing<Vec<f32>> {
        let bands = self.filters.len();
        let length = frames * HOP;
        // Beyond both ends the window is mirrored.
        let sample = |at: isize| {
            let at = at.unsigned_abs();
            let at = if at >= length { 2 * (length - 1) - at.min(2 * (length - 1)) } else { at };
            samples.get(at).map_or(0.0, |sample| f64::from(*sample))
        };
        let mut mel = Zeroizing::new(vec![0.0f32; frames * bands]);
        mel.par_chunks_mut(bands).enumerate().for_each(|(frame, out)| {
            let start = (frame * HOP) as isize - HALF as isize;
            let at = |n: usize| self.window[n] * sample(start + n as isize);
            let mut real = vec![0.0f64; BINS];
            let mut imaginary = vec![0.0f64; BINS];
            for n in 0..=HALF {
                // The transform of real samples: those that lie mirrored share their cosine and, but for the sign,
                // their sine.
                let (even, odd) = match n {
                    0 | HALF => (at(n), 0.0),
                    _ => (at(n) + at(FRAME - n), at(n) - at(FRAME - n)),
                };
                let row = n * BINS..(n + 1) * BINS;
                for (sum, cosine) in real.iter_mut().zip(&self.cosines[row.clone()]) {
                    *sum += even * cosine;
                }
                for (sum, sine) in imaginary.iter_mut().zip(&self.sines[row]) {
                    *sum += odd * sine;
                }
            }
            for ((first, weights), out) in self.filters.iter().zip(out) {
                let bins = real[*first..].iter().zip(&imaginary[*first..]);
                let power: f64 =
                    bins.zip(weights).map(|((re, im), weight)| (re * re + im * im) * weight).sum();
                *out = power.max(1e-10).log10() as f32;
            }
        });
        let least = mel.iter().copied().fold(f32::NEG_INFINITY, f32::max) - 8.0;
        mel.iter_mut().for_each(|value| *value = (value.max(least) + 4.0) / 4.0);
        mel
    }
}

/// Triangles of equal area on Slaney's mel scale (Auditory Toolbox, 1998).
fn filters(bands: usize) -> Vec<(usize, Vec<f64>)> {
    let step = 6.4f64.ln() / 27.0;
    let mel_of = |hertz: f64| {
        if hertz < 1_000.0 { hertz * 3.0 / 200.0 } else { 15.0 + (hertz / 1_000.0).ln() / step }
    };
    let hertz_of = |mel: f64| {
        if mel < 15.0 { mel * 200.0 / 3.0 } else { 1_000.0 * ((mel - 15.0) * step).exp() }
    };
    let nyquist = SAMPLES_PER_S as f64 / 2.0;
    let highest = mel_of(nyquist);
    let edges: Vec<f64> =
        (0..bands + 2).map(|edge| hertz_of(highest * edge as f64 / (bands + 1) as f64)).collect();
    let bin = |k: usize| nyquist * k as f64 / (BINS - 1) as f64;
    edges
        .windows(3)
        .map(|edges| {
            let [low, centre, high] = [edges[0], edges[1], edges[2]];
            let weight = |k: usize| {
                let rising = (bin(k) - low) / (centre - low);
                let falling = (high - bin(k)) / (high - centre);
                rising.min(falling).max(0.0) * 2.0 / (high - low)
            };
            let inside: Vec<usize> = (0..BINS).filter(|k| weight(*k) > 0.0).collect();
            let first = inside.first().copied().unwrap_or(0);
            (first, inside.into_iter().map(weight).collect())
        })
        .collect()
}
