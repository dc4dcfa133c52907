use kiln_metrics::{Confusion, ConfusionMatrix};
use kiln_schema::LabelSet;
use serde::Serialize;

/// Which labels are predicted for which: the whole matrix of up to [`MATRIX_LABELS`] labels, of more the largest confusions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Confusions {
    /// All pairs.
    Matrix {
        /// Rows are targets, columns predictions, both in the order of the logits.
        confusion_matrix: Vec<Vec<u64>>,
    },
    /// The most frequent wrong predictions.
    Largest {
        /// The most frequent first.
        largest_confusions: Vec<LabelConfusion>,
    },
}

/// A label that is predicted for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelConfusion {
    /// The true label.
    pub target: String,
    /// The predicted label.
    pub prediction: String,
    /// How often.
    pub count: u64,
}

/// The most labels of which a report has the whole matrix.
pub const MATRIX_LABELS: usize = 100;

/// How many confusions a report lists where it has no matrix.
const LARGEST: usize = 100;

impl Confusions {
    pub(crate) fn new(matrix: &ConfusionMatrix, labels: &LabelSet) -> Self {
        if matrix.num_labels() <= MATRIX_LABELS {
            return Self::Matrix { confusion_matrix: matrix.to_rows() };
        }
        let named = |Confusion { target, prediction, count }| LabelConfusion {
            target: labels.name(target).to_owned(),
            prediction: labels.name(prediction).to_owned(),
            count,
        };
        Self::Largest { largest_confusions: matrix.largest_confusions(LARGEST).into_iter().map(named).collect() }
    }
}
