//! Weights that are computed with as they are stored: no f32 copy of them is in memory.

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

/// A matrix `[rows, columns]` in the form in which it is stored. A linear layer's weight is one of `[output, input]`, as
/// PyTorch keeps it.
#[derive(Clone, Copy, Debug)]
pub enum StoredMatrix<'a> {
    /// In full.
    F32(&'a [f32]),
    /// Rounded.
    Bf16(&'a [bf16]),
    /// Whole numbers, and for each row the real value of 1.
    Int8 {
        /// Row-major.
        values: &'a [i8],
        /// One a row.
        units: &'a [f32],
        /// Of the layer's input.
        rounding: &'a InputRounding,
    },
}

/// How an int8 product rounds the rows of its left operand, the input of a layer. By default each row gets the unit that its
/// own values ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputRounding {
    /// What each column is multiplied with first; a stored matrix whose columns are multiplied with it is the matrix as it was
    /// before it was smoothed. Empty: with nothing.
    pub smoothing: Arc<[f32]>,
    /// A static scale: the smallest and the largest value, after smoothing, that a byte stands for, with 0.0 between them.
    /// What is outside of it is cut off.
    pub range: Option<[f32; 2]>,
}

impl InputRounding {
    /// Whether a static scale can be of this range: one of finite length with 0.0 in it.
    pub fn is_range([low, high]: [f32; 2]) -> bool {
        low <= 0.0 && 0.0 <= high && (high - low).is_finite()
    }
}

impl StoredMatrix<'_> {
    /// All values.
    pub fn to_f32(self) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        self.read(0, &mut values);
        values
    }

    /// How many values.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Int8 { values, .. } => values.len(),
        }
    }

    /// The values from `first` on, as many as `out` takes.
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

/// Each row of a matrix of `columns` as whole numbers from −127 to 127, the largest magnitude becoming 127; and what 1 is
/// worth in it. [`Precision::Int8`](crate::Precision::Int8) computes with just these numbers.
pub fn quantize_rows(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut whole = Vec::with_capacity(values.len());
    let mut units = Vec::with_capacity(values.len() / columns.max(1));
    for row in values.chunks_exact(columns.max(1)) {
        let largest = row.iter().fold(0f32, |largest, value| if value.abs() > largest { value.abs() } else { largest });
        // A row of zeros has any unit.
        let unit = if largest > 127.0 * f32::MIN_POSITIVE { largest / 127.0 } else { 1.0 };
        whole.extend(row.iter().map(|value| (value / unit).round_ties_even() as i8));
        units.push(unit);
    }
    (whole, units)
}

/// Bytes that stay where they are: a mapped file, or memory. Numbers in them are aligned, and in the machine's order of
/// bytes.
type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The memory of a [`StoredMatrix`].
#[derive(Clone)]
pub enum StoredValues {
    /// In full.
    F32(Bytes),
    /// Rounded.
    Bf16(Bytes),
    /// As [`StoredMatrix::Int8`].
    Int8 {
        /// Row-major.
        values: Bytes,
        /// One a row.
        units: Arc<[f32]>,
        /// Of the layer's input.
        rounding: InputRounding,
    },
}

impl StoredValues {
    /// The matrix.
    ///
    /// # Panics
    /// When the bytes are not those of whole numbers, or not aligned.
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
