//! The binary as a user runs it: which files it reads, what it writes, how it ends.

mod columns;
mod files;
mod outputs;
mod pairs;
#[cfg(unix)]
mod prompt;
#[cfg(unix)]
mod signals;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use support::small_sample;

/// A cache and a run for all tests; tests that write have their own folders. It is emptied at the start, because statics
/// are never dropped.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("usage");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("it is writable");
    folder
});

static RECIPE: LazyLock<PathBuf> = LazyLock::new(|| small_sample(&FOLDER));

/// A run on the sample, whose recipe has `header = true`.
static RUN: LazyLock<PathBuf> = LazyLock::new(|| {
    let run = FOLDER.join("run");
    succeed(&["train", "--recipe", text(&sample_recipe()), "--out", text(&run), "--set", "train.epochs=1"]);
    run
});

fn sample_recipe() -> PathBuf {
    RECIPE.clone()
}

fn sample_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files").join(name)
}

fn kiln(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(arguments).env("KILN_CACHE", FOLDER.join("cache")).stdin(Stdio::null());
    command
}

fn succeed(arguments: &[&str]) -> String {
    finished(kiln(arguments).output().expect("the binary runs"))
}

/// The stdout of a command that must have succeeded.
fn finished(output: Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

/// The exit code and the error of a command that must fail.
fn fail(arguments: &[&str]) -> (i32, String) {
    failed(kiln(arguments).output().expect("the binary runs"))
}

fn failed(output: Output) -> (i32, String) {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !message.contains("panicked"), "{}: {message}", output.status);
    (output.status.code().expect("it was not killed"), message)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Parses JSON Lines.
fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_is_not_one_of_several() {
    let (recipe, run) = (sample_recipe(), FOLDER.join("several"));
    let mut command = kiln(&["train", "--recipe", text(&recipe), "--out", text(&run)]);
    command.env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "2");
    let (code, message) = failed(command.output().expect("the binary runs"));
    assert!(code == 2 && message.contains("2 processes were started together"), "{message}");
    assert!(!run.exists(), "nothing is written");
}
