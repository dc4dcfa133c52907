//! From raw text to a vocabulary, a masked language model, and its predictions.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln")).args(arguments).output().expect("the binary runs")
}

fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Documents about one of two topics each. All sentences of a document are about the same topic.
fn corpus(documents: usize) -> String {
    let mut corpus = String::new();
    for document in 0..documents {
        let (thing, verb) = if document % 2 == 0 { ("天气", "晴朗") } else { ("茶杯", "打碎") };
        for sentence in 0..4 {
            writeln!(corpus, "今天{thing}很{verb}，第{}次。", ["一", "二", "三", "四"][(document + sentence) % 4])
                .expect("a string takes any text");
        }
        corpus.push('\n');
    }
    corpus
}

#[test]
fn raw_text_becomes_a_vocabulary_and_a_model_that_fills_masks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("corpus.txt"), corpus(400)).expect("a small file");
    let vocabulary = path("vocabulary");
    succeed(&["vocabulary", "--file", text(&path("corpus.txt")), "--out", text(&vocabulary), "--size", "100"]);
    assert!(fs::read_to_string(vocabulary.join("vocab.txt")).expect("it was written").contains("\n晴\n"));

    let recipe = r#"task = "masked-lm"
next_sentence = true
[model]
source = "dir:vocabulary"
size = "tiny"
[data]
train = "corpus.txt"
[train]
epochs = 6
batch_size = 32
learning_rate = 3e-3
max_length = 48
"#;
    fs::write(path("recipe.toml"), recipe).expect("a small file");
    let run_folder = path("run");
    let report = succeed(&["pretrain", "--recipe", text(&path("recipe.toml")), "--out", text(&run_folder), "--json"]);
    let report: Value = serde_json::from_str(&report).expect("one JSON object");
    let validation = &report["splits"]["validation"];
    // Chance is a tenth for masked tokens, and a half for next sentences. Half of the sentences from other documents are
    // about the same topic, so that the topic alone decides three quarters of the pairs.
    assert!(validation["masked_accuracy"].as_f64().expect("a number") > 0.5, "{validation}");
    assert!(validation["next_sentence_accuracy"].as_f64().expect("a number") > 0.6, "{validation}");
    assert!(validation["perplexity"].as_f64().expect("a number") < 10.0, "{validation}");
    assert!(report["train"]["tokens_per_second"].as_f64().expect("a number") > 0.0);

    let model = run_folder.join("model");
    let filled =
        succeed(&["fill-mask", "--model", text(&model), "--text", "今天[MASK]气很晴朗", "--json", "--top", "3"]);
    let filled: Value = serde_json::from_str(&filled).expect("one JSON object");
    assert_eq!(filled["filled"], "今天天气很晴朗", "{filled}");
    assert_eq!(filled["masks"][0]["tokens"].as_array().map(Vec::len), Some(3));
    let spoken = succeed(&["predict", "--model", text(&model), "--text", "今天茶[MASK]很打碎"]);
    assert!(spoken.starts_with("今天茶杯很打碎"), "{spoken}");
    let none = run(&["fill-mask", "--model", text(&model), "--text", "茶杯"]);
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("no [MASK]"));

    let judged = succeed(&["eval", "--model", text(&model), "--data", text(&path("corpus.txt")), "--json"]);
    let judged: Value = serde_json::from_str(&judged).expect("one JSON object");
    assert!(judged["splits"]["test"]["masked_accuracy"].as_f64().expect("a number") > 0.5, "{judged}");

    // Domain adaptation: training continues from the checkpoint's own heads.
    let further =
        recipe.replace("dir:vocabulary\"\nsize = \"tiny\"", "dir:run/model\"").replace("epochs = 6", "epochs = 1");
    fs::write(path("further.toml"), further).expect("a small file");
    let report = succeed(&[
        "pretrain",
        "--recipe",
        text(&path("further.toml")),
        "--out",
        text(&path("more")),
        "--json",
        "--set",
        "train.precision=bf16",
    ]);
    let report: Value = serde_json::from_str(&report).expect("one JSON object");
    assert!(report["splits"]["validation"]["masked_accuracy"].as_f64().expect("a number") > 0.5, "{report}");
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recipe = folder.path().join("recipe.toml");
    let refused = |data: &str, more: &str| {
        fs::write(folder.path().join("corpus.txt"), data).expect("a small file");
        let head = "task = \"masked-lm\"\nmodel.source = \"sample\"\n";
        fs::write(&recipe, format!("{head}{more}\n[data]\ntrain = \"corpus.txt\"\n")).expect("a small file");
        let output = run(&["pretrain", "--recipe", text(&recipe), "--out", text(&folder.path().join("run"))]);
        assert!(!output.status.success());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (_, message) = refused("", "");
    assert!(message.contains("0 rows"), "{message}");
    let (_, message) = refused("一句话很短。\n又一句话。\n", "train.max_length = 12");
    assert!(message.contains("found one such document among 1") && message.contains("blank line"), "{message}");
    // The second document is too short for a row.
    let (code, message) = refused(&format!("{}\n一\n", "一句话很短。\n".repeat(60)), "train.max_length = 12");
    assert!(code == Some(1) && message.contains("found one such document among 2"), "{message}");
    let (code, message) = refused("一", "masking.share = 1.5");
    assert!(code == Some(2) && message.contains("masking.share"), "{message}");
    let (code, message) = refused("一", "model.encoder = \"frozen\"");
    assert!(code == Some(2) && message.contains("model.encoder"), "{message}");
    fs::write(&recipe, "task = \"sequence-classification\"\nmodel.source = \"sample\"\ndata.files = [\"a.tsv\"]\n")
        .expect("a small file");
    let output = run(&["pretrain", "--recipe", text(&recipe)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected `masked-lm`"));
}

/// The teacher has another vocabulary and a larger hidden size.
#[test]
fn hidden_states_of_a_teacher_are_learnt_from_raw_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("corpus.txt"), corpus(40)).expect("a small file");
    for (name, size) in [("ours", "40"), ("theirs", "60")] {
        succeed(&["vocabulary", "--file", text(&path("corpus.txt")), "--out", text(&path(name)), "--size", size]);
    }
    let recipe = |vocabulary: &str, size: &str, more: &str| {
        format!(
            "task = \"masked-lm\"\nnext_sentence = false\n[model]\nsource = \"dir:{vocabulary}\"\nsize = \"{size}\"\n\
             [data]\ntrain = \"corpus.txt\"\n[train]\nepochs = 3\nmax_length = 24\nlearning_rate = 1e-3\n{more}"
        )
    };
    fs::write(path("teacher.toml"), recipe("theirs", "mini", "")).expect("a small file");
    succeed(&["pretrain", "--recipe", text(&path("teacher.toml")), "--out", text(&path("teacher"))]);
    let distill = "[distill]\nteacher = \"dir:teacher\"\nhidden = true\nalpha = 0.5\n";
    fs::write(path("student.toml"), recipe("ours", "tiny", distill)).expect("a small file");
    let train = |out: &str, more: &[&str]| {
        let mut student = Command::new(env!("CARGO_BIN_EXE_kiln"));
        student.args(["pretrain", "--recipe", text(&path("student.toml")), "--out", text(&path(out))]).args(more);
        student.env("KILN_CACHE", path("cache")).output().expect("the binary runs")
    };
    let weights = |out: &str| fs::read(path(out).join("model/model.safetensors")).expect("it was saved");
    let losses = |out: &str| -> Vec<f64> {
        let metrics = fs::read_to_string(path(out).join("metrics.jsonl")).expect("it was written");
        let loss = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["train_loss"].as_f64();
        metrics.lines().map(|line| loss(line).expect("a number")).collect()
    };
    for (out, origin) in [("a", "computed in"), ("b", "from the cache")] {
        let output = train(out, &[]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && log.contains("hidden states of 160 rows"), "{log}");
        assert!(log.contains(origin), "{log}");
    }
    assert!(weights("a") == weights("b"), "the same training gives the same bytes");
    assert!(losses("a")[2] < losses("a")[0], "{:?}", losses("a"));
    assert!(train("alone", &["--set", "distill.alpha=1.0"]).status.success());
    assert!(weights("a") != weights("alone"));

    for (setting, code, expected) in [
        ("distill.hidden=false", 2, "`distill.hidden` needs to be true for raw text"),
        ("distill.temperature=3.0", 2, "`distill.temperature` needs a task with labels"),
        ("next_sentence=true", 2, "`next_sentence = false`"),
        ("model.size=small", 1, "expected at most the teacher's, 256"),
    ] {
        let output = train("refused", &["--set", setting]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && message.contains(expected), "{setting}: {message}");
    }
}

#[test]
fn a_batch_may_be_larger_than_any_corpus() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("corpus.txt"), corpus(8)).expect("a small file");
    let recipe = "task = \"masked-lm\"\n[model]\nsource = \"sample\"\n[data]\ntrain = \"corpus.txt\"\n\
                  [train]\nepochs = 2\nmax_length = 24\nbatch_size = 288230376151711744\n";
    let path = folder.path().join("recipe.toml");
    fs::write(&path, recipe).expect("a small file");
    let report = succeed(&["pretrain", "--recipe", text(&path), "--out", text(&folder.path().join("run")), "--json"]);
    let report: Value = serde_json::from_str(&report).expect("one JSON object");
    assert_eq!(report["train"]["steps"], 2, "{report}");
}
