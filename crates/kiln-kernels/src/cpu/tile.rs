//! The micro-kernels: a small tile of a product, its sums in registers. All `unsafe` of the products is here.
#![allow(unsafe_code, reason = "vector instructions, on pointers whose bounds are checked once a tile")]

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::simd::Level;
use super::view::extent;
use super::{Element, Simd};

/// Columns of a panel are a multiple of this.
pub(super) const COLUMNS: usize = 16;
/// Columns of the widest panel.
pub(super) const WIDEST: usize = 48;

/// A block of rows times a panel of columns. Steps are in values.
pub(super) struct Tile<'a, E> {
    /// Row `r`, lane `k` at `r * row_step + k * lane_step`.
    pub(super) a: &'a [E],
    pub(super) row_step: usize,
    pub(super) lane_step: usize,
    /// Lanes of one `k` side by side, `width` of them.
    pub(super) b: &'a [E],
    pub(super) width: usize,
    /// How many lanes to sum over.
    pub(super) lanes: usize,
    /// The distance from `b` to what is prefetched.
    pub(super) next: usize,
    /// Whether the sums begin here: what stands in their place does not count.
    pub(super) is_first: bool,
}

#[cfg(target_arch = "x86_64")]
pub(super) use amx::Registers;

/// Registers that a thread keeps in shape between tiles; only some processors have them.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Debug, Default)]
pub(super) struct Registers;

/// The most rows of a tile whose sums stay in registers, with as many columns as [`widths`] allows.
pub(super) fn max_rows<E: Element>(simd: Simd) -> usize {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } if wants_rows::<E>(simd) => amx::ROWS,
        _ => max_vector_rows::<E>(simd),
    }
}

/// The same in vector registers.
fn max_vector_rows<E: Element>(simd: Simd) -> usize {
    match simd.level() {
        Level::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        // What is widened before it is multiplied takes more of the 16 or 32 registers.
        Level::Avx2 { .. } if E::PER_LANE == 2 => 4,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 { .. } => 6,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { bf16: false, .. } if E::PER_LANE == 2 => 7,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } => 8,
    }
}

/// The widths that panels may have.
pub(super) fn widths<E: Element>(simd: Simd) -> &'static [usize] {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } if wants_rows::<E>(simd) => &[amx::COLUMNS],
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } => &[WIDEST, 32, 16],
        _ => &[16],
    }
}

/// Whether the products of `E` are faster where the lanes of each row of the left operand lie side by side.
pub(super) fn wants_rows<E: Element>(simd: Simd) -> bool {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { amx, .. } => amx && E::PER_LANE > 1,
        _ => false,
    }
}

impl<E: Element> Tile<'_, E> {
    /// Whether `rows` rows and all lanes lie within both slices.
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
    /// The rows from `start` on and some lanes; nothing is fetched ahead.
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

/// How many lanes, from the first on, are multiplied in tile registers: whole blocks, whatever the number of rows, so that
/// a row's sums do not depend on the rows beside it.
#[cfg(target_arch = "x86_64")]
fn lanes_in_tiles<E: Element>(simd: Simd, tile: &Tile<'_, E>) -> usize {
    let fits = wants_rows::<E>(simd) && tile.lane_step == E::PER_LANE && tile.width == amx::COLUMNS;
    if fits { tile.lanes / amx::SIDE * amx::SIDE } else { 0 }
}

/// Adds the product to `sums`, `[rows, width]`, or puts it there.
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
            // Of about one size: a low one keeps the multipliers waiting.
            let blocks = rows.div_ceil(max_vector_rows::<E>(simd));
            let most = rows.div_ceil(blocks);
            let vectors = width / COLUMNS;
            for (at, start) in (0..rows).step_by(most).enumerate() {
                let pointers = x86::Pointers {
                    // Each block fetches its share of what comes next, so that memory is never idle.
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

/// For machines without the instructions of the others, and what those are tested against.
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

/// The micro-kernels of an element.
pub trait Kernels: Element {
    /// What products are added up in.
    type Sum: Copy + Default + Send;

    /// `sum += x · b`, `x` being of the left operand.
    #[doc(hidden)]
    fn multiply_add(sum: &mut Self::Sum, x: Self, b: Self);

    /// The sums of a row as real numbers. Those of a quantized product are Σ x·b − zero · Σ b times both units: `row` is the
    /// row's unit and the byte of 0.0 in it, `columns` are the columns' units and the sums of their numbers.
    #[doc(hidden)]
    fn real(sums: &[Self::Sum], row: (f32, i32), columns: (&[f32], &[i32])) -> impl Iterator<Item = f32>;

    /// Runs one tile of `rows` rows.
    ///
    /// # Safety
    /// `pointers` must be valid for the rows, columns and lanes that they say, and the machine must have `simd`, which is
    /// not [`Simd::PORTABLE`].
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    unsafe fn run(simd: Simd, rows: usize, pointers: x86::Pointers<Self>);

    /// Runs at most 32 rows in tile registers.
    ///
    /// # Safety
    /// `pointers` must be valid for the rows, columns and lanes that they say; lanes in whole blocks of 16 must lie side by
    /// side in the rows of the left operand, and the right one's panel must have 32 columns; the machine must have AMX.
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

/// The left operand's bytes are taken without a sign, as the instructions take them.
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
