use std::collections::BTreeMap;
use std::path::PathBuf;

use polars_arrow::array::{
    Array, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array, Utf8Array, Utf8ViewArray,
};
use polars_arrow::datatypes::{ArrowDataType, IntegerType};
use serde::Deserialize;

use crate::error::Unit;
use crate::picks::Picks;
use crate::source::number;
use crate::{Column, Columns, Error, Place, Row};

/// Columns of equal length, in the order of [`Picks::projection`].
pub(crate) type Batch = Vec<Box<dyn Array>>;

/// The source of batches.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<Batch, Error>> + Send>;

/// Iterates over the rows of column batches. Parquet and Arrow share it.
pub(crate) struct Columnar {
    pub(crate) path: PathBuf,
    pub(crate) columns: Columns,
    /// The positions of the columns in a batch.
    pub(crate) picks: Picks,
    /// The class names, if the label column holds class ids.
    pub(crate) class_names: Option<Vec<String>>,
    pub(crate) batches: Batches,
    pub(crate) cursor: Cursor,
}

/// The position in the current batch.
#[derive(Default)]
pub(crate) struct Cursor {
    batch: Batch,
    /// The next row of the batch.
    at: usize,
    /// The last row read, from 1, counted over all batches.
    row: u64,
}

impl Iterator for Columnar {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.cursor.batch.first().is_none_or(|column| self.cursor.at >= column.len()) {
            match self.batches.next()? {
                Ok(batch) => self.cursor.batch = batch,
                Err(error) => return Some(Err(error)),
            }
            self.cursor.at = 0;
        }
        let at = self.cursor.at;
        self.cursor.at += 1;
        self.cursor.row += 1;
        Some(self.row(at))
    }
}

impl Columnar {
    fn row(&self, at: usize) -> Result<Row, Error> {
        let cell = |column: &Column, pick: usize| {
            cell(self.cursor.batch[pick].as_ref(), at).map_err(|found| self.bad_cell(column, found))
        };
        let text = cell(&self.columns.text, self.picks.text)?.unwrap_or_default();
        let text_pair = match (&self.columns.text_pair, self.picks.text_pair) {
            (Some(column), Some(pick)) => Some(cell(column, pick)?.unwrap_or_default()),
            _ => None,
        };
        let label = match (&self.columns.label, self.picks.label) {
            (Some(column), Some(pick)) => match (cell(column, pick)?, &self.class_names) {
                (Some(class), Some(names)) => {
                    class_name(&class, names).map_err(|found| self.bad_cell(column, found))?
                }
                (label, _) => label,
            },
            _ if !self.picks.flags.is_empty() => self.columns.flagged(
                |at, column| cell(column, self.picks.flags[at]),
                |column, found| self.bad_cell(column, found),
            )?,
            _ => None,
        };
        Ok(Row::new(text, text_pair, label, self.cursor.row))
    }

    fn bad_cell(&self, column: &Column, found: String) -> Error {
        let place = Place { path: self.path.clone(), line: self.cursor.row, unit: Unit::Row };
        Error::Cell { place, column: column.clone(), found }
    }
}

/// The name of a class id. `datasets` writes -1 for a missing label.
fn class_name(class: &str, names: &[String]) -> Result<Option<String>, String> {
    if class == "-1" {
        return Ok(None);
    }
    let name = class.parse().ok().and_then(|class: usize| names.get(class));
    name.cloned().map(Some).ok_or_else(|| format!("class {class}, and there are {} class names", names.len()))
}

/// A cell as text; none if it is null. `Err` holds the column's type if it is not text, a number or a boolean.
fn cell(array: &dyn Array, at: usize) -> Result<Option<String>, String> {
    if array.is_null(at) {
        return Ok(None);
    }
    macro_rules! value {
        ($array:ty) => {
            array.as_any().downcast_ref::<$array>().expect("the data type says so").value(at)
        };
    }
    macro_rules! entry {
        ($key:ty) => {{
            let array = array.as_any().downcast_ref::<DictionaryArray<$key>>().expect("the data type says so");
            cell(array.values().as_ref(), array.key_value(at))
        }};
    }
    let text = match array.dtype() {
        ArrowDataType::Utf8View => value!(Utf8ViewArray).to_owned(),
        ArrowDataType::Utf8 => value!(Utf8Array<i32>).to_owned(),
        ArrowDataType::LargeUtf8 => value!(Utf8Array<i64>).to_owned(),
        ArrowDataType::Boolean => value!(BooleanArray).to_string(),
        ArrowDataType::Int8 => value!(Int8Array).to_string(),
        ArrowDataType::Int16 => value!(Int16Array).to_string(),
        ArrowDataType::Int32 => value!(Int32Array).to_string(),
        ArrowDataType::Int64 => value!(Int64Array).to_string(),
        ArrowDataType::UInt8 => value!(UInt8Array).to_string(),
        ArrowDataType::UInt16 => value!(UInt16Array).to_string(),
        ArrowDataType::UInt32 => value!(UInt32Array).to_string(),
        ArrowDataType::UInt64 => value!(UInt64Array).to_string(),
        ArrowDataType::Float32 => number(value!(Float32Array).into()),
        ArrowDataType::Float64 => number(value!(Float64Array)),
        ArrowDataType::Dictionary(key, _, _) => {
            return match key {
                IntegerType::Int8 => entry!(i8),
                IntegerType::Int16 => entry!(i16),
                IntegerType::Int32 => entry!(i32),
                IntegerType::Int64 => entry!(i64),
                IntegerType::UInt8 => entry!(u8),
                IntegerType::UInt16 => entry!(u16),
                IntegerType::UInt32 => entry!(u32),
                IntegerType::UInt64 => entry!(u64),
                IntegerType::Int128 | IntegerType::UInt128 => Err(format!("{:?}", array.dtype())),
            };
        }
        other => return Err(format!("{other:?}")),
    };
    Ok(Some(text))
}

/// The features of a data set in the format of `datasets`, from `dataset_info.json` or from the metadata of a file.
#[derive(Deserialize, Default)]
pub(crate) struct Features {
    #[serde(default)]
    features: Option<BTreeMap<String, serde_json::Value>>,
}

impl Features {
    /// Parses the value of the key `huggingface` in a file's metadata. Other content under that key is ignored, because
    /// another program may use it.
    pub(crate) fn from_metadata(json: &str) -> Self {
        #[derive(Deserialize)]
        struct Metadata {
            info: Features,
        }
        serde_json::from_str(json).map(|metadata: Metadata| metadata.info).unwrap_or_default()
    }

    /// The class names of a column, if it holds class ids.
    pub(crate) fn class_names(&self, column: &str) -> Option<Vec<String>> {
        #[derive(Deserialize)]
        struct ClassLabel {
            names: Vec<String>,
            _type: String,
        }
        let feature = self.features.as_ref()?.get(column)?.clone();
        let class: ClassLabel = serde_json::from_value(feature).ok()?;
        (class._type == "ClassLabel").then_some(class.names)
    }
}
