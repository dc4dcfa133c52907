use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::PytorchReader;
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use crate::Error;
use crate::save::NOTE;

/// The tensors of a checkpoint by name; one is read from its file when it is asked for.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    note: Option<String>,
}

struct Stored {
    shape: Vec<usize>,
    dtype: FloatType,
    place: Place,
}

enum Place {
    /// Byte range of a safetensors file.
    Range { file: PathBuf, start: u64, end: u64 },
    /// Entry of a PyTorch file.
    Pickled(Box<pytorch_reader::Tensor>),
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.dtype, self.shape)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FloatType {
    F64,
    F32,
    F16,
    Bf16,
    /// Ids and flags that old checkpoints hold beside the weights (`position_ids`): listed, never read.
    Other,
}

impl Weights {
    /// Opens `model.safetensors`, else the shards of `model.safetensors.index.json`, else `pytorch_model.bin`.
    ///
    /// # Errors
    /// When the folder has none of them, or a file is damaged.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let single = folder.join("model.safetensors");
        if single.is_file() {
            return Self::from_file(&single);
        }
        let index = folder.join("model.safetensors.index.json");
        if index.is_file() {
            return Self::from_index(&index);
        }
        let pickle = folder.join("pytorch_model.bin");
        if pickle.is_file() {
            return Self::from_pickle(&pickle);
        }
        Err(Error::NoWeights { folder: folder.to_owned() })
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let mut tensors = BTreeMap::new();
        let note = read_header(path, &mut tensors)?;
        Ok(Self { path: path.to_owned(), tensors, note })
    }

    fn from_index(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = kiln_files::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let index: Index =
            serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut shards: Vec<&String> = index.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        let mut tensors = BTreeMap::new();
        for shard in shards {
            if Path::new(shard).components().count() != 1 {
                return Err(damaged(path, format!("the shard `{shard}` is not a plain file name")));
            }
            read_header(&folder.join(shard), &mut tensors)?;
        }
        if let Some((name, shard)) = index.weight_map.iter().find(|(name, _)| !tensors.contains_key(&canonical(name))) {
            return Err(damaged(path, format!("the tensor `{name}` is not in its shard {shard}")));
        }
        Ok(Self { path: path.to_owned(), tensors, note: None })
    }

    /// The reader interprets the pickle's data; it runs no code from it.
    fn from_pickle(path: &Path) -> Result<Self, Error> {
        let reader = PytorchReader::new(path).map_err(|error| damaged(path, error.to_string()))?;
        let tensors = reader.into_tensors().into_iter().map(|(name, tensor)| {
            let dtype = match tensor.dtype() {
                pytorch_reader::DType::F64 => FloatType::F64,
                pytorch_reader::DType::F32 => FloatType::F32,
                pytorch_reader::DType::F16 => FloatType::F16,
                pytorch_reader::DType::BF16 => FloatType::Bf16,
                _ => FloatType::Other,
            };
            let shape = tensor.shape().to_vec();
            (canonical(&name), Stored { shape, dtype, place: Place::Pickled(Box::new(tensor)) })
        });
        Ok(Self { path: path.to_owned(), tensors: tensors.collect(), note: None })
    }

    /// The file that was opened: the index, where there are shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text that [`save_with_note`](crate::save_with_note) put into the file's header.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Names of the tensors, sorted; `gamma` and `beta` of old checkpoints appear as `weight` and `bias`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// A tensor's values, row-major, widened or narrowed to f32; none if there is no tensor of that name.
    ///
    /// # Errors
    /// When its file cannot be read, or it does not hold floating-point numbers.
    pub fn read(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        let Some(stored) = self.tensors.get(name) else { return Ok(None) };
        let bytes = match &stored.place {
            Place::Range { file, start, end } => {
                let read = || {
                    let mut bytes = vec![0; (end - start) as usize];
                    let mut file = kiln_files::open(file)?;
                    file.seek(SeekFrom::Start(*start))?;
                    file.read_exact(&mut bytes)?;
                    Ok(bytes)
                };
                read().map_err(|source| Error::Read { path: file.clone(), source })?
            }
            Place::Pickled(tensor) => {
                tensor.read().map_err(|source| Error::Read { path: self.path.clone(), source })?
            }
        };
        let values = match stored.dtype {
            FloatType::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            FloatType::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            FloatType::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            FloatType::Bf16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            FloatType::Other => {
                return Err(damaged(&self.path, format!("`{name}` does not hold floating-point numbers")));
            }
        };
        Ok(Some(values))
    }
}

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Damaged { path: path.to_owned(), reason: reason.into() }
}

/// TensorFlow's names of a layer normalization's parameters, which early checkpoints kept.
fn canonical(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((rest, "gamma")) => format!("{rest}.weight"),
        Some((rest, "beta")) => format!("{rest}.bias"),
        _ => name.to_owned(),
    }
}

/// A header larger than this is not one.
const LARGEST_HEADER: u64 = 100 << 20;

/// Adds the tensors of a safetensors file (the header's length in 8 bytes, the header in JSON, the data); returns its note.
fn read_header(path: &Path, tensors: &mut BTreeMap<String, Stored>) -> Result<Option<String>, Error> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let mut file = kiln_files::open(path).map_err(read_error)?;
    let length = file.metadata().map_err(read_error)?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| damaged(path, "it ends within the first 8 bytes"))?;
    let size = u64::from_le_bytes(size);
    if size > LARGEST_HEADER || size + 8 > length {
        return Err(damaged(path, format!("its header claims {size} bytes of a file of {length}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(read_error)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(path, format!("its header: {error}")))?;
    let data_start = 8 + size;
    let expected = data_start + metadata.data_len() as u64;
    if expected != length {
        return Err(damaged(path, format!("it has {length} bytes; its header describes {expected}")));
    }
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Dtype::F64 => FloatType::F64,
            Dtype::F32 => FloatType::F32,
            Dtype::F16 => FloatType::F16,
            Dtype::BF16 => FloatType::Bf16,
            _ => FloatType::Other,
        };
        let (start, end) = info.data_offsets;
        let place =
            Place::Range { file: path.to_owned(), start: data_start + start as u64, end: data_start + end as u64 };
        tensors.insert(canonical(&name), Stored { shape: info.shape.clone(), dtype, place });
    }
    Ok(metadata.metadata().as_ref().and_then(|header| header.get(NOTE).cloned()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn header(json: &str, data: &[u8]) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
    }

    /// The folder lives as long as the weights are read.
    fn open(bytes: &[u8]) -> (TempDir, Result<Weights, Error>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("model.safetensors"), bytes).expect("it is writable");
        let weights = Weights::from_folder(folder.path());
        (folder, weights)
    }

    #[test]
    fn every_float_type_is_read_and_old_names_are_mended() {
        let json = r#"{"x.gamma":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "x.beta":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},
            "y":{"dtype":"BF16","shape":[1,1],"data_offsets":[8,10]},
            "ids":{"dtype":"I64","shape":[1],"data_offsets":[10,18]}}"#;
        let data = [
            &1.5f32.to_le_bytes()[..],
            &f16::from_f32(-2.0).to_le_bytes(),
            &f16::from_f32(0.25).to_le_bytes(),
            &bf16::from_f32(3.0).to_le_bytes(),
            &7i64.to_le_bytes(),
        ]
        .concat();
        let (_folder, weights) = open(&header(json, &data));
        let weights = weights.expect("it is well formed");
        assert_eq!(weights.names().collect::<Vec<_>>(), ["ids", "x.bias", "x.weight", "y"]);
        let read = |name| weights.read(name).expect("floats").expect("it is there");
        assert_eq!((read("x.weight"), read("x.bias"), read("y")), (vec![1.5], vec![-2.0, 0.25], vec![3.0]));
        assert!(weights.read("ids").is_err());
        assert!(weights.read("z").expect("no error").is_none());
    }

    #[test]
    fn damaged_files_say_how() {
        let json = r#"{"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        for (bytes, reason) in [
            (vec![1, 2, 3], "ends within"),
            (header(json, &[0, 0]), "its header describes"),
            (vec![255; 64], "its header claims"),
            (header("{", &[]), "its header:"),
        ] {
            let message = open(&bytes).1.expect_err(reason).to_string();
            assert!(message.contains(reason) && message.contains("model.safetensors"), "{message}");
        }
        let empty = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(Weights::from_folder(empty.path()), Err(Error::NoWeights { .. })));
    }
}
