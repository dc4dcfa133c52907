//! Tiny checkpoints of each family, compared with the results of transformers.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, InFile, Inputs, Weights, parameters};
use kiln_heads::{
    Network, Pooling, PretrainedConfig, Start, TaskModel, Units, cross_entropy_sum, load_model, pool, save_model,
};
use kiln_kernels::Precision;
use kiln_predict::EmbedConfig;
use kiln_schema::{LabelSet, TagScheme};
use kiln_tokenize::{ModelLimits, Tokenizer};
use kiln_train::{AdamW, GradientSum, Trainable};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::assets::assets;
use crate::tiny;

/// The folders under `reference/families`.
pub const FOLDERS: [&str; 8] =
    ["bert", "albert", "roberta", "xlm-roberta", "distilbert", "electra", "ernie", "modernbert"];
const TOLERANCE: f32 = 1e-4;

pub struct Expected(Vec<u8>);

impl Expected {
    pub fn read(path: &Path) -> Self {
        Self(std::fs::read(path).expect("the reference is there"))
    }

    /// The integers and the shape of a tensor; `None` if there is no tensor with that name.
    pub fn ids(&self, name: &str) -> Option<(Vec<i32>, [usize; 2])> {
        let file = SafeTensors::deserialize(&self.0).expect("it is whole");
        let tensor = file.tensor(name).ok()?;
        let ids = tensor.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as i32).collect();
        Some((ids, [tensor.shape()[0], tensor.shape().get(1).copied().unwrap_or(1)]))
    }

    pub fn numbers(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).expect("it is whole");
        let tensor = file.tensor(name).expect("the reference has it");
        tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).expect("it is whole").tensor(name).is_ok()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.0).expect("it is whole");
        file.tensor(name).expect("the reference has it").data().to_vec()
    }

    pub fn inputs(&self, prefix: &str, device: &Device) -> Inputs {
        let (ids, shape) = self.ids(&format!("{prefix}input_ids")).expect("there are ids");
        let (mask, _) = self.ids(&format!("{prefix}attention_mask")).expect("there is a mask");
        let types = self.ids(&format!("{prefix}token_type_ids")).map_or_else(|| vec![0; ids.len()], |(types, _)| types);
        Inputs::new(&ids, &mask, &types, shape, device)
    }

    /// Compares the hidden states of real tokens. Those of padding are not used.
    fn hidden_states(&self, prefix: &str, found: &[f32], what: &str) {
        let (mask, _) = self.ids(&format!("{prefix}attention_mask")).expect("there is a mask");
        let expected = self.numbers(&format!("{prefix}last_hidden_state"));
        let width = expected.len() / mask.len();
        let real = |values: &[f32]| -> Vec<f32> {
            let rows = values.chunks(width).zip(&mask).filter(|(_, mask)| **mask == 1);
            rows.flat_map(|(row, _)| row.to_vec()).collect()
        };
        tiny::assert_close(&real(found), &real(&expected), TOLERANCE, what);
    }
}

fn logits(network: &Network, inputs: Inputs) -> Vec<f32> {
    match network {
        Network::SequenceClassification { model, .. } => tiny::numbers(model.forward(inputs)),
        Network::TokenClassification { model, .. } => {
            let [batch, seq] = inputs.input_ids.dims();
            let tokens = Tensor::arange(0..(batch * seq) as i64, &inputs.input_ids.device());
            tiny::numbers(model.forward(inputs, tokens))
        }
        _ => unreachable!("no folder has another head"),
    }
}

#[test]
fn hidden_states_and_logits_are_transformers_and_a_saved_folder_is_the_one_that_was_read() {
    let Some(assets) = assets() else { return };
    let device = Flex::device(0);
    for name in FOLDERS {
        let folder = assets.join("reference/families").join(name);
        let loaded = load_model(&folder, &device).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(loaded.unused.is_empty(), "{name}: {:?}", loaded.unused);
        let mut model = loaded.module;
        let expected = Expected::read(&folder.join("expected.safetensors"));
        for prefix in ["", "pair."] {
            let what = format!("{name} {prefix}");
            let found = model.network.bert_mut().forward(expected.inputs(prefix, &device));
            expected.hidden_states(prefix, &tiny::numbers(found), &what);
            let found = logits(&model.network, expected.inputs(prefix, &device));
            tiny::assert_close(&found, &expected.numbers(&format!("{prefix}logits")), TOLERANCE, &what);
            if expected.has(&format!("{prefix}pooler_output")) {
                let pooled = pool(model.network.bert(), expected.inputs(prefix, &device), Pooling::Pooler);
                let wanted = expected.numbers(&format!("{prefix}pooler_output"));
                tiny::assert_close(&tiny::numbers(pooled), &wanted, TOLERANCE, &format!("{what} pooled"));
            }
        }
        model.network.bert_mut().products.precision = Precision::Bf16;
        let found = logits(&model.network, expected.inputs("", &device));
        tiny::assert_close(&found, &expected.numbers("logits"), 0.2, &format!("{name} in bf16"));

        let saved = tempfile::tempdir().expect("a temporary folder");
        save_model(saved.path(), &model).expect("it is writable");
        check_same(&folder, saved.path(), name);
    }
}

/// Checks that two folders have the same tensors, and the same config except for Kiln's additions.
fn check_same(before: &Path, after: &Path, name: &str) {
    let [old, new] = [before, after].map(|folder| Weights::from_folder(folder).expect("it has weights"));
    assert_eq!(old.names().collect::<Vec<_>>(), new.names().collect::<Vec<_>>(), "{name}");
    for tensor in old.names() {
        assert!(old.read(tensor).expect("floats") == new.read(tensor).expect("floats"), "{name}: {tensor}");
    }
    let [old, new] = [before, after].map(|folder| -> Value {
        let json = std::fs::read(folder.join("config.json")).expect("it has a config");
        serde_json::from_slice(&json).expect("it is JSON")
    });
    for (key, value) in old.as_object().expect("it is an object") {
        // A missing value is the default.
        if !value.is_null() || new.get(key).is_some() {
            assert_eq!(new.get(key), Some(value), "{name}: {key}");
        }
    }
}

/// Includes embeddings of another width, and weights that stay in their file.
#[test]
fn vectors_are_as_wide_as_hidden_states() {
    let Some(assets) = assets() else { return };
    let device = Flex::device(0);
    for name in FOLDERS {
        let folder = assets.join("reference/families").join(name);
        let width = BertConfig::from_folder(&folder).expect("a config").hidden_size;
        let texts = [("The room <pad> was [PAD] small", None), ("房间很干净", Some("很好"))];
        let config = EmbedConfig { pooling: Pooling::Mean, normalize: true, precision: Precision::F32 };
        let loaded = config.load(&folder, &device).and_then(|embedder| embedder.embed(&texts));
        let stored = config.load_stored(&folder, &device).and_then(|embedder| embedder.embed(&texts));
        let [loaded, stored] =
            [loaded, stored].map(|vectors| vectors.unwrap_or_else(|error| panic!("{name}: {error}")));
        assert!(loaded.len() == 2 * width && loaded == stored, "{name}: {} and {}", loaded.len(), stored.len());
        for vector in loaded.chunks(width) {
            let length = vector.iter().map(|x| x * x).sum::<f32>();
            assert!((length - 1.0).abs() < 1e-5, "{name}: {length}");
        }
    }
}

#[test]
fn a_padding_token_inside_a_text_has_the_position_that_transformers_gives_it() {
    let Some(assets) = assets() else { return };
    let expected: Value = serde_json::from_str(include_str!("families/padding_inside.json")).expect("it is JSON");
    let numbers = |value: &Value| -> Vec<i32> {
        let rows: Vec<Vec<i32>> = serde_json::from_value(value.clone()).expect("they are rows of numbers");
        rows.concat()
    };
    let (ids, masks) = (numbers(&expected["rows"]), numbers(&expected["masks"]));
    let device = Flex::device(0);
    for (name, rows) in expected["logits"].as_object().expect("there are families") {
        let wanted: Vec<Vec<f32>> = serde_json::from_value(rows.clone()).expect("they are rows of numbers");
        let model = load_model(&assets.join("reference/families").join(name), &device).expect("it loads").module;
        let inputs = Inputs::new(&ids, &masks, &vec![0; ids.len()], [2, ids.len() / 2], &device);
        tiny::assert_close(&logits(&model.network, inputs), &wanted.concat(), TOLERANCE, name);
    }
}

#[test]
fn a_tagger_of_xlm_roberta_is_transformers() {
    let Some(assets) = assets() else { return };
    let folder = assets.join("reference/families/xlm-roberta/token-classification");
    let device = Flex::device(0);
    let model = load_model(&folder, &device).expect("a tagger").module;
    let expected = Expected::read(&folder.join("expected.safetensors"));
    let (mask, _) = expected.ids("attention_mask").expect("there is a mask");
    let (found, wanted) = (logits(&model.network, expected.inputs("", &device)), expected.numbers("logits"));
    let tags = wanted.len() / mask.len();
    for (at, _) in mask.iter().enumerate().filter(|(_, mask)| **mask == 1) {
        tiny::assert_close(&found[at * tags..][..tags], &wanted[at * tags..][..tags], TOLERANCE, "a token's logits");
    }
}

#[test]
fn tokens_are_transformers() {
    let Some(assets) = assets() else { return };
    for name in FOLDERS {
        let folder = assets.join("reference/families").join(name);
        let config = BertConfig::from_folder(&folder).expect("a config");
        let limits = ModelLimits {
            vocab_size: config.vocab_size,
            type_vocab_size: config.type_vocab_size,
            max_position_embeddings: config.max_sequence_length(),
        };
        let tokenizer = Tokenizer::from_folder(&folder).and_then(|tokenizer| tokenizer.for_model(limits));
        let tokenizer = tokenizer.unwrap_or_else(|error| panic!("{name}: {error}"));
        let json = std::fs::read(folder.join("expected.json")).expect("the reference is there");
        let texts: Value = serde_json::from_slice(&json).expect("it is JSON");
        let expected = Expected::read(&folder.join("expected.safetensors"));
        for (prefix, key) in [("", "texts"), ("pair.", "pairs")] {
            let (ids, [_, seq]) = expected.ids(&format!("{prefix}input_ids")).expect("there are ids");
            let (mask, _) = expected.ids(&format!("{prefix}attention_mask")).expect("there is a mask");
            for (row, text) in texts[key].as_array().expect("a list").iter().enumerate() {
                let (text, pair) = match text.as_array() {
                    Some(pair) => (pair[0].as_str().expect("a text"), pair[1].as_str()),
                    None => (text.as_str().expect("a text"), None),
                };
                let found = tokenizer.encode(text, pair).unwrap_or_else(|error| panic!("{name}: {error}"));
                let found: Vec<i32> = found.input_ids.iter().map(|&id| id as i32).collect();
                let length = mask[row * seq..][..seq].iter().sum::<i32>() as usize;
                assert_eq!(found, ids[row * seq..][..length], "{name}: {text:?} {pair:?}");
            }
        }
    }
}

/// A copy of ModernBERT's folder with another config.
fn modernbert_with(assets: &Path, config: &Value) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    let folder = assets.join("reference/families/modernbert");
    std::fs::copy(folder.join("model.safetensors"), copy.path().join("model.safetensors")).expect("it is writable");
    std::fs::write(copy.path().join("config.json"), config.to_string()).expect("it is writable");
    copy
}

#[test]
fn modernbert_s_config_is_read_in_both_forms_and_with_both_poolings() {
    let Some(assets) = assets() else { return };
    let (folder, device) = (assets.join("reference/families/modernbert"), Flex::device(0));
    let expected = Expected::read(&folder.join("expected.safetensors"));
    let config = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).expect("the reference is there")).expect("it is JSON")
    };
    for form in ["config.json", "config.hub.json"] {
        for pooling in ["cls", "mean"] {
            let mut config = config(form);
            config["classifier_pooling"] = pooling.into();
            let copy = modernbert_with(&assets, &config);
            let model = load_model(copy.path(), &device).expect("it is whole").module;
            let saved = tempfile::tempdir().expect("a temporary folder");
            save_model(saved.path(), &model).expect("it is writable");
            let again = load_model(saved.path(), &device).expect("what was saved is whole").module;
            for model in [model, again] {
                for prefix in ["", "pair."] {
                    let found = logits(&model.network, expected.inputs(prefix, &device));
                    let wanted = expected.numbers(&format!("{prefix}{pooling}.logits"));
                    tiny::assert_close(&found, &wanted, TOLERANCE, &format!("{form} {pooling} {prefix}"));
                }
            }
        }
    }
}

#[test]
fn ten_steps_are_pytorch_s() {
    let Some(assets) = assets() else { return };
    for name in ["roberta", "modernbert"] {
        follow_ten_steps(&assets.join("reference/families").join(name));
    }
}

fn follow_ten_steps(folder: &Path) {
    let json = std::fs::read(folder.join("finetune.json")).expect("the reference is there");
    let reference: Value = serde_json::from_slice(&json).expect("it is JSON");
    let series = |key: &str| -> Vec<f64> {
        reference[key].as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
    };
    let expected = Expected::read(&folder.join("expected.safetensors"));
    let plain = Flex::device(0);
    let device = plain.clone().autodiff();
    let mut without_dropout = load_model(folder, &plain).expect("a classifier").module;
    without_dropout.config.hidden_dropout_prob = 0.0;
    without_dropout.config.attention_probs_dropout_prob = 0.0;
    let copy = tempfile::tempdir().expect("a temporary folder");
    save_model(copy.path(), &without_dropout).expect("it is writable");
    let Network::SequenceClassification { model, .. } = load_model(copy.path(), &plain).expect("it").module.network
    else {
        unreachable!("it is a classifier")
    };
    let mut model = model.train();
    let mut optimizer = AdamW::new(Trainable::default());
    for (step, (loss, norm)) in series("losses").into_iter().zip(series("gradient_norms")).enumerate() {
        let targets = Tensor::<1, Int>::from_data(TensorData::new(vec![2, 0, 1], [3]), &device);
        let found = cross_entropy_sum(model.forward(expected.inputs("", &device)), targets) / 3.0;
        let mut gradients = GradientSum::default();
        gradients.add(&model, found.backward());
        let (found, found_norm) = (found.into_scalar::<f64>(), gradients.norm());
        assert!((found - loss).abs() < 1e-4, "step {step}: loss {found}, PyTorch {loss}");
        assert!((found_norm / norm - 1.0).abs() < 1e-3, "step {step}: norm {found_norm}, PyTorch {norm}");
        let scale = GradientSum::clip_factor(found_norm, 1.0);
        model = optimizer.step(model, gradients, 1e-3, scale);
    }
    let after = Expected::read(&folder.join("finetune.safetensors")).numbers("logits_after");
    let found = tiny::numbers(model.valid().forward(expected.inputs("", &plain)));
    tiny::assert_close(&found, &after, 1e-3, "logits after");
}

/// Checks a fresh tagging head and a fresh answer head: the class in the saved config, and the model after loading.
fn check_token_heads(folder: &Path, config: &PretrainedConfig, name: &str) {
    let device = Flex::device(0);
    let labels = LabelSet::new(["O", "B-A", "I-A", "B-B"]).expect("four names");
    let tagger = config.token_classifier(folder, false, &device).unwrap_or_else(|error| panic!("{name}: {error}"));
    let reader = config.question_answerer(folder, &device).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (units, tag_scheme) = (Units::Words, TagScheme::Entities);
    let tagged = Network::TokenClassification { model: tagger.model, labels, units, tag_scheme };
    let answered = Network::QuestionAnswering { model: reader.model };
    for (network, class) in [(tagged, "ForTokenClassification"), (answered, "ForQuestionAnswering")] {
        let saved = tempfile::tempdir().expect("a temporary folder");
        let model = TaskModel { network, config: tagger.config.clone() };
        save_model(saved.path(), &model).expect("it is writable");
        let again = load_model(saved.path(), &device).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(again.unused.is_empty(), "{name}: {:?}", again.unused);
        let found = again.module.config.extra["architectures"][0].as_str().expect("a name").to_owned();
        // A frozen encoder gets no fresh layers. Without a pre-trained head, ModernBERT then has Kiln's own head.
        let is_native = !(config.frozen && name == "modernbert");
        assert_eq!(found.ends_with(class), is_native, "{found}");
        assert_eq!(parameters(again.module.network.bert()), parameters(model.network.bert()), "{name} {class}");
    }
}

/// Every family's encoder becomes a model of every task that transformers has a class for, and loads from its folder.
#[test]
fn fresh_heads_are_saved_under_the_family_s_own_classes() {
    let Some(assets) = assets() else { return };
    let device = Flex::device(0);
    for name in FOLDERS {
        let folder = assets.join("reference/families").join(name);
        let config = PretrainedConfig {
            start: Start::Pretrained,
            architecture: None,
            layers: None,
            frozen: false,
            in_file: InFile::Nothing,
            hidden_layers: vec![],
            num_labels: 4,
            head_initializer_range: None,
        };
        check_token_heads(&folder, &config, name);
        let frozen = PretrainedConfig { frozen: true, start: Start::Random, ..config.clone() };
        check_token_heads(&folder, &frozen, name);
        let saved = tempfile::tempdir().expect("a temporary folder");
        let has_masked_lm = name != "electra";
        let masked = config.masked_lm(&folder, false, &device);
        assert_eq!(masked.is_ok(), has_masked_lm, "{name}");
        if let Ok(masked) = masked {
            let network = Network::MaskedLm { model: masked.model };
            save_model(saved.path(), &TaskModel { network, config: masked.config }).expect("it is writable");
            let again = load_model(saved.path(), &device).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(again.unused.is_empty(), "{name}: {:?}", again.unused);
            let class = again.module.config.extra["architectures"][0].as_str().expect("a name").to_owned();
            assert!(class.ends_with("ForMaskedLM"), "{class}");
        }
        let has_next_sentence = ["bert", "ernie"].contains(&name);
        assert_eq!(config.masked_lm(&folder, true, &device).is_ok(), has_next_sentence, "{name}");
    }
}
