use rayon::prelude::*;

use super::norm::{ROWS, total};
use super::simd::vectorized;
use super::vector::{gelu, gelu_derivative};
use super::{Element, Simd};

/// Element-wise, of `[rows, columns]`.
pub fn gelu_rows<E: Element>(simd: Simd, x: &[E], columns: usize) -> Vec<E> {
    let mut out = vec![E::default(); x.len()];
    let blocks = out.par_chunks_mut(ROWS * columns).zip(x.par_chunks(ROWS * columns));
    blocks.for_each(|(out, x)| forward(simd, x, out));
    out
}

/// The gradients of `x`, `[rows, columns]`, and their sums over the rows.
pub fn gelu_backward<E: Element>(simd: Simd, x: &[E], gradient: &[E], columns: usize) -> (Vec<E>, Vec<f32>) {
    let mut out = vec![E::default(); x.len()];
    let blocks =
        out.par_chunks_mut(ROWS * columns).zip(x.par_chunks(ROWS * columns)).zip(gradient.par_chunks(ROWS * columns));
    let sums: Vec<Vec<f32>> = blocks
        .map(|((out, x), gradient)| {
            let mut sums = vec![0.0; columns];
            backward(simd, x, gradient, out, &mut sums);
            sums
        })
        .collect();
    (out, total(simd, &sums, columns))
}

vectorized! {
    fn forward<E: Element>(x: &[E], out: &mut [E]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = E::from_f32(gelu(x.to_f32()));
        }
    }

    fn backward<E: Element>(x: &[E], gradient: &[E], out: &mut [E], sums: &mut [f32]) {
        let columns = sums.len();
        let rows = x.chunks_exact(columns).zip(gradient.chunks_exact(columns)).zip(out.chunks_exact_mut(columns));
        for ((x, gradient), out) in rows {
            for (((x, gradient), out), sum) in x.iter().zip(gradient).zip(out).zip(&mut *sums) {
                let slope = gradient.to_f32() * gelu_derivative(x.to_f32());
                *out = E::from_f32(slope);
                *sum += slope;
            }
        }
    }
}
