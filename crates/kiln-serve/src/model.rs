use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use kiln_bundle::{Bundle, Manifest, Vectors, is_bundle};
use kiln_heads::{AdapterBase, Network, Pooling};
use kiln_kernels::Precision;
use kiln_predict::{Computed, EmbedConfig, Embedder, Predictor, Prepared};
use kiln_schema::{ProblemType, Task};
use kiln_tokenize::Tokenizer;

use crate::Error;
use crate::queue::Work;

mod folder;

/// A served model. It computes predictions, vectors, or both.
#[derive(Debug)]
pub struct Model {
    /// The name that clients use.
    pub name: String,
    /// Computes predictions. An encoder without a head has none.
    predictor: Option<Predictor>,
    /// Computes vectors with the encoder.
    embedder: Embedder,
    /// Metadata.
    pub details: Details,
}

/// Metadata of a model.
#[derive(Clone, Debug)]
pub struct Details {
    /// The precision of the matrix products: `f32`, `bf16` or `int8`.
    pub precision: &'static str,
    /// How vectors are computed by default.
    pub vectors: Vectors,
    /// SHA-256 of the files of a bundle. Other models have none.
    pub sha256: Option<String>,
    /// The source of the base model, if it is known.
    pub source: Option<String>,
    /// The licence of the base model, if it is known.
    pub license: Option<String>,
}

/// What a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Labels for a text or a pair.
    Labels,
    /// A number for a text or a pair.
    Number,
    /// Entities, words or tags of a text.
    Tags,
    /// A passage that answers a question.
    Answers,
    /// Tokens for the masks in a text.
    Masks,
    /// Only vectors.
    Vectors,
}

impl Ability {
    /// The name of the task in transformers.
    pub fn task(self) -> &'static str {
        match self {
            Self::Labels | Self::Number => "text-classification",
            Self::Tags => "token-classification",
            Self::Answers => "question-answering",
            Self::Masks => "fill-mask",
            Self::Vectors => "feature-extraction",
        }
    }
}

/// Configuration for loading a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelConfig {
    /// The precision of the matrix products, by default f32. A bundle has its own precision, and another one is an error.
    pub precision: Option<Precision>,
    /// How hidden states are pooled into vectors. The default is the pooling in the bundle's manifest or in the
    /// sentence-transformers files of the folder, otherwise the mean of all tokens.
    pub pooling: Option<Pooling>,
}

/// The most rows that a model computes at once. It is large because the queue limits the size of its batches.
const BATCH_SIZE: usize = 1 << 16;

impl Model {
    /// Loads a bundle or a model folder, and computes one text as a probe. A bundle is verified first, and its manifest
    /// sets the precision.
    ///
    /// # Errors
    /// When a file is missing, changed or damaged, the pooling is not supported, or the probe fails.
    pub fn from_folder(name: String, folder: &Path, config: ModelConfig, device: &Device) -> Result<Self, Error> {
        let model = match is_bundle(folder) {
            true => Self::from_bundle(name, folder, config, device)?,
            false => Self::from_plain(name, folder, config, device)?,
        };
        model.probe().map_err(|reason| Error::Probe { folder: folder.to_owned(), reason })?;
        Ok(model)
    }

    /// The same model with uncalibrated probabilities.
    pub fn without_calibration(self) -> Self {
        Self { predictor: self.predictor.map(Predictor::without_calibration), ..self }
    }

    fn from_bundle(name: String, folder: &Path, config: ModelConfig, device: &Device) -> Result<Self, Error> {
        let failed = |error| Error::bundle(folder, error);
        let own = Manifest::read(folder).map_err(failed)?.precision;
        if let Some(asked) = config.precision.filter(|asked| *asked != own) {
            let [own, asked] = [own, asked].map(folder::precision_name);
            return Err(Error::Precision { folder: folder.to_owned(), own, asked });
        }
        let bundle = Bundle::open(folder, device).map_err(failed)?;
        let vectors = bundle.manifest.vectors;
        let vectors = Vectors { pooling: config.pooling.unwrap_or(vectors.pooling), ..vectors };
        let embedder = bundle.embedder(vectors.pooling, false).map_err(failed)?;
        let predictor = match bundle.model {
            kiln_bundle::Model::Predictor(predictor) => Some(predictor.with_batch_size(BATCH_SIZE)),
            kiln_bundle::Model::Encoder(_) => None,
        };
        let manifest = bundle.manifest;
        let details = Details {
            precision: folder::precision_name(manifest.precision),
            vectors,
            sha256: Some(manifest.sha256),
            source: manifest.base.source,
            license: manifest.base.license,
        };
        Ok(Self { name, predictor, embedder, details })
    }

    fn from_plain(name: String, folder: &Path, config: ModelConfig, device: &Device) -> Result<Self, Error> {
        let details = Self::details(folder, config)?;
        let embedder = |embed: EmbedConfig| embed.load(folder, device);
        Self::computed_as(
            name,
            details,
            config.precision.unwrap_or_default(),
            Predictor::from_folder(folder, device),
            embedder,
        )
        .map_err(|source| Error::Model { folder: folder.to_owned(), source: Box::new(source) })
    }

    /// Loads a base model once, and a model for each adapter of Kiln or peft. The models share the weights of the base in
    /// memory. Each model computes one text as a probe. `adapters` has the name and the folder of each adapter.
    ///
    /// # Errors
    /// When a file is missing or damaged, an adapter does not fit the base, or a probe fails.
    pub fn from_adapters(
        base: &Path,
        adapters: &[(String, PathBuf)],
        config: ModelConfig,
        device: &Device,
    ) -> Result<Vec<Self>, Error> {
        let failed = |folder: &Path, source| Error::Model { folder: folder.to_owned(), source: Box::new(source) };
        let shared = AdapterBase::from_folder(base, device).map_err(|source| failed(base, source.into()))?;
        let details = Self::details(base, config)?;
        let load = |(name, adapter): &(String, PathBuf)| {
            let embedder = |embed: EmbedConfig| embed.on_base(&shared, adapter, device);
            let predictor = Predictor::on_base(&shared, adapter, device);
            let model = Self::computed_as(
                name.clone(),
                details.clone(),
                config.precision.unwrap_or_default(),
                predictor,
                embedder,
            )
            .map_err(|source| failed(adapter, source))?;
            model.probe().map_err(|reason| Error::Probe { folder: adapter.clone(), reason })?;
            Ok(model)
        };
        adapters.iter().map(load).collect()
    }

    /// The metadata of a model folder.
    fn details(folder: &Path, config: ModelConfig) -> Result<Details, Error> {
        let vectors = Vectors::of_checkpoint(folder, config.pooling).map_err(|error| Error::bundle(folder, error))?;
        Ok(folder::details(folder, config.precision.unwrap_or_default(), vectors))
    }

    /// A model that is not a bundle. Without a head it computes only vectors.
    fn computed_as(
        name: String,
        details: Details,
        precision: Precision,
        predictor: Result<Predictor, kiln_predict::Error>,
        embedder: impl FnOnce(EmbedConfig) -> Result<Embedder, kiln_predict::Error>,
    ) -> Result<Self, kiln_predict::Error> {
        let pooling = details.vectors.pooling;
        let (predictor, embedder) = match predictor {
            Ok(predictor) => {
                let predictor = predictor.with_precision(precision).with_batch_size(BATCH_SIZE);
                let embedder = predictor.embedder(pooling, false)?;
                (Some(predictor), embedder)
            }
            Err(kiln_predict::Error::Model(kiln_heads::Error::NoHead { .. })) => {
                (None, embedder(EmbedConfig { pooling, normalize: false, precision })?)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { name, predictor, embedder, details })
    }

    /// Computes a text. This also packs the weights for the kernels.
    fn probe(&self) -> Result<(), String> {
        let text = match self.ability() {
            Ability::Masks => {
                let tokenizer = self.tokenizer();
                tokenizer.mask_token_id().and_then(|id| tokenizer.token(id)).unwrap_or_default()
            }
            _ => "a".to_owned(),
        };
        if let Some(predictor) = &self.predictor {
            let prepared = predictor.prepare(&text, Some("a").filter(|_| self.ability() == Ability::Answers));
            let prepared = prepared.map_err(|error| error.to_string())?;
            for computed in predictor.compute(&[&prepared]) {
                computed.map_err(|error| error.to_string())?;
            }
        } else {
            self.embedder.embed(&[(&text, None)]).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What the model computes.
    pub fn ability(&self) -> Ability {
        match self.network() {
            None => Ability::Vectors,
            Some(Network::SequenceClassification { problem_type: ProblemType::Regression, .. }) => Ability::Number,
            Some(Network::SequenceClassification { .. }) => Ability::Labels,
            Some(Network::TokenClassification { .. }) => Ability::Tags,
            Some(Network::QuestionAnswering { .. }) => Ability::Answers,
            Some(Network::MaskedLm { .. }) => Ability::Masks,
        }
    }

    /// Whether the score of the model's only logit is its sigmoid, as in transformers' pipeline: the config of a
    /// cross-encoder has no problem type.
    pub fn is_cross_encoder(&self) -> bool {
        self.ability() == Ability::Number && self.predictor.as_ref().is_some_and(|model| !model.has_problem_type())
    }

    /// The names of the labels. Empty when the model has no labels.
    pub fn labels(&self) -> &[String] {
        match self.network() {
            Some(Network::SequenceClassification { labels, .. } | Network::TokenClassification { labels, .. }) => {
                labels.names()
            }
            _ => &[],
        }
    }

    /// Whether a text can have any number of labels.
    pub fn is_multi_label(&self) -> bool {
        let multi = ProblemType::MultiLabelClassification;
        matches!(self.network(), Some(Network::SequenceClassification { problem_type, .. }) if *problem_type == multi)
    }

    /// The temperature by which the logits of a classifier are divided.
    pub fn temperature(&self) -> f64 {
        let calibration = self.predictor.as_ref().and_then(Predictor::calibration);
        calibration.map_or(1.0, |calibration| calibration.temperature)
    }

    /// Whether long texts are read in windows.
    pub fn has_windows(&self) -> bool {
        let task = self.predictor.as_ref().map(Predictor::task);
        matches!(task, Some(Task::TokenClassification | Task::QuestionAnswering))
    }

    fn network(&self) -> Option<&Network> {
        self.predictor.as_ref().map(Predictor::network)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.embedder.tokenizer()
    }

    /// The mask token, if the tokenizer has one.
    pub fn mask_token(&self) -> Option<String> {
        self.tokenizer().mask_token_id().and_then(|id| self.tokenizer().token(id))
    }

    /// The number of dimensions of a vector.
    pub fn width(&self) -> usize {
        self.embedder.width()
    }

    /// Tokenizes a text for the queue.
    ///
    /// # Errors
    /// When the text cannot be tokenized, a question has no context, or there is no mask to fill.
    pub fn prepare(&self, text: &str, text_pair: Option<&str>, kind: Kind) -> Result<Prepared, kiln_predict::Error> {
        match (&self.predictor, kind) {
            (Some(predictor), Kind::Answer) => {
                // Nothing would be a certain answer. Clients expect an error, as from transformers' pipeline.
                let is_empty = |context: &&str| self.ability() == Ability::Answers && context.trim().is_empty();
                predictor.prepare(text, text_pair.filter(|context| !is_empty(context)))
            }
            _ => self.embedder.prepare(text, text_pair),
        }
    }
}

/// What a text is computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The prediction of the model's task.
    Answer,
    /// A vector.
    Vector,
}

/// A text in the queue.
#[derive(Debug)]
pub struct TextWork {
    /// The model. It is kept until the text is computed, even after a reload has replaced it.
    pub model: Arc<Model>,
    /// What the text is computed for.
    pub kind: Kind,
    /// The text's tokens.
    pub prepared: Prepared,
}

/// The result for a text.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The result for [`Kind::Answer`].
    Answer(Computed),
    /// The result for [`Kind::Vector`], not normalized.
    Vector(Vec<f32>),
}

impl Work for TextWork {
    type Output = Outcome;

    fn group(&self) -> usize {
        // The address is even, so the lowest bit is free for the kind.
        Arc::as_ptr(&self.model) as usize | usize::from(self.kind == Kind::Vector)
    }

    fn rows(&self) -> usize {
        self.prepared.rows()
    }

    fn longest(&self) -> usize {
        self.prepared.longest()
    }

    fn tokens(&self) -> usize {
        self.prepared.tokens()
    }

    fn compute(batch: &[&Self]) -> Vec<Result<Outcome, String>> {
        let Some(TextWork { model, kind, .. }) = batch.first() else { return Vec::new() };
        let texts: Vec<&Prepared> = batch.iter().map(|work| &work.prepared).collect();
        match (&model.predictor, kind) {
            (Some(predictor), Kind::Answer) => {
                let computed = predictor.compute(&texts).into_iter();
                computed.map(|computed| computed.map(Outcome::Answer).map_err(|error| error.to_string())).collect()
            }
            _ => {
                let vectors = model.embedder.compute(&texts).into_iter();
                vectors.map(|vector| vector.map(Outcome::Vector).map_err(|error| error.to_string())).collect()
            }
        }
    }
}
