use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

/// Keeps the hidden states of all layers of a forward pass, for a loss that reads more than the last layer's. The last layer
/// then computes every position, whatever the head reads.
///
/// Clones share what is kept: that of the last forward pass, until it is taken.
#[derive(Clone, Debug)]
pub struct LayerOutputs {
    kept: Arc<Mutex<Vec<Tensor<3>>>>,
    training_alone: bool,
}

impl LayerOutputs {
    /// Keeps those of every forward pass.
    pub fn of_every_pass() -> Self {
        Self { kept: Arc::default(), training_alone: false }
    }

    /// Keeps those of forward passes under autodiff; the others compute no more than without it.
    pub fn of_training() -> Self {
        Self { training_alone: true, ..Self::of_every_pass() }
    }

    /// The hidden states of the last forward pass: those that the first layer reads, then what each layer gives.
    ///
    /// # Shapes
    /// - output: `[batch, seq, hidden]` each, one more than there are layers
    pub fn take(&self) -> Vec<Tensor<3>> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a forward pass that begins with these hidden states is kept.
    pub(crate) fn keeps(&self, embedded: &Tensor<3>) -> bool {
        !self.training_alone || embedded.is_autodiff()
    }

    pub(crate) fn keep(&self, states: Vec<Tensor<3>>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }
}
