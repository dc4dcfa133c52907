//! Rotary position embeddings. Splits one matrix of queries, keys and values into the two matrices that attention reads,
//! and rotates the queries and keys.

use rayon::prelude::*;

use super::simd::vectorized;
use super::{Element, Simd};

/// The cosines and sines of the rotation angles of feature pairs, `[positions, head / 2]` each.
#[derive(Debug, Default)]
pub struct Angles {
    /// The cosine of each angle.
    pub cosines: Vec<f32>,
    /// The sine of each angle.
    pub sines: Vec<f32>,
}

/// The shapes of the split.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// The number of texts.
    pub batch: usize,
    /// The number of positions of a text.
    pub seq: usize,
    /// The number of positions that attend, from the first on.
    pub queries: usize,
    /// The number of heads.
    pub heads: usize,
    /// The width of a head.
    pub head: usize,
}

impl Division {
    fn hidden(&self) -> usize {
        self.heads * self.head
    }
}

/// Splits `[batch, seq, 3, heads, head]` into the rotated queries, `[batch, queries, heads, head]`, and the rotated keys
/// next to the values, `[batch, seq, 2, heads, head]`.
pub fn divide<E: Element>(simd: Simd, division: Division, all: &[E], angles: &Angles) -> [Vec<E>; 2] {
    let Division { batch, seq, queries, head, .. } = division;
    let hidden = division.hidden();
    let mut of_queries = vec![E::default(); batch * queries * hidden];
    let mut keys_values = vec![E::default(); batch * seq * 2 * hidden];
    let rows = keys_values.par_chunks_mut(2 * hidden).zip(all.par_chunks(3 * hidden)).enumerate();
    rows.for_each(|(at, (out, row))| {
        let (key, value) = out.split_at_mut(hidden);
        turn(simd, &row[hidden..2 * hidden], Turn::forward(angles, at % seq, head), key);
        value.copy_from_slice(&row[2 * hidden..]);
    });
    of_queries.par_chunks_mut(hidden).enumerate().for_each(|(at, out)| {
        let (text, position) = (at / queries, at % queries);
        let row = &all[(text * seq + position) * 3 * hidden..][..hidden];
        turn(simd, row, Turn::forward(angles, position, head), out);
    });
    [of_queries, keys_values]
}

/// Computes the gradient of the input of [`divide`] from the gradients of its outputs.
pub fn unite<E: Element>(
    simd: Simd,
    division: Division,
    [of_queries, of_keys_values]: [&[E]; 2],
    angles: &Angles,
) -> Vec<E> {
    let Division { batch, seq, queries, head, .. } = division;
    let hidden = division.hidden();
    let mut all = vec![E::default(); batch * seq * 3 * hidden];
    let rows = all.par_chunks_mut(3 * hidden).zip(of_keys_values.par_chunks(2 * hidden)).enumerate();
    rows.for_each(|(at, (out, row))| {
        let (text, position) = (at / seq, at % seq);
        let (query, key_value) = out.split_at_mut(hidden);
        let back = Turn::backward(angles, position, head);
        if position < queries {
            turn(simd, &of_queries[(text * queries + position) * hidden..][..hidden], back, query);
        }
        turn(simd, &row[..hidden], back, &mut key_value[..hidden]);
        key_value[hidden..].copy_from_slice(&row[hidden..]);
    });
    all
}

/// The rotation of the heads at one position.
#[derive(Clone, Copy)]
struct Turn<'a> {
    cosines: &'a [f32],
    sines: &'a [f32],
    /// 1, or −1 for the reverse rotation.
    direction: f32,
}

impl<'a> Turn<'a> {
    fn forward(angles: &'a Angles, position: usize, head: usize) -> Self {
        let half = head / 2;
        let of_position = position * half..(position + 1) * half;
        Self { cosines: &angles.cosines[of_position.clone()], sines: &angles.sines[of_position], direction: 1.0 }
    }

    fn backward(angles: &'a Angles, position: usize, head: usize) -> Self {
        Self { direction: -1.0, ..Self::forward(angles, position, head) }
    }
}

vectorized! {
    /// Rotates the features i and i + head / 2 of each head.
    fn turn<E: Element>(row: &[E], turn: Turn<'_>, out: &mut [E]) {
        let Turn { cosines, sines, direction } = turn;
        let half = cosines.len();
        let sines = &sines[..half];
        for (row, out) in row.chunks_exact(2 * half).zip(out.chunks_exact_mut(2 * half)) {
            let (first, second) = row.split_at(half);
            let (out_first, out_second) = out.split_at_mut(half);
            // Slices of equal length, so that the loop has no bounds checks.
            let (second, out_second) = (&second[..half], &mut out_second[..half]);
            for i in 0..half {
                let (a, b, cosine, sine) = (first[i].to_f32(), second[i].to_f32(), cosines[i], direction * sines[i]);
                out_first[i] = E::from_f32(a * cosine - b * sine);
                out_second[i] = E::from_f32(b * cosine + a * sine);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_turned_by_their_angles_and_back() {
        let (simd, division) = (Simd::detect(), Division { batch: 2, seq: 3, queries: 3, heads: 2, head: 4 });
        let angle = |at: usize| (at / 2) as f32 * if at.is_multiple_of(2) { 1.0 } else { 0.1 };
        let angles = Angles {
            cosines: (0..6).map(|at| angle(at).cos()).collect(),
            sines: (0..6).map(|at| angle(at).sin()).collect(),
        };
        let all: Vec<f32> = (0..2 * 3 * 24).map(|at| (at as f32 * 0.7).sin()).collect();
        let [queries, keys_values] = divide(simd, division, &all, &angles);
        // The second position of the second text: features 1 and 3 of its key's second head.
        let (row, turned) = (&all[4 * 24 + 8..][..8], &keys_values[4 * 16..][..8]);
        let (cosine, sine) = (0.1f32.cos(), 0.1f32.sin());
        assert!((turned[5] - (row[5] * cosine - row[7] * sine)).abs() < 1e-6);
        assert!((turned[7] - (row[7] * cosine + row[5] * sine)).abs() < 1e-6);
        assert_eq!(keys_values[4 * 16 + 8..][..8], all[4 * 24 + 16..][..8], "values stay");
        let back = unite(simd, division, [&queries, &keys_values], &angles);
        assert!(back.iter().zip(&all).all(|(back, all)| (back - all).abs() < 1e-6));
    }
}
