//! Attributions of tokens, compared with the effect of changing their embeddings.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_heads::{Pooling, SequenceClassifier};
use kiln_train::attributions;

use crate::classifier::classifier;
use crate::tiny::{encodings, inputs, numbers};

/// The second label's logit minus the first label's, for a row.
fn preference(model: &SequenceClassifier, row: usize, device: &Device) -> f64 {
    let logits = numbers(model.forward(inputs(&[row], device)));
    f64::from(logits[1]) - f64::from(logits[0])
}

/// The model with the word embedding of one token scaled by `1 + share`.
fn stretched(model: &SequenceClassifier, token: usize, share: f32, device: &Device) -> SequenceClassifier {
    let mut model = model.clone();
    let words = &mut model.bert.embeddings.word_embeddings;
    let [vocabulary, width] = words.weight.dims();
    let mut values = numbers(words.weight.val());
    values[token * width..(token + 1) * width].iter_mut().for_each(|value| *value *= 1.0 + share);
    words.weight = Param::from_tensor(Tensor::from_data(TensorData::new(values, [vocabulary, width]), device));
    model
}

#[test]
fn a_token_s_part_is_the_derivative_by_the_length_of_its_embedding() {
    let device = Flex::device(0);
    device.seed(7);
    for pooling in [Pooling::Mean, Pooling::Pooler] {
        let model = classifier(pooling, &device);
        let row = 0;
        let encoding = &encodings()[row];
        let found = attributions(&model, encoding, [1, 0], &device);
        let mut distinct = encoding.input_ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), distinct);
        for (&token, &value) in &found {
            let share = 1e-3;
            let at = |share| preference(&stretched(&model, token as usize, share, &device), row, &device);
            let slope = (at(share) - at(-share)) / (2.0 * f64::from(share));
            assert!((value - slope).abs() < 1e-3 + 1e-2 * slope.abs(), "{pooling:?}, token {token}: {value}, {slope}");
        }
        let opposed = attributions(&model, encoding, [0, 1], &device);
        assert!(
            found.iter().all(|(token, value)| (opposed[token] + value).abs() < 1e-6),
            "the other label's is opposed"
        );
    }
}
