use rayon::prelude::*;

use super::norm::{ROWS, total};
use super::simd::vectorized;
use super::vector::{SlopeRow, map_activation, map_slope};
use super::{Element, Simd};
use crate::Activation;

/// `activation(x)` of `[rows, columns]`.
pub fn activate<E: Element>(simd: Simd, activation: Activation, x: &[E], columns: usize) -> Vec<E> {
    let mut out = vec![E::default(); x.len()];
    let blocks = out.par_chunks_mut(ROWS * columns).zip(x.par_chunks(ROWS * columns));
    blocks.for_each(|(out, x)| forward(simd, activation, x, out));
    out
}

/// An activation's argument and the gradient of its value, `[rows, columns]` each.
#[derive(Clone, Copy, Debug)]
pub struct Activated<'a, E> {
    /// What the activation was applied to.
    pub x: &'a [E],
    /// The gradient of what came out.
    pub gradient: &'a [E],
    /// Columns of both.
    pub columns: usize,
}

/// The gradients of `x`, `[rows, columns]`, and their sums over the rows.
pub fn activate_backward<E: Element>(
    simd: Simd,
    activation: Activation,
    activated: Activated<'_, E>,
) -> (Vec<E>, Vec<f32>) {
    let Activated { x, gradient, columns } = activated;
    let mut out = vec![E::default(); x.len()];
    let blocks =
        out.par_chunks_mut(ROWS * columns).zip(x.par_chunks(ROWS * columns)).zip(gradient.par_chunks(ROWS * columns));
    let sums: Vec<Vec<f32>> = blocks
        .map(|((out, x), gradient)| {
            let mut sums = vec![0.0; columns];
            backward(simd, activation, x, gradient, out, &mut sums);
            sums
        })
        .collect();
    (out, total(simd, &sums, columns))
}

vectorized! {
    fn forward<E: Element>(activation: Activation, x: &[E], out: &mut [E]) {
        map_activation::<A, _>(activation, x.iter().map(|x| x.to_f32()), out);
    }

    fn backward<E: Element>(activation: Activation, x: &[E], gradient: &[E], out: &mut [E], sums: &mut [f32]) {
        let columns = sums.len();
        let rows = x.chunks_exact(columns).zip(gradient.chunks_exact(columns)).zip(out.chunks_exact_mut(columns));
        for ((x, gradient), out) in rows {
            map_slope::<A, _>(activation, SlopeRow { x, gradient, out, sums });
        }
    }
}
