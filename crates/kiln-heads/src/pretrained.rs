use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use kiln_bert::{
    Bert, BertConfig, BertPooler, Family, InFile, SentenceHead, Weights, initialize, load, load_bert_in_file,
};
use serde::{Deserialize, Serialize};

use crate::read_model::pooler_if_any;
use crate::{
    ClassificationHead, ClassificationHeadConfig, Crf, Error, MaskedLm, Pooling, PreTrainingHeads, QuestionAnswerer,
    SequenceClassifier, TokenClassifier,
};

/// The source of the encoder's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The checkpoint's weights.
    #[default]
    Pretrained,
    /// Fresh weights, in the checkpoint's architecture.
    Random,
}

/// How to make a model with a fresh head from a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PretrainedConfig {
    /// The source of the encoder's weights.
    pub start: Start,
    /// An architecture instead of the checkpoint's. The weights are fresh then, and the folder is not read.
    pub architecture: Option<BertConfig>,
    /// The indices of the layers to keep, in order; `None` keeps all. The config gets the new number of layers.
    pub layers: Option<Vec<usize>>,
    /// Whether the encoder will be frozen. A fresh pooler is an error then.
    pub frozen: bool,
    /// The weights of the encoder that are not trained and are read from the checkpoint's file in place.
    pub in_file: InFile,
    /// Widths of the head's layers before the output layer.
    pub hidden_layers: Vec<usize>,
    /// Number of labels.
    pub num_labels: usize,
    /// Standard deviation of the head's fresh weights. The default is the config's `initializer_range`.
    pub head_initializer_range: Option<f64>,
}

/// A checkpoint with a fresh head.
#[derive(Debug)]
pub struct Pretrained<M> {
    /// The model.
    pub model: M,
    /// The encoder's config.
    pub config: BertConfig,
    /// The names of the checkpoint's unused tensors, sorted. [`kiln_bert::groups`] groups them.
    pub unused: Vec<String>,
    /// Whether the head reads a fresh pooler, because the checkpoint has none.
    pub fresh_pooler: bool,
}

impl PretrainedConfig {
    /// Puts a fresh sequence classification head on the encoder of a folder. As in the other methods, fresh weights are
    /// drawn from the device's random stream.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or when the encoder is frozen and has no pooler but `pooling` needs one.
    pub fn sequence_classifier(
        &self,
        folder: &Path,
        pooling: Pooling,
        device: &Device,
    ) -> Result<Pretrained<SequenceClassifier>, Error> {
        let mut fresh_pooler = false;
        let add = |mut bert: Bert, config: &BertConfig| {
            let is_of_head = config.family().sentence_head != SentenceHead::Pooler;
            if pooling != Pooling::Pooler {
                // An unused pooler would be saved untrained.
                bert.pooler = None;
            } else if bert.pooler.is_none() || (is_of_head && !config.family().has_token_head) {
                if self.frozen {
                    return Err(Error::FrozenPooler { folder: folder.to_owned() });
                }
                bert.pooler = Some(config.init_pooler(device));
                fresh_pooler = !is_of_head;
            }
            Ok(SequenceClassifier { bert, head: self.fresh_head(folder, config, device)?, pooling })
        };
        let pretrained = self.load(folder, device, |_| pooling == Pooling::Pooler, add)?;
        initialize(&pretrained.model);
        Ok(Pretrained { fresh_pooler, ..pretrained })
    }

    /// Puts a fresh token classification head on the encoder, with a fresh CRF if `crf` is true.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn token_classifier(
        &self,
        folder: &Path,
        crf: bool,
        device: &Device,
    ) -> Result<Pretrained<TokenClassifier>, Error> {
        let pretrained = self.load(
            folder,
            device,
            |family| family.has_token_head,
            |bert, config| {
                let bert = self.with_token_head(bert, config, device);
                let crf = crf.then(|| Crf::new(self.num_labels, device));
                Ok(TokenClassifier { bert, head: self.fresh_head(folder, config, device)?, crf })
            },
        )?;
        initialize(&pretrained.model);
        Ok(pretrained)
    }

    /// Puts a fresh question answering head on the encoder. `hidden_layers` and `num_labels` are not used.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn question_answerer(&self, folder: &Path, device: &Device) -> Result<Pretrained<QuestionAnswerer>, Error> {
        let pretrained = self.load(
            folder,
            device,
            |family| family.has_token_head,
            |bert, config| Ok(QuestionAnswerer::new(self.with_token_head(bert, config, device), config, device)),
        )?;
        initialize(&pretrained.model);
        Ok(pretrained)
    }

    /// Puts the heads of pre-training on the encoder: those of the checkpoint, or fresh ones if it has none. With
    /// `next_sentence` there is a second head, and a pooler that it reads.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn masked_lm(
        &self,
        folder: &Path,
        next_sentence: bool,
        device: &Device,
    ) -> Result<Pretrained<MaskedLm>, Error> {
        let mut fresh_pooler = false;
        let mut pretrained = self.load(
            folder,
            device,
            |_| next_sentence,
            |mut bert, config| {
                check_pretraining(folder, config, next_sentence)?;
                if next_sentence && bert.pooler.is_none() {
                    bert.pooler = Some(config.init_pooler(device));
                    fresh_pooler = true;
                }
                Ok(MaskedLm { bert, cls: PreTrainingHeads::new(config, next_sentence, device) })
            },
        )?;
        let cls = &mut pretrained.model.cls;
        let config = &pretrained.config;
        for (prefix, head) in [("cls.predictions.", true), ("cls.seq_relationship.", false)] {
            let is_of_head = |name: &String| config.bert_name(name).starts_with(prefix);
            let names = || pretrained.unused.iter().filter(|name| is_of_head(name));
            // In some families, all heads use the same names for their first layers. Those of a classifier are not loaded.
            let is_classifier = config.family().has_token_head
                && pretrained.unused.iter().any(|name| name.starts_with(config.family().answer_output));
            if self.is_fresh() || names().next().is_none() || !(head || next_sentence) || is_classifier {
                continue;
            }
            let weights = Weights::from_folder(folder)?;
            if head {
                cls.predictions = cls.predictions.clone().load(config, &weights, device)?;
            } else {
                let linear = cls.seq_relationship.take().expect("it was made with the second head");
                cls.seq_relationship = Some(load(linear, &weights, prefix)?.module);
            }
            // Copies of the word embeddings and of the bias under the decoder's names also count as used.
            pretrained.unused.retain(|name| !is_of_head(name));
        }
        initialize(&pretrained.model);
        Ok(Pretrained { fresh_pooler, ..pretrained })
    }

    fn load<M>(
        &self,
        folder: &Path,
        device: &Device,
        keeps_pooler: impl FnOnce(&Family) -> bool,
        add: impl FnOnce(Bert, &BertConfig) -> Result<M, Error>,
    ) -> Result<Pretrained<M>, Error> {
        let mut config = self.architecture.clone().map_or_else(|| BertConfig::from_folder(folder), Ok)?;
        let (mut bert, mut unused) = if self.is_fresh() {
            config.check_fresh(&folder.join("config.json"))?;
            (config.init(device), Vec::new())
        } else {
            let loaded = load_bert_in_file(&config, &Arc::new(Weights::from_folder(folder)?), self.in_file, device)?;
            (loaded.module, loaded.unused)
        };
        let keeps_pooler = keeps_pooler(config.family());
        // ModernBERT was pre-trained with the layers that all its heads have before their output layer.
        if keeps_pooler && config.family().has_token_head && !self.is_fresh() {
            bert.pooler = pretrained_head(&config, &Weights::from_folder(folder)?, &mut unused, device)?;
        }
        if !keeps_pooler && bert.pooler.take().is_some() && !self.is_fresh() {
            unused.extend(["pooler.dense.bias", "pooler.dense.weight"].map(|name| config.tensor_name(name)));
        }
        if let Some(layers) = &self.layers {
            check_layers(folder, &config, layers)?;
            bert.keep_layers(layers);
            config.num_hidden_layers = layers.len();
        }
        let model = add(bert, &config)?;
        Ok(Pretrained { model, config, unused, fresh_pooler: false })
    }

    /// Adds the layers that token-level heads of the family have before their output layer: those of the checkpoint,
    /// otherwise fresh ones. A frozen encoder gets no fresh layers, because they would stay untrained.
    fn with_token_head(&self, mut bert: Bert, config: &BertConfig, device: &Device) -> Bert {
        let is_wanted = config.family().has_token_head && !self.frozen;
        let kept = bert.pooler.filter(|pooler| is_wanted || !pooler.is_fresh);
        bert.pooler = kept.or_else(|| is_wanted.then(|| config.init_pooler(device)));
        bert
    }

    fn is_fresh(&self) -> bool {
        self.start == Start::Random || self.architecture.is_some()
    }

    fn fresh_head(&self, folder: &Path, config: &BertConfig, device: &Device) -> Result<ClassificationHead, Error> {
        let head = ClassificationHeadConfig {
            hidden_size: config.hidden_size,
            hidden_layers: self.hidden_layers.clone(),
            num_labels: self.num_labels,
            dropout: config.classifier_dropout(),
            initializer_range: self.head_initializer_range.unwrap_or(config.initializer_range),
        };
        head.check_fresh(folder)?;
        Ok(head.init(device))
    }
}

/// The layers before a head's output layer, if the checkpoint has them. Removes their names from `unused`.
fn pretrained_head(
    config: &BertConfig,
    weights: &Weights,
    unused: &mut Vec<String>,
    device: &Device,
) -> Result<Option<BertPooler>, Error> {
    let pooler = pooler_if_any(config, weights, device)?;
    if let (Some(_), SentenceHead::Own { dense, norm, .. }) = (&pooler, config.family().sentence_head) {
        unused.retain(|name| !name.starts_with(dense) && norm.is_none_or(|norm| !name.starts_with(norm)));
    }
    Ok(pooler)
}

/// Checks that layers with these indices exist, and that all layers are of one kind and share no weights.
fn check_layers(folder: &Path, config: &BertConfig, layers: &[usize]) -> Result<(), Error> {
    let family = config.family();
    let missing = layers.iter().find(|&&layer| layer >= config.num_hidden_layers);
    let (field, found, expected) = match missing {
        None if family.has_independent_layers() => return Ok(()),
        None => {
            let expected = "a family whose layers are all of one kind and share no weights".to_owned();
            ("model_type", format!("\"{}\"", family.model_type), expected)
        }
        Some(missing) => {
            let expected = format!("more than {missing}, the index of a layer that is kept");
            ("num_hidden_layers", config.num_hidden_layers.to_string(), expected)
        }
    };
    let (path, field) = (folder.join("config.json"), field.to_owned());
    Err(kiln_bert::Error::Config { path, field, found, expected }.into())
}

/// Checks that the family of a config has the heads of pre-training that [`PretrainedConfig::masked_lm`] makes. `folder` is
/// only for the error.
///
/// # Errors
/// When the family lacks a head.
pub fn check_pretraining(folder: &Path, config: &BertConfig, next_sentence: bool) -> Result<(), Error> {
    let family = config.family();
    if family.has_masked_lm && (family.has_next_sentence || !next_sentence) {
        return Ok(());
    }
    let expected = match next_sentence {
        true => "a family with a next-sentence head; `next_sentence = false` needs none",
        false => "a family with a masked-token head",
    };
    let (path, field) = (folder.join("config.json"), "model_type".to_owned());
    let (found, expected) = (format!("\"{}\"", family.model_type), expected.to_owned());
    Err(kiln_bert::Error::Config { path, field, found, expected }.into())
}
