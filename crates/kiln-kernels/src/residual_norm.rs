use burn::tensor::Tensor;

use crate::{Affine, LayerNorm, Products};

/// The end of a block: a linear layer, dropout, a residual connection and, in BERT, layer normalization.
#[derive(Clone, Debug)]
pub struct OutputBlock {
    /// The linear layer, from `input` to `hidden`.
    pub dense: Affine,
    /// The layer normalization of the sum. `None` in pre-norm encoders, which normalize the input of a block.
    pub norm: Option<LayerNorm>,
    /// Dropout probability of the linear layer's output.
    pub dropout: f64,
}

impl OutputBlock {
    /// Computes `norm(dropout(x · weight + bias) + residual)`, or the sum alone if there is no `norm`.
    ///
    /// Dropout is active under autodiff, or when `products` has seeds for it.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, input]`
    /// - `residual`, output: `[batch, seq, hidden]`
    pub fn forward(self, x: Tensor<3>, residual: Tensor<3>, products: &Products) -> Tensor<3> {
        #[cfg(feature = "flex")]
        if crate::is_fused(&residual.device()) {
            let dropout = crate::dropout(&residual, self.dropout, products);
            return fused::output_block(self, x, residual, dropout, products.clone());
        }
        self.plain(x, residual, products)
    }

    /// [`OutputBlock::forward`] with burn's operations.
    pub fn plain(self, x: Tensor<3>, residual: Tensor<3>, products: &Products) -> Tensor<3> {
        let x = products.precision.widened(self.dense.plain(x, products));
        let x = crate::plain_dropout(x, self.dropout, products) + residual;
        match self.norm {
            Some(norm) => norm.plain(x),
            None => x,
        }
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
    use burn::tensor::{DType, Tensor};
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::{LayerNorm, OutputBlock};
    use crate::cpu::{
        Dropout, Epilogue, Keep, Kernels, Norm, NormGradients, NormRows, Normalized, Simd, Source, View, drop_and_sum,
        is_invertible, norm_backward, residual_norm, residual_sum,
    };
    use crate::flex::{self, Value, contiguous, rounded, rows_and_columns, values, with_last};
    use crate::linear::fused::{LinearBackward, linear};
    use crate::weight::{Form, Operand};
    use crate::{Precision, Products};

    #[backend_extension(Flex, Autodiff)]
    pub trait ResidualNorm: Backend {
        fn residual_norm(
            x: FloatTensor<Self>,
            residual: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Debug)]
    pub struct Settings {
        /// ε of the normalization, if there is one.
        epsilon: Option<f32>,
        /// Whether γ or β gets a gradient.
        trains_norm: bool,
        dropout: Option<Dropout>,
        form: Form,
        products: Products,
    }

    pub(super) fn output_block(
        block: OutputBlock,
        x: Tensor<3>,
        residual: Tensor<3>,
        dropout: Option<Dropout>,
        products: Products,
    ) -> Tensor<3> {
        let (weight, form) = block.dense.weight.into_parts(&products);
        let epsilon = block.norm.as_ref().map(|norm| norm.epsilon as f32);
        let trains = |norm: &LayerNorm| norm.gamma.is_tracked() || norm.beta.is_tracked();
        let trains_norm = block.norm.as_ref().is_some_and(trains);
        let settings = Settings { epsilon, trains_norm, dropout, form, products };
        // Without a normalization, γ and β are placeholders that are not read.
        let unread = || Tensor::zeros([1], &residual.device());
        let (gamma, beta) = block.norm.map_or_else(|| (unread(), unread()), |norm| (norm.gamma, norm.beta));
        Tensor::from_dispatch(<Dispatch as ResidualNorm>::residual_norm(
            x.into_dispatch(),
            residual.into_dispatch(),
            weight.into_dispatch(),
            block.dense.bias.into_dispatch(),
            gamma.into_dispatch(),
            beta.into_dispatch(),
            settings,
        ))
    }

    /// The operands, contiguous, with `x` rounded to `E`.
    struct Operands {
        x: FlexTensor,
        residual: FlexTensor,
        weight: Operand,
        bias: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
    }

    impl Operands {
        fn new<E: Value>([x, residual, weight, bias, gamma, beta]: [FlexTensor; 6], form: &Form) -> Self {
            let [residual, bias, gamma, beta] = [residual, bias, gamma, beta].map(contiguous);
            Self { x: rounded::<E>(x), residual, weight: Operand::new(weight, form.clone()), bias, gamma, beta }
        }

        fn forward<E: Value + Source<W>, W: Kernels>(
            &self,
            settings: &Settings,
            keep: Keep,
        ) -> (FlexTensor, Option<Normalized<E>>) {
            let mut out =
                linear::<E, W, f32>(&self.x, &self.weight, &settings.products, Epilogue::Bias(values(&self.bias)));
            let (simd, residual) = (Simd::detect(), values(&self.residual));
            let kept = match settings.epsilon {
                Some(epsilon) => residual_norm(simd, &mut out, residual, self.norm(epsilon), settings.dropout, keep),
                None => {
                    residual_sum(simd, &mut out, residual, self.weight.shape()[1], settings.dropout);
                    None
                }
            };
            (flex::new(out, self.residual.layout().shape().as_slice()), kept)
        }

        fn norm(&self, epsilon: f32) -> Norm<'_> {
            Norm { weight: values(&self.gamma), bias: values(&self.beta), epsilon }
        }

        /// What to keep for the backward pass of the normalization. A frozen normalization in f32 keeps its output if the
        /// normalized rows can be computed from it, because the next operation may keep the same output.
        fn keep<E: Value>(&self, settings: &Settings) -> Keep {
            let is_frozen = !settings.trains_norm && E::dtype() == DType::F32;
            match settings.epsilon {
                Some(epsilon) if is_frozen && is_invertible(self.norm(epsilon)) => Keep::Deviations,
                _ => Keep::Rows,
            }
        }
    }

    impl ResidualNorm for Flex {
        fn residual_norm(
            x: FlexTensor,
            residual: FlexTensor,
            weight: FlexTensor,
            bias: FlexTensor,
            gamma: FlexTensor,
            beta: FlexTensor,
            settings: Settings,
        ) -> FlexTensor {
            let operands = [x, residual, weight, bias, gamma, beta];
            match settings.products.precision {
                Precision::F32 => {
                    Operands::new::<f32>(operands, &settings.form).forward::<f32, f32>(&settings, Keep::Nothing).0
                }
                Precision::Bf16 => {
                    Operands::new::<bf16>(operands, &settings.form).forward::<bf16, bf16>(&settings, Keep::Nothing).0
                }
                Precision::Int8 => {
                    Operands::new::<bf16>(operands, &settings.form).forward::<bf16, i8>(&settings, Keep::Nothing).0
                }
            }
        }
    }

    impl<C: CheckpointStrategy> ResidualNorm for Autodiff<Flex, C> {
        fn residual_norm(
            x: FloatTensor<Self>,
            residual: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self> {
            let operands = [x, residual, weight, bias, gamma, beta];
            match settings.products.precision {
                Precision::F32 => tracked::<f32, C>(operands, settings),
                Precision::Bf16 | Precision::Int8 => tracked::<bf16, C>(operands, settings),
            }
        }
    }

    fn tracked<E: Value, C: CheckpointStrategy>(
        operands: [FloatTensor<Autodiff<Flex, C>>; 6],
        settings: Settings,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let parts = operands.map(|operand| operand.into_parts());
        let tensors = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let nodes = parts.map(|(_, node)| node);
        let operands = Operands::new::<E>(tensors, &settings.form);
        match ResidualNormBackward::<E>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let keep = operands.keep::<E>(&settings);
                let (out, normalized) = operands.forward::<E, E>(&settings, keep);
                let Operands { x, weight, gamma, beta, .. } = operands;
                let x = weight.is_trained().then_some(x);
                let kept = |Normalized { rows, inverse_deviations }| {
                    let (rows, beta) = match keep {
                        Keep::Deviations => (out.clone(), Some(beta)),
                        Keep::Nothing | Keep::Rows => (flex::new(rows, out.layout().shape().as_slice()), None),
                    };
                    Kept { gamma, beta, rows, inverse_deviations }
                };
                let state = State { x, weight, norm: normalized.map(kept), dropout: settings.dropout };
                prepared.finish(state, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(operands.forward::<E, E>(&settings, Keep::Nothing).0),
        }
    }

    #[derive(Debug)]
    struct ResidualNormBackward<E>(PhantomData<E>);

    #[derive(Clone, Debug)]
    struct State {
        /// The input of the linear layer, if its weight gets a gradient.
        x: Option<FlexTensor>,
        weight: Operand,
        norm: Option<Kept>,
        dropout: Option<Dropout>,
    }

    /// What the backward pass of the normalization needs.
    #[derive(Clone, Debug)]
    struct Kept {
        gamma: FlexTensor,
        /// β, if `rows` is the output.
        beta: Option<FlexTensor>,
        /// The normalized rows, or the normalization's output.
        rows: FlexTensor,
        inverse_deviations: Vec<f32>,
    }

    impl<E: Value> Backward<Flex, 6> for ResidualNormBackward<E> {
        type State = State;

        fn backward(self, ops: Ops<State, 6>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let State { x, weight, norm, dropout } = ops.state;
            let [x_node, residual_node, weight_node, bias_node, gamma_node, beta_node] = ops.parents;
            let simd = Simd::detect();
            let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
            let [rows, hidden] = rows_and_columns(&gradient);
            let of_norm = match norm {
                Some(Kept { gamma, beta, rows, inverse_deviations }) => {
                    let rows = match &beta {
                        Some(beta) => NormRows::Output { values: values(&rows), bias: values(beta) },
                        None => NormRows::Kept(values::<E>(&rows)),
                    };
                    norm_backward(simd, values(&gradient), rows, &inverse_deviations, values(&gamma))
                }
                None => NormGradients { residual: values(&gradient).to_vec(), weight: vec![], bias: vec![] },
            };
            let NormGradients { residual, weight: of_gamma, bias: of_beta } = of_norm;
            let (of_linear, of_bias) = drop_and_sum::<E>(simd, &residual, hidden, dropout);
            let of_linear = View::new(&of_linear, rows, hidden, hidden);

            let [input, _] = weight.shape();
            let (shape, read) = (gradient.layout().shape().clone(), with_last(&gradient, input));
            // Freed before the largest buffers are allocated.
            drop(gradient);
            let linear = LinearBackward { x: x.as_ref(), shape: &read, weight: &weight, gradient: of_linear };
            linear.register::<E>([x_node, weight_node].map(|node| node.map(|node| node.id)), gradients);
            for (node, values, shape) in [
                (residual_node, residual, shape.as_slice()),
                (bias_node, of_bias, &[hidden]),
                (gamma_node, of_gamma, &[hidden]),
                (beta_node, of_beta, &[hidden]),
            ] {
                if let Some(node) = node {
                    gradients.register::<Flex>(node.id, flex::new(values, shape));
                }
            }
        }
    }
}
