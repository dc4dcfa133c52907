/// A question, the text that answers it, and the passages of it that do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// As the data set names it.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// What is read.
    pub context: String,
    /// Any of these is right; none says that the context has no answer.
    pub answers: Vec<Answer>,
}

/// A passage of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As it stands in the context.
    pub text: String,
    /// Where it starts, in characters (Unicode scalar values).
    pub start: usize,
}
