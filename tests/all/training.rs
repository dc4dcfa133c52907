//! The training loop on a tiny model: every tensor learns, accumulation is exact, and a resumed run equals an uninterrupted
//! one.

mod damaged;
mod cached;
mod options;
mod together;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::{LayerInputs, NamedParameter, Weights, load, parameters, save, save_with_note};
use kiln_heads::{Pooling, SequenceClassifier, cross_entropy_sum};
use kiln_schema::LabelSet;
use kiln_train::{
    AdamW, Alone, BatchLoss, Dataset, Encoded, End, EpochReport, Error, EvaluationSet, Event, FeatureCache,
    Fingerprint, Fit, Fitted, GradientSum, Targets, TokenFeatures, TokenFeaturesConfig, TrainConfig, Trainable,
    TrainingSet,
};

use crate::classifier::classifier;
use crate::tiny;

const TARGETS: [usize; 5] = [0, 2, 1, 1, 0];

fn gradients(model: &SequenceClassifier, batches: &[&[usize]]) -> GradientSum {
    let device = Flex::device(0).autodiff();
    let mut sum = GradientSum::default();
    for rows in batches {
        let targets: Vec<i32> = rows.iter().map(|&row| TARGETS[row] as i32).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows.len()]), &device);
        let loss = cross_entropy_sum(model.forward(tiny::inputs(rows, &device)), targets) / 5.0;
        let of_loss = loss.backward();
        model.bert.backward(&of_loss, |of_layer| sum.add(model, of_layer));
        sum.add(model, of_loss);
    }
    sum
}

fn by_name(model: &SequenceClassifier) -> BTreeMap<String, NamedParameter> {
    parameters(model).into_iter().map(|parameter| (parameter.name.clone(), parameter)).collect()
}

#[test]
fn after_one_step_every_tensor_has_changed() {
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Pooler] {
        let model = classifier(pooling, &Flex::device(0)).train();
        let before = by_name(&model);
        let sum = gradients(&model, &[&[0, 1, 2, 3, 4]]);
        let model = AdamW::new(Trainable::default()).step(model, sum, 1e-3, 1.0);
        for (name, after) in by_name(&model) {
            assert_ne!(before[&name].values, after.values, "{pooling:?}: {name} has not changed");
        }
    }
}

#[test]
fn uneven_batches_accumulate_to_the_whole_batch() {
    let model = classifier(Pooling::Cls, &Flex::device(0)).train();
    let step = |batches: &[&[usize]]| {
        let sum = gradients(&model, batches);
        (sum.norm(), by_name(&AdamW::new(Trainable::default()).step(model.clone(), sum, 1e-3, 1.0)))
    };
    let (whole_norm, whole) = step(&[&[0, 1, 2, 3, 4]]);
    let (parts_norm, parts) = step(&[&[4, 0], &[2], &[1, 3]]);
    assert!((whole_norm / parts_norm - 1.0).abs() < 1e-5, "{whole_norm} and {parts_norm}");
    for (name, whole) in whole {
        // A key's bias does not affect the loss. Its gradient is rounding noise, which Adam scales to a full step.
        if !name.ends_with("key.bias") {
            tiny::assert_close(&whole.values, &parts[&name].values, 1e-4, &name);
        }
    }
}

#[test]
fn gradient_checkpointing_changes_no_bit() {
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Pooler] {
        let model = classifier(pooling, &Flex::device(0)).train();
        let mut checkpointed = model.clone();
        checkpointed.bert.layer_inputs = Some(LayerInputs::default());
        let [expected, found] = [model, checkpointed].map(|model| {
            let sum = gradients(&model, &[&[0, 1, 2], &[3, 4]]);
            sum.iter().map(|(name, gradient)| (name.to_owned(), tiny::numbers(gradient.clone()))).collect::<Vec<_>>()
        });
        assert!(expected.len() > 20 && expected == found, "{pooling:?}");
    }
}

/// Dropout is random in training, and disabled in evaluation.
#[test]
fn dropout_is_for_training_alone() {
    let plain = Flex::device(0);
    let device = plain.clone().autodiff();
    let config = kiln_bert::BertConfig { hidden_dropout_prob: 0.5, ..tiny::config() };
    let bert = config.init(&plain);
    kiln_bert::initialize(&bert);
    let twice =
        |bert: &kiln_bert::Bert, device| [(); 2].map(|()| tiny::numbers(bert.forward(tiny::inputs(&[0], device))));
    let [first, second] = twice(&bert.clone().train(), &device);
    assert_ne!(first, second);
    let [first, second] = twice(&bert, &plain);
    assert_eq!(first, second);
    let [first, second] = twice(&bert.clone().train().valid(), &plain);
    assert_eq!(first, second);
}

/// A configuration with three epochs of three updates.
fn config() -> TrainConfig {
    TrainConfig { epochs: 3, batch_size: 2, learning_rate: 1e-2, ..TrainConfig::default() }
}

fn set() -> Encoded {
    let labels = LabelSet::new(["a", "b", "c"]).expect("three names");
    Encoded::new(tiny::encodings(), Targets::Labels(TARGETS.to_vec(), labels), 0)
}

/// A model with a fixed head. All runs must start from the same weights, and fresh ones would be random.
fn model() -> SequenceClassifier {
    let mut model = classifier(Pooling::Cls, &Flex::device(0));
    let waves = parameters(&model.head).into_iter().map(|parameter| {
        let values = (0..parameter.values.len()).map(|i| (i as f32 * 0.9).sin() * 0.5).collect();
        NamedParameter { values, ..parameter }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("head.safetensors");
    save(&path, &waves.collect::<Vec<_>>(), Default::default()).expect("it is writable");
    let weights = Weights::from_file(&path).expect("it was written");
    model.head = load(model.head, &weights, "").expect("the same shape").module;
    model
}

fn try_fit<S: TrainingSet + EvaluationSet<S::Model>>(
    (train, model): (&S, S::Model),
    (folder, resume): (&Path, bool),
    config: &TrainConfig,
    mut observe: impl FnMut(Event) -> ControlFlow<()>,
) -> Result<Fitted<S::Model>, Error> {
    let (device, fingerprint) = (&Flex::device(0), &Fingerprint::default());
    let reduction = &Alone;
    let fit = Fit { train, validation: train, config, fingerprint, device, checkpoints: folder, resume, reduction };
    fit.run(model, &mut observe)
}

fn fit(
    folder: &Path,
    resume: bool,
    config: &TrainConfig,
    observe: impl FnMut(Event) -> ControlFlow<()>,
) -> Fitted<SequenceClassifier> {
    try_fit((&set(), model()), (folder, resume), config, observe).expect("a tiny run trains")
}

fn go_on(_: Event) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Stops a training after some updates.
fn stop_after(updates: usize) -> impl FnMut(Event) -> ControlFlow<()> {
    move |event| match event {
        Event::Step { step, .. } if step >= updates => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    }
}

/// The reports without their times.
fn without_times(epochs: &[EpochReport]) -> Vec<EpochReport> {
    epochs.iter().map(|report| EpochReport { seconds: 0.0, train_seconds: 0.0, ..report.clone() }).collect()
}

fn assert_same_runs(expected: &Fitted<SequenceClassifier>, resumed: &Fitted<SequenceClassifier>) {
    assert_eq!(by_name(&expected.model), by_name(&resumed.model));
    assert_eq!(without_times(&expected.epochs), without_times(&resumed.epochs));
    assert_eq!((expected.end, resumed.end), (End::Complete, End::Complete));
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_to_the_bit() {
    let config = TrainConfig { gradient_accumulation_steps: 2, ..config() };
    let (whole, parted) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let expected = fit(whole.path(), false, &config, go_on);
    assert!(expected.steps == 6 && expected.epochs.len() == 3);
    assert!(expected.epochs[..2].iter().all(|report| report.learning_rate > 0.0), "{:?}", expected.epochs);

    // The run stops within the first epoch, after its last update, and within the second epoch.
    for updates in [1, 2, 3] {
        let part = fit(parted.path(), updates > 1, &config, stop_after(updates));
        assert!(part.end == End::Interrupted && part.steps == updates);
    }
    let resumed = fit(parted.path(), true, &config, go_on);
    assert_same_runs(&expected, &resumed);
    let read = |folder: &Path, name| std::fs::read(folder.join(name)).expect("a checkpoint");
    assert_eq!(read(whole.path(), "best.safetensors"), read(parted.path(), "best.safetensors"));
}

/// Copies the checkpoint that a kill in the fifth update would leave, and resumes from it.
#[test]
fn a_killed_run_goes_on_from_the_last_saved_update() {
    let whole = tempfile::tempdir().expect("a folder");
    let expected = fit(whole.path(), false, &config(), go_on);
    for (save_steps, save_minutes, saved) in [(0, 0.0, 3), (2, 0.0, 4), (0, 1e-12, 4)] {
        let config = TrainConfig { save_steps, save_minutes, ..config() };
        let (living, killed) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fit(living.path(), false, &config, |event| {
            if matches!(event, Event::Step { step: 5, .. }) {
                for name in ["last.safetensors", "best.safetensors"] {
                    std::fs::copy(living.path().join(name), killed.path().join(name)).expect("an epoch is complete");
                }
            }
            ControlFlow::Continue(())
        });
        let mut started = None;
        let resumed = fit(killed.path(), true, &config, |event| {
            if let Event::Started { step, epochs, .. } = event {
                started = Some((step, epochs.len()));
            }
            ControlFlow::Continue(())
        });
        assert_eq!(started, Some((saved, 1)), "every {save_steps} updates or {save_minutes} minutes");
        assert_same_runs(&expected, &resumed);
    }
}

#[test]
fn a_run_without_a_checkpoint_starts_from_the_beginning() {
    let (whole, empty) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    assert_same_runs(&fit(whole.path(), false, &config(), go_on), &fit(empty.path(), true, &config(), go_on));
}

#[test]
fn the_seconds_of_all_parts_of_an_epoch_are_summed() {
    const PAUSE: f64 = 0.3;
    let folder = tempfile::tempdir().expect("a folder");
    fit(folder.path(), false, &config(), |event| match event {
        Event::Step { step: 1, .. } => {
            std::thread::sleep(std::time::Duration::from_secs_f64(PAUSE));
            ControlFlow::Continue(())
        }
        Event::Step { step: 2, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let resumed = fit(folder.path(), true, &config(), go_on);
    assert!(resumed.epochs[0].seconds >= PAUSE, "{:?}", resumed.epochs[0]);
}

#[test]
fn a_time_limit_ends_the_epoch_and_the_training() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TrainConfig { max_hours: 1e-12, ..config() };
    let fitted = fit(folder.path(), false, &config, go_on);
    assert_eq!((fitted.end, fitted.steps, fitted.epochs.len(), fitted.best_epoch), (End::OutOfTime, 1, 1, 1));
    // The training remains ended, even with another limit.
    let resumed = fit(folder.path(), true, &TrainConfig { max_hours: 9.0, ..config }, go_on);
    assert_eq!((resumed.end, resumed.steps), (End::OutOfTime, 1));
    assert_eq!(by_name(&fitted.model), by_name(&resumed.model));
}

#[test]
fn a_batch_may_be_larger_than_the_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TrainConfig { batch_size: 1 << 58, gradient_accumulation_steps: usize::MAX, ..config() };
    assert_eq!(fit(folder.path(), false, &config, go_on).steps, 3);
}

#[test]
fn a_run_with_other_settings_is_not_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    fit(folder.path(), false, &config(), stop_after(1));
    let other = TrainConfig { epochs: 5, metric: kiln_train::Metric::MacroF1, save_steps: 7, ..config() };
    let error = try_fit((&set(), model()), (folder.path(), true), &other, go_on).expect_err("the settings differ");
    let message = error.to_string();
    assert!(message.contains("last.safetensors: the checkpoint belongs to a different run"), "{message}");
    let lines: Vec<&str> = message.lines().skip(1).map(str::trim).collect();
    assert_eq!(lines, ["train.epochs: 3 before, 5 now", "train.metric: accuracy before, macro_f1 now"]);

    let labels = LabelSet::new(["a", "b", "c"]).expect("three names");
    let fewer = Encoded::new(tiny::encodings()[..4].to_vec(), Targets::Labels(TARGETS[..4].to_vec(), labels), 0);
    let error = try_fit((&fewer, model()), (folder.path(), true), &config(), go_on).expect_err("a row is missing");
    assert!(error.to_string().contains("trained on 5 rows an epoch; now there are 4"), "{error}");
}

/// A set whose loss is NaN from the fifth batch on.
struct Diverging(Encoded, std::cell::Cell<usize>);

impl Dataset for Diverging {
    fn rows(&self) -> usize {
        self.0.rows()
    }

    fn lengths(&self, rows: std::ops::Range<usize>) -> std::borrow::Cow<'_, [usize]> {
        self.0.lengths(rows)
    }
}

impl TrainingSet for Diverging {
    type Model = SequenceClassifier;

    fn loss(&self, model: &SequenceClassifier, rows: &[usize], device: &Device) -> BatchLoss {
        self.1.set(self.1.get() + 1);
        let BatchLoss { sum, right } = self.0.loss(model, rows, device);
        BatchLoss { sum: if self.1.get() < 5 { sum } else { sum * f64::NAN }, right }
    }
}

impl EvaluationSet<SequenceClassifier> for Diverging {
    type Output = Vec<f32>;

    fn output(&self, model: &SequenceClassifier, batch_size: usize, device: &Device) -> Vec<f32> {
        self.0.output(model, batch_size, device)
    }

    fn report(&self, output: &Vec<f32>) -> Result<kiln_eval::SplitReport, kiln_eval::Error> {
        self.0.report(output)
    }
}

#[test]
fn a_diverged_run_keeps_its_checkpoints_and_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a checkpoint");
    let set = Diverging(set(), std::cell::Cell::new(0));
    let mut saved = None;
    let error = try_fit((&set, model()), (folder.path(), false), &config(), |event| {
        if let Event::Epoch(_) = event {
            saved = Some((read("last.safetensors"), read("best.safetensors")));
        }
        ControlFlow::Continue(())
    })
    .expect_err("the loss is no number");
    let message = error.to_string();
    for words in
        ["diverged", "NaN", "at update 5", "epoch so far, 1, is kept", "best.safetensors", "lower learning rate"]
    {
        assert!(message.contains(words), "`{words}` in {message}");
    }
    assert_eq!(saved, Some((read("last.safetensors"), read("best.safetensors"))));
}

/// Gradient checkpointing also works with a training set that is implemented outside Kiln.
#[test]
fn gradient_checkpointing_trains_the_same_weights() {
    let trained = |layer_inputs: Option<LayerInputs>| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut model = model();
        model.bert.layer_inputs = layer_inputs;
        let set = Diverging(set(), std::cell::Cell::new(0));
        let config = TrainConfig { epochs: 1, ..config() };
        by_name(&try_fit((&set, model), (folder.path(), false), &config, go_on).expect("it trains").model)
    };
    assert_eq!(trained(None), trained(Some(LayerInputs::default())));
}
