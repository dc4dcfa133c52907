use kiln_backend::{Backend, Flex};
use kiln_schema::{LabelId, LabelSet, ProblemType, Task};
use kiln_train::{LabelLoss, LrScheduler, Metric, Reduce, Scope, TrainConfig, balanced};
use serde::{Deserialize, Serialize};

use super::document::Places;
use super::{Encoder, Model, RecipeError, RecipeFile, Rule, checked, is_of};
use crate::UsageError;

/// `[train]`: how the weights are fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Passes over the training split.
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
    /// The schedule's highest for the head and the pooler; `learning_rate` when absent.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "checked::some_positive")]
    pub head_learning_rate: Option<f64>,
    /// How the learning rate falls.
    pub lr_scheduler: LrScheduler,
    /// The share of all steps in which the learning rate rises from 0.
    #[serde(deserialize_with = "checked::share")]
    pub warmup_ratio: f64,
    /// Decoupled from the gradient; never on biases and LayerNorm.
    #[serde(deserialize_with = "checked::not_negative")]
    pub weight_decay: f64,
    /// The gradient's global norm is clipped to this.
    #[serde(deserialize_with = "checked::positive")]
    pub max_grad_norm: f64,
    /// Each layer below the head learns at this share of the rate of the layer above it; 1 = all at the same rate.
    #[serde(deserialize_with = "checked::share")]
    pub layerwise_lr_decay: f64,
    /// In tokens, special ones included; longer texts are cut, or go through windows where tags or answers are sought.
    #[serde(deserialize_with = "checked::at_least::<2, _>")]
    pub max_length: usize,
    /// Of the encoder's matrix products.
    pub precision: Precision,
    /// Whether each layer is computed a second time in the backward pass, which takes time and saves memory.
    pub gradient_checkpointing: bool,
    /// The weight of each label's loss: `balanced`, or a number for each label, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// The share of a target that is spread evenly over all labels.
    #[serde(deserialize_with = "checked::share")]
    pub label_smoothing: f64,
    /// Whether a tagger's loss is on all tokens of a word, not on its first alone.
    pub label_all_tokens: bool,
    /// Epochs without a better checkpoint after which training ends; 0 = off.
    #[serde(deserialize_with = "checked::at_least::<0, _>")]
    pub early_stopping_patience: usize,
    /// Updates after which a checkpoint is saved within an epoch; 0 = off.
    #[serde(deserialize_with = "checked::at_least::<0, _>")]
    pub save_steps: usize,
    /// Minutes after which a checkpoint is saved within an epoch; 0 = off.
    #[serde(deserialize_with = "checked::not_negative")]
    pub save_minutes: f64,
    /// Hours after which training stops, keeps the best checkpoint and tests it; 0 = no limit.
    #[serde(deserialize_with = "checked::not_negative")]
    pub max_hours: f64,
    /// Updates after which the model is validated; 0 = after each epoch. The best checkpoint is kept either way.
    #[serde(deserialize_with = "checked::at_least::<0, _>")]
    pub eval_steps: usize,
    /// How much the disagreement of two passes of each row, under different dropout, counts beside their mean loss
    /// (arXiv 2106.14448); 0 = one pass.
    #[serde(deserialize_with = "checked::not_negative")]
    pub r_drop: f64,
    /// How far word embeddings are moved along a batch's gradient for a second loss of it (fast gradient method); 0 = off.
    #[serde(deserialize_with = "checked::not_negative")]
    pub fgm: f64,
    /// The decay of an exponential moving average of the weights, which is validated and saved in their place; 0 = off.
    #[serde(deserialize_with = "checked::below_one")]
    pub ema: f64,
    /// The power of a focal loss, by which likely targets count less; 0 = cross-entropy.
    #[serde(deserialize_with = "checked::not_negative")]
    pub focal_gamma: f64,
    /// How processes that MPI has started together add up their gradients; one process alone does not ask.
    #[serde(skip_serializing_if = "Reduce::is_exact")]
    pub reduce: Reduce,
    /// Whether the run's folder gets TensorBoard's event files, in `tensorboard`.
    pub tensorboard: bool,
    /// The number that picks the best checkpoint; the task's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Of fresh weights, of the order of rows and of dropout.
    pub seed: u64,
}

impl Default for Train {
    fn default() -> Self {
        let TrainConfig {
            epochs,
            batch_size,
            gradient_accumulation_steps,
            learning_rate,
            lr_scheduler,
            warmup_ratio,
            head_learning_rate,
            scope: _,
            weight_decay,
            max_grad_norm,
            layerwise_lr_decay,
            early_stopping_patience,
            metric: _,
            seed,
            save_steps,
            save_minutes,
            max_hours,
            eval_steps,
            fgm,
            ema,
            reduce,
        } = TrainConfig::default();
        Self {
            epochs,
            batch_size,
            gradient_accumulation_steps,
            learning_rate,
            head_learning_rate,
            lr_scheduler,
            warmup_ratio,
            weight_decay,
            max_grad_norm,
            layerwise_lr_decay,
            max_length: 128,
            precision: Precision::F32,
            gradient_checkpointing: false,
            class_weights: None,
            label_smoothing: 0.0,
            label_all_tokens: false,
            early_stopping_patience,
            save_steps,
            save_minutes,
            max_hours,
            eval_steps,
            r_drop: 0.0,
            fgm,
            ema,
            focal_gamma: 0.0,
            reduce,
            tensorboard: false,
            metric: None,
            seed,
        }
    }
}

impl Train {
    /// Checks the values that depend on the task, which reports the metrics `known`.
    pub fn check(&self, known: &[Metric], places: &Places) -> Result<(), RecipeError> {
        if let Some(metric) = self.metric.filter(|metric| !known.contains(metric)) {
            let known: Vec<String> = known.iter().map(|metric| format!("`{}`", metric.name())).collect();
            let what = format!(
                "`train.metric`: found `{}`, which this task does not report; expected one of {}",
                metric.name(),
                known.join(", ")
            );
            return Err(places.error("train.metric", what));
        }
        match self.class_weights.as_ref().and_then(ClassWeights::problem) {
            Some(problem) => Err(places.error("train.class_weights", format!("`train.class_weights`: {problem}"))),
            None => Ok(()),
        }
    }

    /// How a label's loss counts, for the targets of the training split; none where all count the same.
    pub fn label_loss(
        &self,
        targets: impl IntoIterator<Item = LabelId>,
        labels: &LabelSet,
    ) -> Result<Option<LabelLoss>, UsageError> {
        let class_weights = self.class_weights.as_ref().map(|weights| weights.of(targets, labels)).transpose()?;
        let loss = LabelLoss { class_weights, label_smoothing: self.label_smoothing, focal_gamma: self.focal_gamma };
        Ok(Some(loss).filter(|loss| *loss != LabelLoss::default()))
    }

    /// The part of it that the loop reads.
    pub fn config(&self, metric: Metric) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs,
            batch_size: self.batch_size,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            learning_rate: self.learning_rate,
            head_learning_rate: self.head_learning_rate,
            scope: Scope::Whole,
            lr_scheduler: self.lr_scheduler,
            warmup_ratio: self.warmup_ratio,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            layerwise_lr_decay: self.layerwise_lr_decay,
            early_stopping_patience: self.early_stopping_patience,
            metric,
            seed: self.seed,
            save_steps: self.save_steps,
            save_minutes: self.save_minutes,
            max_hours: self.max_hours,
            eval_steps: self.eval_steps,
            fgm: self.fgm,
            ema: self.ema,
            reduce: self.reduce,
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
    /// Why these weights cannot be used with any labels; none if they can.
    pub fn problem(&self) -> Option<String> {
        let Self::Given(weights) = self else { return None };
        let usable = |weight: f64| weight >= 0.0 && (weight as f32).is_finite();
        if let Some(weight) = weights.iter().find(|weight| !usable(**weight)) {
            return Some(format!("found {weight:?}, expected numbers of at least 0"));
        }
        let all_zero = weights.iter().all(|weight| *weight as f32 == 0.0);
        all_zero.then(|| "found no number above 0, so that nothing would be learnt".to_owned())
    }

    /// The weight of each label, for the targets of the training split.
    fn of(&self, targets: impl IntoIterator<Item = LabelId>, labels: &LabelSet) -> Result<Vec<f32>, UsageError> {
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats
    #[default]
    F32,
    /// 16-bit brain floats; products are summed in f32
    Bf16,
    /// 8-bit integers; not for training
    #[serde(skip)]
    Int8,
}

impl Precision {
    /// Its name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl From<kiln_kernels::Precision> for Precision {
    fn from(precision: kiln_kernels::Precision) -> Self {
        match precision {
            kiln_kernels::Precision::F32 => Self::F32,
            kiln_kernels::Precision::Bf16 => Self::Bf16,
            kiln_kernels::Precision::Int8 => Self::Int8,
        }
    }
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
    let (can_compute, by) = match precision {
        Precision::F32 => (true, "every backend"),
        Precision::Bf16 => (B::HAS_BF16, "backends `flex` and `cuda`"),
        Precision::Int8 => (B::NAME == Flex::NAME, "backend `flex`"),
    };
    if !can_compute {
        let (name, asked) = (precision.name(), B::NAME);
        return Err(UsageError(format!("precision `{name}` is computed by {by} alone, not by `{asked}`")));
    }
    Ok(precision.into())
}

/// What the keys of `[train]` need of the other keys.
pub(super) fn rules(file: &RecipeFile, model: &Model) -> Vec<Rule> {
    const ONE_LABEL: &str = "one label a text, or `task = \"token-classification\"` without `model.crf`";
    let train = &file.train;
    let has_labels = file.task != Task::MaskedLm;
    let tags_alone = file.task == Task::TokenClassification && !model.crf;
    let one_label = is_of(file.task, model, ProblemType::SingleLabelClassification);
    vec![
        Rule {
            key: "train.class_weights",
            is_set: train.class_weights.is_some(),
            is_allowed: one_label || tags_alone,
            needs: ONE_LABEL,
        },
        Rule {
            key: "train.label_smoothing",
            is_set: train.label_smoothing > 0.0,
            is_allowed: one_label || tags_alone,
            needs: ONE_LABEL,
        },
        Rule {
            key: "train.label_all_tokens",
            is_set: train.label_all_tokens,
            is_allowed: tags_alone,
            needs: "`task = \"token-classification\"` without `model.crf`",
        },
        Rule {
            key: "train.focal_gamma",
            is_set: train.focal_gamma > 0.0,
            is_allowed: (one_label || tags_alone) && train.label_smoothing == 0.0,
            needs: "one label a text, or `task = \"token-classification\"` without `model.crf`, and no \
                    `train.label_smoothing`",
        },
        Rule {
            key: "train.r_drop",
            is_set: train.r_drop > 0.0,
            is_allowed: has_labels && model.encoder != Encoder::Frozen,
            needs: "a task with labels and a `model.encoder` other than `frozen`",
        },
        Rule {
            key: "train.fgm",
            is_set: train.fgm > 0.0,
            is_allowed: has_labels && model.encoder == Encoder::Full,
            needs: "a task with labels and `model.encoder = \"full\"`, whose word embeddings it moves",
        },
    ]
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// A backend without kernels of Kiln's own.
    struct Plain;
    impl Backend for Plain {
        const NAME: &'static str = "plain";
        const IN_MAIN_MEMORY: bool = true;
        const HAS_BF16: bool = false;
        fn device_count() -> usize {
            1
        }
        fn device(_index: usize) -> Device {
            Device::flex()
        }
    }

    #[test]
    fn backends_without_kernels_compute_in_f32_alone() {
        for precision in [Precision::Bf16, Precision::Int8] {
            assert_eq!(available::<Flex>(precision).expect("flex has it"), precision.into());
            let error = available::<Plain>(precision).expect_err("it has none").to_string();
            assert!([precision.name(), "flex", "plain"].iter().all(|word| error.contains(word)), "{error}");
        }
        assert!(available::<Plain>(Precision::F32).is_ok());
    }
}
