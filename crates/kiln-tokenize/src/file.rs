use std::path::Path;

use crate::Error;

/// The content of a file, or `None` when the file does not exist.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    kiln_files::read_if_present(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Writes a file atomically.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    kiln_files::write(path, bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}
