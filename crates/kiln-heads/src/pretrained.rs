use std::path::Path;

use burn::tensor::Device;
use kiln_bert::{BertConfig, Weights, initialize, load_bert};
use serde::{Deserialize, Serialize};

use crate::{ClassificationHeadConfig, Error, Pooling, SequenceClassifier};

/// Where the encoder's weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The checkpoint's.
    #[default]
    Pretrained,
    /// Fresh ones, in the checkpoint's architecture.
    Random,
}

/// What is put on top of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainedConfig {
    /// The encoder's weights.
    pub start: Start,
    /// Whether the encoder will stay as it is; a fresh pooler is refused then.
    pub frozen: bool,
    /// What the head reads.
    pub pooling: Pooling,
    /// Widths of the head's extra layers.
    pub hidden_layers: Vec<usize>,
    /// Labels.
    pub num_labels: usize,
}

/// A checkpoint with a fresh head.
#[derive(Debug)]
pub struct Pretrained {
    /// The model, on the device asked for.
    pub model: SequenceClassifier,
    /// The encoder's config.
    pub config: BertConfig,
    /// Tensors of the checkpoint that were not used, sorted.
    pub unused: Vec<String>,
    /// Whether the checkpoint lacked the pooler that the head reads.
    pub fresh_pooler: bool,
}

impl PretrainedConfig {
    /// Loads the encoder of a folder and puts a fresh head on it. Fresh weights are drawn from the device's random stream.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or lacks the pooler that a frozen encoder would need.
    pub fn load(&self, folder: &Path, device: &Device) -> Result<Pretrained, Error> {
        let config = BertConfig::from_folder(folder)?;
        let (mut bert, mut unused) = match self.start {
            Start::Pretrained => {
                let loaded = load_bert(&config, &Weights::from_folder(folder)?, device)?;
                (loaded.module, loaded.unused)
            }
            Start::Random => (config.init(device), Vec::new()),
        };
        let mut fresh_pooler = false;
        if self.pooling != Pooling::Pooler {
            // A pooler that nothing reads would be saved untrained.
            if bert.pooler.take().is_some() && self.start == Start::Pretrained {
                unused.extend(["pooler.dense.bias", "pooler.dense.weight"].map(str::to_owned));
            }
        } else if bert.pooler.is_none() {
            if self.frozen {
                return Err(Error::FrozenPooler { folder: folder.to_owned() });
            }
            bert.pooler = Some(config.init_pooler(device));
            fresh_pooler = true;
        }
        let model = SequenceClassifier { bert, head: self.head_config(&config).init(device), pooling: self.pooling };
        initialize(&model);
        Ok(Pretrained { model, config, unused, fresh_pooler })
    }

    fn head_config(&self, config: &BertConfig) -> ClassificationHeadConfig {
        ClassificationHeadConfig {
            hidden_size: config.hidden_size,
            hidden_layers: self.hidden_layers.clone(),
            num_labels: self.num_labels,
            dropout: classifier_dropout(config),
            initializer_range: config.initializer_range,
        }
    }
}

/// transformers' `classifier_dropout`, which is `hidden_dropout_prob` where it is not given.
pub(crate) fn classifier_dropout(config: &BertConfig) -> f64 {
    config.extra.get("classifier_dropout").and_then(|value| value.as_f64()).unwrap_or(config.hidden_dropout_prob)
}
