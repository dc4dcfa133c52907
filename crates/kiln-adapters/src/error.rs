use std::path::{Path, PathBuf};

/// Why an adapter could not be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error in a file, or in the weights of the adapter or the encoder.
    #[error(transparent)]
    Bert(#[from] kiln_bert::Error),
    /// A setting that is out of range.
    #[error("adapter.{field} is {found}; expected {expected}")]
    Setting {
        /// The key.
        field: &'static str,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// An invalid setting or choice of layers in a file.
    #[error("{}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// Other settings exclude every layer that `target_modules` names.
    #[error(
        "adapter: `exclude_modules`, `layers_to_transform` and `train_pooler` leave out every layer that `target_modules` names, \
         beginning with {first}"
    )]
    NoneLeft {
        /// The full name of the first such layer.
        first: String,
    },
    /// Names in `target_modules` that match no layer.
    #[error(
        "adapter.target_modules: no linear layer is called {}; there are {}, the first with the whole name {example}",
        names.join(", "),
        known.join(", ")
    )]
    NoTarget {
        /// The names without a match.
        names: Vec<String>,
        /// The last components of the layers' names.
        known: Vec<String>,
        /// The full name of a layer, as an example.
        example: String,
    },
    /// A peft setting that Kiln does not support.
    #[error("{}: `{key}` is {found}; Kiln computes adapters with {expected}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What Kiln supports.
        expected: &'static str,
    },
    /// A parameter of the encoder is in the file, so it was trained in full.
    #[error(
        "{}: holds the encoder's `{name}`, which was trained in full; Kiln loads adapters, a pooler and a head",
        path.display()
    )]
    TrainedInFull {
        /// The file.
        path: PathBuf,
        /// The name of the parameter.
        name: String,
    },
    /// Tensors of an adapter that belong to no layer of the encoder.
    #[error("{}: the encoder has no layer for {} tensors of the adapter: {}", path.display(), names.len(), names.join(", "))]
    NoLayer {
        /// The file.
        path: PathBuf,
        /// The names of the tensors.
        names: Vec<String>,
    },
}

impl Error {
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), source: Box::new(self) }
    }
}
