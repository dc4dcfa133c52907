//! peft's folders: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, FloatType, Loaded, NamedParameter, Weights, load_as, parameters_where, save};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::attach::attach_of_file;
use crate::modules::one_or_many;
use crate::{AdapterConfig, Error, Modules, Patterns, Variant};

/// What stands before every name of a tensor in peft's files.
pub const PEFT_PREFIX: &str = "base_model.model.";

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What `adapter_config.json` says. Keys that are not here change nothing where they have peft's default; the others are
/// refused by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    /// The base, as a hub or a folder.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// `SEQ_CLS`, `TOKEN_CLS` or `QUESTION_ANS`; none for other models.
    #[serde(default)]
    pub task_type: Option<String>,
    /// The rank.
    pub r: usize,
    /// What the scale is made of.
    #[serde(default = "eight")]
    pub lora_alpha: f64,
    /// Dropout probability on the way through the adapter.
    #[serde(default)]
    pub lora_dropout: f64,
    /// The layers with an adapter.
    pub target_modules: Modules,
    /// Those of them that have none.
    #[serde(default)]
    pub exclude_modules: Option<Modules>,
    /// The numbers of the encoder's layers that have adapters; none: all of them.
    #[serde(default, deserialize_with = "one_or_many", serialize_with = "null_if_empty")]
    pub layers_to_transform: Vec<usize>,
    /// What stands before a layer's number in its name.
    #[serde(default, deserialize_with = "one_or_many", serialize_with = "null_if_empty")]
    pub layers_pattern: Vec<String>,
    /// Ranks of layers other than `r`.
    #[serde(default, deserialize_with = "or_default")]
    pub rank_pattern: Patterns<usize>,
    /// The same of `lora_alpha`.
    #[serde(default, deserialize_with = "or_default")]
    pub alpha_pattern: Patterns<f64>,
    /// Modules that are saved whole.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// Whether the scale is `alpha / √r`.
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether there are magnitudes.
    #[serde(default)]
    pub use_dora: bool,
    /// All other keys.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn eight() -> f64 {
    8.0
}

/// Writes null for an empty list: beside a pattern of `target_modules`, peft refuses even an empty list of layers.
fn null_if_empty<S: Serializer, T: Serialize>(list: &Vec<T>, serializer: S) -> Result<S::Ok, S::Error> {
    (!list.is_empty()).then_some(list).serialize(serializer)
}

/// A value, or its default where it is null.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An adapter on disk.
#[derive(Debug)]
pub struct AdapterFile {
    /// Its config.
    pub config: PeftConfig,
    /// Its tensors, by their names without [`PEFT_PREFIX`].
    pub weights: Weights,
}

impl PeftConfig {
    /// The config of an adapter of ours.
    pub fn new(adapter: &AdapterConfig, base: &str, task_type: Option<&str>, modules_to_save: &[&str]) -> Self {
        let rest = json!({
            "auto_mapping": null,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "peft_type": "LORA",
            "revision": null,
        });
        let Value::Object(extra) = rest else { unreachable!("it is written as an object") };
        Self {
            base_model_name_or_path: Some(base.to_owned()),
            task_type: task_type.map(str::to_owned),
            r: adapter.rank,
            lora_alpha: adapter.alpha,
            lora_dropout: adapter.dropout,
            target_modules: adapter.target_modules.clone().unlisted(),
            exclude_modules: adapter.exclude_modules.clone(),
            layers_to_transform: adapter.layers_to_transform.clone(),
            layers_pattern: adapter.layers_pattern.clone(),
            rank_pattern: adapter.rank_pattern.clone(),
            alpha_pattern: adapter.alpha_pattern.clone(),
            modules_to_save: Some(modules_to_save.iter().map(|&name| name.to_owned()).collect()),
            use_rslora: adapter.variant == Variant::Rslora,
            use_dora: adapter.variant == Variant::Dora,
            extra,
        }
    }

    /// The shape of the adapter; `path` is for the error alone.
    fn adapter(&self, path: &Path) -> Result<AdapterConfig, Error> {
        let unsupported =
            |key, found: String, expected| Err(Error::Unsupported { path: path.to_owned(), key, found, expected });
        let is_default = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        for (key, supported) in [("peft_type", "LORA"), ("bias", "none")] {
            if let Some(found) = self.extra.get(key).filter(|found| **found != supported) {
                return unsupported(key, found.to_string(), if key == "bias" { "`none`" } else { "`LORA`" });
            }
        }
        for key in [
            "fan_in_fan_out",
            "layer_replication",
            "target_parameters",
            "trainable_token_indices",
            "lora_bias",
            "use_qalora",
            "use_bdlora",
        ] {
            if let Some(found) = self.extra.get(key).filter(|found| !is_default(found)) {
                return unsupported(key, found.to_string(), "peft's default of it");
            }
        }
        let variant = match (self.use_dora, self.use_rslora) {
            (false, false) => Variant::Lora,
            (false, true) => Variant::Rslora,
            (true, false) => Variant::Dora,
            (true, true) => return unsupported("use_dora", "true".to_owned(), "one of `use_dora` and `use_rslora`"),
        };
        let train_pooler = self.modules_to_save.iter().flatten().any(|module| module == "pooler");
        Ok(AdapterConfig {
            rank: self.r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            target_modules: self.target_modules.clone(),
            exclude_modules: self.exclude_modules.clone(),
            layers_to_transform: self.layers_to_transform.clone(),
            layers_pattern: self.layers_pattern.clone(),
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            variant,
            train_pooler,
        })
    }
}

impl AdapterFile {
    /// Opens a folder of peft's.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the adapter is of a kind that Kiln does not compute.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CONFIG);
        let text = kiln_files::read(&path).map_err(|source| kiln_bert::Error::Read { path: path.clone(), source })?;
        let config: PeftConfig =
            serde_json::from_slice(&text).map_err(|source| kiln_bert::Error::Json { path: path.clone(), source })?;
        config.adapter(&path)?.check().map_err(|error| error.in_file(&path))?;
        let weights = Weights::from_file(&folder.join(WEIGHTS))?;
        let weights = weights.renamed(|name| name.strip_prefix(PEFT_PREFIX).unwrap_or(name).to_owned());
        Ok(Self { config, weights })
    }

    /// Writes a folder that peft loads.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(folder: &Path, config: &PeftConfig, parameters: Vec<NamedParameter>) -> Result<(), Error> {
        let named = |p: NamedParameter| NamedParameter { name: format!("{PEFT_PREFIX}{}", p.name), ..p };
        let parameters: Vec<NamedParameter> = parameters.into_iter().map(named).collect();
        std::fs::create_dir_all(folder)
            .map_err(|source| kiln_bert::Error::Write { path: folder.to_owned(), source })?;
        save(&folder.join(WEIGHTS), &parameters, FloatType::F32)?;
        let path = folder.join(CONFIG);
        let json = serde_json::to_vec_pretty(config).expect("a config is JSON");
        Ok(kiln_files::write(&path, &json).map_err(|source| kiln_bert::Error::Write { path, source })?)
    }

    fn config_path(&self) -> PathBuf {
        self.weights.path().with_file_name(CONFIG)
    }

    /// The shape of the adapter.
    ///
    /// # Errors
    /// When Kiln does not compute its kind.
    pub fn adapter(&self) -> Result<AdapterConfig, Error> {
        self.config.adapter(&self.config_path())
    }
}

/// The encoder's name of a tensor in a whole model's file, from BERT's name of the parameter.
fn tensor_name(encoder: &BertConfig, name: &str) -> String {
    format!("{}{}", encoder.family().prefix, encoder.tensor_name(name))
}

fn is_of_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// The parameters of an encoder's adapters, and with `with_pooler` those of its pooler, by the names of a whole model's file.
pub fn adapter_parameters(bert: &Bert, encoder: &BertConfig, with_pooler: bool) -> Vec<NamedParameter> {
    let is_wanted = |name: &str| is_of_adapter(name) || (with_pooler && name.starts_with("pooler."));
    let parameters = parameters_where(bert, &is_wanted).into_iter();
    parameters.map(|p| NamedParameter { name: tensor_name(encoder, &p.name), ..p }).collect()
}

/// Puts an adapter of a file on an encoder, and its pooler where it holds one. Tensors of the head are left.
///
/// # Errors
/// When a layer has no tensors in the file, or others than the encoder's shapes ask for, or the encoder has no layer for some
/// of the tensors.
pub fn load_adapter(bert: Bert, encoder: &BertConfig, file: &AdapterFile, device: &Device) -> Result<Bert, Error> {
    let mut bert = bert;
    // An adapter of an encoder by itself has no prefix.
    let prefix = encoder.family().prefix;
    let has_prefix = file.weights.names().any(|name| name.starts_with(prefix));
    attach_of_file(&mut bert, encoder, &file.adapter()?, !has_prefix, device)
        .map_err(|error| error.in_file(&file.config_path()))?;
    let tensor_name = |encoder: &BertConfig, name: &str| {
        let name = tensor_name(encoder, name);
        if has_prefix { name } else { name[prefix.len()..].to_owned() }
    };
    let pooler = tensor_name(encoder, "pooler.dense.weight");
    let with_pooler = file.weights.shape(&pooler).is_some();
    if with_pooler && bert.pooler.is_none() {
        bert.pooler = Some(encoder.init_pooler(device));
    }
    let name = |name: &str| {
        let is_wanted = is_of_adapter(name) || (with_pooler && name.starts_with("pooler."));
        is_wanted.then(|| tensor_name(encoder, name))
    };
    let Loaded { module, unused } = load_as(bert, &file.weights, &name)?;
    let names: Vec<String> = unused.into_iter().filter(|name| is_of_adapter(name)).collect();
    match names.is_empty() {
        true => Ok(module),
        false => Err(Error::NoLayer { path: file.weights.path().to_owned(), names }),
    }
}
