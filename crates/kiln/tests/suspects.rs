//! `kiln data suspects`: finds labels that were flipped on purpose, and writes a table that can be trained on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const SUBJECTS: [&str; 12] =
    ["房间", "酒店", "早餐", "服务", "前台", "电脑", "屏幕", "键盘", "这本书", "纸张", "快递", "浴室"];
const GOOD: [&str; 10] =
    ["很干净", "很安静", "很舒服", "很周到", "非常满意", "又快又好", "值得推荐", "很漂亮", "很新鲜", "很热情"];
const BAD: [&str; 10] =
    ["很脏", "很吵", "很难受", "很冷淡", "非常失望", "又慢又差", "不值得来", "很破旧", "有股臭味", "很粗鲁"];

/// The number of rows, and of rows with a flipped label. Each subject has other flipped rows.
const ROWS: usize = 240;
const FLIPPED: usize = 24;

fn is_flipped(row: usize) -> bool {
    (row / 20 + row).is_multiple_of(10)
}

/// Sentences and their labels.
fn sentences(between: &str) -> Vec<(String, &'static str)> {
    let of = |subject: &str, end: &str, label| (format!("{subject}{between}{end}"), label);
    let pairs = SUBJECTS.iter().flat_map(|subject| GOOD.iter().zip(BAD).map(move |pair| (subject, pair)));
    pairs.flat_map(|(subject, (good, bad))| [of(subject, good, "positive"), of(subject, bad, "negative")]).collect()
}

struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let line = |(row, (text, label)): (usize, (String, &str))| {
            let other = if label == "positive" { "negative" } else { "positive" };
            format!("{text}\t{}\n", if is_flipped(row) { other } else { label })
        };
        let train: String = sentences("").into_iter().enumerate().map(line).collect();
        fs::write(folder.path().join("train.tsv"), train).expect("a small file");
        let validation = sentences("真的").into_iter().take(60).map(|(text, label)| format!("{text}\t{label}\n"));
        fs::write(folder.path().join("dev.tsv"), validation.collect::<String>()).expect("a small file");
        let recipe = "task = \"sequence-classification\"\n[model]\nsource = \"sample\"\nencoder = \"frozen\"\npooling = \"mean\"\n\
                      [data]\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\n\
                      [train]\nepochs = 10\nlearning_rate = 5e-3\nmax_length = 48\n";
        fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kiln(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("suspects-cache");
        command.args(arguments).env("KILN_CACHE", cache).current_dir(self.folder.path());
        command.output().expect("the binary runs")
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.kiln(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("results are UTF-8")
    }
}

fn line(suspect: &Value) -> usize {
    suspect["line"].as_u64().expect("a line") as usize
}

const SUSPECTS: [&str; 6] = ["data", "suspects", "--recipe", "recipe.toml", "--out", "suspects.tsv"];

#[test]
fn flipped_labels_come_first_and_the_table_is_trained_on_again() {
    let place = Workplace::new();
    let found = place.succeed(&[&SUSPECTS[..], &["--folds", "4", "--json"]].concat());
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let suspects = found["suspects"].as_array().expect("a list");
    assert_eq!((found["examples"].as_u64(), found["folds"].as_u64()), (Some(ROWS as u64), Some(4)));
    let hits = suspects.iter().take(FLIPPED).filter(|suspect| is_flipped(line(suspect) - 1)).count();
    assert!(hits >= 16, "{hits} of the first {FLIPPED}, where chance has one in ten");
    for suspect in suspects {
        assert_ne!(suspect["label"], suspect["suggested"]);
        let sum: f64 = suspect["scores"].as_object().expect("scores").values().filter_map(Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-9 && suspect["nearest"].as_array().is_some_and(|rows| rows.len() == 3));
    }

    // The table has all rows, the suspect ones first. After correction, a recipe trains on it.
    let table = fs::read_to_string(place.path("suspects.tsv")).expect("it was written");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), ROWS);
    let numbers = rows.iter().map(|row| row[2]).take_while(|number| !number.is_empty()).count();
    assert_eq!(numbers, suspects.len());
    let corrected = rows.iter().map(|row| {
        let label = if row[2].is_empty() { row[1] } else { row[3] };
        [&[row[0], label], &row[2..]].concat().join("\t") + "\n"
    });
    fs::write(place.path("corrected.tsv"), corrected.collect::<String>()).expect("it is writable");
    place.succeed(&["train", "--recipe", "recipe.toml", "--out", "run", "--set", "data.train=corrected.tsv"]);

    // The same seed finds the same rows.
    let again = place.succeed(&[&SUSPECTS[..], &["--folds", "4", "--json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&again).expect("JSON"), found);
}

/// The recipe's own files are in another format and encoding than the table.
#[test]
fn the_table_is_trained_on_after_the_keys_that_are_named_are_removed() {
    let place = Workplace::new();
    for name in ["train", "dev"] {
        let rows = fs::read_to_string(place.path(&format!("{name}.tsv"))).expect("it was written").replace('\t', ",");
        let units = "\u{feff}".encode_utf16().chain(rows.encode_utf16());
        fs::write(place.path(&format!("{name}.csv")), units.flat_map(u16::to_le_bytes).collect::<Vec<_>>())
            .expect("small");
    }
    let without = fs::read_to_string(place.path("recipe.toml")).expect("it was written").replace(".tsv", ".csv");
    let with = without.replace("[data]\n", "[data]\nformat = \"csv\"\nencoding = \"utf-16le\"\n");
    fs::write(place.path("recipe.toml"), with).expect("it is writable");
    let output = place.kiln(&[&SUSPECTS[..], &["--folds", "2"]].concat());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let note = "before you train on suspects.tsv, remove data.format and data.encoding from the recipe";
    assert!(output.status.success() && message.contains(note), "{message}");
    fs::write(place.path("recipe.toml"), without).expect("it is writable");
    let set = ["--set", "data.train=suspects.tsv", "--set", "train.epochs=1"];
    let report = place.succeed(&[&["train", "--recipe", "recipe.toml", "--out", "run", "--json"], &set[..]].concat());
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["splits"]["validation"]["examples"], 60);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let place = Workplace::new();
    let refused = |more: &[&str], words: &[&str]| {
        let output = place.kiln(&[&SUSPECTS[..], more].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(!place.path("suspects.tsv").exists());
    };
    refused(&["--folds", "1"], &["--folds", "at least 2"]);
    refused(&["--set", "task=token-classification", "--set", "model.pooling=cls"], &["token-classification"]);
    for (problem_type, message) in [
        ("regression", "sequence-classification with `model.problem_type = \"regression\"`"),
        ("multi_label_classification", "with `model.problem_type = \"multi_label_classification\"`"),
    ] {
        let set = format!("model.problem_type={problem_type}");
        refused(&["--set", &set], &["one label per text", message]);
        let output = place.kiln(&["data", "split", "--recipe", "recipe.toml", "--out", "splits", "--set", &set]);
        let split = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && split.contains(message), "{split}");
    }
    for (name, format) in [("out.csv", "csv"), ("out.PARQUET", "parquet"), ("out.json", "jsonl")] {
        let output = place.kiln(&["data", "suspects", "--recipe", "recipe.toml", "--out", name]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected =
            format!("error: --out {name}: found a name for the format {format}, expected a name that ends in `.tsv`");
        assert!(output.status.code() == Some(2) && message.starts_with(&expected), "{message}");
        assert!(!place.path(name).exists());
    }
    let output = place.kiln(&["data", "suspects", "--recipe", "recipe.toml", "--out", "train.tsv"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && message.contains("train.tsv is an input"), "{message}");
}
