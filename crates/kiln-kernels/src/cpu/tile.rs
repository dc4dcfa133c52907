//! The micro-kernels. Each computes a small tile of a product with its sums in registers.
#![allow(unsafe_code, reason = "vector instructions, on pointers whose bounds are checked once a tile")]

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::simd::Level;
use super::view::extent;
use super::{Element, Simd};

/// The number of columns in a panel is a multiple of this.
pub(super) const COLUMNS: usize = 16;
/// The number of columns in the widest panel.
pub(super) const WIDEST: usize = 48;

/// A block of rows times a panel of columns. Steps are numbers of values.
pub(super) struct Tile<'a, E> {
    /// The left operand. Lane `k` of row `r` is at `r * row_step + k * lane_step`.
    pub(super) a: &'a [E],
    pub(super) row_step: usize,
    pub(super) lane_step: usize,
    /// The right operand. The `width` lanes of the same `k` are adjacent.
    pub(super) b: &'a [E],
    pub(super) width: usize,
    /// The number of lanes to sum over.
    pub(super) lanes: usize,
    /// The distance from `b` to the data that is prefetched.
    pub(super) next: usize,
    /// Whether the sums start at zero instead of their previous values.
    pub(super) is_first: bool,
}

#[cfg(target_arch = "x86_64")]
pub(super) use amx::Registers;

/// The tile registers that a thread keeps configured between tiles. This architecture has none.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Debug, Default)]
pub(super) struct Registers;

/// The largest number of rows whose sums stay in registers, for panels as wide as [`widths`] allows.
pub(super) fn max_rows<E: Element>(simd: Simd) -> usize {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } if wants_rows::<E>(simd) => amx::ROWS,
        _ => max_vector_rows::<E>(simd),
    }
}

/// As [`max_rows`], for vector registers.
fn max_vector_rows<E: Element>(simd: Simd) -> usize {
    match simd.level() {
        Level::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        // Values that are widened before the multiplication need more of the 16 or 32 registers.
        Level::Avx2 { .. } if E::PER_LANE == 2 => 4,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 { .. } => 6,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { bf16: false, .. } if E::PER_LANE == 2 => 7,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } => 8,
    }
}

/// The possible widths of panels.
pub(super) fn widths<E: Element>(simd: Simd) -> &'static [usize] {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } if wants_rows::<E>(simd) => &[amx::COLUMNS],
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } => &[WIDEST, 32, 16],
        _ => &[16],
    }
}

/// Whether the products of `E` are faster if the lanes of each row of the left operand are adjacent.
pub(super) fn wants_rows<E: Element>(simd: Simd) -> bool {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { amx, .. } => amx && E::PER_LANE > 1,
        _ => false,
    }
}

impl<E: Element> Tile<'_, E> {
    /// Whether `rows` rows and all lanes are within both slices.
    fn is_within(&self, rows: usize) -> bool {
        let Self { a, row_step, lane_step, b, width, lanes, .. } = *self;
        let row = extent(lanes, lane_step, E::PER_LANE);
        let of_a = row.and_then(|row| extent(rows, row_step, row));
        let of_b = lanes.checked_mul(width).and_then(|values| values.checked_mul(E::PER_LANE));
        of_a.is_some_and(|extent| extent <= a.len()) && of_b.is_some_and(|extent| extent <= b.len())
    }
}

#[cfg(target_arch = "x86_64")]
impl<E: Kernels> Tile<'_, E> {
    /// Pointers to some lanes of the rows from `start` on, without prefetching.
    fn pointers(&self, start: usize, lanes: std::ops::Range<usize>, sums: &mut [E::Sum]) -> x86::Pointers<E> {
        let b_step = self.width * E::PER_LANE;
        x86::Pointers {
            a: self.a[start * self.row_step + lanes.start * self.lane_step..].as_ptr(),
            row_step: self.row_step,
            lane_step: self.lane_step,
            b: self.b[lanes.start * b_step..].as_ptr(),
            b_step,
            ahead: self.next,
            fetched: (0, 0),
            sums: sums[start * self.width..].as_mut_ptr(),
            width: self.width,
            lanes: lanes.len(),
            is_first: self.is_first,
        }
    }
}

/// The number of leading lanes that are multiplied in tile registers. These are whole blocks for any number of rows, so
/// that a row's sums do not depend on the rows next to it.
#[cfg(target_arch = "x86_64")]
fn lanes_in_tiles<E: Element>(simd: Simd, tile: &Tile<'_, E>) -> usize {
    let fits = wants_rows::<E>(simd) && tile.lane_step == E::PER_LANE && tile.width == amx::COLUMNS;
    if fits { tile.lanes / amx::SIDE * amx::SIDE } else { 0 }
}

/// Adds the product to `sums`, `[rows, width]`, or replaces them if [`Tile::is_first`] is set.
///
/// # Panics
/// When a slice is too short for the rows and lanes.
pub(super) fn add_product<E: Kernels>(simd: Simd, tile: &Tile<'_, E>, sums: &mut [E::Sum], registers: &mut Registers) {
    let Tile { width, lanes, .. } = *tile;
    assert!((COLUMNS..=WIDEST).contains(&width) && width.is_multiple_of(COLUMNS), "a panel of {width} columns");
    assert!(sums.len().is_multiple_of(width), "{} sums in rows of {width}", sums.len());
    let rows = sums.len() / width;
    if rows == 0 || lanes == 0 {
        return;
    }
    assert!(tile.is_within(rows), "{rows} rows of {lanes} lanes go beyond an operand");
    #[cfg(target_arch = "x86_64")]
    if simd.level() != Level::Portable {
        let in_tiles = lanes_in_tiles(simd, tile);
        if in_tiles > 0 {
            for start in (0..rows).step_by(amx::ROWS) {
                let pointers = tile.pointers(start, 0..in_tiles, sums);
                // SAFETY: the assertions above keep each row, column and lane within its slice, `lanes_in_tiles` has checked
                // the operands' layout, and a `Simd` of this level exists only where tiles are granted.
                unsafe { E::run_in_tiles(amx::ROWS.min(rows - start), pointers, registers) };
            }
        }
        if in_tiles < lanes {
            // The blocks have nearly the same number of rows, because a small block leaves the multipliers idle.
            let blocks = rows.div_ceil(max_vector_rows::<E>(simd));
            let most = rows.div_ceil(blocks);
            let vectors = width / COLUMNS;
            for (at, start) in (0..rows).step_by(most).enumerate() {
                let pointers = x86::Pointers {
                    // Each block prefetches its share of the next data, so that memory is never idle.
                    fetched: (at * vectors / blocks, (at + 1) * vectors / blocks),
                    is_first: tile.is_first && in_tiles == 0,
                    ..tile.pointers(start, in_tiles..lanes, sums)
                };
                // SAFETY: the assertions above keep each row, column and lane within its slice, and a `Simd` of this level
                // exists only where detection has found its instructions.
                unsafe { E::run(simd, most.min(rows - start), pointers) };
            }
        }
        return;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = registers;
    if tile.is_first {
        sums.fill(E::Sum::default());
    }
    add_portably(tile, sums);
}

/// The portable implementation, which is also the reference for tests of the others.
fn add_portably<E: Kernels>(tile: &Tile<'_, E>, sums: &mut [E::Sum]) {
    for (row, sums) in sums.chunks_exact_mut(tile.width).enumerate() {
        for lane in 0..tile.lanes {
            let x = &tile.a[row * tile.row_step + lane * tile.lane_step..][..E::PER_LANE];
            let b = &tile.b[lane * tile.width * E::PER_LANE..][..tile.width * E::PER_LANE];
            for (sum, b) in sums.iter_mut().zip(b.chunks_exact(E::PER_LANE)) {
                for (x, b) in x.iter().zip(b) {
                    E::multiply_add(sum, *x, *b);
                }
            }
        }
    }
}

/// The micro-kernels of an operand type.
pub trait Kernels: Element {
    /// The type of sums of products.
    type Sum: Copy + Default + Send;

    /// Computes `sum += x · b`, where `x` is from the left operand.
    #[doc(hidden)]
    fn multiply_add(sum: &mut Self::Sum, x: Self, b: Self);

    /// Converts the sums of a row to real numbers. For quantized products this is (Σ x·b − zero · Σ b) times both scales.
    /// `row` is the row's scale and zero point, and `columns` are the columns' scales and sums.
    #[doc(hidden)]
    fn real(sums: &[Self::Sum], row: (f32, i32), columns: (&[f32], &[i32])) -> impl Iterator<Item = f32>;

    /// Multiplies one tile of `rows` rows.
    ///
    /// # Safety
    /// `pointers` must be valid for their rows, columns and lanes, and the machine must support `simd`, which must not be
    /// [`Simd::PORTABLE`].
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    unsafe fn run(simd: Simd, rows: usize, pointers: x86::Pointers<Self>);

    /// Multiplies at most 32 rows in tile registers.
    ///
    /// # Safety
    /// `pointers` must be valid for their rows, columns and lanes. The lanes must be whole blocks of 16 that are adjacent
    /// in the rows of the left operand, and the panel of the right operand must have 32 columns. The machine must have AMX.
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    unsafe fn run_in_tiles(rows: usize, pointers: x86::Pointers<Self>, registers: &mut Registers);
}

impl Kernels for f32 {
    type Sum = f32;

    #[inline(always)]
    fn multiply_add(sum: &mut f32, x: f32, b: f32) {
        *sum += x * b;
    }

    #[inline(always)]
    fn real(sums: &[f32], _: (f32, i32), _: (&[f32], &[i32])) -> impl Iterator<Item = f32> {
        sums.iter().copied()
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run(simd: Simd, rows: usize, pointers: x86::Pointers<Self>) {
        // SAFETY: the caller's promise.
        unsafe {
            match simd.level() {
                Level::Avx512 { .. } => x86::f32_avx512::run(rows, pointers),
                _ => x86::f32_avx2::run(rows, pointers),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run_in_tiles(_: usize, _: x86::Pointers<Self>, _: &mut Registers) {
        unreachable!("`wants_rows` says no: tiles have no products of f32");
    }
}

impl Kernels for bf16 {
    type Sum = f32;

    #[inline(always)]
    fn multiply_add(sum: &mut f32, x: bf16, b: bf16) {
        *sum += x.to_f32() * b.to_f32();
    }

    #[inline(always)]
    fn real(sums: &[f32], _: (f32, i32), _: (&[f32], &[i32])) -> impl Iterator<Item = f32> {
        sums.iter().copied()
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run(simd: Simd, rows: usize, pointers: x86::Pointers<Self>) {
        // SAFETY: the caller's promise.
        unsafe {
            match simd.level() {
                Level::Avx512 { bf16: true, .. } => x86::bf16_avx512::run(rows, pointers),
                Level::Avx512 { bf16: false, .. } => x86::bf16_avx512_widened::run(rows, pointers),
                _ => x86::bf16_avx2::run(rows, pointers),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run_in_tiles(rows: usize, pointers: x86::Pointers<Self>, registers: &mut Registers) {
        // SAFETY: the caller's promise.
        unsafe { amx::bf16_tiles::run(rows, pointers, registers) }
    }
}

/// The left operand's bytes are unsigned, as the instructions require.
impl Kernels for i8 {
    type Sum = i32;

    #[inline(always)]
    fn multiply_add(sum: &mut i32, x: i8, b: i8) {
        *sum += i32::from(x.cast_unsigned()) * i32::from(b);
    }

    #[inline(always)]
    fn real(sums: &[i32], (unit, zero): (f32, i32), (units, totals): (&[f32], &[i32])) -> impl Iterator<Item = f32> {
        let columns = sums.iter().zip(units).zip(totals);
        columns.map(move |((sum, column_unit), column_sum)| (sum - zero * column_sum) as f32 * (unit * column_unit))
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run(simd: Simd, rows: usize, pointers: x86::Pointers<Self>) {
        // SAFETY: the caller's promise.
        unsafe {
            match simd.level() {
                Level::Avx512 { vnni: true, .. } => x86::i8_avx512::run(rows, pointers),
                Level::Avx512 { vnni: false, .. } => x86::i8_avx512_widened::run(rows, pointers),
                Level::Avx2 { vnni: true } => x86::i8_avx2_vnni::run(rows, pointers),
                _ => x86::i8_avx2::run(rows, pointers),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run_in_tiles(rows: usize, pointers: x86::Pointers<Self>, registers: &mut Registers) {
        // SAFETY: the caller's promise.
        unsafe { amx::i8_tiles::run(rows, pointers, registers) }
    }
}

#[cfg(target_arch = "x86_64")]
pub mod x86;

#[cfg(test)]
mod tests;
