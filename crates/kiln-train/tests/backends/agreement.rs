//! Every backend that is compiled in gives the same numbers.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use kiln_backend::{Backend, Entry, Flex, compiled_in};
use kiln_bert::parameters;
use kiln_heads::{ClassificationHeadConfig, Pooling, SequenceClassifier, cross_entropy_sum};
use kiln_kernels::Precision;
use kiln_train::{AdamW, GradientSum, Trainable};

use crate::tiny;

const ROWS: [usize; 5] = [0, 1, 2, 3, 4];

/// The results of a forward pass and a training step.
struct Step {
    logits: Vec<f32>,
    loss: f32,
    /// By parameter name, in the layout of the module.
    gradients: BTreeMap<String, Vec<f32>>,
    /// By parameter name, after the step, in the layout of a checkpoint.
    weights: BTreeMap<String, Vec<f32>>,
}

const LEARNING_RATE: f64 = 1e-3;

fn one_step<B: Backend>(precision: Precision) -> Step {
    let plain = B::device(0);
    let device = plain.clone().autodiff();
    let mut bert = tiny::bert(&plain);
    bert.pooler = None;
    bert.products.precision = precision;
    let shape = ClassificationHeadConfig {
        hidden_size: 24,
        hidden_layers: vec![],
        num_labels: 3,
        dropout: 0.0,
        initializer_range: 0.0,
    };
    let mut head = shape.init(&plain);
    let weight: Vec<f32> = (0..24 * 3).map(|i| (i as f32 * 1.7).sin()).collect();
    let weight = Tensor::<2>::from_data(burn::tensor::TensorData::new(weight, [24, 3]), &plain);
    head.classifier.weight = Some(burn::module::Param::from_tensor(weight));
    let model = SequenceClassifier { bert, head, pooling: Pooling::Mean };
    let logits = tiny::numbers(model.forward(tiny::inputs(&ROWS, &plain)));

    let model = model.train();
    let targets = Tensor::<1, Int>::from_data([0, 2, 1, 1, 0], &device);
    let loss = cross_entropy_sum(model.forward(tiny::inputs(&ROWS, &device)), targets) / 5.0;
    let mut gradients = GradientSum::default();
    gradients.add(&model, loss.backward());
    let by_name = gradients.iter().map(|(name, gradient)| (name.to_owned(), tiny::numbers(gradient.clone()))).collect();
    let model = AdamW::new(Trainable::default()).step(model, gradients, LEARNING_RATE, 1.0);
    Step {
        logits,
        loss: loss.into_scalar::<f32>(),
        gradients: by_name,
        weights: parameters(&model).into_iter().map(|p| (p.name, p.values)).collect(),
    }
}

#[test]
fn every_backend_compiled_in_agrees_with_flex() {
    let flex = one_step::<Flex>(Precision::F32);
    for name in compiled_in().into_iter().filter(|name| *name != Flex::NAME) {
        let f32 = kiln_backend::run(name, OneStep(Precision::F32)).expect("it is compiled in").expect("all have f32");
        assert_gradients_agree(&flex, &f32, if crate::has_tf32(name) { 2e-2 } else { 1e-4 }, name);
        assert_weights_agree(&flex, &f32, name);
        if let Some(bf16) = kiln_backend::run(name, OneStep(Precision::Bf16)).expect("it is compiled in") {
            assert_gradients_agree(&flex, &bf16, 2e-2, &format!("{name} in bf16"));
            assert_ne!(bf16.logits, f32.logits, "{name} rounds to bf16");
        }
    }
}

struct OneStep(Precision);

impl Entry for OneStep {
    type Output = Option<Step>;

    fn run<B: Backend>(self) -> Option<Step> {
        (self.0 == Precision::F32 || B::HAS_BF16).then(|| one_step::<B>(self.0))
    }
}

fn assert_gradients_agree(flex: &Step, other: &Step, tolerance: f32, backend: &str) {
    tiny::assert_close(&flex.logits, &other.logits, tolerance, &format!("{backend}: logits"));
    tiny::assert_close(&[flex.loss], &[other.loss], tolerance, &format!("{backend}: loss"));
    for (name, gradient) in &flex.gradients {
        tiny::assert_close(gradient, &other.gradients[name], tolerance, &format!("{backend}: gradient of {name}"));
    }
}

fn assert_weights_agree(flex: &Step, other: &Step, backend: &str) {
    for (name, weights) in &flex.weights {
        // Adam's first update is the sign of the gradient, so updates may be opposite if a gradient is a rounding error.
        let rounding = crate::has_tf32(backend) || flex.gradients[name].iter().any(|gradient| gradient.abs() < 1e-6);
        let tolerance = if rounding { 2.1 * LEARNING_RATE as f32 } else { 1e-4 };
        tiny::assert_close(weights, &other.weights[name], tolerance, &format!("{backend}: {name}"));
    }
}
