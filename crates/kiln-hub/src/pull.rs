use std::path::{Path, PathBuf};

use crate::ask::{Ask, Wanted};
use crate::{DatasetFile, Error, Hub, Location, PullConfig, fallback};

/// A checkpoint's files on disk, in Hugging Face's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Holds `config.json`, the tokenizer's files and the weights.
    pub folder: PathBuf,
    /// What was asked for, at the commit that came, where the hub tells it whole; none for a folder.
    /// It is another hub's where that stood in.
    pub pinned: Option<Location>,
    /// The commit, where the hub tells it.
    pub revision: Option<String>,
    /// The hub that was asked; none offline and for a folder.
    pub address: Option<String>,
    /// Whether every file was held against a hash that its hub declared. False for a folder, and offline for files
    /// that other programs left in the cache without a hash.
    pub verified: bool,
}

/// A data set's file on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledFile {
    /// Where it is.
    pub path: PathBuf,
    /// What was asked for, at the commit that came; see [`Snapshot::pinned`].
    pub pinned: DatasetFile,
    /// As of a [`Snapshot`].
    pub revision: Option<String>,
    /// As of a [`Snapshot`].
    pub address: Option<String>,
    /// As of a [`Snapshot`].
    pub verified: bool,
}

/// What [`pull`] and [`pull_file`] are doing.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A hub is about to be asked.
    Asking {
        /// Its address.
        address: &'a str,
    },
    /// A hub cannot be reached, and the next one is tried.
    Unreachable {
        /// Why.
        error: &'a Error,
        /// The next one.
        next: Hub,
    },
    /// What is not in the cache is about to be downloaded. An index of weights comes before the weights that it names.
    Planned {
        /// How many files.
        files: usize,
        /// Their sizes in all.
        size: u64,
    },
    /// A download begins, goes on or is through; at most one call each MiB.
    Downloading {
        /// Its name in the repository.
        file: &'a str,
        /// Bytes on disk, with those of an earlier attempt.
        received: u64,
        /// Bytes in all.
        size: u64,
        /// The same of all files that were [planned](Progress::Planned).
        all_received: u64,
        /// The same of all files that were [planned](Progress::Planned).
        all_size: u64,
    },
    /// A download is on disk under its name, and is what the hub declared.
    Verified {
        /// Its name in the repository.
        file: &'a str,
    },
}

/// Finds or fetches a checkpoint: `config.json`, the tokenizer's files and the weights, safetensors before pickles.
///
/// What the cache holds is verified, not fetched again. A download that broke off, whatever ended it, goes on where it
/// stopped. A folder is taken as it is: it must have `config.json`, and reading it reports what else is missing.
///
/// # Errors
/// Where no whole, verified snapshot comes of it; see [`Error`].
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

/// Finds or fetches one file of a data set, as [`pull`] does a checkpoint's.
///
/// # Errors
/// Where no whole, verified file comes of it; see [`Error`].
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
