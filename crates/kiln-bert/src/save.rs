use std::collections::HashMap;
use std::io::{self, Seek, Write};
use std::path::Path;

use half::f16;
use kiln_files::FileWriter;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::{Error, NamedParameter};

/// The type of the numbers in a saved file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatType {
    /// 32 bits: exact.
    #[default]
    F32,
    /// 16 bits: half the size, rounded to nearest.
    F16,
}

/// Writes a safetensors file that transformers loads (`format = "pt"`), completely or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, parameters: &[NamedParameter], float_type: FloatType) -> Result<(), Error> {
    write_safetensors(path, parameters, float_type, HashMap::from([("format".to_owned(), "pt".to_owned())]))
}

/// Writes parameters with a text in the file's header, so that both are saved or neither: a resumable checkpoint.
/// [`Weights::note`](crate::Weights::note) returns the text.
///
/// # Errors
/// When the file cannot be written.
pub fn save_with_note(path: &Path, parameters: &[NamedParameter], note: String) -> Result<(), Error> {
    write_safetensors(path, parameters, FloatType::F32, HashMap::from([(NOTE.to_owned(), note)]))
}

pub(crate) const NOTE: &str = "note";

fn write_safetensors(
    path: &Path,
    parameters: &[NamedParameter],
    float_type: FloatType,
    header: HashMap<String, String>,
) -> Result<(), Error> {
    let mut sorted: Vec<&NamedParameter> = parameters.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let described = |parameter: &&NamedParameter| StoredTensor {
        name: parameter.name.clone(),
        shape: parameter.shape.clone(),
        stored_type: float_type.stored_type(),
    };
    let tensors: Vec<StoredTensor> = sorted.iter().map(described).collect();
    let mut values = sorted.into_iter();
    save_stored(path, &tensors, header, |_, writer| {
        let parameter = values.next().expect("there is a parameter for each tensor");
        float_type.write(&parameter.values, writer)
    })
}

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// bfloat16: the upper halves of 32-bit floats.
    Bf16,
    /// Integers from −128 to 127.
    I8,
}

impl StoredType {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
            Self::I8 => Dtype::I8,
        }
    }

    /// The size of one number in bytes.
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }
}

/// A tensor of a file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type of its numbers.
    pub stored_type: StoredType,
}

/// Writes a safetensors file, completely or not at all: the header's length in 8 bytes, the header in JSON, and the
/// tensors in the given order. `write` writes the little-endian bytes of each tensor, so that only one tensor at a time
/// must be in memory.
///
/// # Errors
/// When the file cannot be written, or `write` fails or does not write as many bytes as the shapes and types require.
pub fn save_stored(
    path: &Path,
    tensors: &[StoredTensor],
    header: HashMap<String, String>,
    mut write: impl FnMut(&StoredTensor, &mut FileWriter) -> io::Result<()>,
) -> Result<(), Error> {
    let mut write_all = || -> io::Result<()> {
        let mut end = 0;
        let infos = tensors.iter().map(|StoredTensor { name, shape, stored_type }| {
            let start = end;
            end += shape.iter().product::<usize>() * stored_type.bytes();
            let info = TensorInfo { dtype: stored_type.dtype(), shape: shape.clone(), data_offsets: (start, end) };
            (name.clone(), info)
        });
        let metadata = Metadata::new(Some(header.clone()), infos.collect()).map_err(io::Error::other)?;
        let mut json = serde_json::to_vec(&metadata)?;
        // The data starts at a multiple of 8.
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut writer = FileWriter::create(path)?;
        writer.write_all(&(json.len() as u64).to_le_bytes())?;
        writer.write_all(&json)?;
        for tensor in tensors {
            write(tensor, &mut writer)?;
        }
        let (length, expected) = (writer.stream_position()?, (8 + json.len() + end) as u64);
        if length != expected {
            return Err(io::Error::other(format!("{length} bytes were given; its header describes {expected}")));
        }
        writer.finish()
    };
    write_all().map_err(|source| Error::Write { path: path.to_owned(), source })
}

impl FloatType {
    fn stored_type(self) -> StoredType {
        match self {
            Self::F32 => StoredType::F32,
            Self::F16 => StoredType::F16,
        }
    }

    /// Converts a part at a time, so that a large tensor is not in memory twice.
    fn write(self, values: &[f32], writer: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        for part in values.chunks(1 << 16) {
            bytes.clear();
            match self {
                Self::F32 => bytes.extend(part.iter().flat_map(|value| value.to_le_bytes())),
                Self::F16 => bytes.extend(part.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
            }
            writer.write_all(&bytes)?;
        }
        Ok(())
    }
}
