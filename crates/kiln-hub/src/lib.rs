//! A model's or a data set's source (Hugging Face, ModelScope or a folder) to verified local files: what is downloaded
//! is held against the hash that its hub declares before it gets its name.
//! Hugging Face's cache is the one that Python's `huggingface_hub` reads and writes, ModelScope's the one of Python's
//! `modelscope`.
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
//! [`pull`] does the work, [`pull_file`] for data sets; see `examples/pull.rs`.
//!
//! Nothing here reads environment variables: [`PullConfig`] holds what the caller read.
#![deny(missing_docs)]

mod dataset;
mod source;

mod config;

mod ask;
mod fallback;
mod pull;

mod checkpoint;
mod gather;

mod hugging_face;
mod listing;
mod model_scope;

mod digest;
mod download;
mod pickle;

mod agents;
mod http;
mod url;

mod disk;
mod error;

pub use config::{HubConfig, Patience, Proxies, PullConfig, Secret};
pub use dataset::DatasetFile;
pub use error::Error;
pub use pull::{Progress, PulledFile, Snapshot, pull, pull_file};
pub use source::{Hub, Location, Repository, Source};
