//! A source, as files on disk.

use std::path::PathBuf;

use anyhow::Context;
use kiln_hub::{DatasetFile, Location, PullConfig, PulledFile, Snapshot, Source, pull, pull_file};

use crate::cli::HubArgs;
use crate::interrupt::leave_when_interrupted;
use crate::recipe::{Data, DataPath, Files};
use crate::transfers::Transfers;
use crate::{console, environment};

/// Fetches, finds or unpacks a checkpoint.
pub fn fetch(source: &Source, config: &PullConfig) -> anyhow::Result<Snapshot> {
    let Source::Location(location) = source else {
        let folder = kiln_sample::unpack(&sample_folder())?.model;
        return Ok(Snapshot { folder, pinned: None, revision: None, address: None, verified: true });
    };
    let _interruptible = leave_when_interrupted(KEPT)?;
    let mut transfers = Transfers::default();
    Ok(pull(location, config, &mut |progress| transfers.show(&progress))?)
}

/// The folder of a model to predict with or to evaluate. For a run's folder it is the model in it. A folder on disk is not
/// checked: loading says what it lacks.
pub fn fetch_model(source: &Source, hub: &HubArgs) -> anyhow::Result<PathBuf> {
    match source {
        Source::Location(Location::Directory(folder)) => {
            let in_run = folder.join("model");
            let is_run = !folder.join("config.json").exists() && in_run.join("config.json").exists();
            Ok(if is_run { in_run } else { folder.clone() })
        }
        _ => Ok(fetch(source, &environment::pull_config(hub, &[]))?.folder),
    }
}

/// Fetches or finds a data set's file.
pub fn fetch_file(file: &DatasetFile, config: &PullConfig) -> anyhow::Result<PulledFile> {
    let _interruptible = leave_when_interrupted(KEPT)?;
    let mut transfers = Transfers::default();
    Ok(pull_file(file, config, &mut |progress| transfers.show(&progress))?)
}

/// What becomes of a download that a signal ends.
const KEPT: &str = "the part that is downloaded is kept, and the next download continues from there";

/// A recipe's files on disk, and its data with those of hubs at the commits that came.
pub fn fetch_data(data: &Data, config: &PullConfig) -> anyhow::Result<(Files<PathBuf>, Data)> {
    let mut verified = true;
    let fetched = data.files.try_map(|path| match path {
        DataPath::Local(path) => anyhow::Ok((path.clone(), DataPath::Local(path.clone()))),
        DataPath::Hub(file) => {
            let pulled = fetch_file(file, config).with_context(|| format!("data set file \"{file}\""))?;
            verified &= pulled.verified;
            Ok((pulled.path, DataPath::Hub(pulled.pinned)))
        }
    })?;
    if !verified {
        console::log("no hub declared hashes for some data set files, so they were not verified");
    }
    Ok((
        fetched.map(|(path, _)| path.clone()),
        Data { files: fetched.map(|(_, pinned)| pinned.clone()), ..data.clone() },
    ))
}

/// Where the embedded sample is unpacked.
pub fn sample_folder() -> PathBuf {
    environment::cache_folder().join("sample")
}
