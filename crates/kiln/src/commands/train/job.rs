//! The training itself, of a whole model or of a head on features, and what it cost.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::Device;
use kiln_eval::{SplitReport, TrainReport};
use kiln_heads::SequenceClassifier;
use kiln_schema::{Split, Splits};
use kiln_train::{Encoded, EpochReport, Event, FeatureCache, Features, FeaturesConfig, Fit, Fitted, TrainingSet};

use crate::console::{self, Interrupted, Progress, stage};
use crate::environment::cache_folder;
use crate::recipe::Recipe;
use crate::run_folder::RunFolder;

/// What both kinds of training share.
pub struct Job<'a> {
    pub recipe: &'a Recipe,
    pub folder: &'a RunFolder,
    pub device: &'a Device,
    pub resume: bool,
}

/// A trained model, what it cost, and how it does.
pub struct Trained<M, O> {
    pub model: M,
    pub train: TrainReport,
    pub splits: BTreeMap<Split, SplitReport>,
    /// What it says of the test split, or where there is none, of the validation.
    pub judged: O,
}

impl Job<'_> {
    pub fn fit<S: TrainingSet>(
        &self,
        sets: &Splits<S>,
        model: S::Model,
        encoder_seconds: f64,
    ) -> anyhow::Result<Trained<S::Model, S::Output>> {
        let config = self.recipe.train.config(self.recipe.metric());
        let fit = Fit {
            train: &sets.train,
            validation: &sets.validation,
            config: &config,
            device: self.device,
            checkpoints: &self.folder.checkpoints(),
            resume: self.resume,
        };
        let started = Instant::now();
        let mut progress: Option<Progress> = None;
        let mut failed = None;
        let fitted = fit.run(model, &mut |event| {
            match event {
                Event::Step { step, total_steps, loss, learning_rate, .. } => {
                    let progress = progress.get_or_insert_with(|| Progress::new("train", total_steps));
                    progress.set(step, || format!("loss {loss:.4} rate {learning_rate:.2e}"));
                }
                Event::Epoch(report) => {
                    match &progress {
                        Some(progress) => progress.log(&epoch_line(&report, config.epochs)),
                        None => console::log(epoch_line(&report, config.epochs)),
                    }
                    if let Err(error) = self.folder.add_metrics(&report) {
                        failed.get_or_insert(error);
                    }
                }
            }
            console::unless_interrupted()
        })?;
        if let Some(progress) = &progress {
            progress.finish();
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let Fitted { model, best_epoch, epochs, steps, padding_share, interrupted } = fitted;
        if interrupted {
            let resume = format!("go on with --resume --out {}", self.folder.path.display());
            return Err(Interrupted(format!("{} updates are saved; {resume}", steps)).into());
        }
        stage("train", "kiln-train", format_args!("{steps} updates; epoch {best_epoch} is the best"));

        let update_seconds: f64 = epochs.iter().map(|epoch| epoch.train_seconds).sum();
        let tokens: usize = sets.train.tokens();
        let encoded: usize = sets.iter().map(|(_, set)| set.rows()).sum();
        let an_epoch = |amount: usize| (amount * epochs.len()) as f64 / update_seconds;
        let train = TrainReport {
            epochs: epochs.len(),
            best_epoch,
            steps,
            seconds: started.elapsed().as_secs_f64() + encoder_seconds,
            encoder_seconds,
            update_seconds,
            examples_per_second: an_epoch(sets.train.rows()),
            tokens_per_second: an_epoch(tokens),
            encoder_examples_per_second: if encoder_seconds > 0.0 { encoded as f64 / encoder_seconds } else { 0.0 },
            padding_share,
            peak_rss_bytes: 0,
        };
        let mut splits = BTreeMap::new();
        let mut judged = None;
        for (split, set) in sets.iter().filter(|(split, _)| *split != Split::Train) {
            let output = set.output(&model, config.batch_size, self.device);
            splits.insert(split, set.report(&output)?);
            judged = Some(output);
        }
        Ok(Trained { model, train, splits, judged: judged.expect("there is a validation split") })
    }

    /// What the frozen encoder says of every row, and the seconds that took; 0 when all was cached.
    pub fn features(
        &self,
        sets: &Splits<Encoded>,
        model: &SequenceClassifier,
        weights_hash: String,
    ) -> anyhow::Result<(Splits<Features>, f64)> {
        let cache = FeatureCache { folder: cache_folder().join("features"), weights_hash };
        let config = FeaturesConfig { batch_size: FEATURE_BATCH, cache: Some(cache) };
        let mut seconds = 0.0;
        let features = sets.clone().try_map(|split, set| {
            let started = Instant::now();
            let mut progress = Progress::new("features", set.rows());
            let (features, cached) = Features::compute(model, &set, &config, self.device, &mut |done| {
                progress.set(done, String::new);
            })?;
            progress.finish();
            let took = started.elapsed().as_secs_f64();
            let how = if cached { "from the cache".to_owned() } else { format!("computed in {took:.1} s") };
            seconds += if cached { 0.0 } else { took };
            let shape = format!("{split} [{}, {}]", set.rows(), features.width());
            stage("features", "kiln-train", format_args!("{shape} {how}"));
            anyhow::Ok(features)
        })?;
        Ok((features, seconds))
    }
}

/// Rows that a frozen encoder computes at once.
const FEATURE_BATCH: usize = 32;

fn epoch_line(report: &EpochReport, epochs: usize) -> String {
    let EpochReport { epoch, train_loss, train_accuracy, validation, .. } = report;
    let accuracy = train_accuracy.map(|accuracy| format!(" accuracy {accuracy:.4}")).unwrap_or_default();
    let mut numbers: Vec<(&String, &f64)> = validation.iter().collect();
    // The loss first, as everywhere.
    numbers.sort_by_key(|(name, _)| *name != "loss");
    let numbers: Vec<String> = numbers.into_iter().map(|(name, number)| format!("{name} {number:.4}")).collect();
    format!(
        "epoch {epoch:>3}/{epochs}  train loss {train_loss:.4}{accuracy}  validation {}  {:.1} s  rate {:.2e}{}",
        numbers.join(" "),
        report.seconds,
        report.learning_rate,
        if report.best { "  best" } else { "" }
    )
}
