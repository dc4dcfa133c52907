//! A weight with a low-rank update: LoRA (Hu et al., 2021), rsLoRA (Kalajdzievski, 2023) and DoRA (Liu et al., 2024).

use burn::tensor::Tensor;

use crate::{Products, dropout::plain_dropout};

/// A low-rank update of a weight `W`, which becomes `W + scale · a · b`. With a magnitude, each column of this sum is
/// scaled to that norm.
///
/// In training, the weight itself gets no gradient, and no gradient of its shape is computed. The gradients of `a` and `b`
/// come from products of rank `r`, and the gradient of the magnitude comes from the layer's output.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[input, rank]`
    pub a: Tensor<2>,
    /// `[rank, output]`
    pub b: Tensor<2>,
    /// The factor of the product `a · b`.
    pub scale: f64,
    /// DoRA's magnitude, `[output]`. All gradients treat the norms of the sum's columns as constants, as in peft.
    pub magnitude: Option<Tensor<1>>,
    /// The probability with which training drops a feature of the layer's input before it is multiplied with `a`. The
    /// dropped features are the same for all tokens of a batch, so that one weight applies to all of them.
    pub dropout: f64,
}

impl LowRank {
    /// Applies the dropout to `a`.
    pub(crate) fn dropped(self, products: &Products) -> Self {
        let [input, _] = self.a.dims();
        let kept = plain_dropout(Tensor::ones([input, 1], &self.a.device()), self.dropout, products);
        let a = if self.dropout > 0.0 { self.a * kept } else { self.a };
        Self { a, dropout: 0.0, ..self }
    }

    /// Adds the update to `weight` with burn's operations.
    pub(crate) fn added(self, weight: Tensor<2>) -> Tensor<2> {
        let sum = weight + self.a.matmul(self.b) * self.scale;
        match self.magnitude {
            None => sum,
            Some(magnitude) => {
                let norms = sum.clone().square().sum_dim(0).sqrt().detach();
                sum * (magnitude.unsqueeze() / norms)
            }
        }
    }
}

#[cfg(feature = "flex")]
pub(crate) use fused::{Factors, carrier};

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;
    use burn_flex::FlexTensor;

    use super::LowRank;
    use crate::cpu::{Epilogue, Packed, Simd, Target, View, product};
    use crate::flex::{self, Value, column_sums, primitive, values};

    /// The tensors of a [`LowRank`].
    #[derive(Clone, Debug)]
    pub struct Factors {
        a: FlexTensor,
        b: FlexTensor,
        scale: f32,
        magnitude: Option<FlexTensor>,
    }

    impl From<LowRank> for Factors {
        fn from(low_rank: LowRank) -> Self {
            let LowRank { a, b, scale, magnitude, dropout: _ } = low_rank;
            Self { a: primitive(a), b: primitive(b), scale: scale as f32, magnitude: magnitude.map(primitive) }
        }
    }

    impl Factors {
        fn shape(&self) -> [usize; 3] {
            let ([input, rank], [_, output]) = (flex::rows_and_columns(&self.a), flex::rows_and_columns(&self.b));
            [input, rank, output]
        }

        pub(crate) fn has_magnitude(&self) -> bool {
            self.magnitude.is_some()
        }

        /// The tensors and the bits of the scale, which identify the update.
        pub(crate) fn parts(&self) -> (impl Iterator<Item = &FlexTensor>, u32) {
            ([&self.a, &self.b].into_iter().chain(&self.magnitude), self.scale.to_bits())
        }

        /// Adds the update to a weight's values, row-major `[input, output]`. If there is a magnitude, returns the factor
        /// that each column was multiplied with.
        pub(crate) fn add_to(&self, weight: &mut [f32]) -> Option<Vec<f32>> {
            let [input, rank, output] = self.shape();
            let (simd, scaled) = (Simd::detect(), scaled(values(&self.a), self.scale));
            let packed = Packed::<f32>::new(simd, View::new(values::<f32>(&self.b), rank, output, output));
            let out = Target::whole(weight, output);
            product(simd, View::new(&scaled, input, rank, rank), &packed, out, Epilogue::Accumulate);
            let magnitude = self.magnitude.as_ref()?;
            let squares: Vec<f32> = weight.iter().map(|value| value * value).collect();
            let norms = column_sums(&squares, output).into_iter().map(f32::sqrt);
            let factors: Vec<f32> = values::<f32>(magnitude).iter().zip(norms).map(|(m, norm)| m / norm).collect();
            scale_columns(weight, &factors);
            Some(factors)
        }

        /// Returns the gradients of `a`, `b` and the magnitude, concatenated in one tensor.
        ///
        /// `sum` is the weight with the update, and `factors` is the result of [`Factors::add_to`].
        pub(crate) fn gradient<E: Value>(
            &self,
            (sum, factors): (&[f32], Option<Vec<f32>>),
            x: View<'_, E>,
            gradient: View<'_, E>,
        ) -> FlexTensor {
            let [input, rank, output] = self.shape();
            let (simd, rows) = (Simd::detect(), x.rows());
            let mut of_magnitude = Vec::new();
            let mut scaled_gradient = Vec::new();
            if let (Some(factors), Some(magnitude)) = (factors, &self.magnitude) {
                let packed = Packed::<E>::new(simd, View::new(sum, input, output, output));
                let mut product_with_sum = vec![0f32; rows * output];
                product(simd, x, &packed, Target::whole(&mut product_with_sum, output), Epilogue::Store);
                for (row, products) in product_with_sum.chunks_exact_mut(output.max(1)).enumerate() {
                    let gradients = gradient.row(row).expect("a gradient's rows lie in one piece");
                    products.iter_mut().zip(gradients).for_each(|(value, gradient)| *value *= gradient.to_f32());
                }
                // The output is proportional to the magnitude.
                let sums = column_sums(&product_with_sum, output);
                of_magnitude = sums.iter().zip(values::<f32>(magnitude)).map(|(sum, m)| sum / m).collect();
                for row in 0..rows {
                    let gradients = gradient.row(row).expect("a gradient's rows lie in one piece");
                    scaled_gradient
                        .extend(gradients.iter().zip(&factors).map(|(g, factor)| E::from_f32(g.to_f32() * factor)));
                }
            }
            let gradient =
                if scaled_gradient.is_empty() { gradient } else { View::new(&scaled_gradient, rows, output, output) };

            let mut out = vec![0f32; input * rank + rank * output];
            let (of_a, of_b) = out.split_at_mut(input * rank);
            let b = scaled(values(&self.b), self.scale);
            let packed = Packed::<E>::new(simd, View::new(&b, rank, output, output).transposed());
            let mut through_b = vec![0f32; rows * rank];
            product(simd, gradient, &packed, Target::whole(&mut through_b, rank), Epilogue::Store);
            let packed = Packed::<E>::new(simd, View::new(&through_b, rows, rank, rank));
            product(simd, x.transposed(), &packed, Target::whole(of_a, rank), Epilogue::Store);

            let a = scaled(values(&self.a), self.scale);
            let packed = Packed::<E>::new(simd, View::new(&a, input, rank, rank));
            let mut through_a = vec![0f32; rows * rank];
            product(simd, x, &packed, Target::whole(&mut through_a, rank), Epilogue::Store);
            let packed = Packed::<E>::new(simd, gradient);
            let through_a = View::new(&through_a, rows, rank, rank).transposed();
            product(simd, through_a, &packed, Target::whole(of_b, output), Epilogue::Store);
            out.extend(of_magnitude);
            let len = out.len();
            flex::new(out, &[len])
        }
    }

    fn scaled(values: &[f32], scale: f32) -> Vec<f32> {
        values.iter().map(|value| value * scale).collect()
    }

    fn scale_columns(values: &mut [f32], factors: &[f32]) {
        for row in values.chunks_exact_mut(factors.len().max(1)) {
            row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
        }
    }

    #[backend_extension(Flex, Autodiff)]
    pub trait LowRankOps: Backend {
        fn low_rank_carrier(
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            magnitude: FloatTensor<Self>,
        ) -> FloatTensor<Self>;
    }

    /// Returns a placeholder tensor that represents the factors in the graph. The operation that multiplies with the
    /// adapted weight registers the result of [`Factors::gradient`] for it, and the backward pass of the placeholder splits
    /// it among the factors.
    pub(crate) fn carrier(low_rank: &LowRank) -> Tensor<2> {
        let LowRank { a, b, magnitude, .. } = low_rank.clone();
        let magnitude = magnitude.unwrap_or_else(|| Tensor::zeros([1], &a.device()));
        Tensor::from_dispatch(<Dispatch as LowRankOps>::low_rank_carrier(
            a.into_dispatch(),
            b.into_dispatch(),
            magnitude.into_dispatch(),
        ))
    }

    impl LowRankOps for Flex {
        fn low_rank_carrier(_a: FlexTensor, _b: FlexTensor, _magnitude: FlexTensor) -> FlexTensor {
            flex::new(vec![0f32], &[1, 1])
        }
    }

    impl<C: CheckpointStrategy> LowRankOps for Autodiff<Flex, C> {
        fn low_rank_carrier(
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            magnitude: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            let parts = [a, b, magnitude].map(|operand| operand.into_parts());
            let shapes = parts.each_ref().map(|(tensor, _)| tensor.layout().shape().as_slice().to_vec());
            let nodes = parts.map(|(_, node)| node);
            let nothing = flex::new(vec![0f32], &[1, 1]);
            match CarrierBackward.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish(shapes, nothing),
                OpsKind::UnTracked(prepared) => prepared.finish(nothing),
            }
        }
    }

    #[derive(Debug)]
    struct CarrierBackward;

    impl Backward<Flex, 3> for CarrierBackward {
        /// The shapes of `a`, `b` and the magnitude.
        type State = [Vec<usize>; 3];

        fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let gradient = flex::contiguous(gradients.consume::<Flex>(&ops.node));
            let mut rest = values::<f32>(&gradient);
            for (node, shape) in ops.parents.into_iter().zip(ops.state) {
                let (own, later) = rest.split_at(shape.iter().product::<usize>().min(rest.len()));
                if let Some(node) = node {
                    gradients.register::<Flex>(node.id, flex::new(own.to_vec(), &shape));
                }
                rest = later;
            }
        }
    }
}
