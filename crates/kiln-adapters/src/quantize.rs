use std::sync::Arc;

use kiln_bert::Bert;

use crate::Nf4;

/// Holds the weights of the encoder's layers in NF4 from now on; adapters, embeddings and the pooler stay f32. Returns how many
/// bytes they take.
///
/// Each weight's f32 values are dropped before the next one's are quantized, where nothing else holds them.
pub fn quantize(bert: &mut Bert, is_nested: bool) -> usize {
    let mut bytes = 0;
    for (name, linear) in bert.linear_layers() {
        if !name.starts_with("encoder.") {
            continue;
        }
        let [input, output] = linear.shape();
        // NF4's blocks lie in rows of `[output, input]`, as PyTorch holds a weight.
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
