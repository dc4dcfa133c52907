//! Divides the input files into shards of consecutive row groups.

use std::ops::Range;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::parquet::arrow::ParquetRecordBatchStreamBuilder;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;

use crate::bulk::job::{FileId, Job, Shard};
use crate::bulk::reader::Reader;
use crate::bulk::store::Place;
use crate::{Columns, Error, Stores, Task};

/// The metadata of a Parquet file.
struct Described {
    file: FileId,
    /// The number of rows in each row group.
    row_groups: Vec<u64>,
}

/// The shards of a job, in the order of the files and their rows.
pub(crate) async fn shards(stores: &Stores, inputs: &[String], job: &Job, rows: u64) -> Result<Vec<Shard>, Error> {
    let mut files = Vec::new();
    for input in inputs {
        files.extend(stores.files(input).await?);
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|(place, _)| seen.insert(place.address()));
    let describe = |(place, meta): (Place, ObjectMeta)| {
        let (columns, task) = (job.columns.clone(), job.task.clone());
        async move {
            let address = place.address();
            // In a separate task, because the reader may panic on a damaged file.
            let described = tokio::spawn(async move { describe(&place, &meta, &columns, &task).await });
            described.await.map_err(|error| Error::place(address, format!("cannot be read as Parquet: {error}")))?
        }
    };
    let described: Vec<Described> = futures::stream::iter(files).map(describe).buffered(8).try_collect().await?;
    let mut shards = Vec::new();
    for Described { file, row_groups } in described {
        let mut first_row = 0;
        for range in grouped(&row_groups, rows) {
            let rows = row_groups[range.clone()].iter().sum();
            let name = job.shard_name(&file, &range);
            shards.push(Shard { name, file: file.clone(), row_groups: range, first_row, rows });
            first_row += rows;
        }
    }
    Ok(shards)
}

/// Ranges of consecutive row groups with at most `rows` rows together. A row group with more rows is a range of its own.
fn grouped(row_groups: &[u64], rows: u64) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (at, count) in row_groups.iter().enumerate() {
        if at > start && sum + count > rows {
            ranges.push(start..at);
            (start, sum) = (at, 0);
        }
        sum += count;
    }
    if start < row_groups.len() {
        ranges.push(start..row_groups.len());
    }
    ranges
}

async fn describe(place: &Place, meta: &ObjectMeta, columns: &Columns, task: &Task) -> Result<Described, Error> {
    let address = place.address();
    let reader = Reader::new(place.clone(), meta.size);
    let builder =
        ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|error| Error::parquet(&address, error))?;
    check_columns(&address, builder.schema(), columns, task)?;
    let counts = builder.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()));
    let row_groups = counts
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::place(&address, "found a row group with fewer than 0 rows, expected a count"))?;
    Ok(Described { file: file_id(address, meta), row_groups })
}

/// The id of a file.
pub(crate) fn file_id(address: String, meta: &ObjectMeta) -> FileId {
    let version = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    FileId { address, bytes: meta.size, version }
}

fn check_columns(address: &str, schema: &Schema, columns: &Columns, task: &Task) -> Result<(), Error> {
    for name in std::iter::once(&columns.text).chain(&columns.text_pair) {
        let Ok(field) = schema.field_with_name(name) else {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).take(20).collect();
            let reason = format!("found no column `{name}`, expected it among the columns {}", names.join(", "));
            return Err(Error::place(address, reason));
        };
        if !is_text(field.data_type()) {
            let found = field.data_type();
            return Err(Error::place(address, format!("column `{name}`: found {found}, expected text (a string)")));
        }
    }
    if schema.field_with_name(task.column()).is_ok() {
        let reason = format!("found a column `{}` already, expected to add it; rename or drop it", task.column());
        return Err(Error::place(address, reason));
    }
    Ok(())
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_groups_are_grouped_and_never_divided() {
        assert_eq!(grouped(&[3, 3, 3, 9, 1], 6), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(grouped(&[3, 3, 3], 1), [0..1, 1..2, 2..3]);
        assert_eq!(grouped(&[0, 0, 5], 0), [0..2, 2..3]);
        assert_eq!(grouped(&[], 5), [] as [Range<usize>; 0]);
    }
}
