//! `kiln train`: the stages of a training, one after another. `kiln pipeline` runs the same.

mod job;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::module::Module;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bert::{BertConfig, LayerInputs};
use kiln_dataset::audit;
use kiln_eval::{Report, SplitReport, TrainReport, mistakes, to_tsv};
use kiln_heads::{Classifier, Pretrained, PretrainedConfig, SequenceClassifier, save_classifier};
use kiln_hub::{PullConfig, Source};
use kiln_schema::Example;
use kiln_tokenize::Tokenizer;
use kiln_train::Encoded;

use crate::checkpoint::{fetch, fetch_data};
use crate::cli::{RunArgs, TrainArgs, UsageError};
use crate::commands::data::{encode, report_leaks, splits, token_lengths};
use crate::console::{self, stage};
use crate::environment::pull_config;
use crate::recipe::{Encoder, Model, Recipe, available};
use crate::run_folder::{RunFolder, peak_rss_bytes, sha256, write_report};

use job::{Job, Trained};

pub fn run<B: Backend>(arguments: &TrainArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.run.set.set)?;
    let name = arguments.recipe.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
    train::<B>(&recipe, name, &arguments.run, device)?.print(json)
}

/// A training that ended.
pub struct Outcome {
    report: Report,
    folder: PathBuf,
}

impl Outcome {
    /// The report as JSON, or as a table with the run's folder.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return console::json(&self.report);
        }
        console::result(format_args!(
            "\n{:<10} {:>8} {:>8} {:>9} {:>17} {:>9}",
            "split", "examples", "loss", "accuracy", "95 % interval", "macro F1"
        ));
        for (split, report) in &self.report.splits {
            let SplitReport { examples, loss, accuracy, accuracy_interval: [low, high], macro_f1, .. } = report;
            let interval = format!("{low:.4} to {high:.4}");
            console::result(format_args!(
                "{split:<10} {examples:>8} {loss:>8.4} {accuracy:>9.4} {interval:>17} {macro_f1:>9.4}"
            ));
        }
        console::result(format_args!("\n{}", self.folder.display()));
        Ok(())
    }
}

/// Pull, read, split, tokenize, audit, train, evaluate.
pub fn train<B: Backend>(recipe: &Recipe, name: &str, arguments: &RunArgs, device: &Device) -> anyhow::Result<Outcome> {
    let precision = available::<B>(recipe.train.precision)?;
    console::watch_ctrl_c()?;
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    let checkpoint = pull(recipe, &config)?;
    let (files, data) = fetch_data(&recipe.data, &config)?;

    let (examples, labels) = splits(&recipe.data, &files)?;
    let sizes: Vec<String> = examples.iter().map(|(split, rows)| format!("{split} [{}]", rows.len())).collect();
    stage("read", "kiln-dataset", format_args!("{}; labels {}", sizes.join(", "), labels.names().join(", ")));

    let tokenizer = checkpoint.tokenizer.with_max_length(recipe.train.max_length)?;
    let encodings = encode(&tokenizer, &examples)?;
    let longest = encodings.train.iter().map(|encoding| encoding.input_ids.len()).max().unwrap_or(0);
    let shape = format!("train input_ids [{}, ≤ {longest}]", encodings.train.len());
    stage("tokenize", "kiln-tokenize", format_args!("{shape}, vocabulary {}", tokenizer.vocab_size()));

    let audit = audit(&examples, &labels, Some(token_lengths(&encodings, recipe.train.max_length)));
    stage("audit", "kiln-dataset", audit.summary().trim_end());
    report_leaks(&audit, arguments.strict)?;

    device.seed(recipe.train.seed);
    let mut pretrained = PretrainedConfig {
        start: recipe.model.initialize,
        frozen: recipe.model.encoder == Encoder::Frozen,
        pooling: recipe.model.pooling,
        hidden_layers: recipe.model.hidden_layers.clone(),
        num_labels: labels.len(),
    }
    .load(&checkpoint.folder, device)?;
    pretrained.model.bert.products.precision = precision;
    pretrained.model.bert.layer_inputs = recipe.train.gradient_checkpointing.then(LayerInputs::default);
    describe_model(recipe, &pretrained, longest, labels.len());

    let folder = RunFolder::create(arguments.out.as_deref(), name, arguments.resume)?;
    let weights_hash = weights_hash(&checkpoint.folder)?;
    let pinned = Recipe { model: Model { source: checkpoint.source, ..recipe.model.clone() }, data, ..recipe.clone() };
    folder.write_recipe(&pinned, &files, B::NAME, &weights_hash)?;

    let pad_token_id = tokenizer.pad_token_id();
    let targets = examples.as_ref().map(|_, rows| rows.iter().map(|example| example.target).collect());
    let sets = encodings.zip(targets).map(|_, (encodings, targets)| Encoded::new(encodings, targets, pad_token_id));
    let job = Job { recipe, labels: &labels, folder: &folder, device, resume: arguments.resume };
    let (trained, model) = match recipe.model.encoder {
        Encoder::Full => {
            let trained = job.fit(&sets, pretrained.model, 0.0)?;
            let model = trained.model.clone();
            (trained.without_model(), model)
        }
        Encoder::Frozen => {
            let (features, seconds) = job.features(&sets, &pretrained.model, weights_hash)?;
            let trained = job.fit(&features, pretrained.model.head.clone(), seconds)?;
            let model = SequenceClassifier { head: trained.model.clone(), ..pretrained.model };
            (trained.without_model(), model)
        }
    };

    let Trained { train, splits, logits, .. } = trained;
    let report = Report {
        task: recipe.task,
        model: recipe.model.source.to_string(),
        backend: B::NAME.to_owned(),
        splits,
        train: Some(TrainReport { peak_rss_bytes: peak_rss_bytes(), ..train }),
    };
    // The mistakes of the test, or where there is none, of the validation.
    let judged: &[Example] = examples.test.as_ref().unwrap_or(&examples.validation);
    let targets: Vec<usize> = judged.iter().map(|example| example.target).collect();
    let errors = to_tsv(&mistakes(&logits, &targets, MISTAKES), judged, &labels);
    save_classifier(&folder.model(), &Classifier { model, config: pretrained.config, labels })?;
    tokenizer.save(&folder.model())?;
    write_report(&folder.path, &report, &errors)?;
    stage("evaluate", "kiln-eval", "report.json, report.html, errors.tsv");
    Ok(Outcome { report, folder: folder.path })
}

/// How many mistakes `errors.tsv` lists.
pub const MISTAKES: usize = 50;

struct Checkpoint {
    /// At the commit that came, where there are commits.
    source: Source,
    folder: PathBuf,
    tokenizer: Tokenizer,
}

/// The checkpoint's folder, its config and tokenizer held against the recipe before anything costs time.
fn pull(recipe: &Recipe, config: &PullConfig) -> anyhow::Result<Checkpoint> {
    let source = &recipe.model.source;
    let snapshot = fetch(source, config).with_context(|| format!("model.source = \"{source}\""))?;
    let config = BertConfig::from_folder(&snapshot.folder)?;
    let max_length = recipe.train.max_length;
    if max_length > config.max_position_embeddings {
        bail!(UsageError(format!(
            "train.max_length is {max_length}, and {source} has {} positions",
            config.max_position_embeddings
        )));
    }
    let tokenizer = Tokenizer::from_folder(&snapshot.folder)?;
    if tokenizer.vocab_size() > config.vocab_size {
        bail!(
            "{}: the tokenizer has {} entries and the model's word embeddings only {}; they are not of one model",
            snapshot.folder.display(),
            tokenizer.vocab_size(),
            config.vocab_size
        );
    }
    stage("pull", "kiln-hub", format_args!("{source} → {}", snapshot.folder.display()));
    let source = snapshot.pinned.map_or_else(|| source.clone(), Source::from);
    Ok(Checkpoint { source, folder: snapshot.folder, tokenizer })
}

fn describe_model(recipe: &Recipe, pretrained: &Pretrained, longest: usize, num_labels: usize) {
    let Pretrained { model, config, unused, fresh_pooler } = pretrained;
    let batch = recipe.train.batch_size;
    let (layers, heads, hidden) = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size);
    let encoder = format!("L{layers} H{hidden} A{heads}, {} parameters", model.bert.num_params());
    stage("model", "kiln-bert", format_args!("{encoder}; hidden_states [{batch}, ≤ {longest}, {hidden}]"));
    let pooling = format!("{:?}", model.pooling).to_lowercase();
    let head = format!("{pooling} pooling, {} parameters", model.head.num_params());
    stage("", "kiln-heads", format_args!("{head}; pooled [{batch}, {hidden}] → logits [{batch}, {num_labels}]"));
    if *fresh_pooler {
        console::warn("the checkpoint has no pooler; a fresh one is trained");
    }
    if !unused.is_empty() {
        console::log(format_args!("unused tensors of the checkpoint: {}", unused.join(", ")));
    }
}

/// One hash for all files of weights in a folder.
fn weights_hash(folder: &Path) -> anyhow::Result<String> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors" || ending == "bin"));
    files.sort();
    sha256(files)
}
