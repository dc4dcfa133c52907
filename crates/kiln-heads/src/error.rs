use std::path::PathBuf;

use kiln_schema::LabelSetError;

/// Why a model could not be built, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The encoder's checkpoint or another file cannot be used.
    #[error(transparent)]
    Bert(#[from] kiln_bert::Error),
    /// The encoder's adapter cannot be used.
    #[error(transparent)]
    Adapter(Box<kiln_adapters::Error>),
    /// The checkpoint has no pooler, and a frozen encoder would not train a fresh one.
    #[error(
        "{}: the checkpoint has no pooler, and a frozen encoder cannot train a fresh one; \
         use `pooling = \"cls\"` or `\"mean\"`, or `encoder = \"full\"`",
        folder.display()
    )]
    FrozenPooler {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
    /// A config key about the head has an invalid value.
    #[error("{}: `{key}`: {reason}", path.display())]
    HeadKey {
        /// The config file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A calibration file cannot be used.
    #[error("{}: {reason}", path.display())]
    Calibration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The label names are invalid: empty, or duplicated.
    #[error("{}: `id2label`: {reason}", path.display())]
    BadLabels {
        /// The config file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A model folder has an encoder but no head.
    #[error(
        "{}: unknown head: `architectures` in config.json is {architectures}, and there is no `kiln_head`",
        folder.display()
    )]
    NoHead {
        /// The folder.
        folder: PathBuf,
        /// The value of `architectures`.
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
