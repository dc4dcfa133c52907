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
    /// A student whose tokens are not text.
    #[error("the student's tokens stand for bytes, and what a teacher makes of a part of a character is not known")]
    ByteLevel,
    /// A student that is wider than its teacher.
    #[error("the student's hidden states have {student} numbers, expected at most as many as the teacher's, {teacher}")]
    WiderStudent {
        /// Width of the student's hidden states.
        student: usize,
        /// Width of the teacher's.
        teacher: usize,
    },
    /// A teacher's states would take too much disk.
    #[error("the teacher's states of the corpus would take {bytes} bytes on disk, expected at most {most}")]
    TeacherStates {
        /// What they would take.
        bytes: u64,
        /// The limit.
        most: u64,
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
