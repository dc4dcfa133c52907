//! Operations that need more than what the compiler makes of a plain loop.

use super::Element;

/// Multiply-add and reductions of rows.
pub(super) trait Arithmetic {
    /// `x · factor + sum`
    fn multiply_add(x: f32, factor: f32, sum: f32) -> f32;

    /// Σ x
    #[inline(always)]
    fn sum(values: &[f32]) -> f32 {
        sum(values, |x| x)
    }

    /// Σ (x − mean)²
    #[inline(always)]
    fn sum_of_squares(values: &[f32], mean: f32) -> f32 {
        sum(values, |x| (x - mean) * (x - mean))
    }

    /// The largest value of a row, or −∞ if the row is empty.
    #[inline(always)]
    fn max(values: &[f32]) -> f32 {
        values.iter().map(|value| ordered(*value)).max().map_or(f32::NEG_INFINITY, from_ordered)
    }
}

/// Multiply-add in one instruction, rounded once.
#[cfg(any(test, target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) struct Fused;

#[cfg(any(test, target_arch = "x86_64", target_arch = "aarch64"))]
impl Arithmetic for Fused {
    #[inline(always)]
    fn multiply_add(x: f32, factor: f32, sum: f32) -> f32 {
        x.mul_add(factor, sum)
    }
}

/// Multiply-add in two instructions, for machines without a fused one.
#[cfg(any(test, not(target_arch = "aarch64")))]
pub(super) struct Separate;

#[cfg(any(test, not(target_arch = "aarch64")))]
impl Arithmetic for Separate {
    #[inline(always)]
    fn multiply_add(x: f32, factor: f32, sum: f32) -> f32 {
        x * factor + sum
    }
}

/// The multiply-add of every machine of the architecture.
#[cfg(target_arch = "aarch64")]
pub(super) type Portable = Fused;
#[cfg(not(target_arch = "aarch64"))]
pub(super) type Portable = Separate;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Arithmetic, Fused, SIDE_BY_SIDE};

    /// Keeps the 16 sums of a row in one vector, which the compiler would split. Only functions that are compiled for
    /// AVX-512 by [`vectorized`](crate::cpu::simd::vectorized) may use it.
    pub(in crate::cpu) struct Avx512;

    impl Arithmetic for Avx512 {
        #[inline(always)]
        fn multiply_add(x: f32, factor: f32, sum: f32) -> f32 {
            Fused::multiply_add(x, factor, sum)
        }

        #[inline(always)]
        fn sum(values: &[f32]) -> f32 {
            let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
            // SAFETY: a block has 16 values, as a vector has, and code that is compiled for AVX-512 runs only if it was
            // detected.
            let total = unsafe {
                let add = |sums, block: &[f32; 16]| _mm512_add_ps(sums, _mm512_loadu_ps(block.as_ptr()));
                _mm512_reduce_add_ps(blocks.iter().fold(_mm512_setzero_ps(), add))
            };
            remaining.iter().fold(total, |sum, x| sum + x)
        }

        #[inline(always)]
        fn sum_of_squares(values: &[f32], mean: f32) -> f32 {
            let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
            // SAFETY: as above.
            let total = unsafe {
                let means = _mm512_set1_ps(mean);
                let add = |sums, block: &[f32; 16]| {
                    let deviations = _mm512_sub_ps(_mm512_loadu_ps(block.as_ptr()), means);
                    _mm512_add_ps(sums, _mm512_mul_ps(deviations, deviations))
                };
                _mm512_reduce_add_ps(blocks.iter().fold(_mm512_setzero_ps(), add))
            };
            remaining.iter().fold(total, |sum, x| sum + (x - mean) * (x - mean))
        }

        #[inline(always)]
        fn max(values: &[f32]) -> f32 {
            let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
            // SAFETY: as above.
            let most = unsafe {
                let most = |most, block: &[f32; 16]| _mm512_max_ps(most, _mm512_loadu_ps(block.as_ptr()));
                _mm512_reduce_max_ps(blocks.iter().fold(_mm512_set1_ps(f32::NEG_INFINITY), most))
            };
            remaining.iter().fold(most, |most, x| if *x > most { *x } else { most })
        }
    }
}

/// The number of parallel sums. It is constant, so that the order of additions is the same for every vector length.
const SIDE_BY_SIDE: usize = 16;

/// Σ f(x)
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; SIDE_BY_SIDE];
    let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += f(*value);
        }
    }
    // Adding these to `sums` one by one would keep all sums in memory.
    remaining.iter().fold(total(sums), |sum, value| sum + f(*value))
}

/// Σ x·y of two rows of equal length.
#[inline(always)]
pub(super) fn dot<E: Element>(values: &[f32], others: &[E]) -> f32 {
    let mut sums = [0f32; SIDE_BY_SIDE];
    let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
    let (other_blocks, other_remaining) = others.as_chunks::<SIDE_BY_SIDE>();
    for (block, other) in blocks.iter().zip(other_blocks) {
        for at in 0..SIDE_BY_SIDE {
            sums[at] += block[at] * other[at].to_f32();
        }
    }
    let remaining = remaining.iter().zip(other_remaining);
    remaining.fold(total(sums), |sum, (value, other)| sum + value * other.to_f32())
}

#[inline(always)]
fn total(mut sums: [f32; SIDE_BY_SIDE]) -> f32 {
    for width in [8, 4, 2, 1] {
        for at in 0..width {
            sums[at] += sums[at + width];
        }
    }
    sums[0]
}

/// Maps a float to an integer in the same order. The compiler vectorizes the maximum of integers, but not that of floats.
#[inline(always)]
pub(super) fn ordered(x: f32) -> i32 {
    swap_order(x.to_bits().cast_signed())
}

/// Maps such an integer back to its float.
#[inline(always)]
pub(super) fn from_ordered(x: i32) -> f32 {
    f32::from_bits(swap_order(x).cast_unsigned())
}

/// Negative floats decrease as their bits increase, while negative integers increase. Flipping these bits gives both the
/// same order.
#[inline(always)]
fn swap_order(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Simd;
    use crate::cpu::simd::vectorized;

    vectorized! {
        fn reduce(values: &[f32]) -> [f32; 3] {
            [A::sum(values), A::sum_of_squares(values, 1.5), A::max(values)]
        }
    }

    #[test]
    fn rows_of_any_length() {
        for len in 0..70 {
            let values: Vec<f32> = (0..len).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
            assert_eq!(dot(&values, &values), values.iter().map(|x| x * x).sum::<f32>());
            for simd in Simd::available() {
                let [sum, squares, max] = reduce(*simd, &values);
                assert_eq!(sum, values.iter().sum::<f32>());
                assert_eq!(squares, values.iter().map(|x| (x - 1.5) * (x - 1.5)).sum::<f32>());
                assert_eq!(max, values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            }
        }
        let far = [[-3.0, -2.0], [f32::NEG_INFINITY; 2], [-0.0, 0.0], [f32::MIN, f32::MAX]];
        for row in far {
            for simd in Simd::available() {
                assert_eq!(reduce(*simd, &row)[2], row[1], "{row:?}");
            }
        }
    }

    #[test]
    fn all_levels_add_in_one_order() {
        let values: Vec<f32> = (1..=1000).map(|i| (i as f32).sin() * 1000.0 / i as f32).collect();
        let expected = reduce(Simd::PORTABLE, &values);
        for simd in Simd::available() {
            assert_eq!(reduce(*simd, &values), expected, "{simd:?}");
        }
    }
}
