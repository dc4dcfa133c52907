use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, BertPooler, Loaded, SentenceHead, Weights, load, load_bert, load_bert_stored};
use kiln_kernels::Precision;
use kiln_schema::{LabelSet, ProblemType, TagScheme, Task};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::masked_lm::{DECODER_BIAS, DECODER_WEIGHT};
use crate::model_folder::{CRF_PREFIX, HEAD_FILE, HEAD_KEY, HeadClass, HeadEntry, QA_PREFIX};
use crate::{
    ClassificationHead, ClassificationHeadConfig, Crf, Error, MaskedLm, Network, Pooling, PreTrainingHeads,
    QuestionAnswerer, SequenceClassifier, TaskModel, TokenClassifier,
};

/// Reads a model folder, written by [`save_model`](crate::save_model) or by a class of transformers for a family that Kiln
/// supports. Also returns the names of unused tensors.
///
/// # Errors
/// When a file is missing or damaged, the label names are invalid, or there is no head.
pub fn load_model(folder: &Path, device: &Device) -> Result<Loaded<TaskModel>, Error> {
    read_model(folder, None, device)
}

/// [`load_model`] for inference only, with matrix products in the given precision: see [`load_bert_stored`].
///
/// # Errors
/// As [`load_model`].
pub fn load_model_stored(folder: &Path, precision: Precision, device: &Device) -> Result<Loaded<TaskModel>, Error> {
    read_model(folder, Some(precision), device)
}

fn read_model(folder: &Path, stored: Option<Precision>, device: &Device) -> Result<Loaded<TaskModel>, Error> {
    let config = BertConfig::from_folder(folder)?;
    let weights = Arc::new(Weights::from_folder(folder)?);
    let encoder = match stored {
        None => load_bert(&config, &weights, device)?,
        Some(precision) => load_bert_stored(&config, &weights, precision, device)?,
    };
    read_head(folder, config, (encoder, &weights), device)
}

/// Reads the head that `config` names and puts it on an encoder. The head is in the same weights if transformers has a class
/// for it, otherwise in a separate file of the folder.
pub(crate) fn read_head(
    folder: &Path,
    config: BertConfig,
    (encoder, weights): (Loaded<Bert>, &Weights),
    device: &Device,
) -> Result<Loaded<TaskModel>, Error> {
    let head = HeadKind::read(&folder.join("config.json"), &config)?.ok_or_else(|| Error::NoHead {
        folder: folder.to_owned(),
        architectures: config.extra.get("architectures").cloned().unwrap_or_default().to_string(),
    })?;
    let Loaded { module: bert, unused } = encoder;
    let of_head = match head.class {
        Some(_) => None,
        None => Some(Weights::from_file(&folder.join(HEAD_FILE))?),
    };
    let weights = of_head.as_ref().unwrap_or(weights);
    let reader = ModelReader { folder, config: &config, head, weights, device };
    let network = match reader.head.task {
        Task::SequenceClassification => reader.sequence_classification(bert)?,
        Task::TokenClassification => reader.token_classification(bert)?,
        Task::QuestionAnswering => reader.question_answering(bert)?,
        Task::MaskedLm => reader.masked_lm(bert)?,
    };
    let of_head: BTreeSet<String> = network.head(&config).into_iter().map(|parameter| parameter.name).collect();
    let of_decoder = [DECODER_WEIGHT, DECODER_BIAS].map(|name| config.tensor_name(name));
    let is_read = |name: &str| of_head.contains(name) || of_decoder.iter().any(|other| other == name);
    let unused = unused.into_iter().filter(|name| !is_read(name)).collect();
    Ok(Loaded { module: TaskModel { network, config }, unused })
}

/// The kind of a folder's head.
struct HeadKind {
    task: Task,
    /// transformers' class of the head, if there is one.
    class: Option<HeadClass>,
    entry: HeadEntry,
}

impl HeadKind {
    /// Reads the head's kind from `architectures`, otherwise from Kiln's own entry. `None` if the config has neither.
    fn read(path: &Path, config: &BertConfig) -> Result<Option<Self>, Error> {
        let entry = match config.extra.get(HEAD_KEY) {
            None | Some(Value::Null) => None,
            Some(entry) => Some(HeadEntry::deserialize(entry).map_err(|error| Error::HeadKey {
                path: path.to_owned(),
                key: HEAD_KEY,
                reason: error.to_string(),
            })?),
        };
        let architectures = config.extra.get("architectures").and_then(Value::as_array);
        let is_class = |class: &str| architectures.is_some_and(|classes| classes.contains(&json!(class)));
        let family = config.family();
        let class = HeadClass::ALL.into_iter().find(|class| is_class(&class.name(family)));
        Ok(match (class, entry) {
            (Some(class), entry) => {
                Some(Self { task: class.task(), class: Some(class), entry: entry.unwrap_or_default() })
            }
            // Earlier versions did not save the task of a head.
            (None, Some(entry)) => {
                Some(Self { task: entry.task.unwrap_or(Task::SequenceClassification), class: None, entry })
            }
            (None, None) => None,
        })
    }
}

/// Reads a network.
struct ModelReader<'a> {
    folder: &'a Path,
    config: &'a BertConfig,
    head: HeadKind,
    /// The weights that contain the head.
    weights: &'a Weights,
    device: &'a Device,
}

impl ModelReader<'_> {
    fn sequence_classification(self, mut bert: Bert) -> Result<Network, Error> {
        let labels = self.labels()?;
        let pooling = self.head.entry.pooling.unwrap_or(Pooling::Pooler);
        let problem_type = self.problem_type(&labels)?;
        if let (Some(_), SentenceHead::Own { output, .. }) = (self.head.class, self.config.family().sentence_head) {
            bert.pooler = own_pooler(self.config, self.weights, bert.pooler.take(), self.device)?;
            let mut head = self.fresh_head(&labels);
            head.classifier = load(head.classifier, self.weights, output)?.module;
            let model = SequenceClassifier { bert, head, pooling };
            return Ok(Network::SequenceClassification { model, labels, problem_type });
        }
        if pooling == Pooling::Pooler && bert.pooler.is_none() {
            let names = ["pooler.dense.weight", "pooler.dense.bias"].map(|name| self.config.tensor_name(name)).to_vec();
            return Err(kiln_bert::Error::Missing { path: self.folder.to_owned(), names }.into());
        }
        let head = self.classification_head(&labels)?;
        Ok(Network::SequenceClassification { model: SequenceClassifier { bert, head, pooling }, labels, problem_type })
    }

    fn token_classification(self, mut bert: Bert) -> Result<Network, Error> {
        bert.pooler = self.token_head(bert.pooler.take())?;
        let labels = self.labels()?;
        let head = self.classification_head(&labels)?;
        let crf = match self.head.entry.crf {
            true => Some(load(Crf::new(labels.len(), self.device), self.weights, CRF_PREFIX)?.module),
            false => None,
        };
        let units = self.head.entry.units.unwrap_or_default();
        let tag_scheme = self.head.entry.tag_scheme.unwrap_or_else(|| unrecorded_scheme(&labels));
        Ok(Network::TokenClassification { model: TokenClassifier { bert, head, crf }, labels, units, tag_scheme })
    }

    fn question_answering(self, mut bert: Bert) -> Result<Network, Error> {
        bert.pooler = self.token_head(bert.pooler.take())?;
        let fresh = self.config.init_linear(self.config.hidden_size, 2, self.device);
        let prefix = if self.head.class.is_some() { self.config.family().answer_output } else { QA_PREFIX };
        let qa_outputs = load(fresh, self.weights, prefix)?.module;
        Ok(Network::QuestionAnswering { model: QuestionAnswerer { bert, qa_outputs } })
    }

    fn masked_lm(self, mut bert: Bert) -> Result<Network, Error> {
        // A checkpoint with both heads that is not a `BertForPreTraining` may have an untrained pooler. ALBERT's second head
        // is for another task.
        let next_sentence = self.head.class == Some(HeadClass::PreTraining) && self.config.family().has_next_sentence;
        if !next_sentence {
            bert.pooler = None;
        }
        let PreTrainingHeads { predictions, seq_relationship } =
            PreTrainingHeads::new(self.config, next_sentence, self.device);
        let predictions = match bert.embeddings.stored_words() {
            Some(_) => predictions.load_stored(self.config, self.weights, self.device)?,
            None => predictions.load(self.config, self.weights, self.device)?,
        };
        let load_linear = |linear| load(linear, self.weights, "cls.seq_relationship.").map(|loaded| loaded.module);
        let seq_relationship = seq_relationship.map(load_linear).transpose()?;
        Ok(Network::MaskedLm { model: MaskedLm { bert, cls: PreTrainingHeads { predictions, seq_relationship } } })
    }

    /// The layers that transformers' token-level heads have before their output layer, in families that have such layers.
    fn token_head(&self, of_base: Option<BertPooler>) -> Result<Option<BertPooler>, Error> {
        match self.head.class {
            Some(_) if self.config.family().has_token_head => {
                own_pooler(self.config, self.weights, of_base, self.device)
            }
            _ => Ok(None),
        }
    }

    fn classification_head(&self, labels: &LabelSet) -> Result<ClassificationHead, Error> {
        Ok(load(self.fresh_head(labels), self.weights, "")?.module)
    }

    fn fresh_head(&self, labels: &LabelSet) -> ClassificationHead {
        let head = ClassificationHeadConfig {
            hidden_size: self.config.hidden_size,
            hidden_layers: self.head.entry.hidden_layers.clone(),
            num_labels: labels.len(),
            dropout: self.config.classifier_dropout(),
            initializer_range: self.config.initializer_range,
        };
        head.init(self.device)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("config.json")
    }

    fn bad_key(&self, key: &'static str, reason: String) -> Error {
        Error::HeadKey { path: self.path(), key, reason }
    }

    /// The problem type. As in transformers, the default is regression for one logit.
    fn problem_type(&self, labels: &LabelSet) -> Result<ProblemType, Error> {
        let problem_type = match self.config.extra.get("problem_type") {
            None | Some(Value::Null) if labels.len() == 1 => ProblemType::Regression,
            None | Some(Value::Null) => ProblemType::default(),
            Some(name) => {
                ProblemType::deserialize(name).map_err(|error| self.bad_key("problem_type", error.to_string()))?
            }
        };
        if problem_type == ProblemType::Regression && labels.len() > 1 {
            let found = format!("found a regression of {} numbers, expected one number", labels.len());
            return Err(self.bad_key("problem_type", found));
        }
        if problem_type == ProblemType::SingleLabelClassification && labels.len() == 1 {
            let found = "found one label, whose probability is always 1; expected at least 2 labels".to_owned();
            return Err(self.bad_key("problem_type", found));
        }
        Ok(problem_type)
    }

    /// The labels of `id2label`, whose keys must be 0, 1, 2 …. Without it there are `num_labels` labels, 2 by default, with
    /// transformers' default names.
    fn labels(&self) -> Result<LabelSet, Error> {
        let names = match self.config.extra.get("id2label") {
            Some(Value::Object(id2label)) => {
                let name = |id: usize| match id2label.get(&id.to_string()) {
                    Some(Value::String(name)) => Ok(name.clone()),
                    // Stars, for example, may be numbers.
                    Some(name @ (Value::Number(_) | Value::Bool(_))) => Ok(name.to_string()),
                    Some(other) => Err(self.bad_key("id2label", format!("the name for id {id} is {other}"))),
                    None => Err(self.bad_key("id2label", format!("there is no name for id {id}"))),
                };
                (0..id2label.len()).map(name).collect::<Result<Vec<_>, _>>()?
            }
            None | Some(Value::Null) => (0..self.num_labels()?).map(|id| format!("LABEL_{id}")).collect(),
            Some(other) => return Err(self.bad_key("id2label", format!("it is {other}; expected an object"))),
        };
        LabelSet::new(names).map_err(|error| Error::label_set(self.path(), error))
    }

    fn num_labels(&self) -> Result<usize, Error> {
        /// transformers' default.
        const DEFAULT: usize = 2;
        /// The maximum for a classifier without label names.
        const MOST: u64 = 1_000_000;
        match self.config.extra.get("num_labels") {
            None | Some(Value::Null) => Ok(DEFAULT),
            Some(number) => match number.as_u64().filter(|number| (1..=MOST).contains(number)) {
                Some(number) => Ok(number as usize),
                None => Err(self.bad_key("num_labels", format!("it is {number}; expected a number from 1 to {MOST}"))),
            },
        }
    }
}

/// [`own_pooler`], if the checkpoint has its weights.
pub(crate) fn pooler_if_any(
    config: &BertConfig,
    weights: &Weights,
    device: &Device,
) -> Result<Option<BertPooler>, Error> {
    match config.family().sentence_head {
        SentenceHead::Own { dense, .. } if weights.shape(&format!("{dense}weight")).is_some() => {
            own_pooler(config, weights, None, device)
        }
        _ => Ok(None),
    }
}

/// The layers that transformers' head has instead of BERT's pooler. `of_base` are those of an adapter's base. They are used
/// if the adapter's weights do not contain the layers.
pub(crate) fn own_pooler(
    config: &BertConfig,
    weights: &Weights,
    of_base: Option<BertPooler>,
    device: &Device,
) -> Result<Option<BertPooler>, Error> {
    let SentenceHead::Own { dense, norm, .. } = config.family().sentence_head else { return Ok(None) };
    if of_base.is_some() && weights.shape(&format!("{dense}weight")).is_none() {
        return Ok(of_base);
    }
    let mut pooler = config.init_pooler(device);
    pooler.dense = load(pooler.dense, weights, dense)?.module;
    if let (Some(layer_norm), Some(prefix)) = (pooler.layer_norm.take(), norm) {
        pooler.layer_norm = Some(load(layer_norm, weights, prefix)?.module);
    }
    pooler.is_fresh = false;
    Ok(Some(pooler))
}

/// The tag scheme of a folder that does not record one, such as a folder of transformers. If the scheme of the tags is
/// ambiguous, it is plain, so that every tag keeps its name.
fn unrecorded_scheme(labels: &LabelSet) -> TagScheme {
    TagScheme::infer(labels.names().iter().map(String::as_str)).unwrap_or(TagScheme::Plain)
}
