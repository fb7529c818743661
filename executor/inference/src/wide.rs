//! The same work with wider vectors. Only the width and the tile differ: every sum keeps its order of additions.
#![allow(unsafe_code)]

use crate::attention::{Kernels, Portable, Ready, Stage, attend_in_order};
use crate::avx512;
use crate::matrix::{
    LANES, Matrix, expand_rows as expand_in_order, expanded_times as times, rows_times_one as times_one,
};

/// Rows times one position, on the widest vectors the processor has. False where it has less than AVX2 with fused
/// multiply-add: then nothing was done.
pub(crate) fn rows_times_one(matrix: &Matrix, first: usize, x: &[f32], out: &mut [f32]) -> bool {
    match vectors() {
        // SAFETY: the processor has what the functions need, as `vectors` checked.
        Vectors::Avx512 => unsafe { rows_times_one_avx512(matrix, first, x, out) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { rows_times_one_avx2(matrix, first, x, out) },
        Vectors::Less => return false,
    }
    true
}

/// Rows expanded to f32. False as above.
pub(crate) fn expand_rows(matrix: &Matrix, first: usize, out: &mut [f32]) -> bool {
    match vectors() {
        // SAFETY: the processor has what the functions need, as `vectors` checked.
        Vectors::Avx512 => unsafe { expand_rows_avx512(matrix, first, out) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { expand_rows_avx2(matrix, first, out) },
        Vectors::Less => return false,
    }
    true
}

/// Expanded rows times many positions. False as above.
pub(crate) fn expanded_times(rows: &[f32], width: usize, x: &[f32], out: &mut [f32], stride: usize) -> bool {
    match vectors() {
        // SAFETY: the processor has what the functions need, as `vectors` checked.
        Vectors::Avx512 => unsafe { avx512::expanded_times(rows, width, x, out, stride) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { expanded_times_avx2(rows, width, x, out, stride) },
        Vectors::Less => return false,
    }
    true
}

enum Vectors {
    /// AVX-512F and BW, and all of AVX2.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    Less,
}

fn vectors() -> Vectors {
    if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
        Vectors::Less
    } else if std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
    {
        Vectors::Avx512
    } else {
        Vectors::Avx2
    }
}

#[target_feature(enable = "avx2,fma")]
fn rows_times_one_avx2(matrix: &Matrix, first: usize, x: &[f32], out: &mut [f32]) {
    times_one(matrix, first, x, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn rows_times_one_avx512(matrix: &Matrix, first: usize, x: &[f32], out: &mut [f32]) {
    let (rows, row_bytes) = (matrix.rows_from(first), matrix.row_bytes());
    if !avx512::rows_times_one(matrix.kind(), rows, row_bytes, x, out) {
        times_one(matrix, first, x, out);
    }
}

#[target_feature(enable = "avx2,fma")]
fn expand_rows_avx2(matrix: &Matrix, first: usize, out: &mut [f32]) {
    expand_in_order(matrix, first, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn expand_rows_avx512(matrix: &Matrix, first: usize, out: &mut [f32]) {
    if matrix.columns().is_multiple_of(LANES) {
        let rows = matrix.rows_from(first).chunks_exact(matrix.row_bytes());
        let mut outs = out.chunks_exact_mut(matrix.columns()).zip(rows);
        if outs.all(|(out, row)| avx512::expand_row(matrix.kind(), row, out)) {
            return;
        }
    }
    expand_in_order(matrix, first, out);
}

#[target_feature(enable = "avx2,fma")]
fn expanded_times_avx2(rows: &[f32], width: usize, x: &[f32], out: &mut [f32], stride: usize) {
    times::<3, 4, 8>(rows, width, x, out, stride);
}

/// Attention. False as above.
pub(crate) fn attend<const N: usize>(ready: &Ready<'_>, stage: &mut Stage<'_>) -> bool {
    match vectors() {
        // SAFETY: the processor has what the functions need, as `vectors` checked.
        Vectors::Avx512 => unsafe { attend_avx512::<N>(ready, stage) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { attend_avx2::<N>(ready, stage) },
        Vectors::Less => return false,
    }
    true
}

#[target_feature(enable = "avx2,fma")]
fn attend_avx2<const N: usize>(ready: &Ready<'_>, stage: &mut Stage<'_>) {
    attend_in_order::<Portable, N>(ready, stage);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn attend_avx512<const N: usize>(ready: &Ready<'_>, stage: &mut Stage<'_>) {
    attend_in_order::<OnAvx512, N>(ready, stage);
}

/// Used where the processor has AVX-512 alone.
struct OnAvx512;

impl Kernels for OnAvx512 {
    #[inline(always)]
    fn scores<const N: usize>(keys: &[[f32; LANES]], queries: &[f32], scores: &mut [[f32; LANES]; N]) {
        // SAFETY: the only use is in `attend_avx512`.
        unsafe { avx512::scores(keys, queries, scores) }
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
        // SAFETY: as above.
        unsafe { avx512::mix(values, size, part, from, weights, mixed) }
    }
}

/// Runs `work`, and what is inlined into it, on the widest vectors the processor has.
#[inline(always)]
pub(crate) fn widest<R>(work: impl FnOnce() -> R) -> R {
    match vectors() {
        // SAFETY: the processor has what the functions need, as `vectors` checked.
        Vectors::Avx512 => unsafe { on_avx512(work) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { on_avx2(work) },
        Vectors::Less => work(),
    }
}

#[target_feature(enable = "avx2,fma")]
fn on_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn on_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gguf::TensorKind;

    const KINDS: [(TensorKind, usize); 13] = [
        (TensorKind::F32, 96),
        (TensorKind::F32, 70),
        (TensorKind::F16, 96),
        (TensorKind::F16, 33),
        (TensorKind::Bf16, 96),
        (TensorKind::Bf16, 31),
        (TensorKind::Q8_0, 160),
        (TensorKind::Q4_0, 160),
        (TensorKind::Q4_1, 160),
        (TensorKind::Q5_0, 160),
        (TensorKind::Q5_1, 160),
        (TensorKind::Q4K, 512),
        (TensorKind::Q6K, 512),
    ];
    const EXTREMES: [f32; 8] = [0.0, -0.0, 1e-45, -3e-39, 3e38, -3e38, f32::INFINITY, f32::NAN];

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn number(&mut self) -> f32 {
            (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    fn assert_same(ours: &[f32], plain: &[f32], what: &str) {
        for (at, (ours, plain)) in ours.iter().zip(plain).enumerate() {
            let same = ours.to_bits() == plain.to_bits() || ours.is_nan() && plain.is_nan();
            assert!(same, "{what} {at}: {ours} {plain}");
        }
    }

    /// Weights of all bits there are, so infinite, subnormal and no numbers too, and activations likewise or tame.
    #[test]
    fn matrices_give_the_bits_of_the_plain_code_at_every_width() {
        let has_avx2 = !matches!(vectors(), Vectors::Less);
        let has_avx512 = matches!(vectors(), Vectors::Avx512);
        let mut random = Random(7);
        for (kind, columns) in KINDS {
            for extreme in [false, true] {
                let (per_block, block_bytes) = kind.block().unwrap();
                let (rows, n) = (13, 7);
                let bytes: Vec<u8> = (0..rows * columns / per_block * block_bytes)
                    .map(|_| {
                        let byte = random.next() as u8;
                        // Floats below 2, in each byte that may be the upper one of their exponent.
                        if extreme { byte } else { byte & 0xbf }
                    })
                    .collect();
                let matrix = Matrix::new(rows, columns, kind, bytes.into()).unwrap();
                let width = columns.next_multiple_of(LANES);
                let mut x = vec![0.0f32; n * width];
                for x in x.chunks_exact_mut(width) {
                    for x in &mut x[..columns] {
                        let rare = extreme && random.next().is_multiple_of(64);
                        *x = if rare { EXTREMES[random.next() as usize % 8] } else { random.number() };
                    }
                }
                let what = format!("{kind:?} of {columns}, extreme: {extreme}");
                let mut plain = vec![0.0f32; rows * width];
                expand_in_order(&matrix, 0, &mut plain);
                let mut products = vec![0.0f32; n * rows];
                times::<1, 1, 32>(&plain, width, &x, &mut products, rows);
                let check = |expanded: &[f32], ours: &[f32], one: &dyn Fn(&[f32], &mut [f32])| {
                    assert_same(expanded, &plain, &what);
                    assert_same(ours, &products, &what);
                    for (x, products) in x.chunks_exact(width).zip(products.chunks_exact(rows)) {
                        let mut out = vec![0.0f32; rows];
                        one(&x[..columns], &mut out);
                        assert_same(&out, products, &what);
                    }
                };
                let (mut expanded, mut ours) = (vec![0.0f32; rows * width], vec![0.0f32; n * rows]);
                check(&plain, &products, &|x, out| times_one(&matrix, 0, x, out));
                if has_avx2 {
                    // SAFETY: the processor has AVX2 and FMA.
                    unsafe {
                        expand_rows_avx2(&matrix, 0, &mut expanded);
                        expanded_times_avx2(&plain, width, &x, &mut ours, rows);
                    }
                    // SAFETY: as above.
                    check(&expanded, &ours, &|x, out| unsafe { rows_times_one_avx2(&matrix, 0, x, out) });
                }
                if has_avx512 {
                    expanded.fill(0.0);
                    // SAFETY: the processor has AVX-512F and BW.
                    unsafe {
                        expand_rows_avx512(&matrix, 0, &mut expanded);
                        avx512::expanded_times(&plain, width, &x, &mut ours, rows);
                    }
                    // SAFETY: as above.
                    check(&expanded, &ours, &|x, out| unsafe { rows_times_one_avx512(&matrix, 0, x, out) });
                }
            }
        }
    }

    #[test]
    fn attention_gives_the_bits_of_the_plain_code_on_avx512() {
        if !matches!(vectors(), Vectors::Avx512) {
            return;
        }
        let mut random = Random(11);
        let size = 96;
        for extreme in [false, true] {
            let mut numbers = |count: usize| -> Vec<f32> {
                let mut number = || {
                    let rare = extreme && random.next().is_multiple_of(64);
                    if rare { EXTREMES[random.next() as usize % 8] } else { random.number() }
                };
                (0..count).map(|_| number()).collect()
            };
            let (keys, values, queries) = (numbers(size * LANES), numbers(size * LANES), numbers(3 * size));
            let keys = keys.as_chunks::<LANES>().0;
            let (mut plain, mut ours) = ([[0.25f32; LANES]; 3], [[0.25f32; LANES]; 3]);
            Portable::scores::<3>(keys, &queries, &mut plain);
            // SAFETY: the processor has AVX-512F and BW.
            unsafe { avx512::scores::<3>(keys, &queries, &mut ours) };
            assert_same(ours.as_flattened(), plain.as_flattened(), "scores");
            let weights = plain;
            let (from, tokens) = (5, 20);
            let values = &values[from * size..(from + tokens) * size];
            let (mut plain, mut ours) = ([[0.5f32; LANES]; 3], [[0.5f32; LANES]; 3]);
            Portable::mix::<3>(values, size, 64, from, &weights, &mut plain);
            // SAFETY: as above.
            unsafe { avx512::mix::<3>(values, size, 64, from, &weights, &mut ours) };
            assert_same(ours.as_flattened(), plain.as_flattened(), "mixed values");
        }
    }
}
