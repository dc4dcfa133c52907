//! Inference of self-attention with kept packed weights.

use burn::tensor::DType;
use burn_flex::FlexTensor;

use super::{Queries, Settings, weights};
use crate::Products;
use crate::cpu::{Attention, Epilogue, Kernels, Lanes, Simd, Source, Target, View, attention, product};
use crate::flex::{self, Value, contiguous, rows_and_columns, token_mask, values};
use crate::weight::Operand;

/// Returns the output. If all positions attend, queries, keys and values are one product. Otherwise the queries are a
/// separate product.
pub(super) fn attend<E: Value + Source<W>, W: Kernels>(
    [x, query, query_bias, key, key_bias, value, value_bias]: [FlexTensor; 7],
    padding: FlexTensor,
    settings: Settings,
) -> FlexTensor {
    let x = contiguous(x);
    let &[batch, seq, hidden] = x.layout().shape().as_slice() else { unreachable!("x has three axes") };
    let [query, key, value] = &weights(&settings, [query, key, value]);
    let biases = [query_bias, key_bias, value_bias].map(contiguous);
    let biases = biases.each_ref().map(values::<f32>).concat();
    let (mask, queries) = (token_mask(padding), settings.queries.count(seq));
    let Settings { heads, dropout, products, .. } = settings;
    let shape = Attention { batch, seq, queries, heads, hidden, window: None, mask: &mask, dropout };
    let all_rows = Rows { count: batch * seq, step: hidden };
    let (own, all);
    let (queries, keys_values) = match settings.queries {
        Queries::All => {
            all = multiply::<E, W>(&products, &x, all_rows, &[query, key, value], &biases);
            let all = View::new(&all, batch * seq, 3 * hidden, 3 * hidden);
            (all.columns(0, hidden), all.columns(hidden, 2 * hidden))
        }
        Queries::First => {
            let first_rows = Rows { count: batch * queries, step: seq * hidden };
            own = multiply::<E, W>(&products, &x, first_rows, &[query], &biases[..hidden]);
            all = multiply::<E, W>(&products, &x, all_rows, &[key, value], &biases[hidden..]);
            let keys_values = View::new(&all, batch * seq, 2 * hidden, 2 * hidden);
            (View::new(&own, batch * queries, hidden, hidden), keys_values)
        }
    };
    let (context, _) = attention::<E>(Simd::detect(), shape, queries, keys_values);
    flex::new(context, &[batch, shape.queries, hidden])
}

/// Rows of `x`, starting with the first one.
struct Rows {
    count: usize,
    /// The distance between two rows, in values.
    step: usize,
}

/// Multiplies rows of `x` with weights side by side. An input in f32 is rounded row by row.
fn multiply<E: Value + Source<W>, W: Kernels>(
    products: &Products,
    x: &FlexTensor,
    Rows { count, step }: Rows,
    weights: &[&Operand],
    bias: &[f32],
) -> Lanes<E> {
    let (simd, packed, [_, columns]) = (Simd::detect(), products.pack::<W>(weights), rows_and_columns(x));
    let mut out = Lanes::any(count * bias.len());
    let (target, epilogue) = (Target::whole(&mut out[..], bias.len()), Epilogue::Bias(bias));
    match x.dtype() {
        DType::F32 => product(simd, View::new(values::<f32>(x), count, columns, step), &packed, target, epilogue),
        _ => product(simd, View::new(values::<E>(x), count, columns, step), &packed, target, epilogue),
    }
    out
}
