//! Weight matrices as they are stored, multiplied with f32 activations.
//!
//! A row is expanded to f32 just before it is used, so the weights stay small in memory. Rows are shared among
//! threads; the sum within a row always runs in the same order, so the result depends neither on the number of
//! threads, nor on what else is in the batch, nor on which vector width the processor has.

use std::ops::Range;
use std::sync::Arc;

use crate::aligned::{Aligned, is_aligned};
use crate::gguf::TensorKind;
use crate::team::{Leader, with_team};

/// Rows that meet one position before their products are put away.
const ROWS_AT_ONCE: usize = 48;
/// The most rows that are whole in f32 at a time, where they meet more than one position.
const ROWS_EXPANDED: usize = 12;
/// Accumulators of a dot product: a multiple of every vector width in use, and the numbers that a quantised block
/// expands at once.
pub(crate) const LANES: usize = 32;

/// A matrix `[rows, columns]`, row by row.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    kind: TensorKind,
    row_bytes: usize,
    bytes: Bytes,
}

/// Part of a file in memory, shared with whoever else reads the file.
#[derive(Clone)]
pub(crate) struct Bytes {
    file: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Bytes {
    /// `None` where `range` is not within `file`.
    pub(crate) fn new(file: &Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        file.get(range.clone())?;
        Some(Self { file: Arc::clone(file), range })
    }

    fn get(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { file: Arc::new(bytes), range }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.range)
    }
}

impl Matrix {
    /// `None` where `bytes` are not `rows × columns` numbers of a `kind` that this crate reads.
    pub(crate) fn new(rows: usize, columns: usize, kind: TensorKind, bytes: Bytes) -> Option<Self> {
        let (per_block, block_bytes) = kind.block()?;
        if rows == 0 || columns == 0 || !columns.is_multiple_of(per_block) {
            return None;
        }
        let row_bytes = (columns / per_block).checked_mul(block_bytes)?;
        (row_bytes.checked_mul(rows)? == bytes.range.len()).then_some(Self {
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
        let mut bytes = Vec::with_capacity(self.bytes.range.len());
        for row in 0..self.rows {
            bytes.extend_from_slice(self.row(source(row)));
        }
        Self { bytes: bytes.into(), ..self.clone() }
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
        let mut out = vec![0.0f32; self.rows * (x.len() / self.columns)];
        with_team(|leader| multiply_all(leader, &mut [(self, &mut out)], &Positions::new(x, self.columns)));
        out
    }

    /// Rows `rows` times all positions. `put` takes, of each position, the products of a few rows and where among
    /// `rows` they begin.
    pub(crate) fn times(
        &self,
        rows: Range<usize>,
        positions: &Positions<'_>,
        mut put: impl FnMut(usize, usize, &[f32]),
    ) {
        let (x, Positions { n, width, .. }) = (positions.numbers(), positions);
        if *n == 1 {
            let mut out = [0.0f32; ROWS_AT_ONCE];
            for first in rows.clone().step_by(ROWS_AT_ONCE) {
                let out = &mut out[..ROWS_AT_ONCE.min(rows.end - first)];
                rows_times(self, first, x, out);
                put(0, first - rows.start, out);
            }
            return;
        }
        // Each weight is expanded once for all positions.
        let most = rows_expanded(*width, *n);
        let mut expanded = Aligned::new(most * width);
        let mut piece = vec![0.0f32; n * most];
        for first in rows.clone().step_by(most) {
            let count = most.min(rows.end - first);
            let expanded = expanded.room(count * width);
            expand_rows_wide(self, first, expanded);
            expanded_times_wide(expanded, *width, x, &mut piece, most);
            for (position, products) in piece.chunks_exact(most).enumerate() {
                put(position, first - rows.start, &products[..count]);
            }
        }
    }

    /// The bytes of the rows from `first` on.
    pub(crate) fn rows_from(&self, first: usize) -> &[u8] {
        &self.bytes.get()[first * self.row_bytes..]
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.bytes.get()[row * self.row_bytes..(row + 1) * self.row_bytes]
    }
}

/// What matrices are multiplied with.
pub(crate) struct Positions<'a> {
    x: Numbers<'a>,
    n: usize,
    /// The columns; where there is more than one position, filled up to whole [`LANES`].
    width: usize,
}

/// `[n, width]`.
enum Numbers<'a> {
    Theirs(&'a [f32]),
    Own(Aligned),
}

impl<'a> Positions<'a> {
    /// `x` is `[n, columns]`.
    pub(crate) fn new(x: &'a [f32], columns: usize) -> Self {
        let n = x.len() / columns;
        if n == 1 || columns.is_multiple_of(LANES) && is_aligned(x) {
            return Self { x: Numbers::Theirs(x), n, width: columns };
        }
        let width = columns.next_multiple_of(LANES);
        let mut own = Aligned::new(n * width);
        let room = own.room(n * width);
        for (out, x) in room.chunks_exact_mut(width).zip(x.chunks_exact(columns)) {
            out[..columns].copy_from_slice(x);
            out[columns..].fill(0.0);
        }
        Self { x: Numbers::Own(own), n, width }
    }

    fn numbers(&self) -> &[f32] {
        match &self.x {
            Numbers::Theirs(x) => x,
            Numbers::Own(x) => x,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.n
    }
}

/// Matrices of the same columns times the same positions, into `[positions, rows]` each.
pub(crate) fn multiply_all(
    leader: &Leader<'_>,
    products: &mut [(&Matrix, &mut [f32])],
    positions: &Positions<'_>,
) {
    let matrices: Vec<&Matrix> = products.iter().map(|(matrix, _)| *matrix).collect();
    let chunk = rows_per_task(matrices.iter().map(|matrix| matrix.rows).sum(), leader.threads());
    let mut outs: Vec<(&mut [f32], usize)> =
        products.iter_mut().map(|(matrix, out)| (&mut **out, matrix.rows)).collect();
    leader.strips(&mut outs, chunk, &|which, strip| {
        matrices[which].times(strip.columns(), positions, |position, at, products| {
            strip.row(position)[at..at + products.len()].copy_from_slice(products);
        });
    });
}

/// Rows a task works on, of `rows` that `threads` share: enough to be worth it, few enough that none waits long for
/// the last.
pub(crate) fn rows_per_task(rows: usize, threads: usize) -> usize {
    rows.div_ceil(threads * 6).next_multiple_of(ROWS_EXPANDED).min(16 * ROWS_EXPANDED)
}

/// Rows of `width` numbers to expand before they meet `n` positions: with few positions, so many that they stay in the
/// nearest cache; with many, so many that each position is fetched seldom.
fn rows_expanded(width: usize, n: usize) -> usize {
    const NEAR_NUMBERS: usize = 7 << 10;
    if n > 16 {
        return ROWS_EXPANDED;
    }
    (NEAR_NUMBERS / width / 3 * 3).clamp(3, ROWS_EXPANDED)
}

/// One position times rows from `first` on.
fn rows_times(matrix: &Matrix, first: usize, x: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::wide::rows_times_one(matrix, first, x, out) {
        return;
    }
    rows_times_one(matrix, first, x, out);
}

fn expand_rows_wide(matrix: &Matrix, first: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::wide::expand_rows(matrix, first, out) {
        return;
    }
    expand_rows(matrix, first, out);
}

fn expanded_times_wide(rows: &[f32], width: usize, x: &[f32], out: &mut [f32], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if crate::wide::expanded_times(rows, width, x, out, stride) {
        return;
    }
    expanded_times::<2, 2, 8>(rows, width, x, out, stride);
}

/// Rows from `first` on times one position. Inlined into callers that may use wider vectors; the order of additions
/// within a sum is in the code.
#[inline(always)]
pub(crate) fn rows_times_one(matrix: &Matrix, first: usize, x: &[f32], out: &mut [f32]) {
    match matrix.kind {
        TensorKind::F32 => rows_of::<F32, 128>(matrix, first, x, out),
        TensorKind::F16 => rows_of::<F16, 64>(matrix, first, x, out),
        TensorKind::Bf16 => rows_of::<Bf16, 64>(matrix, first, x, out),
        TensorKind::Q8_0 => rows_of::<Q8_0, 34>(matrix, first, x, out),
        TensorKind::Q4_0 => rows_of::<Q4_0, 18>(matrix, first, x, out),
        TensorKind::Q4_1 => rows_of::<Q4_1, 20>(matrix, first, x, out),
        TensorKind::Q5_0 => rows_of::<Q5_0, 22>(matrix, first, x, out),
        TensorKind::Q5_1 => rows_of::<Q5_1, 24>(matrix, first, x, out),
        TensorKind::Q4K => rows_of::<Q4K, 144>(matrix, first, x, out),
        TensorKind::Q5K => rows_of::<Q5K, 176>(matrix, first, x, out),
        TensorKind::Q6K => rows_of::<Q6K, 210>(matrix, first, x, out),
        // `Matrix::new` lets no other kind in.
        TensorKind::Other(_) => out.fill(0.0),
    }
}

/// Expands rows from `first` on into `out`, which has rows of whole [`LANES`].
#[inline(always)]
pub(crate) fn expand_rows(matrix: &Matrix, first: usize, out: &mut [f32]) {
    let columns = matrix.columns;
    for (index, out) in out.chunks_exact_mut(columns.next_multiple_of(LANES)).enumerate() {
        expand(matrix.kind, matrix.row(first + index), &mut out[..columns]);
    }
}

/// Expanded rows of `width` numbers times positions `x`: `out` is `[positions, stride]`, of which the first columns,
/// one for each row, are written. `ROWS` rows and up to `TILE` positions go at once, `WIDTH` lanes after `WIDTH` lanes.
/// The order of additions within a sum is the same for all of these, and that of [`rows_times_one`].
#[inline(always)]
pub(crate) fn expanded_times<const ROWS: usize, const TILE: usize, const WIDTH: usize>(
    rows: &[f32],
    width: usize,
    x: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    for (index, group) in rows.chunks(ROWS * width).enumerate() {
        let first = index * ROWS;
        if group.len() == ROWS * width {
            group_times::<ROWS, TILE, WIDTH>(group, width, x, out, stride, first);
        } else {
            for (at, row) in group.chunks_exact(width).enumerate() {
                group_times::<1, TILE, WIDTH>(row, width, x, out, stride, first + at);
            }
        }
    }
}

#[inline(always)]
fn rows_of<K: Kind<BYTES>, const BYTES: usize>(matrix: &Matrix, first: usize, x: &[f32], out: &mut [f32]) {
    for (index, out) in out.iter_mut().enumerate() {
        *out = row_times::<K, BYTES>(matrix.row(first + index), x);
    }
}

/// `ROWS` expanded rows times all positions, into the columns of `out` from `first` on.
#[inline(always)]
fn group_times<const ROWS: usize, const TILE: usize, const WIDTH: usize>(
    rows: &[f32],
    width: usize,
    x: &[f32],
    out: &mut [f32],
    stride: usize,
    first: usize,
) {
    let n = x.len() / width;
    let mut position = 0;
    while n - position >= TILE {
        let (x, out) = (&x[position * width..(position + TILE) * width], &mut out[position * stride..]);
        tile_times::<ROWS, TILE, WIDTH>(rows, x, out, stride, first);
        position += TILE;
    }
    if TILE > 2 && n - position >= 2 {
        let (x, out) = (&x[position * width..(position + 2) * width], &mut out[position * stride..]);
        tile_times::<ROWS, 2, WIDTH>(rows, x, out, stride, first);
        position += 2;
    }
    while position < n {
        let (x, out) = (&x[position * width..(position + 1) * width], &mut out[position * stride..]);
        tile_times::<ROWS, 1, WIDTH>(rows, x, out, stride, first);
        position += 1;
    }
}

/// `ROWS` rows times `TILE` positions, with an accumulator for each pair in registers.
#[inline(always)]
fn tile_times<const ROWS: usize, const TILE: usize, const WIDTH: usize>(
    rows: &[f32],
    x: &[f32],
    out: &mut [f32],
    stride: usize,
    first: usize,
) {
    let (each, parts) = (rows.len() / ROWS / WIDTH, LANES / WIDTH);
    let (rows, x) = (parts_of::<ROWS, WIDTH>(rows, each), parts_of::<TILE, WIDTH>(x, each));
    let mut lanes = [[[0.0f32; LANES]; TILE]; ROWS];
    let mut part = 0;
    while part < parts {
        let mut sums = [[[0.0f32; WIDTH]; TILE]; ROWS];
        let mut at = part;
        while at < each {
            let mut weights = [[0.0f32; WIDTH]; ROWS];
            let mut row = 0;
            while row < ROWS {
                weights[row] = rows[row][at];
                row += 1;
            }
            let mut tile = 0;
            while tile < TILE {
                let x = x[tile][at];
                let mut row = 0;
                while row < ROWS {
                    multiply_add(&mut sums[row][tile], &weights[row], &x);
                    row += 1;
                }
                tile += 1;
            }
            at += parts;
        }
        // Index by index: any other way the sums would have to lie in memory.
        let mut row = 0;
        while row < ROWS {
            let mut tile = 0;
            while tile < TILE {
                let mut lane = 0;
                while lane < WIDTH {
                    lanes[row][tile][part * WIDTH + lane] = sums[row][tile][lane];
                    lane += 1;
                }
                tile += 1;
            }
            row += 1;
        }
        part += 1;
    }
    for (row, lanes) in lanes.iter().enumerate() {
        for (tile, lanes) in lanes.iter().enumerate() {
            out[tile * stride + first + row] = sum(*lanes);
        }
    }
}

/// `N` rows of `each × WIDTH` numbers.
#[inline(always)]
fn parts_of<const N: usize, const WIDTH: usize>(numbers: &[f32], each: usize) -> [&[[f32; WIDTH]]; N] {
    let mut rows: [&[[f32; WIDTH]]; N] = [&[]; N];
    for (row, numbers) in rows.iter_mut().zip(numbers.as_chunks::<WIDTH>().0.chunks_exact(each)) {
        *row = numbers;
    }
    rows
}

/// One stored row times one `x`, without the row ever being whole in f32.
#[inline(always)]
fn row_times<K: Kind<BYTES>, const BYTES: usize>(row: &[u8], x: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<BYTES>();
    let (pieces, x_rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for (block, x) in blocks.iter().zip(pieces.chunks_exact(K::PARTS)) {
        for (part, x) in x.iter().enumerate() {
            multiply_add(&mut lanes, &K::expand(block, part), x);
        }
    }
    if !x_rest.is_empty() {
        multiply_add(&mut lanes, &K::expand(&padded(rest), 0), &padded(x_rest));
    }
    sum(lanes)
}

// Where a profile checks for overflow, `while` becomes vector code and a `for` over a range does not always.

/// Fused, so that a processor with fused multiply-add and one without give the same bits.
#[inline(always)]
fn multiply_add<const WIDTH: usize>(lanes: &mut [f32; WIDTH], a: &[f32; WIDTH], b: &[f32; WIDTH]) {
    let mut lane = 0;
    while lane < WIDTH {
        lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        lane += 1;
    }
}

#[inline(always)]
fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        let mut lane = 0;
        while lane < width {
            lanes[lane] += lanes[lane + width];
            lane += 1;
        }
        width /= 2;
    }
    lanes[0]
}

/// `values`, which are fewer than `N`, and zeros.
#[inline(always)]
fn padded<T: Copy + Default, const N: usize>(values: &[T]) -> [T; N] {
    let mut out = [T::default(); N];
    for (out, value) in out.iter_mut().zip(values) {
        *out = *value;
    }
    out
}

#[inline(always)]
fn expand(kind: TensorKind, bytes: &[u8], out: &mut [f32]) {
    match kind {
        TensorKind::F32 => expand_as::<F32, 128>(bytes, out),
        TensorKind::F16 => expand_as::<F16, 64>(bytes, out),
        TensorKind::Bf16 => expand_as::<Bf16, 64>(bytes, out),
        TensorKind::Q8_0 => expand_as::<Q8_0, 34>(bytes, out),
        TensorKind::Q4_0 => expand_as::<Q4_0, 18>(bytes, out),
        TensorKind::Q4_1 => expand_as::<Q4_1, 20>(bytes, out),
        TensorKind::Q5_0 => expand_as::<Q5_0, 22>(bytes, out),
        TensorKind::Q5_1 => expand_as::<Q5_1, 24>(bytes, out),
        TensorKind::Q4K => expand_as::<Q4K, 144>(bytes, out),
        TensorKind::Q5K => expand_as::<Q5K, 176>(bytes, out),
        TensorKind::Q6K => expand_as::<Q6K, 210>(bytes, out),
        // `Matrix::new` lets no other kind in.
        TensorKind::Other(_) => out.fill(0.0),
    }
}

#[inline(always)]
fn expand_as<K: Kind<BYTES>, const BYTES: usize>(bytes: &[u8], out: &mut [f32]) {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    let (pieces, out_rest) = out.as_chunks_mut::<LANES>();
    for (block, out) in blocks.iter().zip(pieces.chunks_exact_mut(K::PARTS)) {
        for (part, out) in out.iter_mut().enumerate() {
            *out = K::expand(block, part);
        }
    }
    if !out_rest.is_empty() {
        let last = K::expand(&padded(rest), 0);
        out_rest.copy_from_slice(&last[..out_rest.len()]);
    }
}

/// How `BYTES` bytes hold [`LANES`] numbers, or several times as many. The layouts are those of ggml.
trait Kind<const BYTES: usize> {
    /// How many times. Only rows of floats, which have one part, may end within a block.
    const PARTS: usize = 1;

    fn expand(block: &[u8; BYTES], part: usize) -> [f32; LANES];
}

struct F32;
struct F16;
struct Bf16;
struct Q8_0;
struct Q4_0;
struct Q4_1;
struct Q5_0;
struct Q5_1;
struct Q4K;
struct Q5K;
struct Q6K;

impl Kind<128> for F32 {
    #[inline(always)]
    fn expand(block: &[u8; 128], _: usize) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        for (out, bytes) in out.iter_mut().zip(block.as_chunks::<4>().0) {
            *out = f32::from_le_bytes(*bytes);
        }
        out
    }
}

impl Kind<64> for F16 {
    #[inline(always)]
    fn expand(block: &[u8; 64], _: usize) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        for (out, bytes) in out.iter_mut().zip(block.as_chunks::<2>().0) {
            *out = from_f16(u16::from_le_bytes(*bytes));
        }
        out
    }
}

impl Kind<64> for Bf16 {
    #[inline(always)]
    fn expand(block: &[u8; 64], _: usize) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        for (out, bytes) in out.iter_mut().zip(block.as_chunks::<2>().0) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
        out
    }
}

impl Kind<34> for Q8_0 {
    #[inline(always)]
    fn expand(block: &[u8; 34], _: usize) -> [f32; LANES] {
        let scale = from_f16(u16::from_le_bytes([block[0], block[1]]));
        let mut out = [0.0; LANES];
        for (out, quant) in out.iter_mut().zip(&block[2..]) {
            *out = f32::from(quant.cast_signed()) * scale;
        }
        out
    }
}

impl Kind<18> for Q4_0 {
    #[inline(always)]
    fn expand(block: &[u8; 18], _: usize) -> [f32; LANES] {
        let scale = from_f16(u16::from_le_bytes([block[0], block[1]]));
        centred(nibbles(&block[2..]), 8.0, scale)
    }
}

impl Kind<20> for Q4_1 {
    #[inline(always)]
    fn expand(block: &[u8; 20], _: usize) -> [f32; LANES] {
        let scale = from_f16(u16::from_le_bytes([block[0], block[1]]));
        let least = from_f16(u16::from_le_bytes([block[2], block[3]]));
        scaled(nibbles(&block[4..]), scale, least)
    }
}

impl Kind<22> for Q5_0 {
    #[inline(always)]
    fn expand(block: &[u8; 22], _: usize) -> [f32; LANES] {
        let scale = from_f16(u16::from_le_bytes([block[0], block[1]]));
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        centred(five_bits(&block[6..], high), 16.0, scale)
    }
}

impl Kind<24> for Q5_1 {
    #[inline(always)]
    fn expand(block: &[u8; 24], _: usize) -> [f32; LANES] {
        let scale = from_f16(u16::from_le_bytes([block[0], block[1]]));
        let least = from_f16(u16::from_le_bytes([block[2], block[3]]));
        let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        scaled(five_bits(&block[8..], high), scale, least)
    }
}

impl Kind<144> for Q4K {
    const PARTS: usize = 8;

    #[inline(always)]
    fn expand(block: &[u8; 144], part: usize) -> [f32; LANES] {
        let (scale, least) = scale_and_least(block, part);
        let mut out = [0.0; LANES];
        let shift = 4 * (part % 2);
        let pairs = &block[16 + 32 * (part / 2)..48 + 32 * (part / 2)];
        for (out, pair) in out.iter_mut().zip(pairs) {
            *out = f32::from((pair >> shift) & 15).mul_add(scale, -least);
        }
        out
    }
}

impl Kind<176> for Q5K {
    const PARTS: usize = 8;

    #[inline(always)]
    fn expand(block: &[u8; 176], part: usize) -> [f32; LANES] {
        let (scale, least) = scale_and_least(block, part);
        let mut out = [0.0; LANES];
        let shift = 4 * (part % 2);
        let pairs = &block[48 + 32 * (part / 2)..80 + 32 * (part / 2)];
        for ((out, pair), high) in out.iter_mut().zip(pairs).zip(&block[16..48]) {
            let quant = ((pair >> shift) & 15) | (((high >> part) & 1) << 4);
            *out = f32::from(quant).mul_add(scale, -least);
        }
        out
    }
}

impl Kind<210> for Q6K {
    const PARTS: usize = 8;

    #[inline(always)]
    fn expand(block: &[u8; 210], part: usize) -> [f32; LANES] {
        let (half, quarter) = (part / 4, part % 4);
        let scale = from_f16(u16::from_le_bytes([block[208], block[209]]));
        let low_at = 64 * half + 32 * (quarter % 2);
        let (low, high) = (&block[low_at..low_at + 32], &block[128 + 32 * half..160 + 32 * half]);
        let (low_shift, high_shift) = (4 * (quarter / 2), 2 * quarter);
        let scales_at = 192 + 8 * half + 2 * quarter;
        let of_half = |half: usize| scale * f32::from(block[scales_at + half].cast_signed());
        let scales = [of_half(0), of_half(1)];
        let mut out = [0.0; LANES];
        for (index, out) in out.iter_mut().enumerate() {
            let quant = ((low[index] >> low_shift) & 15) | (((high[index] >> high_shift) & 3) << 4);
            *out = (f32::from(quant) - 32.0) * scales[index / 16];
        }
        out
    }
}

/// Scale and (negated) least number of a part of a Q4_K or Q5_K block: six bits each, the upper ones of the later four
/// parts kept beside the earlier four's.
#[inline(always)]
fn scale_and_least(block: &[u8], part: usize) -> (f32, f32) {
    let packed = &block[4..16];
    let (scale, least) = if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        (
            (packed[part + 4] & 15) | ((packed[part - 4] >> 6) << 4),
            (packed[part + 4] >> 4) | ((packed[part] >> 6) << 4),
        )
    };
    let of_scales = from_f16(u16::from_le_bytes([block[0], block[1]]));
    let of_leasts = from_f16(u16::from_le_bytes([block[2], block[3]]));
    (of_scales * f32::from(scale), of_leasts * f32::from(least))
}

/// Numbers of five bits: halves of sixteen bytes, and the fifth bits.
#[inline(always)]
fn five_bits(bytes: &[u8], high: u32) -> [f32; LANES] {
    let mut out = nibbles(bytes);
    for (index, out) in out.iter_mut().enumerate() {
        *out += ((high >> index) & 1) as f32 * 16.0;
    }
    out
}

/// The sixteen low halves, then the sixteen high ones, of sixteen bytes.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [f32; LANES] {
    let mut pairs = [0u8; LANES / 2];
    pairs.copy_from_slice(bytes);
    let mut out = [0.0; LANES];
    for (index, pair) in pairs.iter().enumerate() {
        out[index] = f32::from(pair & 15);
    }
    for (index, pair) in pairs.iter().enumerate() {
        out[index + LANES / 2] = f32::from(pair >> 4);
    }
    out
}

// Loops, not `map`: a call that is not inlined would run without the caller's vectors.

#[inline(always)]
fn centred(mut quants: [f32; LANES], middle: f32, scale: f32) -> [f32; LANES] {
    for quant in &mut quants {
        *quant = (*quant - middle) * scale;
    }
    quants
}

#[inline(always)]
fn scaled(mut quants: [f32; LANES], scale: f32, least: f32) -> [f32; LANES] {
    for quant in &mut quants {
        *quant = quant.mul_add(scale, least);
    }
    quants
}

/// IEEE 754 binary16 to binary32, exact, without a branch or a call so that loops over it become vector code.
#[inline(always)]
pub(crate) fn from_f16(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    // Shifted into binary32's fields the exponent is 112 too small; a product with 2^112 also makes subnormals right.
    let finite = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let special = f32::from_bits((magnitude << 13) | 0x7f80_0000);
    let value = if magnitude >= 0x7c00 { special } else { finite };
    f32::from_bits(value.to_bits() | (u32::from(bits & 0x8000) << 16))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use half::f16;

    use super::*;

    #[test]
    fn every_half_converts_as_ieee_says() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (from_f16(bits), f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn every_kind_gives_the_same_bits_at_every_width_tile_and_thread_count() {
        for (kind, columns) in [
            (TensorKind::F32, 96),
            (TensorKind::F16, 96),
            (TensorKind::Bf16, 96),
            (TensorKind::Q8_0, 96),
            (TensorKind::Q4_0, 96),
            (TensorKind::Q4_1, 96),
            (TensorKind::Q5_0, 96),
            (TensorKind::Q5_1, 96),
            (TensorKind::Q4K, 512),
            (TensorKind::Q5K, 512),
            (TensorKind::Q6K, 512),
        ] {
            let (per_block, block_bytes) = kind.block().unwrap();
            let row_bytes = columns / per_block * block_bytes;
            let rows = 70;
            // Bytes below 0x40 keep every stored float finite and small.
            let bytes: Vec<u8> = (0..rows * row_bytes).map(|i| (i * 37 % 61) as u8).collect();
            let matrix = Matrix::new(rows, columns, kind, bytes.into()).unwrap();
            let x: Vec<f32> = (0..7 * columns).map(|i| (i as f32 * 0.11).cos()).collect();
            let mut plain = vec![0.0; rows * 7];
            let mut expanded = vec![0.0; rows * columns];
            expand_rows(&matrix, 0, &mut expanded);
            expanded_times::<1, 1, 32>(&expanded, columns, &x, &mut plain, rows);
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let product = pool.install(|| matrix.multiply(&x));
                for (at, value) in product.iter().enumerate() {
                    let (position, row) = (at / rows, at % rows);
                    assert_eq!(value.to_bits(), plain[position * rows + row].to_bits(), "{kind:?}");
                }
                for (position, x) in x.chunks_exact(columns).enumerate() {
                    let alone = pool.install(|| matrix.multiply(x));
                    assert_eq!(alone, product[position * rows..(position + 1) * rows], "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_product_does_not_depend_on_its_company() {
        let (rows, columns) = (70, 96);
        let weights: Vec<u8> =
            (0..rows * columns).flat_map(|i| ((i as f32 * 0.37).sin()).to_le_bytes()).collect();
        let matrix = Matrix::new(rows, columns, TensorKind::F32, weights.into()).unwrap();
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
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let matrix = Matrix::new(rows, columns, TensorKind::F32, bytes.into()).unwrap();
        let x: Vec<f32> = (0..columns).map(|i| (i % 5) as f32).collect();
        let expected: Vec<f32> =
            values.chunks_exact(columns).map(|row| row.iter().zip(&x).map(|(a, b)| a * b).sum()).collect();
        assert_eq!(matrix.multiply(&x), expected);
    }

    /// Against ggml's own Python package, on random blocks.
    #[test]
    fn quantised_blocks_expand_as_ggml_defines_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blocks.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (kind, name) in [
            (TensorKind::Q8_0, "q8_0"),
            (TensorKind::Q4_0, "q4_0"),
            (TensorKind::Q4_1, "q4_1"),
            (TensorKind::Q5_0, "q5_0"),
            (TensorKind::Q5_1, "q5_1"),
            (TensorKind::Q4K, "q4_k"),
            (TensorKind::Q5K, "q5_k"),
            (TensorKind::Q6K, "q6_k"),
        ] {
            let of = |part: &str| stored.tensor(&format!("{name}.{part}")).unwrap().data().to_vec();
            let numbers: Vec<f32> =
                of("numbers").as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let ours = Matrix::new(1, numbers.len(), kind, of("blocks").into()).unwrap().expand_all();
            for (at, (ours, theirs)) in ours.iter().zip(&numbers).enumerate() {
                // Fused, we round once where they round twice.
                assert!((ours - theirs).abs() <= theirs.abs() * 1e-6 + 1e-5, "{name} {at}: {ours} {theirs}");
            }
        }
    }
}
