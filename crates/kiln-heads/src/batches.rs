use burn::tensor::{Device, Tensor};
use kiln_bert::Inputs;
use kiln_tokenize::{Batch, by_length};

/// Runs `forward` over all rows in batches by length, and returns the outputs in the order of the input.
/// `forward` takes the indices of a batch's rows and returns `[batch, width]`.
///
/// # Shapes
/// - `lengths`: one per row, in tokens
/// - output: row-major `[rows, width]`
pub fn in_batches(lengths: &[usize], batch_size: usize, mut forward: impl FnMut(&[usize]) -> Tensor<2>) -> Vec<f32> {
    let mut numbers = Vec::new();
    for rows in by_length(lengths, batch_size) {
        let output = forward(&rows);
        let [_, width] = output.dims();
        let values = output.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
        numbers.resize(lengths.len() * width, 0.0);
        for (&row, values) in rows.iter().zip(values.chunks(width)) {
            numbers[row * width..(row + 1) * width].copy_from_slice(values);
        }
    }
    numbers
}

/// Copies a padded batch to the device as BERT's inputs.
pub fn inputs(batch: &Batch, device: &Device) -> Inputs {
    let shape = [batch.rows.len(), batch.seq];
    Inputs::new(&batch.input_ids, &batch.attention_mask, &batch.token_type_ids, shape, device)
}
