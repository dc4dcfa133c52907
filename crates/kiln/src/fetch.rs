//! Fetches sources to files on disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use kiln_hub::{DatasetFile, Location, PullConfig, PulledFile, Snapshot, Source, pull, pull_file};

use crate::environment::{self, HubOptions, pull_config};
use crate::recipe::{Data, DataPath, Files};
use crate::{Error, Observer};

/// Downloads a checkpoint, finds it on disk, or unpacks the sample.
///
/// # Errors
/// When no hub has the checkpoint, or a file cannot be written or verified.
pub fn fetch(source: &Source, config: &PullConfig, observer: &mut dyn Observer) -> Result<Snapshot, Error> {
    let Source::Location(location) = source else {
        let folder = kiln_sample::unpack(&sample_folder()).map_err(anyhow::Error::from)?.model;
        return Ok(Snapshot { folder, pinned: None, revision: None, address: None, verified: true });
    };
    pull(location, config, &mut |progress| observer.download(&progress))
        .map_err(|error| anyhow::Error::from(error).into())
}

/// The folder of a model for prediction or evaluation. For a run's folder, it is the model inside it. Other folders on disk
/// are not checked here; loading reports what they lack.
///
/// # Errors
/// The same as for [`fetch`], and when a run's folder has no model yet.
pub fn fetch_model(source: &Source, hub: &HubOptions, observer: &mut dyn Observer) -> Result<PathBuf, Error> {
    match source {
        Source::Location(Location::Directory(folder)) => {
            let model = model_in(folder);
            if model.join("run.toml").exists() && !model.join("config.json").exists() {
                let place = folder.display();
                return Err(
                    anyhow!("{place} is a run without a model: it has not ended. `--resume` continues it").into()
                );
            }
            Ok(model)
        }
        _ => Ok(fetch(source, &pull_config(hub, &[]), observer)?.folder),
    }
}

/// The model's folder inside a run's folder; any other folder is returned unchanged.
pub(crate) fn model_in(folder: &Path) -> PathBuf {
    let in_run = folder.join("model");
    let is_run = !folder.join("config.json").exists() && in_run.join("config.json").exists();
    if is_run { in_run } else { folder.to_owned() }
}

/// Downloads a file of a data set, or finds it in the cache.
///
/// # Errors
/// When no hub has the file, or it cannot be written or verified.
pub fn fetch_file(file: &DatasetFile, config: &PullConfig, observer: &mut dyn Observer) -> Result<PulledFile, Error> {
    pull_file(file, config, &mut |progress| observer.download(&progress))
        .map_err(|error| anyhow::Error::from(error).into())
}

/// Fetches the files of a recipe. Returns their paths, and the recipe's data with files from hubs pinned to the fetched
/// commits.
///
/// # Errors
/// The same as for [`fetch_file`].
pub fn fetch_data(
    data: &Data,
    config: &PullConfig,
    observer: &mut dyn Observer,
) -> Result<(Files<PathBuf>, Data), Error> {
    let mut verified = true;
    let fetched = data.files.try_map(|path| fetch_path(path, config, &mut verified, observer))?;
    note_unverified(verified, observer);
    Ok((
        fetched.map(|(path, _)| path.clone()),
        Data { files: fetched.map(|(_, pinned)| pinned.clone()), ..data.clone() },
    ))
}

/// Fetches files that are not splits. Returns their paths, and the files pinned to the fetched commits.
///
/// # Errors
/// The same as for [`fetch_file`].
pub fn fetch_files(
    files: &[DataPath],
    config: &PullConfig,
    observer: &mut dyn Observer,
) -> Result<(Vec<PathBuf>, Vec<DataPath>), Error> {
    let mut verified = true;
    let fetched = files.iter().map(|path| fetch_path(path, config, &mut verified, observer));
    let fetched = fetched.collect::<anyhow::Result<Vec<_>>>()?;
    note_unverified(verified, observer);
    Ok(fetched.into_iter().unzip())
}

/// Fetches a file. Returns its path, and the file pinned to the fetched commit.
fn fetch_path(
    path: &DataPath,
    config: &PullConfig,
    verified: &mut bool,
    observer: &mut dyn Observer,
) -> anyhow::Result<(PathBuf, DataPath)> {
    match path {
        DataPath::Local(path) => Ok((path.clone(), DataPath::Local(path.clone()))),
        DataPath::Hub(file) => {
            let pulled = fetch_file(file, config, observer).with_context(|| format!("data set file \"{file}\""))?;
            *verified &= pulled.verified;
            Ok((pulled.path, DataPath::Hub(pulled.pinned)))
        }
    }
}

fn note_unverified(verified: bool, observer: &mut dyn Observer) {
    if !verified {
        observer.note(&"no hub declared hashes for some data set files, so they were not verified");
    }
}

/// The folder where the embedded sample is unpacked.
pub fn sample_folder() -> PathBuf {
    environment::cache_folder().join("sample")
}
