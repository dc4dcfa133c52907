//! Pulls a model or a data set from Hugging Face, ModelScope or a folder to verified local files. A download is checked
//! against the hash that its hub declares before it gets its final name.
//!
//! The cache of Hugging Face is shared with Python's `huggingface_hub`, and the cache of ModelScope with Python's
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
//! [`pull`] gets a checkpoint, and [`pull_file`] a file of a data set; see `examples/pull.rs`.
//!
//! This crate reads no environment variables but that of the home folder. The caller passes the values of others in
//! [`PullConfig`].
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
