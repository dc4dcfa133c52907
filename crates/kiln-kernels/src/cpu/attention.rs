//! Attention of several heads on queries, and on keys and values side by side in one matrix. Nothing is transposed in memory;
//! probabilities live only while their block of rows is computed, and the backward pass computes them again from the
//! largest score and the sum of each row (Dao et al., 2022).

use std::ops::Range;

use rayon::prelude::*;

use super::arithmetic::dot;
use super::pack::{Packed, Source};
use super::product::{Epilogue, Target, product_serial};
use super::random::Dropout;
use super::simd::vectorized;
use super::vector::exp;
use super::{Kernels, Simd, View};

/// Queries of a head that are computed together.
const ROWS: usize = 64;

/// Rows of scores are stored in whole vectors: values behind the last vector would be computed one by one.
fn stride(columns: usize) -> usize {
    columns.next_multiple_of(16)
}

/// The shape of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Texts.
    pub batch: usize,
    /// Positions of a text.
    pub seq: usize,
    /// How many of them attend, from the first on.
    pub queries: usize,
    /// Heads.
    pub heads: usize,
    /// All heads' width.
    pub hidden: usize,
    /// How far a position is attended to at most; any, where there is none. Time and memory grow with it, not with `seq`.
    pub window: Option<usize>,
    /// Whether a position holds a token, `[batch, seq]`. The outputs of those behind a text's last token are zero.
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

    /// The mask of a text up to its last token: padding behind it takes no part.
    fn tokens(&self, text: usize) -> &[bool] {
        let mask = &self.mask[text * self.seq..][..self.seq];
        &mask[..mask.iter().rposition(|token| *token).map_or(0, |last| last + 1)]
    }

    /// The queries of a head up to the last token, `[tokens, head]`.
    fn queries<'a, E>(&self, queries: &'a [E], text: usize, head: usize, tokens: usize) -> View<'a, E> {
        let first = text * self.queries * self.hidden + head * self.head();
        View::new(&queries[first..], tokens.min(self.queries), self.head(), self.hidden)
    }

    /// Its keys (0) or values (1), `[tokens, head]`.
    fn part<'a, E>(&self, keys_values: &'a [E], text: usize, head: usize, part: usize, tokens: usize) -> View<'a, E> {
        let first = text * self.seq * 2 * self.hidden + part * self.hidden + head * self.head();
        View::new(&keys_values[first..], tokens, self.head(), 2 * self.hidden)
    }

    /// The positions that some queries from `first` on attend to, of a text of `tokens`.
    fn reach(&self, first: usize, rows: usize, tokens: usize) -> Range<usize> {
        match self.window {
            None => 0..tokens,
            Some(window) => first.saturating_sub(window)..first.saturating_add(rows).saturating_add(window).min(tokens),
        }
    }

    /// How many scores some queries have at most.
    fn most_scores(&self, rows: usize, tokens: usize) -> usize {
        let widest = self.window.map_or(tokens, |window| window.saturating_mul(2).saturating_add(rows).min(tokens));
        rows * stride(widest)
    }

    /// The rows of a head's scores from the query `first` on, at the positions of `reach`.
    fn score_rows(&self, [text, head, first]: [usize; 3], reach: Range<usize>) -> ScoreRows<'_> {
        ScoreRows {
            mask: &self.tokens(text)[reach.clone()],
            first,
            first_column: reach.start,
            window: self.window,
            scale: self.scale(),
            dropout: self.dropout,
            first_key: ((text * self.heads + head) * self.seq + first) as u64,
        }
    }
}

/// What some rows of a head's scores have in common.
#[derive(Clone, Copy)]
struct ScoreRows<'a> {
    /// Whether a column's position holds a token.
    mask: &'a [bool],
    /// The position of the first row's query.
    first: usize,
    /// The position of the first column.
    first_column: usize,
    /// How far a position is attended to at most.
    window: Option<usize>,
    /// What scores are multiplied with.
    scale: f32,
    /// Of the probabilities.
    dropout: Option<Dropout>,
    /// The number of the first row in the stream of `dropout`.
    first_key: u64,
}

impl ScoreRows<'_> {
    /// Sets the scores of a row to −∞ at padding, outside its window, and behind its last column.
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

    /// The columns that are within the window of a row.
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

/// What turns a row's scores into probabilities: `exp(score · scale − largest) · inverse_sum`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftmaxRow {
    /// The largest scaled score.
    largest: f32,
    /// 1 / Σ exp(score · scale − largest); 0 where all columns are masked.
    inverse_sum: f32,
}

/// What the backward pass of a softmax reads and writes, in rows of one stride.
struct BackwardBlock<'a, E> {
    /// The scores, which become the probabilities.
    scores: &'a mut [f32],
    /// The gradients of the dropped probabilities, which become those of the probabilities.
    slopes: &'a mut [f32],
    /// Of the forward pass.
    softmax_rows: &'a [SoftmaxRow],
    /// Gets the dropped probabilities.
    dropped: &'a mut [E],
    /// Gets the gradients of the scores.
    of_scores: &'a mut [E],
}

/// softmax(Q·Kᵀ/√d)·V of each head, `[batch, queries, hidden]`, from queries of that shape and `keys_values`,
/// `[batch, seq, 2, hidden]`; and what the backward pass needs of each row, `[batch, heads, queries]`.
pub fn attention<E: Kernels + Source<E>>(
    simd: Simd,
    shape: Attention<'_>,
    queries: &[E],
    keys_values: &[E],
) -> (Vec<E>, Vec<SoftmaxRow>) {
    let head = shape.head();
    let mut context = vec![E::default(); shape.batch * shape.queries * shape.hidden];
    let mut softmax_rows = vec![SoftmaxRow::default(); shape.batch * shape.heads * shape.queries];
    let of_head = |[text, head_at]: [usize; 2], out: &mut [E], softmax_rows: &mut [SoftmaxRow]| {
        let tokens = shape.tokens(text).len();
        let queries = shape.queries(queries, text, head_at, tokens);
        let [keys, values] = [0, 1].map(|part| shape.part(keys_values, text, head_at, part, tokens));
        let pack = |reach: Range<usize>| {
            let [keys, values] = [keys, values].map(|part| part.narrow(reach.start, reach.len()));
            (Packed::new_serial(simd, keys.transposed()), Packed::new_serial(simd, values))
        };
        let whole = shape.window.is_none().then(|| pack(0..tokens));
        let most = shape.most_scores(ROWS.min(queries.rows()), tokens);
        let (mut scores, mut probabilities) = (vec![0f32; most], vec![E::default(); most]);
        for start in (0..queries.rows()).step_by(ROWS) {
            let rows = ROWS.min(queries.rows() - start);
            let reach = shape.reach(start, rows, tokens);
            let near = whole.is_none().then(|| pack(reach.clone()));
            let (keys, values) = whole.as_ref().or(near.as_ref()).expect("one of both was packed");
            let (columns, stride) = (reach.len(), stride(reach.len()));
            let (scores, probabilities) = (&mut scores[..rows * stride], &mut probabilities[..rows * stride]);
            product_serial(simd, queries.narrow(start, rows), keys, Target::whole(scores, stride), Epilogue::Store);
            let score_rows = shape.score_rows([text, head_at, start], reach);
            softmax(simd, scores, score_rows, probabilities, &mut softmax_rows[start..]);
            let out = Target::whole(&mut out[start * head..], head);
            product_serial(simd, View::new(probabilities, rows, columns, stride), values, out, Epilogue::Store);
        }
    };
    let texts = context.par_chunks_mut(shape.queries * shape.hidden);
    texts.zip(softmax_rows.par_chunks_mut(shape.heads * shape.queries)).enumerate().for_each(|(text, (out, rows))| {
        let mut heads = vec![E::default(); out.len()];
        let parts = heads.par_chunks_mut(shape.queries * head).zip(rows.par_chunks_mut(shape.queries)).enumerate();
        parts.for_each(|(head_at, (out, rows))| of_head([text, head_at], out, rows));
        side_by_side(&heads, [shape.queries, shape.heads, 1], out);
    });
    (context, softmax_rows)
}

/// The gradients of the queries and of keys and values, given those of the output.
pub fn attention_backward<E: Kernels + Source<E>>(
    simd: Simd,
    shape: Attention<'_>,
    queries: &[E],
    keys_values: &[E],
    softmax_rows: &[SoftmaxRow],
    gradient: &[E],
) -> [Vec<E>; 2] {
    let head = shape.head();
    let mut of_queries = vec![E::default(); shape.batch * shape.queries * shape.hidden];
    let mut of_keys_values = vec![E::default(); 2 * shape.batch * shape.seq * shape.hidden];
    let piece = shape.seq * head;
    let of_head = |[text, head_at]: [usize; 2], of_queries: &mut [E], of_keys_values: &mut [E]| {
        let tokens = shape.tokens(text).len();
        let queries = shape.queries(queries, text, head_at, tokens);
        let [keys, values] = [0, 1].map(|part| shape.part(keys_values, text, head_at, part, tokens));
        let backward = HeadBackward {
            place: [text, head_at],
            queries,
            keys,
            values,
            gradient: shape.queries(gradient, text, head_at, tokens),
            softmax_rows: &softmax_rows[(text * shape.heads + head_at) * shape.queries..][..queries.rows()],
        };
        let of_parts = backward.run(simd, shape, of_queries);
        for (to, from) in of_keys_values.chunks_exact_mut(piece).zip(of_parts) {
            super::round(simd, &from, &mut to[..tokens * head]);
        }
    };
    let texts = of_queries.par_chunks_mut(shape.queries * shape.hidden);
    let texts = texts.zip(of_keys_values.par_chunks_mut(2 * shape.seq * shape.hidden)).enumerate();
    texts.for_each(|(text, (of_queries, of_keys_values))| {
        let [mut query_heads, mut heads] = [of_queries.len(), of_keys_values.len()].map(|len| vec![E::default(); len]);
        let parts = query_heads.par_chunks_mut(shape.queries * head).zip(heads.par_chunks_mut(2 * piece)).enumerate();
        parts.for_each(|(head_at, (of_queries, of_parts))| of_head([text, head_at], of_queries, of_parts));
        side_by_side(&query_heads, [shape.queries, shape.heads, 1], of_queries);
        side_by_side(&heads, [shape.seq, shape.heads, 2], of_keys_values);
    });
    [of_queries, of_keys_values]
}

/// The backward pass of one head on one text.
struct HeadBackward<'a, E> {
    /// The text and the head.
    place: [usize; 2],
    queries: View<'a, E>,
    keys: View<'a, E>,
    values: View<'a, E>,
    /// Of the output.
    gradient: View<'a, E>,
    softmax_rows: &'a [SoftmaxRow],
}

impl<E: Kernels + Source<E>> HeadBackward<'_, E> {
    /// Keys and values across, and keys, at some positions.
    fn pack(&self, simd: Simd, reach: &Range<usize>) -> [Packed<E>; 3] {
        let [keys, values] = [self.keys, self.values].map(|part| part.narrow(reach.start, reach.len()));
        [keys.transposed(), values.transposed(), keys].map(|part| Packed::new_serial(simd, part))
    }

    /// Writes the gradients of the queries and returns those of the keys and of the values.
    fn run(&self, simd: Simd, shape: Attention<'_>, of_queries: &mut [E]) -> [Vec<f32>; 2] {
        let (head, tokens, [text, head_at]) = (shape.head(), self.keys.rows(), self.place);
        let whole = shape.window.is_none().then(|| self.pack(simd, &(0..tokens)));
        let [mut of_keys, mut of_values] = [vec![0f32; tokens * head], vec![0f32; tokens * head]];
        let most = shape.most_scores(ROWS.min(self.queries.rows()), tokens);
        let [mut scores, mut slopes] = [vec![0f32; most], vec![0f32; most]];
        let [mut dropped, mut of_scores] = [vec![E::default(); most], vec![E::default(); most]];
        for start in (0..self.queries.rows()).step_by(ROWS) {
            let rows = ROWS.min(self.queries.rows() - start);
            let reach = shape.reach(start, rows, tokens);
            let near = whole.is_none().then(|| self.pack(simd, &reach));
            let [keys_across, values_across, keys] = whole.as_ref().or(near.as_ref()).expect("one of both was packed");
            let (columns, stride, first) = (reach.len(), stride(reach.len()), reach.start * head);
            let len = rows * stride;
            let (scores, slopes) = (&mut scores[..len], &mut slopes[..len]);
            let (dropped, of_scores) = (&mut dropped[..len], &mut of_scores[..len]);
            let (queries, gradient) = (self.queries.narrow(start, rows), self.gradient.narrow(start, rows));
            product_serial(simd, queries, keys_across, Target::whole(scores, stride), Epilogue::Store);
            product_serial(simd, gradient, values_across, Target::whole(slopes, stride), Epilogue::Store);
            let softmax_rows = &self.softmax_rows[start..];
            let block = BackwardBlock { scores, slopes, softmax_rows, dropped, of_scores };
            softmax_backward(simd, shape.score_rows([text, head_at, start], reach), block);

            let of_scores = View::new(of_scores, rows, columns, stride);
            let out = Target::whole(&mut of_queries[start * head..], head);
            product_serial(simd, of_scores, keys, out, Epilogue::Store);
            let queries = Packed::<E>::new_serial(simd, queries);
            let out = Target::whole(&mut of_keys[first..], head);
            product_serial(simd, of_scores.transposed(), &queries, out, Epilogue::Accumulate);
            let gradient = Packed::<E>::new_serial(simd, gradient);
            let dropped = View::new(dropped, rows, columns, stride).transposed();
            let out = Target::whole(&mut of_values[first..], head);
            product_serial(simd, dropped, &gradient, out, Epilogue::Accumulate);
        }
        [of_keys, of_values]
    }
}

/// A text's `[heads, parts, seq, head]` to `[seq, parts, heads, head]`.
fn side_by_side<E: Kernels>(values: &[E], [seq, heads, parts]: [usize; 3], out: &mut [E]) {
    let row = out.len() / seq;
    let (hidden, head) = (row / parts, row / parts / heads);
    for (at, values) in values.chunks_exact(seq * head).enumerate() {
        let column = (at % parts) * hidden + at / parts * head;
        for (to, values) in values.chunks_exact(head).enumerate() {
            out[to * row + column..][..head].copy_from_slice(values);
        }
    }
}

vectorized! {
    /// A row all of whose columns are masked, as padding is that no token is near to, becomes zeros.
    fn softmax<E: Kernels>(scores: &mut [f32], rows: ScoreRows<'_>, probabilities: &mut [E], softmax_rows: &mut [SoftmaxRow]) {
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
            // Not in the loop above: what stands in one with a sum is computed value by value.
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

    /// The gradients of the scores are p · (dp − Σ p·dp) · scale.
    fn softmax_backward<E: Kernels>(rows: ScoreRows<'_>, block: BackwardBlock<'_, E>) {
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
