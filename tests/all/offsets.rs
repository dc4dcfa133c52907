//! Offsets count characters of the original text, for tokens (as in transformers), tags and answers.

use std::path::Path;

use kiln_backend::{Backend, Flex};
use kiln_bert::InFile;
use kiln_heads::{Network, PretrainedConfig, Start, TaskModel, Units, save_model};
use kiln_predict::Predictor;
use kiln_schema::{LabelSet, TagScheme};
use kiln_tokenize::{Tokenizer, is_modifier};
use serde_json::Value;

use crate::assets::assets;
use crate::families::FOLDERS;

/// Written by `offsets/generate.py`.
const EXPECTED: &str = include_str!("offsets/expected.json");

fn expected(family: &str) -> Vec<Value> {
    let expected: Value = serde_json::from_str(EXPECTED).expect("it is JSON");
    expected[family].as_array().expect("a list").clone()
}

fn texts() -> Vec<String> {
    expected("bert").iter().map(|row| row["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn tokens_span_what_they_do_in_transformers() {
    let Some(assets) = assets() else { return };
    for family in FOLDERS {
        let tokenizer = Tokenizer::from_folder(&assets.join("reference/families").join(family)).expect("it is whole");
        for row in expected(family) {
            let text = row["text"].as_str().expect("a text");
            let list = tokenizer.list(text, None).unwrap_or_else(|error| panic!("{family} {text:?}: {error}"));
            assert_eq!(serde_json::json!(list.input_ids), row["ids"], "{family} {text:?}");
            assert_eq!(serde_json::json!(list.offsets), row["offsets"], "{family} {text:?}: {:?}", list.tokens);
        }
    }
}

fn fresh(num_labels: usize) -> PretrainedConfig {
    PretrainedConfig {
        start: Start::Pretrained,
        architecture: None,
        layers: None,
        frozen: false,
        in_file: InFile::Nothing,
        hidden_layers: vec![],
        num_labels,
        // Large enough that tags change from unit to unit.
        head_initializer_range: Some(0.5),
    }
}

/// A predictor with the family's encoder and another head, after saving and loading.
fn predictor(family: &Path, network: impl FnOnce(&Path) -> TaskModel) -> Predictor {
    let saved = tempfile::tempdir().expect("a temporary folder");
    save_model(saved.path(), &network(family)).expect("it is writable");
    Tokenizer::from_folder(family).expect("it is whole").save(saved.path()).expect("it is writable");
    Predictor::from_folder(saved.path(), &Flex::device(0)).unwrap_or_else(|error| panic!("{error}"))
}

/// The passages of a prediction. Each is compared with the text at its offsets.
fn passages(text: &str, list: &Value, what: &str) -> String {
    let passage = |passage: &Value| {
        let at = |key: &str| passage[key].as_u64().expect("a number") as usize;
        let slice: String = text.chars().skip(at("start")).take(at("end") - at("start")).collect();
        assert_eq!(passage["text"], slice.as_str(), "{what} {text:?}");
        slice
    };
    list.as_array().expect("a list").iter().map(passage).collect()
}

fn without_spaces(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn tags_are_where_their_units_are() {
    let Some(assets) = assets() else { return };
    let device = Flex::device(0);
    device.seed(7);
    for family in FOLDERS {
        let folder = assets.join("reference/families").join(family);
        for (names, tag_scheme) in [
            (["O", "B-A", "I-A", "B-B"], TagScheme::Entities),
            (["B", "M", "E", "S"], TagScheme::Segmentation),
            (["NOUN", "VERB", "ADJ", "X"], TagScheme::Plain),
        ] {
            for units in [Units::Characters, Units::Words] {
                let predictor = predictor(&folder, |folder| {
                    let tagger = fresh(4).token_classifier(folder, false, &device).expect("an encoder");
                    let labels = LabelSet::new(names).expect("four names");
                    let network = Network::TokenClassification { model: tagger.model, labels, units, tag_scheme };
                    TaskModel { network, config: tagger.config }
                });
                for text in texts() {
                    let what = format!("{family} {tag_scheme} {units:?}");
                    let prediction = predictor.predict(&[(&text, None)]).expect("it tags").remove(0);
                    let json = serde_json::to_value(prediction).expect("it is JSON");
                    assert_eq!(json["text"], text.as_str(), "{what}");
                    let list = if tag_scheme == TagScheme::Plain { &json["tags"] } else { &json["entities"] };
                    let joined = without_spaces(&passages(&text, list, &what));
                    // Some characters are outside entities.
                    assert!(tag_scheme == TagScheme::Entities || joined == without_spaces(&text), "{what} {text:?}");
                }
            }
        }
    }
}

#[test]
fn answers_are_passages_of_their_context() {
    let Some(assets) = assets() else { return };
    let device = Flex::device(0);
    device.seed(7);
    for family in FOLDERS {
        let folder = assets.join("reference/families").join(family);
        let predictor = predictor(&folder, |folder| {
            let answerer = fresh(2).question_answerer(folder, &device).expect("an encoder");
            TaskModel { network: Network::QuestionAnswering { model: answerer.model }, config: answerer.config }
        });
        for context in texts() {
            let prediction = predictor.predict(&[(" which ?", Some(&context))]).expect("it answers").remove(0);
            let json = serde_json::to_value(prediction).expect("it is JSON");
            let (start, end) = (json["start"].as_u64().expect("a number"), json["end"].as_u64().expect("a number"));
            let mut rest = context.chars().skip(start as usize);
            let slice: String = rest.by_ref().take((end - start) as usize).collect();
            assert_eq!(json["answer"], slice.as_str(), "{family} {context:?}");
            assert_eq!(slice.trim(), slice, "{family} {context:?}");
            assert_eq!(slice.is_empty(), context.is_empty(), "{family} {context:?}");
            assert!(rest.next().is_none_or(|next| !is_modifier(next)), "{family} {context:?}: {slice:?}");
        }
    }
}
