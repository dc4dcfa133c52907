//! A checkpoint's source (Hugging Face, ModelScope or a folder) to a verified local snapshot: every file that is
//! downloaded is held against the hash that its hub declares before it gets its name. Hugging Face's cache is the one
//! that Python's `huggingface_hub` reads and writes, ModelScope's the one of Python's `modelscope`.
//!
//! ```
//! use kiln_hub::{Location, Source};
//!
//! let source: Source = "hf:google-bert/bert-base-chinese".parse()?;
//! let Source::Location(Location::HuggingFace(repository)) = &source else { unreachable!("it says hf:") };
//! assert_eq!((repository.id(), repository.revision()), ("google-bert/bert-base-chinese", None));
//! assert_eq!(source.to_string(), "hf:google-bert/bert-base-chinese");
//! # Ok::<(), kiln_hub::Error>(())
//! ```
//!
//! [`pull`] does the work; see `examples/pull.rs`.
//!
//! Nothing here reads environment variables: [`PullConfig`] holds what the caller read.
#![deny(missing_docs)]

mod source;

mod config;

mod checkpoint;
mod pull;

mod hugging_face;
mod model_scope;

mod digest;
mod download;
mod http;
mod url;

mod disk;
mod error;

pub use config::{HubConfig, PullConfig, Secret};
pub use error::Error;
pub use pull::{Progress, Snapshot, pull};
pub use source::{Location, Repository, Source};
