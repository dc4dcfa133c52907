//! Keys for columns, which some tasks do not have.

use super::{SHORT, good, parse};

const TAGS: &str = "task=token-classification";
const ANSWERS: &str = "task=question-answering";

#[test]
fn keys_that_a_task_does_not_read_are_refused() {
    for task in [TAGS, ANSWERS] {
        for (key, value) in [
            ("data.text", "content"),
            ("data.text", "2"),
            ("data.text_pair", "context"),
            ("data.label", "tags"),
            ("data.label", "[\"a\", \"b\"]"),
            ("data.header", "true"),
            ("data.label_separator", ";"),
        ] {
            let setting = format!("{key}={value}");
            let message = parse(SHORT, &[task, &setting]).expect_err("the key has no effect").to_string();
            let expected = format!(
                "--set {setting}: `{key}` needs `task = \"sequence-classification\"` or `\"masked-lm\"`: \
                 data for the other tasks has columns and keys with fixed names"
            );
            assert_eq!(message, expected);
        }
    }
    let message =
        parse(SHORT, &[ANSWERS, "data.labels=[\"a\", \"b\"]"]).expect_err("answers have no labels").to_string();
    let expected =
        "`data.labels` needs a `task` with labels; `question-answering`, `masked-lm` and a regression have none";
    assert!(message.ends_with(expected), "{message}");
    for (setting, problem_type) in [
        ("data.labels=[\"a\", \"b\"]", "regression"),
        ("data.label_separator=;", "single_label_classification"),
        ("data.label=[]", "multi_label_classification"),
    ] {
        let problem_type = format!("model.problem_type={problem_type}");
        let message = parse(SHORT, &[&problem_type, setting]).expect_err("the key has no effect").to_string();
        assert!(message.starts_with(&format!("--set {setting}: ")), "{message}");
    }
    for setting in ["data.text_pair=b", "data.label=c", "data.label_separator=;", "data.labels=[\"a\", \"b\"]"] {
        let message = parse(SHORT, &["task=masked-lm", setting]).expect_err("raw text has no labels").to_string();
        assert!(message.starts_with(&format!("--set {setting}: ")), "{message}");
    }
    good(SHORT, &["task=masked-lm", "data.text=content", "data.label=label"]);
    good(SHORT, &[TAGS, "data.labels=[\"O\", \"B-X\"]"]);
}

#[test]
fn the_defaults_in_a_run_s_recipe_are_accepted() {
    for task in [TAGS, ANSWERS] {
        for (format, header) in [("conll", true), ("jsonl", true), ("tsv", false)] {
            let recipe = good(SHORT, &[task, &format!("data.format={format}")]);
            let written = recipe.to_toml();
            let lines = match header {
                true => ["header = true", "text = \"text\"", "label = \"label\""],
                false => ["header = false", "text = 0", "label = 1"],
            };
            assert!(lines.iter().all(|line| written.lines().any(|written| written == *line)), "{written}");
            assert_eq!(good(&written, &[]), recipe);
        }
        good(SHORT, &[task, "data.header=false", "data.text=0", "data.label=1"]);
    }
}
