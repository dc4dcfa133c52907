use kiln_heads::Calibration;
use kiln_metrics::{argmax, softmax_at};
use kiln_schema::{LabelSet, ProblemType};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A model's prediction for a text. It serializes to a JSON object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// One label.
    Label(LabelPrediction),
    /// Any number of labels.
    Labels(LabelsPrediction),
    /// A number.
    Number(NumberPrediction),
    /// Entities or words.
    Entities(EntitiesPrediction),
    /// A tag for each unit.
    Tags(TagsPrediction),
    /// An answer to a question.
    Answer(AnswerPrediction),
    /// Tokens for the masks.
    Filled(FilledPrediction),
}

/// The predicted label of a text or a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelPrediction {
    /// The text or the pair.
    #[serde(flatten)]
    pub texts: Texts,
    /// The most probable label. `None`, `null` in JSON, if [`LabelPrediction::unless_below`] has removed it.
    pub label: Option<String>,
    /// The highest probability.
    pub score: f64,
    /// Every label's probability, in the order of the logits.
    #[serde(serialize_with = "as_map")]
    pub scores: Vec<(String, f64)>,
}

impl LabelPrediction {
    /// Removes the label if its probability is below `min_score`.
    pub fn unless_below(self, min_score: f64) -> Self {
        Self { label: self.label.filter(|_| self.score >= min_score), ..self }
    }
}

/// The predicted labels of a text or a pair: any number of labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelsPrediction {
    /// The text or the pair.
    #[serde(flatten)]
    pub texts: Texts,
    /// The labels whose probability is at least their threshold: one half, unless a calibration has other thresholds.
    pub labels: Vec<String>,
    /// Every label's probability, in the order of the logits.
    #[serde(serialize_with = "as_map")]
    pub scores: Vec<(String, f64)>,
}

/// The predicted number for a text or a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberPrediction {
    /// The text or the pair.
    #[serde(flatten)]
    pub texts: Texts,
    /// The number.
    pub score: f64,
}

/// A text or a pair of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Texts {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
}

/// The entities of a text, or its words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntitiesPrediction {
    /// The text.
    pub text: String,
    /// The entities or words, in the order of the text.
    pub entities: Vec<EntityPrediction>,
}

/// A labelled passage of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntityPrediction {
    /// The label of the entity, or `_` for a word.
    pub label: String,
    /// The position of the first character (in Unicode scalar values).
    pub start: usize,
    /// The position after the last character.
    pub end: usize,
    /// The text of the passage.
    pub text: String,
    /// The mean probability of the passage's tags.
    pub score: f64,
}

/// A plain tag for each unit of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagsPrediction {
    /// The text.
    pub text: String,
    /// The tags of the units, in the order of the text.
    pub tags: Vec<TagPrediction>,
}

/// A unit of a text and its tag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagPrediction {
    /// The predicted tag.
    pub tag: String,
    /// The position of the first character (in Unicode scalar values).
    pub start: usize,
    /// The position after the last character.
    pub end: usize,
    /// The text of the unit.
    pub text: String,
    /// The tag's probability.
    pub score: f64,
}

/// The answer to a question: a passage of its context.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerPrediction {
    /// The question.
    pub question: String,
    /// The text of the passage. Empty if there is no answer.
    pub answer: String,
    /// The position of the first character in the context (in Unicode scalar values).
    pub start: usize,
    /// The position after the last character.
    pub end: usize,
    /// The probability of the answer, computed as by transformers' question-answering pipeline.
    pub score: f64,
}

/// The predicted tokens for the masks of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilledPrediction {
    /// The text with its masks.
    pub text: String,
    /// The second text of a pair with its masks, which come after those of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// The text with each mask replaced by its most probable token.
    pub filled: String,
    /// The predictions for the masks, in the order of the texts.
    pub masks: Vec<MaskPrediction>,
}

/// The most probable tokens for a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskPrediction {
    /// The tokens, the most probable first.
    pub tokens: Vec<TokenPrediction>,
}

/// A token and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenPrediction {
    /// The index of the token in the vocabulary.
    #[serde(skip)]
    pub id: u32,
    /// The token as it is in the vocabulary.
    pub token: String,
    /// The text of the token, without `##`, `▁` or the space before it.
    pub text: String,
    /// The probability of the token.
    pub score: f64,
}

/// How the logits of a sequence classifier become a prediction.
pub(crate) struct SequenceHead<'a> {
    pub labels: &'a LabelSet,
    pub problem_type: ProblemType,
    /// `None`: a temperature of 1 and thresholds of one half.
    pub calibration: Option<&'a Calibration>,
}

impl Prediction {
    /// # Shapes
    /// - `logits`: `[num_labels]`
    pub(crate) fn of_sequence(
        (text, text_pair): (&str, Option<&str>),
        logits: &[f32],
        SequenceHead { labels, problem_type, calibration }: SequenceHead<'_>,
    ) -> Self {
        let temperature = calibration.map_or(1.0, |calibration| calibration.temperature);
        let texts = Texts { text: text.to_owned(), text_pair: text_pair.map(str::to_owned) };
        let named = |scores: Vec<f64>| labels.names().iter().cloned().zip(scores).collect::<Vec<_>>();
        match problem_type {
            ProblemType::SingleLabelClassification => {
                let probabilities = softmax_at(logits, temperature);
                let best = argmax(logits);
                let (label, score) = (Some(labels.name(best).to_owned()), probabilities[best]);
                Self::Label(LabelPrediction { texts, label, score, scores: named(probabilities) })
            }
            ProblemType::MultiLabelClassification => {
                let probability = |&logit: &f32| 1.0 / (1.0 + (f64::from(-logit) / temperature).exp());
                let above = calibration.map_or(logits.into(), |calibration| calibration.above_thresholds(logits));
                let predicted = above.iter().zip(labels.names()).filter(|(logit, _)| **logit >= 0.0);
                let predicted = predicted.map(|(_, label)| label.clone()).collect();
                let scores = named(logits.iter().map(probability).collect());
                Self::Labels(LabelsPrediction { texts, labels: predicted, scores })
            }
            ProblemType::Regression => Self::Number(NumberPrediction { texts, score: f64::from(logits[0]) }),
        }
    }
}

/// Serializes pairs as a JSON object in their order.
fn as_map<S: Serializer>(scores: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(scores.len()))?;
    for (label, score) in scores {
        map.serialize_entry(label, score)?;
    }
    map.end()
}
