use std::path::PathBuf;

use crate::Difference;
use crate::manifest::MANIFEST;

/// Why a bundle could not be made, verified or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the model or of a text.
    #[error(transparent)]
    Predict(#[from] kiln_predict::Error),
    /// An error of the checkpoint's weights or config.
    #[error(transparent)]
    Bert(#[from] kiln_bert::Error),
    /// An error of the tokenizer.
    #[error(transparent)]
    Tokenize(#[from] kiln_tokenize::Error),
    /// A file or a folder cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or a folder cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder has no manifest.
    #[error("{}: it is not a bundle; there is no {MANIFEST}", folder.display())]
    NoManifest {
        /// The folder.
        folder: PathBuf,
    },
    /// The manifest is malformed.
    #[error("{}: {reason}", path.display())]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The files differ from the manifest.
    #[error("{}: the bundle differs from its manifest: {}", folder.display(), crate::verify::in_words(differences))]
    Differs {
        /// The bundle.
        folder: PathBuf,
        /// Every file that differs, by name.
        differences: Vec<Difference>,
    },
    /// The checkpoint pools in a way that is not supported.
    #[error(
        "{}: the pooling mode `{mode}` is not supported, only `cls` and `mean`. To use another pooling than the model was \
         trained with, give --pooling; to make a bundle, change this file",
        path.display()
    )]
    Pooling {
        /// The file that names the mode.
        path: PathBuf,
        /// The mode, or several joined by ` + `.
        mode: String,
    },
    /// The checkpoint computes vectors with a module that is not supported.
    #[error("{}: the module `{kind}` is not supported, only `Transformer`, `Pooling` and `Normalize`", path.display())]
    Module {
        /// `modules.json`.
        path: PathBuf,
        /// The name of the module's class.
        kind: String,
    },
    /// The bundle to calibrate is not int8.
    #[error("calibration needs int8")]
    NotInt8,
    /// There are no texts to calibrate on.
    #[error("there are no texts to calibrate on")]
    NoTexts,
    /// The folder is a bundle already.
    #[error("{}: this is already a bundle; expected the folder of a model or of a run", folder.display())]
    Sealed {
        /// The folder.
        folder: PathBuf,
    },
}

impl Error {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Write { path, source }
    }

    pub(crate) fn bad_manifest(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::BadManifest { path: path.into(), reason: reason.into() }
    }
}
