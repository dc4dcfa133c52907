use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::manifest::{FileEntry, MANIFEST, Manifest};

/// A file that differs from the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The file's name.
    pub name: String,
    /// How it differs.
    pub kind: DifferenceKind,
}

/// How a file differs from the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The manifest has the file, but the folder does not.
    Missing,
    /// The file has other bytes, or is not a regular file.
    Changed,
    /// The folder has the file, but the manifest does not.
    Extra,
}

impl DifferenceKind {
    /// `missing`, `changed` or `extra`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Extra => "extra",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DifferenceKind::Missing | DifferenceKind::Changed => write!(f, "{} is {}", self.name, self.kind.name()),
            DifferenceKind::Extra => write!(f, "{} is not in the manifest", self.name),
        }
    }
}

/// The first differences, and the number of further ones.
pub(crate) fn in_words(differences: &[Difference]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
    match differences.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

/// Whether a folder has a manifest, and so is meant to be a bundle.
pub fn is_bundle(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(MANIFEST)).is_ok()
}

/// Reads the manifest of a bundle and compares every file with it.
///
/// # Errors
/// [`Error::Differs`] with every file that is missing, changed or extra. Another error if there is no manifest, or it is
/// malformed.
pub fn verify(folder: &Path) -> Result<Manifest, Error> {
    let manifest = Manifest::read(folder)?;
    let mut present = names(folder)?;
    present.retain(|name| name != MANIFEST);
    let mut differences: BTreeMap<String, DifferenceKind> = BTreeMap::new();
    for name in present.into_iter().filter(|name| !manifest.files.contains_key(name)) {
        differences.insert(name, DifferenceKind::Extra);
    }
    for (name, entry) in &manifest.files {
        if let Some(kind) = difference(&folder.join(name), entry)? {
            differences.insert(name.clone(), kind);
        }
    }
    if differences.is_empty() {
        return Ok(manifest);
    }
    let differences = differences.into_iter().map(|(name, kind)| Difference { name, kind }).collect();
    Err(Error::Differs { folder: folder.to_owned(), differences })
}

/// How a file differs, if it does.
fn difference(path: &Path, entry: &FileEntry) -> Result<Option<DifferenceKind>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(DifferenceKind::Missing)),
        Err(error) => return Err(Error::read(path)(error)),
        // A symbolic link is not a file of the bundle, whatever its target is.
        Ok(metadata) if !metadata.is_file() || metadata.len() != entry.bytes => {
            return Ok(Some(DifferenceKind::Changed));
        }
        Ok(_) => {}
    }
    let found = entry_of(path)?;
    Ok((found != *entry).then_some(DifferenceKind::Changed))
}

/// The digest and the length of a file.
pub(crate) fn entry_of(path: &Path) -> Result<FileEntry, Error> {
    let mut file = kiln_files::open(path).map_err(Error::read(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer).map_err(Error::read(path))? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    Ok(FileEntry { sha256: hexadecimal(hash.finalize()), bytes })
}

pub(crate) fn hexadecimal(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sorted names of a folder's entries. Bytes that are not UTF-8 are replaced.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let read = || -> std::io::Result<Vec<String>> {
        let entries = fs::read_dir(folder)?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>, std::io::Error>>()?;
        names.sort();
        Ok(names)
    };
    read().map_err(Error::read(folder))
}
