//! `kiln tokenize` as a user runs it, on a folder that holds only a tokenizer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// The tokenizers of `kiln-tokenize`'s own tests: `tiny` is a `vocab.txt`, `tiny-unigram` a `tokenizer.json`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-tokenize/tests").join(name)
}

fn tokenize(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.arg("tokenize").arg("--model").arg(model).args(arguments);
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("results are UTF-8")
}

#[test]
fn json_has_the_names_of_transformers() {
    let output = tokenize(&fixture("tiny"), &["--text", " 房😀 Cleaners", "--text-pair", "un ", "--json"]);
    let list: Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
    let expected = json!({
        "text": "房😀 Cleaners", "text_pair": "un",
        "input_ids": [2, 5, 1, 7, 9, 10, 3, 12, 3],
        "tokens": ["[CLS]", "房", "[UNK]", "clean", "##er", "##s", "[SEP]", "un", "[SEP]"],
        "offset_mapping": [[0, 0], [0, 1], [1, 2], [3, 8], [8, 10], [10, 11], [0, 0], [0, 2], [0, 0]],
        "token_type_ids": [0, 0, 0, 0, 0, 0, 0, 1, 1],
        "special_tokens_mask": [1, 0, 0, 0, 0, 0, 1, 0, 1],
        "sequence_ids": [null, 0, 0, 0, 0, 0, null, 1, null]
    });
    assert_eq!(list, expected);
}

#[test]
fn people_get_a_row_for_each_token() {
    let table = stdout(&tokenize(&fixture("tiny"), &["--text", "房 Cleaners"]));
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["id", "type", "characters", "token", "text"]);
    assert_eq!(rows[1], ["0", "2", "0", "[CLS]"]);
    assert_eq!(rows[3], ["2", "7", "0", "2..7", "clean", "Clean"]);
    assert_eq!(rows[4], ["3", "9", "0", "7..9", "##er", "er"]);
}

#[test]
fn a_file_gives_what_its_texts_give() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("texts.jsonl");
    let texts = ["房间 clean", " U.S.A.<pad> ", "干净  房 "];
    let lines: String = texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    fs::write(&file, lines).expect("a small file");
    for model in ["tiny", "tiny-unigram", "tiny-bpe"] {
        let config = json!({ "pad_token": if model == "tiny" { "[PAD]" } else { "<pad>" } });
        let copy = tempfile::tempdir().expect("a temporary folder");
        for entry in fs::read_dir(fixture(model)).expect("the fixture is there") {
            let entry = entry.expect("it can be read");
            fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("it is writable");
        }
        fs::write(copy.path().join("tokenizer_config.json"), config.to_string()).expect("it is writable");
        let path = file.to_str().expect("test paths are UTF-8");
        let lines = stdout(&tokenize(copy.path(), &["--file", path, "--text-column", "text", "--json"]));
        let single = texts.map(|text| stdout(&tokenize(copy.path(), &["--text", text, "--json"])));
        assert_eq!(lines, single.concat(), "{model}");
        assert_eq!(lines.lines().count(), 3);
    }
}

#[test]
fn what_is_missing_is_named() {
    let none = tokenize(&fixture("tiny"), &[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--text or --file"));
    let empty = tempfile::tempdir().expect("a temporary folder");
    let failed = tokenize(empty.path(), &["--text", "房"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("tokenizer.json"));
}

/// BERT treats a run of kana as one word, which cannot be split. Counting all of it would take about 100 bytes of memory
/// per byte.
#[test]
fn an_audit_says_which_lengths_leave_a_part_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let long = "好 ".repeat(20_000) + &"か".repeat(200_000);
    for (text, is_warned) in [(long.as_str(), true), ("好", false)] {
        let rows = format!("text\tlabel\n{text}\tA\n差\tB\n");
        fs::write(folder.path().join("train.tsv"), rows).expect("it is writable");
        fs::write(folder.path().join("validation.tsv"), "text\tlabel\n新\tA\n").expect("it is writable");
        let recipe = folder.path().join("recipe.toml");
        let keys = "task = \"sequence-classification\"\n[model]\nsource = \"sample\"\n[data]\ntrain = \"train.tsv\"\n\
                    validation = \"validation.tsv\"\ntext = \"text\"\nlabel = \"label\"\nlabels = [\"A\", \"B\"]\n\
                    [train]\nmax_length = 32\n";
        fs::write(&recipe, keys).expect("it is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        let output = command.args(["data", "audit", "--json", "--recipe"]).arg(&recipe).output().expect("it runs");
        let audit: Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
        let longest = audit["splits"][0]["lengths"]["max"].as_u64().expect("there are lengths");
        assert_eq!(longest > 20_000, is_warned, "{audit}");
        let warned = String::from_utf8_lossy(&output.stderr).contains("1 text goes on without a place to cut");
        assert_eq!(warned, is_warned, "{}", String::from_utf8_lossy(&output.stderr));
    }
}
