use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use kiln_kernels::{ActivatedLinear, Activation, PositionWise, Products, Queries, Rotary};

use crate::{BertAttention, BertConfig, BertOutput, HiddenAct, Linear, PreNormLayer};

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// The layers with their own weights.
    pub layer: Vec<EncoderLayer>,
    /// Indices of the layers in the order of computation. Only shared layers appear more than once.
    #[module(skip)]
    order: Vec<usize>,
}

impl BertEncoder {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        let mut rotaries = Vec::new();
        let layer = |at| EncoderLayer::init(config, at, &mut rotaries, device);
        let layer = (0..config.distinct_layers()).map(layer).collect();
        Self { layer, order: config.layer_order() }
    }

    /// The layers in the order of computation; shared layers appear more than once.
    pub(crate) fn steps(&self) -> impl DoubleEndedIterator<Item = &EncoderLayer> + ExactSizeIterator {
        self.order.iter().map(|&at| &self.layer[at])
    }

    /// Keeps only these layers, in this order. The encoder must not share layers.
    pub(crate) fn keep(&mut self, layers: &[usize]) {
        self.layer = layers.iter().map(|&layer| self.layer[layer].clone()).collect();
        self.order = (0..layers.len()).collect();
    }

    /// The last layer's hidden states at the positions of `queries`. The last layer computes no others.
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

    /// The input of the first layer, then the output of each layer.
    ///
    /// # Shapes
    /// - `hidden_states`: `[batch, seq, hidden]`
    /// - `padding`: `[batch, seq]`, true where a position is padding
    /// - output: `[batch, seq, hidden]` each, one more than there are layers
    pub(crate) fn forward_each(
        &self,
        mut hidden_states: Tensor<3>,
        padding: Tensor<2, Bool>,
        products: &Products,
    ) -> Vec<Tensor<3>> {
        let mut states = vec![hidden_states.clone()];
        for layer in self.steps() {
            hidden_states = layer.forward(hidden_states, padding.clone(), Queries::All, products);
            states.push(hidden_states.clone());
        }
        states
    }
}

/// One layer of an encoder, in one of two forms.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "all layers of an encoder are of one form")]
pub enum EncoderLayer {
    /// BERT's form.
    PostNorm(BertLayer),
    /// ModernBERT's form.
    PreNorm(PreNormLayer),
}

impl EncoderLayer {
    /// The layer with index `layer`. `rotaries` holds the rotary embeddings of the layers before it by θ, so that layers
    /// share angles.
    fn init(config: &BertConfig, layer: usize, rotaries: &mut Vec<(f64, Rotary)>, device: &Device) -> Self {
        if !config.family().has_pre_norm {
            return Self::PostNorm(BertLayer::init(config, device));
        }
        let theta = config.attention_kind(layer).theta;
        if !rotaries.iter().any(|(other, _)| *other == theta) {
            rotaries.push((theta, Rotary::new(theta, config.hidden_size / config.num_attention_heads)));
        }
        let (_, rotary) = rotaries.iter().find(|(other, _)| *other == theta).expect("it was added");
        Self::PreNorm(PreNormLayer::init(config, layer, rotary.clone(), device))
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
        match self {
            Self::PostNorm(layer) => layer.forward(hidden_states, padding, queries, products),
            Self::PreNorm(layer) => layer.forward(hidden_states, padding, queries, products),
        }
    }

    /// Whether its dropout is enabled.
    pub(crate) fn drops(&self) -> bool {
        match self {
            Self::PostNorm(layer) => layer.output.drops(),
            Self::PreNorm(layer) => layer.drops(),
        }
    }

    /// The width of its output.
    pub(crate) fn hidden_size(&self) -> usize {
        let [_, hidden] = match self {
            Self::PostNorm(layer) => layer.output.dense.shape(),
            Self::PreNorm(layer) => layer.mlp.wo.shape(),
        };
        hidden
    }

    /// The values of self-attention, `[batch, seq, hidden]`, the shape of the layer's input.
    pub(crate) fn values(&self, hidden_states: Tensor<3>, products: &Products) -> Tensor<3> {
        match self {
            Self::PostNorm(layer) => {
                layer.attention.self_attention.value.activated(hidden_states, Activation::Identity, products)
            }
            Self::PreNorm(layer) => {
                let [_, _, hidden] = hidden_states.dims();
                let read = layer.read(hidden_states, products);
                // The columns are queries, keys and values.
                layer.attn.wqkv.activated(read, Activation::Identity, products).narrow(2, 2 * hidden, hidden)
            }
        }
    }

    /// Its linear layers, each with its name in the layer.
    pub(crate) fn linear_layers(&mut self) -> Vec<(&'static str, &mut Linear)> {
        match self {
            Self::PostNorm(BertLayer { attention, intermediate, output }) => vec![
                ("attention.self.query", &mut attention.self_attention.query),
                ("attention.self.key", &mut attention.self_attention.key),
                ("attention.self.value", &mut attention.self_attention.value),
                ("attention.output.dense", &mut attention.output.dense),
                ("intermediate.dense", &mut intermediate.dense),
                ("output.dense", &mut output.dense),
            ],
            Self::PreNorm(PreNormLayer { attn, mlp, .. }) => vec![
                ("attn.wqkv", &mut attn.wqkv),
                ("attn.wo", &mut attn.wo),
                ("mlp.wi", &mut mlp.wi),
                ("mlp.wo", &mut mlp.wo),
            ],
        }
    }
}

/// BERT's layer: attention, then the feed-forward block; each normalized after its residual.
#[derive(Module, Debug)]
pub struct BertLayer {
    /// The attention block.
    pub attention: BertAttention,
    /// The up projection of the feed-forward block.
    pub intermediate: BertIntermediate,
    /// The down projection of the feed-forward block.
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
        let linears = [&self.attention.output.dense, &self.intermediate.dense, &self.output.dense];
        // To record the input of a linear layer, it must be computed as a tensor.
        if linears.iter().any(|linear| linear.input_ranges.is_some()) {
            let attended = self.attention.forward(hidden_states, padding, queries, products);
            return self.output.forward(self.intermediate.forward(attended.clone(), products), attended, products);
        }
        let device = hidden_states.device();
        let context = self.attention.self_attention.forward(hidden_states.clone(), padding, queries, products);
        let [attention_output, intermediate, output] = linears.map(|linear| linear.parameters(&device));
        let position_wise = PositionWise {
            attention_output: self.attention.output.block(attention_output),
            intermediate: ActivatedLinear { linear: intermediate, activation: self.intermediate.hidden_act.into() },
            output: self.output.block(output),
        };
        position_wise.forward(context, queries.select(hidden_states), products)
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
