//! Compares products with a low-rank update of the weight with burn's operations.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use kiln_kernels::{
    ActivatedLinear, Activation, Affine, LayerNorm, LowRank, OutputBlock, PackedWeights, Precision, Products, Queries,
    SelfAttention, Storage, Weight,
};

use crate::operations::*;

const RANK: usize = 3;

/// Whether the update has a magnitude.
type HasMagnitude = bool;

/// `W + 1.5 · a · b`. The operands from `at` on are the weight, `a`, `b`, the magnitude and the bias.
fn adapted(x: &[Tensor<1>], o: &Operands, at: usize, has_magnitude: HasMagnitude) -> Affine {
    let weight: Tensor<2> = shaped(&x[at], &o[at]);
    let weight = if weight.is_autodiff() { Tensor::from_inner(weight.inner()) } else { weight };
    let low_rank = LowRank {
        a: shaped(&x[at + 1], &o[at + 1]),
        b: shaped(&x[at + 2], &o[at + 2]),
        scale: 1.5,
        magnitude: has_magnitude.then(|| shaped(&x[at + 3], &o[at + 3])),
        dropout: 0.0,
    };
    Affine { weight: Weight::from(weight).with_low_rank(low_rank), bias: shaped(&x[at + 4], &o[at + 4]) }
}

fn shapes([input, output]: [usize; 2]) -> Vec<Vec<usize>> {
    vec![vec![input, output], vec![input, RANK], vec![RANK, output], vec![output], vec![output]]
}

fn operands_of(shapes: &[Vec<usize>]) -> Operands {
    operands(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Compares outputs and gradients. Frozen weights and unused magnitudes have no gradient.
fn check(
    what: &str,
    o: &Operands,
    fused: &dyn Fn(&[Tensor<1>], &Products) -> Tensor<3>,
    plain: &dyn Fn(&[Tensor<1>]) -> Tensor<3>,
) {
    let gradients = |forward: &dyn Fn(&[Tensor<1>]) -> Tensor<3>| {
        let leaves: Vec<Tensor<1>> =
            o.iter().map(|(values, _)| Tensor::<1>::from_floats(values.as_slice(), &device()).require_grad()).collect();
        let out = forward(&leaves);
        let values = numbers(out.clone());
        let coefficients: Vec<f32> = (0..values.len()).map(coefficient).collect();
        let coefficients = Tensor::<1>::from_floats(coefficients.as_slice(), &device()).reshape(out.dims());
        let gradients = (out.cast(burn::tensor::DType::F32) * coefficients).sum().backward();
        let of: Vec<Option<Vec<f32>>> = leaves.iter().map(|leaf| leaf.grad(&gradients).map(numbers)).collect();
        (values, of)
    };
    let (expected, expected_gradients) = gradients(plain);
    for (precision, tolerance) in [(Precision::F32, 2e-5), (Precision::Bf16, 6e-2)] {
        let products = Products { precision, ..Products::default() };
        let (found, found_gradients) = gradients(&|leaves| fused(leaves, &products));
        close(&format!("{what} {precision:?}"), &found, &expected, tolerance);
        let largest =
            expected_gradients.iter().flatten().flatten().fold(0f32, |largest, value| largest.max(value.abs()));
        for (at, (found, expected)) in found_gradients.iter().zip(&expected_gradients).enumerate() {
            match (found, expected) {
                (Some(found), Some(expected)) => {
                    for (found, expected) in found.iter().zip(expected) {
                        // A gradient that should be zero, such as that of a key's bias, is a rounding error of the others.
                        let is_close = (found - expected).abs() <= tolerance * largest;
                        assert!(is_close, "{what} {precision:?}, gradient {at}: {found}, not {expected}");
                    }
                }
                // An unused magnitude and a frozen weight have no gradient.
                (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{what}: gradient {at}"),
            }
        }
    }
}

fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    let largest = expected.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * largest, "{what}: {found}, not {expected}");
    }
}

#[test]
fn products_and_gradients_are_burn_s() {
    let (batch, seq, hidden) = (2, 5, 12);
    for has_magnitude in [false, true] {
        let mut of_linear = shapes([hidden, 17]);
        of_linear.insert(0, vec![batch, seq, hidden]);
        let o = operands_of(&of_linear);
        let layer = |x: &[Tensor<1>]| ActivatedLinear {
            linear: adapted(x, &o, 1, has_magnitude),
            activation: Activation::Gelu,
        };
        check(
            &format!("linear {has_magnitude}"),
            &o,
            &|x, products| layer(x).forward(shaped(&x[0], &o[0]), products),
            &|x| layer(x).plain(shaped(&x[0], &o[0]), &Products::default()),
        );

        let mut of_block = shapes([17, hidden]);
        of_block.splice(0..0, [vec![batch, seq, 17], vec![batch, seq, hidden], vec![hidden], vec![hidden]]);
        let o = operands_of(&of_block);
        let block = |x: &[Tensor<1>]| OutputBlock {
            dense: adapted(x, &o, 4, has_magnitude),
            norm: Some(LayerNorm { gamma: shaped(&x[2], &o[2]), beta: shaped(&x[3], &o[3]), epsilon: 1e-12 }),
            dropout: 0.0,
        };
        check(
            &format!("output block {has_magnitude}"),
            &o,
            &|x, products| block(x).forward(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), products),
            &|x| block(x).plain(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), &Products::default()),
        );

        let mut of_attention = vec![vec![batch, seq, hidden]];
        (0..3).for_each(|_| of_attention.extend(shapes([hidden, hidden])));
        let o = operands_of(&of_attention);
        for queries in [Queries::All, Queries::First] {
            let attention = |x: &[Tensor<1>]| SelfAttention {
                query: adapted(x, &o, 1, has_magnitude),
                key: adapted(x, &o, 6, has_magnitude),
                value: adapted(x, &o, 11, has_magnitude),
                heads: 3,
                dropout: 0.0,
                queries,
            };
            let none = |x: &[Tensor<1>]| Tensor::<2>::zeros([batch, seq], &x[0].device()).greater_elem(1);
            check(
                &format!("attention {queries:?} {has_magnitude}"),
                &o,
                &|x, products| attention(x).forward(shaped(&x[0], &o[0]), none(x), products),
                &|x| attention(x).plain(shaped(&x[0], &o[0]), none(x), &Products::default()),
            );
        }
    }
}

#[derive(Debug)]
struct Held([usize; 2], Vec<f32>);

impl Storage for Held {
    fn shape(&self) -> [usize; 2] {
        self.0
    }

    fn unpack_block(&self, inputs: Range<usize>, outputs: Range<usize>, values: &mut [f32]) {
        for (input, values) in inputs.zip(values.chunks_exact_mut(outputs.len())) {
            values.copy_from_slice(&self.1[input * self.0[1]..][outputs.clone()]);
        }
    }
}

/// A stored base gives the same products as a dense one, and packed weights follow the adapter in use.
#[test]
fn adapters_of_one_stored_base_are_told_apart() {
    let device = Device::flex();
    let values: Vec<f32> = (0..35).map(|at| (at as f32 * 0.7).sin()).collect();
    let storage: Arc<dyn Storage> = Arc::new(Held([5, 7], values.clone()));
    let x: Tensor<2> = random([4, 5], &device);
    let low_rank = |seed: f32| LowRank {
        a: random::<2>([5, RANK], &device) * seed,
        b: random([RANK, 7], &device),
        scale: 0.5,
        magnitude: None,
        dropout: 0.0,
    };
    let (first, second) = (low_rank(1.0), low_rank(2.0));
    let products = Products { packed: Some(PackedWeights::default()), ..Products::default() };
    let forward = |base: Weight, low_rank: Option<&LowRank>| {
        let weight = low_rank.map_or(base.clone(), |low_rank| base.with_low_rank(low_rank.clone()));
        let linear = Affine { weight, bias: Tensor::zeros([7], &device) };
        numbers(ActivatedLinear { linear, activation: Activation::Identity }.forward(x.clone(), &products))
    };
    let dense: Tensor<2> = Tensor::<1>::from_floats(values.as_slice(), &device).reshape([5, 7]);
    let mut seen = Vec::new();
    for low_rank in [None, Some(&first), Some(&second), None, Some(&first)] {
        let stored = forward(Weight::stored(storage.clone(), &device), low_rank);
        close("stored", &stored, &forward(dense.clone().into(), low_rank), 1e-6);
        seen.push(stored);
    }
    assert!(seen[0] == seen[3] && seen[1] == seen[4] && seen[0] != seen[1] && seen[1] != seen[2]);
}
