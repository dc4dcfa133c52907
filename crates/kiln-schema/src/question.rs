/// A question, its context, and the passages of the context that answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name in the data set.
    pub id: String,
    /// The question.
    pub question: String,
    /// The text that is searched for an answer.
    pub context: String,
    /// The right answers. Empty where the context has no answer.
    pub answers: Vec<Answer>,
}

/// A passage of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The passage.
    pub text: String,
    /// Where it starts, in characters (Unicode scalar values).
    pub start: usize,
}
