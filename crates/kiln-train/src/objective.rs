use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use kiln_eval::SplitReport;
use kiln_heads::{
    Calibration, sigmoid_disagreement_sum, sigmoid_divergence_sum, softmax_disagreement_sum, softmax_divergence_sum,
    squared_error_sum,
};

use crate::teacher::Lesson;
use crate::{BatchLoss, Comparison, Dataset, EncoderModel, EvaluationSet, LogitSet, TeacherOutputs, TrainingSet};

/// A training set whose loss has further terms: distillation, R-Drop or both. Evaluation uses the set without them.
#[derive(Debug)]
pub struct Objective<S> {
    set: S,
    distillation: Option<Distillation>,
    r_drop: f64,
}

/// Distillation from a teacher, with the loss `alpha · labels + (1 − alpha) · (logits + layers)`.
#[derive(Debug)]
pub struct Distillation {
    /// The teacher's outputs for the rows.
    pub outputs: TeacherOutputs,
    /// The temperature by which the logits of both models are divided, before the softmax or sigmoid.
    pub temperature: f64,
    /// The weight of the loss on the labels.
    pub alpha: f64,
}

impl<S> Objective<S> {
    /// The loss on the labels, without further terms.
    pub fn new(set: S) -> Self {
        Self { set, distillation: None, r_drop: 0.0 }
    }

    /// Adds distillation from a teacher.
    pub fn with_distillation(self, distillation: Distillation) -> Self {
        Self { distillation: Some(distillation), ..self }
    }

    /// Adds R-Drop, as in the code of its authors: two forward passes of each row with different dropout. The loss is the
    /// mean of both losses plus `alpha` times the disagreement of the two outputs. 0 = off.
    pub fn with_r_drop(self, alpha: f64) -> Self {
        Self { r_drop: alpha, ..self }
    }

    /// The set without the further terms.
    pub fn set(&self) -> &S {
        &self.set
    }
}

impl<S: Dataset> Dataset for Objective<S> {
    const DRAWN: bool = S::DRAWN;

    fn rows(&self) -> usize {
        self.set.rows()
    }

    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        self.set.lengths(rows)
    }

    fn tokens(&self) -> usize {
        self.set.tokens()
    }
}

impl<S: LogitSet> TrainingSet for Objective<S> {
    type Model = S::Model;

    fn weight(&self, row: usize) -> usize {
        self.set.weight(row)
    }

    fn loss(&self, model: &S::Model, rows: &[usize], device: &Device) -> BatchLoss {
        if self.r_drop > 0.0 {
            return self.twofold_loss(model, rows, device);
        }
        let Some(distillation) = &self.distillation else { return self.set.loss(model, rows, device) };
        let logits = self.set.logits(model, rows, device);
        let BatchLoss { sum, right } = self.set.labels_loss(model, logits.clone(), rows, device);
        let of_teacher = distillation.loss(&self.set, model, logits, rows, device);
        BatchLoss { sum: distillation.weighed(sum, of_teacher), right }
    }
}

impl<S: LogitSet> Objective<S> {
    /// The loss with R-Drop. The two forward passes are computed as one, over a batch that has each row twice.
    fn twofold_loss(&self, model: &S::Model, rows: &[usize], device: &Device) -> BatchLoss {
        let twice = [rows, rows].concat();
        let logits = self.set.logits(model, &twice, device);
        let [logit_rows, _] = logits.dims();
        let half = logit_rows / 2;
        let halves = [0, half].map(|first| logits.clone().narrow(0, first, half));
        let [first, second] = halves.clone().map(|logits| self.set.labels_loss(model, logits, rows, device));
        let sum = (first.sum + second.sum) / 2.0;
        let sum = match &self.distillation {
            Some(distillation) => {
                let of_teacher = distillation.loss(&self.set, model, logits, &twice, device) / 2.0;
                distillation.weighed(sum, of_teacher)
            }
            None => sum,
        };
        let [a, b] = halves;
        let disagreement = match self.set.comparison() {
            Comparison::Softmax => softmax_disagreement_sum(a, b),
            Comparison::Sigmoid => sigmoid_disagreement_sum(a, b),
            Comparison::Number => squared_error_sum(a, b),
        };
        let weight: usize = rows.iter().map(|&row| self.set.weight(row)).sum();
        let share = weight as f64 / half.max(1) as f64;
        BatchLoss { sum: sum + disagreement * (share * self.r_drop), right: first.right }
    }
}

impl<M, S: EvaluationSet<M>> EvaluationSet<M> for Objective<S> {
    type Output = S::Output;

    fn output(&self, model: &M, batch_size: usize, device: &Device) -> S::Output {
        self.set.output(model, batch_size, device)
    }

    fn report(&self, output: &S::Output) -> Result<SplitReport, kiln_eval::Error> {
        self.set.report(output)
    }

    fn calibration(&self, output: &S::Output) -> Option<Calibration> {
        self.set.calibration(output)
    }

    fn calibrated_report(
        &self,
        output: &S::Output,
        calibration: Option<&Calibration>,
    ) -> Result<SplitReport, kiln_eval::Error> {
        self.set.calibrated_report(output, calibration)
    }
}

impl Distillation {
    fn weighed(&self, labels: Tensor<1>, teacher: Tensor<1>) -> Tensor<1> {
        labels * self.alpha + teacher * (1.0 - self.alpha)
    }

    /// The loss between teacher and student, summed over the targets of the given rows.
    fn loss<S: LogitSet>(
        &self,
        set: &S,
        model: &S::Model,
        logits: Tensor<2>,
        rows: &[usize],
        device: &Device,
    ) -> Tensor<1> {
        let lesson = self.outputs.lesson(rows, device);
        let weights: Vec<usize> = rows.iter().map(|&row| set.weight(row)).collect();
        let [logit_rows, _] = logits.dims();
        // The losses are sums over rows of logits. A question has two of these but is one target.
        let share = weights.iter().sum::<usize>() as f64 / logit_rows.max(1) as f64;
        let Lesson { logits: teacher, states } = lesson;
        let of_logits = match set.comparison() {
            Comparison::Softmax => softmax_divergence_sum(logits, teacher, self.temperature),
            Comparison::Sigmoid => sigmoid_divergence_sum(logits, teacher, self.temperature),
            Comparison::Number => squared_error_sum(logits, teacher),
        } * share;
        let Some(matching) = self.outputs.matching() else { return of_logits };
        let bert = model.bert();
        let kept = bert.layer_outputs.as_ref().expect("a student that is matched keeps its layers' outputs");
        let student = matching.of_student(bert, &kept.take());
        let seq = student.first().map_or(0, |states| states.dims()[1]);
        let weights = token_weights(set, rows, &weights, seq);
        let weights = Tensor::from_data(TensorData::new(weights, [rows.len(), seq]), device);
        match matching.loss_sum(student, states, weights) {
            Some(of_layers) => of_logits + of_layers,
            None => of_logits,
        }
    }
}

/// The weight of each row, divided evenly among its tokens: row-major `[batch, seq]`, 0 where a position is padding.
fn token_weights<S: LogitSet>(set: &S, rows: &[usize], weights: &[usize], seq: usize) -> Vec<f32> {
    let of_row = |(&row, &weight): (&usize, &usize)| {
        let tokens = set.encodings()[row].input_ids.len();
        let of_token = weight as f32 / tokens as f32;
        (0..seq).map(move |token| if token < tokens { of_token } else { 0.0 })
    };
    rows.iter().zip(weights).flat_map(of_row).collect()
}
