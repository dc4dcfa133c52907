//! The operations of pre-norm encoders.

use burn::tensor::{Bool, Tensor};
use kiln_kernels::{Activation, Affine, LayerNorm, OutputBlock, Products, Queries, Rotary, RotaryAttention};

use super::operations::*;
use super::{check, check_slope, without_padding};

fn normalized(x: &[Tensor<1>], o: &Operands) -> LayerNorm {
    LayerNorm { gamma: shaped(&x[1], &o[1]), beta: shaped(&x[2], &o[2]), epsilon: 1e-12 }
}

fn residual(x: &[Tensor<1>], o: &Operands) -> OutputBlock {
    OutputBlock { dense: Affine::new(shaped(&x[2], &o[2]), shaped(&x[3], &o[3])), norm: None, dropout: 0.0 }
}

#[test]
fn a_normalization_and_a_residual_by_themselves_are_burn_s() {
    for [batch, seq, hidden] in [[1, 1, 3], [2, 5, 7], [3, 40, 33]] {
        check(
            &format!("norm {batch}×{seq}×{hidden}"),
            &operands(&[&[batch, seq, hidden], &[hidden], &[hidden]]),
            |x, o, products| normalized(x, o).forward(shaped::<3>(&x[0], &o[0]), products),
            |x, o, _| normalized(x, o).plain(shaped::<3>(&x[0], &o[0])),
        );
        check(
            &format!("residual {batch}×{seq}×{hidden}"),
            &operands(&[&[batch, seq, 5], &[batch, seq, hidden], &[5, hidden], &[hidden]]),
            |x, o, products| residual(x, o).forward(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), products),
            |x, o, products| residual(x, o).plain(shaped(&x[0], &o[0]), shaped(&x[1], &o[1]), products),
        );
    }
}

#[test]
fn gated_layers_are_burn_s() {
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        let layer = |x: &[Tensor<1>], o: &Operands| gated_linear(x, o, activation, 0.0);
        for dims in [[1, 1, 1, 1], [2, 3, 5, 7], [3, 33, 24, 49]] {
            check(
                &format!("{activation:?} {dims:?}"),
                &gated_linear_operands(dims),
                |x, o, products| layer(x, o).forward(shaped(&x[0], &o[0]), products),
                |x, o, products| layer(x, o).plain(shaped(&x[0], &o[0]), products),
            );
        }
        check_slope(
            &format!("gated by {activation:?}"),
            &gated_linear_operands([2, 5, 7, 9]),
            |x, o| layer(x, o).forward(shaped(&x[0], &o[0]), &Products::default()),
            |x, o| layer(x, o).plain(shaped(&x[0], &o[0]), &Products::default()),
        );
    }
}

/// Texts that are longer than the kernel's blocks, with windows that end inside a block or beyond the text.
#[test]
fn rotary_attention_is_burn_s_in_every_window() {
    for ([batch, seq, hidden], heads) in [([1, 1, 2], 1), ([2, 9, 8], 2), ([3, 70, 12], 3), ([2, 200, 16], 2)] {
        for window in [None, Some(0), Some(1), Some(5), Some(64), Some(500)] {
            for queries in [Queries::All, Queries::First] {
                let attention = |x: &[Tensor<1>], o: &Operands| RotaryAttention {
                    window,
                    queries,
                    ..rotary_attention(x, o, heads, 0.0)
                };
                let hidden_by = |x: &Tensor<1>| padding([batch, seq], &x.device());
                check(
                    &format!("{batch}×{seq}×{hidden} in {heads}, {window:?}, {queries:?}"),
                    &rotary_attention_operands([batch, seq, hidden]),
                    |x, o, products| {
                        let out = attention(x, o).forward(shaped(&x[0], &o[0]), hidden_by(&x[0]), products);
                        without_padding(out, hidden_by(&x[0]))
                    },
                    |x, o, products| {
                        let out = attention(x, o).plain(shaped(&x[0], &o[0]), hidden_by(&x[0]), products);
                        without_padding(out, hidden_by(&x[0]))
                    },
                );
            }
        }
    }
    let none = |x: &[Tensor<1>]| Tensor::<2, Bool>::from_data([[false; 9]; 2], &x[0].device());
    let attention =
        |x: &[Tensor<1>], o: &Operands| RotaryAttention { window: Some(2), ..rotary_attention(x, o, 2, 0.0) };
    check_slope(
        "rotary attention",
        &rotary_attention_operands([2, 9, 8]),
        |x, o| attention(x, o).forward(shaped(&x[0], &o[0]), none(x), &Products::default()),
        |x, o| attention(x, o).plain(shaped(&x[0], &o[0]), none(x), &Products::default()),
    );
}

/// A token's output does not depend on where the text ends, if the end is out of reach.
#[test]
fn nothing_beyond_the_window_counts() {
    let attend = |seq: usize, padded: usize| {
        let operands = rotary_attention_operands([1, 150, 8]);
        let mut values = operands.clone();
        values[0].0.truncate(seq * 8);
        values[0].1 = vec![1, seq, 8];
        let is_padding: Vec<bool> = (0..seq).map(|at| at >= seq - padded).collect();
        let attention = |x: &[Tensor<1>], o: &Operands| {
            let padding =
                Tensor::from_data(burn::tensor::TensorData::new(is_padding.clone(), [1, seq]), &x[0].device());
            let attention = RotaryAttention { window: Some(3), ..rotary_attention(x, o, 2, 0.0) };
            attention.forward(shaped(&x[0], &o[0]), padding, &Products::default())
        };
        run(&values, &burn::tensor::Device::flex(), &attention).0
    };
    let whole = attend(150, 0);
    for (seq, padded) in [(70, 0), (150, 80), (150, 149)] {
        let (tokens, found) = (seq - padded, attend(seq, padded));
        let same = tokens.saturating_sub(3) * 8;
        assert_eq!(found[..same], whole[..same], "{seq}, {padded} of them padding");
        assert!(found.iter().all(|value| value.is_finite()));
    }
}

/// The angles are position · θ^(−2i / head) for each pair i, computed by hand for a head of two pairs.
#[test]
fn positions_turn_queries_and_keys_by_their_angles() {
    let device = burn::tensor::Device::flex();
    let weight = Tensor::<2>::from_data([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]; 4], &device);
    let attention = RotaryAttention {
        query_key_value: Affine::new(weight, Tensor::zeros([12], &device)),
        heads: 1,
        rotary: Rotary::new(100.0, 4),
        window: None,
        dropout: 0.0,
        queries: Queries::All,
    };
    // The queries and keys of both positions are (1, 0, 0, 0) and (2, 0, 0, 0), rotated by 0 and by 1. The values are 1 and
    // 2.
    let x = Tensor::<3>::from_data([[[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]]], &device);
    let padding = Tensor::from_data([[false, false]], &device);
    let found = numbers(attention.forward(x, padding, &Products::default()));
    let share = |own: f32, other: f32| own.exp() / (own.exp() + other.exp());
    let first = 2.0 - share(0.5, 1f32.cos());
    let second = 1.0 + share(2.0, 1f32.cos());
    assert!((found[0] - first).abs() < 1e-6 && (found[4] - second).abs() < 1e-6, "{found:?}");
}
