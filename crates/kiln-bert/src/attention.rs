use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, Linear};
use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Tensor, module};

use crate::BertConfig;

/// Self-attention with its output block: `LayerNorm(x + dropout(dense(attention(x))))`.
#[derive(Module, Debug)]
pub struct BertAttention {
    /// Queries, keys, values and what they attend to.
    pub self_attention: BertSelfAttention,
    /// The projection back, the residual and the normalization.
    pub output: BertSelfOutput,
}

impl BertAttention {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        Self { self_attention: BertSelfAttention::init(config, device), output: BertSelfOutput::init(config, device) }
    }

    /// # Shapes
    /// - `hidden_states`, output: `[batch, seq, hidden]`
    /// - `padding`: `[batch, 1, 1, seq]`, true where a position is padding
    pub fn forward(&self, hidden_states: Tensor<3>, padding: Tensor<4, Bool>) -> Tensor<3> {
        let context = self.self_attention.forward(hidden_states.clone(), padding);
        self.output.forward(context, hidden_states)
    }
}

/// Scaled dot-product attention of several heads (Vaswani et al., 2017, equation 1).
#[derive(Module, Debug)]
pub struct BertSelfAttention {
    /// `[hidden, hidden]`
    pub query: Linear,
    /// `[hidden, hidden]`
    pub key: Linear,
    /// `[hidden, hidden]`
    pub value: Linear,
    dropout: Dropout,
    num_attention_heads: usize,
}

impl BertSelfAttention {
    fn init(config: &BertConfig, device: &Device) -> Self {
        let linear = || config.init_linear(config.hidden_size, config.hidden_size, device);
        Self {
            query: linear(),
            key: linear(),
            value: linear(),
            dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
            num_attention_heads: config.num_attention_heads,
        }
    }

    /// # Shapes
    /// - `hidden_states`, output: `[batch, seq, hidden]`
    /// - `padding`: `[batch, 1, 1, seq]`, true where a position is padding
    pub fn forward(&self, hidden_states: Tensor<3>, padding: Tensor<4, Bool>) -> Tensor<3> {
        let [batch, seq, hidden] = hidden_states.dims();
        let query = self.split_heads(self.query.forward(hidden_states.clone()));
        let key = self.split_heads(self.key.forward(hidden_states.clone()));
        let value = self.split_heads(self.value.forward(hidden_states));

        // context = [batch, heads, seq, head]
        let context = if query.is_autodiff() {
            let [_, _, _, head] = query.dims();
            let scores = (query / (head as f64).sqrt()).matmul(key.transpose());
            let probabilities = softmax(scores.mask_fill(padding, f32::NEG_INFINITY), 3);
            self.dropout.forward(probabilities).matmul(value)
        } else {
            // Fused on backends that can; it has neither dropout nor a backward pass, and needs neither here.
            let padding = padding.expand([batch, 1, seq, seq]);
            module::attention(query, key, value, Some(padding), None, AttentionModuleOptions::default())
        };
        context.swap_dims(1, 2).reshape([batch, seq, hidden])
    }

    /// `[batch, seq, hidden]` to `[batch, heads, seq, head]`
    fn split_heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, seq, hidden] = x.dims();
        let heads = self.num_attention_heads;
        x.reshape([batch, seq, heads, hidden / heads]).swap_dims(1, 2)
    }
}

/// The projection of the attended values, the residual and the normalization.
#[derive(Module, Debug)]
pub struct BertSelfOutput {
    /// `[hidden, hidden]`
    pub dense: Linear,
    /// Over the hidden axis.
    pub layer_norm: LayerNorm,
    dropout: Dropout,
}

impl BertSelfOutput {
    fn init(config: &BertConfig, device: &Device) -> Self {
        Self {
            dense: config.init_linear(config.hidden_size, config.hidden_size, device),
            layer_norm: config.init_layer_norm(device),
            dropout: config.init_hidden_dropout(),
        }
    }

    fn forward(&self, context: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.layer_norm.forward(self.dropout.forward(self.dense.forward(context)) + residual)
    }
}
