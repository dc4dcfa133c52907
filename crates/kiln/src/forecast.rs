use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use kiln_backend::Backend;
use kiln_heads::Pretrained;
use kiln_schema::{Split, Splits};
use kiln_tokenize::{Shuffle, shuffled};
use serde::Serialize;

use crate::memory::{available_bytes, peak_rss_bytes};
use crate::recipe::{Encoder, Train};
use crate::stages::fit::EpochSeconds;
use crate::stages::fits::check_fits;
use crate::stages::settle::{Plan, settle};
use crate::stages::{Learner, Stages, Tokens, save};
use crate::{Error, Observer, Recipe, RunOptions, tasks};

/// The estimated cost of a training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// How long it takes.
    pub seconds: Seconds,
    /// The peak resident memory of the process, in bytes; 0 where the system does not report it.
    pub peak_rss_bytes: u64,
    /// The size of the run's folder and of the cached features of a frozen encoder, in bytes.
    pub disk_bytes: u64,
    /// Whether memory and disk currently have enough free space.
    pub fits: bool,
    /// Number of tokens in an epoch, without padding.
    pub train_tokens: usize,
    /// Total number of updates.
    pub steps: usize,
}

/// How long a training takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Seconds {
    /// One epoch with its validation and checkpoints.
    pub epoch: f64,
    /// The whole training, from reading the data to writing the run's folder.
    pub total: f64,
}

/// Batches per epoch of a rehearsal.
const BATCHES: usize = 24;

/// Epochs of a rehearsal. The first one also fills memory and caches; the second runs at the speed of the whole training.
const EPOCHS: u32 = 2;

/// Estimates the cost of a training. Trains two epochs on a sample of the rows, in a folder that is deleted afterwards. The
/// sample covers all lengths and includes the longest row.
///
/// # Errors
/// The same as for [`crate::train`], and for raw text. A training that cannot fit into memory is an error too, and is not
/// started.
pub fn forecast<B: Backend>(
    recipe: &Recipe,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Forecast, Error> {
    let mut run = || {
        let device = B::find_device(options.device)?;
        let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        let train = Train {
            epochs: EPOCHS as usize,
            eval_steps: 0,
            max_hours: 0.0,
            save_steps: 0,
            save_minutes: 0.0,
            ..recipe.train.clone()
        };
        let rehearsal = Recipe { train, ..recipe.clone() };
        let out = Some(folder.path().join("run"));
        let options = RunOptions { out, resume: false, ..options.clone() };
        let mut plan = settle::<B>(&rehearsal, &options, &device, observer)?;
        plan.cache = folder.path().join("cache");
        let rehearsal = tasks::rehearse(&plan, observer)?;
        anyhow::Ok(rehearsal.forecast(recipe))
    };
    rayon::scope(|_| run()).map_err(Error::from)
}

/// The measured cost of a training on a sample of the rows.
pub(crate) struct Rehearsal {
    /// Tokens of all rows, and of the sample. For the training split, they include the padding of an epoch.
    all: Splits<usize>,
    some: Splits<usize>,
    /// Tokens of the whole training split, without padding.
    train_tokens: usize,
    rows: Splits<usize>,
    hidden_size: usize,
    /// Seconds for the sample: the frozen encoder, the teacher, and an epoch.
    encoder_seconds: f64,
    teacher_seconds: f64,
    epoch_seconds: EpochSeconds,
    /// Extra seconds of the first updates, compared with a later epoch.
    warm_up_seconds: f64,
    /// Seconds for reading and tokenizing all rows, loading the model, explaining mistakes, and writing the run's folder.
    other_seconds: f64,
    /// The size of the run's folder.
    folder_bytes: u64,
    peak_rss_bytes: u64,
}

/// Reads and tokenizes all rows, and runs the other stages on a sample of them.
pub(crate) fn rehearse<T: Stages>(task: &T, plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Rehearsal> {
    let mut stopwatch = Instant::now();
    let mut lap = || std::mem::replace(&mut stopwatch, Instant::now()).elapsed().as_secs_f64();
    let rows = task.read(plan, observer)?;
    let Tokens { tokens, num_rows, longest, audit, .. } = task.encode(plan, &rows, observer)?;
    let batch_size = plan.recipe.train.batch_size;
    let picked = tokens.as_ref().map(|split, tokens| match split {
        Split::Train => spread(tokens, batch_size.saturating_mul(BATCHES)),
        _ => spread(tokens, batch_size.saturating_mul(BATCHES / 3)),
    });
    let some = tokens.as_ref().zip(picked.as_ref());
    let some = some.map(|_, (tokens, picked)| picked.iter().map(|&row| tokens[row]).collect());
    let read = |tokens: &Splits<Vec<usize>>, epoch| {
        tokens.as_ref().map(|split, tokens| match split {
            Split::Train => padded(tokens, &plan.recipe.train, epoch),
            _ => tokens.iter().sum(),
        })
    };
    let (all, some) = (read(&tokens, 0), read(&some, u64::from(EPOCHS) - 1));
    let sample = task.pick(&rows, &picked);
    // The sample is encoded again, without reports.
    let Tokens { encoded, .. } = task.encode(plan, &sample, &mut ())?;
    let described = task.model(plan, &sample)?;
    check_fits(plan, &described, longest, num_rows)?;
    plan.begin()?;
    let Pretrained { model, config, .. } = described.pretrained;
    let learner = Learner { model, teacher: described.teacher };
    let before_seconds = lap();
    let fitted = task.fit(plan, &sample, encoded, learner, &mut ())?;
    let fit_seconds = lap();
    let train = fitted.results.train.clone();
    let epoch_seconds = fitted.results.epoch_seconds;
    // After the epochs, the best checkpoint is scored on validation and test.
    let scored = some.validation + some.test.unwrap_or(0);
    let scoring_seconds = scaled(epoch_seconds.validation, some.validation, scored);
    let in_epochs = train.seconds + f64::from(EPOCHS) * epoch_seconds.checkpoints;
    let explaining_seconds = (fit_seconds - in_epochs - scoring_seconds).max(0.0);
    let hidden_size = config.hidden_size;
    let network = kiln_heads::TaskModel { network: task.network(sample, fitted.model), config };
    save::save(plan, network, fitted.results, &audit, &mut ())?;
    Ok(Rehearsal {
        other_seconds: before_seconds + explaining_seconds + lap(),
        all,
        some,
        train_tokens: tokens.train.iter().sum(),
        rows: tokens.map(|_, tokens| tokens.len()),
        hidden_size,
        encoder_seconds: train.encoder_seconds,
        teacher_seconds: train.teacher_seconds,
        epoch_seconds,
        warm_up_seconds: (train.update_seconds - f64::from(EPOCHS) * epoch_seconds.updates).max(0.0),
        folder_bytes: size_of_folder(&plan.folder.path),
        peak_rss_bytes: peak_rss_bytes(),
    })
}

impl Rehearsal {
    fn forecast(&self, recipe: &Recipe) -> Forecast {
        let total = |tokens: &Splits<usize>| tokens.iter().map(|(_, tokens)| *tokens).sum::<usize>();
        let EpochSeconds { updates, validation, checkpoints } = self.epoch_seconds;
        let update = scaled(updates, self.some.train, self.all.train);
        let per_validation = |tokens| scaled(validation, self.some.validation, tokens);
        let steps = self.steps(recipe);
        let validations = match recipe.train.eval_steps {
            0 => recipe.train.epochs,
            every => steps.div_ceil(every),
        };
        let validating = validations as f64 * (per_validation(self.all.validation) + checkpoints);
        let epoch = update + validating / recipe.train.epochs as f64;
        let encoder = scaled(self.encoder_seconds, total(&self.some), total(&self.all));
        let teacher = scaled(self.teacher_seconds, self.some.train, self.all.train);
        // At the end, the best checkpoint is scored on both splits.
        let test = per_validation(self.all.validation) + self.all.test.map_or(0.0, per_validation);
        let once = self.other_seconds + encoder + teacher + self.warm_up_seconds + test;
        let seconds = Seconds { epoch, total: once + recipe.train.epochs as f64 * epoch };
        let is_frozen = recipe.model.encoder == Encoder::Frozen;
        let disk_bytes = self.folder_bytes + if is_frozen { self.feature_bytes(recipe) } else { 0 };
        let has_room = |free: Option<u64>, needed| free.is_none_or(|free| free >= needed);
        let free_disk = fs4::available_space(Path::new(".")).ok();
        // The memory of this process will be free again.
        let free_memory = available_bytes().map(|free| free + self.peak_rss_bytes);
        Forecast {
            seconds,
            peak_rss_bytes: self.peak_rss_bytes,
            disk_bytes,
            fits: has_room(free_disk, disk_bytes) && has_room(free_memory, self.peak_rss_bytes),
            train_tokens: self.train_tokens,
            steps,
        }
    }

    /// Number of updates of the whole training.
    fn steps(&self, recipe: &Recipe) -> usize {
        let Train { epochs, batch_size, gradient_accumulation_steps, .. } = recipe.train;
        epochs * self.rows.train.div_ceil(batch_size).div_ceil(gradient_accumulation_steps)
    }

    /// The size of a frozen encoder's features: one vector per row for sequence classification, one per token for other
    /// tasks.
    fn feature_bytes(&self, recipe: &Recipe) -> u64 {
        let vectors = match recipe.task {
            kiln_schema::Task::SequenceClassification => &self.rows,
            _ => &self.all,
        };
        let count: usize = vectors.iter().map(|(_, count)| *count).sum();
        (count * self.hidden_size * size_of::<f32>()) as u64
    }
}

/// The seconds for `all` tokens, if `some` tokens took `seconds`.
fn scaled(seconds: f64, some: usize, all: usize) -> f64 {
    seconds * all as f64 / some.max(1) as f64
}

/// Tokens of an epoch's batches, including padding. An item longer than the maximum length counts as several rows.
fn padded(tokens: &[usize], train: &Train, epoch: u64) -> usize {
    let most = train.max_length.max(1);
    let of_item = |&tokens: &usize| (0..tokens.div_ceil(most)).map(move |at| most.min(tokens - at * most));
    let rows: Vec<usize> = tokens.iter().flat_map(of_item).collect();
    let batches =
        shuffled(&rows, Shuffle { batch_size: train.batch_size.min(rows.len().max(1)), seed: train.seed, epoch });
    let longest = |batch: &Vec<usize>| batch.iter().map(|&row| rows[row]).max().unwrap_or(0);
    batches.iter().map(|batch| batch.len() * longest(batch)).sum()
}

/// At most `most` rows, spread evenly over all lengths, including the longest.
fn spread(tokens: &[usize], most: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..tokens.len()).collect();
    if rows.len() <= most {
        return rows;
    }
    rows.sort_by_key(|&row| std::cmp::Reverse(tokens[row]));
    (0..most).map(|at| rows[at * rows.len() / most]).collect()
}

/// The total size of all files in a folder and its subfolders.
fn size_of_folder(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of_folder(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_over_all_lengths() {
        let tokens: Vec<usize> = (0..1_000).collect();
        let rows = spread(&tokens, 10);
        assert_eq!(rows, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]);
        assert_eq!(spread(&tokens[..3], 10), [0, 1, 2]);
    }

    #[test]
    fn padding_is_that_of_the_batches() {
        let train = Train { batch_size: 4, max_length: 8, ..Train::default() };
        assert_eq!(padded(&[3, 5, 16], &train, 0), 32, "the third is two rows of 8");
        assert_eq!(padded(&[7, 7, 7, 7, 7], &train, 1), 35);
        assert_eq!(padded(&[], &train, 0), 0);
    }

    #[test]
    fn seconds_grow_with_the_tokens() {
        let splits = |train, validation, test| Splits { train, validation, test };
        let rehearsal = Rehearsal {
            all: splits(1_000, 100, Some(200)),
            some: splits(100, 50, Some(50)),
            train_tokens: 900,
            rows: splits(64, 8, Some(16)),
            hidden_size: 8,
            encoder_seconds: 0.0,
            teacher_seconds: 1.0,
            epoch_seconds: EpochSeconds { updates: 2.0, validation: 0.5, checkpoints: 0.125 },
            warm_up_seconds: 0.25,
            other_seconds: 4.0,
            folder_bytes: 1_000,
            peak_rss_bytes: 1,
        };
        let text = "task = \"sequence-classification\"\nmodel.source = \"sample\"\n[data]\ntrain = \"a.tsv\"\nvalidation = \"b.tsv\"\n";
        let recipe = |more: &[&str]| {
            let more: Vec<String> = more.iter().map(|setting| (*setting).to_owned()).collect();
            Recipe::from_toml(text, Path::new("recipe.toml"), &more).expect("the recipe is good")
        };
        let forecast = rehearsal.forecast(&recipe(&["train.epochs=3", "train.batch_size=16"]));
        assert_eq!(forecast.seconds, Seconds { epoch: 21.125, total: 10.0 + 3.0 * 21.125 + 1.0 + 2.0 + 4.25 });
        assert_eq!((forecast.steps, forecast.disk_bytes, forecast.fits), (12, 1_000, true));
        let frozen = rehearsal.forecast(&recipe(&["model.encoder=frozen"]));
        assert_eq!(frozen.disk_bytes, 1_000 + (64 + 8 + 16) * 8 * 4);
    }
}
