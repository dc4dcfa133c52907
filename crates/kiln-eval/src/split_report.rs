use kiln_metrics::{AnswerLanguage, ConfidenceBin, EntityScores};
use kiln_schema::TagScheme;
use serde::Serialize;

use crate::{ByLength, CalibrationReport, Confusions};

/// How a model does on one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// Mean loss, of the logits before any calibration.
    pub loss: f64,
    /// Rows.
    pub examples: usize,
    /// Of labels of whole texts, how far their probabilities are from the truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationReport>,
    /// Whether long texts are harder than short ones; of the split that the mistakes are listed of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_length: Option<ByLength>,
    /// The task's own scores.
    #[serde(flatten)]
    pub scores: Scores,
}

/// The scores of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "there is one for each split")]
pub enum Scores {
    /// Of one label a row.
    Labels(LabelScores),
    /// Of several labels a row.
    LabelSets(LabelSetScores),
    /// Of a number a row.
    Numbers(NumberScores),
    /// Of a tag a unit.
    Tags(TagScores),
    /// Of passages.
    Answers(AnswerScores),
    /// Of masked tokens.
    Masked(MaskedScores),
}

impl SplitReport {
    /// The scores alone.
    pub(crate) fn new(loss: f64, examples: usize, scores: Scores) -> Self {
        Self { loss, examples, calibration: None, by_length: None, scores }
    }

    /// The numbers that a table and the training's log show, by the names that reports and recipes have for them.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let mut named = vec![("loss", self.loss)];
        named.extend(match &self.scores {
            Scores::Labels(scores) => vec![("accuracy", scores.accuracy), ("macro_f1", scores.macro_f1)],
            Scores::LabelSets(scores) => {
                vec![("accuracy", scores.accuracy), ("macro_f1", scores.macro_f1), ("micro_f1", scores.micro_f1)]
            }
            Scores::Numbers(scores) => vec![("pearson", scores.pearson), ("spearman", scores.spearman)],
            Scores::Tags(scores) => {
                let mut named = vec![("accuracy", scores.accuracy), ("macro_f1", scores.macro_f1)];
                named.extend(scores.spans.iter().flat_map(|spans| {
                    [
                        ("entity_precision", spans.entity_precision),
                        ("entity_recall", spans.entity_recall),
                        ("entity_f1", spans.entity_f1),
                    ]
                }));
                named
            }
            Scores::Answers(scores) => vec![("exact_match", scores.exact_match), ("f1", scores.f1)],
            Scores::Masked(scores) => {
                let next = scores.next_sentence_accuracy.map(|accuracy| ("next_sentence_accuracy", accuracy));
                let masked = [("masked_accuracy", scores.masked_accuracy), ("perplexity", scores.perplexity)];
                masked.into_iter().chain(next).collect()
            }
        });
        named
    }

    /// The number of that name, if the task has it.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.named().into_iter().find(|(known, _)| *known == name).map(|(_, score)| score)
    }

    /// The scores of each label, where there are labels.
    pub fn labels(&self) -> &[LabelReport] {
        match &self.scores {
            Scores::Labels(scores) => &scores.labels,
            Scores::LabelSets(scores) => &scores.labels,
            Scores::Tags(scores) => &scores.labels,
            Scores::Numbers(_) | Scores::Answers(_) | Scores::Masked(_) => &[],
        }
    }
}

/// The scores of one label a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScores {
    /// Share of right predictions.
    pub accuracy: f64,
    /// 95 % interval of the accuracy over samples of this size (Wilson).
    pub accuracy_interval: [f64; 2],
    /// Mean F1 over the labels.
    pub macro_f1: f64,
    /// Mean precision over the labels.
    pub macro_precision: f64,
    /// Mean recall over the labels.
    pub macro_recall: f64,
    /// Area under the ROC curve; with more than two labels, the mean over one label against all others. Absent where it is
    /// undefined, as where a label has no row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roc_auc: Option<f64>,
    /// Matthews' correlation coefficient, −1 to 1.
    pub mcc: f64,
    /// Difference between confidence and accuracy, weighted over ten bins of confidence.
    pub calibration_error: f64,
    /// Those bins, from the lowest confidence to the highest.
    pub reliability: Vec<Reliability>,
    /// In the order of the logits.
    pub labels: Vec<LabelReport>,
    /// Which labels are predicted for which.
    #[serde(flatten)]
    pub confusions: Confusions,
}

/// The predictions whose confidence is in one range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// How many there are.
    pub examples: u64,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that is right.
    pub accuracy: f64,
}

impl From<ConfidenceBin> for Reliability {
    fn from(ConfidenceBin { examples, confidence, accuracy }: ConfidenceBin) -> Self {
        Self { examples, confidence, accuracy }
    }
}

/// The scores of several labels a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelSetScores {
    /// Share of rows whose labels are all right.
    pub accuracy: f64,
    /// F1 over all pairs of row and label.
    pub micro_f1: f64,
    /// Precision over all pairs of row and label.
    pub micro_precision: f64,
    /// Recall over all pairs of row and label.
    pub micro_recall: f64,
    /// Mean F1 over the labels.
    pub macro_f1: f64,
    /// Mean area under the ROC curve over the labels; absent where a label is right for all rows or for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roc_auc: Option<f64>,
    /// Present where labels have thresholds of their own: these, and the scores without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_half: Option<ThresholdScores>,
    /// In the order of the logits.
    pub labels: Vec<LabelReport>,
}

/// What thresholds changed: the scores of the same probabilities with a half for all labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThresholdScores {
    /// The probability from which on each label is predicted, in the order of the logits.
    pub thresholds: Vec<f64>,
    /// Share of rows whose labels are all right.
    pub accuracy: f64,
    /// F1 over all pairs of row and label.
    pub micro_f1: f64,
    /// Mean F1 over the labels.
    pub macro_f1: f64,
}

/// The scores of numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberScores {
    /// Pearson's correlation.
    pub pearson: f64,
    /// Spearman's correlation.
    pub spearman: f64,
    /// Mean of the squared errors.
    pub mean_squared_error: f64,
}

/// The scores of tags.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagScores {
    /// How the tags are read.
    pub tag_scheme: TagScheme,
    /// Share of units with the right tag.
    pub accuracy: f64,
    /// Mean F1 over the tags.
    pub macro_f1: f64,
    /// The scores of the entities or words that the tags make; absent for plain tags.
    #[serde(flatten)]
    pub spans: Option<SpanScores>,
    /// Units.
    pub units: usize,
    /// Of entities, each label in alphabetical order; of plain tags, each tag in the order of the logits.
    pub labels: Vec<LabelReport>,
}

/// The scores of entities, as seqeval counts them, or of words, as the bakeoffs of SIGHAN do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpanScores {
    /// Share of predicted entities that are right.
    pub entity_precision: f64,
    /// Share of true entities that are predicted.
    pub entity_recall: f64,
    /// Harmonic mean of both.
    pub entity_f1: f64,
}

/// The scores of answers, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerScores {
    /// Share of answers that equal a true one.
    pub exact_match: f64,
    /// Mean F1 against the most similar true answer.
    pub f1: f64,
    /// By which language's rules answers are compared.
    pub answer_language: AnswerLanguage,
}

/// The scores of masked tokens, and of next sentences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskedScores {
    /// Share of the masked tokens that are predicted.
    pub masked_accuracy: f64,
    /// Their mean cross-entropy.
    pub masked_loss: f64,
    /// `exp(masked_loss)`: among how many equally likely tokens the model would have to choose.
    pub perplexity: f64,
    /// Masked tokens.
    pub masked: usize,
    /// Share of rows for which it is predicted whether the second segment follows the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_sentence_accuracy: Option<f64>,
}

/// The scores of one label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    /// Its name.
    pub label: String,
    /// Share of its predictions that are right.
    pub precision: f64,
    /// Share of its targets that are predicted.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Its targets.
    pub support: u64,
}

impl LabelReport {
    pub(crate) fn new(label: &str, EntityScores { precision, recall, f1, support }: EntityScores) -> Self {
        Self { label: label.to_owned(), precision, recall, f1, support: support as u64 }
    }
}
