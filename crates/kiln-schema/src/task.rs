use std::fmt;

use serde::{Deserialize, Serialize};

/// What a model is trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One label, several, or a number for a text or a pair of texts: which of them, [`ProblemType`] says.
    SequenceClassification,
    /// A tag for each character or word of a text.
    TokenClassification,
    /// The passage of a text that answers a question.
    QuestionAnswering,
    /// The tokens that were masked, and, where asked for, whether one sentence follows another: pre-training.
    MaskedLm,
}

impl Task {
    /// Its name in recipes and reports.
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

/// What a sequence classifier's logits are, by transformers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// Exactly one label is right: softmax.
    #[default]
    SingleLabelClassification,
    /// Each label is right or not: a sigmoid each.
    MultiLabelClassification,
    /// One number.
    Regression,
}

impl ProblemType {
    /// Its name in recipes and configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleLabelClassification => "single_label_classification",
            Self::MultiLabelClassification => "multi_label_classification",
            Self::Regression => "regression",
        }
    }
}
