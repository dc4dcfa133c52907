use burn::tensor::Tensor;

/// The coefficients of one AdamW update (Loshchilov and Hutter, 2019).
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// The gradient is multiplied by this first.
    pub gradient_scale: f32,
    /// The weight is multiplied by this first: 1 − η·λ.
    pub decay: f32,
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// η / (1 − β₁ᵗ)
    pub step_size: f32,
    /// √(1 − β₂ᵗ)
    pub correction: f32,
    /// A small constant that is added to the root of the second moment.
    pub epsilon: f32,
}

/// One AdamW update of a parameter. Takes and returns `[weights, first moment, second moment]`, each `[elements]`.
///
/// On the CPU this is one pass, in place if nothing else holds the tensors.
///
/// # Panics
/// When the four tensors differ in length.
pub fn adamw([weights, first, second]: [Tensor<1>; 3], gradient: Tensor<1>, step: AdamWStep) -> [Tensor<1>; 3] {
    let lengths = [&weights, &first, &second, &gradient].map(|tensor| tensor.dims()[0]);
    assert!(
        lengths.iter().all(|length| *length == lengths[0]),
        "weights, both moments and the gradient have {lengths:?} elements; expected one number for all"
    );
    #[cfg(feature = "flex")]
    if crate::is_fused(&weights.device()) {
        use burn::backend::Flex;

        use crate::cpu::AdamWState;
        use crate::flex::{values, whole};

        let primitive = |tensor: Tensor<1>| whole(tensor.try_into_primitive::<Flex>().expect("it is on flex"));
        let [mut weights, gradient, mut first, mut second] = [weights, gradient, first, second].map(primitive);
        let state =
            AdamWState { weights: weights.storage_mut(), first: first.storage_mut(), second: second.storage_mut() };
        crate::cpu::adamw(crate::cpu::Simd::detect(), state, values(&gradient), step);
        return [weights, first, second].map(Tensor::from_primitive::<Flex>);
    }
    plain_adamw([weights, first, second], gradient, step)
}

/// [`adamw`] with burn's operations, in the order of PyTorch's.
pub fn plain_adamw([weights, first, second]: [Tensor<1>; 3], gradient: Tensor<1>, step: AdamWStep) -> [Tensor<1>; 3] {
    let [beta_1, beta_2] = step.betas;
    let gradient = gradient * step.gradient_scale;
    let second = second * beta_2 + gradient.clone().square() * (1.0 - beta_2);
    let first = first * beta_1 + gradient * (1.0 - beta_1);
    let denominator = second.clone().sqrt() / step.correction + step.epsilon;
    let weights = weights * step.decay - first.clone() / denominator * step.step_size;
    [weights, first, second]
}

/// Computes Σ x² of all tensors, which must be on the same device. On a GPU this synchronizes only once.
pub fn sum_of_squares<'a>(tensors: impl IntoIterator<Item = &'a Tensor<1>>) -> f64 {
    let (mut sum, mut on_card) = (0.0, Vec::new());
    for x in tensors {
        #[cfg(feature = "flex")]
        if crate::is_fused(&x.device()) {
            use burn::backend::Flex;

            let x = crate::flex::contiguous(x.clone().try_into_primitive::<Flex>().expect("it is on flex"));
            sum += crate::cpu::sum_of_squares(crate::cpu::Simd::detect(), crate::flex::values(&x));
            continue;
        }
        on_card.push(x.clone().square().sum());
    }
    if !on_card.is_empty() {
        let sums = Tensor::cat(on_card, 0).into_data();
        sum += sums.iter::<f64>().sum::<f64>();
    }
    sum
}
