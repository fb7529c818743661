//! Attention on the processor over a paged cache.
//!
//! A block holds [`BLOCK_TOKENS`] tokens of one sequence, in all layers; a sequence's list of blocks says where its
//! tokens lie. Within a block keys are transposed, so that its scores come out of one pass without sums across lanes;
//! values lie token by token. Every sum runs over absolute positions in one order, so the result at a position depends
//! neither on how the prompt was cut, nor on which blocks it lies in or what they held before, nor on other sequences,
//! the number of threads or the vectors' width.

use std::ops::Range;

use crate::aligned::Aligned;
use crate::team::Leader;

/// Tokens of a block.
pub(crate) const BLOCK_TOKENS: usize = LANES;
/// Tokens of a block of keys, and numbers of a head that are mixed at once.
const LANES: usize = 32;
/// Queries that go through the keys together, at most.
const TILE: usize = 8;
/// Products below which sharing the work costs more than it saves.
const WORTH_THREADS: usize = 1 << 15;
/// Products from which it is worth going through a task with all threads, where there are few tasks.
const WORTH_SPLITTING: usize = 1 << 18;
/// Blocks of a task that go together then.
const SEGMENT: usize = 8;

/// Keys and values of any number of sequences, in all layers.
pub(crate) struct HostCache {
    layers: usize,
    kv_heads: usize,
    size: usize,
    /// `[layers][kv_heads][2][size × BLOCK_TOKENS]` each: keys transposed, then values. Empty until first used.
    blocks: Vec<Aligned>,
}

/// Consecutive tokens of one sequence within a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The first of them, counted over the batch.
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// The position of the first in its sequence.
    pub(crate) start: usize,
    /// The blocks of the sequence, at least up to its last token here.
    pub(crate) blocks: &'a [u32],
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
    pub(crate) fn new(layers: usize, kv_heads: usize, size: usize) -> Self {
        Self { layers, kv_heads, size, blocks: Vec::new() }
    }

    /// Bytes that the blocks in use, now or before, take.
    pub(crate) fn held_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.len() * size_of::<f32>()).sum()
    }

    /// Makes sure that the blocks which `batch` writes to are there.
    pub(crate) fn reserve(&mut self, batch: &[Rows<'_>]) {
        let numbers = self.layers * self.kv_heads * 2 * self.size * BLOCK_TOKENS;
        for rows in batch.iter().filter(|rows| rows.count > 0) {
            let written = rows.start / BLOCK_TOKENS..=(rows.start + rows.count - 1) / BLOCK_TOKENS;
            for block in &rows.blocks[written] {
                let block = *block as usize;
                if block >= self.blocks.len() {
                    self.blocks.resize_with(block + 1, Aligned::default);
                }
                if self.blocks[block].is_empty() {
                    self.blocks[block] = Aligned::new(numbers);
                }
            }
        }
    }

    /// Puts keys and values of a batch, `[tokens, kv_heads, size]` each, to their sequences'. The blocks must have been
    /// reserved.
    pub(crate) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32], batch: &[Rows<'_>]) {
        let (size, kv_heads) = (self.size, self.kv_heads);
        for rows in batch {
            for token in 0..rows.count {
                let position = rows.start + token;
                let block = rows.blocks[position / BLOCK_TOKENS] as usize;
                let within = position % BLOCK_TOKENS;
                for head in 0..kv_heads {
                    let from = ((rows.first + token) * kv_heads + head) * size;
                    let (key, value) = (&keys[from..from + size], &values[from..from + size]);
                    let at = self.head_at(layer, head);
                    let (into_keys, into_values) =
                        self.blocks[block][at..at + 2 * size * LANES].split_at_mut(size * LANES);
                    for (lanes, number) in into_keys.chunks_exact_mut(LANES).zip(key) {
                        lanes[within] = *number;
                    }
                    into_values[within * size..(within + 1) * size].copy_from_slice(value);
                }
            }
        }
    }

    /// What the tokens of a batch see: `queries` and `out` are `[tokens, heads, size]`.
    pub(crate) fn attend(
        &self,
        leader: &Leader<'_>,
        layer: usize,
        (queries, heads): (&[f32], usize),
        batch: &[Rows<'_>],
        look: Look,
        out: &mut [f32],
    ) {
        let size = self.size;
        let group = heads / self.kv_heads;
        let mut tasks = Vec::new();
        let mut work = 0;
        for rows in batch {
            work += rows.count * heads * size * (rows.start + rows.count);
            for kv_head in 0..self.kv_heads {
                // The query heads that share keys become further rows of them.
                for first in (0..group * rows.count).step_by(TILE) {
                    tasks.push(Task { rows, kv_head, first, count: TILE.min(group * rows.count - first) });
                }
            }
        }
        let mut parts = vec![0.0f32; tasks.len() * TILE * size];
        let ready = |index: usize| self.ready(layer, (queries, heads), &tasks[index], look);
        if work >= WORTH_SPLITTING && tasks.len() < 3 * leader.threads() && leader.threads() > 1 {
            let ready: Vec<Ready<'_>> = (0..tasks.len()).map(ready).collect();
            self.attend_split(leader, &ready, &mut parts);
        } else {
            let run = |index: usize, out: &mut [f32]| {
                let ready = ready(index);
                let blocks = ready.blocks();
                let mut scores = vec![[0.0f32; LANES]; blocks.len() * ready.count];
                let mut most = [f32::NEG_INFINITY; TILE];
                let mut shares = [0.0f32; TILE];
                ready.run(&mut Stage::Score { blocks, scores: &mut scores, most: &mut most });
                let mut sums = [[0.0f32; LANES]; TILE];
                ready.run(&mut Stage::Weigh { scores: &mut scores, most: &most, sums: &mut sums });
                share(&sums, &mut shares);
                for part in (0..size).step_by(LANES) {
                    let mut mixed = [[0.0f32; LANES]; TILE];
                    let blocks = ready.blocks();
                    ready.run(&mut Stage::Mix { blocks, scores: &scores, part, mixed: &mut mixed });
                    let width = LANES.min(size - part);
                    for ((out, mixed), share) in out.chunks_exact_mut(size).zip(&mixed).zip(&shares) {
                        for (out, mixed) in out[part..part + width].iter_mut().zip(mixed) {
                            *out = mixed * share;
                        }
                    }
                }
            };
            if work < WORTH_THREADS {
                parts.chunks_mut(TILE * size).enumerate().for_each(|(index, part)| run(index, part));
            } else {
                leader.chunks(&mut parts, TILE * size, &run);
            }
        }
        for (task, part) in tasks.iter().zip(parts.chunks_exact(TILE * size)) {
            let Task { rows, kv_head, first, count } = task;
            for (row, part) in (*first..first + count).zip(part.chunks_exact(size)) {
                let (head, token) = (kv_head * group + row / rows.count, row % rows.count);
                out[((rows.first + token) * heads + head) * size..][..size].copy_from_slice(part);
            }
        }
    }

    /// Few queries that see much: all threads go through the keys of each, then through parts of the values. Every
    /// sum runs as it does otherwise.
    fn attend_split(&self, leader: &Leader<'_>, ready: &[Ready<'_>], parts: &mut [f32]) {
        let size = self.size;
        let segments = ready.iter().map(|ready| ready.blocks().len().div_ceil(SEGMENT)).max().unwrap_or(0);
        let per_segment = SEGMENT * TILE;
        let mut scores = vec![[0.0f32; LANES]; ready.len() * segments * per_segment];
        let of_segment = |ready: &Ready<'_>, segment: usize| {
            let blocks = ready.blocks();
            let start = blocks.start + segment * SEGMENT;
            start.min(blocks.end)..(start + SEGMENT).min(blocks.end)
        };
        leader.chunks(&mut scores, per_segment, &|index, scores| {
            let (ready, segment) = (&ready[index / segments], index % segments);
            let blocks = of_segment(ready, segment);
            // Found again over all segments.
            let scores = &mut scores[..blocks.len() * ready.count];
            let mut most = [f32::NEG_INFINITY; TILE];
            ready.run(&mut Stage::Score { blocks, scores, most: &mut most });
        });
        let mut shares = vec![[0.0f32; TILE]; ready.len()];
        let mut weighed: Vec<_> = scores.chunks_mut(segments * per_segment).zip(&mut shares).collect();
        leader.chunks(&mut weighed, 1, &|index, weighed| {
            let ready = &ready[index];
            for (scores, shares) in weighed {
                let mut most = [f32::NEG_INFINITY; TILE];
                for (segment, scores) in scores.chunks(per_segment).enumerate() {
                    let scores = &scores[..of_segment(ready, segment).len() * ready.count];
                    for rows in scores.chunks_exact(ready.count) {
                        for (row, most) in rows.iter().zip(&mut most) {
                            for score in row {
                                *most = if *score > *most { *score } else { *most };
                            }
                        }
                    }
                }
                let mut sums = [[0.0f32; LANES]; TILE];
                for (segment, scores) in scores.chunks_mut(per_segment).enumerate() {
                    let scores = &mut scores[..of_segment(ready, segment).len() * ready.count];
                    ready.run(&mut Stage::Weigh { scores, most: &most, sums: &mut sums });
                }
                share(&sums, shares);
            }
        });
        let mut outs: Vec<(&mut [f32], usize)> =
            parts.chunks_mut(TILE * size).map(|out| (out, size)).collect();
        leader.strips(&mut outs, LANES, &|index, strip| {
            let (ready, columns) = (&ready[index], strip.columns());
            let mut mixed = [[0.0f32; LANES]; TILE];
            let scores = &scores[index * segments * per_segment..(index + 1) * segments * per_segment];
            for (segment, scores) in scores.chunks(per_segment).enumerate() {
                let blocks = of_segment(ready, segment);
                let scores = &scores[..blocks.len() * ready.count];
                ready.run(&mut Stage::Mix { blocks, scores, part: columns.start, mixed: &mut mixed });
            }
            for (row, mixed) in mixed.iter().enumerate().take(ready.count) {
                for (out, mixed) in strip.row(row).iter_mut().zip(mixed) {
                    *out = mixed * shares[index][row];
                }
            }
        });
    }

    fn ready<'a>(
        &'a self,
        layer: usize,
        (queries, heads): (&[f32], usize),
        task: &Task<'a>,
        look: Look,
    ) -> Ready<'a> {
        let (size, group) = (self.size, heads / self.kv_heads);
        let Task { rows, kv_head, first, count } = *task;
        let mut gathered = vec![0.0f32; count * size];
        let mut at = [0; TILE];
        for ((query, at), row) in gathered.chunks_exact_mut(size).zip(&mut at).zip(first..) {
            let (head, token) = (kv_head * group + row / rows.count, row % rows.count);
            let from = ((rows.first + token) * heads + head) * size;
            query.copy_from_slice(&queries[from..from + size]);
            *at = rows.start + token;
        }
        let head_at = self.head_at(layer, kv_head);
        Ready { cache: self, head_at, blocks: rows.blocks, queries: gathered, look, at, count }
    }

    /// Where a head's numbers begin in a block.
    fn head_at(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.kv_heads + kv_head) * 2 * self.size * LANES
    }
}

/// Queries of one sequence that look at the same keys.
#[derive(Clone, Copy)]
struct Task<'a> {
    rows: &'a Rows<'a>,
    kv_head: usize,
    /// Of the rows `[group × tokens]`.
    first: usize,
    count: usize,
}

/// The queries of a task.
pub(crate) struct Ready<'a> {
    cache: &'a HostCache,
    head_at: usize,
    blocks: &'a [u32],
    /// `[count, size]`.
    queries: Vec<f32>,
    look: Look,
    /// Their positions.
    at: [usize; TILE],
    count: usize,
}

/// A part of the work on a task. Rows are its queries; scores and weights are `[blocks][count]` times [`LANES`].
pub(crate) enum Stage<'a> {
    /// Scores of the blocks, and the highest of each row.
    Score { blocks: Range<usize>, scores: &'a mut [[f32; LANES]], most: &'a mut [f32; TILE] },
    /// Scores to weights, which are added to the sums.
    Weigh { scores: &'a mut [[f32; LANES]], most: &'a [f32; TILE], sums: &'a mut [[f32; LANES]; TILE] },
    /// Adds numbers `part` and those after it of the blocks' values, times their weights.
    Mix { blocks: Range<usize>, scores: &'a [[f32; LANES]], part: usize, mixed: &'a mut [[f32; LANES]; TILE] },
}

impl Ready<'_> {
    /// The first position that the query at `position` sees.
    #[inline(always)]
    fn first_of(&self, position: usize) -> usize {
        self.look.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The first and the last position that any of the queries sees.
    #[inline(always)]
    fn span(&self) -> (usize, usize) {
        let (mut first, mut last) = (usize::MAX, 0);
        for position in &self.at[..self.count] {
            first = first.min(self.first_of(*position));
            last = last.max(*position);
        }
        (first, last)
    }

    /// The blocks that any of the queries sees.
    fn blocks(&self) -> Range<usize> {
        let (first, last) = self.span();
        first / LANES..last / LANES + 1
    }

    fn run(&self, stage: &mut Stage<'_>) {
        match self.count {
            8 => run::<8>(self, stage),
            7 => run::<7>(self, stage),
            6 => run::<6>(self, stage),
            5 => run::<5>(self, stage),
            4 => run::<4>(self, stage),
            3 => run::<3>(self, stage),
            2 => run::<2>(self, stage),
            _ => run::<1>(self, stage),
        }
    }

    #[inline(always)]
    fn keys(&self, block: usize) -> &[f32] {
        let numbers = self.cache.size * LANES;
        &self.cache.blocks[self.blocks[block] as usize][self.head_at..self.head_at + numbers]
    }

    #[inline(always)]
    fn values(&self, block: usize) -> &[f32] {
        let numbers = self.cache.size * LANES;
        let from = self.head_at + numbers;
        &self.cache.blocks[self.blocks[block] as usize][from..from + numbers]
    }
}

fn run<const N: usize>(ready: &Ready<'_>, stage: &mut Stage<'_>) {
    #[cfg(target_arch = "x86_64")]
    if crate::wide::attend::<N>(ready, stage) {
        return;
    }
    attend_in_order::<Portable, N>(ready, stage);
}

/// What each row's weights are to be multiplied with for their sum to be one.
fn share(sums: &[[f32; LANES]; TILE], shares: &mut [f32; TILE]) {
    for (share, sums) in shares.iter_mut().zip(sums) {
        *share = total(*sums).recip();
    }
}

/// A stage for `N` queries. Inlined into callers that may use wider vectors; the order of additions is in the code and
/// the same for every `N`. `K` does what most of the time goes into.
#[inline(always)]
pub(crate) fn attend_in_order<K: Kernels, const N: usize>(ready: &Ready<'_>, stage: &mut Stage<'_>) {
    let Ready { look, ref at, ref queries, .. } = *ready;
    let size = ready.cache.size;
    match stage {
        Stage::Score { blocks, scores, most } => {
            let mut highest = [[f32::NEG_INFINITY; LANES]; N];
            for (scores, block) in scores.as_chunks_mut::<N>().0.iter_mut().zip(blocks.clone()) {
                K::scores(ready.keys(block).as_chunks::<LANES>().0, queries, scores);
                for row in 0..N {
                    let scores = &mut scores[row];
                    for score in scores.iter_mut() {
                        *score *= look.scale;
                    }
                    if let Some(cap) = look.cap {
                        for score in scores.iter_mut() {
                            *score = (*score / cap).tanh() * cap;
                        }
                    }
                    let (from, to) = (ready.first_of(at[row]), at[row]);
                    if from > block * LANES || to < block * LANES + LANES - 1 {
                        for (lane, score) in scores.iter_mut().enumerate() {
                            let position = block * LANES + lane;
                            let seen = from <= position && position <= to;
                            *score = if seen { *score } else { f32::NEG_INFINITY };
                        }
                    }
                    let mut lane = 0;
                    while lane < LANES {
                        let (score, most) = (scores[lane], highest[row][lane]);
                        highest[row][lane] = if score > most { score } else { most };
                        lane += 1;
                    }
                }
            }
            for (most, highest) in most.iter_mut().zip(highest) {
                for score in highest {
                    *most = if score > *most { score } else { *most };
                }
            }
        }
        Stage::Weigh { scores, most, sums } => {
            for scores in scores.as_chunks_mut::<N>().0 {
                for row in 0..N {
                    let mut lane = 0;
                    while lane < LANES {
                        let weight = exp(scores[row][lane] - most[row]);
                        scores[row][lane] = weight;
                        sums[row][lane] += weight;
                        lane += 1;
                    }
                }
            }
        }
        Stage::Mix { blocks, scores, part, mixed } => {
            let (first, last) = ready.span();
            let width = LANES.min(size - *part);
            let mut sums = [[0.0f32; LANES]; N];
            sums.copy_from_slice(&mixed[..N]);
            for (scores, block) in scores.as_chunks::<N>().0.iter().zip(blocks.clone()) {
                let from = first.max(block * LANES) % LANES;
                let to = (last + 1).min((block + 1) * LANES) - block * LANES;
                let values = &ready.values(block)[from * size..to * size];
                if width == LANES {
                    K::mix(values, size, *part, from, scores, &mut sums);
                } else {
                    mix::<N>(values, size, *part, width, from, scores, &mut sums);
                }
            }
            mixed[..N].copy_from_slice(&sums);
        }
    }
}

/// The loops that attention spends its time in, for `N` queries.
pub(crate) trait Kernels {
    /// Adds the products of `queries`, `[N, size]`, and the keys of a block, `[size][tokens]`.
    fn scores<const N: usize>(keys: &[[f32; LANES]], queries: &[f32], scores: &mut [[f32; LANES]; N]);

    /// Adds numbers `part` and the [`LANES`] - 1 after it of `values`, `[tokens, size]`, times the weights of the
    /// tokens, which are the block's from `from` on.
    fn mix<const N: usize>(
        values: &[f32],
        size: usize,
        part: usize,
        from: usize,
        weights: &[[f32; LANES]; N],
        mixed: &mut [[f32; LANES]; N],
    );
}

/// As the compiler makes them.
pub(crate) struct Portable;

impl Kernels for Portable {
    #[inline(always)]
    fn scores<const N: usize>(keys: &[[f32; LANES]], queries: &[f32], scores: &mut [[f32; LANES]; N]) {
        for (number, keys) in keys.iter().enumerate() {
            for row in 0..N {
                let query = queries[row * (queries.len() / N) + number];
                let mut lane = 0;
                while lane < LANES {
                    scores[row][lane] = query.mul_add(keys[lane], scores[row][lane]);
                    lane += 1;
                }
            }
        }
    }

    #[inline(always)]
    fn mix<const N: usize>(
        values: &[f32],
        size: usize,
        part: usize,
        from: usize,
        weights: &[[f32; LANES]; N],
        mixed: &mut [[f32; LANES]; N],
    ) {
        mix::<N>(values, size, part, LANES, from, weights, mixed);
    }
}

#[inline(always)]
fn mix<const N: usize>(
    values: &[f32],
    size: usize,
    part: usize,
    width: usize,
    from: usize,
    weights: &[[f32; LANES]; N],
    mixed: &mut [[f32; LANES]; N],
) {
    for (token, value) in values.chunks_exact(size).enumerate() {
        let value: [f32; LANES] = match value[part..].first_chunk::<LANES>() {
            Some(value) if width == LANES => *value,
            _ => padded(&value[part..part + width]),
        };
        for row in 0..N {
            let weight = weights[row][from + token];
            let mut lane = 0;
            while lane < LANES {
                mixed[row][lane] = weight.mul_add(value[lane], mixed[row][lane]);
                lane += 1;
            }
        }
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
pub(crate) fn exp(x: f32) -> f32 {
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
    use crate::team::with_team;

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
                    let start = (token * (from.len() / tokens / size) + head) * size;
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

    fn attended(
        cache: &HostCache,
        layer: usize,
        q: &[f32],
        heads: usize,
        batch: &[Rows<'_>],
        look: Look,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; q.len()];
        with_team(|leader| cache.attend(leader, layer, (q, heads), batch, look, &mut out));
        out
    }

    /// `[tokens, heads, size]`: the tokens of `range` alone.
    fn cut(from: &[f32], heads: usize, size: usize, range: std::ops::Range<usize>) -> Vec<f32> {
        from[range.start * heads * size..range.end * heads * size].to_vec()
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
                        // Blocks in any order, used before by who knows whom.
                        let blocks = [4, 0, 7];
                        let mut cache = HostCache::new(2, kv_heads, size);
                        let all = [Rows { first: 0, count: 96, start: 0, blocks: &blocks }];
                        cache.reserve(&all);
                        let rubbish = vec![f32::NAN; kv_heads * 96 * size];
                        cache.append(1, &rubbish, &rubbish, &all);
                        let mut ours = Vec::new();
                        let mut start = 0;
                        for piece in &pieces {
                            let range = start..start + piece;
                            let rows = [Rows { first: 0, count: *piece, start, blocks: &blocks }];
                            cache.reserve(&rows);
                            let (k, v) = (
                                cut(&k, kv_heads, size, range.clone()),
                                cut(&v, kv_heads, size, range.clone()),
                            );
                            cache.append(1, &k, &v, &rows);
                            let q = cut(&q, heads, size, range);
                            ours.extend(pool.install(|| attended(&cache, 1, &q, heads, &rows, look)));
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
    fn one_token_that_sees_many_is_the_same_work_for_one_thread_and_for_several() {
        let (heads, kv_heads, size, before) = (6, 2, 80, 900);
        let blocks: Vec<u32> = (0..29).rev().collect();
        for (window, cap) in [(None, None), (Some(700), Some(3.0))] {
            let look = Look { scale: 0.6, cap, window };
            let q = numbers(heads * (before + 1) * size, 0.1);
            let k = numbers(kv_heads * (before + 1) * size, 0.7);
            let v = numbers(kv_heads * (before + 1) * size, 1.3);
            let mut cache = HostCache::new(1, kv_heads, size);
            let all = [Rows { first: 0, count: before + 1, start: 0, blocks: &blocks }];
            cache.reserve(&all);
            cache.append(0, &k, &v, &all);
            let last = [Rows { first: 0, count: 1, start: before, blocks: &blocks }];
            let q_last = cut(&q, heads, size, before..before + 1);
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| attended(&cache, 0, &q_last, heads, &last, look))
            };
            assert!(heads * size * (before + 1) >= WORTH_SPLITTING);
            let alone = on(1);
            assert_eq!(alone, on(3));
            assert_eq!(alone, on(2));
            let expected = plain(&q, &k, &v, heads, kv_heads, size, look);
            for (ours, theirs) in alone.iter().zip(&expected[before * heads * size..]) {
                assert!((f64::from(*ours) - theirs).abs() < 1e-5, "{ours} {theirs}");
            }
        }
    }

    #[test]
    fn sequences_of_a_batch_do_not_see_each_other() {
        let (heads, kv_heads, size) = (6, 2, 40);
        let look = Look { scale: 0.5, cap: None, window: None };
        let lengths = [35, 1, 70, 3];
        let tables: [&[u32]; 4] = [&[9, 3], &[1], &[0, 2, 8], &[5]];
        let whole: usize = lengths.iter().sum();
        let [q, k, v] =
            [(heads, 0.2), (kv_heads, 0.5), (kv_heads, 0.9)].map(|(h, seed)| numbers(h * whole * size, seed));
        let mut batch = Vec::new();
        let mut first = 0;
        for (count, blocks) in lengths.into_iter().zip(tables) {
            batch.push(Rows { first, count, start: 0, blocks });
            first += count;
        }
        let mut cache = HostCache::new(1, kv_heads, size);
        cache.reserve(&batch);
        cache.append(0, &k, &v, &batch);
        let together = attended(&cache, 0, &q, heads, &batch, look);
        for rows in &batch {
            let range = rows.first..rows.first + rows.count;
            let mut cache = HostCache::new(1, kv_heads, size);
            let alone = [Rows { first: 0, ..*rows }];
            cache.reserve(&alone);
            let own = |from: &[f32], heads| cut(from, heads, size, range.clone());
            cache.append(0, &own(&k, kv_heads), &own(&v, kv_heads), &alone);
            let alone = attended(&cache, 0, &own(&q, heads), heads, &alone, look);
            assert_eq!(alone, together[range.start * heads * size..range.end * heads * size]);
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
