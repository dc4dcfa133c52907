//! Tables of vectors that are read in place.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_flex::FlexTensor;

use super::{StoredMatrix, StoredValues};
use crate::cpu::{Epilogue, Packed, Simd, Target, View, product};

/// A table of vectors that is read in place, one row at a time, such as word embeddings. Clones share the table.
#[derive(Clone, Debug)]
pub struct StoredTable {
    place: TablePlace,
    rows: usize,
    columns: usize,
}

#[derive(Clone, Debug)]
enum TablePlace {
    InMemory(StoredValues),
    Elsewhere(Arc<dyn TableRows>),
}

/// A table that is not in memory.
pub trait TableRows: Debug + Send + Sync {
    /// Reads as many values as fit into `values`, starting at row `first`.
    ///
    /// # Panics
    /// When a row is out of range.
    fn read(&self, first: usize, values: &mut [f32]);
}

impl StoredTable {
    /// Creates a table of `rows` and `columns` from values in memory.
    ///
    /// # Panics
    /// When the number of values is not `rows · columns`, or they are not aligned.
    pub fn new(values: StoredValues, [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(values.matrix().len(), rows * columns, "a table of {rows} × {columns}");
        if let StoredValues::Int8 { units, .. } = &values {
            assert_eq!(units.len(), rows, "a unit for each row");
        }
        Self { place: TablePlace::InMemory(values), rows, columns }
    }

    /// Creates a table of `rows` and `columns` that is not in memory.
    pub fn elsewhere(table: Arc<dyn TableRows>, [rows, columns]: [usize; 2]) -> Self {
        Self { place: TablePlace::Elsewhere(table), rows, columns }
    }

    /// Reads the whole table, `[rows, columns]`.
    pub fn tensor(&self, device: &Device) -> Tensor<2> {
        let mut values = vec![0.0; self.rows * self.columns];
        self.read(0, &mut values);
        Tensor::from_data(TensorData::new(values, [self.rows, self.columns]), device)
    }

    /// Reads values, starting at row `first`.
    fn read(&self, first: usize, values: &mut [f32]) {
        match &self.place {
            TablePlace::InMemory(stored) => stored.matrix().read(first * self.columns, values),
            TablePlace::Elsewhere(table) => table.read(first, values),
        }
    }

    /// Selects the rows that occur in `ids`, each once. Returns them as a smaller table, with the ids of its rows.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - output: `[selected rows, columns]` and `[batch, seq]`
    ///
    /// # Panics
    /// When an id is negative, or not less than the number of rows.
    pub fn select(&self, ids: Tensor<2, Int>) -> (Tensor<2>, Tensor<2, Int>) {
        let ([batch, seq], device) = (ids.dims(), ids.device());
        let mut places = HashMap::new();
        let mut rows = Vec::new();
        let place = |id: i64| {
            let id = usize::try_from(id).expect("an id is not negative");
            assert!(id < self.rows, "entry {id} of a table of {}", self.rows);
            let next = places.len() as i32;
            *places.entry(id).or_insert_with(|| {
                let start = rows.len();
                rows.resize(start + self.columns, 0.0);
                self.read(id, &mut rows[start..]);
                next
            })
        };
        let ids: Vec<i32> = ids.into_data().iter::<i64>().map(place).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [places.len(), self.columns]), &device);
        (rows, Tensor::from_data(TensorData::new(ids, [batch, seq]), &device))
    }

    /// Computes `x · tableᵀ` in f32.
    ///
    /// # Shapes
    /// - `x`: `[n, columns]`
    /// - output: `[n, rows]`
    pub fn scores(&self, x: Tensor<2>) -> Tensor<2> {
        scores(x, &|first, values| self.read(first, values), [self.rows, self.columns])
    }
}

/// Computes `x · tableᵀ` in f32. On the CPU and without autodiff, the result of a row does not depend on the other rows of
/// `x`.
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
    let table = StoredMatrix::F32(crate::flex::values(&table));
    scores(x, &|first, values| table.read(first * shape[1], values), shape)
}

/// Computes `x · tableᵀ`. `read` reads values of the table, starting at a row.
fn scores(x: Tensor<2>, read: &dyn Fn(usize, &mut [f32]), [rows, columns]: [usize; 2]) -> Tensor<2> {
    /// The number of rows that are in memory as f32 at a time.
    const BLOCK: usize = 1 << 10;
    let (simd, device, [n, _]) = (Simd::detect(), x.device(), x.dims());
    let x = x.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
    let mut out = vec![0f32; n * rows];
    let mut block = vec![0f32; BLOCK.min(rows) * columns];
    for first in (0..rows).step_by(BLOCK) {
        let count = BLOCK.min(rows - first);
        let block = &mut block[..count * columns];
        read(first, block);
        let packed = Packed::<f32>::new(simd, View::new(block, count, columns, columns).transposed());
        let target = Target::columns(&mut out, rows, first);
        product(simd, View::new(&x, n, columns, columns), &packed, target, Epilogue::Store);
    }
    Tensor::from_data(TensorData::new(out, [n, rows]), &device)
}

#[cfg(test)]
mod tests {
    use super::super::packing::tests::{forms, values};
    use super::*;

    fn numbers(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec::<f32>().expect("f32")
    }

    /// The values of a table, and its number of columns.
    #[derive(Debug)]
    struct Lines(Vec<f32>, usize);

    impl TableRows for Lines {
        fn read(&self, first: usize, values: &mut [f32]) {
            values.copy_from_slice(&self.0[first * self.1..][..values.len()]);
        }
    }

    #[test]
    fn rows_of_a_table_are_read_where_they_are() {
        let device = Device::flex();
        let [rows, columns] = [1500, 7];
        let dense = values(rows * columns, 1);
        for (_, form) in forms(&dense, columns) {
            let in_memory = StoredTable::new(form, [rows, columns]);
            let all = numbers(in_memory.tensor(&device));
            let elsewhere = StoredTable::elsewhere(Arc::new(Lines(all.clone(), columns)), [rows, columns]);
            let far = all.iter().zip(&dense).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= 1.0 / 253.0, "{far}");
            for table in [in_memory, elsewhere] {
                assert_eq!(numbers(table.tensor(&device)), all);
                let ids = Tensor::<2, Int>::from_data([[1499, 0], [3, 1499]], &device);
                let (selected, places) = table.select(ids);
                let expected = [1499, 0, 3].map(|row| &all[row * columns..][..columns]).concat();
                assert_eq!(numbers(selected), expected);
                let places: Vec<i64> = places.into_data().iter::<i64>().collect();
                assert_eq!(places, [0, 1, 2, 0]);
                let x = values(2 * columns, 9);
                let scores = table.scores(Tensor::from_data(TensorData::new(x.clone(), [2, columns]), &device));
                for (at, score) in numbers(scores).into_iter().enumerate() {
                    let (row, x) = (at % rows, &x[at / rows * columns..][..columns]);
                    let expected: f32 = x.iter().zip(&all[row * columns..]).map(|(x, y)| x * y).sum();
                    assert!((score - expected).abs() < 1e-5, "{at}: {score}, not {expected}");
                }
            }
        }
    }
}
