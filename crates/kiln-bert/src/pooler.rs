use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm};
use burn::tensor::{Device, Tensor};
use kiln_kernels::{Activation, Products};

use crate::family::SentenceHead;
use crate::{BertConfig, Linear};

/// `activation(dense(x))` of a pooled vector: BERT's pooler, trained on next-sentence prediction. In families without a
/// pooler it is the corresponding part of transformers' sentence-level head. ModernBERT's token-level heads also have it.
#[derive(Module, Debug)]
pub struct BertPooler {
    /// `[hidden, hidden]`
    pub dense: Linear,
    /// Normalization after the activation, in ModernBERT.
    pub layer_norm: Option<LayerNorm>,
    dropout: Dropout,
    /// Whether its weights are fresh, not from a checkpoint.
    #[module(skip)]
    pub is_fresh: bool,
    /// Whether it reads the mean of all tokens instead of the first token.
    #[module(skip)]
    pub reads_mean: bool,
    #[module(skip)]
    activation: Activation,
}

impl BertPooler {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        let (activation, has_dropout, norm) = match config.family().sentence_head {
            SentenceHead::Pooler => (Activation::Tanh, false, None),
            SentenceHead::Own { norm: Some(norm), has_dropout, .. } => {
                (config.head_act().into(), has_dropout, Some(norm))
            }
            SentenceHead::Own { activation, has_dropout, norm: None, .. } => (activation, has_dropout, None),
        };
        let dropout = if has_dropout { config.classifier_dropout() } else { 0.0 };
        Self {
            dense: config.init_head_linear(config.hidden_size, config.hidden_size, device),
            layer_norm: norm.map(|_| config.init_layer_norm(config.hidden_size, device)),
            dropout: DropoutConfig::new(dropout).init(),
            is_fresh: true,
            reads_mean: config.pools_mean(),
            activation,
        }
    }

    /// [`BertPooler::transform`] of the first token.
    ///
    /// # Shapes
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - output, `pooled_output`: `[batch, hidden]`
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<2> {
        self.transform(hidden_states.narrow(1, 0, 1).squeeze_dim::<2>(1))
    }

    /// # Shapes
    /// - `vectors`, output: `[vectors, hidden]`
    pub fn transform(&self, vectors: Tensor<2>) -> Tensor<2> {
        let activated = self.dense.activated(self.dropout.forward(vectors), self.activation, &Products::default());
        match &self.layer_norm {
            Some(norm) => norm.forward(activated),
            None => activated,
        }
    }
}
