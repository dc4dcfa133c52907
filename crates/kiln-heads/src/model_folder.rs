use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, FloatType, NamedParameter, Weights, load, load_bert, parameters, save};
use kiln_schema::{LabelSet, ProblemType, TagScheme, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::pretrained::classifier_dropout;
use crate::{
    ClassificationHead, ClassificationHeadConfig, Crf, Error, MaskedLm, Pooling, PreTrainingHeads, QuestionAnswerer,
    SequenceClassifier, TokenClassifier,
};

/// A trained model and what belongs to it.
#[derive(Clone, Debug)]
pub struct TaskModel {
    /// The encoder under its head.
    pub network: Network,
    /// The encoder's config.
    pub config: BertConfig,
}

/// What a model folder may hold.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub enum Network {
    /// One label, several, or a number for a text or a pair.
    SequenceClassification {
        /// The model.
        model: SequenceClassifier,
        /// Names of the logits.
        labels: LabelSet,
        /// What the logits are.
        problem_type: ProblemType,
    },
    /// A tag for each unit of a text.
    TokenClassification {
        /// The model.
        model: TokenClassifier,
        /// Names of the logits: tags.
        labels: LabelSet,
        /// What a text is divided into.
        units: Units,
        /// How the tags are read.
        tag_scheme: TagScheme,
    },
    /// A passage of a context.
    QuestionAnswering {
        /// The model.
        model: QuestionAnswerer,
    },
    /// The tokens that were masked.
    MaskedLm {
        /// The model.
        model: MaskedLm,
    },
}

/// What a text is divided into before it is tagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// Characters, as Chinese data sets are tagged.
    Characters,
    /// Words, and Chinese characters one by one.
    #[default]
    Words,
}

impl Network {
    /// What it has learnt.
    pub fn task(&self) -> Task {
        match self {
            Self::SequenceClassification { .. } => Task::SequenceClassification,
            Self::TokenClassification { .. } => Task::TokenClassification,
            Self::QuestionAnswering { .. } => Task::QuestionAnswering,
            Self::MaskedLm { .. } => Task::MaskedLm,
        }
    }

    /// Its encoder.
    pub fn bert_mut(&mut self) -> &mut Bert {
        match self {
            Self::SequenceClassification { model, .. } => &mut model.bert,
            Self::TokenClassification { model, .. } => &mut model.bert,
            Self::QuestionAnswering { model } => &mut model.bert,
            Self::MaskedLm { model } => &mut model.bert,
        }
    }

    fn bert(&self) -> &Bert {
        match self {
            Self::SequenceClassification { model, .. } => &model.bert,
            Self::TokenClassification { model, .. } => &model.bert,
            Self::QuestionAnswering { model } => &model.bert,
            Self::MaskedLm { model } => &model.bert,
        }
    }

    /// Everything above the encoder.
    fn head(&self) -> Vec<NamedParameter> {
        match self {
            Self::SequenceClassification { model, .. } => parameters(&model.head),
            Self::TokenClassification { model, .. } => {
                let crf = model.crf.iter().flat_map(|crf| prefixed(CRF_PREFIX, crf));
                parameters(&model.head).into_iter().chain(crf).collect()
            }
            Self::QuestionAnswering { model } => prefixed(QA_PREFIX, &model.qa_outputs),
            Self::MaskedLm { model } => prefixed(PRETRAINING_PREFIX, &model.cls),
        }
    }

    /// transformers' name of the class, and whether it has one for just this head.
    fn class(&self) -> (&'static str, bool) {
        match self {
            Self::SequenceClassification { model, .. } => {
                (SEQUENCE_CLASS, model.pooling == Pooling::Pooler && model.head.hidden_layers.is_empty())
            }
            Self::TokenClassification { model, .. } => {
                (TOKEN_CLASS, model.crf.is_none() && model.head.hidden_layers.is_empty())
            }
            Self::QuestionAnswering { .. } => (ANSWER_CLASS, true),
            Self::MaskedLm { model } if model.cls.seq_relationship.is_some() => (PRETRAINING_CLASS, true),
            Self::MaskedLm { .. } => (MASKED_LM_CLASS, true),
        }
    }
}

const CRF_PREFIX: &str = "crf.";
const QA_PREFIX: &str = "qa_outputs.";
const PRETRAINING_PREFIX: &str = "cls.";

const SEQUENCE_CLASS: &str = "BertForSequenceClassification";
const TOKEN_CLASS: &str = "BertForTokenClassification";
const ANSWER_CLASS: &str = "BertForQuestionAnswering";
const PRETRAINING_CLASS: &str = "BertForPreTraining";
const MASKED_LM_CLASS: &str = "BertForMaskedLM";

fn prefixed<M: Module>(prefix: &str, module: &M) -> Vec<NamedParameter> {
    let named = |p: NamedParameter| NamedParameter { name: format!("{prefix}{}", p.name), ..p };
    parameters(module).into_iter().map(named).collect()
}

/// What `config.json` says of a head beyond what transformers' classes do.
#[derive(Debug, Default, Serialize, Deserialize)]
struct HeadEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pooling: Option<Pooling>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hidden_layers: Vec<usize>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    crf: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    units: Option<Units>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag_scheme: Option<TagScheme>,
}

/// The key of a [`HeadEntry`].
const HEAD_KEY: &str = "kiln_head";

/// Writes a model's `config.json` and weights; the tokenizer writes its own files.
///
/// Where transformers has a class for the head, the model is saved as such. Any other head is saved as `head.safetensors`
/// beside a `BertModel`, so that nobody loads it half.
///
/// # Errors
/// When a file cannot be written.
pub fn save_model(folder: &Path, model: &TaskModel) -> Result<(), Error> {
    let TaskModel { network, config } = model;
    let (class, native) = network.class();
    let mut config = config.clone();
    let mut set = |key: &str, value: Value| config.extra.insert(key.to_owned(), value);
    set("model_type", json!("bert"));
    set("architectures", json!([if native { class } else { "BertModel" }]));
    let mut entry = HeadEntry { task: (!native).then_some(network.task()), ..HeadEntry::default() };
    let widths = |head: &ClassificationHead| head.hidden_layers.iter().map(|layer| layer.weight.dims()[1]).collect();
    match network {
        Network::SequenceClassification { model, labels, problem_type } => {
            set_labels(&mut set, labels);
            set("problem_type", json!(problem_type));
            entry.pooling = (!native).then_some(model.pooling);
            entry.hidden_layers = widths(&model.head);
        }
        Network::TokenClassification { model, labels, units, tag_scheme } => {
            set_labels(&mut set, labels);
            entry.units = Some(*units);
            entry.tag_scheme = Some(*tag_scheme);
            entry.crf = model.crf.is_some();
            entry.hidden_layers = widths(&model.head);
        }
        Network::QuestionAnswering { .. } | Network::MaskedLm { .. } => {}
    }
    let entry = serde_json::to_value(entry).expect("a head's entry is JSON");
    config.extra.remove(HEAD_KEY);
    if entry.as_object().is_some_and(|entry| !entry.is_empty()) {
        config.extra.insert(HEAD_KEY.to_owned(), entry);
    }
    for key in ["torch_dtype", "dtype"] {
        if let Some(dtype) = config.extra.get_mut(key) {
            *dtype = json!("float32");
        }
    }
    let (encoder, head) = (parameters(network.bert()), network.head());
    if native {
        let encoder = encoder.into_iter().map(|p| NamedParameter { name: format!("bert.{}", p.name), ..p });
        let whole: Vec<NamedParameter> = encoder.chain(head).collect();
        save(&folder.join("model.safetensors"), &whole, FloatType::F32)?;
    } else {
        save(&folder.join("model.safetensors"), &encoder, FloatType::F32)?;
        save(&folder.join("head.safetensors"), &head, FloatType::F32)?;
    }
    let json = serde_json::to_vec_pretty(&config).expect("a config is JSON");
    let path = folder.join("config.json");
    kiln_files::write(&path, &json).map_err(|source| Error::Write { path, source })
}

fn set_labels(set: &mut impl FnMut(&str, Value) -> Option<Value>, labels: &LabelSet) {
    let names = || labels.names().iter().enumerate();
    set("id2label", names().map(|(id, name)| (id.to_string(), json!(name))).collect());
    set("label2id", names().map(|(id, name)| (name.clone(), json!(id))).collect());
}

/// Reads a model folder, written by [`save_model`] or by one of transformers' classes for BERT.
///
/// # Errors
/// When a file is missing or damaged, the labels have no names, or there is no head.
pub fn load_model(folder: &Path, device: &Device) -> Result<TaskModel, Error> {
    let config = BertConfig::from_folder(folder)?;
    let path = folder.join("config.json");
    let architectures = config.extra.get("architectures").cloned().unwrap_or_default();
    let is_class = |class: &str| architectures.as_array().is_some_and(|classes| classes.contains(&json!(class)));
    let native = [
        (SEQUENCE_CLASS, Task::SequenceClassification),
        (TOKEN_CLASS, Task::TokenClassification),
        (ANSWER_CLASS, Task::QuestionAnswering),
        (PRETRAINING_CLASS, Task::MaskedLm),
        (MASKED_LM_CLASS, Task::MaskedLm),
    ]
    .into_iter()
    .find(|(class, _)| is_class(class));
    let entry = config.extra.get(HEAD_KEY).and_then(|entry| HeadEntry::deserialize(entry).ok());
    let task = match (&native, &entry) {
        (Some((_, task)), _) => *task,
        // A head of an earlier version has no task.
        (None, Some(entry)) => entry.task.unwrap_or(Task::SequenceClassification),
        (None, None) => {
            return Err(Error::NoHead { folder: folder.to_owned(), architectures: architectures.to_string() });
        }
    };
    let entry = entry.unwrap_or_default();
    let weights = Weights::from_folder(folder)?;
    let mut bert = load_bert(&config, &weights, device)?.module;
    let head_weights = match native {
        Some(_) => weights,
        None => Weights::from_file(&folder.join("head.safetensors"))?,
    };
    let head = |labels: &LabelSet, hidden_layers| -> Result<ClassificationHead, Error> {
        let fresh = ClassificationHeadConfig {
            hidden_size: config.hidden_size,
            hidden_layers,
            num_labels: labels.len(),
            dropout: classifier_dropout(&config),
            initializer_range: config.initializer_range,
        };
        Ok(load(fresh.init(device), &head_weights, "")?.module)
    };
    let network = match task {
        Task::SequenceClassification => {
            let labels = label_names(&path, &config)?;
            let pooling = entry.pooling.unwrap_or(Pooling::Pooler);
            if pooling == Pooling::Pooler && bert.pooler.is_none() {
                let names = vec!["pooler.dense.weight".to_owned(), "pooler.dense.bias".to_owned()];
                return Err(kiln_bert::Error::Missing { path: folder.to_owned(), names }.into());
            }
            let problem_type = match config.extra.get("problem_type") {
                None | Some(Value::Null) => ProblemType::default(),
                Some(name) => ProblemType::deserialize(name).map_err(|error| Error::BadLabels {
                    path: path.clone(),
                    reason: format!("`problem_type`: {error}"),
                })?,
            };
            let head = head(&labels, entry.hidden_layers)?;
            Network::SequenceClassification { model: SequenceClassifier { bert, head, pooling }, labels, problem_type }
        }
        Task::TokenClassification => {
            let labels = label_names(&path, &config)?;
            bert.pooler = None;
            let head = head(&labels, entry.hidden_layers)?;
            let fresh = entry.crf.then(|| Crf::new(labels.len(), device));
            let crf = fresh.map(|crf| load(crf, &head_weights, CRF_PREFIX)).transpose()?.map(|loaded| loaded.module);
            let units = entry.units.unwrap_or_default();
            let tag_scheme = entry.tag_scheme.unwrap_or_else(|| unrecorded_scheme(&labels));
            Network::TokenClassification { model: TokenClassifier { bert, head, crf }, labels, units, tag_scheme }
        }
        Task::QuestionAnswering => {
            bert.pooler = None;
            let fresh = config.init_linear(config.hidden_size, 2, device);
            let qa_outputs = load(fresh, &head_weights, QA_PREFIX)?.module;
            Network::QuestionAnswering { model: QuestionAnswerer { bert, qa_outputs } }
        }
        Task::MaskedLm => {
            if config.extra.get("tie_word_embeddings") == Some(&Value::Bool(false)) {
                return Err(Error::Untied { path });
            }
            // A checkpoint of both heads that is no `BertForPreTraining` is one whose pooler nobody promises.
            let next_sentence = is_class(PRETRAINING_CLASS);
            if !next_sentence {
                bert.pooler = None;
            }
            let fresh = PreTrainingHeads::new(&config, next_sentence, device);
            let cls = load(fresh, &head_weights, PRETRAINING_PREFIX)?.module;
            Network::MaskedLm { model: MaskedLm { bert, cls } }
        }
    };
    Ok(TaskModel { network, config })
}

/// The tag scheme of a folder that does not record one, as one of transformers does not: what the tags are unambiguously, else
/// plain, so that every tag keeps its name.
fn unrecorded_scheme(labels: &LabelSet) -> TagScheme {
    TagScheme::infer(labels.names().iter().map(String::as_str)).unwrap_or(TagScheme::Plain)
}

/// `id2label` as a list; its keys must be 0, 1, 2 ….
fn label_names(path: &Path, config: &BertConfig) -> Result<LabelSet, Error> {
    let Some(Value::Object(id2label)) = config.extra.get("id2label") else {
        return Err(Error::NoLabels { path: path.to_owned() });
    };
    let mut names = Vec::with_capacity(id2label.len());
    for id in 0..id2label.len() {
        match id2label.get(&id.to_string()).and_then(Value::as_str) {
            Some(name) => names.push(name.to_owned()),
            None => {
                let reason = format!("there is no name for id {id}");
                return Err(Error::BadLabels { path: path.to_owned(), reason });
            }
        }
    }
    LabelSet::new(names).map_err(|error| Error::label_set(path.to_owned(), error))
}
