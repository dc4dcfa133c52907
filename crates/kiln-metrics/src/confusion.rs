use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::accuracy::ratio;

/// A sparse confusion matrix: how often each label was predicted for each target. Memory and time grow with the number of
/// labels and rows, not with the square of the number of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    /// The counts by target and prediction, without zeros.
    counts: BTreeMap<(usize, usize), u64>,
    /// The number of targets with each label.
    support: Vec<u64>,
    /// The number of predictions of each label.
    predicted: Vec<u64>,
}

/// One entry of a confusion matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// The true label.
    pub target: usize,
    /// The predicted label.
    pub prediction: usize,
    /// The number of such rows.
    pub count: u64,
}

/// The scores of one label. Every ratio is from 0 to 1, and 0 / 0 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The share of the predictions of this label that are correct.
    pub precision: f64,
    /// The share of the targets with this label that were predicted correctly.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
    /// The number of targets with this label.
    pub support: u64,
}

impl ConfusionMatrix {
    /// Counts pairs of prediction and target.
    ///
    /// # Panics
    /// When the numbers of predictions and targets differ, or an id is not below `num_labels`.
    pub fn new(predictions: &[usize], targets: &[usize], num_labels: usize) -> Self {
        assert_eq!(predictions.len(), targets.len(), "each prediction has a target");
        let (mut counts, mut support, mut predicted) = (BTreeMap::new(), vec![0; num_labels], vec![0; num_labels]);
        for (&prediction, &target) in predictions.iter().zip(targets) {
            support[target] += 1;
            predicted[prediction] += 1;
            *counts.entry((target, prediction)).or_default() += 1;
        }
        Self { counts, support, predicted }
    }

    /// The number of labels.
    pub fn num_labels(&self) -> usize {
        self.support.len()
    }

    /// The number of rows with this target and prediction.
    pub fn count(&self, target: usize, prediction: usize) -> u64 {
        self.counts.get(&(target, prediction)).copied().unwrap_or(0)
    }

    /// The whole matrix, `num_labels` × `num_labels`: rows are targets, columns are predictions.
    pub fn to_rows(&self) -> Vec<Vec<u64>> {
        let mut rows = vec![vec![0; self.num_labels()]; self.num_labels()];
        for (&(target, prediction), &count) in &self.counts {
            rows[target][prediction] = count;
        }
        rows
    }

    /// The most frequent confusions, at most `most` pairs. Ties are sorted by the ids of target and prediction.
    pub fn largest_confusions(&self, most: usize) -> Vec<Confusion> {
        let wrong = self.counts.iter().filter(|((target, prediction), _)| target != prediction);
        let mut confusions: Vec<Confusion> =
            wrong.map(|(&(target, prediction), &count)| Confusion { target, prediction, count }).collect();
        confusions.sort_by_key(|confusion| std::cmp::Reverse(confusion.count));
        confusions.truncate(most);
        confusions
    }

    /// The share of correct predictions.
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct() as f64, self.total() as f64)
    }

    /// The scores of each label, in the order of the labels.
    pub fn per_class(&self) -> Vec<ClassScores> {
        (0..self.num_labels()).map(|label| self.class(label)).collect()
    }

    /// The mean of [`ClassScores::precision`] over the labels that occur as predictions or targets.
    pub fn macro_precision(&self) -> f64 {
        self.macro_mean(|scores| scores.precision)
    }

    /// The mean of [`ClassScores::recall`] over the labels that occur as predictions or targets.
    pub fn macro_recall(&self) -> f64 {
        self.macro_mean(|scores| scores.recall)
    }

    /// The mean of [`ClassScores::f1`] over the labels that occur as predictions or targets: scikit-learn's
    /// `f1_score(average="macro", zero_division=0)`.
    pub fn macro_f1(&self) -> f64 {
        self.macro_mean(|scores| scores.f1)
    }

    /// Matthews' correlation coefficient, −1 to 1, for any number of labels: scikit-learn's `matthews_corrcoef`. As there,
    /// it is 0 if all targets or all predictions have the same label.
    ///
    /// J. Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004.
    pub fn matthews_correlation(&self) -> f64 {
        let products = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
        let total = self.total() as f64;
        let covariance = self.correct() as f64 * total - products(&self.support, &self.predicted);
        let of_predictions = total * total - products(&self.predicted, &self.predicted);
        let of_targets = total * total - products(&self.support, &self.support);
        let product = of_predictions * of_targets;
        if product > 0.0 { covariance / product.sqrt() } else { 0.0 }
    }

    fn macro_mean(&self, score: impl Fn(&ClassScores) -> f64) -> f64 {
        let occurring = (0..self.num_labels()).filter(|&label| self.support[label] + self.predicted[label] > 0);
        let scores: Vec<f64> = occurring.map(|label| score(&self.class(label))).collect();
        ratio(scores.iter().sum(), scores.len() as f64)
    }

    fn class(&self, label: usize) -> ClassScores {
        let correct = self.count(label, label) as f64;
        let (support, predicted) = (self.support[label], self.predicted[label]);
        ClassScores {
            precision: ratio(correct, predicted as f64),
            recall: ratio(correct, support as f64),
            f1: ratio(2.0 * correct, (support + predicted) as f64),
            support,
        }
    }

    fn correct(&self) -> u64 {
        (0..self.num_labels()).map(|label| self.count(label, label)).sum()
    }

    fn total(&self) -> u64 {
        self.support.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Label 3 is predicted once but is never a target. Label 4 is neither.
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
        assert_eq!(confusion.to_rows(), rows);
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
        for (ours, expected) in [
            (confusion.accuracy(), 0.615_384_615_384_615_4),
            (confusion.macro_precision(), 0.5),
            (confusion.macro_recall(), 0.462_5),
            (confusion.macro_f1(), 0.479_166_666_666_666_63),
        ] {
            assert!((ours - expected).abs() < 1e-15, "{ours} against {expected}");
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
    fn the_largest_confusions_come_first() {
        let pairs = |confusion: Confusion| (confusion.target, confusion.prediction, confusion.count);
        let confusion = ConfusionMatrix::new(&[1, 1, 0, 0, 2, 2, 1], &[0, 0, 1, 2, 2, 1, 0], 3);
        let ours: Vec<_> = confusion.largest_confusions(3).into_iter().map(pairs).collect();
        assert_eq!(ours, [(0, 1, 3), (1, 0, 1), (1, 2, 1)]);
        assert!(ConfusionMatrix::new(&[0], &[0], 1).largest_confusions(3).is_empty());
    }

    /// A square matrix would take 80 GB.
    #[test]
    fn many_labels_cost_no_square() {
        let labels: Vec<usize> = (0..100_000).collect();
        let confusion = ConfusionMatrix::new(&labels, &labels, labels.len());
        assert_eq!((confusion.accuracy(), confusion.macro_f1(), confusion.per_class().len()), (1.0, 1.0, 100_000));
    }
}
