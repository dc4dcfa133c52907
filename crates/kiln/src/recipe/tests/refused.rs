//! Invalid recipes and their error messages.

use kiln_eval::{
    Counts, TagSet, evaluate, evaluate_answers, evaluate_masked, evaluate_numbers, evaluate_sets, evaluate_tags,
};
use kiln_metrics::AnswerLanguage;
use kiln_schema::{ProblemType, TagScheme, Task};
use kiln_train::Metric;

use super::super::metrics;
use super::{LONG, SHORT, parse};

/// The value of `data.files` in [`LONG`].
const FILES: &str = r#"["a.csv", "/elsewhere/b.csv"]"#;

fn message(text: &str, overrides: &[&str]) -> String {
    parse(text, overrides).expect_err("the recipe is bad").to_string()
}

/// The message for `LONG` with one piece of text replaced. It must name the line that contains `at`.
fn message_at(at: &str, old: &str, new: &str) -> String {
    assert_eq!(LONG.matches(old).count(), 1, "`{old}` stands in the recipe once");
    let text = LONG.replace(old, new);
    let line = 1 + text.lines().position(|line| line.contains(at)).expect("the line is in the recipe");
    let message = message(&text, &[]);
    let place = format!("/recipes/recipe.toml, line {line}: ");
    message.strip_prefix(&place).unwrap_or_else(|| panic!("`{message}` should start with `{place}`")).to_owned()
}

/// The same, for a message that names the line on which the new text starts.
fn message_with(old: &str, new: &str) -> String {
    message_at(new.lines().next().expect("some text"), old, new)
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
    assert_eq!(message_with("max_length", "max_lenght"), "unknown key `train.max_lenght`; did you mean `max_length`?");
    assert_eq!(message_with("stratify", "stratified"), "unknown key `data.split.stratified`; did you mean `stratify`?");
    assert_eq!(message_with("[train]", "[trian]"), "unknown key `trian`; did you mean `train`?");
    // In the wrong table.
    assert_eq!(
        message_with("pooling = \"mean\"", "epochs = 3"),
        "unknown key `model.epochs`; did you mean `train.epochs`?"
    );
    // No key is similar.
    assert_eq!(
        message_with("pooling = \"mean\"", "qqq = 3"),
        "unknown key `model.qqq`; \
         the keys known here are `source`, `initialize`, `size`, `encoder`, `problem_type`, `pooling`, `hidden_layers`, `crf`, \
         `head_initializer_range`"
    );
    // In an inline table.
    assert_eq!(
        message("task = \"sequence-classification\"\nmodel = { source = \"sample\", pool = 1 }", &[]),
        "/recipes/recipe.toml, line 2: unknown key `model.pool`; did you mean `pooling`?"
    );
}

#[test]
fn a_wrong_value_names_line_key_found_and_expected() {
    for (old, new, expected) in [
        ("epochs = 5", "epochs = 0", "`train.epochs`: found integer `0`, expected a whole number of at least 1"),
        ("epochs = 5", "epochs = -5", "`train.epochs`: found integer `-5`, expected a whole number of at least 1"),
        ("epochs = 5", "epochs = 1.5", "`train.epochs`: found floating point `1.5`, expected a whole number"),
        ("epochs = 5", "epochs = \"5\"", "`train.epochs`: found string \"5\", expected a whole number"),
        ("epochs = 5", "epochs = [\n5]", "`train.epochs`: found a list, expected a whole number"),
        (
            "batch_size = 8",
            "batch_size = 0",
            "`train.batch_size`: found integer `0`, expected a whole number of at least 1",
        ),
        (
            "learning_rate = 1e-4",
            "learning_rate = 0",
            "`train.learning_rate`: found floating point `0.0`, expected a number above 0",
        ),
        (
            "learning_rate = 1e-4",
            "learning_rate = nan",
            "`train.learning_rate`: found floating point `NaN`, expected a number above 0",
        ),
        (
            "learning_rate = 1e-4",
            "learning_rate = inf",
            "`train.learning_rate`: found floating point `inf`, expected a number above 0",
        ),
        (
            "warmup_ratio = 0",
            "warmup_ratio = 1.1",
            "`train.warmup_ratio`: found floating point `1.1`, expected a number from 0 to 1",
        ),
        (
            "max_length = 64",
            "max_length = 1",
            "`train.max_length`: found integer `1`, expected a whole number of at least 2",
        ),
        ("[13, 7]", "[13,\n0]", "`model.hidden_layers`: found integer `0`, expected a whole number of at least 1"),
        ("header = true", "header = 1", "`data.header`: found integer `1`, expected true or false"),
        ("seed = 7", "seed = -1", "`data.split.seed`: found integer `-1`, expected a whole number of at least 0"),
        (
            "\"cosine\"",
            "\"cos\"",
            "`train.lr_scheduler`: found \"cos\", expected one of `linear`, `cosine`, `constant`",
        ),
        ("\"mean\"", "\"max\"", "`model.pooling`: found \"max\", expected one of `cls`, `mean`, `pooler`"),
        ("[\"no\", \"yes\"]", "[\"no\", \"no\"]", "`data.labels`: label `no` occurs twice in the list"),
        (FILES, "\"a.csv\"", "`data.files`: found string \"a.csv\", expected a list"),
        (FILES, "[\"a.csv\", 3]", "`data.files`: found integer `3`, expected a path in quotes"),
    ] {
        assert_eq!(message_with(old, new), expected);
    }
    // An element of a list has its own line.
    let expected = "`model.hidden_layers`: found string \"7\", expected a whole number";
    assert_eq!(message_at("\"7\"", "[13, 7]", "[\n13,\n\"7\"]"), expected);
}

#[test]
fn values_of_the_wrong_kind_are_refused_by_name() {
    for (old, new, expected) in [
        (
            "\"frozen\"",
            "\"partial\"",
            "`model.encoder`: found \"partial\", expected one of `full`, `frozen`, `lora`, `qlora`",
        ),
        (
            "gradient_checkpointing = true",
            "gradient_checkpointing = 1",
            "`train.gradient_checkpointing`: found integer `1`, expected true or false",
        ),
        ("\"f32\"", "\"f16\"", "`train.precision`: found \"f16\", expected `f32` or `bf16`"),
    ] {
        assert_eq!(message_with(old, new), expected);
    }
    for (setting, expected) in [
        ("train.class_weights=balance", "expected \"balanced\", or a list of one number per label"),
        ("data.text=-1", "expected a column's name, or its index from 0"),
        ("data.text=true", "expected a column's name, or its index from 0"),
        ("data.label=[1, 2]", "expected a column, or a list of column names"),
    ] {
        let (key, _) = setting.split_once('=').expect("an assignment");
        assert_eq!(message(SHORT, &[setting]), format!("--set {setting}: `{key}`: {expected}"));
    }
    let several = message(SHORT, &["data.label=[\"a\", \"b\"]"]);
    assert!(several.contains("`data.label` needs `model.problem_type = \"multi_label_classification\"`"), "{several}");
    for (line, expected) in [
        (
            "class_weights = \"balanced\"",
            "`train.class_weights` needs one label per text, or `task = \"token-classification\"` without `model.crf`",
        ),
        (
            "label_all_tokens = true",
            "`train.label_all_tokens` needs `task = \"token-classification\"` without `model.crf`",
        ),
        (
            "label_smoothing = 0.1",
            "`train.label_smoothing` needs one label per text, or `task = \"token-classification\"` without `model.crf`",
        ),
    ] {
        assert_eq!(message_with("label_all_tokens = false", line), expected);
    }
    let crf = message_with("hidden_layers = [13, 7]", "crf = true");
    assert_eq!(crf, "`model.crf` needs `task = \"token-classification\"`");
    let scheme = message_with("drop_leaks = true", "tag_scheme = \"plain\"");
    assert_eq!(scheme, "`data.tag_scheme` needs `task = \"token-classification\"`");
    let scheme = message_with("drop_leaks = true", "tag_scheme = \"words\"");
    assert!(scheme.contains("`data.tag_scheme`: found \"words\", expected one of `entities`"), "{scheme}");
    let language = message_with("drop_leaks = true", "answer_language = \"chinese\"");
    assert_eq!(language, "`data.answer_language` needs `task = \"question-answering\"`");
}

#[test]
fn class_weights_that_cannot_be_learnt_with_are_refused() {
    for (weights, expected) in [
        ("[1.0, -1.0]", "found -1.0, expected numbers of at least 0"),
        ("[1.0, nan]", "found NaN, expected numbers of at least 0"),
        ("[1e300, 1.0]", "found 1e300, expected numbers of at least 0"),
        ("[0.0, 0.0]", "found no number above 0, so that nothing would be learnt"),
        ("[]", "found no number above 0, so that nothing would be learnt"),
    ] {
        let setting = format!("train.class_weights={weights}");
        let expected = format!("--set {setting}: `train.class_weights`: {expected}");
        assert_eq!(message(SHORT, &[&setting]), expected);
    }
    parse(SHORT, &["train.class_weights=[0.0, 2.0]"]).expect("a label without weight");
}

#[test]
fn a_metric_that_the_task_does_not_report_is_refused() {
    assert_eq!(
        message(SHORT, &["train.metric=f1"]),
        "--set train.metric=f1: `train.metric`: found `f1`, which this task does not report; \
         expected one of `accuracy`, `macro_f1`, `loss`"
    );
}

/// The metrics that a recipe accepts for each task are those of its report.
#[test]
fn every_metric_of_a_report_may_pick_the_best_checkpoint() {
    let labels = kiln_schema::LabelSet::new(["O", "B-X"]).expect("two names");
    let (single, several, number) =
        (ProblemType::SingleLabelClassification, ProblemType::MultiLabelClassification, ProblemType::Regression);
    let tags = TagSet { labels: &labels, scheme: TagScheme::Entities };
    let counts = Counts { correct: 1, total: 2, loss_sum: 0.5 };
    for (task, problem_type, report) in [
        (Task::SequenceClassification, single, evaluate(&[1.0, 0.0], &[0], &labels)),
        (Task::SequenceClassification, several, evaluate_sets(&[1.0, 0.0], &[vec![0]], &labels)),
        (Task::SequenceClassification, number, evaluate_numbers(&[1.0], &[0.0])),
        (Task::TokenClassification, single, evaluate_tags(0.0, &[vec![0]], &[vec![0]], tags)),
        (Task::QuestionAnswering, single, evaluate_answers(0.0, &[(1.0, 1.0)], AnswerLanguage::English)),
        (Task::MaskedLm, single, evaluate_masked(counts, Some(counts), 1)),
    ] {
        let report = report.expect("the numbers are finite");
        let reported: Vec<Metric> =
            Metric::ALL.into_iter().filter(|metric| report.score(metric.name()).is_some()).collect();
        let known = metrics(task, problem_type);
        assert!(reported.len() == known.len() && reported.iter().all(|metric| known.contains(metric)), "{task}");
    }
}

#[test]
fn keys_that_do_not_go_together_are_refused() {
    for (at, old, new, expected) in [
        ("[data.split]", "train = 0.7", "train = 0.8", "`data.split.train + validation + test`: found 1.1, expected 1"),
        (
            "-0.1",
            "test = 0.1",
            "test = -0.1",
            "`data.split.test`: found -0.1, expected 0, for no test split, or more and less than 1",
        ),
        (
            "files = ",
            "format = \"csv\"",
            "train = \"a.csv\"",
            "`data.files` and `data.train` are both given; expected one of them",
        ),
        (
            "files = ",
            "format = \"csv\"",
            "test = \"a.csv\"",
            "`data.files` is divided into all splits; expected neither `data.validation` nor `data.test` beside it",
        ),
        ("files = ", FILES, "[]", "`data.files`: found an empty list, expected at least one file"),
        (
            "[data.split]",
            &format!("files = {FILES}"),
            "train = \"a.csv\"",
            "`data.split` divides the rows of `data.files`, which is not given; `data.train` and `data.validation` are not divided",
        ),
        (
            "first",
            "header = true",
            "header = false",
            "`data.text`: found the name `first`, expected an index, because `data.header` is false",
        ),
        (
            "text_pair",
            "text_pair = \"second\"",
            "text_pair = \"first\"",
            "`data.text` and `data.text_pair` are the same column, `first`",
        ),
    ] {
        assert_eq!(message_at(at, old, new), expected);
    }
    let alone = message(&SHORT.replace("validation = \"dev.tsv\"\n", ""), &[]);
    assert!(alone.contains("`data.train` is given without `data.validation`"), "{alone}");
    let nothing = message("task = \"sequence-classification\"\nmodel.source = \"sample\"\n\n[data]", &[]);
    assert!(nothing.contains("line 4: there is nothing to train on"), "{nothing}");
}

#[test]
fn a_missing_key_is_named_with_its_table() {
    let line = |text: &str| message(text, &[]);
    assert_eq!(
        line(&SHORT.replace("source = \"sample\"\n", "")),
        "/recipes/recipe.toml, line 2: the key `model.source` is missing"
    );
    assert!(line("[model]\nsource = \"sample\"\n[data]").ends_with(": the key `task` is missing"));
    assert!(line("").ends_with(": the key `task` is missing"));
    assert!(line("data = { train = \"a\" }\nmodel.source = \"sample\"").ends_with(": the key `task` is missing"));
    assert!(line("model.source = \"sample\"\n[data]\nfiles = []").ends_with(": the key `task` is missing"));
    // A missing key is reported for the file, not for the override.
    let without_source = SHORT.replace("source = \"sample\"\n", "");
    let missing = message(&without_source, &["model.pooling=mean"]);
    assert_eq!(missing, "/recipes/recipe.toml, line 2: the key `model.source` is missing");
}

#[test]
fn what_is_not_toml_names_its_line() {
    let bare = message(&SHORT.replace("\"train.tsv\"", "train.tsv"), &[]);
    assert!(bare.starts_with("/recipes/recipe.toml, line 5: not valid TOML: "), "{bare}");
    let twice = message(&format!("{SHORT}train = \"a\"\n"), &[]);
    assert!(twice.starts_with("/recipes/recipe.toml, line 7: not valid TOML: duplicate key"), "{twice}");
}

#[test]
fn a_bad_override_is_named_instead_of_a_line() {
    for (setting, expected) in [
        ("train.epoch=3", "unknown key `train.epoch`; did you mean `epochs`?"),
        ("train.epochs=0", "`train.epochs`: found integer `0`, expected a whole number of at least 1"),
        ("train.epochs=", "`train.epochs`: found string \"\", expected a whole number"),
        ("train.epochs.x=1", "`train.epochs`: found a table, expected a whole number"),
        ("train=5", "`train` cannot be both a table and a value"),
        ("model.source.x=5", "`model.source` cannot be both a table and a value"),
        ("data.files=[\"a.tsv\"]", "`data.files` and `data.train` are both given; expected one of them"),
        ("adapter.rank=4", "`adapter` needs `model.encoder = \"lora\"` or `\"qlora\"`"),
        ("epochs", "expected KEY=VALUE, where KEY is a recipe's key such as `train.epochs`"),
        ("=3", "expected KEY=VALUE, where KEY is a recipe's key such as `train.epochs`"),
        ("train..epochs=3", "expected KEY=VALUE, where KEY is a recipe's key such as `train.epochs`"),
    ] {
        assert_eq!(
            message(SHORT, &["train.seed=1", setting, "train.batch_size=4"]),
            format!("--set {setting}: {expected}")
        );
    }
}

#[test]
fn a_data_sets_file_is_checked_and_so_are_hubs() {
    let text = |path: &str| SHORT.replace("\"train.tsv\"", &format!("\"{path}\""));
    for path in ["hf-dataset:owner/name", "hf-dataset:owner/name/../../x.tsv", "modelscope-dataset:name/x.tsv"] {
        let message = message(&text(path), &[]);
        assert!(message.starts_with("/recipes/recipe.toml, line 5: `data.train`: "), "{message}");
    }
    assert_eq!(
        message_with("\"modelscope\", \"hf\"", "\"modelscop\""),
        "`hub.fallback`: found \"modelscop\", expected `hf` or `modelscope`"
    );
}

#[test]
fn a_teacher_and_a_student_need_what_they_can_work_with() {
    let distilled = |more: &[&str]| message(super::DISTILLED, more);
    for (more, key, needs) in [
        ("model.encoder=frozen", "student", "`model.encoder = \"full\"`"),
        ("model.size=tiny", "student", "neither `model.initialize = \"random\"` nor `model.size`"),
        ("distill.alpha=1", "distill.unlabelled", "a `distill.alpha` below 1"),
        ("task=token-classification", "distill.unlabelled", "`task = \"sequence-classification\"`"),
    ] {
        let found = distilled(&[more]);
        assert!(found.contains(&format!("`{key}` needs ")) && found.contains(needs), "{found}");
    }
    let lora = message(SHORT, &["distill.teacher=sample", "model.encoder=lora"]);
    assert!(
        lora.contains("`distill` needs `model.encoder = \"full\"`, and for raw text also `next_sentence = false`"),
        "{lora}"
    );
    let crf = ["task=token-classification", "model.crf=true", "distill.teacher=sample", "distill.alpha=0"];
    let crf = message(SHORT, &crf);
    assert!(crf.contains("`distill.alpha` needs to be above 0 with `model.crf`"), "{crf}");
    for (layers, found) in [("[1, 0]", "[1, 0]"), ("[2, 2]", "[2, 2]"), ("[]", "[]")] {
        let expected =
            format!("`student.layers`: found {found}, expected whole numbers in ascending order, at least one");
        assert!(distilled(&[&format!("student.layers={layers}")]).ends_with(&expected), "{layers}");
    }
    assert!(distilled(&["distill.temperature=0"]).contains("`distill.temperature`"));
}

#[test]
fn options_that_cannot_apply_are_refused() {
    for (more, key, needs) in [
        (&["train.fgm=1", "model.encoder=lora"][..], "train.fgm", "`model.encoder = \"full\"`"),
        (&["train.r_drop=1", "model.encoder=frozen"], "train.r_drop", "a `model.encoder` other than `frozen`"),
        (&["train.focal_gamma=2", "train.label_smoothing=0.1"], "train.focal_gamma", "no `train.label_smoothing`"),
        (&["train.focal_gamma=2", "model.problem_type=regression"], "train.focal_gamma", "one label per text"),
    ] {
        let found = message(SHORT, more);
        assert!(found.contains(&format!("`{key}` needs ")) && found.contains(needs), "{found}");
    }
    let raw = message(super::CORPUS, &["train.r_drop=1"]);
    assert!(raw.contains("`train.r_drop` needs a task with labels"), "{raw}");
    for (setting, expected) in [
        ("train.ema=1", "`train.ema`: found floating point `1.0`, expected a number of at least 0 and below 1"),
        ("train.r_drop=-1", "`train.r_drop`: found floating point `-1.0`, expected a number of at least 0"),
        ("train.eval_steps=-1", "`train.eval_steps`: found integer `-1`, expected a whole number of at least 0"),
    ] {
        assert!(message(SHORT, &[setting]).ends_with(expected), "{setting}");
    }
}
