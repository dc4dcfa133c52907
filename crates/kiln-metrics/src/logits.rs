/// The index of the largest value; the first if there are several.
///
/// NaN counts as smaller than any number. If all values are NaN, the result is 0, so check for this case first.
///
/// # Panics
/// When there are no values.
pub fn argmax(logits: &[f32]) -> usize {
    assert!(!logits.is_empty(), "the largest of no values");
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] || (logits[best].is_nan() && !logit.is_nan()) {
            best = index;
        }
    }
    best
}

/// Converts logits to probabilities that sum to 1: `exp(x) / Σ exp(x)`.
///
/// If a logit is NaN or +∞, all probabilities are NaN.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    softmax_at(logits, 1.0)
}

/// [`softmax`] of the logits divided by a temperature. A temperature above 1 makes the probabilities more equal, one below 1
/// less equal.
pub fn softmax_at(logits: &[f32], temperature: f64) -> Vec<f64> {
    let largest = largest(logits);
    let exponential = |&logit: &f32| ((f64::from(logit) - largest) / temperature).exp();
    let exponentials: Vec<f64> = logits.iter().map(exponential).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|exponential| exponential / sum).collect()
}

/// The cross-entropy in nats: the mean over the examples of `−ln softmax(logits)[target]`; 0 if there are no examples.
///
/// If a logit is NaN or +∞, the result is NaN.
///
/// # Shapes
/// `logits` is `[examples, num_labels]`, row-major; `targets` is `[examples]`.
///
/// # Panics
/// When the length of `logits` is not `targets.len() * num_labels`, or a target is not below `num_labels`.
pub fn cross_entropy(logits: &[f32], num_labels: usize, targets: &[usize]) -> f64 {
    cross_entropy_at(logits, num_labels, targets, 1.0)
}

/// [`cross_entropy`] of the logits divided by a temperature.
///
/// # Panics
/// The same as [`cross_entropy`].
pub fn cross_entropy_at(logits: &[f32], num_labels: usize, targets: &[usize], temperature: f64) -> f64 {
    assert_eq!(logits.len(), targets.len() * num_labels, "each target has a row of {num_labels} logits");
    if targets.is_empty() {
        return 0.0;
    }
    let mut sum = 0.0;
    for (example, &target) in targets.iter().enumerate() {
        let row = &logits[example * num_labels..][..num_labels];
        let largest = largest(row);
        let exponentials: f64 = row.iter().map(|&logit| ((f64::from(logit) - largest) / temperature).exp()).sum();
        sum += (largest - f64::from(row[target])) / temperature + exponentials.ln();
    }
    sum / targets.len() as f64
}

/// The largest logit, which is subtracted from all, so that no exponential overflows.
fn largest(logits: &[f32]) -> f64 {
    f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_of_equals_and_never_nan() {
        assert_eq!(argmax(&[-3.0, 7.0, 7.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -5.0, f32::NEG_INFINITY]), 1);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(argmax(&[2.0, f32::NAN, 3.0, f32::NAN]), 2);
        assert_eq!(argmax(&[f32::NAN, f32::NAN]), 0);
    }

    /// NumPy 2.4.6: `e = exp(x - x.max()); e / e.sum()` in double precision.
    #[test]
    fn softmax_is_numpys() {
        let expected = [0.862_922_195_390_900_3, 0.020_293_984_884_712_627, 0.116_783_819_724_387_13];
        for (ours, expected) in softmax(&[2.5, -1.25, 0.5]).into_iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-15, "{ours} against {expected}");
        }
        assert_eq!(softmax(&[3e38, -3e38]), [1.0, 0.0]);
        assert_eq!(softmax(&[0.0, f32::NEG_INFINITY]), [1.0, 0.0]);
        assert!(softmax(&[0.0, f32::NAN]).iter().all(|probability| probability.is_nan()));
    }

    /// scikit-learn 1.9.1: `log_loss` of the softmax of these rows.
    #[test]
    fn cross_entropy_is_scikit_learns() {
        let logits = [2.5, -1.25, 0.5, 0.0, 0.0, 0.0, -3.0, 4.0, 1.5, 100.0, -100.0, 88.5];
        let ours = cross_entropy(&logits, 3, &[0, 2, 1, 2]);
        assert!((ours - 3.206_446_313_581_013_5).abs() < 1e-14, "{ours}");
        assert_eq!(cross_entropy(&[], 3, &[]), 0.0);
        assert!(cross_entropy(&[0.0, f32::NAN], 2, &[0]).is_nan());
        assert!(cross_entropy(&[0.0, f32::INFINITY], 2, &[0]).is_nan());
    }

    #[test]
    #[should_panic(expected = "each target has a row of 3 logits")]
    fn cross_entropy_refuses_half_a_row() {
        cross_entropy(&[0.0; 5], 3, &[0, 0]);
    }
}
