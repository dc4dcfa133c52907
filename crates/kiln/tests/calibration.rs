//! The calibration of a trained model, through the binary: a temperature, which changes no label, and thresholds of labels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// A cache and a run for all tests. It is emptied at the start, because statics are never dropped.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("calibration");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("it is writable");
    let reviews = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/train.tsv");
    let reviews = fs::read_to_string(reviews).expect("the sample's data");
    let rows: Vec<&str> = reviews.lines().skip(1).collect();
    for (name, rows) in [("train.tsv", &rows[..240]), ("dev.tsv", &rows[240..300]), ("test.tsv", &rows[300..360])] {
        fs::write(folder.join(name), rows.join("\n")).expect("a small file");
    }
    // At this learning rate, the head becomes overconfident.
    let recipe = "task = \"sequence-classification\"\n[model]\nsource = \"sample\"\nencoder = \"frozen\"\npooling = \"mean\"\n\
                  [data]\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\ntest = \"test.tsv\"\n\
                  [train]\nepochs = 20\nlearning_rate = 5e-2\nmax_length = 48\n";
    fs::write(folder.join("recipe.toml"), recipe).expect("a small file");
    let (recipe, run) = (folder.join("recipe.toml"), folder.join("run"));
    let output = command(&folder, &["train", "--recipe", text(&recipe), "--out", text(&run)]).output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
});

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(arguments).env("KILN_CACHE", folder.join("cache")).stdin(Stdio::null());
    command
}

fn kiln(arguments: &[&str]) -> Output {
    command(&FOLDER, arguments).output().expect("the binary runs")
}

fn succeed(arguments: &[&str]) -> String {
    let output = kiln(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it was written")).expect("JSON")
}

fn answers(model: &Path, more: &[&str]) -> Vec<Value> {
    let test = FOLDER.join("test.tsv");
    let lines = succeed(&[&["predict", "--model", text(model), "--file", text(&test)], more].concat());
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number: {value}"))
}

#[test]
fn the_report_s_temperature_is_the_model_s_and_fits_better_than_none() {
    let run = FOLDER.join("run");
    let (report, file) = (json(&run.join("report.json")), json(&run.join("model/calibration.json")));
    let splits = &report["splits"];
    for split in ["validation", "test"] {
        assert_eq!(splits[split]["calibration"]["temperature"], file["temperature"]);
    }
    let of_validation = &splits["validation"]["calibration"];
    let loss = |when: &str| number(&of_validation[when]["negative_log_likelihood"]);
    assert!(loss("after") < loss("before"), "{of_validation}");
    assert_eq!(loss("before"), number(&splits["validation"]["loss"]), "the loss is that before calibration");
    let page = fs::read_to_string(run.join("report.html")).expect("it was written");
    assert_eq!(page.matches("Reliability after calibration</h3>").count(), 2);

    // An evaluation gives the same numbers, before and after calibration.
    let test = FOLDER.join("test.tsv");
    let evaluated = succeed(&["eval", "--model", text(&run), "--data", text(&test), "--json"]);
    let evaluated: Value = serde_json::from_str(&evaluated).expect("JSON");
    let (ours, reported) = (&evaluated["splits"]["test"]["calibration"], &splits["test"]["calibration"]);
    for (when, name) in [("before", "brier_score"), ("after", "brier_score"), ("after", "calibration_error")] {
        let (ours, reported) = (number(&ours[when][name]), number(&reported[when][name]));
        assert!((ours - reported).abs() < 1e-5, "{when} {name}: {ours} and {reported}");
    }
}

#[test]
fn predictions_are_calibrated_unless_raw_and_no_label_changes() {
    let run = FOLDER.join("run");
    let temperature = number(&json(&run.join("model/calibration.json"))["temperature"]);
    let (calibrated, raw) = (answers(&run, &[]), answers(&run, &["--raw"]));
    assert!((temperature - 1.0).abs() > 0.01, "{temperature} would show nothing");
    for (calibrated, raw) in calibrated.iter().zip(&raw) {
        assert_eq!(calibrated["label"], raw["label"]);
        // With two labels, the log-odds are divided by the temperature.
        let log_odds = |answer: &Value| {
            let [a, b] = ["negative", "positive"].map(|label| number(&answer["scores"][label]));
            (b / a).ln()
        };
        let (found, expected) = (log_odds(calibrated), log_odds(raw) / temperature);
        assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} and {expected}");
    }
    let bundle = FOLDER.join("bundle");
    succeed(&["bundle", "--model", text(&run), "--out", text(&bundle)]);
    let manifest = json(&bundle.join("manifest.json"));
    assert!(manifest["files"]["calibration.json"]["sha256"].is_string(), "{manifest}");
    assert_eq!(answers(&bundle, &[]), calibrated);
    assert_eq!(answers(&bundle, &["--raw"]), raw);

    // Without the file, the predictions are the same as with --raw.
    let plain = FOLDER.join("plain");
    fs::create_dir_all(&plain).expect("it is writable");
    for entry in fs::read_dir(run.join("model")).expect("a model") {
        let path = entry.expect("it is listed").path();
        fs::copy(&path, plain.join(path.file_name().expect("a name"))).expect("it is writable");
    }
    fs::remove_file(plain.join("calibration.json")).expect("it is there");
    assert_eq!(answers(&plain, &[]), raw);
    fs::write(plain.join("calibration.json"), "{\"temperature\": 0}").expect("it is writable");
    let output = kiln(&["predict", "--model", text(&plain), "--text", "好"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("calibration.json: `temperature` is 0"), "{message}");
}

#[test]
fn what_is_below_the_least_score_has_no_label() {
    let run = FOLDER.join("run");
    let scores: Vec<f64> = answers(&run, &[]).iter().map(|answer| number(&answer["score"])).collect();
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    let least = sorted[sorted.len() / 2].to_string();
    let answered = answers(&run, &["--min-score", &least]);
    for (answer, score) in answered.iter().zip(&scores) {
        assert_eq!(answer["label"].is_null(), *score < sorted[sorted.len() / 2], "{answer}");
        assert_eq!(number(&answer["score"]), *score);
    }
    assert!(answered.iter().any(|answer| answer["label"].is_null()));
    assert_eq!(kiln(&["predict", "--model", text(&run), "--text", "好", "--min-score", "2"]).status.code(), Some(2));

    // The report's table counts the same rows.
    let report = json(&run.join("report.json"));
    for row in report["splits"]["test"]["calibration"]["coverage"].as_array().expect("rows") {
        let min_score = number(&row["min_score"]);
        let count = scores.iter().filter(|score| **score >= min_score).count();
        // A score at the threshold may fall on the other side of it in another batch.
        assert!((number(&row["coverage"]) * scores.len() as f64 - count as f64).abs() < 1.5, "{row}");
    }
}

/// After few updates, the probabilities of rare labels are far below 0.5, so that 0.5 as a threshold would predict no
/// label.
#[test]
fn several_labels_are_predicted_from_their_thresholds_on() {
    let folder = FOLDER.join("several");
    fs::create_dir_all(&folder).expect("it is writable");
    let reviews = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/train.tsv");
    let reviews = fs::read_to_string(reviews).expect("the sample's data");
    let row = |line: &str| {
        let [text, label, aspect, domain] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("four columns") };
        format!("{text}\t{label}|{aspect}|{domain}")
    };
    let rows: Vec<String> = reviews.lines().skip(1).map(row).collect();
    for (name, rows) in [("train.tsv", &rows[..300]), ("dev.tsv", &rows[300..400]), ("test.tsv", &rows[400..480])] {
        fs::write(folder.join(name), rows.join("\n")).expect("a small file");
    }
    let recipe = "task = \"sequence-classification\"\n[model]\nsource = \"sample\"\nencoder = \"frozen\"\npooling = \"mean\"\n\
                  problem_type = \"multi_label_classification\"\n[data]\nlabel_separator = \"|\"\n\
                  train = \"train.tsv\"\nvalidation = \"dev.tsv\"\ntest = \"test.tsv\"\n\
                  [train]\nepochs = 3\nlearning_rate = 1e-2\nmax_length = 48\n";
    fs::write(folder.join("recipe.toml"), recipe).expect("a small file");
    let run = folder.join("run");
    succeed(&["train", "--recipe", text(&folder.join("recipe.toml")), "--out", text(&run)]);
    let calibration = json(&run.join("model/calibration.json"));
    let thresholds: Vec<f64> = calibration["thresholds"].as_array().expect("thresholds").iter().map(number).collect();
    let config = json(&run.join("model/config.json"));
    let labels: Vec<&str> = (0..thresholds.len())
        .map(|id| config["id2label"][id.to_string()].as_str().expect("a label for each threshold"))
        .collect();
    assert!(thresholds.iter().filter(|threshold| **threshold < 0.5).count() > 3, "{thresholds:?}");

    let report = &json(&run.join("report.json"))["splits"];
    for (split, least) in [("validation", 0.0), ("test", -0.02)] {
        let (own, at_half) = (number(&report[split]["macro_f1"]), number(&report[split]["at_half"]["macro_f1"]));
        assert!(own - at_half >= least, "{split}: {own} with thresholds, {at_half} without");
    }
    let page = fs::read_to_string(run.join("report.html")).expect("it was written");
    assert!(page.contains("With 0.5 for all labels, the accuracy would be"));

    let file = folder.join("texts.txt");
    let texts: Vec<&str> = rows[400..480].iter().map(|row| row.split('\t').next().expect("a text")).collect();
    fs::write(&file, texts.join("\n")).expect("a small file");
    let answers = |more: &[&str]| -> Vec<Value> {
        let lines = succeed(&[&["predict", "--model", text(&run), "--file", text(&file)], more].concat());
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let (own, raw) = (answers(&[]), answers(&["--raw"]));
    for (answers, least) in [(&own, thresholds.as_slice()), (&raw, &vec![0.5; labels.len()])] {
        assert_eq!(answers.len(), 80);
        for answer in answers {
            let predicted =
                labels.iter().zip(least).filter(|(label, least)| number(&answer["scores"][**label]) >= **least);
            let predicted: Vec<&str> = predicted.map(|(label, _)| *label).collect();
            assert_eq!(answer["labels"], serde_json::json!(predicted), "{answer}");
        }
    }
    let count = |answers: &[Value]| -> usize {
        answers.iter().map(|answer| answer["labels"].as_array().expect("labels").len()).sum()
    };
    assert!(count(&own) > count(&raw), "{} labels with thresholds, {} without", count(&own), count(&raw));

    let wrong = serde_json::json!({ "temperature": 1.0, "thresholds": [0.5] });
    fs::write(run.join("model/calibration.json"), wrong.to_string()).expect("it is writable");
    let output = kiln(&["predict", "--model", text(&run), "--text", "好"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("found 1 `thresholds`, expected one for each of {} labels", labels.len());
    assert!(!output.status.success() && message.contains(&expected), "{message}");
}
