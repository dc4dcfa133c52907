//! Element-wise functions that the compiler can vectorize: no branches, no calls.

use super::arithmetic::Arithmetic;
use super::{Element, Slot};
use crate::Activation;

/// eˣ within one unit in the last place. It is 0 below −87.3, and constant from 88 on.
#[inline(always)]
pub fn exp<A: Arithmetic>(x: f32) -> f32 {
    // e^x = 2^n · e^r, where n is the nearest integer to x / ln 2 and |r| is at most ln 2 / 2.
    const ROUND: f32 = 12_582_912.0;
    /// It has so few digits that its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// The coefficients of the minimax polynomial of e^r.
    const SERIES: [f32; 7] = [1.0, 1.0, 0.5, 0.166_665_21, 0.041_668_39, 8.368_717e-3, 1.381_459_9e-3];
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = A::multiply_add(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = A::multiply_add(n, -LN_2_LOW, A::multiply_add(n, -LN_2_HIGH, clamped));
    let e_r = polynomial::<A, _>(r, SERIES);
    // The lowest bits of `shifted` are n. A conversion to an integer would not be vectorized.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { e_r * power }
}

/// Σ cᵢ·xⁱ
#[inline(always)]
fn polynomial<A: Arithmetic, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for at in (0..N - 1).rev() {
        sum = A::multiply_add(sum, x, coefficients[at]);
    }
    sum
}

/// Φ(x), the cumulative distribution function of the normal distribution, within 2e-7.
#[inline(always)]
fn normal<A: Arithmetic>(x: f32) -> f32 {
    /// From here on, Φ differs from 1 by less than 3e-8. At exactly this number the polynomial is ½ / x, so that Φ ends at
    /// 0 and 1.
    const END: f32 = 5.399_947;
    /// 2 / 5.4²
    const SCALE: f32 = 0.068_587_1;
    /// The coefficients of the minimax polynomial of (Φ(x) − ½) / x in x² · SCALE − 1, which is between −1 and 1. A
    /// quotient of two shorter polynomials is not faster, because the division alone takes as long as this polynomial.
    const SERIES: [f32; 15] = [
        0.130_928_11,
        -0.065_328_08,
        0.048_499_66,
        -0.039_206_047,
        0.032_115_083,
        -0.025_753_913,
        0.019_657_155,
        -0.013_932_844,
        0.009_607_455,
        -0.006_774_950_3,
        0.003_738_346_7,
        -0.001_131_176_5,
        8.050_398_3e-4,
        -0.001_047_833_9,
        4.165_815_5e-4,
    ];
    let x = x.clamp(-END, END);
    A::multiply_add(polynomial::<A, _>(A::multiply_add(x * x, SCALE, -1.0), SERIES), x, 0.5)
}

/// x · Φ(x): the exact GELU, not its tanh approximation.
#[inline(always)]
pub fn gelu<A: Arithmetic>(x: f32) -> f32 {
    x * normal::<A>(x)
}

/// The derivative of [`gelu`], Φ(x) + x · φ(x).
#[inline(always)]
pub fn gelu_derivative<A: Arithmetic>(x: f32) -> f32 {
    const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;
    A::multiply_add(x * FRAC_1_SQRT_2_PI, exp::<A>(-0.5 * x * x), normal::<A>(x))
}

/// tanh within 5e-7 and never beyond ±1, as the quotient of an odd and an even polynomial, as in Eigen.
#[inline(always)]
pub fn tanh<A: Arithmetic>(x: f32) -> f32 {
    let x = x.clamp(-9.0, 9.0);
    let s = x * x;
    let p = [
        4.893_524_6e-3,
        6.372_619_3e-4,
        1.485_722_4e-5,
        5.122_297_1e-8,
        -8.604_672e-11,
        2.000_188e-13,
        -2.760_768_5e-16,
    ];
    let q = [4.893_525e-3, 2.268_434_6e-3, 1.185_347_1e-4, 1.198_258_4e-6];
    (x * polynomial::<A, _>(s, p) / polynomial::<A, _>(s, q)).clamp(-1.0, 1.0)
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
pub fn sigmoid<A: Arithmetic>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<A>(-x))
}

/// √(2/π)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// The coefficient of the cubic term in GELU's tanh approximation.
const CUBIC: f32 = 0.044_715;
/// The factor of the argument of `quick_gelu`.
const QUICK: f32 = 1.702;

/// Uses ½·(1 + tanh u) = σ(2u), which keeps its precision where tanh is near −1.
#[inline(always)]
fn gelu_tanh<A: Arithmetic>(x: f32) -> f32 {
    x * sigmoid::<A>(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x))
}

#[inline(always)]
fn gelu_tanh_derivative<A: Arithmetic>(x: f32) -> f32 {
    let s = sigmoid::<A>(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
    s + x * s * (1.0 - s) * 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x)
}

#[inline(always)]
fn quick_gelu<A: Arithmetic>(x: f32) -> f32 {
    x * sigmoid::<A>(QUICK * x)
}

#[inline(always)]
fn quick_gelu_derivative<A: Arithmetic>(x: f32) -> f32 {
    let s = sigmoid::<A>(QUICK * x);
    s + QUICK * x * s * (1.0 - s)
}

#[inline(always)]
fn silu<A: Arithmetic>(x: f32) -> f32 {
    x * sigmoid::<A>(x)
}

#[inline(always)]
fn silu_derivative<A: Arithmetic>(x: f32) -> f32 {
    let s = sigmoid::<A>(x);
    s + x * s * (1.0 - s)
}

/// Keeps NaN, unlike `max`.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn relu_derivative(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

#[inline(always)]
fn tanh_derivative<A: Arithmetic>(x: f32) -> f32 {
    let t = tanh::<A>(x);
    1.0 - t * t
}

/// The source of a function's arguments and the destination of its results.
pub(super) trait Places {
    /// Applies the function to each value.
    fn map(self, f: impl Fn(f32) -> f32);
}

/// Applies `activation` to each value. The kind of activation is matched once, outside the loop.
#[inline(always)]
pub(super) fn map_activation<A: Arithmetic>(activation: Activation, places: impl Places) {
    match activation {
        Activation::Gelu => places.map(gelu::<A>),
        Activation::GeluTanh => places.map(gelu_tanh::<A>),
        Activation::QuickGelu => places.map(quick_gelu::<A>),
        Activation::Relu => places.map(relu),
        Activation::Silu => places.map(silu::<A>),
        Activation::Tanh => places.map(tanh::<A>),
        Activation::Identity => places.map(|x| x),
    }
}

/// Each result replaces its argument.
impl Places for &mut [f32] {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) {
        for value in self {
            *value = f(*value);
        }
    }
}

/// Results are rounded to the type of `S`.
impl<I: Iterator<Item = f32>, S: Slot> Places for (I, &mut [S]) {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) {
        for (out, value) in self.1.iter_mut().zip(self.0) {
            out.write(f(value));
        }
    }
}

/// Replaces each gradient with the gradient of `x`, `gradient · activation'(x)`, and adds it to `sums`.
#[inline(always)]
pub(super) fn map_slope<A: Arithmetic, E: Element>(activation: Activation, row: SlopeRow<'_, E>) {
    match activation {
        Activation::Gelu => slope(row, gelu_derivative::<A>),
        Activation::GeluTanh => slope(row, gelu_tanh_derivative::<A>),
        Activation::QuickGelu => slope(row, quick_gelu_derivative::<A>),
        Activation::Relu => slope(row, relu_derivative),
        Activation::Silu => slope(row, silu_derivative::<A>),
        Activation::Tanh => slope(row, tanh_derivative::<A>),
        Activation::Identity => slope(row, |_| 1.0),
    }
}

/// The buffers for the backward pass of an activation, all of the same length.
pub(super) struct SlopeRow<'a, E> {
    pub(super) x: &'a [E],
    /// The gradient of the activation's output, replaced with that of `x`.
    pub(super) gradient: &'a mut [E],
    pub(super) sums: &'a mut [f32],
}

#[inline(always)]
fn slope<E: Element>(row: SlopeRow<'_, E>, derivative: impl Fn(f32) -> f32) {
    let SlopeRow { x, gradient, sums } = row;
    for ((x, gradient), sum) in x.iter().zip(gradient).zip(sums) {
        let slope = gradient.to_f32() * derivative(x.to_f32());
        *gradient = E::from_f32(slope);
        *sum += slope;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::arithmetic::{Fused, Separate};

    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let steps = 1_000_000;
        let at = |i: i32| from + (to - from) * i as f32 / steps as f32;
        (0..=steps)
            .map(|i| (f64::from(f(at(i))) - exact(f64::from(at(i)))).abs() / exact(f64::from(at(i))).abs().max(1e-30))
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_exact_to_the_last_digits() {
        fn check<A: Arithmetic>() {
            assert!(worst(exp::<A>, f64::exp, -87.0, 88.0) < 2.5e-7);
            assert_eq!([0.0, -1e4, f32::NEG_INFINITY].map(exp::<A>), [1.0, 0.0, 0.0]);
            assert!(exp::<A>(f32::NAN).is_nan());
        }
        check::<Fused>();
        check::<Separate>();
    }

    #[test]
    fn gelu_is_exact_to_the_last_digits() {
        fn check<A: Arithmetic>() {
            let exact = |x: f64| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
            let slope = |x: f64| (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
            for x in (-60_000..60_000).map(|i| i as f32 * 1e-4) {
                let far = f64::from(gelu::<A>(x)) - exact(x.into());
                assert!(far.abs() < 3e-7 * f64::from(x.abs().max(1.0)), "{far:e} from gelu({x})");
                let far = f64::from(gelu_derivative::<A>(x)) - slope(x.into());
                assert!(far.abs() < 1e-6, "{far:e} from the slope at {x}");
            }
            assert!(gelu::<A>(-1e4).abs() < 1e-3, "{}", gelu::<A>(-1e4));
            assert_eq!(gelu::<A>(1e4), 1e4);
        }
        check::<Fused>();
        check::<Separate>();
    }

    /// `exact` is computed in f64, with the formulas of transformers' `activations.py`.
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
        // Odd multiples of half a step, so that `relu`'s kink is between two points.
        let points: Vec<f32> = (-60_000..60_000).map(|i| (i as f32 + 0.5) * 2e-4).collect();
        for (activation, exact) in all {
            let (mut values, mut sums) = (vec![0f32; points.len()], vec![0f32; points.len()]);
            map_activation::<Fused>(activation, (points.iter().copied(), &mut values[..]));
            let mut slopes = vec![1f32; points.len()];
            map_slope::<Fused, _>(activation, SlopeRow { x: &points, gradient: &mut slopes, sums: &mut sums });
            assert_eq!(slopes, sums);
            for ((&x, value), slope) in points.iter().zip(values).zip(slopes) {
                let x = f64::from(x);
                let far = (f64::from(value) - exact(x)).abs() / x.abs().max(1.0);
                assert!(far < 4e-7, "{activation:?} of {x}: {value}, not {}", exact(x));
                let expected = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
                assert!((f64::from(slope) - expected).abs() < 2e-6, "{activation:?} at {x}: {slope}, not {expected}");
            }
        }
        assert!(worst(tanh::<Fused>, f64::tanh, 1e-6, 9.0) < 1e-6);
        let mut out = [0f32; 6];
        let bounded = all.into_iter().filter(|(activation, _)| *activation != Activation::Identity);
        for (activation, _) in bounded {
            map_activation::<Fused>(activation, ([f32::NAN, -1e4, 1e4].into_iter(), &mut out[..3]));
            assert!(out[0].is_nan() && out[1].abs() <= 1.0 && out[2] >= 1.0, "{activation:?}: {out:?}");
        }
    }
}
