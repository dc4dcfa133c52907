//! A recipe: every setting of a run, in one TOML file that is checked before the run starts.
//!
//! The structs define the keys, and there is no second list of them: suggestions for a misspelt key come from the keys that
//! serde accepts. The range of a value is checked by a function that deserializes the field (`checked`). Conditions on
//! several keys are a list of `Rule`s, or are checked where the section is resolved (`data`).

mod checked;
mod data;
mod distill;
mod document;
mod error;
mod explain;
mod pretraining;
mod sweep;
mod train;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_adapters::AdapterConfig;
use kiln_bert::Size;
use kiln_heads::{Pooling, Start};
use kiln_hub::{Hub, Location, Source};
use kiln_schema::{ProblemType, TagScheme, Task};
use kiln_train::Metric;
use serde::{Deserialize, Serialize};

pub use data::{Data, DataPath, Files};
pub use distill::{Distill, Student};
pub use error::RecipeError;
pub use pretraining::Masking;
pub use sweep::{Halving, Sweep};
pub use train::{Precision, Train, available};

use data::DataFile;
use document::Places;

/// A checked recipe: every default filled in, every path absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The task to train for.
    pub task: Task,
    /// Whether a masked language model also learns next sentence prediction.
    pub next_sentence: bool,
    /// The model: its checkpoint, encoder and head.
    pub model: Model,
    /// The labelled data, or the corpus.
    pub data: Data,
    /// The adapter, used when `model.encoder` is `lora` or `qlora`.
    pub adapter: AdapterConfig,
    /// The teacher, for a distillation.
    pub distill: Option<Distill>,
    /// The layers of the checkpoint to keep; `None` keeps all.
    pub student: Option<Student>,
    /// Which tokens are masked, for a masked language model.
    pub masking: Masking,
    /// The hyperparameters of the training.
    pub train: Train,
    /// Fallback hubs.
    pub hub: HubSettings,
}

/// `[model]`: the checkpoint, the encoder and the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The checkpoint.
    pub source: Source,
    /// Whether the encoder starts from the checkpoint's weights or from random ones.
    #[serde(default)]
    pub initialize: Start,
    /// A published architecture with random weights, instead of the checkpoint's; the source then only needs a tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// How the encoder is trained; the head is always trained.
    #[serde(default)]
    pub encoder: Encoder,
    /// How the logits of a sequence classifier are interpreted.
    #[serde(default)]
    pub problem_type: ProblemType,
    /// How a sequence classifier's head pools the hidden states.
    #[serde(default)]
    pub pooling: Pooling,
    /// Sizes of extra fully connected layers before the output layer.
    #[serde(default, deserialize_with = "checked::each_at_least_one")]
    pub hidden_layers: Vec<usize>,
    /// Whether a token classifier has a conditional random field on top.
    #[serde(default)]
    pub crf: bool,
    /// Standard deviation of the head's random initial weights; the checkpoint's `initializer_range` when absent.
    #[serde(default, deserialize_with = "checked::some_positive", skip_serializing_if = "Option::is_none")]
    pub head_initializer_range: Option<f64>,
}

/// `[hub]`: where to look for checkpoints and data sets when their own hub fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSettings {
    /// Hubs to try, in this order, when a source's own hub cannot be reached: `hf`, `modelscope`.
    pub fallback: Vec<Hub>,
}

/// How the encoder is trained; the head is always trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoder {
    /// All weights.
    #[default]
    Full,
    /// Only the head: the encoder runs once and its features are cached.
    Frozen,
    /// An adapter on the encoder, configured by `[adapter]`.
    Lora,
    /// The same on an encoder whose weights are quantized to 4 bits.
    Qlora,
}

impl Encoder {
    /// Whether only an adapter of the encoder is trained.
    pub fn has_adapter(self) -> bool {
        matches!(self, Self::Lora | Self::Qlora)
    }
}

impl Recipe {
    /// Reads a recipe from a file. `overrides` are `KEY=VALUE` pairs that replace or add to the keys of the file. A value
    /// that is not valid TOML is taken as a string. Paths in the file are relative to its folder, paths in overrides to the
    /// working folder.
    ///
    /// # Errors
    /// When the recipe cannot be read or is invalid. An error names the file and line, or the override, and the key.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        Ok(Self::load_swept(path, (overrides, &[]))?.0)
    }

    /// Reads a recipe together with its `[sweep]`. `settings` holds the overrides, and the assignments of one candidate of
    /// the sweep. Paths in the candidate's assignments are relative to the file's folder.
    ///
    /// # Errors
    /// The same as for [`Recipe::load`].
    pub fn load_swept(path: &Path, settings: (&[String], &[String])) -> Result<(Self, Sweep), RecipeError> {
        let text =
            kiln_files::read_to_string(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
        Self::swept(&text, path, settings)
    }

    /// Reads a recipe from a string. `path` is used in error messages, and the recipe's paths are relative to its folder.
    /// The file does not need to exist.
    ///
    /// # Errors
    /// The same as for [`Recipe::load`].
    pub fn from_toml(text: &str, path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        Ok(Self::swept(text, path, (overrides, &[]))?.0)
    }

    fn swept(text: &str, path: &Path, settings: (&[String], &[String])) -> Result<(Self, Sweep), RecipeError> {
        let (mut file, places) = document::read::<RecipeFile>(&path.display().to_string(), text, settings)?;
        let sweep = Sweep::resolve(file.sweep.take().unwrap_or_default(), &places)?;
        let folder = absolute_folder(path)?;
        let mut model = file.model.clone();
        if let Source::Location(Location::Directory(path)) = &mut model.source {
            *path = folder.join(&path);
        }
        let rules = rules(&file, &model).into_iter().chain(data::rules(&file, &model));
        for rule in rules.chain(distill::rules(&file, &model)).chain(train::rules(&file, &model)) {
            rule.check(&places)?;
        }
        let pretrains = file.task == Task::MaskedLm;
        file.train.check(metrics(file.task, model.problem_type), &places)?;
        let data = file.data.resolve(&folder, pretrains, &places)?;
        let next_sentence = pretrains && file.next_sentence.unwrap_or(true);
        let masking = file.masking.unwrap_or_default().in_folder(&folder);
        let adapter = file.adapter.unwrap_or_default();
        adapter.check().map_err(|error| places.error("adapter", error.to_string()))?;
        let distill = file.distill.map(|distill| distill.in_folder(&folder));
        let (task, student, train, hub) = (file.task, file.student, file.train, file.hub);
        Ok((Self { task, next_sentence, model, data, adapter, distill, student, masking, train, hub }, sweep))
    }

    /// The metric that selects the best checkpoint: the one in the recipe, or the task's default.
    pub fn metric(&self) -> Metric {
        self.metric_of(self.data.tag_scheme)
    }

    /// The metric that selects the best checkpoint, for tags of this scheme.
    pub fn metric_of(&self, tag_scheme: Option<TagScheme>) -> Metric {
        let is_plain = self.task == Task::TokenClassification && tag_scheme == Some(TagScheme::Plain);
        let default = if is_plain { Metric::Accuracy } else { metrics(self.task, self.model.problem_type)[0] };
        self.train.metric.unwrap_or(default)
    }

    /// The recipe as TOML, with every setting written out. Loading it from any folder gives the same recipe.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&self.file()).expect("a checked recipe holds strings, numbers and UTF-8 paths")
    }

    /// Every setting by its dotted key, such as `train.max_length`; strings are not quoted.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let value = serde_json::to_value(self.file()).expect("a checked recipe holds strings, numbers and UTF-8 paths");
        let mut settings = BTreeMap::new();
        flatten(String::new(), value, &mut settings);
        settings
    }

    /// Whether each text has one label.
    pub(crate) fn has_one_label(&self) -> bool {
        is_of(self.task, &self.model, ProblemType::SingleLabelClassification)
    }

    /// The task in messages, with the problem type of a sequence classifier.
    pub(crate) fn kind(&self) -> String {
        match self.task {
            Task::SequenceClassification => {
                format!("{} with `model.problem_type = \"{}\"`", self.task, self.model.problem_type.name())
            }
            task => task.to_string(),
        }
    }

    fn file(&self) -> RecipeFile {
        RecipeFile {
            task: self.task,
            next_sentence: (self.task == Task::MaskedLm).then_some(self.next_sentence),
            model: self.model.clone(),
            data: DataFile::from(&self.data),
            adapter: self.model.encoder.has_adapter().then(|| self.adapter.clone()),
            distill: self.distill.clone(),
            student: self.student.clone(),
            masking: (self.task == Task::MaskedLm).then(|| self.masking.clone()),
            train: self.train.clone(),
            hub: self.hub.clone(),
            sweep: None,
        }
    }
}

/// A condition on when a key may be set.
struct Rule {
    key: &'static str,
    is_set: bool,
    is_allowed: bool,
    /// The condition, in the words of the error message.
    needs: &'static str,
}

impl Rule {
    fn check(&self, places: &Places) -> Result<(), RecipeError> {
        match self.is_set && !self.is_allowed {
            true => Err(places.error(self.key, format!("`{}` needs {}", self.key, self.needs))),
            false => Ok(()),
        }
    }
}

fn flatten(key: String, value: serde_json::Value, settings: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (name, value) in table {
                flatten(explain::join(&key, &name), value, settings);
            }
        }
        // An unset key is left out.
        serde_json::Value::Null => {}
        serde_json::Value::String(text) => {
            settings.insert(key, text);
        }
        value => {
            settings.insert(key, value.to_string());
        }
    }
}

fn rules(file: &RecipeFile, model: &Model) -> [Rule; 6] {
    let pretrains = file.task == Task::MaskedLm;
    [
        Rule {
            key: "model.encoder",
            is_set: model.encoder.has_adapter(),
            is_allowed: model.initialize == Start::Pretrained && model.size.is_none(),
            needs: "a checkpoint's own weights, to which the adapter is added: neither `model.initialize = \"random\"` nor \
                    `model.size`",
        },
        Rule {
            key: "model.crf",
            is_set: model.crf,
            is_allowed: file.task == Task::TokenClassification,
            needs: "`task = \"token-classification\"`",
        },
        Rule {
            key: "next_sentence",
            is_set: file.next_sentence.is_some(),
            is_allowed: pretrains,
            needs: "`task = \"masked-lm\"`",
        },
        Rule { key: "masking", is_set: file.masking.is_some(), is_allowed: pretrains, needs: "`task = \"masked-lm\"`" },
        Rule {
            key: "model.encoder",
            is_set: model.encoder == Encoder::Frozen,
            is_allowed: !pretrains,
            needs: "to be other than `frozen` when `task` is `masked-lm`, which trains the encoder",
        },
        Rule {
            key: "adapter",
            is_set: file.adapter.is_some(),
            is_allowed: model.encoder.has_adapter(),
            needs: "`model.encoder = \"lora\"` or `\"qlora\"`",
        },
    ]
}

/// Whether a recipe trains a sequence classifier of this problem type.
fn is_of(task: Task, model: &Model, problem_type: ProblemType) -> bool {
    task == Task::SequenceClassification && model.problem_type == problem_type
}

/// The metrics of a task that can select the best checkpoint, the default first.
fn metrics(task: Task, problem_type: ProblemType) -> &'static [Metric] {
    match (task, problem_type) {
        (Task::SequenceClassification, ProblemType::SingleLabelClassification) => {
            &[Metric::Accuracy, Metric::MacroF1, Metric::Loss]
        }
        (Task::SequenceClassification, ProblemType::MultiLabelClassification) => {
            &[Metric::MicroF1, Metric::MacroF1, Metric::Accuracy, Metric::Loss]
        }
        (Task::SequenceClassification, ProblemType::Regression) => &[Metric::Pearson, Metric::Spearman, Metric::Loss],
        (Task::TokenClassification, _) => &[Metric::EntityF1, Metric::Accuracy, Metric::MacroF1, Metric::Loss],
        (Task::QuestionAnswering, _) => &[Metric::F1, Metric::ExactMatch, Metric::Loss],
        (Task::MaskedLm, _) => &[Metric::Loss],
    }
}

/// A recipe as written in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    task: Task,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_sentence: Option<bool>,
    model: Model,
    data: DataFile,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<AdapterConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distill: Option<Distill>,
    #[serde(skip_serializing_if = "Option::is_none")]
    student: Option<Student>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masking: Option<Masking>,
    #[serde(default)]
    train: Train,
    #[serde(default)]
    hub: HubSettings,
    /// Used by `kiln sweep` only, and not written to `run.toml`.
    #[serde(skip_serializing)]
    sweep: Option<toml::Table>,
}

/// The absolute path of the folder of `path`. It must be UTF-8, so that it can be written as TOML.
fn absolute_folder(path: &Path) -> Result<PathBuf, RecipeError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(parent).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
    if folder.to_str().is_none() {
        return Err(RecipeError::Invalid {
            place: path.display().to_string(),
            what: "the path of the recipe's folder is not UTF-8".to_owned(),
        });
    }
    Ok(folder)
}

#[cfg(test)]
mod tests;
