use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use half::f16;
use safetensors::View;
use safetensors::tensor::Dtype;
use tempfile::NamedTempFile;

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
    let views = parameters.iter().map(|parameter| (&parameter.name, Stored { parameter, float_type }));
    replace(path, |temporary| {
        safetensors::serialize_to_file(views, Some(header), temporary).map_err(io::Error::other)?;
        File::open(temporary)?.sync_all()
    })
}

/// Writes a file under a temporary name beside its own, syncs it and renames it.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, |temporary| {
        let mut file = File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    })
}

fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
    let replace = || {
        let temporary = temporary_beside(path)?.into_temp_path();
        // What the umask makes of a new file; the writer may put another file, of its own permissions, in its place.
        let permissions = temporary.metadata()?.permissions();
        write(&temporary)?;
        fs::set_permissions(&temporary, permissions)?;
        temporary.persist(path)?;
        Ok(())
    };
    replace().map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// A temporary file in the folder of `path`, to be renamed to it; it may be read as widely as any new file, where
/// temporary files are commonly their owner's alone.
///
/// # Errors
/// When the folder cannot be written.
pub fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// A parameter on its way to a file: its bytes are made when the writer asks, one tensor at a time.
struct Stored<'a> {
    parameter: &'a NamedParameter,
    float_type: FloatType,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.float_type {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.parameter.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.parameter.values.iter();
        match self.float_type {
            FloatType::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
            FloatType::F16 => values.flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        let bytes = match self.float_type {
            FloatType::F32 => 4,
            FloatType::F16 => 2,
        };
        self.parameter.values.len() * bytes
    }
}
