use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result;
use datafusion::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use object_store::ObjectStoreExt;

use crate::bulk::store::Place;

/// A reader for a Parquet file in a store.
pub(crate) struct Reader {
    place: Place,
    bytes: u64,
}

impl Reader {
    /// A reader for a file with this size in bytes.
    pub fn new(place: Place, bytes: u64) -> Self {
        Self { place, bytes }
    }
}

type Read<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> Read<'_, Bytes> {
        Box::pin(async move { Ok(self.place.store.get_range(&self.place.path, range).await?) })
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> Read<'_, Vec<Bytes>> {
        Box::pin(async move { Ok(self.place.store.get_ranges(&self.place.path, &ranges).await?) })
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> Read<'a, Arc<ParquetMetaData>> {
        Box::pin(async move {
            let options = options.map(|options| options.metadata_options().clone());
            let bytes = self.bytes;
            let reader = ParquetMetaDataReader::new().with_metadata_options(options);
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        })
    }
}
