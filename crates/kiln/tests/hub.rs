//! The binary with a hub: data sets and mirrors.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kiln_loopback::{COMMIT, Hub, Pace};

/// `kiln` without the environment of the user who runs the tests, with `hub` as its only hub and its caches in `cache`.
fn kiln(hub: &Hub, cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.env_clear().env("HOME", cache).env("KILN_CACHE", cache.join("kiln")).env("HF_HUB_CACHE", cache.join("hf"));
    command.env("HF_ENDPOINT", &hub.server.address).env("MODELSCOPE_ENDPOINT", &hub.server.address);
    command.env("MODELSCOPE_CACHE", cache.join("modelscope")).stdin(Stdio::null());
    command
}

fn succeed(command: &mut Command) -> String {
    let output: Output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

/// A hub with files of the sample.
fn hub_of<const COUNT: usize>(folder: &str, files: [&str; COUNT]) -> Hub {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files").join(folder);
    let read = |name: &str| (name.to_owned(), std::fs::read(folder.join(name)).expect("the sample"));
    Hub::with(files.map(read).into())
}

/// The sample's data, as a data set.
fn data_set() -> Hub {
    hub_of("", ["train.tsv", "validation.tsv", "test.tsv"])
}

#[test]
fn a_data_sets_file_is_pulled_and_its_path_printed() {
    let (hub, cache) = (data_set(), tempfile::tempdir().expect("a folder"));
    for source in ["hf-dataset:owner/name/test.tsv", "modelscope-dataset:owner/name@master/test.tsv"] {
        let path = succeed(kiln(&hub, cache.path()).args(["pull", source]));
        assert!(std::fs::read(path.trim()).expect("a file") == hub.file("test.tsv"), "{path}");
        hub.requests();
        assert_eq!(succeed(kiln(&hub, cache.path()).args(["pull", source, "--offline"])), path);
        assert!(hub.requests().concat().is_empty());
    }
    let json = succeed(kiln(&hub, cache.path()).args(["pull", "hf-dataset:owner/name/test.tsv", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("one object");
    assert_eq!(json["pinned"], format!("hf-dataset:owner/name@{COMMIT}/test.tsv"));
    assert_eq!(json["verified"], true);
}

#[test]
fn a_run_has_its_data_sets_at_their_commits() {
    let (hub, cache) = (data_set(), tempfile::tempdir().expect("a folder"));
    let (recipe, run) = (cache.path().join("recipe.toml"), cache.path().join("run"));
    let text = r#"
task = "sequence-classification"
[model]
source = "sample"
encoder = "frozen"
[data]
train = "hf-dataset:owner/name/train.tsv"
validation = "modelscope-dataset:owner/name/validation.tsv"
text = "text"
label = "label"
[train]
epochs = 1
max_length = 16
[hub]
fallback = ["hf", "modelscope"]
"#;
    std::fs::write(&recipe, text).expect("a small file");
    let train = |recipe: &Path, run: &Path| {
        let mut command = kiln(&hub, cache.path());
        command.args(["train", "--recipe"]).arg(recipe).arg("--out").arg(run);
        command
    };
    succeed(&mut train(&recipe, &run));
    let written = std::fs::read_to_string(run.join("run.toml")).expect("the run's recipe");
    for line in [
        format!("train = \"hf-dataset:owner/name@{COMMIT}/train.tsv\""),
        format!("validation = \"modelscope-dataset:owner/name@{COMMIT}/validation.tsv\""),
    ] {
        assert!(written.lines().any(|written| written == line), "`{line}` in\n{written}");
    }
    // `run.toml` is a recipe, and needs no network.
    hub.requests();
    succeed(train(&run.join("run.toml"), &cache.path().join("again")).arg("--offline"));
    assert!(hub.requests().concat().is_empty());
}

#[test]
fn a_model_is_asked_by_its_source() {
    let hub = hub_of("model", ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"]);
    let cache = tempfile::tempdir().expect("a folder");
    let ask = |model: &[&str]| {
        succeed(kiln(&hub, cache.path()).args(["fill-mask", "--text", "今天[MASK]气很好", "--json"]).args(model))
    };
    let embedded = ask(&[]);
    assert!(embedded.contains("masks"), "{embedded}");
    assert_eq!(ask(&["--model", "hf:owner/name"]), embedded);
    hub.requests();
    assert_eq!(ask(&["--model", "hf:owner/name", "--offline"]), embedded);
    assert!(hub.requests().concat().is_empty());
    let neither = kiln(&hub, cache.path()).args(["predict", "--model", "nowhere"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&neither.stderr);
    assert!(
        neither.status.code() == Some(2) && said.contains("no such folder") && said.contains("hf:owner/name"),
        "{said}"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_what_the_next_pull_goes_on_with() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    // At this pace, the download would take ten seconds.
    hub.change(|state| state.pace = Some(Pace { bytes: 1000, pause: Duration::from_millis(100) }));
    let mut pull = kiln(&hub, cache.path());
    let process = pull.args(["pull", "hf:owner/name"]).stderr(Stdio::piped()).spawn().expect("the binary runs");
    while hub.content.bytes_sent() < 10_000 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("the system's `kill`").success());
    let output = process.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains(&format!("asking {}", hub.server.address)) && said.contains("is kept"), "{said}");

    hub.change(|state| state.pace = None);
    hub.content.requests();
    succeed(kiln(&hub, cache.path()).args(["pull", "hf:owner/name"]));
    let requests = hub.content.requests();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].headers["range"].starts_with("bytes=0-"), "{requests:?}");
}
