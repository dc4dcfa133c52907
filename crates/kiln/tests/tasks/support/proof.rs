//! Tests one task from files to predictions in all supported ways.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{json_file, json_lines, succeed, succeed_json, text, write_lines};

/// A task in a folder that holds `recipe.toml` and its files.
pub struct Case<'a> {
    pub folder: &'a Path,
    /// `train` or `pretrain`.
    pub command: &'a str,
    /// The split whose file is `data`.
    pub split: &'a str,
    /// The labelled file that the split was read from.
    pub data: &'a str,
    /// The metric of the task, and the score that it must reach.
    pub metric: &'a str,
    pub at_least: f64,
}

/// A trained model that has passed [`Case::prove`].
pub struct Proved {
    pub model: PathBuf,
    /// The score of the task's metric.
    pub score: f64,
}

/// The maximum loss of score from rounding weights and activations.
const ROUNDING: f64 = 0.03;

/// The maximum loss of score for a student with half as many layers.
const FORGOTTEN: f64 = 0.2;

impl Case<'_> {
    /// Trains, evaluates in each precision and in a bundle, resumes after an interruption, and trains in bf16.
    pub fn prove(&self) -> Proved {
        self.prove_in("run")
    }

    /// The same, with the first training in another folder.
    pub fn prove_in(&self, name: &str) -> Proved {
        let (run, report) = self.train(name, &[]);
        assert_eq!(json_file(&run.join("report.json")), report, "what is printed is what is written");
        let score = self.score(&report);
        assert!(score >= self.at_least, "{}: {score}, expected {}: {report}", self.metric, self.at_least);

        let model = run.join("model");
        let evaluated = self.evaluate(&model, "f32");
        close(&evaluated["splits"]["test"], &report["splits"][self.split], 1e-5, "eval and the report");
        for precision in ["bf16", "int8"] {
            let score = evaluated_score(&self.evaluate(&model, precision), self.metric);
            assert!(score >= self.at_least - ROUNDING, "{}: {score} in {precision}", self.metric);
        }
        self.bundle(&run);
        self.resume(&run);
        let (_, report) = self.train("bf16", &["--set", "train.precision=bf16"]);
        let score_of_bf16 = self.score(&report);
        assert!(score_of_bf16 >= self.at_least - ROUNDING, "{}: {score_of_bf16} trained in bf16", self.metric);
        Proved { model, score }
    }

    fn arguments<'b>(&'b self, recipe: &'b Path, run: &'b Path) -> [&'b str; 5] {
        [self.command, "--recipe", text(recipe), "--out", text(run)]
    }

    fn train(&self, name: &str, more: &[&str]) -> (PathBuf, Value) {
        let (recipe, run) = (self.folder.join("recipe.toml"), self.folder.join(name));
        let report = succeed_json(&[&self.arguments(&recipe, &run), more].concat());
        (run, report)
    }

    fn score(&self, report: &Value) -> f64 {
        report["splits"][self.split][self.metric].as_f64().unwrap_or_else(|| panic!("no {}: {report}", self.metric))
    }

    fn evaluate(&self, model: &Path, precision: &str) -> Value {
        let data = self.folder.join(self.data);
        succeed_json(&["eval", "--model", text(model), "--data", text(&data), "--precision", precision])
    }

    /// Trains a student that keeps the last layer of the model in `run` and learns from that model, layer by layer. After
    /// an interruption, the resumed student must be the same.
    pub fn teach(&self) {
        let recipe = fs::read_to_string(self.folder.join("recipe.toml")).expect("a small file");
        let lines = recipe.lines().filter(|line| !line.contains("size = \"tiny\""));
        let lines = lines.map(|line| line.replace("dir:vocabulary", "dir:run/model"));
        let taught = lines.chain(TAUGHT.lines().map(str::to_owned));
        let (path, run) = (self.folder.join("taught.toml"), self.folder.join("student"));
        write_lines(&path, taught);
        let report = succeed_json(&self.arguments(&path, &run));
        let score = self.score(&report);
        assert!(score >= self.at_least - FORGOTTEN, "{}: {score} of a student: {report}", self.metric);
        assert_eq!(json_file(&run.join("model/config.json"))["num_hidden_layers"], 1);
        let resumed = self.folder.join("resumed-student");
        self.interrupt(&path, &resumed);
        self.same(&resumed, &run);
    }

    /// Checks that a bundle loses little, and that its score is the one in its manifest.
    fn bundle(&self, run: &Path) {
        let (data, out) = (self.folder.join(self.data), self.folder.join("bundle"));
        let arguments = ["bundle", "--model", text(run), "--out", text(&out), "--precision", "int8"];
        let most = (ROUNDING * 100.0).to_string();
        let manifest = succeed_json(&[&arguments[..], &["--check", text(&data), "--max-loss", &most]].concat());
        let check = &manifest["check"];
        let metric = check["metric"].as_str().unwrap_or_else(|| panic!("no metric: {manifest}"));
        let evaluated = succeed_json(&["eval", "--model", text(&out), "--data", text(&data)]);
        assert_eq!(evaluated["splits"]["test"][metric], check["bundle"], "{metric}");
        succeed(&["verify", text(&out)]);
    }

    /// Checks that a run that was interrupted and resumed is byte for byte the same as `whole`.
    fn resume(&self, whole: &Path) {
        let (recipe, run) = (self.folder.join("recipe.toml"), self.folder.join("resumed"));
        self.interrupt(&recipe, &run);
        self.same(&run, whole);
    }

    #[cfg(unix)]
    fn interrupt(&self, recipe: &Path, run: &Path) {
        super::interrupt_and_resume(&self.arguments(recipe, run));
    }

    /// Without signals, the run is only repeated.
    #[cfg(not(unix))]
    fn interrupt(&self, recipe: &Path, run: &Path) {
        succeed(&self.arguments(recipe, run));
    }

    fn same(&self, run: &Path, whole: &Path) {
        let mut compared = 0;
        for entry in fs::read_dir(whole.join("model")).expect("it is there") {
            let name = entry.expect("it is listed").file_name();
            let read = |run: &Path| fs::read(run.join("model").join(&name)).expect("it was written");
            assert!(read(run) == read(whole), "{} differs after a resumption", name.display());
            compared += usize::from(name.to_string_lossy().ends_with(".safetensors"));
        }
        assert!(compared > 0, "no weights were compared");
        let report = |run: &Path| json_file(&run.join("report.json"))["splits"].clone();
        assert_eq!(report(run), report(whole));
        let epochs = |run: &Path| json_lines(&run.join("metrics.jsonl")).len();
        assert_eq!(epochs(run), epochs(whole));
    }
}

/// The additional sections of a recipe for a student.
const TAUGHT: &str = r#"
[distill]
teacher = "dir:run"
alpha = 0.3
hidden = true
[student]
layers = [1]
"#;

fn evaluated_score(report: &Value, metric: &str) -> f64 {
    report["splits"]["test"][metric].as_f64().unwrap_or_else(|| panic!("no {metric}: {report}"))
}

impl Proved {
    /// The model's predictions for a file of texts or pairs. Checks that they are the same with `--text`, and nearly the
    /// same in other precisions.
    pub fn answers(&self, texts: &[(String, Option<String>)], is_same: impl Fn(&Value, &Value) -> bool) -> Vec<Value> {
        let folder = self.model.parent().expect("a model is in a run's folder");
        let file = folder.join("questions.jsonl");
        write_lines(
            &file,
            texts.iter().map(|(text, pair)| match pair {
                None => json!({ "text": text }).to_string(),
                Some(pair) => json!({ "text": text, "text_pair": pair }).to_string(),
            }),
        );
        let by_file = |precision: &str| {
            let out = folder.join(format!("answers-{precision}.jsonl"));
            let mut arguments = vec!["predict", "--model", text(&self.model), "--file", text(&file)];
            arguments.extend(["--out", text(&out), "--precision", precision, "--text-column", "text"]);
            if texts[0].1.is_some() {
                arguments.extend(["--text-pair-column", "text_pair"]);
            }
            succeed(&arguments);
            json_lines(&out)
        };
        let answers = by_file("f32");
        assert_eq!(answers.len(), texts.len());
        for ((text, pair), answer) in texts.iter().zip(&answers).take(4) {
            close(&self.answer(text, pair.as_deref()), answer, 1e-5, text);
        }
        for precision in ["bf16", "int8"] {
            let same =
                by_file(precision).iter().zip(&answers).filter(|(rounded, exact)| is_same(rounded, exact)).count();
            assert!(same * 100 >= texts.len() * 95, "{same} of {} answers are the same in {precision}", texts.len());
        }
        answers
    }

    /// The prediction for one text.
    pub fn answer(&self, asked: &str, pair: Option<&str>) -> Value {
        let mut arguments = vec!["predict", "--model", text(&self.model), "--text", asked];
        arguments.extend(pair.into_iter().flat_map(|pair| ["--text-pair", pair]));
        succeed_json(&arguments)
    }
}

/// Fails if two JSON values differ by more than rounding.
pub fn close(a: &Value, b: &Value, tolerance: f64, what: &str) {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64().expect("a number"), y.as_f64().expect("a number"));
            assert!((x - y).abs() <= tolerance * y.abs().max(1.0), "{what}: {x} and {y}");
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).for_each(|(x, y)| close(x, y, tolerance, what));
        }
        (Value::Object(x), Value::Object(y)) if x.len() == y.len() => {
            for (key, x) in x {
                let y = y.get(key).unwrap_or_else(|| panic!("{what}: no {key} in {b}"));
                close(x, y, tolerance, &format!("{what}, {key}"));
            }
        }
        _ => assert_eq!(a, b, "{what}"),
    }
}
