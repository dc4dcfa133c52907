//! Adapters, compared with results of peft and bitsandbytes.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_adapters::{
    Absmax, AdapterConfig, AdapterFile, Modules, Nf4, Patterns, PeftConfig, adapter_parameters, attach, load_adapter,
    merge, quantize,
};
use kiln_backend::{Backend, Flex};
use kiln_bert::{InFile, LayerInputs, Weights, initialize, parameters_where};
use kiln_heads::{
    Network, Pooling, PretrainedConfig, SequenceClassifier, TaskModel, cross_entropy_sum, load_adapted_model,
    load_model, merge_adapter, save_adapter, save_model,
};
use kiln_kernels::{Precision, Storage};
use kiln_schema::{LabelSet, ProblemType};
use kiln_train::{AdamW, GradientSum, Scope, Trainable};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::assets::assets;
use crate::families::Expected;
use crate::tiny;

const ADAPTERS: [&str; 3] = ["lora", "dora", "rslora"];

struct Reference {
    assets: PathBuf,
    base: Expected,
}

impl Reference {
    fn new() -> Option<Self> {
        let assets = assets()?;
        let base = Expected::read(&assets.join("reference/peft/base.safetensors"));
        Some(Self { assets, base })
    }

    fn model_folder(&self) -> PathBuf {
        self.assets.join("models/all-MiniLM-L6-v2")
    }

    fn adapter(&self, name: &str) -> PathBuf {
        self.assets.join("reference/peft").join(name)
    }

    /// The base model with the reference's head, without dropout.
    fn plain_model(&self, in_file: InFile, device: &Device) -> TaskModel {
        let config = PretrainedConfig { in_file, num_labels: 2, ..PretrainedConfig::default() };
        let folder = self.without_dropout();
        let mut pretrained =
            config.sequence_classifier(folder.path(), Pooling::Pooler, device).expect("a checkpoint with a pooler");
        let tensor =
            |name, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(self.base.numbers(name), shape), device);
        let classifier = &mut pretrained.model.head.classifier;
        classifier.weight = Some(Param::from_tensor(tensor("classifier.weight", [2, 384]).transpose()));
        classifier.bias = Some(Param::from_tensor(tensor("classifier.bias", [1, 2]).squeeze_dim(0)));
        let labels = LabelSet::new(["0", "1"]).expect("two names");
        let problem_type = ProblemType::default();
        let network = Network::SequenceClassification { model: pretrained.model, labels, problem_type };
        TaskModel { network, config: pretrained.config }
    }

    /// The base model's folder with a config without dropout.
    fn without_dropout(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let json = std::fs::read(self.model_folder().join("config.json")).expect("it has a config");
        let mut config: Value = serde_json::from_slice(&json).expect("it is JSON");
        config["hidden_dropout_prob"] = 0.0.into();
        config["attention_probs_dropout_prob"] = 0.0.into();
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("it is writable");
        std::fs::copy(self.model_folder().join("model.safetensors"), folder.path().join("model.safetensors"))
            .expect("it is writable");
        folder
    }

    fn logits(&self, model: &TaskModel) -> Vec<f32> {
        tiny::numbers(classifier(model).forward(self.base.inputs("eval.", &Flex::device(0))))
    }
}

fn classifier(model: &TaskModel) -> &SequenceClassifier {
    let Network::SequenceClassification { model, .. } = &model.network else { unreachable!("it is a classifier") };
    model
}

/// Options of the training steps.
#[derive(Clone, Copy, Debug)]
struct How {
    precision: Precision,
    is_checkpointed: bool,
}

/// Repeats the reference's steps, and returns the losses and norms with the trained model.
fn train(reference: &Reference, model: SequenceClassifier, how: How) -> (Vec<[f64; 2]>, SequenceClassifier) {
    let device = Flex::device(0).autodiff();
    let trainable = Trainable { scope: Scope::Adapters { pooler: false }, weight_decay: 0.0, ..Trainable::default() };
    let mut model = trainable.apply(model.train());
    model.bert.products.precision = how.precision;
    model.bert.layer_inputs = how.is_checkpointed.then(LayerInputs::default);
    let mut optimizer = AdamW::new(trainable);
    let (labels, _) = reference.base.ids("train.labels").expect("there are labels");
    let mut steps = Vec::new();
    for _ in 0..20 {
        let targets = Tensor::<1, Int>::from_data(TensorData::new(labels.clone(), [16]), &device);
        let loss = cross_entropy_sum(model.forward(reference.base.inputs("train.", &device)), targets) / 16.0;
        let mut gradients = GradientSum::default();
        let of_loss = loss.clone().backward();
        model.bert.backward(&of_loss, |of_layer| gradients.add(&model, of_layer));
        gradients.add(&model, of_loss);
        assert!(gradients.iter().all(|(name, _)| name.contains("lora_") || name.starts_with("head.")), "nothing else");
        let norm = gradients.norm();
        steps.push([loss.into_scalar::<f64>(), norm]);
        model = optimizer.step(model, gradients, 1e-3, GradientSum::clip_factor(norm, 1.0));
    }
    (steps, model.valid())
}

#[test]
fn logits_losses_and_merged_weights_are_peft_s() {
    let Some(reference) = Reference::new() else { return };
    let device = Flex::device(0);
    let plain = reference.plain_model(InFile::Words, &device);
    tiny::assert_close(&reference.logits(&plain), &reference.base.numbers("logits"), 1e-5, "the base's logits");
    let base = reference.without_dropout();
    for name in ADAPTERS {
        let folder = reference.adapter(name);
        let expected = Expected::read(&folder.join("expected.safetensors"));
        let load = |part: &str| load_adapted_model(base.path(), &folder.join(part), &device).expect(name).module;
        let initial = load("initial");
        tiny::assert_close(&reference.logits(&initial), &expected.numbers("logits_before"), 1e-5, name);
        let mut trained = load("trained");
        tiny::assert_close(&reference.logits(&trained), &expected.numbers("logits_adapter"), 1e-5, name);
        merge_adapter(&mut trained);
        assert!(!trained.network.has_adapters());
        tiny::assert_close(&reference.logits(&trained), &expected.numbers("logits_merged"), 1e-5, name);

        let json = std::fs::read(folder.join("expected.json")).expect("the reference is there");
        let json: Value = serde_json::from_slice(&json).expect("it is JSON");
        let how = How { precision: Precision::F32, is_checkpointed: name == "dora" };
        let frozen = base_bytes(classifier(&initial));
        let (steps, after) = train(&reference, classifier(&initial).clone(), how);
        for (step, [loss, norm]) in steps.into_iter().enumerate() {
            let of = |key: &str| json[key][step].as_f64().expect("a number");
            let (expected, expected_norm) = (of("losses"), of("gradient_norms"));
            assert!((loss - expected).abs() < 2e-3, "{name}, step {step}: {loss}, peft {expected}");
            assert!((norm / expected_norm - 1.0).abs() < 1e-2, "{name}, step {step}: {norm}, peft {expected_norm}");
        }
        assert!(base_bytes(&after) == frozen, "{name}: no byte of the base has changed");
        let found = tiny::numbers(after.forward(reference.base.inputs("eval.", &device)));
        tiny::assert_close(&found, &expected.numbers("logits_adapter"), 2e-2, name);
    }
}

/// The bytes of all parameters except adapters and head.
fn base_bytes(model: &SequenceClassifier) -> Vec<u8> {
    let parameters = parameters_where(&model.bert, &|name| !name.contains("lora_"));
    parameters.iter().flat_map(|parameter| &parameter.values).flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn bf16_goes_the_way_of_f32() {
    let Some(reference) = Reference::new() else { return };
    let base = reference.without_dropout();
    let device = Flex::device(0);
    let folder = reference.adapter("lora");
    let initial = load_adapted_model(base.path(), &folder.join("initial"), &device).expect("an adapter").module;
    let how = How { precision: Precision::Bf16, is_checkpointed: true };
    let (steps, _) = train(&reference, classifier(&initial).clone(), how);
    let json = std::fs::read(folder.join("expected.json")).expect("the reference is there");
    let json: Value = serde_json::from_slice(&json).expect("it is JSON");
    for (step, [loss, _]) in steps.into_iter().enumerate() {
        let expected = json["losses"][step].as_f64().expect("a number");
        assert!((loss / expected - 1.0).abs() < 3e-2, "step {step}: {loss}, peft {expected}");
    }
}

/// An adapter that is read and saved again equals the one that peft wrote.
#[test]
fn a_saved_adapter_is_peft_s() {
    let Some(reference) = Reference::new() else { return };
    let device = Flex::device(0);
    let base = reference.model_folder();
    for name in ADAPTERS {
        let folder = reference.adapter(name).join("trained");
        let mut model = load_adapted_model(&base, &folder, &device).expect(name).module;
        let adapter = AdapterFile::open(&folder).and_then(|file| file.adapter()).expect(name);
        let saved = tempfile::tempdir().expect("a temporary folder");
        save_adapter(saved.path(), &model, &adapter, "somewhere", 64).expect("it is writable");
        let [old, new] = [folder.as_path(), saved.path()]
            .map(|folder| Weights::from_file(&folder.join("adapter_model.safetensors")).expect("it has weights"));
        assert_eq!(old.names().collect::<Vec<_>>(), new.names().collect::<Vec<_>>(), "{name}");
        for tensor in old.names() {
            assert!(old.read(tensor).expect("floats") == new.read(tensor).expect("floats"), "{name}: {tensor}");
        }
        let [old, new] = [folder.as_path(), saved.path()].map(|folder| -> Value {
            let json = std::fs::read(folder.join("adapter_config.json")).expect("it has a config");
            serde_json::from_slice(&json).expect("it is JSON")
        });
        for key in ["peft_type", "task_type", "r", "lora_alpha", "bias", "use_rslora", "use_dora", "modules_to_save"] {
            let [old, new] = [&old[key], &new[key]].map(|value| value.as_f64().map_or(value.clone(), Value::from));
            assert_eq!(old, new, "{name}: {key}");
        }
        let again = load_adapted_model(&base, saved.path(), &device).expect(name).module;
        assert!(reference.logits(&again) == reference.logits(&model), "{name}: to the bit");
        // A merged adapter leaves a plain model.
        merge_adapter(&mut model);
        let plain = tempfile::tempdir().expect("a temporary folder");
        save_model(plain.path(), &model).expect("it is writable");
        let plain = load_model(plain.path(), &device).expect("a plain model");
        assert!(plain.unused.is_empty() && !plain.module.network.has_adapters());
        tiny::assert_close(&reference.logits(&plain.module), &reference.logits(&again), 1e-5, name);
    }
}

fn matrix(path: &Path) -> (Expected, Value) {
    let json = std::fs::read(path.parent().expect("it is in a folder").join("nf4.json")).expect("it is there");
    (Expected::read(path), serde_json::from_slice(&json).expect("it is JSON"))
}

#[test]
fn packed_matrices_are_bitsandbytes() {
    let Some(assets) = assets() else { return };
    for (name, shape) in [("384x384", [384, 384]), ("1536x384", [1536, 384]), ("100x70", [100, 70])] {
        let folder = assets.join("reference/nf4");
        let (plain, _) = matrix(&folder.join(format!("{name}.safetensors")));
        let original = plain.numbers("original");
        for is_nested in [false, true] {
            let name = if is_nested { format!("{name}.nested") } else { name.to_owned() };
            let (expected, json) = matrix(&folder.join(format!("{name}.safetensors")));
            let found = Nf4::new(&original, shape, is_nested);
            assert!(found.codes() == expected.bytes("weight"), "{name}");
            match found.absmax() {
                Absmax::Plain(absmax) => assert_eq!(*absmax, expected.numbers("weight.absmax"), "{name}"),
                Absmax::Nested { codes, absmax, offset } => {
                    assert!(*codes == expected.bytes("weight.absmax"), "{name}");
                    // The sum of the mean has another order.
                    tiny::assert_close(absmax, &expected.numbers("weight.nested_absmax"), 1e-6, &name);
                    let wanted = json["quant_states"][&name]["nested_offset"].as_f64().expect("a number");
                    assert!((f64::from(*offset) - wanted).abs() < 1e-7, "{name}: {offset}, not {wanted}");
                }
            }
            let wanted = expected.numbers("dequantized");
            let unpacked = found.unpack();
            let [output, input] = shape;
            let transposed: Vec<f32> = (0..output)
                .flat_map(|row| (0..input).map(move |column| (row, column)))
                .map(|(row, column)| unpacked[column * output + row])
                .collect();
            tiny::assert_close(&transposed, &wanted, if is_nested { 1e-6 } else { 0.0 }, &name);
        }
    }
}

#[test]
fn quantized_models_are_bitsandbytes() {
    let Some(reference) = Reference::new() else { return };
    let device = Flex::device(0);
    let (expected, json) = matrix(&reference.assets.join("reference/nf4/qlora.safetensors"));
    let hash = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let weights = Weights::from_folder(&reference.model_folder()).expect("it has weights");
    for (name, wanted) in json["quantized"].as_object().expect("a map") {
        let tensor = name.strip_prefix("bert.").expect("it is the encoder's");
        let shape = <[usize; 2]>::try_from(weights.shape(tensor).expect("it is there")).expect("a matrix");
        let found = Nf4::new(&weights.read(tensor).expect("floats").expect("it is there"), shape, false);
        assert_eq!(wanted["packed"], hash(found.codes()), "{name}");
        let absmax: Vec<u8> = found.absmax().values().iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(wanted["absmax"], hash(&absmax), "{name}");
    }
    let dense = reference.plain_model(InFile::Nothing, &device).network.bert_mut().num_params();
    for (is_nested, key, in_file) in [
        (false, "logits_nf4", InFile::Nothing),
        (false, "logits_nf4", InFile::WordsAndLayers),
        (true, "logits_nf4_nested", InFile::WordsAndLayers),
    ] {
        let mut model = reference.plain_model(in_file, &device);
        let bytes = quantize(model.network.bert_mut(), is_nested);
        assert!(bytes * 7 < dense * 4, "{bytes} bytes, of {dense} parameters");
        tiny::assert_close(&reference.logits(&model), &expected.numbers(key), 1e-5, key);
    }
    // An adapter on a quantized base model.
    let base = reference.without_dropout();
    let folder = reference.adapter("lora");
    let mut model = load_adapted_model(base.path(), &folder.join("trained"), &device).expect("an adapter").module;
    quantize(model.network.bert_mut(), false);
    tiny::assert_close(&reference.logits(&model), &expected.numbers("logits_nf4_lora"), 1e-5, "logits_nf4_lora");
    let mut initial = load_adapted_model(base.path(), &folder.join("initial"), &device).expect("an adapter").module;
    quantize(initial.network.bert_mut(), true);
    let how = How { precision: Precision::F32, is_checkpointed: false };
    let (steps, _) = train(&reference, classifier(&initial).clone(), how);
    assert!(steps[19][0] < steps[0][0] - 0.2, "it learns: {steps:?}");
    merge(initial.network.bert_mut());
    assert!(!initial.network.has_adapters());
}

/// peft matches names with the prefix of the whole model, or without it for an encoder alone. Its configs often also name
/// layers of other encoders.
#[test]
fn an_adapter_of_an_encoder_alone_is_named_without_the_prefix() {
    let device = Flex::device(0);
    let (bert, config) = (tiny::bert(&device), tiny::config());
    let read = |target_modules: Modules, prefix: &str| {
        let adapter = AdapterConfig { rank_pattern: Patterns::from([("query".to_owned(), 2)]), ..Default::default() };
        let mut source = bert.clone();
        let queries = AdapterConfig { target_modules: Modules::named(&["query"]), ..adapter.clone() };
        assert_eq!(attach(&mut source, &config, &queries, &device).expect("there are queries"), 2);
        let mut parameters = adapter_parameters(&source, &config, false);
        for parameter in &mut parameters {
            let name = parameter.name.strip_prefix("bert.").expect("the family's prefix");
            parameter.name = format!("{prefix}{name}");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let peft = PeftConfig::new(&AdapterConfig { target_modules, ..adapter }, "base", None, &[]);
        AdapterFile::write(folder.path(), &peft, parameters).expect("it is writable");
        let file = AdapterFile::open(folder.path()).expect("it is whole");
        load_adapter(bert.clone(), &config, &file, &device).map(|mut bert| {
            let layers = bert.linear_layers().into_iter();
            layers.filter_map(|(_, linear)| Some(linear.adapter.as_ref()?.lora_b.weight.dims()[0])).collect::<Vec<_>>()
        })
    };
    let pattern = |pattern: &str| Modules::Pattern(pattern.to_owned());
    for (target, prefix) in [
        (pattern(r"encoder\..*query"), ""),
        (pattern(r"bert\.encoder\..*query"), ""),
        (pattern(r"bert\.encoder\..*query"), "bert."),
        (Modules::named(&["query", "q_lin"]), "bert."),
    ] {
        assert_eq!(read(target.clone(), prefix).expect("it is read"), [2, 2], "{target:?} {prefix}");
    }
    let error = read(pattern(r"encoder\..*query"), "bert.").expect_err("peft finds none either");
    assert!(error.to_string().ends_with("adapter_config.json"), "{error}");
    let message = error.source().expect("the reason").to_string();
    assert!(message.ends_with("the first with the whole name bert.encoder.layer.0.attention.self.query"), "{message}");

    let beyond = AdapterConfig { layers_to_transform: vec![2], ..Default::default() };
    let message = attach(&mut bert.clone(), &config, &beyond, &device).expect_err("it has two layers").to_string();
    assert!(message.contains("leave out every layer") && message.contains("layer.0.attention.self.query"), "{message}");
}

/// What peft saved in full would be lost, and other initializations would be added twice.
#[test]
fn an_adapter_that_changes_more_than_its_layers_is_refused() {
    let device = Flex::device(0);
    let (mut bert, config) = (tiny::bert(&device), tiny::config());
    let adapter = AdapterConfig::default();
    attach(&mut bert, &config, &adapter, &device).expect("there are queries");
    let parameters = || adapter_parameters(&bert, &config, false);
    let peft = PeftConfig::new(&adapter, "base", None, &[]);
    let read = |peft: &PeftConfig, parameters| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        AdapterFile::write(folder.path(), peft, parameters).expect("it is writable");
        let file = AdapterFile::open(folder.path())?;
        load_adapter(tiny::bert(&device), &config, &file, &device).map(|_| ())
    };
    read(&peft, parameters()).expect("it is whole");
    let name = "bert.encoder.layer.0.output.LayerNorm.weight";
    let trained = kiln_bert::NamedParameter { name: name.to_owned(), ..parameters().remove(0) };
    let message = read(&peft, [parameters(), vec![trained]].concat()).expect_err("a norm").to_string();
    assert!(message.contains(name) && message.contains("trained in full"), "{message}");
    for (value, is_read) in [(json!("gaussian"), true), (json!(null), true), (json!("pissa_niter_4"), false)] {
        let mut peft = peft.clone();
        peft.extra.insert("init_lora_weights".to_owned(), value);
        let result = read(&peft, parameters()).map_err(|error| error.to_string());
        assert!(result.is_ok() == is_read && result.err().is_none_or(|error| error.contains("pissa_niter_4")));
    }
}

/// Several adapters on clones of one base model share its weights.
#[test]
fn clones_with_adapters_share_the_base() {
    let device = Flex::device(0);
    let bert = tiny::bert(&device);
    initialize(&bert);
    let config = tiny::config();
    let adapter = AdapterConfig { target_modules: Modules::named(&["dense"]), ..Default::default() };
    let mut clones = [bert.clone(), bert.clone()];
    for clone in &mut clones {
        // The attention output, both layers of the feed-forward block, and the pooler.
        assert_eq!(attach(clone, &config, &adapter, &device).expect("there are such layers"), 2 * 3 + 1);
    }
    let unknown = AdapterConfig { target_modules: Modules::named(&["q_lin"]), ..Default::default() };
    let message = attach(&mut clones[0], &config, &unknown, &device).expect_err("no such layer").to_string();
    assert!(message.contains("q_lin") && message.contains("query"), "{message}");
}
