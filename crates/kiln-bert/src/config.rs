use std::path::Path;

use burn::module::Param;
use burn::nn::{Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::family::{FAMILIES, Family, Positions, Projection};
use crate::hidden_act::{HIDDEN_ACTS, HiddenAct};
use crate::numbers::check_numbers;
use crate::{Error, Linear};

/// The configuration of an encoder, with the names and defaults of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Number of entries in the vocabulary.
    pub vocab_size: usize,
    /// Width of every hidden state.
    pub hidden_size: usize,
    /// Width of the embeddings if it differs, in families that project them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer; they share `hidden_size` evenly.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Activation inside the feed-forward block.
    pub hidden_act: HiddenAct,
    /// Dropout probability after the embeddings and after both blocks of a layer.
    pub hidden_dropout_prob: f64,
    /// Dropout probability on the attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the position embeddings; see [`BertConfig::max_sequence_length`].
    pub max_position_embeddings: usize,
    /// Number of segments that a sequence may have.
    pub type_vocab_size: usize,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// ε that layer normalization adds to the variance.
    pub layer_norm_eps: f64,
    /// Id of the padding token.
    pub pad_token_id: u32,
    /// Dropout probability before a head's layers; `hidden_dropout_prob` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// All other keys, kept so that a saved config loses nothing.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The sizes in which BERT was published: base and large by Devlin et al. (2019), the others by Turc et al. (*Well-Read
/// Students Learn Better*, 2019).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// L2 H128 A2.
    Tiny,
    /// L4 H256 A4.
    Mini,
    /// L4 H512 A8.
    Small,
    /// L8 H512 A8.
    Medium,
    /// L12 H768 A12.
    Base,
    /// L24 H1024 A16.
    Large,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self::base()
    }
}

impl BertConfig {
    /// `bert-base`: L12 H768 A12, with the vocabulary of `bert-base-uncased`.
    pub fn base() -> Self {
        Self {
            vocab_size: 30_522,
            hidden_size: 768,
            embedding_size: None,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3_072,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            classifier_dropout: None,
            extra: Map::new(),
        }
    }

    /// A published size, with the vocabulary of `bert-base-uncased`.
    pub fn of_size(size: Size) -> Self {
        let (num_hidden_layers, hidden_size) = match size {
            Size::Tiny => (2, 128),
            Size::Mini => (4, 256),
            Size::Small => (4, 512),
            Size::Medium => (8, 512),
            Size::Base => (12, 768),
            Size::Large => (24, 1_024),
        };
        Self {
            hidden_size,
            num_hidden_layers,
            num_attention_heads: hidden_size / 64,
            intermediate_size: 4 * hidden_size,
            ..Self::base()
        }
    }

    /// `bert-large`: L24 H1024 A16.
    pub fn large() -> Self {
        Self::of_size(Size::Large)
    }

    /// Reads and checks a folder's `config.json`.
    ///
    /// # Errors
    /// When the file is missing or not valid JSON, lacks a required size, has a number out of range, or requires something
    /// that Kiln does not support.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let text = kiln_files::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let mut json: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
        let unsupported = |field: &str, found: String, expected: &str| Error::Config {
            path: path.clone(),
            field: field.to_owned(),
            found,
            expected: expected.to_owned(),
        };
        let family =
            Family::of_config(&json).map_err(|(field, found, expected)| unsupported(field, found, &expected))?;
        if json.get("model_type").is_none_or(Value::is_null) {
            json.insert("model_type".to_owned(), family.model_type.into());
        }
        family.rename_keys(&mut json);
        if let Err((field, found, expected)) = check_numbers(&json) {
            return Err(unsupported(family.config_key(field), found, expected));
        }
        for field in ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"] {
            if !json.contains_key(field) {
                return Err(unsupported(family.config_key(field), "nothing".to_owned(), "a number"));
            }
        }
        for (field, supported) in [
            ("position_embedding_type", Value::from("absolute")),
            ("is_decoder", Value::from(false)),
            ("add_cross_attention", Value::from(false)),
        ] {
            if let Some(found) = json.get(field).filter(|found| !found.is_null() && **found != supported) {
                return Err(unsupported(field, found.to_string(), &supported.to_string()));
            }
        }
        if let Some(act) = json.get("hidden_act").filter(|act| HiddenAct::deserialize(*act).is_err()) {
            return Err(unsupported(family.config_key("hidden_act"), act.to_string(), HIDDEN_ACTS));
        }
        let config: Self =
            serde_json::from_value(Value::Object(json)).map_err(|source| Error::Json { path: path.clone(), source })?;
        config.check(&path)?;
        Ok(config)
    }

    /// The family that `model_type` names; BERT if there is none.
    pub fn family(&self) -> &'static Family {
        let model_type = self.extra.get("model_type").and_then(Value::as_str);
        model_type.and_then(Family::of_model_type).unwrap_or(FAMILIES[0])
    }

    /// The content of `config.json`, with the family's names of the keys.
    pub fn to_json(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut json)) = serde_json::to_value(self) else { unreachable!("a config is a JSON object") };
        self.family().restore_keys(&mut json);
        json
    }

    /// The number of ERNIE's task types, if it uses task type embeddings.
    pub(crate) fn task_types(&self) -> Option<usize> {
        let is_used = self.extra.get("use_task_id").and_then(Value::as_bool).unwrap_or(false);
        let entries = self.extra.get("task_type_vocab_size").and_then(Value::as_u64).unwrap_or(3);
        (is_used && self.family().has_task_types).then_some(entries as usize)
    }

    /// Converts BERT's name of a tensor to the family's.
    pub fn tensor_name(&self, name: &str) -> String {
        self.family().tensor_name(name, self.group_size())
    }

    /// Converts the family's name of a tensor to BERT's.
    pub fn bert_name(&self, name: &str) -> String {
        self.family().bert_name(name, self.group_size())
    }

    /// Whether a linear layer projects the embeddings to the hidden size.
    pub(crate) fn projects_embeddings(&self) -> bool {
        match self.family().projection {
            Projection::Never => false,
            Projection::OtherWidth => self.embedding_size() != self.hidden_size,
            Projection::Always => true,
        }
    }

    /// The width of the embeddings before they are projected.
    pub fn embedding_size(&self) -> usize {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// transformers' `classifier_dropout`; `hidden_dropout_prob` if absent.
    pub fn classifier_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// The longest sequence in tokens: the number of position embeddings that tokens can read.
    pub fn max_sequence_length(&self) -> usize {
        self.max_position_embeddings - self.first_position()
    }

    /// The row of the position embeddings that the first token reads.
    pub(crate) fn first_position(&self) -> usize {
        match self.family().positions {
            Positions::Zero | Positions::Rotary => 0,
            Positions::AfterPadding => self.pad_token_id as usize + 1,
        }
    }

    /// Checks that the sizes are valid and consistent; `path` is only used in errors.
    pub(crate) fn check(&self, path: &Path) -> Result<(), Error> {
        let error = |field: &str, found: String, expected: String| Err(self.error(path, field, found, expected));
        for (field, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            if size == 0 {
                return error(field, "0".to_owned(), "at least 1".to_owned());
            }
        }
        for field in ["num_hidden_groups", "inner_group_num"] {
            let found = self.extra.get(field).filter(|_| self.family().shares_layers);
            if let Some(found) = found.filter(|found| found.as_u64().is_none_or(|size| size == 0)) {
                return error(field, found.to_string(), "a number of at least 1".to_owned());
            }
        }
        if self.embedding_size == Some(0) {
            return error("embedding_size", "0".to_owned(), "at least 1".to_owned());
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of {} {}", self.family().config_key("hidden_size"), self.hidden_size);
            return error("num_attention_heads", self.num_attention_heads.to_string(), expected);
        }
        for (field, share) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout.unwrap_or(0.0)),
        ] {
            if !(0.0..1.0).contains(&share) {
                return error(field, share.to_string(), "a share in [0, 1)".to_owned());
            }
        }
        for (field, number) in [("layer_norm_eps", self.layer_norm_eps), ("initializer_range", self.initializer_range)]
        {
            if !(0.0..f64::from(f32::MAX)).contains(&number) {
                return error(field, number.to_string(), "a number of at least 0".to_owned());
            }
        }
        if self.pad_token_id as usize >= self.vocab_size {
            let expected = format!("an id below vocab_size {}", self.vocab_size);
            return error("pad_token_id", self.pad_token_id.to_string(), expected);
        }
        if self.first_position() >= self.max_position_embeddings {
            let expected = format!("more than {} for a padding token of this id", self.first_position());
            return error("max_position_embeddings", self.max_position_embeddings.to_string(), expected);
        }
        if self.family().has_pre_norm {
            self.check_pre_norm().or_else(|(field, found, expected)| error(&field, found, expected))?;
        }
        self.check_parameters(path)
    }

    /// A linear layer with fresh weights: normal with `initializer_range`, bias zero.
    pub fn init_linear(&self, d_input: usize, d_output: usize, device: &Device) -> Linear {
        Linear::new([d_input, d_output], self.initializer_range, device)
    }

    /// Fresh layer normalization over an axis of this width: weight one, bias zero. With pre-normalization it has no bias
    /// unless `norm_bias` is set.
    pub fn init_layer_norm(&self, width: usize, device: &Device) -> LayerNorm {
        let has_bias = !self.family().has_pre_norm || self.flag("norm_bias");
        LayerNormConfig::new(width).with_epsilon(self.layer_norm_eps).with_bias(has_bias).init(device)
    }

    pub(crate) fn init_embedding(&self, entries: usize, device: &Device) -> burn::nn::Embedding {
        let weight: Param<burn::tensor::Tensor<2>> = self.normal().init([entries, self.embedding_size()], device);
        burn::nn::Embedding { weight }
    }

    pub(crate) fn init_hidden_dropout(&self) -> Dropout {
        DropoutConfig::new(self.hidden_dropout_prob).init()
    }

    fn normal(&self) -> Initializer {
        Initializer::Normal { mean: 0.0, std: self.initializer_range }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<BertConfig, Error> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("config.json"), json).expect("it is writable");
        BertConfig::from_folder(folder.path())
    }

    fn sizes(more: &str) -> String {
        format!(
            r#"{{"vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64{more}}}"#
        )
    }

    #[test]
    fn defaults_are_bert_s_and_unknown_keys_survive() {
        let config = read(&sizes(r#", "hidden_act": "gelu", "id2label": {"0": "a"}"#)).expect("a small BERT");
        assert_eq!((config.layer_norm_eps, config.max_position_embeddings), (1e-12, 512));
        let again: BertConfig =
            serde_json::from_value(serde_json::to_value(&config).expect("it is JSON")).expect("it was one");
        assert_eq!((&config, config.family().model_type), (&again, "bert"));
        assert_eq!(again.extra["id2label"]["0"], "a");
    }

    #[test]
    fn a_family_has_defaults_of_its_own() {
        let config = read(&sizes(r#", "model_type": "albert""#)).expect("a small ALBERT");
        let dropout = config.classifier_dropout();
        assert_eq!((config.embedding_size(), config.hidden_act, dropout), (128, HiddenAct::GeluNew, 0.1));
        assert_eq!(config.to_json()["classifier_dropout_prob"], 0.1);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (more, field, found) in [
            (r#", "position_embedding_type": "relative_key""#, "position_embedding_type", "relative_key"),
            (r#", "is_decoder": true"#, "is_decoder", "true"),
            (r#", "hidden_act": "mish""#, "hidden_act", "mish"),
            (r#", "classifier_dropout": 2"#, "classifier_dropout", "2"),
            (r#", "layer_norm_eps": -1e-12"#, "layer_norm_eps", "-0.000000000001"),
            (r#", "initializer_range": -0.5"#, "initializer_range", "-0.5"),
            (r#", "pad_token_id": 9"#, "pad_token_id", "9"),
            (r#", "max_position_embeddings": 9223372036854775808"#, "max_position_embeddings", "9223372036854775808"),
            (r#", "type_vocab_size": 1000000000000"#, "type_vocab_size", "1000000000000"),
            (r#", "model_type": "llama""#, "model_type", "llama"),
            (r#", "model_type": "llama""#, "model_type", "xlm-roberta"),
            (r#", "model_type": "roberta", "max_position_embeddings": 1"#, "max_position_embeddings", "1"),
            (r#", "hidden_dropout_prob": 1.5"#, "hidden_dropout_prob", "1.5"),
            (r#", "model_type": "albert", "num_hidden_groups": 0"#, "num_hidden_groups", "0"),
            (r#", "model_type": "albert", "inner_group_num": "two""#, "inner_group_num", "two"),
            (r#", "model_type": "albert", "inner_group_num": 1000000000000"#, "inner_group_num", "1000000000000"),
            (r#", "model_type": "albert", "embedding_size": 0"#, "embedding_size", "0"),
            (r#", "model_type": "albert", "classifier_dropout_prob": 7"#, "`classifier_dropout_prob`", "7"),
            (r#", "model_type": "modernbert", "attention_dropout": 7"#, "`attention_dropout`", "7"),
            (r#", "model_type": "modernbert", "hidden_activation": "mish""#, "`hidden_activation`", "mish"),
            (r#", "model_type": "distilbert", "dim": 0"#, "`dim`", "0"),
        ] {
            let message = read(&sizes(more)).expect_err(field).to_string();
            assert!(message.contains(field) && message.contains(found) && message.contains("config.json"), "{message}");
        }
        let message = read(r#"{"vocab_size": 9}"#).expect_err("no sizes").to_string();
        assert!(message.contains("hidden_size"), "{message}");
        for (field, value) in
            [("num_hidden_layers", "2"), ("vocab_size", "9"), ("hidden_size", "32"), ("intermediate_size", "64")]
        {
            for absurd in ["1000000000", "9223372036854775808", "18446744073709551612"] {
                let json = sizes("").replace(&format!(r#""{field}": {value}"#), &format!(r#""{field}": {absurd}"#));
                let message = read(&json).expect_err(field).to_string();
                assert!(message.contains(&format!("`{field}` is {absurd}")), "{message}");
            }
        }
        let odd = sizes("").replace(r#""num_attention_heads": 4"#, r#""num_attention_heads": 5"#);
        assert!(read(&odd).expect_err("32 / 5").to_string().contains("divisor of hidden_size 32"));
    }
}
