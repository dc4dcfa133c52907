use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_kernels::{Activation, Products};

use crate::{BertConfig, Linear};

/// `tanh(dense(first token))`, trained on next-sentence prediction.
#[derive(Module, Debug)]
pub struct BertPooler {
    /// `[hidden, hidden]`
    pub dense: Linear,
}

impl BertPooler {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        Self { dense: config.init_linear(config.hidden_size, config.hidden_size, device) }
    }

    /// # Shapes
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - output, `pooled_output`: `[batch, hidden]`
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<2> {
        let [batch, _, hidden] = hidden_states.dims();
        let first = hidden_states.slice([0..batch, 0..1, 0..hidden]).squeeze_dim::<2>(1);
        self.dense.activated(first, Activation::Tanh, &Products::default())
    }
}
