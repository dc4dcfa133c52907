//! The heads of pre-training against transformers' `BertForPreTraining`; `pretraining/generate.py` made the numbers.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::Inputs;
use kiln_heads::{MaskedLm, Network, PretrainedConfig, Start, load_model, save_model};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    input_ids: Vec<Vec<i32>>,
    token_type_ids: Vec<Vec<i32>>,
    places: Vec<i32>,
    predictions: Vec<Vec<f32>>,
    seq_relationship: Vec<Vec<f32>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pretraining")
}

fn assert_is_that_of_transformers(model: &MaskedLm) {
    let device = Flex::device(0);
    let text = std::fs::read_to_string(folder().join("expected.json")).expect("it is part of the crate");
    let expected: Expected = serde_json::from_str(&text).expect("it is JSON");
    let ids = expected.input_ids.concat();
    let mask: Vec<i32> = ids.iter().map(|&id| i32::from(id != 0)).collect();
    let inputs = Inputs::new(&ids, &mask, &expected.token_type_ids.concat(), [2, 8], &device);
    let places = Tensor::from_data(TensorData::new(expected.places, [3]), &device);
    let output = model.forward(inputs, places);
    let values = |tensor: Tensor<2>| tensor.into_data().try_into_vec::<f32>().expect("it is of f32");
    let next = output.seq_relationship.expect("the checkpoint tells next sentences");
    for (found, expected) in [
        (values(output.predictions), expected.predictions.concat()),
        (values(next), expected.seq_relationship.concat()),
    ] {
        assert_eq!(found.len(), expected.len());
        let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 2e-5, "{far}");
    }
}

#[test]
fn a_checkpoint_of_transformers_is_read_and_written() {
    let device = Flex::device(0);
    let model = load_model(&folder(), &device).expect("it is whole");
    let Network::MaskedLm { model: network } = &model.network else { panic!("it is {}", model.network.task()) };
    assert_is_that_of_transformers(network);

    let copy = tempfile::tempdir().expect("a temporary folder");
    save_model(copy.path(), &model).expect("it is writable");
    let config = std::fs::read_to_string(copy.path().join("config.json")).expect("it was saved");
    assert!(config.contains("BertForPreTraining"), "{config}");
    let again = load_model(copy.path(), &device).expect("what was saved is whole");
    let Network::MaskedLm { model: network } = &again.network else { panic!("it is {}", again.network.task()) };
    assert_is_that_of_transformers(network);
}

#[test]
fn further_training_begins_with_the_checkpoint_s_own_heads() {
    let device = Flex::device(0);
    let config = PretrainedConfig {
        start: Start::Pretrained,
        architecture: None,
        frozen: false,
        hidden_layers: vec![],
        num_labels: 0,
    };
    let both = config.masked_lm(&folder(), true, &device).expect("it is whole");
    assert_is_that_of_transformers(&both.model);
    assert!(both.unused.is_empty() && !both.fresh_pooler, "{:?}", both.unused);
    let one = config.masked_lm(&folder(), false, &device).expect("it is whole");
    assert!(one.model.cls.seq_relationship.is_none() && one.model.bert.pooler.is_none());
    assert_eq!(one.unused.len(), 4, "pooler and second head: {:?}", one.unused);
}

#[test]
fn a_decoder_of_its_own_is_refused() {
    let copy = tempfile::tempdir().expect("a temporary folder");
    let config = std::fs::read_to_string(folder().join("config.json")).expect("it is part of the crate");
    let untied = config.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    std::fs::write(copy.path().join("config.json"), untied).expect("it is writable");
    std::fs::copy(folder().join("model.safetensors"), copy.path().join("model.safetensors")).expect("it is readable");
    let error = load_model(copy.path(), &Flex::device(0)).expect_err("its decoder has weights of its own");
    assert!(error.to_string().contains("tie_word_embeddings"), "{error}");
}
