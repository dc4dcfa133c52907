//! Which texts are read from a file.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::{RUN, fail, finished, json_lines, kiln, sample_file, succeed, text};

fn folder_with(name: &str, content: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(name), content).expect("a small file");
    folder
}

/// The texts that `kiln predict --file` reads.
fn texts_read(model: &Path, name: &str, content: &str, more: &[&str]) -> Vec<String> {
    let folder = folder_with(name, content);
    let file = folder.path().join(name);
    let answers = succeed(&[&["predict", "--model", text(model), "--file", text(&file)], more].concat());
    json_lines(&answers).iter().map(|answer| answer["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_text_file_has_a_text_a_line() {
    let content = "房间很脏，再也不来了\r\n\r\n服务\t很好\n  很吵  ";
    assert_eq!(texts_read(&RUN, "reviews.txt", content, &[]), ["房间很脏，再也不来了", "服务\t很好", "很吵"]);
    // The columns of the recipe are read if the file has them.
    let table = "id\ttext\tlabel\n1\t很好\tpositive\n2\t太差\tnegative\n";
    assert_eq!(texts_read(&RUN, "reviews.txt", table, &[]), ["很好", "太差"]);
    let whole = texts_read(&RUN, "reviews.txt", table, &["--format", "text"]);
    assert_eq!(whole, ["id\ttext\tlabel", "1\t很好\tpositive", "2\t太差\tnegative"]);
    let rows = table.replace("text\tlabel", "一般\tlabel");
    assert_eq!(
        texts_read(&RUN, "reviews.txt", &rows, &["--no-header", "--text-column", "1"]),
        ["一般", "很好", "太差"]
    );
}

#[test]
fn the_columns_of_the_recipe_are_used_where_the_file_has_them() {
    assert_eq!(texts_read(&RUN, "a.csv", "很好\n\"太差, 太吵\"\n", &[]), ["很好", "太差, 太吵"]);
    assert_eq!(texts_read(&RUN, "a.csv", "text\n很好\n", &[]), ["很好"]);
    assert_eq!(texts_read(&RUN, "a.tsv", "label\ttext\n1\t很好\n", &[]), ["很好"]);
    assert_eq!(texts_read(&RUN, "a.tsv", "1\t很好\n0\t太差\n", &["--text-column", "1"]), ["很好", "太差"]);
    assert_eq!(texts_read(&RUN, "a.tsv", "很好\t1\n太差\t0\n", &["--no-header"]), ["很好", "太差"]);
    assert_eq!(texts_read(&RUN, "a.tsv", "review\tx\n很好\t1\n", &["--text-column", "review"]), ["很好"]);
    assert_eq!(texts_read(&RUN, "a.jsonl", "{\"review\": \"很好\"}\n", &[]), ["很好"]);
    assert_eq!(texts_read(&RUN, "a.jsonl", "{\"text\": \"很好\", \"n\": 1}\n", &[]), ["很好"]);
    let folder = folder_with("a.tsv", "很好\t1\n太差\t0\n");
    let (code, message) = fail(&["predict", "--model", text(&RUN), "--file", text(&folder.path().join("a.tsv"))]);
    assert!(code == 2 && message.contains("no column `text`") && message.contains("--no-header"), "{code} {message}");
    let folder = folder_with("a.csv", "");
    let (code, message) = fail(&["predict", "--model", text(&RUN), "--file", text(&folder.path().join("a.csv"))]);
    assert!(code == 1 && message.contains("a.csv: there are no rows"), "{code} {message}");
}

#[test]
fn standard_input_and_pipes_are_files_too() {
    let ask = |file: &str, more: &[&str]| {
        let mut command = kiln(&[&["predict", "--model", text(&RUN), "--file", file], more].concat());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        child.stdin.take().expect("it is piped").write_all("很好\n\n太差\n".as_bytes()).expect("it reads");
        finished(child.wait_with_output().expect("it ends"))
    };
    let answers = ask("-", &["--out", "-"]);
    assert_eq!(json_lines(&answers).iter().map(|answer| &answer["text"]).collect::<Vec<_>>(), ["很好", "太差"]);
    assert_eq!(ask("-", &["--format", "tsv", "--no-header"]), answers);
    if cfg!(unix) {
        assert_eq!(ask("/dev/stdin", &[]), answers);
    }
}

#[test]
fn a_file_and_a_text_have_the_same_answer() {
    let folder = folder_with("a.txt", "房间很脏，再也不来了\n很好\n");
    let file = folder.path().join("a.txt");
    let rows = json_lines(&succeed(&["predict", "--model", text(&RUN), "--file", text(&file)]));
    let one = succeed(&["predict", "--model", text(&RUN.join("model")), "--text", "房间很脏，再也不来了", "--json"]);
    let one: Value = serde_json::from_str(&one).expect("JSON");
    assert_eq!(rows[0]["label"], one["label"]);
    let score = |answer: &Value| answer["score"].as_f64().expect("a number");
    assert!((score(&rows[0]) - score(&one)).abs() < 1e-5, "{} {one}", rows[0]);
}

#[test]
fn batches_and_the_best_labels() {
    let test = sample_file("test.tsv");
    let ask = |more: &[&str]| {
        json_lines(&succeed(&[&["predict", "--model", text(&RUN), "--file", text(&test)], more].concat()))
    };
    let (whole, best) = (ask(&[]), ask(&["--batch-size", "5", "--top-k", "1"]));
    assert_eq!((whole.len(), best.len()), (300, 300));
    for (whole, best) in whole.iter().zip(&best) {
        assert_eq!((&whole["text"], &whole["label"]), (&best["text"], &best["label"]));
        let scores = best["scores"].as_object().expect("a map");
        let label = best["label"].as_str().expect("a name");
        assert!(scores.len() == 1 && scores[label] == best["score"], "{best}");
        let difference = best["score"].as_f64().expect("a number") - whole["score"].as_f64().expect("a number");
        assert!(difference.abs() < 1e-5, "{whole} {best}");
    }
    let (code, message) = fail(&["predict", "--model", text(&RUN), "--text", "好", "--top-k", "0"]);
    assert!(code == 2 && message.contains("at least 1"), "{message}");
}

#[test]
fn an_evaluation_may_do_without_a_header() {
    let table = fs::read_to_string(sample_file("test.tsv")).expect("the sample");
    let (_, rows) = table.split_once('\n').expect("a header");
    let folder = folder_with("test.tsv", rows);
    let file = folder.path().join("test.tsv");
    let accuracy = |arguments: &[&str]| {
        let report: Value = serde_json::from_str(&succeed(arguments)).expect("JSON");
        assert_eq!(report["splits"]["test"]["examples"], 300);
        report["splits"]["test"]["loss"].clone()
    };
    let named = accuracy(&["eval", "--model", text(&RUN), "--data", text(&sample_file("test.tsv")), "--json"]);
    let bare = accuracy(&["eval", "--model", text(&RUN), "--data", text(&file), "--no-header", "--json"]);
    assert_eq!(named, bare);
    let folder = folder_with("named.tsv", &format!("a\tb\tc\td\n{rows}"));
    let other = folder.path().join("named.tsv");
    let columns = ["--text-column", "0", "--label", "b", "--json"];
    assert_eq!(named, accuracy(&[&["eval", "--model", text(&RUN), "--data", text(&other)][..], &columns].concat()));
    let (code, message) = fail(&["eval", "--model", text(&RUN), "--data", text(&file)]);
    assert!(code == 2 && message.contains("--no-header"), "{message}");
}

#[test]
fn a_tagger_reads_plain_text_and_tagged_text() {
    let sentence = |at: usize| {
        if at.is_multiple_of(2) { "王\tB-PER\n五\tI-PER\n来\tO\n\n" } else { "去\tO\n北\tB-LOC\n京\tI-LOC\n\n" }
    };
    let folder = folder_with("train.conll", &(0..60).map(sentence).collect::<String>());
    let path = |name: &str| folder.path().join(name);
    let recipe = "task = \"token-classification\"\nmodel.source = \"sample\"\n[data]\ntrain = \"train.conll\"\n\
                  validation = \"train.conll\"\n[train]\nepochs = 1\n";
    fs::write(path("recipe.toml"), recipe).expect("a small file");
    succeed(&["train", "--recipe", text(&path("recipe.toml")), "--out", text(&path("run"))]);
    let run = path("run");
    assert_eq!(texts_read(&run, "a.txt", "王五去北京\n王五\t来\n", &[]), ["王五去北京", "王五\t来"]);
    assert_eq!(texts_read(&run, "a.csv", "王五去北京\n", &[]), ["王五去北京"]);
    assert_eq!(texts_read(&run, "a.tsv", "王五去北京\t1\n", &[]), ["王五去北京"]);
    assert_eq!(texts_read(&run, "a.jsonl", "{\"text\": \"王五\", \"entities\": []}\n", &[]), ["王五"]);
    assert_eq!(texts_read(&run, "a.conll", "王\tB-PER\n五\tI-PER\n\n来\tO\n", &[]), ["王五", "来"]);
}

#[test]
fn questions_come_with_their_contexts() {
    let asked = |at: usize| {
        format!(
            r#"{{"context": "王五去北京。", "qas": [{{"id": "{at}", "question": "谁去北京？",
                "answers": [{{"text": "王五", "answer_start": 0}}]}}]}}"#
        )
    };
    let squad =
        |count| format!(r#"{{"data": [{{"paragraphs": [{}]}}]}}"#, (0..count).map(asked).collect::<Vec<_>>().join(","));
    let folder = folder_with("train.json", &squad(24));
    let path = |name: &str| folder.path().join(name);
    let recipe = "task = \"question-answering\"\nmodel.source = \"sample\"\n[data]\ntrain = \"train.json\"\n\
                  validation = \"train.json\"\n[train]\nepochs = 1\n";
    fs::write(path("recipe.toml"), recipe).expect("a small file");
    succeed(&["train", "--recipe", text(&path("recipe.toml")), "--out", text(&path("run"))]);
    let ask = |name: &str, content: &str| {
        fs::write(path(name), content).expect("a small file");
        let answers = succeed(&["predict", "--model", text(&path("run")), "--file", text(&path(name))]);
        json_lines(&answers)
            .into_iter()
            .map(|answer| (answer["question"].clone(), answer["answer"].clone()))
            .collect::<Vec<_>>()
    };
    let from_squad = ask("two.json", &squad(2));
    assert_eq!((from_squad.len(), &from_squad[0].0), (2, &Value::from("谁去北京？")));
    let line = "谁去北京？\t王五去北京。\n";
    assert_eq!(ask("two.txt", &line.repeat(2)), from_squad);
    assert_eq!(ask("two.tsv", &line.repeat(2)), from_squad);
    let object = "{\"id\": 1, \"question\": \"谁去北京？\", \"context\": \"王五去北京。\"}\n";
    assert_eq!(ask("two.jsonl", &object.repeat(2)), from_squad);
}

#[test]
fn masks_and_vectors_of_a_text_file() {
    let folder = folder_with("a.txt", "今天[MASK]气很好\n[MASK]间很干净\n");
    let path = |name: &str| folder.path().join(name);
    let filled = json_lines(&succeed(&["fill-mask", "--file", text(&path("a.txt")), "--top-k", "2"]));
    assert_eq!(filled.len(), 2);
    assert_eq!(filled[0]["masks"][0]["tokens"].as_array().map(Vec::len), Some(2));
    let out = path("v.npy");
    succeed(&["embed", "--model", text(&RUN), "--file", text(&path("a.txt")), "--out", text(&out)]);
    let vectors = fs::read(out).expect("it was written");
    assert!(String::from_utf8_lossy(&vectors[..128]).contains("'shape': (2, "));
}

/// The files of sentence-transformers, and the manifest of a bundle, say how vectors are computed.
#[test]
fn vectors_are_those_of_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (model, bundle) = (folder.path().join("model"), folder.path().join("bundle"));
    fs::create_dir_all(model.join("1_Pooling")).expect("it is writable");
    for entry in fs::read_dir(RUN.join("model")).expect("a folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), model.join(entry.file_name())).expect("it is writable");
    }
    let embed = |model: &Path, more: &[&str]| {
        succeed(&[&["embed", "--model", text(model), "--text", "很好"][..], more].concat())
    };
    let [mean, cls] = ["mean", "cls"].map(|pooling| embed(&model, &["--pooling", pooling]));
    assert_eq!(embed(&model, &[]), mean);
    fs::write(model.join("1_Pooling/config.json"), r#"{"pooling_mode": "cls"}"#).expect("it is writable");
    assert_eq!(embed(&model, &[]), cls);
    let modules = r#"[{"type": "sentence_transformers.models.Normalize"}]"#;
    fs::write(model.join("modules.json"), modules).expect("it is writable");
    let normalized = embed(&RUN, &["--pooling", "cls", "--normalize"]);
    assert_eq!(embed(&model, &[]), normalized);
    succeed(&["bundle", "--model", text(&model), "--out", text(&bundle)]);
    assert_eq!(embed(&bundle, &[]), normalized);
    let prompts = r#"{"prompts": {"query": "为这个句子:"}, "default_prompt_name": "query"}"#;
    fs::write(model.join("config_sentence_transformers.json"), prompts).expect("it is writable");
    let prompted =
        succeed(&["embed", "--model", text(&RUN), "--text", "为这个句子:很好", "--pooling", "cls", "--normalize"]);
    fs::remove_dir_all(&bundle).expect("it was written");
    succeed(&["bundle", "--model", text(&model), "--out", text(&bundle)]);
    for model in [&model, &bundle] {
        assert_eq!(embed(model, &[]), prompted.replace("为这个句子:很好", "很好"));
    }
    fs::remove_file(model.join("config_sentence_transformers.json")).expect("it was written");
    fs::write(model.join("1_Pooling/config.json"), r#"{"pooling_mode": "max"}"#).expect("it is writable");
    let (code, message) = fail(&["embed", "--model", text(&model), "--text", "很好"]);
    assert!(code == 1 && message.contains("the pooling mode `max` is not supported"), "{message}");
    assert_eq!(embed(&model, &["--pooling", "cls"]), normalized);
}

/// Row numbers of the output are not line numbers of the file, so the user is told.
#[test]
fn skipped_blank_lines_are_counted() {
    let folder = folder_with("a.txt", "\n很好\n\n  \n太差\n\n");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.tsv"), "text\tn\n\n很好\t1\n").expect("a small file");
    let log = |command: &str, file: &str, out: &str| {
        let (file, out) = (path(file), path(out));
        let arguments = [command, "--model", text(&RUN), "--file", text(&file), "--out", text(&out)];
        let output = kiln(&arguments).output().expect("the binary runs");
        assert!(output.status.success() && output.stdout.is_empty());
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        log.replace(&format!("{}/", text(folder.path())), "")
    };
    assert_eq!(log("embed", "a.txt", "v.npy"), "a.txt: skipped 3 blank lines\n2 vectors of 192 → v.npy\n");
    assert_eq!(log("embed", "a.tsv", "v.npy"), "a.tsv: skipped 1 blank line\n1 vector of 192 → v.npy\n");
    assert_eq!(log("predict", "a.tsv", "p.jsonl"), "a.tsv: skipped 1 blank line\n1 row → p.jsonl\n");
    fs::write(path("b.txt"), "很好\n太差\n").expect("a small file");
    assert_eq!(log("predict", "b.txt", "p.jsonl"), "2 rows → p.jsonl\n");
    for command in ["embed", "predict"] {
        assert!(succeed(&[command, "--help"]).contains("blank lines are skipped"), "{command}");
    }
}

#[test]
fn layers_that_the_config_leaves_out_are_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(RUN.join("model")).expect("the run has a model") {
        let path = entry.expect("it is listed").path();
        fs::copy(&path, folder.path().join(path.file_name().expect("a file"))).expect("it can be copied");
    }
    let arguments = ["predict", "--model", text(folder.path()), "--text", "很好"];
    let stderr = |output: std::process::Output| String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(stderr(kiln(&arguments).output().expect("the binary runs")), "");
    let config = folder.path().join("config.json");
    let whole = fs::read_to_string(&config).expect("it was copied");
    let fewer = whole.replace("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 3");
    assert_ne!(fewer, whole, "the sample has five layers");
    fs::write(&config, fewer).expect("it is writable");
    let message = stderr(kiln(&arguments).output().expect("the binary runs"));
    assert!(message.starts_with("WARNING: the weights have 2 encoder layers more"), "{message}");
}
