use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a server cannot start or reload its models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model cannot be loaded.
    #[error("{}", folder.display())]
    Model {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        source: Box<kiln_predict::Error>,
    },
    /// A bundle differs from its manifest, or cannot be loaded.
    #[error(transparent)]
    Bundle(Box<kiln_bundle::Error>),
    /// Another precision was requested than that of a bundle.
    #[error("{}: the bundle's precision is {own}, not {asked}", folder.display())]
    Precision {
        /// The bundle's folder.
        folder: PathBuf,
        /// The precision of the bundle.
        own: &'static str,
        /// The requested precision.
        asked: &'static str,
    },
    /// A loaded model cannot compute the probe text.
    #[error("{}: the model failed on a test input: {reason}", folder.display())]
    Probe {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// Two models have the same name.
    #[error("two models are called `{name}`; give one of them another name: NAME=FOLDER")]
    SameName {
        /// The name.
        name: String,
    },
    /// There is no model to serve.
    #[error("there is no model to serve")]
    NoModel,
    /// The server cannot listen on the address.
    #[error("{address}: cannot listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Other machines can reach the address, and there are no keys.
    #[error("{address} can be reached from other machines: give a key file, or allow requests without keys")]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// A file of keys or of the TLS certificate cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line in a file of keys is invalid.
    #[error("{}, line {line}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// What was found and what was expected.
        reason: String,
    },
    /// A certificate or its key is invalid.
    #[error("{}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why it is invalid.
        reason: String,
    },
    /// The threads cannot be started.
    #[error("cannot start the server's threads")]
    Threads(#[source] io::Error),
}

impl Error {
    /// An error of a bundle or of a folder's sentence-transformers files.
    pub(crate) fn bundle(folder: &Path, error: kiln_bundle::Error) -> Self {
        match error {
            // It may not name the folder.
            kiln_bundle::Error::Predict(source) => Self::Model { folder: folder.to_owned(), source: Box::new(source) },
            // The others name the folder or a file in it.
            error => Self::Bundle(Box::new(error)),
        }
    }
}
