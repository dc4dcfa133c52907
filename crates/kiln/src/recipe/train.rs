use kiln_backend::{Backend, Flex};
use kiln_schema::{LabelId, LabelSet};
use kiln_train::{LrScheduler, Metric, TrainConfig, balanced};
use serde::{Deserialize, Serialize};

use super::checked;
use crate::cli::UsageError;

/// `[train]`: how the weights are fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    #[serde(deserialize_with = "checked::at_least::<1, _>")]
    pub epochs: usize,
    /// Examples in a batch.
    #[serde(deserialize_with = "checked::at_least::<1, _>")]
    pub batch_size: usize,
    /// Batches in an optimizer update.
    #[serde(deserialize_with = "checked::at_least::<1, _>")]
    pub gradient_accumulation_steps: usize,
    /// The schedule's highest.
    #[serde(deserialize_with = "checked::positive")]
    pub learning_rate: f64,
    pub lr_scheduler: LrScheduler,
    /// The share of all steps in which the learning rate rises from 0.
    #[serde(deserialize_with = "checked::share")]
    pub warmup_ratio: f64,
    /// Decoupled from the gradient; never on biases and LayerNorm.
    #[serde(deserialize_with = "checked::not_negative")]
    pub weight_decay: f64,
    /// The gradient's global norm is cut to this.
    #[serde(deserialize_with = "checked::positive")]
    pub max_grad_norm: f64,
    /// In tokens, special ones included; longer texts are cut, or go through windows where tags or answers are sought.
    #[serde(deserialize_with = "checked::at_least::<2, _>")]
    pub max_length: usize,
    pub precision: Precision,
    /// Whether a layer is computed once more in the backward pass, which takes time and saves memory.
    pub gradient_checkpointing: bool,
    /// What the loss of a label counts: `balanced`, or a number for each label, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Whether a tagger's loss is on all tokens of a word, not on its first alone.
    pub label_all_tokens: bool,
    /// Epochs without a better checkpoint after which training ends; 0: never.
    #[serde(deserialize_with = "checked::at_least::<0, _>")]
    pub early_stopping_patience: usize,
    /// What picks the best checkpoint; the task's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    pub seed: u64,
}

impl Default for Train {
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
            max_length: 128,
            precision: Precision::F32,
            gradient_checkpointing: false,
            class_weights: None,
            label_all_tokens: false,
            early_stopping_patience: 0,
            metric: None,
            seed: 42,
        }
    }
}

impl Train {
    /// The part of it that the loop reads.
    pub fn config(&self, metric: Metric) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs,
            batch_size: self.batch_size,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            learning_rate: self.learning_rate,
            lr_scheduler: self.lr_scheduler,
            warmup_ratio: self.warmup_ratio,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            early_stopping_patience: self.early_stopping_patience,
            metric,
            seed: self.seed,
        }
    }
}

/// `train.class_weights`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassWeights {
    Named(Balanced),
    Given(Vec<f64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balanced {
    Balanced,
}

impl ClassWeights {
    /// A weight for each label, for these targets to train on.
    pub fn of(&self, targets: impl IntoIterator<Item = LabelId>, labels: &LabelSet) -> Result<Vec<f32>, UsageError> {
        match self {
            Self::Named(Balanced::Balanced) => Ok(balanced(targets, labels.len())),
            Self::Given(weights) if weights.len() == labels.len() => {
                Ok(weights.iter().map(|&weight| weight as f32).collect())
            }
            Self::Given(weights) => Err(UsageError(format!(
                "train.class_weights has {} numbers, and there are {} labels: {}",
                weights.len(),
                labels.len(),
                labels.names().join(", ")
            ))),
        }
    }
}

/// What the operands of the encoder's products are rounded to; weights stay f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    F32,
    Bf16,
    /// Not for training
    #[serde(skip)]
    Int8,
}

impl From<Precision> for kiln_kernels::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }
}

/// The precision, if the backend has it.
pub fn available<B: Backend>(precision: Precision) -> Result<kiln_kernels::Precision, UsageError> {
    let name = match precision {
        Precision::F32 => return Ok(precision.into()),
        Precision::Bf16 => "bf16",
        Precision::Int8 => "int8",
    };
    if B::NAME != Flex::NAME {
        let message = format!("precision `{name}` is computed by backend `{}` alone, not by `{}`", Flex::NAME, B::NAME);
        return Err(UsageError(message));
    }
    Ok(precision.into())
}
