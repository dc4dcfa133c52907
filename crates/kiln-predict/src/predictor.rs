use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, Loaded};
use kiln_heads::{AdapterBase, Calibration, Network, Pooling, TaskModel, load_model, load_model_stored};
use kiln_kernels::{PackedWeights, Precision};
use kiln_schema::{ProblemType, Task};
use kiln_tokenize::{ModelLimits, Tokenizer};
use rayon::prelude::*;

use crate::masks::TOP;
use crate::{EmbedConfig, Embedder, Error, Prediction, Prepared};

/// A trained model with its tokenizer: texts to predictions. Clones share its weights.
#[derive(Clone, Debug)]
pub struct Predictor {
    model: TaskModel,
    /// How its logits become probabilities; none: as they are.
    calibration: Option<Calibration>,
    unused: Vec<String>,
    tokenizer: Arc<Tokenizer>,
    /// What errors name.
    folder: PathBuf,
    pub(crate) device: Device,
    /// How many tokens are listed for each mask.
    pub(crate) top: usize,
    pub(crate) batch_size: usize,
}

/// Rows computed at once. More would gain little on a CPU and cost memory.
pub(crate) const BATCH_SIZE: usize = 32;

impl Predictor {
    /// Reads a model folder: weights, head, labels, tokenizer.
    ///
    /// # Errors
    /// When one of them is missing or damaged, or the tokenizer is not the model's.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Self, Error> {
        let mut loaded = load_model(folder, device)?;
        loaded.module.network.bert_mut().products.packed = Some(PackedWeights::default());
        Self::of(loaded, folder, device)?.calibrated_as(folder)
    }

    /// Reads a base, its tokenizer, and an adapter's folder, of Kiln's or peft's.
    ///
    /// # Errors
    /// When one of them is missing or damaged, or they do not fit each other.
    pub fn from_adapter(base: &Path, adapter: &Path, device: &Device) -> Result<Self, Error> {
        Self::on_base(&AdapterBase::from_folder(base, device)?, adapter, device)
    }

    /// [`Predictor::from_adapter`] on a base that other adapters share.
    ///
    /// # Errors
    /// As [`Predictor::from_adapter`].
    pub fn on_base(base: &AdapterBase, adapter: &Path, device: &Device) -> Result<Self, Error> {
        Self::of(base.model(adapter, device)?, base.folder(), device)?.calibrated_as(adapter)
    }

    /// [`Predictor::from_folder`] for a folder whose files stay as they are, with the products of the encoder in that
    /// precision: on the CPU its weights are packed straight from their file, without a copy of them in f32.
    ///
    /// # Errors
    /// As [`Predictor::from_folder`]. Numbers that are not finite are found in what is computed with them.
    pub fn from_stored(folder: &Path, precision: Precision, device: &Device) -> Result<Self, Error> {
        Self::of(load_model_stored(folder, precision, device)?, folder, device)?.calibrated_as(folder)
    }

    fn of(Loaded { module: model, unused }: Loaded<TaskModel>, folder: &Path, device: &Device) -> Result<Self, Error> {
        let tokenizer = tokenizer_of(folder, &model.config)?;
        if matches!(model.network, Network::MaskedLm { .. }) && tokenizer.mask_token_id().is_none() {
            return Err(Error::NoMaskToken { folder: folder.to_owned() });
        }
        let (tokenizer, folder) = (Arc::new(tokenizer), folder.to_owned());
        let (device, calibration) = (device.clone(), None);
        Ok(Self { model, calibration, unused, tokenizer, folder, device, top: TOP, batch_size: BATCH_SIZE })
    }

    /// The same with the calibration of a folder, if it has one.
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

    /// How its logits become probabilities and labels; none where the folder has no calibration.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The same model, whose probabilities are those of its logits as they are, and whose thresholds are a half.
    pub fn without_calibration(self) -> Self {
        Self { calibration: None, ..self }
    }

    /// Its encoder, in the same memory, for vectors.
    ///
    /// # Errors
    /// When `pooling` needs a pooler and the model has none.
    pub fn embedder(&self, pooling: Pooling, normalize: bool) -> Result<Embedder, Error> {
        let bert = self.model.network.bert().clone();
        let config = EmbedConfig { pooling, normalize, precision: bert.products.precision };
        let (tokenizer, device, folder) = (self.tokenizer.clone(), self.device.clone(), self.folder.clone());
        let unused = self.unused.clone();
        Embedder { bert, unused, tokenizer, config, device, folder }.checked()
    }

    /// The same model with the products of its encoder in that precision, where its backend has it.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.model.network.bert_mut().products.precision = precision;
        self
    }

    /// The same model, which computes so many rows at once; 0 counts as 1.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size.max(1);
        self
    }

    /// The names of the tensors of the folder's weights that the model does not use, sorted; [`kiln_bert::layers`] counts the
    /// layers among them, and [`kiln_bert::groups`] groups them.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// What it was trained for.
    pub fn task(&self) -> Task {
        self.model.network.task()
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.model.network
    }

    /// Its encoder.
    pub fn bert_mut(&mut self) -> &mut Bert {
        self.model.network.bert_mut()
    }

    /// Encodes as the model was trained to read.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The predictions for texts and pairs, in their order. For question answering the first text is the question and the
    /// second the context.
    ///
    /// White space around a text changes no prediction, as it is left out of the rows of a data set. Offsets count the
    /// characters of the text as it is given.
    ///
    /// # Errors
    /// When a text cannot be tokenized, a question has no context, a token has no embedding, or a logit is not finite.
    pub fn predict(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Prediction>, Error> {
        let prepare = |&(text, text_pair): &(&str, Option<&str>)| self.prepare(text, text_pair);
        let prepared: Vec<Prepared> = texts.par_iter().map(prepare).collect::<Result<_, _>>()?;
        let computed = self.compute(&prepared.iter().collect::<Vec<_>>());
        computed.into_iter().map(|computed| Ok(computed?.prediction)).collect()
    }

    /// The same model, which lists `top` tokens for each mask.
    pub fn with_top(mut self, top: usize) -> Self {
        self.top = top;
        self
    }
}

/// The tokenizer of a model folder, checked against the model's embeddings and truncating at its positions.
pub(crate) fn tokenizer_of(folder: &Path, config: &BertConfig) -> Result<Tokenizer, Error> {
    let limits = ModelLimits {
        vocab_size: config.vocab_size,
        type_vocab_size: config.type_vocab_size,
        max_position_embeddings: config.max_sequence_length(),
    };
    Ok(Tokenizer::from_folder(folder)?.for_model(limits)?)
}

/// Texts without the white space around them, as a data set's rows are read: `kiln predict` gives the same answer for a
/// text by itself and for one in a file, and a model sees what it was trained on.
pub(crate) fn trimmed<'a>(texts: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, Option<&'a str>)> {
    texts.iter().map(|(text, text_pair)| (text.trim(), text_pair.map(str::trim))).collect()
}

/// Whether all logits of a text are numbers: weights that are finite can still make sums that are not.
pub(crate) fn check_finite<'a>(text: &str, logits: impl IntoIterator<Item = &'a f32>) -> Result<(), Error> {
    match logits.into_iter().find(|logit| !logit.is_finite()) {
        None => Ok(()),
        Some(&value) => Err(Error::NotFinite { text: excerpt(text), value }),
    }
}

/// The beginning of a text, for a message.
fn excerpt(text: &str) -> String {
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

    /// A model of each task, whose output layer has the weight `scale` everywhere.
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
    }
}
