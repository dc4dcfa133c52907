use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_eval::{SplitReport, evaluate, evaluate_numbers, evaluate_sets};
use kiln_heads::{binary_cross_entropy_sum, cross_entropy_sum, squared_error_sum};
use kiln_metrics::argmax;
use kiln_schema::{LabelId, LabelSet};

use crate::BatchLoss;

/// What a sequence classifier should say of each row.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// One label: softmax and cross-entropy.
    Labels(Vec<LabelId>, LabelSet),
    /// Any number of labels: a sigmoid and cross-entropy for each.
    LabelSets(Vec<Vec<LabelId>>, LabelSet),
    /// A number: squared error.
    Numbers(Vec<f64>),
}

impl Targets {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Labels(labels, _) => labels.len(),
            Self::LabelSets(sets, _) => sets.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The loss of some rows.
    ///
    /// # Shapes
    /// - `logits`: `[batch, num_labels]`
    /// - `rows`: `[batch]`, indices
    pub fn loss(&self, logits: Tensor<2>, rows: &[usize], device: &Device) -> BatchLoss {
        let [batch, num_labels] = logits.dims();
        match self {
            Self::Labels(labels, _) => {
                let targets: Vec<i32> = rows.iter().map(|&row| labels[row] as i32).collect();
                let right = right(logits.clone(), &targets);
                let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [batch]), device);
                BatchLoss { sum: cross_entropy_sum(logits, targets), right: Some(right) }
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

    /// What the logits of all rows are worth.
    ///
    /// # Shapes
    /// - `logits`: row-major `[rows, num_labels]`
    pub fn report(&self, logits: &[f32]) -> SplitReport {
        match self {
            Self::Labels(targets, labels) => evaluate(logits, targets, labels),
            Self::LabelSets(targets, labels) => evaluate_sets(logits, targets, labels),
            Self::Numbers(targets) => evaluate_numbers(logits, targets),
        }
    }
}

/// How many rows of logits are highest at their target.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
pub(crate) fn right(logits: Tensor<2>, targets: &[i32]) -> usize {
    let [_, num_labels] = logits.dims();
    let logits = logits.inner().into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
    logits.chunks(num_labels).zip(targets).filter(|(row, target)| argmax(row) as i32 == **target).count()
}
