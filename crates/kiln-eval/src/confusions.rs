use kiln_metrics::{Confusion, ConfusionMatrix};
use kiln_schema::LabelSet;
use serde::Serialize;

/// The confusion matrix, or only the largest confusions if there are more than [`MATRIX_LABELS`] labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Confusions {
    /// The whole confusion matrix.
    Matrix {
        /// Rows are targets, columns predictions, both in the order of the logits.
        confusion_matrix: Vec<Vec<u64>>,
    },
    /// The most frequent wrong predictions.
    Largest {
        /// The confusions, most frequent first.
        largest_confusions: Vec<LabelConfusion>,
    },
}

/// A wrong label that is predicted for a true label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelConfusion {
    /// The true label.
    pub target: String,
    /// The predicted label.
    pub prediction: String,
    /// Number of rows.
    pub count: u64,
}

/// The largest number of labels for which a report has the whole confusion matrix.
pub const MATRIX_LABELS: usize = 100;

/// The number of confusions that a report without a matrix lists.
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
