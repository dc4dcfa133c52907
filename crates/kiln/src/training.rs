use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_eval::Report;
use kiln_predict::Predictor;
use kiln_train::{Alone, Reduction};

use crate::environment::HubOptions;
use crate::ranks::{self, PartDone};
use crate::stages::settle::settle;
use crate::{Error, Observer, Recipe, tasks};

/// What a recipe leaves open about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The run's folder; without one, the first free `runs/NAME-N`.
    pub out: Option<PathBuf>,
    /// The NAME in it.
    pub name: String,
    /// Whether to go on with the interrupted run in `out`.
    pub resume: bool,
    /// The part of the training split to validate on in place of the recipe's validation split, and not to train on.
    pub fold: Option<Fold>,
    /// Whether a validation or test text that is also in an earlier split is an error.
    pub strict: bool,
    /// The index of the backend's device.
    pub device: usize,
    /// Where checkpoints and data sets are kept.
    pub hub: HubOptions,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            out: None,
            name: "run".to_owned(),
            resume: false,
            fold: None,
            strict: false,
            device: 0,
            hub: HubOptions::default(),
        }
    }
}

/// One of the equal parts of a training split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

/// A training that ended.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Its scores and its cost.
    pub report: Report,
    /// The run's folder, with `model`, `checkpoints`, `report.json`, `report.html`, `errors.tsv`, `metrics.jsonl` and
    /// `run.toml`.
    pub folder: PathBuf,
    /// A labelled file that the model can be evaluated on, where the recipe names one.
    pub test_file: Option<PathBuf>,
    /// Whether the examples have two texts.
    pub has_pairs: bool,
    pub(crate) device: Device,
}

impl Trained {
    /// The folder of the trained model.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// The trained model, ready to predict.
    ///
    /// # Errors
    /// When its folder was changed since.
    pub fn predictor(&self) -> Result<Predictor, kiln_predict::Error> {
        Predictor::from_folder(&self.model(), &self.device)
    }
}

/// Trains as a recipe says: fetches the checkpoint and the data, reads, tokenizes, trains, and evaluates the best
/// checkpoint.
///
/// # Errors
/// When the recipe does not fit its data or checkpoint, a file cannot be read or written, the loss diverges, or the
/// observer breaks, in which case the run is saved.
pub fn train<B: Backend>(recipe: &Recipe, options: &RunOptions, observer: &mut dyn Observer) -> Result<Trained, Error> {
    let trained = train_together::<B>(recipe, options, &Alone, observer)?;
    Ok(trained.expect("the only process is the first"))
}

/// [`train`] as one of several processes that share the work. All need the same recipe, options and files. The first one
/// writes the run's folder and returns the training, the others none.
///
/// # Errors
/// Those of [`train`]; when the processes would not train the same, or are more than an update has batches.
pub fn train_together<B: Backend>(
    recipe: &Recipe,
    options: &RunOptions,
    reduction: &dyn Reduction,
    observer: &mut dyn Observer,
) -> Result<Option<Trained>, Error> {
    let mut run = || {
        let device = B::find_device(options.device)?;
        let mut plan = settle::<B>(recipe, options, &device, observer)?;
        plan.reduction = reduction;
        ranks::meet(&plan, observer)?;
        match tasks::train(&plan, observer) {
            Err(error) if error.is::<PartDone>() => Ok(None),
            trained => trained.map(Some),
        }
    };
    // Inside the thread pool: from outside, every parallel operation would wake a thread and wait for it.
    rayon::scope(|_| run()).map_err(Error::from)
}

impl RunOptions {
    /// The same options, with the file's name as the name of the run.
    pub fn named_after(self, recipe: &Path) -> Self {
        let name = recipe.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run").to_owned();
        Self { name, ..self }
    }
}
