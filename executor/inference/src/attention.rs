//! Attention on the processor over a cache that is never copied.
//!
//! Keys lie in blocks of [`LANES`] tokens, transposed, so that a block's scores come out of one pass without sums
//! across lanes; values lie token by token. Every sum runs over absolute positions in one order, so the result at a
//! position depends neither on how the prompt was cut, nor on the number of threads, nor on the vectors' width.

use rayon::prelude::*;

/// Tokens of a block of keys, and numbers of a head that are mixed at once.
const LANES: usize = 32;
/// Queries that go through the keys together.
const TILE: usize = 4;
/// Products below which starting threads costs more than it saves.
const WORTH_THREADS: usize = 1 << 15;

/// Keys and values of one layer of one sequence.
pub(crate) struct HostCache {
    heads: Vec<HeadCache>,
    size: usize,
    tokens: usize,
}

struct HeadCache {
    /// `[blocks][size][LANES]`, zeros where there is no token yet.
    keys: Vec<f32>,
    /// `[tokens][size]`.
    values: Vec<f32>,
}

/// How queries look at keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) scale: f32,
    /// `cap × tanh(score / cap)`.
    pub(crate) cap: Option<f32>,
    /// A token sees this many of the last tokens, itself among them.
    pub(crate) window: Option<usize>,
}

impl HostCache {
    pub(crate) fn new(kv_heads: usize, size: usize) -> Self {
        let heads = (0..kv_heads).map(|_| HeadCache { keys: Vec::new(), values: Vec::new() }).collect();
        Self { heads, size, tokens: 0 }
    }

    /// Appends `[kv_heads, tokens, size]` of keys and of values.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32]) {
        let (size, before) = (self.size, self.tokens);
        let count = keys.len() / self.heads.len() / size;
        let parts = keys.chunks_exact(count * size).zip(values.chunks_exact(count * size));
        for (head, (keys, values)) in self.heads.iter_mut().zip(parts) {
            head.values.extend_from_slice(values);
            head.keys.resize((before + count).div_ceil(LANES) * LANES * size, 0.0);
            for (token, key) in (before..).zip(keys.chunks_exact(size)) {
                let block = &mut head.keys[token / LANES * LANES * size..];
                for (at, number) in key.iter().enumerate() {
                    block[at * LANES + token % LANES] = *number;
                }
            }
        }
        self.tokens += count;
    }

    /// What the last tokens see: `queries` are `[heads, tokens, size]`, the result is `[tokens, heads × size]`.
    pub(crate) fn attend(&self, queries: &[f32], heads: usize, look: Look) -> Vec<f32> {
        let size = self.size;
        let count = queries.len() / heads / size;
        let group = heads / self.heads.len();
        // [kv_heads][group × tokens][size], as the queries lie already.
        let mut mixed = vec![0.0f32; queries.len()];
        let task = |index: usize, out: &mut [f32]| {
            let first_row = index * TILE;
            let rows = out.len() / size;
            let queries = &queries[first_row * size..(first_row + rows) * size];
            let (before, per_head) = (self.tokens - count, group * count);
            // A tile may reach into the next head: its rows go through one after another then.
            let head_of = |row: usize| row / per_head;
            if rows == TILE && head_of(first_row) == head_of(first_row + TILE - 1) {
                let at = std::array::from_fn(|row| before + (first_row + row) % count);
                run::<TILE>(&self.heads[head_of(first_row)], size, queries, at, look, out);
            } else {
                let parts = queries.chunks_exact(size).zip(out.chunks_exact_mut(size));
                for (row, (query, out)) in (first_row..).zip(parts) {
                    run::<1>(&self.heads[head_of(row)], size, query, [before + row % count], look, out);
                }
            }
        };
        if queries.len() * self.tokens < WORTH_THREADS {
            mixed.chunks_mut(TILE * size).enumerate().for_each(|(index, out)| task(index, out));
        } else {
            mixed.par_chunks_mut(TILE * size).enumerate().for_each(|(index, out)| task(index, out));
        }
        let mut by_token = vec![0.0f32; mixed.len()];
        for (row, part) in mixed.chunks_exact(size).enumerate() {
            let (head, token) = (row / count, row % count);
            by_token[(token * heads + head) * size..][..size].copy_from_slice(part);
        }
        by_token
    }
}

fn run<const N: usize>(
    head: &HeadCache,
    size: usize,
    queries: &[f32],
    at: [usize; N],
    look: Look,
    out: &mut [f32],
) {
    let work = Work { keys: &head.keys, values: &head.values, size, queries, look };
    #[cfg(target_arch = "x86_64")]
    if crate::wide::attend(&work, at, out) {
        return;
    }
    attend_in_order(&work, at, out);
}

/// `N` queries of one head.
pub(crate) struct Work<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    size: usize,
    queries: &'a [f32],
    look: Look,
}

/// The queries at positions `at`. Inlined into callers that may use wider vectors; the order of additions is in the
/// code and the same for every `N`.
#[inline(always)]
pub(crate) fn attend_in_order<const N: usize>(work: &Work<'_>, at: [usize; N], out: &mut [f32]) {
    let Work { keys, values, size, queries, look } = *work;
    let first_of = |position: usize| look.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let mut first = usize::MAX;
    let mut last = 0;
    for position in at {
        first = first.min(first_of(position));
        last = last.max(position);
    }
    let blocks = first / LANES..last / LANES + 1;
    let mut scores = vec![[[0.0f32; LANES]; N]; blocks.len()];
    let mut most = [f32::NEG_INFINITY; N];
    for (scores, block) in scores.iter_mut().zip(blocks.clone()) {
        let (keys, _) = keys[block * LANES * size..(block + 1) * LANES * size].as_chunks::<LANES>();
        for (number, keys) in keys.iter().enumerate() {
            for row in 0..N {
                let query = queries[row * size + number];
                for lane in 0..LANES {
                    scores[row][lane] = query.mul_add(keys[lane], scores[row][lane]);
                }
            }
        }
        for row in 0..N {
            let (from, to) = (first_of(at[row]), at[row]);
            for (lane, score) in scores[row].iter_mut().enumerate() {
                *score *= look.scale;
                if let Some(cap) = look.cap {
                    *score = (*score / cap).tanh() * cap;
                }
                let position = block * LANES + lane;
                let seen = from <= position && position <= to;
                *score = if seen { *score } else { f32::NEG_INFINITY };
                most[row] = if *score > most[row] { *score } else { most[row] };
            }
        }
    }
    let mut sums = [[0.0f32; LANES]; N];
    for scores in &mut scores {
        for row in 0..N {
            for lane in 0..LANES {
                let weight = exp(scores[row][lane] - most[row]);
                scores[row][lane] = weight;
                sums[row][lane] += weight;
            }
        }
    }
    let mut shares = [0.0f32; N];
    for row in 0..N {
        shares[row] = total(sums[row]).recip();
    }
    let mut part = 0;
    while part < size {
        let width = LANES.min(size - part);
        let mut mixed = [[0.0f32; LANES]; N];
        for (scores, block) in scores.iter().zip(blocks.clone()) {
            let from = first.max(block * LANES);
            let to = (last + 1).min((block + 1) * LANES);
            for position in from..to {
                let start = position * size + part;
                let value: [f32; LANES] = match values[start..].first_chunk::<LANES>() {
                    Some(value) if width == LANES => *value,
                    _ => padded(&values[start..start + width]),
                };
                for row in 0..N {
                    let weight = scores[row][position % LANES];
                    for lane in 0..LANES {
                        mixed[row][lane] = weight.mul_add(value[lane], mixed[row][lane]);
                    }
                }
            }
        }
        for row in 0..N {
            for lane in 0..width {
                out[row * size + part + lane] = mixed[row][lane] * shares[row];
            }
        }
        part += LANES;
    }
}

#[inline(always)]
fn padded(values: &[f32]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (out, value) in out.iter_mut().zip(values) {
        *out = *value;
    }
    out
}

#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// e to the power `x ≤ 0`, within 2 units of the last place; 0 below -87 and for minus infinity. Nothing in it differs
/// between processors. The polynomial is that of Cephes' `expf`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Added and taken off again, it leaves the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let inside = if x > -87.0 { x } else { -87.0 };
    let shifted = inside.mul_add(LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2_HIGH, inside));
    let mut sum = 1.987_569_1e-4f32;
    sum = sum.mul_add(rest, 1.398_2e-3);
    sum = sum.mul_add(rest, 8.333_452e-3);
    sum = sum.mul_add(rest, 4.166_579_6e-2);
    sum = sum.mul_add(rest, 1.666_666_5e-1);
    sum = sum.mul_add(rest, 5e-1);
    let fraction = (rest * rest).mul_add(sum, rest) + 1.0;
    // The whole number stands in the lowest bits of `shifted`.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x > -87.0 { fraction * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbers(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
    }

    /// As the formula says, in f64.
    fn plain(
        q: &[f32],
        k: &[f32],
        v: &[f32],
        heads: usize,
        kv_heads: usize,
        size: usize,
        look: Look,
    ) -> Vec<f64> {
        let tokens = q.len() / heads / size;
        let mut out = vec![0.0; q.len()];
        for head in 0..heads {
            let kv = head / (heads / kv_heads);
            for at in 0..tokens {
                let first = look.window.map_or(0, |window| (at + 1).saturating_sub(window));
                let row = |from: &[f32], head: usize, token: usize| -> Vec<f64> {
                    let start = (head * tokens + token) * size;
                    from[start..start + size].iter().map(|number| f64::from(*number)).collect()
                };
                let query = row(q, head, at);
                let weights: Vec<f64> = (first..=at)
                    .map(|key| {
                        let key = row(k, kv, key);
                        let score: f64 = query.iter().zip(&key).map(|(a, b)| a * b).sum();
                        let score = score * f64::from(look.scale);
                        let cap = look.cap.map(f64::from);
                        cap.map_or(score, |cap| (score / cap).tanh() * cap).exp()
                    })
                    .collect();
                let whole: f64 = weights.iter().sum();
                for (key, weight) in (first..=at).zip(weights) {
                    for (number, value) in row(v, kv, key).iter().enumerate() {
                        out[(at * heads + head) * size + number] += weight / whole * value;
                    }
                }
            }
        }
        out
    }

    /// `[heads, tokens, size]`: the tokens of `range` alone.
    fn cut(from: &[f32], heads: usize, size: usize, range: std::ops::Range<usize>) -> Vec<f32> {
        let tokens = from.len() / heads / size;
        (0..heads)
            .flat_map(|head| &from[(head * tokens + range.start) * size..(head * tokens + range.end) * size])
            .copied()
            .collect()
    }

    #[test]
    fn attention_is_what_the_formula_says_however_the_prompt_is_cut() {
        for (heads, kv_heads, size, tokens) in [(6, 2, 64, 77), (3, 3, 8, 40), (4, 1, 80, 33)] {
            for (window, cap) in [(None, None), (Some(9), Some(3.0)), (Some(40), None)] {
                let look = Look { scale: 0.6, cap, window };
                let q = numbers(heads * tokens * size, 0.1);
                let k = numbers(kv_heads * tokens * size, 0.7);
                let v = numbers(kv_heads * tokens * size, 1.3);
                let expected = plain(&q, &k, &v, heads, kv_heads, size, look);
                let mut first: Option<Vec<f32>> = None;
                for pieces in [vec![tokens], vec![1; tokens], vec![30, 2, tokens - 32]] {
                    for threads in [1, 3] {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                        let mut cache = HostCache::new(kv_heads, size);
                        let mut ours = Vec::new();
                        let mut start = 0;
                        for piece in &pieces {
                            let range = start..start + piece;
                            cache.append(
                                &cut(&k, kv_heads, size, range.clone()),
                                &cut(&v, kv_heads, size, range.clone()),
                            );
                            let q = cut(&q, heads, size, range);
                            ours.extend(pool.install(|| cache.attend(&q, heads, look)));
                            start += piece;
                        }
                        for (ours, theirs) in ours.iter().zip(&expected) {
                            assert!((f64::from(*ours) - theirs).abs() < 1e-5, "{ours} {theirs}");
                        }
                        let first = first.get_or_insert_with(|| ours.clone());
                        assert_eq!(*first, ours, "the same bits for {pieces:?} on {threads} threads");
                    }
                }
            }
        }
    }

    #[test]
    fn exp_is_near_the_real_one() {
        for step in 0..87_000 {
            let x = -(step as f32) / 1000.0;
            let (ours, real) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours - real).abs() <= real * 2.5e-7, "{x}: {ours} {real}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }
}
