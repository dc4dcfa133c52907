//! `kiln pull`: a source to a folder.

use serde_json::json;

use crate::checkpoint::fetch;
use crate::cli::PullArgs;
use crate::console;
use crate::environment::pull_config;

pub fn run(arguments: &PullArgs, json: bool) -> anyhow::Result<()> {
    let snapshot = fetch(&arguments.source, &pull_config(&arguments.hub))?;
    if json {
        return console::json(&json!({
            "source": arguments.source.to_string(),
            "folder": snapshot.folder,
            "revision": snapshot.revision,
            "verified": snapshot.verified,
        }));
    }
    if !snapshot.verified {
        console::log("no hub declared hashes of these files, so they were taken as they are");
    }
    console::result(snapshot.folder.display());
    Ok(())
}
