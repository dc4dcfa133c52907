//! Matrix products. Operands are packed into lanes, the micro-kernels compute tiles, and an epilogue is applied to each
//! tile while it is in the L1 cache.

use std::borrow::Borrow;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::lanes::Lanes;
use super::pack::{ColumnUnits, Packed, Source, pack_rows, round, transpose};
use super::simd::vectorized;
use super::tile::{self, Kernels, Tile, WIDEST};
use super::vector::map_activation;
use super::view::extent;
use super::{Element, Simd, Slot, View};
use crate::Activation;

/// The number of rows in a block of sums.
pub(super) const ROWS: usize = 64;
/// The number of rows that share a pass over the right operand, if multiplying is faster than reading it.
const ROWS_IN_TILES: usize = 256;
/// The number of lanes that are summed before the next rows. This part of a panel stays in the L2 cache.
const LANES: usize = 512;

fn most_rows<E: Element>(simd: Simd) -> usize {
    if tile::wants_rows::<E>(simd) { ROWS_IN_TILES } else { ROWS }
}

/// The number of rows that a thread takes at a time: two blocks per thread, with at most [`most_rows`] rows each.
pub(super) fn block_rows<E: Element>(simd: Simd, rows: usize) -> usize {
    let fair = rows.div_ceil(2 * rayon::current_num_threads());
    fair.next_multiple_of(tile::max_rows::<E>(simd)).min(most_rows::<E>(simd))
}

/// The operation that is applied to the sums.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// The sums replace the output.
    Store,
    /// The sums are added to the output.
    Accumulate,
    /// `sums + bias`
    Bias(&'a [f32]),
    /// `activation(sums + bias)`
    BiasActivation(&'a [f32], Activation),
}

impl<'a> Epilogue<'a> {
    /// The epilogue of some columns.
    fn of(self, columns: Range<usize>) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[columns]),
            Self::BiasActivation(bias, activation) => Self::BiasActivation(&bias[columns], activation),
            Self::Store | Self::Accumulate => self,
        }
    }
}

/// The destination of a result: a rectangle of a row-major matrix.
#[derive(Debug)]
pub struct Target<'a, S> {
    data: &'a mut [S],
    row_step: usize,
    first_column: usize,
}

impl<'a, S: Slot> Target<'a, S> {
    /// A whole matrix with `columns` columns.
    pub fn whole(data: &'a mut [S], columns: usize) -> Self {
        Self { data, row_step: columns, first_column: 0 }
    }

    /// The columns from `first_column` on, in a matrix whose rows are `row_step` values apart.
    pub fn columns(data: &'a mut [S], row_step: usize, first_column: usize) -> Self {
        Self { data, row_step, first_column }
    }

    /// The part of the target that starts at `column`.
    pub fn from(&mut self, column: usize) -> Target<'_, S> {
        Target { data: self.data, row_step: self.row_step, first_column: self.first_column + column }
    }

    /// Checks that the product fits into the target, and that the epilogue has one value per column.
    fn check(&self, rows: usize, columns: usize, epilogue: Epilogue<'_>) {
        let extent = self.first_column.checked_add(columns).and_then(|row| extent(rows, self.row_step, row));
        let has_room = extent.is_some_and(|extent| extent <= self.data.len());
        assert!(has_room, "{rows} rows of {columns} columns go beyond the {} values of the output", self.data.len());
        if let Epilogue::Bias(bias) | Epilogue::BiasActivation(bias, _) = epilogue {
            assert_eq!(bias.len(), columns, "a bias for each column");
        }
    }

    fn rows(self, rows: usize, columns: usize) -> Vec<&'a mut [S]> {
        let rows = self.data.chunks_mut(self.row_step.max(1)).take(rows);
        rows.map(|row| &mut row[self.first_column..][..columns]).collect()
    }
}

/// Computes `a · b` with an epilogue into `out`, with all threads.
///
/// # Panics
/// When the shapes do not match, or `E` is quantized and the rows of `a` are not contiguous.
pub fn product<E: Kernels, T: Source<E>, S: Slot>(
    simd: Simd,
    a: View<'_, T>,
    b: &Packed<E>,
    out: Target<'_, S>,
    epilogue: Epilogue<'_>,
) {
    out.check(a.rows(), b.n, epilogue);
    let threads = rayon::current_num_threads();
    if a.rows() > ROWS {
        let rows = block_rows::<E>(simd, a.rows());
        let Target { data, row_step, first_column } = out;
        let blocks = data.par_chunks_mut(rows * row_step).take(a.rows().div_ceil(rows)).enumerate();
        // Each block is a separate task, so that a thread that is done can take any remaining block.
        blocks.with_max_len(1).for_each(|(at, data)| {
            let a = a.narrow(at * rows, rows.min(a.rows() - at * rows));
            let mut scratch = Lanes::any(0);
            let mut out = Target { data, row_step, first_column }.rows(a.rows(), b.n);
            Rows::new(simd, a, b, &mut scratch).times(simd, b, 0..b.panels(), epilogue, &mut out);
        });
    } else {
        // With few rows, the threads share the columns, and thereby the reading of `b`.
        let mut scratch = Lanes::any(0);
        let rows = Rows::new(simd, a, b, &mut scratch);
        let panels = b.panels().div_ceil(4 * threads).max(1);
        let columns = panels * b.width;
        let mut parts: Vec<Vec<&mut [S]>> = vec![];
        parts.resize_with(b.n.div_ceil(columns), Vec::new);
        for row in out.rows(a.rows(), b.n) {
            for (part, row) in parts.iter_mut().zip(row.chunks_mut(columns)) {
                part.push(row);
            }
        }
        parts.into_par_iter().enumerate().with_max_len(1).for_each(|(at, mut out)| {
            let panels = at * panels..((at + 1) * panels).min(b.panels());
            rows.times(simd, b, panels, epilogue, &mut out);
        });
    }
}

/// As [`product`], into a new matrix `[a.rows(), columns]`. The right operand is given in parts, side by side.
pub fn new_product<E: Kernels, T: Source<E>, O: Element>(
    simd: Simd,
    a: View<'_, T>,
    columns: usize,
    parts: impl Iterator<Item: Borrow<Packed<E>>>,
    epilogue: Epilogue<'_>,
) -> Vec<O> {
    fill(a.rows() * columns, |out| {
        let mut target = Target::whole(out, columns);
        let mut first = 0;
        for b in parts {
            let b = b.borrow();
            product(simd, a, b, target.from(first), epilogue.of(first..first + b.n));
            first += b.n;
        }
        assert_eq!(first, columns, "a part for each column");
    })
}

/// [`product`] on the calling thread.
pub fn product_serial<E: Kernels, T: Source<E>, S: Slot>(
    simd: Simd,
    a: View<'_, T>,
    b: &Packed<E>,
    out: Target<'_, S>,
    epilogue: Epilogue<'_>,
) {
    out.check(a.rows(), b.n, epilogue);
    product_into_rows(simd, a, b, &mut out.rows(a.rows(), b.n), epilogue);
}

/// [`product_serial`] into separate rows, each with one value per column.
pub fn product_into_rows<E: Kernels, T: Source<E>, S: Slot>(
    simd: Simd,
    a: View<'_, T>,
    b: &Packed<E>,
    out: &mut [&mut [S]],
    epilogue: Epilogue<'_>,
) {
    let most = most_rows::<E>(simd);
    for (at, out) in out.chunks_mut(most).enumerate() {
        let mut scratch = Lanes::any(0);
        let a = a.narrow(at * most, out.len());
        Rows::new(simd, a, b, &mut scratch).times(simd, b, 0..b.panels(), epilogue, out);
    }
}

/// Creates a vector from uninitialized memory. `write` must write every value.
#[allow(unsafe_code, reason = "a vector's memory that has been filled")]
pub(super) fn fill<O: Element>(len: usize, write: impl FnOnce(&mut [MaybeUninit<O>])) -> Vec<O> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: `write` has written each of the `len` values. `new_product` writes all columns of all rows, whatever is summed;
    // `PositionWise::run` has checked that its blocks and normalizations have all columns.
    unsafe { values.set_len(len) };
    values
}

/// The rows of a left operand, as the micro-kernels read them.
struct Rows<'a, E> {
    values: &'a [E],
    row_step: usize,
    lane_step: usize,
    /// The scale and the zero point of each row, if `E` is quantized.
    units: Vec<(f32, i32)>,
}

impl<'a, E: Kernels> Rows<'a, E> {
    /// Uses the rows in place, or rounds, quantizes or transposes them into `scratch`.
    fn new<T: Source<E>>(simd: Simd, a: View<'a, T>, b: &Packed<E>, scratch: &'a mut Lanes<E>) -> Self {
        assert_eq!(a.cols(), b.k, "the columns of the left operand are summed with the rows of the right one");
        let (rows, lanes) = (a.rows(), b.k.div_ceil(E::PER_LANE));
        let row_len = lanes * E::PER_LANE;
        let mut units = vec![(1.0, 0); rows];
        // Incomplete lanes end in zeros.
        let room = || if row_len == b.k { Lanes::any(rows * row_len) } else { Lanes::zeroed(rows * row_len) };
        let (values, row_step, lane_step): (&[E], usize, usize) = match a.contiguous_rows() {
            Some((values, row_step)) if row_len == b.k && T::unchanged(values).is_some() => {
                (T::unchanged(values).expect("the guard checked it"), row_step, E::PER_LANE)
            }
            Some(_) => {
                *scratch = room();
                let mut quantizer = b.quantizer();
                for (at, row) in scratch.chunks_exact_mut(row_len.max(1)).enumerate() {
                    let values = a.row(at).expect("its rows lie in one piece");
                    match bytemuck::try_cast_slice_mut(row) {
                        Ok(row) if E::QUANTIZED => units[at] = quantizer.row(simd, values, row),
                        _ => round(simd, values, row),
                    }
                }
                (scratch, row_len, E::PER_LANE)
            }
            None => {
                assert!(!E::QUANTIZED, "rows of a quantized product lie in one piece");
                *scratch = room();
                if tile::wants_rows::<E>(simd) {
                    transpose(simd, a.transposed(), row_len, scratch);
                    (scratch, row_len, E::PER_LANE)
                } else {
                    pack_rows(simd, a.transposed(), 0, rows, rows, scratch);
                    (scratch, E::PER_LANE, rows * E::PER_LANE)
                }
            }
        };
        Self { values, row_step, lane_step, units }
    }

    /// Multiplies with some panels, and applies the epilogue. `out` has any number of rows, and its columns begin at the
    /// first of these panels.
    fn times<S: Slot>(
        &self,
        simd: Simd,
        b: &Packed<E>,
        panels: Range<usize>,
        epilogue: Epilogue<'_>,
        out: &mut [&mut [S]],
    ) {
        let lanes = b.k.div_ceil(E::PER_LANE);
        let mut sums = [E::Sum::default(); ROWS * WIDEST];
        let mut values = [0f32; ROWS * WIDEST];
        let mut registers = tile::Registers::default();
        let first_column = panels.start * b.width;
        for panel in panels {
            let column = panel * b.width;
            let columns = column..b.n.min(column + b.width);
            for (at, out) in out.chunks_mut(ROWS).enumerate() {
                let first = at * ROWS;
                let sums = &mut sums[..out.len() * b.width];
                if lanes == 0 {
                    sums.fill(E::Sum::default());
                }
                for lane in (0..lanes).step_by(LANES) {
                    let tile = Tile {
                        a: &self.values[first * self.row_step + lane * self.lane_step..],
                        row_step: self.row_step,
                        lane_step: self.lane_step,
                        b: &b.panel(panel)[lane * b.width * E::PER_LANE..],
                        width: b.width,
                        lanes: LANES.min(lanes - lane),
                        next: LANES.min(lanes) * b.width * E::PER_LANE,
                        is_first: lane == 0,
                    };
                    tile::add_product(simd, &tile, sums, &mut registers);
                }
                let sums = Sums::<E> { sums, width: b.width, rows: &self.units[first..], columns: &b.columns };
                let epilogue = epilogue.of(columns.clone());
                finish(simd, sums, columns.clone(), epilogue, &mut values, column - first_column, out);
            }
        }
    }
}

/// The sums of a block. Integer sums come with the scales that convert them to real numbers.
struct Sums<'a, E: Kernels> {
    sums: &'a [E::Sum],
    /// The number of sums in a row.
    width: usize,
    /// The scale and the zero point of each row.
    rows: &'a [(f32, i32)],
    /// The scales of all columns of the right operand.
    columns: &'a ColumnUnits,
}

vectorized! {
    /// Applies the epilogue to a block whose sums belong to `columns`, and writes the result to `out`, starting at column
    /// `at`. `values` is scratch memory for a block.
    fn finish<E: Kernels, S: Slot>(
        block: Sums<'_, E>, columns: Range<usize>, epilogue: Epilogue<'_>, values: &mut [f32], at: usize, out: &mut [&mut [S]],
    ) {
        let count = columns.len();
        let ColumnUnits { units, sums: totals } = block.columns;
        let units: (&[f32], &[i32]) =
            if E::QUANTIZED { (&units[columns.clone()], &totals[columns.clone()]) } else { (&[], &[]) };
        let rows = block.sums.chunks_exact(block.width).zip(block.rows);
        match epilogue {
            Epilogue::Store => {
                for ((sums, unit), out) in rows.zip(out) {
                    for (out, sum) in out[at..at + count].iter_mut().zip(E::real(&sums[..count], *unit, units)) {
                        out.write(sum);
                    }
                }
            }
            Epilogue::Accumulate => {
                for ((sums, unit), out) in rows.zip(out) {
                    for (out, sum) in out[at..at + count].iter_mut().zip(E::real(&sums[..count], *unit, units)) {
                        out.add(sum);
                    }
                }
            }
            Epilogue::Bias(bias) => {
                for ((sums, unit), out) in rows.zip(out) {
                    let sums = E::real(&sums[..count], *unit, units);
                    for ((out, sum), bias) in out[at..at + count].iter_mut().zip(sums).zip(bias) {
                        out.write(sum + bias);
                    }
                }
            }
            Epilogue::BiasActivation(bias, activation) => {
                // One loop over all values. A loop for each row would spend more time on its setup than on the activations.
                let values = &mut values[..block.sums.len()];
                for ((sums, unit), values) in rows.zip(values.chunks_exact_mut(block.width)) {
                    for ((value, sum), bias) in values.iter_mut().zip(E::real(&sums[..count], *unit, units)).zip(bias) {
                        *value = sum + bias;
                    }
                }
                map_activation::<A>(activation, &mut *values);
                for (values, out) in values.chunks_exact(block.width).zip(out) {
                    for (out, value) in out[at..at + count].iter_mut().zip(values) {
                        out.write(*value);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
