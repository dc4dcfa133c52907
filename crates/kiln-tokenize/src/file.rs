use std::path::Path;

use crate::Error;

/// The content of a file; `None` when there is no such file.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    kiln_files::read_if_present(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Writes a file, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    kiln_files::write(path, bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}
