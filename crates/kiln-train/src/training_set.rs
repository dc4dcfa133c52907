use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_eval::SplitReport;
use kiln_heads::{Calibration, SequenceClassifier, in_batches, inputs};
use kiln_tokenize::{Encoding, lengths, pad};

use crate::{Comparison, LogitSet, Model, Targets};

/// Rows that are batched by their lengths.
pub trait Dataset {
    /// Whether rows are drawn anew in each epoch. They are then numbered on from epoch to epoch and batched a block at a
    /// time, so that memory does not grow with their number.
    const DRAWN: bool = false;

    /// How many rows an epoch has.
    fn rows(&self) -> usize;

    /// The number of tokens of each row in a range: batches are bucketed by it, and throughput is counted in it.
    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]>;

    /// Tokens of an epoch.
    fn tokens(&self) -> usize {
        self.lengths(0..self.rows()).iter().sum()
    }
}

/// Rows that weights are fitted to.
pub trait TrainingSet: Dataset {
    /// The model that is trained.
    type Model: Model;

    /// How many targets a row has: the loss is a mean over them.
    fn weight(&self, _row: usize) -> usize {
        1
    }

    /// The loss of some rows, for the model on a device with autodiff.
    fn loss(&self, model: &Self::Model, rows: &[usize], device: &Device) -> BatchLoss;
}

/// Rows that a model is scored on.
pub trait EvaluationSet<M>: Dataset {
    /// A model's output for all rows.
    type Output;

    /// The output of the model, on a device without autodiff, for all rows.
    fn output(&self, model: &M, batch_size: usize, device: &Device) -> Self::Output;

    /// The report on an output.
    ///
    /// # Errors
    /// When an output is NaN or infinite.
    fn report(&self, output: &Self::Output) -> Result<SplitReport, kiln_eval::Error>;

    /// The calibration that fits an output best; none where it has no probabilities of labels, or is best as it is.
    fn calibration(&self, _output: &Self::Output) -> Option<Calibration> {
        None
    }

    /// The report on an output, also on its probabilities, as a calibration changes them.
    ///
    /// # Errors
    /// As of [`EvaluationSet::report`].
    fn calibrated_report(
        &self,
        output: &Self::Output,
        _calibration: Option<&Calibration>,
    ) -> Result<SplitReport, kiln_eval::Error> {
        self.report(output)
    }
}

/// The loss of a batch.
#[derive(Debug)]
pub struct BatchLoss {
    /// Over all targets of its rows, `[1]`.
    pub sum: Tensor<1>,
    /// How many of them the model is right about; none where there is no right or wrong.
    pub right: Option<usize>,
}

/// Encoded texts under a whole model.
#[derive(Clone, Debug)]
pub struct Encoded {
    encodings: Vec<Encoding>,
    lengths: Vec<usize>,
    /// Of the first encodings.
    targets: Targets,
    pad_token_id: u32,
}

impl Encoded {
    /// # Panics
    /// When there is not one target for each encoding.
    pub fn new(encodings: Vec<Encoding>, targets: Targets, pad_token_id: u32) -> Self {
        assert_eq!(encodings.len(), targets.len(), "a target for each encoding");
        Self { lengths: lengths(&encodings), encodings, targets, pad_token_id }
    }

    /// The same with more encodings, which have no target: only a teacher says something of them.
    pub fn with_unlabelled(self, unlabelled: Vec<Encoding>) -> Self {
        let encodings = [self.encodings, unlabelled].concat();
        Self { lengths: lengths(&encodings), encodings, ..self }
    }

    /// The encodings, in the order of the targets; those without a target come last.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// What a model should say of them.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The id that fills the shorter rows of a batch.
    pub fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }
}

impl Dataset for Encoded {
    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        Cow::Borrowed(&self.lengths[rows])
    }
}

impl TrainingSet for Encoded {
    type Model = SequenceClassifier;

    fn loss(&self, model: &SequenceClassifier, rows: &[usize], device: &Device) -> BatchLoss {
        self.labels_loss(model, self.logits(model, rows, device), rows, device)
    }
}

impl LogitSet for Encoded {
    fn logits(&self, model: &SequenceClassifier, rows: &[usize], device: &Device) -> Tensor<2> {
        model.forward(inputs(&pad(&self.encodings, rows, self.pad_token_id), device))
    }

    /// Rows without a target have no part in it, and where there are some, none is counted as right or wrong.
    fn labels_loss(&self, _: &SequenceClassifier, logits: Tensor<2>, rows: &[usize], device: &Device) -> BatchLoss {
        if self.targets.len() == self.encodings.len() {
            return self.targets.loss(logits, rows, device);
        }
        let labelled: Vec<usize> = (0..rows.len()).filter(|&at| rows[at] < self.targets.len()).collect();
        if labelled.is_empty() {
            return BatchLoss { sum: Tensor::zeros([1], device), right: None };
        }
        let (places, count) = (labelled.iter().map(|&at| at as i32).collect::<Vec<_>>(), labelled.len());
        let logits = logits.select(0, Tensor::<1, Int>::from_data(TensorData::new(places, [count]), device));
        let rows: Vec<usize> = labelled.into_iter().map(|at| rows[at]).collect();
        BatchLoss { right: None, ..self.targets.loss(logits, &rows, device) }
    }

    fn logits_shape(&self, _row: usize) -> [usize; 2] {
        [1, self.targets.num_labels()]
    }

    fn logit_tokens(&self, _row: usize) -> Vec<usize> {
        Vec::new()
    }

    fn comparison(&self) -> Comparison {
        match self.targets {
            Targets::Labels(..) | Targets::LabelsWithLoss(..) => Comparison::Softmax,
            Targets::LabelSets(..) => Comparison::Sigmoid,
            Targets::Numbers(_) => Comparison::Number,
        }
    }

    fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }
}

impl EvaluationSet<SequenceClassifier> for Encoded {
    /// Logits, row-major `[rows, num_labels]`.
    type Output = Vec<f32>;

    fn output(&self, model: &SequenceClassifier, batch_size: usize, device: &Device) -> Vec<f32> {
        in_batches(&self.lengths, batch_size, |rows| self.logits(model, rows, device))
    }

    fn report(&self, logits: &Vec<f32>) -> Result<SplitReport, kiln_eval::Error> {
        self.targets.report(logits)
    }

    fn calibration(&self, logits: &Vec<f32>) -> Option<Calibration> {
        self.targets.calibration(logits)
    }

    fn calibrated_report(
        &self,
        logits: &Vec<f32>,
        calibration: Option<&Calibration>,
    ) -> Result<SplitReport, kiln_eval::Error> {
        self.targets.calibrated_report(logits, calibration)
    }
}
