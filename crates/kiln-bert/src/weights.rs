mod rows;
mod stored;
mod tied;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::PytorchReader;
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use crate::Error;
use crate::save::NOTE;
pub(crate) use stored::FileWeight;
pub use stored::{INPUT_RANGE, SMOOTHING, UNITS};

/// The tensors of a checkpoint by name; each is read from its file on demand.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    note: Option<String>,
}

struct Stored {
    /// Its name in the file.
    name: String,
    file: PathBuf,
    shape: Vec<usize>,
    dtype: FloatType,
    place: Place,
}

enum Place {
    /// Byte range of a safetensors file.
    Range { start: u64, end: u64 },
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
    /// Weights of a bundle, if another tensor holds a unit for each row; otherwise ids and flags.
    I8,
    /// Ids and flags that old checkpoints contain (`position_ids`): listed, but `read` refuses them.
    Other,
}

impl FloatType {
    /// The size of a floating-point number in bytes; none for other types.
    fn size(self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::I8 | Self::Other => None,
        }
    }

    /// Decodes floating-point numbers; none for other types.
    fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        Some(match self {
            Self::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Self::I8 | Self::Other => return None,
        })
    }
}

impl Weights {
    /// Opens the first of these that the folder has: `model.safetensors`, the shards of `model.safetensors.index.json`,
    /// `pytorch_model.bin`, the shards of `pytorch_model.bin.index.json`.
    ///
    /// # Errors
    /// When the folder has none of them, or a file is damaged.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        for name in
            ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]
        {
            let path = folder.join(name);
            if path.exists() {
                return if name.ends_with(".json") { Self::from_index(&path) } else { Self::from_file(&path) };
            }
        }
        Err(Error::NoWeights { folder: folder.to_owned() })
    }

    /// Opens a safetensors file, or a PyTorch file if its name ends with `.bin`.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let mut tensors = BTreeMap::new();
        let note = read_tensors(path, &mut tensors)?;
        tied::rename(&mut tensors);
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
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        let mut tensors = BTreeMap::new();
        for shard in shards {
            if Path::new(shard).components().count() != 1 {
                return Err(damaged(path, format!("the shard `{shard}` is not a plain file name")));
            }
            read_tensors(&folder.join(shard), &mut tensors)?;
        }
        for (name, shard) in &index.weight_map {
            match tensors.get(&canonical(name)) {
                Some(stored) if stored.file == folder.join(shard) => {}
                Some(Stored { file, .. }) => {
                    let file = file.file_name().unwrap_or_default().display();
                    return Err(damaged(path, format!("the tensor `{name}` is in the shard {file}, not in {shard}")));
                }
                None => return Err(damaged(path, format!("the tensor `{name}` is not in its shard {shard}"))),
            }
        }
        tied::rename(&mut tensors);
        Ok(Self { path: path.to_owned(), tensors, note: None })
    }

    /// The file that was opened; the index if there are shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same tensors with other names. If two get the same name, the one whose old name sorts last is kept.
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        let tensors = self.tensors.into_iter().map(|(name, stored)| (rename(&name), stored)).collect();
        Self { tensors, ..self }
    }

    /// The text that [`save_with_note`](crate::save_with_note) wrote to the file's header.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Names of the tensors, sorted; `gamma` and `beta` of old checkpoints appear as `weight` and `bias`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one with this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// Whether there is a tensor with this name, stored as 32-bit floats.
    pub fn is_f32(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|stored| stored.dtype == FloatType::F32)
    }

    /// A tensor's values, row-major, widened or narrowed to f32; none if there is no tensor with this name.
    ///
    /// # Errors
    /// When its file cannot be read, or it does not hold finite floating-point numbers.
    pub fn read(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        let Some(stored) = self.tensors.get(name) else { return Ok(None) };
        let read = || match &stored.place {
            Place::Range { start, end } => {
                let mut bytes = vec![0; (end - start) as usize];
                let mut file = kiln_files::open(&stored.file)?;
                file.seek(SeekFrom::Start(*start))?;
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            }
            Place::Pickled(tensor) => tensor.read(),
        };
        let bytes = read().map_err(|source| Error::Read { path: stored.file.clone(), source })?;
        let values = match (stored.dtype.decode(&bytes), stored.dtype) {
            (Some(values), _) => values,
            (None, FloatType::I8) if self.units_of(name).is_some() => self.dequantized(name, &bytes)?,
            (None, _) => {
                return Err(damaged(&stored.file, format!("`{}` does not hold floating-point numbers", stored.name)));
            }
        };
        let not_finite = |value| Error::NotFinite { path: stored.file.clone(), name: stored.name.clone(), value };
        all_finite(&values).map_err(not_finite)?;
        Ok(Some(values))
    }
}

/// Fails with the first value that is NaN or infinite.
fn all_finite(values: &[f32]) -> Result<(), f32> {
    // Finding the largest magnitude's bits is faster than searching for the first value that is not finite.
    let largest = values.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
    if largest < f32::INFINITY.to_bits() {
        return Ok(());
    }
    Err(values.iter().copied().find(|value| !value.is_finite()).expect("there is one"))
}

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Damaged { path: path.to_owned(), reason: reason.into() }
}

/// Converts TensorFlow's names of layer normalization parameters, which early checkpoints use.
fn canonical(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((module, "gamma")) => format!("{module}.weight"),
        Some((module, "beta")) => format!("{module}.bias"),
        _ => name.to_owned(),
    }
}

/// Adds a tensor under its canonical name. Fails if there is one with this name already.
fn add(tensors: &mut BTreeMap<String, Stored>, stored: Stored) -> Result<(), Error> {
    let parameter = canonical(&stored.name);
    if let Some(other) = tensors.get(&parameter) {
        let reason = if other.file == stored.file {
            format!("`{}` and `{}` are two names of one parameter; expected one of them", other.name, stored.name)
        } else {
            format!("`{}` is in {} too; expected it once", stored.name, other.file.display())
        };
        return Err(damaged(&stored.file, reason));
    }
    tensors.insert(parameter, stored);
    Ok(())
}

/// Adds the tensors of a file; returns its note.
fn read_tensors(path: &Path, tensors: &mut BTreeMap<String, Stored>) -> Result<Option<String>, Error> {
    if path.extension().is_some_and(|extension| extension == "bin") {
        return read_pickle(path, tensors).map(|()| None);
    }
    read_header(path, tensors)
}

/// Adds the tensors of a PyTorch file. The reader parses the pickle's data and runs no code from it.
fn read_pickle(path: &Path, tensors: &mut BTreeMap<String, Stored>) -> Result<(), Error> {
    kiln_files::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let reader = PytorchReader::new(path).map_err(|error| damaged(path, error.to_string()))?;
    // Sorted by name, so that an error is the same on every run.
    let pickled: BTreeMap<_, _> = reader.into_tensors().into_iter().collect();
    for (name, tensor) in pickled {
        let dtype = match tensor.dtype() {
            pytorch_reader::DType::F64 => FloatType::F64,
            pytorch_reader::DType::F32 => FloatType::F32,
            pytorch_reader::DType::F16 => FloatType::F16,
            pytorch_reader::DType::BF16 => FloatType::Bf16,
            _ => FloatType::Other,
        };
        let shape = tensor.shape().to_vec();
        add(tensors, Stored { name, file: path.to_owned(), shape, dtype, place: Place::Pickled(Box::new(tensor)) })?;
    }
    Ok(())
}

/// Larger headers are refused.
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
    let listed: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
    for (name, info) in listed {
        let dtype = match info.dtype {
            Dtype::F64 => FloatType::F64,
            Dtype::F32 => FloatType::F32,
            Dtype::F16 => FloatType::F16,
            Dtype::BF16 => FloatType::Bf16,
            Dtype::I8 => FloatType::I8,
            _ => FloatType::Other,
        };
        let (start, end) = info.data_offsets;
        let place = Place::Range { start: data_start + start as u64, end: data_start + end as u64 };
        add(tensors, Stored { name, file: path.to_owned(), shape: info.shape.clone(), dtype, place })?;
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

    /// Also returns the folder, which must exist while the weights are read.
    fn open(bytes: &[u8]) -> (TempDir, Result<Weights, Error>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("model.safetensors"), bytes).expect("it is writable");
        let weights = Weights::from_folder(folder.path());
        (folder, weights)
    }

    #[test]
    fn every_float_type_is_read_and_old_names_are_translated() {
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
    fn two_names_of_one_parameter_are_refused() {
        let json = r#"{"x.gamma":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "x.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        let messages = [(); 8].map(|()| open(&header(json, &[0; 8])).1.expect_err("two values").to_string());
        assert!(messages[0].contains("`x.gamma` and `x.weight`"), "{}", messages[0]);
        assert!(messages.iter().all(|message| message.ends_with("expected one of them")));
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        let json = r#"{"y":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"z":{"dtype":"F64","shape":[1],"data_offsets":[12,20]}}"#;
        for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf"), (f32::MAX, "")] {
            let data = [&[0; 8][..], &value.to_le_bytes(), &1e300f64.to_le_bytes()].concat();
            let (_folder, weights) = open(&header(json, &data));
            let weights = weights.expect("it is well formed");
            match weights.read("y") {
                Ok(values) => assert_eq!(values, Some(vec![0.0, 0.0, f32::MAX])),
                Err(error) => {
                    let message = error.to_string();
                    assert!(
                        message.contains("model.safetensors") && message.contains(&format!("`y` holds {shown};")),
                        "{message}"
                    );
                }
            }
            assert_eq!(weights.read("y").is_ok(), shown.is_empty());
            assert!(weights.read("z").expect_err("no f32 is so large").to_string().contains("`z` holds inf"));
        }
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
