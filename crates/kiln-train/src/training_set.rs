use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_bert::Bert;
use kiln_heads::SequenceClassifier;
use kiln_predict::{in_batches, inputs};
use kiln_schema::LabelId;
use kiln_tokenize::{Encoding, lengths, pad};

/// What the loop trains and validates on: labelled rows, and the logits that a model gives some of them.
pub trait TrainingSet {
    /// What is trained.
    type Model: Module;

    /// Tokens of each row: what batches are bucketed by and throughput is counted in.
    fn lengths(&self) -> &[usize];

    /// The label of each row.
    fn targets(&self) -> &[LabelId];

    /// # Shapes
    /// - `rows`: `[batch]`, indices
    /// - output: `[batch, num_labels]`
    fn logits(&self, model: &Self::Model, rows: &[usize], device: &Device) -> Tensor<2>;

    /// The encoder in it, if it has one: its part of a backward pass may be left to it.
    fn bert(_model: &Self::Model) -> Option<&Bert> {
        None
    }
}

/// A model's logits for all rows, in their order.
///
/// # Shapes
/// - output: row-major `[rows, num_labels]`
pub fn logits<S: TrainingSet>(set: &S, model: &S::Model, batch_size: usize, device: &Device) -> Vec<f32> {
    in_batches(set.lengths(), batch_size, |rows| set.logits(model, rows, device))
}

/// Encoded texts under a whole model.
#[derive(Clone, Debug)]
pub struct Encoded {
    encodings: Vec<Encoding>,
    lengths: Vec<usize>,
    targets: Vec<LabelId>,
    pad_token_id: u32,
}

impl Encoded {
    /// # Panics
    /// When there is not one target for each encoding.
    pub fn new(encodings: Vec<Encoding>, targets: Vec<LabelId>, pad_token_id: u32) -> Self {
        assert_eq!(encodings.len(), targets.len(), "a target for each encoding");
        Self { lengths: lengths(&encodings), encodings, targets, pad_token_id }
    }

    /// The encodings, in the order of the targets.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// The id that fills the shorter rows of a batch.
    pub fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }
}

impl TrainingSet for Encoded {
    type Model = SequenceClassifier;

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn targets(&self) -> &[LabelId] {
        &self.targets
    }

    fn logits(&self, model: &SequenceClassifier, rows: &[usize], device: &Device) -> Tensor<2> {
        model.forward(inputs(&pad(&self.encodings, rows, self.pad_token_id), device))
    }

    fn bert(model: &SequenceClassifier) -> Option<&Bert> {
        Some(&model.bert)
    }
}
