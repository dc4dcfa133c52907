use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the loop reports while it runs. Breaking at an update or an epoch saves everything and ends the training.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The training begins, or goes on from a checkpoint.
    Started {
        /// Updates made before: 0 unless it goes on from a checkpoint.
        step: usize,
        /// Updates there will be.
        total_steps: usize,
        /// One for each validation made before.
        epochs: Vec<EpochReport>,
    },
    /// An update was made.
    Step {
        /// Updates made, this one included.
        step: usize,
        /// Updates there will be.
        total_steps: usize,
        /// Mean loss of its rows, before the update.
        loss: f64,
        /// Global norm of the gradient, before clipping.
        gradient_norm: f64,
        /// The rate of the update.
        learning_rate: f64,
    },
    /// The model was validated, after an epoch or so many updates, and a checkpoint saved.
    Epoch(EpochReport),
}

/// How the training went up to a validation, since the one before it: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch that it is in, from 1.
    pub epoch: usize,
    /// Updates made.
    pub step: usize,
    /// Mean loss of the training rows, each before the update it was part of, with dropout.
    pub train_loss: f64,
    /// Share of their targets that were right, where there is right and wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_accuracy: Option<f64>,
    /// The rate of the last update.
    pub learning_rate: f64,
    /// Mean of the norms of the updates' gradients, before they were clipped.
    pub gradient_norm: f64,
    /// Wall time, with validation and checkpoints; summed over the parts of an epoch that was interrupted.
    pub seconds: f64,
    /// Wall time of the updates alone.
    pub train_seconds: f64,
    /// Whether it is the best so far.
    pub best: bool,
    /// The numbers of the validation split, by the names that they have in a report.
    pub validation: BTreeMap<String, f64>,
}

/// A training that ended.
#[derive(Clone, Debug)]
pub struct Fitted<M> {
    /// The best checkpoint's model, without autodiff.
    pub model: M,
    /// The epoch that it is of, from 1; 0 when the training was interrupted before the first validation.
    pub best_epoch: usize,
    /// One for each validation.
    pub epochs: Vec<EpochReport>,
    /// Updates made.
    pub steps: usize,
    /// How often it went through the data: updates made over those of an epoch.
    pub passes: f64,
    /// Share of padding among the tokens of the first epoch's batches.
    pub padding_share: f64,
    /// What the checkpoints after validations took, since this process began.
    pub checkpoint_seconds: f64,
    /// Why it ended.
    pub end: End,
}

/// Why a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All epochs are done.
    Complete,
    /// The metric did not improve for `early_stopping_patience` epochs.
    NoImprovement,
    /// `max_hours` were over.
    OutOfTime,
    /// The observer ended it; `last.safetensors` is where it goes on.
    Interrupted,
}
