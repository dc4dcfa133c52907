use std::ops::Range;

use crate::LabelId;

/// A text whose units, characters or words, each have a tag: training data for named entities, word segmentation or parts of
/// speech.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedText {
    /// The text.
    pub text: String,
    /// The range of each unit, in bytes of the text: in order, without overlaps.
    pub units: Vec<Range<usize>>,
    /// The tag of each unit.
    pub tags: Vec<LabelId>,
}

impl TaggedText {
    /// The units themselves.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.units.iter().map(|unit| &self.text[unit.clone()])
    }
}
