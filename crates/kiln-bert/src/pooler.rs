use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use kiln_kernels::{Activation, Products};

use crate::family::SentenceHead;
use crate::{BertConfig, Linear};

/// `activation(dense(first token))`: BERT's pooler, trained on next-sentence prediction, or in families without one the layer
/// in its place, which transformers counts as part of the head.
#[derive(Module, Debug)]
pub struct BertPooler {
    /// `[hidden, hidden]`
    pub dense: Linear,
    dropout: Dropout,
    /// Whether its weights are no checkpoint's.
    #[module(skip)]
    pub is_fresh: bool,
    #[module(skip)]
    activation: Activation,
}

impl BertPooler {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        let (activation, has_dropout) = match config.family().sentence_head {
            SentenceHead::Pooler => (Activation::Tanh, false),
            SentenceHead::Own { activation, has_dropout, .. } => (activation, has_dropout),
        };
        let dropout = if has_dropout { config.classifier_dropout() } else { 0.0 };
        Self {
            dense: config.init_linear(config.hidden_size, config.hidden_size, device),
            dropout: DropoutConfig::new(dropout).init(),
            is_fresh: true,
            activation,
        }
    }

    /// # Shapes
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - output, `pooled_output`: `[batch, hidden]`
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<2> {
        let [batch, _, hidden] = hidden_states.dims();
        let first = hidden_states.slice([0..batch, 0..1, 0..hidden]).squeeze_dim::<2>(1);
        self.dense.activated(self.dropout.forward(first), self.activation, &Products::default())
    }
}
