//! Common types of all Kiln crates: examples, label sets, tasks and splits. The crate depends only on serde, and does
//! not deal with files, tensors or models.
//!
//! ```
//! use kiln_schema::{Example, LabelSet};
//!
//! let labels = LabelSet::new(["negative", "positive"])?;
//! let example = Example {
//!     text: "房间很干净".to_owned(),
//!     text_pair: None,
//!     target: labels.id("positive").expect("the set has it"),
//! };
//! assert_eq!(labels.name(example.target), "positive");
//! # Ok::<(), kiln_schema::LabelSetError>(())
//! ```
//!
//! See `examples/labels.rs`.
#![deny(missing_docs)]

mod example;
mod tagged;
mod tag_scheme;
mod question;
mod labels;
mod split;
mod task;

pub use example::Example;
pub use labels::{LabelId, LabelSet, LabelSetError};
pub use question::{Answer, Question};
pub use split::{Split, Splits};
pub use tag_scheme::{TagScheme, TagSchemeError};
pub use tagged::TaggedText;
pub use task::{ProblemType, Task};
