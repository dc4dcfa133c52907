//! A gated activation: `activation(a) · b` of the halves `a` and `b` of each row.

use rayon::prelude::*;

use super::norm::{ROWS, total};
use super::random::Dropout;
use super::simd::vectorized;
use super::vector::{SlopeRow, map_activation, map_slope};
use super::{Element, Simd};
use crate::Activation;

/// The parameters of a gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The activation of a row's first half.
    pub activation: Activation,
    /// The width of a half.
    pub columns: usize,
    /// Dropout of the output.
    pub dropout: Option<Dropout>,
}

/// Computes `dropout(activation(a) · b)`, `[rows, columns]`, from `x`, `[rows, 2 · columns]`.
pub fn gate<E: Element>(simd: Simd, gate: Gate, x: &[E]) -> Vec<E> {
    let columns = gate.columns;
    let mut out = vec![E::default(); x.len() / 2];
    let blocks = out.par_chunks_mut(ROWS * columns).zip(x.par_chunks(2 * ROWS * columns)).enumerate();
    blocks.for_each(|(block, (out, x))| forward(simd, gate, x, block * ROWS, &mut vec![0.0; columns], out));
    out
}

/// Computes the gradients of `x`, `[rows, 2 · columns]`, and their sums over the rows, from the gradient of [`gate`]'s
/// output.
pub fn gate_backward<E: Element>(simd: Simd, gate: Gate, x: &[E], gradient: &[E]) -> (Vec<E>, Vec<f32>) {
    let columns = gate.columns;
    let mut out = vec![E::default(); x.len()];
    let blocks = out
        .par_chunks_mut(2 * ROWS * columns)
        .zip(x.par_chunks(2 * ROWS * columns))
        .zip(gradient.par_chunks(ROWS * columns))
        .enumerate();
    let sums: Vec<Vec<f32>> = blocks
        .map(|(block, ((out, x), gradient))| {
            let mut sums = vec![0.0; 2 * columns];
            let mut activated = vec![0.0; columns];
            backward(simd, gate, x, gradient, block * ROWS, &mut activated, out, &mut sums);
            sums
        })
        .collect();
    (out, total(simd, &sums, 2 * columns))
}

vectorized! {
    fn forward<E: Element>(gate: Gate, x: &[E], first: usize, activated: &mut [f32], out: &mut [E]) {
        let columns = gate.columns;
        for (at, (x, out)) in x.chunks_exact(2 * columns).zip(out.chunks_exact_mut(columns)).enumerate() {
            let (a, b) = x.split_at(columns);
            map_activation::<A>(gate.activation, (a.iter().map(|x| x.to_f32()), &mut *activated));
            if let Some(dropout) = gate.dropout {
                let dropout = dropout.row((first + at) as u64);
                for (column, ((out, a), b)) in out.iter_mut().zip(&*activated).zip(b).enumerate() {
                    *out = E::from_f32(a * b.to_f32() * dropout.factor(column));
                }
            } else {
                for ((out, a), b) in out.iter_mut().zip(&*activated).zip(b) {
                    *out = E::from_f32(a * b.to_f32());
                }
            }
        }
    }

    fn backward<E: Element>(
        gate: Gate, x: &[E], gradient: &[E], first: usize, activated: &mut [f32], out: &mut [E], sums: &mut [f32],
    ) {
        let columns = gate.columns;
        let (sums_a, sums_b) = sums.split_at_mut(columns);
        let rows = x.chunks_exact(2 * columns).zip(gradient.chunks_exact(columns)).zip(out.chunks_exact_mut(2 * columns));
        for (at, ((x, gradient), out)) in rows.enumerate() {
            let (a, b) = x.split_at(columns);
            let (out_a, out_b) = out.split_at_mut(columns);
            map_activation::<A>(gate.activation, (a.iter().map(|x| x.to_f32()), &mut *activated));
            let dropout = gate.dropout.map(|dropout| dropout.row((first + at) as u64));
            for column in 0..columns {
                let factor = dropout.map_or(1.0, |dropout| dropout.factor(column));
                let gradient = gradient[column].to_f32() * factor;
                out_a[column] = E::from_f32(gradient * b[column].to_f32());
                let of_b = gradient * activated[column];
                out_b[column] = E::from_f32(of_b);
                sums_b[column] += of_b;
            }
            map_slope::<A, _>(gate.activation, SlopeRow { x: a, gradient: out_a, sums: sums_a });
        }
    }
}
