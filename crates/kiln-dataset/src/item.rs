use kiln_schema::{Example, LabelId, Question, TaggedText};

/// An item that can be split and audited. It has one or two texts, and may have labels.
pub trait Item {
    /// Whether items longer than the maximum length are read in overlapping windows; other items are cut.
    const IS_WINDOWED: bool = false;

    /// The texts that identify the item.
    fn texts(&self) -> (&str, Option<&str>);

    /// The text that must not occur in two splits.
    fn source(&self) -> (&str, Option<&str>) {
        self.texts()
    }

    /// The label ids. For a tagged text, the tag of each unit.
    fn labels(&self) -> &[LabelId] {
        &[]
    }

    /// The stratum of the item in a stratified split: the labels that its split should have a share of.
    fn stratum(&self) -> &[LabelId] {
        &[]
    }
}

impl Item for Example<LabelId> {
    fn texts(&self) -> (&str, Option<&str>) {
        self.texts()
    }

    fn labels(&self) -> &[LabelId] {
        std::slice::from_ref(&self.target)
    }

    fn stratum(&self) -> &[LabelId] {
        self.labels()
    }
}

impl Item for Example<Vec<LabelId>> {
    fn texts(&self) -> (&str, Option<&str>) {
        self.texts()
    }

    fn labels(&self) -> &[LabelId] {
        &self.target
    }

    fn stratum(&self) -> &[LabelId] {
        self.labels()
    }
}

impl Item for Example<f64> {
    fn texts(&self) -> (&str, Option<&str>) {
        self.texts()
    }
}

impl Item for TaggedText {
    const IS_WINDOWED: bool = true;

    fn texts(&self) -> (&str, Option<&str>) {
        (&self.text, None)
    }

    fn labels(&self) -> &[LabelId] {
        &self.tags
    }
}

impl Item for Question {
    const IS_WINDOWED: bool = true;

    fn texts(&self) -> (&str, Option<&str>) {
        (&self.question, Some(&self.context))
    }

    fn source(&self) -> (&str, Option<&str>) {
        (&self.context, None)
    }
}
