//! Operations on operands that are leaves of a graph, for the tests.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use kiln_kernels::{
    Activation, Affine, Embeddings, GatedLinear, LayerNorm, OutputBlock, Queries, Rotary, RotaryAttention,
    SelfAttention,
};

pub fn device() -> Device {
    Device::flex().autodiff()
}

/// Pseudo-random values in [−1, 1), the same on every run.
fn spread(len: usize, seed: usize) -> Vec<f32> {
    // splitmix64
    let hash = |at: usize| {
        let mut hash = ((seed << 32) + at + 1) as u64;
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash >> 40
    };
    (0..len).map(|at| hash(at) as f32 / 2f32.powi(23) - 1.0).collect()
}

pub fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let len = shape.iter().product();
    Tensor::from_data(TensorData::new(spread(len, len), shape), device)
}

pub fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted")
}

/// The operands of an operation, each as flat values and a shape.
pub type Operands = Vec<(Vec<f32>, Vec<usize>)>;

pub fn operands(shapes: &[&[usize]]) -> Operands {
    let of = |(seed, shape): (usize, &&[usize])| (spread(shape.iter().product(), seed), shape.to_vec());
    shapes.iter().enumerate().map(of).collect()
}

/// Returns the output and, on an autodiff device, the gradients of Σ cᵢ·outputᵢ for fixed c.
pub fn run(
    operands: &Operands,
    device: &Device,
    operation: &dyn Fn(&[Tensor<1>], &Operands) -> Tensor<3>,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let leaves: Vec<Tensor<1>> = operands
        .iter()
        .map(|(values, _)| {
            let leaf = Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), device);
            if device.is_autodiff() { leaf.require_grad() } else { leaf }
        })
        .collect();
    let out = operation(&leaves, operands);
    let values = numbers(out.clone());
    if !device.is_autodiff() {
        return (values, vec![]);
    }
    let coefficients: Vec<f32> = (0..values.len()).map(coefficient).collect();
    let coefficients = Tensor::<3>::from_data(TensorData::new(coefficients, out.dims()), device);
    let gradients = (out.cast(burn::tensor::DType::F32) * coefficients).sum().backward();
    let of = |leaf: &Tensor<1>| numbers(leaf.grad(&gradients).expect("every operand takes part"));
    (values, leaves.iter().map(of).collect())
}

/// The factor cᵢ of an output in [`run`].
pub fn coefficient(at: usize) -> f32 {
    ((at * 7 + 3) as f32 * 0.73).sin()
}

pub fn shaped<const D: usize>(leaf: &Tensor<1>, operand: &(Vec<f32>, Vec<usize>)) -> Tensor<D> {
    leaf.clone().reshape(<[usize; D]>::try_from(operand.1.as_slice()).expect("the shape has D axes"))
}

pub fn output_block(x: &[Tensor<1>], o: &Operands, dropout: f64) -> OutputBlock {
    OutputBlock {
        dense: Affine::new(shaped(&x[2], &o[2]), shaped(&x[3], &o[3])),
        norm: Some(LayerNorm { gamma: shaped(&x[4], &o[4]), beta: shaped(&x[5], &o[5]), epsilon: 1e-12 }),
        dropout,
    }
}

pub fn output_block_operands([batch, seq, input, hidden]: [usize; 4]) -> Operands {
    operands(&[&[batch, seq, input], &[batch, seq, hidden], &[input, hidden], &[hidden], &[hidden], &[hidden]])
}

pub fn self_attention(x: &[Tensor<1>], o: &Operands, heads: usize, dropout: f64) -> SelfAttention {
    let part = |at: usize| Affine::new(shaped(&x[at], &o[at]), shaped(&x[at + 1], &o[at + 1]));
    SelfAttention { query: part(1), key: part(3), value: part(5), heads, dropout, queries: Queries::All }
}

pub fn self_attention_operands([batch, seq, hidden]: [usize; 3]) -> Operands {
    let (matrix, vector) = ([hidden, hidden], [hidden]);
    operands(&[&[batch, seq, hidden], &matrix, &vector, &matrix, &vector, &matrix, &vector])
}

pub fn rotary_attention(x: &[Tensor<1>], o: &Operands, heads: usize, dropout: f64) -> RotaryAttention {
    let hidden = o[0].1[2];
    RotaryAttention {
        query_key_value: Affine::new(shaped(&x[1], &o[1]), shaped(&x[2], &o[2])),
        heads,
        rotary: Rotary::new(100.0, hidden / heads),
        window: None,
        dropout,
        queries: Queries::All,
    }
}

pub fn rotary_attention_operands([batch, seq, hidden]: [usize; 3]) -> Operands {
    operands(&[&[batch, seq, hidden], &[hidden, 3 * hidden], &[3 * hidden]])
}

pub fn gated_linear(x: &[Tensor<1>], o: &Operands, activation: Activation, dropout: f64) -> GatedLinear {
    GatedLinear { linear: Affine::new(shaped(&x[1], &o[1]), shaped(&x[2], &o[2])), activation, dropout }
}

pub fn gated_linear_operands([batch, seq, input, output]: [usize; 4]) -> Operands {
    operands(&[&[batch, seq, input], &[input, 2 * output], &[2 * output]])
}

/// Row `r` ends with `r` padding positions and has another one at position 2. Position 0 is always a token.
pub fn padding([batch, seq]: [usize; 2], device: &Device) -> Tensor<2, Bool> {
    let is_padding = (0..batch).flat_map(|row| (0..seq).map(move |at| at > 0 && (at + row >= seq || at == 2)));
    Tensor::from_data(TensorData::new(is_padding.collect::<Vec<bool>>(), [batch, seq]), device)
}

pub fn embeddings(x: &[Tensor<1>], o: &Operands, dropout: f64) -> Embeddings {
    Embeddings {
        words: shaped(&x[0], &o[0]),
        positions: shaped(&x[1], &o[1]),
        segments: shaped(&x[2], &o[2]),
        gamma: shaped(&x[3], &o[3]),
        beta: shaped(&x[4], &o[4]),
        epsilon: 1e-12,
        dropout,
    }
}

pub fn embeddings_operands(seq: usize, hidden: usize) -> Operands {
    operands(&[&[11, hidden], &[seq + 3, hidden], &[2, hidden], &[hidden], &[hidden]])
}

/// Ids below 11 for words and below 2 for segments, `[batch, seq]` each.
pub fn ids([batch, seq]: [usize; 2], device: &Device) -> [Tensor<2, Int>; 2] {
    [11, 2].map(|entries| {
        let ids = (0..batch * seq).map(|i| (i * i + 3 * i) as i32 % entries);
        Tensor::from_data(TensorData::new(ids.collect::<Vec<i32>>(), [batch, seq]), device)
    })
}
