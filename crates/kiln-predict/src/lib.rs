//! A model folder to labelled answers: text in, label and scores out.
//! A [`Predictor`] holds the model, its tokenizer and its labels' names, and answers in batches bucketed by length.
//!
//! ```no_run
//! use kiln_backend::{Backend, Flex};
//! use kiln_predict::Predictor;
//!
//! let predictor = Predictor::from_folder("runs/hotel/model".as_ref(), &Flex::device(0))?;
//! for prediction in predictor.predict(&[("房间很干净", None)])? {
//!     assert!(prediction.score <= 1.0);
//! }
//! # Ok::<(), kiln_predict::Error>(())
//! ```
//!
//! See `examples/predict.rs`, which makes a model folder first.
#![deny(missing_docs)]

mod batches;
mod prediction;
mod predictor;
mod error;

pub use batches::{in_batches, inputs};
pub use error::Error;
pub use prediction::Prediction;
pub use predictor::Predictor;
