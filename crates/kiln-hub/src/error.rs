use std::io;
use std::path::{Path, PathBuf};

/// Why there is no snapshot.
///
/// No message holds a token, nor the signed query of a content host's address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text names no source.
    #[error("`{found}` is no source: expected {expected}")]
    Source {
        /// The text, or its part.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A folder is no checkpoint.
    #[error("{}: {problem}", folder.display())]
    Directory {
        /// The folder.
        folder: PathBuf,
        /// What it lacks.
        problem: &'static str,
    },
    /// The address of a hub, or of a proxy, cannot be used.
    #[error("`{address}` is no address: {expected}")]
    Address {
        /// The address.
        address: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// No folder for the cache was given, and there is no home folder to hold it.
    #[error("there is no home folder to keep the cache in: give a folder for the cache")]
    NoCache,
    /// Offline, and a file of the checkpoint is not in the cache.
    #[error("offline, and {file} of {location} is not in {}; `kiln pull {location}` fetches it", folder.display())]
    NotInCache {
        /// The checkpoint's source, as it is written.
        location: String,
        /// The file, or the files of which one is needed.
        file: String,
        /// The folder that was looked in.
        folder: PathBuf,
    },
    /// Offline, and a file in the cache is not what the hub declared.
    #[error("offline, and {} is damaged: expected {expected}, found {found}; `kiln pull {location}` fetches it again", path.display())]
    Damaged {
        /// The checkpoint's source, as it is written.
        location: String,
        /// The file.
        path: PathBuf,
        /// The hash that the hub declared.
        expected: String,
        /// The hash of what is there.
        found: String,
    },
    /// The repository lacks a file that a checkpoint must have.
    #[error("{location} has no {file} at {address}")]
    MissingFile {
        /// The checkpoint's source, as it is written.
        location: String,
        /// The file, or the files of which one is needed.
        file: String,
        /// Where it was looked for.
        address: String,
    },
    /// The hub knows no such repository or revision, or does not show it to this token.
    #[error("{address}: {location} is not there, or needs a token ({reason})")]
    NotFound {
        /// The checkpoint's source, as it is written.
        location: String,
        /// Where it was looked for.
        address: String,
        /// The hub's words.
        reason: String,
    },
    /// A request failed before an answer came.
    #[error("{address} cannot be reached")]
    Request {
        /// The address, without its query.
        address: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The hub's answer is not what its interface promises.
    #[error("{address}: expected {expected}, found {found}")]
    Answer {
        /// The address, without its query.
        address: String,
        /// What the interface promises.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// A download broke off too often. What came is kept, and the next pull goes on from there.
    #[error("{address} broke off {file} after {received} of {size} bytes")]
    Interrupted {
        /// The file.
        file: String,
        /// The address, without its query.
        address: String,
        /// Bytes received.
        received: u64,
        /// Bytes declared.
        size: u64,
        /// What the last attempt met, if it was not a plain end.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// What came is not what the hub declared. It has been deleted.
    #[error("{address} sent a {file} that is not the one declared: expected {expected}, found {found}")]
    Mismatch {
        /// The file.
        file: String,
        /// The address, without its query.
        address: String,
        /// The hash declared.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// A file name that does not stay in its folder.
    #[error("{}: refusing the file name `{name}`: it does not stay in the folder", origin.display())]
    UnsafeName {
        /// The file that holds the name.
        origin: PathBuf,
        /// The name.
        name: String,
    },
    /// A file is not the JSON that it should be.
    #[error("{}: expected {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// A file or a folder cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names the path that an operation was about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
