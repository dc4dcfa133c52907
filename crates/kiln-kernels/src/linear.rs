use burn::tensor::Tensor;

use crate::{Activation, Affine, Products};

/// A linear layer followed by an activation.
#[derive(Clone, Debug)]
pub struct ActivatedLinear {
    /// The linear layer.
    pub linear: Affine,
    /// The activation, applied to the linear layer's output.
    pub activation: Activation,
}

impl ActivatedLinear {
    /// Computes `activation(x · weight + bias)`.
    ///
    /// The output is bf16, as the input of the next product, unless the precision is
    /// [`Precision::F32`](crate::Precision::F32).
    ///
    /// # Shapes
    /// - `x`: `[…, input]`
    /// - output: `[…, output]`
    pub fn forward<const D: usize>(self, x: Tensor<D>, products: &Products) -> Tensor<D> {
        #[cfg(feature = "flex")]
        if crate::is_fused(&x.device()) {
            return fused::activated_linear(self, x, products.clone());
        }
        self.plain(x, products)
    }

    /// [`ActivatedLinear::forward`] with burn's operations.
    pub fn plain<const D: usize>(self, x: Tensor<D>, products: &Products) -> Tensor<D> {
        let x = products.precision.widened(self.linear.plain(x, products));
        products.precision.rounded(self.activation.plain(x))
    }
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use std::marker::PhantomData;

    use burn::backend::autodiff::NodeId;
    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::ActivatedLinear;
    use crate::cpu::{Epilogue, Kernels, Simd, Source, Target, View, activate, activate_backward};
    use crate::flex::{self, Value, contiguous, matrix, rounded, rows_and_columns, values, values_mut, with_last};
    use crate::weight::{Form, Operand};
    use crate::{Activation, Precision, Products};

    #[backend_extension(Flex, Autodiff)]
    pub trait ActivatedLinearOps: Backend {
        fn activated_linear(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Debug)]
    pub struct Settings {
        activation: Activation,
        form: Form,
        products: Products,
    }

    pub(super) fn activated_linear<const D: usize>(
        layer: ActivatedLinear,
        x: Tensor<D>,
        products: Products,
    ) -> Tensor<D> {
        let (weight, form) = layer.linear.weight.into_parts(&products);
        let [weight, bias] = [weight.into_dispatch(), layer.linear.bias.into_dispatch()];
        let settings = Settings { activation: layer.activation, form, products };
        Tensor::from_dispatch(<Dispatch as ActivatedLinearOps>::activated_linear(
            x.into_dispatch(),
            weight,
            bias,
            settings,
        ))
    }

    /// Computes `x · weight` with an epilogue. `x` has the type `E`, the product is computed in `W`, and the output has the
    /// type `O`.
    pub(crate) fn linear<E: Value + Source<W>, W: Kernels, O: Value>(
        x: &FlexTensor,
        weight: &Operand,
        products: &Products,
        epilogue: Epilogue<'_>,
    ) -> Vec<O> {
        products.multiply::<E, W, O>(matrix(x), &[weight], epilogue)
    }

    /// The backward pass of a linear layer, as part of a fused operation.
    pub(crate) struct LinearBackward<'a, E> {
        /// The layer's input, if its weight gets a gradient.
        pub(crate) x: Option<&'a FlexTensor>,
        /// The shape of the layer's input.
        pub(crate) shape: &'a [usize],
        pub(crate) weight: &'a Operand,
        /// The gradient of the layer's output, `[rows, output]`.
        pub(crate) gradient: View<'a, E>,
    }

    impl<E: Value> LinearBackward<'_, E> {
        /// Registers the gradients of the layer's input, as `O`, and of its weight, for the nodes that are given.
        pub(crate) fn register<O: Value>(self, [x_node, weight_node]: [Option<NodeId>; 2], gradients: &mut Gradients) {
            let Self { x, shape, weight, gradient } = self;
            if let Some(node) = x_node {
                let [input, _] = weight.shape();
                let mut of_x = vec![O::default(); gradient.rows() * input];
                weight.input_gradient(gradient, Target::whole(&mut of_x, input), Epilogue::Store);
                gradients.register::<Flex>(node, flex::new(of_x, shape));
            }
            if let (Some(node), Some(x)) = (weight_node, x) {
                gradients.register::<Flex>(node, weight.gradient(matrix::<E>(x), gradient));
            }
        }
    }

    fn forward<E: Value + Source<W>, W: Kernels>(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        settings: &Settings,
    ) -> FlexTensor {
        let (x, bias) = (rounded::<E>(x), contiguous(bias));
        let weight = Operand::new(weight, settings.form.clone());
        let epilogue = Epilogue::BiasActivation(values(&bias), settings.activation);
        let out = linear::<E, W, E>(&x, &weight, &settings.products, epilogue);
        flex::new(out, &with_last(&x, weight.shape()[1]))
    }

    impl ActivatedLinearOps for Flex {
        fn activated_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, settings: Settings) -> FlexTensor {
            match settings.products.precision {
                Precision::F32 => forward::<f32, f32>(x, weight, bias, &settings),
                Precision::Bf16 => forward::<bf16, bf16>(x, weight, bias, &settings),
                Precision::Int8 => forward::<bf16, i8>(x, weight, bias, &settings),
            }
        }
    }

    impl<C: CheckpointStrategy> ActivatedLinearOps for Autodiff<Flex, C> {
        fn activated_linear(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self> {
            match settings.products.precision {
                Precision::F32 => tracked::<f32, C>(x, weight, bias, &settings),
                Precision::Bf16 | Precision::Int8 => tracked::<bf16, C>(x, weight, bias, &settings),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        x: FloatTensor<Autodiff<Flex, C>>,
        weight: FloatTensor<Autodiff<Flex, C>>,
        bias: FloatTensor<Autodiff<Flex, C>>,
        settings: &Settings,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        match ActivatedLinearBackward::<E>(PhantomData)
            .prepare::<C>([x_node, weight_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => {
                let (x, bias) = (rounded::<E>(x), contiguous(bias));
                let weight = Operand::new(weight, settings.form.clone());
                let ([_, output], activation) = (weight.shape(), settings.activation);
                let before = linear::<E, E, E>(&x, &weight, &settings.products, Epilogue::Bias(values(&bias)));
                let out = activate(Simd::detect(), activation, &before, output);
                let shape = with_last(&x, output);
                let x = weight.is_trained().then_some(x);
                let state = State { x, weight, before: flex::new(before, &shape), activation };
                prepared.finish(state, flex::new(out, &shape))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(forward::<E, E>(x, weight, bias, settings)),
        }
    }

    #[derive(Debug)]
    struct ActivatedLinearBackward<E>(PhantomData<E>);

    #[derive(Clone, Debug)]
    struct State {
        /// The input, if the weight gets a gradient.
        x: Option<FlexTensor>,
        weight: Operand,
        /// The input of the activation.
        before: FlexTensor,
        activation: Activation,
    }

    impl<E: Value> Backward<Flex, 3> for ActivatedLinearBackward<E> {
        type State = State;

        fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let State { x, weight, before, activation } = ops.state;
            let [x_node, weight_node, bias_node] = ops.parents;
            let mut gradient = rounded::<E>(gradients.consume::<Flex>(&ops.node));
            let [_, output] = rows_and_columns(&before);
            let argument = values::<E>(&before);
            let of_bias = activate_backward(Simd::detect(), activation, argument, values_mut(&mut gradient), output);
            let [input, _] = weight.shape();
            let shape = with_last(&before, input);
            drop(before);
            let gradient = matrix::<E>(&gradient);
            let linear = LinearBackward { x: x.as_ref(), shape: &shape, weight: &weight, gradient };
            linear.register::<f32>([x_node, weight_node].map(|node| node.map(|node| node.id)), gradients);
            if let Some(node) = bias_node {
                gradients.register::<Flex>(node.id, flex::new(of_bias, &[output]));
            }
        }
    }
}
