use std::path::{Path, PathBuf};

use crate::ask::{Ask, Wanted};
use crate::{DatasetFile, Error, Hub, Location, PullConfig, fallback};

/// The files of a checkpoint on disk, in Hugging Face's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with `config.json`, the tokenizer files and the weights.
    pub folder: PathBuf,
    /// The requested source, pinned to its commit if the hub reports the full hash. None for a folder. If a fallback
    /// hub was used, this names that hub.
    pub pinned: Option<Location>,
    /// The commit, if the hub reports it.
    pub revision: Option<String>,
    /// The address of the hub that was used; none if offline or for a folder.
    pub address: Option<String>,
    /// Whether every file was compared with a hash that its hub declared. False for a folder, and offline for files
    /// without a hash that other programs stored in the cache.
    pub verified: bool,
}

/// A file of a data set on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The requested source, pinned to its commit; see [`Snapshot::pinned`].
    pub pinned: DatasetFile,
    /// See [`Snapshot::revision`].
    pub revision: Option<String>,
    /// See [`Snapshot::address`].
    pub address: Option<String>,
    /// See [`Snapshot::verified`].
    pub verified: bool,
}

/// The progress of [`pull`] or [`pull_file`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A hub is about to be contacted.
    Asking {
        /// The address of the hub.
        address: &'a str,
    },
    /// A hub cannot be reached, and the next one will be tried.
    Unreachable {
        /// The error.
        error: &'a Error,
        /// The next hub.
        next: Hub,
    },
    /// Files that are not in the cache are about to be downloaded. An index of weights is downloaded before the
    /// weights.
    Planned {
        /// The number of files.
        files: usize,
        /// Their total size.
        size: u64,
    },
    /// A download starts, continues or ends. While data arrives, there is at most one call per MiB.
    Downloading {
        /// The name in the repository.
        file: &'a str,
        /// The number of bytes on disk, including those of an earlier attempt.
        received: u64,
        /// The size of the file.
        size: u64,
        /// The number of bytes on disk of all files that were [planned](Progress::Planned).
        all_received: u64,
        /// The size of all files that were [planned](Progress::Planned).
        all_size: u64,
    },
    /// A downloaded file has been verified against its declared hash, and has its final name.
    Verified {
        /// The name in the repository.
        file: &'a str,
    },
}

/// Finds or downloads a checkpoint: `config.json`, the tokenizer files and the weights. Safetensors are preferred to
/// pickles.
///
/// Files in the cache are verified, not downloaded again. An interrupted download resumes where it stopped. A folder
/// must have `config.json` and is not checked further; loading it reports other missing files.
///
/// # Errors
/// When there is no complete, verified snapshot; see [`Error`].
pub fn pull(
    location: &Location,
    config: &PullConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Snapshot, Error> {
    let (hub, repository) = match location {
        Location::HuggingFace(repository) => (Hub::HuggingFace, repository),
        Location::ModelScope(repository) => (Hub::ModelScope, repository),
        Location::Directory(folder) => return directory(folder),
    };
    let ask = Ask::new(hub, repository, Wanted::Checkpoint, config);
    let (hub, repository, gathered) = fallback::pull(ask, config, progress)?;
    Ok(Snapshot {
        pinned: Some(Location::on(hub, repository)),
        folder: gathered.folder,
        revision: gathered.commit,
        address: gathered.address,
        verified: gathered.verified,
    })
}

/// Finds or downloads one file of a data set, in the same way as [`pull`].
///
/// # Errors
/// When there is no complete, verified file; see [`Error`].
pub fn pull_file(
    file: &DatasetFile,
    config: &PullConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PulledFile, Error> {
    let ask = Ask::new(file.hub(), file.repository(), Wanted::File(file.path()), config);
    let (hub, repository, gathered) = fallback::pull(ask, config, progress)?;
    Ok(PulledFile {
        path: gathered.folder.join(file.path()),
        pinned: file.on(hub, repository),
        revision: gathered.commit,
        address: gathered.address,
        verified: gathered.verified,
    })
}

fn directory(folder: &Path) -> Result<Snapshot, Error> {
    let refuse = |problem| Err(Error::Directory { folder: folder.to_owned(), problem });
    if !folder.exists() {
        return refuse("there is no such folder; expected one with config.json, a tokenizer and weights");
    }
    if !folder.is_dir() {
        return refuse("this is no folder; expected one with config.json, a tokenizer and weights");
    }
    if !folder.join("config.json").is_file() {
        return refuse("there is no config.json in this folder");
    }
    Ok(Snapshot { folder: folder.to_owned(), pinned: None, revision: None, address: None, verified: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pull = |path: &Path| {
            pull(&Location::Directory(path.to_owned()), &PullConfig::default(), &mut |_| panic!("nothing to report"))
        };
        let error = pull(folder.path()).expect_err("an empty folder").to_string();
        assert!(error.contains("config.json") && error.contains(&*folder.path().to_string_lossy()), "{error}");

        let config = folder.path().join("config.json");
        std::fs::write(&config, "{}").expect("a small file");
        assert_eq!(pull(folder.path()).expect("a folder with a configuration").folder, folder.path());

        for path in [config, PathBuf::from("/x/no-such-model")] {
            let error = pull(&path).expect_err("no folder").to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
