//! Attention of several heads on queries, keys and values side by side in one matrix. Nothing is transposed in memory;
//! probabilities live only while their block of rows is computed, and the backward pass computes them again from the
//! logarithm of their sums (Dao et al., 2022).

use rayon::prelude::*;

use super::pack::{Packed, Source};
use super::product::{Epilogue, Target, product_serial};
use super::random::Dropout;
use super::simd::vectorized;
use super::vector::{exp, max, sum};
use super::{Kernels, Simd, View};

/// Queries of a head that are computed together.
const ROWS: usize = 64;

/// The shape of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Texts.
    pub batch: usize,
    /// Positions of a text.
    pub seq: usize,
    /// Heads.
    pub heads: usize,
    /// All heads' width.
    pub hidden: usize,
    /// Whether a position holds a token, `[batch, seq]`. The outputs of the others are zero.
    pub mask: &'a [bool],
    /// Of the probabilities.
    pub dropout: Option<Dropout>,
}

impl Attention<'_> {
    fn head(&self) -> usize {
        self.hidden / self.heads
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.head() as f64).sqrt()) as f32
    }

    /// What of a text's positions attends, up to the last token; all of the mask that matters.
    fn tokens(&self, text: usize) -> &[bool] {
        let mask = &self.mask[text * self.seq..][..self.seq];
        &mask[..mask.iter().rposition(|token| *token).map_or(0, |last| last + 1)]
    }

    /// The queries (0), keys (1) or values (2) of a head, `[tokens, head]`.
    fn part<'a, E>(&self, qkv: &'a [E], text: usize, head: usize, part: usize, tokens: usize) -> View<'a, E> {
        let first = text * self.seq * 3 * self.hidden + part * self.hidden + head * self.head();
        View::new(&qkv[first..], tokens, self.head(), 3 * self.hidden)
    }

    fn row_key(&self, text: usize, head: usize, row: usize) -> u64 {
        ((text * self.heads + head) * self.seq + row) as u64
    }
}

/// softmax(Q·Kᵀ/√d)·V of each head, `[batch, seq, hidden]`, from `qkv`, `[batch, seq, 3, hidden]`; and the logarithms of
/// the softmax's sums, `[batch, heads, seq]`.
pub fn attention<E: Kernels + Source<E>>(simd: Simd, shape: Attention<'_>, qkv: &[E]) -> (Vec<E>, Vec<f32>) {
    let head = shape.head();
    let mut heads = vec![E::default(); shape.batch * shape.seq * shape.hidden];
    let mut log_sums = vec![0.0; shape.batch * shape.heads * shape.seq];
    let parts = heads.par_chunks_mut(shape.seq * head).zip(log_sums.par_chunks_mut(shape.seq)).enumerate();
    parts.for_each(|(at, (out, log_sums))| {
        let (text, head_at) = (at / shape.heads, at % shape.heads);
        let mask = shape.tokens(text);
        let part = |part| shape.part(qkv, text, head_at, part, mask.len());
        let (queries, keys, values) =
            (part(0), Packed::new_serial(simd, part(1).transposed()), Packed::new_serial(simd, part(2)));
        let mut scores = vec![0f32; ROWS * mask.len()];
        let mut probabilities = vec![E::default(); ROWS * mask.len()];
        for start in (0..mask.len()).step_by(ROWS) {
            let rows = ROWS.min(mask.len() - start);
            let len = rows * mask.len();
            let (scores, probabilities) = (&mut scores[..len], &mut probabilities[..len]);
            product_serial(
                simd,
                queries.narrow(start, rows),
                &keys,
                Target::whole(scores, mask.len()),
                Epilogue::Store,
            );
            let key = shape.row_key(text, head_at, start);
            softmax(simd, scores, mask, shape.scale(), shape.dropout, key, probabilities, &mut log_sums[start..]);
            let out = Target::whole(&mut out[start * head..], head);
            product_serial(simd, View::new(probabilities, rows, mask.len(), mask.len()), &values, out, Epilogue::Store);
        }
    });
    (side_by_side(shape, &heads, 1), log_sums)
}

/// The gradients of `qkv`, given those of the output.
pub fn attention_backward<E: Kernels + Source<E>>(
    simd: Simd,
    shape: Attention<'_>,
    qkv: &[E],
    log_sums: &[f32],
    gradient: &[E],
) -> Vec<E> {
    let head = shape.head();
    let piece = shape.seq * head;
    let mut heads = vec![E::default(); 3 * shape.batch * shape.heads * piece];
    heads.par_chunks_mut(3 * piece).enumerate().for_each(|(at, out)| {
        let (text, head_at) = (at / shape.heads, at % shape.heads);
        let mask = shape.tokens(text);
        let tokens = mask.len();
        let [queries, keys, values] = [0, 1, 2].map(|part| shape.part(qkv, text, head_at, part, tokens));
        let first = text * shape.seq * shape.hidden + head_at * head;
        let gradient = View::new(&gradient[first..], tokens, head, shape.hidden);
        let log_sums = &log_sums[at * shape.seq..][..tokens];

        let keys_across = Packed::new_serial(simd, keys.transposed());
        let values_across = Packed::new_serial(simd, values.transposed());
        let keys = Packed::new_serial(simd, keys);
        let (of_queries, rest) = out.split_at_mut(piece);
        let mut of_keys = vec![0f32; tokens * head];
        let mut of_values = vec![0f32; tokens * head];
        let [mut scores, mut slopes] = [vec![0f32; ROWS * tokens], vec![0f32; ROWS * tokens]];
        let [mut dropped, mut of_scores] = [vec![E::default(); ROWS * tokens], vec![E::default(); ROWS * tokens]];
        for start in (0..tokens).step_by(ROWS) {
            let rows = ROWS.min(tokens - start);
            let len = rows * tokens;
            let (scores, slopes) = (&mut scores[..len], &mut slopes[..len]);
            let (dropped, of_scores) = (&mut dropped[..len], &mut of_scores[..len]);
            let (queries, gradient) = (queries.narrow(start, rows), gradient.narrow(start, rows));
            product_serial(simd, queries, &keys_across, Target::whole(scores, tokens), Epilogue::Store);
            product_serial(simd, gradient, &values_across, Target::whole(slopes, tokens), Epilogue::Store);
            let key = shape.row_key(text, head_at, start);
            softmax_backward(
                simd,
                scores,
                slopes,
                mask,
                shape.scale(),
                shape.dropout,
                key,
                &log_sums[start..],
                dropped,
                of_scores,
            );

            let of_scores = View::new(of_scores, rows, tokens, tokens);
            product_serial(
                simd,
                of_scores,
                &keys,
                Target::whole(&mut of_queries[start * head..], head),
                Epilogue::Store,
            );
            let queries = Packed::<E>::new_serial(simd, queries);
            product_serial(
                simd,
                of_scores.transposed(),
                &queries,
                Target::whole(&mut of_keys, head),
                Epilogue::Accumulate,
            );
            let gradient = Packed::<E>::new_serial(simd, gradient);
            let dropped = View::new(dropped, rows, tokens, tokens).transposed();
            product_serial(simd, dropped, &gradient, Target::whole(&mut of_values, head), Epilogue::Accumulate);
        }
        for (to, from) in rest.chunks_exact_mut(piece).zip([of_keys, of_values]) {
            super::round(simd, &from, &mut to[..tokens * head]);
        }
    });
    side_by_side(shape, &heads, 3)
}

/// `[batch, heads, parts, seq, head]` to `[batch, seq, parts, heads, head]`
fn side_by_side<E: Kernels>(shape: Attention<'_>, heads: &[E], parts: usize) -> Vec<E> {
    let (head, seq) = (shape.head(), shape.seq);
    let mut out = vec![E::default(); heads.len()];
    let texts = out.par_chunks_mut(seq * parts * shape.hidden).zip(heads.par_chunks(seq * parts * shape.hidden));
    texts.for_each(|(out, text)| {
        for (at, values) in text.chunks_exact(seq * head).enumerate() {
            let column = (at % parts) * shape.hidden + at / parts * head;
            for (row, values) in values.chunks_exact(head).enumerate() {
                out[row * parts * shape.hidden + column..][..head].copy_from_slice(values);
            }
        }
    });
    out
}

vectorized! {
    fn softmax<E: Kernels>(
        scores: &mut [f32], mask: &[bool], scale: f32, dropout: Option<Dropout>, key: u64, probabilities: &mut [E], log_sums: &mut [f32],
    ) {
        let tokens = mask.len();
        for (at, (row, out)) in scores.chunks_exact_mut(tokens).zip(probabilities.chunks_exact_mut(tokens)).enumerate() {
            for (score, token) in row.iter_mut().zip(mask) {
                *score = if *token { *score * scale } else { f32::NEG_INFINITY };
            }
            let most = max(row);
            for score in &mut *row {
                *score = exp(*score - most);
            }
            let total = sum(tokens, |i| row[i]);
            log_sums[at] = most + total.ln();
            let inverse = 1.0 / total;
            if let Some(dropout) = dropout {
                let dropout = dropout.row(key + at as u64);
                for (column, (out, e)) in out.iter_mut().zip(&*row).enumerate() {
                    *out = E::from_f32(e * inverse * dropout.factor(column));
                }
            } else {
                for (out, e) in out.iter_mut().zip(&*row) {
                    *out = E::from_f32(e * inverse);
                }
            }
        }
    }

    /// From scores s and the gradients of the dropped probabilities: those probabilities, and the gradients of the scores,
    /// p · (dp − Σ p·dp) · scale.
    fn softmax_backward<E: Kernels>(
        scores: &mut [f32], slopes: &mut [f32], mask: &[bool], scale: f32, dropout: Option<Dropout>, key: u64, log_sums: &[f32],
        dropped: &mut [E], of_scores: &mut [E],
    ) {
        let tokens = mask.len();
        for (at, (row, slope)) in scores.chunks_exact_mut(tokens).zip(slopes.chunks_exact_mut(tokens)).enumerate() {
            let (dropped, out) = (&mut dropped[at * tokens..][..tokens], &mut of_scores[at * tokens..][..tokens]);
            let log_sum = log_sums[at];
            for (score, token) in row.iter_mut().zip(mask) {
                *score = if *token { exp(*score * scale - log_sum) } else { 0.0 };
            }
            if let Some(dropout) = dropout {
                let dropout = dropout.row(key + at as u64);
                for (column, ((p, slope), dropped)) in row.iter().zip(&mut *slope).zip(dropped).enumerate() {
                    let factor = dropout.factor(column);
                    *dropped = E::from_f32(p * factor);
                    *slope *= factor;
                }
            } else {
                for (p, dropped) in row.iter().zip(dropped) {
                    *dropped = E::from_f32(*p);
                }
            }
            let mean = sum(tokens, |i| row[i] * slope[i]);
            for ((out, p), slope) in out.iter_mut().zip(&*row).zip(&*slope) {
                *out = E::from_f32(p * (slope - mean) * scale);
            }
        }
    }
}
