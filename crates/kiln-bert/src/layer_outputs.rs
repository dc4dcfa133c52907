use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

/// Stores the hidden states of all layers of a forward pass, for a loss that reads more than the last layer. The last
/// layer then computes all positions, whatever the head reads.
///
/// Clones share the stored states: those of the last forward pass, until they are taken.
#[derive(Clone, Debug)]
pub struct LayerOutputs {
    kept: Arc<Mutex<Vec<Tensor<3>>>>,
    training_alone: bool,
}

impl LayerOutputs {
    /// Stores the states of every forward pass.
    pub fn of_every_pass() -> Self {
        Self { kept: Arc::default(), training_alone: false }
    }

    /// Stores the states of forward passes under autodiff. Other forward passes compute nothing extra.
    pub fn of_training() -> Self {
        Self { training_alone: true, ..Self::of_every_pass() }
    }

    /// Takes the hidden states of the last forward pass: the input of the first layer, then the output of each layer.
    ///
    /// # Shapes
    /// - output: `[batch, seq, hidden]` each, one more than there are layers
    pub fn take(&self) -> Vec<Tensor<3>> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the states of a forward pass with these embeddings are stored.
    pub(crate) fn keeps(&self, embedded: &Tensor<3>) -> bool {
        !self.training_alone || embedded.is_autodiff()
    }

    pub(crate) fn keep(&self, states: Vec<Tensor<3>>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }
}
