/// The token ids of a text or of a pair of texts, with special tokens and without padding.
///
/// As there is no padding, the attention mask is 1 everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Indices into the vocabulary.
    pub input_ids: Vec<u32>,
    /// 0 for the first text and its special tokens. The tokenizer's template decides for the second text; BERT's has 1.
    pub token_type_ids: Vec<u32>,
    /// The number of tokens before truncation, including special tokens.
    pub full_length: usize,
    /// Whether `full_length` counts the whole text. If not, it is a lower bound: [`crate::Tokenizer::encode`] did not read
    /// all of a long text, or a long stretch that cannot be cut was counted in part.
    pub full_length_is_exact: bool,
}

impl Encoding {
    /// Whether the encoding was truncated.
    pub fn is_truncated(&self) -> bool {
        self.full_length > self.input_ids.len()
    }
}

/// The number of tokens of each encoding, by which rows are batched.
pub fn lengths(encodings: &[Encoding]) -> Vec<usize> {
    encodings.iter().map(|encoding| encoding.input_ids.len()).collect()
}
