use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use kiln_schema::Split;
use kiln_tokenize::{Shuffle, padding_share, shuffled};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Progress, read_best, read_last, write_best, write_last};
use crate::{AdamW, BatchLoss, Error, GradientSum, TrainConfig, TrainingSet};

/// A training to be run: the data, the settings, and where checkpoints go.
#[derive(Debug)]
pub struct Fit<'a, S> {
    /// What weights are fitted to.
    pub train: &'a S,
    /// What picks the best checkpoint, after each epoch.
    pub validation: &'a S,
    /// How to train.
    pub config: &'a TrainConfig,
    /// Where to compute. Autodiff is turned on for the updates alone.
    pub device: &'a Device,
    /// A folder that exists; it gets `best.safetensors` and `last.safetensors`.
    pub checkpoints: &'a Path,
    /// Whether to go on from `last.safetensors`.
    pub resume: bool,
}

/// What the loop tells while it runs. Breaking at a step saves it all and ends the training.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An update was made.
    Step {
        /// Updates made, this one included.
        step: usize,
        /// Updates there will be.
        total_steps: usize,
        /// Mean loss of its rows, before the update.
        loss: f64,
        /// Global norm of the gradient, before clipping.
        gradient_norm: f64,
        /// The rate of the update.
        learning_rate: f64,
    },
    /// An epoch was validated.
    Epoch(EpochReport),
}

/// How an epoch went: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// From 1.
    pub epoch: usize,
    /// Mean loss of the training rows, each before the update it was part of, with dropout.
    pub train_loss: f64,
    /// Share of their targets that were right, where there is right and wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_accuracy: Option<f64>,
    /// The numbers of the validation split, by the names that they have in a report.
    pub validation: BTreeMap<String, f64>,
    /// The rate of the epoch's last update.
    pub learning_rate: f64,
    /// Wall time, validation included.
    pub seconds: f64,
    /// Wall time of the updates alone.
    pub train_seconds: f64,
    /// Whether it is the best so far.
    pub best: bool,
}

/// A training that ended.
#[derive(Clone, Debug)]
pub struct Fitted<M> {
    /// The best checkpoint's model, without autodiff.
    pub model: M,
    /// Its epoch, from 1; 0 when the training was interrupted before the first validation.
    pub best_epoch: usize,
    /// One for each epoch.
    pub epochs: Vec<EpochReport>,
    /// Updates made.
    pub steps: usize,
    /// Share of padding among the tokens of the first epoch's batches.
    pub padding_share: f64,
    /// Whether it was ended by the observer; `last.safetensors` is where it stopped.
    pub interrupted: bool,
}

/// Drawn rows that are batched together: enough for rows to meet others of their length.
const BLOCK_BATCHES: usize = 64;

impl<S: TrainingSet> Fit<'_, S> {
    /// Trains, validates after each epoch, and returns the best epoch's model.
    ///
    /// Batches follow from the seed and the epoch, dropout from the seed and the step: the same run gives the same
    /// weights, and a resumed one those of one that was never interrupted.
    ///
    /// # Errors
    /// When a split is empty, the loss diverges, or a checkpoint cannot be written or read.
    pub fn run(
        &self,
        model: S::Model,
        observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Fitted<S::Model>, Error> {
        let config = self.config;
        for (split, set) in [(Split::Train, self.train), (Split::Validation, self.validation)] {
            if set.rows() == 0 {
                return Err(Error::Empty { split });
            }
        }
        let rows = self.train.rows();
        let batches_an_epoch = rows.div_ceil(config.batch_size);
        let total_steps = config.epochs * batches_an_epoch.div_ceil(config.gradient_accumulation_steps);
        let fingerprint = format!("{config:?} on {rows} rows");

        let (model, mut optimizer, mut progress) = if self.resume {
            read_last(self.checkpoints, model, config.weight_decay, &fingerprint, self.device)?
        } else {
            (model, AdamW::new(config.weight_decay), Progress { fingerprint, ..Progress::default() })
        };
        let mut model = model.train();
        while progress.epoch < config.epochs && !self.is_stalled(&progress) {
            let started = Instant::now();
            let mut learning_rate = 0.0;
            let accumulated = config.gradient_accumulation_steps;
            let mut batches = self.batches(progress.epoch).skip(progress.updates_in_epoch * accumulated);
            loop {
                let update: Vec<Vec<usize>> = batches.by_ref().take(accumulated).collect();
                if update.is_empty() {
                    break;
                }
                learning_rate = config.learning_rate_at(progress.step, total_steps);
                let (gradients, loss) = self.gradients(&model, &update, &mut progress);
                let gradient_norm = gradients.norm();
                progress.step += 1;
                progress.updates_in_epoch += 1;
                if !loss.is_finite() || !gradient_norm.is_finite() {
                    return Err(Error::Diverged { loss, step: progress.step });
                }
                let scale = GradientSum::clip_factor(gradient_norm, config.max_grad_norm);
                model = optimizer.step(model, gradients, learning_rate, scale);
                let step = Event::Step { step: progress.step, total_steps, loss, gradient_norm, learning_rate };
                if observe(step).is_break() {
                    write_last(self.checkpoints, &model, &optimizer, &progress)?;
                    return self.fitted(model, progress, true);
                }
            }
            let train_seconds = started.elapsed().as_secs_f64();
            let plain = model.valid();
            let output = self.validation.output(&plain, config.batch_size, self.device);
            let validation = self.validation.report(&output)?;
            let names = || validation.named().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            let score = config
                .metric
                .score(&validation)
                .ok_or_else(|| Error::NoMetric { metric: config.metric.name(), known: names().join(", ") })?;
            let best = progress.best.is_none_or(|(_, best)| score > best);
            let report = EpochReport {
                epoch: progress.epoch + 1,
                train_loss: progress.loss_sum / progress.rows as f64,
                train_accuracy: progress.correct.map(|correct| correct as f64 / progress.rows as f64),
                validation: validation.named().into_iter().map(|(name, score)| (name.to_owned(), score)).collect(),
                learning_rate,
                seconds: started.elapsed().as_secs_f64(),
                train_seconds,
                best,
            };
            if best {
                progress.best = Some((report.epoch, score));
                write_best(self.checkpoints, &plain)?;
            }
            progress.reports.push(report.clone());
            progress = Progress {
                epoch: progress.epoch + 1,
                updates_in_epoch: 0,
                loss_sum: 0.0,
                correct: None,
                rows: 0,
                ..progress
            };
            write_last(self.checkpoints, &model, &optimizer, &progress)?;
            if observe(Event::Epoch(report)).is_break() {
                return self.fitted(model, progress, true);
            }
        }
        self.fitted(model, progress, false)
    }

    fn batches(&self, epoch: usize) -> impl Iterator<Item = Vec<usize>> {
        let rows = self.train.rows();
        let (first, block) = if S::DRAWN { (epoch * rows, self.block_rows()) } else { (0, rows) };
        let starts = (0..rows).step_by(block);
        starts.flat_map(move |start| self.block(epoch, first + start..first + rows.min(start + block)))
    }

    fn block_rows(&self) -> usize {
        BLOCK_BATCHES * self.config.batch_size
    }

    /// Batches of neighbouring rows.
    fn block(&self, epoch: usize, rows: Range<usize>) -> Vec<Vec<usize>> {
        let shuffle = Shuffle { batch_size: self.config.batch_size, seed: self.config.seed, epoch: epoch as u64 };
        let mut batches = shuffled(&self.train.lengths(rows.clone()), shuffle);
        batches.iter_mut().flatten().for_each(|row| *row += rows.start);
        batches
    }

    /// The share of padding in the first epoch, or in the first block of rows that are drawn.
    fn padding_share(&self) -> f64 {
        let rows = if S::DRAWN { self.train.rows().min(self.block_rows()) } else { self.train.rows() };
        padding_share(&self.train.lengths(0..rows), &self.block(0, 0..rows))
    }

    /// The gradient of the mean loss over all targets of an update's batches, and that loss.
    fn gradients(&self, model: &S::Model, batches: &[Vec<usize>], progress: &mut Progress) -> (GradientSum, f64) {
        let device = self.device.clone().autodiff();
        device.seed(stream(self.config.seed, progress.step as u64));
        let targets: usize = batches.iter().flatten().map(|&row| self.train.weight(row)).sum();
        let mut gradients = GradientSum::default();
        let mut loss_sum = 0.0;
        for batch in batches {
            let BatchLoss { sum, right } = self.train.loss(model, batch, &device);
            if let Some(right) = right {
                *progress.correct.get_or_insert(0) += right;
            }
            loss_sum += sum.clone().inner().into_scalar::<f64>();
            let of_loss = (sum / targets.max(1) as f64).backward();
            if let Some(bert) = S::bert(model) {
                bert.backward(&of_loss, |of_layer| gradients.add(model, of_layer));
            }
            gradients.add(model, of_loss);
        }
        progress.loss_sum += loss_sum;
        progress.rows += targets;
        (gradients, loss_sum / targets.max(1) as f64)
    }

    /// Whether the metric has not improved for as many epochs as one was willing to wait.
    fn is_stalled(&self, progress: &Progress) -> bool {
        let patience = self.config.early_stopping_patience;
        patience > 0 && progress.best.is_some_and(|(best_epoch, _)| progress.epoch >= best_epoch + patience)
    }

    fn fitted(&self, model: S::Model, progress: Progress, interrupted: bool) -> Result<Fitted<S::Model>, Error> {
        let model = model.valid();
        let model = if progress.best.is_some() { read_best(self.checkpoints, model)? } else { model };
        Ok(Fitted {
            model,
            best_epoch: progress.best.map_or(0, |(epoch, _)| epoch),
            epochs: progress.reports,
            steps: progress.step,
            padding_share: self.padding_share(),
            interrupted,
        })
    }
}

/// A seed for each step of a run: SplitMix64 (Steele et al., 2014).
fn stream(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
