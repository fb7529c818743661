//! The same work with wider vectors. Only the width and the tile differ: every sum keeps its order of additions.
#![allow(unsafe_code)]

use crate::attention::{Work, attend_in_order};
use crate::matrix::{
    Matrix, expand_rows as expand_in_order, expanded_times as times, rows_times_one as times_one,
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
pub(crate) fn expanded_times(rows: &[f32], width: usize, x: &[f32], n: usize, out: &mut [f32]) -> bool {
    match vectors() {
        // SAFETY: the processor has what the functions need, as `vectors` checked.
        Vectors::Avx512 => unsafe { expanded_times_avx512(rows, width, x, n, out) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { expanded_times_avx2(rows, width, x, n, out) },
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
    times_one(matrix, first, x, out);
}

#[target_feature(enable = "avx2,fma")]
fn expand_rows_avx2(matrix: &Matrix, first: usize, out: &mut [f32]) {
    expand_in_order(matrix, first, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn expand_rows_avx512(matrix: &Matrix, first: usize, out: &mut [f32]) {
    expand_in_order(matrix, first, out);
}

#[target_feature(enable = "avx2,fma")]
fn expanded_times_avx2(rows: &[f32], width: usize, x: &[f32], n: usize, out: &mut [f32]) {
    times::<3, 4, 8>(rows, width, x, n, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn expanded_times_avx512(rows: &[f32], width: usize, x: &[f32], n: usize, out: &mut [f32]) {
    times::<4, 4, 16>(rows, width, x, n, out);
}

/// Attention. False as above.
pub(crate) fn attend<const N: usize>(work: &Work<'_>, at: [usize; N], out: &mut [f32]) -> bool {
    match vectors() {
        // SAFETY: the processor has what the functions need, as `vectors` checked.
        Vectors::Avx512 => unsafe { attend_avx512(work, at, out) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { attend_avx2(work, at, out) },
        Vectors::Less => return false,
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
