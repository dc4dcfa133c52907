use std::path::PathBuf;

/// Why a model folder cannot be loaded, or a prediction cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] kiln_heads::Error),
    /// The tokenizer cannot be loaded, or cannot encode a text.
    #[error(transparent)]
    Tokenize(#[from] kiln_tokenize::Error),
    /// The model's output for a text is not finite.
    #[error(
        "`{text}`: the model's output is {value}; expected finite numbers. Its weights may be too large or damaged"
    )]
    NotFinite {
        /// The beginning of the text.
        text: String,
        /// NaN or an infinity.
        value: f32,
    },
    /// A question has no context.
    #[error("`{question}` has no context; a question is answered from a second text")]
    NoContext {
        /// The beginning of the question.
        question: String,
    },
    /// A text has no mask to fill.
    #[error("there is no {mask} in the text `{text}`")]
    NoMask {
        /// The mask token.
        mask: String,
        /// The beginning of the text.
        text: String,
    },
    /// The mask is behind the last token that the model takes.
    #[error("the {mask} is cut off: the text has more tokens than the {max_length} that the model takes")]
    MaskCut {
        /// The mask token.
        mask: String,
        /// The maximum length, in tokens.
        max_length: usize,
    },
    /// The vocabulary has no mask token.
    #[error("{}: the tokenizer's vocabulary has no mask token", folder.display())]
    NoMaskToken {
        /// The model folder.
        folder: PathBuf,
    },
    /// The pooling needs a pooler, and the checkpoint has none.
    #[error("{}: the checkpoint has no pooler; pool by cls or mean", folder.display())]
    NoPooler {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
}
