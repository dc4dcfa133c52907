use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use polars::prelude::PolarsResult;
use polars_arrow::datatypes::{ArrowSchema, Metadata};
use polars_arrow::io::ipc::read::{FileReader, StreamReader, StreamState, read_file_metadata, read_stream_metadata};
use polars_arrow::record_batch::RecordBatch;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::columnar::{Batches, Features, Table};
use crate::guard::guarded;
use crate::ipc_bounds::{check_blocks, check_stream};
use crate::{Error, Source};

/// Opens an Arrow IPC file, or a folder written by `datasets.save_to_disk`. It is read a record batch at a time.
pub(crate) fn open(source: &Source) -> Result<Table, Error> {
    let (path, files, features) = if source.path.is_dir() {
        let folder = split_folder(source)?;
        let files = data_files(&folder)?;
        let info = folder.join("dataset_info.json");
        let features = if info.is_file() { Some(read_json::<Features>(&info)?) } else { None };
        (folder, files, features)
    } else {
        (source.path.clone(), vec![source.path.clone()], None)
    };
    let Some(first) = files.first() else {
        return Err(Error::NoRows { paths: vec![path] });
    };

    // All files of a folder have the same schema.
    let ipc = Ipc::open(first)?;
    let names: Vec<String> = ipc.schema().iter_names().map(|name| name.to_string()).collect();
    let features = features.or_else(|| {
        let json = ipc.metadata()?.get("huggingface")?;
        Some(Features::from_metadata(json))
    });
    let read = |projection: Vec<usize>| -> Result<Batches, Error> {
        Ok(Box::new(files.into_iter().flat_map(move |file| batches(file, projection.clone()))))
    };
    Ok(Table { path, names, features: features.unwrap_or_default(), read: Box::new(read) })
}

/// The splits of a folder with a `dataset_dict.json`; none for any other path.
pub(crate) fn splits(path: &Path) -> Result<Option<Vec<String>>, Error> {
    #[derive(Deserialize)]
    struct DatasetDict {
        splits: Vec<String>,
    }
    let dict = path.join("dataset_dict.json");
    if !dict.is_file() {
        return Ok(None);
    }
    Ok(Some(read_json::<DatasetDict>(&dict)?.splits))
}

/// The folder with the rows: the path itself, or the subfolder of the split.
fn split_folder(source: &Source) -> Result<PathBuf, Error> {
    let Some(splits) = splits(&source.path)? else {
        return Ok(source.path.clone());
    };
    let split = match (&source.split, splits.as_slice()) {
        (Some(split), _) => splits.iter().find(|known| *known == split),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    match split {
        Some(split) => Ok(source.path.join(split)),
        None => Err(Error::NoSplit { path: source.path.clone(), split: source.split.clone(), splits }),
    }
}

/// The data files listed in a folder's `state.json`, in order.
fn data_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(Deserialize)]
    struct State {
        _data_files: Vec<DataFile>,
        #[serde(default)]
        _indices_data_files: Option<Vec<DataFile>>,
    }
    #[derive(Deserialize)]
    struct DataFile {
        filename: String,
    }
    let path = folder.join("state.json");
    let state: State = read_json(&path)?;
    if state._indices_data_files.is_some_and(|files| !files.is_empty()) {
        return Err(Error::Indices { path });
    }
    Ok(state._data_files.into_iter().map(|file| folder.join(file.filename)).collect())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let json = kiln_files::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    serde_json::from_str(&json).map_err(|source| Error::Manifest { path: path.to_owned(), source })
}

fn batches(path: PathBuf, projection: Vec<usize>) -> Batches {
    let ipc = match Ipc::open(&path) {
        Ok(ipc) => ipc,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let mut batches = match guarded(&path, || Ok(ipc.batches(projection))) {
        Ok(batches) => batches,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let next = move || guarded(&path, || batches.next().transpose()).transpose();
    Box::new(std::iter::from_fn(next).map(|batch| batch.map(RecordBatch::into_arrays)))
}

/// An IPC file whose schema has been read. `datasets` writes the stream format; the file format has a footer.
enum Ipc {
    Stream(BufReader<File>, polars_arrow::io::ipc::read::StreamMetadata),
    File(BufReader<File>, polars_arrow::io::ipc::read::FileMetadata),
}

impl Ipc {
    fn open(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let mut reader = BufReader::with_capacity(1 << 16, kiln_files::open(path).map_err(read)?);
        let mut magic = [0; 6];
        let has_footer = reader.read_exact(&mut magic).is_ok() && magic == *b"ARROW1";
        reader.rewind().map_err(read)?;
        let out_of_bounds = |source: io::Error| match source.kind() {
            io::ErrorKind::InvalidData => Error::Damaged { path: path.to_owned(), problem: source.to_string() },
            _ => read(source),
        };
        if has_footer {
            let metadata = guarded(path, || read_file_metadata(&mut reader))?;
            let blocks = metadata.blocks.iter().chain(metadata.dictionaries.iter().flatten());
            check_blocks(&mut reader, blocks).map_err(out_of_bounds)?;
            return Ok(Self::File(reader, metadata));
        }
        check_stream(&mut reader).map_err(out_of_bounds)?;
        reader.rewind().map_err(read)?;
        let metadata = guarded(path, || read_stream_metadata(&mut reader))?;
        Ok(Self::Stream(reader, metadata))
    }

    fn schema(&self) -> &ArrowSchema {
        match self {
            Self::Stream(_, metadata) => &metadata.schema,
            Self::File(_, metadata) => &metadata.schema,
        }
    }

    fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Stream(_, metadata) => metadata.custom_schema_metadata.as_ref(),
            Self::File(_, metadata) => metadata.custom_schema_metadata.as_deref(),
        }
    }

    fn batches(self, projection: Vec<usize>) -> Box<dyn Iterator<Item = PolarsResult<RecordBatch>> + Send> {
        match self {
            Self::File(reader, metadata) => Box::new(FileReader::new(reader, metadata, Some(projection), None)),
            // `Waiting` means that the file ended without an end-of-stream marker, which is allowed.
            Self::Stream(reader, metadata) => {
                Box::new(StreamReader::new(reader, metadata, Some(projection)).map_while(|state| match state {
                    Ok(StreamState::Some(batch)) => Some(Ok(batch)),
                    Ok(StreamState::Waiting) => None,
                    Err(error) => Some(Err(error)),
                }))
            }
        }
    }
}
