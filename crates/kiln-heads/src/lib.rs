//! Task heads for BERT, with their logits and losses.
//! A model folder has the encoder, the head and the label names in Hugging Face's layout.
//!
//! ```
//! use burn::tensor::Tensor;
//! use kiln_backend::{Backend, Flex};
//! use kiln_heads::ClassificationHeadConfig;
//!
//! let device = Flex::device(0);
//! let head = ClassificationHeadConfig { hidden_size: 32, hidden_layers: vec![16], num_labels: 3, dropout: 0.1, initializer_range: 0.02 };
//! let pooled_output = Tensor::<2>::ones([5, 32], &device);
//! assert_eq!(head.init(&device).forward(pooled_output).dims(), [5, 3]);
//! ```
//!
//! See `examples/model_folder.rs`.
#![deny(missing_docs)]

mod pooling;
mod sequence_classification;
mod token_classification;
mod crf;
mod question_answering;
mod masked_lm;
mod batches;
mod tags;
mod answers;
mod loss;
mod divergence;
mod pretrained;
mod model_folder;
mod read_model;
mod adapted;
mod calibration;
mod error;

pub use adapted::{AdapterBase, load_adapted_model, merge_adapter, save_adapter, trained_max_length};
pub use answers::{AnswerConfig, AnswerLogits, Passage, answer_logits, best_answer};
pub use batches::{in_batches, inputs};
pub use calibration::Calibration;
pub use crf::{Crf, TagBatch, Transitions};
pub use divergence::{
    hidden_state_error_sum, sigmoid_disagreement_sum, sigmoid_divergence_sum, softmax_disagreement_sum,
    softmax_divergence_sum, value_relation_divergence_sum,
};
pub use error::Error;
pub use loss::{
    binary_cross_entropy_sum, cross_entropy_sum, focal_loss_sum, smoothed_cross_entropy_sum, squared_error_sum,
    weighted_cross_entropy_sum,
};
pub use masked_lm::{MaskedLm, MaskedLmHead, MaskedLmOutput, MaskedLmTransform, PreTrainingHeads};
pub use model_folder::{Network, TaskModel, Units, save_model};
pub use pooling::{Pooling, pool};
pub use pretrained::{Pretrained, PretrainedConfig, Start, check_pretraining};
pub use question_answering::{QuestionAnswerer, answer_loss_sum, without_padding};
pub use read_model::{load_model, load_model_stored};
pub use sequence_classification::{ClassificationHead, ClassificationHeadConfig, SequenceClassifier};
pub use tags::{Tags, tag, unit_tokens};
pub use token_classification::TokenClassifier;
