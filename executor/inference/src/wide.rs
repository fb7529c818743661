//! The same work with wider vectors. Only the width and the tile differ: every sum keeps its order of additions.
#![allow(unsafe_code)]

use crate::attention::{Work, attend_in_order};
use crate::matrix::{Matrix, rows_times_in_order};

/// Runs on the widest vectors the processor has. False where it has less than AVX2 with fused multiply-add: then
/// nothing was done.
pub(crate) fn rows_times(matrix: &Matrix, first: usize, x: &[f32], n: usize, piece: &mut [f32]) -> bool {
    if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
        return false;
    }
    if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has AVX-512F and BW, AVX2 and FMA, as the lines above checked.
        unsafe { avx512(matrix, first, x, n, piece) }
    } else {
        // SAFETY: the processor has AVX2 and FMA, as the lines above checked.
        unsafe { avx2(matrix, first, x, n, piece) }
    }
    true
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn avx2(matrix: &Matrix, first: usize, x: &[f32], n: usize, piece: &mut [f32]) {
    rows_times_in_order::<2>(matrix, first, x, n, piece);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn avx512(matrix: &Matrix, first: usize, x: &[f32], n: usize, piece: &mut [f32]) {
    rows_times_in_order::<4>(matrix, first, x, n, piece);
}

/// Attention on AVX-512 or AVX2. False where the processor has neither: then nothing was done.
pub(crate) fn attend<const N: usize>(work: &Work<'_>, at: [usize; N], out: &mut [f32]) -> bool {
    if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
        return false;
    }
    if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has AVX-512F and BW, AVX2 and FMA, as the lines above checked.
        unsafe { attend_avx512(work, at, out) }
    } else {
        // SAFETY: the processor has AVX2 and FMA, as the lines above checked.
        unsafe { attend_avx2(work, at, out) }
    }
    true
}

#[target_feature(enable = "avx2,fma")]
fn attend_avx2<const N: usize>(work: &Work<'_>, at: [usize; N], out: &mut [f32]) {
    attend_in_order(work, at, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn attend_avx512<const N: usize>(work: &Work<'_>, at: [usize; N], out: &mut [f32]) {
    attend_in_order(work, at, out);
}
