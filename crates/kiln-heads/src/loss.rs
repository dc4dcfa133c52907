use burn::tensor::{Int, Tensor, activation::log_softmax};

/// Softmax cross-entropy, summed over the batch.
///
/// All losses here are sums. The caller divides by the number of targets of the whole optimizer step, so that with gradient
/// accumulation all targets have the same weight.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
/// - `targets`: `[batch]`, ids of labels
/// - output: `[1]`, in nats
pub fn cross_entropy_sum(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    log_softmax(logits, 1).gather(1, targets.reshape([batch, 1])).sum().neg()
}

/// Softmax cross-entropy with a weight for each row, that of its target's label. The sum is divided by the number of
/// targets, not by the sum of their weights, so the mean weight over the training rows should be 1.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
/// - `targets`: `[batch]`, ids of labels
/// - `class_weights`: `[num_labels]`
/// - output: `[1]`, in nats
pub fn weighted_cross_entropy_sum(logits: Tensor<2>, targets: Tensor<1, Int>, class_weights: Tensor<1>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let weights = class_weights.select(0, targets.clone()).reshape([batch, 1]);
    (log_softmax(logits, 1).gather(1, targets.reshape([batch, 1])) * weights).sum().neg()
}

/// Weighted cross-entropy with label smoothing: a share of `label_smoothing` of each target is spread evenly over all
/// labels, as in PyTorch's `CrossEntropyLoss(weight, label_smoothing, reduction="sum")`.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
/// - `targets`: `[batch]`, ids of labels
/// - `class_weights`: `[num_labels]`
/// - output: `[1]`, in nats
pub fn smoothed_cross_entropy_sum(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    class_weights: Tensor<1>,
    label_smoothing: f64,
) -> Tensor<1> {
    let [batch, num_labels] = logits.dims();
    // weighted = [batch, num_labels]
    let weighted = log_softmax(logits, 1) * class_weights.unsqueeze();
    let of_targets = weighted.clone().gather(1, targets.reshape([batch, 1])).sum();
    (of_targets * (1.0 - label_smoothing) + weighted.sum() * (label_smoothing / num_labels as f64)).neg()
}

/// Focal loss (Lin et al., *Focal Loss for Dense Object Detection*, 2017, equation 5): each row's cross-entropy times
/// `(1 − p)^gamma`, where `p` is the probability of its target, and times the weight of its target's label.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
/// - `targets`: `[batch]`, ids of labels
/// - `class_weights`: `[num_labels]`
/// - output: `[1]`, in nats
pub fn focal_loss_sum(logits: Tensor<2>, targets: Tensor<1, Int>, class_weights: Tensor<1>, gamma: f64) -> Tensor<1> {
    /// Keeps the gradient of the power finite if the probability of a target is 1.
    const LEAST_DOUBT: f64 = 1e-7;
    let [batch, _] = logits.dims();
    let weights = class_weights.select(0, targets.clone()).reshape([batch, 1]);
    let log_probabilities = log_softmax(logits, 1).gather(1, targets.reshape([batch, 1]));
    let doubt = (log_probabilities.clone().exp().neg() + 1.0).clamp_min(LEAST_DOUBT);
    (doubt.powf_scalar(gamma) * log_probabilities * weights).sum().neg()
}

/// Sigmoid cross-entropy for multi-label classification: the mean over a row's labels, summed over the batch.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
/// - `targets`: `[batch, num_labels]`, 1 for the row's labels, otherwise 0
/// - output: `[1]`, in nats
pub fn binary_cross_entropy_sum(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let [_, num_labels] = logits.dims();
    // −t·log σ(x) − (1 − t)·log σ(−x) = max(x, 0) − x·t + log(1 + exp(−|x|)), which cannot overflow.
    let softplus = logits.clone().abs().neg().exp().log1p();
    let losses = logits.clone().clamp_min(0.0) - logits * targets + softplus;
    losses.sum() / num_labels as f64
}

/// Squared error, summed over the batch.
///
/// # Shapes
/// - `logits`: `[batch, 1]`
/// - `targets`: `[batch, 1]`
/// - output: `[1]`
pub fn squared_error_sum(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    (logits - targets).square().sum()
}

#[cfg(test)]
mod tests {
    use kiln_backend::{Backend, Flex};

    use super::*;

    #[test]
    fn losses_by_hand() {
        let device = Flex::device(0);
        let logits = || Tensor::<2>::from_data([[2.0, -1.0], [0.0, 300.0]], &device);
        let close = |loss: Tensor<1>, expected: f64| {
            let found = loss.into_scalar::<f64>();
            assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
        };
        let targets = Tensor::<1, Int>::from_data([0, 1], &device);
        close(cross_entropy_sum(logits(), targets.clone()), (1.0 + (-3f64).exp()).ln());
        let weights = Tensor::<1>::from_data([0.5, 7.0], &device);
        close(weighted_cross_entropy_sum(logits(), targets.clone(), weights.clone()), 0.5 * (1.0 + (-3f64).exp()).ln());
        // torch.nn.CrossEntropyLoss(weight=tensor([0.5, 7.0]), label_smoothing=0.2, reduction="sum")
        let loss = smoothed_cross_entropy_sum(logits(), targets.clone(), weights.clone(), 0.2);
        close(loss, 0.8 * 0.5 * 0.048_587_35 + 0.1 * (0.5 * 0.048_587_35 + 7.0 * 3.048_587_35) + 0.1 * 0.5 * 300.0);
        let plain = smoothed_cross_entropy_sum(logits(), targets.clone(), weights.clone(), 0.0);
        close(plain, weighted_cross_entropy_sum(logits(), targets, weights).into_scalar::<f64>());
        let targets = Tensor::<2>::from_data([[1.0, 1.0], [0.0, 1.0]], &device);
        let each = (1.0 + (-2f64).exp()).ln() + (1.0 + 1f64.exp()).ln() + 2f64.ln();
        close(binary_cross_entropy_sum(logits(), targets), each / 2.0);
        let numbers = || Tensor::<2>::from_data([[2.5], [-1.0]], &device);
        close(squared_error_sum(numbers(), Tensor::from_data([[2.0], [1.0]], &device)), 4.25);
    }
}
