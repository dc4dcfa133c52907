//! Starts a local hub and pulls from it: `cargo run --release -p kiln-hub --example loopback [serve]`
//!
//! With `serve` it prints the hub's address and executes the commands on standard input, which
//! `tests/clients/clients.py` sends.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::path::Path;

use kiln_hub::{DatasetFile, HubConfig, Location, PullConfig, pull, pull_file};
use kiln_loopback::Hub;

fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::start();
    println!("{}", hub.server.address);
    if std::env::args().nth(1).is_some_and(|word| word == "serve") {
        for line in stdin().lock().lines() {
            println!("{}", obey(&hub, &line?).unwrap_or_else(|error| format!("error: {error}")));
        }
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    for source in ["hf:owner/name", "modelscope:owner/name", "hf-dataset:owner/name/data/train 1.tsv"] {
        println!("{source} → {}", fetch(&hub, cache.path(), source, false)?);
    }
    println!("asked of the hub, then of its content host: {:#?}", hub.requests());
    Ok(())
}

/// Executes one line, which begins with the command name. The result is also one line.
fn obey(hub: &Hub, line: &str) -> Result<String, Box<dyn Error>> {
    match line.splitn(3, '\t').collect::<Vec<_>>()[..] {
        ["pull", cache, source] => fetch(hub, cache.as_ref(), source, false),
        ["offline", cache, source] => fetch(hub, cache.as_ref(), source, true),
        // From now on, these files are sent with one wrong bit.
        ["flip", files] => Ok(hub.change(|state| {
            state.flipped = files.split_terminator(',').map(str::to_owned).collect();
            format!("{:?}", state.flipped)
        })),
        ["redirects", word] => Ok(hub.change(|state| {
            state.redirects_small = word == "on";
            word.to_owned()
        })),
        ["requests"] => Ok(format!("{:?}", hub.requests())),
        ["content", file, path] => Ok(std::fs::write(path, hub.file(file)).map(|()| path.to_owned())?),
        _ => Err(format!("no such order: {line}").into()),
    }
}

fn fetch(hub: &Hub, cache: &Path, source: &str, offline: bool) -> Result<String, Box<dyn Error>> {
    let each = HubConfig { endpoint: Some(hub.server.address.clone()), cache_dir: Some(cache.to_owned()), token: None };
    let config = PullConfig { offline, hugging_face: each.clone(), model_scope: each, ..PullConfig::default() };
    if DatasetFile::is_meant(source) {
        let file: DatasetFile = source.parse()?;
        return Ok(pull_file(&file, &config, &mut |_| ())?.path.display().to_string());
    }
    let location: Location = source.parse()?;
    Ok(pull(&location, &config, &mut |_| ())?.folder.display().to_string())
}
