//! The operations of a BERT layer after attention, which apply to each position on its own.

use rayon::prelude::*;

use super::lanes::Lanes;
use super::norm::{Norm, residual_norm_rows};
use super::pack::{Packed, Source, round};
use super::product::{Epilogue, ROWS, Target, block_rows, fill, product, product_serial};
use super::{Kernels, Simd, Slot, View};
use crate::Activation;

/// Values of padding between two rows. Rows at distances that are a multiple of the page size would share a few sets of the
/// L1 cache, which do not hold all of them.
const APART: usize = 32;

/// A linear layer: a weight, `[input, output]`, and a bias.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a, W> {
    /// The weight.
    pub weight: &'a Packed<W>,
    /// `[output]`
    pub bias: &'a [f32],
}

/// The linear layers after attention, and the operations after each.
#[derive(Clone, Copy, Debug)]
pub struct PositionWise<'a, W> {
    /// `[heads · head, hidden]`, followed by the residual connection and the normalization.
    pub attention_output: (Stage<'a, W>, Norm<'a>),
    /// `[hidden, intermediate]`, followed by the activation.
    pub intermediate: (Stage<'a, W>, Activation),
    /// `[intermediate, hidden]`, followed by the residual connection and the normalization.
    pub output: (Stage<'a, W>, Norm<'a>),
}

/// Whether there are enough positions for all threads to have blocks of them.
pub fn is_many(positions: usize) -> bool {
    positions > ROWS
}

impl<W: Kernels> PositionWise<'_, W> {
    /// Computes the layer's output, `[positions, hidden]`. `context` is the output of the attention heads, one row per
    /// position, and `residual` is the layer's input, `[positions, hidden]`. The inputs of products are rounded to `E`.
    pub fn run<E: Source<W>>(self, simd: Simd, context: View<'_, E>, residual: &[f32]) -> Vec<f32>
    where
        f32: Source<E> + Source<W>,
    {
        let hidden = self.hidden();
        assert_eq!(residual.len(), context.rows() * hidden, "a residual for each value of the output");
        assert_eq!(self.output.0.weight.columns(), hidden, "both blocks have the same width");
        for (_, norm) in [self.attention_output, self.output] {
            assert_eq!([norm.weight.len(), norm.bias.len()], [hidden; 2], "a scale and a shift for each column");
        }
        fill(residual.len(), |out| match W::QUANTIZED {
            true => self.by_block(simd, context, residual, out),
            false => self.by_product(simd, context, residual, out),
        })
    }

    fn hidden(&self) -> usize {
        self.attention_output.0.weight.columns()
    }

    /// Computes all three products for one block of positions after the other. Intermediate values stay in the near caches,
    /// and the threads synchronize only once. This is faster if all three weights stay in the shared cache.
    fn by_block<E: Source<W>, S: Slot>(self, simd: Simd, context: View<'_, E>, residual: &[f32], out: &mut [S])
    where
        f32: Source<E>,
    {
        let (hidden, inner) = (self.hidden(), self.intermediate.0.weight.columns());
        let most = block_rows::<W>(simd, context.rows());
        let blocks = out.par_chunks_mut(most * hidden).zip(residual.par_chunks(most * hidden)).enumerate();
        blocks.with_max_len(1).for_each(|(block, (out, residual))| {
            let rows = residual.len() / hidden;
            let mut attended = Lanes::<f32>::any(residual.len());
            let context = context.narrow(block * most, rows);
            normalized_block(simd, context, residual, self.attention_output, &mut attended);

            let (Stage { weight, bias }, activation) = self.intermediate;
            let row_step = inner + APART;
            let [mut rounded, mut activated] = [hidden, row_step].map(|width| Lanes::<E>::any(rows * width));
            round(simd, &attended, &mut rounded);
            let (read, target) = (View::new(&rounded, rows, hidden, hidden), Target::whole(&mut activated, row_step));
            product_serial(simd, read, weight, target, Epilogue::BiasActivation(bias, activation));

            normalized_block(simd, View::new(&activated, rows, inner, row_step), &attended, self.output, out);
        });
    }

    /// Computes each product for all positions before the next.
    fn by_product<E: Source<W>, S: Slot>(self, simd: Simd, context: View<'_, E>, residual: &[f32], out: &mut [S])
    where
        f32: Source<W>,
    {
        let (rows, hidden, inner) = (context.rows(), self.hidden(), self.intermediate.0.weight.columns());
        let mut attended = Lanes::<f32>::any(residual.len());
        normalized(simd, context, residual, self.attention_output, &mut attended);

        let (Stage { weight, bias }, activation) = self.intermediate;
        let row_step = inner + APART;
        let mut activated = Lanes::<E>::any(rows * row_step);
        let (read, target) = (View::new(&attended, rows, hidden, hidden), Target::whole(&mut activated, row_step));
        product(simd, read, weight, target, Epilogue::BiasActivation(bias, activation));

        normalized(simd, View::new(&activated, rows, inner, row_step), &attended, self.output, out);
    }
}

/// Computes `norm(x · weight + bias + residual)` with all threads.
fn normalized<E: Source<W>, W: Kernels, S: Slot>(
    simd: Simd,
    x: View<'_, E>,
    residual: &[f32],
    (stage, norm): (Stage<'_, W>, Norm<'_>),
    out: &mut [S],
) {
    let hidden = stage.weight.columns();
    let most = block_rows::<W>(simd, x.rows());
    let blocks = out.par_chunks_mut(most * hidden).zip(residual.par_chunks(most * hidden)).enumerate();
    blocks.with_max_len(1).for_each(|(block, (out, residual))| {
        let x = x.narrow(block * most, residual.len() / hidden);
        normalized_block(simd, x, residual, (stage, norm), out);
    });
}

/// As [`normalized`], for a block, on the calling thread.
fn normalized_block<E: Source<W>, W: Kernels, S: Slot>(
    simd: Simd,
    x: View<'_, E>,
    residual: &[f32],
    (Stage { weight, bias }, norm): (Stage<'_, W>, Norm<'_>),
    out: &mut [S],
) {
    let mut sums = Lanes::<f32>::any(residual.len());
    product_serial(simd, x, weight, Target::whole(&mut sums, weight.columns()), Epilogue::Bias(bias));
    residual_norm_rows(simd, &mut sums, residual, norm, out);
}
