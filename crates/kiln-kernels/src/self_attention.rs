use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor, module};

use crate::Products;

/// The projections of BERT's self-attention: weights `[hidden, hidden]`, biases `[hidden]`.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    /// Weight and bias of the queries.
    pub query: (Tensor<2>, Tensor<1>),
    /// Of the keys.
    pub key: (Tensor<2>, Tensor<1>),
    /// Of the values.
    pub value: (Tensor<2>, Tensor<1>),
    /// How many heads share the hidden axis.
    pub heads: usize,
    /// Of the probabilities.
    pub dropout: f64,
}

impl SelfAttention {
    /// softmax(Q·Kᵀ/√d)·V of each head (Vaswani et al., 2017, equation 1); dropout under autodiff alone.
    ///
    /// On the CPU the outputs of padding are zero.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, seq, hidden]`
    /// - `padding`: `[batch, seq]`, true where a position is padding
    pub fn forward(self, x: Tensor<3>, padding: Tensor<2, Bool>, products: &Products) -> Tensor<3> {
        #[cfg(feature = "flex")]
        if crate::is_fused(&x.device()) {
            let dropout = crate::dropout(&x, self.dropout);
            return fused::self_attention(self, x, padding, dropout, products.clone());
        }
        let _ = products;
        self.plain(x, padding)
    }

    /// [`SelfAttention::forward`] by burn's operations.
    pub fn plain(self, x: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let [batch, seq, hidden] = x.dims();
        let head = hidden / self.heads;
        let project = |(weight, bias)| -> Tensor<4> {
            let x = module::linear(x.clone(), weight, Some(bias));
            x.reshape([batch, seq, self.heads, head]).swap_dims(1, 2)
        };
        let [query, key, value] = [self.query, self.key, self.value].map(project);
        let padding: Tensor<4, Bool> = padding.reshape([batch, 1, 1, seq]).expand([batch, 1, seq, seq]);
        // context = [batch, heads, seq, head]
        let context = if query.is_autodiff() {
            let scores = (query / (head as f64).sqrt()).matmul(key.transpose());
            let probabilities = softmax(scores.mask_fill(padding, f32::NEG_INFINITY), 3);
            crate::plain_dropout(probabilities, self.dropout).matmul(value)
        } else {
            // Fused on backends that can; it has neither dropout nor a backward pass, and needs neither here.
            module::attention(query, key, value, Some(padding), None, AttentionModuleOptions::default())
        };
        context.swap_dims(1, 2).reshape([batch, seq, hidden])
    }
}

#[cfg(feature = "flex")]
#[allow(clippy::too_many_arguments, reason = "a tensor each: what dispatches them takes no struct of them")]
mod fused {
    use std::marker::PhantomData;

    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::{BoolTensor, FloatTensor};
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::{Bool, Tensor};
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::SelfAttention;
    use crate::cpu::{
        Attention, Dropout, Epilogue, Simd, Source, Target, View, attention, attention_backward, product,
    };
    use crate::flex::{self, Value, column_sums, contiguous, rounded, values};
    use crate::linear::fused::{input_gradient, weight_gradient};
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
            how: How,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Debug)]
    pub struct How {
        heads: usize,
        dropout: Option<Dropout>,
        products: Products,
    }

    pub(super) fn self_attention(
        projections: SelfAttention,
        x: Tensor<3>,
        padding: Tensor<2, Bool>,
        dropout: Option<Dropout>,
        products: Products,
    ) -> Tensor<3> {
        let SelfAttention { query, key, value, heads, .. } = projections;
        let how = How { heads, dropout, products };
        Tensor::from_dispatch(<Dispatch as SelfAttentionOps>::self_attention(
            x.into_dispatch(),
            query.0.into_dispatch(),
            query.1.into_dispatch(),
            key.0.into_dispatch(),
            key.1.into_dispatch(),
            value.0.into_dispatch(),
            value.1.into_dispatch(),
            padding.into_dispatch(),
            how,
        ))
    }

    /// What both passes need.
    #[derive(Clone, Debug)]
    struct State {
        x: FlexTensor,
        /// Of queries, keys and values.
        weights: [FlexTensor; 3],
        mask: Vec<bool>,
        qkv: FlexTensor,
        /// `[batch, heads, seq]`
        log_sums: Vec<f32>,
        how: How,
    }

    impl State {
        fn shape(&self) -> Attention<'_> {
            let &[batch, seq, hidden] = self.x.layout().shape().as_slice() else { unreachable!("x has three axes") };
            Attention { batch, seq, heads: self.how.heads, hidden, mask: &self.mask, dropout: self.how.dropout }
        }
    }

    /// The output, and what the backward pass needs.
    fn forward<E: Value>(
        [x, query, query_bias, key, key_bias, value, value_bias]: [FlexTensor; 7],
        padding: FlexTensor,
        how: How,
    ) -> (FlexTensor, State)
    where
        f32: Source<E>,
    {
        let simd = Simd::detect();
        let x = rounded::<E>(x);
        let weights = [query, key, value].map(contiguous);
        let &[batch, seq, hidden] = x.layout().shape().as_slice() else { unreachable!("x has three axes") };
        let mut qkv = vec![E::default(); batch * seq * 3 * hidden];
        for (part, (weight, bias)) in weights.iter().zip([query_bias, key_bias, value_bias]).enumerate() {
            let bias = contiguous(bias);
            let packed = how.products.pack::<E>(weight);
            let out = Target::columns(&mut qkv, 3 * hidden, part * hidden);
            product(
                simd,
                View::new(values::<E>(&x), batch * seq, hidden, hidden),
                &packed,
                out,
                Epilogue::Bias(values(&bias)),
            );
        }
        let padding = contiguous(padding);
        let mask = padding.storage::<u8>()[padding.layout().start_offset()..][..batch * seq]
            .iter()
            .map(|padding| *padding == 0)
            .collect();
        let qkv = flex::new(qkv, &[batch, seq, 3 * hidden]);
        let mut state = State { x, weights, mask, qkv, log_sums: vec![], how };
        let (context, log_sums) = attention(simd, state.shape(), values::<E>(&state.qkv));
        state.log_sums = log_sums;
        (flex::new(context, &[batch, seq, hidden]), state)
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
            how: How,
        ) -> FlexTensor {
            let operands = [x, query, query_bias, key, key_bias, value, value_bias];
            match how.products.precision {
                Precision::F32 => forward::<f32>(operands, padding, how).0,
                Precision::Bf16 => forward::<bf16>(operands, padding, how).0,
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
            how: How,
        ) -> FloatTensor<Self> {
            let operands = [x, query, query_bias, key, key_bias, value, value_bias];
            match how.products.precision {
                Precision::F32 => tracked::<f32, C>(operands, padding, how),
                Precision::Bf16 => tracked::<bf16, C>(operands, padding, how),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        operands: [FloatTensor<Autodiff<Flex, C>>; 7],
        padding: FlexTensor,
        how: How,
    ) -> FloatTensor<Autodiff<Flex, C>>
    where
        f32: Source<E>,
    {
        let parts = operands.map(|operand| operand.into_parts());
        let tensors = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let nodes = parts.map(|(_, node)| node);
        let (out, state) = forward::<E>(tensors, padding, how);
        match SelfAttentionBackward::<E>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    #[derive(Debug)]
    struct SelfAttentionBackward<E>(PhantomData<E>);

    impl<E: Value> Backward<Flex, 7> for SelfAttentionBackward<E>
    where
        f32: Source<E>,
    {
        type State = State;

        fn backward(self, ops: Ops<State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let state = ops.state;
            let [x_node, parts @ ..] = ops.parents;
            let gradient = rounded::<E>(gradients.consume::<Flex>(&ops.node));
            let shape = state.shape();
            let (rows, hidden) = (shape.batch * shape.seq, shape.hidden);
            let of_qkv =
                attention_backward(Simd::detect(), shape, values::<E>(&state.qkv), &state.log_sums, values(&gradient));
            let of_part = |part: usize| View::new(&of_qkv[part * hidden..], rows, hidden, 3 * hidden);

            if let Some(node) = x_node {
                let mut of_x = vec![0f32; rows * hidden];
                for (part, weight) in state.weights.iter().enumerate() {
                    let epilogue = if part == 0 { Epilogue::Store } else { Epilogue::Accumulate };
                    input_gradient::<E, f32>(of_part(part), weight, Target::whole(&mut of_x, hidden), epilogue);
                }
                gradients.register::<Flex>(node.id, flex::new(of_x, state.x.layout().shape().as_slice()));
            }
            let of_biases = column_sums(&of_qkv, 3 * hidden);
            for (at, node) in parts.into_iter().enumerate() {
                let (part, is_weight) = (at / 2, at % 2 == 0);
                let Some(node) = node else { continue };
                let gradient = if is_weight {
                    weight_gradient::<E>(&state.x, of_part(part))
                } else {
                    flex::new(of_biases[part * hidden..][..hidden].to_vec(), &[hidden])
                };
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}
