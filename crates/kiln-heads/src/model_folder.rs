use std::path::Path;

use burn::tensor::Device;
use kiln_bert::{BertConfig, FloatType, NamedParameter, Weights, load, load_bert, parameters, save, write_atomically};
use kiln_schema::LabelSet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::pretrained::classifier_dropout;
use crate::{ClassificationHeadConfig, Error, Pooling, SequenceClassifier};

/// A trained classifier and what belongs to it.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// The model.
    pub model: SequenceClassifier,
    /// The encoder's config.
    pub config: BertConfig,
    /// Names of the logits.
    pub labels: LabelSet,
}

/// What `config.json` says of a head that transformers has no class for.
#[derive(Serialize, Deserialize)]
struct HeadEntry {
    pooling: Pooling,
    hidden_layers: Vec<usize>,
}

/// The key of a [`HeadEntry`].
const HEAD_KEY: &str = "kiln_head";
const CLASSIFIER_CLASS: &str = "BertForSequenceClassification";

/// Writes a classifier's `config.json` and weights; the tokenizer writes its own files.
///
/// A pooler with one linear layer is transformers' own `BertForSequenceClassification` and is saved as such. Any other
/// head is saved as `head.safetensors` beside a `BertModel`, so that nobody loads it half.
///
/// # Errors
/// When a file cannot be written.
pub fn save_classifier(folder: &Path, classifier: &Classifier) -> Result<(), Error> {
    let Classifier { model, config, labels } = classifier;
    let native = model.pooling == Pooling::Pooler && model.head.hidden_layers.is_empty();
    let mut config = config.clone();
    let names = || labels.names().iter().enumerate();
    config.extra.insert("id2label".to_owned(), names().map(|(id, name)| (id.to_string(), json!(name))).collect());
    config.extra.insert("label2id".to_owned(), names().map(|(id, name)| (name.clone(), json!(id))).collect());
    config.extra.insert("model_type".to_owned(), json!("bert"));
    for key in ["torch_dtype", "dtype"] {
        if let Some(dtype) = config.extra.get_mut(key) {
            *dtype = json!("float32");
        }
    }
    let encoder = parameters(&model.bert);
    let head = parameters(&model.head);
    if native {
        config.extra.insert("architectures".to_owned(), json!([CLASSIFIER_CLASS]));
        config.extra.remove(HEAD_KEY);
        let encoder = encoder.into_iter().map(|p| NamedParameter { name: format!("bert.{}", p.name), ..p });
        let whole: Vec<NamedParameter> = encoder.chain(head).collect();
        save(&folder.join("model.safetensors"), &whole, FloatType::F32)?;
    } else {
        let hidden_layers = model.head.hidden_layers.iter().map(|layer| layer.weight.dims()[1]).collect();
        let entry = HeadEntry { pooling: model.pooling, hidden_layers };
        config.extra.insert("architectures".to_owned(), json!(["BertModel"]));
        config.extra.insert(HEAD_KEY.to_owned(), json!(entry));
        save(&folder.join("model.safetensors"), &encoder, FloatType::F32)?;
        save(&folder.join("head.safetensors"), &head, FloatType::F32)?;
    }
    let json = serde_json::to_vec_pretty(&config).expect("a config is JSON");
    Ok(write_atomically(&folder.join("config.json"), &json)?)
}

/// Reads a model folder, written by [`save_classifier`] or by transformers' `BertForSequenceClassification`.
///
/// # Errors
/// When a file is missing or damaged, the labels have no names, or there is no head.
pub fn load_classifier(folder: &Path, device: &Device) -> Result<Classifier, Error> {
    let config = BertConfig::from_folder(folder)?;
    let labels = label_names(&folder.join("config.json"), &config)?;
    let architectures = config.extra.get("architectures").cloned().unwrap_or_default();
    let native = architectures.as_array().is_some_and(|classes| classes.contains(&json!(CLASSIFIER_CLASS)));
    let entry = config.extra.get(HEAD_KEY).and_then(|entry| HeadEntry::deserialize(entry).ok());
    let HeadEntry { pooling, hidden_layers } = match entry {
        Some(entry) => entry,
        None if native => HeadEntry { pooling: Pooling::Pooler, hidden_layers: Vec::new() },
        None => {
            return Err(Error::NoHead { folder: folder.to_owned(), architectures: architectures.to_string() });
        }
    };
    let fresh = ClassificationHeadConfig {
        hidden_size: config.hidden_size,
        hidden_layers,
        num_labels: labels.len(),
        dropout: classifier_dropout(&config),
        initializer_range: config.initializer_range,
    };
    let weights = Weights::from_folder(folder)?;
    let bert = load_bert(&config, &weights, device)?.module;
    let head_weights = if native { weights } else { Weights::from_file(&folder.join("head.safetensors"))? };
    let head = load(fresh.init(device), &head_weights, "")?.module;
    if pooling == Pooling::Pooler && bert.pooler.is_none() {
        let names = vec!["pooler.dense.weight".to_owned(), "pooler.dense.bias".to_owned()];
        return Err(kiln_bert::Error::Missing { path: folder.to_owned(), names }.into());
    }
    Ok(Classifier { model: SequenceClassifier { bert, head, pooling }, config, labels })
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
