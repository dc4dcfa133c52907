//! Parquet files for the tests.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::properties::WriterProperties;

use crate::place::reviews;

/// Writes `count` reviews of the sample, repeated as needed and numbered from `first`, with the columns `id` and `text`, in
/// row groups of 100.
pub fn write_reviews(path: &Path, first: i64, count: usize) {
    let reviews = reviews();
    let texts: Vec<_> =
        reviews.iter().cycle().skip(first as usize).take(count).map(|(text, _)| Some(text.clone())).collect();
    write(path, first, &texts);
}

pub fn write(path: &Path, first: i64, texts: &[Option<String>]) {
    let ids = Int64Array::from_iter_values((first..).take(texts.len()));
    write_columns(path, vec![("id", Arc::new(ids)), ("text", Arc::new(StringArray::from(texts.to_vec())))]);
}

pub fn write_columns(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("it is writable");
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.expect("columns of one length");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let file = File::create(path).expect("it is writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a good schema");
    writer.write(&batch).expect("it is writable");
    writer.close().expect("it is writable");
}

/// All rows of the files, in order.
pub fn read(folder: &Path, names: &[String]) -> Vec<RecordBatch> {
    let open = |name: &String| {
        let file = File::open(folder.join(name)).expect("it is there");
        ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("Parquet")
    };
    names.iter().flat_map(open).map(|batch| batch.expect("it is whole")).collect()
}

/// The values of a text column.
pub fn texts(batches: &[RecordBatch], name: &str) -> Vec<Option<String>> {
    let column = |batch: &RecordBatch| batch.column_by_name(name).expect("the column").clone();
    let columns: Vec<ArrayRef> = batches.iter().map(column).collect();
    let of = |column: &ArrayRef| {
        let column = column.as_any().downcast_ref::<StringArray>().expect("text").clone();
        column.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
    };
    columns.iter().flat_map(of).collect()
}

/// The values of a number column.
pub fn numbers(batches: &[RecordBatch], name: &str) -> Vec<i64> {
    let column = |batch: &RecordBatch| {
        let column = batch.column_by_name(name).expect("the column");
        column.as_any().downcast_ref::<Int64Array>().expect("numbers").values().to_vec()
    };
    batches.iter().flat_map(column).collect()
}
