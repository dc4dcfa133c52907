use crate::comparison::SplitMix64;

/// Almost stochastic order, 0 to 1: how far `a` is from being better than `b` at every quantile. The result is an upper
/// bound, with a confidence of 95 %, of the share of the squared distance between both distributions in which `b` is better.
/// Below 0.5, `a` is almost stochastically dominant; 0.2 is a common stricter limit. Higher scores are better.
///
/// R. Dror et al., "Deep Dominance: How to Properly Compare Deep Neural Models", 2019, after E. del Barrio et al.,
/// "An Optimal Transportation Approach for Assessing Almost Stochastic Order", 2018. The variance is estimated from 1,000
/// bootstrap resamples of both samples, with a fixed seed.
///
/// # Panics
/// When a sample is empty.
pub fn almost_stochastic_order(a: &[f64], b: &[f64]) -> f64 {
    /// The 95 % quantile of the normal distribution.
    const Z: f64 = 1.644_853_626_951_472_8;
    const DRAWS: usize = 1_000;
    let (a, b) = (sorted(a.to_vec()), sorted(b.to_vec()));
    let ratio = violation_ratio(&a, &b);
    let mut random = SplitMix64(42);
    let mut draw = |from: &[f64]| sorted((0..from.len()).map(|_| from[random.below(from.len())]).collect());
    let drawn: Vec<f64> = (0..DRAWS).map(|_| violation_ratio(&draw(&a), &draw(&b))).collect();
    let mean = drawn.iter().sum::<f64>() / DRAWS as f64;
    let deviation = (drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / DRAWS as f64).sqrt();
    (ratio + Z * deviation).clamp(0.0, 1.0)
}

fn sorted(mut sample: Vec<f64>) -> Vec<f64> {
    sample.sort_by(f64::total_cmp);
    sample
}

/// The integral of `max(b − a, 0)²` divided by that of `(b − a)²`, where `a` and `b` are the quantile functions of the
/// samples, which are step functions. One half if they are equal.
fn violation_ratio(a: &[f64], b: &[f64]) -> f64 {
    assert!(!a.is_empty() && !b.is_empty(), "a score on each side");
    let (mut at_a, mut at_b) = (0, 0);
    let (mut all, mut violations, mut from) = (0.0, 0.0, 0u128);
    // Positions are multiples of 1 / (len(a) · len(b)).
    let [step_a, step_b] = [b.len() as u128, a.len() as u128];
    while at_a < a.len() && at_b < b.len() {
        let [end_a, end_b] = [(at_a as u128 + 1) * step_a, (at_b as u128 + 1) * step_b];
        let to = end_a.min(end_b);
        let difference = b[at_b] - a[at_a];
        let square = difference * difference * (to - from) as f64;
        all += square;
        violations += if difference > 0.0 { square } else { 0.0 };
        at_a += usize::from(end_a == to);
        at_b += usize::from(end_b == to);
        from = to;
    }
    if all == 0.0 { 0.5 } else { violations / all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_by_hand() {
        assert_eq!(violation_ratio(&[2.0, 3.0], &[1.0, 2.0]), 0.0, "better everywhere");
        assert_eq!(violation_ratio(&[1.0, 2.0], &[2.0, 3.0]), 1.0, "worse everywhere");
        assert_eq!(violation_ratio(&[1.0], &[1.0, 1.0]), 0.5, "equal");
        // The differences b − a are 1 and −3.
        assert_eq!(violation_ratio(&[0.0, 5.0], &[1.0, 2.0]), 0.1);
        // Steps of halves and thirds: 0 and 1 for 1/3, 0 and 3 for 1/6, 6 and 3 for the rest.
        let by_hand = (1.0 / 3.0 + 9.0 / 6.0) / (1.0 / 3.0 + 9.0 / 6.0 + 9.0 / 2.0);
        assert!((violation_ratio(&[0.0, 6.0], &[1.0, 3.0, 3.0]) - by_hand).abs() < 1e-12);
    }

    #[test]
    fn the_bound_is_above_the_ratio_and_clear_cases_are_clear() {
        assert_eq!(almost_stochastic_order(&[0.9, 0.91, 0.92], &[0.8, 0.81, 0.82]), 0.0);
        assert_eq!(almost_stochastic_order(&[0.8, 0.81, 0.82], &[0.9, 0.91, 0.92]), 1.0);
        let (a, b) = ([0.80, 0.84, 0.86, 0.90], [0.79, 0.85, 0.85, 0.88]);
        let bound = almost_stochastic_order(&a, &b);
        assert!(violation_ratio(&a, &b) < bound && bound < 1.0, "{bound}");
        assert_eq!(almost_stochastic_order(&a, &b), bound, "the seed decides");
        assert_eq!(almost_stochastic_order(&[0.5, 0.5], &[0.5, 0.5]), 0.5);
    }
}
