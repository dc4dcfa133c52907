use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use kiln_kernels::{Products, Queries};

use crate::{BertAttention, BertConfig, BertOutput, HiddenAct, Linear};

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// Those with weights of their own.
    pub layer: Vec<BertLayer>,
    /// Which of them are computed, in their order: each once, but where layers are shared.
    #[module(skip)]
    order: Vec<usize>,
}

impl BertEncoder {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        let layer = (0..config.distinct_layers()).map(|_| BertLayer::init(config, device)).collect();
        Self { layer, order: config.layer_order() }
    }

    /// The layers in the order of computation; shared ones come more than once.
    pub(crate) fn steps(&self) -> impl DoubleEndedIterator<Item = &BertLayer> + ExactSizeIterator {
        self.order.iter().map(|&at| &self.layer[at])
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
        let last = self.order.len() - 1;
        for (at, layer) in self.steps().enumerate() {
            let queries = if at == last { queries } else { Queries::All };
            hidden_states = layer.forward(hidden_states, padding.clone(), queries, products);
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
