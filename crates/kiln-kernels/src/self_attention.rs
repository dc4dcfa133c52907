use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor, module};

use crate::{Affine, Products};

/// BERT's self-attention, with projections from `hidden` to `hidden`.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    /// The projection to queries.
    pub query: Affine,
    /// The projection to keys.
    pub key: Affine,
    /// The projection to values.
    pub value: Affine,
    /// The number of heads, which divides `hidden`.
    pub heads: usize,
    /// Dropout probability of the attention probabilities.
    pub dropout: f64,
    /// The positions that attend.
    pub queries: Queries,
}

/// The positions of a text that attention is computed for. They attend to all positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queries {
    /// Every position.
    All,
    /// The first position, the only one that a sentence-level head reads from the last layer.
    First,
}

impl Queries {
    /// The number of positions that attend, out of `seq`.
    pub(crate) fn count(self, seq: usize) -> usize {
        match self {
            Self::All => seq,
            Self::First => seq.min(1),
        }
    }

    /// Selects the positions of `x` that attention is computed for.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden]`
    /// - output: `[batch, queries, hidden]`
    pub fn select(self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::All => x,
            Self::First => x.narrow(1, 0, 1),
        }
    }
}

impl SelfAttention {
    /// Computes softmax(Q·Kᵀ/√d)·V for each head (Vaswani et al., 2017, equation 1).
    ///
    /// Dropout is active under autodiff, or when `products` has seeds for it. On the CPU, the outputs after a text's last
    /// token are zero.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden]`
    /// - `padding`: `[batch, seq]`, true where a position is padding
    /// - output: `[batch, queries, hidden]`
    pub fn forward(self, x: Tensor<3>, padding: Tensor<2, Bool>, products: &Products) -> Tensor<3> {
        #[cfg(feature = "flex")]
        if crate::is_fused(&x.device()) {
            let dropout = crate::dropout(&x, self.dropout, products);
            return fused::self_attention(self, x, padding, dropout, products.clone());
        }
        self.plain(x, padding, products)
    }

    /// [`SelfAttention::forward`] with burn's operations.
    pub fn plain(self, x: Tensor<3>, padding: Tensor<2, Bool>, products: &Products) -> Tensor<3> {
        let [batch, seq, hidden] = x.dims();
        let (head, attending) = (hidden / self.heads, self.queries.count(seq));
        let project = |x: Tensor<3>, projection: Affine| -> Tensor<4> {
            let [_, positions, _] = x.dims();
            projection.plain(x, products).reshape([batch, positions, self.heads, head]).swap_dims(1, 2)
        };
        let query = project(self.queries.select(x.clone()), self.query);
        let [key, value] = [self.key, self.value].map(|projection| project(x.clone(), projection));
        let padding: Tensor<4, Bool> = padding.reshape([batch, 1, 1, seq]).expand([batch, 1, attending, seq]);
        // context = [batch, heads, queries, head]
        let context = if query.is_autodiff() || products.dropout_seeds.is_some() {
            let precision = products.precision;
            let scores = precision.widened((query / (head as f64).sqrt()).matmul(key.transpose()));
            let probabilities = softmax(scores.mask_fill(padding, f32::NEG_INFINITY), 3);
            precision.rounded(crate::plain_dropout(probabilities, self.dropout, products)).matmul(value)
        } else {
            // Fused on backends that support it. This operation has neither dropout nor a backward pass.
            module::attention(query, key, value, Some(padding), None, AttentionModuleOptions::default())
        };
        context.swap_dims(1, 2).reshape([batch, attending, hidden])
    }
}

#[cfg(feature = "flex")]
#[allow(clippy::too_many_arguments, reason = "a tensor each: what dispatches them takes no struct of them")]
mod fused {
    mod packed;

    use std::cell::LazyCell;
    use std::marker::PhantomData;

    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::{BoolTensor, FloatTensor};
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::{Bool, Tensor};
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::{Queries, SelfAttention};
    use crate::cpu::{
        Attention, Dropout, Epilogue, Kernels, Simd, SoftmaxRow, Source, Target, View, attention, attention_backward,
        product,
    };
    use crate::flex::{self, Value, column_sums, contiguous, matrix, rounded, token_mask, values};
    use crate::weight::{Form, Operand, pack_transposed};
    use crate::{Precision, Products};

    #[backend_extension(Flex, Autodiff)]
    pub trait SelfAttentionOps: Backend {
        fn self_attention(
            x: FloatTensor<Self>,
            query: FloatTensor<Self>,
            query_bias: FloatTensor<Self>,
            key: FloatTensor<Self>,
            key_bias: FloatTensor<Self>,
            value: FloatTensor<Self>,
            value_bias: FloatTensor<Self>,
            padding: BoolTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Debug)]
    pub struct Settings {
        queries: Queries,
        heads: usize,
        dropout: Option<Dropout>,
        /// The forms of the query, key and value weights.
        forms: [Form; 3],
        products: Products,
    }

    pub(super) fn self_attention(
        projections: SelfAttention,
        x: Tensor<3>,
        padding: Tensor<2, Bool>,
        dropout: Option<Dropout>,
        products: Products,
    ) -> Tensor<3> {
        let SelfAttention { query, key, value, heads, queries, .. } = projections;
        let [(query_weight, of_query), (key_weight, of_key), (value_weight, of_value)] =
            [query.weight, key.weight, value.weight].map(|weight| weight.into_parts(&products));
        let settings = Settings { queries, heads, dropout, forms: [of_query, of_key, of_value], products };
        Tensor::from_dispatch(<Dispatch as SelfAttentionOps>::self_attention(
            x.into_dispatch(),
            query_weight.into_dispatch(),
            query.bias.into_dispatch(),
            key_weight.into_dispatch(),
            key.bias.into_dispatch(),
            value_weight.into_dispatch(),
            value.bias.into_dispatch(),
            padding.into_dispatch(),
            settings,
        ))
    }

    /// What the backward pass needs.
    #[derive(Clone, Debug)]
    struct State {
        /// The input, if a weight gets a gradient.
        x: Option<FlexTensor>,
        /// `[batch, seq, hidden]`
        dims: [usize; 3],
        /// The query, key and value weights.
        weights: [Operand; 3],
        mask: Vec<bool>,
        /// `[batch · queries, hidden]`
        queries: FlexTensor,
        /// `[batch · seq, 2 · hidden]`
        keys_values: FlexTensor,
        /// `[batch, heads, queries]`
        softmax_rows: Vec<SoftmaxRow>,
        settings: Settings,
    }

    impl State {
        fn shape(&self) -> Attention<'_> {
            let [batch, seq, hidden] = self.dims;
            let queries = self.settings.queries.count(seq);
            Attention {
                batch,
                seq,
                queries,
                heads: self.settings.heads,
                hidden,
                window: None,
                mask: &self.mask,
                dropout: self.settings.dropout,
            }
        }

        /// The rows of `x` at the positions that attend, `[batch · queries, hidden]`.
        fn attending<'x, E: Value>(&self, x: &'x FlexTensor) -> View<'x, E> {
            let Attention { batch, seq, queries, hidden, .. } = self.shape();
            let row_step = if queries == seq { hidden } else { seq * hidden };
            View::new(values(x), batch * queries, hidden, row_step)
        }
    }

    fn weights(settings: &Settings, [query, key, value]: [FlexTensor; 3]) -> [Operand; 3] {
        let [of_query, of_key, of_value] = settings.forms.clone();
        [Operand::new(query, of_query), Operand::new(key, of_key), Operand::new(value, of_value)]
    }

    /// Returns the output, and what the backward pass needs.
    fn forward<E: Value + Source<W>, W: Kernels>(
        [x, query, query_bias, key, key_bias, value, value_bias]: [FlexTensor; 7],
        padding: FlexTensor,
        settings: Settings,
    ) -> (FlexTensor, State) {
        let simd = Simd::detect();
        let nothing = || flex::new::<E>(vec![], &[0, 0]);
        let &[batch, seq, hidden] = x.layout().shape().as_slice() else { unreachable!("x has three axes") };
        let x = rounded::<E>(x);
        let mut state = State {
            x: None,
            dims: [batch, seq, hidden],
            weights: weights(&settings, [query, key, value]),
            mask: token_mask(padding),
            queries: nothing(),
            keys_values: nothing(),
            softmax_rows: vec![],
            settings,
        };
        let [query_bias, key_bias, value_bias] = [query_bias, key_bias, value_bias].map(contiguous);
        let project = |x: View<'_, E>, weights: &[&Operand], bias: &[f32]| {
            let out = state.settings.products.multiply::<E, W, E>(x, weights, Epilogue::Bias(bias));
            flex::new(out, &[x.rows(), bias.len()])
        };
        let [query, key, value] = &state.weights;
        let queries = project(state.attending(&x), &[query], values(&query_bias));
        let biases = [values::<f32>(&key_bias), values(&value_bias)].concat();
        let keys_values = project(matrix(&x), &[key, value], &biases);
        (state.queries, state.keys_values) = (queries, keys_values);
        let shape = state.shape();
        let (context, softmax_rows) = attention::<E>(simd, shape, matrix(&state.queries), matrix(&state.keys_values));
        let context = flex::new(context, &[shape.batch, shape.queries, shape.hidden]);
        state.softmax_rows = softmax_rows;
        state.x = state.weights.iter().any(Operand::is_trained).then_some(x);
        (context, state)
    }

    /// Returns only the output.
    fn output<E: Value + Source<W>, W: Kernels>(
        operands: [FlexTensor; 7],
        padding: FlexTensor,
        settings: Settings,
    ) -> FlexTensor {
        match settings.products.packed {
            Some(_) => packed::attend::<E, W>(operands, padding, settings),
            None => forward::<E, W>(operands, padding, settings).0,
        }
    }

    impl SelfAttentionOps for Flex {
        fn self_attention(
            x: FlexTensor,
            query: FlexTensor,
            query_bias: FlexTensor,
            key: FlexTensor,
            key_bias: FlexTensor,
            value: FlexTensor,
            value_bias: FlexTensor,
            padding: FlexTensor,
            settings: Settings,
        ) -> FlexTensor {
            let operands = [x, query, query_bias, key, key_bias, value, value_bias];
            match settings.products.precision {
                Precision::F32 => output::<f32, f32>(operands, padding, settings),
                Precision::Bf16 => output::<bf16, bf16>(operands, padding, settings),
                Precision::Int8 => output::<bf16, i8>(operands, padding, settings),
            }
        }
    }

    impl<C: CheckpointStrategy> SelfAttentionOps for Autodiff<Flex, C> {
        fn self_attention(
            x: FloatTensor<Self>,
            query: FloatTensor<Self>,
            query_bias: FloatTensor<Self>,
            key: FloatTensor<Self>,
            key_bias: FloatTensor<Self>,
            value: FloatTensor<Self>,
            value_bias: FloatTensor<Self>,
            padding: BoolTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self> {
            let operands = [x, query, query_bias, key, key_bias, value, value_bias];
            match settings.products.precision {
                Precision::F32 => tracked::<f32, C>(operands, padding, settings),
                Precision::Bf16 | Precision::Int8 => tracked::<bf16, C>(operands, padding, settings),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        operands: [FloatTensor<Autodiff<Flex, C>>; 7],
        padding: FlexTensor,
        settings: Settings,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let parts = operands.map(|operand| operand.into_parts());
        let tensors = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let nodes = parts.map(|(_, node)| node);
        let (out, state) = forward::<E, E>(tensors, padding, settings);
        match SelfAttentionBackward::<E>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    #[derive(Debug)]
    struct SelfAttentionBackward<E>(PhantomData<E>);

    impl<E: Value> Backward<Flex, 7> for SelfAttentionBackward<E> {
        type State = State;

        fn backward(self, ops: Ops<State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let state = ops.state;
            let [x_node, parts @ ..] = ops.parents;
            let gradient = rounded::<E>(gradients.consume::<Flex>(&ops.node));
            let shape = state.shape();
            let (rows, hidden) = (shape.batch * shape.seq, shape.hidden);
            let [of_queries, of_keys_values] = attention_backward::<E>(
                Simd::detect(),
                shape,
                matrix(&state.queries),
                matrix(&state.keys_values),
                &state.softmax_rows,
                matrix(&gradient),
            );
            let attending = shape.batch * shape.queries;
            let of_queries_rows = View::new(&of_queries, attending, hidden, hidden);
            let of_part = |part: usize| View::new(&of_keys_values[part * hidden..], rows, hidden, 2 * hidden);

            if let Some(node) = x_node {
                let [query, key, value] = &state.weights;
                let mut of_x = vec![0f32; rows * hidden];
                let packed = pack_transposed::<E>(&[key, value], 0..hidden);
                let both = View::new(&of_keys_values, rows, 2 * hidden, 2 * hidden);
                product(Simd::detect(), both, &packed, Target::whole(&mut of_x, hidden), Epilogue::Store);
                let row_step = rows / attending.max(1) * hidden;
                let out = Target::columns(&mut of_x, row_step, 0);
                query.input_gradient(of_queries_rows, out, Epilogue::Accumulate);
                gradients.register::<Flex>(node.id, flex::new(of_x, &state.dims));
            }
            let of_biases =
                LazyCell::new(|| [column_sums(&of_queries, hidden), column_sums(&of_keys_values, 2 * hidden)].concat());
            for (at, node) in parts.into_iter().enumerate() {
                let (part, is_weight) = (at / 2, at % 2 == 0);
                let Some(node) = node else { continue };
                let gradient = match (&state.x, part) {
                    (Some(x), 0) if is_weight => state.weights[0].gradient(state.attending::<E>(x), of_queries_rows),
                    (Some(x), _) if is_weight => state.weights[part].gradient(matrix::<E>(x), of_part(part - 1)),
                    _ => flex::new(of_biases[part * hidden..][..hidden].to_vec(), &[hidden]),
                };
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}
