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

/// A number of the validation that picks the best checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The higher the better.
    #[default]
    Accuracy,
    /// The higher the better.
    MacroF1,
    /// The lower the better.
    Loss,
}

impl Metric {
    /// Its value, turned so that higher is better.
    pub(crate) fn score(self, report: &SplitReport) -> f64 {
        match self {
            Self::Accuracy => report.accuracy,
            Self::MacroF1 => report.macro_f1,
            Self::Loss => -report.loss,
        }
    }
}
