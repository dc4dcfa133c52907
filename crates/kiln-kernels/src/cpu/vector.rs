//! Element-wise functions that the compiler can vectorize: no branches, no calls.

use super::{Element, Slot};
use crate::Activation;

/// eˣ within 2 units in the last place; 0 below −87.3 and no larger than at 88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // e^x = 2^n · e^r with n the nearest whole number to x / ln 2 and |r| at most ln 2 / 2.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let e_r = (series * r * r + r) + 1.0;
    // The lowest bits of `shifted` are n. A conversion to a whole number would be made value by value.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { e_r * power }
}

/// The error function, within 4 units in the last place: an odd polynomial over an even one, fitted on [−4, 4], as
/// Eigen has it.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_3e-10 * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024e-6;
    let p = p * s - 5.692_506_4e-5;
    let p = p * s - 7.349_906_3e-4;
    let p = p * s - 2.954_6e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5 * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827e-3;
    let q = q * s - 7.373_329_3e-3;
    let q = q * s - 1.426_473_9e-2;
    x * p / q
}

/// x · Φ(x): the exact GELU, not its tanh approximation.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Its derivative, Φ(x) + x · φ(x).
#[inline(always)]
pub fn gelu_derivative(x: f32) -> f32 {
    const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * FRAC_1_SQRT_2_PI * exp(-0.5 * x * x)
}

/// tanh within 5e-7, and never beyond ±1: an odd polynomial over an even one, as Eigen has it.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let x = x.clamp(-9.0, 9.0);
    let s = x * x;
    let p = -2.760_768_5e-16 * s + 2.000_188e-13;
    let p = p * s - 8.604_672e-11;
    let p = p * s + 5.122_297_1e-8;
    let p = p * s + 1.485_722_4e-5;
    let p = p * s + 6.372_619_3e-4;
    let p = p * s + 4.893_524_6e-3;
    let q = 1.198_258_4e-6 * s + 1.185_347_1e-4;
    let q = q * s + 2.268_434_6e-3;
    let q = q * s + 4.893_525e-3;
    (x * p / q).clamp(-1.0, 1.0)
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// √(2/π)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// Of the cubic term in GELU's approximation by tanh.
const CUBIC: f32 = 0.044_715;
/// What `quick_gelu` multiplies its argument by.
const QUICK: f32 = 1.702;

/// By ½·(1 + tanh u) = σ(2u), which keeps its digits where tanh is near −1.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x))
}

#[inline(always)]
fn gelu_tanh_derivative(x: f32) -> f32 {
    let s = sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
    s + x * s * (1.0 - s) * 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x)
}

#[inline(always)]
fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(QUICK * x)
}

#[inline(always)]
fn quick_gelu_derivative(x: f32) -> f32 {
    let s = sigmoid(QUICK * x);
    s + QUICK * x * s * (1.0 - s)
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[inline(always)]
fn silu_derivative(x: f32) -> f32 {
    let s = sigmoid(x);
    s + x * s * (1.0 - s)
}

/// NaN stays NaN, which `max` would not keep.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn relu_derivative(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

#[inline(always)]
fn tanh_derivative(x: f32) -> f32 {
    let t = tanh(x);
    1.0 - t * t
}

/// `activation(x)` of each value, rounded to what `S` holds.
#[inline(always)]
pub(super) fn map_activation<S: Slot>(activation: Activation, values: impl Iterator<Item = f32>, out: &mut [S]) {
    match activation {
        Activation::Gelu => map(values, out, gelu),
        Activation::GeluTanh => map(values, out, gelu_tanh),
        Activation::QuickGelu => map(values, out, quick_gelu),
        Activation::Relu => map(values, out, relu),
        Activation::Silu => map(values, out, silu),
        Activation::Tanh => map(values, out, tanh),
        Activation::Identity => map(values, out, |x| x),
    }
}

#[inline(always)]
fn map<S: Slot>(values: impl Iterator<Item = f32>, out: &mut [S], f: impl Fn(f32) -> f32) {
    for (out, value) in out.iter_mut().zip(values) {
        out.write(f(value));
    }
}

/// The gradient of x, `gradient · activation'(x)`, of one row in place of `out`, and added to `sums`.
#[inline(always)]
pub(super) fn map_slope<E: Element>(activation: Activation, row: SlopeRow<'_, E>) {
    match activation {
        Activation::Gelu => slope(row, gelu_derivative),
        Activation::GeluTanh => slope(row, gelu_tanh_derivative),
        Activation::QuickGelu => slope(row, quick_gelu_derivative),
        Activation::Relu => slope(row, relu_derivative),
        Activation::Silu => slope(row, silu_derivative),
        Activation::Tanh => slope(row, tanh_derivative),
        Activation::Identity => slope(row, |_| 1.0),
    }
}

/// What the backward pass of an activation reads and writes, all of one length.
pub(super) struct SlopeRow<'a, E> {
    pub(super) x: &'a [E],
    pub(super) gradient: &'a [E],
    pub(super) out: &'a mut [E],
    pub(super) sums: &'a mut [f32],
}

#[inline(always)]
fn slope<E: Element>(row: SlopeRow<'_, E>, derivative: impl Fn(f32) -> f32) {
    let SlopeRow { x, gradient, out, sums } = row;
    for (((x, gradient), out), sum) in x.iter().zip(gradient).zip(out).zip(sums) {
        let slope = gradient.to_f32() * derivative(x.to_f32());
        *out = E::from_f32(slope);
        *sum += slope;
    }
}

/// How many sums run side by side, so that the order of additions is the same with vectors of any length.
const SIDE_BY_SIDE: usize = 16;

/// Σ f(x)
#[inline(always)]
pub fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; SIDE_BY_SIDE];
    let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
    for block in blocks {
        add_up(&mut sums, block, &f);
    }
    add_up(&mut sums, remaining, &f);
    total(sums)
}

/// Puts f(x) in place of each x; returns their sum, which is that of [`sum`].
#[inline(always)]
pub fn map_and_sum(values: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    // Two loops, because what stands in one with the sums is made value by value.
    for value in &mut *values {
        *value = f(*value);
    }
    sum(values, |x| x)
}

/// Σ x·y of two rows of one length.
#[inline(always)]
pub fn dot<E: Element>(values: &[f32], others: &[E]) -> f32 {
    let mut sums = [0f32; SIDE_BY_SIDE];
    let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
    let (other_blocks, other_remaining) = others.as_chunks::<SIDE_BY_SIDE>();
    for (block, other) in blocks.iter().zip(other_blocks) {
        for at in 0..SIDE_BY_SIDE {
            sums[at] += block[at] * other[at].to_f32();
        }
    }
    for ((sum, value), other) in sums.iter_mut().zip(remaining).zip(other_remaining) {
        *sum += value * other.to_f32();
    }
    total(sums)
}

#[inline(always)]
fn add_up(sums: &mut [f32; SIDE_BY_SIDE], values: &[f32], f: impl Fn(f32) -> f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += f(*value);
    }
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

/// The largest of a row, or −∞.
#[inline(always)]
pub fn max(values: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; SIDE_BY_SIDE];
    let (blocks, remaining) = values.as_chunks::<SIDE_BY_SIDE>();
    for block in blocks {
        for (most, value) in most.iter_mut().zip(block) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    for width in [8, 4, 2, 1] {
        for at in 0..width {
            most[at] = if most[at + width] > most[at] { most[at + width] } else { most[at] };
        }
    }
    remaining.iter().copied().fold(most[0], f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let steps = 1_000_000;
        let at = |i: i32| from + (to - from) * i as f32 / steps as f32;
        (0..=steps)
            .map(|i| (f64::from(f(at(i))) - exact(f64::from(at(i)))).abs() / exact(f64::from(at(i))).abs().max(1e-30))
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_exact_to_the_last_digits() {
        assert!(worst(exp, f64::exp, -87.0, 88.0) < 2.5e-7);
        assert_eq!((exp(0.0), exp(-1e4), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_and_gelu_are_exact_to_the_last_digits() {
        assert!(worst(erf, libm::erf, -6.0, 6.0) < 5e-7);
        let exact = |x: f64| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
        let points = (-60_000..60_000).map(|i| i as f32 * 1e-4);
        assert!(
            points
                .clone()
                .map(|x| (f64::from(gelu(x)) - exact(x.into())).abs() / f64::from(x.abs().max(1.0)))
                .fold(0.0, f64::max)
                < 3e-7
        );
        let slope = |x: f64| (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
        assert!(points.map(|x| (f64::from(gelu_derivative(x)) - slope(x.into())).abs()).fold(0.0, f64::max) < 1e-6);
    }

    /// `exact` in f64, by the formulas of transformers' `activations.py`.
    #[test]
    fn activations_and_their_slopes_are_exact_to_the_last_digits() {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let by_tanh = |x: f64| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        };
        type Exact<'a> = &'a dyn Fn(f64) -> f64;
        let all: [(Activation, Exact<'_>); 7] = [
            (Activation::Gelu, &|x| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))),
            (Activation::GeluTanh, &by_tanh),
            (Activation::QuickGelu, &|x| x * logistic(1.702 * x)),
            (Activation::Relu, &|x| x.max(0.0)),
            (Activation::Silu, &|x| x * logistic(x)),
            (Activation::Tanh, &f64::tanh),
            (Activation::Identity, &|x| x),
        ];
        // Odd multiples of half a step, so that the kink of `relu` lies between two of them.
        let points: Vec<f32> = (-60_000..60_000).map(|i| (i as f32 + 0.5) * 2e-4).collect();
        for (activation, exact) in all {
            let (mut values, mut slopes) = (vec![0f32; points.len()], vec![0f32; points.len()]);
            map_activation(activation, points.iter().copied(), &mut values);
            let (ones, mut sums) = (vec![1f32; points.len()], vec![0f32; points.len()]);
            map_slope(activation, SlopeRow { x: &points, gradient: &ones, out: &mut slopes, sums: &mut sums });
            assert_eq!(slopes, sums);
            for ((&x, value), slope) in points.iter().zip(values).zip(slopes) {
                let x = f64::from(x);
                let far = (f64::from(value) - exact(x)).abs() / x.abs().max(1.0);
                assert!(far < 4e-7, "{activation:?} of {x}: {value}, not {}", exact(x));
                let expected = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
                assert!((f64::from(slope) - expected).abs() < 2e-6, "{activation:?} at {x}: {slope}, not {expected}");
            }
        }
        assert!(worst(tanh, f64::tanh, 1e-6, 9.0) < 1e-6);
        let mut out = [0f32; 6];
        let bounded = all.into_iter().filter(|(activation, _)| *activation != Activation::Identity);
        for (activation, _) in bounded {
            map_activation(activation, [f32::NAN, -1e4, 1e4].into_iter(), &mut out[..3]);
            assert!(out[0].is_nan() && out[1].abs() <= 1.0 && out[2] >= 1.0, "{activation:?}: {out:?}");
        }
    }

    #[test]
    fn rows_of_any_length() {
        for len in 0..70 {
            let values: Vec<f32> = (0..len).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
            assert_eq!(sum(&values, |x| x), values.iter().sum::<f32>());
            assert_eq!(dot(&values, &values), values.iter().map(|x| x * x).sum::<f32>());
            assert_eq!(sum(&values, |x| x * x), dot(&values, &values));
            let mut squares = values.clone();
            assert_eq!(map_and_sum(&mut squares, |x| x * x), sum(&values, |x| x * x));
            assert!(squares.iter().zip(&values).all(|(square, x)| *square == x * x));
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
