use kiln_schema::{Example, LabelId, Question, TaggedText};

/// What can be divided and audited: something with a text, or two, and perhaps labels.
pub trait Item {
    /// Whether one that is too long goes through overlapping windows; others are cut.
    const IS_WINDOWED: bool = false;

    /// What tells it from others.
    fn texts(&self) -> (&str, Option<&str>);

    /// What must not stand on two sides of a split.
    fn source(&self) -> (&str, Option<&str>) {
        self.texts()
    }

    /// Its labels; of a tagged text, the tag of each unit.
    fn labels(&self) -> &[LabelId] {
        &[]
    }

    /// What splits are stratified by.
    fn stratum(&self) -> LabelId {
        0
    }
}

impl Item for Example<LabelId> {
    fn texts(&self) -> (&str, Option<&str>) {
        self.texts()
    }

    fn labels(&self) -> &[LabelId] {
        std::slice::from_ref(&self.target)
    }

    fn stratum(&self) -> LabelId {
        self.target
    }
}

impl Item for Example<Vec<LabelId>> {
    fn texts(&self) -> (&str, Option<&str>) {
        self.texts()
    }

    fn labels(&self) -> &[LabelId] {
        &self.target
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
