//! Compares the fused operations with burn's own, forward and backward.

mod kept;
mod low_rank;
mod operations;
mod pre_norm;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use kiln_kernels::{
    ActivatedLinear, Activation, Affine, Embeddings, PackedWeights, Precision, Products, Queries, SelfAttention, adamw,
};
use operations::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Compares relative to the largest of all numbers, because numbers that should be zero are rounding errors of the others.
#[track_caller]
fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32, what: &str) {
    let largest = expected.iter().flatten().fold(1f32, |largest, value| largest.max(value.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what} {at}");
        let furthest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest <= tolerance * largest, "{what} {at}: {furthest} apart, the largest being {largest}");
    }
}

fn check(
    what: &str,
    operands: &Operands,
    fused: impl Fn(&[Tensor<1>], &Operands, &Products) -> Tensor<3>,
    plain: impl Fn(&[Tensor<1>], &Operands, &Products) -> Tensor<3>,
) {
    let in_f32 = Products::default();
    let (expected, expected_gradients) = run(operands, &device(), &|leaves, operands| plain(leaves, operands, &in_f32));
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 5e-2), (Precision::Int8, 6e-2)] {
        let products = Products { precision, ..Products::default() };
        let (found, _) = run(operands, &Device::flex(), &|leaves, operands| fused(leaves, operands, &products));
        assert_close(
            &[found],
            std::slice::from_ref(&expected),
            tolerance,
            &format!("{what} {precision:?} without autodiff"),
        );
        let (found, gradients) = run(operands, &device(), &|leaves, operands| fused(leaves, operands, &products));
        assert_close(&[found], std::slice::from_ref(&expected), tolerance, &format!("{what} {precision:?}"));
        assert_close(&gradients, &expected_gradients, tolerance, &format!("{what} {precision:?}, gradient"));
        // The formulas of other backends.
        let (found, gradients) = run(operands, &device(), &|leaves, operands| plain(leaves, operands, &products));
        assert_close(&[found], std::slice::from_ref(&expected), tolerance, &format!("{what} {precision:?} by burn"));
        assert_close(&gradients, &expected_gradients, tolerance, &format!("{what} {precision:?} by burn, gradient"));
    }
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
];

fn linear_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>, products: &Products) -> Tensor<D> {
    ActivatedLinear { linear: Affine::new(weight, bias), activation: Activation::Gelu }.forward(x, products)
}

fn check_activated_linear([batch, seq, input, output]: [usize; 4], activation: Activation) {
    let layer = |x: &[Tensor<1>], o: &Operands| ActivatedLinear {
        linear: Affine::new(shaped(&x[1], &o[1]), shaped(&x[2], &o[2])),
        activation,
    };
    check(
        &format!("{activation:?} {batch}×{seq}×{input}×{output}"),
        &operands(&[&[batch, seq, input], &[input, output], &[output]]),
        |x, o, products| layer(x, o).forward(shaped::<3>(&x[0], &o[0]), products),
        |x, o, products| layer(x, o).plain(shaped::<3>(&x[0], &o[0]), products),
    );
}

fn check_output_block(dims: [usize; 4]) {
    check(
        &format!("{dims:?}"),
        &output_block_operands(dims),
        |x, o, products| output_block(x, o, 0.0).forward(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), products),
        |x, o, products| output_block(x, o, 0.0).plain(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), products),
    );
}

/// The gradients of an output block's inputs and of its linear layer, with γ and β trained or frozen.
fn gradients_below_a_norm(o: &Operands, is_frozen: bool) -> Vec<Vec<f32>> {
    let (_, mut gradients) = run(o, &device(), &|x, o| {
        let mut block = output_block(x, o, 0.0);
        if let (Some(norm), true) = (&mut block.norm, is_frozen) {
            (norm.gamma, norm.beta) = (norm.gamma.clone().detach(), norm.beta.clone().detach());
        }
        let out = block.forward(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), &Products::default());
        // γ and β get a gradient of zero from this term.
        out + (x[4].clone().sum() + x[5].clone().sum()).mul_scalar(0.0).reshape([1, 1, 1])
    });
    gradients.truncate(4);
    gradients
}

#[test]
fn a_frozen_norm_gives_the_same_gradients() {
    let mut o = output_block_operands([2, 19, 24, 48]);
    let [gamma, beta] = [4, 5].map(|at| o[at].0.clone());
    for (what, least) in [("computed from the output", 0.25), ("kept, as γ has a zero", 0.0)] {
        o[4].0 = gamma.iter().map(|gamma| least + gamma.abs()).collect();
        o[4].0[7] = least;
        o[5].0 = beta.iter().map(|beta| beta * 1.9).collect();
        assert_close(&gradients_below_a_norm(&o, true), &gradients_below_a_norm(&o, false), 2e-6, what);
    }
}

/// Sets padding to zero, because its outputs differ and are never used.
fn without_padding(x: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
    let [batch, seq, hidden] = x.dims();
    let device = x.device();
    let tokens = padding.bool_not().float().narrow(1, 0, seq).reshape([batch, seq, 1]).expand([batch, seq, hidden]);
    x.cast(burn::tensor::DType::F32) * tokens.to_device(&device)
}

fn check_self_attention([batch, seq, hidden]: [usize; 3], heads: usize) {
    let padding = |x: &Tensor<1>| padding([batch, seq], &x.device());
    for queries in [Queries::All, Queries::First] {
        let attention = |x: &[Tensor<1>], o: &Operands| SelfAttention { queries, ..self_attention(x, o, heads, 0.0) };
        check(
            &format!("{batch}×{seq}×{hidden} in {heads}, {queries:?}"),
            &self_attention_operands([batch, seq, hidden]),
            |x, o, products| {
                let out = attention(x, o).forward(shaped(&x[0], &o[0]), padding(&x[0]), products);
                without_padding(out, padding(&x[0]))
            },
            |x, o, products| {
                let out = attention(x, o).plain(shaped(&x[0], &o[0]), padding(&x[0]), products);
                without_padding(out, padding(&x[0]))
            },
        );
    }
}

fn check_embeddings([batch, seq, hidden]: [usize; 3]) {
    check(
        &format!("{batch}×{seq}×{hidden}"),
        &embeddings_operands(seq, hidden),
        |x, o, _| {
            let [words, segments] = ids([batch, seq], &x[0].device());
            embeddings(x, o, 0.0).forward(words, segments)
        },
        |x, o, _| {
            let [words, segments] = ids([batch, seq], &x[0].device());
            embeddings(x, o, 0.0).plain(words, segments)
        },
    );
}

#[test]
fn fused_operations_are_burn_s() {
    for dims in [[1, 1, 1, 1], [2, 3, 5, 7], [3, 33, 24, 49], [1, 70, 63, 130]] {
        check_activated_linear(dims, Activation::Gelu);
    }
    for dims in [[1, 1, 1, 3], [2, 3, 5, 7], [3, 33, 49, 24], [1, 70, 130, 63]] {
        check_output_block(dims);
    }
    for (dims, heads) in [([1, 1, 2], 1), ([2, 5, 6], 2), ([3, 9, 24], 3), ([2, 67, 32], 2), ([1, 130, 16], 1)] {
        check_self_attention(dims, heads);
    }
    for dims in [[1, 1, 3], [2, 5, 7], [3, 40, 33]] {
        check_embeddings(dims);
    }
}

proptest! {
    // The sizes are the same on every run, because rounding errors can come close to the tolerance.
    #![proptest_config(ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn fused_operations_are_burn_s_at_any_size(
        (batch, seq, input, hidden) in (1usize..4, 1usize..80, 1usize..70, 3usize..70),
        (heads, head) in (1usize..4, 1usize..20),
    ) {
        check_activated_linear([batch, seq, input, hidden], Activation::Gelu);
        check_output_block([batch, seq, input, hidden]);
        check_self_attention([batch, seq, heads * head], heads);
        check_embeddings([batch, seq, hidden]);
    }
}

/// Compares the gradients in f32 along a direction with the difference of two passes of burn's operations in f64.
fn check_slope(
    what: &str,
    operands: &Operands,
    fused: impl Fn(&[Tensor<1>], &Operands) -> Tensor<3>,
    plain: impl Fn(&[Tensor<1>], &Operands) -> Tensor<3>,
) {
    const STEP: f64 = 1e-5;
    let (_, gradients) = run(operands, &device(), &fused);
    let direction = |len| numbers(random([len], &Device::flex()));
    let total = |by: f64| -> f64 {
        let moved: Vec<Tensor<1>> = operands
            .iter()
            .map(|(values, _)| {
                let along = values.iter().zip(direction(values.len()));
                let moved: Vec<f64> = along.map(|(value, slope)| f64::from(*value) + by * f64::from(slope)).collect();
                Tensor::from_data(TensorData::new(moved, [values.len()]), (&Device::flex(), burn::tensor::DType::F64))
            })
            .collect();
        let out = plain(&moved, operands).into_data();
        let values = out.try_into_vec::<f64>().expect("f64 in, f64 out");
        values.iter().enumerate().map(|(at, value)| value * f64::from(coefficient(at))).sum()
    };
    let expected = (total(STEP) - total(-STEP)) / (2.0 * STEP);
    let slope = |gradient: &Vec<f32>| -> f64 {
        gradient.iter().zip(direction(gradient.len())).map(|(g, d)| f64::from(*g) * f64::from(d)).sum()
    };
    let found: f64 = gradients.iter().map(slope).sum();
    assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{what}: a slope of {found}, not {expected}");
}

/// `relu` is checked separately: its slope jumps at 0, and rounding decides on which side a number is.
#[test]
fn every_activation_is_burn_s_in_every_precision() {
    for activation in ACTIVATIONS.into_iter().filter(|activation| *activation != Activation::Relu) {
        for dims in [[2, 3, 5, 7], [3, 33, 24, 49]] {
            check_activated_linear(dims, activation);
        }
    }
    // Integers, which every precision represents exactly.
    let device = Device::flex();
    let [x, weight] =
        [Tensor::<2>::from_data([[1.0, -2.0]], &device), Tensor::from_data([[3.0, 1.0], [1.0, 2.0]], &device)];
    for precision in [Precision::F32, Precision::Bf16] {
        let linear = Affine::new(weight.clone(), Tensor::zeros([2], &device));
        let layer = ActivatedLinear { linear, activation: Activation::Relu };
        let out = layer.forward(x.clone(), &Products { precision, ..Products::default() });
        let is_rounded = out.dtype() == burn::tensor::DType::BF16;
        assert_eq!((numbers(out), is_rounded), (vec![1.0, 0.0], precision == Precision::Bf16));
    }
}

#[test]
#[should_panic(expected = "have [3, 2, 3, 3] elements")]
fn moments_of_another_length_are_refused() {
    let vector = |len| Tensor::<1>::ones([len], &Device::flex());
    let step = kiln_kernels::AdamWStep {
        gradient_scale: 1.0,
        decay: 1.0,
        betas: [0.9, 0.999],
        step_size: 0.1,
        correction: 1.0,
        epsilon: 1e-8,
    };
    adamw([vector(3), vector(2), vector(3)], vector(3), step);
}

#[test]
fn gradients_are_slopes_in_f64() {
    let products = Products::default();
    for activation in ACTIVATIONS {
        let layer = |x: &[Tensor<1>], o: &Operands| ActivatedLinear {
            linear: Affine::new(shaped(&x[1], &o[1]), shaped(&x[2], &o[2])),
            activation,
        };
        check_slope(
            &format!("linear and {activation:?}"),
            &operands(&[&[2, 5, 7], &[7, 9], &[9]]),
            |x, o| layer(x, o).forward(shaped::<3>(&x[0], &o[0]), &products),
            |x, o| layer(x, o).plain(shaped::<3>(&x[0], &o[0]), &Products::default()),
        );
    }
    check_slope(
        "output block",
        &output_block_operands([2, 5, 7, 9]),
        |x, o| output_block(x, o, 0.0).forward(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), &products),
        |x, o| output_block(x, o, 0.0).plain(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), &Products::default()),
    );
    for queries in [Queries::All, Queries::First] {
        let none = |x: &[Tensor<1>]| Tensor::<2, Bool>::from_data([[false; 9]; 2], &x[0].device());
        let attention = |x: &[Tensor<1>], o: &Operands| SelfAttention { queries, ..self_attention(x, o, 2, 0.0) };
        check_slope(
            "self-attention",
            &self_attention_operands([2, 9, 6]),
            |x, o| attention(x, o).forward(shaped(&x[0], &o[0]), none(x), &products),
            |x, o| attention(x, o).plain(shaped(&x[0], &o[0]), none(x), &products),
        );
    }
    check_slope(
        "embeddings",
        &embeddings_operands(5, 7),
        |x, o| {
            let [words, segments] = ids([2, 5], &x[0].device());
            embeddings(x, o, 0.0).forward(words, segments)
        },
        |x, o| {
            let [words, segments] = ids([2, 5], &x[0].device());
            embeddings(x, o, 0.0).plain(words, segments)
        },
    );
}

#[test]
#[should_panic(expected = "entry 11 of a table of 11")]
fn ids_beyond_the_table_are_refused() {
    let device = Device::flex();
    let ids = Tensor::from_data([[3, 11]], &device);
    let table = |entries| Tensor::<2>::ones([entries, 4], &device);
    let vector = || Tensor::<1>::ones([4], &device);
    let embeddings = Embeddings {
        words: table(11),
        positions: table(2),
        segments: table(1),
        gamma: vector(),
        beta: vector(),
        epsilon: 1e-12,
        dropout: 0.0,
    };
    embeddings.forward(ids, Tensor::zeros([1, 2], &device));
}

#[test]
fn kept_weights_are_never_stale() {
    let device = Device::flex();
    let products = Products { packed: Some(PackedWeights::default()), ..Products::default() };
    let (x, bias) = (random([4, 3], &device), Tensor::<1>::zeros([5], &device));
    let mut weight = random([3, 5], &device);
    for round in 0..50 {
        for _ in 0..2 {
            let found = linear_gelu::<2>(x.clone(), weight.clone(), bias.clone(), &products);
            let expected = linear_gelu::<2>(x.clone(), weight.clone(), bias.clone(), &Products::default());
            assert_eq!(numbers(found), numbers(expected), "round {round}");
        }
        // Burn changes the tensor in place if it can. Otherwise the new values have another address.
        weight = weight * 1.5 + 0.25;
    }
}

#[test]
fn operands_are_read_wherever_they_lie() {
    let device = Device::flex();
    let x = random([2, 6, 5], &device);
    let weight = random([7, 5], &device);
    let bias = random([1, 7], &device);
    let again = |values: Vec<f32>, shape: Vec<usize>| TensorData::new(values, shape);
    let whole = Tensor::<3>::from_data(again(numbers(x.clone().swap_dims(0, 1)), vec![6, 2, 5]), &device);
    let across = Tensor::<2>::from_data(again(numbers(weight.clone().transpose()), vec![5, 7]), &device);
    let bias = bias.reshape([7]);
    let found = linear_gelu(x.swap_dims(0, 1), weight.transpose(), bias.clone(), &Products::default());
    assert_eq!(numbers(found), numbers(linear_gelu(whole, across, bias, &Products::default())));
}
