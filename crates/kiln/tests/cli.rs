//! The binary as a user runs it, on the embedded sample.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// A cache and a run for all tests; tests that write have their own folders. It is emptied at the start, because statics
/// are never dropped.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("it is writable");
    folder
});

static RECIPE: LazyLock<PathBuf> = LazyLock::new(|| support::small_sample(&FOLDER));

fn kiln(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(arguments).env("KILN_CACHE", FOLDER.join("cache")).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    kiln(arguments).output().expect("the binary runs")
}

fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

/// The exit code and the error on stderr of a command that must fail.
fn fail(arguments: &[&str]) -> (i32, String) {
    let output = run(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !message.contains("panicked"), "{arguments:?}: {message}");
    (output.status.code().expect("it was not killed"), message)
}

/// `kiln train` on the sample, for one short epoch unless `more` says otherwise.
fn train(out: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["train", "--recipe", text(&RECIPE), "--out", text(out), "--set", "train.epochs=1"];
    arguments.extend(more);
    run(&arguments)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A trained model that tests only read.
static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let run = FOLDER.join("run");
    let output = train(&run, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    run.join("model")
});

fn test_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/test.tsv")
}

#[test]
fn help_shows_the_commands_in_order() {
    let help = succeed(&["--help"]);
    let place = |command: &str| help.find(&format!("\n  {command} ")).unwrap_or_else(|| panic!("{command}: {help}"));
    let places: Vec<usize> = [
        "pipeline",
        "pull",
        "data",
        "train",
        "eval",
        "predict",
        "pretrain",
        "embed",
        "fill-mask",
        "vocabulary",
        "compare",
    ]
    .map(place)
    .to_vec();
    assert!(places.is_sorted(), "{help}");
}

#[test]
fn a_run_s_folder_is_whole_and_eval_agrees_with_its_report() {
    let run = MODEL.parent().expect("a model lies in a run");
    for name in
        ["report.json", "report.html", "errors.tsv", "metrics.jsonl", "run.toml", "checkpoints/best.safetensors"]
    {
        assert!(run.join(name).is_file(), "{name}");
    }
    for name in ["config.json", "model.safetensors", "head.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(MODEL.join(name).is_file(), "{name}");
    }
    let report: Value = serde_json::from_slice(&fs::read(run.join("report.json")).expect("it is there")).expect("JSON");
    assert_eq!(report["splits"]["test"]["examples"], 300);
    let eval = succeed(&["eval", "--model", text(&MODEL), "--data", text(&test_file()), "--json"]);
    let eval: Value = serde_json::from_str(&eval).expect("JSON");
    assert_eq!(eval["splits"]["test"]["accuracy"], report["splits"]["test"]["accuracy"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trained = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        assert!(train(&out, more).status.success());
        (model_files(&out), epochs(&out))
    };
    let run = MODEL.parent().expect("a model lies in a run");
    let (files, numbers) = (model_files(run), epochs(run));
    let (again, same_numbers) = trained("again", &[]);
    assert!(files == again, "the same seed");
    assert_eq!(numbers, same_numbers);
    let (other, other_numbers) = trained("other", &["--set", "train.seed=43"]);
    assert_ne!(numbers, other_numbers);
    for name in ["model.safetensors", "head.safetensors"] {
        assert!(files[name] != other[name], "{name} of another seed");
    }
}

/// Runs a training until its first epoch has ended, presses Ctrl-C, and resumes it.
#[cfg(unix)]
fn interrupted(arguments: &[&str]) {
    let mut child = kiln(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
    // The first epoch's line is printed when the training has made progress.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("it is piped")));
    lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("epoch")).expect("an epoch ends");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("there is kill");
    assert!(interrupt.success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("--resume")), "{rest:?}");
    succeed(&[arguments, &["--resume"]].concat());
}

/// Every file of a run's model, by name.
fn model_files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("it is listed").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name, fs::read(&path).expect("it was written"))
    };
    let files: BTreeMap<_, _> = fs::read_dir(run.join("model")).expect("it was written").map(read).collect();
    assert!(files.contains_key("model.safetensors") && files.contains_key("config.json"), "{:?}", files.keys());
    files
}

/// The numbers of a run's epochs, without the seconds that they took.
fn epochs(run: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("it was written");
    let mut epochs: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for epoch in &mut epochs {
        epoch.as_object_mut().expect("a map").retain(|key, _| !key.ends_with("seconds"));
    }
    epochs
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_resume_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, whole) = (folder.path().join("run"), folder.path().join("whole"));
    interrupted(&["train", "--recipe", text(&RECIPE), "--out", text(&out), "--set", "train.epochs=3"]);
    assert!(train(&whole, &["--set", "train.epochs=3"]).status.success());
    assert!(model_files(&out) == model_files(&whole));
    assert_eq!((epochs(&out), epochs(&out).len()), (epochs(&whole), 3));
}

#[cfg(unix)]
#[test]
fn pre_training_goes_on_as_if_it_had_not_been_interrupted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, whole, recipe) =
        (folder.path().join("run"), folder.path().join("whole"), folder.path().join("recipe.toml"));
    let reviews = RECIPE.with_file_name("train.tsv");
    let settings = format!(
        "task = \"masked-lm\"\nnext_sentence = true\nmodel.source = \"sample\"\nmodel.initialize = \"random\"\n\
         [data]\ntrain = {:?}\nheader = true\ntext = \"text\"\n[train]\nepochs = 3\nmax_length = 64\n",
        text(&reviews)
    );
    fs::write(&recipe, settings).expect("a small file");
    let pretrain = |out| ["pretrain", "--recipe", text(&recipe), "--out", text(out)];
    interrupted(&pretrain(&out));
    succeed(&pretrain(&whole));
    assert!(model_files(&out) == model_files(&whole));
    assert_eq!(epochs(&out), epochs(&whole));
}

#[test]
fn a_frozen_encoder_runs_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let seconds = |name: &str, source: &str| {
        let (out, source) = (path(name), format!("model.source={source}"));
        let output = train(&out, &["--set", "model.encoder=frozen", "--set", "train.max_length=48", "--set", &source]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value =
            serde_json::from_slice(&fs::read(out.join("report.json")).expect("it is there")).expect("JSON");
        (
            report["train"]["encoder_seconds"].as_f64().expect("a number"),
            fs::read(out.join("model/head.safetensors")).ok(),
        )
    };
    let (first, head) = seconds("first", "sample");
    let (second, same_head) = seconds("second", "sample");
    assert!(first > 0.0 && second == 0.0 && head.is_some() && head == same_head, "{first} s, then {second} s");
    // The same weights under another config are another encoder.
    fs::create_dir(path("other")).expect("it is writable");
    for name in ["config.json", "model.safetensors", "vocab.txt"] {
        fs::copy(FOLDER.join("cache/sample/model").join(name), path("other").join(name)).expect("the sample has it");
    }
    let config = fs::read_to_string(path("other/config.json")).expect("it was copied");
    fs::write(path("other/config.json"), config.replace("_layers\": 5", "_layers\": 1")).expect("it is writable");
    assert!(seconds("third", &format!("dir:{}", text(&path("other")))).0 > 0.0);
}

/// For token classification and question answering, whose heads read every token.
#[test]
fn a_frozen_encoder_under_a_head_on_tokens_runs_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let tagged = "房\tB-X\n间\tI-X\n干\tO\n净\tO\n\n服\tB-X\n务\tI-X\n差\tO\n\n".repeat(4);
    fs::write(path("tags.conll"), tagged).expect("a small file");
    let asked = |id: usize| {
        serde_json::json!({"context": "房间很干净，服务差。", "qas": [
            {"id": id.to_string(), "question": "什么干净？", "answers": [{"text": "房间", "answer_start": 0}]}]})
    };
    let paragraphs: Vec<Value> = (0..8).map(asked).collect();
    let questions = serde_json::json!({"data": [{"title": "", "paragraphs": paragraphs}]});
    fs::write(path("questions.json"), questions.to_string()).expect("a small file");
    for (task, data) in [
        ("token-classification", "train = \"tags.conll\"\nvalidation = \"tags.conll\"\nformat = \"conll\""),
        ("question-answering", "train = \"questions.json\"\nvalidation = \"questions.json\"\nformat = \"squad\""),
    ] {
        let text_of_recipe = format!(
            "task = \"{task}\"\nmodel.source = \"sample\"\nmodel.encoder = \"frozen\"\n[data]\n{data}\n\
             [train]\nepochs = 2\nmax_length = 32\nlearning_rate = 1e-2\n"
        );
        fs::write(path("recipe.toml"), text_of_recipe).expect("a small file");
        let cache = path("cache");
        let trained = |name: &str| {
            let out = path(name);
            let recipe = path("recipe.toml");
            let arguments = ["train", "--recipe", text(&recipe), "--out", text(&out), "--json"];
            let output = kiln(&arguments).env("KILN_CACHE", &cache).output().expect("the binary runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
            let weights = fs::read(out.join("model/model.safetensors")).expect("it was written");
            (report["train"]["encoder_seconds"].as_f64().expect("a number"), weights)
        };
        let (first, model) = trained(&format!("{task}-first"));
        let (second, same_model) = trained(&format!("{task}-second"));
        assert!(first > 0.0 && second == 0.0, "{task}: {first} s, then {second} s");
        assert!(model == same_model, "{task}");
        let unpacked = fs::read(cache.join("sample/model/model.safetensors")).expect("the sample's checkpoint");
        assert!(model != unpacked, "{task}: the head has been trained");
    }
}

#[test]
fn predictions_of_a_text_a_file_and_a_prompt_agree() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = text(&MODEL);
    let one = succeed(&["predict", "--model", model, "--text", "房间很脏，再也不来了", "--json"]);
    let one: Value = serde_json::from_str(&one).expect("JSON");
    let sum: f64 = one["scores"].as_object().expect("a map").values().filter_map(Value::as_f64).sum();
    assert!((sum - 1.0).abs() < 1e-6 && one["score"].as_f64() >= Some(0.5), "{one}");

    let out = folder.path().join("answers.jsonl");
    succeed(&["predict", "--model", model, "--file", text(&test_file()), "--out", text(&out)]);
    let answers = fs::read_to_string(&out).expect("it was written");
    assert_eq!(answers.lines().count(), 300);
    let first: Value = serde_json::from_str(answers.lines().next().expect("300 lines")).expect("JSON");

    let command = &mut kiln(&["predict", "--model", model, "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let typed = format!("{}\n\n房间很脏，再也不来了\nq\nnever read\n", first["text"].as_str().expect("a text"));
    child.stdin.take().expect("it is piped").write_all(typed.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it leaves on q");
    assert!(output.status.success());
    let said: Vec<Value> =
        output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(said.len(), 2);
    for (said, expected) in said.iter().zip([&first, &one]) {
        assert_eq!((&said["text"], &said["label"]), (&expected["text"], &expected["label"]));
        let difference = said["score"].as_f64().expect("a number") - expected["score"].as_f64().expect("a number");
        assert!(difference.abs() < 1e-5, "{said} and {expected}");
    }
}

#[test]
fn a_model_folder_that_lacks_something_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = |without: &[&str]| {
        let copy = folder.path().join(without.join("-"));
        fs::create_dir(&copy).expect("it is new");
        for entry in fs::read_dir(&*MODEL).expect("it is there") {
            let path = entry.expect("it is listed").path();
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            if !without.contains(&name.as_str()) {
                fs::copy(&path, copy.join(name)).expect("it can be copied");
            }
        }
        copy
    };
    for (without, words) in [
        (&["tokenizer.json", "vocab.txt"][..], &["tokenizer.json", "vocab.txt"][..]),
        (&["head.safetensors"], &["head.safetensors"]),
        (&["model.safetensors"], &["no weights", "model.safetensors"]),
        (&["config.json"], &["config.json"]),
    ] {
        let (code, message) = fail(&["predict", "--model", text(&copy(without)), "--text", "好"]);
        assert!(code == 1 && words.iter().all(|word| message.contains(word)), "{code} {message}");
    }
    let unnamed = copy(&["nothing"]);
    let config = fs::read_to_string(unnamed.join("config.json")).expect("it was copied");
    fs::write(unnamed.join("config.json"), config.replace("id2label", "id2nothing")).expect("it is writable");
    // These are the names that transformers gives to two unnamed labels.
    let answer = succeed(&["predict", "--model", text(&unnamed), "--text", "好", "--json"]);
    assert!(answer.contains("LABEL_0") && answer.contains("LABEL_1"), "{answer}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("bad");
    let with = |set: &str| fail(&["train", "--recipe", text(&RECIPE), "--out", text(&out), "--set", set]);
    for (set, expected, words) in [
        ("train.max_lenght=3", 2, &["max_lenght", "max_length"][..]),
        ("train.max_length=4096", 2, &["4096", "128"]),
        ("data.train=nowhere.tsv", 1, &["nowhere.tsv"]),
        ("model.source=dir:/no/such-model", 1, &["/no/such-model"]),
        ("data.label=verdict", 1, &["verdict", "train.tsv"]),
        ("data.labels=['negative', 'neutral']", 1, &["positive", "train.tsv", "line"]),
        ("train.precision=f16", 2, &["f16", "f32"]),
        ("train.precision=int8", 2, &["int8", "bf16"]),
    ] {
        let (code, message) = with(set);
        assert!(code == expected && words.iter().all(|word| message.contains(word)), "{set}: {code} {message}");
        assert!(!out.exists(), "{set} leaves no folder behind");
    }
    let refused = train(&out, &["--backend", "cuda"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("this build has: flex") && message.contains("--features cuda"), "{message}");
    assert!(!out.exists());
    let run = MODEL.parent().expect("a model lies in a run");
    let again = train(run, &[]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
    assert_eq!(fail(&["predict", "--model", text(&MODEL), "--text", "好", "--backend", "tpu"]).0, 2);
}

/// A model with swapped label names is right on the rows where the original is wrong.
#[test]
fn a_better_model_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = folder.path().join("model");
    fs::create_dir(&other).expect("a folder");
    for entry in fs::read_dir(&*MODEL).expect("the model's folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, other.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let config = other.join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&config).expect("it is there")).expect("JSON");
    json["id2label"] = serde_json::json!({ "0": "positive", "1": "negative" });
    json["label2id"] = serde_json::json!({ "positive": 0, "negative": 1 });
    fs::write(&config, json.to_string()).expect("it is writable");

    let changed = folder.path().join("changed.tsv");
    let compare = ["compare", text(&MODEL), text(&other), "--changed", text(&changed)];
    let data = ["--data", text(&test_file())].map(str::to_owned);
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    let json: Value = serde_json::from_str(&succeed(&[&compare[..], &data, &["--json"]].concat())).expect("JSON");
    let number = |name: &str| json[name].as_f64().expect("a number");
    assert_eq!((json["metric"].as_str(), json["examples"].as_u64()), (Some("accuracy"), Some(300)));
    assert!(
        (number("a") + number("b") - 1.0).abs() < 1e-12
            && (number("b") - number("a") - number("difference")).abs() < 1e-12
    );
    assert_eq!(number("only_a") + number("only_b"), 300.0);
    let rows = fs::read_to_string(&changed).expect("it was written");
    assert_eq!(rows.lines().filter(|line| line.ends_with("\ta")).count() as f64, number("only_a"));
    let bound = |at: usize| json["interval"][at].as_f64().expect("a number");
    assert!(bound(0) < number("difference") && number("difference") < bound(1) && number("mcnemar_p") < 1.0, "{json}");

    let same = succeed(&["compare", text(&MODEL), text(&MODEL)]);
    assert!(same.contains("difference +0.0000") && same.trim_end().ends_with("no significant difference"), "{same}");
}
