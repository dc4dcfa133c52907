use std::borrow::Cow;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_eval::{CalibrationReport, SplitReport, evaluate, evaluate_numbers, evaluate_sets, evaluate_sets_at};
use kiln_heads::{
    Calibration, binary_cross_entropy_sum, cross_entropy_sum, focal_loss_sum, smoothed_cross_entropy_sum,
    squared_error_sum, weighted_cross_entropy_sum,
};
use kiln_metrics::{argmax, f1_thresholds, softmax_at, temperature};
use kiln_schema::{LabelId, LabelSet};

use crate::BatchLoss;

/// Variants of the cross-entropy loss: class weights, label smoothing or focal loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelLoss {
    /// One weight per label. `None`: all labels have the same weight.
    pub class_weights: Option<Vec<f32>>,
    /// The share of a target that is spread evenly over all labels; 0 = no smoothing. A focal loss ignores it.
    pub label_smoothing: f64,
    /// The exponent γ of the focal loss, which reduces the loss of targets with a high probability; 0 = no focal loss.
    pub focal_gamma: f64,
}

/// The targets of a sequence classifier, one per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// One label per row: softmax and cross-entropy.
    Labels(Vec<LabelId>, LabelSet),
    /// One label per row, with a variant of the cross-entropy loss.
    LabelsWithLoss(Vec<LabelId>, LabelSet, LabelLoss),
    /// Any number of labels per row: sigmoid and binary cross-entropy for each label.
    LabelSets(Vec<Vec<LabelId>>, LabelSet),
    /// One number per row: squared error.
    Numbers(Vec<f64>),
}

impl Targets {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Labels(labels, _) | Self::LabelsWithLoss(labels, ..) => labels.len(),
            Self::LabelSets(sets, _) => sets.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of logits per row.
    pub fn num_labels(&self) -> usize {
        match self {
            Self::Labels(_, labels) | Self::LabelsWithLoss(_, labels, _) | Self::LabelSets(_, labels) => labels.len(),
            Self::Numbers(_) => 1,
        }
    }

    /// The loss of the given rows, summed.
    ///
    /// # Shapes
    /// - `logits`: `[batch, num_labels]`
    /// - `rows`: `[batch]`, indices
    pub fn loss(&self, logits: Tensor<2>, rows: &[usize], device: &Device) -> BatchLoss {
        let [batch, num_labels] = logits.dims();
        match self {
            Self::Labels(labels, _) => {
                LabelLoss::default().of(logits, rows.iter().map(|&row| labels[row] as i32).collect(), device)
            }
            Self::LabelsWithLoss(labels, _, loss) => {
                loss.of(logits, rows.iter().map(|&row| labels[row] as i32).collect(), device)
            }
            Self::LabelSets(sets, _) => {
                let of =
                    |&row: &usize| (0..num_labels).map(move |label| f32::from(u8::from(sets[row].contains(&label))));
                let targets: Vec<f32> = rows.iter().flat_map(of).collect();
                let targets = Tensor::<2>::from_data(TensorData::new(targets, [batch, num_labels]), device);
                BatchLoss { sum: binary_cross_entropy_sum(logits, targets), right: None }
            }
            Self::Numbers(numbers) => {
                let targets: Vec<f32> = rows.iter().map(|&row| numbers[row] as f32).collect();
                let targets = Tensor::<2>::from_data(TensorData::new(targets, [batch, 1]), device);
                BatchLoss { sum: squared_error_sum(logits, targets), right: None }
            }
        }
    }

    /// Scores the logits of all rows.
    ///
    /// # Shapes
    /// - `logits`: row-major `[rows, num_labels]`
    ///
    /// # Errors
    /// When a logit is NaN or infinite.
    pub fn report(&self, logits: &[f32]) -> Result<SplitReport, kiln_eval::Error> {
        match self {
            Self::Labels(targets, labels) | Self::LabelsWithLoss(targets, labels, _) => {
                evaluate(logits, targets, labels)
            }
            Self::LabelSets(targets, labels) => evaluate_sets(logits, targets, labels),
            Self::Numbers(targets) => evaluate_numbers(logits, targets),
        }
    }

    /// Calibrates the probabilities on the logits of all rows: the temperature with the lowest cross-entropy and, for
    /// [`Targets::LabelSets`], the threshold of each label with the highest F1. None for numbers, and if there is no best
    /// temperature and all thresholds stay at one half.
    ///
    /// # Shapes
    /// - `logits`: row-major `[rows, num_labels]`
    pub fn calibration(&self, logits: &[f32]) -> Option<Calibration> {
        let Choices { logits, num_labels, targets } = self.choices(logits)?;
        let temperature = temperature(&logits, num_labels, &targets);
        let thresholds = match self {
            Self::LabelSets(_, labels) => {
                let probability = |pair: &[f32]| softmax_at(pair, temperature.unwrap_or(1.0))[1];
                let probabilities: Vec<f64> = logits.chunks(num_labels).map(probability).collect();
                let targets: Vec<bool> = targets.iter().map(|target| *target == 1).collect();
                let thresholds = f1_thresholds(&probabilities, &targets, labels.len());
                // The logit of 0 or 1 is infinite.
                let thresholds: Vec<f64> =
                    thresholds.into_iter().map(|threshold| threshold.clamp(1e-9, 1.0 - 1e-9)).collect();
                Some(thresholds).filter(|thresholds| thresholds.iter().any(|threshold| *threshold != 0.5))
            }
            _ => None,
        };
        let changes = temperature.is_some() || thresholds.is_some();
        changes.then(|| Calibration { temperature: temperature.unwrap_or(1.0), thresholds })
    }

    /// [`Targets::report`] with a calibration report: how well the probabilities fit the targets, without and with the
    /// temperature. [`Targets::LabelSets`] are predicted with the thresholds of the calibration.
    ///
    /// # Shapes
    /// - `logits`: row-major `[rows, num_labels]`
    ///
    /// # Errors
    /// When a logit is NaN or infinite.
    pub fn calibrated_report(
        &self,
        logits: &[f32],
        calibration: Option<&Calibration>,
    ) -> Result<SplitReport, kiln_eval::Error> {
        let thresholds = calibration.and_then(|calibration| Some((calibration, calibration.thresholds.as_ref()?)));
        let report = match (self, thresholds) {
            (Self::LabelSets(targets, labels), Some((calibration, thresholds))) => {
                evaluate_sets_at((logits, &calibration.above_thresholds(logits)), targets, labels, thresholds)?
            }
            _ => self.report(logits)?,
        };
        let temperature =
            calibration.map(|calibration| calibration.temperature).filter(|temperature| *temperature != 1.0);
        let calibration = self.choices(logits).map(|Choices { logits, num_labels, targets }| {
            CalibrationReport::new(&logits, num_labels, &targets, temperature)
        });
        Ok(SplitReport { calibration, ..report })
    }

    /// The logits and targets as single-label rows. With several labels per row, each label becomes a row with two logits, 0
    /// and the logit of the label: their softmax is the sigmoid of that logit.
    fn choices<'a>(&'a self, logits: &'a [f32]) -> Option<Choices<'a>> {
        match self {
            Self::Labels(targets, labels) | Self::LabelsWithLoss(targets, labels, _) => Some(Choices {
                logits: Cow::Borrowed(logits),
                num_labels: labels.len(),
                targets: Cow::Borrowed(targets),
            }),
            Self::LabelSets(sets, labels) => {
                let rows = sets.iter().flat_map(|set| (0..labels.len()).map(|label| usize::from(set.contains(&label))));
                Some(Choices {
                    logits: logits.iter().flat_map(|&logit| [0.0, logit]).collect(),
                    num_labels: 2,
                    targets: rows.collect(),
                })
            }
            Self::Numbers(_) => None,
        }
    }
}

/// Rows with one correct label each.
struct Choices<'a> {
    /// Row-major `[rows, num_labels]`.
    logits: Cow<'a, [f32]>,
    num_labels: usize,
    targets: Cow<'a, [LabelId]>,
}

impl LabelLoss {
    /// The loss of a batch, summed.
    ///
    /// # Shapes
    /// - `logits`: `[batch, num_labels]`
    /// - `targets`: `[batch]`, label ids
    pub(crate) fn of(&self, logits: Tensor<2>, targets: Vec<i32>, device: &Device) -> BatchLoss {
        let [count, num_labels] = logits.dims();
        let right = Some(right(logits.clone(), &targets));
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [count]), device);
        let weights = |weights: Vec<f32>| Tensor::<1>::from_data(TensorData::new(weights, [num_labels]), device);
        let sum = match (&self.class_weights, self.label_smoothing) {
            (given, _) if self.focal_gamma > 0.0 => {
                let weights = weights(given.clone().unwrap_or_else(|| vec![1.0; num_labels]));
                focal_loss_sum(logits, targets, weights, self.focal_gamma)
            }
            (None, 0.0) => cross_entropy_sum(logits, targets),
            (Some(given), 0.0) => weighted_cross_entropy_sum(logits, targets, weights(given.clone())),
            (given, label_smoothing) => {
                let weights = weights(given.clone().unwrap_or_else(|| vec![1.0; num_labels]));
                smoothed_cross_entropy_sum(logits, targets, weights, label_smoothing)
            }
        };
        BatchLoss { sum, right }
    }
}

/// Class weights that give every label the same total weight: scikit-learn's `class_weight="balanced"` over the labels that
/// occur. A label that does not occur has weight 1.
pub fn balanced(targets: impl IntoIterator<Item = LabelId>, num_labels: usize) -> Vec<f32> {
    let mut counts = vec![0usize; num_labels];
    targets.into_iter().for_each(|target| counts[target] += 1);
    let total: usize = counts.iter().sum();
    let present = counts.iter().filter(|count| **count > 0).count();
    let weight = |&count: &usize| if count > 0 { total as f32 / (present * count) as f32 } else { 1.0 };
    counts.iter().map(weight).collect()
}

/// The number of rows whose largest logit is that of the target.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
pub(crate) fn right(logits: Tensor<2>, targets: &[i32]) -> usize {
    let [_, num_labels] = logits.dims();
    let logits = logits.inner().into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
    logits.chunks(num_labels).zip(targets).filter(|(row, target)| argmax(row) as i32 == **target).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_are_one_on_the_mean_over_rows() {
        let targets = [0, 0, 0, 2];
        let weights = balanced(targets, 3);
        assert_eq!(weights, [4.0 / 6.0, 1.0, 2.0]);
        assert!((targets.iter().map(|&target| weights[target]).sum::<f32>() - 4.0).abs() < 1e-6);
    }

    #[test]
    fn several_labels_are_choices_between_two() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let logits = [2.0, 2.0, 2.0, 2.0];
        let sets = Targets::LabelSets(vec![vec![0, 1], vec![1]], labels.clone());
        let one = Targets::Labels(vec![1, 1, 0, 1], labels);
        let pairs = [0.0, 2.0].repeat(4);
        let [of_sets, of_one] = [sets.calibration(&logits), one.calibration(&pairs)];
        assert_eq!(of_sets, of_one, "one label is right for both rows, the other at any threshold as often");
        let report = |targets: &Targets, logits: &[f32]| targets.calibrated_report(logits, of_one.as_ref());
        let [of_sets, of_one] = [report(&sets, &logits), report(&one, &pairs)].map(|report| report.expect("finite"));
        assert_eq!(of_sets.calibration, of_one.calibration);
        assert_eq!(Targets::Numbers(vec![1.0]).calibration(&[1.0]), None);
    }

    #[test]
    fn labels_are_predicted_from_their_thresholds_on() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let sets = Targets::LabelSets(vec![vec![0], vec![0, 1], vec![1]], labels);
        // The first label is correct where its logit is above −2, the second where its logit is above 1.
        let logits = [-1.0, 0.5, -1.5, 2.0, -3.0, 1.5];
        let calibration = sets.calibration(&logits).expect("thresholds other than a half are better");
        let score = |calibration| sets.calibrated_report(&logits, calibration).expect("finite").score("micro_f1");
        let [own, at_half] = [score(Some(&calibration)), score(None)].map(|score| score.expect("sets have it"));
        assert!(own == 1.0 && (at_half - 4.0 / 7.0).abs() < 1e-12, "{own} and {at_half}");
    }
}
