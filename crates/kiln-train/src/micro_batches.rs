use std::cmp::Reverse;

use crate::adversarial::adversary;
use crate::checkpoint::Progress;
use crate::gradients::Take;
use crate::ranks::numbers;
use crate::shared_sum::SharedSum;
use crate::{BatchLoss, EvaluationSet, Fit, GradientSum, Model, TrainingSet};

/// A batch of an update.
struct MicroBatch<'a> {
    rows: &'a [usize],
    /// The random seed of dropout.
    seed: u64,
    /// The number of targets in the whole update.
    targets: usize,
}

/// The result of the forward pass of a batch.
#[derive(Clone, Copy, Default)]
struct Outcome {
    loss_sum: f64,
    right: Option<usize>,
}

impl<S: TrainingSet, V: EvaluationSet<S::Model>> Fit<'_, S, V> {
    /// The gradients of the mean loss over all targets of an update, and that loss.
    ///
    /// The processes take the batches in turn, the longest first, so that the batches of a round take about the same time.
    /// Gradients and losses are added in this order, which does not depend on the number of processes.
    pub(crate) fn gradients(
        &self,
        model: &S::Model,
        mut batches: Vec<Vec<usize>>,
        progress: &mut Progress,
    ) -> (GradientSum, f64) {
        let (rank, ranks) = (self.reduction.rank(), self.reduction.ranks());
        if batches.len() > 1 {
            batches.sort_by_cached_key(|rows| Reverse(self.tokens(rows)));
        }
        let seed = stream(self.config.seed, progress.step as u64);
        let targets = self.targets(&batches);
        let mut sum = SharedSum::new(self.reduction, self.config.reduce, model, &self.config.trainable());
        let mut loss_sum = 0.0;
        for (round, batches) in batches.chunks(ranks).enumerate() {
            let mine = batches.get(rank).map(|rows| {
                let at = (round * ranks + rank) as u64;
                // The first batch of an update has the seed of the step.
                let seed = if at == 0 { seed } else { stream(seed, at) };
                let batch = MicroBatch { rows, seed, targets };
                self.micro_batch(model, &batch, &mut |name, gradient| sum.add(name, gradient))
            });
            sum.end_round();
            for Outcome { loss_sum: of_batch, right } in self.outcomes(mine).into_iter().take(batches.len()) {
                loss_sum += of_batch;
                if let Some(right) = right {
                    *progress.correct.get_or_insert(0) += right;
                }
            }
        }
        progress.loss_sum += loss_sum;
        progress.targets += targets;
        (sum.finish(self.device), loss_sum / targets.max(1) as f64)
    }

    /// Computes the loss of a batch, and passes its gradients to `take`.
    fn micro_batch(&self, model: &S::Model, batch: &MicroBatch<'_>, take: Take<'_>) -> Outcome {
        let device = self.device.clone().autodiff();
        device.seed(batch.seed);
        let targets = batch.targets.max(1) as f64;
        let BatchLoss { sum, right } = self.train.loss(model, batch.rows, &device);
        let outcome = Outcome { loss_sum: sum.clone().inner().into_scalar::<f64>(), right };
        if self.config.fgm == 0.0 {
            model.gradients(sum / targets, take);
            return outcome;
        }
        let mut of_batch = GradientSum::default();
        model.gradients(sum / targets, &mut |name, gradient| of_batch.insert(name, gradient));
        if let Some(adversary) = adversary(model, &of_batch, self.config.fgm) {
            let loss = self.train.loss(&adversary, batch.rows, &device).sum / targets;
            adversary.gradients(loss, &mut |name, gradient| of_batch.insert(name, gradient));
        }
        of_batch.into_each().for_each(|(name, gradient)| take(name, gradient));
        outcome
    }

    /// The number of tokens of a batch, including padding.
    fn tokens(&self, rows: &[usize]) -> usize {
        let longest = rows.iter().map(|&row| self.train.lengths(row..row + 1)[0]).max();
        longest.unwrap_or(0) * rows.len()
    }

    /// The number of targets of an update. Each process counts those of its own share of the batches.
    fn targets(&self, batches: &[Vec<usize>]) -> usize {
        let mine = batches.iter().skip(self.reduction.rank()).step_by(self.reduction.ranks());
        let mine: usize = mine.flatten().map(|&row| self.train.weight(row)).sum();
        match self.reduction.ranks() {
            1 => mine,
            _ => numbers(self.reduction, [mine as u64]).iter().map(|[targets]| *targets as usize).sum(),
        }
    }

    /// The outcomes of a round, by rank.
    fn outcomes(&self, mine: Option<Outcome>) -> Vec<Outcome> {
        let mine = mine.unwrap_or_default();
        if self.reduction.ranks() == 1 {
            return vec![mine];
        }
        let right = mine.right.map_or([0, 0], |right| [1, right as u64]);
        numbers(self.reduction, [mine.loss_sum.to_bits(), right[0], right[1]])
            .into_iter()
            .map(|[loss_sum, is_known, right]| Outcome {
                loss_sum: f64::from_bits(loss_sum),
                right: (is_known == 1).then_some(right as usize),
            })
            .collect()
    }
}

/// The seed for a number, such as a step of a run, by SplitMix64 (Steele et al., 2014).
fn stream(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
