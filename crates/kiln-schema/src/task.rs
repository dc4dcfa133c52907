use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of output that a model is trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Labels or a number for a text or a pair of texts; see [`ProblemType`].
    SequenceClassification,
    /// A tag for each character or word of a text.
    TokenClassification,
    /// The passage of a text that answers a question.
    QuestionAnswering,
    /// Masked tokens and, optionally, whether one sentence follows another. This is pre-training.
    MaskedLm,
}

impl Task {
    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::SequenceClassification => "sequence-classification",
            Self::TokenClassification => "token-classification",
            Self::QuestionAnswering => "question-answering",
            Self::MaskedLm => "masked-lm",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The meaning of a sequence classifier's logits, with the names of transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// Exactly one label is correct; the logits go through a softmax.
    #[default]
    SingleLabelClassification,
    /// Any number of labels can be correct; each logit goes through a sigmoid.
    MultiLabelClassification,
    /// The logit is a number.
    Regression,
}

impl ProblemType {
    /// The name in recipes and configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleLabelClassification => "single_label_classification",
            Self::MultiLabelClassification => "multi_label_classification",
            Self::Regression => "regression",
        }
    }
}
