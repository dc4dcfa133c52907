use kiln_eval::SplitReport;
use serde::{Deserialize, Serialize};

use crate::{LrScheduler, Scope, Trainable};

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Batches of one optimizer update.
    pub gradient_accumulation_steps: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How the learning rate changes after its warm-up.
    pub lr_scheduler: LrScheduler,
    /// Share of all updates in which it rises from zero.
    pub warmup_ratio: f64,
    /// The head's highest learning rate; none = `learning_rate`.
    pub head_learning_rate: Option<f64>,
    /// Which parameters learn.
    pub scope: Scope,
    /// Decoupled decay of all weights but biases and layer normalization.
    pub weight_decay: f64,
    /// The gradient's global norm is clipped to this; 0 = no clipping.
    pub max_grad_norm: f64,
    /// Each layer below the head learns at this share of the rate of the layer above it; 1 = all at the same rate.
    pub layerwise_lr_decay: f64,
    /// Epochs without a better metric after which training ends; 0 = off.
    pub early_stopping_patience: usize,
    /// What picks the best checkpoint.
    pub metric: Metric,
    /// Seed of the shuffles and of dropout.
    pub seed: u64,
    /// Updates after which a checkpoint is saved within an epoch; 0 = off. One is saved after each epoch in any case.
    pub save_steps: usize,
    /// Minutes after which a checkpoint is saved within an epoch; 0 = off.
    pub save_minutes: f64,
    /// Hours after which training stops; the epoch that it stops in is validated like a whole one. 0 = no limit.
    pub max_hours: f64,
    /// Updates after which the model is validated; 0 = after each epoch.
    pub eval_steps: usize,
    /// How far word embeddings are moved along a batch's gradient for a second loss of it (fast gradient method); 0 = off.
    pub fgm: f64,
    /// The decay of an exponential moving average of the weights, which is validated and kept in their place; 0 = off.
    pub ema: f64,
    /// How processes that train together add up their gradients.
    pub reduce: Reduce,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 16,
            gradient_accumulation_steps: 1,
            learning_rate: 5e-5,
            lr_scheduler: LrScheduler::Linear,
            warmup_ratio: 0.1,
            head_learning_rate: None,
            scope: Scope::Whole,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            layerwise_lr_decay: 1.0,
            early_stopping_patience: 0,
            metric: Metric::Accuracy,
            seed: 42,
            save_steps: 0,
            save_minutes: 10.0,
            max_hours: 0.0,
            eval_steps: 0,
            fgm: 0.0,
            ema: 0.0,
            reduce: Reduce::Exact,
        }
    }
}

impl TrainConfig {
    /// What learns, how fast, and what is saved.
    pub fn trainable(&self) -> Trainable {
        Trainable {
            scope: self.scope,
            weight_decay: self.weight_decay,
            layerwise_lr_decay: self.layerwise_lr_decay,
            head_rate: self.head_learning_rate.map_or(1.0, |rate| rate / self.learning_rate),
        }
    }
}

/// How processes that train together add up their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// Batch after batch, in the order in which a single process adds them: the weights do not depend on the number of
    /// processes.
    #[default]
    Exact,
    /// Each process its own, then these sums in the order that the engine finds fastest.
    Fast,
}

impl Reduce {
    /// Its name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Fast => "fast",
        }
    }

    /// Whether it is the exact way.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

/// A number of the validation report that picks the best checkpoint. Higher is better for all but the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they are the names of the numbers in a report")]
pub enum Metric {
    Accuracy,
    MacroF1,
    MicroF1,
    Loss,
    Pearson,
    Spearman,
    EntityF1,
    ExactMatch,
    F1,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 9] = [
        Self::Accuracy,
        Self::MacroF1,
        Self::MicroF1,
        Self::Loss,
        Self::Pearson,
        Self::Spearman,
        Self::EntityF1,
        Self::ExactMatch,
        Self::F1,
    ];

    /// Its name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro_f1",
            Self::MicroF1 => "micro_f1",
            Self::Loss => "loss",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::EntityF1 => "entity_f1",
            Self::ExactMatch => "exact_match",
            Self::F1 => "f1",
        }
    }

    /// Its value with the sign by which higher is better; none where the task does not have it. A score that is not a
    /// number, as a correlation of constants, is the worst.
    pub(crate) fn score(self, report: &SplitReport) -> Option<f64> {
        let value = report.score(self.name())?;
        let score = if self == Self::Loss { -value } else { value };
        Some(if score.is_nan() { f64::NEG_INFINITY } else { score })
    }
}
