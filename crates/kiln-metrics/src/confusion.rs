use std::fmt;

use serde::{Deserialize, Serialize};

use crate::accuracy::ratio;

/// How often each label was predicted for each target: rows are targets, columns are predictions.
///
/// It is serialized as the array of its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<u64>>", into = "Vec<Vec<u64>>")]
pub struct ConfusionMatrix {
    counts: Vec<Vec<u64>>,
}

/// How well one class was found; every ratio is from 0 to 1, and 0 where nothing is divided by nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Of the predictions of this class, the share that is right.
    pub precision: f64,
    /// Of the targets of this class, the share that was found.
    pub recall: f64,
    /// The harmonic mean of the two.
    pub f1: f64,
    /// How many targets are of this class.
    pub support: u64,
}

impl ConfusionMatrix {
    /// Counts pairs of prediction and target.
    ///
    /// # Panics
    /// When there are more predictions than targets, or fewer, or when an id is not below `num_labels`.
    pub fn new(predictions: &[usize], targets: &[usize], num_labels: usize) -> Self {
        assert_eq!(predictions.len(), targets.len(), "each prediction has a target");
        let mut counts = vec![vec![0; num_labels]; num_labels];
        for (&prediction, &target) in predictions.iter().zip(targets) {
            counts[target][prediction] += 1;
        }
        Self { counts }
    }

    /// `counts()[target][prediction]`, `num_labels` × `num_labels`.
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// The share of predictions that are right.
    pub fn accuracy(&self) -> f64 {
        let correct: u64 = self.counts.iter().enumerate().map(|(label, row)| row[label]).sum();
        let total: u64 = self.counts.iter().flatten().sum();
        ratio(correct as f64, total as f64)
    }

    /// The scores of each class, in the order of the labels.
    pub fn per_class(&self) -> Vec<ClassScores> {
        (0..self.counts.len()).map(|label| self.class(label)).collect()
    }

    /// The mean of [`ClassScores::precision`] over the classes that are predicted or targets.
    pub fn macro_precision(&self) -> f64 {
        self.macro_mean(|scores| scores.precision)
    }

    /// The mean of [`ClassScores::recall`] over the classes that are predicted or targets.
    pub fn macro_recall(&self) -> f64 {
        self.macro_mean(|scores| scores.recall)
    }

    /// The mean of [`ClassScores::f1`] over the classes that are predicted or targets: scikit-learn's
    /// `f1_score(average="macro", zero_division=0)`. A class that is in neither says nothing, and does not count.
    pub fn macro_f1(&self) -> f64 {
        self.macro_mean(|scores| scores.f1)
    }

    fn macro_mean(&self, score: impl Fn(&ClassScores) -> f64) -> f64 {
        let occurring = (0..self.counts.len()).filter(|&label| self.support(label) + self.predicted(label) > 0);
        let scores: Vec<f64> = occurring.map(|label| score(&self.class(label))).collect();
        ratio(scores.iter().sum(), scores.len() as f64)
    }

    fn class(&self, label: usize) -> ClassScores {
        let correct = self.counts[label][label] as f64;
        let (support, predicted) = (self.support(label), self.predicted(label));
        ClassScores {
            precision: ratio(correct, predicted as f64),
            recall: ratio(correct, support as f64),
            f1: ratio(2.0 * correct, (support + predicted) as f64),
            support,
        }
    }

    fn support(&self, label: usize) -> u64 {
        self.counts[label].iter().sum()
    }

    fn predicted(&self, label: usize) -> u64 {
        self.counts.iter().map(|row| row[label]).sum()
    }
}

impl TryFrom<Vec<Vec<u64>>> for ConfusionMatrix {
    type Error = NotSquare;

    fn try_from(counts: Vec<Vec<u64>>) -> Result<Self, NotSquare> {
        match counts.iter().position(|row| row.len() != counts.len()) {
            Some(row) => Err(NotSquare { row, found: counts[row].len(), expected: counts.len() }),
            None => Ok(Self { counts }),
        }
    }
}

impl From<ConfusionMatrix> for Vec<Vec<u64>> {
    fn from(confusion: ConfusionMatrix) -> Self {
        confusion.counts
    }
}

/// A confusion matrix has a row that is not as long as the matrix has rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSquare {
    /// The row, from 0.
    pub row: usize,
    /// How long it is.
    pub found: usize,
    /// How many rows there are.
    pub expected: usize,
}

impl fmt::Display for NotSquare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, found, expected } = self;
        write!(f, "row {row} of a confusion matrix has {found} counts, expected {expected}")
    }
}

impl std::error::Error for NotSquare {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class 3 is predicted once and never a target; class 4 is neither.
    fn known() -> ConfusionMatrix {
        let targets = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 1];
        let predictions = [0, 0, 1, 2, 1, 1, 0, 2, 2, 2, 3, 0, 1];
        ConfusionMatrix::new(&predictions, &targets, 5)
    }

    /// scikit-learn 1.9.1: `confusion_matrix`, and `precision_recall_fscore_support` with `zero_division=0`.
    #[test]
    fn scores_are_scikit_learns() {
        let confusion = known();
        let rows = [[2, 1, 1, 0, 0], [1, 3, 0, 0, 0], [1, 0, 3, 1, 0], [0; 5], [0; 5]];
        assert_eq!(confusion.counts(), rows);
        let scores = |precision, recall, f1, support| ClassScores { precision, recall, f1, support };
        let none = scores(0.0, 0.0, 0.0, 0);
        let expected =
            [scores(0.5, 0.5, 0.5, 4), scores(0.75, 0.75, 0.75, 4), scores(0.75, 0.6, 2.0 / 3.0, 5), none, none];
        assert_eq!(confusion.per_class(), expected);
    }

    /// scikit-learn 1.9.1: `precision_score`, `recall_score` and `f1_score` with `average="macro", zero_division=0`.
    #[test]
    fn means_are_scikit_learns() {
        let confusion = known();
        for (found, expected) in [
            (confusion.accuracy(), 0.615_384_615_384_615_4),
            (confusion.macro_precision(), 0.5),
            (confusion.macro_recall(), 0.462_5),
            (confusion.macro_f1(), 0.479_166_666_666_666_63),
        ] {
            assert!((found - expected).abs() < 1e-15, "{found} against {expected}");
        }
    }

    #[test]
    fn nothing_scores_nothing() {
        for num_labels in [0, 3] {
            let confusion = ConfusionMatrix::new(&[], &[], num_labels);
            assert_eq!((confusion.accuracy(), confusion.macro_f1()), (0.0, 0.0));
            assert_eq!(confusion.per_class().len(), num_labels);
        }
    }

    #[test]
    fn json_is_the_array_of_rows() {
        let confusion = ConfusionMatrix::new(&[1, 0], &[1, 1], 2);
        let json = serde_json::to_string(&confusion).expect("numbers are JSON");
        assert_eq!(json, "[[0,0],[1,1]]");
        assert_eq!(serde_json::from_str::<ConfusionMatrix>(&json).expect("it was just written"), confusion);
        let message = serde_json::from_str::<ConfusionMatrix>("[[0,0],[1]]").expect_err("it is ragged").to_string();
        assert!(message.starts_with("row 1 of a confusion matrix has 1 counts, expected 2"), "{message}");
    }
}
