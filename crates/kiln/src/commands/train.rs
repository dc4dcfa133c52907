//! `kiln train`: the stages of a training, one after another. `kiln pipeline` runs the same.

mod job;
mod observer;
mod outcome;
pub mod sequences;
pub mod tags;
pub mod answers;
pub mod pretraining;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use burn::module::Module;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bert::{Bert, BertConfig, LayerInputs};
use kiln_dataset::{Lengths, Record, audit};
use kiln_eval::{Report, SplitReport, TrainReport};
use kiln_heads::{Pretrained, PretrainedConfig, Start, TaskModel, save_model};
use kiln_hub::{Location, PullConfig, Source};
use kiln_kernels::Precision;
use kiln_schema::{LabelId, LabelSet, ProblemType, Split, Splits, Task};
use kiln_tokenize::{ModelLimits, Tokenizer};
use kiln_train::Fingerprint;

use crate::checkpoint::{fetch, fetch_data};
use crate::cli::{RunArgs, TrainArgs, UsageError};
use crate::commands::data::{names, report_leaks, splits};
use crate::console::{self, stage, unused_tensors};
use crate::environment::pull_config;
use crate::fingerprint::{WEIGHTS, fingerprint};
use crate::interrupt::watch_signals;
use crate::peak_memory::peak_rss_bytes;
use crate::recipe::{Encoder, Files, Model, Recipe, available};
use crate::run_folder::{RunFolder, write_report};

use job::Job;

pub use outcome::{Outcome, print_splits};

pub fn run<B: Backend>(arguments: &TrainArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.run.set.set)?;
    let name = arguments.recipe.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
    train::<B>(&recipe, name, &arguments.run, device)?.print(json)
}

/// Pull, read, split, tokenize, audit, train, evaluate.
pub fn train<B: Backend>(recipe: &Recipe, name: &str, arguments: &RunArgs, device: &Device) -> anyhow::Result<Outcome> {
    let precision = available::<B>(recipe.train.precision)?;
    watch_signals()?;
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    let checkpoint = pull(recipe, &config)?;
    let (files, pinned_data) = fetch_data(&recipe.data, &config)?;
    let model = Model { source: checkpoint.source.clone(), ..recipe.model.clone() };
    let pinned = Recipe { model, data: pinned_data, ..recipe.clone() };
    let fingerprint = fingerprint(&pinned, &files, &checkpoint.folder, B::NAME)?;
    let folder = RunFolder::choose(arguments.out.as_deref(), name, arguments.resume, &fingerprint)?;
    let strict = arguments.strict;
    let run =
        Run { recipe, pinned, folder, fingerprint, strict, device, backend: B::NAME, precision, checkpoint, files };
    match (recipe.task, recipe.model.problem_type) {
        (Task::SequenceClassification, ProblemType::SingleLabelClassification) => run.sequences::<LabelId>(),
        (Task::SequenceClassification, ProblemType::MultiLabelClassification) => run.sequences::<Vec<LabelId>>(),
        (Task::SequenceClassification, ProblemType::Regression) => run.sequences::<f64>(),
        (Task::TokenClassification, _) => run.tags(),
        (Task::QuestionAnswering, _) => run.answers(),
        (Task::MaskedLm, _) => run.masked_lm(),
    }
}

/// A training whose recipe, checkpoint and files have been checked.
struct Run<'a> {
    recipe: &'a Recipe,
    /// The recipe with its sources at the commits that were fetched.
    pinned: Recipe,
    folder: RunFolder,
    fingerprint: Fingerprint,
    /// Whether leaks between the splits are errors.
    strict: bool,
    device: &'a Device,
    backend: &'static str,
    precision: Precision,
    checkpoint: Checkpoint,
    files: Files<PathBuf>,
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
        self.check_labels(&labels)?;
        Ok((items, labels))
    }

    /// Refuses to train a choice among fewer than two labels.
    fn check_labels(&self, labels: &LabelSet) -> Result<(), UsageError> {
        let is_choice = match self.recipe.task {
            Task::SequenceClassification => self.recipe.model.problem_type == ProblemType::SingleLabelClassification,
            Task::TokenClassification => true,
            Task::QuestionAnswering | Task::MaskedLm => false,
        };
        if !is_choice || labels.len() > 1 {
            return Ok(());
        }
        let key = if self.recipe.data.labels.is_some() { "data.labels" } else { "data.label" };
        let names = labels.names().join(", ");
        let hint = match self.recipe.task {
            Task::SequenceClassification => "; for numbers, set `model.problem_type = \"regression\"`",
            _ => "",
        };
        Err(UsageError(format!("`{key}`: found the single label `{names}`, expected at least two{hint}")))
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
        report_leaks(&audit, self.strict)
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.checkpoint.tokenizer
    }

    /// A line on the encoder's input: rows, and the tokens of the longest.
    fn show_shape(&self, rows: usize, lengths: &[usize]) {
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
            head_initializer_range: self.recipe.model.head_initializer_range,
        }
    }

    /// Sets the encoder up as the recipe says: its precision, gradient checkpointing, and whether it is trained.
    fn prepare(&self, bert: &mut Bert) {
        bert.products.precision = self.precision;
        let full = self.recipe.model.encoder == Encoder::Full;
        bert.layer_inputs = (full && self.recipe.train.gradient_checkpointing).then(LayerInputs::default);
        if !full {
            *bert = bert.clone().freeze();
        }
    }

    /// Makes the run's folder and writes the recipe into it.
    fn begin(&self) -> anyhow::Result<()> {
        self.folder.create()?;
        self.folder.write_recipe(&self.pinned, self.backend, &self.fingerprint)
    }

    fn job(&self) -> Job<'_> {
        Job { recipe: self.recipe, folder: &self.folder, fingerprint: &self.fingerprint, device: self.device }
    }

    /// The hash that stands for the encoder's weights; none where they are fresh, so that no file holds them.
    fn weights_hash(&self) -> Option<String> {
        let Model { initialize, size, .. } = &self.recipe.model;
        let is_pretrained = *initialize == Start::Pretrained && size.is_none();
        self.fingerprint.contents.get(WEIGHTS).filter(|_| is_pretrained).cloned()
    }

    /// Saves the model and writes the report.
    fn finish(
        &self,
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
        save_model(&self.folder.model(), model)?;
        self.tokenizer().save(&self.folder.model())?;
        write_report(&self.folder.path, &report, errors)?;
        stage("evaluate", "kiln-eval", "report.json, report.html, errors.tsv");
        let data = match &self.files {
            Files::Splits(splits) => Some(splits.test.clone().unwrap_or_else(|| splits.validation.clone())),
            Files::Divided { .. } => None,
            Files::Corpus { validation, .. } => validation.clone(),
        };
        let has_pairs = self.recipe.data.columns.text_pair.is_some();
        Ok(Outcome { report, folder: self.folder.path.clone(), data, has_pairs })
    }

    /// A line on the encoder, one on the head, and notes on the checkpoint.
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
        console::warn_of_layers(&pretrained.unused);
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
