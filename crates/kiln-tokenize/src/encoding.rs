/// One row: the token ids of a text or of a pair, special tokens included, not padded.
///
/// Every token is real, so its attention mask is 1 everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Indices into the vocabulary.
    pub input_ids: Vec<u32>,
    /// 0 for the first text and its special tokens; for the second text what the tokenizer's template gives, BERT's 1.
    pub token_type_ids: Vec<u32>,
    /// How many tokens there were before truncation, special ones included.
    pub full_length: usize,
    /// Whether `full_length` counts the whole text. It leaves out what [`crate::Tokenizer::encode`] did not read of a long
    /// text, and the rest of a long stretch that cannot be cut.
    pub full_length_is_exact: bool,
}

impl Encoding {
    /// Whether tokens were cut off.
    pub fn is_truncated(&self) -> bool {
        self.full_length > self.input_ids.len()
    }
}

/// How many tokens each encoding has: what batches are ordered by.
pub fn lengths(encodings: &[Encoding]) -> Vec<usize> {
    encodings.iter().map(|encoding| encoding.input_ids.len()).collect()
}
