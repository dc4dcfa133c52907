use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use half::f16;
use kiln_files::FileWriter;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::{Error, NamedParameter};

/// How a saved file holds its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatType {
    /// 32 bits: exact.
    #[default]
    F32,
    /// 16 bits: half the size, rounded to nearest.
    F16,
}

/// Writes a safetensors file that transformers loads (`format = "pt"`), whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, parameters: &[NamedParameter], float_type: FloatType) -> Result<(), Error> {
    write_safetensors(path, parameters, float_type, HashMap::from([("format".to_owned(), "pt".to_owned())]))
}

/// Writes parameters with a text in the file's header, so that both are there or neither: a resumable checkpoint.
/// [`Weights::note`](crate::Weights::note) gives it back.
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
    write(path, parameters, float_type, header).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Writes the header's length in 8 bytes, the header in JSON, and the data of one tensor after another.
fn write(
    path: &Path,
    parameters: &[NamedParameter],
    float_type: FloatType,
    header: HashMap<String, String>,
) -> io::Result<()> {
    let mut sorted: Vec<&NamedParameter> = parameters.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut end = 0;
    let tensors = sorted.iter().map(|parameter| {
        let start = end;
        end += parameter.values.len() * float_type.bytes();
        let info = TensorInfo { dtype: float_type.dtype(), shape: parameter.shape.clone(), data_offsets: (start, end) };
        (parameter.name.clone(), info)
    });
    let metadata = Metadata::new(Some(header), tensors.collect()).map_err(io::Error::other)?;
    let mut json = serde_json::to_vec(&metadata)?;
    // The data begin at a multiple of 8.
    json.resize(json.len().next_multiple_of(8), b' ');

    let mut writer = FileWriter::create(path)?;
    writer.write_all(&(json.len() as u64).to_le_bytes())?;
    writer.write_all(&json)?;
    for parameter in sorted {
        float_type.write(&parameter.values, &mut writer)?;
    }
    writer.finish()
}

impl FloatType {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// A part at a time, so that a large tensor is not in memory twice.
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
