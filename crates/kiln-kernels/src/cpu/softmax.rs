//! Converts scores of queries and keys to probabilities, and computes the backward pass.

use std::ops::Range;

use super::Kernels;
use super::arithmetic::dot;
use super::random::Dropout;
use super::simd::vectorized;
use super::vector::exp;

/// The length of a row of scores, padded to whole vectors, because values after the last whole vector would be computed one
/// by one.
pub(super) fn stride(columns: usize) -> usize {
    columns.next_multiple_of(16)
}

/// The parameters of some rows of a head's scores.
#[derive(Clone, Copy)]
pub(super) struct ScoreRows<'a> {
    /// Whether a column's position holds a token.
    pub(super) mask: &'a [bool],
    /// The position of the first row's query.
    pub(super) first: usize,
    /// The position of the first column.
    pub(super) first_column: usize,
    /// The largest distance at which a position is attended to.
    pub(super) window: Option<usize>,
    /// The factor of the scores.
    pub(super) scale: f32,
    /// Dropout of the probabilities.
    pub(super) dropout: Option<Dropout>,
    /// The number of the first row in the stream of `dropout`.
    pub(super) first_key: u64,
}

impl ScoreRows<'_> {
    /// Sets the scores of a row to −∞ at padding, outside its window, and after its last column.
    #[inline(always)]
    fn mask_scores(&self, row: usize, has_padding: bool, scores: &mut [f32]) {
        if has_padding {
            for (score, token) in scores.iter_mut().zip(self.mask) {
                *score = if *token { *score } else { f32::NEG_INFINITY };
            }
        }
        let near = self.near(row);
        scores[..near.start].fill(f32::NEG_INFINITY);
        scores[near.end..].fill(f32::NEG_INFINITY);
    }

    /// The columns within the window of a row.
    #[inline(always)]
    fn near(&self, row: usize) -> Range<usize> {
        let (position, columns) = (self.first + row, self.mask.len());
        match self.window {
            None => 0..columns,
            Some(window) => {
                let from = position.saturating_sub(window).saturating_sub(self.first_column);
                let to = position.saturating_add(window).saturating_add(1) - self.first_column;
                from..to.min(columns)
            }
        }
    }
}

/// The parameters that turn a row's scores into probabilities: `exp(score · scale − largest) · inverse_sum`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftmaxRow {
    /// The largest scaled score.
    largest: f32,
    /// 1 / Σ exp(score · scale − largest), or 0 if all columns are masked.
    inverse_sum: f32,
}

/// The buffers for the backward pass of a softmax. All rows have the same stride.
pub(super) struct BackwardBlock<'a, E> {
    /// The scores, replaced with the probabilities.
    pub(super) scores: &'a mut [f32],
    /// The gradients of the probabilities after dropout, replaced with those before dropout.
    pub(super) slopes: &'a mut [f32],
    /// The result of the forward pass.
    pub(super) softmax_rows: &'a [SoftmaxRow],
    /// Output: the probabilities after dropout.
    pub(super) dropped: &'a mut [E],
    /// Output: the gradients of the scores.
    pub(super) of_scores: &'a mut [E],
}

vectorized! {
    /// Computes the probabilities. A row becomes zeros if all its columns are masked, such as a padding position with no
    /// token within its window.
    pub(super) fn softmax<E: Kernels>(scores: &mut [f32], rows: ScoreRows<'_>, probabilities: &mut [E], softmax_rows: &mut [SoftmaxRow]) {
        let ScoreRows { scale, dropout, first_key, first_column, .. } = rows;
        let stride = stride(rows.mask.len());
        let has_padding = rows.mask.contains(&false);
        for (at, (row, out)) in scores.chunks_exact_mut(stride).zip(probabilities.chunks_exact_mut(stride)).enumerate() {
            rows.mask_scores(at, has_padding, row);
            // The largest score is also the largest after scaling, to the last bit.
            let largest = A::max(row) * scale;
            let largest = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
            for score in &mut *row {
                *score = exp::<A>(A::multiply_add(*score, scale, -largest));
            }
            // Not in the loop above, because a loop with a sum is not vectorized.
            let total = A::sum(row);
            let inverse_sum = if total == 0.0 { 0.0 } else { 1.0 / total };
            softmax_rows[at] = SoftmaxRow { largest, inverse_sum };
            if let Some(dropout) = dropout {
                let dropout = dropout.row(first_key + at as u64);
                for (column, (out, e)) in out.iter_mut().zip(&*row).enumerate() {
                    *out = E::from_f32(e * inverse_sum * dropout.factor(first_column + column));
                }
            } else {
                for (out, e) in out.iter_mut().zip(&*row) {
                    *out = E::from_f32(e * inverse_sum);
                }
            }
        }
    }

    /// Computes the gradients of the scores, p · (dp − Σ p·dp) · scale.
    pub(super) fn softmax_backward<E: Kernels>(rows: ScoreRows<'_>, block: BackwardBlock<'_, E>) {
        let ScoreRows { scale, dropout, first_key, first_column, .. } = rows;
        let BackwardBlock { scores, slopes, softmax_rows, dropped, of_scores } = block;
        let (columns, stride) = (rows.mask.len(), stride(rows.mask.len()));
        let has_padding = rows.mask.contains(&false);
        for (at, (row, slope)) in scores.chunks_exact_mut(stride).zip(slopes.chunks_exact_mut(stride)).enumerate() {
            let (dropped, out) = (&mut dropped[at * stride..][..stride], &mut of_scores[at * stride..][..stride]);
            let SoftmaxRow { largest, inverse_sum } = softmax_rows[at];
            rows.mask_scores(at, has_padding, row);
            slope[columns..].fill(0.0);
            for score in &mut *row {
                *score = exp::<A>(A::multiply_add(*score, scale, -largest)) * inverse_sum;
            }
            if let Some(dropout) = dropout {
                let dropout = dropout.row(first_key + at as u64);
                for (column, ((p, slope), dropped)) in row.iter().zip(&mut *slope).zip(dropped).enumerate() {
                    let factor = dropout.factor(first_column + column);
                    *dropped = E::from_f32(p * factor);
                    *slope *= factor;
                }
            } else {
                for (p, dropped) in row.iter().zip(dropped) {
                    *dropped = E::from_f32(*p);
                }
            }
            let mean = dot(row, slope);
            for ((out, p), slope) in out.iter_mut().zip(&*row).zip(&*slope) {
                *out = E::from_f32(p * (slope - mean) * scale);
            }
        }
    }
}
