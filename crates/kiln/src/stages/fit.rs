//! The training itself, and the evaluation of its best checkpoint.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use kiln_eval::{EpochScores, RanksReport, SplitReport, TrainReport};
use kiln_heads::Calibration;
use kiln_schema::{Split, Splits};
use kiln_train::{Dataset, End, EpochReport, EvaluationSet, Event, Fit, Metric, Scope, TrainConfig, TrainingSet};

use super::board::Board;
use super::save::{RunFolder, epoch_scores};
use super::settle::Plan;
use crate::Observer;
use crate::error::Interrupted;
use crate::ranks::PartDone;
use crate::tasks::Judgement;

/// A trained model and its results.
pub(crate) struct Fitted<M> {
    pub model: M,
    pub results: Results,
}

/// The cost of a training, and the scores of its best checkpoint.
pub(crate) struct Results {
    pub train: TrainReport,
    pub splits: BTreeMap<Split, SplitReport>,
    /// The model's errors, as the text of `errors.tsv`.
    pub errors: String,
    /// The learning curves.
    pub epochs: Vec<EpochScores>,
    /// The calibration of the logits, fitted on the validation split; `None` if none is better.
    pub calibration: Option<Calibration>,
    pub epoch_seconds: EpochSeconds,
}

/// The seconds of the parts of an epoch.
#[derive(Clone, Copy, Default)]
pub(crate) struct EpochSeconds {
    /// The updates of the last epoch.
    pub updates: f64,
    /// The validation of the last epoch.
    pub validation: f64,
    /// The checkpoints of an epoch, as the mean over all epochs.
    pub checkpoints: f64,
}

/// The settings of [`fit`] that depend on the task.
#[derive(Clone, Copy)]
pub(crate) struct FitOptions<F> {
    /// The metric that selects the best checkpoint.
    pub metric: Metric,
    /// Which parameters are trained.
    pub scope: Scope,
    /// Seconds that a frozen encoder took before the training.
    pub encoder_seconds: f64,
    /// Seconds that a teacher took before the training.
    pub teacher_seconds: f64,
    /// Computes the model's result for each row, from the output for the test split, or for the validation split if there
    /// is no test split.
    pub judge: F,
}

/// Trains on the training split, validates on the validation split, and evaluates the best checkpoint on all splits but the
/// training split.
pub(crate) fn fit<S: TrainingSet + EvaluationSet<S::Model>>(
    plan: &Plan<'_>,
    sets: &Splits<S>,
    model: S::Model,
    options: FitOptions<impl FnOnce(&<S as EvaluationSet<S::Model>>::Output, &S, Option<&Calibration>) -> Judgement>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Fitted<S::Model>> {
    let mut config = plan.recipe.train.config(options.metric);
    config.scope = options.scope;
    let fit = Fit {
        train: &sets.train,
        validation: &sets.validation,
        config: &config,
        fingerprint: &plan.fingerprint,
        device: plan.device,
        checkpoints: &plan.folder.checkpoints(),
        resume: plan.folder.resume,
        reduction: plan.reduction,
    };
    let mut watch = Watch::new(plan);
    let sent_before = plan.reduction.bytes_sent();
    let fitted = fit.run(model, &mut |event| watch.event(event, &config, observer))?;
    let updates = fitted.steps - watch.resumed_at;
    watch.finish(fitted.steps, fitted.end, &config, observer)?;
    if !plan.is_first() {
        bail!(PartDone);
    }
    let (steps, best_epoch) = (fitted.steps, fitted.best_epoch);
    observer.stage("train", "kiln-train", &format_args!("{steps} updates; epoch {best_epoch} is the best"));
    let ranks = ranks_report(plan, plan.reduction.bytes_sent() - sent_before, updates);
    let seconds_before = [options.encoder_seconds, options.teacher_seconds];
    let train = TrainReport { ranks, ..train_report(sets, &fitted, seconds_before) };
    let mut splits = BTreeMap::new();
    let (mut judged, mut calibration) = (None, None);
    for (split, set) in sets.iter().filter(|(split, _)| *split != Split::Train) {
        let output = set.output(&fitted.model, config.batch_size, plan.device);
        if split == Split::Validation {
            calibration = set.calibration(&output);
        }
        splits.insert(split, set.calibrated_report(&output, calibration.as_ref())?);
        judged = Some((split, output, set));
    }
    let (split, output, set) = judged.expect("there is a validation split");
    let judgement = (options.judge)(&output, set, calibration.as_ref());
    splits.entry(split).and_modify(|report| *report = judgement.complete(report.clone()));
    let updates = steps as f64 / fitted.passes;
    let epochs = fitted.epochs.iter().map(|report| epoch_scores(report, updates)).collect();
    let epoch_seconds = fitted.epochs.last().map_or_else(EpochSeconds::default, |last| EpochSeconds {
        updates: last.train_seconds,
        validation: last.seconds - last.train_seconds,
        checkpoints: fitted.checkpoint_seconds / fitted.epochs.len() as f64,
    });
    let errors = judgement.errors;
    Ok(Fitted { model: fitted.model, results: Results { train, splits, errors, epochs, calibration, epoch_seconds } })
}

/// The cost of a training, including the seconds of a frozen encoder and a teacher before it.
fn train_report<S: Dataset, M>(
    sets: &Splits<S>,
    fitted: &kiln_train::Fitted<M>,
    [encoder_seconds, teacher_seconds]: [f64; 2],
) -> TrainReport {
    let epochs = &fitted.epochs;
    let update_seconds: f64 = epochs.iter().map(|epoch| epoch.train_seconds).sum();
    let encoded: usize = sets.iter().map(|(_, set)| set.rows()).sum();
    let in_an_epoch = |amount: usize| amount as f64 * fitted.passes / update_seconds;
    TrainReport {
        epochs: epochs.last().map_or(0, |last| last.epoch),
        best_epoch: fitted.best_epoch,
        steps: fitted.steps,
        seconds: epochs.iter().map(|epoch| epoch.seconds).sum::<f64>() + encoder_seconds + teacher_seconds,
        encoder_seconds,
        teacher_seconds,
        update_seconds,
        examples_per_second: in_an_epoch(sets.train.rows()),
        tokens_per_second: in_an_epoch(sets.train.tokens()),
        encoder_examples_per_second: if encoder_seconds > 0.0 { encoded as f64 / encoder_seconds } else { 0.0 },
        padding_share: fitted.padding_share,
        ranks: None,
        peak_rss_bytes: 0,
    }
}

/// The report on the processes that trained together; `None` for a single process.
fn ranks_report(plan: &Plan<'_>, bytes_sent: u64, updates: usize) -> Option<RanksReport> {
    let ranks = plan.reduction.ranks();
    (ranks > 1).then(|| RanksReport {
        ranks,
        reduce: plan.recipe.train.reduce.name().to_owned(),
        bytes_sent_per_update: bytes_sent / updates.max(1) as u64,
    })
}

/// Writes `metrics.jsonl` during a training, and reports how it ended.
struct Watch<'a> {
    /// `None` in all processes but the first.
    folder: Option<&'a RunFolder>,
    path: &'a Path,
    /// Updates that were made before the training was resumed.
    resumed_at: usize,
    epochs: Vec<EpochReport>,
    board: Board,
    failed: Option<anyhow::Error>,
}

impl<'a> Watch<'a> {
    fn new(plan: &'a Plan<'_>) -> Self {
        let folder = plan.is_first().then_some(&plan.folder);
        Self {
            folder,
            path: &plan.folder.path,
            resumed_at: 0,
            epochs: Vec::new(),
            board: Board::new(plan),
            failed: None,
        }
    }

    /// Breaks when the observer does, or when `metrics.jsonl` or the event files cannot be written.
    fn event(&mut self, event: Event, config: &TrainConfig, observer: &mut dyn Observer) -> ControlFlow<()> {
        if let Event::Started { step, total_steps, epochs } = &event
            && *step > 0
        {
            let validations = if config.eval_steps == 0 { "epochs" } else { "validations" };
            let done = format!("{step} of {total_steps} updates and {} {validations} are done", epochs.len());
            observer.stage("resume", "kiln-train", &done);
        }
        observer.training(&event, config);
        if let Err(error) = self.board.event(&event) {
            self.failed.get_or_insert(error);
        }
        match event {
            Event::Started { step, epochs, .. } => {
                self.resumed_at = step;
                self.epochs = epochs;
                self.write_metrics();
            }
            Event::Step { .. } => {}
            Event::Epoch(report) => {
                self.epochs.push(report);
                self.write_metrics();
            }
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { observer.control() }
    }

    fn write_metrics(&mut self) {
        if let Some(Err(error)) = self.folder.map(|folder| folder.write_metrics(&self.epochs)) {
            self.failed.get_or_insert(error);
        }
    }

    /// Reports how a training ended after `steps` updates.
    fn finish(self, steps: usize, end: End, config: &TrainConfig, observer: &mut dyn Observer) -> anyhow::Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let note = match end {
            End::Interrupted => {
                let folder = self.path.display();
                bail!(Interrupted(format!("{steps} updates are saved; continue with --resume --out {folder}")));
            }
            _ if self.resumed_at > 0 && self.resumed_at == steps => {
                "this run was complete: no further update was made, and its best epoch is tested again".to_owned()
            }
            End::Complete => return Ok(()),
            End::NoImprovement => {
                let patience = config.early_stopping_patience;
                format!("stopped early: {} did not improve for {patience} epochs", config.metric.name())
            }
            End::OutOfTime => format!("stopped after {} hours, as train.max_hours says", config.max_hours),
        };
        observer.stage("", "kiln-train", &note);
        Ok(())
    }
}
