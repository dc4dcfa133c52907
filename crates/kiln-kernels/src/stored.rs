//! Weights that are computed with as they are stored: no f32 copy of them is in memory.

use std::fmt;
use std::sync::Arc;

use half::bf16;

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
    },
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
    pub(crate) fn read(self, first: usize, out: &mut [f32]) {
        let range = first..first + out.len();
        match self {
            Self::F32(values) => out.copy_from_slice(&values[range]),
            Self::Bf16(values) => {
                for (out, value) in out.iter_mut().zip(&values[range]) {
                    *out = value.to_f32();
                }
            }
            Self::Int8 { values, units } => {
                let width = (values.len() / units.len().max(1)).max(1);
                for (at, (out, value)) in out.iter_mut().zip(&values[range]).enumerate() {
                    *out = f32::from(*value) * units[(first + at) / width];
                }
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
    /// Whole numbers, and for each row the real value of 1.
    Int8(Bytes, Arc<[f32]>),
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
            Self::Int8(bytes, units) => StoredMatrix::Int8 { values: bytemuck::cast_slice((**bytes).as_ref()), units },
        }
    }
}

impl fmt::Debug for StoredValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32(_) => "f32",
            Self::Bf16(_) => "bf16",
            Self::Int8(..) => "int8",
        })
    }
}

#[cfg(feature = "flex")]
pub(crate) use packing::pack_stored;
#[cfg(feature = "flex")]
pub use packing::{StoredTable, table_scores};

#[cfg(feature = "flex")]
mod packing {
    use std::any::{Any, TypeId};
    use std::sync::Arc;

    use burn::backend::Flex;
    use burn::tensor::{Int, Tensor, TensorData};
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::{StoredMatrix, StoredValues, quantize_rows};
    use crate::cpu::{Epilogue, Kernels, Packed, Simd, Target, View, product};
    use crate::weight::Operand;

    /// Weights that are all stored, packed side by side as one right operand without unpacking them.
    pub(crate) fn pack_stored<E: Kernels>(weights: &[&Operand]) -> Option<Arc<Packed<E>>> {
        let stored: Vec<StoredValues> = weights.iter().map(|weight| weight.stored()).collect::<Option<_>>()?;
        let matrices: Vec<StoredMatrix<'_>> = stored.iter().map(StoredValues::matrix).collect();
        let [input, output] = weights[0].shape();
        assert!(weights.iter().all(|weight| weight.shape() == [input, output]), "weights of one shape");
        assert!(matrices.iter().all(|matrix| matrix.len() == input * output), "matrices of that shape");
        let rows = output * matrices.len();
        let packed: Arc<dyn Any + Send + Sync> = match TypeId::of::<E>() {
            element if element == TypeId::of::<f32>() => Arc::new(pack_f32(&matrices, rows, input)),
            element if element == TypeId::of::<bf16>() => Arc::new(pack_bf16(&matrices, rows, input)),
            element if element == TypeId::of::<i8>() => Arc::new(pack_int8(&matrices, rows, input)),
            _ => return None,
        };
        packed.downcast().ok()
    }

    fn pack_f32(matrices: &[StoredMatrix<'_>], rows: usize, columns: usize) -> Packed<f32> {
        let pack = |values: &[f32]| Packed::new(Simd::detect(), View::new(values, rows, columns, columns).transposed());
        match matrices {
            [StoredMatrix::F32(values)] => pack(values),
            _ => pack(&matrices.iter().flat_map(|matrix| matrix.to_f32()).collect::<Vec<f32>>()),
        }
    }

    fn pack_bf16(matrices: &[StoredMatrix<'_>], rows: usize, columns: usize) -> Packed<bf16> {
        let pack =
            |values: &[bf16]| Packed::new(Simd::detect(), View::new(values, rows, columns, columns).transposed());
        let rounded = |matrix: &StoredMatrix<'_>| match matrix {
            StoredMatrix::Bf16(values) => values.to_vec(),
            matrix => matrix.to_f32().into_iter().map(bf16::from_f32).collect(),
        };
        match matrices {
            [StoredMatrix::Bf16(values)] => pack(values),
            _ => pack(&matrices.iter().flat_map(rounded).collect::<Vec<bf16>>()),
        }
    }

    fn pack_int8(matrices: &[StoredMatrix<'_>], rows: usize, columns: usize) -> Packed<i8> {
        let pack = |values: &[i8], units: &[f32]| {
            Packed::from_quantized(Simd::detect(), View::new(values, rows, columns, columns).transposed(), units)
        };
        let quantized = |matrix: &StoredMatrix<'_>| match matrix {
            StoredMatrix::Int8 { values, units } => (values.to_vec(), units.to_vec()),
            matrix => quantize_rows(&matrix.to_f32(), columns),
        };
        match matrices {
            [StoredMatrix::Int8 { values, units }] => pack(values, units),
            _ => {
                let (values, units): (Vec<Vec<i8>>, Vec<Vec<f32>>) = matrices.iter().map(quantized).unzip();
                pack(&values.concat(), &units.concat())
            }
        }
    }

    /// A table of vectors that is read a row at a time, where it is: word embeddings. Its clones share it.
    #[derive(Clone, Debug)]
    pub struct StoredTable {
        values: StoredValues,
        rows: usize,
        columns: usize,
    }

    impl StoredTable {
        /// A table of `rows` and `columns`.
        ///
        /// # Panics
        /// When there are more or fewer values, or they are not aligned.
        pub fn new(values: StoredValues, [rows, columns]: [usize; 2]) -> Self {
            let table = Self { values, rows, columns };
            assert_eq!(table.matrix().len(), rows * columns, "a table of {rows} × {columns}");
            if let StoredValues::Int8(_, units) = &table.values {
                assert_eq!(units.len(), rows, "a unit for each row");
            }
            table
        }

        fn matrix(&self) -> StoredMatrix<'_> {
            self.values.matrix()
        }

        /// The rows that `ids` name as a table of its own, and the ids in it.
        ///
        /// # Shapes
        /// - `ids`: `[batch, seq]`
        /// - output: `[batch · seq, columns]` and `[batch, seq]`
        ///
        /// # Panics
        /// When an id is negative or not below the number of rows.
        pub fn select(&self, ids: Tensor<2, Int>) -> (Tensor<2>, Tensor<2, Int>) {
            let ([batch, seq], device) = (ids.dims(), ids.device());
            let mut rows = vec![0f32; batch * seq * self.columns];
            let matrix = self.matrix();
            for (id, row) in ids.into_data().iter::<i64>().zip(rows.chunks_exact_mut(self.columns.max(1))) {
                let id = usize::try_from(id).expect("an id is not negative");
                assert!(id < self.rows, "entry {id} of a table of {}", self.rows);
                matrix.read(id * self.columns, row);
            }
            let rows = Tensor::from_data(TensorData::new(rows, [batch * seq, self.columns]), &device);
            let places: Vec<i32> = (0..(batch * seq) as i32).collect();
            (rows, Tensor::from_data(TensorData::new(places, [batch, seq]), &device))
        }

        /// `x · tableᵀ`, in f32.
        ///
        /// # Shapes
        /// - `x`: `[n, columns]`
        /// - output: `[n, rows]`
        pub fn scores(&self, x: Tensor<2>) -> Tensor<2> {
            scores(x, self.matrix(), [self.rows, self.columns])
        }
    }

    /// `x · tableᵀ`, in f32; on the CPU and without autodiff, a score does not depend on the other rows of `x`.
    ///
    /// # Shapes
    /// - `x`: `[n, columns]`
    /// - `table`: `[rows, columns]`
    /// - output: `[n, rows]`
    pub fn table_scores(x: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
        if x.is_autodiff() || table.is_autodiff() || !crate::is_fused(&x.device()) {
            return x.matmul(table.transpose());
        }
        let shape = table.dims();
        let table: FlexTensor = table.try_into_primitive::<Flex>().expect("it is on the CPU");
        let table = crate::flex::contiguous(table);
        scores(x, StoredMatrix::F32(crate::flex::values(&table)), shape)
    }

    fn scores(x: Tensor<2>, table: StoredMatrix<'_>, [rows, columns]: [usize; 2]) -> Tensor<2> {
        /// In f32 at once.
        const BLOCK: usize = 1 << 10;
        let (simd, device, [n, _]) = (Simd::detect(), x.device(), x.dims());
        let x = x.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
        let mut out = vec![0f32; n * rows];
        let mut block = vec![0f32; BLOCK.min(rows) * columns];
        for first in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - first);
            let block = &mut block[..count * columns];
            table.read(first * columns, block);
            let packed = Packed::<f32>::new(simd, View::new(block, count, columns, columns).transposed());
            let target = Target::columns(&mut out, rows, first);
            product(simd, View::new(&x, n, columns, columns), &packed, target, Epilogue::Store);
        }
        Tensor::from_data(TensorData::new(out, [n, rows]), &device)
    }

    #[cfg(test)]
    mod tests {
        use burn::tensor::Device;

        use super::*;
        use crate::{ActivatedLinear, Activation, Affine, PackedWeights, Precision, Products, Storage, Weight};

        fn values(count: usize, seed: u32) -> Vec<f32> {
            let hashed = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13).wrapping_mul(40503) >> 7;
            (0..count as u32).map(|at| (hashed(at) % 4093) as f32 / 2047.0 - 1.0).collect()
        }

        fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
            (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
        }

        fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> super::super::Bytes {
            /// Aligned as a mapped file is.
            struct Aligned(Vec<u64>, usize);
            impl AsRef<[u8]> for Aligned {
                fn as_ref(&self) -> &[u8] {
                    &bytemuck::cast_slice(&self.0)[..self.1]
                }
            }
            let values: &[u8] = bytemuck::cast_slice(values);
            let mut aligned = vec![0u64; values.len().div_ceil(8)];
            bytemuck::cast_slice_mut::<u64, u8>(&mut aligned)[..values.len()].copy_from_slice(values);
            Arc::new(Aligned(aligned, values.len()))
        }

        /// The values in each form that the precision may be stored in.
        fn forms(dense: &[f32], columns: usize) -> Vec<(Precision, StoredValues)> {
            let (whole, units) = quantize_rows(dense, columns);
            let rounded: Vec<bf16> = dense.iter().map(|value| bf16::from_f32(*value)).collect();
            let full = || StoredValues::F32(bytes(dense));
            vec![
                (Precision::F32, full()),
                (Precision::Bf16, full()),
                (Precision::Bf16, StoredValues::Bf16(bytes(&rounded))),
                (Precision::Int8, full()),
                (Precision::Int8, StoredValues::Int8(bytes(&whole), units.into())),
            ]
        }

        #[derive(Debug)]
        struct Held([usize; 2], StoredValues);

        impl Storage for Held {
            fn shape(&self) -> [usize; 2] {
                self.0
            }

            fn unpack(&self) -> Vec<f32> {
                panic!("it is packed as it is")
            }

            fn stored(&self) -> Option<StoredValues> {
                Some(self.1.clone())
            }
        }

        /// To the last bit, in each precision and from each form that holds the same numbers.
        #[test]
        fn stored_weights_are_computed_with_as_dense_ones_are() {
            let device = Device::flex();
            let [input, output] = [37, 50];
            let mut dense = values(output * input, 3);
            dense[5 * input..6 * input].fill(0.0);
            let x = Tensor::<2>::from_data(TensorData::new(values(11 * input, 8), [11, input]), &device);
            let bias = Tensor::<1>::from_data(TensorData::new(values(output, 5), [output]), &device);
            let forward = |weight: Weight, products: Products| {
                let linear = Affine { weight, bias: bias.clone() };
                let y = ActivatedLinear { linear, activation: Activation::Gelu }.forward(x.clone(), &products);
                y.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
            };
            let in_rows = TensorData::new(transposed(&dense, output, input), [input, output]);
            let in_rows = Tensor::<2>::from_data(in_rows, &device);
            for (precision, form) in forms(&dense, input) {
                let products = || Products { precision, ..Products::default() };
                let expected = forward(in_rows.clone().into(), products());
                let stored = || Weight::stored(Arc::new(Held([input, output], form.clone())), &device);
                let kept = Products { packed: Some(PackedWeights::default()), ..products() };
                for products in [products(), kept] {
                    assert_eq!(forward(stored(), products), expected, "{precision:?} {form:?}");
                }
            }
        }

        #[test]
        fn rows_of_a_table_are_read_where_they_are() {
            let device = Device::flex();
            let [rows, columns] = [1500, 7];
            let dense = values(rows * columns, 1);
            for (_, form) in forms(&dense, columns) {
                let table = StoredTable::new(form, [rows, columns]);
                let all = table.matrix().to_f32();
                let far = all.iter().zip(&dense).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far <= 1.0 / 253.0, "{far}");
                let ids = Tensor::<2, Int>::from_data([[1499, 0], [3, 1499]], &device);
                let (selected, places) = table.select(ids);
                let selected = selected.into_data().try_into_vec::<f32>().expect("f32");
                let expected = [1499, 0, 3, 1499].map(|row| &all[row * columns..][..columns]).concat();
                assert_eq!((selected, places.dims()), (expected, [2, 2]));
                let x = values(2 * columns, 9);
                let scores = table.scores(Tensor::from_data(TensorData::new(x.clone(), [2, columns]), &device));
                let scores = scores.into_data().try_into_vec::<f32>().expect("f32");
                for (at, score) in scores.into_iter().enumerate() {
                    let (row, x) = (at % rows, &x[at / rows * columns..][..columns]);
                    let expected: f32 = x.iter().zip(&all[row * columns..]).map(|(x, y)| x * y).sum();
                    assert!((score - expected).abs() < 1e-5, "{at}: {score}, not {expected}");
                }
            }
        }
    }
}
