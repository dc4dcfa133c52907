use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use kiln_kernels::TableRows;

use super::{FloatType, Place, Stored, Weights, all_finite};
use crate::Error;

/// A tensor `[rows, columns]` whose rows are read from its file on demand. They are read, not mapped, because the mapped
/// pages around a row count as this process's memory.
#[derive(Debug)]
pub(crate) struct FileRows {
    file: Mutex<File>,
    path: PathBuf,
    /// The offset of the tensor in the file.
    start: u64,
    float_type: FloatType,
    columns: usize,
}

/// Number of rows that are checked at once.
const ROWS: usize = 64;

impl Weights {
    /// The rows of a tensor; none unless its file stores them contiguously as floating-point numbers.
    ///
    /// # Errors
    /// When it has another shape, cannot be read, or holds a number that is not finite.
    pub(crate) fn rows(&self, name: &str, shape: [usize; 2]) -> Result<Option<FileRows>, Error> {
        let Some(Stored { file: path, dtype, place: Place::Range { start, .. }, .. }) = self.tensors.get(name) else {
            return Ok(None);
        };
        let [rows, columns] = shape;
        self.check_shape(name, &shape)?;
        if dtype.size().is_none() {
            return Ok(None);
        }
        let read_error = |source| Error::Read { path: path.clone(), source };
        let file = Mutex::new(kiln_files::open(path).map_err(read_error)?);
        let table = FileRows { file, path: path.clone(), start: *start, float_type: *dtype, columns };
        let mut block = vec![0.0; ROWS.min(rows) * columns];
        for first in (0..rows).step_by(ROWS) {
            let block = &mut block[..ROWS.min(rows - first) * columns];
            table.try_read(first, block).map_err(read_error)?;
            all_finite(block).map_err(|value| Error::NotFinite { path: path.clone(), name: name.to_owned(), value })?;
        }
        Ok(Some(table))
    }

    /// Checks that a matrix contains neither NaN nor infinity. A matrix of integers always passes.
    ///
    /// # Errors
    /// When it contains one of them, or cannot be read.
    pub(crate) fn check_finite(&self, name: &str) -> Result<(), Error> {
        match self.shape(name) {
            Some(&[rows, columns]) => self.rows(name, [rows, columns]).map(|_| ()),
            _ => Ok(()),
        }
    }
}

impl FileRows {
    fn try_read(&self, first: usize, values: &mut [f32]) -> io::Result<()> {
        let size = self.float_type.size().unwrap_or_default();
        let mut bytes = vec![0; values.len() * size];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start + (first * self.columns * size) as u64))?;
        file.read_exact(&mut bytes)?;
        values.copy_from_slice(&self.float_type.decode(&bytes).unwrap_or_default());
        Ok(())
    }
}

impl TableRows for FileRows {
    fn read(&self, first: usize, values: &mut [f32]) {
        let read = self.try_read(first, values);
        read.unwrap_or_else(|error| panic!("{}, from which word embeddings are read: {error}", self.path.display()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use super::*;
    use crate::save::{StoredTensor, StoredType, save_stored};

    /// A file with one tensor of 70 × 3, whose numbers `number` gives.
    fn table(stored_type: StoredType, number: impl Fn(usize) -> f32) -> (tempfile::TempDir, Weights) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tensor = StoredTensor { name: "words".to_owned(), shape: vec![70, 3], stored_type };
        let numbers: Vec<f32> = (0..210).map(number).collect();
        let bytes: Vec<u8> = match stored_type {
            StoredType::F16 => numbers.iter().flat_map(|&n| half::f16::from_f32(n).to_le_bytes()).collect(),
            StoredType::Bf16 => numbers.iter().flat_map(|&n| half::bf16::from_f32(n).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
        };
        let path = folder.path().join("model.safetensors");
        save_stored(&path, &[tensor], HashMap::new(), |_, writer| writer.write_all(&bytes)).expect("it is writable");
        let weights = Weights::from_folder(folder.path()).expect("it is well formed");
        (folder, weights)
    }

    #[test]
    fn rows_are_those_of_the_tensor() {
        for stored_type in [StoredType::F32, StoredType::F16, StoredType::Bf16] {
            let (_folder, weights) = table(stored_type, |at| at as f32 / 8.0 - 11.0);
            let all = weights.read("words").expect("floats").expect("it is there");
            let rows = weights.rows("words", [70, 3]).expect("it is sound").expect("floats in one piece");
            let mut values = vec![0.0; 6];
            rows.read(67, &mut values);
            assert_eq!(values, all[201..207], "{stored_type:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_table_is_found_before_a_row_is_read() {
        let (_folder, weights) = table(StoredType::F32, |at| if at == 209 { f32::NAN } else { 1.0 });
        let message = weights.rows("words", [70, 3]).expect_err("the last number is none").to_string();
        assert!(message.contains("model.safetensors") && message.contains("`words` holds NaN"), "{message}");
        let message = weights.rows("words", [71, 3]).expect_err("it has 70 rows").to_string();
        assert!(message.contains("[70, 3]") && message.contains("[71, 3]"), "{message}");
        assert!(weights.rows("other", [70, 3]).expect("nothing is wrong").is_none());
    }
}
