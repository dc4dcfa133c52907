use std::fs;
use std::io::Read;
use std::path::Path;

use crate::Error;
use crate::manifest::{MANIFEST, Manifest};

/// A larger file is not read as a manifest.
const LARGEST_MANIFEST: u64 = 16 << 20;

impl Manifest {
    /// Reads and checks the manifest of a bundle. [`verify`](crate::verify) also checks the files that it names.
    ///
    /// # Errors
    /// When there is no manifest, or it is malformed.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder.is_dir() => {
                return Err(Error::NoManifest { folder: folder.to_owned() });
            }
            Err(error) => return Err(Error::read(folder)(error)),
            Ok(metadata) if metadata.is_symlink() => {
                return Err(Error::bad_manifest(path, "it is a symbolic link; expected a regular file"));
            }
            Ok(metadata) if metadata.len() > LARGEST_MANIFEST => {
                let reason = format!("it has {} bytes; expected at most {LARGEST_MANIFEST}", metadata.len());
                return Err(Error::bad_manifest(path, reason));
            }
            Ok(_) => {}
        }
        let mut json = Vec::new();
        let file = kiln_files::open(&path).map_err(Error::read(&path))?;
        file.take(LARGEST_MANIFEST).read_to_end(&mut json).map_err(Error::read(&path))?;
        let manifest: Manifest = serde_json::from_slice(&json)
            .map_err(|error| Error::bad_manifest(&path, format!("invalid JSON: {error}")))?;
        for (name, entry) in &manifest.files {
            if !is_plain(name) {
                let reason = format!("`files` names {name:?}; expected the plain name of a file beside the manifest");
                return Err(Error::bad_manifest(path, reason));
            }
            let is_digest =
                entry.sha256.len() == 64 && entry.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if !is_digest {
                let reason = format!("`sha256` of {name:?} is {:?}; expected 64 hexadecimal digits", entry.sha256);
                return Err(Error::bad_manifest(path, reason));
            }
        }
        let digest = manifest.digest();
        if manifest.sha256 != digest {
            let reason = format!("`sha256` is {:?}; that of the list of files is {digest}", manifest.sha256);
            return Err(Error::bad_manifest(path, reason));
        }
        Ok(manifest)
    }
}

/// Whether a name refers to an entry of the folder itself, on any operating system.
fn is_plain(name: &str) -> bool {
    let is_special = ["", ".", "..", MANIFEST].contains(&name);
    !is_special && !name.contains(['/', '\\', ':']) && !name.chars().any(char::is_control)
}
