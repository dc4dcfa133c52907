//! Packs operands for the micro-kernels.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::arithmetic::{from_ordered, ordered};
use super::lanes::Lanes;
use super::simd::vectorized;
use super::tile::{self, Kernels};
use super::{Element, Simd, View};
use crate::InputRounding;

/// A type of input values that can be rounded to `E`.
pub trait Source<E>: Element {
    /// Rounds a value.
    fn rounded(self) -> E;

    /// Returns the values themselves if they need no rounding.
    fn unchanged(values: &[Self]) -> Option<&[E]>;
}

impl<E: Element> Source<E> for f32 {
    #[inline(always)]
    fn rounded(self) -> E {
        E::from_f32(self)
    }

    fn unchanged(values: &[Self]) -> Option<&[E]> {
        (E::PER_LANE == 1).then(|| bytemuck::cast_slice(values))
    }
}

impl Source<i8> for bf16 {
    #[inline(always)]
    fn rounded(self) -> i8 {
        i8::from_f32(self.to_f32())
    }

    fn unchanged(_: &[Self]) -> Option<&[i8]> {
        None
    }
}

impl Source<bf16> for bf16 {
    #[inline(always)]
    fn rounded(self) -> bf16 {
        self
    }

    fn unchanged(values: &[Self]) -> Option<&[bf16]> {
        Some(values)
    }
}

impl Source<i8> for i8 {
    #[inline(always)]
    fn rounded(self) -> i8 {
        self
    }

    fn unchanged(values: &[Self]) -> Option<&[i8]> {
        Some(values)
    }
}

/// A right operand, packed for the micro-kernels into panels of columns. In a panel, the lanes of the same `k` are
/// adjacent.
#[derive(Debug)]
pub struct Packed<E> {
    /// The number of rows.
    pub(super) k: usize,
    /// The number of columns.
    pub(super) n: usize,
    /// The number of columns in a panel.
    pub(super) width: usize,
    lanes: Lanes<E>,
    /// Set if `E` is quantized.
    pub(super) columns: ColumnUnits,
    /// The rounding of the left operand, set if `E` is quantized.
    rounding: InputRounding,
}

/// The scales and sums of the columns of a quantized operand, in separate vectors for vectorized reads.
#[derive(Clone, Debug, Default)]
pub struct ColumnUnits {
    /// The scale of each column: the real value of the integer 1.
    pub(super) units: Vec<f32>,
    /// The sum of each column's integers.
    pub(super) sums: Vec<i32>,
}

impl Packed<i8> {
    /// Packs a `k × n` matrix of integers from −127 to 127. `units` has one scale per column, and `rounding` applies to a
    /// left operand with `k` columns.
    pub fn from_quantized(simd: Simd, b: View<'_, i8>, units: &[f32], rounding: InputRounding) -> Self {
        assert_eq!(units.len(), b.cols(), "a unit for each column");
        let InputRounding { smoothing, range } = &rounding;
        assert!(smoothing.is_empty() || smoothing.len() == b.rows(), "a factor for each row");
        assert!(range.is_none_or(InputRounding::is_range), "a finite range with 0.0 in it");
        let columns = b.transposed();
        let sum = |column: usize| -> i32 {
            let values = columns.row(column).expect("a column lies in one piece");
            values.iter().map(|value| i32::from(*value)).sum()
        };
        let columns = ColumnUnits { units: units.to_vec(), sums: (0..units.len()).map(sum).collect() };
        Self { columns, rounding, ..Self::rounded(simd, b) }
    }
}

/// Quantizes the rows of a left operand for a right operand.
pub(super) struct Quantizer<'a> {
    rounding: &'a InputRounding,
    /// A row after smoothing.
    smoothed: Vec<f32>,
}

impl Quantizer<'_> {
    /// Quantizes a row to bytes. Returns its scale and its zero point, the byte of 0.0.
    pub(super) fn row<T: Element>(&mut self, simd: Simd, from: &[T], to: &mut [i8]) -> (f32, i32) {
        let InputRounding { smoothing, range } = self.rounding;
        if smoothing.is_empty() {
            return quantize(simd, from, *range, to);
        }
        self.smoothed.resize(from.len(), 0.0);
        multiply(simd, from, smoothing, &mut self.smoothed);
        quantize(simd, &self.smoothed, *range, to)
    }
}

/// Quantizes a row to bytes from 0 to 255, within `range` or, if there is none, within the row's own range. One of the
/// bytes represents 0.0 exactly. Returns the scale and the zero point, the byte of 0.0.
fn quantize<T: Element>(simd: Simd, from: &[T], range: Option<[f32; 2]>, to: &mut [i8]) -> (f32, i32) {
    let [low, high] = range.unwrap_or_else(|| own_range(simd, from));
    // A row of zeros can have any scale.
    let unit = if high - low > f32::MIN_POSITIVE { (high - low) / 255.0 } else { 1.0 };
    let zero = (-low * (1.0 / unit)).round_ties_even();
    to_bytes(simd, from, unit, zero, to);
    (unit, zero as i32)
}

impl<E: Kernels> Packed<E> {
    /// Packs a `k × n` matrix.
    pub fn new<T: Source<E>>(simd: Simd, b: View<'_, T>) -> Self {
        if E::QUANTIZED { Self::quantized(simd, b) } else { Self::rounded(simd, b) }
    }

    /// Quantizes each column so that its largest magnitude becomes 127.
    fn quantized<T: Element>(simd: Simd, b: View<'_, T>) -> Self {
        let (k, n) = (b.rows(), b.cols());
        let values: Vec<f32> = (0..k).flat_map(|row| (0..n).map(move |column| b.at(row, column).to_f32())).collect();
        let mut columns = ColumnUnits { units: vec![0.0; n], sums: vec![0; n] };
        let mut scaled = vec![0f32; k * n];
        quantize_columns(simd, &values, &mut columns, &mut scaled);
        Self { columns, ..Self::rounded(simd, View::new(&scaled, k, n, n)) }
    }

    fn rounded<T: Source<E>>(simd: Simd, b: View<'_, T>) -> Self {
        let mut packed = Self::empty(simd, b.rows(), b.cols());
        let (width, panel) = (packed.width, packed.panel_len());
        if panel > 0 {
            let panels = packed.lanes.par_chunks_exact_mut(panel).enumerate();
            panels.for_each(|(at, lanes)| pack(simd, b, at * width, width, lanes));
        }
        packed
    }

    /// Packs a `k × n` matrix whose columns are computed while they are packed. `compute` gets a range of columns and a
    /// buffer. It writes these columns in any layout, and returns them as a view of `k` rows.
    ///
    /// # Panics
    /// When `E` is quantized.
    pub fn by_panel(
        simd: Simd,
        [k, n]: [usize; 2],
        compute: impl for<'a> Fn(Range<usize>, &'a mut [f32]) -> View<'a, f32> + Sync,
    ) -> Self {
        assert!(!E::QUANTIZED, "the columns of a quantized operand are read twice");
        let mut packed = Self::empty(simd, k, n);
        let (width, panel) = (packed.width, packed.panel_len());
        if panel > 0 {
            let panels = packed.lanes.par_chunks_exact_mut(panel).enumerate();
            panels.for_each_init(
                || vec![0f32; k * width],
                |values, (at, lanes)| {
                    let columns = at * width..n.min((at + 1) * width);
                    let values = &mut values[..k * columns.len()];
                    pack(simd, compute(columns, values), 0, width, lanes);
                },
            );
        }
        packed
    }

    /// [`Packed::new`] on the calling thread, for an `E` that is not quantized.
    pub fn new_serial<T: Source<E>>(simd: Simd, b: View<'_, T>) -> Self {
        let mut packed = Self::empty(simd, b.rows(), b.cols());
        let (width, panel) = (packed.width, packed.panel_len());
        if panel > 0 {
            for (at, lanes) in packed.lanes.chunks_exact_mut(panel).enumerate() {
                pack(simd, b, at * width, width, lanes);
            }
        }
        packed
    }

    fn empty(simd: Simd, k: usize, n: usize) -> Self {
        let waste = |width: &&usize| n.next_multiple_of(**width);
        let width = *tile::widths::<E>(simd).iter().min_by_key(waste).expect("there is a width");
        let len = n.div_ceil(width) * width * k.div_ceil(E::PER_LANE) * E::PER_LANE;
        // If every place gets a value, the old values do not matter.
        let lanes = if len == k * n { Lanes::any(len) } else { Lanes::zeroed(len) };
        Self { k, n, width, lanes, columns: ColumnUnits::default(), rounding: InputRounding::default() }
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.n
    }

    pub(super) fn quantizer(&self) -> Quantizer<'_> {
        Quantizer { rounding: &self.rounding, smoothed: vec![] }
    }

    fn panel_len(&self) -> usize {
        self.width * self.k.div_ceil(E::PER_LANE) * E::PER_LANE
    }

    pub(super) fn panel(&self, at: usize) -> &[E] {
        &self.lanes[at * self.panel_len()..][..self.panel_len()]
    }

    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(self.width)
    }
}

/// 1.5 · 2²³. Adding it to a small number leaves the nearest integer in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// Packs at most `width` columns, starting at `first`, into `lanes`, which must be zero where no value is written.
fn pack<E: Element, T: Source<E>>(simd: Simd, b: View<'_, T>, first: usize, width: usize, lanes: &mut [E]) {
    let count = width.min(b.cols() - first);
    if b.row(0).is_some() {
        pack_rows(simd, b, first, count, width, lanes);
    } else {
        pack_columns(simd, b.transposed(), first, count, width, lanes);
    }
}

/// Rounds values, with all threads.
pub fn round_all<E: Element, T: Source<E>>(simd: Simd, from: &[T], to: &mut [E]) {
    const VALUES: usize = 1 << 14;
    to.par_chunks_mut(VALUES).zip(from.par_chunks(VALUES)).for_each(|(to, from)| round(simd, from, to));
}

vectorized! {
    /// Packs a matrix whose rows are contiguous. A lane takes its values from adjacent rows.
    pub(super) fn pack_rows<E: Element, T: Source<E>>(b: View<'_, T>, first: usize, count: usize, width: usize, lanes: &mut [E]) {
        let row = |k: usize| &b.row(k).expect("its rows lie in one piece")[first..first + count];
        for (at, lanes) in lanes.chunks_exact_mut(width * E::PER_LANE).enumerate() {
            let k = at * E::PER_LANE;
            if E::PER_LANE == 2 && k + 1 < b.rows() {
                for (lane, (earlier, later)) in lanes.chunks_exact_mut(2).zip(row(k).iter().zip(row(k + 1))) {
                    lane[0] = earlier.rounded();
                    lane[1] = later.rounded();
                }
            } else {
                for at in 0..E::PER_LANE.min(b.rows() - k) {
                    for (lane, value) in lanes.chunks_exact_mut(E::PER_LANE).zip(row(k + at)) {
                        lane[at] = value.rounded();
                    }
                }
            }
        }
    }

    /// Writes the rows of a matrix whose columns are contiguous. `columns` is its transpose, `k × rows`. The rows begin
    /// `row_len` values apart and must be zeroed before.
    pub(super) fn transpose<E: Element, T: Source<E>>(columns: View<'_, T>, row_len: usize, rows: &mut [E]) {
        for k in 0..columns.rows() {
            let column = columns.row(k).expect("its rows lie in one piece");
            for (row, value) in rows.chunks_exact_mut(row_len).zip(column) {
                row[k] = value.rounded();
            }
        }
    }

    /// Packs a matrix whose columns are contiguous. `b` is its transpose, `n × k`.
    fn pack_columns<E: Element, T: Source<E>>(b: View<'_, T>, first: usize, count: usize, width: usize, lanes: &mut [E]) {
        const BLOCK: usize = 16;
        let mut rounded = [[E::default(); BLOCK]; BLOCK];
        for k in (0..b.cols()).step_by(BLOCK) {
            let depth = BLOCK.min(b.cols() - k);
            for column in (0..count).step_by(BLOCK) {
                let columns = BLOCK.min(count - column);
                for (at, rounded) in rounded.iter_mut().enumerate().take(columns) {
                    let values = &b.row(first + column + at).expect("its rows lie in one piece")[k..k + depth];
                    // Rounding a constant number of values compiles to a few instructions, any other number to a call.
                    match <&[T; BLOCK]>::try_from(values) {
                        Ok(values) => *rounded = values.map(T::rounded),
                        Err(_) => {
                            rounded[depth..].fill(E::default());
                            rounded.iter_mut().zip(values).for_each(|(rounded, value)| *rounded = value.rounded());
                        }
                    }
                }
                for lane in 0..depth.div_ceil(E::PER_LANE) {
                    let to = ((k / E::PER_LANE + lane) * width + column) * E::PER_LANE;
                    let to = &mut lanes[to..to + columns * E::PER_LANE];
                    for (to, rounded) in to.chunks_exact_mut(E::PER_LANE).zip(&rounded) {
                        to.copy_from_slice(&rounded[lane * E::PER_LANE..][..E::PER_LANE]);
                    }
                }
            }
        }
    }

    /// Quantizes the columns of a matrix to integers from −127 to 127. Writes the integers, and each column's scale and
    /// sum.
    fn quantize_columns(values: &[f32], columns: &mut ColumnUnits, whole: &mut [f32]) {
        let ColumnUnits { units, sums } = columns;
        let n = units.len().max(1);
        for row in values.chunks_exact(n) {
            for (largest, value) in units.iter_mut().zip(row) {
                *largest = if value.abs() > *largest { value.abs() } else { *largest };
            }
        }
        for unit in &mut *units {
            // A column of zeros can have any scale.
            *unit = if *unit > 127.0 * f32::MIN_POSITIVE { *unit / 127.0 } else { 1.0 };
        }
        for (whole, row) in whole.chunks_exact_mut(n).zip(values.chunks_exact(n)) {
            for (((whole, value), unit), sum) in whole.iter_mut().zip(row).zip(&*units).zip(&mut *sums) {
                *whole = (value / *unit + ROUND) - ROUND;
                *sum += *whole as i32;
            }
        }
    }

    /// The smallest and the largest of a row's values and 0.0.
    fn own_range<T: Element>(from: &[T]) -> [f32; 2] {
        let (mut low, mut high) = (0, 0);
        for value in from {
            let value = ordered(value.to_f32());
            low = if value < low { value } else { low };
            high = if value > high { value } else { high };
        }
        [low, high].map(from_ordered)
    }

    /// Quantizes a row to bytes.
    fn to_bytes<T: Element>(from: &[T], unit: f32, zero: f32, to: &mut [i8]) {
        let inverse = 1.0 / unit;
        for (to, value) in to.iter_mut().zip(from) {
            let byte = (value.to_f32() * inverse).clamp(-zero, 255.0 - zero) + (zero + ROUND);
            *to = byte.to_bits() as i8;
        }
    }

    /// Multiplies each value with its factor.
    fn multiply<T: Element>(values: &[T], factors: &[f32], products: &mut [f32]) {
        for ((product, value), factor) in products.iter_mut().zip(values).zip(factors) {
            *product = value.to_f32() * factor;
        }
    }

    /// Rounds a row.
    pub fn round<E: Element, T: Source<E>>(from: &[T], to: &mut [E]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.rounded();
        }
    }
}
