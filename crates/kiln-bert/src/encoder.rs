use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use kiln_kernels::{Products, Queries};

use crate::{BertAttention, BertConfig, BertOutput, HiddenAct, Linear};

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

    /// The last layer's hidden states, at the positions of `queries`: it computes no others.
    ///
    /// # Shapes
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - `padding`: `[batch, seq]`, true where a position is padding
    /// - output: `[batch, queries, hidden]`
    pub fn forward(
        &self,
        mut hidden_states: Tensor<3>,
        padding: Tensor<2, Bool>,
        queries: Queries,
        products: &Products,
    ) -> Tensor<3> {
        let Some((last, earlier)) = self.layer.split_last() else { return queries.select(hidden_states) };
        for layer in earlier {
            hidden_states = layer.forward(hidden_states, padding.clone(), Queries::All, products);
        }
        last.forward(hidden_states, padding, queries, products)
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
            output: BertOutput::init(config, config.intermediate_size, device),
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
        let attended = self.attention.forward(hidden_states, padding, queries, products);
        self.output.forward(self.intermediate.forward(attended.clone(), products), attended, products)
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

    /// # Shapes
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - output: `[batch, seq, intermediate]`
    pub fn forward(&self, hidden_states: Tensor<3>, products: &Products) -> Tensor<3> {
        self.dense.activated(hidden_states, self.hidden_act.into(), products)
    }
}
