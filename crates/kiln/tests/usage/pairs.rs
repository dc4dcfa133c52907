//! Files and texts for a model that was trained on pairs.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

use super::{FOLDER, RUN, failed, finished, json_lines, kiln, text};

/// A run whose recipe has pairs, with the weights of [`RUN`]. Only the recipe says that a model reads pairs.
static PAIRS: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
    let run = FOLDER.join("pairs");
    copy_model(&run.join("model"));
    let recipe = fs::read_to_string(RUN.join("run.toml")).expect("the run's recipe");
    let pairs = recipe.replace("text = \"text\"\n", "text = \"text\"\ntext_pair = \"second\"\n");
    assert_ne!(pairs, recipe);
    fs::write(run.join("run.toml"), pairs).expect("it is writable");
    run
});

fn copy_model(folder: &Path) {
    fs::create_dir_all(folder).expect("it is writable");
    for entry in fs::read_dir(RUN.join("model")).expect("the run has a model") {
        let path = entry.expect("it is listed").path();
        fs::copy(&path, folder.join(path.file_name().expect("a file"))).expect("it can be copied");
    }
}

fn folder_with(name: &str, content: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(name), content).expect("a small file");
    folder
}

fn predict(name: &str, content: &str, more: &[&str]) -> Output {
    let folder = folder_with(name, content);
    let file = folder.path().join(name);
    let arguments = [&["predict", "--model", text(&PAIRS), "--file", text(&file)], more].concat();
    kiln(&arguments).output().expect("the binary runs")
}

#[test]
fn a_file_without_the_second_texts_is_refused() {
    for (name, content, more, found) in [
        ("a.tsv", "text\tother\n很好\t太差\n", &[][..], "no column `second`: the first row is `text`, `other`"),
        ("a.csv", "text\n很好\n", &[], "no column `second`: the first row is `text`"),
        ("a.tsv", "很好\n", &["--no-header"], "no column 1: the first row is `很好`"),
        ("a.tsv", "a\tb\n很好\t太差\n", &["--text-column", "a"], "no column `second`: the first row is `a`, `b`"),
        (
            "a.jsonl",
            "{\"text\": \"很好\", \"other\": \"太差\"}\n",
            &[],
            "no column `second`: the keys of the first row are `other`, `text`",
        ),
        ("a.jsonl", "{\"text\": \"很好\"}\n", &[], "no column `second`: the keys of the first row are `text`"),
    ] {
        let (code, message) = failed(predict(name, content, more));
        let expected =
            format!("{name}: there is {found}; expected --text-pair-column: the model was trained on pairs of texts\n");
        assert!(code == 2 && message.ends_with(&expected), "{code} {message}");
    }
}

#[test]
fn the_second_texts_are_read() {
    for (name, content, more) in [
        ("a.tsv", "text\tsecond\n很好\t太差\n", &[][..]),
        ("a.tsv", "text\tother\n很好\t太差\n", &["--text-pair-column", "other"]),
        ("a.tsv", "很好\t太差\n", &["--no-header"]),
        ("a.txt", "text\tsecond\n很好\t太差\n", &[]),
        ("a.jsonl", "{\"text\": \"很好\", \"second\": \"太差\"}\n", &[]),
        ("a.jsonl", "{\"text\": \"很好\", \"text_pair\": \"太差\"}\n", &[]),
        ("a.jsonl", "{\"text\": \"很好\", \"other\": \"太差\"}\n", &["--text-pair-column", "other"]),
    ] {
        let output = predict(name, content, more);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("WARNING"), "{output:?}");
        let answers = json_lines(&finished(output));
        assert_eq!((&answers[0]["text"], &answers[0]["text_pair"]), (&"很好".into(), &"太差".into()), "{content}");
    }
}

#[test]
fn single_texts_are_a_warning() {
    let lines = predict("a.txt", "很好\n太差\n", &[]);
    let message = String::from_utf8_lossy(&lines.stderr).into_owned();
    let expected = "a.txt: each line is a single text, but the model was trained on pairs of texts\n";
    assert!(message.starts_with("WARNING: ") && message.ends_with(expected), "{message}");
    assert_eq!(json_lines(&finished(lines)).len(), 2);

    let ask = |model: &Path, more: &[&str]| {
        let arguments = [&["predict", "--model", text(model), "--text", "很好", "--json"], more].concat();
        let output = kiln(&arguments).output().expect("the binary runs");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        (finished(output), message)
    };
    let (answer, message) = ask(&PAIRS, &[]);
    assert_eq!(message, "WARNING: there is no --text-pair, but the model was trained on pairs of texts\n");
    // The same model without a recipe.
    let plain = tempfile::tempdir().expect("a temporary folder");
    copy_model(plain.path());
    assert_eq!(ask(plain.path(), &[]), (answer, String::new()));
    assert_eq!(ask(&PAIRS, &["--text-pair", "太差"]).1, "");
    assert_eq!(ask(&RUN, &[]).1, "");
}

#[test]
fn typed_texts_and_vectors_may_be_single() {
    let mut command = kiln(&["predict", "--model", text(&PAIRS), "--json"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    child.stdin.take().expect("it is piped").write_all("很好\n很好\t太差\n".as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(json_lines(&finished(output)).len(), 2);

    let folder = folder_with("a.tsv", "text\tother\n很好\t太差\n");
    let (file, out) = (folder.path().join("a.tsv"), folder.path().join("v.npy"));
    let arguments = ["embed", "--model", text(&PAIRS), "--file", text(&file), "--out", text(&out)];
    let output = kiln(&arguments).output().expect("the binary runs");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("WARNING"), "{output:?}");
    finished(output);
}
