use std::path::PathBuf;

/// Why text could not be prepared for pre-training.
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
    #[error(
        "the corpus has {rows} rows of two tokens or more, expected at least {expected}: one to train on, one to validate with"
    )]
    TooFewRows {
        /// Rows that there are.
        rows: usize,
        /// Rows that it takes.
        expected: usize,
    },
    /// No document that the sentence of another document could come from.
    #[error(
        "`next_sentence` needs two documents with enough text for a row of two tokens; the corpus has {with_rows} \
         among {documents} documents. Separate documents by a blank line, or set `next_sentence = false`"
    )]
    NoOtherDocument {
        /// Documents with a row.
        with_rows: u64,
        /// All documents.
        documents: u64,
    },
}
