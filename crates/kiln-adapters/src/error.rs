use std::path::{Path, PathBuf};

/// Why an adapter could not be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, or the weights of the adapter or of the encoder.
    #[error(transparent)]
    Bert(#[from] kiln_bert::Error),
    /// A setting that is out of range.
    #[error("adapter.{field} is {found}; expected {expected}")]
    Setting {
        /// The key.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A setting or a choice of layers in a file.
    #[error("{}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// Layers that are named, and then left out again.
    #[error(
        "adapter: `exclude_modules`, `layers_to_transform` and `train_pooler` leave out every layer that `target_modules` names, \
         beginning with {first}"
    )]
    NoneLeft {
        /// A layer's whole name.
        first: String,
    },
    /// Names that no layer has.
    #[error(
        "adapter.target_modules: no linear layer is called {}; there are {}, the first with the whole name {example}",
        names.join(", "),
        known.join(", ")
    )]
    NoTarget {
        /// Those that match nothing.
        names: Vec<String>,
        /// The last parts of the layers' names.
        known: Vec<String>,
        /// A layer's whole name.
        example: String,
    },
    /// A setting of peft's that Kiln does not compute.
    #[error("{}: `{key}` is {found}; Kiln computes adapters with {expected}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is computed.
        expected: &'static str,
    },
    /// Tensors of an adapter that belong to no layer of the encoder.
    #[error("{}: the encoder has no layer for {} tensors of the adapter: {}", path.display(), names.len(), names.join(", "))]
    NoLayer {
        /// The file.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
}

impl Error {
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), source: Box::new(self) }
    }
}
