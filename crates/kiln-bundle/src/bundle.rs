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
    /// The manifest.
    pub manifest: Manifest,
    /// The report of the run, if the model comes from a run.
    pub report: Option<Value>,
    /// The model.
    pub model: Model,
}

/// The model of a bundle.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub enum Model {
    /// A model with a head. It makes predictions and computes vectors.
    Predictor(Predictor),
    /// An encoder without a head. It only computes vectors.
    Encoder(Embedder),
}

/// The file name of the run's report in a bundle.
pub(crate) const REPORT: &str = "report.json";

impl Bundle {
    /// Verifies a bundle, loads its model, and computes a text so that the first prediction is not delayed.
    ///
    /// The word embeddings stay memory-mapped, so the weights file must not change while the bundle is open. Write a new
    /// bundle to a new folder, or replace the old one by renaming.
    ///
    /// # Errors
    /// The errors of [`verify`], and when the model cannot be loaded.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, Error> {
        let manifest = verify(folder)?;
        let report = match manifest.files.contains_key(REPORT) {
            true => Some(read_json(folder.join(REPORT))?),
            false => None,
        };
        let model = load_stored(folder, &manifest, device)?;
        let bundle = Self { manifest, report, model };
        // This packs the weights now, while the files are as they were verified.
        bundle.embedder(Pooling::Mean, false)?.embed(&[("a", None)])?;
        Ok(bundle)
    }

    /// The predictor. `None` for an encoder without a head.
    pub fn predictor(&self) -> Option<&Predictor> {
        match &self.model {
            Model::Predictor(predictor) => Some(predictor),
            Model::Encoder(_) => None,
        }
    }

    /// An embedder that shares the weights in memory.
    ///
    /// # Errors
    /// When `pooling` needs a pooler and the model has none.
    pub fn embedder(&self, pooling: Pooling, normalize: bool) -> Result<Embedder, Error> {
        Ok(match &self.model {
            Model::Predictor(predictor) => predictor.embedder(pooling, normalize)?,
            Model::Encoder(embedder) => embedder.pooled(pooling, normalize)?,
        })
    }

    /// The tokenizer of the model.
    pub fn tokenizer(&self) -> &Tokenizer {
        match &self.model {
            Model::Predictor(predictor) => predictor.tokenizer(),
            Model::Encoder(embedder) => embedder.tokenizer(),
        }
    }
}

/// Loads the model of a bundle that has been verified.
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
