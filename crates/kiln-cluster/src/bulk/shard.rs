//! Computes one shard: it reads row groups of a file and writes a file. The name of the shard is a hash of everything that
//! its bytes depend on.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::AsyncArrowWriter;
use datafusion::parquet::arrow::ParquetRecordBatchStreamBuilder;
use datafusion::parquet::arrow::async_reader::ParquetRecordBatchStream;
use datafusion::parquet::arrow::async_writer::AsyncFileWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::bulk::job::{BadRows, Job, Receipt, Shard};
use crate::bulk::plan::file_id;
use crate::bulk::reader::Reader;
use crate::bulk::rows::{Answering, BadRow, with_answers};
use crate::bulk::store::Place;
use crate::{Error, Model, Stores};

/// The number of rows that are read and computed at once, the same as in `kiln predict`.
const ROWS_AT_ONCE: usize = 1024;
/// The most rows in a row group of the output. The writer keeps one row group in memory.
const ROWS_OF_A_GROUP: usize = 8192;

/// Computes a shard and writes it, then its bad rows, and its receipt last. A shard that has a receipt is left unchanged.
pub(crate) async fn write(stores: &Stores, job: &Job, shard: &Shard, model: &Model) -> Result<Receipt, Error> {
    let output = stores.place(&job.output)?;
    if let Some(receipt) = receipt(&output, job, shard).await? {
        return Ok(receipt);
    }
    let mut source = Source::open(stores, shard).await?;
    let schema = with_answers(&source.schema, &job.task, model);
    let to = output.join(&shard.data_file());
    let sink = Sink { file: BufWriter::new(to.store.clone(), to.path.clone()), sha256: Sha256::new(), bytes: 0 };
    let cannot_write = |error| Error::parquet(&to.address(), error);
    let mut writer = AsyncArrowWriter::try_new(sink, schema.clone(), Some(properties())).map_err(cannot_write)?;
    let address = &shard.file.address;
    let answering = Answering { model, columns: &job.columns, bad_rows: job.bad_rows, address };
    let (mut read, mut bad_rows) = (0, Vec::<BadRow>::new());
    while let Some(batch) = source.next(address).await? {
        let first_row = shard.first_row + read;
        // This runs inside the thread pool. From outside, every parallel operation would wake a thread and wait for it.
        let (batch, bad) = rayon::scope(|_| answering.answer(&batch, &schema, first_row))?;
        read += batch.num_rows() as u64 + bad.len() as u64;
        bad_rows.extend(bad);
        writer.write(&batch).await.map_err(cannot_write)?;
    }
    if read != shard.rows {
        return Err(Error::place(address, format!("found {read} rows, expected {}, as its footer says", shard.rows)));
    }
    writer.finish().await.map_err(cannot_write)?;
    let Sink { sha256, bytes, .. } = writer.into_inner();
    if !bad_rows.is_empty() {
        let lines: Vec<String> = bad_rows.iter().filter_map(|row| serde_json::to_string(row).ok()).collect();
        output.join(&shard.bad_rows_file()).write((lines.join("\n") + "\n").into_bytes()).await?;
    }
    let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let bad_rows = bad_rows.len() as u64;
    let receipt = Receipt { rows: read - bad_rows, bad_rows, bytes, sha256 };
    output.join(&shard.receipt_file()).write(serde_json::to_vec(&receipt).unwrap_or_default()).await?;
    Ok(receipt)
}

/// The receipt of a shard. `None` if it does not exist or is damaged.
pub(crate) async fn receipt(output: &Place, job: &Job, shard: &Shard) -> Result<Option<Receipt>, Error> {
    let bytes = output.join(&shard.receipt_file()).read_if_present().await?;
    let receipt: Option<Receipt> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    // An earlier job may have set rows aside that make this one fail.
    Ok(receipt.filter(|receipt| receipt.bad_rows == 0 || job.bad_rows == BadRows::SetAside))
}

/// Reads the row groups of a shard.
struct Source {
    batches: ParquetRecordBatchStream<Reader>,
    schema: SchemaRef,
}

impl Source {
    async fn open(stores: &Stores, shard: &Shard) -> Result<Self, Error> {
        let address = &shard.file.address;
        let place = stores.place(address)?;
        let meta = place.store.head(&place.path).await.map_err(Error::store(address))?;
        let found = file_id(address.clone(), &meta);
        if found != shard.file {
            let reason = format!(
                "found {} bytes, version {}, expected {} bytes, version {}: it was changed after the job was planned",
                found.bytes, found.version, shard.file.bytes, shard.file.version
            );
            return Err(Error::place(address, reason));
        }
        let reader = Reader::new(place, meta.size);
        let cannot_read = |error| Error::parquet(address, error);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(cannot_read)?;
        let schema = builder.schema().clone();
        let batches = builder.with_row_groups(shard.row_groups.clone().collect()).with_batch_size(ROWS_AT_ONCE);
        Ok(Self { batches: batches.build().map_err(cannot_read)?, schema })
    }

    async fn next(&mut self, address: &str) -> Result<Option<RecordBatch>, Error> {
        self.batches.try_next().await.map_err(|error| Error::parquet(address, error))
    }
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROWS_OF_A_GROUP))
        .set_created_by(concat!("kiln-cluster ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

/// A file that appears only once it is complete, and the hash of its bytes.
struct Sink {
    file: BufWriter,
    sha256: Sha256,
    bytes: u64,
}

type Written<'a> = Pin<Box<dyn Future<Output = Result<(), ParquetError>> + Send + 'a>>;

impl AsyncFileWriter for Sink {
    fn write(&mut self, bytes: Bytes) -> Written<'_> {
        Box::pin(async move {
            self.sha256.update(&bytes);
            self.bytes += bytes.len() as u64;
            self.file.put(bytes).await.map_err(|error| ParquetError::External(Box::new(error)))
        })
    }

    fn complete(&mut self) -> Written<'_> {
        Box::pin(async move {
            self.file.shutdown().await.map_err(|error| match error.downcast::<object_store::Error>() {
                Ok(error) => ParquetError::External(Box::new(error)),
                Err(error) => ParquetError::External(Box::new(error)),
            })
        })
    }
}
