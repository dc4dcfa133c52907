use kiln_metrics::{AnswerLanguage, ConfidenceBin, EntityScores};
use kiln_schema::TagScheme;
use serde::Serialize;

use crate::{ByLength, CalibrationReport, Confusions};

/// The scores of a model on one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// Mean loss, before any calibration.
    pub loss: f64,
    /// Number of rows.
    pub examples: usize,
    /// Calibration of the probabilities, for labels of whole texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationReport>,
    /// Scores by text length, for the split whose mistakes are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_length: Option<ByLength>,
    /// The scores of the task.
    #[serde(flatten)]
    pub scores: Scores,
}

/// The scores of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "there is one for each split")]
pub enum Scores {
    /// Single-label classification.
    Labels(LabelScores),
    /// Multi-label classification.
    LabelSets(LabelSetScores),
    /// Regression.
    Numbers(NumberScores),
    /// Tagging.
    Tags(TagScores),
    /// Question answering.
    Answers(AnswerScores),
    /// Masked language modelling.
    Masked(MaskedScores),
}

impl SplitReport {
    /// A report without calibration and without scores by length.
    pub(crate) fn new(loss: f64, examples: usize, scores: Scores) -> Self {
        Self { loss, examples, calibration: None, by_length: None, scores }
    }

    /// The main scores, as the training log shows them, by their names in reports and recipes.
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

    /// The main score with a name, if the task has it.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.named().into_iter().find(|(known, _)| *known == name).map(|(_, score)| score)
    }

    /// The scores of each label; empty for tasks without labels.
    pub fn labels(&self) -> &[LabelReport] {
        match &self.scores {
            Scores::Labels(scores) => &scores.labels,
            Scores::LabelSets(scores) => &scores.labels,
            Scores::Tags(scores) => &scores.labels,
            Scores::Numbers(_) | Scores::Answers(_) | Scores::Masked(_) => &[],
        }
    }
}

/// The scores of single-label classification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScores {
    /// Share of right predictions.
    pub accuracy: f64,
    /// 95 % confidence interval of the accuracy (Wilson).
    pub accuracy_interval: [f64; 2],
    /// Mean F1 over the labels.
    pub macro_f1: f64,
    /// Mean precision over the labels.
    pub macro_precision: f64,
    /// Mean recall over the labels.
    pub macro_recall: f64,
    /// Area under the ROC curve. With more than two labels, it is the mean over the labels of one against all others. Absent
    /// if it is undefined, such as when a label has no row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roc_auc: Option<f64>,
    /// Matthews' correlation coefficient, −1 to 1.
    pub mcc: f64,
    /// Expected calibration error: mean difference between confidence and accuracy in ten bins, weighted by their size.
    pub calibration_error: f64,
    /// The ten bins, from the lowest confidence to the highest.
    pub reliability: Vec<Reliability>,
    /// The scores of each label, in the order of the logits.
    pub labels: Vec<LabelReport>,
    /// The confusion matrix or the largest confusions.
    #[serde(flatten)]
    pub confusions: Confusions,
}

/// The predictions whose confidence is in one range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Number of predictions.
    pub examples: u64,
    /// Mean confidence of the predictions.
    pub confidence: f64,
    /// Share of right predictions.
    pub accuracy: f64,
}

impl From<ConfidenceBin> for Reliability {
    fn from(ConfidenceBin { examples, confidence, accuracy }: ConfidenceBin) -> Self {
        Self { examples, confidence, accuracy }
    }
}

/// The scores of multi-label classification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelSetScores {
    /// Share of rows whose set of labels is predicted exactly.
    pub accuracy: f64,
    /// F1 over all pairs of row and label.
    pub micro_f1: f64,
    /// Precision over all pairs of row and label.
    pub micro_precision: f64,
    /// Recall over all pairs of row and label.
    pub micro_recall: f64,
    /// Mean F1 over the labels.
    pub macro_f1: f64,
    /// Mean area under the ROC curve over the labels; absent if all rows or no row have some label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roc_auc: Option<f64>,
    /// The labels' own thresholds and the scores without them; absent if the labels have no thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_half: Option<ThresholdScores>,
    /// The scores of each label, in the order of the logits.
    pub labels: Vec<LabelReport>,
}

/// Thresholds of labels, and the scores of the same probabilities with a threshold of 0.5 for all labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThresholdScores {
    /// The lowest probability at which each label is predicted, in the order of the logits.
    pub thresholds: Vec<f64>,
    /// Share of rows whose set of labels is predicted exactly.
    pub accuracy: f64,
    /// F1 over all pairs of row and label.
    pub micro_f1: f64,
    /// Mean F1 over the labels.
    pub macro_f1: f64,
}

/// The scores of regression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberScores {
    /// Pearson's correlation.
    pub pearson: f64,
    /// Spearman's correlation.
    pub spearman: f64,
    /// Mean of the squared errors.
    pub mean_squared_error: f64,
}

/// The scores of tagging.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagScores {
    /// How tags form entities or words.
    pub tag_scheme: TagScheme,
    /// Share of units with the right tag.
    pub accuracy: f64,
    /// Mean F1 over the tags.
    pub macro_f1: f64,
    /// The scores of the entities or words that the tags form; absent for plain tags.
    #[serde(flatten)]
    pub spans: Option<SpanScores>,
    /// Number of units.
    pub units: usize,
    /// Scores of each entity label in alphabetical order, or of each plain tag in the order of the logits. Empty for words.
    pub labels: Vec<LabelReport>,
}

/// The scores of entities, counted as by seqeval, or of words, counted as in the SIGHAN bakeoffs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpanScores {
    /// Share of predicted entities that are right.
    pub entity_precision: f64,
    /// Share of true entities that are predicted.
    pub entity_recall: f64,
    /// Harmonic mean of precision and recall.
    pub entity_f1: f64,
}

/// The scores of question answering, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerScores {
    /// Share of predicted answers that equal a true answer.
    pub exact_match: f64,
    /// Mean F1 of the predicted answers, each with the most similar true answer.
    pub f1: f64,
    /// The language whose rules are used to compare answers.
    pub answer_language: AnswerLanguage,
}

/// The scores of masked language modelling and next-sentence prediction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskedScores {
    /// Share of the masked tokens that are predicted correctly.
    pub masked_accuracy: f64,
    /// Mean cross-entropy of the masked tokens.
    pub masked_loss: f64,
    /// `exp(masked_loss)`: the number of equally likely tokens that would give the same loss.
    pub perplexity: f64,
    /// Number of masked tokens.
    pub masked: usize,
    /// Share of rows with a correct next-sentence prediction; absent if the model has no such head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_sentence_accuracy: Option<f64>,
}

/// The scores of one label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    /// The label's name.
    pub label: String,
    /// Share of the label's predictions that are right.
    pub precision: f64,
    /// Share of the label's targets that are predicted.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Number of the label's targets.
    pub support: u64,
}

impl LabelReport {
    pub(crate) fn new(label: &str, EntityScores { precision, recall, f1, support }: EntityScores) -> Self {
        Self { label: label.to_owned(), precision, recall, f1, support: support as u64 }
    }
}
