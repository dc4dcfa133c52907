//! The micro-kernels for vector registers.

use std::arch::x86_64::*;

use half::bf16;

/// The unchecked arguments of a micro-kernel.
#[derive(Clone, Copy, Debug)]
pub struct Pointers<E: super::Kernels> {
    pub(in super::super) a: *const E,
    pub(in super::super) row_step: usize,
    pub(in super::super) lane_step: usize,
    pub(in super::super) b: *const E,
    pub(in super::super) b_step: usize,
    pub(in super::super) ahead: usize,
    /// The vectors to prefetch, at the distance `ahead`, as a half-open range of the vectors of one `k`.
    pub(in super::super) fetched: (usize, usize),
    pub(in super::super) sums: *mut E::Sum,
    pub(in super::super) width: usize,
    pub(in super::super) lanes: usize,
    /// Whether the sums start at zero instead of their previous values.
    pub(in super::super) is_first: bool,
}

/// Defines a module of micro-kernels, one for each number of rows and of adjacent vectors. `$step` adds the product of a
/// broadcast lane and a vector of lanes to a vector of sums.
macro_rules! kernels {
    ($module:ident, $element:ty, $features:literal, $bits:literal, $load:ident, $store:ident, $broadcast:ident,
     rows $($rows:literal)*, vectors $vectors:tt, |$sum:ident, $x:ident, $b:ident| $step:expr) => {
        pub(super) mod $module {
            use super::*;

            const VALUES: usize = $bits / 8 / size_of::<$element>();
            const SUMS: usize = $bits / 32;

            #[target_feature(enable = $features)]
            unsafe fn tile<const ROWS: usize, const VECTORS: usize>(p: Pointers<$element>, first: usize) {
                // SAFETY: the caller promises that everything that is read and written is within its slices. Neither loads
                // nor stores need alignment.
                unsafe {
                    let at = p.sums.add(first * SUMS);
                    let (mut a, mut b) = (p.a, p.b.add(first * VALUES));
                    // The type of the sums depends on the instructions.
                    let mut sums = [[std::mem::zeroed(); VECTORS]; ROWS];
                    if !p.is_first {
                        for row in 0..ROWS {
                            for v in 0..VECTORS {
                                sums[row][v] = $load(at.add(row * p.width + v * SUMS).cast());
                            }
                        }
                    }
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
// Without bf16 instructions, the two values of a lane become two f32 values. The lower half of the bits is the earlier
// value.
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
// Without 8-bit instructions, the four values of a lane become two pairs of 16-bit values, whose products and sums are
// exact.
kernels!(i8_avx512_widened, i8, "avx512f,avx512bw", 512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32,
rows 1 2 3 4 5 6 7 8, vectors (upto 3), |sum, x, b| {
    let (x_even, x_odd) = (_mm512_and_si512(x, _mm512_set1_epi16(0xff)), _mm512_srli_epi16::<8>(x));
    let (b_even, b_odd) = (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)), _mm512_srai_epi16::<8>(b));
    let sum = _mm512_add_epi32(sum, _mm512_madd_epi16(x_even, b_even));
    _mm512_add_epi32(sum, _mm512_madd_epi16(x_odd, b_odd))
});
kernels!(i8_avx2_vnni, i8, "avx2,avxvnni", 256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32,
    rows 1 2 3 4 5 6, vectors (pairs), |sum, x, b| _mm256_dpbusd_avx_epi32(sum, x, b));
kernels!(i8_avx2, i8, "avx2", 256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32,
rows 1 2 3 4 5 6, vectors (pairs), |sum, x, b| {
    let (x_even, x_odd) = (_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x));
    let (b_even, b_odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)), _mm256_srai_epi16::<8>(b));
    let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x_even, b_even));
    _mm256_add_epi32(sum, _mm256_madd_epi16(x_odd, b_odd))
});
