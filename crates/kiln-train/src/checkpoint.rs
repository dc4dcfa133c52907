use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use kiln_bert::{FloatType, Loaded, NamedParameter, Weights, load_as, parameters_where, save, save_with_note};
use serde::{Deserialize, Serialize};

use crate::average::AVERAGE;
use crate::{AdamW, Average, EpochReport, Error, Fingerprint, TrainConfig, Trainable};

/// The progress of a run. Together with the weights and moments, it is everything that a resumed run needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Version of this layout; see [`FORMAT`].
    pub format: u32,
    /// Training rows per epoch.
    pub rows: usize,
    /// The current epoch, from 0.
    pub epoch: usize,
    /// Updates made in the current epoch.
    pub updates_in_epoch: usize,
    /// Updates made in all epochs.
    pub step: usize,
    /// Sum of the losses of the targets since the last validation.
    pub loss_sum: f64,
    /// Number of correctly predicted targets since the last validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<usize>,
    /// Number of targets since the last validation.
    pub targets: usize,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// Sum of the gradient norms of the updates since the last validation.
    pub norm_sum: f64,
    /// Number of updates since the last validation.
    pub norms: usize,
    /// Seconds spent on updates since the last validation.
    pub update_seconds: f64,
    /// Seconds spent on checkpoints since the last validation.
    pub saving_seconds: f64,
    /// Whether training ended at the time limit.
    pub out_of_time: bool,
    /// Number of parameters for which the optimizer has moments.
    pub moments: usize,
    /// The best validation so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    /// The settings of the loop.
    pub config: Fingerprint,
    /// Everything else that must be the same in a resumed run.
    pub fingerprint: Fingerprint,
    /// Reports of all validations so far.
    pub reports: Vec<EpochReport>,
}

impl Progress {
    /// Resets the counts since the last validation.
    pub(crate) fn start_counting(&mut self) {
        let counted = std::mem::take(self);
        let (loss_sum, correct, targets, norm_sum, norms, update_seconds, saving_seconds) = Default::default();
        *self = Self { loss_sum, correct, targets, norm_sum, norms, update_seconds, saving_seconds, ..counted };
    }

    /// Advances to the next epoch.
    pub(crate) fn end_epoch(&mut self) {
        self.epoch += 1;
        self.updates_in_epoch = 0;
    }
}

/// The best validation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// The epoch of the validation, from 1.
    pub epoch: usize,
    /// The score by the selected metric; higher is better.
    pub score: f64,
}

/// What a checkpoint must match to be resumed.
pub(crate) struct Expected<'a> {
    /// The progress of a run that has not started.
    pub fresh: &'a Progress,
    /// Updates per epoch.
    pub updates: usize,
    pub trainable: &'a Trainable,
    pub settings: &'a TrainConfig,
}

impl Expected<'_> {
    /// An average before the first update, if the settings have one.
    pub(crate) fn average(&self) -> Option<Average> {
        (self.settings.ema > 0.0).then(|| Average::new(self.settings.ema))
    }
}

/// The state from which a run starts or resumes.
pub(crate) struct State<M> {
    pub model: M,
    pub optimizer: AdamW,
    pub average: Option<Average>,
    pub progress: Progress,
}

/// The version of the checkpoint layout. Checkpoints with another version are rejected.
const FORMAT: u32 = 5;

pub(crate) const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";

const MODEL: &str = "model.";
const MOMENTS: [&str; 2] = ["first_moment.", "second_moment."];

/// Whether a folder has a checkpoint to resume from. If there is none, the result is false, and a run starts from the
/// beginning.
///
/// # Errors
/// When the checkpoint cannot be read, or its run has another fingerprint.
pub fn check_resumable(checkpoints: &Path, fingerprint: &Fingerprint) -> Result<bool, Error> {
    if !checkpoints.join(LAST).exists() {
        return Ok(false);
    }
    read_progress(&Weights::from_file(&checkpoints.join(LAST))?, fingerprint)?;
    Ok(true)
}

/// Writes the trained parameters, their moments and averages, and the progress into one file, so that they are consistent.
pub(crate) fn write_last<M: Module>(
    folder: &Path,
    model: &M,
    (optimizer, average): (&AdamW, Option<&Average>),
    progress: &Progress,
) -> Result<(), Error> {
    let learnt = |name: &str| optimizer.trainable().learns(name);
    let weights = parameters_where(model, &learnt);
    let weights = weights.into_iter().map(|p| NamedParameter { name: format!("{MODEL}{}", p.name), ..p });
    let moments = optimizer.state();
    let progress = Progress { format: FORMAT, moments: moments.len() / MOMENTS.len(), ..progress.clone() };
    let averages = average.map(Average::state).unwrap_or_default();
    let tensors: Vec<NamedParameter> = weights.chain(moments).chain(averages).collect();
    // TOML, because it preserves every bit of a float.
    let note = toml::to_string(&progress).expect("progress is TOML");
    Ok(save_with_note(&folder.join(LAST), &tensors, note)?)
}

/// Reads the file of [`write_last`] into a model of the same shape.
pub(crate) fn read_last<M: Module>(
    folder: &Path,
    model: M,
    expected: &Expected<'_>,
    device: &Device,
) -> Result<State<M>, Error> {
    let file = Weights::from_file(&folder.join(LAST))?;
    let unusable = |reason: String| Error::Checkpoint { path: file.path().to_owned(), reason };
    let progress = read_progress(&file, &expected.fresh.fingerprint)?;
    refuse_differences(&file, progress.config.differences(&expected.fresh.config))?;
    check_progress(&progress, expected).map_err(unusable)?;
    let Loaded { module, unused } =
        load_as(model, &file, &|name| expected.trainable.learns(name).then(|| format!("{MODEL}{name}")))?;
    if let Some(name) = unused.iter().find(|name| name.starts_with(MODEL)) {
        return Err(unusable(format!("`{name}` is not a parameter of the model")));
    }
    check_tensors(&file, progress.moments).map_err(unusable)?;
    check_averages(&file, expected.settings.ema > 0.0 && progress.step > 0).map_err(unusable)?;
    let optimizer = AdamW::restore(expected.trainable.clone(), progress.step, &file, device)?;
    let average = expected.average().map(|_| Average::restore(expected.settings.ema, &file, device)).transpose()?;
    Ok(State { model: module, optimizer, average, progress })
}

fn read_progress(file: &Weights, fingerprint: &Fingerprint) -> Result<Progress, Error> {
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        format: u32,
    }
    let unusable = |reason: String| Error::Checkpoint { path: file.path().to_owned(), reason };
    let note = file.note().ok_or_else(|| unusable("it has no training progress".to_owned()))?;
    let damaged = |error: toml::de::Error| unusable(format!("its progress is damaged: {}", error.message()));
    let Format { format } = toml::from_str(note).map_err(damaged)?;
    if format != FORMAT {
        let reason = format!("it has format {format}, expected {FORMAT}; another version of Kiln wrote it");
        return Err(unusable(reason));
    }
    let progress: Progress = toml::from_str(note).map_err(damaged)?;
    refuse_differences(file, progress.fingerprint.differences(fingerprint))?;
    Ok(progress)
}

fn refuse_differences(file: &Weights, differences: Vec<String>) -> Result<(), Error> {
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Error::OtherRun { path: file.path().to_owned(), differences }),
    }
}

/// Checks that the counts of a checkpoint are consistent.
fn check_progress(progress: &Progress, expected: &Expected<'_>) -> Result<(), String> {
    let Progress { rows, epoch, updates_in_epoch, step, best, reports, out_of_time, .. } = progress;
    if *rows != expected.fresh.rows {
        return Err(format!("it was trained on {rows} rows an epoch; now there are {}", expected.fresh.rows));
    }
    let steps = epoch.checked_mul(expected.updates).and_then(|steps| steps.checked_add(*updates_in_epoch));
    // An epoch that the time limit ended has fewer updates than the others.
    let agrees = steps == Some(*step) || *out_of_time;
    let are_reports = match expected.settings.eval_steps {
        0 => reports.len() == *epoch,
        _ => reports.iter().all(|report| report.step <= *step),
    };
    if !agrees || *updates_in_epoch > expected.updates || !are_reports {
        let counts = format!("{step} updates, {epoch} epochs and {updates_in_epoch} updates of the next one");
        return Err(format!("its progress is inconsistent: {counts}, {} epoch reports", reports.len()));
    }
    match best {
        Some(best) if best.epoch == 0 || reports.iter().all(|report| report.epoch != best.epoch) => {
            Err(format!("its progress names epoch {} as the best of {epoch}", best.epoch))
        }
        _ => Ok(()),
    }
}

/// Checks the type of each tensor, and that each moment belongs to a parameter and has its number of elements.
fn check_tensors(file: &Weights, moments: usize) -> Result<(), String> {
    let mut parameters = 0;
    for name in file.names() {
        if !file.is_f32(name) {
            return Err(format!("`{name}` does not hold 32-bit floats"));
        }
        if name.starts_with(MODEL) || name.starts_with(AVERAGE) {
            continue;
        }
        let Some((at, parameter)) =
            MOMENTS.iter().enumerate().find_map(|(at, prefix)| Some((at, name.strip_prefix(prefix)?)))
        else {
            return Err(format!("`{name}` is neither a parameter nor a moment of one"));
        };
        let Some(shape) = file.shape(&format!("{MODEL}{parameter}")) else {
            return Err(format!("`{name}` belongs to no parameter of the model"));
        };
        let (found, expected) = (file.shape(name).unwrap_or_default(), [shape.iter().product::<usize>()]);
        if found != expected {
            return Err(format!("`{name}` has shape {found:?}, expected {expected:?}"));
        }
        let other = format!("{}{parameter}", MOMENTS[1 - at]);
        if file.shape(&other).is_none() {
            return Err(format!("there is no `{other}`"));
        }
        parameters += 1 - at;
    }
    if parameters != moments {
        return Err(format!("it has moments of {parameters} parameters, expected {moments}"));
    }
    Ok(())
}

/// Checks that each average belongs to a parameter, and that there are averages of all parameters or of none.
fn check_averages(file: &Weights, are_expected: bool) -> Result<(), String> {
    for name in file.names() {
        if let Some(parameter) = name.strip_prefix(AVERAGE) {
            let shape = file.shape(&format!("{MODEL}{parameter}"));
            let shape = shape.ok_or_else(|| format!("`{name}` belongs to no parameter of the model"))?;
            let (found, expected) = (file.shape(name).unwrap_or_default(), [shape.iter().product::<usize>()]);
            if found != expected {
                return Err(format!("`{name}` has shape {found:?}, expected {expected:?}"));
            }
        }
    }
    let count = |prefix: &str| file.names().filter(|name| name.starts_with(prefix)).count();
    let (found, expected) = (count(AVERAGE), if are_expected { count(MODEL) } else { 0 });
    match found == expected {
        true => Ok(()),
        false => Err(format!("it has averages of {found} parameters, expected {expected}")),
    }
}

/// Writes the trained parameters of a model.
pub(crate) fn write_best<M: Module>(folder: &Path, model: &M, trainable: &Trainable) -> Result<(), Error> {
    let learnt = parameters_where(model, &|name| trainable.learns(name));
    Ok(save(&folder.join(BEST), &learnt, FloatType::F32)?)
}

pub(crate) fn read_best<M: Module>(folder: &Path, model: M, trainable: &Trainable) -> Result<M, Error> {
    let file = Weights::from_file(&folder.join(BEST))?;
    Ok(load_as(model, &file, &|name| trainable.learns(name).then(|| name.to_owned()))?.module)
}
