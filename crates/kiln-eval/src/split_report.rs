use kiln_metrics::{ConfusionMatrix, argmax, cross_entropy, expected_calibration_error, softmax, wilson_interval};
use kiln_schema::{LabelId, LabelSet};
use serde::Serialize;

/// How a classifier does on one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// 95 % interval of the accuracy over samples of this size (Wilson).
    pub accuracy_interval: [f64; 2],
    /// Mean over labels of F1.
    pub macro_f1: f64,
    /// Mean over labels of precision.
    pub macro_precision: f64,
    /// Mean over labels of recall.
    pub macro_recall: f64,
    /// How far confidence is from accuracy, weighted over ten bins of confidence.
    pub calibration_error: f64,
    /// Rows.
    pub examples: usize,
    /// In the order of the logits.
    pub labels: Vec<LabelReport>,
    /// Rows are targets, columns predictions, both in the order of the logits.
    pub confusion_matrix: ConfusionMatrix,
}

/// How a classifier does on one label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    /// Its name.
    pub label: String,
    /// Of the rows so predicted, the share that are.
    pub precision: f64,
    /// Of the rows that are, the share so predicted.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Rows that are.
    pub support: u64,
}

/// 95 % of a normal distribution lie within this many standard deviations.
const Z_95: f64 = 1.959_963_984_540_054;

/// # Shapes
/// - `logits`: row-major `[examples, labels]`
/// - `targets`: `[examples]`
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate(logits: &[f32], targets: &[LabelId], labels: &LabelSet) -> SplitReport {
    let num_labels = labels.len();
    assert_eq!(logits.len(), targets.len() * num_labels, "a row of logits for each target");
    let predictions: Vec<LabelId> = logits.chunks(num_labels).map(argmax).collect();
    let correct: Vec<bool> = predictions.iter().zip(targets).map(|(prediction, target)| prediction == target).collect();
    let confidences: Vec<f64> =
        logits.chunks(num_labels).zip(&predictions).map(|(row, &prediction)| softmax(row)[prediction]).collect();
    let confusion_matrix = ConfusionMatrix::new(&predictions, targets, num_labels);
    let right = correct.iter().filter(|&&correct| correct).count();
    let (low, high) = wilson_interval(right, targets.len(), Z_95);
    SplitReport {
        loss: cross_entropy(logits, num_labels, targets),
        accuracy: confusion_matrix.accuracy(),
        accuracy_interval: [low, high],
        macro_f1: confusion_matrix.macro_f1(),
        macro_precision: confusion_matrix.macro_precision(),
        macro_recall: confusion_matrix.macro_recall(),
        calibration_error: expected_calibration_error(&confidences, &correct, 10),
        examples: targets.len(),
        labels: (confusion_matrix.per_class().into_iter().zip(labels.names()))
            .map(|(scores, name)| LabelReport {
                label: name.clone(),
                precision: scores.precision,
                recall: scores.recall,
                f1: scores.f1,
                support: scores.support,
            })
            .collect(),
        confusion_matrix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Predictions 0, 0, 1, 1 of targets 0, 1, 1, 1.
    #[test]
    fn a_split_by_hand() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let report = evaluate(&[2.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 3.0], &[0, 1, 1, 1], &labels);
        assert_eq!((report.examples, report.accuracy), (4, 0.75));
        let [a, b] = report.labels.as_slice() else { panic!("two labels") };
        assert_eq!((a.precision, a.recall, a.support), (0.5, 1.0, 1));
        assert_eq!((b.precision, b.recall, b.support), (1.0, 2.0 / 3.0, 3));
        assert!((report.macro_f1 - (2.0 / 3.0 + 0.8) / 2.0).abs() < 1e-12);
        // −ln σ(d) for the differences d = 2, −1, 1, 3 of the right logit to the other.
        let loss = [2.0f64, -1.0, 1.0, 3.0].map(|d| (1.0 + (-d).exp()).ln()).iter().sum::<f64>() / 4.0;
        assert!((report.loss - loss).abs() < 1e-9);
        let [low, high] = report.accuracy_interval;
        assert!(0.0 < low && low < 0.75 && 0.75 < high && high < 1.0);
    }
}
