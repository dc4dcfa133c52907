use burn::tensor::{Int, Tensor, activation::log_softmax};

/// Softmax cross-entropy, summed over the batch: the caller divides by the examples of the whole optimizer step,
/// so that gradient accumulation weighs every example the same.
///
/// # Shapes
/// - `logits`: `[batch, num_labels]`
/// - `targets`: `[batch]`, ids of labels
/// - output: `[1]`, in nats
pub fn cross_entropy_sum(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    log_softmax(logits, 1).gather(1, targets.reshape([batch, 1])).sum().neg()
}
