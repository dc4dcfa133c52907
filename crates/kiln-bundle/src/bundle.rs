use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_predict::{EmbedConfig, Embedder, Predictor};
use kiln_tokenize::Tokenizer;
use serde_json::Value;

use crate::manifest::{Manifest, Vectors};
use crate::{Error, verify};

/// An open bundle.
#[derive(Debug)]
pub struct Bundle {
    /// What it is.
    pub manifest: Manifest,
    /// The run's report, where the model came from a run.
    pub report: Option<Value>,
    /// What answers.
    pub model: Model,
}

/// What a bundle's model can do.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub enum Model {
    /// Answers, and vectors.
    Predictor(Predictor),
    /// Vectors alone: it has no head.
    Encoder(Embedder),
}

/// The run's report in a bundle.
pub(crate) const REPORT: &str = "report.json";

impl Bundle {
    /// Verifies a bundle, loads its model and computes with it once, so that the first answer waits for nothing.
    ///
    /// The word embeddings stay mapped: the weights' file must stay as it is while the bundle is open. A new bundle goes to
    /// a new folder, or takes the place of the old one by a renaming.
    ///
    /// # Errors
    /// Those of [`verify`], and when the model cannot be loaded.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, Error> {
        let manifest = verify(folder)?;
        let report = match manifest.files.contains_key(REPORT) {
            true => Some(read_json(folder.join(REPORT))?),
            false => None,
        };
        let model = load_stored(folder, &manifest, device)?;
        let bundle = Self { manifest, report, model };
        // Now, while the files are as they were verified, its weights are packed.
        bundle.embedder(Pooling::Mean, false)?.embed(&[("a", None)])?;
        Ok(bundle)
    }

    /// What answers; none for an encoder without a head.
    pub fn predictor(&self) -> Option<&Predictor> {
        match &self.model {
            Model::Predictor(predictor) => Some(predictor),
            Model::Encoder(_) => None,
        }
    }

    /// What makes vectors, of the same weights in memory.
    ///
    /// # Errors
    /// When `pooling` needs a pooler and the model has none.
    pub fn embedder(&self, pooling: Pooling, normalize: bool) -> Result<Embedder, Error> {
        Ok(match &self.model {
            Model::Predictor(predictor) => predictor.embedder(pooling, normalize)?,
            Model::Encoder(embedder) => embedder.pooled(pooling, normalize)?,
        })
    }

    /// Encodes as the model reads.
    pub fn tokenizer(&self) -> &Tokenizer {
        match &self.model {
            Model::Predictor(predictor) => predictor.tokenizer(),
            Model::Encoder(embedder) => embedder.tokenizer(),
        }
    }
}

/// The model of a bundle whose files are as they should be.
pub(crate) fn load_stored(folder: &Path, manifest: &Manifest, device: &Device) -> Result<Model, Error> {
    Ok(match manifest.task {
        Some(_) => Model::Predictor(Predictor::from_stored(folder, manifest.precision, device)?),
        None => Model::Encoder(embed_config(manifest.vectors, manifest.precision).load_stored(folder, device)?),
    })
}

pub(crate) fn embed_config(Vectors { pooling, normalize }: Vectors, precision: Precision) -> EmbedConfig {
    EmbedConfig { pooling, normalize, precision }
}

fn read_json(path: PathBuf) -> Result<Value, Error> {
    let json = kiln_files::read(&path).map_err(Error::read(&path))?;
    let not_json = |error: serde_json::Error| Error::Read { path: path.clone(), source: error.into() };
    serde_json::from_slice(&json).map_err(not_json)
}
