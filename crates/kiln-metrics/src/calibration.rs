use crate::accuracy::ratio;

/// The predictions whose confidence is in one bin of a reliability diagram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConfidenceBin {
    /// The number of predictions.
    pub examples: u64,
    /// The mean confidence; 0 if there are no predictions.
    pub confidence: f64,
    /// The share of correct predictions; 0 if there are no predictions.
    pub accuracy: f64,
}

/// The bins of a reliability diagram: the predictions in `bins` equal ranges of confidence, each without its lower and with
/// its upper end. C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.
///
/// `confidences` are the probabilities of the predicted labels, from 0 to 1. `correct` is true for correct predictions.
///
/// # Panics
/// When the lengths of the slices differ, or `bins` is 0.
pub fn confidence_bins(confidences: &[f64], correct: &[bool], bins: usize) -> Vec<ConfidenceBin> {
    assert_eq!(confidences.len(), correct.len(), "each confidence belongs to a prediction");
    assert!(bins > 0, "there is at least one bin");
    // The bins hold sums first, and means after the second loop.
    let mut all = vec![ConfidenceBin::default(); bins];
    for (&confidence, &correct) in confidences.iter().zip(correct) {
        // 0 belongs to the first bin, although the bin excludes its lower end. So does NaN, which makes the sum NaN.
        let bin = &mut all[((confidence * bins as f64).ceil() as usize).clamp(1, bins) - 1];
        bin.examples += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(correct));
    }
    for bin in &mut all {
        bin.confidence = ratio(bin.confidence, bin.examples as f64);
        bin.accuracy = ratio(bin.accuracy, bin.examples as f64);
    }
    all
}

/// The expected calibration error, 0 to 1: the mean absolute difference between confidence and accuracy over the bins of
/// [`confidence_bins`], weighted by their number of examples. 0 if there are no examples, NaN if a confidence is NaN.
pub fn expected_calibration_error(bins: &[ConfidenceBin]) -> f64 {
    let gap = |bin: &ConfidenceBin| bin.examples as f64 * (bin.accuracy - bin.confidence).abs();
    ratio(bins.iter().map(gap).sum(), bins.iter().map(|bin| bin.examples).sum::<u64>() as f64)
}

/// The Brier score, 0 to 2: the squared distance between the probabilities and the one-hot target, as a mean over the rows.
/// G. Brier, "Verification of forecasts expressed in terms of probability", 1950. 0 if there are no rows.
///
/// # Shapes
/// - `probabilities`: row-major `[rows, num_labels]`
/// - `targets`: `[rows]`
///
/// # Panics
/// When there is not one row of probabilities for each target, or a target is not below `num_labels`.
pub fn brier_score(probabilities: &[f64], num_labels: usize, targets: &[usize]) -> f64 {
    assert_eq!(probabilities.len(), targets.len() * num_labels, "each target has a row of {num_labels} probabilities");
    let distance = |(row, &target): (&[f64], &usize)| {
        let others: f64 = row.iter().map(|probability| probability * probability).sum();
        others - 2.0 * row[target] + 1.0
    };
    ratio(probabilities.chunks(num_labels.max(1)).zip(targets).map(distance).sum(), targets.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_weighted_by_examples() {
        let confidences = [0.95, 0.9, 0.85, 0.75, 0.75, 0.6, 0.55, 0.5, 0.35, 1.0];
        let correct = [true, true, false, true, false, true, false, false, true, true];
        // By tenths: 0.5 in (0.4, 0.5], 0.15 in (0.5, 0.6], 0.5 in (0.7, 0.8], 0.75 in (0.8, 0.9], and so on, over 10.
        for (bins, expected) in [(10, 0.26), (5, 0.25), (1, 0.12)] {
            let error = expected_calibration_error(&confidence_bins(&confidences, &correct, bins));
            assert!((error - expected).abs() < 1e-15, "{error} against {expected} with {bins} bins");
        }
    }

    #[test]
    fn edges_are_in_the_bin_below() {
        let error = |confidences: &[f64], correct: &[bool], bins| {
            expected_calibration_error(&confidence_bins(confidences, correct, bins))
        };
        assert_eq!(error(&[0.5, 0.25], &[true, false], 2), 0.125);
        assert_eq!(error(&[0.0, 1.0], &[false, true], 15), 0.0);
        assert_eq!(error(&[], &[], 15), 0.0);
        assert!(error(&[f64::NAN, 0.9], &[true, true], 15).is_nan());
        let bins = confidence_bins(&[0.5, 0.25, 0.9], &[true, false, true], 2);
        assert_eq!(bins[0], ConfidenceBin { examples: 2, confidence: 0.375, accuracy: 0.5 });
        assert_eq!(bins[1], ConfidenceBin { examples: 1, confidence: 0.9, accuracy: 1.0 });
    }

    /// For two labels, scikit-learn's `brier_score_loss` is half of this: the mean of (0.8 − 1)², (0.3 − 0)² and (0.5 − 1)².
    #[test]
    fn the_brier_score_is_a_squared_distance() {
        let two = brier_score(&[0.2, 0.8, 0.7, 0.3, 0.5, 0.5], 2, &[1, 0, 1]);
        assert!((two - 2.0 * (0.04 + 0.09 + 0.25) / 3.0).abs() < 1e-15, "{two}");
        let three = brier_score(&[0.5, 0.3, 0.2], 3, &[1]);
        assert!((three - (0.25 + 0.49 + 0.04)).abs() < 1e-15, "{three}");
        assert_eq!((brier_score(&[], 3, &[]), brier_score(&[1.0, 0.0], 2, &[0])), (0.0, 0.0));
    }
}
