use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::{DataType, FileMetadataRef, ParallelStrategy, ParquetReader, PolarsResult, SerReader};
use polars_arrow::datatypes::ArrowDataType;

use crate::bounds::{invalid, most_decompressed};
use crate::columnar::{Batch, Batches, Features, Table};
use crate::error::Unit;
use crate::guard::guarded;
use crate::page_bounds::{Chunk, check_pages};
use crate::{Column, Error, Place, Source};

/// The approximate size in bytes of the decoded columns held in memory.
const BATCH_BYTES: usize = 16 << 20;
const BATCH_ROWS: usize = 1 << 16;

/// Opens a Parquet file. It is read a slice of a row group at a time.
pub(crate) fn open(source: &Source) -> Result<Table, Error> {
    let path = &source.path;
    let cannot_read = |source| Error::Read { path: path.clone(), source };
    let file = kiln_files::open(path).map_err(cannot_read)?;
    let size = file.metadata().map_err(cannot_read)?.len();
    let mut reader = ParquetReader::new(file.try_clone().map_err(cannot_read)?);
    let schema = guarded(path, || reader.schema())?;
    let metadata = guarded(path, || reader.get_metadata().cloned())?;

    let names: Vec<String> = schema.iter_names().map(|name| name.to_string()).collect();
    let features = || {
        let pairs = metadata.key_value_metadata().as_ref()?;
        let pair = pairs.iter().find(|pair| pair.key == "huggingface")?;
        Some(Features::from_metadata(pair.value.as_deref()?))
    };
    let (features, path) = (features().unwrap_or_default(), path.clone());
    let read = move |projection: Vec<usize>| {
        let mut loaded = Vec::new();
        for (name, field) in projection.iter().filter_map(|column| schema.get_at_index(*column)) {
            let column = Column::Name(name.to_string());
            let place = Place { path: path.clone(), line: 1, unit: Unit::Row };
            check_type(field.dtype()).map_err(|found| Error::Cell { place, column, found })?;
            loaded.push(name.to_string());
        }
        check_groups(&metadata, &loaded, size).map_err(|problem| Error::Damaged { path: path.clone(), problem })?;
        Ok(batches(path, file, metadata, (projection, loaded)))
    };
    Ok(Table { path: source.path.clone(), names, features, read: Box::new(read) })
}

/// Reads the columns at the positions `projection`, whose names are `loaded`.
fn batches(
    path: PathBuf,
    file: File,
    metadata: FileMetadataRef,
    (projection, loaded): (Vec<usize>, Vec<String>),
) -> Batches {
    Box::new(slices(metadata.clone(), loaded.clone()).map(move |slice| {
        let cannot_read = |source| Error::Read { path: path.clone(), source };
        let file = file.try_clone().map_err(cannot_read)?;
        if let Some(group) = slice.begins_group {
            check_group_pages(&file, &metadata, group, &loaded).map_err(|source| match source.kind() {
                io::ErrorKind::InvalidData => Error::Damaged { path: path.clone(), problem: source.to_string() },
                _ => cannot_read(source),
            })?;
        }
        let batch = guarded(&path, || read_slice(file, &metadata, &projection, slice))?;
        check_batch(&batch, slice, &path)?;
        Ok(batch)
    }))
}

/// Rejects types that polars, built here without the features for unused types, does not read or panics on.
fn check_type(data_type: &ArrowDataType) -> Result<(), String> {
    match data_type {
        ArrowDataType::Utf8View | ArrowDataType::LargeUtf8 | ArrowDataType::Utf8 | ArrowDataType::Boolean => Ok(()),
        ArrowDataType::Int32 | ArrowDataType::Int64 | ArrowDataType::UInt32 | ArrowDataType::UInt64 => Ok(()),
        ArrowDataType::Float32 | ArrowDataType::Float64 => Ok(()),
        ArrowDataType::Dictionary(_, values, _) => check_type(values),
        ArrowDataType::List(items) | ArrowDataType::LargeList(items) => check_type(items.dtype()),
        ArrowDataType::Struct(fields) => fields.iter().try_for_each(|field| check_type(field.dtype())),
        ArrowDataType::Int8 | ArrowDataType::Int16 | ArrowDataType::UInt8 | ArrowDataType::UInt16 => {
            Err(format!("{data_type:?}, which is not supported in Parquet files: store it with 32 or 64 bits"))
        }
        other => Err(format!("{other:?}")),
    }
}

/// A range of rows of a file.
#[derive(Clone, Copy)]
struct Slice {
    first: usize,
    rows: usize,
    /// The row group that begins with this slice, if one does.
    begins_group: Option<usize>,
}

/// Checks the footer: each column of a row group must have as many values as the group has rows, or more if it has lists,
/// and the bytes of each column must be within the file.
fn check_groups(metadata: &FileMetadataRef, columns: &[String], size: u64) -> Result<(), String> {
    let mut total = 0usize;
    for (group, at) in metadata.row_groups.iter().zip(1..) {
        let rows = group.num_rows();
        total = total.checked_add(rows).ok_or_else(|| format!("row group {at} has {rows} rows, which is too many"))?;
        for column in columns {
            for chunk in group.columns_under_root_iter(column).into_iter().flatten() {
                let values = chunk.num_values();
                let has_lists = chunk.descriptor().descriptor.max_rep_level > 0;
                // An empty list also counts as a value.
                let most =
                    if has_lists { most_decompressed(chunk.compressed_size().unsigned_abs()) } else { rows as u64 };
                if !u64::try_from(values).is_ok_and(|values| (rows as u64..=most).contains(&values)) {
                    return Err(format!("row group {at} has {rows} rows, and its column `{column}` {values} values"));
                }
                let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                let end = start.checked_add(chunk.compressed_size()).and_then(|end| u64::try_from(end).ok());
                if start < 0 || chunk.compressed_size() < 0 || end.is_none_or(|end| end > size) {
                    return Err(format!("column `{column}` of row group {at} is not within the file's {size} bytes"));
                }
            }
        }
    }
    match total == metadata.num_rows {
        true => Ok(()),
        false => Err(format!("the row groups have {total} rows, and the file {}", metadata.num_rows)),
    }
}

/// Checks the pages of a row group. [`check_groups`] has already checked their position in the file.
fn check_group_pages(file: &File, metadata: &FileMetadataRef, group: usize, columns: &[String]) -> io::Result<()> {
    let current = &metadata.row_groups[group];
    for column in columns {
        for chunk in current.columns_under_root_iter(column).into_iter().flatten() {
            let values = u64::try_from(chunk.num_values()).expect("`check_groups` has checked it");
            check_pages(file, &Chunk { bytes: chunk.byte_range(), values }).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => invalid(format!("column `{column}` of row group {}: {error}", group + 1)),
                _ => error,
            })?;
        }
    }
    Ok(())
}

/// Checks the lengths of the columns: a page can have fewer values than the footer claims.
fn check_batch(batch: &Batch, slice: Slice, path: &Path) -> Result<(), Error> {
    let Slice { first, rows, .. } = slice;
    match batch.iter().find(|column| column.len() != rows) {
        None => Ok(()),
        Some(column) => {
            let (values, last) = (column.len(), first + rows);
            let problem = format!("rows {} to {last} have {values} values in a column, expected {rows}", first + 1);
            Err(Error::Damaged { path: path.to_owned(), problem })
        }
    }
}

/// Divides the row groups into slices of at most [`BATCH_ROWS`] rows and about [`BATCH_BYTES`]. A file may consist of
/// one long row group.
fn slices(metadata: FileMetadataRef, columns: Vec<String>) -> impl Iterator<Item = Slice> + Send {
    let (mut group, mut within, mut before) = (0, 0, 0);
    std::iter::from_fn(move || {
        loop {
            let current = metadata.row_groups.get(group)?;
            let remaining = current.num_rows() - within;
            if remaining == 0 {
                (group, before, within) = (group + 1, before + current.num_rows(), 0);
                continue;
            }
            let chunks = columns.iter().filter_map(|column| current.columns_under_root_iter(column)).flatten();
            let bytes = chunks.fold(0i64, |bytes, chunk| bytes.saturating_add(chunk.uncompressed_size()));
            let row_bytes = usize::try_from(bytes).unwrap_or(0) / current.num_rows();
            let rows = (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS).min(remaining);
            let slice = Slice { first: before + within, rows, begins_group: (within == 0).then_some(group) };
            within += rows;
            return Some(slice);
        }
    })
}

fn read_slice(file: File, metadata: &FileMetadataRef, projection: &[usize], slice: Slice) -> PolarsResult<Batch> {
    let mut reader = ParquetReader::new(file);
    reader.set_metadata(metadata.clone());
    let frame = reader
        .with_projection(Some(projection.to_vec()))
        .with_slice(Some((slice.first, slice.rows)))
        // The other strategies read every row group before the slice.
        .read_parallel(ParallelStrategy::RowGroups)
        .finish()?;
    frame
        .columns()
        .iter()
        .map(|column| {
            let series = column.as_materialized_series();
            let series = match series.dtype() {
                dtype if dtype.is_categorical() || dtype.is_enum() => series.cast(&DataType::String)?,
                _ => series.clone(),
            };
            Ok(series.rechunk().chunks()[0].clone())
        })
        .collect()
}
