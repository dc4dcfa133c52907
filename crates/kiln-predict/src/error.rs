use std::path::PathBuf;

/// Why a model folder gives no predictions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Model(#[from] kiln_heads::Error),
    /// The tokenizer, or a text that it cannot encode.
    #[error(transparent)]
    Tokenize(#[from] kiln_tokenize::Error),
    /// Logits that are no numbers.
    #[error("`{text}`: the model's output is {value}; expected finite numbers. Its weights are too large, or damaged")]
    NotFinite {
        /// The beginning of the text.
        text: String,
        /// NaN or an infinity.
        value: f32,
    },
    /// A question without a text that answers it.
    #[error("`{question}` has no context; a question is answered from a second text")]
    NoContext {
        /// The question.
        question: String,
    },
    /// A text without a mask to fill.
    #[error("there is no {mask} in the text `{text}`")]
    NoMask {
        /// The mask token.
        mask: String,
        /// The text.
        text: String,
    },
    /// A vocabulary without a token to mask with.
    #[error("{}: the tokenizer's vocabulary has no mask token", folder.display())]
    NoMaskToken {
        /// The model folder.
        folder: PathBuf,
    },
    /// Vectors of a pooler that the checkpoint does not have.
    #[error("{}: the checkpoint has no pooler; pool by cls or mean", folder.display())]
    NoPooler {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
}
