//! Compares the heads of pre-training with transformers' `BertForPreTraining`. `pretraining/generate.py` and `variants.py`
//! compute the expected values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, FloatType, InFile, Inputs, NamedParameter, Weights, save};
use kiln_heads::{MaskedLm, Network, Pooling, PretrainedConfig, Start, load_model, save_model};
use serde::Deserialize;
use serde_json::Value;

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

/// The inputs, the positions of masked tokens, and transformers' outputs.
fn given(device: &Device) -> (Inputs, Tensor<1, Int>, Expected) {
    let text = std::fs::read_to_string(folder().join("expected.json")).expect("it is part of the crate");
    let expected: Expected = serde_json::from_str(&text).expect("it is JSON");
    let ids = expected.input_ids.concat();
    let mask: Vec<i32> = ids.iter().map(|&id| i32::from(id != 0)).collect();
    let inputs = Inputs::new(&ids, &mask, &expected.token_type_ids.concat(), [2, 8], device);
    let places = Tensor::from_data(TensorData::new(expected.places.clone(), [3]), device);
    (inputs, places, expected)
}

fn assert_is_that_of_transformers(model: &MaskedLm) {
    let (inputs, places, expected) = given(&Flex::device(0));
    let output = model.forward(inputs, places);
    let values = |tensor: Tensor<2>| tensor.into_data().try_into_vec::<f32>().expect("it is of f32");
    let next = output.seq_relationship.expect("the checkpoint has a head for the next sentence");
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
    let model = load_model(&folder(), &device).expect("it is whole").module;
    let Network::MaskedLm { model: network } = &model.network else { panic!("it is {}", model.network.task()) };
    assert_is_that_of_transformers(network);

    let copy = tempfile::tempdir().expect("a temporary folder");
    save_model(copy.path(), &model).expect("it is writable");
    let config = std::fs::read_to_string(copy.path().join("config.json")).expect("it was saved");
    assert!(config.contains("BertForPreTraining"), "{config}");
    let again = load_model(copy.path(), &device).expect("what was saved is whole").module;
    let Network::MaskedLm { model: network } = &again.network else { panic!("it is {}", again.network.task()) };
    assert_is_that_of_transformers(network);
}

fn start() -> PretrainedConfig {
    PretrainedConfig {
        start: Start::Pretrained,
        architecture: None,
        layers: None,
        frozen: false,
        in_file: InFile::Nothing,
        hidden_layers: vec![],
        num_labels: 0,
        head_initializer_range: None,
    }
}

#[test]
fn further_training_begins_with_the_checkpoint_s_own_heads() {
    let device = Flex::device(0);
    let config = start();
    let both = config.masked_lm(&folder(), true, &device).expect("it is whole");
    assert_is_that_of_transformers(&both.model);
    assert!(both.unused.is_empty() && !both.fresh_pooler, "{:?}", both.unused);
    let one = config.masked_lm(&folder(), false, &device).expect("it is whole");
    assert!(one.model.cls.seq_relationship.is_none() && one.model.bert.pooler.is_none());
    assert_eq!(one.unused.len(), 4, "pooler and second head: {:?}", one.unused);
}

#[derive(Deserialize)]
struct Variants {
    hidden_act: BTreeMap<String, Vec<Vec<f32>>>,
    untied: Vec<Vec<f32>>,
    tied_but_different: Vec<Vec<f32>>,
    only_the_bias_differs: Vec<Vec<f32>>,
    copies: Vec<Vec<f32>>,
}

fn variants() -> Variants {
    let text = std::fs::read_to_string(folder().join("variants.json")).expect("it is part of the crate");
    serde_json::from_str(&text).expect("it is JSON")
}

/// A copy of the fixture with one config key changed and some tensors added.
fn variant(key: &str, value: Value, added: Vec<NamedParameter>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    let config = std::fs::read_to_string(folder().join("config.json")).expect("it is part of the crate");
    let mut config: Value = serde_json::from_str(&config).expect("it is JSON");
    config[key] = value;
    std::fs::write(copy.path().join("config.json"), config.to_string()).expect("it is writable");
    let weights = Weights::from_folder(&folder()).expect("it is part of the crate");
    let read = |name: &str| NamedParameter {
        name: name.to_owned(),
        shape: weights.shape(name).expect("it is listed").to_vec(),
        values: weights.read(name).expect("it is whole").expect("it is listed"),
    };
    let tensors: Vec<NamedParameter> = weights.names().map(read).chain(added).collect();
    save(&copy.path().join("model.safetensors"), &tensors, FloatType::F32).expect("it is writable");
    copy
}

/// The decoder's tensors, as in `variants.py`. The weight is a copy of the word embeddings, or their rows in reverse order
/// and halved. The bias is a copy of the head's bias, or that bias shifted.
fn decoder(is_weight_copy: bool, is_bias_copy: bool) -> Vec<NamedParameter> {
    let weights = Weights::from_folder(&folder()).expect("it is part of the crate");
    let read = |name| weights.read(name).expect("it is whole").expect("every such model has it");
    let (words, bias) = (read("bert.embeddings.word_embeddings.weight"), read("cls.predictions.bias"));
    let halved = words.chunks(8).rev().flatten().map(|value| value * 0.5).collect();
    let moved = bias.iter().map(|value| value + 0.25).collect();
    let (weight, bias) = (if is_weight_copy { words } else { halved }, if is_bias_copy { bias } else { moved });
    let named =
        |name: &str, shape, values| NamedParameter { name: format!("cls.predictions.decoder.{name}"), shape, values };
    vec![named("weight", vec![20, 8], weight), named("bias", vec![20], bias)]
}

/// Checks the logits of masked tokens of the model in `folder`, before and after saving it again.
fn assert_predicts(folder: &Path, expected: &[Vec<f32>], what: &str) {
    let device = Flex::device(0);
    let once = load_model(folder, &device).expect(what);
    assert!(once.unused.is_empty(), "{what}: {:?}", once.unused);
    let copy = tempfile::tempdir().expect("a temporary folder");
    save_model(copy.path(), &once.module).expect("it is writable");
    for model in [once.module, load_model(copy.path(), &device).expect(what).module] {
        let Network::MaskedLm { model } = model.network else { panic!("{what}: another task") };
        let (inputs, places, _) = given(&device);
        let found = model.forward(inputs, places).predictions.into_data().try_into_vec::<f32>().expect("it is f32");
        let far = found.iter().zip(expected.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 2e-5 && found.len() == 60, "{what}: {far} apart");
    }
}

#[test]
fn every_activation_is_that_of_transformers() {
    let expected = variants().hidden_act;
    assert_eq!(expected.len(), 10);
    for (name, expected) in expected {
        assert_predicts(variant("hidden_act", name.clone().into(), vec![]).path(), &expected, &name);
    }
}

#[test]
fn a_decoder_of_its_own_is_read_and_written() {
    let Variants { untied, tied_but_different, only_the_bias_differs, copies, .. } = variants();
    let key = "tie_word_embeddings";
    assert_predicts(variant(key, false.into(), decoder(false, false)).path(), &untied, "untied");
    assert_predicts(variant(key, true.into(), decoder(false, false)).path(), &tied_but_different, "tied");
    assert_predicts(variant(key, true.into(), decoder(true, false)).path(), &only_the_bias_differs, "the bias");
    assert_predicts(variant(key, true.into(), decoder(true, true)).path(), &copies, "copies");

    let folder = variant(key, false.into(), decoder(false, false));
    let model = load_model(folder.path(), &Flex::device(0)).expect("it is whole").module;
    let copy = tempfile::tempdir().expect("a temporary folder");
    save_model(copy.path(), &model).expect("it is writable");
    let weights = Weights::from_folder(copy.path()).expect("it was saved");
    for name in ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"] {
        assert!(weights.shape(name).is_some(), "transformers reads `{name}`");
    }
    let error = load_model(variant(key, false.into(), vec![]).path(), &Flex::device(0)).expect_err("no decoder");
    assert!(error.to_string().contains("cls.predictions.decoder.weight"), "{error}");
}

#[test]
fn further_training_keeps_a_decoder_of_its_own() {
    let folder = variant("tie_word_embeddings", false.into(), decoder(false, false));
    let device = Flex::device(0);
    let pretrained = start().masked_lm(folder.path(), true, &device).expect("it is whole");
    let (inputs, places, _) = given(&device);
    let found =
        pretrained.model.forward(inputs, places).predictions.into_data().try_into_vec::<f32>().expect("it is f32");
    let expected = variants().untied.concat();
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5));
}

#[test]
fn sizes_that_no_machine_holds_are_refused_by_name() {
    let device = Flex::device(0);
    for (hidden_layers, expected) in [(vec![1_000_000_000, 7], "at most 4000000000"), (vec![5, 0], "at least 1")] {
        let config = PretrainedConfig { hidden_layers, num_labels: 2, ..start() };
        let error = config.sequence_classifier(&folder(), Pooling::Cls, &device).expect_err("absurd").to_string();
        assert!(error.contains("`hidden_layers` is [") && error.contains(expected), "{error}");
    }
    for (key, size) in
        [("num_hidden_layers", 1_000_000_000u64), ("vocab_size", 1 << 40), ("num_hidden_layers", 1 << 63)]
    {
        let folder = variant(key, size.into(), vec![]);
        for start_at in [Start::Random, Start::Pretrained] {
            let config = PretrainedConfig { start: start_at, num_labels: 2, ..start() };
            let error = config.token_classifier(folder.path(), false, &device).expect_err("absurd").to_string();
            assert!(error.contains(&format!("`{key}` is {size}")), "{error}");
        }
    }
    let architecture = BertConfig { vocab_size: 1 << 40, ..BertConfig::base() };
    let config = PretrainedConfig { architecture: Some(architecture), ..start() };
    let error = config.masked_lm(&folder(), true, &device).expect_err("absurd").to_string();
    assert!(error.contains("`vocab_size`"), "{error}");
}

#[test]
fn a_head_s_fresh_weights_have_the_range_that_is_asked_for() {
    let device = Flex::device(0);
    device.seed(7);
    let deviation = |head_initializer_range| {
        let config = PretrainedConfig { num_labels: 100, head_initializer_range, ..start() };
        let classifier = config.sequence_classifier(&folder(), Pooling::Cls, &device).expect("it is whole").model;
        let weights = classifier.head.classifier.dense_weight().into_data().try_into_vec::<f32>().expect("it is f32");
        (weights.iter().map(|weight| weight * weight).sum::<f32>() / weights.len() as f32).sqrt()
    };
    for (range, expected) in [(Some(0.3), 0.3), (Some(0.05), 0.05)] {
        let deviation = deviation(range);
        assert!((deviation / expected - 1.0).abs() < 0.15, "{deviation}, expected {expected}");
    }
}
