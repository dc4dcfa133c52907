use std::path::Path;

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, Weights, initialize, load_bert};
use serde::{Deserialize, Serialize};

use crate::{ClassificationHeadConfig, Crf, Error, Pooling, QuestionAnswerer, SequenceClassifier, TokenClassifier};

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

/// How a checkpoint becomes a model with a fresh head.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainedConfig {
    /// The encoder's weights.
    pub start: Start,
    /// Whether the encoder will stay as it is; a fresh pooler is refused then.
    pub frozen: bool,
    /// Widths of the head's extra layers.
    pub hidden_layers: Vec<usize>,
    /// Labels.
    pub num_labels: usize,
}

/// A checkpoint with a fresh head.
#[derive(Debug)]
pub struct Pretrained<M> {
    /// The model, on the device asked for.
    pub model: M,
    /// The encoder's config.
    pub config: BertConfig,
    /// Tensors of the checkpoint that were not used, sorted.
    pub unused: Vec<String>,
    /// Whether the checkpoint lacked the pooler that the head reads.
    pub fresh_pooler: bool,
}

impl PretrainedConfig {
    /// The encoder of a folder under a fresh head on one pooled vector of each row. Fresh weights are drawn from the
    /// device's random stream, here and below.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or lacks the pooler that a frozen encoder would need.
    pub fn sequence_classifier(
        &self,
        folder: &Path,
        pooling: Pooling,
        device: &Device,
    ) -> Result<Pretrained<SequenceClassifier>, Error> {
        let mut fresh_pooler = false;
        let add = |mut bert: Bert, config: &BertConfig| {
            if pooling != Pooling::Pooler {
                // A pooler that nothing reads would be saved untrained.
                bert.pooler = None;
            } else if bert.pooler.is_none() {
                if self.frozen {
                    return Err(Error::FrozenPooler { folder: folder.to_owned() });
                }
                bert.pooler = Some(config.init_pooler(device));
                fresh_pooler = true;
            }
            Ok(SequenceClassifier { bert, head: self.head(config).init(device), pooling })
        };
        let pretrained = self.load(folder, device, pooling == Pooling::Pooler, add)?;
        initialize(&pretrained.model);
        Ok(Pretrained { fresh_pooler, ..pretrained })
    }

    /// The same under a fresh head on every token, with a fresh field on top where `crf` says so.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn token_classifier(
        &self,
        folder: &Path,
        crf: bool,
        device: &Device,
    ) -> Result<Pretrained<TokenClassifier>, Error> {
        let pretrained = self.load(folder, device, false, |bert, config| {
            let crf = crf.then(|| Crf::new(self.num_labels, device));
            Ok(TokenClassifier { bert, head: self.head(config).init(device), crf })
        })?;
        initialize(&pretrained.model);
        Ok(pretrained)
    }

    /// The same under a fresh start and end of an answer; widths and labels play no part.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn question_answerer(&self, folder: &Path, device: &Device) -> Result<Pretrained<QuestionAnswerer>, Error> {
        let pretrained =
            self.load(folder, device, false, |bert, config| Ok(QuestionAnswerer::new(bert, config, device)))?;
        initialize(&pretrained.model);
        Ok(pretrained)
    }

    fn load<M>(
        &self,
        folder: &Path,
        device: &Device,
        keeps_pooler: bool,
        add: impl FnOnce(Bert, &BertConfig) -> Result<M, Error>,
    ) -> Result<Pretrained<M>, Error> {
        let config = BertConfig::from_folder(folder)?;
        let (mut bert, mut unused) = match self.start {
            Start::Pretrained => {
                let loaded = load_bert(&config, &Weights::from_folder(folder)?, device)?;
                (loaded.module, loaded.unused)
            }
            Start::Random => (config.init(device), Vec::new()),
        };
        if !keeps_pooler && bert.pooler.take().is_some() && self.start == Start::Pretrained {
            unused.extend(["pooler.dense.bias", "pooler.dense.weight"].map(str::to_owned));
        }
        let model = add(bert, &config)?;
        Ok(Pretrained { model, config, unused, fresh_pooler: false })
    }

    fn head(&self, config: &BertConfig) -> ClassificationHeadConfig {
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
