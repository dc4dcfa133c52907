//! Writes files atomically, opens them without blocking, and decodes them without a panic. As with [`std::fs`], errors
//! describe the problem, and the caller adds the path.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("report.json");
//! kiln_files::write(&path, b"{}")?;
//! assert_eq!(kiln_files::read(&path)?, b"{}");
//! assert!(kiln_files::read(folder.path()).is_err(), "a folder is not a file");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! See `examples/replace.rs`.
#![deny(missing_docs)]

mod kind;
mod open;
mod map;
mod same;
mod writer;
mod cache;
mod folder;
mod guard;

pub use cache::CacheFile;
pub use folder::FolderWriter;
pub use guard::guarded;
pub use kind::{Error, Kind};
pub use map::Mapped;
pub use open::{open, read, read_if_present, read_to_string};
pub use same::is_same_file;
pub use writer::{FileWriter, remove_unfinished, write};
