//! The same work with wider vectors. Only the width differs: no fused multiply-add, the same order of additions.
#![allow(unsafe_code)]

use crate::matrix::{Matrix, rows_times_in_order};

/// The caller has seen AVX2.
pub(crate) fn rows_times_avx2(matrix: &Matrix, first: usize, x: &[f32], n: usize, piece: &mut [f32]) {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as the line above checked.
        unsafe { wide(matrix, first, x, n, piece) }
    } else {
        rows_times_in_order(matrix, first, x, n, piece);
    }
}

#[target_feature(enable = "avx2")]
fn wide(matrix: &Matrix, first: usize, x: &[f32], n: usize, piece: &mut [f32]) {
    rows_times_in_order(matrix, first, x, n, piece);
}
