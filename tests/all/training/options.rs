//! Options of `[train]`: validation within an epoch, averaged weights, adversarial training and R-Drop.

use burn::module::Param;
use burn::nn::Embedding;
use kiln_bert::{Bert, Linear};
use kiln_eval::SplitReport;
use kiln_train::{Model, Objective};
use serde_json::Value;

use super::*;

#[derive(Module, Debug)]
struct ToyEmbeddings {
    word_embeddings: Embedding,
}

/// A linear layer on the mean of three word embeddings, as in `generate.py`.
#[derive(Module, Debug)]
struct Toy {
    embeddings: ToyEmbeddings,
    classifier: Linear,
}

const IDS: [[i32; 3]; 4] = [[0, 1, 2], [3, 4, 0], [1, 1, 4], [2, 3, 3]];
const LABELS: [i32; 4] = [0, 1, 1, 0];

impl Toy {
    fn new() -> Self {
        let device = Flex::device(0);
        let waves =
            |count: usize, step: f64| (1..=count).map(move |at| (step * at as f64).sin() as f32).collect::<Vec<_>>();
        let mut classifier = Linear::new([3, 2], 0.1, &device);
        classifier.weight = Some(Param::from_data(TensorData::new(waves(6, 1.1), [3, 2]), &device));
        classifier.bias = Some(Param::from_data(TensorData::new(waves(2, 0.4), [2]), &device));
        let weight = Param::from_data(TensorData::new(waves(15, 0.7), [5, 3]), &device);
        Self { embeddings: ToyEmbeddings { word_embeddings: Embedding { weight } }, classifier }
    }

    fn logits(&self, rows: &[usize], device: &Device) -> Tensor<2> {
        let ids: Vec<i32> = rows.iter().flat_map(|&row| IDS[row]).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows.len(), 3]), device);
        let words: Tensor<3> = self.embeddings.word_embeddings.forward(ids);
        self.classifier.forward(words.mean_dim(1).squeeze_dim::<2>(1))
    }
}

impl Model for Toy {}

struct ToySet;

impl Dataset for ToySet {
    fn rows(&self) -> usize {
        IDS.len()
    }

    fn lengths(&self, rows: std::ops::Range<usize>) -> std::borrow::Cow<'_, [usize]> {
        rows.map(|_| 3).collect::<Vec<_>>().into()
    }
}

impl TrainingSet for ToySet {
    type Model = Toy;

    fn loss(&self, model: &Toy, rows: &[usize], device: &Device) -> BatchLoss {
        let labels: Vec<i32> = rows.iter().map(|&row| LABELS[row]).collect();
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [rows.len()]), device);
        BatchLoss { sum: cross_entropy_sum(model.logits(rows, device), labels), right: None }
    }
}

impl EvaluationSet<Toy> for ToySet {
    type Output = Vec<f32>;

    fn output(&self, model: &Toy, _: usize, device: &Device) -> Vec<f32> {
        tiny::numbers(model.logits(&[0, 1, 2, 3], device))
    }

    fn report(&self, output: &Vec<f32>) -> Result<SplitReport, kiln_eval::Error> {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        kiln_eval::evaluate(output, &LABELS.map(|label| label as usize), &labels)
    }
}

/// Four clipped AdamW updates with and without adversarial training and averaging equal those of PyTorch (`generate.py`).
#[test]
fn adversaries_and_averages_are_pytorch_s() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("toy.json")).expect("it is JSON");
    let numbers = |value: &Value| -> Vec<f32> {
        value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
    };
    assert_eq!(cases.len(), 4);
    for case in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let option = |name: &str| case[name].as_f64().expect("a number");
        let config = TrainConfig {
            epochs: 4,
            batch_size: 4,
            learning_rate: 0.05,
            lr_scheduler: kiln_train::LrScheduler::Constant,
            warmup_ratio: 0.0,
            metric: kiln_train::Metric::Loss,
            fgm: option("fgm"),
            ema: option("ema"),
            ..TrainConfig::default()
        };
        let mut norms = Vec::new();
        let fitted = try_fit((&ToySet, Toy::new()), (folder.path(), false), &config, |event| {
            if let Event::Step { gradient_norm, .. } = event {
                norms.push(gradient_norm as f32);
            }
            ControlFlow::Continue(())
        });
        let fitted = fitted.expect("it trains");
        assert_eq!(fitted.best_epoch, 4, "each update lowers the loss");
        tiny::assert_close(&norms, &numbers(&case["gradient_norms"]), 1e-5, &format!("norms of {case}"));
        let Toy { embeddings, classifier } = fitted.model;
        let weight = classifier.weight.as_ref().expect("it is a tensor").val();
        for (name, found) in [
            ("words", tiny::numbers(embeddings.word_embeddings.weight.val())),
            ("classifier", tiny::numbers(weight)),
            ("bias", tiny::numbers(classifier.bias.as_ref().expect("a bias").val())),
        ] {
            tiny::assert_close(&found, &numbers(&case[name]), 1e-5, &format!("{name} of {case}"));
        }
    }
}

/// With three updates per epoch, the model is validated after every second update, across epochs, and at the end.
#[test]
fn a_model_is_validated_every_so_many_updates_and_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let fitted = fit(folder.path(), false, &TrainConfig { eval_steps: 2, ..config() }, go_on);
    let steps: Vec<(usize, usize)> = fitted.epochs.iter().map(|report| (report.epoch, report.step)).collect();
    assert_eq!(steps, [(1, 2), (2, 4), (2, 6), (3, 8), (3, 9)]);
    assert_eq!((fitted.end, fitted.steps, fitted.passes), (End::Complete, 9, 3.0));
    let best = fitted.epochs.iter().rfind(|report| report.best).expect("the first is at least");
    assert_eq!(fitted.best_epoch, best.epoch);
    let found = set().report(&set().output(&fitted.model, 2, &Flex::device(0))).expect("finite");
    assert_eq!(found.score("loss"), best.validation.get("loss").copied(), "the best is kept");

    // The interval is longer than an epoch.
    let folder = tempfile::tempdir().expect("a folder");
    let fitted = fit(folder.path(), false, &TrainConfig { eval_steps: 5, ..config() }, go_on);
    assert_eq!(fitted.epochs.iter().map(|report| report.step).collect::<Vec<_>>(), [5, 9]);

    // Only a validation ends a training early, not an epoch without one.
    let folder = tempfile::tempdir().expect("a folder");
    let patient = TrainConfig { eval_steps: 5, epochs: 5, early_stopping_patience: 1, ..config() };
    let fitted = fit(folder.path(), false, &patient, go_on);
    assert!(fitted.epochs.len() > 1 && fitted.epochs[1].step == 10, "{:?}", fitted.epochs);
}

#[test]
fn runs_with_each_option_are_resumed_to_the_bit() {
    let plain = config();
    for config in [
        TrainConfig { eval_steps: 2, ..plain.clone() },
        TrainConfig { eval_steps: 4, ema: 0.5, ..plain.clone() },
        TrainConfig { ema: 0.9, gradient_accumulation_steps: 2, ..plain.clone() },
        TrainConfig { fgm: 0.3, ..plain.clone() },
        TrainConfig { fgm: 0.3, ema: 0.9, gradient_accumulation_steps: 2, ..plain },
    ] {
        let (whole, parted) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let expected = fit(whole.path(), false, &config, go_on);
        for updates in 1..expected.steps {
            let part = fit(parted.path(), updates > 1, &config, stop_after(updates));
            assert!(part.end == End::Interrupted && part.steps == updates, "{updates}: {config:?}");
        }
        let resumed = fit(parted.path(), true, &config, go_on);
        assert_same_runs(&expected, &resumed);
        for name in ["best.safetensors", "last.safetensors"] {
            let read = |folder: &Path| Weights::from_file(&folder.join(name)).expect("a checkpoint");
            let (expected, found) = (read(whole.path()), read(parted.path()));
            for tensor in expected.names() {
                let values = |file: &Weights| file.read(tensor).expect("floats");
                assert_eq!(values(&expected), values(&found), "{tensor}: {config:?}");
            }
        }
    }
}

/// A checkpoint is damaged if averages are missing or have another shape.
#[test]
fn an_average_belongs_to_the_weights() {
    let average = "average.bert.encoder.layer.1.output.dense.bias";
    for (shape, message) in [(None, "averages of"), (Some(vec![4, 6]), "has shape [4, 6], expected [24]")] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = TrainConfig { ema: 0.9, ..config() };
        fit(folder.path(), false, &config, stop_after(2));
        let path = folder.path().join("last.safetensors");
        let weights = Weights::from_file(&path).expect("it was written");
        let tensors = weights.names().filter(|name| shape.is_some() || *name != average).map(|name| NamedParameter {
            name: name.to_owned(),
            shape: match &shape {
                Some(shape) if name == average => shape.clone(),
                _ => weights.shape(name).expect("it is listed").to_vec(),
            },
            values: weights.read(name).expect("floats").expect("it is listed"),
        });
        let note = weights.note().expect("a run's progress").to_owned();
        save_with_note(&path, &tensors.collect::<Vec<_>>(), note).expect("it is writable");
        let error = try_fit((&set(), model()), (folder.path(), true), &config, go_on).expect_err("it is damaged");
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// Without dropout, both passes of R-Drop agree and nothing is added. With dropout, their divergence is added.
#[test]
fn r_drop_adds_the_disagreement_of_two_passes() {
    let plain = Flex::device(0);
    let loss = |model: &SequenceClassifier, alpha: f64| {
        let BatchLoss { sum, right } = Objective::new(set()).with_r_drop(alpha).loss(model, &[0, 3, 4], &plain);
        (sum.into_scalar::<f64>(), right)
    };
    let model = model();
    let (alone, right) = loss(&model, 0.0);
    let (with, right_of_both) = loss(&model, 4.0);
    assert!((alone - with).abs() < 1e-6 * alone && right == right_of_both, "{alone} and {with}");

    let device = plain.autodiff();
    let dropping = kiln_bert::BertConfig { hidden_dropout_prob: 0.5, ..tiny::config() };
    let bert = dropping.init(&Flex::device(0));
    kiln_bert::initialize(&bert);
    let model = SequenceClassifier { bert: Bert { pooler: None, ..bert }, ..model }.train();
    let found = |alpha: f64| {
        device.seed(3);
        let objective = Objective::new(set()).with_r_drop(alpha);
        objective.loss(&model, &[0, 3, 4], &device).sum.inner().into_scalar::<f64>()
    };
    let (one, two) = (found(1.0), found(2.0));
    assert!(two > one, "the passes disagree: {one} and {two}");
}
