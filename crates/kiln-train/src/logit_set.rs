use burn::tensor::{Device, Tensor};
use kiln_tokenize::Encoding;

use crate::{BatchLoss, EncoderModel, TrainingSet};

/// A training set whose loss is one of logits, so that another model's logits can be held against them.
///
/// The logits of a batch are one matrix. Each row of the set has some neighbouring rows of it, and in each of these as many
/// numbers as [`LogitSet::logits_shape`] says; what is behind them is padding, as good as −∞.
pub trait LogitSet: TrainingSet<Model: EncoderModel> {
    /// A model's logits for some rows.
    ///
    /// # Shapes
    /// - output: `[logit rows of all rows, the most numbers of one]`
    fn logits(&self, model: &Self::Model, rows: &[usize], device: &Device) -> Tensor<2>;

    /// The loss of the labels: [`TrainingSet::loss`] of logits that are known.
    fn labels_loss(&self, model: &Self::Model, logits: Tensor<2>, rows: &[usize], device: &Device) -> BatchLoss;

    /// How many rows of logits a row has, and how many numbers each of them.
    fn logits_shape(&self, row: usize) -> [usize; 2];

    /// The tokens of a row that its logits are of; empty where they are of the row as a whole.
    fn logit_tokens(&self, row: usize) -> Vec<usize>;

    /// How two models' logits are compared.
    fn comparison(&self) -> Comparison;

    /// What the encoder reads of each row.
    fn encodings(&self) -> &[Encoding];
}

/// How two models' logits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// As probabilities of which one is right: the divergence of softmaxes.
    Softmax,
    /// As probabilities that each is right: the divergence of sigmoids.
    Sigmoid,
    /// As numbers: squared error.
    Number,
}
