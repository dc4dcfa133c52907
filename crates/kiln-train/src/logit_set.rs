use burn::tensor::{Device, Tensor};
use kiln_tokenize::Encoding;

use crate::{BatchLoss, EncoderModel, TrainingSet};

/// A training set whose loss is computed from logits, so that they can be compared with those of another model.
///
/// The logits of a batch are one matrix. Each row of the set has one or more consecutive rows in it, as many and as wide as
/// given by [`LogitSet::logits_shape`]. The remaining columns are padding with large negative numbers.
pub trait LogitSet: TrainingSet<Model: EncoderModel> {
    /// A model's logits for the given rows.
    ///
    /// # Shapes
    /// - output: `[logit rows of all rows, the largest width]`
    fn logits(&self, model: &Self::Model, rows: &[usize], device: &Device) -> Tensor<2>;

    /// The loss on the labels: [`TrainingSet::loss`], given the logits.
    fn labels_loss(&self, model: &Self::Model, logits: Tensor<2>, rows: &[usize], device: &Device) -> BatchLoss;

    /// The number of logit rows of a row, and the width of each.
    fn logits_shape(&self, row: usize) -> [usize; 2];

    /// The positions of the tokens that a row's logits belong to; empty if the logits belong to the whole row.
    fn logit_tokens(&self, row: usize) -> Vec<usize>;

    /// How the logits of two models are compared.
    fn comparison(&self) -> Comparison;

    /// The encoded text of each row.
    fn encodings(&self) -> &[Encoding];
}

/// How the logits of two models are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Kullback–Leibler divergence of the softmaxes, for exactly one correct label.
    Softmax,
    /// Kullback–Leibler divergence of the sigmoids, for any number of correct labels.
    Sigmoid,
    /// Squared error, for numbers.
    Number,
}
