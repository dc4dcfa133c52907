use std::path::Path;

use burn::module::Module;
use kiln_bert::{
    Bert, BertConfig, Family, FloatType, NamedParameter, SentenceHead, parameters, parameters_where, save,
};
use kiln_schema::{LabelSet, ProblemType, TagScheme, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{ClassificationHead, Error, MaskedLm, Pooling, QuestionAnswerer, SequenceClassifier, TokenClassifier};

/// A trained model and its config.
#[derive(Clone, Debug)]
pub struct TaskModel {
    /// The encoder with its head.
    pub network: Network,
    /// The encoder's config.
    pub config: BertConfig,
}

/// The network of a model folder, by task.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub enum Network {
    /// Predicts one label, several labels, or a number for a text or a pair.
    SequenceClassification {
        /// The model.
        model: SequenceClassifier,
        /// The names of the logits.
        labels: LabelSet,
        /// How the logits are interpreted.
        problem_type: ProblemType,
    },
    /// Predicts a tag for each unit of a text.
    TokenClassification {
        /// The model.
        model: TokenClassifier,
        /// The names of the logits: the tags.
        labels: LabelSet,
        /// The units of a text.
        units: Units,
        /// How the tags are interpreted.
        tag_scheme: TagScheme,
    },
    /// Predicts a passage of a context.
    QuestionAnswering {
        /// The model.
        model: QuestionAnswerer,
    },
    /// Predicts masked tokens.
    MaskedLm {
        /// The model.
        model: MaskedLm,
    },
}

/// The units into which a text is divided for tagging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// Characters, as in Chinese data sets.
    Characters,
    /// Words, with each Chinese character as a word.
    Words,
    /// The words of the tokenizer, as in transformers: for checkpoints that do not state their units.
    #[default]
    Tokens,
}

impl Network {
    /// The task of the network.
    pub fn task(&self) -> Task {
        match self {
            Self::SequenceClassification { .. } => Task::SequenceClassification,
            Self::TokenClassification { .. } => Task::TokenClassification,
            Self::QuestionAnswering { .. } => Task::QuestionAnswering,
            Self::MaskedLm { .. } => Task::MaskedLm,
        }
    }

    /// The names of the logits, if they have names.
    pub fn labels(&self) -> Option<&LabelSet> {
        match self {
            Self::SequenceClassification { labels, .. } | Self::TokenClassification { labels, .. } => Some(labels),
            Self::QuestionAnswering { .. } | Self::MaskedLm { .. } => None,
        }
    }

    /// The encoder, mutable.
    pub fn bert_mut(&mut self) -> &mut Bert {
        match self {
            Self::SequenceClassification { model, .. } => &mut model.bert,
            Self::TokenClassification { model, .. } => &mut model.bert,
            Self::QuestionAnswering { model } => &mut model.bert,
            Self::MaskedLm { model } => &mut model.bert,
        }
    }

    /// The encoder.
    pub fn bert(&self) -> &Bert {
        match self {
            Self::SequenceClassification { model, .. } => &model.bert,
            Self::TokenClassification { model, .. } => &model.bert,
            Self::QuestionAnswering { model } => &model.bert,
            Self::MaskedLm { model } => &model.bert,
        }
    }

    /// The parameters of the head, under the names of transformers' class if there is one, otherwise under BERT's names.
    pub(crate) fn head(&self, config: &BertConfig) -> Vec<NamedParameter> {
        let family = config.family();
        let is_native = self.class(family).is_some();
        let mut head = match (family.sentence_head, &self.bert().pooler) {
            (SentenceHead::Own { dense, norm, .. }, Some(pooler)) if is_native => {
                let norm = norm.zip(pooler.layer_norm.as_ref()).map(|(prefix, norm)| prefixed(prefix, norm));
                prefixed(dense, &pooler.dense).into_iter().chain(norm.into_iter().flatten()).collect()
            }
            _ => Vec::new(),
        };
        head.extend(match (self, family.sentence_head) {
            (Self::SequenceClassification { model, .. }, SentenceHead::Own { output, .. }) if is_native => {
                prefixed(output, &model.head.classifier)
            }
            (Self::SequenceClassification { model, .. }, _) => parameters(&model.head),
            (Self::TokenClassification { model, .. }, _) => {
                let crf = model.crf.iter().flat_map(|crf| prefixed(CRF_PREFIX, crf));
                parameters(&model.head).into_iter().chain(crf).collect()
            }
            (Self::QuestionAnswering { model }, _) => {
                prefixed(if is_native { family.answer_output } else { QA_PREFIX }, &model.qa_outputs)
            }
            (Self::MaskedLm { model }, _) => {
                let head = model.cls.predictions.with_decoder_bias(prefixed(PRETRAINING_PREFIX, &model.cls));
                let renamed = |p: NamedParameter| NamedParameter { name: config.tensor_name(&p.name), ..p };
                let mut head: Vec<_> = head.into_iter().map(renamed).collect();
                head.sort_by(|a, b| a.name.cmp(&b.name));
                head.dedup_by(|a, b| a.name == b.name);
                head
            }
        });
        head
    }

    /// The encoder's parameters under its family's names, without a prefix. Layers that are part of the head in transformers
    /// are excluded.
    fn encoder(&self, config: &BertConfig) -> Vec<NamedParameter> {
        let is_of_head = |name: &str| {
            let family = config.family();
            name.starts_with("pooler.") && self.class(family).is_some() && family.sentence_head != SentenceHead::Pooler
        };
        let parameters = parameters_where(self.bert(), &|name| !is_of_head(name)).into_iter();
        parameters.map(|p| NamedParameter { name: config.tensor_name(&p.name), ..p }).collect()
    }

    /// transformers' class for exactly this head, if there is one.
    pub(crate) fn class(&self, family: &Family) -> Option<HeadClass> {
        let has_token_head = !family.has_token_head || self.bert().pooler.is_some();
        match self {
            Self::SequenceClassification { model, .. } => (model.pooling == Pooling::Pooler
                && model.head.hidden_layers.is_empty())
            .then_some(HeadClass::SequenceClassification),
            Self::TokenClassification { model, .. } => {
                (has_token_head && model.crf.is_none() && model.head.hidden_layers.is_empty())
                    .then_some(HeadClass::TokenClassification)
            }
            Self::QuestionAnswering { .. } => has_token_head.then_some(HeadClass::QuestionAnswering),
            Self::MaskedLm { model } if model.cls.seq_relationship.is_some() => Some(HeadClass::PreTraining),
            Self::MaskedLm { .. } => Some(HeadClass::MaskedLm),
        }
    }
}

/// The model classes that transformers has for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadClass {
    SequenceClassification,
    TokenClassification,
    QuestionAnswering,
    PreTraining,
    MaskedLm,
}

impl HeadClass {
    pub(crate) const ALL: [Self; 5] = [
        Self::SequenceClassification,
        Self::TokenClassification,
        Self::QuestionAnswering,
        Self::PreTraining,
        Self::MaskedLm,
    ];

    /// The name of the class in a family, such as `BertForMaskedLM`.
    pub(crate) fn name(self, family: &Family) -> String {
        let head = match self {
            Self::SequenceClassification => "SequenceClassification",
            Self::TokenClassification => "TokenClassification",
            Self::QuestionAnswering => "QuestionAnswering",
            Self::PreTraining => "PreTraining",
            Self::MaskedLm => "MaskedLM",
        };
        format!("{}For{head}", family.class)
    }

    /// The task of the class.
    pub(crate) fn task(self) -> Task {
        match self {
            Self::SequenceClassification => Task::SequenceClassification,
            Self::TokenClassification => Task::TokenClassification,
            Self::QuestionAnswering => Task::QuestionAnswering,
            Self::PreTraining | Self::MaskedLm => Task::MaskedLm,
        }
    }
}

/// The file of a head without a class in transformers.
pub(crate) const HEAD_FILE: &str = "head.safetensors";
pub(crate) const CRF_PREFIX: &str = "crf.";
pub(crate) const QA_PREFIX: &str = "qa_outputs.";
const PRETRAINING_PREFIX: &str = "cls.";

/// The value of `architectures` for a head without a class in transformers. Earlier versions wrote `BertModel`.
const OWN_CLASS: &str = "KilnModel";
fn prefixed<M: Module>(prefix: &str, module: &M) -> Vec<NamedParameter> {
    let named = |p: NamedParameter| NamedParameter { name: format!("{prefix}{}", p.name), ..p };
    parameters(module).into_iter().map(named).collect()
}

/// The description of a head in `config.json`, besides transformers' keys.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<Task>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pooling: Option<Pooling>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hidden_layers: Vec<usize>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) crf: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) units: Option<Units>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tag_scheme: Option<TagScheme>,
}

/// The key of a [`HeadEntry`].
pub(crate) const HEAD_KEY: &str = "kiln_head";

/// Writes a model's `config.json` and weights. The tokenizer saves its own files.
///
/// If transformers has a class for the head, the model is saved in the format of that class. Any other head is saved as
/// `head.safetensors` next to the encoder, with a `model_type` that transformers' `AutoModel` classes reject. Otherwise they
/// would put a random head on the encoder.
///
/// # Errors
/// When a file cannot be written.
pub fn save_model(folder: &Path, model: &TaskModel) -> Result<(), Error> {
    let (network, config) = (&model.network, saved_config(model));
    let family = config.family();
    let (encoder, head) = (network.encoder(&config), network.head(&config));
    if network.class(family).is_some() {
        let encoder = encoder.into_iter().map(|p| NamedParameter { name: format!("{}{}", family.prefix, p.name), ..p });
        let whole: Vec<NamedParameter> = encoder.chain(head).collect();
        save(&folder.join("model.safetensors"), &whole, FloatType::F32)?;
    } else {
        save(&folder.join("model.safetensors"), &encoder, FloatType::F32)?;
        save(&folder.join(HEAD_FILE), &head, FloatType::F32)?;
    }
    write_json(&folder.join("config.json"), &config.to_json())
}

pub(crate) fn write_json(path: &Path, json: &Map<String, Value>) -> Result<(), Error> {
    let json = serde_json::to_vec_pretty(json).expect("it is JSON");
    Ok(kiln_files::write(path, &json).map_err(|source| kiln_bert::Error::Write { path: path.to_owned(), source })?)
}

/// The config to save, with the keys that describe the head.
pub(crate) fn saved_config(model: &TaskModel) -> BertConfig {
    let TaskModel { network, config } = model;
    let family = config.family();
    let class = network.class(family);
    let native = class.is_some();
    let mut config = config.clone();
    let mut set = |key: &str, value: Value| config.extra.insert(key.to_owned(), value);
    set("model_type", json!(if native { family.model_type.to_owned() } else { family.own_model_type() }));
    set("architectures", json!([class.map_or_else(|| OWN_CLASS.to_owned(), |class| class.name(family))]));
    let mut entry = HeadEntry { task: (!native).then_some(network.task()), ..HeadEntry::default() };
    let widths = |head: &ClassificationHead| head.hidden_layers.iter().map(|layer| layer.shape()[1]).collect();
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
        Network::QuestionAnswering { .. } => {}
        Network::MaskedLm { model } => {
            if model.cls.predictions.decoder.is_some() {
                set("tie_word_embeddings", json!(false));
            }
        }
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
    config
}

fn set_labels(set: &mut impl FnMut(&str, Value) -> Option<Value>, labels: &LabelSet) {
    let names = || labels.names().iter().enumerate();
    set("id2label", names().map(|(id, name)| (id.to_string(), json!(name))).collect());
    set("label2id", names().map(|(id, name)| (name.clone(), json!(id))).collect());
}
