use kiln_backend::{Backend, Flex};
use kiln_schema::{LabelId, LabelSet, ProblemType, Task};
use kiln_train::{LabelLoss, LrScheduler, Metric, Reduce, Scope, TrainConfig, balanced};
use serde::{Deserialize, Serialize};

use super::document::Places;
use super::{Encoder, Model, RecipeError, RecipeFile, Rule, checked, is_of};
use crate::UsageError;

/// `[train]`: the hyperparameters of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Passes over the training split.
    #[serde(deserialize_with = "checked::at_least::<1, _>")]
    pub epochs: usize,
    /// Examples in a batch.
    #[serde(deserialize_with = "checked::at_least::<1, _>")]
    pub batch_size: usize,
    /// Batches per optimizer update.
    #[serde(deserialize_with = "checked::at_least::<1, _>")]
    pub gradient_accumulation_steps: usize,
    /// The peak learning rate of the schedule.
    #[serde(deserialize_with = "checked::positive")]
    pub learning_rate: f64,
    /// The peak learning rate for the head and the pooler; `learning_rate` when absent.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "checked::some_positive")]
    pub head_learning_rate: Option<f64>,
    /// How the learning rate decays after the warmup.
    pub lr_scheduler: LrScheduler,
    /// The share of all steps during which the learning rate rises from 0.
    #[serde(deserialize_with = "checked::share")]
    pub warmup_ratio: f64,
    /// AdamW's decoupled weight decay; not applied to biases and LayerNorm.
    #[serde(deserialize_with = "checked::not_negative")]
    pub weight_decay: f64,
    /// The global norm to which gradients are clipped.
    #[serde(deserialize_with = "checked::positive")]
    pub max_grad_norm: f64,
    /// The learning rate of each layer as a share of that of the layer above it; 1 = the same rate for all layers.
    #[serde(deserialize_with = "checked::share")]
    pub layerwise_lr_decay: f64,
    /// Maximum length in tokens, including special tokens. Longer texts are truncated; for token classification and
    /// question answering, they are split into windows.
    #[serde(deserialize_with = "checked::at_least::<2, _>")]
    pub max_length: usize,
    /// The precision of the encoder's matrix products.
    pub precision: Precision,
    /// Whether each layer is recomputed in the backward pass, which saves memory and takes more time.
    pub gradient_checkpointing: bool,
    /// The weight of each label in the loss: `balanced`, or one number for each label, in the order of the labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// The share of each target that is spread evenly over all labels.
    #[serde(deserialize_with = "checked::share")]
    pub label_smoothing: f64,
    /// Whether a token classifier's loss covers all tokens of a word, instead of only the first.
    pub label_all_tokens: bool,
    /// Training stops after this many epochs without a better checkpoint; 0 = off.
    #[serde(deserialize_with = "checked::at_least::<0, _>")]
    pub early_stopping_patience: usize,
    /// A checkpoint is saved every so many updates within an epoch; 0 = off.
    #[serde(deserialize_with = "checked::at_least::<0, _>")]
    pub save_steps: usize,
    /// A checkpoint is saved every so many minutes within an epoch; 0 = off.
    #[serde(deserialize_with = "checked::not_negative")]
    pub save_minutes: f64,
    /// Training stops after this many hours and evaluates its best checkpoint; 0 = no limit.
    #[serde(deserialize_with = "checked::not_negative")]
    pub max_hours: f64,
    /// The model is validated every so many updates; 0 = after each epoch. The best checkpoint is kept either way.
    #[serde(deserialize_with = "checked::at_least::<0, _>")]
    pub eval_steps: usize,
    /// R-Drop (arXiv 2106.14448): the weight of the divergence between two passes of each row with different dropout, which
    /// is added to their mean loss; 0 = off, one pass.
    #[serde(deserialize_with = "checked::not_negative")]
    pub r_drop: f64,
    /// Fast gradient method: how far the word embeddings are moved along the gradient for a second, adversarial loss of
    /// each batch; 0 = off.
    #[serde(deserialize_with = "checked::not_negative")]
    pub fgm: f64,
    /// The decay of an exponential moving average of the weights. The average is validated and saved instead of the
    /// weights; 0 = off.
    #[serde(deserialize_with = "checked::below_one")]
    pub ema: f64,
    /// The exponent of a focal loss, which reduces the weight of well-classified examples; 0 = cross-entropy.
    #[serde(deserialize_with = "checked::not_negative")]
    pub focal_gamma: f64,
    /// How processes started together by MPI sum their gradients; unused in a single process.
    #[serde(skip_serializing_if = "Reduce::is_exact")]
    pub reduce: Reduce,
    /// Whether to write TensorBoard event files to `tensorboard` in the run's folder.
    pub tensorboard: bool,
    /// The metric that selects the best checkpoint; the task's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// The random seed for initial weights, the order of rows, and dropout.
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
    /// Checks the values that depend on the task. `known` are the metrics that the task reports.
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

    /// The loss for the targets of the training split; `None` for plain cross-entropy.
    pub fn label_loss(
        &self,
        targets: impl IntoIterator<Item = LabelId>,
        labels: &LabelSet,
    ) -> Result<Option<LabelLoss>, UsageError> {
        let class_weights = self.class_weights.as_ref().map(|weights| weights.of(targets, labels)).transpose()?;
        let loss = LabelLoss { class_weights, label_smoothing: self.label_smoothing, focal_gamma: self.focal_gamma };
        Ok(Some(loss).filter(|loss| *loss != LabelLoss::default()))
    }

    /// The settings that the training loop reads.
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
#[serde(untagged, expecting = "expected \"balanced\", or a list of one number per label")]
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
    /// Why these weights are invalid for any label set; `None` if they are valid.
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

/// The number format to which the operands of the encoder's matrix products are rounded. Weights stay f32.
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
    /// The name in recipes and on the command line.
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

/// The precision, if the backend supports it.
pub fn available<B: Backend>(precision: Precision) -> Result<kiln_kernels::Precision, UsageError> {
    let (can_compute, by) = match precision {
        Precision::F32 => (true, "every backend"),
        Precision::Bf16 => (B::HAS_BF16, "backends `flex` and `cuda`"),
        Precision::Int8 => (B::NAME == Flex::NAME, "backend `flex`"),
    };
    if !can_compute {
        let (name, asked) = (precision.name(), B::NAME);
        return Err(UsageError(format!("precision `{name}` is supported only by {by}, not by `{asked}`")));
    }
    Ok(precision.into())
}

/// Conditions of `[train]` keys on other keys.
pub(super) fn rules(file: &RecipeFile, model: &Model) -> Vec<Rule> {
    const ONE_LABEL: &str = "one label per text, or `task = \"token-classification\"` without `model.crf`";
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
            needs: "one label per text, or `task = \"token-classification\"` without `model.crf`, and no \
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

    /// A backend without Kiln's own kernels.
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
