use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kiln_files::FileWriter;
use polars::prelude::*;

use crate::Error;

/// Writes vectors of one width with their texts, chunk by chunk in constant memory.
///
/// A `.parquet` file has the columns `text` and `embedding`; an `.npy` file has only the vectors. The file gets its
/// final name only when it is complete.
pub struct VectorWriter {
    path: PathBuf,
    file: FileWriter,
    width: usize,
    rows: usize,
    format: Writer,
}

enum Writer {
    /// A Parquet writer, on a second handle to the same file.
    Parquet(Box<polars::io::parquet::write::BatchedWriter<File>>),
    Npy,
}

impl std::fmt::Debug for VectorWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorWriter").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl VectorWriter {
    /// Creates a file. Its ending selects the format.
    ///
    /// # Errors
    /// When the ending is neither `.parquet` nor `.npy`, or when the file cannot be created.
    pub fn create(path: &Path, width: usize) -> Result<Self, Error> {
        let cannot = |source| Error::Write { path: path.to_owned(), source };
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !matches!(ending, Some("parquet" | "npy")) {
            return Err(Error::VectorFormat { path: path.to_owned() });
        }
        let mut file = FileWriter::create(path).map_err(cannot)?;
        let format = match ending {
            Some("parquet") => {
                let list = DataType::List(Box::new(DataType::Float32));
                let schema = Schema::from_iter([
                    Field::new("text".into(), DataType::String),
                    Field::new("embedding".into(), list),
                ]);
                let writer = ParquetWriter::new(file.handle().map_err(cannot)?)
                    .batched(&schema)
                    .map_err(|error| columnar(path, &error))?;
                Writer::Parquet(Box::new(writer))
            }
            _ => {
                file.write_all(&header(0, width)).map_err(cannot)?;
                Writer::Npy
            }
        };
        Ok(Self { path: path.to_owned(), file, width, rows: 0, format })
    }

    /// Appends rows.
    ///
    /// # Shapes
    /// - `vectors`: row-major `[texts, width]`
    ///
    /// # Errors
    /// When the rows cannot be written.
    ///
    /// # Panics
    /// When the number of vectors differs from the number of texts.
    pub fn write(&mut self, texts: &[&str], vectors: &[f32]) -> Result<(), Error> {
        assert_eq!(vectors.len(), texts.len() * self.width, "a vector for each text");
        self.rows += texts.len();
        match &mut self.format {
            Writer::Npy => {
                let bytes: Vec<u8> = vectors.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.file.write_all(&bytes).map_err(|source| Error::Write { path: self.path.clone(), source })
            }
            Writer::Parquet(writer) => {
                let mut lists = ListPrimitiveChunkedBuilder::<Float32Type>::new(
                    "embedding".into(),
                    texts.len(),
                    vectors.len(),
                    DataType::Float32,
                );
                vectors.chunks(self.width).for_each(|vector| lists.append_slice(vector));
                let columns = vec![Column::new("text".into(), texts), lists.finish().into_series().into()];
                let frame = DataFrame::new(texts.len(), columns).map_err(|error| columnar(&self.path, &error))?;
                writer.write_batch(&frame).map_err(|error| columnar(&self.path, &error))
            }
        }
    }

    /// Completes the file, gives it its final name, and returns the number of rows.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> Result<usize, Error> {
        let Self { path, mut file, width, rows, format } = self;
        let cannot = |source| Error::Write { path: path.clone(), source };
        match format {
            Writer::Parquet(writer) => {
                writer.finish().map_err(|error| columnar(&path, &error))?;
            }
            Writer::Npy => {
                // Now the number of rows is known.
                file.seek(SeekFrom::Start(0)).map_err(cannot)?;
                file.write_all(&header(rows, width)).map_err(cannot)?;
            }
        }
        file.finish().map_err(cannot)?;
        Ok(rows)
    }
}

fn columnar(path: &Path, error: &PolarsError) -> Error {
    Error::Write { path: path.to_owned(), source: std::io::Error::other(error.to_string()) }
}

/// The header of the NumPy format, version 1.0. It is always 128 bytes.
fn header(rows: usize, width: usize) -> Vec<u8> {
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    header.extend(format!("{shape:<117}\n").bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_hold_what_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["a.npy", "a.parquet"] {
            let path = folder.path().join(name);
            let mut writer = VectorWriter::create(&path, 2).expect("it is writable");
            writer.write(&["x", "好"], &[1.0, 2.0, 3.0, 4.0]).expect("it is writable");
            writer.write(&["z"], &[5.0, -6.5]).expect("it is writable");
            assert!(!path.exists(), "it has no name before it is whole");
            assert_eq!(writer.finish().expect("it is writable"), 3);
        }
        let bytes = std::fs::read(folder.path().join("a.npy")).expect("it is there");
        assert_eq!(bytes.len(), 128 + 6 * 4);
        assert!(String::from_utf8_lossy(&bytes[10..128]).contains("'shape': (3, 2)") && bytes[127] == b'\n');
        assert_eq!(bytes[bytes.len() - 4..], (-6.5f32).to_le_bytes());
        let file = File::open(folder.path().join("a.parquet")).expect("it is there");
        let frame = ParquetReader::new(file).finish().expect("a parquet file");
        assert_eq!(frame.shape(), (3, 2));
        let text = frame.column("text").expect("a column").str().expect("texts");
        assert_eq!(text.get(1), Some("好"));
        let list = frame.column("embedding").expect("a column").list().expect("lists").get_as_series(2).expect("a row");
        assert_eq!(list.f32().expect("floats").into_no_null_iter().collect::<Vec<_>>(), [5.0, -6.5]);
        for name in ["a.csv", "a"] {
            let message = VectorWriter::create(&folder.path().join(name), 2).expect_err("no such format").to_string();
            assert!(
                message
                    .ends_with(": vectors are written as .parquet or .npy; expected a file with one of these endings")
            );
            assert!(message.contains(name) && !folder.path().join(name).exists(), "{message}");
        }
    }
}
