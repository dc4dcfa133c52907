use burn::tensor::{Tensor, module};

use crate::Products;

/// Layer normalization over the last axis (Ba et al., 2016).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// γ, `[hidden]`.
    pub gamma: Tensor<1>,
    /// β, `[hidden]`.
    pub beta: Tensor<1>,
    /// A small constant that is added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// Computes `(x − mean) / deviation · γ + β`.
    ///
    /// On the CPU, the output is bf16, as the input of the next product, unless the precision is
    /// [`Precision::F32`](crate::Precision::F32).
    ///
    /// # Shapes
    /// - `x`, output: `[…, hidden]`
    pub fn forward<const D: usize>(self, x: Tensor<D>, products: &Products) -> Tensor<D> {
        #[cfg(feature = "flex")]
        if crate::is_fused(&x.device()) {
            return fused::layer_norm(self, x, products.precision);
        }
        let _ = products;
        self.plain(x)
    }

    /// [`LayerNorm::forward`] with burn's operations.
    pub fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        module::layer_norm(x, self.gamma, Some(self.beta), self.epsilon)
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

    use super::LayerNorm;
    use crate::Precision;
    use crate::cpu::{Norm, NormGradients, NormRows, Normalized, Simd, norm_backward, normalize};
    use crate::flex::{self, Value, contiguous, values, widened};

    #[backend_extension(Flex, Autodiff)]
    pub trait LayerNormOps: Backend {
        fn layer_norm(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Copy, Debug)]
    pub struct Settings {
        epsilon: f32,
        precision: Precision,
    }

    pub(super) fn layer_norm<const D: usize>(norm: LayerNorm, x: Tensor<D>, precision: Precision) -> Tensor<D> {
        Tensor::from_dispatch(<Dispatch as LayerNormOps>::layer_norm(
            x.into_dispatch(),
            norm.gamma.into_dispatch(),
            norm.beta.into_dispatch(),
            Settings { epsilon: norm.epsilon as f32, precision },
        ))
    }

    fn forward<E: Value>(
        [x, gamma, beta]: [FlexTensor; 3],
        epsilon: f32,
        keep: bool,
    ) -> (FlexTensor, Option<Normalized<E>>) {
        let [x, gamma, beta] = [widened(x), contiguous(gamma), contiguous(beta)];
        let norm = Norm { weight: values(&gamma), bias: values(&beta), epsilon };
        let (out, kept) = normalize::<E>(Simd::detect(), values(&x), norm, keep);
        (flex::new(out, x.layout().shape().as_slice()), kept)
    }

    impl LayerNormOps for Flex {
        fn layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, settings: Settings) -> FlexTensor {
            let Settings { epsilon, precision } = settings;
            match precision {
                Precision::F32 => forward::<f32>([x, gamma, beta], epsilon, false).0,
                Precision::Bf16 | Precision::Int8 => forward::<bf16>([x, gamma, beta], epsilon, false).0,
            }
        }
    }

    impl<C: CheckpointStrategy> LayerNormOps for Autodiff<Flex, C> {
        fn layer_norm(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self> {
            let operands = [x, gamma, beta];
            match settings.precision {
                Precision::F32 => tracked::<f32, C>(operands, settings.epsilon),
                Precision::Bf16 | Precision::Int8 => tracked::<bf16, C>(operands, settings.epsilon),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        operands: [FloatTensor<Autodiff<Flex, C>>; 3],
        epsilon: f32,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let parts = operands.map(|operand| operand.into_parts());
        let tensors = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let nodes = parts.map(|(_, node)| node);
        let [_, gamma, _] = tensors.clone();
        match LayerNormBackward::<E>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (out, normalized) = forward::<E>(tensors, epsilon, true);
                let Normalized { rows, inverse_deviations } =
                    normalized.expect("`forward` keeps it where `keep` is true");
                let rows = flex::new(rows, out.layout().shape().as_slice());
                prepared.finish(State { gamma: contiguous(gamma), rows, inverse_deviations }, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(forward::<E>(tensors, epsilon, false).0),
        }
    }

    #[derive(Debug)]
    struct LayerNormBackward<E>(PhantomData<E>);

    #[derive(Clone, Debug)]
    struct State {
        gamma: FlexTensor,
        /// The normalized rows.
        rows: FlexTensor,
        inverse_deviations: Vec<f32>,
    }

    impl<E: Value> Backward<Flex, 3> for LayerNormBackward<E> {
        type State = State;

        fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let State { gamma, rows, inverse_deviations } = ops.state;
            let gradient = widened(gradients.consume::<Flex>(&ops.node));
            let NormGradients { residual: of_x, weight, bias } = norm_backward::<E>(
                Simd::detect(),
                values(&gradient),
                NormRows::Kept(values(&rows)),
                &inverse_deviations,
                values(&gamma),
            );
            let [x_node, gamma_node, beta_node] = ops.parents;
            let (shape, hidden) = (gradient.layout().shape(), weight.len());
            for (node, values, shape) in
                [(x_node, of_x, shape.as_slice()), (gamma_node, weight, &[hidden]), (beta_node, bias, &[hidden])]
            {
                if let Some(node) = node {
                    gradients.register::<Flex>(node.id, flex::new(values, shape));
                }
            }
        }
    }
}
