use std::path::PathBuf;

/// Why text could not be made ready for pre-training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The corpus cannot be read.
    #[error(transparent)]
    Dataset(#[from] kiln_dataset::Error),
    /// A sentence cannot be tokenized.
    #[error(transparent)]
    Tokenize(#[from] kiln_tokenize::Error),
    /// The token store's files cannot be written or read.
    #[error("{}: the tokens of the corpus cannot be kept there", folder.display())]
    Store {
        /// Their folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A vocabulary without a token to mask with.
    #[error("the vocabulary has no mask token: looked for `[MASK]` and `<mask>`")]
    NoMaskToken,
    /// Too little text.
    #[error("the corpus has {found}, expected at least {expected}")]
    TooSmall {
        /// What there is.
        found: String,
        /// What it takes.
        expected: &'static str,
    },
}
