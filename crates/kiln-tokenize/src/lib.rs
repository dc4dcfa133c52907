//! Tokenizes texts, and groups the encodings into batches by length.
//! A [`Tokenizer`] is read from a checkpoint's folder. This crate works on plain vectors, without tensors.
//!
//! ```
//! use kiln_tokenize::{Tokenizer, by_length, lengths, pad};
//!
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tiny");
//! let tokenizer = Tokenizer::from_folder(folder.as_ref())?.with_max_length(8)?;
//! let encodings = tokenizer.encode_all([("房间 Clean", None), ("房", Some("间"))])?;
//! let rows = &by_length(&lengths(&encodings), 16)[0];
//! let batch = pad(&encodings, rows, tokenizer.pad_token_id());
//! assert_eq!((batch.rows.as_slice(), batch.seq), ([0, 1].as_slice(), 5));
//! # Ok::<(), kiln_tokenize::Error>(())
//! ```
//!
//! See `examples/bucketing.rs`.
#![deny(missing_docs)]

mod config;
mod declared;
mod class;
mod pipeline;
mod wordpiece;
mod byte_level;
mod added;

mod encoding;
mod tokenizer;
mod cuts;
mod reading;
mod limits;
mod listing;
mod units;
mod token_units;
mod context;
mod counting;
mod pieces;
mod vocabulary;

mod batch;
mod bucketing;

mod save;
mod sentences;

mod error;
mod file;

#[cfg(test)]
mod samples;

pub use batch::{Batch, pad};
pub use bucketing::{Shuffle, by_length, padding_share, shuffled};
pub use context::{ContextConfig, ContextWindow};
pub use encoding::{Encoding, lengths};
pub use error::Error;
pub use limits::ModelLimits;
pub use listing::TokenList;
pub use sentences::{PROMPTS_FILE, default_prompt};
pub use tokenizer::Tokenizer;
pub use units::{UnitWindow, characters, is_cjk, is_modifier, words};
pub use vocabulary::VocabularyConfig;
