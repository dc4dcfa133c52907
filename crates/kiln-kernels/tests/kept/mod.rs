//! With kept packed weights, a model fuses more into one operation, with the same results.

use burn::tensor::{Bool, Device, Tensor};
use kiln_kernels::{
    ActivatedLinear, Activation, Affine, LayerNorm, OutputBlock, PackedWeights, PositionWise, Precision, Products,
    Queries, SelfAttention,
};

use crate::operations::{numbers, random};

const HIDDEN: usize = 40;
const INNER: usize = 70;
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

fn affine([input, output]: [usize; 2]) -> Affine {
    let device = Device::flex();
    Affine::new(random([input, output], &device) / (input as f32).sqrt(), random([output], &device))
}

fn output_block(input: usize) -> OutputBlock {
    let norm = LayerNorm {
        gamma: random([HIDDEN], &Device::flex()) + 1.5,
        beta: random([HIDDEN], &Device::flex()),
        epsilon: 1e-12,
    };
    OutputBlock { dense: affine([input, HIDDEN]), norm: Some(norm), dropout: 0.1 }
}

fn kept(precision: Precision) -> Products {
    Products { precision, packed: Some(PackedWeights::default()), ..Products::default() }
}

/// With few positions and with many, in blocks of which the last is not full.
#[test]
fn positions_are_computed_in_blocks_as_one_operation_after_the_other() {
    let layer = PositionWise {
        attention_output: output_block(HIDDEN),
        intermediate: ActivatedLinear { linear: affine([HIDDEN, INNER]), activation: Activation::Gelu },
        output: output_block(INNER),
    };
    for precision in PRECISIONS {
        let products = kept(precision);
        for seq in [1, 20, 22, 77] {
            let [context, residual] = [1.0, 3.0].map(|scale| random([3, seq, HIDDEN], &Device::flex()) * scale);
            let PositionWise { attention_output, intermediate, output } = layer.clone();
            let attended = attention_output.forward(context.clone(), residual.clone(), &products);
            let activated = intermediate.forward(attended.clone(), &products);
            let expected = numbers(output.forward(activated, attended, &products));
            let found = numbers(layer.clone().forward(context, residual, &products));
            assert_eq!(found, expected, "{precision:?}, {seq} positions a text");
        }
    }
}

#[test]
fn attention_computes_what_it_computes_of_weights_that_are_not_kept() {
    let [query, key, value] = [HIDDEN; 3].map(|hidden| affine([hidden, hidden]));
    let (batch, seq) = (3, 30);
    let x = random([batch, seq, HIDDEN], &Device::flex()) * 2.0;
    let padding = Tensor::<2>::zeros([batch, seq], &Device::flex()).slice_fill([1..2, 21..30], 1.0);
    let padding: Tensor<2, Bool> = padding.equal_elem(1.0);
    for precision in PRECISIONS {
        let attend = |queries, products: &Products| {
            let [query, key, value] = [&query, &key, &value].map(Affine::clone);
            let attention = SelfAttention { query, key, value, heads: 5, dropout: 0.1, queries };
            attention.forward(x.clone(), padding.clone(), products)
        };
        let all = attend(Queries::All, &kept(precision));
        let first = attend(Queries::First, &kept(precision));
        assert_eq!(numbers(first), numbers(all.clone().narrow(1, 0, 1)), "{precision:?}");
        let expected = numbers(attend(Queries::All, &Products { precision, ..Products::default() }));
        let found = numbers(all);
        // In int8, an input that is not rounded to bf16 before is slightly more accurate.
        let tolerance = if precision == Precision::Int8 { 2e-2 } else { 0.0 };
        let furthest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest <= tolerance, "{precision:?}: {furthest} apart");
    }
}
