use kiln_eval::SplitReport;
use serde::{Deserialize, Serialize};

use crate::{Error, LrScheduler, Scope, Trainable};

/// Hyperparameters and settings of the training loop.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Number of passes over the data.
    pub epochs: usize,
    /// Rows per batch.
    pub batch_size: usize,
    /// Batches per optimizer update.
    pub gradient_accumulation_steps: usize,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// How the learning rate changes after the warm-up.
    pub lr_scheduler: LrScheduler,
    /// Share of all updates in which the learning rate rises from zero.
    pub warmup_ratio: f64,
    /// The peak learning rate of the head. `None`: `learning_rate`.
    pub head_learning_rate: Option<f64>,
    /// Which parameters are trained.
    pub scope: Scope,
    /// Decoupled weight decay of all weights except biases and layer normalization.
    pub weight_decay: f64,
    /// Maximum global norm of the gradient, which is clipped to it; 0 = no clipping.
    pub max_grad_norm: f64,
    /// Ratio of the learning rates of a layer and the layer above it, below the head; 1 = the same rate for all layers.
    pub layerwise_lr_decay: f64,
    /// Number of epochs without an improvement of the metric after which training ends; 0 = off.
    pub early_stopping_patience: usize,
    /// The metric that selects the best checkpoint.
    pub metric: Metric,
    /// Random seed of shuffling and dropout.
    pub seed: u64,
    /// Number of updates between two checkpoints within an epoch; 0 = off. One is saved after each validation in any case.
    pub save_steps: usize,
    /// Minutes between two checkpoints within an epoch; 0 = off.
    pub save_minutes: f64,
    /// Hours after which training stops; the unfinished epoch is validated like a complete one. 0 = no limit.
    pub max_hours: f64,
    /// Number of updates between two validations; 0 = validation after each epoch.
    pub eval_steps: usize,
    /// Step by which the fast gradient method moves word embeddings along the gradient, for a second loss; 0 = off.
    pub fgm: f64,
    /// Decay of an exponential moving average of the weights, which is validated and saved instead of the weights; 0 = off.
    pub ema: f64,
    /// How processes that train together sum their gradients.
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
    /// The parameters that are trained, with their rates, and the parameters that a checkpoint holds.
    pub fn trainable(&self) -> Trainable {
        Trainable {
            scope: self.scope,
            weight_decay: self.weight_decay,
            layerwise_lr_decay: self.layerwise_lr_decay,
            head_rate: self.head_learning_rate.map_or(1.0, |rate| rate / self.learning_rate),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let counts = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((setting, _)) => Err(Error::Zero { setting }),
            None => Ok(()),
        }
    }
}

/// How processes that train together sum their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// The gradients are summed batch by batch, in the order in which a single process sums them, so that the weights do
    /// not depend on the number of processes.
    #[default]
    Exact,
    /// Each process sums the gradients of its own batches. The library for communication then adds these sums in any order.
    Fast,
}

impl Reduce {
    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Fast => "fast",
        }
    }

    /// Whether this is [`Reduce::Exact`].
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

/// A metric of the validation report that can select the best checkpoint. Higher is better, except for the loss.
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
    /// All metrics.
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

    /// The name in recipes and reports.
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

    /// The value of the metric, negated for the loss, so that higher is always better; none if the task does not have the
    /// metric. NaN counts as the worst score.
    pub(crate) fn score(self, report: &SplitReport) -> Option<f64> {
        let value = report.score(self.name())?;
        let score = if self == Self::Loss { -value } else { value };
        Some(if score.is_nan() { f64::NEG_INFINITY } else { score })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_at_least_one() {
        let of_zero = TrainConfig { batch_size: 0, ..TrainConfig::default() };
        assert_eq!(of_zero.check().expect_err("no rows").to_string(), "`batch_size` is 0, expected at least 1");
        assert!(TrainConfig::default().check().is_ok());
    }
}
