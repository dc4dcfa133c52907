use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Int, Tensor};

use crate::{Affine, Products, Queries, Rotary};

/// Self-attention with rotary position embeddings and an optional local window.
#[derive(Clone, Debug)]
pub struct RotaryAttention {
    /// The projection to queries, keys and values side by side, from `hidden` to `3 · hidden`.
    pub query_key_value: Affine,
    /// The number of heads, which divides `hidden`.
    pub heads: usize,
    /// The rotary position embeddings of queries and keys.
    pub rotary: Rotary,
    /// The largest distance at which a position is attended to, or `None` for no limit. On the CPU, time and memory grow
    /// with the window instead of the length of a text.
    pub window: Option<usize>,
    /// Dropout probability of the attention probabilities.
    pub dropout: f64,
    /// The positions that attend.
    pub queries: Queries,
}

impl RotaryAttention {
    /// Computes softmax(Q·Kᵀ/√d)·V for each head.
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
            return fused::rotary_attention(self, x, padding, dropout, products.clone());
        }
        self.plain(x, padding, products)
    }

    /// [`RotaryAttention::forward`] with burn's operations, which keep all scores in memory.
    pub fn plain(self, x: Tensor<3>, padding: Tensor<2, Bool>, products: &Products) -> Tensor<3> {
        /// A finite stand-in for −∞, because a padding position may have no token within its window.
        const NEVER: f64 = -1e30;
        let [batch, seq, hidden] = x.dims();
        let (head, attending) = (hidden / self.heads, self.queries.count(seq));
        let all = self.query_key_value.plain(x, products);
        let part = |at: usize| -> Tensor<4> {
            all.clone().narrow(2, at * hidden, hidden).reshape([batch, seq, self.heads, head]).swap_dims(1, 2)
        };
        let precision = products.precision;
        let turned = |x: Tensor<4>| precision.rounded(self.rotary.plain(precision.widened(x)));
        let query = turned(part(0)).narrow(2, 0, attending);
        let (key, value) = (turned(part(1)), part(2));
        let mut masked: Tensor<4, Bool> = padding.reshape([batch, 1, 1, seq]).expand([batch, 1, attending, seq]);
        if let Some(window) = self.window {
            let positions = |rows: usize| Tensor::<1, Int>::arange(0..rows as i64, &key.device());
            let distances: Tensor<2, Int> =
                positions(attending).unsqueeze_dim::<2>(1) - positions(seq).unsqueeze_dim::<2>(0);
            let far = distances.abs().greater_elem(window as i64).reshape([1, 1, attending, seq]);
            masked = masked.bool_or(far.expand([batch, 1, attending, seq]));
        }
        let scores = precision.widened((query / (head as f64).sqrt()).matmul(key.transpose()));
        let probabilities = softmax(scores.mask_fill(masked, NEVER), 3);
        let probabilities = precision.rounded(crate::plain_dropout(probabilities, self.dropout, products));
        let context = probabilities.matmul(value);
        context.swap_dims(1, 2).reshape([batch, attending, hidden])
    }
}

#[cfg(feature = "flex")]
mod fused {
    use std::marker::PhantomData;
    use std::sync::Arc;

    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::{BoolTensor, FloatTensor};
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::{Bool, Tensor};
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::RotaryAttention;
    use crate::cpu::{
        Angles, Attention, Division, Dropout, Epilogue, Kernels, Simd, SoftmaxRow, Source, View, attention,
        attention_backward, divide, unite,
    };
    use crate::flex::{self, Value, column_sums, contiguous, matrix, rounded, token_mask, values};
    use crate::linear::fused::{LinearBackward, linear};
    use crate::weight::{Form, Operand};
    use crate::{Precision, Products, Queries};

    #[backend_extension(Flex, Autodiff)]
    pub trait RotaryAttentionOps: Backend {
        fn rotary_attention(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            padding: BoolTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Debug)]
    pub struct Settings {
        queries: Queries,
        heads: usize,
        angles: Arc<Angles>,
        window: Option<usize>,
        dropout: Option<Dropout>,
        form: Form,
        products: Products,
    }

    pub(super) fn rotary_attention(
        layer: RotaryAttention,
        x: Tensor<3>,
        padding: Tensor<2, Bool>,
        dropout: Option<Dropout>,
        products: Products,
    ) -> Tensor<3> {
        let RotaryAttention { query_key_value, heads, rotary, window, queries, .. } = layer;
        let [_, seq, _] = x.dims();
        let (weight, form) = query_key_value.weight.into_parts(&products);
        let settings = Settings { queries, heads, angles: rotary.angles(seq), window, dropout, form, products };
        Tensor::from_dispatch(<Dispatch as RotaryAttentionOps>::rotary_attention(
            x.into_dispatch(),
            weight.into_dispatch(),
            query_key_value.bias.into_dispatch(),
            padding.into_dispatch(),
            settings,
        ))
    }

    /// What the backward pass needs.
    #[derive(Clone, Debug)]
    struct State {
        /// The input, if the weight gets a gradient.
        x: Option<FlexTensor>,
        /// `[batch, seq, hidden]`
        dims: [usize; 3],
        weight: Operand,
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
            let Settings { heads, window, dropout, .. } = self.settings;
            let queries = self.settings.queries.count(seq);
            Attention { batch, seq, queries, heads, hidden, window, mask: &self.mask, dropout }
        }

        fn division(&self) -> Division {
            let Attention { batch, seq, queries, heads, hidden, .. } = self.shape();
            Division { batch, seq, queries, heads, head: hidden / heads }
        }
    }

    /// Returns the output, and what the backward pass needs.
    fn forward<E: Value + Source<W>, W: Kernels>(
        [x, weight, bias]: [FlexTensor; 3],
        padding: FlexTensor,
        settings: Settings,
    ) -> (FlexTensor, State) {
        let simd = Simd::detect();
        let &[batch, seq, hidden] = x.layout().shape().as_slice() else { unreachable!("x has three axes") };
        let (x, bias) = (rounded::<E>(x), contiguous(bias));
        let nothing = || flex::new::<E>(vec![], &[0, 0]);
        let mut state = State {
            x: None,
            dims: [batch, seq, hidden],
            weight: Operand::new(weight, settings.form.clone()),
            mask: token_mask(padding),
            queries: nothing(),
            keys_values: nothing(),
            softmax_rows: vec![],
            settings,
        };
        let all = linear::<E, W, E>(&x, &state.weight, &state.settings.products, Epilogue::Bias(values(&bias)));
        let division = state.division();
        let [queries, keys_values] = divide(simd, division, &all, &state.settings.angles);
        drop(all);
        let (rows, attending) = (batch * seq, batch * division.queries);
        let views = [(&queries, attending, hidden), (&keys_values, rows, 2 * hidden)];
        let [of_queries, of_keys_values] =
            views.map(|(values, rows, columns)| View::new(values, rows, columns, columns));
        let (context, softmax_rows) = attention::<E>(simd, state.shape(), of_queries, of_keys_values);
        let context = flex::new(context, &[batch, division.queries, hidden]);
        state.queries = flex::new(queries, &[attending, hidden]);
        state.keys_values = flex::new(keys_values, &[rows, 2 * hidden]);
        state.softmax_rows = softmax_rows;
        state.x = state.weight.is_trained().then_some(x);
        (context, state)
    }

    impl RotaryAttentionOps for Flex {
        fn rotary_attention(
            x: FlexTensor,
            weight: FlexTensor,
            bias: FlexTensor,
            padding: FlexTensor,
            settings: Settings,
        ) -> FlexTensor {
            let operands = [x, weight, bias];
            match settings.products.precision {
                Precision::F32 => forward::<f32, f32>(operands, padding, settings).0,
                Precision::Bf16 => forward::<bf16, bf16>(operands, padding, settings).0,
                Precision::Int8 => forward::<bf16, i8>(operands, padding, settings).0,
            }
        }
    }

    impl<C: CheckpointStrategy> RotaryAttentionOps for Autodiff<Flex, C> {
        fn rotary_attention(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            padding: BoolTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self> {
            let operands = [x, weight, bias];
            match settings.products.precision {
                Precision::F32 => tracked::<f32, C>(operands, padding, settings),
                Precision::Bf16 | Precision::Int8 => tracked::<bf16, C>(operands, padding, settings),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        operands: [FloatTensor<Autodiff<Flex, C>>; 3],
        padding: FlexTensor,
        settings: Settings,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let parts = operands.map(|operand| operand.into_parts());
        let tensors = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let nodes = parts.map(|(_, node)| node);
        let (out, state) = forward::<E, E>(tensors, padding, settings);
        match RotaryAttentionBackward::<E>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    #[derive(Debug)]
    struct RotaryAttentionBackward<E>(PhantomData<E>);

    impl<E: Value> Backward<Flex, 3> for RotaryAttentionBackward<E> {
        type State = State;

        fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let (state, simd) = (ops.state, Simd::detect());
            let gradient = rounded::<E>(gradients.consume::<Flex>(&ops.node));
            let shape = state.shape();
            let (rows, hidden) = (shape.batch * shape.seq, shape.hidden);
            let [of_queries, of_keys_values] = attention_backward::<E>(
                simd,
                shape,
                matrix(&state.queries),
                matrix(&state.keys_values),
                &state.softmax_rows,
                matrix(&gradient),
            );
            let of_parts = [&of_queries[..], &of_keys_values[..]];
            let of_all = unite(simd, state.division(), of_parts, &state.settings.angles);
            let of_all_rows = View::new(&of_all, rows, 3 * hidden, 3 * hidden);
            let [x_node, weight_node, bias_node] = ops.parents;
            let State { x, dims, weight, .. } = &state;
            let linear = LinearBackward { x: x.as_ref(), shape: dims, weight, gradient: of_all_rows };
            linear.register::<f32>([x_node, weight_node].map(|node| node.map(|node| node.id)), gradients);
            if let Some(node) = bias_node {
                gradients.register::<Flex>(node.id, flex::new(column_sums(&of_all, 3 * hidden), &[3 * hidden]));
            }
        }
    }
}
