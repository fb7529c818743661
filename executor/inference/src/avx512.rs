//! Products of stored rows on AVX-512, written out where the compiler's code is slower than memory. Every sum keeps the
//! order of additions of [`crate::matrix`], and every number its rounding, so the bits are the same.
#![allow(unsafe_code)]

use core::arch::x86_64::*;
use std::sync::OnceLock;

use crate::gguf::TensorKind;
use crate::matrix::{LANES, from_f16};

/// How far ahead of its use a row is asked for.
const AHEAD_BYTES: usize = 4096;
/// Expanded rows, and positions, that go together: as many accumulators as there are registers for.
const ROWS: usize = 3;
const TILE: usize = 4;

/// Rows of `kind`, `row_bytes` each, times one `x`. False where it has no code for them: then nothing was done.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
pub(crate) fn rows_times_one(
    kind: TensorKind,
    rows: &[u8],
    row_bytes: usize,
    x: &[f32],
    out: &mut [f32],
) -> bool {
    if !x.len().is_multiple_of(LANES) {
        return false;
    }
    match kind {
        TensorKind::F32 => rows_of::<F32, 128>(rows, row_bytes, x, out),
        TensorKind::F16 => rows_of::<F16, 64>(rows, row_bytes, x, out),
        TensorKind::Bf16 => rows_of::<Bf16, 64>(rows, row_bytes, x, out),
        TensorKind::Q8_0 => rows_of::<Q8_0, 34>(rows, row_bytes, x, out),
        TensorKind::Q4_0 => rows_of::<Q4_0, 18>(rows, row_bytes, x, out),
        TensorKind::Q4_1 => rows_of::<Q4_1, 20>(rows, row_bytes, x, out),
        _ => return false,
    }
    true
}

/// Expands one row to f32. False as above.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
pub(crate) fn expand_row(kind: TensorKind, row: &[u8], out: &mut [f32]) -> bool {
    if !out.len().is_multiple_of(LANES) {
        return false;
    }
    match kind {
        TensorKind::F32 => expand_as::<F32, 128>(row, out),
        TensorKind::F16 => expand_as::<F16, 64>(row, out),
        TensorKind::Bf16 => expand_as::<Bf16, 64>(row, out),
        TensorKind::Q8_0 => expand_as::<Q8_0, 34>(row, out),
        TensorKind::Q4_0 => expand_as::<Q4_0, 18>(row, out),
        TensorKind::Q4_1 => expand_as::<Q4_1, 20>(row, out),
        _ => return false,
    }
    true
}

/// Expanded rows of `width` numbers, a multiple of [`LANES`], times positions `x`: `out` is `[positions, stride]`, of
/// which the first columns, one for each row, are written.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
pub(crate) fn expanded_times(rows: &[f32], width: usize, x: &[f32], out: &mut [f32], stride: usize) {
    let (tiles, outs) = (x.chunks(TILE * width), out.chunks_mut(TILE * stride));
    for (x, out) in tiles.zip(outs) {
        match x.len() / width {
            4 => tile_times::<4>(rows, width, x, out, stride),
            3 => tile_times::<3>(rows, width, x, out, stride),
            2 => tile_times::<2>(rows, width, x, out, stride),
            _ => tile_times::<1>(rows, width, x, out, stride),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
fn tile_times<const N: usize>(rows: &[f32], width: usize, x: &[f32], out: &mut [f32], stride: usize) {
    for (group, rows) in rows.chunks(ROWS * width).enumerate() {
        let first = group * ROWS;
        match rows.len() / width {
            3 => products::<3, N>(rows, width, x, out, stride, first),
            2 => products::<2, N>(rows, width, x, out, stride, first),
            _ => products::<1, N>(rows, width, x, out, stride, first),
        }
    }
}

/// `R` rows, at most four, times `N` positions, at most four.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn products<const R: usize, const N: usize>(
    rows: &[f32],
    width: usize,
    x: &[f32],
    out: &mut [f32],
    stride: usize,
    first: usize,
) {
    assert!(rows.len() >= R * width && x.len() >= N * width && width.is_multiple_of(LANES));
    let (rows, x) = (rows.as_ptr(), x.as_ptr());
    let mut sums = [[[_mm512_setzero_ps(); 2]; N]; R];
    let mut at = 0;
    while at < width {
        let mut weights = [[_mm512_setzero_ps(); 2]; R];
        for (row, weights) in weights.iter_mut().enumerate() {
            // SAFETY: `at + 32 <= width`, and there are `R` rows and `N` positions of `width`, as asserted.
            *weights = unsafe { load(rows.add(row * width + at)) };
        }
        for tile in 0..N {
            // SAFETY: as above.
            let x = unsafe { load(x.add(tile * width + at)) };
            for row in 0..R {
                let sums = &mut sums[row][tile];
                sums[0] = _mm512_fmadd_ps(weights[row][0], x[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(weights[row][1], x[1], sums[1]);
            }
        }
        at += LANES;
    }
    let mut halves = [_mm512_setzero_ps(); 16];
    for (row, sums) in sums.iter().enumerate() {
        for (tile, sums) in sums.iter().enumerate() {
            halves[row * 4 + tile] = _mm512_add_ps(sums[0], sums[1]);
        }
    }
    let folded = fold16(&halves);
    for tile in 0..N {
        let from = tile * stride + first;
        out[from..from + R].copy_from_slice(&folded[tile * 4..tile * 4 + R]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn rows_of<K: Kind<BYTES>, const BYTES: usize>(rows: &[u8], row_bytes: usize, x: &[f32], out: &mut [f32]) {
    let halves = halves();
    let (x, _) = x.as_chunks::<LANES>();
    for (rows, out) in rows.chunks(4 * row_bytes).zip(out.chunks_mut(4)) {
        let mut sums = [_mm512_setzero_ps(); 4];
        for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(row_bytes)) {
            let mut lanes = [_mm512_setzero_ps(); 2];
            for (block, x) in row.as_chunks::<BYTES>().0.iter().zip(x) {
                // Asking for what is beyond the end does nothing.
                _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD_BYTES).cast());
                // SAFETY: the processor has what this function is compiled for, and `x` is 32 numbers.
                let (weights, x) = unsafe { (K::expand(block, halves), load(x.as_ptr())) };
                lanes[0] = _mm512_fmadd_ps(weights[0], x[0], lanes[0]);
                lanes[1] = _mm512_fmadd_ps(weights[1], x[1], lanes[1]);
            }
            *sum = _mm512_add_ps(lanes[0], lanes[1]);
        }
        let folded = fold4(sums);
        out.copy_from_slice(&folded[..out.len()]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn expand_as<K: Kind<BYTES>, const BYTES: usize>(row: &[u8], out: &mut [f32]) {
    let halves = halves();
    for (block, out) in row.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LANES>().0) {
        // SAFETY: the processor has what this function is compiled for, and `out` is 32 numbers.
        unsafe {
            let weights = K::expand(block, halves);
            _mm512_storeu_ps(out.as_mut_ptr(), weights[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), weights[1]);
        }
    }
}

/// Adds the products of `N` queries, `[N, size]`, and the keys of 32 tokens, `[size][tokens]`.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
pub(crate) fn scores<const N: usize>(keys: &[[f32; LANES]], queries: &[f32], scores: &mut [[f32; LANES]; N]) {
    let size = keys.len();
    assert!(queries.len() >= N * size);
    // SAFETY: each has 32 numbers.
    let mut sums = scores.each_ref().map(|scores| unsafe { load(scores.as_ptr()) });
    for (number, keys) in keys.iter().enumerate() {
        // SAFETY: 32 numbers.
        let keys = unsafe { load(keys.as_ptr()) };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: below `N × size`, as asserted.
            let query = _mm512_set1_ps(unsafe { *queries.get_unchecked(row * size + number) });
            sums[0] = _mm512_fmadd_ps(query, keys[0], sums[0]);
            sums[1] = _mm512_fmadd_ps(query, keys[1], sums[1]);
        }
    }
    put(sums, scores);
}

/// Adds numbers `part` to `part + 31` of `values`, `[tokens, size]`, times the tokens' weights, the block's from `from`
/// on.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
pub(crate) fn mix<const N: usize>(
    values: &[f32],
    size: usize,
    part: usize,
    from: usize,
    weights: &[[f32; LANES]; N],
    mixed: &mut [[f32; LANES]; N],
) {
    assert!(part + LANES <= size && from + values.len() / size <= LANES);
    // SAFETY: each has 32 numbers.
    let mut sums = mixed.each_ref().map(|mixed| unsafe { load(mixed.as_ptr()) });
    for (token, value) in values.chunks_exact(size).enumerate() {
        // SAFETY: `part + 32 <= size`, as asserted.
        let value = unsafe { load(value.as_ptr().add(part)) };
        for (weights, sums) in weights.iter().zip(&mut sums) {
            // SAFETY: below 32, as asserted.
            let weight = _mm512_set1_ps(unsafe { *weights.get_unchecked(from + token) });
            sums[0] = _mm512_fmadd_ps(weight, value[0], sums[0]);
            sums[1] = _mm512_fmadd_ps(weight, value[1], sums[1]);
        }
    }
    put(sums, mixed);
}

#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn put<const N: usize>(sums: [[__m512; 2]; N], out: &mut [[f32; LANES]; N]) {
    for (sums, out) in sums.into_iter().zip(out) {
        // SAFETY: 32 numbers.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), sums[1]);
        }
    }
}

/// The sums of four vectors' lanes, upper half to lower half again and again.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn fold4(sums: [__m512; 4]) -> [f32; 4] {
    let zero = _mm512_setzero_ps();
    let mut all = [zero; 16];
    all[..4].copy_from_slice(&sums);
    let folded = fold16(&all);
    [folded[0], folded[4], folded[8], folded[12]]
}

/// The same of sixteen vectors; that of vector `4 × j + k` is number `4 × k + j` of the result.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn fold16(sums: &[__m512; 16]) -> [f32; 16] {
    let mut fours = [_mm512_setzero_ps(); 4];
    for (four, sums) in fours.iter_mut().zip(sums.as_chunks::<4>().0) {
        let low = half_lanes(sums[0], sums[1]);
        let high = half_lanes(sums[2], sums[3]);
        // A part of four lanes for each of the four.
        *four = _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(low, high),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(low, high),
        );
    }
    let pairs = |a: __m512, b: __m512| {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
        _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
    };
    let (a, b) = (pairs(fours[0], fours[1]), pairs(fours[2], fours[3]));
    let folded =
        _mm512_add_ps(_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b));
    let mut out = [0.0; 16];
    // SAFETY: `out` is sixteen numbers.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), folded) };
    out
}

/// Eight lanes of each: its lower half and its upper half added.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn half_lanes(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b))
}

/// # Safety
/// `from` points to 32 numbers.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
unsafe fn load(from: *const f32) -> [__m512; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))] }
}

/// Every half-precision number, by its bits: a scale out of it costs no vector instruction.
fn halves() -> &'static [f32; 1 << 16] {
    static HALVES: OnceLock<Box<[f32; 1 << 16]>> = OnceLock::new();
    HALVES.get_or_init(|| {
        let mut all = Box::new([0.0; 1 << 16]);
        for (bits, half) in (0..=u16::MAX).zip(all.iter_mut()) {
            *half = from_f16(bits);
        }
        all
    })
}

/// How `BYTES` bytes hold 32 numbers.
trait Kind<const BYTES: usize> {
    /// # Safety
    /// The processor has AVX-512F and BW, AVX2 and FMA.
    unsafe fn expand(block: &[u8; BYTES], halves: &[f32; 1 << 16]) -> [__m512; 2];
}

struct F32;
struct F16;
struct Bf16;
struct Q8_0;
struct Q4_0;
struct Q4_1;

impl Kind<128> for F32 {
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    #[inline]
    unsafe fn expand(block: &[u8; 128], _: &[f32; 1 << 16]) -> [__m512; 2] {
        // SAFETY: 32 numbers of four bytes each; loads need no alignment.
        unsafe { load(block.as_ptr().cast()) }
    }
}

impl Kind<64> for F16 {
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    #[inline]
    unsafe fn expand(block: &[u8; 64], _: &[f32; 1 << 16]) -> [__m512; 2] {
        // SAFETY: 32 numbers of two bytes each; loads need no alignment.
        let (low, high) = unsafe {
            (_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block[32..].as_ptr().cast()))
        };
        [_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)]
    }
}

impl Kind<64> for Bf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    #[inline]
    unsafe fn expand(block: &[u8; 64], _: &[f32; 1 << 16]) -> [__m512; 2] {
        // SAFETY: as above.
        let (low, high) = unsafe {
            (_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block[32..].as_ptr().cast()))
        };
        let wide = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
        [wide(low), wide(high)]
    }
}

impl Kind<34> for Q8_0 {
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    #[inline]
    unsafe fn expand(block: &[u8; 34], halves: &[f32; 1 << 16]) -> [__m512; 2] {
        let scale = _mm512_set1_ps(half(block, 0, halves));
        // SAFETY: two bytes of scale and 32 of numbers; loads need no alignment.
        let (low, high) = unsafe {
            (_mm_loadu_si128(block[2..].as_ptr().cast()), _mm_loadu_si128(block[18..].as_ptr().cast()))
        };
        let wide = |bytes| _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scale);
        [wide(low), wide(high)]
    }
}

impl Kind<18> for Q4_0 {
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    #[inline]
    unsafe fn expand(block: &[u8; 18], halves: &[f32; 1 << 16]) -> [__m512; 2] {
        let quants = _mm512_setr_ps(
            -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
        );
        let values = _mm512_mul_ps(quants, _mm512_set1_ps(half(block, 0, halves)));
        look_up(block[2..].first_chunk().unwrap_or(&[0; 16]), values)
    }
}

impl Kind<20> for Q4_1 {
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    #[inline]
    unsafe fn expand(block: &[u8; 20], halves: &[f32; 1 << 16]) -> [__m512; 2] {
        let quants = _mm512_setr_ps(
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
        );
        let (scale, least) = (half(block, 0, halves), half(block, 2, halves));
        let values = _mm512_fmadd_ps(quants, _mm512_set1_ps(scale), _mm512_set1_ps(least));
        look_up(block[4..].first_chunk().unwrap_or(&[0; 16]), values)
    }
}

#[inline(always)]
fn half(block: &[u8], at: usize, halves: &[f32; 1 << 16]) -> f32 {
    halves[usize::from(u16::from_le_bytes([block[at], block[at + 1]]))]
}

/// The values that the low halves of sixteen bytes name, and those that the high halves do.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
#[inline]
fn look_up(bytes: &[u8; 16], values: __m512) -> [__m512; 2] {
    // SAFETY: sixteen bytes; loads need no alignment.
    let names = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
    // Only the lowest four bits of a name count.
    [_mm512_permutexvar_ps(names, values), _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(names), values)]
}
