use kiln_metrics::{argmax, brier_score, confidence_bins, cross_entropy_at, expected_calibration_error, softmax_at};
use kiln_schema::LabelId;
use serde::Serialize;

use crate::Reliability;

/// Calibration of the labels' probabilities, before and after temperature scaling, and the coverage at minimum scores.
///
/// With several labels per row, each pair of row and label counts as a row with two labels: present and absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationReport {
    /// Scores of the unscaled logits.
    pub before: CalibrationScores,
    /// The temperature that was fitted on the validation split; absent if the fit has no minimum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Scores of the logits divided by the temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<CalibrationScores>,
    /// Coverage and accuracy at each minimum score, with the calibrated probabilities if there is a temperature.
    pub coverage: Vec<Coverage>,
}

/// Calibration scores of probabilities.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationScores {
    /// Expected calibration error: mean difference between confidence and accuracy in ten bins, weighted by their size.
    pub calibration_error: f64,
    /// Brier score: mean squared distance between the probabilities and the one-hot target, 0 to 2.
    pub brier_score: f64,
    /// Mean negative logarithm of the target's probability.
    pub negative_log_likelihood: f64,
    /// The bins, from the lowest confidence to the highest.
    pub reliability: Vec<Reliability>,
}

/// Coverage and accuracy when predictions with a lower probability are withheld.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// The lowest probability of a prediction that counts as an answer.
    pub min_score: f64,
    /// Share of the rows that are answered.
    pub coverage: f64,
    /// Share of the answers that are right; absent if there are no answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// The minimum scores of the coverage table.
const MIN_SCORES: [f64; 8] = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];

impl CalibrationReport {
    /// Computes the report of a split's logits.
    ///
    /// # Shapes
    /// - `logits`: row-major `[rows, num_labels]`
    /// - `targets`: `[rows]`
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn new(logits: &[f32], num_labels: usize, targets: &[LabelId], temperature: Option<f64>) -> Self {
        let rows = Rows { logits, num_labels, targets };
        let (before, as_they_are) = rows.scores(1.0);
        let (after, predictions) = match temperature {
            Some(temperature) => {
                let (after, predictions) = rows.scores(temperature);
                (Some(after), predictions)
            }
            None => (None, as_they_are),
        };
        Self { before, temperature, after, coverage: predictions.coverage() }
    }
}

struct Rows<'a> {
    logits: &'a [f32],
    num_labels: usize,
    targets: &'a [LabelId],
}

impl Rows<'_> {
    /// The calibration scores at a temperature, and the predictions with their probabilities.
    fn scores(&self, temperature: f64) -> (CalibrationScores, Predictions) {
        let rows = self.logits.chunks(self.num_labels);
        let probabilities: Vec<f64> = rows.clone().flat_map(|row| softmax_at(row, temperature)).collect();
        let rows = rows.zip(probabilities.chunks(self.num_labels)).zip(self.targets);
        let (confidences, correct) = rows
            .map(|((logits, probabilities), target)| {
                let predicted = argmax(logits);
                (probabilities[predicted], predicted == *target)
            })
            .unzip();
        let predictions = Predictions { confidences, correct };
        let bins = confidence_bins(&predictions.confidences, &predictions.correct, 10);
        let scores = CalibrationScores {
            calibration_error: expected_calibration_error(&bins),
            brier_score: brier_score(&probabilities, self.num_labels, self.targets),
            negative_log_likelihood: cross_entropy_at(self.logits, self.num_labels, self.targets, temperature),
            reliability: bins.into_iter().map(Reliability::from).collect(),
        };
        (scores, predictions)
    }
}

/// The probability of each row's prediction, and whether it is right.
struct Predictions {
    confidences: Vec<f64>,
    correct: Vec<bool>,
}

impl Predictions {
    fn coverage(&self) -> Vec<Coverage> {
        let at = |min_score: f64| {
            let rows = self.confidences.iter().zip(&self.correct);
            let answered = rows.filter(|(confidence, _)| **confidence >= min_score);
            let right = answered.clone().filter(|(_, correct)| **correct).count();
            let answered = answered.count();
            Coverage {
                min_score,
                coverage: answered as f64 / self.correct.len().max(1) as f64,
                accuracy: (answered > 0).then(|| right as f64 / answered as f64),
            }
        };
        MIN_SCORES.map(at).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use kiln_metrics::{cross_entropy, temperature};

    use super::*;

    /// Four rows with the probability e²/(1 + e²) = 0.88, three of which are right.
    #[test]
    fn a_temperature_brings_confidence_to_accuracy() {
        let (logits, targets) = ([0.0, 2.0].repeat(4), [1, 1, 0, 1]);
        let fitted = temperature(&logits, 2, &targets);
        let report = CalibrationReport::new(&logits, 2, &targets, fitted);
        let confidence = 2f64.exp() / (1.0 + 2f64.exp());
        assert!((report.before.calibration_error - (confidence - 0.75)).abs() < 1e-12);
        assert!((report.before.negative_log_likelihood - cross_entropy(&logits, 2, &targets)).abs() < 1e-12);
        let after = report.after.expect("there is a temperature");
        assert!(after.calibration_error < 1e-9 && after.brier_score < report.before.brier_score, "{after:?}");
        assert!((after.brier_score - 2.0 * (0.75 * 0.0625 + 0.25 * 0.5625)).abs() < 1e-9);
        let at = |min_score: f64| report.coverage.iter().find(|row| row.min_score == min_score).copied();
        assert_eq!(at(0.7), Some(Coverage { min_score: 0.7, coverage: 1.0, accuracy: Some(0.75) }));
        assert_eq!(at(0.8), Some(Coverage { min_score: 0.8, coverage: 0.0, accuracy: None }));
    }

    #[test]
    fn without_a_temperature_and_without_rows_there_is_no_after() {
        let report = CalibrationReport::new(&[1.0, 0.0], 2, &[0], None);
        assert!(report.after.is_none() && report.coverage[0].accuracy == Some(1.0));
        let json = serde_json::to_string(&CalibrationReport::new(&[], 2, &[], None)).expect("it is JSON");
        assert!(!json.contains("null") && !json.contains("after"), "{json}");
    }
}
