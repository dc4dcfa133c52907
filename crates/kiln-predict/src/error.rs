use std::path::PathBuf;

/// Why a model folder cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Model(#[from] kiln_heads::Error),
    /// The tokenizer, or a text that it cannot encode.
    #[error(transparent)]
    Tokenize(#[from] kiln_tokenize::Error),
    /// A tokenizer with ids that the model has no embedding for.
    #[error(
        "{}: the tokenizer has {tokenizer} entries and the model's word embeddings only {model}; they are not of one model",
        folder.display()
    )]
    Vocabulary {
        /// The model folder.
        folder: PathBuf,
        /// Entries of the tokenizer.
        tokenizer: usize,
        /// Rows of the word embeddings.
        model: usize,
    },
    /// A maximum length beyond the model's positions.
    #[error(
        "{}: tokenizer_config.json allows {tokenizer} tokens and the model has {model} positions",
        folder.display()
    )]
    MaxLength {
        /// The model folder.
        folder: PathBuf,
        /// `model_max_length` of the tokenizer.
        tokenizer: usize,
        /// `max_position_embeddings` of the model.
        model: usize,
    },
    /// A question without a text that answers it.
    #[error("`{question}` has no context; a question is answered from a second text")]
    NoContext {
        /// The question.
        question: String,
    },
    /// A text without anything to tell.
    #[error("there is no {mask} in the text `{text}`")]
    NoMask {
        /// What stands for a token to be told.
        mask: String,
        /// The text.
        text: String,
    },
    /// A vocabulary without a token to mask with.
    #[error("the tokenizer's vocabulary has no mask token")]
    NoMaskToken,
    /// Vectors of a pooler that the checkpoint does not have.
    #[error("{}: the checkpoint has no pooler; pool by cls or mean", folder.display())]
    NoPooler {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
}
