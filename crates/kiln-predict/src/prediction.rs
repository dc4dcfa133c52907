use kiln_metrics::{argmax, softmax};
use kiln_schema::LabelSet;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// What a classifier says of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// The most probable label.
    pub label: String,
    /// Its probability.
    pub score: f64,
    /// Every label's probability, in the order of the logits.
    #[serde(serialize_with = "as_map")]
    pub scores: Vec<(String, f64)>,
}

impl Prediction {
    /// # Shapes
    /// - `logits`: `[num_labels]`
    pub(crate) fn new((text, text_pair): (&str, Option<&str>), logits: &[f32], labels: &LabelSet) -> Self {
        let probabilities = softmax(logits);
        let best = argmax(logits);
        Self {
            text: text.to_owned(),
            text_pair: text_pair.map(str::to_owned),
            label: labels.name(best).to_owned(),
            score: probabilities[best],
            scores: labels.names().iter().cloned().zip(probabilities).collect(),
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
