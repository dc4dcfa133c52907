use crate::LabelId;

/// One labelled row: a text, or a pair of texts, and its target.
///
/// The type of the target depends on the task: a [`LabelId`], `Vec<LabelId>` for several labels, or `f64` for a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example<T = LabelId> {
    /// The text, trimmed, or the first text of a pair.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
    /// The true label, labels or number.
    pub target: T,
}

impl<T> Example<T> {
    /// The text and, for a pair, the second text, as a tokenizer takes them.
    pub fn texts(&self) -> (&str, Option<&str>) {
        (&self.text, self.text_pair.as_deref())
    }
}
