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
}

/// The most rows of a tile whose sums stay in registers, with as many columns as [`widths`] allows.
pub(super) fn max_rows<E: Element>(simd: Simd) -> usize {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 { .. } if wants_rows::<E>(simd) => amx::ROWS,
        _ => max_vector_rows(simd),
    }
}

/// The same in vector registers.
fn max_vector_rows(simd: Simd) -> usize {
    match simd.level() {
        Level::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 6,
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

/// Adds the product to `sums`, `[rows, width]`.
///
/// # Panics
/// When a slice is too short for the rows and lanes.
pub(super) fn add_product<E: Kernels>(simd: Simd, tile: &Tile<'_, E>, sums: &mut [E::Sum]) {
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
                unsafe { E::run_in_tiles(amx::ROWS.min(rows - start), pointers) };
            }
        }
        if in_tiles < lanes {
            // Of about one size: a low one keeps the multipliers waiting.
            let blocks = rows.div_ceil(max_vector_rows(simd));
            let most = rows.div_ceil(blocks);
            let vectors = width / COLUMNS;
            for (at, start) in (0..rows).step_by(most).enumerate() {
                let pointers = x86::Pointers {
                    // Each block fetches its share of what comes next, so that memory is never idle.
                    fetched: (at * vectors / blocks, (at + 1) * vectors / blocks),
                    ..tile.pointers(start, in_tiles..lanes, sums)
                };
                // SAFETY: the assertions above keep each row, column and lane within its slice, and a `Simd` of this level
                // exists only where detection has found its instructions.
                unsafe { E::run(simd, most.min(rows - start), pointers) };
            }
        }
        return;
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
    fn real(sums: &[Self::Sum], row: (f32, i32), columns: &[(f32, i32)]) -> impl Iterator<Item = f32>;

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
    unsafe fn run_in_tiles(rows: usize, pointers: x86::Pointers<Self>);
}

impl Kernels for f32 {
    type Sum = f32;

    #[inline(always)]
    fn multiply_add(sum: &mut f32, x: f32, b: f32) {
        *sum += x * b;
    }

    #[inline(always)]
    fn real(sums: &[f32], _: (f32, i32), _: &[(f32, i32)]) -> impl Iterator<Item = f32> {
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
    unsafe fn run_in_tiles(_: usize, _: x86::Pointers<Self>) {
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
    fn real(sums: &[f32], _: (f32, i32), _: &[(f32, i32)]) -> impl Iterator<Item = f32> {
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
    unsafe fn run_in_tiles(rows: usize, pointers: x86::Pointers<Self>) {
        // SAFETY: the caller's promise.
        unsafe { amx::bf16_tiles::run(rows, pointers) }
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
    fn real(sums: &[i32], (unit, zero): (f32, i32), columns: &[(f32, i32)]) -> impl Iterator<Item = f32> {
        let columns = sums.iter().zip(columns);
        columns.map(move |(sum, (column_unit, column_sum))| (sum - zero * column_sum) as f32 * (unit * column_unit))
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run(simd: Simd, rows: usize, pointers: x86::Pointers<Self>) {
        // SAFETY: the caller's promise.
        unsafe {
            match simd.level() {
                Level::Avx512 { vnni: true, .. } => x86::i8_avx512::run(rows, pointers),
                Level::Avx512 { vnni: false, .. } => x86::i8_avx512_widened::run(rows, pointers),
                _ => x86::i8_avx2::run(rows, pointers),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn run_in_tiles(rows: usize, pointers: x86::Pointers<Self>) {
        // SAFETY: the caller's promise.
        unsafe { amx::i8_tiles::run(rows, pointers) }
    }
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    /// What a micro-kernel gets, unchecked.
    #[derive(Clone, Copy, Debug)]
    pub struct Pointers<E: super::Kernels> {
        pub(in super::super) a: *const E,
        pub(in super::super) row_step: usize,
        pub(in super::super) lane_step: usize,
        pub(in super::super) b: *const E,
        pub(in super::super) b_step: usize,
        pub(in super::super) ahead: usize,
        /// Of a lane's vectors `ahead`, the first and the end of those to fetch.
        pub(in super::super) fetched: (usize, usize),
        pub(in super::super) sums: *mut E::Sum,
        pub(in super::super) width: usize,
        pub(in super::super) lanes: usize,
    }

    /// A module of micro-kernels, one for each number of rows and of vectors side by side. `$step` adds to a vector of
    /// sums the product of a broadcast lane and a vector of lanes.
    macro_rules! kernels {
        ($module:ident, $element:ty, $features:literal, $bits:literal, $load:ident, $store:ident, $broadcast:ident,
         rows $($rows:literal)*, vectors $vectors:tt, |$sum:ident, $x:ident, $b:ident| $step:expr) => {
            pub(super) mod $module {
                use super::*;

                const VALUES: usize = $bits / 8 / size_of::<$element>();
                const SUMS: usize = $bits / 32;

                #[target_feature(enable = $features)]
                unsafe fn tile<const ROWS: usize, const VECTORS: usize>(p: Pointers<$element>, first: usize) {
                    // SAFETY: the caller promises that all that is read and written lies within its slices; neither
                    // loads nor stores need alignment.
                    unsafe {
                        let at = p.sums.add(first * SUMS);
                        let mut sums = [[$load(at.cast()); VECTORS]; ROWS];
                        for row in 0..ROWS {
                            for v in 0..VECTORS {
                                sums[row][v] = $load(at.add(row * p.width + v * SUMS).cast());
                            }
                        }
                        let (mut a, mut b) = (p.a, p.b.add(first * VALUES));
                        for _ in 0..p.lanes {
                            for v in 0..VECTORS {
                                if p.fetched.0 <= v && v < p.fetched.1 {
                                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(p.ahead + v * VALUES).cast());
                                }
                            }
                            let mut columns = [$load(b.cast()); VECTORS];
                            for v in 1..VECTORS {
                                columns[v] = $load(b.add(v * VALUES).cast());
                            }
                            for row in 0..ROWS {
                                let $x = $broadcast(a.add(row * p.row_step).cast::<i32>().read_unaligned());
                                for v in 0..VECTORS {
                                    let ($sum, $b) = (sums[row][v], columns[v]);
                                    sums[row][v] = $step;
                                }
                            }
                            a = a.wrapping_add(p.lane_step);
                            b = b.wrapping_add(p.b_step);
                        }
                        for row in 0..ROWS {
                            for v in 0..VECTORS {
                                $store(at.add(row * p.width + v * SUMS).cast(), sums[row][v]);
                            }
                        }
                    }
                }

                /// # Safety
                /// That of [`super::super::Kernels::run`].
                pub(in super::super) unsafe fn run(rows: usize, p: Pointers<$element>) {
                    // SAFETY: the caller's promise.
                    unsafe {
                        match rows {
                            $($rows => kernels!(@columns $rows, p, $vectors),)*
                            _ => unreachable!("a tile has at most `max_rows` rows"),
                        }
                    }
                }
            }
        };
        (@columns $rows:literal, $p:ident, (upto 3)) => {
            match $p.width / SUMS {
                1 => tile::<$rows, 1>($p, 0),
                2 => tile::<$rows, 2>($p, 0),
                _ => tile::<$rows, 3>($p, 0),
            }
        };
        (@columns $rows:literal, $p:ident, (pairs)) => {
            for first in (0..$p.width / SUMS).step_by(2) {
                tile::<$rows, 2>($p, first);
            }
        };
    }

    kernels!(f32_avx2, f32, "avx2,fma", 256, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_epi32,
        rows 1 2 3 4 5 6, vectors (pairs), |sum, x, b| _mm256_fmadd_ps(_mm256_castsi256_ps(x), b, sum));
    kernels!(f32_avx512, f32, "avx512f", 512, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_epi32,
        rows 1 2 3 4 5 6 7 8, vectors (upto 3), |sum, x, b| _mm512_fmadd_ps(_mm512_castsi512_ps(x), b, sum));
    kernels!(bf16_avx512, bf16, "avx512f,avx512bf16", 512, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_epi32,
        rows 1 2 3 4 5 6 7 8, vectors (upto 3),
        |sum, x, b| _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(x), std::mem::transmute::<__m512, __m512bh>(b)));
    // Without bf16 instructions: a lane's two values become two f32, the earlier one's bits being the lower half.
    kernels!(bf16_avx512_widened, bf16, "avx512f", 512, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_epi32,
    rows 1 2 3 4 5 6 7 8, vectors (upto 3), |sum, x, b| {
        let b = _mm512_castps_si512(b);
        let earlier = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(b));
        let later = _mm512_castsi512_ps(_mm512_and_si512(b, _mm512_set1_epi32(!0xffff)));
        let sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)), earlier, sum);
        _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(!0xffff))), later, sum)
    });
    kernels!(bf16_avx2, bf16, "avx2,fma", 256, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_epi32,
    rows 1 2 3 4 5 6, vectors (pairs), |sum, x, b| {
        let b = _mm256_castps_si256(b);
        let earlier = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b));
        let later = _mm256_castsi256_ps(_mm256_and_si256(b, _mm256_set1_epi32(!0xffff)));
        let sum = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)), earlier, sum);
        _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(!0xffff))), later, sum)
    });
    kernels!(i8_avx512, i8, "avx512f,avx512vnni", 512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32,
        rows 1 2 3 4 5 6 7 8, vectors (upto 3), |sum, x, b| _mm512_dpbusd_epi32(sum, x, b));
    // Without 8-bit instructions: a lane's four values become two pairs of 16 bits, whose products and sums are exact.
    kernels!(i8_avx512_widened, i8, "avx512f,avx512bw", 512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32,
    rows 1 2 3 4 5 6 7 8, vectors (upto 3), |sum, x, b| {
        let (x_even, x_odd) = (_mm512_and_si512(x, _mm512_set1_epi16(0xff)), _mm512_srli_epi16::<8>(x));
        let (b_even, b_odd) = (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)), _mm512_srai_epi16::<8>(b));
        let sum = _mm512_add_epi32(sum, _mm512_madd_epi16(x_even, b_even));
        _mm512_add_epi32(sum, _mm512_madd_epi16(x_odd, b_odd))
    });
    kernels!(i8_avx2, i8, "avx2", 256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32,
    rows 1 2 3 4 5 6, vectors (pairs), |sum, x, b| {
        let (x_even, x_odd) = (_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x));
        let (b_even, b_odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)), _mm256_srai_epi16::<8>(b));
        let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x_even, b_even));
        _mm256_add_epi32(sum, _mm256_madd_epi16(x_odd, b_odd))
    });
}

#[cfg(test)]
mod tests;
