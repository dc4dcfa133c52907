use std::fs::File;

use polars::prelude::{DataType, FileMetadataRef, ParallelStrategy, ParquetReader, SerReader};
use polars_arrow::datatypes::ArrowDataType;

use crate::columnar::{Batch, Batches, Columnar, Cursor, Features};
use crate::error::Unit;
use crate::picks::Picks;
use crate::{Column, Error, Place, Row, Source};

/// About how many bytes of decoded columns are held at once.
const BATCH_BYTES: usize = 16 << 20;
const BATCH_ROWS: usize = 1 << 16;

/// The rows of a Parquet file, a slice of a row group at a time.
pub(crate) fn rows(source: &Source) -> Result<impl Iterator<Item = Result<Row, Error>> + Send + use<>, Error> {
    let path = &source.path;
    let damaged = |source| Error::Columnar { path: path.clone(), source };
    let file = File::open(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let mut reader = ParquetReader::new(file.try_clone().map_err(|source| Error::Read { path: path.clone(), source })?);
    let schema = reader.schema().map_err(damaged)?;
    let metadata = reader.get_metadata().map_err(damaged)?.clone();

    let names: Vec<String> = schema.iter_names().map(|name| name.to_string()).collect();
    let place = Place { path: path.clone(), line: 1, unit: Unit::Row };
    let picks = Picks::by_names(&source.columns, &names, &place)?;
    let class_names = picks.label.and_then(|label| {
        let pairs = metadata.key_value_metadata().as_ref()?;
        let pair = pairs.iter().find(|pair| pair.key == "huggingface")?;
        Features::from_metadata(pair.value.as_deref()?).class_names(&names[label])
    });
    let (projection, picks) = picks.projection();
    let mut loaded = Vec::new();
    for (name, field) in projection.iter().filter_map(|column| schema.get_at_index(*column)) {
        let column = Column::Name(name.to_string());
        check_type(field.dtype()).map_err(|found| Error::Cell { place: place.clone(), column, found })?;
        loaded.push(name.to_string());
    }
    let path = path.clone();
    let batches: Batches = Box::new(slices(&metadata, &loaded).into_iter().map(move |slice| {
        let file = file.try_clone().map_err(|source| Error::Read { path: path.clone(), source })?;
        read_slice(file, &metadata, &projection, slice).map_err(|source| Error::Columnar { path: path.clone(), source })
    }));
    Ok(Columnar {
        path: source.path.clone(),
        columns: source.columns.clone(),
        picks,
        class_names,
        batches,
        cursor: Cursor::default(),
    })
}

/// Refuses what polars, built without the types of no use here, would panic or stumble over.
fn check_type(data_type: &ArrowDataType) -> Result<(), String> {
    match data_type {
        ArrowDataType::Utf8View | ArrowDataType::LargeUtf8 | ArrowDataType::Utf8 | ArrowDataType::Boolean => Ok(()),
        ArrowDataType::Int32 | ArrowDataType::Int64 | ArrowDataType::UInt32 | ArrowDataType::UInt64 => Ok(()),
        ArrowDataType::Float32 | ArrowDataType::Float64 => Ok(()),
        ArrowDataType::Dictionary(_, values, _) => check_type(values),
        ArrowDataType::Int8 | ArrowDataType::Int16 | ArrowDataType::UInt8 | ArrowDataType::UInt16 => {
            Err(format!("{data_type:?}, which Parquet files are not read for: store it with 32 or 64 bits"))
        }
        other => Err(format!("{other:?}")),
    }
}

/// Cuts the row groups into slices of at most [`BATCH_ROWS`] rows and about [`BATCH_BYTES`]:
/// (first row, rows). A file may hold a single row group, however long it is.
fn slices(metadata: &FileMetadataRef, columns: &[String]) -> Vec<(usize, usize)> {
    let mut slices = Vec::new();
    let mut first = 0;
    for group in &metadata.row_groups {
        let chunks = columns.iter().filter_map(|column| group.columns_under_root_iter(column)).flatten();
        let bytes: i64 = chunks.map(|chunk| chunk.uncompressed_size()).sum();
        let row_bytes = usize::try_from(bytes).unwrap_or(0) / group.num_rows().max(1);
        let rows = (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS);
        let end = first + group.num_rows();
        while first < end {
            slices.push((first, rows.min(end - first)));
            first += rows.min(end - first);
        }
    }
    slices
}

fn read_slice(
    file: File,
    metadata: &FileMetadataRef,
    projection: &[usize],
    slice: (usize, usize),
) -> polars::prelude::PolarsResult<Batch> {
    let mut reader = ParquetReader::new(file);
    reader.set_metadata(metadata.clone());
    let frame = reader
        .with_projection(Some(projection.to_vec()))
        .with_slice(Some(slice))
        // The other strategies look into every row group before the slice.
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
