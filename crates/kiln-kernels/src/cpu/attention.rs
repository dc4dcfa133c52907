//! Multi-head attention of a matrix of queries on a matrix of keys and values side by side. Nothing is transposed in
//! memory. Probabilities exist only while their block of rows is computed. The backward pass computes them again from the
//! largest score and the sum of each row (Dao et al., 2022).

use std::ops::Range;

use rayon::prelude::*;

use super::lanes::Lanes;
use super::pack::{Packed, Source};
use super::product::{Epilogue, Target, product_into_rows, product_serial};
use super::random::Dropout;
use super::softmax::{BackwardBlock, ScoreRows, SoftmaxRow, softmax, softmax_backward, stride};
use super::{Kernels, Simd, View};

/// The number of queries of a head that are computed together.
const ROWS: usize = 64;

/// The shape of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The number of texts.
    pub batch: usize,
    /// The number of positions of a text.
    pub seq: usize,
    /// The number of positions that attend, from the first on.
    pub queries: usize,
    /// The number of heads.
    pub heads: usize,
    /// The width of all heads together.
    pub hidden: usize,
    /// The largest distance at which a position is attended to, or `None` for no limit. Time and memory grow with it
    /// instead of `seq`.
    pub window: Option<usize>,
    /// Whether a position holds a token, `[batch, seq]`. Outputs after a text's last token are zero.
    pub mask: &'a [bool],
    /// Dropout of the probabilities.
    pub dropout: Option<Dropout>,
}

impl Attention<'_> {
    fn head(&self) -> usize {
        self.hidden / self.heads
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.head() as f64).sqrt()) as f32
    }

    /// The mask of a text up to its last token. The padding after it is not computed.
    fn tokens(&self, text: usize) -> &[bool] {
        let mask = &self.mask[text * self.seq..][..self.seq];
        &mask[..mask.iter().rposition(|token| *token).map_or(0, |last| last + 1)]
    }

    /// The queries of a head up to the last token, `[tokens, head]`.
    fn queries<'a, E>(&self, queries: View<'a, E>, text: usize, head: usize, tokens: usize) -> View<'a, E> {
        queries.narrow(text * self.queries, tokens.min(self.queries)).columns(head * self.head(), self.head())
    }

    /// The keys (0) or values (1) of a head, `[tokens, head]`.
    fn part<'a, E>(
        &self,
        keys_values: View<'a, E>,
        text: usize,
        head: usize,
        part: usize,
        tokens: usize,
    ) -> View<'a, E> {
        let first = part * self.hidden + head * self.head();
        keys_values.narrow(text * self.seq, tokens).columns(first, self.head())
    }

    /// The positions that `rows` queries from `first` on attend to, in a text of `tokens` tokens.
    fn reach(&self, first: usize, rows: usize, tokens: usize) -> Range<usize> {
        match self.window {
            None => 0..tokens,
            Some(window) => first.saturating_sub(window)..first.saturating_add(rows).saturating_add(window).min(tokens),
        }
    }

    /// The largest number of scores for `rows` queries.
    fn most_scores(&self, rows: usize, tokens: usize) -> usize {
        let widest = self.window.map_or(tokens, |window| window.saturating_mul(2).saturating_add(rows).min(tokens));
        rows * stride(widest)
    }

    /// The parameters of a head's scores from the query `first` on, for the positions of `reach`.
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

/// Computes softmax(Q·Kᵀ/√d)·V of each head, `[batch, queries, hidden]`. The queries are `[batch · queries, hidden]`, and
/// `keys_values` is `[batch · seq, 2 · hidden]`. Also returns what the backward pass needs of each row,
/// `[batch, heads, queries]`.
pub fn attention<E: Kernels + Source<E>>(
    simd: Simd,
    shape: Attention<'_>,
    queries: View<'_, E>,
    keys_values: View<'_, E>,
) -> (Vec<E>, Vec<SoftmaxRow>) {
    let head = shape.head();
    let mut context = vec![E::default(); shape.batch * shape.queries * shape.hidden];
    let mut softmax_rows = vec![SoftmaxRow::default(); shape.batch * shape.heads * shape.queries];
    let of_head = |[text, head_at]: [usize; 2], out: &mut [&mut [E]], softmax_rows: &mut [SoftmaxRow]| {
        let tokens = shape.tokens(text).len();
        let queries = shape.queries(queries, text, head_at, tokens);
        let [keys, values] = [0, 1].map(|part| shape.part(keys_values, text, head_at, part, tokens));
        let pack = |reach: Range<usize>| {
            let [keys, values] = [keys, values].map(|part| part.narrow(reach.start, reach.len()));
            (Packed::new_serial(simd, keys.transposed()), Packed::new_serial(simd, values))
        };
        let whole = shape.window.is_none().then(|| pack(0..tokens));
        let most = shape.most_scores(ROWS.min(queries.rows()), tokens);
        let (mut scores, mut probabilities) = (Lanes::<f32>::any(most), Lanes::<E>::any(most));
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
            let probabilities = View::new(probabilities, rows, columns, stride);
            product_into_rows(simd, probabilities, values, &mut out[start..start + rows], Epilogue::Store);
        }
    };
    let texts = context.par_chunks_mut(shape.queries * shape.hidden);
    let texts = texts.zip(softmax_rows.par_chunks_mut(shape.heads * shape.queries)).enumerate();
    texts.with_max_len(1).for_each(|(text, (out, rows))| {
        // The output rows of each head.
        let mut heads: Vec<Vec<&mut [E]>> = (0..shape.heads).map(|_| Vec::with_capacity(shape.queries)).collect();
        for row in out.chunks_exact_mut(shape.hidden) {
            heads.iter_mut().zip(row.chunks_exact_mut(head)).for_each(|(head, part)| head.push(part));
        }
        let parts = heads.par_iter_mut().zip(rows.par_chunks_mut(shape.queries)).enumerate();
        parts.with_max_len(1).for_each(|(head_at, (out, rows))| of_head([text, head_at], out, rows));
    });
    (context, softmax_rows)
}

/// Computes the gradients of the queries and of `keys_values` from the gradient of the output.
pub fn attention_backward<E: Kernels + Source<E>>(
    simd: Simd,
    shape: Attention<'_>,
    queries: View<'_, E>,
    keys_values: View<'_, E>,
    softmax_rows: &[SoftmaxRow],
    gradient: View<'_, E>,
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

/// The backward pass of one head for one text.
struct HeadBackward<'a, E> {
    /// The indices of the text and the head.
    place: [usize; 2],
    queries: View<'a, E>,
    keys: View<'a, E>,
    values: View<'a, E>,
    /// The gradient of the output.
    gradient: View<'a, E>,
    softmax_rows: &'a [SoftmaxRow],
}

impl<E: Kernels + Source<E>> HeadBackward<'_, E> {
    /// Packs the transposed keys, the transposed values, and the keys, for the positions of `reach`.
    fn pack(&self, simd: Simd, reach: &Range<usize>) -> [Packed<E>; 3] {
        let [keys, values] = [self.keys, self.values].map(|part| part.narrow(reach.start, reach.len()));
        [keys.transposed(), values.transposed(), keys].map(|part| Packed::new_serial(simd, part))
    }

    /// Writes the gradients of the queries. Returns those of the keys and of the values.
    fn run(&self, simd: Simd, shape: Attention<'_>, of_queries: &mut [E]) -> [Vec<f32>; 2] {
        let (head, tokens, [text, head_at]) = (shape.head(), self.keys.rows(), self.place);
        let whole = shape.window.is_none().then(|| self.pack(simd, &(0..tokens)));
        let [mut of_keys, mut of_values] = [vec![0f32; tokens * head], vec![0f32; tokens * head]];
        let most = shape.most_scores(ROWS.min(self.queries.rows()), tokens);
        let [mut scores, mut slopes] = [most; 2].map(Lanes::<f32>::any);
        let [mut dropped, mut of_scores] = [most; 2].map(Lanes::<E>::any);
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

/// Reorders a text's `[heads, parts, seq, head]` to `[seq, parts, heads, head]`.
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
