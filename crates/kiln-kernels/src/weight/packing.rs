//! Packs weights as the right operand of a product, some of their outputs at a time.

use std::ops::{Deref, Range};

use super::Storage;
use super::operand::Operand;
use crate::cpu::{Kernels, Lanes, Packed, Simd, View};

/// The most values of a weight that are packed at once, if packed weights are not kept.
const MOST_PACKED: usize = 768 * 1536;
/// A multiple of the width of every panel.
const WHOLE_PANELS: usize = 192;

/// Splits the columns of a `k × n` operand into parts of one size, with at most about [`MOST_PACKED`] values each.
pub(crate) fn parts(k: usize, n: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (k * n).div_ceil(MOST_PACKED).max(1);
    let columns = n.div_ceil(count).next_multiple_of(WHOLE_PANELS);
    (0..n).step_by(columns).map(move |start| start..n.min(start + columns))
}

/// A weight's values.
pub(crate) enum Values<'a> {
    /// The stored values themselves.
    Held(&'a [f32]),
    /// Unpacked values, or values with a low-rank update.
    Computed(Lanes<f32>),
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Held(values) => values,
            Self::Computed(values) => values,
        }
    }
}

/// The source of the values that are packed.
pub(super) enum ValueSource<'a> {
    Values(Values<'a>),
    /// Unpacked one part at a time, so that the whole weight is never in memory as f32.
    Storage(&'a dyn Storage),
}

impl ValueSource<'_> {
    /// Writes the values of some inputs and outputs into rows of `row_len` values, starting at column `first`. A weight has
    /// `output` outputs in total.
    fn read(
        &self,
        output: usize,
        [inputs, outputs]: [&Range<usize>; 2],
        rows: &mut [f32],
        [row_len, first]: [usize; 2],
    ) {
        let width = outputs.len();
        let unpacked;
        let (values, step, start) = match self {
            Self::Storage(storage) if width == row_len => {
                return storage.unpack_block(inputs.clone(), outputs.clone(), rows);
            }
            Self::Storage(storage) => {
                let mut block = vec![0f32; inputs.len() * width];
                storage.unpack_block(inputs.clone(), outputs.clone(), &mut block);
                unpacked = block;
                (&unpacked[..], width, 0)
            }
            Self::Values(values) => (&**values, output, inputs.start * output + outputs.start),
        };
        for (at, row) in rows.chunks_exact_mut(row_len).enumerate() {
            row[first..first + width].copy_from_slice(&values[start + at * step..][..width]);
        }
    }
}

fn sources<'a, E: Kernels>(weights: &[&'a Operand]) -> ([usize; 2], Vec<ValueSource<'a>>) {
    let shape = weights[0].shape();
    assert!(weights.iter().all(|weight| weight.shape() == shape), "weights of one shape");
    (shape, weights.iter().map(|weight| weight.source::<E>()).collect())
}

/// Packs some outputs of weights of one shape, `[input, output]` each, side by side as the right operand of one product.
pub(crate) fn pack<E: Kernels>(weights: &[&Operand], outputs: Range<usize>) -> Packed<E> {
    let ([input, output], sources) = sources::<E>(weights);
    let (simd, width) = (Simd::detect(), outputs.len());
    if let [ValueSource::Values(values)] = &sources[..] {
        return Packed::new(simd, View::new(&values[outputs.start..], input, width, output));
    }
    let read = |columns: Range<usize>, rows: &mut [f32]| {
        for (at, source) in sources.iter().enumerate() {
            let start = at * output;
            let part = columns.start.max(start)..columns.end.min(start + output);
            if !part.is_empty() {
                let (own, place) = (part.start - start..part.end - start, part.start - columns.start);
                source.read(output, [&(0..input), &own], rows, [columns.len(), place]);
            }
        }
    };
    if E::QUANTIZED {
        let mut joined = Lanes::any(input * width);
        read(outputs, &mut joined);
        return Packed::new(simd, View::new(&joined, input, width, width));
    }
    Packed::by_panel(simd, [input, width], |columns, rows| {
        let width = columns.len();
        read(outputs.start + columns.start..outputs.start + columns.end, rows);
        View::new(rows, input, width, width)
    })
}

/// Packs some inputs of weights of one shape, `[input, output]` each, side by side and transposed as the right operand of
/// one product.
pub(crate) fn pack_transposed<E: Kernels>(weights: &[&Operand], inputs: Range<usize>) -> Packed<E> {
    let ([_, output], sources) = sources::<E>(weights);
    let simd = Simd::detect();
    if let [ValueSource::Values(values)] = &sources[..] {
        let values = &values[inputs.start * output..inputs.end * output];
        return Packed::new(simd, View::new(values, inputs.len(), output, output).transposed());
    }
    let width = output * weights.len();
    Packed::by_panel(simd, [width, inputs.len()], |columns, rows| {
        let read = inputs.start + columns.start..inputs.start + columns.end;
        for (at, source) in sources.iter().enumerate() {
            source.read(output, [&read, &(0..output)], rows, [width, at * output]);
        }
        View::new(&*rows, columns.len(), width, width).transposed()
    })
}
