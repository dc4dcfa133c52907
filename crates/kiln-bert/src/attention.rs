use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm};
use burn::tensor::{Bool, Device, Tensor};
use kiln_kernels::{Affine, OutputBlock, Products, Queries, SelfAttention};

use crate::linear::normalization;
use crate::{BertConfig, Linear};

/// Self-attention with its output block: `LayerNorm(x + dropout(dense(attention(x))))`.
#[derive(Module, Debug)]
pub struct BertAttention {
    /// Self-attention: queries, keys and values.
    pub self_attention: BertSelfAttention,
    /// The output projection, the residual and the normalization.
    pub output: BertOutput,
}

impl BertAttention {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        Self {
            self_attention: BertSelfAttention::init(config, device),
            output: BertOutput::init(config, config.hidden_size, device),
        }
    }

    /// # Shapes
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - `padding`: `[batch, seq]`, true where a position is padding
    /// - output: `[batch, queries, hidden]`
    pub fn forward(
        &self,
        hidden_states: Tensor<3>,
        padding: Tensor<2, Bool>,
        queries: Queries,
        products: &Products,
    ) -> Tensor<3> {
        let context = self.self_attention.forward(hidden_states.clone(), padding, queries, products);
        self.output.forward(context, queries.select(hidden_states), products)
    }
}

/// Multi-head scaled dot-product attention.
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
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - `padding`: `[batch, seq]`, true where a position is padding
    /// - output: `[batch, queries, hidden]`
    pub fn forward(
        &self,
        hidden_states: Tensor<3>,
        padding: Tensor<2, Bool>,
        queries: Queries,
        products: &Products,
    ) -> Tensor<3> {
        let [query, key, value] = [&self.query, &self.key, &self.value].map(|linear| linear.affine(&hidden_states));
        let heads = self.num_attention_heads;
        let attention = SelfAttention { query, key, value, heads, dropout: probability(&self.dropout), queries };
        attention.forward(hidden_states, padding, products)
    }
}

/// `LayerNorm(residual + dropout(dense(x)))`: the end of both blocks of a layer.
#[derive(Module, Debug)]
pub struct BertOutput {
    /// `[input, hidden]`
    pub dense: Linear,
    /// Normalization over the hidden axis.
    pub layer_norm: LayerNorm,
    layer_norm_eps: f64,
    dropout: Dropout,
}

impl BertOutput {
    pub(crate) fn init(config: &BertConfig, input: usize, device: &Device) -> Self {
        Self {
            dense: config.init_linear(input, config.hidden_size, device),
            layer_norm: config.init_layer_norm(config.hidden_size, device),
            layer_norm_eps: config.layer_norm_eps,
            dropout: config.init_hidden_dropout(),
        }
    }

    /// Whether its dropout is enabled.
    pub(crate) fn drops(&self) -> bool {
        self.dropout.training.is_enabled()
    }

    /// # Shapes
    /// - `x`: `[batch, seq, input]`
    /// - `residual`, output: `[batch, seq, hidden]`
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>, products: &Products) -> Tensor<3> {
        self.block(self.dense.affine(&x)).forward(x, residual, products)
    }

    /// The fused operation, with the parameters of `dense`.
    pub(crate) fn block(&self, dense: Affine) -> OutputBlock {
        let norm = Some(normalization(&self.layer_norm, self.layer_norm_eps));
        OutputBlock { dense, norm, dropout: probability(&self.dropout) }
    }
}

/// The probability of a dropout that is enabled; 0 for a frozen one.
pub(crate) fn probability(dropout: &Dropout) -> f64 {
    if dropout.training.is_enabled() { dropout.prob } else { 0.0 }
}
