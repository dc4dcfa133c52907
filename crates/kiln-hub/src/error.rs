use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    #[error("offline, and {file} of {location} is not in {}; `{command}` fetches it", folder.display())]
    NotInCache {
        /// The checkpoint's source, as it is written.
        location: String,
        /// The file, or the files of which one is needed.
        file: String,
        /// The folder that was looked in.
        folder: PathBuf,
        /// What fetches it.
        command: String,
    },
    /// Offline, and a file in the cache is not what the hub declared.
    #[error("offline, and {} is damaged: expected {expected}, found {found}; `{command}` fetches it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The hash that the hub declared.
        expected: String,
        /// The hash of what is there.
        found: String,
        /// What fetches it again.
        command: String,
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
    /// The hub, or its content host, is overloaded or broken, and stays so.
    #[error("{address}: status {status}{}", asked(retry_after))]
    Unavailable {
        /// The address, without its query.
        address: String,
        /// 429 or 500 and above.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// Neither the source's hub nor one that may stand in for it has it.
    #[error("{}", joined(attempts))]
    Nowhere {
        /// Why, one for each hub.
        attempts: Vec<Error>,
    },
    /// Two hubs have different files under one name.
    #[error("{file} is not the same everywhere: {} in {}, {} in {}", first.1, first.0, second.1, second.0)]
    Contradiction {
        /// The file.
        file: String,
        /// Where, and its hash there.
        first: (String, String),
        /// Where else, and its hash there.
        second: (String, String),
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
    /// What came is not what the hub declared. None of it is kept.
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
    /// A declared size that no such file has.
    #[error("{address} declares {size} bytes for {file}: expected at most {most}")]
    TooLarge {
        /// The file.
        file: String,
        /// Who declares it.
        address: String,
        /// Bytes declared.
        size: u64,
        /// Bytes that are believed.
        most: u64,
    },
    /// The disk is too full.
    #[error("{}: {needed} bytes are to be downloaded, and {available} are free", folder.display())]
    NoSpace {
        /// Where to.
        folder: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// A pickle that would run code where Python reads it.
    #[error("{}: refusing a pickle that holds {found}: expected nothing but tensors", path.display())]
    Pickle {
        /// The file. If it was downloaded just now, it has been deleted.
        path: PathBuf,
        /// The function that it names, or what cannot be read.
        found: String,
    },
    /// A link in the cache that leads out of it.
    #[error("{}: refusing a link to {}: it leads out of the cache", path.display(), target.display())]
    UnsafeLink {
        /// The file.
        path: PathBuf,
        /// Where the link leads to.
        target: PathBuf,
    },
    /// A folder, a pipe or a device in the cache in place of a file.
    #[error("{}: this is not a regular file; delete it to have the file downloaded again", path.display())]
    NotAFile {
        /// The path in the cache.
        path: PathBuf,
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
    /// Whether another hub may have what this one could not give.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Request { .. } | Self::Unavailable { .. } | Self::Interrupted { .. } | Self::NotInCache { .. }
        )
    }

    /// For `map_err`: names the path that an operation was about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

fn asked(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!(", to be asked again in {} s", wait.as_secs()))
}

/// Each with its causes.
fn joined(errors: &[Error]) -> String {
    let chain = |error: &Error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    };
    errors.iter().map(chain).collect::<Vec<_>>().join("; ")
}
