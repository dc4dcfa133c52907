use std::path::Path;

use anyhow::bail;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bundle::{ActivationScales, Bundle, Check, Manifest, Model, SealConfig, Vectors, is_bundle};
use kiln_dataset::Source;
use kiln_eval::SplitReport;
use kiln_heads::Pooling;
use kiln_predict::{EmbedConfig, Embedder, Predictor};

use crate::fetch::model_in;
use crate::recipe::{Precision, available};
use crate::{Error, Observer, UsageError, evaluate, warn_of_layers};

/// The location of a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelFolders<'a> {
    /// The folder of a model, a checkpoint or a bundle.
    pub model: &'a Path,
    /// The folder of an adapter of the model, from Kiln or peft.
    pub adapter: Option<&'a Path>,
}

/// Fails if the model is that of a run, and the adapter is the same run's, which the model already contains.
///
/// # Errors
/// When the adapter would be applied twice.
pub fn check_adapter(model: &Path, adapter: &Path) -> Result<(), Error> {
    let run_of = |folder: &Path, name: &str| {
        let folder = folder.canonicalize().ok().filter(|folder| folder.ends_with(name))?;
        folder.parent().map(Path::to_owned)
    };
    match run_of(model, "model") {
        Some(run) if run_of(adapter, "adapter").as_ref() == Some(&run) => {
            let run = run.display();
            let message =
                format!("{run}: the model of this run already contains its adapter; expected the adapter's base");
            Err(anyhow::Error::from(UsageError(message)).into())
        }
        _ => Ok(()),
    }
}

impl ModelFolders<'_> {
    fn is_bundle(&self) -> anyhow::Result<bool> {
        if let Some(adapter) = self.adapter {
            check_adapter(self.model, adapter)?;
        }
        let is_bundle = is_bundle(self.model);
        if is_bundle && self.adapter.is_some() {
            let folder = self.model.display();
            bail!(UsageError(format!(
                "{folder}: an adapter cannot be used with a bundle; merge it into the model before bundling"
            )));
        }
        Ok(is_bundle)
    }
}

/// Opens a model folder or a bundle for prediction. A bundle is verified first, and has its own precision. Any other model
/// computes in f32 by default.
///
/// # Errors
/// When the model cannot be loaded, when a bundle does not match its manifest, has no head or has another precision, or
/// when the backend does not support the precision.
pub fn open_predictor<B: Backend>(
    folders: ModelFolders<'_>,
    precision: Option<Precision>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Predictor, Error> {
    let open = || -> anyhow::Result<Predictor> {
        let folder = folders.model;
        if !folders.is_bundle()? {
            let precision = available::<B>(precision.unwrap_or_default())?;
            let predictor = match folders.adapter {
                Some(adapter) => Predictor::from_adapter(folder, adapter, device)?,
                None => Predictor::from_folder(folder, device)?,
            };
            return Ok(predictor.with_precision(precision));
        }
        match open_bundle::<B>(folder, precision, device)?.model {
            Model::Predictor(predictor) => Ok(predictor),
            Model::Encoder(_) => {
                bail!("{}: the bundle's model has no head; it can only compute vectors", folder.display())
            }
        }
    };
    let predictor = open()?;
    warn_of_layers(predictor.unused(), observer);
    Ok(predictor)
}

/// How a model folder or a bundle computes vectors: as its manifest or its sentence-transformers files say, otherwise by
/// the mean without normalization. `pooling` replaces their pooling.
///
/// # Errors
/// When a file cannot be read, or the checkpoint computes vectors in a way that is not supported.
pub fn stored_vectors(model: &Path, pooling: Option<Pooling>) -> Result<Vectors, Error> {
    let read = || -> anyhow::Result<Vectors> {
        if !is_bundle(model) {
            return Ok(Vectors::of_checkpoint(model, pooling)?);
        }
        let vectors = Manifest::read(model)?.vectors;
        Ok(Vectors { pooling: pooling.unwrap_or(vectors.pooling), ..vectors })
    };
    Ok(read()?)
}

/// Opens a model folder or a bundle for text embeddings.
///
/// # Errors
/// The same as for [`open_predictor`], except that no head is needed. Also when `pooling` needs a pooler and the model has
/// none.
pub fn open_embedder<B: Backend>(
    folders: ModelFolders<'_>,
    precision: Option<Precision>,
    (pooling, normalize): (Pooling, bool),
    device: &Device,
) -> Result<Embedder, Error> {
    let open = || -> anyhow::Result<Embedder> {
        if !folders.is_bundle()? {
            let precision = available::<B>(precision.unwrap_or_default())?;
            let config = EmbedConfig { pooling, normalize, precision };
            return Ok(match folders.adapter {
                Some(adapter) => config.load_adapted(folders.model, adapter, device)?,
                None => config.load(folders.model, device)?,
            });
        }
        Ok(open_bundle::<B>(folders.model, precision, device)?.embedder(pooling, normalize)?)
    };
    Ok(open()?)
}

fn open_bundle<B: Backend>(folder: &Path, precision: Option<Precision>, device: &Device) -> anyhow::Result<Bundle> {
    // The precision is checked before the files are read.
    let own = Precision::from(Manifest::read(folder)?.precision);
    if let Some(asked) = precision.filter(|asked| *asked != own) {
        let folder = folder.display();
        bail!(UsageError(format!("{folder}: the bundle's precision is {}, not {}", own.name(), asked.name())));
    }
    available::<B>(own)?;
    Ok(Bundle::open(folder, device)?)
}

/// The options of [`bundle`].
#[derive(Clone, Debug, Default)]
pub struct BundleOptions {
    /// The precision of the bundle's weights and matrix products.
    pub precision: Precision,
    /// Texts or pairs of texts to calibrate int8 on.
    pub calibrate: Option<Vec<(String, Option<String>)>>,
    /// How a calibrated int8 bundle scales its activations.
    pub scales: ActivationScales,
    /// An optional comparison with the model in f32.
    pub check: Option<CheckOptions>,
}

/// Compares a bundle with its model in f32.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// The labelled file to score both on.
    pub data: Source,
    /// The maximum loss of the metric, in points (hundredths).
    pub max_loss: f64,
}

/// Creates a bundle at `out` from the folder of a model or of a run.
///
/// # Errors
/// When the model cannot be loaded, `out` already exists, a file cannot be written, calibration is requested for another
/// precision than int8, the labelled file cannot be scored, or the bundle loses more than the allowed maximum. Nothing is
/// written to `out` in these cases.
pub fn bundle<B: Backend>(
    model: &Path,
    out: &Path,
    options: BundleOptions,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Manifest, Error> {
    let mut make = || -> anyhow::Result<Manifest> {
        let config = SealConfig { precision: available::<B>(options.precision)? };
        let mut sealing = config.prepare(model, out, device)?;
        if let Some(texts) = &options.calibrate {
            let texts: Vec<_> = texts.iter().map(|(text, pair)| (text.as_str(), pair.as_deref())).collect();
            sealing = sealing.smooth(&texts, options.scales, device)?;
        }
        let Some(CheckOptions { data, max_loss }) = &options.check else { return Ok(sealing.finish(None)?) };
        let full = Predictor::from_folder(&model_in(model), device)?;
        let Model::Predictor(sealed) = Bundle::open(sealing.path(), device)?.model else {
            bail!(UsageError("--check needs a model with a head".to_owned()));
        };
        let mut scores = |predictor| score::<B>(predictor, model, data.clone(), device, observer);
        let ((metric, f32, examples), (_, bundle, _)) = (scores(&full)?, scores(&sealed)?);
        let check = Check { metric: metric.to_owned(), f32, bundle, examples };
        let loss = check.loss();
        // NaN is not within the limit.
        if loss.is_nan() || loss > *max_loss {
            bail!(
                "{}: the bundle would lose {loss:.2} points of {metric} ({f32:.4} → {bundle:.4}, {examples} examples), \
                 more than --max-loss {max_loss}; nothing was written",
                out.display()
            );
        }
        Ok(sealing.finish(Some(check))?)
    };
    Ok(make()?)
}

/// The name and value of the metric that a bundle is judged by, and the number of examples.
fn score<B: Backend>(
    predictor: &Predictor,
    model: &Path,
    data: Source,
    device: &Device,
    observer: &mut dyn Observer,
) -> anyhow::Result<(&'static str, f64, usize)> {
    /// The first of these that the report has is used.
    const JUDGED_BY: [&str; 6] = ["entity_f1", "micro_f1", "f1", "pearson", "masked_accuracy", "accuracy"];
    let evaluated = evaluate::<B>(predictor, &model_in(model), data, device, observer)?;
    let report: &SplitReport = evaluated.report.splits.values().next().expect("an evaluation has one split");
    let (name, score) =
        JUDGED_BY.into_iter().find_map(|name| Some((name, report.score(name)?))).expect("every task has one of them");
    Ok((name, score, report.examples))
}
