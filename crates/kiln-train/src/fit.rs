use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use kiln_schema::Split;
use kiln_tokenize::{Shuffle, padding_share, shuffled};

use crate::checkpoint::{Best, Expected, LAST, Progress, State, read_best, read_last, write_best, write_last};
use crate::ranks::{any, check_weights, first_progress};
use crate::{
    AdamW, Average, End, EpochReport, Error, EvaluationSet, Event, Fingerprint, Fitted, GradientSum, Reduction,
    TrainConfig, TrainingSet, check_ranks,
};

/// A training run: the data, the settings, and the folder for checkpoints.
#[derive(Debug)]
pub struct Fit<'a, S, V> {
    /// The training set.
    pub train: &'a S,
    /// The validation set, which selects the best checkpoint after each epoch or every `eval_steps` updates.
    pub validation: &'a V,
    /// Hyperparameters and settings.
    pub config: &'a TrainConfig,
    /// Everything else that the result depends on. A checkpoint with another fingerprint is not resumed.
    pub fingerprint: &'a Fingerprint,
    /// The device, without autodiff, which is enabled only for updates.
    pub device: &'a Device,
    /// An existing folder, in which `best.safetensors` and `last.safetensors` are written.
    pub checkpoints: &'a Path,
    /// Whether to resume from `last.safetensors`. If there is no such file, training starts from the beginning.
    pub resume: bool,
    /// The processes that train together; [`Alone`](crate::Alone) for a single one. Only the first validates and writes.
    pub reduction: &'a dyn Reduction,
}

/// The state of a training run.
struct Running<M> {
    model: M,
    optimizer: AdamW,
    /// The average of the weights, if it is validated instead of them.
    average: Option<Average>,
    progress: Progress,
    total_steps: usize,
    saved: Instant,
    /// Seconds spent on the checkpoints after validations.
    checkpoint_seconds: f64,
}

/// Measures consecutive time spans.
struct Stopwatch(Instant);

impl Stopwatch {
    /// Seconds since the previous call or, for the first call, since the start.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.0, now)).as_secs_f64()
    }
}

/// Number of updates between two comparisons of the weights of all processes. They also compare them before validations.
const COMPARED_STEPS: usize = 100;

/// Size in batches of the blocks in which new rows are batched: enough for batches of rows of similar length.
const BLOCK_BATCHES: usize = 64;

impl<S: TrainingSet, V: EvaluationSet<S::Model>> Fit<'_, S, V> {
    /// Trains, validates after each epoch or every `eval_steps` updates, and returns the best model.
    ///
    /// The seed and the epoch determine the batches; the seed, the step and the batch determine dropout. The same run
    /// therefore gives the same weights, and so does a resumed run. With [`Reduce::Exact`](crate::Reduce::Exact), the
    /// weights do not depend on the number of processes either.
    ///
    /// Only the first process returns the best model. The others return the last one.
    ///
    /// # Errors
    /// When a split is empty, a count in the configuration is 0, the loss diverges, a checkpoint cannot be written or read, or a checkpoint belongs to another
    /// run. When there are more processes than batches per update, or when the weights of the processes differ.
    pub fn run(
        &self,
        model: S::Model,
        observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Fitted<S::Model>, Error> {
        let mut running = self.start(model)?;
        let Running { progress, total_steps, .. } = &running;
        let epochs = progress.reports.clone();
        let mut flow = self.told(Event::Started { step: progress.step, total_steps: *total_steps, epochs }, observe);
        loop {
            if let Some(end) = self.end(&running.progress) {
                return self.fitted(running, end);
            }
            if flow.is_continue() {
                (running, flow) = self.epoch(running, observe)?;
            }
            if flow.is_break() {
                return self.fitted(running, End::Interrupted);
            }
            if self.is_validation_due(&running.progress) {
                let report = self.validate(&mut running)?;
                flow = self.told(Event::Epoch(report), observe);
            } else {
                running.progress.end_epoch();
            }
        }
    }

    /// Passes an event to the observer. Breaks if the observer of any process breaks.
    fn told(&self, event: Event, observe: &mut dyn FnMut(Event) -> ControlFlow<()>) -> ControlFlow<()> {
        match any(self.reduction, [observe(event).is_break()]) {
            [true] => ControlFlow::Break(()),
            [false] => ControlFlow::Continue(()),
        }
    }

    /// The initial state: the given model, or that of the checkpoint.
    fn start(&self, model: S::Model) -> Result<Running<S::Model>, Error> {
        self.config.check()?;
        check_ranks(self.reduction, self.config.gradient_accumulation_steps)?;
        for (split, rows) in [(Split::Train, self.train.rows()), (Split::Validation, self.validation.rows())] {
            if rows == 0 {
                return Err(Error::Empty { split });
            }
        }
        let (rows, updates) = (self.train.rows(), self.updates());
        let total_steps = self.config.epochs.saturating_mul(updates);
        let config = Fingerprint::default().with_config(self.config);
        let fresh = Progress { rows, config, fingerprint: self.fingerprint.clone(), ..Progress::default() };
        let trainable = &self.config.trainable();
        let expected = Expected { fresh: &fresh, updates, trainable, settings: self.config };
        let State { model, optimizer, average, progress } = if self.resume && self.checkpoints.join(LAST).exists() {
            read_last(self.checkpoints, model, &expected, self.device)?
        } else {
            State { model, optimizer: AdamW::new(trainable.clone()), average: expected.average(), progress: fresh }
        };
        let model = trainable.apply(model.train());
        // One process may have computed features that were cached for the others.
        self.reduction.meet();
        check_weights(self.reduction, &model, trainable, progress.step)?;
        let (saved, checkpoint_seconds) = (Instant::now(), 0.0);
        Ok(Running { model, optimizer, average, progress, total_steps, saved, checkpoint_seconds })
    }

    /// Updates per epoch.
    fn updates(&self) -> usize {
        self.train.rows().div_ceil(self.config.batch_size).div_ceil(self.config.gradient_accumulation_steps)
    }

    /// Makes the remaining updates of the epoch, or those up to the next validation. If the observer breaks, saves a
    /// checkpoint and breaks.
    fn epoch(
        &self,
        mut running: Running<S::Model>,
        observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(Running<S::Model>, ControlFlow<()>), Error> {
        let accumulated = self.config.gradient_accumulation_steps;
        let done = running.progress.updates_in_epoch.saturating_mul(accumulated);
        let mut batches = self.batches(running.progress.epoch).skip(done);
        let mut stopwatch = Stopwatch(Instant::now());
        while !running.progress.out_of_time && !self.is_validation_due(&running.progress) {
            let update: Vec<Vec<usize>> = batches.by_ref().take(accumulated).collect();
            if update.is_empty() {
                break;
            }
            let event;
            (running, event) = self.update(running, update)?;
            running.progress.update_seconds += stopwatch.lap();
            [running.progress.out_of_time] = any(self.reduction, [self.is_out_of_time(&running.progress)]);
            let flow = self.told(event, observe);
            if flow.is_break() || self.is_save_due(&running) {
                self.save(&mut running)?;
            }
            if flow.is_break() {
                return Ok((running, flow));
            }
            running.progress.saving_seconds += stopwatch.lap();
        }
        Ok((running, ControlFlow::Continue(())))
    }

    /// Makes one optimizer update.
    fn update(
        &self,
        running: Running<S::Model>,
        batches: Vec<Vec<usize>>,
    ) -> Result<(Running<S::Model>, Event), Error> {
        let Running { model, mut optimizer, mut average, mut progress, total_steps, saved, checkpoint_seconds } =
            running;
        let learning_rate = self.config.learning_rate_at(progress.step, total_steps);
        let (gradients, loss) = self.gradients(&model, batches, &mut progress);
        let gradient_norm = gradients.norm();
        progress.step += 1;
        progress.updates_in_epoch += 1;
        progress.learning_rate = learning_rate;
        progress.norm_sum += gradient_norm;
        progress.norms += 1;
        let step = progress.step;
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(Error::Diverged { loss, gradient_norm, step, kept: self.kept(&progress) });
        }
        let scale = GradientSum::clip_factor(gradient_norm, self.config.max_grad_norm);
        let model = optimizer.step(model, gradients, learning_rate, scale);
        if step.is_multiple_of(COMPARED_STEPS) {
            check_weights(self.reduction, &model, optimizer.trainable(), step)?;
        }
        if let Some(average) = &mut average {
            average.add(&model, optimizer.trainable());
        }
        let event = Event::Step { step, total_steps, loss, gradient_norm, learning_rate };
        Ok((Running { model, optimizer, average, progress, total_steps, saved, checkpoint_seconds }, event))
    }

    /// Whether the model has to be validated now: after an epoch or every `eval_steps` updates, and at the end.
    fn is_validation_due(&self, progress: &Progress) -> bool {
        let Progress { step, updates_in_epoch, out_of_time, .. } = progress;
        let is_validated = progress.reports.last().is_some_and(|report| report.step == *step);
        let is_end_of_epoch = *updates_in_epoch == self.updates();
        let is_end = is_end_of_epoch && progress.epoch + 1 == self.config.epochs;
        let is_due = match self.config.eval_steps {
            0 => is_end_of_epoch,
            steps => step.is_multiple_of(steps) || is_end,
        };
        *step > 0 && !is_validated && (is_due || *out_of_time)
    }

    /// Writes a checkpoint, if this is the first process.
    fn save(&self, running: &mut Running<S::Model>) -> Result<(), Error> {
        let Running { model, optimizer, average, progress, .. } = running;
        if self.reduction.rank() == 0 {
            write_last(self.checkpoints, model, (optimizer, average.as_ref()), progress)?;
        }
        running.saved = Instant::now();
        Ok(())
    }

    /// Validates in the first process, and sends the resulting progress to the others.
    fn validate(&self, running: &mut Running<S::Model>) -> Result<EpochReport, Error> {
        check_weights(self.reduction, &running.model, &self.config.trainable(), running.progress.step)?;
        if self.reduction.rank() == 0 {
            self.validate_alone(running)?;
        }
        self.reduction.meet();
        running.progress = first_progress(self.reduction, std::mem::take(&mut running.progress));
        Ok(running.progress.reports.last().expect("a validation has a report").clone())
    }

    /// Validates the model, writes it if it is the best so far, and saves a checkpoint.
    fn validate_alone(&self, running: &mut Running<S::Model>) -> Result<(), Error> {
        let Running { model, average, progress, .. } = running;
        let started = Instant::now();
        let plain = match average {
            Some(average) => average.apply(model.valid()),
            None => model.valid(),
        };
        let output = self.validation.output(&plain, self.config.batch_size, self.device);
        let validation = self.validation.report(&output).map_err(|source| Error::DivergedInValidation {
            epoch: progress.epoch + 1,
            kept: self.kept(progress),
            source,
        })?;
        let metric = self.config.metric;
        let score = metric.score(&validation).ok_or_else(|| {
            let known: Vec<_> = validation.named().into_iter().map(|(name, _)| name).collect();
            Error::NoMetric { metric: metric.name(), known: known.join(", ") }
        })?;
        let best = progress.best.is_none_or(|best| score > best.score);
        let (epoch, targets) = (progress.epoch + 1, progress.targets.max(1) as f64);
        let report = EpochReport {
            epoch,
            step: progress.step,
            train_loss: progress.loss_sum / targets,
            train_accuracy: progress.correct.map(|correct| correct as f64 / targets),
            learning_rate: progress.learning_rate,
            gradient_norm: progress.norm_sum / progress.norms.max(1) as f64,
            seconds: progress.update_seconds + progress.saving_seconds + started.elapsed().as_secs_f64(),
            train_seconds: progress.update_seconds,
            best,
            validation: validation.named().into_iter().map(|(name, score)| (name.to_owned(), score)).collect(),
        };
        let validated = Instant::now();
        if best {
            progress.best = Some(Best { epoch, score });
            write_best(self.checkpoints, &plain, &self.config.trainable())?;
        }
        progress.reports.push(report);
        progress.start_counting();
        if progress.updates_in_epoch == self.updates() || progress.out_of_time {
            progress.end_epoch();
        }
        self.save(running)?;
        running.checkpoint_seconds += validated.elapsed().as_secs_f64();
        Ok(())
    }

    fn batches(&self, epoch: usize) -> impl Iterator<Item = Vec<usize>> {
        let rows = self.train.rows();
        let (first, block) = if S::DRAWN { (epoch * rows, self.block_rows()) } else { (0, rows) };
        let starts = (0..rows).step_by(block);
        starts.flat_map(move |start| self.block(epoch, first + start..first + rows.min(start.saturating_add(block))))
    }

    fn block_rows(&self) -> usize {
        self.config.batch_size.saturating_mul(BLOCK_BATCHES)
    }

    /// The batches of a block of consecutive rows.
    fn block(&self, epoch: usize, rows: Range<usize>) -> Vec<Vec<usize>> {
        // The batch size is limited to the size of the block, because `shuffled` multiplies it.
        let batch_size = self.config.batch_size.min(rows.len().max(1));
        let shuffle = Shuffle { batch_size, seed: self.config.seed, epoch: epoch as u64 };
        let mut batches = shuffled(&self.train.lengths(rows.clone()), shuffle);
        batches.iter_mut().flatten().for_each(|row| *row += rows.start);
        batches
    }

    /// The share of padding in the first epoch or, if each epoch has new rows, in the first block.
    fn padding_share(&self) -> f64 {
        let rows = if S::DRAWN { self.train.rows().min(self.block_rows()) } else { self.train.rows() };
        padding_share(&self.train.lengths(0..rows), &self.block(0, 0..rows))
    }

    /// Whether a checkpoint within an epoch is due now.
    fn is_save_due(&self, running: &Running<S::Model>) -> bool {
        let TrainConfig { save_steps, save_minutes, .. } = self.config;
        let after_steps = *save_steps > 0 && running.progress.step.is_multiple_of(*save_steps);
        after_steps || (*save_minutes > 0.0 && running.saved.elapsed().as_secs_f64() >= save_minutes * 60.0)
    }

    fn is_out_of_time(&self, progress: &Progress) -> bool {
        let before: f64 = progress.reports.iter().map(|report| report.seconds).sum();
        let seconds = before + progress.update_seconds + progress.saving_seconds;
        self.config.max_hours > 0.0 && seconds >= self.config.max_hours * 3600.0
    }

    /// The reason to end the training, or none to continue.
    fn end(&self, progress: &Progress) -> Option<End> {
        let patience = self.config.early_stopping_patience;
        // Epochs since the last validation say nothing about improvement.
        let judged = progress.reports.last().map_or(0, |report| report.epoch.min(progress.epoch));
        let is_stalled =
            patience > 0 && progress.best.is_some_and(|best| judged >= best.epoch.saturating_add(patience));
        match () {
            () if progress.epoch >= self.config.epochs => Some(End::Complete),
            // An epoch that the time limit ended is validated first.
            () if progress.out_of_time && !self.is_validation_due(progress) => Some(End::OutOfTime),
            () if is_stalled => Some(End::NoImprovement),
            () => None,
        }
    }

    /// A message about the checkpoints that remain after a failed run.
    fn kept(&self, progress: &Progress) -> String {
        let folder = self.checkpoints.display();
        match progress.best {
            Some(best) => format!("the best epoch so far, {}, is kept in {folder}/best.safetensors", best.epoch),
            None => "there was no validation yet".to_owned(),
        }
    }

    fn fitted(&self, running: Running<S::Model>, end: End) -> Result<Fitted<S::Model>, Error> {
        let Running { model, progress, checkpoint_seconds, .. } = running;
        // No process ends while the first one is still writing.
        self.reduction.meet();
        let mut model = model.valid();
        if progress.best.is_some() && self.reduction.rank() == 0 {
            model = read_best(self.checkpoints, model, &self.config.trainable())?;
        }
        Ok(Fitted {
            model,
            best_epoch: progress.best.map_or(0, |best| best.epoch),
            passes: progress.step as f64 / self.updates() as f64,
            epochs: progress.reports,
            steps: progress.step,
            padding_share: self.padding_share(),
            checkpoint_seconds,
            end,
        })
    }
}
