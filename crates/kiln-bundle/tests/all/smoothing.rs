//! Calibrated int8 is closer to f32 if a model has outliers, for every kind of encoder layer.

use std::fs;
use std::path::Path;

use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, Weights, initialize};
use kiln_bundle::{ActivationScales, Bundle, Error, Manifest, SealConfig, verify};
use kiln_heads::{ClassificationHeadConfig, Network, Pooling, SequenceClassifier, TaskModel, save_model};
use kiln_kernels::Precision;
use kiln_predict::Predictor;
use kiln_schema::{LabelSet, ProblemType};
use kiln_tokenize::Tokenizer;

type Text = (&'static str, Option<&'static str>);

/// Texts for calibration, and other texts for the comparison.
const TEXTS: [Text; 4] = [("房间很干净", None), ("服务不好", Some("早餐")), ("位置方便", None), ("价格贵", None)];
const OTHERS: [Text; 3] = [("早餐很丰富，服务也好", None), ("房间", Some("价格")), ("不方便", None)];

/// A classifier with outliers.
fn write_model(folder: &Path, sample: &Path, model_type: &str) {
    let (tokenizer, device) = (Tokenizer::from_folder(sample).expect("the sample is whole"), Flex::device(0));
    device.seed(11);
    let mut config = BertConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 70,
        initializer_range: 0.15,
        ..BertConfig::base()
    };
    config.extra.insert("model_type".to_owned(), model_type.into());
    let head = ClassificationHeadConfig {
        hidden_size: 48,
        hidden_layers: vec![],
        num_labels: 2,
        dropout: 0.0,
        initializer_range: 0.15,
    };
    let mut model = SequenceClassifier { bert: config.init(&device), head: head.init(&device), pooling: Pooling::Mean };
    initialize(&model);
    crate::outliers::add_outliers(&mut model.bert);
    let (labels, problem_type) = (LabelSet::new(["a", "b"]).expect("two names"), ProblemType::default());
    fs::create_dir(folder).expect("a folder");
    tokenizer.save(folder).expect("it is writable");
    let network = Network::SequenceClassification { model, labels, problem_type };
    save_model(folder, &TaskModel { network, config }).expect("it is writable");
}

fn logits(predictor: &Predictor, texts: &[Text]) -> Vec<f32> {
    let prepared = texts.iter().map(|(text, pair)| predictor.prepare(text, *pair).expect("a good text"));
    let prepared: Vec<_> = prepared.collect();
    let computed = predictor.compute(&prepared.iter().collect::<Vec<_>>());
    computed.into_iter().flat_map(|computed| computed.expect("finite logits").logits).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

#[test]
fn outliers_cost_less_once_they_are_smoothed() {
    let _turn = crate::random_turn();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sample = kiln_sample::unpack(&folder.path().join("sample")).expect("it is writable").model;
    let (device, config) = (Flex::device(0), SealConfig { precision: Precision::Int8 });
    for model_type in ["bert", "albert", "modernbert"] {
        let [model, plain, smoothed, again, fixed] = ["model", "plain", "smoothed", "again", "fixed"]
            .map(|name| folder.path().join(format!("{model_type}-{name}")));
        write_model(&model, &sample, model_type);
        config.seal(&model, &plain, &device).expect("it is whole");
        let seal = |out: &Path, scales| -> Manifest {
            let sealing = config.prepare(&model, out, &device).expect("it is whole");
            sealing.smooth(&TEXTS, scales, &device).expect("the texts are good").finish(None).expect("it is writable")
        };
        let manifest = seal(&smoothed, ActivationScales::Dynamic);
        assert_eq!(verify(&smoothed).expect("nothing was changed"), manifest);
        let found = manifest.smoothing.clone().expect("it was calibrated");
        assert_eq!((found.texts, found.candidates.len()), (TEXTS.len(), 4), "{found:?}");
        assert!(found.strength.is_some(), "{model_type}: {found:?}");

        let bundled = |path: &Path| {
            let bundle = Bundle::open(path, &device).expect("it is whole");
            logits(bundle.predictor().expect("it has a head"), &OTHERS)
        };
        let full = logits(&Predictor::from_folder(&model, &device).expect("it is whole"), &OTHERS);
        let [before, after] = [&plain, &smoothed].map(|path| distance(&bundled(path), &full));
        assert!(after * 1.5 < before, "{model_type}: {after}, {before} without smoothing; {found:?}");

        // Without int8 (on another backend, or when they are read) the smoothed weights are the same model.
        let [own, stored] = [&model, &smoothed].map(|path| Weights::from_folder(path).expect("it is whole"));
        let inputs = stored.names().filter(|name| name.ends_with("_smoothing")).count();
        let expected = if model_type == "modernbert" { 1 } else { 5 * if model_type == "albert" { 1 } else { 2 } };
        assert_eq!(inputs, expected, "{model_type}: inputs that nothing else smooths");
        for name in stored.names().filter(|name| name.ends_with("_smoothing") && !name.contains("value")) {
            let weight = name.strip_suffix("_smoothing").expect("it ends so");
            let [own, stored] = [&own, &stored].map(|weights| weights.read(weight).expect("floats").expect("a weight"));
            // In a fused weight of queries, keys and values, only the queries: the values are also smoothed for the context.
            let first = own.len() / if weight.contains("qkv") { 3 } else { 1 };
            let length = own[..first].iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!(distance(&own[..first], &stored[..first]) < 0.05 * length, "{model_type}: {weight}");
        }
        let same = seal(&again, ActivationScales::Dynamic);
        assert_eq!((same.sha256, same.smoothing), (manifest.sha256, manifest.smoothing), "{model_type}");

        // Smoothing reduces the effect of outliers with static scales too.
        let found = seal(&fixed, ActivationScales::Static).smoothing.expect("it was calibrated");
        assert_eq!((found.scales, found.candidates.len()), (ActivationScales::Static, 4), "{found:?}");
        let fixed_distance = distance(&bundled(&fixed), &full);
        assert!(
            fixed_distance * 1.2 < before,
            "{model_type}: {fixed_distance} with static scales, {before} plain; {found:?}"
        );
        let stored = Weights::from_folder(&fixed).expect("it is whole");
        let ranges: Vec<&str> = stored.names().filter(|name| name.ends_with("_input_range")).collect();
        let layers = if model_type == "albert" { 1 } else { 2 };
        assert_eq!(ranges.len(), layers * if model_type == "modernbert" { 4 } else { 6 }, "{model_type}: {ranges:?}");
        for name in ranges {
            let range = stored.read(name).expect("floats").expect("a tensor");
            assert!(range[0] < 0.0 && 0.0 < range[1], "{model_type}: {name} {range:?}");
        }
    }
}

#[test]
fn only_int8_is_calibrated_and_only_on_texts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = kiln_sample::unpack(&folder.path().join("sample")).expect("it is writable").model;
    let (out, device) = (folder.path().join("bundle"), Flex::device(0));
    let scales = ActivationScales::Dynamic;
    let prepare = |precision| SealConfig { precision }.prepare(&model, &out, &device).expect("it is whole");
    assert!(matches!(prepare(Precision::Bf16).smooth(&TEXTS, scales, &device), Err(Error::NotInt8)));
    assert!(matches!(prepare(Precision::Int8).smooth(&[], scales, &device), Err(Error::NoTexts)));
    assert!(!out.exists(), "what was not finished is gone");
    // The candidates of a masked language model are compared by its vectors.
    let sealing = prepare(Precision::Int8).smooth(&TEXTS, scales, &device).expect("the texts are good");
    let smoothed = sealing.finish(None).expect("it is writable").smoothing.expect("it was calibrated");
    assert!(smoothed.candidates.iter().all(|candidate| candidate.mean_squared_error > 0.0), "{smoothed:?}");
    let bundle = Bundle::open(&out, &device).expect("it is whole");
    assert!(bundle.predictor().expect("it has a head").predict(&[("房间很[MASK]净", None)]).is_ok());
}
