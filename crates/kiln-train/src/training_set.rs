use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_eval::SplitReport;
use kiln_heads::{Calibration, SequenceClassifier, in_batches, inputs};
use kiln_tokenize::{Encoding, lengths, pad};

use crate::{Comparison, LogitSet, Model, Targets};

/// A data set whose rows are batched by length.
pub trait Dataset {
    /// Whether each epoch has new rows. The row numbers then continue from epoch to epoch, and rows are batched in blocks,
    /// so that memory use does not grow with the number of rows.
    const DRAWN: bool = false;

    /// Rows per epoch.
    fn rows(&self) -> usize;

    /// The number of tokens of each row in a range. Rows of similar length share a batch.
    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]>;

    /// Tokens per epoch.
    fn tokens(&self) -> usize {
        self.lengths(0..self.rows()).iter().sum()
    }
}

/// A data set that a model is trained on.
pub trait TrainingSet: Dataset {
    /// The model to train.
    type Model: Model;

    /// The number of targets in a row. The loss of an update is the mean over its targets.
    fn weight(&self, _row: usize) -> usize {
        1
    }

    /// The loss of the given rows, summed over their targets. `device` has autodiff.
    fn loss(&self, model: &Self::Model, rows: &[usize], device: &Device) -> BatchLoss;
}

/// A data set that a model is evaluated on.
pub trait EvaluationSet<M>: Dataset {
    /// The output of a model for all rows.
    type Output;

    /// Runs the model on all rows. `device` has no autodiff.
    fn output(&self, model: &M, batch_size: usize, device: &Device) -> Self::Output;

    /// Scores an output.
    ///
    /// # Errors
    /// When an output is NaN or infinite.
    fn report(&self, output: &Self::Output) -> Result<SplitReport, kiln_eval::Error>;

    /// The calibration that fits an output best. None if the output has no label probabilities, or if no calibration
    /// improves them.
    fn calibration(&self, _output: &Self::Output) -> Option<Calibration> {
        None
    }

    /// Scores an output, including how well its probabilities are calibrated before and after the given calibration.
    ///
    /// # Errors
    /// The same as [`EvaluationSet::report`].
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
    /// The sum of the losses of all targets, `[1]`.
    pub sum: Tensor<1>,
    /// The number of correctly predicted targets; none if predictions are not simply correct or wrong, or are not counted.
    pub right: Option<usize>,
}

/// Encoded texts with targets, for training and evaluating a whole [`SequenceClassifier`].
#[derive(Clone, Debug)]
pub struct Encoded {
    encodings: Vec<Encoding>,
    lengths: Vec<usize>,
    /// The targets of the first `targets.len()` encodings.
    targets: Targets,
    pad_token_id: u32,
}

impl Encoded {
    /// Encodings with one target each.
    ///
    /// # Panics
    /// When there is not one target for each encoding.
    pub fn new(encodings: Vec<Encoding>, targets: Targets, pad_token_id: u32) -> Self {
        assert_eq!(encodings.len(), targets.len(), "a target for each encoding");
        Self { lengths: lengths(&encodings), encodings, targets, pad_token_id }
    }

    /// Adds encodings without targets, which only a teacher labels.
    pub fn with_unlabelled(self, unlabelled: Vec<Encoding>) -> Self {
        let encodings = [self.encodings, unlabelled].concat();
        Self { lengths: lengths(&encodings), encodings, ..self }
    }

    /// The encodings, in the order of the targets; those without a target come last.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// The targets of the first encodings.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The token id that pads the shorter rows of a batch.
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

    /// Rows without a target do not contribute to the loss. If the set has such rows, correct predictions are not counted.
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
