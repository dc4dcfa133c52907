/// The p-value of McNemar's exact test, 0 to 1: the probability that two equally good models differ at least this much on
/// the rows that only one of them predicts correctly.
///
/// This is the two-sided binomial test of `only_a` successes in `only_a + only_b` trials with probability ½.
/// Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947.
pub fn mcnemar_exact(only_a: u64, only_b: u64) -> f64 {
    let trials = only_a + only_b;
    let fewer = only_a.min(only_b);
    // The terms of the sum, each computed from the previous one, as logarithms because 2⁻ⁿ underflows for large n.
    let mut log_term = -(trials as f64) * std::f64::consts::LN_2;
    let mut terms = vec![log_term];
    for successes in 1..=fewer {
        log_term += ((trials - successes + 1) as f64 / successes as f64).ln();
        terms.push(log_term);
    }
    let tail: f64 = terms.iter().rev().map(|term| term.exp()).sum();
    (2.0 * tail).min(1.0)
}

/// Parameters of the bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// The number of resamples. Each has as many rows as the data.
    pub resamples: usize,
    /// The confidence level of the interval, between 0 and 1.
    pub confidence: f64,
    /// The random seed.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 10_000, confidence: 0.95, seed: 42 }
    }
}

impl Bootstrap {
    /// The percentile interval of a statistic over resamples: as many rows as the data has, drawn with replacement.
    /// B. Efron, "Bootstrap methods: another look at the jackknife", 1979. For the difference of two models on the same
    /// rows, this is the paired bootstrap: P. Koehn, "Statistical significance tests for machine translation evaluation",
    /// 2004.
    ///
    /// `statistic` receives the drawn rows, which may contain repetitions. Resamples for which it is NaN are left out; if
    /// it is NaN for all, so is the interval. The interval is `[0, 0]` if there are no rows or no resamples.
    pub fn interval(&self, rows: usize, mut statistic: impl FnMut(&[usize]) -> f64) -> [f64; 2] {
        if rows == 0 || self.resamples == 0 {
            return [0.0; 2];
        }
        let mut random = SplitMix64(self.seed);
        let mut drawn = vec![0; rows];
        let mut values = Vec::with_capacity(self.resamples);
        for _ in 0..self.resamples {
            drawn.fill_with(|| random.below(rows));
            values.push(statistic(&drawn));
        }
        values.retain(|value| !value.is_nan());
        if values.is_empty() {
            return [f64::NAN; 2];
        }
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        [quantile(&values, tail), quantile(&values, 1.0 - tail)]
    }
}

/// A quantile with linear interpolation between neighbours, like NumPy's default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Cohen's d of paired scores: the mean of the differences `b − a`, divided by their standard deviation. It is 0 if the mean
/// is 0 or there are fewer than two rows, and infinite if all differences are equal and not 0.
///
/// # Panics
/// When the lengths of the slices differ.
pub fn paired_effect_size(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "two scores for each row");
    let count = a.len() as f64;
    let differences = || a.iter().zip(b).map(|(a, b)| b - a);
    let mean = differences().sum::<f64>() / count;
    let variance = differences().map(|difference| (difference - mean).powi(2)).sum::<f64>() / (count - 1.0);
    if a.len() < 2 || mean == 0.0 { 0.0 } else { mean / variance.sqrt() }
}

/// A random number generator: Steele et al., "Fast splittable pseudorandom number generators", 2014.
pub(crate) struct SplitMix64(pub u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A random number below `end`. The relative error of its probability is at most `end` / 2⁶⁴.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Binomial tail sums by hand, and two values of SciPy 1.17's `binomtest`.
    #[test]
    fn mcnemar_s_test_is_the_binomial_test() {
        for (only_a, only_b, expected) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (0, 5, 2.0 / 32.0),
            (1, 5, 2.0 * 7.0 / 64.0),
            (4, 4, 1.0),
            (59, 6, 4.964_650_327_128_616e-12),
            (1_100, 1_000, 0.030_720_707_864_242_49),
        ] {
            let p = mcnemar_exact(only_a, only_b);
            assert!((p - expected).abs() <= 1e-10 * expected, "{only_a}, {only_b}: {p} against {expected}");
            assert_eq!(p, mcnemar_exact(only_b, only_a));
        }
        assert!(mcnemar_exact(100_000, 90_000) < 1e-100);
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_its_standard_error() {
        // 600 of 1,000 values are 1, so the standard error is √(0.6 · 0.4 / 1000).
        let rows: Vec<f64> = (0..1_000).map(|row| f64::from(u8::from(row < 600))).collect();
        let mean = |drawn: &[usize]| drawn.iter().map(|&row| rows[row]).sum::<f64>() / drawn.len() as f64;
        let [low, high] = Bootstrap::default().interval(rows.len(), mean);
        let error = 1.959_964 * (0.6f64 * 0.4 / 1_000.0).sqrt();
        assert!((low - (0.6 - error)).abs() < 2e-3 && (high - (0.6 + error)).abs() < 2e-3, "{low} to {high}");
        assert_eq!(Bootstrap::default().interval(rows.len(), mean), [low, high], "the seed decides");
        assert_eq!(Bootstrap::default().interval(0, |_| 1.0), [0.0; 2]);
        assert_eq!(Bootstrap::default().interval(3, |_| 0.25), [0.25; 2]);
        assert!(Bootstrap::default().interval(3, |_| f64::NAN)[0].is_nan());
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!([0.0, 0.5, 0.75, 1.0].map(|share| quantile(&sorted, share)), [1.0, 3.0, 5.0, 8.0]);
    }

    #[test]
    fn effect_sizes() {
        // Differences 1, 0, 1, 0: mean ½, standard deviation √(1/3).
        let d = paired_effect_size(&[0.0, 1.0, 0.0, 1.0], &[1.0, 1.0, 1.0, 1.0]);
        assert!((d - 0.5 / (1.0f64 / 3.0).sqrt()).abs() < 1e-12, "{d}");
        assert_eq!(paired_effect_size(&[0.5, 0.2], &[0.5, 0.2]), 0.0);
        assert_eq!(paired_effect_size(&[], &[]), 0.0);
    }
}
