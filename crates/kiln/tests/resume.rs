//! Interrupted, killed and finished runs, through the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A small recipe and its data in a temporary folder.
struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let reviews = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/train.tsv");
        let reviews = fs::read_to_string(reviews).expect("the sample's data");
        let rows: Vec<&str> = reviews.lines().skip(1).collect();
        for (name, rows) in [("train.tsv", &rows[..96]), ("dev.tsv", &rows[96..128])] {
            fs::write(folder.path().join(name), rows.join("\n")).expect("a small file");
        }
        let recipe = "task = \"sequence-classification\"\nmodel.source = \"sample\"\n\
                      [data]\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\n\
                      [train]\nepochs = 2\nbatch_size = 8\nmax_length = 24\n";
        fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kiln(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resume-cache");
        command.args(arguments).env("KILN_CACHE", cache).stdin(Stdio::null()).current_dir(self.folder.path());
        command
    }

    fn train(&self, out: &str, more: &[&str]) -> Command {
        self.kiln(&[&["train", "--recipe", "recipe.toml", "--out", out], more].concat())
    }

    /// The exit code and stderr of a training.
    fn trained(&self, out: &str, more: &[&str]) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = self.train(out, more).output().expect("the binary runs");
        let message = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!message.contains("panicked"), "{message}");
        (status.code(), message)
    }

    fn succeed(&self, out: &str, more: &[&str]) -> String {
        let (code, message) = self.trained(out, more);
        assert_eq!(code, Some(0), "{message}");
        message
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Every file in a folder and its subfolders, with its contents.
    fn contents(&self, folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut folders = vec![self.path(folder)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("it is a folder") {
                let path = entry.expect("it is listed").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), fs::read(path).expect("it is readable")));
                }
            }
        }
        files.sort();
        files
    }
}

/// The lines of `metrics.jsonl` without times.
fn epochs(metrics: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(metrics).expect("UTF-8").lines();
    lines
        .map(|line| {
            let mut report: Value = serde_json::from_str(line).expect("a line is JSON");
            for key in ["seconds", "train_seconds"] {
                report.as_object_mut().expect("a report").remove(key).expect("a time");
            }
            report
        })
        .collect()
}

#[test]
fn another_run_is_not_resumed_and_each_difference_is_named() {
    let place = Workplace::new();
    place.succeed("run", &[]);
    let before = place.contents("run");
    let refused = |more: &[&str], lines: &[&str]| {
        let (code, message) = place.trained("run", &[&["--resume"], more].concat());
        assert_eq!(code, Some(2), "{message}");
        for line in lines {
            assert!(message.lines().any(|found| found.trim() == *line), "`{line}` in {message}");
        }
        assert!(!message.contains("TrainConfig"), "{message}");
        assert!(place.contents("run") == before, "nothing is written");
    };
    refused(
        &["--set", "train.max_length=16", "--set", "train.precision=bf16"],
        &["train.max_length: 24 before, 16 now", "train.precision: f32 before, bf16 now"],
    );
    refused(&["--set", "train.epochs=3"], &["train.epochs: 2 before, 3 now"]);
    let train = place.read("train.tsv");
    fs::write(place.path("train.tsv"), [&train[..], "\n多加的一行\tpositive".as_bytes()].concat()).expect("writable");
    refused(&[], &["data.train: the file's contents have changed"]);

    // A resumed run may have its data in another place and save checkpoints at other times. This run is already complete.
    fs::write(place.path("moved.tsv"), train).expect("writable");
    let weights = place.read("run/model/model.safetensors");
    let moved = format!("data.train={}", place.path("moved.tsv").display());
    let message = place.succeed("run", &["--resume", "--set", &moved, "--set", "train.save_steps=3"]);
    assert!(message.contains("24 of 24 updates and 2 epochs are done"), "{message}");
    assert!(message.contains("this run was complete"), "{message}");
    assert!(place.read("run/model/model.safetensors") == weights);
}

#[test]
fn what_is_wrong_with_the_recipe_or_its_labels_leaves_no_folder() {
    let place = Workplace::new();
    let refused = |set: &str, words: &[&str]| {
        let (code, message) = place.trained("run", &["--set", set]);
        assert_eq!(code, Some(2), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(!place.path("run").exists(), "{set} leaves no folder");
    };
    refused("train.metric=f1", &["train.metric", "`f1`", "`accuracy`, `macro_f1`, `loss`"]);
    refused("train.class_weights=[1.0, -1.0]", &["train.class_weights", "-1.0"]);
    refused("train.label_smoothing=1.5", &["train.label_smoothing", "1.5"]);
    fs::write(place.path("same.tsv"), "好\tyes\n很好\tyes\n").expect("a small file");
    fs::copy(place.path("same.tsv"), place.path("dev.tsv")).expect("it is writable");
    let same = format!("data.train={}", place.path("same.tsv").display());
    refused(&same, &["`data.label`: found the single label `yes`", "regression"]);
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_from_the_beginning() {
    let place = Workplace::new();
    place.succeed("run", &[]);
    let (weights, metrics) = (place.read("run/model/model.safetensors"), place.read("run/metrics.jsonl"));
    // A run killed before its first checkpoint leaves only its recipe.
    fs::remove_dir_all(place.path("run/checkpoints")).expect("they are there");
    let (code, message) = place.trained("run", &[]);
    assert!(code == Some(2) && message.contains("--resume"), "{message}");
    let message = place.succeed("run", &["--resume"]);
    assert!(message.contains("training starts from the beginning"), "{message}");
    assert!(place.read("run/model/model.safetensors") == weights);
    assert_eq!(epochs(&place.read("run/metrics.jsonl")), epochs(&metrics));

    let (code, message) = place.trained("nowhere", &["--resume"]);
    assert!(code == Some(2) && message.contains("no run to resume"), "{message}");
    assert!(!place.path("nowhere").exists());
}

#[test]
fn a_killed_run_ends_with_the_same_bytes_and_all_epochs() {
    ends_with_the_same_bytes(&[]);
}

#[test]
fn a_killed_run_with_every_option_ends_with_the_same_bytes() {
    let place = ends_with_the_same_bytes(&[
        "train.eval_steps=5",
        "train.fgm=0.5",
        "train.ema=0.9",
        "train.focal_gamma=1.5",
        "train.tensorboard=true",
    ]);
    // There are 36 updates, and each start of the killed run has its own file.
    assert_eq!(epochs(&place.read("whole/metrics.jsonl")).len(), 8);
    for (run, files) in [("whole", 1), ("run", 3)] {
        let events = place.contents(&format!("{run}/tensorboard"));
        assert_eq!(events.len(), files, "{run}");
        assert!(events.iter().all(|(path, _)| path.to_string_lossy().contains("tfevents")), "{run}");
    }
}

fn ends_with_the_same_bytes(options: &[&str]) -> Workplace {
    let place = Workplace::new();
    let options = ["train.epochs=3", "train.save_steps=1"].iter().chain(options);
    let settings: Vec<&str> = options.flat_map(|option| ["--set", option]).collect();
    place.succeed("whole", &settings);
    let mut child = place.train("run", &settings).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it runs");
    while !place.path("run/checkpoints/last.safetensors").exists() {
        assert_eq!(child.try_wait().expect("it is a child"), None, "it is still training");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().expect("it is running");
    assert!(!child.wait().expect("it was started").success(), "it was killed");
    let message = place.succeed("run", &[&["--resume"], &settings[..]].concat());
    assert!(message.contains("of 36 updates"), "{message}");
    assert!(place.read("run/model/model.safetensors") == place.read("whole/model/model.safetensors"));
    assert_eq!(epochs(&place.read("run/metrics.jsonl")), epochs(&place.read("whole/metrics.jsonl")));

    // The state of a run that was killed after the checkpoint of an epoch, but before its line was written.
    let metrics = place.read("run/metrics.jsonl");
    let first = metrics.iter().position(|byte| *byte == b'\n').expect("three lines");
    fs::write(place.path("run/metrics.jsonl"), &metrics[..=first]).expect("it is writable");
    place.succeed("run", &[&["--resume"], &settings[..]].concat());
    assert!(place.read("run/metrics.jsonl") == metrics);
    place
}

#[test]
fn the_commands_that_a_training_prints_work_and_its_lines_fit() {
    let place = Workplace::new();
    let output = place.train("my run", &["--set", "train.label_smoothing=0.1"]).output().expect("the binary runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("epoch")).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.chars().count() <= 100), "{lines:?}");
    assert_eq!(stdout.lines().last(), Some("my run"), "the folder comes last");
    let printed = |name: &str| {
        let line =
            stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {stdout}"));
        line.trim().to_owned()
    };
    assert!(place.path(&printed("report")).is_file());
    for (name, words) in [("predict", "positive"), ("evaluate", "accuracy")] {
        let command = printed(name);
        let arguments = command.strip_prefix("kiln ").expect("a command of kiln");
        // The shell splits the command into words.
        let script = format!("\"$KILN\" {arguments}");
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("KILN", env!("CARGO_BIN_EXE_kiln"))
            .current_dir(place.folder.path())
            .output()
            .expect("there is sh");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && answer.contains(words), "{command}: {answer}");
    }
}
