use std::f64::consts::FRAC_1_SQRT_2;

use burn::module::Module;
use burn::nn::{Dropout, LayerNorm, Linear};
use burn::tensor::{Bool, Device, Tensor, activation};

use crate::{BertAttention, BertConfig, HiddenAct};

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// In the order of computation.
    pub layer: Vec<BertLayer>,
}

impl BertEncoder {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        Self { layer: (0..config.num_hidden_layers).map(|_| BertLayer::init(config, device)).collect() }
    }

    /// # Shapes
    /// - `hidden_states`, output: `[batch, seq, hidden]`
    /// - `padding`: `[batch, 1, 1, seq]`, true where a position is padding
    pub fn forward(&self, mut hidden_states: Tensor<3>, padding: Tensor<4, Bool>) -> Tensor<3> {
        for layer in &self.layer {
            hidden_states = layer.forward(hidden_states, padding.clone());
        }
        hidden_states
    }
}

/// One layer: attention, then the feed-forward block; each normalized after its residual.
#[derive(Module, Debug)]
pub struct BertLayer {
    /// The attention block.
    pub attention: BertAttention,
    /// The feed-forward block's way up.
    pub intermediate: BertIntermediate,
    /// Its way down.
    pub output: BertOutput,
}

impl BertLayer {
    fn init(config: &BertConfig, device: &Device) -> Self {
        Self {
            attention: BertAttention::init(config, device),
            intermediate: BertIntermediate::init(config, device),
            output: BertOutput::init(config, device),
        }
    }

    /// # Shapes
    /// - `hidden_states`, output: `[batch, seq, hidden]`
    /// - `padding`: `[batch, 1, 1, seq]`, true where a position is padding
    pub fn forward(&self, hidden_states: Tensor<3>, padding: Tensor<4, Bool>) -> Tensor<3> {
        let attended = self.attention.forward(hidden_states, padding);
        self.output.forward(self.intermediate.forward(attended.clone()), attended)
    }
}

/// `act(dense(x))`: hidden to intermediate.
#[derive(Module, Debug)]
pub struct BertIntermediate {
    /// `[hidden, intermediate]`
    pub dense: Linear,
    #[module(skip)]
    hidden_act: HiddenAct,
}

impl BertIntermediate {
    fn init(config: &BertConfig, device: &Device) -> Self {
        Self {
            dense: config.init_linear(config.hidden_size, config.intermediate_size, device),
            hidden_act: config.hidden_act,
        }
    }

    fn forward(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        let x = self.dense.forward(hidden_states);
        match self.hidden_act {
            HiddenAct::Gelu => gelu(x),
            HiddenAct::GeluNew => activation::gelu_approximate(x),
            HiddenAct::Relu => activation::relu(x),
        }
    }
}

/// x · Φ(x) with Φ the normal distribution, out of operations that are differentiated exactly: burn's own GELU has, on
/// backends other than flex, the derivative of its tanh approximation.
fn gelu(x: Tensor<3>) -> Tensor<3> {
    if !x.is_autodiff() {
        return activation::gelu(x);
    }
    let twice_phi = (x.clone() * FRAC_1_SQRT_2).erf() + 1.0;
    x * twice_phi * 0.5
}

/// `LayerNorm(residual + dropout(dense(x)))`: intermediate to hidden.
#[derive(Module, Debug)]
pub struct BertOutput {
    /// `[intermediate, hidden]`
    pub dense: Linear,
    /// Over the hidden axis.
    pub layer_norm: LayerNorm,
    dropout: Dropout,
}

impl BertOutput {
    fn init(config: &BertConfig, device: &Device) -> Self {
        Self {
            dense: config.init_linear(config.intermediate_size, config.hidden_size, device),
            layer_norm: config.init_layer_norm(device),
            dropout: config.init_hidden_dropout(),
        }
    }

    fn forward(&self, intermediate: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.layer_norm.forward(self.dropout.forward(self.dense.forward(intermediate)) + residual)
    }
}
