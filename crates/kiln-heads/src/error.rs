use std::path::PathBuf;

use kiln_schema::LabelSetError;

/// Why a model could not be built, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, or the checkpoint under the head.
    #[error(transparent)]
    Bert(#[from] kiln_bert::Error),
    /// The adapter of the encoder.
    #[error(transparent)]
    Adapter(Box<kiln_adapters::Error>),
    /// A frozen encoder would leave a pooler at random weights.
    #[error(
        "{}: the checkpoint has no pooler, and a frozen encoder cannot train a fresh one; \
         use `pooling = \"cls\"` or `\"mean\"`, or `encoder = \"full\"`",
        folder.display()
    )]
    FrozenPooler {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
    /// A key of a config file that says something of the head.
    #[error("{}: `{key}`: {reason}", path.display())]
    HeadKey {
        /// The config file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file of a calibration that cannot be used.
    #[error("{}: {reason}", path.display())]
    Calibration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Names of labels that do not make a set.
    #[error("{}: `id2label`: {reason}", path.display())]
    BadLabels {
        /// The config file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A model folder that holds an encoder and no head.
    #[error(
        "{}: there is no head that Kiln knows: `architectures` in config.json is {architectures}, and there is no `kiln_head`",
        folder.display()
    )]
    NoHead {
        /// The folder.
        folder: PathBuf,
        /// What `architectures` says.
        architectures: String,
    },
}

impl From<kiln_adapters::Error> for Error {
    fn from(error: kiln_adapters::Error) -> Self {
        Self::Adapter(Box::new(error))
    }
}

impl Error {
    pub(crate) fn label_set(path: PathBuf, error: LabelSetError) -> Self {
        Self::BadLabels { path, reason: error.to_string() }
    }
}
