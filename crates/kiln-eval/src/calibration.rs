use kiln_metrics::{argmax, brier_score, confidence_bins, cross_entropy_at, expected_calibration_error, softmax_at};
use kiln_schema::LabelId;
use serde::Serialize;

use crate::Reliability;

/// How far probabilities of labels are from the truth, before and after they are calibrated, and what abstaining costs. Of
/// several labels a row, each pair of row and label counts as a row with two labels: right and wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationReport {
    /// Of the logits as they are.
    pub before: CalibrationScores,
    /// The temperature that was fitted on the validation split; absent where none fits best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Of the logits over the temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<CalibrationScores>,
    /// Which share of the rows is answered, and how well, where an answer needs a probability; of the probabilities that
    /// predictions have.
    pub coverage: Vec<Coverage>,
}

/// How far probabilities are from the truth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationScores {
    /// Difference between confidence and accuracy, weighted over ten bins of confidence.
    pub calibration_error: f64,
    /// Squared distance between the probabilities and the truth, 0 to 2.
    pub brier_score: f64,
    /// Mean of −ln of the target's probability.
    pub negative_log_likelihood: f64,
    /// The bins, from the lowest confidence to the highest.
    pub reliability: Vec<Reliability>,
}

/// What is left where predictions below a probability are no answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// The least probability of an answer.
    pub min_score: f64,
    /// Share of the rows that are answered.
    pub coverage: f64,
    /// Share of the answers that are right; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// The probabilities that coverage is tabulated at.
const MIN_SCORES: [f64; 8] = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];

impl CalibrationReport {
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
    /// How far the probabilities are from the truth, and what is predicted with them.
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

    /// Four rows with the probability e²/(1 + e²) = 0.88, three of them right.
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
