//! Models with an activation channel that is far larger than the others, as in large language models.

use burn::module::Param;
use burn::nn::LayerNorm;
use burn::tensor::{Tensor, TensorData};
use kiln_bert::{Bert, EncoderLayer};

/// The outlier channel.
const CHANNEL: usize = 3;
/// The factor by which it is larger.
const FACTOR: f32 = 40.0;

/// Makes one channel of the layers' inputs larger, and the weights that read it smaller. The model's output does not
/// change.
pub fn add_outliers(bert: &mut Bert) {
    enlarge(&mut bert.embeddings.layer_norm);
    let layers = bert.encoder.layer.len();
    for (at, layer) in bert.encoder.layer.iter_mut().enumerate() {
        match layer {
            EncoderLayer::PostNorm(layer) => {
                enlarge(&mut layer.attention.output.layer_norm);
                if at + 1 < layers {
                    enlarge(&mut layer.output.layer_norm);
                }
            }
            EncoderLayer::PreNorm(layer) => {
                layer.attn_norm.iter_mut().for_each(enlarge);
                enlarge(&mut layer.mlp_norm);
            }
        }
    }
    for (name, linear) in bert.linear_layers() {
        if ["query", "key", "value", "intermediate.dense", "wqkv", "wi"].iter().any(|end| name.ends_with(end)) {
            linear.weight = linear.weight.take().map(|weight| scaled(weight, 1.0 / FACTOR));
        }
    }
}

fn enlarge(norm: &mut LayerNorm) {
    norm.gamma = scaled(norm.gamma.clone(), FACTOR);
}

/// The tensor with the channel's entries on the first axis multiplied by `factor`.
fn scaled<const D: usize>(param: Param<Tensor<D>>, factor: f32) -> Param<Tensor<D>> {
    param.map(|tensor| {
        let mut factors = vec![1.0; tensor.dims()[0]];
        factors[CHANNEL] = factor;
        let mut shape = [1; D];
        shape[0] = factors.len();
        let factors = Tensor::<D>::from_data(TensorData::new(factors, shape), &tensor.device());
        tensor * factors
    })
}
