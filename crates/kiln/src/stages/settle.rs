//! The preparation of a run before the data is read: the checkpoint, the files, the settings and the run's folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bert::BertConfig;
use kiln_heads::{Start, check_pretraining};
use kiln_hub::{Location, PullConfig, Source};
use kiln_kernels::Precision;
use kiln_schema::Task;
use kiln_tokenize::{ModelLimits, Tokenizer};
use kiln_train::{Alone, Fingerprint, Reduction};

use super::save::RunFolder;
use super::teacher::{TeacherFolder, settle_teacher};
use crate::environment::{cache_folder, pull_config};
use crate::fetch::{fetch, fetch_data, fetch_files};
use crate::fingerprint::{DESCRIPTIONS, Folders, WEIGHTS, fingerprint};
use crate::recipe::{DataPath, Distill, Files, Model, Recipe, Student, available};
use crate::{Fold, Observer, RunOptions, UsageError};

/// A run whose recipe, checkpoint and files have been checked.
pub(crate) struct Plan<'a> {
    pub recipe: &'a Recipe,
    pub checkpoint: Checkpoint,
    /// The teacher of a distillation, if there is one.
    pub teacher: Option<TeacherFolder>,
    pub files: Files<PathBuf>,
    /// Files of texts without labels, which only the teacher labels.
    pub unlabelled: Vec<PathBuf>,
    pub folder: RunFolder,
    /// The recipe with its sources pinned to the commits that were fetched.
    pinned: Recipe,
    pub fingerprint: Fingerprint,
    /// The fold of the training split that is held out for validation.
    pub fold: Option<Fold>,
    /// Whether leaks between splits are errors.
    pub strict: bool,
    pub backend: &'static str,
    /// Whether the backend computes in the machine's main memory.
    pub in_main_memory: bool,
    pub device: &'a Device,
    /// The precision of the encoder's matrix products.
    pub precision: Precision,
    /// Whether the features of a frozen encoder are cached for later runs.
    pub keeps_features: bool,
    /// The folder of cached features and of a teacher's outputs.
    pub cache: PathBuf,
    /// The processes that train together.
    pub reduction: &'a dyn Reduction,
}

/// A checkpoint on disk.
pub(crate) struct Checkpoint {
    /// The source, pinned to the fetched commit if it has commits.
    pub source: Source,
    pub folder: PathBuf,
    pub config: BertConfig,
    pub tokenizer: Tokenizer,
}

/// Fetches and checks everything that the recipe names. Nothing is written to the run's folder.
pub(crate) fn settle<'a, B: Backend>(
    recipe: &'a Recipe,
    options: &RunOptions,
    device: &'a Device,
    observer: &mut dyn Observer,
) -> anyhow::Result<Plan<'a>> {
    let precision = available::<B>(recipe.train.precision)?;
    let config = pull_config(&options.hub, &recipe.hub.fallback);
    let checkpoint = checkpoint(recipe, &config, observer)?;
    let teacher = settle_teacher(recipe, &checkpoint.config, &config, observer)?;
    let (files, pinned_data) = fetch_data(&recipe.data, &config, observer)?;
    let (unlabelled, pinned_texts) = fetch_files(unlabelled(recipe), &config, observer)?;
    let model = Model { source: checkpoint.source.clone(), ..recipe.model.clone() };
    let distill = recipe.distill.clone().zip(teacher.as_ref()).map(|(distill, teacher)| Distill {
        teacher: teacher.source.clone(),
        unlabelled: pinned_texts,
        ..distill
    });
    let pinned = Recipe { model, data: pinned_data, distill, ..recipe.clone() };
    let folders = Folders { checkpoint: &checkpoint.folder, teacher: teacher.as_ref().map(|teacher| &*teacher.folder) };
    let mut fingerprint = fingerprint(&pinned, (&files, &unlabelled), folders, B::NAME)?;
    if let Some(Fold { index, count }) = options.fold {
        fingerprint.settings.insert("fold".to_owned(), format!("{} of {count}", index + 1));
    }
    let folder = RunFolder::choose(options, &fingerprint, observer)?;
    let (strict, backend, in_main_memory, keeps_features) = (options.strict, B::NAME, B::IN_MAIN_MEMORY, true);
    Ok(Plan {
        recipe,
        checkpoint,
        teacher,
        files,
        unlabelled,
        folder,
        pinned,
        fingerprint,
        fold: options.fold,
        strict,
        backend,
        in_main_memory,
        device,
        precision,
        keeps_features,
        cache: cache_folder(),
        reduction: &Alone,
    })
}

impl Plan<'_> {
    /// Whether this is the first of the processes that train together, or the only one. Only this process writes and
    /// reports.
    pub fn is_first(&self) -> bool {
        self.reduction.rank() == 0
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.checkpoint.tokenizer
    }

    /// Creates and locks the run's folder, and writes the recipe into it, in the first process only.
    pub fn begin(&self) -> anyhow::Result<()> {
        if !self.is_first() {
            return Ok(());
        }
        self.folder.create()?;
        self.folder.lock()?;
        self.folder.write_recipe(&self.settings())
    }

    /// Every setting as a recipe that can be loaded, with its sources pinned to the commits that were fetched. Comments at
    /// the top list the version, the backend and the hashes of the files.
    pub fn settings(&self) -> String {
        let contents = self.fingerprint.contents.iter();
        let hashes: String = contents.map(|(name, hash)| format!("# sha256 {hash} of {name}\n")).collect();
        let version = env!("CARGO_PKG_VERSION");
        format!("# kiln {version}, backend {}\n{hashes}\n{}\n", self.backend, self.pinned.to_toml())
    }

    /// The hashes of the encoder's weights and configs; `None` if the weights are random, because no file holds them.
    pub fn encoder_hash(&self) -> Option<String> {
        let Model { initialize, size, .. } = &self.recipe.model;
        if *initialize != Start::Pretrained || size.is_some() {
            return None;
        }
        let hash = |name| self.fingerprint.contents.get(name);
        Some(format!("{} {}", hash(WEIGHTS)?, hash(DESCRIPTIONS)?))
    }
}

/// Fetches the checkpoint, and checks its config and tokenizer against the recipe before any long computation.
fn checkpoint(recipe: &Recipe, config: &PullConfig, observer: &mut dyn Observer) -> anyhow::Result<Checkpoint> {
    let source = &recipe.model.source;
    let (folder, pinned) = match (recipe.model.size, source) {
        // The folder may hold only a tokenizer, so it is not fetched as a checkpoint.
        (Some(_), Source::Location(Location::Directory(folder))) => (folder.clone(), None),
        _ => {
            let snapshot = fetch(source, config, observer).with_context(|| format!("model.source = \"{source}\""))?;
            (snapshot.folder, snapshot.pinned)
        }
    };
    let max_length = recipe.train.max_length;
    let mut config = match recipe.model.size {
        Some(size) => {
            let tokenizer = Tokenizer::from_folder(&folder)?;
            BertConfig {
                vocab_size: tokenizer.vocab_size(),
                pad_token_id: tokenizer.pad_token_id(),
                ..BertConfig::of_size(size)
            }
        }
        None => BertConfig::from_folder(&folder)?,
    };
    if recipe.task == Task::MaskedLm {
        let checked = check_pretraining(&folder, &config, recipe.next_sentence);
        checked.map_err(|error| UsageError(error.to_string()))?;
    }
    if recipe.train.r_drop > 0.0 && [config.hidden_dropout_prob, config.attention_probs_dropout_prob] == [0.0; 2] {
        bail!(UsageError(format!("train.r_drop compares passes with dropout, and {source} has no dropout")));
    }
    let tokenizer = fitted_tokenizer(&folder, &config, max_length)?;
    if let Some(Student { layers }) = &recipe.student {
        check_layers(layers, &config)?;
        config.num_hidden_layers = layers.len();
    }
    observer.stage("pull", "kiln-hub", &format_args!("{source} → {}", folder.display()));
    let source = pinned.map_or_else(|| source.clone(), Source::from);
    Ok(Checkpoint { source, folder, config, tokenizer })
}

/// Checks that a checkpoint has the layers that the student keeps, and that each layer has its own weights.
fn check_layers(layers: &[usize], config: &BertConfig) -> Result<(), UsageError> {
    let found = config.num_hidden_layers;
    if !config.family().has_independent_layers() {
        let message = "student.layers: the layers of model.source share their weights, or alternate local and global \
                       attention, so that none can be left out";
        return Err(UsageError(message.to_owned()));
    }
    match layers.iter().find(|layer| **layer >= found) {
        Some(layer) => Err(UsageError(format!(
            "student.layers: found layer {layer}, expected layers from 0 to {}, as model.source has {found}",
            found - 1
        ))),
        None => Ok(()),
    }
}

/// Loads the tokenizer of a model, for texts of at most `max_length` tokens.
pub(crate) fn fitted_tokenizer(folder: &Path, config: &BertConfig, max_length: usize) -> anyhow::Result<Tokenizer> {
    let tokenizer = Tokenizer::from_folder(folder)?.with_max_length(max_length);
    let tokenizer = tokenizer.map_err(|error| UsageError(format!("train.{error}")))?;
    let positions = config.max_sequence_length();
    if max_length > positions {
        let place = folder.display();
        bail!(UsageError(format!(
            "train.max_length is {max_length}, and the model in {place} has {positions} positions"
        )));
    }
    Ok(tokenizer.for_model(ModelLimits {
        vocab_size: config.vocab_size,
        type_vocab_size: config.type_vocab_size,
        max_position_embeddings: positions,
    })?)
}

/// The recipe's files of texts without labels.
fn unlabelled(recipe: &Recipe) -> &[DataPath] {
    recipe.distill.as_ref().map_or(&[], |distill| &distill.unlabelled)
}
