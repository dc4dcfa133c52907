//! Distillation, through the binary.

use std::fs;
use std::path::Path;

use crate::sequences::write_texts;
use crate::support::{Case, json_file, run, succeed, succeed_json, text, vocabulary, write_lines};

/// A trained teacher in `run`, and its recipe.
fn teacher(folder: &Path, epochs: &str) {
    write_texts(folder);
    let (recipe, run) = (folder.join("recipe.toml"), folder.join("run"));
    let epochs = format!("train.epochs={epochs}");
    succeed(&["train", "--recipe", text(&recipe), "--out", text(&run), "--set", &epochs]);
}

/// Writes a recipe whose student starts with its teacher's last layer.
fn write_student(folder: &Path, more: &str) {
    let recipe = fs::read_to_string(folder.join("recipe.toml")).expect("a small file");
    let recipe = recipe.replace("size = \"tiny\"\n", "").replace("dir:vocabulary", "dir:run/model");
    let student = format!("{recipe}[student]\nlayers = [1]\n[distill]\nteacher = \"dir:run\"\n{more}\n");
    fs::write(folder.join("recipe.toml"), student).expect("a small file");
}

/// Keeps the first rows of the training split, and writes the texts of the others to `raw.txt`.
fn take_labels(folder: &Path, kept: usize) {
    let path = folder.join("train.tsv");
    let rows = fs::read_to_string(&path).expect("a small file");
    let (labelled, others): (Vec<_>, Vec<_>) = rows.lines().enumerate().partition(|(row, _)| *row < kept);
    write_lines(&path, labelled.into_iter().map(|(_, row)| row));
    let raw = others.into_iter().map(|(_, row)| row.split('\t').next().expect("a text"));
    write_lines(&folder.join("raw.txt"), raw);
}

/// With 60 labelled texts and 740 texts without labels, the student learns what its teacher knows. It needs the teacher for
/// that.
#[test]
fn a_student_learns_from_raw_text_what_its_teacher_knows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    teacher(folder.path(), "4");
    take_labels(folder.path(), 60);
    write_student(folder.path(), "alpha = 0.3\nhidden = true\nunlabelled = [\"raw.txt\"]");
    let case = Case {
        folder: folder.path(),
        command: "train",
        split: "test",
        data: "test.tsv",
        metric: "accuracy",
        at_least: 0.93,
    };
    // `run` is the folder of the teacher.
    let recipe = folder.path().join("recipe.toml");
    let proved = case.prove_in("student");
    let config = json_file(&proved.model.join("config.json"));
    assert_eq!(config["num_hidden_layers"], 1);

    let train = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let output = run(&[&["train", "--recipe", text(&recipe), "--out", text(&out)], more].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{message}");
        (json_file(&out.join("report.json"))["splits"]["test"]["accuracy"].as_f64().expect("a number"), message)
    };
    let (accuracy, message) = train("again", &["--set", "train.gradient_checkpointing=true"]);
    assert!(message.contains("outputs for 800 rows from the cache"), "{message}");
    assert!(accuracy >= 0.93, "{accuracy} with gradient checkpointing");
    let (alone, message) = train("alone", &["--set", "distill.alpha=1", "--set", "distill.unlabelled=[]"]);
    assert!(alone < proved.score - 0.05, "{alone} by 60 labels alone, {} with a teacher", proved.score);
    assert!(message.contains("outputs for 60 rows"), "{message}");
}

#[test]
fn a_teacher_that_does_not_fit_is_refused_and_no_folder_is_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    teacher(folder.path(), "1");
    let rows = fs::read_to_string(folder.path().join("train.tsv")).expect("a small file");
    let others = |name: &str, change: &dyn Fn(&str) -> String| {
        write_lines(&folder.path().join(name), rows.lines().take(20).map(change));
    };
    others("other.tsv", &|row| row.replace("\tfood", "\tmeals"));
    others("tags.conll", &|row| format!("{}\tX\n", row.replace([' ', '\t'], "\tO\n")));
    // The same words in another order have different ids.
    let words = fs::read_to_string(folder.path().join("vocabulary/vocab.txt")).expect("a small file");
    let words: Vec<&str> = words.lines().skip(5).filter(|word| *word != "the").collect();
    vocabulary(&folder.path().join("fewer"), words);
    write_student(folder.path(), "");
    let recipe = folder.path().join("recipe.toml");
    let data = |name: &str| format!("{}", folder.path().join(name).display());
    let refused = |settings: &[String], words: &[&str]| {
        let out = folder.path().join("refused");
        let mut arguments = vec!["train", "--recipe", text(&recipe), "--out", text(&out)];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let output = run(&arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} in {message}");
        assert!(!out.exists(), "{settings:?} leaves a folder");
    };
    let set = |settings: &[&str]| settings.iter().map(|setting| (*setting).to_owned()).collect::<Vec<_>>();
    refused(&set(&["student.layers=[2]"]), &["student.layers: found layer 2", "from 0 to 1"]);
    let other = [format!("data.train={}", data("other.tsv")), format!("data.validation={}", data("other.tsv"))];
    refused(&other, &["distill.teacher has the labels food, money", "the data has food, meals, money"]);
    refused(
        &set(&["model.problem_type=multi_label_classification"]),
        &["distill.teacher is a model for sequence-classification (single_label_classification)"],
    );
    let tags = ["train", "validation", "test"].map(|split| format!("data.{split}={}", data("tags.conll")));
    let tags = [&tags[..], &set(&["task=token-classification", "data.tag_scheme=plain"])].concat();
    refused(
        &tags,
        &["distill.teacher is a model for sequence-classification", "expected one for token-classification"],
    );
    let longer = set(&["train.max_length=513"]);
    refused(&longer, &["train.max_length is 513", "512 positions"]);
    let missing = set(&["distill.teacher=dir:no-such-folder"]);
    let output = run(&["train", "--recipe", text(&recipe), "--set", &missing[0]]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("no-such-folder"), "{message}");

    // Another tokenizer is allowed if only logits are compared.
    let fresh = fs::read_to_string(&recipe).expect("a small file").replace("[student]\nlayers = [1]\n", "");
    let fresh = fresh.replace("dir:run/model\"", "dir:fewer\"\nsize = \"tiny\"");
    fs::write(&recipe, fresh).expect("a small file");
    refused(&set(&["distill.hidden=true"]), &["distill.teacher: its tokenizer is not model.source's", "training row"]);
    let run = folder.path().join("fresh");
    let report = succeed_json(&["train", "--recipe", text(&recipe), "--out", text(&run), "--set", "train.epochs=1"]);
    assert!(report["train"]["teacher_seconds"].as_f64().expect("it was computed") > 0.0, "{report}");
}
