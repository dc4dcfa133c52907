//! Weights that are computed with in their stored form, without an f32 copy in memory.

#[cfg(feature = "flex")]
mod packing;
#[cfg(feature = "flex")]
mod table;

use std::fmt;
use std::sync::Arc;

use half::bf16;
#[cfg(feature = "flex")]
pub(crate) use packing::pack_stored;
#[cfg(feature = "flex")]
pub use table::{StoredTable, TableRows, table_scores};

/// A matrix `[rows, columns]` in its stored form. A linear layer's weight is `[output, input]`, as in PyTorch.
#[derive(Clone, Copy, Debug)]
pub enum StoredMatrix<'a> {
    /// Values in f32.
    F32(&'a [f32]),
    /// Values rounded to bf16.
    Bf16(&'a [bf16]),
    /// Integers, with one scale per row.
    Int8 {
        /// Row-major.
        values: &'a [i8],
        /// One scale per row: the real value of the integer 1.
        units: &'a [f32],
        /// The rounding of the layer's input.
        rounding: &'a InputRounding,
    },
}

/// How an int8 product rounds the rows of its left operand, the input of a layer. By default, each row gets the scale that
/// fits its own values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputRounding {
    /// A factor for each column, which is applied before rounding. Multiplying the columns of the stored matrix by these
    /// factors gives the matrix before smoothing. Empty for no smoothing.
    pub smoothing: Arc<[f32]>,
    /// A static scale for all rows: the smallest and the largest value, after smoothing, that a byte represents. It
    /// contains 0.0. Values outside this range are clipped.
    pub range: Option<[f32; 2]>,
}

impl InputRounding {
    /// Whether a static scale can have this range: it must be finite and contain 0.0.
    pub fn is_range([low, high]: [f32; 2]) -> bool {
        low <= 0.0 && 0.0 <= high && (high - low).is_finite()
    }
}

impl StoredMatrix<'_> {
    /// All values as f32.
    pub fn to_f32(self) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        self.read(0, &mut values);
        values
    }

    /// The number of values.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Int8 { values, .. } => values.len(),
        }
    }

    /// Reads as many values as fit into `out`, starting at `first`.
    pub fn read(self, first: usize, out: &mut [f32]) {
        let range = first..first + out.len();
        match self {
            Self::F32(values) => out.copy_from_slice(&values[range]),
            Self::Bf16(values) => {
                for (out, value) in out.iter_mut().zip(&values[range]) {
                    *out = value.to_f32();
                }
            }
            Self::Int8 { values, units, rounding } => {
                let width = (values.len() / units.len().max(1)).max(1);
                for (at, (out, value)) in out.iter_mut().zip(&values[range]).enumerate() {
                    *out = f32::from(*value) * units[(first + at) / width];
                }
                let factors = rounding.smoothing.iter().cycle().skip(first % width);
                out.iter_mut().zip(factors).for_each(|(out, factor)| *out *= factor);
            }
        }
    }
}

/// Quantizes each row of a matrix with `columns` columns to integers from −127 to 127. The largest magnitude of a row
/// becomes 127. Returns the integers and one scale per row, the real value of the integer 1.
/// [`Precision::Int8`](crate::Precision::Int8) computes with exactly these numbers.
pub fn quantize_rows(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut whole = Vec::with_capacity(values.len());
    let mut units = Vec::with_capacity(values.len() / columns.max(1));
    for row in values.chunks_exact(columns.max(1)) {
        let largest = row.iter().fold(0f32, |largest, value| if value.abs() > largest { value.abs() } else { largest });
        // A row of zeros can have any scale.
        let unit = if largest > 127.0 * f32::MIN_POSITIVE { largest / 127.0 } else { 1.0 };
        whole.extend(row.iter().map(|value| (value / unit).round_ties_even() as i8));
        units.push(unit);
    }
    (whole, units)
}

/// Bytes at a fixed address: a mapped file, or memory. Numbers in them are aligned and in native byte order.
type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The memory of a [`StoredMatrix`].
#[derive(Clone)]
pub enum StoredValues {
    /// Values in f32.
    F32(Bytes),
    /// Values rounded to bf16.
    Bf16(Bytes),
    /// As [`StoredMatrix::Int8`].
    Int8 {
        /// Row-major.
        values: Bytes,
        /// One scale per row: the real value of the integer 1.
        units: Arc<[f32]>,
        /// The rounding of the layer's input.
        rounding: InputRounding,
    },
}

impl StoredValues {
    /// Views the values as a matrix.
    ///
    /// # Panics
    /// When the bytes are not aligned, or their length is not a multiple of a value's size.
    pub fn matrix(&self) -> StoredMatrix<'_> {
        match self {
            Self::F32(bytes) => StoredMatrix::F32(bytemuck::cast_slice((**bytes).as_ref())),
            Self::Bf16(bytes) => StoredMatrix::Bf16(bytemuck::cast_slice((**bytes).as_ref())),
            Self::Int8 { values, units, rounding } => {
                StoredMatrix::Int8 { values: bytemuck::cast_slice((**values).as_ref()), units, rounding }
            }
        }
    }
}

impl fmt::Debug for StoredValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32(_) => "f32",
            Self::Bf16(_) => "bf16",
            Self::Int8 { .. } => "int8",
        })
    }
}
