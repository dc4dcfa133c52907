use rayon::prelude::*;

use super::norm::{ROWS, total};
use super::simd::vectorized;
use super::vector::{SlopeRow, map_activation, map_slope};
use super::{Element, Simd};
use crate::Activation;

/// Computes `activation(x)` for `[rows, columns]`.
pub fn activate<E: Element>(simd: Simd, activation: Activation, x: &[E], columns: usize) -> Vec<E> {
    let mut out = vec![E::default(); x.len()];
    let blocks = out.par_chunks_mut(ROWS * columns).zip(x.par_chunks(ROWS * columns));
    blocks.for_each(|(out, x)| forward(simd, activation, x, out));
    out
}

/// Replaces the gradient of an activation's output with that of its input `x`, both `[rows, columns]`. Returns the sums
/// over the rows.
pub fn activate_backward<E: Element>(
    simd: Simd,
    activation: Activation,
    x: &[E],
    gradient: &mut [E],
    columns: usize,
) -> Vec<f32> {
    let blocks = gradient.par_chunks_mut(ROWS * columns).zip(x.par_chunks(ROWS * columns));
    let sums: Vec<Vec<f32>> = blocks
        .map(|(gradient, x)| {
            let mut sums = vec![0.0; columns];
            backward(simd, activation, x, gradient, &mut sums);
            sums
        })
        .collect();
    total(simd, &sums, columns)
}

vectorized! {
    fn forward<E: Element>(activation: Activation, x: &[E], out: &mut [E]) {
        map_activation::<A>(activation, (x.iter().map(|x| x.to_f32()), out));
    }

    fn backward<E: Element>(activation: Activation, x: &[E], gradient: &mut [E], sums: &mut [f32]) {
        let columns = sums.len();
        for (x, gradient) in x.chunks_exact(columns).zip(gradient.chunks_exact_mut(columns)) {
            map_slope::<A, _>(activation, SlopeRow { x, gradient, sums });
        }
    }
}
