//! Compares dropout of the fused operations with finite differences. The device's random stream is shared by the whole
//! process, so this file has a single test.

mod operations;

use burn::tensor::{Device, Tensor};
use kiln_kernels::{Activation, DropoutSeeds, OutputBlock, Products, RotaryAttention};
use operations::*;

/// Compares the gradients along a direction with the difference of two forward passes that drop the same values.
fn check_slope(what: &str, operands: &Operands, operation: impl Fn(&[Tensor<1>], &Operands) -> Tensor<3>) {
    const STEP: f32 = 1e-2;
    let seeded = |operands: &Operands| {
        Device::flex().seed(11);
        run(operands, &device(), &operation)
    };
    let (values, gradients) = seeded(operands);
    let directions: Vec<Vec<f32>> =
        operands.iter().map(|(values, _)| numbers(random([values.len()], &Device::flex()))).collect();
    let moved = |by: f32| -> Operands {
        let along = |((values, shape), direction): (&(Vec<f32>, Vec<usize>), &Vec<f32>)| {
            (values.iter().zip(direction).map(|(value, slope)| value + by * slope).collect(), shape.clone())
        };
        operands.iter().zip(&directions).map(along).collect()
    };
    let total = |values: &[f32]| {
        values.iter().enumerate().map(|(at, value)| f64::from(*value) * f64::from(coefficient(at))).sum::<f64>()
    };
    let (up, down) = (seeded(&moved(STEP)).0, seeded(&moved(-STEP)).0);
    let found: f64 = gradients.iter().flatten().zip(directions.iter().flatten()).map(|(g, d)| f64::from(g * d)).sum();
    let expected = (total(&up) - total(&down)) / f64::from(2.0 * STEP);
    assert!((found - expected).abs() <= 5e-3 * expected.abs().max(1.0), "{what}: a slope of {found}, not {expected}");
    assert_eq!(values, seeded(operands).0, "{what}: the same seed gives the same numbers");
    Device::flex().seed(12);
    assert_ne!(values, run(operands, &device(), &operation).0, "{what}: another seed gives others");
}

/// With its own seeds, an operation drops the same values in every state of the device's random stream.
fn check_seeds() {
    let operands = output_block_operands([2, 9, 11, 13]);
    let seeded = |device: &Device, device_seed: u64, seed: u64| {
        device.seed(device_seed);
        let products = Products { dropout_seeds: Some(DropoutSeeds::new(seed)), ..Products::default() };
        let block = |x: &[Tensor<1>], o: &Operands| {
            let pass = |residual| output_block(x, o, 0.3).forward(shaped(&x[0], &o[0]), residual, &products);
            pass(pass(shaped(&x[1], &o[1])))
        };
        run(&operands, device, &block).0
    };
    let expected = seeded(&Device::flex(), 1, 7);
    assert_eq!(seeded(&Device::flex(), 2, 7), expected, "without autodiff");
    assert_eq!(seeded(&device(), 3, 7), expected, "with autodiff");
    assert_ne!(seeded(&Device::flex(), 1, 8), expected, "another seed");
}

#[test]
fn dropout_of_the_forward_pass_is_that_of_the_backward_pass() {
    check_seeds();
    check_slope("output block", &output_block_operands([2, 9, 11, 13]), |x, o| {
        output_block(x, o, 0.3).forward(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), &Products::default())
    });
    check_slope("embeddings", &embeddings_operands(9, 13), |x, o| {
        let [words, segments] = ids([2, 9], &x[0].device());
        embeddings(x, o, 0.3).forward(words, segments)
    });
    check_slope("self-attention", &self_attention_operands([2, 70, 6]), |x, o| {
        let padding = padding([2, 70], &x[0].device());
        self_attention(x, o, 2, 0.3).forward(shaped(&x[0], &o[0]), padding, &Products::default())
    });
    check_slope("residual", &output_block_operands([2, 9, 11, 13]), |x, o| {
        let OutputBlock { norm, .. } = output_block(x, o, 0.3);
        let block = OutputBlock { norm: None, ..output_block(x, o, 0.3) };
        let sum = block.forward(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), &Products::default());
        norm.expect("the operands have one").forward(sum, &Products::default())
    });
    check_slope("gated linear", &gated_linear_operands([2, 9, 11, 13]), |x, o| {
        gated_linear(x, o, Activation::Gelu, 0.3).forward(shaped(&x[0], &o[0]), &Products::default())
    });
    check_slope("rotary attention", &rotary_attention_operands([2, 70, 8]), |x, o| {
        let padding = padding([2, 70], &x[0].device());
        let attention = RotaryAttention { window: Some(20), ..rotary_attention(x, o, 2, 0.3) };
        attention.forward(shaped(&x[0], &o[0]), padding, &Products::default())
    });
}
