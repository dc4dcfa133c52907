use crate::accuracy::ratio;
use crate::entities::{Counts, EntityScores};
use crate::roc_auc;

/// The scores of multi-label predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiLabelScores {
    /// The share of rows with exactly the correct labels.
    pub subset_accuracy: f64,
    /// The scores over all pairs of row and label.
    pub micro: EntityScores,
    /// The mean F1 over the labels. A label that is neither a target nor predicted has F1 0, as in scikit-learn.
    pub macro_f1: f64,
    /// The scores of each label.
    pub labels: Vec<EntityScores>,
}

/// Compares the predicted labels of each row with its true ones.
///
/// # Shapes
/// - `predictions`, `targets`: row-major `[rows, num_labels]`
///
/// # Panics
/// When the lengths of the slices differ.
pub fn multi_label_scores(predictions: &[bool], targets: &[bool], num_labels: usize) -> MultiLabelScores {
    assert_eq!(predictions.len(), targets.len(), "each prediction has a target");
    let mut counts = vec![Counts::default(); num_labels];
    let (mut exact, mut rows) = (0, 0);
    // Without labels there are no rows either.
    let width = num_labels.max(1);
    for (predicted, real) in predictions.chunks_exact(width).zip(targets.chunks_exact(width)) {
        rows += 1;
        exact += usize::from(predicted == real);
        for ((&predicted, &real), count) in predicted.iter().zip(real).zip(&mut counts) {
            count.correct += usize::from(predicted && real);
            count.predicted += usize::from(predicted);
            count.support += usize::from(real);
        }
    }
    let total: Counts = counts.iter().copied().sum();
    let labels: Vec<EntityScores> = counts.into_iter().map(Counts::scores).collect();
    MultiLabelScores {
        subset_accuracy: ratio(exact as f64, rows as f64),
        micro: total.scores(),
        macro_f1: ratio(labels.iter().map(|label| label.f1).sum(), num_labels as f64),
        labels,
    }
}

/// The mean of [`roc_auc`] over the labels: scikit-learn's `roc_auc_score(average="macro")` for multi-label targets. None if
/// it is undefined for a label.
///
/// # Shapes
/// - `scores`, `targets`: row-major `[rows, num_labels]`
///
/// # Panics
/// When the lengths of the slices differ.
pub fn multi_label_roc_auc(scores: &[f64], targets: &[bool], num_labels: usize) -> Option<f64> {
    assert_eq!(scores.len(), targets.len(), "each score has a target");
    if targets.is_empty() {
        return None;
    }
    let of_label = |label: usize| {
        let scores: Vec<f64> = scores.iter().skip(label).step_by(num_labels).copied().collect();
        let targets: Vec<bool> = targets.iter().skip(label).step_by(num_labels).copied().collect();
        roc_auc(&scores, &targets)
    };
    let sum: f64 = (0..num_labels).map(of_label).sum::<Option<f64>>()?;
    Some(sum / num_labels as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_by_hand() {
        let predicted = [true, false, false, true, true, false, false, false, false];
        let real = [true, false, false, true, false, true, false, false, false];
        let scores = multi_label_scores(&predicted, &real, 3);
        assert_eq!(scores.subset_accuracy, 2.0 / 3.0);
        assert_eq!((scores.micro.precision, scores.micro.recall), (2.0 / 3.0, 2.0 / 3.0));
        assert_eq!(scores.labels.iter().map(|label| label.f1).collect::<Vec<_>>(), [1.0, 0.0, 0.0]);
        assert!((scores.macro_f1 - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_scores_nothing() {
        for num_labels in [0, 2] {
            let scores = multi_label_scores(&[], &[], num_labels);
            assert_eq!((scores.subset_accuracy, scores.macro_f1, scores.micro.f1), (0.0, 0.0, 0.0));
            assert_eq!(multi_label_roc_auc(&[], &[], num_labels), None);
        }
    }
}
