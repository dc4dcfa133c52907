//! A recipe's settings for tags and answers have an effect in the report, the model folder, `eval` and `predict`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln")).args(arguments).output().expect("the binary runs")
}

fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

/// The exit status and the messages of a training.
fn refused(recipe: &str, setting: &str) -> (Option<i32>, String) {
    let output = run(&["train", "--recipe", recipe, "--out", &format!("{recipe}-refused"), "--set", setting]);
    assert!(!Path::new(&format!("{recipe}-refused")).exists(), "nothing is written");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

/// Sentences of a pronoun, a verb and a noun.
fn parts_of_speech() -> String {
    let mut file = String::new();
    for (pronoun, verb, noun) in [("我", "爱", "书"), ("你", "看", "花"), ("他", "吃", "鱼")].repeat(10) {
        file.push_str(&format!("{pronoun}\tPRON\n{verb}\tVERB\n{noun}\tNN-SHORT\n\n"));
    }
    file
}

#[test]
fn plain_tags_are_no_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("test paths are UTF-8").to_owned();
    fs::write(path("pos.conll"), parts_of_speech()).expect("a small file");
    fs::write(path("mixed.conll"), parts_of_speech().replace("PRON", "B-PER")).expect("a small file");
    let recipe = "task = \"token-classification\"\n[model]\nsource = \"sample\"\n[data]\ntrain = \"pos.conll\"\n\
                  validation = \"pos.conll\"\nformat = \"conll\"\n[train]\nepochs = 4\nlearning_rate = 1e-3\n";
    fs::write(path("pos.toml"), recipe).expect("a small file");
    succeed(&["train", "--recipe", &path("pos.toml"), "--out", &path("run")]);
    let report = parse(&fs::read_to_string(path("run/report.json")).expect("it was written"));
    let validation = &report["splits"]["validation"];
    assert_eq!(validation["tag_scheme"], "plain");
    assert!(validation.get("entity_f1").is_none(), "{validation}");
    // The metric counts tags, not segments.
    let accuracy = validation["accuracy"].as_f64().expect("a number");
    assert!(accuracy > 0.9, "{accuracy}");

    let model = path("run/model");
    let prediction = parse(&succeed(&["predict", "--model", &model, "--text", "我爱书", "--json"]));
    let tags: Vec<[&Value; 3]> = prediction["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .map(|tag| [&tag["tag"], &tag["start"], &tag["text"]])
        .collect();
    assert_eq!(json!(tags), json!([["PRON", 0, "我"], ["VERB", 1, "爱"], ["NN-SHORT", 2, "书"]]));
    let evaluation = parse(&succeed(&["eval", "--model", &model, "--data", &path("pos.conll"), "--json"]));
    assert_eq!(&evaluation["splits"]["test"], validation);

    let (status, message) = refused(&path("pos.toml"), &format!("data.train={}", path("mixed.conll")));
    assert!(status == Some(2) && message.contains("B-PER, NN-SHORT, PRON, VERB"), "{message}");
    let (status, message) = refused(&path("pos.toml"), "train.metric=entity_f1");
    assert!(status == Some(2) && message.contains("entity_f1"), "{message}");
    let (status, message) = refused(&path("pos.toml"), "data.tag_scheme=segmentation");
    assert!(status == Some(2) && message.contains("`NN-SHORT`"), "{message}");
}

#[test]
fn answers_are_compared_in_the_recipes_language() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("test paths are UTF-8").to_owned();
    let question = |id: usize| {
        let answers = json!([{ "text": "首都", "answer_start": 3 }]);
        json!({ "id": id.to_string(), "question": "北京是什么？", "answers": answers })
    };
    let paragraph = json!({ "context": "北京是首都", "qas": [question(0), question(1)] });
    let data = json!({ "data": [{ "paragraphs": [paragraph] }] });
    fs::write(path("qa.json"), data.to_string()).expect("a small file");
    let recipe = "task = \"question-answering\"\n[model]\nsource = \"sample\"\n[data]\ntrain = \"qa.json\"\n\
                  validation = \"qa.json\"\nformat = \"squad\"\n[train]\nepochs = 1\nmax_length = 32\n";
    fs::write(path("qa.toml"), recipe).expect("a small file");
    for (run, settings, expected) in
        [("inferred", vec![], "chinese"), ("set", vec!["--set", "data.answer_language=english"], "english")]
    {
        let out = path(run);
        let recipe = path("qa.toml");
        succeed(&[&["train", "--recipe", recipe.as_str(), "--out", out.as_str()], settings.as_slice()].concat());
        let report = parse(&fs::read_to_string(format!("{out}/report.json")).expect("it was written"));
        assert_eq!(report["splits"]["validation"]["answer_language"], expected);
        let model = format!("{out}/model");
        let evaluation = parse(&succeed(&["eval", "--model", &model, "--data", &path("qa.json"), "--json"]));
        assert_eq!(evaluation["splits"]["test"]["answer_language"], expected);
    }
}
