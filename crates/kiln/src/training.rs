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

/// The options of a run that are not part of its recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The run's folder; `None` takes the first free `runs/NAME-N`.
    pub out: Option<PathBuf>,
    /// The NAME in `runs/NAME-N`.
    pub name: String,
    /// Whether to resume the interrupted run in `out`.
    pub resume: bool,
    /// The fold of the training split to hold out and validate on, instead of the recipe's validation split.
    pub fold: Option<Fold>,
    /// Whether it is an error that a validation or test text is also in an earlier split.
    pub strict: bool,
    /// The index of the backend's device.
    pub device: usize,
    /// Where checkpoints and data sets are cached.
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

/// One of the cross-validation folds of a training split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The number of this fold, from 0.
    pub index: usize,
    /// The number of folds.
    pub count: usize,
}

/// The result of a training.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The scores and the cost of the training.
    pub report: Report,
    /// The run's folder, with `model`, `checkpoints`, `report.json`, `report.html`, `errors.tsv`, `metrics.jsonl` and
    /// `run.toml`.
    pub folder: PathBuf,
    /// A file that the model can be evaluated on, if the recipe names one.
    pub test_file: Option<PathBuf>,
    /// Whether the examples are pairs of texts.
    pub has_pairs: bool,
    pub(crate) device: Device,
}

impl Trained {
    /// The folder of the trained model.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// Loads the trained model for prediction.
    ///
    /// # Errors
    /// When the model's folder cannot be loaded, for example because it was changed.
    pub fn predictor(&self) -> Result<Predictor, kiln_predict::Error> {
        Predictor::from_folder(&self.model(), &self.device)
    }
}

/// Trains a model from a recipe: fetches the checkpoint and the data, reads and tokenizes the rows, trains, and evaluates
/// the best checkpoint.
///
/// # Errors
/// When the recipe does not fit its data or checkpoint, a file cannot be read or written, the loss diverges, or the
/// observer stops the training. In the last case, the run is saved.
pub fn train<B: Backend>(recipe: &Recipe, options: &RunOptions, observer: &mut dyn Observer) -> Result<Trained, Error> {
    let trained = train_together::<B>(recipe, options, &Alone, observer)?;
    Ok(trained.expect("the only process is the first"))
}

/// [`train`] as one of several processes that share the work. All processes need the same recipe, options and files. The
/// first process writes the run's folder and returns the result; the others return `None`.
///
/// # Errors
/// The same as for [`train`]. Also when the processes differ in their settings or files, or when there are more processes
/// than batches in an update.
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
    // Runs inside the thread pool. From outside, every parallel operation would wake a thread and wait for it.
    rayon::scope(|_| run()).map_err(Error::from)
}

impl RunOptions {
    /// The same options, with the name of the recipe's file as the name of the run.
    pub fn named_after(self, recipe: &Path) -> Self {
        let name = recipe.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run").to_owned();
        Self { name, ..self }
    }
}
