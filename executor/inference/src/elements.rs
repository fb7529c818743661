//! What happens to the numbers of a token between matrices. Nothing here depends on other tokens, and the order of
//! additions is in the code, so neither the batch nor the vectors' width shows in the bits.

use crate::attention::exp;
use crate::shape::Activation;

/// Accumulators of a sum.
const LANES: usize = 32;

/// RMSNorm (arXiv 1910.07467) of one row: `x / √(mean(x²) + ε) × weight`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    widest(
        #[inline(always)]
        || {
            let scale = norm_scale(x, epsilon);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * weight;
            }
        },
    );
}

/// The same where the row lies.
pub(crate) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    widest(
        #[inline(always)]
        || {
            let scale = norm_scale(x, epsilon);
            for (x, weight) in x.iter_mut().zip(weight) {
                *x = *x * scale * weight;
            }
        },
    );
}

/// `to += from`.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    widest(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        },
    );
}

/// `gate = activation(gate) × up`.
pub(crate) fn gate(activation: Activation, gate: &mut [f32], up: &[f32]) {
    widest(
        #[inline(always)]
        || match activation {
            Activation::Silu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = *gate * sigmoid(*gate) * up;
                }
            }
            Activation::GeluTanh => {
                // (1 + tanh(u)) / 2 is the logistic function of 2 u.
                const TWICE_ROOT_2_OVER_PI: f32 = 1.595_769_2;
                for (gate, up) in gate.iter_mut().zip(up) {
                    let inner = (*gate * *gate * *gate).mul_add(0.044_715, *gate);
                    *gate = *gate * sigmoid(inner * TWICE_ROOT_2_OVER_PI) * up;
                }
            }
        },
    );
}

/// Rotary position embedding (arXiv 2104.09864) of heads of `2 × cosines` numbers: the halves of a head together as in
/// Hugging Face, or neighbours as in ggml.
pub(crate) fn rotate(heads: &mut [f32], cosines: &[f32], sines: &[f32], neighbours: bool) {
    widest(
        #[inline(always)]
        || {
            for head in heads.chunks_exact_mut(2 * cosines.len()) {
                let turns = cosines.iter().zip(sines);
                if neighbours {
                    for ([first, second], turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                        (*first, *second) = turned(*first, *second, turn);
                    }
                } else {
                    let (firsts, seconds) = head.split_at_mut(cosines.len());
                    for ((first, second), turn) in firsts.iter_mut().zip(seconds).zip(turns) {
                        (*first, *second) = turned(*first, *second, turn);
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn turned(first: f32, second: f32, (cosine, sine): (&f32, &f32)) -> (f32, f32) {
    (first * cosine - second * sine, second * cosine + first * sine)
}

/// What makes the root of the mean of squares one.
#[inline(always)]
fn norm_scale(x: &[f32], epsilon: f32) -> f32 {
    let (parts, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for part in parts {
        let mut lane = 0;
        while lane < LANES {
            sums[lane] = part[lane].mul_add(part[lane], sums[lane]);
            lane += 1;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum = x.mul_add(*x, *sum);
    }
    let mut width = LANES / 2;
    while width > 0 {
        let mut lane = 0;
        while lane < width {
            sums[lane] += sums[lane + width];
            lane += 1;
        }
        width /= 2;
    }
    (sums[0] / x.len() as f32 + epsilon).sqrt().recip()
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let small = exp(-x.abs());
    let upper = if x >= 0.0 { 1.0 } else { small };
    upper / (1.0 + small)
}

#[inline(always)]
fn widest(work: impl FnOnce()) {
    #[cfg(target_arch = "x86_64")]
    crate::wide::widest(work);
    #[cfg(not(target_arch = "x86_64"))]
    work();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37).sin() * 9.0).collect()
    }

    #[test]
    fn a_norm_is_what_the_formula_says() {
        for count in [1, 31, 64, 577] {
            let (x, weight) = (numbers(count), numbers(count + 1)[1..].to_vec());
            let mean = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / count as f64;
            let mut ours = vec![0.0; count];
            rms_norm(&x, &weight, 1e-5, &mut ours);
            for ((ours, x), weight) in ours.iter().zip(&x).zip(&weight) {
                let real = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*weight);
                assert!((f64::from(*ours) - real).abs() <= 1e-5, "{ours} {real}");
            }
            let mut here = x.clone();
            rms_norm_in_place(&mut here, &weight, 1e-5);
            assert_eq!(here, ours);
        }
    }

    #[test]
    fn neighbours_turn_as_halves_do() {
        let (cosines, sines) = (numbers(8), numbers(9)[1..].to_vec());
        let mut halves = numbers(32);
        let interleave = |numbers: &[f32]| -> Vec<f32> {
            let heads = numbers.chunks_exact(16);
            heads.flat_map(|head| (0..16).map(|at| head[at / 2 + at % 2 * 8])).collect()
        };
        let mut neighbours = interleave(&halves);
        rotate(&mut halves, &cosines, &sines, false);
        rotate(&mut neighbours, &cosines, &sines, true);
        assert_eq!(interleave(&halves), neighbours);
    }

    #[test]
    fn gates_are_what_the_formulas_say_also_far_out() {
        let mut x = numbers(200);
        x.extend([0.0, -0.0, 100.0, -100.0, 3e38, -3e38]);
        let up = vec![0.5; x.len()];
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let mut ours = x.clone();
            gate(activation, &mut ours, &up);
            for (ours, x) in ours.iter().zip(&x) {
                let x = f64::from(*x);
                let real = match activation {
                    Activation::Silu => x / (1.0 + (-x).exp()),
                    Activation::GeluTanh => {
                        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                        x * 0.5 * (1.0 + inner.tanh())
                    }
                } * 0.5;
                assert!((f64::from(*ours) - real).abs() <= real.abs() * 2e-6 + 2e-6, "{x}: {ours} {real}");
            }
        }
    }
}
