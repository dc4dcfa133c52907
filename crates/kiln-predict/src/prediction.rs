use kiln_heads::Calibration;
use kiln_metrics::{argmax, softmax_at};
use kiln_schema::{LabelSet, ProblemType};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A model's prediction for a text, as one JSON object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// One label.
    Label(LabelPrediction),
    /// Any number of labels.
    Labels(LabelsPrediction),
    /// A number.
    Number(NumberPrediction),
    /// Entities, or words.
    Entities(EntitiesPrediction),
    /// A tag for each unit.
    Tags(TagsPrediction),
    /// A passage.
    Answer(AnswerPrediction),
    /// Masked tokens.
    Filled(FilledPrediction),
}

/// One label of a text or a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelPrediction {
    /// The text or the pair.
    #[serde(flatten)]
    pub texts: Texts,
    /// The most probable label; none, `null` in JSON, where [`LabelPrediction::unless_below`] abstains.
    pub label: Option<String>,
    /// The highest probability.
    pub score: f64,
    /// Every label's probability, in the order of the logits.
    #[serde(serialize_with = "as_map")]
    pub scores: Vec<(String, f64)>,
}

impl LabelPrediction {
    /// The same; without a label where its probability is below the least that is wanted.
    pub fn unless_below(self, min_score: f64) -> Self {
        Self { label: self.label.filter(|_| self.score >= min_score), ..self }
    }
}

/// Any number of labels of a text or a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelsPrediction {
    /// The text or the pair.
    #[serde(flatten)]
    pub texts: Texts,
    /// The labels whose probability is at least a half.
    pub labels: Vec<String>,
    /// Every label's probability, in the order of the logits.
    #[serde(serialize_with = "as_map")]
    pub scores: Vec<(String, f64)>,
}

/// A number for a text or a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberPrediction {
    /// The text or the pair.
    #[serde(flatten)]
    pub texts: Texts,
    /// The number.
    pub score: f64,
}

/// A text, or a pair.
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
    /// In order.
    pub entities: Vec<EntityPrediction>,
}

/// A passage of a text and its label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntityPrediction {
    /// The label of its tags; `_` of a word.
    pub label: String,
    /// The first character (Unicode scalar values).
    pub start: usize,
    /// Behind the last character.
    pub end: usize,
    /// The passage.
    pub text: String,
    /// The mean probability of its tags.
    pub score: f64,
}

/// A plain tag for each unit of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagsPrediction {
    /// The text.
    pub text: String,
    /// In order.
    pub tags: Vec<TagPrediction>,
}

/// A unit of a text and its tag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagPrediction {
    /// The most probable tag.
    pub tag: String,
    /// The first character (Unicode scalar values).
    pub start: usize,
    /// Behind the last character.
    pub end: usize,
    /// The unit.
    pub text: String,
    /// The tag's probability.
    pub score: f64,
}

/// A passage of a context.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerPrediction {
    /// What was asked.
    pub question: String,
    /// The passage; empty where the model finds none.
    pub answer: String,
    /// Its first character in the context (Unicode scalar values).
    pub start: usize,
    /// Behind its last character.
    pub end: usize,
    /// Its probability, as transformers' question-answering pipeline computes it.
    pub score: f64,
}

/// The predicted tokens of the masks of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilledPrediction {
    /// The text with its masks.
    pub text: String,
    /// The same with the most probable token in place of each.
    pub filled: String,
    /// In order.
    pub masks: Vec<MaskPrediction>,
}

/// The most probable tokens of a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskPrediction {
    /// The most probable first.
    pub tokens: Vec<TokenPrediction>,
}

/// A token and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenPrediction {
    /// Its index into the vocabulary.
    #[serde(skip)]
    pub id: u32,
    /// As the vocabulary has it.
    pub token: String,
    /// What it stands for in a text.
    pub text: String,
    /// Its probability.
    pub score: f64,
}

/// How the logits of a sequence classifier are read.
pub(crate) struct SequenceHead<'a> {
    pub labels: &'a LabelSet,
    pub problem_type: ProblemType,
    /// None: the probabilities of the logits as they are, and thresholds of a half.
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

/// A map that keeps its order, which a sorted or hashed one would not.
fn as_map<S: Serializer>(scores: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(scores.len()))?;
    for (label, score) in scores {
        map.serialize_entry(label, score)?;
    }
    map.end()
}
