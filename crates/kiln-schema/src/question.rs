/// A question, its context, and the passages of the context that answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The id in the data set.
    pub id: String,
    /// The question.
    pub question: String,
    /// The text that is searched for an answer.
    pub context: String,
    /// The correct answers; empty if the context does not contain an answer.
    pub answers: Vec<Answer>,
}

/// A passage of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The passage.
    pub text: String,
    /// The start of the passage, in characters (Unicode scalar values).
    pub start: usize,
}
