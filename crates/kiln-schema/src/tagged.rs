use std::ops::Range;

use crate::LabelId;

/// A text with a tag for each unit (character or word), for named entities, word segmentation or parts of speech.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedText {
    /// The text.
    pub text: String,
    /// The range of each unit in bytes of the text. The ranges are in order and do not overlap.
    pub units: Vec<Range<usize>>,
    /// The tag of each unit.
    pub tags: Vec<LabelId>,
}

impl TaggedText {
    /// Iterates over the text of each unit.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.units.iter().map(|unit| &self.text[unit.clone()])
    }
}
