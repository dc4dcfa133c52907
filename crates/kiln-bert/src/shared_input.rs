//! Which linear layers of an encoder read the same tensor, and which layer produces it: where an int8 product may be
//! smoothed.

use crate::encoder::EncoderLayer;
use crate::{Bert, BertLayer, PreNormLayer};

/// A tensor that linear layers of the encoder read, with BERT's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedInput {
    /// The linear layers that read it, as [`Bert::linear_layers`] names them.
    pub readers: Vec<String>,
    /// The layer that produces it, if that layer can be scaled without another effect.
    pub giver: Option<Giver>,
}

/// A linear layer or a normalization that produces a [`SharedInput`]. Nothing else reads its outputs, and the input
/// depends linearly on them. A channel of the input is therefore divided by dividing its entries in the giver's weight and
/// bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giver {
    /// The giver's name.
    pub name: String,
    /// Index of the first output that produces the input. Each channel has one output, in order.
    pub first: usize,
}

impl Bert {
    /// The inputs of the linear layers in the encoder's layers. Each linear layer reads one of them.
    pub fn shared_inputs(&self) -> Vec<SharedInput> {
        let mut inputs = Vec::new();
        for (at, layer) in self.encoder.layer.iter().enumerate() {
            let name = |name: &str| format!("encoder.layer.{at}.{name}");
            for (readers, giver) in layer.inputs() {
                let giver = giver.map(|(giver, first)| Giver { name: name(giver), first });
                inputs.push(SharedInput { readers: readers.iter().copied().map(name).collect(), giver });
            }
        }
        inputs
    }
}

/// Names within a layer: the readers of an input, and its giver with the index of the first output.
type Input = (&'static [&'static str], Option<(&'static str, usize)>);

impl EncoderLayer {
    fn inputs(&self) -> [Input; 4] {
        match self {
            Self::PostNorm(layer) => layer.inputs(),
            Self::PreNorm(layer) => layer.inputs(),
        }
    }
}

impl BertLayer {
    /// Two inputs have no giver because the residual also reads a normalization's output. The last has none because an
    /// activation is not linear.
    fn inputs(&self) -> [Input; 4] {
        [
            (&["attention.self.query", "attention.self.key", "attention.self.value"], None),
            // Attention averages the values channel by channel.
            (&["attention.output.dense"], Some(("attention.self.value", 0))),
            (&["intermediate.dense"], None),
            (&["output.dense"], None),
        ]
    }
}

impl PreNormLayer {
    /// The normalizations are givers, because the residual reads the states before them.
    fn inputs(&self) -> [Input; 4] {
        let [hidden, _] = self.attn.wo.shape();
        let [inner, _] = self.mlp.wo.shape();
        [
            (&["attn.wqkv"], self.attn_norm.is_some().then_some(("attn_norm", 0))),
            // The values come after the queries and the keys.
            (&["attn.wo"], Some(("attn.wqkv", 2 * hidden))),
            (&["mlp.wi"], Some(("mlp_norm", 0))),
            // The giver is the half of `mlp.wi` that is not activated.
            (&["mlp.wo"], Some(("mlp.wi", inner))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use kiln_backend::{Backend, Flex};
    use serde_json::json;

    use crate::BertConfig;

    #[test]
    fn every_linear_layer_of_the_encoder_reads_one_input() {
        for model_type in ["bert", "albert", "modernbert"] {
            let mut config = BertConfig {
                vocab_size: 11,
                hidden_size: 8,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                intermediate_size: 12,
                ..BertConfig::base()
            };
            config.extra.insert("model_type".to_owned(), json!(model_type));
            let mut bert = config.init(&Flex::device(0));
            let inputs = bert.shared_inputs();
            let mut readers: Vec<&String> = inputs.iter().flat_map(|input| &input.readers).collect();
            let layers = bert.linear_layers();
            let mut names: Vec<&String> =
                layers.iter().map(|(name, _)| name).filter(|name| name.starts_with("encoder.")).collect();
            readers.sort();
            names.sort();
            assert_eq!(readers, names, "{model_type}");
            // From `first` on, a giver has as many outputs as the input has channels.
            let shape = |name: &String| layers.iter().find(|(other, _)| other == name).map(|(_, layer)| layer.shape());
            for input in &inputs {
                let [channels, _] = shape(&input.readers[0]).expect("it is a linear layer");
                let giver = input.giver.as_ref().and_then(|giver| Some((giver.first, shape(&giver.name)?)));
                assert!(giver.is_none_or(|(first, [_, outputs])| outputs - first == channels), "{input:?}");
            }
        }
    }
}
