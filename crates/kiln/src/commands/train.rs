//! `kiln train`: the stages of a training, one after another. `kiln pipeline` runs the same.

mod job;
pub mod sequences;
pub mod tags;
pub mod answers;
pub mod pretraining;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::module::Module;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bert::{Bert, BertConfig, LayerInputs};
use kiln_dataset::{Lengths, Record, audit};
use kiln_eval::{Report, Scores, SplitReport, TrainReport};
use kiln_heads::{Pretrained, PretrainedConfig, TaskModel, save_model};
use kiln_hub::{Location, PullConfig, Source};
use kiln_kernels::Precision;
use kiln_schema::{LabelId, LabelSet, ProblemType, Split, Splits, Task};
use kiln_tokenize::{ModelLimits, Tokenizer};

use crate::checkpoint::{fetch, fetch_data};
use crate::cli::{RunArgs, TrainArgs, UsageError};
use crate::commands::data::{names, report_leaks, splits};
use crate::console::{self, OutputError, stage, unused_tensors};
use crate::environment::pull_config;
use crate::interrupt::watch_signals;
use crate::recipe::{Data, Encoder, Files, Model, Recipe, available};
use crate::run_folder::{RunFolder, peak_rss_bytes, sha256, write_report};

use job::Job;

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
        print_splits(&self.report)?;
        Ok(console::result(format_args!("\n{}", self.folder.display()))?)
    }
}

/// A row a split: its examples, and the numbers that stand for the whole.
pub fn print_splits(report: &Report) -> Result<(), OutputError> {
    let Some(first) = report.splits.values().next() else { return Ok(()) };
    let heads: String = first.named().iter().map(|(name, _)| format!(" {name:>16}")).collect();
    console::result(format_args!("\n{:<10} {:>8}{heads}", "split", "examples"))?;
    for (split, report) in &report.splits {
        let numbers: String = report.named().iter().map(|(_, number)| format!(" {number:>16.4}")).collect();
        console::result(format_args!("{split:<10} {:>8}{numbers}", report.examples))?;
        if let Scores::Labels(scores) = &report.scores {
            let [low, high] = scores.accuracy_interval;
            let roc_auc = scores.roc_auc.map(|area| format!(", ROC-AUC {area:.4}")).unwrap_or_default();
            let other = format!("{roc_auc}, MCC {:.4}", scores.mcc);
            console::result(format_args!("{:<19} accuracy within {low:.4} to {high:.4} (95 %){other}", ""))?;
        }
    }
    Ok(())
}

/// Pull, read, split, tokenize, audit, train, evaluate.
pub fn train<B: Backend>(recipe: &Recipe, name: &str, arguments: &RunArgs, device: &Device) -> anyhow::Result<Outcome> {
    let precision = available::<B>(recipe.train.precision)?;
    watch_signals()?;
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    let checkpoint = pull(recipe, &config)?;
    let (files, pinned_data) = fetch_data(&recipe.data, &config)?;
    let run = Run { recipe, name, arguments, device, backend: B::NAME, precision, checkpoint, files, pinned_data };
    match (recipe.task, recipe.model.problem_type) {
        (Task::SequenceClassification, ProblemType::SingleLabelClassification) => run.sequences::<LabelId>(),
        (Task::SequenceClassification, ProblemType::MultiLabelClassification) => run.sequences::<Vec<LabelId>>(),
        (Task::SequenceClassification, ProblemType::Regression) => run.sequences::<f64>(),
        (Task::TokenClassification, _) => run.tags(),
        (Task::QuestionAnswering, _) => run.answers(),
        (Task::MaskedLm, _) => run.masked_lm(),
    }
}

/// A training whose recipe, checkpoint and files are there.
struct Run<'a> {
    recipe: &'a Recipe,
    name: &'a str,
    arguments: &'a RunArgs,
    device: &'a Device,
    backend: &'static str,
    precision: Precision,
    checkpoint: Checkpoint,
    files: Files<PathBuf>,
    /// The recipe's data at the commits that came.
    pinned_data: Data,
}

impl Run<'_> {
    fn read<T: Record>(&self) -> anyhow::Result<(Splits<Vec<T>>, LabelSet)> {
        let (items, labels) = splits::<T>(self.recipe, &self.files)?;
        let sizes: Vec<String> = items.iter().map(|(split, rows)| format!("{split} [{}]", rows.len())).collect();
        let labelled = match names::<T>(&labels) {
            [] => String::new(),
            names => format!("; labels {}", names.join(", ")),
        };
        stage("read", "kiln-dataset", format_args!("{}{labelled}", sizes.join(", ")));
        Ok((items, labels))
    }

    /// `tokens` are the lengths of the whole items.
    fn audit<T: Record>(
        &self,
        items: &Splits<Vec<T>>,
        labels: &LabelSet,
        tokens: Splits<Vec<usize>>,
    ) -> anyhow::Result<()> {
        let lengths = Lengths { tokens, max_length: self.recipe.train.max_length };
        let audit = audit(items, names::<T>(labels), Some(lengths));
        stage("audit", "kiln-dataset", audit.summary().trim_end());
        report_leaks(&audit, self.arguments.strict)
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.checkpoint.tokenizer
    }

    /// A line on what the encoder will read: rows, and the tokens of the longest.
    fn tell_shape(&self, rows: usize, lengths: &[usize]) {
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let shape = format!("train input_ids [{rows}, ≤ {longest}]");
        stage("tokenize", "kiln-tokenize", format_args!("{shape}, vocabulary {}", self.tokenizer().vocab_size()));
    }

    fn pretrained(&self, num_labels: usize) -> PretrainedConfig {
        self.device.seed(self.recipe.train.seed);
        PretrainedConfig {
            start: self.recipe.model.initialize,
            architecture: self.recipe.model.size.is_some().then(|| self.checkpoint.config.clone()),
            frozen: self.recipe.model.encoder == Encoder::Frozen,
            hidden_layers: self.recipe.model.hidden_layers.clone(),
            num_labels,
        }
    }

    /// Sets the encoder up as the recipe says.
    fn prepare(&self, bert: &mut Bert) {
        bert.products.precision = self.precision;
        let full = self.recipe.model.encoder == Encoder::Full;
        bert.layer_inputs = (full && self.recipe.train.gradient_checkpointing).then(LayerInputs::default);
    }

    /// The run's folder with its recipe in it, and the hash of the checkpoint's weights.
    fn begin(&self) -> anyhow::Result<(RunFolder, String)> {
        let folder = RunFolder::create(self.arguments.out.as_deref(), self.name, self.arguments.resume)?;
        let weights_hash = self.record(&folder)?;
        Ok((folder, weights_hash))
    }

    /// Writes the recipe into the run's folder.
    fn record(&self, folder: &RunFolder) -> anyhow::Result<String> {
        let weights_hash = weights_hash(&self.checkpoint.folder)?;
        let model = Model { source: self.checkpoint.source.clone(), ..self.recipe.model.clone() };
        let pinned = Recipe { model, data: self.pinned_data.clone(), ..self.recipe.clone() };
        folder.write_recipe(&pinned, &self.files, self.backend, &weights_hash)?;
        Ok(weights_hash)
    }

    fn job<'b>(&'b self, folder: &'b RunFolder) -> Job<'b> {
        Job { recipe: self.recipe, folder, device: self.device, resume: self.arguments.resume }
    }

    /// Saves the model and writes the report.
    fn finish(
        &self,
        folder: RunFolder,
        model: &TaskModel,
        train: TrainReport,
        splits: BTreeMap<Split, SplitReport>,
        errors: &str,
    ) -> anyhow::Result<Outcome> {
        let report = Report {
            task: self.recipe.task,
            model: self.recipe.model.source.to_string(),
            backend: self.backend.to_owned(),
            splits,
            train: Some(TrainReport { peak_rss_bytes: peak_rss_bytes(), ..train }),
        };
        save_model(&folder.model(), model)?;
        self.tokenizer().save(&folder.model())?;
        write_report(&folder.path, &report, errors)?;
        stage("evaluate", "kiln-eval", "report.json, report.html, errors.tsv");
        Ok(Outcome { report, folder: folder.path })
    }

    /// A line on the encoder, one on the head, and what was found in the checkpoint.
    fn describe<M>(&self, pretrained: &Pretrained<M>, bert: &Bert, longest: usize, head: &str) {
        let config = &pretrained.config;
        let batch = self.recipe.train.batch_size;
        let (layers, heads, hidden) = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size);
        let encoder = format!("L{layers} H{hidden} A{heads}, {} parameters", bert.num_params());
        stage("model", "kiln-bert", format_args!("{encoder}; hidden_states [{batch}, ≤ {longest}, {hidden}]"));
        stage("", "kiln-heads", head);
        if pretrained.fresh_pooler {
            console::warn("the checkpoint has no pooler; a fresh one is trained");
        }
        if !pretrained.unused.is_empty() {
            stage("", "", unused_tensors(&pretrained.unused));
        }
    }
}

/// How many mistakes `errors.tsv` lists.
const MISTAKES: usize = 50;

struct Checkpoint {
    /// At the commit that came, where there are commits.
    source: Source,
    folder: PathBuf,
    config: BertConfig,
    tokenizer: Tokenizer,
}

/// The checkpoint's folder, its config and tokenizer held against the recipe before anything costs time.
fn pull(recipe: &Recipe, config: &PullConfig) -> anyhow::Result<Checkpoint> {
    let source = &recipe.model.source;
    let (folder, pinned) = match (recipe.model.size, source) {
        // A tokenizer alone is no checkpoint.
        (Some(_), Source::Location(Location::Directory(folder))) => (folder.clone(), None),
        _ => {
            let snapshot = fetch(source, config).with_context(|| format!("model.source = \"{source}\""))?;
            (snapshot.folder, snapshot.pinned)
        }
    };
    let max_length = recipe.train.max_length;
    let tokenizer = Tokenizer::from_folder(&folder)?.with_max_length(max_length)?;
    let config = match recipe.model.size {
        Some(size) => BertConfig {
            vocab_size: tokenizer.vocab_size(),
            pad_token_id: tokenizer.pad_token_id(),
            ..BertConfig::of_size(size)
        },
        None => BertConfig::from_folder(&folder)?,
    };
    if max_length > config.max_position_embeddings {
        bail!(UsageError(format!(
            "train.max_length is {max_length}, and {source} has {} positions",
            config.max_position_embeddings
        )));
    }
    let tokenizer = tokenizer.for_model(ModelLimits {
        vocab_size: config.vocab_size,
        type_vocab_size: config.type_vocab_size,
        max_position_embeddings: config.max_position_embeddings,
    })?;
    stage("pull", "kiln-hub", format_args!("{source} → {}", folder.display()));
    let source = pinned.map_or_else(|| source.clone(), Source::from);
    Ok(Checkpoint { source, folder, config, tokenizer })
}

/// One hash for all files of weights in a folder.
fn weights_hash(folder: &Path) -> anyhow::Result<String> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors" || ending == "bin"));
    files.sort();
    sha256(files)
}
