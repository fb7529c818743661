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
