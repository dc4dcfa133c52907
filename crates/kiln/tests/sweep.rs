//! `kiln sweep`, uninterrupted and interrupted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    /// A small recipe with a frozen encoder, which trains fast.
    fn new(sweep: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let reviews = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/train.tsv");
        let reviews = fs::read_to_string(reviews).expect("the sample's data");
        let rows: Vec<&str> = reviews.lines().skip(1).collect();
        for (name, rows) in [("train.tsv", &rows[..120]), ("dev.tsv", &rows[120..160])] {
            fs::write(folder.path().join(name), rows.join("\n")).expect("a small file");
        }
        let recipe = format!(
            "task = \"sequence-classification\"\n[model]\nsource = \"sample\"\nencoder = \"frozen\"\npooling = \"mean\"\n\
             [data]\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\n\
             [train]\nepochs = 4\nbatch_size = 8\nmax_length = 24\n[sweep]\n{sweep}\n"
        );
        fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kiln(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(arguments).env("KILN_CACHE", self.path("cache")).current_dir(self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.kiln(arguments).output().expect("the binary runs")
    }

    /// The stderr of a command that must succeed.
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {log}");
        log
    }

    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let output = self.run(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }

    /// Every model of a sweep, its table and its page, by name, and `sweep.json` without times.
    fn contents(&self, folder: &str) -> (BTreeMap<PathBuf, Vec<u8>>, Value) {
        let root = self.path(folder);
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("it is a folder") {
                let path = entry.expect("it is listed").path();
                let of_model = path.parent().is_some_and(|parent| parent.ends_with("model"));
                let is_table =
                    path.parent() == Some(&root) && path.file_name().is_some_and(|name| name != "sweep.json");
                if path.is_dir() {
                    folders.push(path);
                } else if of_model || is_table {
                    let name = path.strip_prefix(&root).expect("it is below").to_owned();
                    files.insert(name, fs::read(&path).expect("it is readable"));
                }
            }
        }
        let mut json = self.json(folder);
        for key in ["seconds", "path"] {
            json.as_object_mut().expect("an object").remove(key);
        }
        (files, json)
    }

    fn json(&self, folder: &str) -> Value {
        let json = fs::read(self.path(folder).join("sweep.json")).expect("it was written");
        serde_json::from_slice(&json).expect("JSON")
    }
}

const HALVED: &str = "\"train.learning_rate\" = [1e-5, 1e-3, 1e-2, 5e-2]\nseeds = [1, 2]\nhalving = 2";

#[test]
fn a_sweep_ranks_its_candidates_and_trains_the_better_half_on() {
    let place = Workplace::new(HALVED);
    let log = place.succeed(&["sweep", "--recipe", "recipe.toml", "--out", "out"]);
    // The encoder ran once for each split, in the first of 4 · 2 + 2 · 2 + 2 · 2 trainings.
    assert_eq!((log.matches("computed in").count(), log.matches("from the cache").count()), (2, 30), "{log}");
    let json = place.json("out");
    let candidates = json["candidates"].as_array().expect("a list");
    let epochs: Vec<u64> = candidates.iter().filter_map(|candidate| candidate["epochs"].as_u64()).collect();
    assert_eq!(epochs, [4, 4, 1, 1], "two are left to the end");
    for candidate in candidates {
        let runs = candidate["runs"].as_array().expect("a list");
        let scores: Vec<f64> = runs.iter().map(|run| run["score"].as_f64().expect("a number")).collect();
        let mean = candidate["score"].as_f64().expect("a number");
        assert!(scores.len() == 2 && (mean - scores.iter().sum::<f64>() / 2.0).abs() < 1e-12, "{candidate}");
        for run in runs {
            let report = place.path("out").join(run["path"].as_str().expect("a path")).join("report.json");
            let report: Value = serde_json::from_slice(&fs::read(report).expect("a report")).expect("JSON");
            assert_eq!(report["splits"]["validation"]["accuracy"], run["score"]);
        }
    }
    let table = fs::read_to_string(place.path("out/sweep.tsv")).expect("it was written");
    assert!(table.starts_with("rank\tsettings\tepochs\t") && table.lines().count() == 5, "{table}");
    assert!(fs::read_to_string(place.path("out/sweep.html")).expect("it was written").contains("train.learning_rate"));

    // Other commands ignore the `[sweep]` table.
    place.succeed(&["train", "--recipe", "recipe.toml", "--out", "run"]);
    // Complete trainings are not repeated.
    place.refused(&["sweep", "--recipe", "recipe.toml", "--out", "out"], &["out holds a sweep already", "--resume"]);
    let before = place.contents("out");
    let log = place.succeed(&["sweep", "--recipe", "recipe.toml", "--out", "out", "--resume"]);
    assert!(!log.contains("epoch 1/") && place.contents("out") == before, "{log}");
    let other = ["sweep", "--recipe", "recipe.toml", "--out", "out", "--resume", "--set", "train.batch_size=4"];
    place.refused(&other, &["other settings"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_ends_with_the_same_bytes() {
    let place = Workplace::new(HALVED);
    let arguments = ["sweep", "--recipe", "recipe.toml", "--set", "model.encoder=full", "--out"];
    place.succeed(&[&arguments[..], &["whole"]].concat());
    let cut = [&arguments[..], &["cut"]].concat();
    let mut child = place.kiln(&cut).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("it is piped")));
    // The interruption comes in the second rung, after the first of two epochs.
    lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("epoch 1/2")).expect("the second rung begins");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("there is kill");
    assert!(interrupt.success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("--resume --out cut")), "{rest:?}");
    assert!(!place.path("cut/sweep.tsv").exists());
    place.succeed(&[&cut[..], &["--resume"]].concat());
    let ((files, json), (expected, expected_json)) = (place.contents("cut"), place.contents("whole"));
    assert_eq!(json, expected_json);
    assert!(files.len() > 40 && files.keys().eq(expected.keys()), "{:?}", files.keys());
    for (name, bytes) in &files {
        assert!(*bytes == expected[name], "{} differs", name.display());
    }
}

#[test]
fn each_fold_is_validated_on_once_and_features_are_computed_once() {
    let place = Workplace::new("\"train.learning_rate\" = [1e-3, 1e-2]\nfolds = 3");
    let log = place.succeed(&["sweep", "--recipe", "recipe.toml", "--out", "out"]);
    assert_eq!((log.matches("computed in").count(), log.matches("from the cache").count()), (1, 5), "{log}");
    let json = place.json("out");
    for candidate in json["candidates"].as_array().expect("a list") {
        let runs = candidate["runs"].as_array().expect("a list");
        assert_eq!(runs.iter().filter_map(|run| run["fold"].as_u64()).collect::<Vec<_>>(), [1, 2, 3]);
        let examples = |run: &Value| {
            let report = place.path("out").join(run["path"].as_str().expect("a path")).join("report.json");
            let report: Value = serde_json::from_slice(&fs::read(report).expect("a report")).expect("JSON");
            report["splits"]["validation"]["examples"].as_u64().expect("a number")
        };
        assert_eq!(runs.iter().map(examples).collect::<Vec<_>>(), [40, 40, 40]);
    }
}

/// Without `data.tag_scheme`, each run infers it, and with it the metric.
#[test]
fn a_sweep_over_plain_tags_ranks_by_accuracy() {
    let place = Workplace::new("");
    let lines = ["房间\tNOUN", "很\tADV", "好\tADJ"].join("\n");
    for (name, texts) in [("tags.conll", 8), ("dev.conll", 2)] {
        fs::write(place.path(name), format!("{lines}\n\n").repeat(texts)).expect("a small file");
    }
    let recipe = "task = \"token-classification\"\n[model]\nsource = \"sample\"\nencoder = \"frozen\"\n[data]\n\
                  train = \"tags.conll\"\nvalidation = \"dev.conll\"\n[train]\nepochs = 2\nbatch_size = 4\n\
                  [sweep]\n\"train.learning_rate\" = [1e-9, 5e-2]\n";
    fs::write(place.path("recipe.toml"), recipe).expect("a small file");
    place.succeed(&["sweep", "--recipe", "recipe.toml", "--out", "out"]);
    let json = place.json("out");
    assert_eq!(json["metric"], "accuracy");
    let candidates = json["candidates"].as_array().expect("a list");
    assert!(candidates.iter().all(|candidate| candidate["score"].is_number()), "{json}");
}

#[test]
fn what_cannot_be_swept_over_is_refused_before_anything_is_trained() {
    for (sweep, words) in [
        ("\"train.learning_rat\" = [1e-3]", ["train.learning_rat", "did you mean `learning_rate`?"]),
        ("\"train.epochs\" = [1, 0]", ["sweep: train.epochs = 0", "at least 1"]),
        ("folds = 0", ["recipe.toml", "nothing to sweep over"]),
    ] {
        let place = Workplace::new(sweep);
        place.refused(&["sweep", "--recipe", "recipe.toml", "--out", "out"], &words);
        assert!(!place.path("out").exists(), "{sweep}");
    }
}

#[test]
fn a_candidate_that_diverges_comes_last() {
    let place = Workplace::new("\"train.learning_rate\" = [1e38, 1e-2]\n\"train.max_grad_norm\" = [1e38]");
    place.succeed(&["sweep", "--recipe", "recipe.toml", "--out", "out", "--set", "train.warmup_ratio=0"]);
    let json = place.json("out");
    let scores: Vec<Option<f64>> =
        json["candidates"].as_array().expect("a list").iter().map(|candidate| candidate["score"].as_f64()).collect();
    assert!(scores[0].is_some() && scores[1].is_none(), "{scores:?}");
    place.succeed(&["sweep", "--recipe", "recipe.toml", "--out", "out", "--set", "train.warmup_ratio=0", "--resume"]);
}
