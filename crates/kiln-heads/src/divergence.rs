//! Losses between the outputs of a student and its teacher, and between two passes of one model.
//! The caller computes the teacher's outputs without gradients.

use burn::tensor::activation::{log_softmax, sigmoid};
use burn::tensor::{Bool, Tensor};

use crate::binary_cross_entropy_sum;

/// Kullback–Leibler divergence of two softmaxes at a temperature, times the square of the temperature, summed over the rows:
/// Hinton et al. (*Distilling the Knowledge in a Neural Network*, 2015, section 2). With the square, the size of the
/// gradient does not depend on the temperature.
///
/// # Shapes
/// - `student`, `teacher`: `[rows, num_labels]`, logits
/// - output: `[1]`, in nats
pub fn softmax_divergence_sum(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let student = log_softmax(student / temperature, 1);
    let teacher = log_softmax(teacher / temperature, 1);
    (teacher.clone().exp() * (teacher - student)).sum() * temperature.powi(2)
}

/// Like [`softmax_divergence_sum`], with a sigmoid for each label: the mean over a row's labels, summed over the rows.
///
/// # Shapes
/// - `student`, `teacher`: `[rows, num_labels]`, logits
/// - output: `[1]`, in nats
pub fn sigmoid_divergence_sum(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let teacher = teacher / temperature;
    let probabilities = sigmoid(teacher.clone());
    let entropy = binary_cross_entropy_sum(teacher, probabilities.clone());
    (binary_cross_entropy_sum(student / temperature, probabilities) - entropy) * temperature.powi(2)
}

/// The mean of the Kullback–Leibler divergences of two softmaxes in both directions, summed over the rows: R-Drop (Liang et
/// al., arXiv 2106.14448, equation 2). Both inputs get gradients.
///
/// # Shapes
/// - `a`, `b`: `[rows, num_labels]`, logits
/// - output: `[1]`, in nats
pub fn softmax_disagreement_sum(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let [a, b] = [a, b].map(|logits| log_softmax(logits, 1));
    ((a.clone().exp() - b.clone().exp()) * (a - b)).sum() / 2.0
}

/// Like [`softmax_disagreement_sum`], with a sigmoid for each label: the mean over a row's labels, summed over the rows.
///
/// # Shapes
/// - `a`, `b`: `[rows, num_labels]`, logits
/// - output: `[1]`, in nats
pub fn sigmoid_disagreement_sum(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let [_, num_labels] = a.dims();
    // For one label: (σ(a) − σ(b)) · (a − b), as log σ(x) − log σ(−x) = x.
    ((sigmoid(a.clone()) - sigmoid(b.clone())) * (a - b)).sum() / (2 * num_labels) as f64
}

/// The squared error of hidden states, averaged over their width and summed over the tokens with their weights: TinyBERT's
/// loss for hidden states (Jiao et al., 2020, equation 8) between layers of equal width.
///
/// # Shapes
/// - `student`, `teacher`: `[batch, seq, hidden]`
/// - `weights`: `[batch, seq]`, 0 where a position is padding
/// - output: `[1]`
pub fn hidden_state_error_sum(student: Tensor<3>, teacher: Tensor<3>, weights: Tensor<2>) -> Tensor<1> {
    let errors: Tensor<2> = (student - teacher).square().mean_dim(2).squeeze_dim(2);
    (errors * weights).sum()
}

/// The Kullback–Leibler divergence of value relations, averaged over relation heads and summed over the tokens with their
/// weights: MiniLMv2 (Wang et al., arXiv 2012.15828, equations 6 to 8) with values only. The relation of two tokens is the
/// scaled dot product of their values, with a softmax over the second token. So the widths of student and teacher may
/// differ.
///
/// # Shapes
/// - `student`: `[batch, seq, hidden]`, a layer's values
/// - `teacher`: the same, possibly of another width
/// - `heads`: a divisor of both widths
/// - `weights`: `[batch, seq]`, 0 where a position is padding
/// - output: `[1]`, in nats
pub fn value_relation_divergence_sum(
    student: Tensor<3>,
    teacher: Tensor<3>,
    heads: usize,
    weights: Tensor<2>,
) -> Tensor<1> {
    let padding = weights.clone().equal_elem(0.0);
    let student = log_relations(student, heads, padding.clone());
    let teacher = log_relations(teacher, heads, padding);
    // divergences = [batch, heads, seq, 1]
    let divergences = (teacher.clone().exp() * (teacher - student)).sum_dim(3);
    let mean: Tensor<2> = divergences.mean_dim(1).squeeze_dim::<3>(1).squeeze_dim(2);
    (mean * weights).sum()
}

/// log softmax(V·Vᵀ/√d) of each head, `[batch, heads, seq, seq]`.
fn log_relations(values: Tensor<3>, heads: usize, padding: Tensor<2, Bool>) -> Tensor<4> {
    /// A finite substitute for −∞.
    const NEVER: f64 = -1e4;
    let [batch, seq, hidden] = values.dims();
    let head = hidden / heads;
    // values = [batch, heads, seq, head]
    let values = values.reshape([batch, seq, heads, head]).swap_dims(1, 2);
    let scores = values.clone().matmul(values.transpose()) / (head as f64).sqrt();
    let padding: Tensor<4, Bool> = padding.reshape([batch, 1, 1, seq]).expand([batch, heads, seq, seq]);
    log_softmax(scores.mask_fill(padding, NEVER), 3)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Int, TensorData};
    use kiln_backend::{Backend, Flex};
    use serde_json::Value;

    use super::*;
    use crate::focal_loss_sum;

    /// The numbers of nested lists, flattened.
    fn numbers(value: &Value) -> Vec<f32> {
        match value {
            Value::Array(values) => values.iter().flat_map(numbers).collect(),
            number => vec![number.as_f64().expect("a number") as f32],
        }
    }

    fn tensor<const D: usize>(value: &Value) -> Tensor<D> {
        let mut shape = [0; D];
        let mut inner = value;
        for size in &mut shape {
            let values = inner.as_array().expect("a list");
            (*size, inner) = (values.len(), &values[0]);
        }
        Tensor::from_data(TensorData::new(numbers(value), shape), &Flex::device(0).autodiff())
    }

    /// The loss, and its gradient with respect to the student's output.
    fn loss_and_gradient<const D: usize>(
        case: &Value,
        loss: impl Fn(Tensor<D>, Tensor<D>) -> Tensor<1>,
    ) -> (f64, Vec<f32>) {
        let student = tensor::<D>(&case["student"]).require_grad();
        let loss = loss(student.clone(), tensor(&case["teacher"]));
        let gradient = student.grad(&loss.backward()).expect("the loss depends on it");
        (loss.into_scalar::<f64>(), gradient.into_data().try_into_vec::<f32>().expect("it is f32"))
    }

    /// `tests/torch/generate.py` computes the cases with PyTorch.
    #[test]
    fn divergences_and_their_gradients_are_pytorch_s() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../tests/torch/losses.json")).expect("it is JSON");
        assert_eq!(cases.len(), 14);
        for case in cases {
            let temperature = case["temperature"].as_f64().unwrap_or(1.0);
            let heads = case["heads"].as_u64().unwrap_or(1) as usize;
            let (loss, gradient) = match case["kind"].as_str().expect("a name") {
                "softmax" => loss_and_gradient(&case, |ours, theirs| softmax_divergence_sum(ours, theirs, temperature)),
                "sigmoid" => loss_and_gradient(&case, |ours, theirs| sigmoid_divergence_sum(ours, theirs, temperature)),
                "softmax_disagreement" => loss_and_gradient(&case, softmax_disagreement_sum),
                "sigmoid_disagreement" => loss_and_gradient(&case, sigmoid_disagreement_sum),
                "focal" => loss_and_gradient(&case, |ours, weights: Tensor<2>| {
                    let targets = Tensor::<1, Int>::from_data([3, 0, 1], &ours.device());
                    focal_loss_sum(ours, targets, weights.squeeze_dim(0), case["gamma"].as_f64().expect("a number"))
                }),
                "hidden_states" => loss_and_gradient(&case, |ours, theirs| {
                    hidden_state_error_sum(ours, theirs, tensor(&case["weights"]))
                }),
                "value_relations" => loss_and_gradient(&case, |ours, theirs| {
                    value_relation_divergence_sum(ours, theirs, heads, tensor(&case["weights"]))
                }),
                other => panic!("{other}"),
            };
            let expected = case["loss"].as_f64().expect("a number");
            assert!((loss - expected).abs() < 1e-5 * expected.abs().max(1.0), "{loss}, not {expected}: {case}");
            let expected = numbers(&case["gradient"]);
            let furthest = gradient.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gradient.len() == expected.len() && furthest < 1e-5, "{furthest}: {case}");
        }
    }
}
