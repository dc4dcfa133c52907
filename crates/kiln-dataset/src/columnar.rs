use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polars_arrow::array::{
    Array, BooleanArray, DictionaryArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, ListArray, StructArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array, Utf8Array,
    Utf8ViewArray,
};
use polars_arrow::datatypes::{ArrowDataType, IntegerType};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Unit;
use crate::picks::Picks;
use crate::source::{number, scalars};
use crate::{Column, Columns, Error, Place, Row};

/// Columns of equal length, in the order of [`Picks::projection`].
pub(crate) type Batch = Vec<Box<dyn Array>>;

/// The source of batches.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<Batch, Error>> + Send>;

/// An opened Parquet or Arrow file.
pub(crate) struct Table {
    pub(crate) path: PathBuf,
    /// The names of the columns.
    pub(crate) names: Vec<String>,
    pub(crate) features: Features,
    /// Reads the columns at these positions, which are sorted.
    pub(crate) read: Box<dyn FnOnce(Vec<usize>) -> Result<Batches, Error>>,
}

impl Table {
    /// Iterates over the rows.
    pub(crate) fn rows(self, columns: &Columns) -> Result<Columnar, Error> {
        let place = Place { path: self.path.clone(), line: 1, unit: Unit::Row };
        let picks = Picks::by_names(columns, &self.names, &place)?;
        let class_names = picks.label.and_then(|label| self.features.class_names(&self.names[label]));
        let (projection, picks) = picks.projection();
        let cursor = Cursor::new((self.read)(projection)?);
        Ok(Columnar { path: self.path, columns: columns.clone(), picks, class_names, cursor })
    }
}

/// Iterates over the rows of a [`Table`].
pub(crate) struct Columnar {
    path: PathBuf,
    columns: Columns,
    /// The positions of the columns in a batch.
    picks: Picks,
    /// The class names, if the label column holds class ids.
    class_names: Option<Vec<String>>,
    cursor: Cursor,
}

/// A row of a sequence of batches.
pub(crate) struct Cursor {
    batches: Batches,
    batch: Batch,
    /// The next row of the batch.
    at: usize,
    /// The last row read, from 1, counted over all batches.
    row: u64,
}

impl Cursor {
    pub(crate) fn new(batches: Batches) -> Self {
        Self { batches, batch: Batch::new(), at: 0, row: 0 }
    }

    /// Moves to the next row, and returns its batch, its position in the batch and its number.
    pub(crate) fn next(&mut self) -> Option<Result<(&Batch, usize, u64), Error>> {
        while self.batch.first().is_none_or(|column| self.at >= column.len()) {
            match self.batches.next()? {
                Ok(batch) => self.batch = batch,
                Err(error) => return Some(Err(error)),
            }
            self.at = 0;
        }
        self.at += 1;
        self.row += 1;
        Some(Ok((&self.batch, self.at - 1, self.row)))
    }
}

impl Iterator for Columnar {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { path, columns, picks, class_names, cursor } = self;
        let row = cursor.next()?.and_then(|(batch, at, row)| {
            let reader = Reader { path, columns, picks, class_names: class_names.as_deref(), batch, row };
            reader.row(at)
        });
        Some(row)
    }
}

/// Reads the rows of a batch.
struct Reader<'a> {
    path: &'a Path,
    columns: &'a Columns,
    picks: &'a Picks,
    class_names: Option<&'a [String]>,
    batch: &'a Batch,
    row: u64,
}

impl Reader<'_> {
    fn row(&self, at: usize) -> Result<Row, Error> {
        let cell = |column: &Column, pick: usize| {
            cell(self.batch[pick].as_ref(), at).map_err(|found| self.bad_cell(column, found))
        };
        let text = cell(&self.columns.text, self.picks.text)?.unwrap_or_default();
        let text_pair = match (&self.columns.text_pair, self.picks.text_pair) {
            (Some(column), Some(pick)) => Some(cell(column, pick)?.unwrap_or_default()),
            _ => None,
        };
        let (mut label, mut labels) = (None, None);
        if let (Some(column), Some(pick)) = (&self.columns.label, self.picks.label) {
            let bad = |found| self.bad_cell(column, found);
            match value(self.batch[pick].as_ref(), at, self.class_names).map_err(bad)? {
                Value::Null => {}
                Value::String(text) => label = Some(text),
                Value::Array(values) => {
                    labels = Some(scalars(&values).map_err(|value| bad(format!("a list with {value}")))?);
                }
                _ => return Err(bad("a struct".to_owned())),
            }
        } else if !self.picks.flags.is_empty() {
            let flag = |at, column: &Column| cell(column, self.picks.flags[at]);
            let bad = |column: &Column, found| Error::Flag { place: self.place(), column: column.clone(), found };
            labels = Some(self.columns.flagged(flag, bad)?);
        }
        Ok(Row::new(text, text_pair, label, self.row).with_labels(labels))
    }

    fn bad_cell(&self, column: &Column, found: String) -> Error {
        Error::Cell { place: self.place(), column: column.clone(), found }
    }

    fn place(&self) -> Place {
        Place { path: self.path.to_owned(), line: self.row, unit: Unit::Row }
    }
}

/// A cell, whose numbers and booleans become text. With class names, ids become the names of their classes. `Err` holds
/// what is wrong.
pub(crate) fn value(array: &dyn Array, at: usize, class_names: Option<&[String]>) -> Result<Value, String> {
    if array.is_null(at) {
        return Ok(Value::Null);
    }
    macro_rules! list {
        ($array:ty) => {{
            let values = array.as_any().downcast_ref::<$array>().expect("the data type says so").value(at);
            (0..values.len()).map(|at| value(values.as_ref(), at, class_names)).collect()
        }};
    }
    match array.dtype() {
        ArrowDataType::List(_) => list!(ListArray<i32>),
        ArrowDataType::LargeList(_) => list!(ListArray<i64>),
        ArrowDataType::FixedSizeList(..) => list!(FixedSizeListArray),
        ArrowDataType::Struct(_) => {
            let array = array.as_any().downcast_ref::<StructArray>().expect("the data type says so");
            let fields = array.fields().iter().zip(array.values());
            fields.map(|(field, values)| Ok((field.name.to_string(), value(values.as_ref(), at, None)?))).collect()
        }
        _ => {
            let text = cell(array, at)?;
            let text = match (text, class_names) {
                (Some(class), Some(names)) => class_name(&class, names)?,
                (text, _) => text,
            };
            Ok(text.into())
        }
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

    /// The class names of a column, if it holds class ids or lists of them.
    pub(crate) fn class_names(&self, column: &str) -> Option<Vec<String>> {
        #[derive(Deserialize)]
        struct ClassLabel {
            names: Vec<String>,
            _type: String,
        }
        let feature = self.features.as_ref()?.get(column)?;
        // The feature of a list's items is under `feature`; older versions wrote a list with it.
        let feature = feature.get("feature").or_else(|| feature.get(0)).unwrap_or(feature);
        let class = ClassLabel::deserialize(feature).ok()?;
        (class._type == "ClassLabel").then_some(class.names)
    }
}
