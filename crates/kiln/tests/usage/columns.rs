use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::{RUN, fail, succeed, text};

/// A model without its run, so that no recipe names the columns.
fn model_alone() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("it is writable");
    for entry in fs::read_dir(RUN.join("model")).expect("a folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), model.join(entry.file_name())).expect("it is writable");
    }
    (folder, model)
}

/// Before, the first column was the text: the label itself, or a row's number.
#[test]
fn the_text_is_the_column_of_that_name() {
    let (folder, model) = model_alone();
    let path = |name: &str| folder.path().join(name);
    let rows = [("很好", "positive"), ("太差了", "negative"), ("房间很干净", "positive"), ("隔音不好", "negative")];
    let written = |name: &str, header: &str, line: fn(usize, &str, &str) -> String| {
        let lines: Vec<String> = rows.iter().enumerate().map(|(at, (text, label))| line(at, text, label)).collect();
        fs::write(path(name), format!("{header}{}\n", lines.join("\n"))).expect("a small file");
    };
    written("plain.tsv", "", |_, text, label| format!("{text}\t{label}"));
    written("swapped.csv", "label,text\n", |_, text, label| format!("{label},{text}"));
    written("numbered.tsv", "id\tsentence\tlabel\n", |at, text, label| format!("{at}\t{text}\t{label}"));
    let loss = |arguments: &[&str]| -> Value {
        let arguments = [&["eval", "--model", text(&model), "--json"], arguments].concat();
        let report: Value = serde_json::from_str(&succeed(&arguments)).expect("JSON");
        report["splits"]["test"]["loss"].clone()
    };
    let expected = loss(&["--data", text(&path("plain.tsv"))]);
    assert_eq!(loss(&["--data", text(&path("swapped.csv")), "--header"]), expected);
    assert_eq!(loss(&["--data", text(&path("numbered.tsv")), "--header", "--label", "label"]), expected);
    let predicted = succeed(&["predict", "--model", text(&model), "--file", text(&path("numbered.tsv")), "--header"]);
    assert!(predicted.starts_with("{\"text\":\"很好\"") && predicted.lines().count() == 4, "{predicted}");

    written("labels.csv", "label,words\n", |_, text, label| format!("{label},{text}"));
    let (code, message) = fail(&["eval", "--model", text(&model), "--data", text(&path("labels.csv")), "--header"]);
    assert!(code == 2 && message.contains("column 0 is the label; expected --text-column"), "{message}");
    written("one.csv", "text\n", |_, text, _| text.to_owned());
    let (code, message) = fail(&["predict", "--model", text(&model), "--file", text(&path("one.csv"))]);
    assert!(code == 1 && message.contains("found `text`, which are column names"), "{message}");
}
