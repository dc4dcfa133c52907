//! A source, as a folder on disk.

use std::path::PathBuf;

use kiln_hub::{Progress, PullConfig, Snapshot, Source, pull};

use crate::{console, environment};

/// Fetches, finds or unpacks a checkpoint.
pub fn fetch(source: &Source, config: &PullConfig) -> anyhow::Result<Snapshot> {
    let Source::Location(location) = source else {
        let folder = kiln_sample::unpack(&sample_folder())?.model;
        return Ok(Snapshot { folder, revision: None, address: None, verified: true });
    };
    let mut bar: Option<(String, console::Progress)> = None;
    let snapshot = pull(location, config, &mut |progress| match progress {
        Progress::Asking { address } => console::log(format_args!("asking {address}")),
        Progress::Downloading { file, received, size } => {
            if bar.as_ref().is_none_or(|(name, _)| name != file) {
                console::log(format_args!("downloading {file}, {size} bytes"));
                bar = Some((file.to_owned(), console::Progress::new("pull", size as usize)));
            }
            if let Some((_, bar)) = &mut bar {
                bar.set(received as usize, String::new);
            }
        }
        Progress::Verified { file } => {
            if let Some((_, bar)) = &bar {
                bar.finish();
            }
            console::log(format_args!("verified {file}"));
        }
        _ => {}
    })?;
    Ok(snapshot)
}

/// Where the embedded sample is unpacked.
pub fn sample_folder() -> PathBuf {
    environment::cache_folder().join("sample")
}
