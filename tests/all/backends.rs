//! Every backend that runs here gives the same numbers.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use kiln_backend::{Backend, Flex, NdArray};
use kiln_bert::parameters;
use kiln_heads::{ClassificationHeadConfig, Pooling, SequenceClassifier, cross_entropy_sum};
use kiln_train::{AdamW, GradientSum};

use crate::tiny;

const ROWS: [usize; 5] = [0, 1, 2, 3, 4];

/// Logits before, loss and gradient norm of one step, and all weights after it.
fn one_step<B: Backend>() -> (Vec<f32>, [f32; 2], Vec<(String, Vec<f32>)>) {
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
    let numbers = [loss.into_scalar::<f32>(), gradients.norm() as f32];
    let model = AdamW::new(0.01).step(model, gradients, 1e-3, 1.0);
    (logits, numbers, parameters(&model).into_iter().map(|p| (p.name, p.values)).collect())
}

#[test]
fn flex_and_ndarray_agree() {
    let (flex_logits, flex_step, flex_weights) = one_step::<Flex>();
    let (ndarray_logits, ndarray_step, ndarray_weights) = one_step::<NdArray>();
    tiny::assert_close(&flex_logits, &ndarray_logits, 1e-4, "logits");
    tiny::assert_close(&flex_step, &ndarray_step, 1e-4, "loss and gradient norm");
    for ((name, flex), (_, ndarray)) in flex_weights.iter().zip(&ndarray_weights) {
        // A key's bias has no influence on the loss; its gradient is rounding, and Adam makes a full step of it.
        if !name.ends_with("key.bias") {
            tiny::assert_close(flex, ndarray, 1e-4, name);
        }
    }
}
