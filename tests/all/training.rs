//! The loop on a tiny model: every tensor learns, accumulation is exact, a resumed run is the uninterrupted one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::{LayerInputs, NamedParameter, parameters};
use kiln_heads::{Pooling, SequenceClassifier, cross_entropy_sum};
use kiln_schema::LabelSet;
use kiln_train::{AdamW, Encoded, Event, Fit, Fitted, GradientSum, Targets, TrainConfig};

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
        let model = tiny::classifier(pooling, &Flex::device(0)).train();
        let before = by_name(&model);
        let sum = gradients(&model, &[&[0, 1, 2, 3, 4]]);
        let model = AdamW::new(0.01).step(model, sum, 1e-3, 1.0);
        for (name, after) in by_name(&model) {
            assert_ne!(before[&name].values, after.values, "{pooling:?}: {name} has not changed");
        }
    }
}

#[test]
fn uneven_batches_accumulate_to_the_whole_batch() {
    let model = tiny::classifier(Pooling::Cls, &Flex::device(0)).train();
    let step = |batches: &[&[usize]]| {
        let sum = gradients(&model, batches);
        (sum.norm(), by_name(&AdamW::new(0.01).step(model.clone(), sum, 1e-3, 1.0)))
    };
    let (whole_norm, whole) = step(&[&[0, 1, 2, 3, 4]]);
    let (parts_norm, parts) = step(&[&[4, 0], &[2], &[1, 3]]);
    assert!((whole_norm / parts_norm - 1.0).abs() < 1e-5, "{whole_norm} and {parts_norm}");
    for (name, whole) in whole {
        // A key's bias has no influence on the loss; its gradient is rounding, and Adam makes a full step of it.
        if !name.ends_with("key.bias") {
            tiny::assert_close(&whole.values, &parts[&name].values, 1e-4, &name);
        }
    }
}

#[test]
fn gradient_checkpointing_changes_no_bit() {
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Pooler] {
        let model = tiny::classifier(pooling, &Flex::device(0)).train();
        let mut checkpointed = model.clone();
        checkpointed.bert.layer_inputs = Some(LayerInputs::default());
        let [expected, found] = [model, checkpointed].map(|model| {
            let sum = gradients(&model, &[&[0, 1, 2], &[3, 4]]);
            sum.iter().map(|(name, gradient)| (name.to_owned(), tiny::numbers(gradient.clone()))).collect::<Vec<_>>()
        });
        assert!(expected.len() > 20 && expected == found, "{pooling:?}");
    }
}

/// Dropout is drawn anew while training, and off in evaluation.
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

fn fit(folder: &Path, resume: bool, stop_after: usize) -> Fitted<SequenceClassifier> {
    let device = Flex::device(0);
    let labels = LabelSet::new(["a", "b", "c"]).expect("three names");
    let train = Encoded::new(tiny::encodings(), Targets::Labels(TARGETS.to_vec(), labels), 0);
    let config = TrainConfig {
        epochs: 3,
        batch_size: 2,
        gradient_accumulation_steps: 2,
        learning_rate: 1e-2,
        ..TrainConfig::default()
    };
    let fit = Fit { train: &train, validation: &train, config: &config, device: &device, checkpoints: folder, resume };
    // The head's fresh weights are random; both runs must start from the same.
    let mut model = tiny::classifier(Pooling::Cls, &device);
    model.head = kiln_bert::load(model.head, &head_weights(folder), "").expect("the same shape").module;
    fit.run(model, &mut |event| match event {
        Event::Step { step, .. } if step >= stop_after => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .expect("a tiny run trains")
}

fn head_weights(folder: &Path) -> kiln_bert::Weights {
    let head = parameters(&tiny::classifier(Pooling::Cls, &Flex::device(0)).head);
    let waves = head.into_iter().map(|parameter| {
        let values = (0..parameter.values.len()).map(|i| (i as f32 * 0.9).sin() * 0.5).collect();
        NamedParameter { values, ..parameter }
    });
    let path = folder.join("head.safetensors");
    kiln_bert::save(&path, &waves.collect::<Vec<_>>(), Default::default()).expect("it is writable");
    kiln_bert::Weights::from_file(&path).expect("it was written")
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_to_the_bit() {
    let (whole, parted) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let expected = fit(whole.path(), false, usize::MAX);
    assert!(!expected.interrupted && expected.steps == 6 && expected.epochs.len() == 3);

    // Stopped within the first epoch, then within the second.
    for stop_after in [1, 3] {
        let part = fit(parted.path(), stop_after > 1, stop_after);
        assert!(part.interrupted && part.steps == stop_after);
    }
    let resumed = fit(parted.path(), true, usize::MAX);
    assert_eq!(by_name(&expected.model), by_name(&resumed.model));
    let read = |folder: &Path, name| std::fs::read(folder.join(name)).expect("a checkpoint");
    assert_eq!(read(whole.path(), "best.safetensors"), read(parted.path(), "best.safetensors"));
    for (expected, resumed) in expected.epochs.iter().zip(&resumed.epochs) {
        assert_eq!(expected.train_loss.to_bits(), resumed.train_loss.to_bits());
        assert_eq!(expected.validation["loss"].to_bits(), resumed.validation["loss"].to_bits());
    }
}

#[test]
fn a_run_with_other_settings_is_not_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    fit(folder.path(), false, 1);
    let device = Flex::device(0);
    let labels = LabelSet::new(["a", "b", "c"]).expect("three names");
    let train = Encoded::new(tiny::encodings(), Targets::Labels(TARGETS.to_vec(), labels), 0);
    let fit = Fit {
        train: &train,
        validation: &train,
        config: &TrainConfig::default(),
        device: &device,
        checkpoints: folder.path(),
        resume: true,
    };
    let error = fit.run(tiny::classifier(Pooling::Cls, &device), &mut |_| ControlFlow::Continue(()));
    let message = error.expect_err("the settings differ").to_string();
    assert!(message.contains("last.safetensors") && message.contains("cannot be resumed"), "{message}");
}
