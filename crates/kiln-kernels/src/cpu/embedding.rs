use rayon::prelude::*;

use super::norm::{ROWS, drop_in_place};
use super::{Dropout, Keep, Norm, Normalized, Simd, add, residual_norm};

/// The tables whose rows are added for a token, `[entries, hidden]` each.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// Word embeddings, by token id.
    pub words: &'a [f32],
    /// Position embeddings.
    pub positions: &'a [f32],
    /// Segment embeddings.
    pub segments: &'a [f32],
}

/// The table entries of a batch.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The word entry of each token, `[batch, seq]`.
    pub words: Vec<usize>,
    /// The segment entry of each token, `[batch, seq]`.
    pub segments: Vec<usize>,
    /// The number of positions of a text.
    pub seq: usize,
}

/// Computes `dropout(norm(words + positions + segments))`, `[batch, seq, hidden]`. `keep` is set if a backward pass
/// follows.
///
/// # Panics
/// When an entry is out of its table's range.
pub fn embed(
    simd: Simd,
    tables: Tables<'_>,
    tokens: &Tokens,
    norm: Norm<'_>,
    dropout: Option<Dropout>,
    keep: bool,
) -> (Vec<f32>, Option<Normalized<f32>>) {
    let hidden = norm.weight.len();
    let mut out = vec![0.0; tokens.words.len() * hidden];
    let mut places = vec![0.0; out.len()];
    let rows = out.par_chunks_mut(hidden).zip(places.par_chunks_mut(hidden)).with_min_len(ROWS).enumerate();
    rows.for_each(|(token, (out, place))| {
        let entry = |table: &'_ [f32], at: usize| -> std::ops::Range<usize> {
            assert!((at + 1) * hidden <= table.len(), "entry {at} of a table of {}", table.len() / hidden);
            at * hidden..(at + 1) * hidden
        };
        out.copy_from_slice(&tables.words[entry(tables.words, tokens.words[token])]);
        place.copy_from_slice(&tables.positions[entry(tables.positions, token % tokens.seq)]);
        add(simd, place, &tables.segments[entry(tables.segments, tokens.segments[token])]);
    });
    let keep = if keep { Keep::Rows } else { Keep::Nothing };
    let normalized = residual_norm(simd, &mut out, &places, norm, None, keep);
    if let Some(dropout) = dropout {
        drop_in_place(simd, &mut out, hidden, dropout);
    }
    (out, normalized)
}

/// Computes the gradient of a table. Each row of `gradient`, `[rows, hidden]`, is added to the table row that `entry`
/// returns for it.
pub fn table_gradient(
    simd: Simd,
    gradient: &[f32],
    hidden: usize,
    entries: usize,
    entry: impl Fn(usize) -> usize,
) -> Vec<f32> {
    let mut table = vec![0.0; entries * hidden];
    for (row, gradient) in gradient.chunks_exact(hidden).enumerate() {
        add(simd, &mut table[entry(row) * hidden..][..hidden], gradient);
    }
    table
}
