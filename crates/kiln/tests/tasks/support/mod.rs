//! Helpers for tests of the binary: running it, synthetic data, and the proof that a task works from files to predictions.

mod data;
mod proof;

pub use data::{Corpus, Random, vocabulary, write_lines};
pub use proof::{Case, Proved, close};

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// The cache of all tests, so that none touches the user's. It is emptied at the start, because some tests check whether a
/// result was computed or cached.
static CACHE: LazyLock<PathBuf> = LazyLock::new(|| {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tasks-cache");
    let _ = std::fs::remove_dir_all(&cache);
    cache
});

pub fn kiln(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    // One thread each, because the models are small and tests run in parallel.
    command.args(arguments).env("KILN_CACHE", &*CACHE).env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Output {
    kiln(arguments).output().expect("the binary runs")
}

/// The stdout of a command that must succeed.
pub fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

/// The same for a command with `--json`, parsed.
pub fn succeed_json(arguments: &[&str]) -> Value {
    let output = succeed(&[arguments, &["--json"]].concat());
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

pub fn json_file(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a file, each one JSON object.
pub fn json_lines(path: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    lines.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
}

/// Runs a training until its first epoch has ended, presses Ctrl-C, and resumes it.
#[cfg(unix)]
pub fn interrupt_and_resume(arguments: &[&str]) {
    let mut child = kiln(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
    // The first epoch's line is printed when the training has made progress.
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("epoch")).expect("an epoch ends");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("there is kill");
    assert!(interrupt.success());
    let remaining: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{remaining:?}");
    assert!(remaining.iter().any(|line| line.contains("--resume")), "{remaining:?}");
    succeed(&[arguments, &["--resume"]].concat());
}
