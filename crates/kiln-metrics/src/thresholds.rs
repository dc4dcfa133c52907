/// The threshold of each label with the highest F1: the label is predicted from this probability on. Of equally good
/// thresholds, the one nearest to one half is used. A label that is a target of no row has the threshold one half.
///
/// # Shapes
/// - `probabilities`, `targets`: row-major `[rows, num_labels]`
///
/// # Panics
/// When the lengths of the slices differ.
pub fn f1_thresholds(probabilities: &[f64], targets: &[bool], num_labels: usize) -> Vec<f64> {
    assert_eq!(probabilities.len(), targets.len(), "each probability has a target");
    let of_label = |label: usize| {
        let column = probabilities.iter().zip(targets).skip(label).step_by(num_labels);
        f1_threshold(column.map(|(probability, target)| (*probability, *target)).collect())
    };
    (0..num_labels).map(of_label).collect()
}

/// The default threshold.
const HALF: f64 = 0.5;

fn f1_threshold(mut rows: Vec<(f64, bool)>) -> f64 {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let support = rows.iter().filter(|(_, target)| *target).count();
    if support == 0 {
        return HALF;
    }
    let mut best = (0.0, HALF);
    let mut correct = 0;
    for (at, (probability, target)) in rows.iter().enumerate() {
        correct += usize::from(*target);
        let below = rows.get(at + 1).map_or(0.0, |next| next.0);
        // Rows with equal probabilities cannot be separated.
        if below == *probability {
            continue;
        }
        let f1 = 2.0 * correct as f64 / (at + 1 + support) as f64;
        let threshold = if below < HALF && HALF <= *probability { HALF } else { (below + probability) / 2.0 };
        let is_nearer = || (threshold - HALF).abs() < (best.1 - HALF).abs();
        if f1 > best.0 || (f1 == best.0 && is_nearer()) {
            best = (f1, threshold);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::multi_label_scores;

    #[test]
    fn thresholds_by_hand() {
        // The label is a target from 0.375 on: F1 is 1 for thresholds between 0.25 and 0.375.
        assert_eq!(f1_thresholds(&[0.25, 0.375, 0.9], &[false, true, true], 1), [0.3125]);
        // One half is kept if it is as good as any other threshold.
        assert_eq!(f1_thresholds(&[0.1, 0.8], &[false, true], 1), [0.5]);
        // Two labels: the first is never a target, the second is one from 0.75 on.
        assert_eq!(f1_thresholds(&[0.9, 0.625, 0.2, 0.75], &[false, false, false, true], 2), [0.5, 0.6875]);
        assert_eq!(f1_thresholds(&[], &[], 3), [0.5; 3]);
        assert_eq!(f1_thresholds(&[0.3, 0.3], &[true, false], 1), [0.15], "rows of one probability stay together");
    }

    proptest! {
        #[test]
        fn no_other_threshold_has_a_higher_f1(
            rows in prop::collection::vec((0.001f64..0.999, any::<bool>()), 1..30)
        ) {
            let (probabilities, targets): (Vec<f64>, Vec<bool>) = rows.into_iter().unzip();
            let f1 = |threshold: f64| {
                let predicted: Vec<bool> = probabilities.iter().map(|probability| *probability >= threshold).collect();
                multi_label_scores(&predicted, &targets, 1).macro_f1
            };
            let threshold = f1_thresholds(&probabilities, &targets, 1)[0];
            prop_assert!(0.0 < threshold && threshold < 1.0);
            for other in probabilities.iter().copied().chain([0.5]) {
                prop_assert!(f1(threshold) >= f1(other) - 1e-12, "{threshold} and {other}");
            }
        }
    }
}
