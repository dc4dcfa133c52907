/// Temperature scaling: the temperature at which [`softmax_at`](crate::softmax_at) has the lowest cross-entropy with the
/// targets. C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2.
///
/// None if there is no best temperature between 1/20 and 20. This is so without rows, and if the cross-entropy falls with
/// ever higher or ever lower temperatures. If every target has the highest logit of its row, ever lower ones are better.
///
/// The cross-entropy is convex in the inverse temperature. Its minimum is found by Newton's method with bracketing, in `f64`
/// and in the order of the rows, so that the same rows give the same result, bit for bit.
///
/// # Shapes
/// `logits` is `[rows, num_labels]`, row-major; `targets` is `[rows]`.
///
/// # Panics
/// When the length of `logits` is not `targets.len() * num_labels`, or a target is not below `num_labels`.
pub fn temperature(logits: &[f32], num_labels: usize, targets: &[usize]) -> Option<f64> {
    assert_eq!(logits.len(), targets.len() * num_labels, "each target has a row of {num_labels} logits");
    let slope = |inverse: f64| Slope::of(logits, num_labels, targets, inverse);
    let (mut low, mut high) = (1.0 / HIGHEST, HIGHEST);
    let is_highest = |(row, &target): (&[f32], &usize)| row.iter().all(|logit| *logit <= row[target]);
    let fits_all = logits.chunks(num_labels.max(1)).zip(targets).all(is_highest);
    if fits_all || slope(low).first > 0.0 || slope(high).first < 0.0 {
        return None;
    }
    let mut inverse = 1.0;
    for _ in 0..STEPS {
        let Slope { first, second } = slope(inverse);
        if first == 0.0 {
            break;
        }
        if first < 0.0 {
            low = inverse;
        } else {
            high = inverse;
        }
        let newton = inverse - first / second;
        // A step outside the bounds, or NaN, is replaced by their geometric mean.
        let next = if low < newton && newton < high { newton } else { (low * high).sqrt() };
        let moved = (next - inverse).abs();
        inverse = next;
        if moved <= PRECISION * inverse {
            break;
        }
    }
    Some(1.0 / inverse)
}

/// The maximum temperature. The minimum is its inverse.
const HIGHEST: f64 = 20.0;

/// The maximum number of steps, more than bisection alone needs.
const STEPS: usize = 100;

/// The relative precision of the result.
const PRECISION: f64 = 1e-12;

/// The derivatives of the mean cross-entropy with respect to the inverse temperature.
struct Slope {
    first: f64,
    second: f64,
}

impl Slope {
    /// The first derivative is the mean difference between a row's expected logit and the logit of its target. The second is
    /// the mean variance of a row's logits.
    fn of(logits: &[f32], num_labels: usize, targets: &[usize], inverse: f64) -> Self {
        let mut sum = Self { first: 0.0, second: 0.0 };
        for (row, &target) in logits.chunks(num_labels.max(1)).zip(targets) {
            let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            // The largest logit is subtracted, so that no exponential overflows.
            let (mut weights, mut mean, mut square) = (0.0, 0.0, 0.0);
            for &logit in row {
                let logit = f64::from(logit) - largest;
                let weight = (inverse * logit).exp();
                weights += weight;
                mean += weight * logit;
                square += weight * logit * logit;
            }
            (mean, square) = (mean / weights, square / weights);
            sum.first += mean - (f64::from(row[target]) - largest);
            sum.second += square - mean * mean;
        }
        let rows = targets.len().max(1) as f64;
        Self { first: sum.first / rows, second: sum.second / rows }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{argmax, cross_entropy_at, softmax_at};

    /// Two labels with the logits 0 and 2, where three of four rows are correct. The probability 3/4 needs a difference of
    /// ln 3 between the logits.
    #[test]
    fn the_temperature_of_two_logits_by_hand() {
        let found = temperature(&[0.0, 2.0].repeat(4), 2, &[1, 1, 0, 1]).expect("there is a best");
        assert!((found - 2.0 / 3f64.ln()).abs() < 1e-12, "{found}");
        assert_eq!(temperature(&[0.0, 2.0, 2.0, 0.0], 2, &[1, 0]), None, "all right");
        assert_eq!(temperature(&[0.0, 2.0, 2.0, 0.0], 2, &[0, 1]), None, "all wrong");
        assert_eq!(temperature(&[], 2, &[]), None);
        assert_eq!(temperature(&[1.5; 6], 3, &[0, 2]), None, "all temperatures are equal");
        assert_eq!(temperature(&[0.0, 2e4, 0.0, 3e4], 2, &[1, 1]), None, "no rounding makes a best of it");
    }

    proptest! {
        #[test]
        fn no_other_temperature_fits_better_and_none_changes_a_prediction(
            rows in prop::collection::vec((prop::collection::vec(-8.0f32..8.0, 3), 0usize..3), 1..40)
        ) {
            let logits: Vec<f32> = rows.iter().flat_map(|(logits, _)| logits.clone()).collect();
            let targets: Vec<usize> = rows.iter().map(|(_, target)| *target).collect();
            if let Some(found) = temperature(&logits, 3, &targets) {
                let loss = |temperature| cross_entropy_at(&logits, 3, &targets, temperature);
                let best = loss(found);
                for other in [found * 0.99, found * 1.01, found * 0.5, found * 2.0, 1.0] {
                    prop_assert!(best <= loss(other) + 1e-12, "{found} and {other}");
                }
                for row in logits.chunks(3) {
                    let scores = softmax_at(row, found);
                    let predicted = argmax(row);
                    prop_assert!(scores.iter().all(|score| *score <= scores[predicted]));
                }
                prop_assert_eq!(temperature(&logits, 3, &targets), Some(found));
            }
        }
    }
}
