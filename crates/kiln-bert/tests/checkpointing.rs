//! Gradient checkpointing with dropout. The device's random stream is global, so this is the only test of its process.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_backend::{Backend, Flex};
use kiln_bert::{Bert, BertConfig, Inputs, LayerInputs, Linear, initialize};

/// A number that depends on all hidden states.
fn value(bert: &Bert, device: &Device) -> Tensor<1> {
    let ids = [2, 7, 9, 3, 5, 8, 1, 0];
    let inputs = Inputs::new(&ids, &[1, 1, 1, 1, 1, 1, 1, 0], &[0; 8], [2, 4], device);
    Flex::device(0).seed(5);
    bert.forward(inputs).sin().sum()
}

#[test]
fn layers_drop_in_the_backward_pass_what_they_dropped_in_the_forward_pass() {
    check(&config());
    // ALBERT's first layer is computed twice, and both computations contribute to the slope.
    let mut albert = BertConfig { num_hidden_layers: 4, embedding_size: Some(8), ..config() };
    for (key, value) in [("model_type", "albert".into()), ("num_hidden_groups", 2.into())] {
        albert.extra.insert(key.to_owned(), value);
    }
    check(&albert);
    let mut modernbert = config();
    for (key, value) in [("model_type", "modernbert".into()), ("mlp_bias", true.into()), ("mlp_dropout", 0.3.into())] {
        modernbert.extra.insert(key.to_owned(), value);
    }
    check(&modernbert);
}

/// A linear layer of the first layer of the encoder.
fn layer(bert: &mut Bert) -> &mut Linear {
    let layers = bert.linear_layers().into_iter();
    let is_wanted = |name: &str| ["encoder.layer.0.output.dense", "encoder.layer.0.mlp.wo"].contains(&name);
    layers.filter(|(name, _)| is_wanted(name)).map(|(_, layer)| layer).next().expect("each layer has one")
}

fn config() -> BertConfig {
    BertConfig {
        vocab_size: 11,
        hidden_size: 12,
        num_attention_heads: 2,
        num_hidden_layers: 3,
        intermediate_size: 20,
        max_position_embeddings: 4,
        hidden_dropout_prob: 0.4,
        attention_probs_dropout_prob: 0.4,
        initializer_range: 0.3,
        ..BertConfig::base()
    }
}

fn check(config: &BertConfig) {
    let plain = Flex::device(0);
    let mut bert = config.init(&plain);
    initialize(&bert);
    bert.pooler = None;
    bert.layer_inputs = Some(LayerInputs::default());
    let bert = bert.train();
    let device = plain.autodiff();

    let gradients = value(&bert, &device).backward();
    let waiting = || bert.layer_inputs.as_ref().expect("it was given").is_waiting();
    assert!(waiting());
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| value(&bert, &device)));
    assert!(again.is_err() && waiting(), "a second forward pass would lose the gradients of the first");
    let bias = |bert: &Bert| layer(&mut bert.clone()).bias.clone().expect("it has one");
    let mut slopes = Vec::new();
    bert.backward(&gradients, |mut of_layer| slopes.extend(bias(&bert).val().grad_remove(&mut of_layer)));
    assert!(!waiting());
    let slope = slopes.into_iter().reduce(|sum, slope| sum + slope).expect("the first layer takes part");
    let slope = slope.into_data().try_into_vec::<f32>().expect("it is f32");

    const STEP: f32 = 1e-2;
    for (at, slope) in slope.into_iter().enumerate() {
        let moved = |by: f32| {
            let mut step = [0f32; 12];
            step[at] = by;
            let step = Tensor::<1>::from_data(step, &Flex::device(0));
            let mut moved = bert.clone();
            let along = bias(&bert).map(|values| Tensor::from_inner(values.inner() + step).require_grad());
            layer(&mut moved).bias = Some(along);
            // No backward pass follows this forward pass.
            moved.layer_inputs = Some(LayerInputs::default());
            value(&moved, &device).into_scalar::<f32>()
        };
        let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        assert!((slope - expected).abs() < 2e-2 * expected.abs().max(0.5), "{at}: {slope}, not {expected}");
    }
}
