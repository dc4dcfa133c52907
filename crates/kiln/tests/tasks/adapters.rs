//! Adapters from a recipe to predictions: a run writes the right files and does not change the base, and a resumed run is
//! the same as an uninterrupted one.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{json_file, kiln, succeed, succeed_json, text};

/// It is longer than `train.max_length`, which an adapter keeps.
const REVIEW: &str = "房间很干净，服务也很好，早餐丰富，位置方便。可是隔音太差，晚上很吵，再也不来了";

struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    /// A small recipe on a copy of the sample's encoder.
    fn new(recipe: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files");
        let reviews = fs::read_to_string(sample.join("train.tsv")).expect("the sample's data");
        let rows: Vec<&str> = reviews.lines().skip(1).collect();
        for (name, rows) in [("train.tsv", &rows[..96]), ("dev.tsv", &rows[96..128])] {
            fs::write(folder.path().join(name), rows.join("\n")).expect("a small file");
        }
        let base = PathBuf::from(succeed(&["pull", "sample"]).trim());
        let copy = folder.path().join("base");
        fs::create_dir(&copy).expect("it is writable");
        for entry in fs::read_dir(&base).expect("it is a folder") {
            let path = entry.expect("it is listed").path();
            fs::copy(&path, copy.join(path.file_name().expect("a file has a name"))).expect("it is writable");
        }
        let recipe = format!(
            "task = \"sequence-classification\"\nmodel.source = \"dir:base\"\n{recipe}\n\
             [data]\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\n\
             [train]\nepochs = 2\nbatch_size = 8\nmax_length = 24\nlearning_rate = 1e-2\n"
        );
        fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name)).to_owned()
    }

    fn train(&self, out: &str, more: &[&str]) {
        succeed(&[&["train", "--recipe", &self.path("recipe.toml"), "--out", &self.path(out)], more].concat());
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn score(&self, arguments: &[&str]) -> Vec<(String, f64)> {
        let answer = succeed_json(&[&["predict", "--text", REVIEW], arguments].concat());
        let scores = answer["scores"].as_object().expect("scores of labels");
        scores.iter().map(|(label, score)| (label.clone(), score.as_f64().expect("a number"))).collect()
    }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-5
}

fn same(what: &str, found: &[(String, f64)], expected: &[(String, f64)]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for ((label, score), (other, expected)) in found.iter().zip(expected) {
        assert!(label == other && near(*score, *expected), "{what}: {label} {score}, not {other} {expected}");
    }
}

#[test]
fn a_run_s_adapter_on_its_base_is_its_model() {
    for (name, model, adapter) in [
        ("lora", "model.encoder = \"lora\"\nmodel.pooling = \"pooler\"", ""),
        (
            "dora",
            "model.encoder = \"lora\"\nmodel.pooling = \"cls\"",
            "variant = \"dora\"\ntarget_modules = [\"dense\"]",
        ),
        ("qlora", "model.encoder = \"qlora\"\nmodel.hidden_layers = [7]", "rank = 4\ndropout = 0.1"),
    ] {
        let place = Workplace::new(&format!("{model}\n[adapter]\n{adapter}"));
        let base = place.read("base/model.safetensors");
        place.train("run", &[]);
        assert!(place.read("base/model.safetensors") == base, "{name}: no byte of the base has changed");
        let config = json_file(Path::new(&place.path("run/adapter/adapter_config.json")));
        assert_eq!((&config["peft_type"], &config["use_dora"]), (&Value::from("LORA"), &Value::from(name == "dora")));
        // The sample's encoder has no pooler, so a new one is part of the adapter.
        let modules = config["modules_to_save"].as_array().expect("a list");
        assert_eq!(modules.contains(&"pooler".into()), name == "lora", "{name}: {modules:?}");

        let (run, base, adapter) = (place.path("run"), place.path("base"), place.path("run/adapter"));
        let expected = place.score(&["--model", &run]);
        same(name, &place.score(&["--model", &base, "--adapter", &adapter]), &expected);
        same(name, &place.score(&["--model", &base, "--adapter", &run]), &expected);
        let merged = place.path("merged");
        succeed(&["merge", "--model", &base, "--adapter", &adapter, "--out", &merged]);
        same(name, &place.score(&["--model", &merged]), &expected);
        let bundle = place.path("bundle");
        let manifest = succeed_json(&["bundle", "--model", &base, "--adapter", &run, "--out", &bundle]);
        same(name, &place.score(&["--model", &bundle]), &expected);
        assert!(manifest["base"]["source"].as_str().is_some_and(|source| source.starts_with("dir:")), "{manifest}");
        let loss = |model: &[&str]| {
            let report = succeed_json(&[&["eval", "--data", &place.path("dev.tsv"), "--label", "1"], model].concat());
            report["splits"]["test"]["loss"].as_f64().expect("a number")
        };
        let of_adapter = loss(&["--model", &base, "--adapter", &adapter]);
        assert!(near(of_adapter, loss(&["--model", &merged])), "{name}: {of_adapter}");
        let own_model = place.path("run/model");
        let twice =
            kiln(&["predict", "--model", &own_model, "--adapter", &run, "--text", REVIEW]).output().expect("it runs");
        let message = String::from_utf8_lossy(&twice.stderr);
        assert!(
            twice.status.code() == Some(2) && message.contains("already contains its adapter"),
            "{name}: {message}"
        );
        let again =
            kiln(&["merge", "--model", &base, "--adapter", &adapter, "--out", &merged]).output().expect("it runs");
        assert_eq!(again.status.code(), Some(2), "{name}: nothing is overwritten");
    }
}

#[cfg(unix)]
#[test]
fn a_resumed_adapter_is_the_uninterrupted_one_to_the_bit() {
    let place = Workplace::new("model.encoder = \"lora\"\n[adapter]\ndropout = 0.2\ntrain_pooler = true");
    let set = ["--set", "train.epochs=6", "--set", "train.gradient_checkpointing=true"];
    place.train("whole", &set);
    let (recipe, out) = (place.path("recipe.toml"), place.path("cut"));
    let arguments = [&["train", "--recipe", &recipe, "--out", &out], &set[..]].concat();
    crate::support::interrupt_and_resume(&arguments);
    for file in ["adapter/adapter_model.safetensors", "adapter/head.safetensors", "model/model.safetensors"] {
        assert!(place.read(&format!("whole/{file}")) == place.read(&format!("cut/{file}")), "{file}");
    }
    // A checkpoint holds only the trained weights, which are far fewer than those of the base.
    let checkpoint = place.read("whole/checkpoints/last.safetensors").len();
    assert!(checkpoint * 4 < place.read("base/model.safetensors").len() * 3, "{checkpoint} bytes");
}

#[test]
fn what_cannot_be_is_refused() {
    let place = Workplace::new("model.encoder = \"lora\"");
    let refused = |set: &str, expected: &str| {
        let (recipe, out) = (place.path("recipe.toml"), place.path("none"));
        let output = kiln(&["train", "--recipe", &recipe, "--out", &out, "--set", set]).output().expect("it runs");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(expected), "{message}");
    };
    refused("adapter.target_modules=[\"q_lin\"]", "no linear layer is called q_lin");
    refused("adapter.rank=0", "adapter.rank is 0");
    refused("adapter.ranks=3", "did you mean");
}

/// A server that is killed when the test ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The prediction of a model of the server at `url` for a text: scores by label.
fn asked(url: &str, model: &str, text: &str) -> Vec<(String, f64)> {
    let address = url.trim().strip_prefix("http://").expect("its address");
    let mut stream = TcpStream::connect(address).expect("it listens");
    let body = serde_json::json!({ "inputs": text, "parameters": { "top_k": 9 } }).to_string();
    write!(
        stream,
        "POST /models/{model} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let list: Value = serde_json::from_str(body).expect("JSON");
    // There is one list for each text.
    let mut scores: Vec<(String, f64)> = list[0]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| (item["label"].as_str().expect("a label").to_owned(), item["score"].as_f64().expect("a number")))
        .collect();
    scores.sort_by(|a, b| a.0.cmp(&b.0));
    scores
}

#[test]
fn adapters_are_served_on_one_base() {
    let place = Workplace::new("model.encoder = \"lora\"");
    place.train("one", &[]);
    place.train("two", &["--set", "model.encoder=qlora", "--set", "train.seed=7"]);
    let (base, adapters) = (place.path("base"), [place.path("one"), format!("second={}", place.path("two/adapter"))]);
    let mut command =
        kiln(&["serve", &base, "--truncate", "--port", "0", "--adapter", &adapters[0], "--adapter", &adapters[1]]);
    let mut server = Server(command.stdout(Stdio::piped()).spawn().expect("it runs"));
    let mut url = String::new();
    BufReader::new(server.0.stdout.take().expect("it is piped")).read_line(&mut url).expect("a line");
    for (name, run) in [("one", "one"), ("second", "two")] {
        let expected = place.score(&["--model", &place.path(run)]);
        same(name, &asked(&url, name, REVIEW), &expected);
    }
    drop(server);

    for (models, found) in [(vec![base.as_str(), "x=sample"], "found 2 models"), (vec!["sample"], "one/none")] {
        let adapter = if models.len() == 1 { place.path("one/none") } else { place.path("one") };
        let arguments = [&["serve", "--port", "0", "--adapter", &adapter][..], &models].concat();
        let refused = kiln(&arguments).output().expect("it runs");
        let message = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && message.contains(found), "{message}");
    }
}
