//! Hugging Face's layouts in and out: prefixes, shards, half precision, pickles, damage.

use std::path::Path;

use burn::tensor::{Int, Tensor};
use kiln_backend::{Backend, Flex};
use kiln_bert::{Bert, Error, FloatType, NamedParameter, Weights, load_bert, parameters, save};
use kiln_heads::{Crf, Network, Pooling, QuestionAnswerer, TaskModel, TokenClassifier, Units, load_model, save_model};
use kiln_schema::{LabelSet, ProblemType, TagScheme};

use crate::tiny;

fn loads_as_tiny(folder: &Path, tolerance: f32) -> Vec<String> {
    let weights = Weights::from_folder(folder).expect("weights");
    let loaded = load_bert(&tiny::config(), &weights, &Flex::device(0)).expect("a whole checkpoint");
    for (ours, expected) in parameters(&loaded.module).iter().zip(tiny::weights()) {
        assert_eq!((&ours.name, &ours.shape), (&expected.name, &expected.shape));
        tiny::assert_close(&ours.values, &expected.values, tolerance, &ours.name);
    }
    loaded.unused
}

fn rename(parameters: Vec<NamedParameter>, name: impl Fn(&str) -> String) -> Vec<NamedParameter> {
    parameters.into_iter().map(|p| NamedParameter { name: name(&p.name), ..p }).collect()
}

#[test]
fn prefixes_old_names_and_heads_on_top() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tensors = rename(tiny::weights(), |name| {
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        format!("bert.{old}")
    });
    tensors.push(NamedParameter { name: "cls.predictions.bias".to_owned(), shape: vec![2], values: vec![0.0; 2] });
    save(&folder.path().join("model.safetensors"), &tensors, FloatType::F32).expect("it is writable");
    assert_eq!(loads_as_tiny(folder.path(), 0.0), ["cls.predictions.bias"]);
}

#[test]
fn half_precision_is_rounded_to_nearest() {
    let folder = tempfile::tempdir().expect("a folder");
    save(&folder.path().join("model.safetensors"), &tiny::weights(), FloatType::F16).expect("it is writable");
    assert!(loads_as_tiny(folder.path(), 1e-3).is_empty());
}

#[test]
fn shards_with_an_index() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = {
        let all = tiny::weights();
        let (a, b) = all.split_at(9);
        (a.to_vec(), b.to_vec())
    };
    let mut map = serde_json::Map::new();
    for (shard, tensors) in
        [("model-00001-of-00002.safetensors", &first), ("model-00002-of-00002.safetensors", &second)]
    {
        save(&folder.path().join(shard), tensors, FloatType::F32).expect("it is writable");
        map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), shard.into())));
    }
    let index = folder.path().join("model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        let json = serde_json::json!({ "metadata": {}, "weight_map": map });
        kiln_files::write(&index, json.to_string().as_bytes()).expect("it is writable");
    };
    write(&map);
    assert!(loads_as_tiny(folder.path(), 0.0).is_empty());

    map.insert("absent".to_owned(), "model-00001-of-00002.safetensors".into());
    write(&map);
    let message = Weights::from_folder(folder.path()).expect_err("a tensor is missing").to_string();
    assert!(message.contains("absent") && message.contains("index.json"), "{message}");
    map.insert("absent".to_owned(), "../outside.safetensors".into());
    write(&map);
    assert!(Weights::from_folder(folder.path()).is_err(), "a shard outside of the folder");
}

#[test]
fn missing_tensors_are_all_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tensors = tiny::weights();
    tensors.retain(|tensor| !tensor.name.contains("layer.1.output"));
    save(&folder.path().join("model.safetensors"), &tensors, FloatType::F32).expect("it is writable");
    let weights = Weights::from_folder(folder.path()).expect("weights");
    match load_bert(&tiny::config(), &weights, &Flex::device(0)) {
        Err(Error::Missing { names, path }) => {
            assert_eq!(names.len(), 4, "{names:?}");
            assert!(names.contains(&"encoder.layer.1.output.LayerNorm.bias".to_owned()), "{names:?}");
            assert!(path.ends_with("model.safetensors"));
        }
        other => panic!("{other:?}"),
    }
    let wide = kiln_bert::BertConfig { intermediate_size: 41, ..tiny::config() };
    let message = load_bert(&wide, &weights, &Flex::device(0)).expect_err("another shape").to_string();
    assert!(message.contains("[40, 24]") && message.contains("[41, 24]"), "{message}");
}

/// transformers' own head is saved as its class, any other beside a plain `BertModel`; both come back the same.
#[test]
fn model_folders_come_back() {
    let device = Flex::device(0);
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Pooler] {
        for hidden in [true, false] {
            let mut model = tiny::classifier(pooling, &device);
            if !hidden {
                model.head = kiln_heads::ClassificationHeadConfig {
                    hidden_size: 24,
                    hidden_layers: vec![],
                    num_labels: 3,
                    dropout: 0.0,
                    initializer_range: 0.3,
                }
                .init(&device);
            }
            let labels = LabelSet::new(["a", "b", "c"]).expect("three names");
            let network = Network::SequenceClassification {
                model: model.clone(),
                labels: labels.clone(),
                problem_type: ProblemType::MultiLabelClassification,
            };
            let folder = tempfile::tempdir().expect("a folder");
            save_model(folder.path(), &TaskModel { network, config: tiny::config() }).expect("it is writable");

            let config = std::fs::read_to_string(folder.path().join("config.json")).expect("it was written");
            let native = pooling == Pooling::Pooler && !hidden;
            assert_eq!(config.contains("BertForSequenceClassification"), native, "{config}");
            assert_eq!(folder.path().join("head.safetensors").exists(), !native);

            let loaded = load_model(folder.path(), &device).expect("it was saved").network;
            let Network::SequenceClassification { model: loaded, labels: names, problem_type } = loaded else {
                panic!("it was a sequence classifier")
            };
            assert_eq!((names, problem_type), (labels, ProblemType::MultiLabelClassification));
            let rows = [3, 0, 4];
            let expected = tiny::numbers(model.forward(tiny::inputs(&rows, &device)));
            let ours = tiny::numbers(loaded.forward(tiny::inputs(&rows, &device)));
            assert_eq!(ours, expected, "{pooling:?}");
        }
    }
}

#[test]
fn model_folders_of_the_other_tasks_come_back() {
    let device = Flex::device(0);
    let tokens = || Tensor::<1, Int>::from_data([2, 13, 5], &device);
    for (hidden_layers, with_crf) in [(vec![], false), (vec![5], false), (vec![], true)] {
        let bert = Bert { pooler: None, ..tiny::bert(&device) };
        let native = hidden_layers.is_empty() && !with_crf;
        let head = kiln_heads::ClassificationHeadConfig {
            hidden_size: 24,
            hidden_layers,
            num_labels: 3,
            dropout: 0.0,
            initializer_range: 0.3,
        };
        let model = TokenClassifier { bert, head: head.init(&device), crf: with_crf.then(|| Crf::new(3, &device)) };
        let labels = LabelSet::new(["O", "B-A", "I-A"]).expect("three names");
        let (units, tag_scheme) = (Units::Characters, TagScheme::Plain);
        let network = Network::TokenClassification { model: model.clone(), labels, units, tag_scheme };
        let folder = tempfile::tempdir().expect("a folder");
        save_model(folder.path(), &TaskModel { network, config: tiny::config() }).expect("it is writable");
        let config = std::fs::read_to_string(folder.path().join("config.json")).expect("it was written");
        assert_eq!(config.contains("BertForTokenClassification"), native, "{config}");
        let loaded = load_model(folder.path(), &device).expect("it was saved").network;
        let Network::TokenClassification { model: loaded, units, tag_scheme, .. } = loaded else {
            panic!("it was a token classifier")
        };
        assert_eq!((units, tag_scheme), (Units::Characters, TagScheme::Plain));
        let logits = |model: &TokenClassifier| tiny::numbers(model.forward(tiny::inputs(&[0, 2], &device), tokens()));
        assert_eq!(logits(&loaded), logits(&model));
        assert_eq!(loaded.crf.map(|crf| crf.to_host()), model.crf.map(|crf| crf.to_host()));
    }

    let bert = Bert { pooler: None, ..tiny::bert(&device) };
    let model = QuestionAnswerer::new(bert, &tiny::config(), &device);
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::QuestionAnswering { model: model.clone() };
    save_model(folder.path(), &TaskModel { network, config: tiny::config() }).expect("it is writable");
    let loaded = load_model(folder.path(), &device).expect("it was saved").network;
    let Network::QuestionAnswering { model: loaded } = loaded else { panic!("it was a question answerer") };
    let logits = |model: &QuestionAnswerer| model.forward(tiny::inputs(&[1, 4], &device)).map(tiny::numbers);
    assert_eq!(logits(&loaded), logits(&model));
}

/// `tests/fixtures/tiny-pickle` holds these weights as `torch.save` wrote them; its script, which computes their sines in
/// double precision, stands beside it.
#[test]
fn pickles_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-pickle");
    assert!(loads_as_tiny(&folder, 1e-4).is_empty());
}
