//! Taggers: windows of long texts, tag schemes of model folders, and damaged weights.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::Bert;
use kiln_eval::TagSet;
use kiln_heads::{
    ClassificationHeadConfig, Crf, Network, TaskModel, TokenClassifier, Units, load_model, save_model, tag,
};
use kiln_schema::{LabelSet, TagScheme};
use kiln_tokenize::{Tokenizer, UnitWindow, characters};
use kiln_train::{EvaluationSet, TaggedSet};

use crate::tiny;

const TAGS: usize = 3;

fn tagger(crf: Option<Crf>) -> TokenClassifier {
    let device = Flex::device(0);
    let head = ClassificationHeadConfig {
        hidden_size: 24,
        hidden_layers: vec![],
        num_labels: TAGS,
        dropout: 0.0,
        initializer_range: 0.3,
    };
    let mut head = head.init(&device);
    // Not random, because all tests share the random numbers of the device.
    let weight: Vec<f32> = (0..24 * TAGS).map(|at| (at as f32 * 1.7).sin() * 0.3).collect();
    head.classifier.weight = Some(Param::from_data(TensorData::new(weight, [24, TAGS]), &device));
    TokenClassifier { bert: Bert { pooler: None, ..tiny::bert(&device) }, head, crf }
}

/// Texts of 46 characters and of one character, in windows of ten.
fn windows() -> Vec<Vec<UnitWindow>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/kiln-tokenize/tests/tiny");
    let tokenizer = Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole");
    let tokenizer = tokenizer.with_max_length(12).expect("it is enough");
    let texts = ["房间".repeat(23), "房".to_owned()];
    texts.iter().map(|text| tokenizer.encode_units(text, &characters(text)).expect("known")).collect()
}

/// Regression test: each window was decoded as a text of its own, with the scores for a text's first and last tag.
#[test]
fn a_crf_decodes_a_text_as_a_whole() {
    let device = Flex::device(0);
    let numbers = |values: &[f32], shape: &[usize]| TensorData::new(values.to_vec(), shape.to_vec());
    let crf = Crf {
        start_transitions: Param::from_data(numbers(&[30.0, 0.0, 0.0], &[TAGS]), &device),
        // Tag 0 cannot follow any tag. A whole text has it once, and separate windows would have it once each.
        transitions: Param::from_data(
            numbers(&[-30.0, -0.3, 0.2, -30.0, 0.3, 0.1, -30.0, 0.1, -0.4], &[TAGS, TAGS]),
            &device,
        ),
        end_transitions: Param::from_data(numbers(&[0.0, 0.0, 9.0], &[TAGS]), &device),
    };
    let scores = crf.to_host();
    let windows = windows();
    let output = tag(&tagger(Some(crf)), &windows, 0, 4, &device);
    for (text, units) in [46, 1].into_iter().enumerate() {
        assert_eq!(output.logits[text].len(), units * TAGS);
        assert_eq!(output.tags[text], scores.decode(&output.logits[text]));
    }
    let by_window: Vec<usize> = windows[0]
        .iter()
        .flat_map(|window| scores.decode(&output.logits[0][window.own.start * TAGS..window.own.end * TAGS]))
        .collect();
    assert_ne!(output.tags[0], by_window, "the scores are such that windows would show");
}

#[test]
fn folders_without_a_scheme_have_that_of_their_labels() {
    let device = Flex::device(0);
    for (names, expected) in [
        (["LABEL_0", "LABEL_1", "LABEL_2"], TagScheme::Plain),
        (["O", "B-PER", "I-PER"], TagScheme::Entities),
        (["B", "E", "S"], TagScheme::Segmentation),
        (["O", "B-PER", "NOUN"], TagScheme::Plain),
    ] {
        let labels = LabelSet::new(names).expect("three names");
        let (units, tag_scheme) = (Units::Words, TagScheme::Segmentation);
        let network = Network::TokenClassification { model: tagger(None), labels, units, tag_scheme };
        let folder = tempfile::tempdir().expect("a folder");
        save_model(folder.path(), &TaskModel { network, config: tiny::config() }).expect("it is writable");
        let scheme = || match load_model(folder.path(), &device).expect("it was saved").module.network {
            Network::TokenClassification { tag_scheme, .. } => tag_scheme,
            other => panic!("{:?}", other.task()),
        };
        assert_eq!(scheme(), TagScheme::Segmentation, "as it was saved");
        // The format of transformers.
        let path = folder.path().join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("it was written")).expect("it is JSON");
        config.as_object_mut().expect("an object").remove("kiln_head").expect("it was written");
        std::fs::write(&path, config.to_string()).expect("it is writable");
        assert_eq!(scheme(), expected, "{names:?}");
    }
}

#[test]
fn damaged_weights_are_no_tags() {
    let device = Flex::device(0);
    let labels = LabelSet::new(["O", "B-A", "I-A"]).expect("three names");
    let tags = TagSet { labels: &labels, scheme: TagScheme::Entities };
    let set = TaggedSet::new(windows(), vec![vec![0; 46], vec![0]], tags, 0);
    let mut model = tagger(None);
    let report = set.report(&set.output(&model, 4, &device)).expect("the weights are sound");
    assert!(report.loss.is_finite());
    let bias = Tensor::<1>::from_data([0.0, f32::NAN, 0.0], &device);
    model.head.classifier.bias = Some(Param::from_tensor(bias));
    let message = set.report(&set.output(&model, 4, &device)).expect_err("a weight is NaN").to_string();
    assert!(message.contains("NaN"), "{message}");
}
