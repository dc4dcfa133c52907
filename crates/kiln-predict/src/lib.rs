//! Predicts labels, entities, tags, answers or masked words for texts, with the model of a folder.
//! A [`Predictor`] holds the model, its tokenizer and its label names, and predicts in batches bucketed by length.
//!
//! ```no_run
//! use kiln_backend::{Backend, Flex};
//! use kiln_predict::Predictor;
//!
//! let predictor = Predictor::from_folder("runs/hotel/model".as_ref(), &Flex::device(0))?;
//! for prediction in predictor.predict(&[("房间很干净", None)])? {
//!     assert!(serde_json::to_string(&prediction).is_ok());
//! }
//! # Ok::<(), kiln_predict::Error>(())
//! ```
//!
//! See `examples/predict.rs`.
#![deny(missing_docs)]

mod prediction;
mod tags;
mod answers;
mod masks;
mod predictor;
mod prepared;
mod compute;
mod embedder;
mod error;

pub use answers::{PIPELINE_ANSWER_LENGTH, PIPELINE_MAX_LENGTH, pipeline_answer};
pub use compute::Computed;
pub use embedder::{EmbedConfig, Embedder, cosine};
pub use error::Error;
pub use prediction::{
    AnswerPrediction, EntitiesPrediction, EntityPrediction, FilledPrediction, LabelPrediction, LabelsPrediction,
    MaskPrediction, NumberPrediction, Prediction, TagPrediction, TagsPrediction, Texts, TokenPrediction,
};
pub use predictor::Predictor;
pub use prepared::Prepared;
