use rayon::prelude::*;

use super::Simd;
use super::simd::vectorized;
use crate::AdamWStep;

/// The number of values that a thread takes at a time.
const VALUES: usize = 1 << 14;

/// The values that an update changes.
#[derive(Debug)]
pub struct AdamWState<'a> {
    /// The parameter.
    pub weights: &'a mut [f32],
    /// The running mean of the gradient.
    pub first: &'a mut [f32],
    /// The running mean of the squared gradient.
    pub second: &'a mut [f32],
}

/// Updates weights and moments in place.
///
/// # Panics
/// When the slices differ in length.
pub fn adamw(simd: Simd, state: AdamWState<'_>, gradient: &[f32], step: AdamWStep) {
    let AdamWState { weights, first, second } = state;
    let lengths = [weights.len(), first.len(), second.len(), gradient.len()];
    assert!(lengths.iter().all(|length| *length == lengths[0]), "slices of {lengths:?} elements");
    weights
        .par_chunks_mut(VALUES)
        .zip(gradient.par_chunks(VALUES))
        .zip(first.par_chunks_mut(VALUES).zip(second.par_chunks_mut(VALUES)))
        .for_each(|((weights, gradient), (first, second))| update(simd, weights, gradient, first, second, step));
}

/// Computes Σ x². Each block is summed in f32, and the blocks are summed in f64.
pub fn sum_of_squares(simd: Simd, values: &[f32]) -> f64 {
    let blocks: Vec<f64> = values.par_chunks(VALUES).map(|block| f64::from(squares(simd, block))).collect();
    blocks.iter().sum()
}

vectorized! {
    fn squares(values: &[f32]) -> f32 {
        super::arithmetic::dot(values, values)
    }

    fn update(weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: AdamWStep) {
        let [beta_1, beta_2] = step.betas.map(|beta| beta as f32);
        let [rest_1, rest_2] = step.betas.map(|beta| (1.0 - beta) as f32);
        for (((weight, gradient), first), second) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
            let gradient = gradient * step.gradient_scale;
            *first = *first * beta_1 + gradient * rest_1;
            *second = *second * beta_2 + gradient * gradient * rest_2;
            let denominator = second.sqrt() / step.correction + step.epsilon;
            *weight = *weight * step.decay - *first / denominator * step.step_size;
        }
    }
}
