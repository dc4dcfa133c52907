//! peft's adapter folders: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, FloatType, Loaded, NamedParameter, Weights, load_as, parameters_where, save};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::attach::attach_of_file;
use crate::modules::one_or_many;
use crate::{AdapterConfig, Error, Modules, Patterns, Variant};

/// The prefix of every tensor name in peft's files.
pub const PEFT_PREFIX: &str = "base_model.model.";

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The content of `adapter_config.json`. A key without a field here is kept in `extra`. Keys that would change what is
/// computed must have peft's default; other values are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    /// The base model: a repository on a hub, or a folder.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// `SEQ_CLS`, `TOKEN_CLS` or `QUESTION_ANS`; none for other models.
    #[serde(default)]
    pub task_type: Option<String>,
    /// The rank.
    pub r: usize,
    /// The adapter's α: the  product of both factors is multiplied by `lora_alpha / r`, or by `lora_alpha / √r` with
    /// `use_rslora`.
    #[serde(default = "eight")]
    pub lora_alpha: f64,
    /// Dropout probability of the adapter's input.
    #[serde(default)]
    pub lora_dropout: f64,
    /// The layers with an adapter.
    pub target_modules: Modules,
    /// Layers among `target_modules` that get no adapter.
    #[serde(default)]
    pub exclude_modules: Option<Modules>,
    /// Numbers of the encoder layers that have adapters; empty for all.
    #[serde(default, deserialize_with = "one_or_many", serialize_with = "null_if_empty")]
    pub layers_to_transform: Vec<usize>,
    /// Regular expressions for the part of a layer's name before its number; empty for any.
    #[serde(default, deserialize_with = "one_or_many", serialize_with = "null_if_empty")]
    pub layers_pattern: Vec<String>,
    /// Ranks of layers whose rank is not `r`.
    #[serde(default, deserialize_with = "or_default")]
    pub rank_pattern: Patterns<usize>,
    /// α of layers whose α is not `lora_alpha`.
    #[serde(default, deserialize_with = "or_default")]
    pub alpha_pattern: Patterns<f64>,
    /// Modules that are trained and saved in full, not as adapters.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// Whether the scale is `lora_alpha / √r` (rsLoRA).
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether the adapter has magnitudes (DoRA).
    #[serde(default)]
    pub use_dora: bool,
    /// All other keys.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn eight() -> f64 {
    8.0
}

/// Serializes an empty list as `null`: with a pattern as `target_modules`, peft refuses even an empty list of layers.
fn null_if_empty<S: Serializer, T: Serialize>(list: &Vec<T>, serializer: S) -> Result<S::Ok, S::Error> {
    (!list.is_empty()).then_some(list).serialize(serializer)
}

/// Deserializes a value, and uses the default for `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An adapter on disk.
#[derive(Debug)]
pub struct AdapterFile {
    /// Its config.
    pub config: PeftConfig,
    /// Its tensors, with names without [`PEFT_PREFIX`].
    pub weights: Weights,
}

impl PeftConfig {
    /// The config of an adapter that Kiln has trained.
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
            use_rslora: adapter.variant.is_rank_stabilized(),
            use_dora: adapter.variant.has_norms(),
            extra,
        }
    }

    /// Kiln's settings of the adapter; `path` is only used in errors.
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
        // Other initializations, such as PiSSA, also change the base's weights, each time peft loads the adapter.
        let keeps_base = |init: &Value| match init {
            Value::String(name) => ["gaussian", "eva", "orthogonal"].contains(&name.as_str()),
            other => matches!(other, Value::Null | Value::Bool(_)),
        };
        if let Some(found) = self.extra.get("init_lora_weights").filter(|init| !keeps_base(init)) {
            let expected = "one that keeps the base's weights: true, false, `gaussian`, `eva` or `orthogonal`";
            return unsupported("init_lora_weights", found.to_string(), expected);
        }
        for key in [
            "fan_in_fan_out",
            "layer_replication",
            "target_parameters",
            "trainable_token_indices",
            "lora_bias",
            "use_qalora",
            "use_bdlora",
            "alora_invocation_tokens",
        ] {
            if let Some(found) = self.extra.get(key).filter(|found| !is_default(found)) {
                return unsupported(key, found.to_string(), "peft's default of it");
            }
        }
        let variant = match (self.use_dora, self.use_rslora) {
            (false, false) => Variant::Lora,
            (false, true) => Variant::Rslora,
            (true, false) => Variant::Dora,
            (true, true) => Variant::Rsdora,
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
    /// Opens an adapter folder in peft's format.
    ///
    /// # Errors
    /// When a file is missing or damaged, or Kiln does not support this kind of adapter.
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

    /// Writes a folder that peft can load.
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

    /// Kiln's settings of the adapter.
    ///
    /// # Errors
    /// When Kiln does not support this kind of adapter.
    pub fn adapter(&self) -> Result<AdapterConfig, Error> {
        self.config.adapter(&self.config_path())
    }
}

/// Converts BERT's name of a parameter to the tensor's name in the file of a full model.
fn tensor_name(encoder: &BertConfig, name: &str) -> String {
    format!("{}{}", encoder.family().prefix, encoder.tensor_name(name))
}

fn is_of_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// The parameters of an encoder's adapters and, if `with_pooler`, of its pooler. They are named as in the file of a full
/// model.
pub fn adapter_parameters(bert: &Bert, encoder: &BertConfig, with_pooler: bool) -> Vec<NamedParameter> {
    let is_wanted = |name: &str| is_of_adapter(name) || (with_pooler && name.starts_with("pooler."));
    let parameters = parameters_where(bert, &is_wanted).into_iter();
    parameters.map(|p| NamedParameter { name: tensor_name(encoder, &p.name), ..p }).collect()
}

/// Attaches the adapter of a file to an encoder, and loads the pooler if the file has one. Tensors of the head are
/// ignored.
///
/// # Errors
/// When a targeted layer has no tensors in the file, or tensors of the wrong shape, when the encoder has no layer for some
/// of the adapter's tensors, or when other parameters of the encoder were trained in full.
pub fn load_adapter(bert: Bert, encoder: &BertConfig, file: &AdapterFile, device: &Device) -> Result<Bert, Error> {
    let mut bert = bert;
    // In an adapter for an encoder without a head, tensor names lack the family's prefix.
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
    let path = || file.weights.path().to_owned();
    let (of_adapter, others): (Vec<String>, Vec<String>) = unused.into_iter().partition(|name| is_of_adapter(name));
    if !of_adapter.is_empty() {
        return Err(Error::NoLayer { path: path(), names: of_adapter });
    }
    let parameters = parameters_where(&module, &|_| true).into_iter();
    let of_encoder: HashSet<String> = parameters.map(|p| tensor_name(encoder, &p.name)).collect();
    match others.into_iter().find(|name| of_encoder.contains(name)) {
        Some(name) => Err(Error::TrainedInFull { path: path(), name }),
        None => Ok(module),
    }
}
