use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of a pull.
///
/// No message contains a token or the signed query of a content host's address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is not a valid source.
    #[error("`{found}` is not a source: expected {expected}")]
    Source {
        /// The text, or the invalid part of it.
        found: String,
        /// The expected form.
        expected: &'static str,
    },
    /// A folder is not a checkpoint.
    #[error("{}: {problem}", folder.display())]
    Directory {
        /// The folder.
        folder: PathBuf,
        /// The missing item.
        problem: &'static str,
    },
    /// The address of a hub, or of a proxy, cannot be used.
    #[error("`{address}` is not an address: {expected}")]
    Address {
        /// The address.
        address: String,
        /// The expected form.
        expected: &'static str,
    },
    /// No cache folder was given, and there is no home folder for the default one.
    #[error("there is no home folder for the cache: give a cache folder")]
    NoCache,
    /// A file is not in the cache, and the pull is offline.
    #[error("offline, and {file} of {location} is not in {}; `{command}` fetches it", folder.display())]
    NotInCache {
        /// The source, in its text form.
        location: String,
        /// The missing file, or alternatives, one of which is needed.
        file: String,
        /// The folder that was searched.
        folder: PathBuf,
        /// The command that fetches it.
        command: String,
    },
    /// A file in the cache does not have the hash that the hub declared, and the pull is offline.
    #[error("offline, and {} is damaged: expected {expected}, found {found}; `{command}` fetches it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The declared hash.
        expected: String,
        /// The actual hash.
        found: String,
        /// The command that fetches it again.
        command: String,
    },
    /// The repository lacks a required file.
    #[error("{location} has no {file} at {address}")]
    MissingFile {
        /// The source, in its text form.
        location: String,
        /// The missing file, or alternatives, one of which is needed.
        file: String,
        /// The address that was searched.
        address: String,
    },
    /// The hub has no such repository or revision, or the token does not give access to it.
    #[error("{address}: {location} does not exist, or needs a token ({reason})")]
    NotFound {
        /// The source, in its text form.
        location: String,
        /// The address that was searched.
        address: String,
        /// The reason given by the hub.
        reason: String,
    },
    /// A request failed without a response.
    #[error("{address} cannot be reached")]
    Request {
        /// The address, without its query.
        address: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The hub or its content host is overloaded or broken, and all attempts failed.
    #[error("{address}: status {status}{}", asked(retry_after))]
    Unavailable {
        /// The address, without its query.
        address: String,
        /// The status: 429, or 500 and above.
        status: u16,
        /// The pause that the host asked for.
        retry_after: Option<Duration>,
    },
    /// Neither the source's hub nor a fallback hub could provide it.
    #[error("{}", joined(attempts))]
    Nowhere {
        /// The error of each hub.
        attempts: Vec<Error>,
    },
    /// Two hubs have different files of the same name.
    #[error("{file} differs between hubs: {} in {}, {} in {}", first.1, first.0, second.1, second.0)]
    Contradiction {
        /// The file.
        file: String,
        /// The first address or path, and the hash there.
        first: (String, String),
        /// The second address or path, and the hash there.
        second: (String, String),
    },
    /// A response does not follow the hub's interface.
    #[error("{address}: expected {expected}, found {found}")]
    Answer {
        /// The address, without its query.
        address: String,
        /// The expected content.
        expected: &'static str,
        /// The content received.
        found: String,
    },
    /// A download was interrupted too often. The bytes received are kept, and the next pull resumes there.
    #[error("{address} ended {file} after {received} of {size} bytes")]
    Interrupted {
        /// The file.
        file: String,
        /// The address, without its query.
        address: String,
        /// The number of bytes received.
        received: u64,
        /// The number of bytes declared.
        size: u64,
        /// The error of the last attempt, if it did not end normally.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A download is not what the hub declared. Nothing of it is kept.
    #[error("{address} sent a {file} that differs from the declared one: expected {expected}, found {found}")]
    Mismatch {
        /// The file.
        file: String,
        /// The address, without its query.
        address: String,
        /// The declared hash.
        expected: String,
        /// The actual hash or size.
        found: String,
    },
    /// A declared size is implausibly large.
    #[error("{address} declares {size} bytes for {file}: expected at most {most}")]
    TooLarge {
        /// The file.
        file: String,
        /// The address that declares it.
        address: String,
        /// The number of bytes declared.
        size: u64,
        /// The maximum number of bytes accepted.
        most: u64,
    },
    /// There is not enough free space.
    #[error("{}: the download needs {needed} bytes, and {available} are free", folder.display())]
    NoSpace {
        /// The folder of the download.
        folder: PathBuf,
        /// The number of bytes still to download.
        needed: u64,
        /// The number of free bytes.
        available: u64,
    },
    /// A pickle would run code when Python loads it.
    #[error("{}: refusing a pickle that holds {found}: expected only tensors", path.display())]
    Pickle {
        /// The file. It has been deleted if it was just downloaded.
        path: PathBuf,
        /// The function that it names, or the part that cannot be read.
        found: String,
    },
    /// A link in the cache leads out of the cache.
    #[error("{}: refusing a link to {}: it points outside the cache", path.display(), target.display())]
    UnsafeLink {
        /// The file.
        path: PathBuf,
        /// The target of the link.
        target: PathBuf,
    },
    /// A path in the cache is a folder, a pipe or a device instead of a file.
    #[error("{}: this is not a regular file; delete it to have the file downloaded again", path.display())]
    NotAFile {
        /// The path in the cache.
        path: PathBuf,
    },
    /// A file name leads out of its folder.
    #[error("{}: refusing the file name `{name}`: it points outside the folder", origin.display())]
    UnsafeName {
        /// The file that contains the name.
        origin: PathBuf,
        /// The name.
        name: String,
    },
    /// A file is not valid JSON of the expected structure.
    #[error("{}: expected {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The JSON error.
        source: serde_json::Error,
    },
    /// A file or folder cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
}

impl Error {
    /// Whether a fallback hub may succeed where this one failed.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Request { .. } | Self::Unavailable { .. } | Self::Interrupted { .. } | Self::NotInCache { .. }
        )
    }

    /// For `map_err`: adds the path to an I/O error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

fn asked(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!("; retry after {} s", wait.as_secs()))
}

/// Joins the messages of errors, each with its causes.
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
