use burn::tensor::Tensor;

use crate::{ActivatedLinear, OutputBlock, Products};

/// The operations of a BERT layer after attention, which apply to each position on its own: the end of the attention block,
/// and the feed-forward block.
#[derive(Clone, Debug)]
pub struct PositionWise {
    /// The end of the attention block.
    pub attention_output: OutputBlock,
    /// The first layer of the feed-forward block, from `hidden` to `intermediate`.
    pub intermediate: ActivatedLinear,
    /// The end of the feed-forward block, from `intermediate` to `hidden`.
    pub output: OutputBlock,
}

impl PositionWise {
    /// Computes `output(intermediate(a), a)` with `a = attention_output(context, residual)`.
    ///
    /// On the CPU, inference with packed weights ([`Products::packed`]) computes this in one operation, with the same
    /// results.
    ///
    /// # Shapes
    /// - `context`: `[batch, seq, heads · head]`, the output of the attention heads
    /// - `residual`, output: `[batch, seq, hidden]`
    pub fn forward(self, context: Tensor<3>, residual: Tensor<3>, products: &Products) -> Tensor<3> {
        #[cfg(feature = "flex")]
        if fused::is_read(&self, &context, products) {
            return fused::position_wise(self, context, residual, products);
        }
        let attended = self.attention_output.forward(context, residual, products);
        self.output.forward(self.intermediate.forward(attended.clone(), products), attended, products)
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::tensor::Tensor;
    use burn_flex::FlexTensor;
    use half::bf16;

    use super::PositionWise;
    use crate::cpu::{self, Kernels, Norm, Simd, Source, Stage, is_many};
    use crate::flex::{self, Value, matrix, primitive, rounded, values};
    use crate::weight::Operand;
    use crate::{Affine, LayerNorm, Precision, Products};

    /// Whether there is no backward pass, the packed weights are kept, and there are enough positions for all threads.
    pub(super) fn is_read(layer: &PositionWise, context: &Tensor<3>, products: &Products) -> bool {
        let [batch, seq, _] = context.dims();
        let has_norms = layer.attention_output.norm.is_some() && layer.output.norm.is_some();
        let has_backward = context.is_autodiff() || products.dropout_seeds.is_some();
        let is_kept = products.packed.is_some();
        is_kept && !has_backward && has_norms && is_many(batch * seq) && crate::is_fused(&context.device())
    }

    pub(super) fn position_wise(
        layer: PositionWise,
        context: Tensor<3>,
        residual: Tensor<3>,
        products: &Products,
    ) -> Tensor<3> {
        match products.precision {
            Precision::F32 => forward::<f32, f32>(layer, context, residual, products),
            Precision::Bf16 => forward::<bf16, bf16>(layer, context, residual, products),
            Precision::Int8 => forward::<bf16, i8>(layer, context, residual, products),
        }
    }

    fn forward<E: Value + Source<W>, W: Kernels>(
        layer: PositionWise,
        context: Tensor<3>,
        residual: Tensor<3>,
        products: &Products,
    ) -> Tensor<3> {
        let PositionWise { attention_output, intermediate, output } = layer;
        let dims = residual.dims();
        let (context, residual) = (rounded::<E>(primitive(context)), primitive(residual));
        let norms = [attention_output.norm, output.norm].map(|norm| Scales::new(norm.expect("it was asked for")));
        let activation = intermediate.activation;
        let stages = [attention_output.dense, intermediate.linear, output.dense].map(|Affine { weight, bias }| {
            let (weight, form) = weight.into_parts(products);
            (products.pack::<W>(&[&Operand::new(primitive(weight), form)]), primitive(bias))
        });
        let [attention_output, intermediate, output] =
            stages.each_ref().map(|(weight, bias)| Stage { weight: &**weight, bias: values(bias) });
        let layer = cpu::PositionWise {
            attention_output: (attention_output, norms[0].norm()),
            intermediate: (intermediate, activation),
            output: (output, norms[1].norm()),
        };
        let out = layer.run::<E>(Simd::detect(), matrix(&context), values(&residual));
        Tensor::from_primitive::<Flex>(flex::new(out, &dims))
    }

    /// The parameters of a normalization, as contiguous tensors.
    struct Scales {
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f32,
    }

    impl Scales {
        fn new(LayerNorm { gamma, beta, epsilon }: LayerNorm) -> Self {
            Self { gamma: primitive(gamma), beta: primitive(beta), epsilon: epsilon as f32 }
        }

        fn norm(&self) -> Norm<'_> {
            Norm { weight: values(&self.gamma), bias: values(&self.beta), epsilon: self.epsilon }
        }
    }
}
