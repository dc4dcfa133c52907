use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{Tensor, activation, module};

use crate::Products;

/// `gelu(x · weight + bias)`, the exact GELU.
///
/// On the CPU and with [`Precision::Bf16`](crate::Precision::Bf16) the output is bf16, for a product that reads it.
///
/// # Shapes
/// - `x`: `[…, input]`
/// - `weight`: `[input, output]`; `bias`: `[output]`
/// - output: `[…, output]`
pub fn linear_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>, products: &Products) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if crate::is_fused(&x.device()) {
        return fused::linear_gelu(x, weight, bias, products.clone());
    }
    let _ = products;
    plain_linear_gelu(x, weight, bias)
}

/// [`linear_gelu`] by burn's operations, those that are differentiated exactly: burn's own GELU has, on backends other
/// than flex, the derivative of its tanh approximation.
pub fn plain_linear_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    let x = module::linear(x, weight, Some(bias));
    if !x.is_autodiff() {
        return activation::gelu(x);
    }
    let twice_phi = (x.clone() * FRAC_1_SQRT_2).erf() + 1.0;
    x * twice_phi * 0.5
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use std::marker::PhantomData;

    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;
    use burn_flex::FlexTensor;
    use half::bf16;

    use crate::cpu::{Epilogue, Kernels, Packed, Simd, Source, Target, View, gelu_backward, gelu_rows, product};
    use crate::flex::{self, Value, contiguous, matrix, rounded, rows_and_columns, values, with_last};
    use crate::{Precision, Products};

    #[backend_extension(Flex, Autodiff)]
    pub trait LinearGelu: Backend {
        fn linear_gelu(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            products: Products,
        ) -> FloatTensor<Self>;
    }

    pub(super) fn linear_gelu<const D: usize>(
        x: Tensor<D>,
        weight: Tensor<2>,
        bias: Tensor<1>,
        products: Products,
    ) -> Tensor<D> {
        let [weight, bias] = [weight.into_dispatch(), bias.into_dispatch()];
        Tensor::from_dispatch(<Dispatch as LinearGelu>::linear_gelu(x.into_dispatch(), weight, bias, products))
    }

    /// `x · weight` through an epilogue; `x` is of `E`, the product of `W`, the output of `O`.
    pub(crate) fn linear<E: Value + Source<W>, W: Kernels, O: Value>(
        x: &FlexTensor,
        weight: &FlexTensor,
        products: &Products,
        epilogue: Epilogue<'_>,
    ) -> Vec<O> {
        let simd = Simd::detect();
        let ([rows, input], [_, output]) = (rows_and_columns(x), rows_and_columns(weight));
        let packed = products.pack::<W>(&[weight]);
        let mut out = vec![O::default(); rows * output];
        product(
            simd,
            View::new(values::<E>(x), rows, input, input),
            &packed,
            Target::whole(&mut out, output),
            epilogue,
        );
        out
    }

    /// The gradient of a linear layer's input, `gradient · weightᵀ`.
    pub(crate) fn input_gradient<E: Value, O: Value>(
        gradient: View<'_, E>,
        weight: View<'_, f32>,
        out: Target<'_, O>,
        epilogue: Epilogue<'_>,
    ) {
        let simd = Simd::detect();
        let packed = Packed::<E>::new(simd, weight.transposed());
        product(simd, gradient, &packed, out, epilogue);
    }

    /// The gradient of a linear layer's weight, `xᵀ · gradient`.
    pub(crate) fn weight_gradient<E: Value>(x: View<'_, E>, gradient: View<'_, E>) -> FlexTensor {
        let simd = Simd::detect();
        let (input, output) = (x.cols(), gradient.cols());
        let packed = Packed::<E>::new(simd, gradient);
        let mut out = vec![0f32; input * output];
        product(simd, x.transposed(), &packed, Target::whole(&mut out, output), Epilogue::Store);
        flex::new(out, &[input, output])
    }

    fn forward<E: Value + Source<W>, W: Kernels>(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        products: &Products,
    ) -> FlexTensor {
        let (x, weight, bias) = (rounded::<E>(x), contiguous(weight), contiguous(bias));
        let out = linear::<E, W, E>(&x, &weight, products, Epilogue::BiasGelu(values(&bias)));
        flex::new(out, &with_last(&x, rows_and_columns(&weight)[1]))
    }

    impl LinearGelu for Flex {
        fn linear_gelu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, products: Products) -> FlexTensor {
            match products.precision {
                Precision::F32 => forward::<f32, f32>(x, weight, bias, &products),
                Precision::Bf16 => forward::<bf16, bf16>(x, weight, bias, &products),
                Precision::Int8 => forward::<bf16, i8>(x, weight, bias, &products),
            }
        }
    }

    impl<C: CheckpointStrategy> LinearGelu for Autodiff<Flex, C> {
        fn linear_gelu(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            products: Products,
        ) -> FloatTensor<Self> {
            match products.precision {
                Precision::F32 => tracked::<f32, C>(x, weight, bias, &products),
                Precision::Bf16 | Precision::Int8 => tracked::<bf16, C>(x, weight, bias, &products),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        x: FloatTensor<Autodiff<Flex, C>>,
        weight: FloatTensor<Autodiff<Flex, C>>,
        bias: FloatTensor<Autodiff<Flex, C>>,
        products: &Products,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        match LinearGeluBackward::<E>(PhantomData)
            .prepare::<C>([x_node, weight_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => {
                let (x, weight, bias) = (rounded::<E>(x), contiguous(weight), contiguous(bias));
                let output = rows_and_columns(&weight)[1];
                let before = linear::<E, E, E>(&x, &weight, products, Epilogue::Bias(values(&bias)));
                let out = gelu_rows(Simd::detect(), &before, output);
                let shape = with_last(&x, output);
                prepared.finish(State { x, weight, before: flex::new(before, &shape) }, flex::new(out, &shape))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(forward::<E, E>(x, weight, bias, products)),
        }
    }

    #[derive(Debug)]
    struct LinearGeluBackward<E>(PhantomData<E>);

    #[derive(Clone, Debug)]
    struct State {
        x: FlexTensor,
        weight: FlexTensor,
        /// What the GELU was applied to.
        before: FlexTensor,
    }

    impl<E: Value> Backward<Flex, 3> for LinearGeluBackward<E> {
        type State = State;

        fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let State { x, weight, before } = ops.state;
            let [x_node, weight_node, bias_node] = ops.parents;
            let gradient = rounded::<E>(gradients.consume::<Flex>(&ops.node));
            let [rows, output] = rows_and_columns(&before);
            let (gradient, of_bias) = gelu_backward::<E>(Simd::detect(), values(&before), values(&gradient), output);
            let gradient = View::new(&gradient, rows, output, output);
            let (x, weight) = (matrix::<E>(&x), matrix(&weight));
            if let Some(node) = x_node {
                let mut of_x = vec![0f32; rows * x.cols()];
                input_gradient::<E, f32>(gradient, weight, Target::whole(&mut of_x, x.cols()), Epilogue::Store);
                gradients.register::<Flex>(node.id, flex::new(of_x, &with_last(&before, x.cols())));
            }
            if let Some(node) = weight_node {
                gradients.register::<Flex>(node.id, weight_gradient(x, gradient));
            }
            if let Some(node) = bias_node {
                gradients.register::<Flex>(node.id, flex::new(of_bias, &[output]));
            }
        }
    }
}
