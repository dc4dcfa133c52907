//! `kiln pull`: downloads a checkpoint or a file of a data set.

use std::path::Path;

use kiln::environment::pull_config;
use kiln::fetch::{fetch, fetch_file};
use kiln_hub::Source;
use serde_json::json;

use crate::cli::{PullArgs, PullSource};
use crate::console;
use crate::observer::Console;

pub fn run(arguments: &PullArgs, json: bool) -> anyhow::Result<()> {
    let mut console = Console::default();
    let config = pull_config(&arguments.hub.options(), &[]);
    match &arguments.source {
        PullSource::Checkpoint(source) => {
            let snapshot = fetch(source, &config, &mut console)?;
            let pinned = snapshot.pinned.map_or_else(|| source.clone(), Source::from);
            let pulled = Pulled { source, pinned, place: ("folder", &snapshot.folder), verified: snapshot.verified };
            pulled.print(snapshot.revision.as_deref(), json)
        }
        PullSource::File(file) => {
            let pulled = fetch_file(file, &config, &mut console)?;
            let place = ("file", pulled.path.as_path());
            Pulled { source: file, pinned: pulled.pinned, place, verified: pulled.verified }
                .print(pulled.revision.as_deref(), json)
        }
    }
}

/// The requested source, and its files.
struct Pulled<'a, S, P> {
    source: &'a S,
    pinned: P,
    /// The kind of its path (folder or file), and the path.
    place: (&'a str, &'a Path),
    verified: bool,
}

impl<S: ToString, P: ToString> Pulled<'_, S, P> {
    fn print(&self, revision: Option<&str>, json: bool) -> anyhow::Result<()> {
        let (kind, path) = self.place;
        if json {
            return console::json(&json!({
                "source": self.source.to_string(),
                "pinned": self.pinned.to_string(),
                kind: path,
                "revision": revision,
                "verified": self.verified,
            }));
        }
        if !self.verified {
            console::log("no hub declared hashes for these files, so they were not verified");
        }
        Ok(console::result(path.display())?)
    }
}
