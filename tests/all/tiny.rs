//! A tiny BERT with odd sizes and without dropout. A training step takes milliseconds.

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, Inputs, NamedParameter, Weights, load_bert, parameters, save};
use kiln_tokenize::Encoding;

pub fn config() -> BertConfig {
    BertConfig {
        vocab_size: 37,
        hidden_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 40,
        max_position_embeddings: 16,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..BertConfig::base()
    }
}

/// Weights that depend only on their index, so that they are the same on every device and in every process.
pub fn weights() -> Vec<NamedParameter> {
    let fresh = parameters(&config().init(&device()));
    fresh
        .into_iter()
        .enumerate()
        .map(|(tensor, parameter)| {
            let wave = |i: usize| ((i * 7 + tensor * 13) as f32 * 0.37).sin() * 0.3;
            let centre = if parameter.name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
            let values = (0..parameter.values.len()).map(|i| centre + wave(i)).collect();
            NamedParameter { values, ..parameter }
        })
        .collect()
}

fn device() -> Device {
    use kiln_backend::{Backend, Flex};
    Flex::device(0)
}

pub fn bert(device: &Device) -> Bert {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    save(&path, &weights(), Default::default()).expect("it is writable");
    load_bert(&config(), &Weights::from_file(&path).expect("it was written"), device).expect("it is whole").module
}

/// Five rows of 3 to 11 tokens.
pub fn encodings() -> Vec<Encoding> {
    [11, 3, 7, 5, 7]
        .iter()
        .enumerate()
        .map(|(row, &length)| Encoding {
            input_ids: (0..length).map(|i| (i * 5 + row * 11) as u32 % 37).collect(),
            token_type_ids: (0..length).map(|i| u32::from(i > 4)).collect(),
            full_length: length,
            full_length_is_exact: true,
        })
        .collect()
}

pub fn inputs(rows: &[usize], device: &Device) -> Inputs {
    kiln_heads::inputs(&kiln_tokenize::pad(&encodings(), rows, 0), device)
}

pub fn numbers<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
}

pub fn assert_close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let furthest = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest <= tolerance, "{what}: {furthest} apart, {tolerance} allowed");
}
