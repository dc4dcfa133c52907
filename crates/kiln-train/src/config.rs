use kiln_eval::SplitReport;
use serde::{Deserialize, Serialize};

use crate::LrScheduler;

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
    /// What becomes of it.
    pub lr_scheduler: LrScheduler,
    /// Share of all updates in which it rises from zero.
    pub warmup_ratio: f64,
    /// Decoupled decay of all weights but biases and layer normalization.
    pub weight_decay: f64,
    /// The gradient's global norm is cut to this; 0 leaves it alone.
    pub max_grad_norm: f64,
    /// Epochs without a better metric after which training ends; 0 never ends it early.
    pub early_stopping_patience: usize,
    /// What picks the best checkpoint.
    pub metric: Metric,
    /// Seed of the shuffles and of dropout.
    pub seed: u64,
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
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            early_stopping_patience: 0,
            metric: Metric::Accuracy,
            seed: 42,
        }
    }
}

/// A number of the validation that picks the best checkpoint. All but the loss are the better the higher.
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

    /// Its value, turned so that higher is better; none where the task does not have it.
    pub(crate) fn score(self, report: &SplitReport) -> Option<f64> {
        let score = report.score(self.name())?;
        Some(if self == Self::Loss { -score } else { score })
    }
}
