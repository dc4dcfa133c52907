//! Fine-tuning: optimizer, learning-rate schedule, training loop, checkpoints and the feature cache of frozen encoders.
//! There is one training loop, [`Fit`]. It trains on a [`TrainingSet`] and validates on an [`EvaluationSet`]: encoded texts
//! for a whole model, cached features for a head, tagged texts, or questions.
//!
//! ```
//! use kiln_train::{LrScheduler, TrainConfig};
//!
//! let config = TrainConfig { learning_rate: 1e-3, warmup_ratio: 0.5, lr_scheduler: LrScheduler::Linear, ..TrainConfig::default() };
//! let rates: Vec<f64> = (0..4).map(|step| config.learning_rate_at(step, 4)).collect();
//! assert_eq!(rates, [0.5e-3, 1e-3, 1e-3, 0.5e-3]);
//! ```
//!
//! See `examples/fit_head.rs`.
#![deny(missing_docs)]

mod config;
mod schedule;
mod model;
mod training_set;
mod targets;
mod features;
mod token_features;
mod tagged;
mod asked;
mod logit_set;
mod matching;
mod half_precision;
mod teacher;
mod objective;
mod reduction;
mod ranks;
mod gradients;
mod shared_sum;
mod adversarial;
mod average;
mod attributions;
mod trainable;
mod adamw;
mod fingerprint;
mod checkpoint;
mod events;
mod fit;
mod micro_batches;
mod error;

pub use adamw::AdamW;
pub use asked::{Answer, Answered, AskedSet};
pub use attributions::attributions;
pub use average::Average;
pub use checkpoint::check_resumable;
pub use config::{Metric, Reduce, TrainConfig};
pub use error::Error;
pub use events::{End, EpochReport, Event, Fitted};
pub use features::{FeatureCache, Features, FeaturesConfig};
pub use fingerprint::Fingerprint;
pub use fit::Fit;
pub use gradients::{GradientSum, Take};
pub use half_precision::{F16, from_f16, to_f16};
pub use logit_set::{Comparison, LogitSet};
pub use matching::Matching;
pub use model::{EncoderModel, Model};
pub use objective::{Distillation, Objective};
pub use ranks::{check_ranks, check_same};
pub use reduction::{Alone, Reduction};
pub use schedule::LrScheduler;
pub use tagged::TaggedSet;
pub use targets::{LabelLoss, Targets, balanced};
pub use teacher::{TeacherConfig, TeacherOutputs};
pub use token_features::{TokenFeatures, TokenFeaturesConfig};
pub use trainable::{Scope, Trainable, UpdateRule};
pub use training_set::{BatchLoss, Dataset, Encoded, EvaluationSet, TrainingSet};
