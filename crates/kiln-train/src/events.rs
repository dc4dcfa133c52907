use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An event that the training loop reports. If the observer breaks at an update or a validation, the loop saves a checkpoint
/// and ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The training starts, or resumes from a checkpoint.
    Started {
        /// Number of updates made before: 0 unless the training resumes.
        step: usize,
        /// Total number of updates.
        total_steps: usize,
        /// The reports of earlier validations.
        epochs: Vec<EpochReport>,
    },
    /// The optimizer made an update.
    Step {
        /// Number of updates made, including this one.
        step: usize,
        /// Total number of updates.
        total_steps: usize,
        /// Mean loss over the targets of the update's batches, before the update.
        loss: f64,
        /// Global norm of the gradient, before clipping.
        gradient_norm: f64,
        /// Learning rate of the update.
        learning_rate: f64,
    },
    /// The model was validated and a checkpoint was saved.
    Epoch(EpochReport),
}

/// Report of a validation and of the training since the previous one: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch of the validation, from 1.
    pub epoch: usize,
    /// Number of updates made since the start of the training.
    pub step: usize,
    /// Mean loss over the training targets, computed with dropout and before the update of each batch.
    pub train_loss: f64,
    /// Share of the training targets that were predicted correctly; absent if this is not counted. For answers, only the
    /// start counts. With a CRF, the label of the highest emission counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_accuracy: Option<f64>,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// Mean gradient norm of the updates, before clipping.
    pub gradient_norm: f64,
    /// Wall time including validation and checkpoints, summed over the parts of an interrupted epoch.
    pub seconds: f64,
    /// Wall time of the updates only.
    pub train_seconds: f64,
    /// Whether this is the best validation so far.
    pub best: bool,
    /// Metrics on the validation split, by their names in a report.
    pub validation: BTreeMap<String, f64>,
}

/// The result of a training run.
#[derive(Clone, Debug)]
pub struct Fitted<M> {
    /// The model of the best checkpoint, without autodiff.
    pub model: M,
    /// The epoch of the best checkpoint, from 1; 0 if the training was interrupted before the first validation.
    pub best_epoch: usize,
    /// The reports of all validations.
    pub epochs: Vec<EpochReport>,
    /// Number of updates made.
    pub steps: usize,
    /// Number of passes over the data: updates made, divided by the updates per epoch.
    pub passes: f64,
    /// Share of padding among the tokens of the first epoch's batches.
    pub padding_share: f64,
    /// Seconds spent on the checkpoints after validations, in this process.
    pub checkpoint_seconds: f64,
    /// Why the training ended.
    pub end: End,
}

/// The reason why a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All epochs are done.
    Complete,
    /// The metric did not improve for `early_stopping_patience` epochs.
    NoImprovement,
    /// The limit `max_hours` was reached.
    OutOfTime,
    /// The observer ended the training. It can resume from `last.safetensors`.
    Interrupted,
}
