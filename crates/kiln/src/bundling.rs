use std::path::Path;

use anyhow::bail;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bundle::{ActivationScales, Bundle, Check, Manifest, Model, SealConfig, is_bundle};
use kiln_dataset::Source;
use kiln_eval::SplitReport;
use kiln_heads::Pooling;
use kiln_predict::{EmbedConfig, Embedder, Predictor};

use crate::fetch::model_in;
use crate::recipe::{Precision, available};
use crate::{Error, Observer, UsageError, evaluate, warn_of_layers};

/// Where a model is.
#[derive(Clone, Copy, Debug)]
pub struct ModelFolders<'a> {
    /// A model's folder, a checkpoint's, or a bundle.
    pub model: &'a Path,
    /// An adapter of it, of Kiln's or peft's.
    pub adapter: Option<&'a Path>,
}

impl ModelFolders<'_> {
    fn is_bundle(&self) -> anyhow::Result<bool> {
        let is_bundle = is_bundle(self.model);
        if is_bundle && self.adapter.is_some() {
            let folder = self.model.display();
            bail!(UsageError(format!("{folder}: a bundle takes no adapter; merge it into the model that is bundled")));
        }
        Ok(is_bundle)
    }
}

/// A model folder or a bundle, ready to answer. A bundle is verified first, and has a precision of its own; any other model
/// computes in f32 where none is asked for.
///
/// # Errors
/// When the model cannot be loaded, a bundle is not as its manifest says, has no head or has another precision, or the
/// backend does not have the precision.
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
            Model::Encoder(_) => bail!("{}: the bundle's model has no head; it makes vectors alone", folder.display()),
        }
    };
    let predictor = open()?;
    warn_of_layers(predictor.unused(), observer);
    Ok(predictor)
}

/// The same for vectors.
///
/// # Errors
/// As of [`open_predictor`], a head apart; and when `pooling` needs a pooler and the model has none.
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
    // Before its files are read.
    let own = Precision::from(Manifest::read(folder)?.precision);
    if let Some(asked) = precision.filter(|asked| *asked != own) {
        let folder = folder.display();
        bail!(UsageError(format!("{folder}: the bundle computes in {}, not in {}", own.name(), asked.name())));
    }
    available::<B>(own)?;
    Ok(Bundle::open(folder, device)?)
}

/// How a bundle is made.
#[derive(Clone, Debug, Default)]
pub struct BundleOptions {
    /// What its weights are stored in, and computed with.
    pub precision: Precision,
    /// Texts, or pairs of them, that int8 is calibrated on.
    pub calibrate: Option<Vec<(String, Option<String>)>>,
    /// How a calibrated int8 scales its activations.
    pub scales: ActivationScales,
    /// What it must not lose.
    pub check: Option<CheckOptions>,
}

/// A comparison of a bundle with its model in f32.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// A labelled file.
    pub data: Source,
    /// The most points, hundredths of the metric, that the bundle may lose.
    pub max_loss: f64,
}

/// Makes a bundle of a model's folder, or of a run's, at `out`.
///
/// # Errors
/// When the model cannot be loaded, something is at `out` already, a file cannot be written, another precision than int8 is to
/// be calibrated, the labelled file cannot be scored, or the bundle loses more than it may: nothing is at `out` then.
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
            bail!(UsageError("--check is for a model with a head".to_owned()));
        };
        let mut scores = |predictor| score::<B>(predictor, model, data.clone(), device, observer);
        let ((metric, f32, examples), (_, bundle, _)) = (scores(&full)?, scores(&sealed)?);
        let check = Check { metric: metric.to_owned(), f32, bundle, examples };
        let loss = check.loss();
        // What is not a number is not within the limit.
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

/// The number that a bundle is judged by, its name, and how many examples it is of.
fn score<B: Backend>(
    predictor: &Predictor,
    model: &Path,
    data: Source,
    device: &Device,
    observer: &mut dyn Observer,
) -> anyhow::Result<(&'static str, f64, usize)> {
    /// Of those that a report has, the first.
    const JUDGED_BY: [&str; 6] = ["entity_f1", "micro_f1", "f1", "pearson", "masked_accuracy", "accuracy"];
    let evaluated = evaluate::<B>(predictor, &model_in(model), data, device, observer)?;
    let report: &SplitReport = evaluated.report.splits.values().next().expect("an evaluation has one split");
    let (name, score) =
        JUDGED_BY.into_iter().find_map(|name| Some((name, report.score(name)?))).expect("every task has one of them");
    Ok((name, score, report.examples))
}
