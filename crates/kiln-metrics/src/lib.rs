//! Metrics of predictions and targets: accuracy with its interval, confusion, F1, ROC-AUC, cross-entropy, calibration.
//! All functions read plain slices and compute in `f64`. 0 / 0 is 0, as in scikit-learn.
//!
//! ```
//! use kiln_metrics::{ConfusionMatrix, accuracy};
//!
//! let targets = [0, 0, 0, 1];
//! let predictions = [0, 0, 1, 1];
//! assert_eq!(accuracy(&predictions, &targets), 0.75);
//! let confusion = ConfusionMatrix::new(&predictions, &targets, 2);
//! assert_eq!(confusion.to_rows(), [[2, 1], [0, 1]]);
//! assert_eq!(confusion.per_class()[1].recall, 1.0);
//! ```
//!
//! See `examples/scores.rs`.
#![deny(missing_docs)]

mod logits;

mod accuracy;
mod confusion;
mod roc_auc;

mod calibration;
mod temperature;

mod entities;
mod segmentation;
mod answers;
mod correlation;
mod multi_label;
mod thresholds;
mod comparison;
mod stochastic_order;
mod confident_learning;

pub use accuracy::{accuracy, wilson_interval};
pub use answers::{AnswerLanguage, answer_scores};
pub use calibration::{ConfidenceBin, brier_score, confidence_bins, expected_calibration_error};
pub use comparison::{Bootstrap, mcnemar_exact, paired_effect_size};
pub use confident_learning::label_issues;
pub use confusion::{ClassScores, Confusion, ConfusionMatrix};
pub use correlation::{mean_squared_error, pearson, spearman};
pub use entities::{Entity, EntityScores, Scheme, entities, entity_scores, strict_entities};
pub use logits::{argmax, cross_entropy, cross_entropy_at, softmax, softmax_at};
pub use multi_label::{MultiLabelScores, multi_label_roc_auc, multi_label_scores};
pub use roc_auc::{roc_auc, roc_auc_one_vs_rest};
pub use segmentation::{word_scores, words};
pub use stochastic_order::almost_stochastic_order;
pub use temperature::temperature;
pub use thresholds::f1_thresholds;
