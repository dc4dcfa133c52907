//! Loading and saving Hugging Face layouts: prefixes, shards, half precision, pickles and damaged files.

use std::path::Path;

use burn::tensor::{Int, Tensor};
use kiln_backend::{Backend, Flex};
use kiln_bert::{
    Bert, BertConfig, Error, FloatType, NamedParameter, Weights, groups, layers, load_bert, parameters, save,
};
use kiln_heads::{Crf, Network, Pooling, QuestionAnswerer, TaskModel, TokenClassifier, Units, load_model, save_model};
use kiln_schema::{LabelSet, ProblemType, TagScheme};

use crate::classifier::classifier;
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
    map.remove("absent");
    map.insert("pooler.dense.bias".to_owned(), "model-00001-of-00002.safetensors".into());
    write(&map);
    let message = Weights::from_folder(folder.path()).expect_err("it is in the other shard").to_string();
    assert!(message.contains("`pooler.dense.bias` is in the shard model-00002-of-00002"), "{message}");
    let twice = folder.path().join("model-00003-of-00003.safetensors");
    save(&twice, &second[..1], FloatType::F32).expect("it is writable");
    map.insert(second[0].name.clone(), "model-00003-of-00003.safetensors".into());
    write(&map);
    let message = Weights::from_folder(folder.path()).expect_err("it is in two shards").to_string();
    assert!(
        message.contains(&format!("`{}` is in ", second[0].name)) && message.contains("expected it once"),
        "{message}"
    );
    map.insert("absent".to_owned(), "../outside.safetensors".into());
    write(&map);
    assert!(Weights::from_folder(folder.path()).is_err(), "a shard outside of the folder");
}

#[test]
fn layers_that_the_config_leaves_out_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    save(&folder.path().join("model.safetensors"), &tiny::weights(), FloatType::F32).expect("it is writable");
    let weights = Weights::from_folder(folder.path()).expect("weights");
    let fewer = BertConfig { num_hidden_layers: 1, ..tiny::config() };
    let unused = load_bert(&fewer, &weights, &Flex::device(0)).expect("it has more than is asked for").unused;
    assert_eq!(layers(unused.iter().map(String::as_str)), 1);
    assert_eq!(groups(&unused), [("encoder.layer.1".to_owned(), 16)]);
    let names = ["bert.encoder.layer.10.x", "cls.predictions.bias", "cls.seq_relationship.bias"].map(str::to_owned);
    assert_eq!(groups(&names), [("encoder.layer.10".to_owned(), 1), ("cls".to_owned(), 2)]);

    let more = BertConfig { num_hidden_layers: 3, ..tiny::config() };
    let message = load_bert(&more, &weights, &Flex::device(0)).expect_err("it has two").to_string();
    assert!(
        message.contains("`num_hidden_layers`")
            && message.contains("requires 3 layers")
            && message.contains("2 layers"),
        "{message}"
    );
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tensors = tiny::weights();
    let damaged = tensors.iter_mut().find(|tensor| tensor.name == "encoder.layer.1.output.dense.weight");
    damaged.expect("every layer has it").values[17] = f32::NAN;
    save(&folder.path().join("model.safetensors"), &tensors, FloatType::F32).expect("it is writable");
    let weights = Weights::from_folder(folder.path()).expect("weights");
    let message = load_bert(&tiny::config(), &weights, &Flex::device(0)).expect_err("NaN").to_string();
    assert!(message.contains("model.safetensors: `encoder.layer.1.output.dense.weight` holds NaN"), "{message}");
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

/// A head that transformers has is saved as its class, and any other head next to the encoder. Both load unchanged.
#[test]
fn model_folders_come_back() {
    let device = Flex::device(0);
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Pooler] {
        for hidden in [true, false] {
            let mut model = classifier(pooling, &device);
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
            // The `AutoModel` classes of transformers refuse an unknown `model_type`.
            assert_eq!(config.contains(r#""model_type": "bert""#), native, "{config}");
            assert_eq!(config.contains(r#""model_type": "kiln-bert""#), !native, "{config}");
            assert_eq!(folder.path().join("head.safetensors").exists(), !native);

            let loaded = load_model(folder.path(), &device).expect("it was saved").module.network;
            let Network::SequenceClassification { model: loaded, labels: names, problem_type } = loaded else {
                panic!("it was a sequence classifier")
            };
            assert_eq!((names, problem_type), (labels, ProblemType::MultiLabelClassification));
            if !native {
                // The format of earlier versions.
                let earlier = config.replace("KilnModel", "BertModel").replace("kiln-bert", "bert");
                std::fs::write(folder.path().join("config.json"), earlier).expect("it is writable");
                load_model(folder.path(), &device).expect("it is read too");
            }
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
        let loaded = load_model(folder.path(), &device).expect("it was saved").module.network;
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
    let loaded = load_model(folder.path(), &device).expect("it was saved").module.network;
    let Network::QuestionAnswering { model: loaded } = loaded else { panic!("it was a question answerer") };
    let logits = |model: &QuestionAnswerer| model.forward(tiny::inputs(&[1, 4], &device)).map(tiny::numbers);
    assert_eq!(logits(&loaded), logits(&model));
}

/// A sequence classifier in the layout of transformers, with its config modified by `change`.
fn classifier_folder(num_labels: usize, change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let device = Flex::device(0);
    let mut model = classifier(Pooling::Pooler, &device);
    model.head = kiln_heads::ClassificationHeadConfig {
        hidden_size: 24,
        hidden_layers: vec![],
        num_labels,
        dropout: 0.0,
        initializer_range: 0.3,
    }
    .init(&device);
    let labels = LabelSet::new((0..num_labels).map(|id| format!("name {id}"))).expect("different names");
    let network = Network::SequenceClassification { model, labels, problem_type: ProblemType::default() };
    let folder = tempfile::tempdir().expect("a folder");
    save_model(folder.path(), &TaskModel { network, config: tiny::config() }).expect("it is writable");
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).expect("it was written");
    let mut config = serde_json::from_str(&text).expect("it is JSON");
    change(&mut config);
    std::fs::write(path, config.to_string()).expect("it is writable");
    folder
}

#[test]
fn labels_and_problem_type_default_as_in_transformers() {
    use serde_json::{Value, json};
    let read = |num_labels: usize, changes: &[(&str, Value)]| {
        let folder = classifier_folder(num_labels, |config| {
            config["problem_type"] = Value::Null;
            for (key, value) in changes {
                config[*key] = value.clone();
            }
        });
        let network = load_model(folder.path(), &Flex::device(0)).map(|loaded| loaded.module.network);
        network.map(|network| match network {
            Network::SequenceClassification { labels, problem_type, .. } => (labels.names().join(" "), problem_type),
            _ => panic!("it was a sequence classifier"),
        })
    };
    let (single, number) = (ProblemType::SingleLabelClassification, ProblemType::Regression);
    let is = |names: &str, problem_type| (names.to_owned(), problem_type);
    assert_eq!(read(1, &[]).expect("one logit"), is("name 0", number));
    assert_eq!(read(2, &[]).expect("two logits"), is("name 0 name 1", single));
    let none = ("id2label", Value::Null);
    assert_eq!(read(2, std::slice::from_ref(&none)).expect("the default"), is("LABEL_0 LABEL_1", single));
    let count = |number: i64| ("num_labels", json!(number));
    assert_eq!(read(1, &[none.clone(), count(1)]).expect("one logit"), is("LABEL_0", number));
    assert_eq!(read(3, &[none.clone(), count(3)]).expect("three logits"), is("LABEL_0 LABEL_1 LABEL_2", single));
    let said = ("problem_type", json!("multi_label_classification"));
    assert_eq!(read(1, &[said]).expect("one logit").1, ProblemType::MultiLabelClassification);
    for (changes, key) in [
        (vec![none.clone(), count(0)], "`num_labels`: it is 0"),
        (vec![none, ("num_labels", json!(1u64 << 60))], "`num_labels`"),
        (vec![("id2label", json!(["a", "b"]))], "`id2label`: it is [\"a\",\"b\"]"),
        (vec![("id2label", json!({"0": "a", "2": "b"}))], "`id2label`: there is no name for id 1"),
        (vec![("problem_type", json!("ranking"))], "`problem_type`"),
        (vec![("problem_type", json!("regression"))], "`problem_type`: found a regression of 2 numbers"),
        (vec![("classifier_dropout", json!(2))], "`classifier_dropout` is 2"),
    ] {
        let message = read(2, &changes).expect_err(key).to_string();
        assert!(message.contains(key) && message.contains("config.json"), "{message}");
    }
}

/// A tagger without label names gets the default names of transformers.
#[test]
fn a_tagger_without_names_has_those_of_transformers() {
    let folder = classifier_folder(3, |config| {
        config["architectures"] = serde_json::json!(["BertForTokenClassification"]);
        config["num_labels"] = serde_json::json!(3);
        config.as_object_mut().expect("a config is an object").remove("id2label");
    });
    let network = load_model(folder.path(), &Flex::device(0)).expect("it is whole").module.network;
    let Network::TokenClassification { labels, .. } = network else { panic!("its class is a tagger's") };
    assert_eq!(labels.names(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn a_head_s_entry_that_is_malformed_is_named() {
    use serde_json::json;
    for (entry, reason) in [
        (json!({"pooling": "max"}), "unknown variant `max`"),
        (json!({"task": "ranking"}), "unknown variant `ranking`"),
        (json!({"lora": 4}), "unknown field `lora`"),
        (json!("none"), "invalid type"),
    ] {
        let folder = classifier_folder(2, |config| {
            config["architectures"] = json!(["KilnModel"]);
            config["kiln_head"] = entry.clone();
        });
        let message = load_model(folder.path(), &Flex::device(0)).expect_err(reason).to_string();
        assert!(message.contains("config.json: `kiln_head`") && message.contains(reason), "{message}");
    }
    let folder = classifier_folder(2, |config| config["architectures"] = json!(["BertForMultipleChoice"]));
    let message = load_model(folder.path(), &Flex::device(0)).expect_err("no head of Kiln's").to_string();
    assert!(message.contains("BertForMultipleChoice") && message.contains("`kiln_head`"), "{message}");
}

/// `tests/fixtures/tiny-pickle` contains these weights as `torch.save` wrote them. The script
/// next to them computes their sines in double precision.
#[test]
fn pickles_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-pickle");
    assert!(loads_as_tiny(&folder, 1e-4).is_empty());
}

#[test]
fn sharded_pickles_are_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-pickle/pytorch_model.bin");
    let folder = tempfile::tempdir().expect("a folder");
    let shard = "pytorch_model-00001-of-00001.bin";
    std::fs::copy(fixture, folder.path().join(shard)).expect("it is part of the tests");
    let map: serde_json::Map<_, _> = tiny::weights().into_iter().map(|tensor| (tensor.name, shard.into())).collect();
    let json = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(folder.path().join("pytorch_model.bin.index.json"), json).expect("it is writable");
    assert!(loads_as_tiny(folder.path(), 1e-4).is_empty());
}

/// Tensors with any strides are read as `torch.load` reads them. `make_views.py` made the file.
#[test]
fn views_in_pickles_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-pickle/views.bin");
    let weights = Weights::from_file(&path).expect("it is part of the tests");
    for (name, shape, values) in [
        ("expanded_rows", vec![2, 3], vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0]),
        ("expanded_columns", vec![3, 2], vec![1.0, 1.0, 2.0, 2.0, 3.0, 3.0]),
        ("scalar", vec![2, 2], vec![4.0; 4]),
        ("transposed", vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        ("steps", vec![3], vec![2.0, 4.0, 6.0]),
        ("overlapping", vec![3, 2], vec![4.0, 5.0, 5.0, 6.0, 6.0, 7.0]),
    ] {
        assert_eq!(weights.shape(name), Some(&shape[..]), "{name}");
        assert_eq!(weights.read(name).expect("it is whole"), Some(values), "{name}");
    }
}

/// Opening a pipe waits for a writer, so this test would not end without the check of the file type.
#[cfg(unix)]
#[test]
fn pipes_are_refused() {
    for name in ["config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let folder = classifier_folder(2, |_| {});
        if name != "config.json" {
            std::fs::remove_file(folder.path().join("model.safetensors")).expect("it was written");
        }
        let path = folder.path().join(name);
        let _ = std::fs::remove_file(&path);
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("POSIX has `mkfifo`");
        assert!(made.success());
        let error = load_model(folder.path(), &Flex::device(0)).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
    }
}
