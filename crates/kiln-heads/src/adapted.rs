use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::Device;
use kiln_adapters::{AdapterConfig, AdapterFile, PeftConfig, adapter_parameters, load_adapter, merge, quantize};
use kiln_bert::{Bert, BertConfig, FloatType, Loaded, SentenceHead, Weights, load_bert, save};
use kiln_kernels::PackedWeights;
use serde_json::{Map, Value, json};

use crate::model_folder::{HEAD_FILE, HEAD_KEY, HeadClass, saved_config, write_json};
use crate::read_model::{pooler_if_any, read_head};
use crate::{Error, Network, TaskModel};

/// A file next to peft's files that describes the head: the keys of a model folder's `config.json` that the base's config
/// lacks.
const TASK_FILE: &str = "task.json";
const TASK_KEYS: [&str; 7] =
    ["model_type", "architectures", "id2label", "label2id", "problem_type", "tie_word_embeddings", HEAD_KEY];

/// The key of the task file for the quantization of the base's weights, and its value.
const QUANTIZATION: &str = "quantization";
const NF4: &str = "nf4";

/// The key of the task file for the maximum length of the training, special tokens included.
const MAX_LENGTH: &str = "model_max_length";

/// Writes the adapters of a model, its head and, if it was trained, its pooler, in the format of peft's
/// `PeftModel.from_pretrained`. A task file describes the head and has the maximum length of the training, because the
/// base's files do not. `base` is the path or name of the base for peft.
///
/// A head without a class in transformers is saved in a separate file, and peft loads only the encoder's adapters.
///
/// # Errors
/// When a file cannot be written.
pub fn save_adapter(
    folder: &Path,
    model: &TaskModel,
    adapter: &AdapterConfig,
    base: &str,
    max_length: usize,
) -> Result<(), Error> {
    let TaskModel { network, config } = model;
    let family = config.family();
    let class = network.class(family);
    let is_encoders = family.sentence_head == SentenceHead::Pooler || class.is_none();
    let with_pooler = adapter.train_pooler && is_encoders && network.bert().pooler.is_some();
    let mut parameters = adapter_parameters(network.bert(), config, with_pooler);
    let head = network.head(config);
    let mut of_head = BTreeSet::new();
    let mut modules = if with_pooler { vec!["pooler"] } else { vec![] };
    match class {
        Some(class) => {
            of_head.extend(head.iter().filter_map(|p| p.name.split('.').next()).map(str::to_owned));
            parameters.extend(head);
            modules.extend(of_head.iter().map(String::as_str).chain(modules_to_save(class).iter().copied()));
            modules.sort_unstable();
            modules.dedup();
        }
        None => {
            let without_prefix = |name: String| name.strip_prefix(family.prefix).map_or(name.clone(), str::to_owned);
            parameters.iter_mut().for_each(|p| p.name = without_prefix(std::mem::take(&mut p.name)));
            std::fs::create_dir_all(folder)
                .map_err(|source| kiln_bert::Error::Write { path: folder.to_owned(), source })?;
            save(&folder.join(HEAD_FILE), &head, FloatType::F32)?;
        }
    }
    let peft = PeftConfig::new(adapter, base, class.and_then(task_type), &modules);
    AdapterFile::write(folder, &peft, parameters)?;
    let saved = saved_config(model).to_json();
    let mut task: Map<String, Value> = saved.into_iter().filter(|(key, _)| TASK_KEYS.contains(&key.as_str())).collect();
    if network.bert().clone().linear_layers().iter().any(|(_, linear)| linear.is_stored()) {
        task.insert(QUANTIZATION.to_owned(), json!(NF4));
    }
    task.insert(MAX_LENGTH.to_owned(), json!(max_length));
    write_json(&folder.join(TASK_FILE), &task)
}

/// The maximum length with which an adapter was trained, special tokens included. `None` if the adapter does not say it.
///
/// # Errors
/// When the task file is damaged.
pub fn trained_max_length(adapter: &Path) -> Result<Option<usize>, Error> {
    let stated = task_file(adapter)?.and_then(|task| task.get(MAX_LENGTH)?.as_u64());
    Ok(stated.and_then(|length| usize::try_from(length).ok()))
}

/// The base checkpoint of adapters. It is read once and is in memory once, for any number of models. These models are for
/// inference only, because they share packed weights.
#[derive(Debug)]
pub struct AdapterBase {
    folder: PathBuf,
    config: BertConfig,
    bert: Bert,
    /// The encoder in NF4, made for the first adapter that was trained on it.
    quantized: OnceLock<Bert>,
}

impl AdapterBase {
    /// Reads the encoder of a checkpoint.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Self, Error> {
        let config = BertConfig::from_folder(folder)?;
        let weights = Weights::from_folder(folder)?;
        let Loaded { module: mut bert, .. } = load_bert(&config, &weights, device)?;
        if let Some(pooler) = pooler_if_any(&config, &weights, device)? {
            bert.pooler = Some(pooler);
        }
        bert.products.packed = Some(PackedWeights::default());
        Ok(Self { folder: folder.to_owned(), config, bert, quantized: OnceLock::new() })
    }

    /// The folder of the checkpoint.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Loads an adapter that Kiln or peft has saved, with its head. The labels are those of the adapter's folder, otherwise
    /// those of the base.
    ///
    /// # Errors
    /// When a file is missing or damaged, the adapter does not fit the base, or there is no head.
    pub fn model(&self, adapter: &Path, device: &Device) -> Result<Loaded<TaskModel>, Error> {
        let (module, config, file) = self.adapted(adapter, device)?;
        read_head(adapter, config, (Loaded { module, unused: Vec::new() }, &file.weights), device)
    }

    /// The encoder with an adapter, without a head.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the adapter does not fit the base.
    pub fn encoder(&self, adapter: &Path, device: &Device) -> Result<(Bert, BertConfig), Error> {
        let (mut bert, config, _) = self.adapted(adapter, device)?;
        if config.family().sentence_head != SentenceHead::Pooler {
            bert.pooler = None;
        }
        Ok((bert, config))
    }

    fn adapted(&self, adapter: &Path, device: &Device) -> Result<(Bert, BertConfig, AdapterFile), Error> {
        let file = AdapterFile::open(adapter)?;
        let mut task = task_of(&self.config, adapter, &file)?;
        let bert = match task.remove(QUANTIZATION) {
            Some(_) => self.quantized.get_or_init(|| {
                let mut bert = self.bert.clone();
                quantize(&mut bert, true);
                bert
            }),
            None => &self.bert,
        };
        task.remove(MAX_LENGTH);
        let mut config = self.config.clone();
        config.extra.extend(task);
        Ok((load_adapter(bert.clone(), &config, &file, device)?, config, file))
    }
}

/// Loads an adapter and its base as a model that can be trained and saved. For inference with several adapters of one base,
/// use [`AdapterBase`].
///
/// # Errors
/// As [`AdapterBase::from_folder`] and [`AdapterBase::model`].
pub fn load_adapted_model(base: &Path, adapter: &Path, device: &Device) -> Result<Loaded<TaskModel>, Error> {
    let mut loaded = AdapterBase::from_folder(base, device)?.model(adapter, device)?;
    loaded.module.network.bert_mut().products.packed = None;
    Ok(loaded)
}

/// Merges the adapters into the weights of a model, which is a plain model then.
pub fn merge_adapter(model: &mut TaskModel) {
    merge(model.network.bert_mut());
}

fn task_file(adapter: &Path) -> Result<Option<Map<String, Value>>, Error> {
    let path = adapter.join(TASK_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = kiln_files::read(&path).map_err(|source| kiln_bert::Error::Read { path: path.clone(), source })?;
    Ok(Some(serde_json::from_slice(&text).map_err(|source| kiln_bert::Error::Json { path, source })?))
}

/// The config keys that describe an adapter's head: those of its task file, otherwise those that follow from peft's files.
fn task_of(config: &BertConfig, folder: &Path, file: &AdapterFile) -> Result<Map<String, Value>, Error> {
    if let Some(task) = task_file(folder)? {
        return Ok(task);
    }
    let mut task = Map::new();
    let named = file.config.task_type.as_deref();
    if let Some(class) =
        HeadClass::ALL.into_iter().find(|class| task_type(*class).is_some_and(|name| Some(name) == named))
    {
        task.insert("architectures".to_owned(), json!([class.name(config.family())]));
    }
    let output = ["classifier.weight", "classifier.out_proj.weight"].iter().find_map(|name| file.weights.shape(name));
    let named = config.extra.get("id2label").and_then(Value::as_object).map(Map::len);
    if let Some([labels, _]) = output.filter(|shape| named != Some(shape[0])) {
        task.insert("id2label".to_owned(), Value::Null);
        task.insert("num_labels".to_owned(), json!(labels));
    }
    Ok(task)
}

/// peft's task type of a class.
fn task_type(class: HeadClass) -> Option<&'static str> {
    match class {
        HeadClass::SequenceClassification => Some("SEQ_CLS"),
        HeadClass::TokenClassification => Some("TOKEN_CLS"),
        HeadClass::QuestionAnswering => Some("QUESTION_ANS"),
        HeadClass::PreTraining | HeadClass::MaskedLm => None,
    }
}

/// The modules of a class that peft saves entirely, if they exist.
fn modules_to_save(class: HeadClass) -> &'static [&'static str] {
    match class {
        HeadClass::SequenceClassification | HeadClass::TokenClassification => &["classifier", "score"],
        HeadClass::QuestionAnswering => &["qa_outputs"],
        HeadClass::PreTraining | HeadClass::MaskedLm => &[],
    }
}

impl Network {
    /// Whether the encoder has adapters.
    pub fn has_adapters(&self) -> bool {
        self.bert().clone().linear_layers().iter().any(|(_, linear)| linear.adapter.is_some())
    }
}
