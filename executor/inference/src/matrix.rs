//! Weight matrices as they are stored, multiplied with f32 activations.
//!
//! A row is expanded to f32 just before it is used, so the weights stay small in memory. Rows are shared among
//! threads; the sum within a row always runs in the same order, so the result depends neither on the number of
//! threads, nor on what else is in the batch, nor on which vector width the processor has.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::gguf::TensorKind;

/// Rows one task works on.
const ROWS_PER_TASK: usize = 32;
/// Accumulators of a dot product; a multiple of every vector width in use.
const LANES: usize = 32;
/// Numbers in a quantised block.
const BLOCK: usize = 32;

/// A matrix `[rows, columns]`, row by row.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    kind: TensorKind,
    row_bytes: usize,
    bytes: Vec<u8>,
}

impl Matrix {
    /// `None` where `bytes` are not `rows × columns` numbers of a `kind` that this crate reads.
    pub(crate) fn new(rows: usize, columns: usize, kind: TensorKind, bytes: Vec<u8>) -> Option<Self> {
        let (per_block, block_bytes) = kind.block()?;
        if rows == 0 || columns == 0 || !columns.is_multiple_of(per_block) {
            return None;
        }
        let row_bytes = (columns / per_block).checked_mul(block_bytes)?;
        (row_bytes.checked_mul(rows)? == bytes.len()).then_some(Self {
            rows,
            columns,
            kind,
            row_bytes,
            bytes,
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn kind(&self) -> TensorKind {
        self.kind
    }

    /// The same rows in another order: row `i` of the result is row `source(i)`.
    pub(crate) fn reordered(&self, source: impl Fn(usize) -> usize) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for row in 0..self.rows {
            bytes.extend_from_slice(self.row(source(row)));
        }
        Self { bytes, ..self.clone() }
    }

    /// Expands row `row` into `out`, which has `columns` numbers.
    pub(crate) fn expand_row(&self, row: usize, out: &mut [f32]) {
        expand(self.kind, self.row(row), out);
    }

    /// The whole matrix in f32, for the reference path.
    pub(crate) fn expand_all(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.columns];
        for (row, out) in out.chunks_exact_mut(self.columns).enumerate() {
            self.expand_row(row, out);
        }
        out
    }

    /// `x · Wᵀ`: `x` is `[n, columns]`, the result `[n, rows]`, both row by row.
    pub(crate) fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let n = x.len() / self.columns;
        // Transposed while it is made, so that every task writes one contiguous piece.
        let mut transposed = vec![0.0f32; self.rows * n];
        transposed.par_chunks_mut(ROWS_PER_TASK * n).enumerate().for_each(|(task, piece)| {
            rows_times(self, task * ROWS_PER_TASK, x, n, piece);
        });
        if n == 1 {
            return transposed;
        }
        let mut out = vec![0.0f32; self.rows * n];
        for (row, values) in transposed.chunks_exact(n).enumerate() {
            for (position, value) in values.iter().enumerate() {
                out[position * self.rows + row] = *value;
            }
        }
        out
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }
}

fn rows_times(matrix: &Matrix, first: usize, x: &[f32], n: usize, piece: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return crate::wide::rows_times_avx2(matrix, first, x, n, piece);
    }
    rows_times_in_order(matrix, first, x, n, piece);
}

/// The work of a task. Inlined into a caller that may use wider vectors; the order of additions is in the code.
#[inline(always)]
pub(crate) fn rows_times_in_order(matrix: &Matrix, first: usize, x: &[f32], n: usize, piece: &mut [f32]) {
    let mut row = vec![0.0f32; matrix.columns];
    for (index, out) in piece.chunks_exact_mut(n).enumerate() {
        expand(matrix.kind, matrix.row(first + index), &mut row);
        for (out, x) in out.iter_mut().zip(x.chunks_exact(matrix.columns)) {
            *out = dot(&row, x);
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_body.iter().zip(b_body) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
        lanes[lane] += a * b;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn expand(kind: TensorKind, bytes: &[u8], out: &mut [f32]) {
    match kind {
        TensorKind::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        TensorKind::F16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        TensorKind::Bf16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        TensorKind::Q8_0 => {
            for (out, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                for (out, quant) in out.iter_mut().zip(&block[2..]) {
                    *out = f32::from(quant.cast_signed()) * scale;
                }
            }
        }
        TensorKind::Q4_0 => {
            for (out, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                for (index, pair) in block[2..].iter().enumerate() {
                    out[index] = (f32::from(pair & 15) - 8.0) * scale;
                    out[index + BLOCK / 2] = (f32::from(pair >> 4) - 8.0) * scale;
                }
            }
        }
        TensorKind::Q4_1 => {
            for (out, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<20>().0) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                let least = f16::from_le_bytes([block[2], block[3]]).to_f32();
                for (index, pair) in block[4..].iter().enumerate() {
                    out[index] = f32::from(pair & 15) * scale + least;
                    out[index + BLOCK / 2] = f32::from(pair >> 4) * scale + least;
                }
            }
        }
        // `Matrix::new` lets no other kind in.
        TensorKind::Other(_) => out.fill(0.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_product_does_not_depend_on_its_company() {
        let (rows, columns) = (70, 96);
        let weights: Vec<u8> =
            (0..rows * columns).flat_map(|i| ((i as f32 * 0.37).sin()).to_le_bytes()).collect();
        let matrix = Matrix::new(rows, columns, TensorKind::F32, weights).unwrap();
        let x: Vec<f32> = (0..5 * columns).map(|i| (i as f32 * 0.11).cos()).collect();
        let together = matrix.multiply(&x);
        for (position, alone) in x.chunks_exact(columns).enumerate() {
            assert_eq!(matrix.multiply(alone), together[position * rows..(position + 1) * rows]);
        }
    }

    #[test]
    fn a_product_is_the_sum_it_should_be() {
        let (rows, columns) = (3, 40);
        let values: Vec<f32> = (0..rows * columns).map(|i| (i % 7) as f32 - 3.0).collect();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let matrix = Matrix::new(rows, columns, TensorKind::F32, bytes).unwrap();
        let x: Vec<f32> = (0..columns).map(|i| (i % 5) as f32).collect();
        let expected: Vec<f32> =
            values.chunks_exact(columns).map(|row| row.iter().zip(&x).map(|(a, b)| a * b).sum()).collect();
        assert_eq!(matrix.multiply(&x), expected);
    }

    #[test]
    fn quantised_blocks_expand_as_ggml_defines_them() {
        let half = f16::from_f32(0.5).to_le_bytes();
        let mut q8 = half.to_vec();
        q8.extend((0..32).map(|i| (i as i8 - 16).cast_unsigned()));
        let row = Matrix::new(1, 32, TensorKind::Q8_0, q8).unwrap().expand_all();
        assert_eq!((row[0], row[31]), (-8.0, 7.5));
        let mut q4 = half.to_vec();
        q4.extend(f16::from_f32(-1.0).to_le_bytes());
        q4.extend((0..16).map(|i| i as u8 | 0xf0));
        let row = Matrix::new(1, 32, TensorKind::Q4_1, q4).unwrap().expand_all();
        assert_eq!((row[0], row[2], row[16]), (-1.0, 0.0, 6.5));
    }
}
