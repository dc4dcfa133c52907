//! NF4 (Dettmers et al., 2023): 4 bits per value and an absolute maximum per block of 64 values, in the layout of
//! bitsandbytes.

mod on_device;

use std::ops::Range;
use std::sync::LazyLock;

use burn::tensor::{Device, Tensor};
use kiln_kernels::Storage;
use on_device::OnDevice;
use rayon::prelude::*;

/// The value of each code, relative to its block's maximum: quantiles of a normal distribution.
const CODEBOOK: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Number of values that share a maximum.
const BLOCK: usize = 64;
/// Number of block maxima that share a second-level maximum.
const NESTED_BLOCK: usize = 256;

/// A matrix in NF4.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4 {
    /// `[output, input]`
    shape: [usize; 2],
    codes: Vec<u8>,
    absmax: Absmax,
    on_device: OnDevice,
}

/// The largest magnitude of each block.
#[derive(Clone, Debug, PartialEq)]
pub enum Absmax {
    /// In f32.
    Plain(Vec<f32>),
    /// Double quantization: in 8 bits, after their mean is subtracted.
    Nested {
        /// One per block: an index into the dynamic map.
        codes: Vec<u8>,
        /// The largest magnitude of each 256 maxima, after the mean is subtracted.
        absmax: Vec<f32>,
        /// The mean of all maxima.
        offset: f32,
    },
}

impl Nf4 {
    /// Quantizes a row-major matrix `[output, input]`.
    ///
    /// # Panics
    /// When the number of values does not match the shape.
    pub fn new(values: &[f32], shape: [usize; 2], is_nested: bool) -> Self {
        assert_eq!(values.len(), shape[0] * shape[1], "a value for each place");
        let absmax: Vec<f32> = values.par_chunks(BLOCK).map(largest).collect();
        let mut codes = vec![0u8; values.len().div_ceil(2)];
        codes.par_chunks_mut(BLOCK / 2).zip(values.par_chunks(BLOCK)).zip(&absmax).for_each(
            |((codes, values), absmax)| {
                // bitsandbytes multiplies full blocks by the inverse, but divides a partial last block.
                let absmax = divisor(*absmax);
                let inverse = 1.0 / absmax;
                let code = |value: f32| code(if values.len() == BLOCK { value * inverse } else { value / absmax });
                for (at, &value) in values.iter().enumerate() {
                    codes[at / 2] |= if at % 2 == 0 { code(value) << 4 } else { code(value) };
                }
                if values.len() % 2 == 1 {
                    codes[values.len() / 2] |= code(0.0);
                }
            },
        );
        let absmax = if is_nested { Absmax::nested(&absmax) } else { Absmax::Plain(absmax) };
        Self { shape, codes, absmax, on_device: OnDevice::default() }
    }

    /// Two codes per byte, the first in the high half; row-major `[output, input]`.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The block maxima.
    pub fn absmax(&self) -> &Absmax {
        &self.absmax
    }

    /// Decodes the values from `start` on, which are all in one block.
    fn decode(&self, start: usize, values: &mut [f32]) {
        let absmax = self.absmax.at(start / BLOCK);
        if start.is_multiple_of(2) && values.len().is_multiple_of(2) {
            // Two values from each byte.
            for (pair, byte) in values.as_chunks_mut().0.iter_mut().zip(&self.codes[start / 2..]) {
                *pair = [CODEBOOK[usize::from(byte >> 4)] * absmax, CODEBOOK[usize::from(byte & 15)] * absmax];
            }
            return;
        }
        for (value, at) in values.iter_mut().zip(start..) {
            let byte = self.codes[at / 2];
            let code = if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
            *value = CODEBOOK[usize::from(code)] * absmax;
        }
    }

    /// The size of the codes and maxima in bytes.
    pub fn bytes(&self) -> usize {
        let absmax = match &self.absmax {
            Absmax::Plain(absmax) => absmax.len() * size_of::<f32>(),
            Absmax::Nested { codes, absmax, .. } => codes.len() + absmax.len() * size_of::<f32>(),
        };
        self.codes.len() + absmax
    }
}

impl Storage for Nf4 {
    fn shape(&self) -> [usize; 2] {
        let [output, input] = self.shape;
        [input, output]
    }

    fn tensor(&self, device: &Device) -> Tensor<2> {
        self.on_device.tensor(self, device)
    }

    fn unpack_block(&self, inputs: Range<usize>, outputs: Range<usize>, values: &mut [f32]) {
        /// Number of matrix rows that are decoded before they are written as columns.
        const TILE: usize = 16;
        let [output, input] = self.shape;
        assert!(inputs.end <= input && outputs.end <= output, "values of the matrix");
        assert_eq!(values.len(), inputs.len() * outputs.len(), "a place for each value");
        let mut decoded = [[0f32; BLOCK]; TILE];
        for columns in parts(inputs.clone(), BLOCK) {
            for rows in parts(outputs.clone(), TILE) {
                for (row, decoded) in rows.clone().zip(&mut decoded) {
                    for part in parts_at(row * input + columns.start..row * input + columns.end) {
                        let place = part.start - (row * input + columns.start);
                        self.decode(part.start, &mut decoded[place..][..part.len()]);
                    }
                }
                for column in 0..columns.len() {
                    let to = (columns.start - inputs.start + column) * outputs.len() + (rows.start - outputs.start);
                    let to = &mut values[to..][..rows.len()];
                    to.iter_mut().zip(&decoded).for_each(|(to, decoded)| *to = decoded[column]);
                }
            }
        }
    }
}

/// Splits a range into parts of `len`; the last may be shorter.
fn parts(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..end.min(start + len))
}

/// Splits a range of at most [`BLOCK`] values into parts that are each in one block.
fn parts_at(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let middle = (range.start / BLOCK + 1) * BLOCK;
    [range.start..range.end.min(middle), middle.min(range.end)..range.end].into_iter().filter(|part| !part.is_empty())
}

impl Absmax {
    fn nested(values: &[f32]) -> Self {
        let offset = (values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len().max(1) as f64) as f32;
        let centred: Vec<f32> = values.iter().map(|value| value - offset).collect();
        let map = &*DYNAMIC_MAP;
        let absmax: Vec<f32> = centred.chunks(NESTED_BLOCK).map(largest).collect();
        let codes = centred
            .chunks(NESTED_BLOCK)
            .zip(&absmax)
            .flat_map(|(values, absmax)| values.iter().map(move |value| nearest(map, value / divisor(*absmax))));
        Self::Nested { codes: codes.collect(), absmax, offset }
    }

    /// The maximum of a block.
    fn at(&self, block: usize) -> f32 {
        match self {
            Self::Plain(absmax) => absmax[block],
            Self::Nested { codes, absmax, offset } => {
                DYNAMIC_MAP[usize::from(codes[block])] * absmax[block / NESTED_BLOCK] + offset
            }
        }
    }

    /// The block maxima in f32.
    pub fn values(&self) -> Vec<f32> {
        let blocks = match self {
            Self::Plain(absmax) => absmax.len(),
            Self::Nested { codes, .. } => codes.len(),
        };
        (0..blocks).map(|block| self.at(block)).collect()
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// A block's maximum as a divisor, which is above zero even if all values of the block are zero.
fn divisor(absmax: f32) -> f32 {
    absmax.max(f32::MIN_POSITIVE)
}

/// The code of a value in [−1, 1]: the number of midpoints between neighbouring entries that are below it.
fn code(value: f32) -> u8 {
    CODEBOOK.windows(2).filter(|pair| value > (pair[0] + pair[1]) / 2.0).count() as u8
}

static DYNAMIC_MAP: LazyLock<Vec<f32>> = LazyLock::new(dynamic_map);

/// The 8-bit map of bitsandbytes' `create_dynamic_map`: zero, one, and seven decades with both signs. Each decade has
/// twice as many values as the one below it.
fn dynamic_map() -> Vec<f32> {
    const FIRST: f32 = 0.1;
    let mut map = vec![0.0, 1.0];
    for decade in 0..7 {
        let parts = 1usize << decade;
        let step = (1.0 - FIRST) / parts as f32;
        // Computed from both ends with one rounding each, like the `linspace` of bitsandbytes.
        let boundary = |at: usize| match at < parts.div_ceil(2) {
            true => step.mul_add(at as f32, FIRST),
            false => (-step).mul_add((parts - at) as f32, 1.0),
        };
        let unit = 10f64.powi(decade - 6) as f32;
        for at in 0..parts {
            let mean = unit * ((boundary(at) + boundary(at + 1)) / 2.0);
            map.extend([mean, -mean]);
        }
    }
    map.sort_by(f32::total_cmp);
    map
}

/// The index of the entry that is nearest to a value in [−1, 1]. As in bitsandbytes, the value is first rounded to one of
/// 65,536 evenly spaced values.
fn nearest(map: &[f32], value: f32) -> u8 {
    const STEPS: f64 = 65_535.0 / 2.0;
    let value = (((f64::from(value) + 1.0) * STEPS).round() / STEPS - 1.0) as f32;
    let above = map.partition_point(|entry| *entry <= value).clamp(1, map.len() - 1);
    let (below, above_distance) = (value - map[above - 1], map[above] - value);
    (if above_distance < below { above } else { above - 1 }) as u8
}
