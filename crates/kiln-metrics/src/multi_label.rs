use crate::entities::{EntityScores, scores};

/// How well sets of labels were said.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiLabelScores {
    /// The share of rows whose whole set is right.
    pub subset_accuracy: f64,
    /// Over all pairs of row and label.
    pub micro: EntityScores,
    /// The mean over labels of F1; 0 of a label that is neither there nor said, as scikit-learn has it.
    pub macro_f1: f64,
    /// Of each label.
    pub labels: Vec<EntityScores>,
}

/// # Shapes
/// - `predictions`, `targets`: row-major `[rows, num_labels]`
pub fn multi_label_scores(predictions: &[bool], targets: &[bool], num_labels: usize) -> MultiLabelScores {
    // Of each label: right, said, true.
    let mut counts = vec![[0; 3]; num_labels];
    let mut exact = 0;
    for (said, real) in predictions.chunks_exact(num_labels).zip(targets.chunks_exact(num_labels)) {
        exact += usize::from(said == real);
        for ((said, real), count) in said.iter().zip(real).zip(&mut counts) {
            count[0] += usize::from(*said && *real);
            count[1] += usize::from(*said);
            count[2] += usize::from(*real);
        }
    }
    let total = counts.iter().fold([0; 3], |sum, count| [0, 1, 2].map(|at| sum[at] + count[at]));
    let labels: Vec<EntityScores> = counts.into_iter().map(scores).collect();
    let rows = targets.len() / num_labels;
    MultiLabelScores {
        subset_accuracy: if rows == 0 { 0.0 } else { exact as f64 / rows as f64 },
        micro: scores(total),
        macro_f1: labels.iter().map(|label| label.f1).sum::<f64>() / num_labels as f64,
        labels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_by_hand() {
        let said = [true, false, false, true, true, false, false, false, false];
        let real = [true, false, false, true, false, true, false, false, false];
        let scores = multi_label_scores(&said, &real, 3);
        assert_eq!(scores.subset_accuracy, 2.0 / 3.0);
        assert_eq!((scores.micro.precision, scores.micro.recall), (2.0 / 3.0, 2.0 / 3.0));
        assert_eq!(scores.labels.iter().map(|label| label.f1).collect::<Vec<_>>(), [1.0, 0.0, 0.0]);
        assert!((scores.macro_f1 - 1.0 / 3.0).abs() < 1e-12);
    }
}
