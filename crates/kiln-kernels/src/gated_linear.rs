use burn::tensor::Tensor;

use crate::{Activation, Affine, Products};

/// A gated linear unit (Shazeer, 2020). A linear layer of twice the output width is split into halves, and the activation
/// of the first half is multiplied with the second half.
#[derive(Clone, Debug)]
pub struct GatedLinear {
    /// The linear layer, from `input` to `2 · output`.
    pub linear: Affine,
    /// The activation of the first half. With GELU, the layer is a GeGLU.
    pub activation: Activation,
    /// Dropout probability of the product of both halves.
    pub dropout: f64,
}

impl GatedLinear {
    /// Computes `dropout(activation(a) · b)` for the halves `a` and `b` of `x · weight + bias`.
    ///
    /// Dropout is active under autodiff, or when `products` has seeds for it. The output is bf16, as the input of the next
    /// product, unless the precision is [`Precision::F32`](crate::Precision::F32).
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, input]`
    /// - output: `[batch, seq, output]`
    pub fn forward(self, x: Tensor<3>, products: &Products) -> Tensor<3> {
        #[cfg(feature = "flex")]
        if crate::is_fused(&x.device()) {
            let dropout = crate::dropout(&x, self.dropout, products);
            return fused::gated_linear(self, x, dropout, products.clone());
        }
        self.plain(x, products)
    }

    /// [`GatedLinear::forward`] with burn's operations.
    pub fn plain(self, x: Tensor<3>, products: &Products) -> Tensor<3> {
        let both = products.precision.widened(self.linear.plain(x, products));
        let [_, _, width] = both.dims();
        let (first, second) = (both.clone().narrow(2, 0, width / 2), both.narrow(2, width / 2, width / 2));
        let gated = crate::plain_dropout(self.activation.plain(first) * second, self.dropout, products);
        products.precision.rounded(gated)
    }
}

#[cfg(feature = "flex")]
mod fused {
    use std::marker::PhantomData;

    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::GatedLinear;
    use crate::cpu::{Dropout, Epilogue, Gate, Kernels, Simd, Source, View, gate, gate_backward};
    use crate::flex::{self, Value, contiguous, rounded, rows_and_columns, values, with_last};
    use crate::linear::fused::{LinearBackward, linear};
    use crate::weight::{Form, Operand};
    use crate::{Activation, Precision, Products};

    #[backend_extension(Flex, Autodiff)]
    pub trait GatedLinearOps: Backend {
        fn gated_linear(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Debug)]
    pub struct Settings {
        activation: Activation,
        dropout: Option<Dropout>,
        form: Form,
        products: Products,
    }

    impl Settings {
        /// The gate for rows of `width` values.
        fn gate(&self, width: usize) -> Gate {
            Gate { activation: self.activation, columns: width / 2, dropout: self.dropout }
        }
    }

    pub(super) fn gated_linear(
        layer: GatedLinear,
        x: Tensor<3>,
        dropout: Option<Dropout>,
        products: Products,
    ) -> Tensor<3> {
        let (weight, form) = layer.linear.weight.into_parts(&products);
        let settings = Settings { activation: layer.activation, dropout, form, products };
        Tensor::from_dispatch(<Dispatch as GatedLinearOps>::gated_linear(
            x.into_dispatch(),
            weight.into_dispatch(),
            layer.linear.bias.into_dispatch(),
            settings,
        ))
    }

    /// Returns the output, and what the backward pass needs.
    fn forward<E: Value + Source<W>, W: Kernels>(
        [x, weight, bias]: [FlexTensor; 3],
        settings: &Settings,
    ) -> (FlexTensor, State) {
        let (x, bias) = (rounded::<E>(x), contiguous(bias));
        let weight = Operand::new(weight, settings.form.clone());
        let [_, width] = weight.shape();
        let both = linear::<E, W, E>(&x, &weight, &settings.products, Epilogue::Bias(values(&bias)));
        let gate_of = settings.gate(width);
        let out = flex::new(gate(Simd::detect(), gate_of, &both), &with_last(&x, width / 2));
        let both = flex::new(both, &with_last(&x, width));
        let x = weight.is_trained().then_some(x);
        (out, State { x, weight, both, gate: gate_of })
    }

    impl GatedLinearOps for Flex {
        fn gated_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, settings: Settings) -> FlexTensor {
            let operands = [x, weight, bias];
            match settings.products.precision {
                Precision::F32 => forward::<f32, f32>(operands, &settings).0,
                Precision::Bf16 => forward::<bf16, bf16>(operands, &settings).0,
                Precision::Int8 => forward::<bf16, i8>(operands, &settings).0,
            }
        }
    }

    impl<C: CheckpointStrategy> GatedLinearOps for Autodiff<Flex, C> {
        fn gated_linear(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self> {
            let operands = [x, weight, bias];
            match settings.products.precision {
                Precision::F32 => tracked::<f32, C>(operands, &settings),
                Precision::Bf16 | Precision::Int8 => tracked::<bf16, C>(operands, &settings),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        operands: [FloatTensor<Autodiff<Flex, C>>; 3],
        settings: &Settings,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let parts = operands.map(|operand| operand.into_parts());
        let tensors = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let nodes = parts.map(|(_, node)| node);
        let (out, state) = forward::<E, E>(tensors, settings);
        match GatedLinearBackward::<E>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    #[derive(Debug)]
    struct GatedLinearBackward<E>(PhantomData<E>);

    #[derive(Clone, Debug)]
    struct State {
        /// The input, if the weight gets a gradient.
        x: Option<FlexTensor>,
        weight: Operand,
        /// The two halves, side by side.
        both: FlexTensor,
        gate: Gate,
    }

    impl<E: Value> Backward<Flex, 3> for GatedLinearBackward<E> {
        type State = State;

        fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let State { x, weight, both, gate } = ops.state;
            let [x_node, weight_node, bias_node] = ops.parents;
            let gradient = rounded::<E>(gradients.consume::<Flex>(&ops.node));
            let [rows, width] = rows_and_columns(&both);
            let (gradient, of_bias) = gate_backward::<E>(Simd::detect(), gate, values(&both), values(&gradient));
            let gradient = View::new(&gradient, rows, width, width);
            let [input, _] = weight.shape();
            let linear = LinearBackward { x: x.as_ref(), shape: &with_last(&both, input), weight: &weight, gradient };
            linear.register::<f32>([x_node, weight_node].map(|node| node.map(|node| node.id)), gradients);
            if let Some(node) = bias_node {
                gradients.register::<Flex>(node.id, flex::new(of_bias, &[width]));
            }
        }
    }
}
