//! Which features besides plain training each family of encoders supports: through the binary, with random weights.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::sequences::write_texts;
use crate::support::{json_file, run, succeed, succeed_json, text, write_lines};

/// The family's config for this vocabulary size.
fn config(family: &str, vocab_size: usize) -> Value {
    let mut config = json!({
        "model_type": family, "vocab_size": vocab_size, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 40, "pad_token_id": 0,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1,
    });
    let more = match family {
        "modernbert" => json!({"local_attention": 4, "global_attn_every_n_layers": 2}),
        "distilbert" => json!({
            "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0, "attention_dropout": 0.0
        }),
        "albert" | "electra" => json!({"embedding_size": 16, "classifier_dropout_prob": 0.0}),
        _ => json!({}),
    };
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    config
}

/// A folder with rows, a checkpoint `base` without weights, and a recipe that uses it.
fn workplace(family: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_texts(folder.path());
    let words = fs::read_to_string(folder.path().join("vocabulary/vocab.txt")).expect("a small file");
    let base = folder.path().join("base");
    fs::create_dir(&base).expect("a new folder");
    fs::write(base.join("vocab.txt"), &words).expect("a small file");
    fs::write(base.join("config.json"), config(family, words.lines().count()).to_string()).expect("a small file");
    for (split, rows) in [("train", 96), ("validation", 48)] {
        let path = folder.path().join(format!("{split}.tsv"));
        let text = fs::read_to_string(&path).expect("a small file");
        write_lines(&path, text.lines().take(rows));
    }
    let recipe = "task = \"sequence-classification\"\n\
                  [model]\nsource = \"dir:base\"\npooling = \"pooler\"\n\
                  [data]\ntrain = \"train.tsv\"\nvalidation = \"validation.tsv\"\n\
                  [train]\nepochs = 1\nbatch_size = 16\nmax_length = 24\nlearning_rate = 2e-3\n";
    fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
    folder
}

fn set(folder: &Path, command: &str, out: &str, settings: &[&str]) -> Vec<String> {
    let (recipe, out) = (folder.join("recipe.toml"), folder.join(out));
    let mut arguments = vec![command.to_owned(), "--recipe".to_owned(), text(&recipe).to_owned()];
    arguments.extend(["--out".to_owned(), text(&out).to_owned()]);
    arguments.extend(settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]));
    arguments
}

/// The validation loss after a training with these settings.
fn loss(folder: &Path, out: &str, settings: &[&str]) -> f64 {
    let arguments = set(folder, "train", out, settings);
    succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let report = json_file(&folder.join(out).join("report.json"));
    report["splits"]["validation"]["loss"].as_f64().expect("a number")
}

fn refused(folder: &Path, command: &str, settings: &[&str], expected: &str) {
    let arguments = set(folder, command, "refused", settings);
    let output = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{settings:?}: {message}");
    assert!(message.contains(expected), "{settings:?}: {message}");
    assert!(!folder.join("refused").exists(), "{settings:?} leaves a folder");
}

fn scores(arguments: &[&str]) -> Vec<f64> {
    let answer = succeed_json(&[&["predict", "--raw", "--text", "the bread and the bank"], arguments].concat());
    answer["scores"].as_object().expect("scores").values().map(|score| score.as_f64().expect("a number")).collect()
}

fn near(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < tolerance)
}

#[test]
fn every_family_trains_in_every_way_that_it_has() {
    for family in ["modernbert", "albert", "roberta", "distilbert", "electra"] {
        let folder = workplace(family);
        let folder = folder.path();
        let fresh = "model.initialize=random";
        let full = loss(folder, "run", &[fresh]);
        let checkpointed = loss(folder, "checkpointed", &[fresh, "train.gradient_checkpointing=true"]);
        assert!((full - checkpointed).abs() < 1e-4, "{family}: {full} and {checkpointed}");
        let bf16 = loss(folder, "bf16", &[fresh, "train.precision=bf16", "train.gradient_checkpointing=true"]);
        assert!((full - bf16).abs() < 0.05, "{family}: {full} and {bf16} in bf16");

        let trained = text(&folder.join("run/model")).to_owned();
        let (source, teacher) = (format!("model.source=dir:{trained}"), format!("distill.teacher=dir:{trained}"));
        let exact = scores(&["--model", &trained]);
        for precision in ["bf16", "int8"] {
            let rounded = scores(&["--model", &trained, "--precision", precision]);
            assert!(near(&exact, &rounded, 0.05), "{family} {precision}: {exact:?} and {rounded:?}");
        }
        let bundle = text(&folder.join("int8.bundle")).to_owned();
        succeed(&["bundle", "--model", &trained, "--out", &bundle, "--precision", "int8"]);
        assert!(near(&scores(&["--model", &bundle]), &exact, 0.05), "{family}: an int8 bundle");

        for encoder in ["lora", "qlora"] {
            let encoder = [&*format!("model.encoder={encoder}"), "adapter.target_modules=[\"all-linear\"]"];
            loss(folder, "adapted", &[&source, encoder[0], encoder[1], "train.gradient_checkpointing=true"]);
            let adapter = text(&folder.join("adapted/adapter")).to_owned();
            if encoder[0].ends_with("=lora") {
                let merged = scores(&["--model", text(&folder.join("adapted"))]);
                let beside = scores(&["--model", &trained, "--adapter", &adapter]);
                assert!(near(&merged, &beside, 1e-4), "{family}: {merged:?} and {beside:?}");
            }
            fs::remove_dir_all(folder.join("adapted")).expect("it was written");
        }
        let alone = loss(folder, "alone", &[&source]);
        let taught = loss(folder, "taught", &[&source, &teacher, "distill.hidden=true"]);
        assert!(taught.is_finite() && taught != alone, "{family}: the layers take part");
        let kept = ["student.layers=[1]", "distill.hidden=true"];
        if ["modernbert", "albert"].contains(&family) {
            refused(folder, "train", &[&source, &teacher, kept[0], kept[1]], "student.layers");
        } else {
            loss(folder, "student", &[&source, &teacher, kept[0], kept[1]]);
        }
    }
}

#[test]
fn pre_training_is_refused_where_a_family_has_no_head_for_it() {
    for family in ["modernbert", "albert", "roberta", "distilbert", "electra", "ernie"] {
        let folder = workplace(family);
        let folder = folder.path();
        let rows = fs::read_to_string(folder.join("train.tsv")).expect("a small file");
        let sentences = rows.lines().map(|row| row.split('\t').next().expect("a text"));
        let documents =
            sentences.enumerate().map(|(at, text)| format!("{text}{}", if at % 8 == 7 { "\n" } else { "" }));
        write_lines(&folder.join("raw.txt"), documents);
        let recipe = "task = \"masked-lm\"\nnext_sentence = false\nmodel.source = \"dir:base\"\n\
                      model.initialize = \"random\"\n[data]\nfiles = [\"raw.txt\"]\n\
                      [train]\nepochs = 1\nmax_length = 24\n";
        fs::write(folder.join("recipe.toml"), recipe).expect("a small file");
        let family_is_named = format!("`model_type` is \"{family}\"");
        if family != "ernie" {
            refused(folder, "pretrain", &["next_sentence=true"], &family_is_named);
        }
        if family == "electra" {
            refused(folder, "pretrain", &[], &family_is_named);
            continue;
        }
        let arguments = set(folder, "pretrain", "run", &["train.gradient_checkpointing=true"]);
        succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let model = folder.join("run");
        let filled = succeed_json(&["fill-mask", "--model", text(&model), "--text", "the [MASK] was there"]);
        let tokens = filled["masks"][0]["tokens"].as_array().expect("candidates");
        assert_eq!(tokens.len(), 5, "{family}: {filled}");
        let best = tokens[0]["text"].as_str().expect("a text");
        assert_eq!(filled["filled"], format!("the {best} was there"), "{family}");
    }
}
