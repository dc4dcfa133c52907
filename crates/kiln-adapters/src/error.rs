use std::path::PathBuf;

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
    /// Names that no layer has, or of which none is left.
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
