//! Layer normalization of rows, with the preceding dropout and residual connection.

use rayon::prelude::*;

use super::arithmetic::{Arithmetic, dot};
use super::random::Dropout;
use super::simd::vectorized;
use super::{Element, Simd, Slot};

/// The number of rows that a thread takes at a time. Sums over rows are added block by block, in order, so that they do not
/// depend on the number of threads.
pub(super) const ROWS: usize = 32;

/// What a normalization keeps for its backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: there is no backward pass.
    Nothing,
    /// Each row's deviation. The normalized rows are computed from the output, as in [`NormRows::Output`].
    Deviations,
    /// Each row's deviation and its normalized values.
    Rows,
}

/// What the backward pass of a normalization needs.
#[derive(Clone, Debug)]
pub struct Normalized<E> {
    /// (x − mean) / deviation, `[rows, hidden]`. Empty if only deviations are kept.
    pub rows: Vec<E>,
    /// 1 / deviation, `[rows]`.
    pub inverse_deviations: Vec<f32>,
}

/// The scale, the shift and ε of a layer normalization.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// γ, `[hidden]`.
    pub weight: &'a [f32],
    /// β, `[hidden]`.
    pub bias: &'a [f32],
    /// A small constant that is added to the variance.
    pub epsilon: f32,
}

/// The source of the normalized rows in the backward pass.
#[derive(Clone, Copy, Debug)]
pub enum NormRows<'a, E> {
    /// The kept rows, `[rows, hidden]`.
    Kept(&'a [E]),
    /// The normalization's output, `[rows, hidden]`, from which they are computed as (output − β) / γ.
    Output {
        /// The output.
        values: &'a [f32],
        /// β, `[hidden]`.
        bias: &'a [f32],
    },
}

/// Whether the normalized rows can be computed from the output to about the precision of f32. Rounding the output changes a
/// row's value x by 2⁻²⁴ · (|x| + |β/γ|), so |β/γ| must not be large.
pub fn is_invertible(norm: Norm<'_>) -> bool {
    norm.weight.iter().zip(norm.bias).all(|(weight, bias)| *weight != 0.0 && bias.abs() <= 8.0 * weight.abs())
}

/// Computes `norm(dropout(x) + residual)` in place of `x`.
pub fn residual_norm<E: Element>(
    simd: Simd,
    x: &mut [f32],
    residual: &[f32],
    norm: Norm<'_>,
    dropout: Option<Dropout>,
    keep: Keep,
) -> Option<Normalized<E>> {
    let hidden = norm.weight.len();
    assert_eq!(x.len(), residual.len());
    let mut inverse_deviations = vec![0.0; if keep == Keep::Nothing { 0 } else { x.len() / hidden }];
    let mut rows = vec![E::default(); if keep == Keep::Rows { x.len() } else { 0 }];
    let blocks = x.par_chunks_mut(ROWS * hidden).zip(residual.par_chunks(ROWS * hidden)).enumerate();
    let inverse = inverse_deviations.par_chunks_mut(ROWS);
    match keep {
        Keep::Nothing => blocks.for_each(|(block, (x, residual))| {
            forward::<E>(simd, x, residual, norm, dropout, block * ROWS, &mut [], &mut []);
        }),
        Keep::Deviations => blocks.zip(inverse).for_each(|((block, (x, residual)), inverse)| {
            forward::<E>(simd, x, residual, norm, dropout, block * ROWS, &mut [], inverse);
        }),
        Keep::Rows => {
            let kept = rows.par_chunks_mut(ROWS * hidden).zip(inverse);
            blocks.zip(kept).for_each(|((block, (x, residual)), (rows, inverse))| {
                forward(simd, x, residual, norm, dropout, block * ROWS, rows, inverse);
            });
        }
    }
    (keep != Keep::Nothing).then_some(Normalized { rows, inverse_deviations })
}

/// Computes `norm(x)`, rounded to `E`. `keep` is set if [`norm_backward`] follows.
pub fn normalize<E: Element>(simd: Simd, x: &[f32], norm: Norm<'_>, keep: bool) -> (Vec<E>, Option<Normalized<E>>) {
    let hidden = norm.weight.len();
    let mut out = vec![E::default(); x.len()];
    let blocks = out.par_chunks_mut(ROWS * hidden).zip(x.par_chunks(ROWS * hidden));
    if !keep {
        blocks.for_each(|(out, x)| normalize_rows(simd, x, norm, out, &mut [], &mut []));
        return (out, None);
    }
    let mut rows = vec![E::default(); x.len()];
    let mut inverse_deviations = vec![0.0; x.len() / hidden];
    let kept = rows.par_chunks_mut(ROWS * hidden).zip(inverse_deviations.par_chunks_mut(ROWS));
    blocks.zip(kept).for_each(|((out, x), (rows, inverse))| normalize_rows(simd, x, norm, out, rows, inverse));
    (out, Some(Normalized { rows, inverse_deviations }))
}

/// Computes `dropout(x) + residual` in place of `x`, `[rows, columns]`.
pub fn residual_sum(simd: Simd, x: &mut [f32], residual: &[f32], columns: usize, dropout: Option<Dropout>) {
    assert_eq!(x.len(), residual.len());
    let blocks = x.par_chunks_mut(ROWS * columns).zip(residual.par_chunks(ROWS * columns)).enumerate();
    blocks.for_each(|(block, (x, residual))| sum_rows(simd, x, residual, columns, dropout, block * ROWS));
}

/// The gradients of [`residual_norm`].
#[derive(Debug)]
pub struct NormGradients {
    /// The gradient of the residual, `[rows, hidden]`.
    pub residual: Vec<f32>,
    /// The gradient of γ, `[hidden]`.
    pub weight: Vec<f32>,
    /// The gradient of β, `[hidden]`.
    pub bias: Vec<f32>,
}

/// The backward pass of the normalization and the residual connection of [`residual_norm`]. That of the dropout is
/// [`drop_and_sum`].
pub fn norm_backward<E: Element>(
    simd: Simd,
    gradient: &[f32],
    normalized: NormRows<'_, E>,
    inverse_deviations: &[f32],
    weight: &[f32],
) -> NormGradients {
    let hidden = weight.len();
    let mut residual = vec![0.0; gradient.len()];
    let sums: Vec<[Vec<f32>; 2]> = residual
        .par_chunks_mut(ROWS * hidden)
        .zip(gradient.par_chunks(ROWS * hidden))
        .zip(inverse_deviations.par_chunks(ROWS))
        .enumerate()
        .map(|(block, ((residual, gradient), inverse))| {
            let mut sums = [vec![0.0; hidden], vec![0.0; hidden]];
            let place = block * ROWS * hidden..block * ROWS * hidden + gradient.len();
            match normalized {
                NormRows::Kept(rows) => backward(simd, gradient, &rows[place], inverse, weight, residual, &mut sums),
                NormRows::Output { values, bias } => {
                    let rows = inverted(simd, &values[place], weight, bias);
                    backward(simd, gradient, &rows, inverse, weight, residual, &mut sums);
                }
            }
            sums
        })
        .collect();
    let (mut weight, mut bias) = (vec![0.0; hidden], vec![0.0; hidden]);
    for [of_weight, of_bias] in &sums {
        add(simd, &mut weight, of_weight);
        add(simd, &mut bias, of_bias);
    }
    NormGradients { residual, weight, bias }
}

/// Applies dropout to `values`, `[rows, columns]`, and rounds them. Also returns their sums over the rows.
pub fn drop_and_sum<E: Element>(
    simd: Simd,
    values: &[f32],
    columns: usize,
    dropout: Option<Dropout>,
) -> (Vec<E>, Vec<f32>) {
    let mut rounded = vec![E::default(); values.len()];
    let sums: Vec<Vec<f32>> = rounded
        .par_chunks_mut(ROWS * columns)
        .zip(values.par_chunks(ROWS * columns))
        .enumerate()
        .map(|(block, (rounded, values))| {
            let mut sums = vec![0.0; columns];
            drop_rows(simd, values, dropout, block * ROWS, rounded, &mut sums);
            sums
        })
        .collect();
    (rounded, total(simd, &sums, columns))
}

/// Adds up the sums of all blocks, in order.
pub(super) fn total(simd: Simd, blocks: &[Vec<f32>], columns: usize) -> Vec<f32> {
    let mut total = vec![0.0; columns];
    for block in blocks {
        add(simd, &mut total, block);
    }
    total
}

/// Sums `[rows, columns]` over the rows.
pub fn column_sums<E: Element>(simd: Simd, values: &[E], columns: usize) -> Vec<f32> {
    let blocks: Vec<Vec<f32>> = values
        .par_chunks(ROWS * columns)
        .map(|block| {
            let mut sums = vec![0.0; columns];
            add_rows(simd, block, &mut sums);
            sums
        })
        .collect();
    total(simd, &blocks, columns)
}

/// Applies dropout to `[rows, columns]` in place.
pub fn drop_in_place(simd: Simd, values: &mut [f32], columns: usize, dropout: Dropout) {
    values.par_chunks_mut(ROWS * columns).enumerate().for_each(|(block, values)| {
        drop_block(simd, values, columns, dropout, block * ROWS);
    });
}

/// Returns the mean of a row, and 1 / √(variance + ε).
#[inline(always)]
fn moments<A: Arithmetic>(row: &[f32], epsilon: f32) -> (f32, f32) {
    let mean = A::sum(row) / row.len() as f32;
    let variance = A::sum_of_squares(row, mean) / row.len() as f32;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

vectorized! {
    /// Computes `to += values`.
    pub fn add(to: &mut [f32], values: &[f32]) {
        for (to, value) in to.iter_mut().zip(values) {
            *to += value;
        }
    }

    fn add_rows<E: Element>(values: &[E], sums: &mut [f32]) {
        for row in values.chunks_exact(sums.len()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value.to_f32();
            }
        }
    }

    fn drop_block(values: &mut [f32], columns: usize, dropout: Dropout, first: usize) {
        for (at, row) in values.chunks_exact_mut(columns).enumerate() {
            let dropout = dropout.row((first + at) as u64);
            for (column, value) in row.iter_mut().enumerate() {
                *value *= dropout.factor(column);
            }
        }
    }

    fn drop_rows<E: Element>(values: &[f32], dropout: Option<Dropout>, first: usize, rounded: &mut [E], sums: &mut [f32]) {
        let columns = sums.len();
        for (at, (values, rounded)) in values.chunks_exact(columns).zip(rounded.chunks_exact_mut(columns)).enumerate() {
            if let Some(dropout) = dropout {
                let dropout = dropout.row((first + at) as u64);
                for (column, ((value, rounded), sum)) in values.iter().zip(rounded).zip(&mut *sums).enumerate() {
                    let value = value * dropout.factor(column);
                    *rounded = E::from_f32(value);
                    *sum += value;
                }
            } else {
                for ((value, rounded), sum) in values.iter().zip(rounded).zip(&mut *sums) {
                    *rounded = E::from_f32(*value);
                    *sum += value;
                }
            }
        }
    }

    fn sum_rows(x: &mut [f32], residual: &[f32], columns: usize, dropout: Option<Dropout>, first: usize) {
        for (at, (x, residual)) in x.chunks_exact_mut(columns).zip(residual.chunks_exact(columns)).enumerate() {
            if let Some(dropout) = dropout {
                let dropout = dropout.row((first + at) as u64);
                for (column, (x, residual)) in x.iter_mut().zip(residual).enumerate() {
                    *x = *x * dropout.factor(column) + residual;
                }
            } else {
                for (x, residual) in x.iter_mut().zip(residual) {
                    *x += residual;
                }
            }
        }
    }

    fn normalize_rows<E: Element>(x: &[f32], norm: Norm<'_>, out: &mut [E], kept: &mut [E], inverse: &mut [f32]) {
        let hidden = norm.weight.len();
        for (at, (x, out)) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)).enumerate() {
            let (mean, inverse_deviation) = moments::<A>(x, norm.epsilon);
            if let Some(inverse) = inverse.get_mut(at) {
                *inverse = inverse_deviation;
                for (kept, x) in kept[at * hidden..][..hidden].iter_mut().zip(x) {
                    *kept = E::from_f32((x - mean) * inverse_deviation);
                }
            }
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(norm.weight).zip(norm.bias) {
                *out = E::from_f32(A::multiply_add((x - mean) * inverse_deviation, *weight, *bias));
            }
        }
    }

    fn forward<E: Element>(
        x: &mut [f32], residual: &[f32], norm: Norm<'_>, dropout: Option<Dropout>, first: usize, kept: &mut [E], inverse: &mut [f32],
    ) {
        let hidden = norm.weight.len();
        for (at, (x, residual)) in x.chunks_exact_mut(hidden).zip(residual.chunks_exact(hidden)).enumerate() {
            if let Some(dropout) = dropout {
                let dropout = dropout.row((first + at) as u64);
                for (column, (x, residual)) in x.iter_mut().zip(residual).enumerate() {
                    *x = *x * dropout.factor(column) + residual;
                }
            } else {
                for (x, residual) in x.iter_mut().zip(residual) {
                    *x += residual;
                }
            }
            let (mean, inverse_deviation) = moments::<A>(x, norm.epsilon);
            if let Some(inverse) = inverse.get_mut(at) {
                *inverse = inverse_deviation;
            }
            if !kept.is_empty() {
                for (kept, x) in kept[at * hidden..][..hidden].iter_mut().zip(&*x) {
                    *kept = E::from_f32((x - mean) * inverse_deviation);
                }
            }
            for ((x, weight), bias) in x.iter_mut().zip(norm.weight).zip(norm.bias) {
                *x = A::multiply_add((*x - mean) * inverse_deviation, *weight, *bias);
            }
        }
    }

    /// Computes `norm(x + residual)` of rows into `out`. `x` becomes the sum.
    pub(super) fn residual_norm_rows<S: Slot>(x: &mut [f32], residual: &[f32], norm: Norm<'_>, out: &mut [S]) {
        let hidden = norm.weight.len();
        let rows = x.chunks_exact_mut(hidden).zip(residual.chunks_exact(hidden)).zip(out.chunks_exact_mut(hidden));
        for ((x, residual), out) in rows {
            for (x, residual) in x.iter_mut().zip(residual) {
                *x += residual;
            }
            let (mean, inverse_deviation) = moments::<A>(x, norm.epsilon);
            for (((out, x), weight), bias) in out.iter_mut().zip(&*x).zip(norm.weight).zip(norm.bias) {
                out.write(A::multiply_add((x - mean) * inverse_deviation, *weight, *bias));
            }
        }
    }

    /// Computes the normalized rows from the normalization's output.
    fn inverted(output: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let hidden = weight.len();
        let mut rows = vec![0f32; output.len()];
        for (row, output) in rows.chunks_exact_mut(hidden).zip(output.chunks_exact(hidden)) {
            for (((row, output), weight), bias) in row.iter_mut().zip(output).zip(weight).zip(bias) {
                *row = (output - bias) / weight;
            }
        }
        rows
    }

    /// dz = (g·γ − mean(g·γ) − x̂ · mean(g·γ·x̂)) / deviation, for each row.
    fn backward<E: Element>(
        gradient: &[f32], rows: &[E], inverse: &[f32], weight: &[f32], out: &mut [f32], sums: &mut [Vec<f32>; 2],
    ) {
        let hidden = weight.len();
        let [of_weight, of_bias] = sums;
        let (of_weight, of_bias) = (&mut of_weight[..hidden], &mut of_bias[..hidden]);
        for (at, inverse) in inverse.iter().enumerate() {
            let gradient = &gradient[at * hidden..][..hidden];
            let row = &rows[at * hidden..][..hidden];
            let out = &mut out[at * hidden..][..hidden];
            for i in 0..hidden {
                of_weight[i] += gradient[i] * row[i].to_f32();
                of_bias[i] += gradient[i];
                out[i] = gradient[i] * weight[i];
            }
            let mean = A::sum(out) / hidden as f32;
            let along = dot(out, row) / hidden as f32;
            for i in 0..hidden {
                out[i] = inverse * (out[i] - mean - row[i].to_f32() * along);
            }
        }
    }
}
