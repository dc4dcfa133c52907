use std::path::PathBuf;

/// An error while text is prepared for pre-training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The corpus cannot be read.
    #[error(transparent)]
    Dataset(#[from] kiln_dataset::Error),
    /// A sentence cannot be tokenized.
    #[error(transparent)]
    Tokenize(#[from] kiln_tokenize::Error),
    /// The files of the token store or of the teacher's states cannot be written or read.
    #[error("{}: cannot store the tokens of the corpus", folder.display())]
    Store {
        /// The folder of the files.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The student's tokenizer is byte-level: a token may be a part of a character.
    #[error("the student's tokens are bytes; distillation needs tokens of whole characters")]
    ByteLevel,
    /// The student is wider than its teacher.
    #[error("the student's hidden size is {student}, expected at most the teacher's, {teacher}")]
    WiderStudent {
        /// Width of the student's hidden states.
        student: usize,
        /// Width of the teacher's hidden states.
        teacher: usize,
    },
    /// The teacher's states would take too much space on disk.
    #[error("the teacher's hidden states of the corpus would take {bytes} bytes on disk, expected at most {most}")]
    TeacherStates {
        /// Size of the states in bytes.
        bytes: u64,
        /// The limit in bytes.
        most: u64,
    },
    /// The vocabulary has no mask token.
    #[error("the vocabulary has no mask token: looked for `[MASK]` and `<mask>`")]
    NoMaskToken,
    /// The corpus is too small.
    #[error(
        "the corpus has {rows} rows of two tokens or more, expected at least {expected}: one for training and one for validation"
    )]
    TooFewRows {
        /// Number of rows in the corpus.
        rows: usize,
        /// Number of rows that are needed.
        expected: usize,
    },
    /// Next-sentence prediction needs a second document, and there is none.
    #[error(
        "`next_sentence` needs training rows of two documents, each with enough text for a row of two tokens; found one \
         such document among {documents}. Separate documents by a blank line, or set `next_sentence = false`"
    )]
    NoOtherDocument {
        /// Number of all documents.
        documents: u64,
    },
}
