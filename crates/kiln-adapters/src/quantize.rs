use std::sync::Arc;

use kiln_bert::Bert;

use crate::Nf4;

/// Quantizes the weights of the encoder's layers to NF4, and returns their size in bytes. Adapters, embeddings and the
/// pooler stay f32.
///
/// The f32 values of each weight are freed before the next weight is quantized, unless they are shared.
pub fn quantize(bert: &mut Bert, is_nested: bool) -> usize {
    let mut bytes = 0;
    for (name, linear) in bert.linear_layers() {
        if !name.starts_with("encoder.") {
            continue;
        }
        let [input, output] = linear.shape();
        // NF4 blocks follow the rows of `[output, input]`, PyTorch's layout of a weight.
        let mut base = linear.clone();
        base.adapter = None;
        let values = base.dense_weight().transpose().into_data().convert::<f32>();
        let values = values.try_into_vec::<f32>().expect("it was converted to f32");
        let weight = Nf4::new(&values, [output, input], is_nested);
        bytes += weight.bytes();
        *linear = linear.clone().with_stored_weight(Arc::new(weight));
    }
    bytes
}
