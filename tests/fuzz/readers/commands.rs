//! Recipes, overrides and run folders, read by the `kiln` binary.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Answer, Context, Input, Reader, fingerprint, judge_nothing, models};
use crate::seed::Seed;

pub const COMMANDS: Reader =
    Reader { name: "commands", share: 1, seeds, read: run, judge: judge_nothing, repeated: false };

/// The largest number of characters in a line of output.
const LONGEST_LINE: usize = 8_192;

/// A command that takes longer is stopped, before the campaign stops the case.
const LIMIT: Duration = Duration::from_secs(8);
/// The limit when a case runs alone.
const LIMIT_ALONE: Duration = Duration::from_secs(80);

const RECIPE: &str = r#"task = "sequence-classification"

[model]
source = "dir:model"
encoder = "full"
pooling = "mean"
hidden_layers = [4]

[data]
files = ["train.tsv"]
text = "text"
label = "label"
header = true
labels = ["a", "b"]
split = { train = 0.5, validation = 0.25, test = 0.25, seed = 1 }

[train]
epochs = 1
batch_size = 4
gradient_accumulation_steps = 1
learning_rate = 1e-3
lr_scheduler = "linear"
warmup_ratio = 0.1
weight_decay = 0.01
max_grad_norm = 1.0
early_stopping_patience = 1
max_length = 16
seed = 3
precision = "f32"
"#;

const SET: &str = "train.epochs=1\nmodel.hidden_layers=[3]\ntrain.learning_rate=1e-4\ndata.label=\"label\"\n";

fn data() -> String {
    let row = |row: usize| {
        format!(
            "{}\t{}\n",
            ["房间", "clean", "un-able", "cafe"][row % 4].repeat(row % 3 + 1) + &"!".repeat(row),
            ["a", "b"][row % 2]
        )
    };
    format!("text\tlabel\n{}", (0..16).map(row).collect::<String>())
}

fn seeds(context: &Context) -> anyhow::Result<Vec<Seed>> {
    let common = |seed: Seed| seed.beside("train.tsv", data()).beside_folder("model", &models::classifier());
    let recipe = |name| common(Seed::new(name).with("recipe.toml", RECIPE));
    let run = recipe("resume");
    let folder = context.scratch.join("input");
    run.write(&folder, None)?;
    kiln(context, &["train", "--recipe", "recipe.toml", "--out", "run"])?;
    let mut resume = common(Seed::new("resume").beside("recipe.toml", RECIPE));
    for file in ["run.toml", "metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors"] {
        resume = resume.with(format!("run/{file}"), std::fs::read(folder.join("run").join(file))?);
    }
    let corpus = "房间 clean un-able\ncafe clean!\n\n房 间 clean\n间 un!\n\n".repeat(4);
    let pretrain = "task = \"masked-lm\"\nnext_sentence = true\n[model]\nsource = \"dir:model\"\n[data]\ntrain = \"corpus.txt\"\n[masking]\nshare = 0.15\n[train]\nepochs = 1\nbatch_size = 8\nmax_length = 16\n";
    Ok(vec![
        recipe("audit"),
        recipe("audit"),
        recipe("train"),
        common(Seed::new("set").beside("recipe.toml", RECIPE).with("set.txt", SET)),
        resume,
        Seed::new("pretrain")
            .with("recipe.toml", pretrain)
            .beside("corpus.txt", corpus)
            .beside_folder("model", &models::classifier()),
    ])
}

fn run(input: &Input<'_>) -> anyhow::Result<Answer> {
    let set = std::fs::read(input.folder.join("set.txt")).unwrap_or_default();
    let set = String::from_utf8_lossy(&set);
    // Arguments cannot contain NUL, and the length of a command line is limited.
    let set = set.lines().map(|line| line.replace('\0', "")).filter(|line| line.len() < 50_000);
    let set: Vec<String> = set.flat_map(|line| ["--set".to_owned(), line]).collect();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    // A recipe with many epochs is valid, so the number of epochs is overridden.
    let train = ["train", "--recipe", "recipe.toml", "--out", "run", "--set", "train.epochs=1"];
    let arguments: Vec<&str> = match input.seed {
        "audit" => vec!["data", "audit", "--recipe", "recipe.toml"],
        "set" => [&["data", "audit", "--recipe", "recipe.toml"], set.as_slice()].concat(),
        "resume" => [&train[..], &["--resume"]].concat(),
        "pretrain" => ["pretrain"].iter().chain(&train[1..]).copied().collect(),
        _ => train.to_vec(),
    };
    let shown = kiln(input.context, &arguments)?;
    Ok(Answer { fingerprint: fingerprint(&shown), rows: 0, problem: None })
}

/// Runs a command in the input's folder. Returns its output, as an error if it failed. Panics if the command crashed.
fn kiln(context: &Context, arguments: &[&str]) -> anyhow::Result<String> {
    let output = context.scratch.join("output.txt");
    let open = || std::fs::File::create(&output);
    let file = open()?;
    let mut child = Command::new(&context.kiln)
        .args(arguments)
        .current_dir(context.scratch.join("input"))
        .env("KILN_CACHE", context.scratch.join("cache"))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot run {}", context.kiln.display()))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let limit = if context.alone { LIMIT_ALONE } else { LIMIT };
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            // Waits until the campaign ends this worker and runs the case alone.
            if !context.alone {
                loop {
                    std::thread::sleep(LIMIT);
                }
            }
            panic!("kiln {} took longer than {} s", arguments.join(" "), limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = String::from_utf8_lossy(&std::fs::read(&output)?).into_owned();
    if let Some(line) = text.lines().find(|line| line.chars().count() > LONGEST_LINE) {
        let start: String = line.chars().take(100).collect();
        panic!("kiln {} wrote a line of {} bytes: {start}", arguments.join(" "), line.len());
    }
    let tail: String = text.chars().rev().take(6_000).collect::<Vec<_>>().into_iter().rev().collect();
    match status.code() {
        Some(0) if !text.contains("panicked at") => Ok(text),
        Some(1 | 2) if !text.contains("panicked at") => bail!("{tail}"),
        _ => panic!("kiln {} ended with {status}: {tail}", arguments.join(" ")),
    }
}
