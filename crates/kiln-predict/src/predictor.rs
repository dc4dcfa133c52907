use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, Loaded};
use kiln_heads::{
    AdapterBase, Calibration, Network, Pooling, TaskModel, load_model, load_model_stored, trained_max_length,
};
use kiln_kernels::{PackedWeights, Precision};
use kiln_schema::{ProblemType, Task};
use kiln_tokenize::{ModelLimits, Tokenizer, default_prompt};
use rayon::prelude::*;

use crate::masks::TOP;
use crate::{EmbedConfig, Embedder, Error, Prediction, Prepared};

/// A trained model with its tokenizer, which predicts for texts. Clones share the weights.
#[derive(Clone, Debug)]
pub struct Predictor {
    model: TaskModel,
    /// The calibration of the logits, if there is one.
    calibration: Option<Calibration>,
    unused: Vec<String>,
    tokenizer: Arc<Tokenizer>,
    /// The folder with the model.
    folder: PathBuf,
    pub(crate) device: Device,
    /// The number of tokens to predict for each mask.
    pub(crate) top: usize,
    pub(crate) batch_size: usize,
}

/// The default number of rows in a batch. More rows need more memory and gain little speed on a CPU.
pub(crate) const BATCH_SIZE: usize = 32;

impl Predictor {
    /// Reads a model folder: the weights, the head, the labels, the tokenizer, and a calibration if there is one.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the tokenizer does not fit the model.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Self, Error> {
        let mut loaded = load_model(folder, device)?;
        loaded.module.network.bert_mut().products.packed = Some(PackedWeights::default());
        Self::of(loaded, Tokenizer::from_folder(folder)?, folder, device)?.calibrated_as(folder)
    }

    /// Reads a base with its tokenizer, and an adapter that Kiln or peft has saved.
    ///
    /// # Errors
    /// When a file is missing or damaged, or base, tokenizer and adapter do not fit each other.
    pub fn from_adapter(base: &Path, adapter: &Path, device: &Device) -> Result<Self, Error> {
        Self::on_base(&AdapterBase::from_folder(base, device)?, adapter, device)
    }

    /// [`Predictor::from_adapter`] with a base that several adapters share.
    ///
    /// # Errors
    /// As [`Predictor::from_adapter`].
    pub fn on_base(base: &AdapterBase, adapter: &Path, device: &Device) -> Result<Self, Error> {
        let tokenizer = as_trained(Tokenizer::from_folder(base.folder())?, adapter)?;
        Self::of(base.model(adapter, device)?, tokenizer, base.folder(), device)?.calibrated_as(adapter)
    }

    /// [`Predictor::from_folder`] for a folder whose files do not change, with the encoder's matrix products in the given
    /// precision. On the CPU, the encoder's weights are packed directly from their file, without an f32 copy.
    ///
    /// # Errors
    /// As [`Predictor::from_folder`], except that weights that are not finite are not detected here, but in the computed
    /// logits.
    pub fn from_stored(folder: &Path, precision: Precision, device: &Device) -> Result<Self, Error> {
        let loaded = load_model_stored(folder, precision, device)?;
        Self::of(loaded, Tokenizer::from_folder(folder)?, folder, device)?.calibrated_as(folder)
    }

    fn of(
        Loaded { module: model, unused }: Loaded<TaskModel>,
        tokenizer: Tokenizer,
        folder: &Path,
        device: &Device,
    ) -> Result<Self, Error> {
        let tokenizer = fitted(tokenizer, &model.config)?;
        if matches!(model.network, Network::MaskedLm { .. }) && tokenizer.mask_token_id().is_none() {
            return Err(Error::NoMaskToken { folder: folder.to_owned() });
        }
        let (tokenizer, folder) = (Arc::new(tokenizer), folder.to_owned());
        let (device, calibration) = (device.clone(), None);
        Ok(Self { model, calibration, unused, tokenizer, folder, device, top: TOP, batch_size: BATCH_SIZE })
    }

    /// Reads the calibration of a folder, if it has one.
    fn calibrated_as(self, folder: &Path) -> Result<Self, Error> {
        let calibration = Calibration::read(folder)?;
        if let Some(thresholds) = calibration.as_ref().and_then(|calibration| calibration.thresholds.as_ref()) {
            let expected = match &self.model.network {
                Network::SequenceClassification {
                    labels, problem_type: ProblemType::MultiLabelClassification, ..
                } => labels.len(),
                _ => 0,
            };
            if thresholds.len() != expected {
                let reason =
                    format!("found {} `thresholds`, expected one for each of {expected} labels", thresholds.len());
                return Err(kiln_heads::Error::Calibration { path: folder.join(Calibration::FILE), reason }.into());
            }
        }
        Ok(Self { calibration, ..self })
    }

    /// The calibration of the logits, or `None` if the folder has none.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Removes the calibration: the temperature is 1 and the thresholds are one half.
    pub fn without_calibration(self) -> Self {
        Self { calibration: None, ..self }
    }

    /// An embedder with the model's encoder and the folder's [default prompt](default_prompt). The weights are shared.
    ///
    /// # Errors
    /// When `pooling` needs a pooler and the model has none, or the file with the prompt is damaged.
    pub fn embedder(&self, pooling: Pooling, normalize: bool) -> Result<Embedder, Error> {
        let bert = self.model.network.bert().clone();
        let config = EmbedConfig { pooling, normalize, precision: bert.products.precision };
        let (tokenizer, device, folder) = (self.tokenizer.clone(), self.device.clone(), self.folder.clone());
        let (unused, prompt) = (self.unused.clone(), default_prompt(&folder)?);
        Embedder { bert, unused, tokenizer, config, device, prompt, folder }.checked()
    }

    /// Sets the precision of the encoder's matrix products, as far as the backend supports it.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.model.network.bert_mut().products.precision = precision;
        self
    }

    /// Sets the number of rows in a batch; 0 counts as 1.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size.max(1);
        self
    }

    /// The names of the tensors in the folder's weights that the model does not use, sorted. [`kiln_bert::layers`] counts
    /// the layers among them, and [`kiln_bert::groups`] groups them.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// The task of the model.
    pub fn task(&self) -> Task {
        self.model.network.task()
    }

    /// The network of the model.
    pub fn network(&self) -> &Network {
        &self.model.network
    }

    /// Whether the config names the problem type, as that of each model of Kiln does. Without it, the score of a single
    /// logit is its sigmoid in transformers' pipeline, and not a number.
    pub fn has_problem_type(&self) -> bool {
        self.model.config.extra.get("problem_type").is_some_and(|name| !name.is_null())
    }

    /// The encoder, mutable.
    pub fn bert_mut(&mut self) -> &mut Bert {
        self.model.network.bert_mut()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Predicts for texts and pairs, in their order. For question answering, the first text is the question and the second
    /// is the context.
    ///
    /// Surrounding white space of a text does not change the prediction: it is also removed from the rows of a data set.
    /// Offsets count the characters of the original text, including that white space.
    ///
    /// # Errors
    /// When a text cannot be tokenized, a question has no context, a token has no embedding, or a logit is not finite.
    pub fn predict(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Prediction>, Error> {
        self.predictions(texts.par_iter().map(|(text, text_pair)| self.prepare(text, *text_pair)))
    }

    /// Tags texts whose units are given, in bytes of the text: those of a labelled file, for example.
    ///
    /// # Errors
    /// When a text cannot be tokenized, a token has no embedding, or a logit is not finite.
    ///
    /// # Panics
    /// When the model's task is not token classification.
    pub fn predict_units(&self, texts: &[(&str, &[Range<usize>])]) -> Result<Vec<Prediction>, Error> {
        self.predictions(texts.par_iter().map(|(text, units)| self.prepare_units(text, units.to_vec())))
    }

    fn predictions(
        &self,
        prepared: impl ParallelIterator<Item = Result<Prepared, Error>>,
    ) -> Result<Vec<Prediction>, Error> {
        let prepared: Vec<Prepared> = prepared.collect::<Result<_, _>>()?;
        let computed = self.compute(&prepared.iter().collect::<Vec<_>>());
        computed.into_iter().map(|computed| Ok(computed?.prediction)).collect()
    }

    /// Sets how many tokens are predicted for each mask.
    pub fn with_top(mut self, top: usize) -> Self {
        self.top = top;
        self
    }
}

/// Checks a tokenizer against the model's embeddings, and limits it to the model's positions.
pub(crate) fn fitted(tokenizer: Tokenizer, config: &BertConfig) -> Result<Tokenizer, Error> {
    let limits = ModelLimits {
        vocab_size: config.vocab_size,
        type_vocab_size: config.type_vocab_size,
        max_position_embeddings: config.max_sequence_length(),
    };
    Ok(tokenizer.for_model(limits)?)
}

/// Gives a base's tokenizer the maximum length with which an adapter was trained.
pub(crate) fn as_trained(tokenizer: Tokenizer, adapter: &Path) -> Result<Tokenizer, Error> {
    Ok(match trained_max_length(adapter)? {
        Some(max_length) => tokenizer.with_max_length(max_length)?,
        None => tokenizer,
    })
}

/// Removes surrounding white space, as when the rows of a data set are read. So the result for a text does not depend on
/// whether it is in a file, and a model gets texts like those in training.
pub(crate) fn trimmed<'a>(texts: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, Option<&'a str>)> {
    texts.iter().map(|(text, text_pair)| (text.trim(), text_pair.map(str::trim))).collect()
}

/// Checks that all logits of a text are finite: even finite weights can give logits that are not.
pub(crate) fn check_finite<'a>(text: &str, logits: impl IntoIterator<Item = &'a f32>) -> Result<(), Error> {
    match logits.into_iter().find(|logit| !logit.is_finite()) {
        None => Ok(()),
        Some(&value) => Err(Error::NotFinite { text: excerpt(text), value }),
    }
}

/// The beginning of a text, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 40;
    match text.char_indices().nth(CHARACTERS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Tensor;
    use kiln_backend::{Backend, Flex};
    use kiln_heads::{
        ClassificationHeadConfig, MaskedLm, PreTrainingHeads, QuestionAnswerer, SequenceClassifier, TokenClassifier,
        Units, save_model,
    };
    use kiln_schema::{LabelSet, ProblemType, TagScheme};

    use super::*;

    const VOCABULARY: [&str; 8] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "房", "间", "好"];

    fn config() -> BertConfig {
        BertConfig {
            vocab_size: VOCABULARY.len(),
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 16,
            ..BertConfig::base()
        }
    }

    fn head(num_labels: usize) -> ClassificationHeadConfig {
        ClassificationHeadConfig {
            hidden_size: 8,
            hidden_layers: vec![],
            num_labels,
            dropout: 0.0,
            initializer_range: 0.02,
        }
    }

    /// A model of each task. All weights of its output layer are `scale`; for masked words, all scales of the layer
    /// normalization.
    fn networks(scale: f32, config: &BertConfig) -> Vec<Network> {
        let device = Flex::device(0);
        let bert = || config.init(&device);
        let scaled =
            |weight: Option<Param<Tensor<2>>>| weight.map(|weight| weight.map(|weight| weight.full_like(scale)));
        let labels = LabelSet::new(["O", "B-A"]).expect("two names");
        let fresh = || {
            let mut head = head(2).init(&device);
            head.classifier.weight = scaled(head.classifier.weight);
            head
        };
        let classifier = SequenceClassifier { bert: bert(), head: fresh(), pooling: Pooling::Cls };
        let tagger = TokenClassifier { bert: bert(), head: fresh(), crf: None };
        let mut answerer = QuestionAnswerer::new(bert(), config, &device);
        answerer.qa_outputs.weight = scaled(answerer.qa_outputs.weight);
        let mut masked = MaskedLm { bert: bert(), cls: PreTrainingHeads::new(config, false, &device) };
        let norm = &mut masked.cls.predictions.transform.layer_norm;
        norm.gamma = norm.gamma.clone().map(|gamma| gamma.full_like(scale));
        let problem_type = ProblemType::default();
        vec![
            Network::SequenceClassification { model: classifier, labels: labels.clone(), problem_type },
            Network::TokenClassification {
                model: tagger,
                labels,
                units: Units::Characters,
                tag_scheme: TagScheme::Entities,
            },
            Network::QuestionAnswering { model: answerer },
            Network::MaskedLm { model: masked },
        ]
    }

    fn saved(network: Network, config: BertConfig) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("vocab.txt"), VOCABULARY.join("\n")).expect("it is writable");
        save_model(folder.path(), &TaskModel { network, config }).expect("it is writable");
        folder
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error_that_names_the_text() {
        for scale in [1.0, f32::MAX] {
            for network in networks(scale, &config()) {
                let (task, folder) = (network.task(), saved(network, config()));
                let predictor =
                    Predictor::from_folder(folder.path(), &Flex::device(0)).expect("its weights are finite");
                let predictions = predictor.predict(&[("房[MASK]好", Some("间房"))]);
                match predictions {
                    Ok(predictions) => assert!(scale == 1.0 && predictions.len() == 1, "{task}"),
                    Err(error) => {
                        let message = error.to_string();
                        assert!(scale > 1.0 && message.contains("`房[MASK]好`"), "{task}: {message}");
                    }
                }
            }
        }
    }

    #[test]
    fn ids_beyond_a_table_are_an_error() {
        let one_segment = BertConfig { type_vocab_size: 1, ..config() };
        for network in networks(1.0, &one_segment).into_iter().filter(|n| n.task() != Task::TokenClassification) {
            let (task, folder) = (network.task(), saved(network, one_segment.clone()));
            let predictor = Predictor::from_folder(folder.path(), &Flex::device(0)).expect("it is whole");
            let message = predictor.predict(&[("房[MASK]", Some("间"))]).expect_err("a second segment").to_string();
            assert!(message.contains("type_vocab_size 1"), "{task}: {message}");
            let embedder = EmbedConfig { pooling: Pooling::Mean, normalize: true, precision: Precision::F32 };
            let embedder = embedder.load(folder.path(), &Flex::device(0)).expect("it is whole");
            assert!(embedder.embed(&[("房", None)]).is_ok() && embedder.embed(&[("房", Some("间"))]).is_err());
        }
    }

    #[test]
    fn messages_quote_the_beginning_of_a_text() {
        assert_eq!(excerpt("房间"), "房间");
        assert_eq!(excerpt(&"房".repeat(41)), "房".repeat(40) + "…");
        let long = "房".repeat(1_000);
        for network in networks(1.0, &config()).into_iter().skip(2) {
            let (task, folder) = (network.task(), saved(network, config()));
            let predictor = Predictor::from_folder(folder.path(), &Flex::device(0)).expect("it is whole");
            let message = predictor.prepare(&long, None).expect_err("no context or no mask").to_string();
            assert!(message.contains(&excerpt(&long)) && message.chars().count() < 120, "{task}: {message}");
        }
    }

    #[test]
    fn overlapping_windows_count_once() {
        let long = "房间".repeat(300);
        for network in networks(1.0, &config()).into_iter().skip(1).take(2) {
            let (task, folder) = (network.task(), saved(network, config()));
            let predictor = Predictor::from_folder(folder.path(), &Flex::device(0)).expect("it is whole");
            // Two special tokens for tags; for an answer the question and three special tokens.
            let (prepared, more) = match task {
                Task::TokenClassification => (predictor.prepare(&long, None), 2),
                _ => (predictor.prepare("好", Some(&long)), 4),
            };
            let prepared = prepared.expect("a good text");
            assert!(prepared.rows() > 1 && prepared.tokens() > 600 + more, "{task}: {}", prepared.tokens());
            assert_eq!(prepared.own_tokens(), 600 + more, "{task}");
        }
    }
}
