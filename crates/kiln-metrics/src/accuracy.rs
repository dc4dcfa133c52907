/// The share of correct predictions, from 0 to 1; 0 if there are none.
///
/// # Panics
/// When the numbers of predictions and targets differ.
pub fn accuracy(predictions: &[usize], targets: &[usize]) -> f64 {
    assert_eq!(predictions.len(), targets.len(), "each prediction has a target");
    let correct = predictions.iter().zip(targets).filter(|(prediction, target)| prediction == target).count();
    ratio(correct as f64, targets.len() as f64)
}

/// Wilson's score interval of a share, such as an accuracy, from `successes` out of `trials`. `z` is a quantile of the normal
/// distribution, 1.96 for 95 %. With zero trials: [0, 1].
///
/// Unlike the usual `p ± z·√(p(1−p)/n)`, the interval stays within 0 and 1, and its width is not 0 for a share of 0 or 1.
/// E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
///
/// # Panics
/// When there are more successes than trials.
pub fn wilson_interval(successes: usize, trials: usize, z: f64) -> (f64, f64) {
    assert!(successes <= trials, "{successes} successes out of {trials}");
    if trials == 0 {
        return (0.0, 1.0);
    }
    let n = trials as f64;
    let share = successes as f64 / n;
    let scale = 1.0 + z * z / n;
    let center = (share + z * z / (2.0 * n)) / scale;
    let half = z / scale * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

/// `numerator / denominator`, and 0 for 0 / 0.
pub(crate) fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator == 0.0 { 0.0 } else { numerator / denominator }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_is_the_share_of_right_predictions() {
        assert_eq!(accuracy(&[2, 0, 1], &[2, 1, 1]), 2.0 / 3.0);
        assert_eq!(accuracy(&[], &[]), 0.0);
    }

    #[test]
    #[should_panic(expected = "each prediction has a target")]
    fn accuracy_refuses_a_missing_target() {
        accuracy(&[1, 1], &[1]);
    }

    /// `scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")`, SciPy 1.17.1.
    #[test]
    fn wilson_intervals_are_scipys() {
        let known = [
            (9, 10, (0.595_849_973_204_761_5, 0.982_123_786_904_927_1)),
            (0, 7, (0.0, 0.354_330_435_066_687_43)),
            (7, 7, (0.645_669_564_933_312_6, 1.0)),
            (1_128, 1_200, (0.925_107_306_612_243_7, 0.952_084_612_857_349_9)),
            (0, 0, (0.0, 1.0)),
        ];
        for (successes, trials, (low, high)) in known {
            let interval = wilson_interval(successes, trials, 1.959_963_984_540_054);
            assert!((interval.0 - low).abs() < 1e-14, "{interval:?} against {low}");
            assert!((interval.1 - high).abs() < 1e-14, "{interval:?} against {high}");
        }
    }
}
