//! Reads labelled data: CSV, TSV, JSON Lines, Parquet and the Arrow folders of Python's `datasets`. It also splits data
//! so that no text is in two splits, and audits it for duplicates, leaks and contradictory labels.
//!
//! ```
//! use kiln_dataset::{Columns, Source, SplitConfig, audit, read, split};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("reviews.tsv");
//! let rows: String = (0..40).map(|i| format!("review {i}\t{}\n", ["negative", "positive"][i % 2])).collect();
//! std::fs::write(&path, rows)?;
//!
//! let columns = Columns { text: 0.into(), text_pair: None, label: Some(1.into()), flags: vec![] };
//! let (examples, labels) = read::<kiln_schema::Example>(&[Source::new(path, columns)], None)?;
//! let splits = split(examples, &SplitConfig::default())?;
//! assert_eq!((splits.train.len(), splits.validation.len()), (32, 4));
//! assert_eq!(audit(&splits, labels.names(), None).leaks(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! See `examples/audit.rs`.
#![deny(missing_docs)]

mod source;
mod content;
mod encoding;
mod lines;
mod picks;
mod delimited;
mod head;
mod jsonl;
mod columnar;
mod guard;
mod bounds;
mod ipc_bounds;
mod arrow;
mod page_bounds;
mod parquet;
mod rows;
mod objects;
mod item;
mod layout;
mod tagged;
mod tagged_rows;
mod questions;
mod read;
mod key;
mod placed;
mod split;
mod folds;
mod audit;
mod write;
mod vectors;
mod sentences;
mod corpus;
mod error;
mod wording;
#[cfg(test)]
mod testing;

pub use audit::{Audit, Finding, LabelCount, LengthAudit, Lengths, Overlap, SplitAudit, audit};
pub use corpus::{Passage, corpus};
pub use error::{Error, Place, Unit};
pub use folds::folds;
pub use head::head;
pub use item::Item;
pub use placed::Placed;
pub use questions::{OffsetAudit, Unplaced, WrongOffset, mend_answers};
pub use read::{Names, Record, read, read_splits};
pub use rows::rows;
pub use sentences::sentences;
pub use source::{Column, Columns, Encoding, Format, Row, Source};
pub use split::{SplitConfig, drop_leaks, split};
pub use tagged_rows::UNITS as UNIT_COLUMNS;
pub use vectors::VectorWriter;
pub use write::write_splits;
