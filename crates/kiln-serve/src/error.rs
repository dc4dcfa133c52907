use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a server does not start, or does not take new models.
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
    /// A bundle is not as its manifest says, or cannot be loaded.
    #[error("{}", folder.display())]
    Bundle {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        source: Box<kiln_bundle::Error>,
    },
    /// A model was loaded, and cannot compute a text.
    #[error("{}: the model does not compute: {reason}", folder.display())]
    Probe {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// Two models under one name.
    #[error("two models are called `{name}`; give one of them another name: NAME=FOLDER")]
    SameName {
        /// The name.
        name: String,
    },
    /// Nothing to serve.
    #[error("there is no model to serve")]
    NoModel,
    /// The address is taken, or not this machine's.
    #[error("{address}: cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Whoever can reach this address could use the server.
    #[error("{address} is reached from other machines: give a file of keys, or say that none are wanted")]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// A file of keys, or of TLS, cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of a file of keys.
    #[error("{}, line {line}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What was found and what was expected.
        reason: String,
    },
    /// A certificate or its key.
    #[error("{}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no thread or no timer.
    #[error("cannot start the server's threads")]
    Threads(#[source] io::Error),
}
