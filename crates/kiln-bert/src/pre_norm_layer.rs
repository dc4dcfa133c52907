use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm};
use burn::tensor::{Bool, Device, Tensor};
use kiln_kernels::{GatedLinear, OutputBlock, Products, Queries, Rotary, RotaryAttention};
use serde_json::Value;

use crate::attention::probability;
use crate::linear::normalization;
use crate::{BertConfig, HiddenAct, Linear};

/// ModernBERT's layer: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.
#[derive(Module, Debug)]
pub struct PreNormLayer {
    /// Normalization over the hidden axis; none in the first layer, which reads the normalized embeddings.
    pub attn_norm: Option<LayerNorm>,
    /// The attention block.
    pub attn: PreNormAttention,
    /// Normalization over the hidden axis.
    pub mlp_norm: LayerNorm,
    /// The feed-forward block.
    pub mlp: GatedFeedForward,
    layer_norm_eps: f64,
}

impl PreNormLayer {
    /// The layer with index `layer` and the rotary position embeddings `rotary`.
    pub(crate) fn init(config: &BertConfig, layer: usize, rotary: Rotary, device: &Device) -> Self {
        let norm = || config.init_layer_norm(config.hidden_size, device);
        Self {
            attn_norm: (layer > 0).then(norm),
            attn: PreNormAttention::init(config, layer, rotary, device),
            mlp_norm: norm(),
            mlp: GatedFeedForward::init(config, device),
            layer_norm_eps: config.layer_norm_eps,
        }
    }

    /// Whether its dropout is enabled.
    pub(crate) fn drops(&self) -> bool {
        self.mlp.dropout.training.is_enabled()
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
        let context = self.attn.forward(self.read(hidden_states.clone(), products), padding, queries, products);
        let attended = self.attn.output(context, queries.select(hidden_states), products);
        let gated = self.mlp.gated(self.normalized(&self.mlp_norm, attended.clone(), products), products);
        self.mlp.output(gated, attended, products)
    }

    /// The input of attention: the hidden states, normalized except in the first layer.
    pub(crate) fn read(&self, hidden_states: Tensor<3>, products: &Products) -> Tensor<3> {
        match &self.attn_norm {
            Some(norm) => self.normalized(norm, hidden_states, products),
            None => hidden_states,
        }
    }

    fn normalized(&self, norm: &LayerNorm, x: Tensor<3>, products: &Products) -> Tensor<3> {
        normalization(norm, self.layer_norm_eps).forward(x, products)
    }
}

/// Self-attention with rotary position embeddings, over all positions or in a local window.
#[derive(Module, Debug)]
pub struct PreNormAttention {
    /// `[hidden, 3 · hidden]`: queries, keys and values.
    pub wqkv: Linear,
    /// `[hidden, hidden]`: the output projection.
    pub wo: Linear,
    dropout: Dropout,
    num_attention_heads: usize,
    #[module(skip)]
    rotary: Rotary,
    #[module(skip)]
    window: Option<usize>,
}

impl PreNormAttention {
    fn init(config: &BertConfig, layer: usize, rotary: Rotary, device: &Device) -> Self {
        let (hidden, has_bias) = (config.hidden_size, config.flag("attention_bias"));
        Self {
            wqkv: config.init_linear(hidden, 3 * hidden, device).biased(has_bias),
            wo: config.init_output_linear(hidden, hidden, device).biased(has_bias),
            dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
            num_attention_heads: config.num_attention_heads,
            rotary,
            window: config.attention_kind(layer).window,
        }
    }

    /// The context vectors of all heads.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden]`
    /// - `padding`: `[batch, seq]`, true where a position is padding
    /// - output: `[batch, queries, hidden]`
    pub fn forward(&self, x: Tensor<3>, padding: Tensor<2, Bool>, queries: Queries, products: &Products) -> Tensor<3> {
        let attention = RotaryAttention {
            query_key_value: self.wqkv.affine(&x),
            heads: self.num_attention_heads,
            rotary: self.rotary.clone(),
            window: self.window,
            dropout: probability(&self.dropout),
            queries,
        };
        attention.forward(x, padding, products)
    }

    /// The residual plus the output projection of `context`.
    fn output(&self, context: Tensor<3>, residual: Tensor<3>, products: &Products) -> Tensor<3> {
        let dense = self.wo.affine(&context);
        OutputBlock { dense, norm: None, dropout: probability(&self.dropout) }.forward(context, residual, products)
    }
}

/// ModernBERT's feed-forward block, a gated linear unit.
#[derive(Module, Debug)]
pub struct GatedFeedForward {
    /// `[hidden, 2 · intermediate]`: the half that is activated, and the half that it is multiplied by.
    pub wi: Linear,
    /// `[intermediate, hidden]`
    pub wo: Linear,
    dropout: Dropout,
    #[module(skip)]
    hidden_act: HiddenAct,
}

impl GatedFeedForward {
    fn init(config: &BertConfig, device: &Device) -> Self {
        let (hidden, inner, has_bias) = (config.hidden_size, config.intermediate_size, config.flag("mlp_bias"));
        let dropout = config.extra.get("mlp_dropout").and_then(Value::as_f64).unwrap_or(0.0);
        Self {
            wi: config.init_linear(hidden, 2 * inner, device).biased(has_bias),
            wo: config.init_output_linear(inner, hidden, device).biased(has_bias),
            dropout: DropoutConfig::new(dropout).init(),
            hidden_act: config.hidden_act,
        }
    }

    /// # Shapes
    /// - `x`: `[batch, seq, hidden]`
    /// - output: `[batch, seq, intermediate]`
    pub fn gated(&self, x: Tensor<3>, products: &Products) -> Tensor<3> {
        let linear = self.wi.affine(&x);
        let (activation, dropout) = (self.hidden_act.into(), probability(&self.dropout));
        GatedLinear { linear, activation, dropout }.forward(x, products)
    }

    /// The residual plus the down projection of `x`.
    fn output(&self, x: Tensor<3>, residual: Tensor<3>, products: &Products) -> Tensor<3> {
        let dense = self.wo.affine(&x);
        OutputBlock { dense, norm: None, dropout: 0.0 }.forward(x, residual, products)
    }
}
