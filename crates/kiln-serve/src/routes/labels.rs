use kiln_predict::{Computed, Prediction};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Model, Outcome};
use crate::refusal::Refusal;

/// A label and its score.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Label {
    /// The label's name.
    pub label: String,
    /// The probability, the number of a regression, or the logit if the request asks for logits.
    pub score: f64,
}

/// The function that is applied to the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Softmax: the probabilities sum to 1.
    Softmax,
    /// Sigmoid: each label has its own probability.
    Sigmoid,
    /// The logits themselves.
    None,
}

/// The labels of a text, best first. Without `function`, the model's own function is applied. A function that gives
/// probabilities is applied to the calibrated logits.
pub fn labels(model: &Model, computed: &Computed, function: Option<Function>) -> Vec<Label> {
    let named = |scores: Vec<f64>| model.labels().iter().cloned().zip(scores).collect::<Vec<_>>();
    let logits = computed.logits.iter().map(|&logit| f64::from(logit));
    let calibrated = logits.clone().map(|logit| logit / model.temperature());
    let scores: Vec<(String, f64)> = match (function, &computed.prediction) {
        (Some(Function::None), _) => named(logits.collect()),
        (None | Some(Function::Softmax), Prediction::Label(label)) => label.scores.clone(),
        (None | Some(Function::Sigmoid), Prediction::Labels(labels)) => labels.scores.clone(),
        (None, Prediction::Number(_)) if model.is_cross_encoder() => named(calibrated.map(sigmoid).collect()),
        (Some(Function::Sigmoid), _) => named(calibrated.map(sigmoid).collect()),
        (Some(Function::Softmax), _) => named(softmax(calibrated)),
        (None, Prediction::Number(number)) => named(vec![number.score]),
        (None, _) => Vec::new(),
    };
    let mut labels: Vec<Label> = scores.into_iter().map(|(label, score)| Label { label, score }).collect();
    labels.sort_by(|a, b| b.score.total_cmp(&a.score));
    labels
}

pub fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn softmax(logits: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let highest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.clone().map(|logit| (logit - highest).exp()).sum();
    logits.map(|logit| (logit - highest).exp() / sum).collect()
}

/// The predictions. All outcomes must be predictions.
pub fn answers(outcomes: Vec<Outcome>) -> Result<Vec<Computed>, Refusal> {
    let answer = |outcome| match outcome {
        Outcome::Answer(computed) => Ok(computed),
        Outcome::Vector(_) => Err(Refusal::internal()),
    };
    outcomes.into_iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_logits() {
        assert_eq!(sigmoid(0.0), 0.5);
        let probabilities = softmax([0.0, 3f64.ln()].into_iter());
        assert!((probabilities[0] - 0.25).abs() < 1e-12 && (probabilities[1] - 0.75).abs() < 1e-12);
    }
}
