use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::Error;

/// The cache's root: what was given, or `below_home` in the home folder.
pub(crate) fn cache_root(given: Option<&PathBuf>, below_home: &str) -> Result<PathBuf, Error> {
    match given {
        Some(folder) => Ok(folder.clone()),
        None => std::env::home_dir().map(|home| home.join(below_home)).ok_or(Error::NoCache),
    }
}

/// Makes the folder that is to hold `path`, and gives it.
pub(crate) fn parent(path: &Path) -> Result<&Path, Error> {
    let folder = path.parent().expect("every path of a cache is below its root");
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    Ok(folder)
}

/// Writes a whole file, or nothing.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let write = |folder: &Path| {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(content)?;
        // A temporary file is its owner's alone; a cache may be shared.
        #[cfg(unix)]
        file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    };
    write(parent(path)?).map(drop).map_err(Error::io(path))
}

/// Waits until no other process holds the lock, and holds it until the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    parent(path)?;
    let file = File::options().create(true).append(true).open(path).map_err(Error::io(path))?;
    file.lock().map_err(Error::io(path))?;
    Ok(file)
}

/// Makes `link` lead to `target`, a path relative to the link's folder; replaces what was there.
#[cfg(unix)]
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), Error> {
    let folder = parent(link)?;
    let make = || {
        // A link cannot be made over an existing name, but renamed over it.
        let scratch = tempfile::Builder::new()
            .prefix(".link")
            .make_in(folder, |path| std::os::unix::fs::symlink(target, path))?;
        scratch.persist(link).map_err(|error| error.error)
    };
    make().map(drop).map_err(Error::io(link))
}

/// Copies instead: other systems let only administrators make links.
#[cfg(not(unix))]
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), Error> {
    let folder = parent(link)?;
    let copy = || {
        let mut scratch = NamedTempFile::new_in(folder)?;
        io::copy(&mut File::open(folder.join(target))?, scratch.as_file_mut())?;
        scratch.as_file().sync_all()?;
        scratch.persist(link).map_err(|error| error.error)
    };
    copy().map(drop).map_err(Error::io(link))
}

/// Reads a small text, trimmed; none where there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}
