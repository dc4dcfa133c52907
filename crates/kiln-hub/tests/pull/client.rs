use std::fs;
use std::path::Path;
use std::time::Duration;

use kiln_hub::{Error, HubConfig, Location, Patience, PullConfig, Secret, Snapshot, pull};
use kiln_loopback::Hub;

pub const TOKEN: &str = "hf_secret";

/// Both hubs are `hub`, and both caches are `root`. Failures are retried with short pauses, four attempts in total.
pub fn config(hub: &Hub, root: &Path) -> PullConfig {
    let each = HubConfig {
        endpoint: Some(hub.server.address.clone()),
        cache_dir: Some(root.to_owned()),
        token: Some(Secret::from(TOKEN.to_owned())),
    };
    let patience = Patience {
        attempts: 4,
        pause: Duration::from_millis(2),
        longest_pause: Duration::from_secs(2),
        silence: Duration::from_secs(20),
    };
    PullConfig { hugging_face: each.clone(), model_scope: each, patience, ..PullConfig::default() }
}

/// Pulls `source` from `hub` into the cache `root`.
pub fn pull_from(hub: &Hub, source: &str, root: &Path) -> Result<Snapshot, Error> {
    pull_with(&config(hub, root), source)
}

/// The same, but offline.
pub fn pull_offline(hub: &Hub, source: &str, root: &Path) -> Result<Snapshot, Error> {
    pull_with(&PullConfig { offline: true, ..config(hub, root) }, source)
}

pub fn pull_with(config: &PullConfig, source: &str) -> Result<Snapshot, Error> {
    let location: Location = source.parse().expect("a location");
    pull(&location, config, &mut |_| ())
}

/// An error with its causes, as shown to users and in logs.
pub fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

/// All files below a folder, as relative paths, sorted.
pub fn tree(folder: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let relative = path.strip_prefix(folder).expect("below the folder");
                paths.push(relative.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    paths.sort();
    paths
}
