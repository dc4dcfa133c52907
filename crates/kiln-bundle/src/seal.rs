use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use kiln_files::FolderWriter;
use kiln_heads::Calibration;
use kiln_kernels::Precision;
use kiln_predict::Predictor;
use kiln_tokenize::{PROMPTS_FILE, Tokenizer};

use crate::bundle::{REPORT, embed_config};
use crate::manifest::{Check, MANIFEST, Manifest};
use crate::origin::Origin;
use crate::smoothing::Smoothing;
use crate::verify::{entry_of, is_bundle, names};
use crate::weights::ModelWeights;
use crate::{Error, Model, Vectors};

/// Configuration for making a bundle.
#[derive(Clone, Copy, Debug, Default)]
pub struct SealConfig {
    /// The precision of the encoder's stored weights and of its matrix products.
    pub precision: Precision,
}

/// A complete bundle in a temporary folder. [`Sealing::finish`] moves it to its destination, and dropping it removes it.
#[derive(Debug)]
pub struct Sealing {
    folder: FolderWriter,
    pub(crate) manifest: Manifest,
    pub(crate) weights: ModelWeights,
}

/// The file name of the run's recipe in a bundle.
const RECIPE: &str = "run.toml";

impl SealConfig {
    /// Makes a bundle at `out` from a model folder or a run folder.
    ///
    /// # Errors
    /// The errors of [`SealConfig::prepare`] and [`Sealing::finish`]. Then nothing is written to `out`.
    pub fn seal(self, model: &Path, out: &Path, device: &Device) -> Result<Manifest, Error> {
        self.prepare(model, out, device)?.finish(None)
    }

    /// Makes a bundle in a temporary folder next to `out`.
    ///
    /// # Errors
    /// When the model cannot be loaded, its pooling is not supported, `out` exists and is not an empty folder, or a file
    /// cannot be written.
    pub fn prepare(self, model: &Path, out: &Path, device: &Device) -> Result<Sealing, Error> {
        if is_bundle(model) {
            return Err(Error::Sealed { folder: model.to_owned() });
        }
        let origin = Origin::read(model)?;
        let folder = FolderWriter::create(out).map_err(Error::write(out))?;
        let loaded = load(&origin.model, device)?;
        let (model, unused, precision) = (origin.model.clone(), unused(&loaded).to_vec(), self.precision);
        let weights = ModelWeights { model, unused, precision };
        weights.write(&Smoothing::default(), folder.path(), device)?;
        tokenizer(&loaded).save(folder.path())?;
        let config = origin.model.join("config.json");
        let config = kiln_files::read(&config).map_err(Error::read(config))?;
        let calibration = origin.model.join(Calibration::FILE);
        let calibration = kiln_files::read_if_present(&calibration).map_err(Error::read(&calibration))?;
        let prompts = origin.model.join(PROMPTS_FILE);
        let prompts = kiln_files::read_if_present(&prompts).map_err(Error::read(&prompts))?;
        let optional = [
            (RECIPE, origin.recipe),
            (REPORT, origin.report),
            (Calibration::FILE, calibration),
            (PROMPTS_FILE, prompts),
        ];
        let optional = optional.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
        for (name, bytes) in optional.chain([("config.json", config)]) {
            write_file(&folder.path().join(name), &bytes)?;
        }
        let mut files = BTreeMap::new();
        for name in names(folder.path())? {
            files.insert(name.clone(), entry_of(&folder.path().join(&name))?);
        }
        let (task, labels) = match &loaded {
            Model::Predictor(predictor) => (Some(predictor.task()), predictor.network().labels()),
            Model::Encoder(_) => (None, None),
        };
        let labels = labels.map(|labels| labels.names().to_vec()).unwrap_or_default();
        let kiln = env!("CARGO_PKG_VERSION").to_owned();
        let (vectors, base, sha256) = (Vectors::of_checkpoint(&origin.model, None)?, origin.base, String::new());
        let (smoothing, check) = (None, None);
        let mut manifest = Manifest { kiln, task, precision, labels, vectors, base, files, sha256, smoothing, check };
        manifest.sha256 = manifest.digest();
        let sealing = Sealing { folder, manifest, weights };
        sealing.write_manifest()?;
        Ok(sealing)
    }
}

impl Sealing {
    /// The temporary folder of the bundle. The bundle can be opened there.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Adds the result of a check to the manifest, and moves the bundle to its destination.
    ///
    /// # Errors
    /// When a file cannot be written. Then nothing is at the destination.
    pub fn finish(mut self, check: Option<Check>) -> Result<Manifest, Error> {
        self.manifest.check = check;
        self.write_manifest()?;
        let path = self.folder.destination().to_owned();
        self.folder.finish().map_err(Error::write(path))?;
        Ok(self.manifest)
    }

    pub(crate) fn write_manifest(&self) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(&self.manifest).expect("a manifest is JSON");
        write_file(&self.path().join(MANIFEST), &json)
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    kiln_files::write(path, bytes).map_err(Error::write(path))
}

/// Loads the model. This also shows that it is complete.
pub(crate) fn load(folder: &Path, device: &Device) -> Result<Model, Error> {
    match Predictor::from_folder(folder, device) {
        Ok(predictor) => Ok(Model::Predictor(predictor)),
        Err(kiln_predict::Error::Model(kiln_heads::Error::NoHead { .. })) => Ok(Model::Encoder(
            embed_config(Vectors::of_checkpoint(folder, None)?, Precision::F32).load(folder, device)?,
        )),
        Err(error) => Err(error.into()),
    }
}

fn unused(model: &Model) -> &[String] {
    match model {
        Model::Predictor(predictor) => predictor.unused(),
        Model::Encoder(embedder) => embedder.unused(),
    }
}

fn tokenizer(model: &Model) -> &Tokenizer {
    match model {
        Model::Predictor(predictor) => predictor.tokenizer(),
        Model::Encoder(embedder) => embedder.tokenizer(),
    }
}
