//! Element-wise functions that the compiler can vectorize: no branches, no calls.

/// eˣ within 2 units in the last place; 0 below −87.3 and no larger than at 88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // e^x = 2^n · e^r with n the nearest whole number to x / ln 2 and |r| at most ln 2 / 2.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let e_r = (series * r * r + r) + 1.0;
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
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

/// How many sums run side by side, so that the order of additions is the same with vectors of any length.
const SIDE_BY_SIDE: usize = 16;

/// Σ f(i) over `0..len`.
#[inline(always)]
pub fn sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; SIDE_BY_SIDE];
    let whole = len - len % SIDE_BY_SIDE;
    for start in (0..whole).step_by(SIDE_BY_SIDE) {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + at);
        }
    }
    for at in whole..len {
        sums[at - whole] += f(at);
    }
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
    let blocks = values.chunks_exact(SIDE_BY_SIDE);
    let rest = blocks.remainder();
    for block in blocks {
        for (most, value) in most.iter_mut().zip(block) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
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

    #[test]
    fn rows_of_any_length() {
        for len in 0..70 {
            let values: Vec<f32> = (0..len).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
            assert_eq!(sum(len, |i| values[i]), values.iter().sum::<f32>());
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
