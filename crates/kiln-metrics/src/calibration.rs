use crate::accuracy::ratio;

/// The expected calibration error, 0 to 1: the mean difference between confidence and accuracy. It is 0 when there are no
/// examples, and NaN when a confidence is NaN.
///
/// The examples are put into `bins` equal ranges of confidence, each open below and closed above; the result is the mean
/// over the examples of `|accuracy − mean confidence|` of their range.
/// C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.
///
/// `confidences` are the probabilities of the predicted labels, from 0 to 1; `correct` says which predictions are right.
///
/// # Panics
/// When the slices are not of one length, or `bins` is 0.
pub fn expected_calibration_error(confidences: &[f64], correct: &[bool], bins: usize) -> f64 {
    assert_eq!(confidences.len(), correct.len(), "each confidence belongs to a prediction");
    assert!(bins > 0, "there is at least one bin");
    // Of each bin, the right predictions minus the sum of the confidences.
    let mut surplus = vec![0.0; bins];
    for (&confidence, &correct) in confidences.iter().zip(correct) {
        // 0 belongs to the first bin, though that is open below. NaN goes there too, and makes its sum NaN.
        let bin = ((confidence * bins as f64).ceil() as usize).clamp(1, bins) - 1;
        surplus[bin] += f64::from(u8::from(correct)) - confidence;
    }
    ratio(surplus.into_iter().map(f64::abs).sum(), confidences.len() as f64)
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
            let error = expected_calibration_error(&confidences, &correct, bins);
            assert!((error - expected).abs() < 1e-15, "{error} against {expected} with {bins} bins");
        }
    }

    #[test]
    fn edges_are_in_the_bin_below() {
        assert_eq!(expected_calibration_error(&[0.5, 0.25], &[true, false], 2), 0.125);
        assert_eq!(expected_calibration_error(&[0.0, 1.0], &[false, true], 15), 0.0);
        assert_eq!(expected_calibration_error(&[], &[], 15), 0.0);
        assert!(expected_calibration_error(&[f64::NAN, 0.9], &[true, true], 15).is_nan());
    }
}
