//! Every backend that runs here gives the same numbers.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use kiln_backend::{Backend, Flex, NdArray};
use kiln_bert::parameters;
use kiln_heads::{ClassificationHeadConfig, Pooling, SequenceClassifier, cross_entropy_sum};
use kiln_train::{AdamW, GradientSum};

use crate::tiny;

const ROWS: [usize; 5] = [0, 1, 2, 3, 4];

/// What a forward pass and a training step give.
struct Step {
    logits: Vec<f32>,
    loss: f32,
    /// By name, in the module's layout.
    gradients: BTreeMap<String, Vec<f32>>,
    /// By name, after the step, in a checkpoint's layout.
    weights: BTreeMap<String, Vec<f32>>,
}

const LEARNING_RATE: f64 = 1e-3;

fn one_step<B: Backend>() -> Step {
    let plain = B::device(0);
    let device = plain.clone().autodiff();
    let mut bert = tiny::bert(&plain);
    bert.pooler = None;
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
    head.classifier.weight = burn::module::Param::from_tensor(weight);
    let model = SequenceClassifier { bert, head, pooling: Pooling::Mean };
    let logits = tiny::numbers(model.forward(tiny::inputs(&ROWS, &plain)));

    let model = model.train();
    let targets = Tensor::<1, Int>::from_data([0, 2, 1, 1, 0], &device);
    let loss = cross_entropy_sum(model.forward(tiny::inputs(&ROWS, &device)), targets) / 5.0;
    let mut gradients = GradientSum::default();
    gradients.add(&model, loss.backward());
    let by_name = gradients.iter().map(|(name, gradient)| (name.to_owned(), tiny::numbers(gradient.clone()))).collect();
    let model = AdamW::new(0.01).step(model, gradients, LEARNING_RATE, 1.0);
    Step {
        logits,
        loss: loss.into_scalar::<f32>(),
        gradients: by_name,
        weights: parameters(&model).into_iter().map(|p| (p.name, p.values)).collect(),
    }
}

#[test]
fn flex_and_ndarray_agree() {
    let (flex, ndarray) = (one_step::<Flex>(), one_step::<NdArray>());
    tiny::assert_close(&flex.logits, &ndarray.logits, 1e-4, "logits");
    tiny::assert_close(&[flex.loss], &[ndarray.loss], 1e-4, "loss");
    for (name, gradient) in &flex.gradients {
        tiny::assert_close(gradient, &ndarray.gradients[name], 1e-4, &format!("gradient of {name}"));
    }
    for (name, weights) in &flex.weights {
        // Adam's first update is the sign of the gradient, so where a gradient is mere rounding, updates may be opposite.
        let rounding = flex.gradients[name].iter().any(|gradient| gradient.abs() < 1e-6);
        let tolerance = if rounding { 2.1 * LEARNING_RATE as f32 } else { 1e-4 };
        tiny::assert_close(weights, &ndarray.weights[name], tolerance, name);
    }
}
